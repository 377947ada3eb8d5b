//! The lock of a mirror: it sleeps, lets invalidations go first, and knows who holds it.
//!
//! # Protocol
//! `holder` is 0, or the thread that has the lock with the number of forks at that time. An ordinary taker
//! stands back while an invalidation waits (`first`), so readers that retry do not starve one; when it has had
//! its turn, its unlock wakes everybody. In the child of a fork a lock whose holder stayed behind is *lost*:
//! what it guards may be half-written, so nobody gets it any more, nobody waits for it, and it is not dropped.

#![expect(unsafe_code, reason = "a lock leads to what it guards")]

use core::cell::UnsafeCell;
use core::fmt;
use core::mem::ManuallyDrop;
use core::ops::{Deref, DerefMut};

use crate::fork;
use crate::platform::{self, Bell};
use crate::sync::{AtomicU64, Ordering};

/// # Invariants
/// - Who has moved `holder` from 0 to its own word, and nobody else, uses `value` until it stores 0 again.
/// - While `holder` is 0, `value` is there and whole.
pub(crate) struct Lock<T> {
    holder: AtomicU64,
    /// Invalidations that wait: their number, and above it the number of forks that this goes with.
    first: AtomicU64,
    bell: Bell,
    value: UnsafeCell<ManuallyDrop<T>>,
}

// SAFETY: the value is handed from thread to thread by `holder`.
unsafe impl<T: Send> Sync for Lock<T> {}

/// Why somebody does not get a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Denied {
    /// Another thread has it.
    Busy,
    /// The calling thread has it.
    Own,
    /// A thread had it that was not forked with this one.
    Lost,
}

/// What is exclusive until it is dropped.
pub(crate) struct Guard<'l, T> {
    lock: &'l Lock<T>,
}

/// The bits of a holder's word for the number of forks, above the bit that says "held".
const FORK_BITS: u32 = 23;

/// The word of the calling thread as a holder; above the forks its number, 0 if it cannot be told.
#[inline]
fn own_word() -> u64 {
    let thread = platform::thread_id();
    let forks = u64::from(fork::count()) & ((1 << FORK_BITS) - 1);
    thread << (FORK_BITS + 1) | forks << 1 | 1
}

impl<T> Lock<T> {
    pub(crate) fn new(value: T) -> Self {
        Lock {
            holder: AtomicU64::new(0),
            first: AtomicU64::new(0),
            bell: Bell::new(),
            value: UnsafeCell::new(ManuallyDrop::new(value)),
        }
    }

    pub(crate) fn into_inner(mut self) -> T {
        // INVARIANT: the value goes, so the holder is not 0 any more.
        self.holder.store(own_word(), Ordering::Relaxed);
        // SAFETY: with that holder nobody uses or drops the value again.
        unsafe { ManuallyDrop::take(self.value.get_mut()) }
    }

    /// Takes the lock, behind invalidations that wait; [`Denied::Busy`] if the deadline came first.
    ///
    /// # Context
    /// May sleep.
    #[inline]
    pub(crate) fn lock(&self, deadline: Option<u64>) -> Result<Guard<'_, T>, Denied> {
        // Nobody waits first, in this process or another, and it is free: there is nothing else to look at.
        if self.first.load(Ordering::Relaxed) as u32 == 0 {
            if let Ok(guard) = self.try_lock() {
                return Ok(guard);
            }
        }
        self.lock_slowly(deadline)
    }

    #[cold]
    fn lock_slowly(&self, deadline: Option<u64>) -> Result<Guard<'_, T>, Denied> {
        self.wait(deadline, || {
            // The holder before those that wait: its own thread must not wait for itself.
            self.look()?;
            if self.waiting_first() != 0 { Err(Denied::Busy) } else { self.try_lock() }
        })
    }

    /// Takes the lock before everybody who waits in [`lock`](Self::lock).
    ///
    /// # Context
    /// May sleep.
    pub(crate) fn lock_first(&self) -> Result<Guard<'_, T>, Denied> {
        if let Ok(guard) = self.try_lock() {
            return Ok(guard);
        }
        self.change_first(|waiting| waiting + 1);
        let result = self.wait(None, || self.try_lock());
        // Under the lock: its unlock wakes those that stood back.
        self.change_first(|waiting| waiting.saturating_sub(1));
        result
    }

    /// Takes the lock if it is free.
    ///
    /// # Context
    /// Does not sleep.
    #[inline]
    pub(crate) fn try_lock(&self) -> Result<Guard<'_, T>, Denied> {
        // ORDERING: acquire pairs with the release of the guard before.
        match self.holder.compare_exchange(0, own_word(), Ordering::Acquire, Ordering::Relaxed) {
            Ok(_) => Ok(Guard { lock: self }),
            Err(held) => Err(denied(held)),
        }
    }

    /// Takes a lock that is only ever held for a few instructions; none if it is lost.
    ///
    /// # Context
    /// Does not sleep.
    #[inline]
    pub(crate) fn spin(&self) -> Option<Guard<'_, T>> {
        self.try_lock().ok().or_else(|| self.spin_long())
    }

    #[cold]
    fn spin_long(&self) -> Option<Guard<'_, T>> {
        let mut turns = 0;
        loop {
            match self.try_lock() {
                Ok(guard) => return Some(guard),
                Err(Denied::Lost) => return None,
                Err(_) => platform::relax(&mut turns),
            }
        }
    }

    /// Says whether the calling thread has the lock.
    #[inline]
    pub(crate) fn is_own(&self) -> bool {
        self.look() == Err(Denied::Own)
    }

    /// Says who would stand in the way.
    #[inline]
    fn look(&self) -> Result<(), Denied> {
        match self.holder.load(Ordering::Relaxed) {
            0 => Ok(()),
            held => Err(denied(held)),
        }
    }

    /// Tries until it is settled, or the deadline comes.
    fn wait<'l>(
        &'l self,
        deadline: Option<u64>,
        mut attempt: impl FnMut() -> Result<Guard<'l, T>, Denied>,
    ) -> Result<Guard<'l, T>, Denied> {
        let mut result = attempt();
        if matches!(result, Err(Denied::Busy)) {
            self.bell.wait_until(deadline, || {
                result = attempt();
                !matches!(result, Err(Denied::Busy))
            });
        }
        result
    }

    /// How many invalidations wait, in this process.
    fn waiting_first(&self) -> u64 {
        in_this_process(self.first.load(Ordering::Relaxed))
    }

    fn change_first(&self, change: impl Fn(u64) -> u64) {
        let forks = u64::from(fork::count()) << 32;
        let new = |first| Some(forks | change(in_this_process(first)));
        // It always succeeds: `new` never says none.
        let _ = self.first.fetch_update(Ordering::Relaxed, Ordering::Relaxed, new);
    }
}

/// The number of waiters in a word of `first`, if they are not those of the process that was forked.
fn in_this_process(first: u64) -> u64 {
    if first >> 32 == u64::from(fork::count()) { first & u64::from(u32::MAX) } else { 0 }
}

/// Says what it means that a holder with this word has the lock.
#[cold]
fn denied(held: u64) -> Denied {
    let own = own_word();
    let thread = |word: u64| word >> (FORK_BITS + 1);
    if thread(own) != 0 && thread(held) == thread(own) {
        Denied::Own
    } else if (held ^ own) & ((1 << (FORK_BITS + 1)) - 1) != 0 {
        // CONTRACT C7.3: it was taken before the fork, by a thread that is not here.
        Denied::Lost
    } else {
        Denied::Busy
    }
}

impl<T> Drop for Lock<T> {
    fn drop(&mut self) {
        if self.holder.load(Ordering::Relaxed) == 0 {
            // SAFETY: the holder is 0, so the value is there, and it is not used after this.
            unsafe { ManuallyDrop::drop(self.value.get_mut()) };
        }
    }
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the guard is the one that may use the value.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T> DerefMut for Guard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the guard is the one that may use the value.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T> Drop for Guard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        // ORDERING: release, for the next holder's acquire.
        self.lock.holder.store(0, Ordering::Release);
        if self.lock.bell.is_heard() {
            self.lock.bell.ring();
        }
    }
}

impl<T> fmt::Debug for Lock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lock")
    }
}

#[cfg(all(test, feature = "std", not(any(loom, shuttle))))]
mod tests {
    use std::sync::Mutex;
    use std::thread::{scope, yield_now};
    use std::vec::Vec;

    use super::*;

    #[test]
    fn an_invalidation_that_waits_goes_first() {
        for _ in 0..50 {
            let lock = Lock::new(());
            let order = Mutex::new(Vec::new());
            let held = lock.try_lock().ok().unwrap();
            scope(|scope| {
                for _ in 0..3 {
                    scope.spawn(|| {
                        let _guard = lock.lock(None).ok().unwrap();
                        order.lock().unwrap().push("reader");
                    });
                }
                scope.spawn(|| {
                    let _guard = lock.lock_first().ok().unwrap();
                    order.lock().unwrap().push("invalidation");
                });
                while lock.waiting_first() == 0 {
                    yield_now();
                }
                drop(held);
            });
            assert_eq!(order.into_inner().unwrap()[0], "invalidation");
        }
    }

    #[test]
    fn what_is_taken_out_is_not_dropped_again() {
        let value = std::sync::Arc::new(());
        let lock = Lock::new(std::sync::Arc::clone(&value));
        assert_eq!(std::sync::Arc::strong_count(&lock.into_inner()), 2);
        drop(Lock::new(std::sync::Arc::clone(&value)));
        assert_eq!(std::sync::Arc::strong_count(&value), 1);
    }
}
