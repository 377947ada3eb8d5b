//! The memory of registrations: what one leaves serves the next.
//!
//! A record is allocated by itself, as the first of a space comes before there is anything for slots to stand in. All that
//! fit are of one size; what they leave is kept, under the lock of the list, until the list goes. Larger ones go back to
//! the allocator; so do all where tools watch that (see [`SLOTS`]).

#![expect(unsafe_code, reason = "memory is kept raw")]

use alloc::alloc::{alloc, dealloc};
use core::alloc::Layout;
use core::cell::Cell;
use core::ptr::{self, NonNull};

use crate::records::SLOTS;
use crate::sync::SpinGuard;

/// That of all records that fit.
const COMMON: Layout = Layout::new::<[u64; 32]>();

/// Memory of the common layout that nobody has. Used under the lock of the list.
///
/// # Invariants
/// Each came from [`allocate`], and is linked once.
#[derive(Debug)]
pub(super) struct Spares(Cell<*mut Spare>);

#[derive(Debug)]
struct Spare {
    next: *mut Spare,
}

/// Says whether records of this layout leave their memory to one another.
pub(super) const fn fits(layout: Layout) -> bool {
    SLOTS && layout.size() <= COMMON.size() && layout.align() <= COMMON.align()
}

/// The layout in which a record is allocated.
const fn allocated(layout: Layout) -> Layout {
    if fits(layout) { COMMON } else { layout }
}

/// Allocates memory for a record; none if there is no more.
pub(super) fn allocate(layout: Layout) -> Option<NonNull<u8>> {
    // SAFETY: a record has a size.
    NonNull::new(unsafe { alloc(allocated(layout)) })
}

/// Gives the memory of a record back.
///
/// # Safety
/// It is memory for a record of this layout, and is not used any more.
pub(super) unsafe fn free(memory: NonNull<u8>, layout: Layout) {
    // SAFETY: as promised by the caller.
    unsafe { dealloc(memory.as_ptr(), allocated(layout)) };
}

impl Spares {
    pub(super) fn new() -> Self {
        Spares(Cell::new(ptr::null_mut()))
    }

    /// Takes memory for a record that fits.
    #[inline]
    pub(super) fn take(&self, _lock: &SpinGuard<'_>) -> Option<NonNull<u8>> {
        let first = NonNull::new(self.0.get())?;
        // SAFETY: by the invariant.
        self.0.set(unsafe { first.as_ref() }.next);
        Some(first.cast())
    }

    /// Keeps the memory of a record that is gone.
    ///
    /// # Safety
    /// It is memory for a record that fits, and is not used any more.
    #[inline]
    pub(super) unsafe fn keep(&self, _lock: &SpinGuard<'_>, memory: NonNull<u8>) {
        let spare = memory.cast::<Spare>();
        // SAFETY: as promised by the caller.
        unsafe { spare.write(Spare { next: self.0.get() }) };
        self.0.set(spare.as_ptr());
    }
}

impl Drop for Spares {
    fn drop(&mut self) {
        let mut at = self.0.get();
        while let Some(spare) = NonNull::new(at) {
            // SAFETY: by the invariant.
            at = unsafe { spare.as_ref() }.next;
            // SAFETY: it is of the common layout, and the list goes.
            unsafe { free(spare.cast(), COMMON) };
        }
    }
}

#[cfg(all(test, not(any(loom, shuttle, mmu_notifier_boxes))))]
mod tests {
    use super::*;
    use crate::sync::SpinLock;

    #[test]
    fn what_is_kept_is_taken_next() {
        let (spares, lock) = (Spares::new(), SpinLock::new());
        let guard = lock.lock();
        assert_eq!(spares.take(&guard), None);
        let memory = [Layout::new::<u64>(), COMMON].map(|layout| allocate(layout).unwrap());
        // SAFETY: it was allocated for records that fit, and is not used.
        memory.iter().for_each(|memory| unsafe { spares.keep(&guard, *memory) });
        assert_eq!(spares.take(&guard), Some(memory[1]));
        assert_eq!(spares.take(&guard), Some(memory[0]));
        assert_eq!(spares.take(&guard), None);
        // SAFETY: it is kept for good, as above.
        memory.iter().for_each(|memory| unsafe { spares.keep(&guard, *memory) });
    }

    #[test]
    fn what_is_larger_or_stricter_is_allocated_as_it_is() {
        for (size, align) in [(COMMON.size() + 8, 8), (80, 16), (4096, 4096)] {
            let layout = Layout::from_size_align(size, align).unwrap();
            assert!(!fits(layout));
            let memory = allocate(layout).unwrap();
            assert_eq!(memory.as_ptr() as usize % align, 0);
            // SAFETY: it was allocated for this layout, and is not used.
            unsafe { free(memory, layout) };
        }
    }
}
