//! The map lock of a space (clause C2.3): under it the primary MMU changes what is mapped, and subscribers come
//! first. Its guard is the proof for the `_locked` calls.

#![expect(unsafe_code, reason = "a guard stands for what its caller owes")]

use core::fmt;
use core::ptr;

use crate::platform::{Bell, Context, with_context};
use crate::space::{AddressSpaceRef, Space};
use crate::sync::{AtomicPtr, AtomicU32, Ordering};

/// The state while it is held for writing.
const WRITER: u32 = u32::MAX;

/// A lock for one writer or many readers, without fairness.
#[derive(Debug)]
pub(crate) struct MapLock {
    /// 0, the number of readers, or [`WRITER`].
    state: AtomicU32,
    /// The context of the writer, to be compared only.
    writer: AtomicPtr<Context>,
    bell: Bell,
}

impl MapLock {
    pub(crate) fn new() -> Self {
        MapLock { state: AtomicU32::new(0), writer: AtomicPtr::new(ptr::null_mut()), bell: Bell::new() }
    }

    #[inline]
    fn try_write(&self) -> bool {
        self.state.compare_exchange(0, WRITER, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    fn is_held_for_writing(&self) -> bool {
        self.state.load(Ordering::Relaxed) == WRITER
    }

    fn is_held_for_reading(&self) -> bool {
        !matches!(self.state.load(Ordering::Relaxed), 0 | WRITER)
    }

    fn try_read(&self) -> bool {
        let free = |state| (state < WRITER - 1).then(|| state + 1);
        self.state.fetch_update(Ordering::Acquire, Ordering::Relaxed, free).is_ok()
    }

    #[inline]
    pub(crate) fn write(&self) {
        if !self.try_write() {
            self.wait_to_write();
        }
        let writer = with_context(|context| context.map_or(ptr::null(), ptr::from_ref));
        self.writer.store(writer.cast_mut(), Ordering::Relaxed);
    }

    #[cold]
    fn wait_to_write(&self) {
        self.bell.wait_until(None, || self.try_write());
    }

    pub(crate) fn read(&self) {
        self.bell.wait_until(None, || self.try_read());
    }

    #[inline]
    fn wake(&self) {
        if self.bell.is_heard() {
            self.bell.ring();
        }
    }

    #[inline]
    pub(crate) fn unlock_write(&self) {
        self.writer.store(ptr::null_mut(), Ordering::Relaxed);
        // ORDERING: release, for the next holder's acquire.
        self.state.store(0, Ordering::Release);
        self.wake();
    }

    pub(crate) fn unlock_read(&self) {
        // In the child of a fork the readers were forgotten.
        let one_less = |state: u32| (state != 0 && state != WRITER).then(|| state - 1);
        let _ = self.state.fetch_update(Ordering::Release, Ordering::Relaxed, one_less);
        self.wake();
    }

    /// In the child of a fork: opens the lock, unless this thread holds it for writing. Who holds it for reading
    /// is not known, so they all count as other threads; the guards of this one then let go of nothing.
    pub(crate) fn forget_other_holders(&self, context: Option<&Context>) {
        let writer = self.writer.load(Ordering::Relaxed).cast_const();
        let own = context.is_some_and(|context| ptr::eq(context, writer));
        if !own || self.state.load(Ordering::Relaxed) != WRITER {
            self.writer.store(ptr::null_mut(), Ordering::Relaxed);
            self.state.store(0, Ordering::Relaxed);
        }
        self.bell.forget_waiters();
    }
}

/// The proof that the map lock of a space is held for writing; dropping it opens the lock.
#[must_use = "the lock is held as long as the guard lives"]
pub struct MapLockGuard<'s> {
    pub(crate) space: &'s Space,
}

impl<'s> MapLockGuard<'s> {
    /// The guard of a lock that is held by a caller who has no guard of it any more: it was forgotten. None if
    /// nobody holds the lock for writing.
    ///
    /// # Safety
    /// - It is the caller who holds the lock, or somebody who waits for the caller.
    /// - Of the guards that are made so of one lock, one at the most is dropped.
    pub unsafe fn of_held(space: &'s AddressSpaceRef) -> Option<Self> {
        let space = space.space();
        space.map_lock.is_held_for_writing().then_some(MapLockGuard { space })
    }
}

impl Drop for MapLockGuard<'_> {
    #[inline]
    fn drop(&mut self) {
        self.space.map_lock.unlock_write();
    }
}

impl fmt::Debug for MapLockGuard<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MapLockGuard")
    }
}

/// The map lock of a space, held for reading; dropping it lets go.
#[must_use = "the lock is held as long as the guard lives"]
pub struct MapLockSharedGuard<'s> {
    pub(crate) space: &'s Space,
}

impl<'s> MapLockSharedGuard<'s> {
    /// As [`MapLockGuard::of_held`], for one who holds it for reading.
    ///
    /// # Safety
    /// As there.
    pub unsafe fn of_held(space: &'s AddressSpaceRef) -> Option<Self> {
        let space = space.space();
        space.map_lock.is_held_for_reading().then_some(MapLockSharedGuard { space })
    }
}

impl Drop for MapLockSharedGuard<'_> {
    fn drop(&mut self) {
        self.space.map_lock.unlock_read();
    }
}

impl fmt::Debug for MapLockSharedGuard<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MapLockSharedGuard")
    }
}

#[cfg(all(test, feature = "std", not(any(loom, shuttle))))]
mod tests {
    use super::MapLock;
    use crate::platform::{Context, with_context};

    #[test]
    fn c7_3_a_child_opens_what_other_threads_held_and_keeps_its_own() {
        let lock = MapLock::new();
        lock.write();
        with_context(|context| lock.forget_other_holders(context));
        assert!(!lock.try_write() && !lock.try_read(), "the forking thread holds it in the child too");
        lock.forget_other_holders(Some(&Context::new()));
        assert!(lock.try_read(), "held by a thread that is not there");
        with_context(|context| lock.forget_other_holders(context));
        assert!(lock.try_write(), "readers count as other threads");
        lock.unlock_write();
    }
}

// The processor is named, as an emulator may not be able to run the program once more.
#[cfg(all(test, target_os = "linux", target_arch = "x86_64", not(any(loom, shuttle))))]
mod first {
    use std::format;
    use std::process::Command;

    use crate::space::AddressSpace;

    const ALONE: &str = "MMU_NOTIFIER_TEST_ALONE";

    /// The first space of a process: so the test runs itself once more, with no other.
    #[test]
    fn the_first_space_has_no_other_map_lock_than_the_next() {
        if std::env::var_os(ALONE).is_none() {
            let name = "map_lock::first::the_first_space_has_no_other_map_lock_than_the_next";
            let mut again = Command::new(std::env::current_exe().unwrap());
            assert!(again.args(["--exact", name]).env(ALONE, "1").status().unwrap().success());
            return;
        }
        let [first, second] = [AddressSpace::new(), AddressSpace::new()];
        let waiters = |space: &AddressSpace| format!("{:?}", space.space().map_lock);
        assert_eq!(waiters(&first), waiters(&second));
    }
}
