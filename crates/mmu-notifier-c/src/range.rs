//! Start and end: the range in C's memory keeps what its end needs.
//!
//! Callbacks get the caller's own range, which travels through the core as the invalidation's owner: no interval of
//! C has an owner, so that the core compares it with nothing. Without one the callback belongs to an exit.

#![expect(unsafe_code, reason = "structures of C")]

use std::ffi::{c_int, c_ulong};
use std::mem::MaybeUninit;
use std::ptr;

use notifier::intrusive::{End, Started};
use notifier::{Event, Invalidation, Owner, Range};

use crate::call::call;
use crate::errno::{EAGAIN, EINVAL};
use crate::mm::{mm_of, mm_struct};
use crate::report::misuse;
use crate::types::mmu_notifier_range;

pub(crate) const BLOCKABLE: u32 = 1;
const RELEASE: u32 = 5;
const VM_READ: c_ulong = 1;
const PROTECTION_VMA: u32 = 2;

/// Marks of a range that its start set: nobody watched (the header does so, too), nobody is hit.
const UNHEARD: u64 = 0x6d6d_756e_0001;
const EMPTY: u64 = 0x6d6d_756e_0002;

/// The mark of a range that is started in the space of this number.
pub(crate) const fn mark_of_space(serial: u64) -> u64 {
    serial.rotate_left(32) ^ 0xa076_1d64_78bd_642f
}

/// The half-open range of C; none if it is empty or reversed. An end of 0 is the top.
pub(crate) fn half_open(start: c_ulong, end: c_ulong) -> Option<Range> {
    // CONTRACT C2.4
    Range::from_first_last(start, end.wrapping_sub(1)).ok()
}

/// The end of a range as C writes it.
pub(crate) fn end_of(range: Range) -> c_ulong {
    range.last().get().wrapping_add(1)
}

fn event(number: u32) -> Event {
    match number {
        0 => Event::Unmap,
        1 => Event::Clear,
        2 => Event::ProtectionVma,
        3 => Event::ProtectionPage,
        4 => Event::SoftDirty,
        5 => Event::Release,
        6 => Event::Migrate,
        7 => Event::Exclusive,
        // CONTRACT C7.5: passed on; a missed invalidation would be worse.
        other => Event::Other(other),
    }
}

/// What the core is told of a range; none if it hits nobody.
fn invalidation(this: *mut mmu_notifier_range, range: &mmu_notifier_range) -> Option<Invalidation> {
    let what = Invalidation::new(half_open(range.start, range.end)?, event(range.event));
    let owner = Owner::new(this.expose_provenance() as u64)?;
    Some(what.with_owner(owner).with_blockable(range.flags & BLOCKABLE != 0))
}

/// The range that a callback of a start or end gets.
#[inline]
pub(crate) fn of_start(what: &Invalidation) -> *mut mmu_notifier_range {
    let owner = what.owner();
    debug_assert!(owner.is_some(), "all starts and ends of C have a range");
    ptr::with_exposed_provenance_mut(owner.map_or(0, Owner::get) as usize)
}

/// The range that a callback gets, be it of a start or of the exit.
#[inline]
pub(crate) fn of_callback(
    what: &Invalidation,
    mm: impl FnOnce() -> *mut mm_struct,
) -> *mut mmu_notifier_range {
    match what.owner() {
        Some(owner) => ptr::with_exposed_provenance_mut(owner.get() as usize),
        None => of_exit(mm()),
    }
}

#[cold]
fn of_exit(mm: *mut mm_struct) -> *mut mmu_notifier_range {
    // SAFETY: a subscriber's callback runs while its space, and with it the structure, is held.
    unsafe { &*mm }.exit.get().cast()
}

/// Prepares what callbacks of the exit get.
pub(crate) fn write_exit(exit: &mut MaybeUninit<mmu_notifier_range>, mm: *const mm_struct) {
    exit.write(mmu_notifier_range {
        vma: ptr::null(),
        mm,
        start: 0,
        end: c_ulong::MAX,
        flags: BLOCKABLE,
        event: RELEASE,
        owner: ptr::null_mut(),
        mark: 0,
        started: MaybeUninit::uninit(),
        refusal: 0,
        first: ptr::null_mut(),
        last: ptr::null_mut(),
        outer: ptr::null_mut(),
    });
}

#[unsafe(no_mangle)]
unsafe extern "C" fn __mmu_notifier_invalidate_range_start(this: *mut mmu_notifier_range) -> c_int {
    const NAME: &str = "__mmu_notifier_invalidate_range_start";
    call!(NAME, || {
        // SAFETY: the caller's own range, which nobody else uses.
        let Some(range) = (unsafe { this.as_mut() }) else {
            misuse(NAME, "the range must not be NULL");
            return -EINVAL;
        };
        // SAFETY: the mm of a range has a holder.
        let Some(mm) = (unsafe { mm_of(range.mm, NAME) }) else { return -EINVAL };
        // Callbacks may write these. The fence of the start waits for every store, so there is no other.
        (range.refusal, range.first) = (0, ptr::null_mut());
        let Some(what) = invalidation(this, range) else {
            // CONTRACT C2.4: it hits nobody, and its end is still due.
            range.mark = EMPTY;
            return 0;
        };
        let result = Started::start(mm.space(), what);
        // SAFETY: as above; the callbacks are over.
        let range = unsafe { &mut *this };
        match result {
            Ok(started) => {
                range.started.write(started);
                range.mark = mm.started;
                0
            }
            Err(_) => {
                range.mark = 0;
                // CONTRACT C5.3: the last refusal's value.
                if range.refusal == 0 { -EAGAIN } else { range.refusal as c_int }
            }
        }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn __mmu_notifier_invalidate_range_end(this: *mut mmu_notifier_range, only_end: bool) {
    const NAME: &str = "__mmu_notifier_invalidate_range_end";
    call!(NAME, || {
        // SAFETY: the caller's own range, which nobody else uses.
        let Some(range) = (unsafe { this.as_mut() }) else {
            return misuse(NAME, "the range must not be NULL");
        };
        // SAFETY: the mm of a range has a holder.
        let Some(mm) = (unsafe { mm_of(range.mm, NAME) }) else { return };
        // SAFETY: a word of the range; C may not have written it, which volatile keeps from mattering.
        let mark = unsafe { (&raw const range.mark).read_volatile() };
        let end = if only_end { End::OnlyEnd } else { End::Whole };
        if mark != mm.started {
            return end_unstarted(NAME, this, range, mm, end);
        }
        range.mark = 0;
        let range = &*range;
        // What was started is not empty.
        let what = || invalidation(this, range).unwrap_or(Range::ALL.into());
        // SAFETY: the mark says that a start in this space wrote it; nobody else does.
        let started = unsafe { range.started.assume_init_ref() };
        // SAFETY: it was started in this space, whose holder the caller has had since.
        unsafe { started.end(mm.space(), what, end) };
    });
}

/// Ends a range that no start has told to anybody.
#[cold]
fn end_unstarted(
    name: &'static str,
    this: *mut mmu_notifier_range,
    range: &mut mmu_notifier_range,
    mm: &mm_struct,
    end: End,
) {
    // SAFETY: as for its caller.
    let mark = unsafe { (&raw const range.mark).read_volatile() };
    if mark != EMPTY && mark != UNHEARD {
        return misuse(name, "an end must match a start that succeeded and has not ended");
    }
    range.mark = 0;
    if let (UNHEARD, Some(what)) = (mark, invalidation(this, range)) {
        // SAFETY: nobody has heard it.
        unsafe { Started::unheard().end(mm.space(), || what, end) };
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn mmu_notifier_range_update_to_read_only(range: *const mmu_notifier_range) -> bool {
    const NAME: &str = "mmu_notifier_range_update_to_read_only";
    call!(NAME, || {
        // SAFETY: the range of the caller, or of a callback.
        let Some(range) = (unsafe { range.as_ref() }) else {
            misuse(NAME, "the range must not be NULL");
            return false;
        };
        // SAFETY: NULL, or a mapping that the caller keeps.
        let vma = unsafe { range.vma.as_ref() };
        // CONTRACT C5.7
        range.event == PROTECTION_VMA && vma.is_some_and(|vma| vma.flags & VM_READ != 0)
    })
}
