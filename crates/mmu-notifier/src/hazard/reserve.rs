//! The reserve: memory for hazards that no call has used yet.
//!
//! Calls that may allocate add slabs of it; a start takes hazards out of them, and allocates nothing. A hazard is made
//! when it is taken, so that who first watches a space does not pay for the calls of many threads.

#![expect(unsafe_code, reason = "hazards are made in raw memory that lives as long as their book")]

use alloc::alloc::{alloc, dealloc};
use core::alloc::Layout;
use core::cell::Cell;
use core::mem::MaybeUninit;
use core::ptr::{self, NonNull};

use super::{Hazard, RESERVE};
use crate::sync::{AtomicPtr, AtomicU32, Ordering};

/// Memory for hazards, allocated together.
///
/// # Invariants
/// `head` is the first field, and all that references are made of.
#[repr(C)]
pub(super) struct Slab {
    head: Head,
    hazards: [MaybeUninit<Hazard>; RESERVE],
}

struct Head {
    next: Cell<*mut Slab>,
    /// The id of the first hazard; the others follow.
    id: u64,
    /// How many were taken; more than there are where several asked at once for the last.
    taken: AtomicU32,
}

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

    /// # Safety
    /// The slab is in a reserve, which is there as long as the result is used.
    unsafe fn head<'s>(slab: NonNull<Slab>) -> &'s Head {
        // SAFETY: as promised by the caller; it is the first field, and was written before the slab was added.
        unsafe { slab.cast().as_ref() }
    }

    /// Makes the next hazard of a slab; none if all are made.
    ///
    /// # Safety
    /// The slab is in a reserve, which is there.
    unsafe fn take(slab: NonNull<Slab>) -> Option<NonNull<Hazard>> {
        // SAFETY: as promised by the caller.
        let head = unsafe { Slab::head(slab) };
        if head.taken.load(Ordering::Relaxed) as usize >= RESERVE {
            return None;
        }
        let index = head.taken.fetch_add(1, Ordering::Relaxed) as usize;
        if index >= RESERVE {
            return None;
        }
        // SAFETY: the address of a field of a slab.
        let hazards = unsafe { &raw mut (*slab.as_ptr()).hazards }.cast::<Hazard>();
        let hazard = NonNull::new(hazards.wrapping_add(index))?;
        // SAFETY: it is memory for a hazard, and its index was given to this call alone.
        unsafe { hazard.write(Hazard::new(head.id + index as u64)) };
        Some(hazard)
    }
}

/// All slabs of a book.
///
/// # Invariants
/// `slabs` leads through slabs that live as long as this, each once.
#[derive(Debug)]
pub(super) struct Reserve {
    slabs: AtomicPtr<Slab>,
    spare: AtomicU32,
}

impl Reserve {
    pub(super) fn new() -> Self {
        Reserve { slabs: AtomicPtr::new(ptr::null_mut()), spare: AtomicU32::new(0) }
    }

    /// How many hazards are left.
    #[inline]
    pub(super) fn spare(&self) -> u32 {
        self.spare.load(Ordering::Relaxed)
    }

    /// Adds fresh memory for hazards with ids from `id` on.
    pub(super) fn add(&self, slab: NonNull<Slab>, id: u64) {
        let head = Head { next: Cell::new(ptr::null_mut()), id, taken: AtomicU32::new(0) };
        // SAFETY: it is memory for a slab, which begins with its head, and nobody else knows it.
        unsafe { slab.cast().write(head) };
        // SAFETY: it will be in this reserve.
        let head = unsafe { Slab::head(slab) };
        self.spare.fetch_add(RESERVE as u32, Ordering::Relaxed);
        let mut first = self.slabs.load(Ordering::Relaxed);
        loop {
            // Until it is linked nobody else looks at this.
            head.next.set(first);
            // ORDERING: release, for the acquire in `take`; those behind it come with it.
            match self.slabs.compare_exchange(first, slab.as_ptr(), Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => first = now,
            }
        }
    }

    /// Does what a fork leaves of another thread that was adding a slab.
    #[cfg(all(test, not(any(loom, shuttle))))]
    pub(super) fn count_a_slab_that_is_not_linked(&self) {
        self.spare.fetch_add(RESERVE as u32, Ordering::Relaxed);
    }

    /// Takes a hazard that nobody has used; none if there is none left. What is taken never comes back.
    pub(super) fn take(&self) -> Option<NonNull<Hazard>> {
        // ORDERING: acquire pairs with the release in `add`.
        let mut at = NonNull::new(self.slabs.load(Ordering::Acquire));
        while let Some(slab) = at {
            // SAFETY: by the invariant.
            if let Some(hazard) = unsafe { Slab::take(slab) } {
                self.spare.fetch_sub(1, Ordering::Relaxed);
                return Some(hazard);
            }
            // SAFETY: by the invariant.
            at = NonNull::new(unsafe { Slab::head(slab) }.next.get());
        }
        None
    }

    /// In the child of a fork: counts what is left afresh. A thread that is not here may have counted a slab that it did
    /// not come to link, or taken a hazard without a word.
    pub(super) fn recount(&self) {
        let mut spare = 0;
        let mut at = NonNull::new(self.slabs.load(Ordering::Acquire));
        while let Some(slab) = at {
            // SAFETY: by the invariant.
            let head = unsafe { Slab::head(slab) };
            spare += (RESERVE as u32).saturating_sub(head.taken.load(Ordering::Relaxed));
            at = NonNull::new(head.next.get());
        }
        self.spare.store(spare, Ordering::Relaxed);
    }
}

impl Drop for Reserve {
    fn drop(&mut self) {
        let mut at = NonNull::new(self.slabs.load(Ordering::Relaxed));
        while let Some(slab) = at {
            // SAFETY: by the invariant.
            at = NonNull::new(unsafe { Slab::head(slab) }.next.get());
            // SAFETY: as above; it is not used again.
            unsafe { slab.cast::<Head>().drop_in_place() };
            // SAFETY: it is in no list any more, and what was in it is gone.
            unsafe { Slab::free(slab) };
        }
    }
}
