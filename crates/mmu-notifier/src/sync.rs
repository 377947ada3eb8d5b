//! The atomics and fences of the crate, and their stand-ins under the model checkers.
//!
//! Store-then-load order is written as relaxed accesses around [`full_fence`]; DESIGN calls it F. On
//! x86-64 a swap may be publication and fence in one ([`publish`]); the model checkers and Thread Sanitizer
//! see plain accesses and a fence, or what they understand in place of one.

#[cfg(not(any(loom, shuttle)))]
pub(crate) use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};
#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};
#[cfg(shuttle)]
pub(crate) use shuttle::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};

/// Orders every access before it against every access behind it, stores before loads included.
#[inline(always)]
pub(crate) fn full_fence() {
    #[cfg(not(any(loom, shuttle, mmu_notifier_tsan)))]
    core::sync::atomic::fence(Ordering::SeqCst);
    #[cfg(loom)]
    loom::sync::atomic::fence(Ordering::SeqCst);
    // Shuttle runs sequentially consistent schedules only.
    #[cfg(shuttle)]
    shuttle::sync::atomic::fence(Ordering::SeqCst);
    #[cfg(all(mmu_notifier_tsan, not(any(loom, shuttle))))]
    tsan_fence();
}

/// Orders the loads before it against every access behind it.
#[inline(always)]
pub(crate) fn acquire_fence() {
    #[cfg(not(any(loom, shuttle, mmu_notifier_tsan)))]
    core::sync::atomic::fence(Ordering::Acquire);
    #[cfg(loom)]
    loom::sync::atomic::fence(Ordering::Acquire);
}

/// Orders every access before it against the stores behind it.
#[inline(always)]
pub(crate) fn release_fence() {
    #[cfg(not(any(loom, shuttle, mmu_notifier_tsan)))]
    core::sync::atomic::fence(Ordering::Release);
    #[cfg(loom)]
    loom::sync::atomic::fence(Ordering::Release);
}

/// A read-modify-write of one word: Thread Sanitizer has no idea of fences, but sees that the second of two
/// such operations happens after the first.
#[cfg(all(mmu_notifier_tsan, not(any(loom, shuttle))))]
fn tsan_fence() {
    static LAST: AtomicU64 = AtomicU64::new(0);
    LAST.fetch_add(1, Ordering::SeqCst);
}

/// Stores `value` with release semantics and orders the store against every load behind it.
#[inline(always)]
pub(crate) fn publish(word: &AtomicU64, value: u64) {
    if cfg!(all(target_arch = "x86_64", not(any(loom, shuttle, mmu_notifier_tsan)))) {
        // ORDERING: a locked exchange is a full barrier on x86-64, and the compiler moves no later access
        // above an acquiring operation; so it stands for the store and the fence below.
        word.swap(value, Ordering::SeqCst);
    } else {
        word.store(value, Ordering::Release);
        full_fence();
    }
}

/// Exchanges the value of a word, acquire and release, and orders what comes before against every load behind it.
#[inline(always)]
pub(crate) fn exchange(word: &AtomicU32, value: u32) -> u32 {
    if cfg!(all(target_arch = "x86_64", not(any(loom, shuttle, mmu_notifier_tsan)))) {
        // ORDERING: as in `publish`: a locked exchange is the fence.
        word.swap(value, Ordering::SeqCst)
    } else {
        let before = word.swap(value, Ordering::AcqRel);
        full_fence();
        before
    }
}

/// A lock that spins, for the few instructions in which the library changes its own books.
///
/// It is never held while a callback, an allocator or a destructor runs, so its holder cannot need it again.
#[derive(Debug, Default)]
pub(crate) struct SpinLock {
    held: AtomicU32,
}

impl SpinLock {
    pub(crate) fn new() -> Self {
        SpinLock { held: AtomicU32::new(0) }
    }

    /// Takes the lock.
    #[inline]
    pub(crate) fn lock(&self) -> SpinGuard<'_> {
        if !self.try_take() {
            self.wait();
        }
        SpinGuard { lock: self }
    }

    #[inline]
    fn try_take(&self) -> bool {
        // ORDERING: acquire pairs with the release of the holder before.
        self.held.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    #[cold]
    fn wait(&self) {
        let mut turns = 0;
        while self.held.load(Ordering::Relaxed) != 0 || !self.try_take() {
            crate::platform::relax(&mut turns);
        }
    }

    /// Takes the lock without a guard, for a fork that holds many.
    pub(crate) fn lock_for_fork(&self) {
        core::mem::forget(self.lock());
    }

    /// Opens a lock that [`lock_for_fork`](Self::lock_for_fork) took.
    pub(crate) fn unlock_after_fork(&self) {
        self.held.store(0, Ordering::Release);
    }
}

/// The right to change what a [`SpinLock`] guards; dropping it opens the lock.
#[derive(Debug)]
pub(crate) struct SpinGuard<'l> {
    lock: &'l SpinLock,
}

impl SpinGuard<'_> {
    /// Opens the lock and passes a full fence.
    #[inline(always)]
    pub(crate) fn open_fenced(self) {
        if cfg!(all(target_arch = "x86_64", not(any(loom, shuttle, mmu_notifier_tsan)))) {
            // ORDERING: the release, for the next holder, and the fence.
            exchange(&core::mem::ManuallyDrop::new(self).lock.held, 0);
        } else {
            drop(self);
            full_fence();
        }
    }
}

impl Drop for SpinGuard<'_> {
    #[inline]
    fn drop(&mut self) {
        // ORDERING: release, for the next holder's acquire.
        self.lock.held.store(0, Ordering::Release);
    }
}
