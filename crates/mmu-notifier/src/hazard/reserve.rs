//! The reserve: memory for hazards that no call has used yet.
//!
//! Calls that may allocate add slabs of it; a start takes hazards out of them, and allocates nothing. A hazard is made
//! when it is taken, so that who first watches a space does not pay for the calls of many threads.

#![expect(unsafe_code, reason = "hazards are made in raw memory that lives as long as their book")]

use alloc::alloc::{alloc, dealloc};
use core::alloc::Layout;
use core::mem::MaybeUninit;
use core::ptr::{self, NonNull};

use super::{Hazard, RESERVE};
use crate::sync::{AtomicPtr, AtomicU32, Ordering};

/// Memory for hazards, allocated together.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Slab {
    next: *mut Slab,
    /// The id of the first hazard; the others follow.
    id: u64,
    /// How many were taken; more than there are where several asked at once for the last.
    taken: AtomicU32,
    hazards: [MaybeUninit<Hazard>; RESERVE],
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

    /// Makes the next hazard of a slab; none if all are made.
    ///
    /// # Safety
    /// The slab is in a reserve, which is there.
    unsafe fn take(slab: NonNull<Slab>) -> Option<NonNull<Hazard>> {
        // SAFETY: as promised by the caller; of what is behind the head nobody makes a reference.
        let taken = unsafe { &(*slab.as_ptr()).taken };
        if taken.load(Ordering::Relaxed) as usize >= RESERVE {
            return None;
        }
        let index = taken.fetch_add(1, Ordering::Relaxed) as usize;
        if index >= RESERVE {
            return None;
        }
        // SAFETY: as promised by the caller.
        let id = unsafe { (*slab.as_ptr()).id } + index as u64;
        // SAFETY: the address of a field of a slab.
        let hazards = unsafe { &raw mut (*slab.as_ptr()).hazards }.cast::<Hazard>();
        let hazard = NonNull::new(hazards.wrapping_add(index))?;
        // SAFETY: it is memory for a hazard, and its index was given to this call alone.
        unsafe { hazard.write(Hazard::new(id)) };
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
        let at = slab.as_ptr();
        let mut first = self.slabs.load(Ordering::Relaxed);
        // SAFETY: it is memory of a slab, which nobody else knows; so for the two below.
        unsafe { (&raw mut (*at).id).write(id) };
        // SAFETY: as above.
        unsafe { (&raw mut (*at).taken).write(AtomicU32::new(0)) };
        self.spare.fetch_add(RESERVE as u32, Ordering::Relaxed);
        loop {
            // SAFETY: as above.
            unsafe { (&raw mut (*at).next).write(first) };
            // ORDERING: release, for the acquire in `take`, here too: those behind it come with it.
            match self.slabs.compare_exchange(first, at, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => first = now,
            }
        }
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
            // SAFETY: by the invariant; the link does not change.
            at = NonNull::new(unsafe { (*slab.as_ptr()).next });
        }
        None
    }
}

impl Drop for Reserve {
    fn drop(&mut self) {
        let mut at = NonNull::new(self.slabs.load(Ordering::Relaxed));
        while let Some(slab) = at {
            // SAFETY: by the invariant.
            at = NonNull::new(unsafe { (*slab.as_ptr()).next });
            // SAFETY: by the invariant; the book is going, and has dropped the hazards.
            unsafe { (&raw mut (*slab.as_ptr()).taken).drop_in_place() };
            // SAFETY: it is in no list any more, and what was in it is gone.
            unsafe { Slab::free(slab) };
        }
    }
}
