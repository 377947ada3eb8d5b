//! Faults: how what a walk of the primary MMU found comes into the table.

use super::held::Held;
use super::lock::Denied;
use super::{Attempt, Attempts, FaultError, Mirror, Table};
use crate::address::Range;
use crate::diagnostics::{self, Rule};
use crate::drain::Refusal;
use crate::interval::ReadToken;

impl<T: Table> Mirror<T> {
    /// Brings a translation in: `walk` reads the primary MMU, without any lock; then `commit` inserts what it
    /// found, under the table's lock, if no invalidation hit the range meanwhile. Otherwise it is walked again.
    ///
    /// # Errors
    /// [`FaultError::Gone`] if the space has no users any more; what `walk` returned as
    /// [`FaultError::Walk`]; [`FaultError::Lost`].
    ///
    /// # Panics
    /// If this thread has the table's lock. If `commit` panics the table is cleared before its next use.
    ///
    /// # Context
    /// May sleep: it waits for invalidations that overlap the range. Not in the mirror's own closures, in a
    /// callback, or under an invalidation of this thread that overlaps the range.
    pub fn fault<'m, V, R, E>(
        &'m self,
        walk: impl FnMut(Attempt<'m, T>) -> Result<V, E>,
        commit: impl FnOnce(&mut T, V) -> R,
    ) -> Result<R, FaultError<E>> {
        self.fault_within(self.range(), Attempts::UNBOUNDED, walk, commit)
    }

    /// The same for a part of the range, with a bound on the walks or the time. It waits for invalidations of
    /// that part only, and `commit` may insert what lies in it, and nothing else.
    ///
    /// ```
    /// use core::time::Duration;
    /// use mmu_notifier::mirror::{Attempts, FaultError, Mirror};
    /// use mmu_notifier::{AddressSpace, Range};
    ///
    /// let space = AddressSpace::new();
    /// let mirror = Mirror::new(&space, Range::ALL, None).unwrap();
    /// let patience = Attempts::UNBOUNDED.within(Duration::from_millis(1));
    /// let fault = || {
    ///     mirror.fault_within(Range::ALL, patience, |_| Ok::<_, ()>(42), |table, frame| *table = Some(frame))
    /// };
    /// // A guard that is forgotten holds nobody up for ever.
    /// let active = space.invalidate_start(Range::ALL);
    /// assert_eq!(fault(), Err(FaultError::Contended));
    /// active.end();
    /// assert_eq!(fault(), Ok(()));
    /// ```
    ///
    /// # Errors
    /// As [`fault`](Self::fault), and [`FaultError::Contended`] if the bound was reached.
    ///
    /// # Panics
    /// As [`fault`](Self::fault), and if `range` does not lie in the mirror's own.
    ///
    /// # Context
    /// As [`fault`](Self::fault).
    pub fn fault_within<'m, V, R, E>(
        &'m self,
        range: Range,
        attempts: Attempts,
        walk: impl FnMut(Attempt<'m, T>) -> Result<V, E>,
        commit: impl FnOnce(&mut T, V) -> R,
    ) -> Result<R, FaultError<E>> {
        let (mut held, value, ()) = self.fault_until(range, attempts, walk, || Ok(()))?;
        Ok(held.run(|table| commit(table, value)))
    }

    /// Takes a token, if the space has users.
    fn begin_read<E>(&self, range: Range, deadline: Option<u64>) -> Result<ReadToken, FaultError<E>> {
        self.check_users()?;
        self.subscription.read_begin_part(range, deadline).ok_or(FaultError::Contended)
    }

    /// Looks for what would make this thread wait for itself.
    fn check_fault(&self, deadline: Option<u64>) {
        if self.subscription.lock.is_own() {
            self.subscription.locked_twice("fault");
        }
        if diagnostics::ENABLED && deadline.is_none() && self.drain().has_own() {
            diagnostics::report(Rule::FaultInUse, "fault", self.subscription.label);
        }
    }

    // CONTRACT C6.1: after the exit: gone.
    fn check_users<E>(&self) -> Result<(), FaultError<E>> {
        if self.space().has_users() { Ok(()) } else { Err(FaultError::Gone) }
    }

    /// Walks until what was found is fresh under the lock, and `enter` has let it in.
    pub(super) fn fault_until<'m, V, P, E>(
        &'m self,
        range: Range,
        attempts: Attempts,
        mut walk: impl FnMut(Attempt<'m, T>) -> Result<V, E>,
        enter: impl Fn() -> Result<P, Refusal>,
    ) -> Result<(Held<'m, T>, V, P), FaultError<E>> {
        self.check_range(range);
        let deadline = attempts.deadline();
        self.check_fault(deadline);
        for number in 1.. {
            let token = self.begin_read(range, deadline)?;
            let value = walk(Attempt { mirror: self, token, number }).map_err(FaultError::Walk)?;
            let held = self.lock("fault", deadline).map_err(|denied| match denied {
                Denied::Lost => FaultError::Lost,
                Denied::Busy | Denied::Own => FaultError::Contended,
            })?;
            // CONTRACT C3.5: under the lock that the callback takes.
            if !self.subscription.read_retry(token) {
                // Behind an exit's invalidation the users are seen to be gone; before it, that comes here too.
                self.check_users()?;
                match enter() {
                    Ok(permit) => return Ok((held, value, permit)),
                    Err(Refusal::Busy) => {}
                    Err(Refusal::OutOfMemory) => return Err(FaultError::OutOfMemory),
                    Err(Refusal::Lost) => return Err(FaultError::Lost),
                }
            }
            drop(held);
            if !attempts.allow_more(number, deadline) {
                break;
            }
        }
        Err(FaultError::Contended)
    }
}
