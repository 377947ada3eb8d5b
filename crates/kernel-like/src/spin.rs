//! A test-and-set spinlock.
#![expect(unsafe_code, reason = "hands out the value that it guards")]

use std::cell::UnsafeCell;
use std::hint;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// How often to look before the processor is left to somebody else: in user space the holder may be off it.
const LOOKS: u32 = 1000;

/// A value, and a lock that spins.
///
/// # Invariants
/// `value` is used through a [`Guard`] only, and at most one exists: who swapped `locked` from false to true.
#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct Spinlock<T> {
    locked: AtomicBool,
    value: UnsafeCell<T>,
}

// SAFETY: `value` is used by one guard at a time, so that sharing the lock hands a `T` from thread to thread.
unsafe impl<T: Send> Sync for Spinlock<T> {}

impl<T> Spinlock<T> {
    /// Locks.
    #[inline]
    pub(crate) fn lock(&self) -> Guard<'_, T> {
        // ORDERING: pairs with the store in `Guard::drop`: whoever locks sees what the last holder wrote.
        if self.locked.swap(true, Ordering::Acquire) {
            self.lock_contended();
        }
        Guard(self)
    }

    #[cold]
    fn lock_contended(&self) {
        let mut looks = 0;
        loop {
            // ORDERING: only a hint; the swap below decides.
            while self.locked.load(Ordering::Relaxed) {
                looks += 1;
                if looks % LOOKS == 0 { thread::yield_now() } else { hint::spin_loop() }
            }
            // ORDERING: as in `lock`.
            if !self.locked.swap(true, Ordering::Acquire) {
                return;
            }
        }
    }
}

/// The right to use the value.
#[derive(Debug)]
pub(crate) struct Guard<'a, T>(&'a Spinlock<T>);

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: this guard is the only one, and it is borrowed shared.
        unsafe { &*self.0.value.get() }
    }
}

impl<T> DerefMut for Guard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: this guard is the only one, and it is borrowed exclusively.
        unsafe { &mut *self.0.value.get() }
    }
}

impl<T> Drop for Guard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        // ORDERING: pairs with the swaps of `lock`.
        self.0.locked.store(false, Ordering::Release);
    }
}
