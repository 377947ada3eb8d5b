//! The one queue of a space in which readers and removes sleep.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Sleepers, and how many there are. Waking nobody costs a lock and no system call.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    sleepers: Mutex<usize>,
    woken: Condvar,
}

impl Queue {
    /// Sleeps until `done`, which whoever makes it true has to follow with [`wake_all`](Self::wake_all).
    #[cold]
    pub(crate) fn wait_until(&self, done: impl Fn() -> bool) {
        let mut sleepers = self.lock();
        *sleepers += 1;
        // No wake is lost: who made it true after this look takes the lock later, and finds the sleeper.
        while !done() {
            sleepers = self.woken.wait(sleepers).unwrap_or_else(PoisonError::into_inner);
        }
        *sleepers -= 1;
    }

    /// Lets everybody look again.
    #[inline]
    pub(crate) fn wake_all(&self) {
        if *self.lock() != 0 {
            self.woken.notify_all();
        }
    }

    #[inline]
    fn lock(&self) -> MutexGuard<'_, usize> {
        self.sleepers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
