//! The table under its lock: what a panic leaves in doubt is cleared before its next use.

use super::Table;
use super::lock::Guard;
use crate::diagnostics;
use crate::platform;

/// What the lock guards.
pub(super) struct State<T> {
    table: T,
    /// Somebody's code is changing the table, or did so when it panicked.
    in_doubt: bool,
}

impl<T> State<T> {
    pub(super) fn new(table: T) -> Self {
        State { table, in_doubt: false }
    }

    pub(super) fn into_table(self) -> T {
        self.table
    }
}

/// The lock, as this thread has it.
pub(super) struct Held<'m, T> {
    guard: Guard<'m, State<T>>,
    /// The space of the lock that this thread had before; for diagnostics.
    outer: u64,
}

impl<'m, T: Table> Held<'m, T> {
    /// Notes that this thread has a lock that callbacks of this space take.
    #[inline]
    pub(super) fn new(guard: Guard<'m, State<T>>, space: u64) -> Self {
        let outer = if diagnostics::ENABLED { platform::exchange_locked(space) } else { 0 };
        Held { guard, outer }
    }

    /// Runs somebody's code on the table.
    #[inline]
    pub(super) fn run<R>(&mut self, code: impl FnOnce(&mut T) -> R) -> R {
        let State { table, in_doubt } = &mut *self.guard;
        if *in_doubt {
            table.clear();
        }
        *in_doubt = true;
        let result = code(table);
        *in_doubt = false;
        result
    }
}

impl<T> Drop for Held<'_, T> {
    #[inline]
    fn drop(&mut self) {
        if diagnostics::ENABLED {
            platform::exchange_locked(self.outer);
        }
    }
}
