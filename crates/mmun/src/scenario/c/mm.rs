//! Handles to address spaces, and to invalidations of them: each drop is the call that gives it back.

#![expect(unsafe_code, reason = "structures of C")]

use std::ptr;

use mmu_notifier::{Address, Invalidation, Pte, Range};

use super::abi::{BLOCKABLE, mm_struct, mmu_notifier_range, number_of, pte_t};
use super::calls::calls;
use super::inline::{
    self, mmu_notifier_invalidate_range_start, mmu_notifier_invalidate_range_start_nonblock,
};
use crate::scenario::verb::{Blocking, Question};

/// A user of an mm; its drop is `mmput`.
///
/// # Invariants
/// It has a user's count.
pub(in crate::scenario) struct User(*mut mm_struct);

// SAFETY: an mm is meant to be shared between threads.
unsafe impl Send for User {}

impl User {
    /// Makes an mm.
    pub(super) fn of_new_mm() -> User {
        // SAFETY: it asks for nothing.
        let mm = unsafe { (calls().mm_alloc)() };
        assert!(!mm.is_null(), "there is memory for a scenario");
        // INVARIANT: a new mm has one user, who is handed out.
        User(mm)
    }

    /// Takes a holder.
    pub(super) fn holder(&self) -> Holder {
        // SAFETY: by the invariant the mm is alive.
        unsafe { (calls().mmgrab)(self.0) };
        // INVARIANT: grabbed above.
        Holder(self.0)
    }
}

impl Drop for User {
    fn drop(&mut self) {
        // SAFETY: by the invariant it has a user to give back.
        unsafe { (calls().mmput)(self.0) };
    }
}

/// A holder of an mm; its drop is `mmdrop`.
///
/// # Invariants
/// It has a holder's count.
pub(in crate::scenario) struct Holder(*mut mm_struct);

// SAFETY: an mm is meant to be shared between threads.
unsafe impl Send for Holder {}

impl Clone for Holder {
    fn clone(&self) -> Holder {
        // SAFETY: by the invariant the mm is alive.
        unsafe { (calls().mmgrab)(self.0) };
        // INVARIANT: grabbed above.
        Holder(self.0)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // SAFETY: by the invariant it has a holder to give back.
        unsafe { (calls().mmdrop)(self.0) };
    }
}

impl Holder {
    /// The mm, which is alive as long as this is.
    pub(super) fn mm(&self) -> *mut mm_struct {
        self.0
    }

    /// Takes a user, if there are any.
    pub(super) fn user(&self) -> Option<User> {
        // SAFETY: by the invariant the mm is alive. INVARIANT: a yes hands out a user.
        unsafe { (calls().mmget_not_zero)(self.0) }.then(|| User(self.0))
    }

    /// Says whether anybody registered or inserted.
    pub(super) fn has_notifiers(&self) -> bool {
        // SAFETY: by the invariant the mm is alive.
        unsafe { inline::mm_has_notifiers(self.0) }
    }

    /// Takes the map lock for a moment.
    pub(super) fn take_the_map_lock(&self) {
        // SAFETY: by the invariant the mm is alive.
        unsafe { (calls().mmap_write_lock)(self.0) };
        // SAFETY: locked above.
        unsafe { (calls().mmap_write_unlock)(self.0) };
    }

    /// Asks about accesses.
    pub(super) fn ask(&self, question: Question) -> bool {
        let young = match question {
            Question::FlushAndClear(range) => {
                // SAFETY: by the invariant the mm is alive.
                unsafe { inline::mmu_notifier_clear_flush_young(self.0, range.start().get(), end_of(range)) }
            }
            Question::Clear(range) => {
                // SAFETY: as above.
                unsafe { inline::mmu_notifier_clear_young(self.0, range.start().get(), end_of(range)) }
            }
            // SAFETY: as above.
            Question::Test(address) => unsafe { inline::mmu_notifier_test_young(self.0, address.get()) },
        };
        young != 0
    }

    /// Says that an entry changes.
    pub(super) fn change_pte(&self, address: Address, pte: Pte) {
        // SAFETY: by the invariant the mm is alive.
        unsafe { inline::mmu_notifier_change_pte(self.0, address.get(), pte_t(pte.0)) };
    }

    /// Invalidates for who shares the page table.
    pub(super) fn invalidate(&self, range: Range) {
        // SAFETY: by the invariant the mm is alive.
        unsafe { inline::mmu_notifier_invalidate_range(self.0, range.start().get(), end_of(range)) };
    }
}

/// An invalidation that has started; its drop is the end.
///
/// # Invariants
/// The range came from a `Box`, is started and not ended, in the mm of `_holder`.
pub(in crate::scenario) struct Active {
    range: *mut mmu_notifier_range,
    _holder: Holder,
}

// SAFETY: an end may be called on any thread.
unsafe impl Send for Active {}

impl Active {
    /// Starts an invalidation; or gives the negative errno.
    pub(super) fn start(holder: &Holder, what: Invalidation, may: Blocking) -> Result<Active, i32> {
        let range = Box::into_raw(Box::new(range_of(holder, what)));
        // SAFETY: its own memory, which stays where it is until the end, as does the holder.
        let result = match may {
            Blocking::May => {
                // SAFETY: as above.
                unsafe { mmu_notifier_invalidate_range_start(range) };
                0
            }
            // SAFETY: as above.
            Blocking::MayNot => unsafe { mmu_notifier_invalidate_range_start_nonblock(range) },
        };
        if result == 0 {
            // INVARIANT: started above.
            return Ok(Active { range, _holder: holder.clone() });
        }
        // SAFETY: from the box above; one that was refused is nobody's any more.
        drop(unsafe { Box::from_raw(range) });
        Err(result)
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        // SAFETY: by the invariant it is started.
        unsafe { inline::mmu_notifier_invalidate_range_end(self.range) };
        // SAFETY: by the invariant it came from a box, and it has ended.
        drop(unsafe { Box::from_raw(self.range) });
    }
}

/// As `mmu_notifier_range_init_owner` writes it.
fn range_of(holder: &Holder, what: Invalidation) -> mmu_notifier_range {
    let owner = what.owner().map_or(0, |owner| owner.get() as usize);
    mmu_notifier_range {
        vma: ptr::null_mut(),
        mm: holder.mm(),
        start: what.range().start().get(),
        end: end_of(what.range()),
        flags: 0,
        event: number_of(what.event()),
        owner: ptr::without_provenance_mut(owner),
        private: [0; 9],
    }
}

/// The end of a range as C writes it: 0 is the top.
fn end_of(range: Range) -> u64 {
    range.last().get().wrapping_add(1)
}

/// Says whether the callbacks of a range may block.
pub(super) fn blocking(range: &mmu_notifier_range) -> Blocking {
    if range.flags & BLOCKABLE == 0 { Blocking::MayNot } else { Blocking::May }
}
