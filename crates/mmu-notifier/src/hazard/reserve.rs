//! The reserve: memory for hazards that no call has used yet.
//!
//! It begins with a slab of its own. Calls that may allocate add more; a start takes hazards out of them, and allocates
//! nothing. A hazard is made when it is taken, so that who first watches a space does not pay for the calls of many
//! threads.

#![expect(unsafe_code, reason = "hazards are made in raw memory that lives as long as their book")]

use alloc::alloc::{alloc, dealloc};
use core::alloc::Layout;
use core::cell::{Cell, UnsafeCell};
use core::mem::MaybeUninit;
use core::ptr::{self, NonNull};

use super::{Hazard, RESERVE};
use crate::sync::{AtomicPtr, AtomicU32, Ordering};

/// Memory for hazards, allocated together.
#[derive(Debug)]
pub(super) struct Slab {
    /// The next one in the reserve.
    next: Cell<*mut Slab>,
    /// The id of the first hazard; the others follow.
    id: u64,
    /// How many were taken; more than there are where several asked at once for the last.
    taken: AtomicU32,
    /// With room to align them.
    hazards: UnsafeCell<[MaybeUninit<u64>; WORDS]>,
}

const WORDS: usize = (RESERVE * size_of::<Hazard>() + align_of::<Hazard>()) / size_of::<u64>() - 1;

impl Slab {
    /// Allocates memory for one; none if there is no more. The reserve it is [added](Reserve::add) to frees it.
    pub(super) fn allocate() -> Option<NonNull<Slab>> {
        // SAFETY: the layout of a slab has a size.
        NonNull::new(unsafe { alloc(Layout::new::<Slab>()) }.cast())
    }

    /// Gives memory back.
    ///
    /// # Safety
    /// It came from [`allocate`](Self::allocate), and is not used any more.
    pub(super) unsafe fn free(slab: NonNull<Slab>) {
        // SAFETY: as promised by the caller.
        unsafe { dealloc(slab.as_ptr().cast(), Layout::new::<Slab>()) };
    }

    /// Makes one in fresh memory, for hazards with ids from `id` on.
    ///
    /// # Safety
    /// It came from [`allocate`](Self::allocate), and nobody else knows it.
    unsafe fn make<'s>(slab: NonNull<Slab>, id: u64) -> &'s Slab {
        // SAFETY: as promised by the caller. What stands in it is not made yet, and so not written.
        unsafe { slab.write(Slab::new(id)) };
        // SAFETY: it was just made.
        unsafe { slab.as_ref() }
    }

    fn new(id: u64) -> Self {
        Slab {
            next: Cell::new(ptr::null_mut()),
            id,
            taken: AtomicU32::new(0),
            hazards: UnsafeCell::new([const { MaybeUninit::uninit() }; WORDS]),
        }
    }

    /// How many were not taken.
    fn left(&self) -> u32 {
        (RESERVE as u32).saturating_sub(self.taken.load(Ordering::Relaxed))
    }

    /// Makes the next hazard; none if all are made.
    fn take(&self) -> Option<NonNull<Hazard>> {
        if self.left() == 0 {
            return None;
        }
        let index = self.taken.fetch_add(1, Ordering::Relaxed) as usize;
        if index >= RESERVE {
            return None;
        }
        let memory = self.hazards.get().cast::<u8>();
        let hazards = memory.wrapping_add(memory.align_offset(align_of::<Hazard>())).cast::<Hazard>();
        let hazard = NonNull::new(hazards.wrapping_add(index))?;
        // SAFETY: it is memory for a hazard, and its index was given to this call alone.
        unsafe { hazard.write(Hazard::new(self.id + index as u64)) };
        Some(hazard)
    }
}

/// All slabs of a book.
///
/// # Invariants
/// `slabs` leads through slabs that live as long as this, each once. What was taken out of `first` stays where it is.
#[derive(Debug)]
pub(super) struct Reserve {
    slabs: AtomicPtr<Slab>,
    spare: AtomicU32,
    first: Slab,
}

// SAFETY: `next` of a slab is written before it is linked, all else is atomic, and memory is given to one call each.
unsafe impl Sync for Reserve {}
// SAFETY: as above; nothing belongs to a thread.
unsafe impl Send for Reserve {}

impl Reserve {
    /// Makes one with memory for as many hazards as a slab has, whose ids begin with `id`.
    ///
    /// # Safety
    /// It stays where it is once something is taken.
    pub(super) unsafe fn new(id: u64) -> Self {
        Reserve {
            slabs: AtomicPtr::new(ptr::null_mut()),
            spare: AtomicU32::new(RESERVE as u32),
            first: Slab::new(id),
        }
    }

    /// How many hazards are left.
    #[inline]
    pub(super) fn spare(&self) -> u32 {
        self.spare.load(Ordering::Relaxed)
    }

    /// Adds fresh memory for hazards with ids from `id` on.
    pub(super) fn add(&self, slab: NonNull<Slab>, id: u64) {
        // SAFETY: it was just allocated, and will be in this reserve.
        let made = unsafe { Slab::make(slab, id) };
        self.spare.fetch_add(RESERVE as u32, Ordering::Relaxed);
        let mut first = self.slabs.load(Ordering::Relaxed);
        loop {
            // Until it is linked nobody else looks at this.
            made.next.set(first);
            // ORDERING: release, for the acquire in `added`; those behind it come with it.
            match self.slabs.compare_exchange(first, slab.as_ptr(), Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => first = now,
            }
        }
    }

    /// The slabs that were added, newest first.
    fn added(&self) -> impl Iterator<Item = &Slab> {
        // ORDERING: acquire pairs with the release in `add`.
        let mut at = self.slabs.load(Ordering::Acquire);
        core::iter::from_fn(move || {
            // SAFETY: by the invariant.
            let slab = unsafe { at.as_ref() }?;
            at = slab.next.get();
            Some(slab)
        })
    }

    fn all(&self) -> impl Iterator<Item = &Slab> {
        core::iter::once(&self.first).chain(self.added())
    }

    /// Does what a fork leaves of another thread that was adding a slab.
    #[cfg(all(test, not(any(loom, shuttle))))]
    pub(super) fn count_a_slab_that_is_not_linked(&self) {
        self.spare.fetch_add(RESERVE as u32, Ordering::Relaxed);
    }

    /// Takes a hazard that nobody has used; none if there is none left. What is taken never comes back.
    pub(super) fn take(&self) -> Option<NonNull<Hazard>> {
        let hazard = self.all().find_map(Slab::take)?;
        self.spare.fetch_sub(1, Ordering::Relaxed);
        Some(hazard)
    }

    /// In the child of a fork: counts what is left afresh. A thread that is not here may have counted a slab that it did
    /// not come to link, or taken a hazard without a word.
    pub(super) fn recount(&self) {
        self.spare.store(self.all().map(Slab::left).sum(), Ordering::Relaxed);
    }
}

impl Drop for Reserve {
    fn drop(&mut self) {
        let mut at = NonNull::new(self.slabs.load(Ordering::Relaxed));
        while let Some(slab) = at {
            // SAFETY: by the invariant.
            at = NonNull::new(unsafe { slab.as_ref() }.next.get());
            // SAFETY: as above; it is not used again.
            unsafe { slab.drop_in_place() };
            // SAFETY: it is in no list any more, and what was in it is gone.
            unsafe { Slab::free(slab) };
        }
    }
}
