//! What waits for a second pass: the driver's memory, chained in the range that it waits in (clause C3.8).
//!
//! The core says when each is due, mostly in the order in which they came. The ranges of a thread that have such a
//! chain are chained themselves, so that a remove between the two passes can take its own out again.

#![expect(unsafe_code, reason = "structures of C")]

use std::cell::Cell;
use std::ptr;

use crate::types::{mmu_interval_notifier, mmu_interval_notifier_finish, mmu_notifier_range};

thread_local! {
    /// The innermost range of this thread in which anything waits.
    static INNERMOST: Cell<*mut mmu_notifier_range> = const { Cell::new(ptr::null_mut()) };
}

/// Chains what waits for its second pass behind the others.
///
/// # Safety
/// - The range is that of a start under way on this thread.
/// - `finish` stays where it is until it is taken out.
pub(crate) unsafe fn push(range: *mut mmu_notifier_range, finish: *mut mmu_interval_notifier_finish) {
    // SAFETY: as promised by the caller.
    unsafe { (*finish).next = ptr::null_mut() };
    // SAFETY: as promised by the caller; only this thread uses the chain.
    let range = unsafe { &mut *range };
    if range.first.is_null() {
        range.first = finish;
        range.outer = INNERMOST.replace(range);
    } else {
        // SAFETY: what is chained stays where it is.
        unsafe { (*range.last).next = finish };
    }
    range.last = finish;
}

/// Takes out what waits for this notifier; NULL if nothing does.
///
/// # Safety
/// The range is that of a start under way on this thread.
pub(crate) unsafe fn take(
    range: *mut mmu_notifier_range,
    notifier: *const mmu_interval_notifier,
) -> *mut mmu_interval_notifier_finish {
    // SAFETY: as promised by the caller; only this thread uses the chain.
    let chain = unsafe { &mut *range };
    let (mut before, mut at) = (ptr::null_mut::<mmu_interval_notifier_finish>(), chain.first);
    // SAFETY: what is chained stays where it is.
    while let Some(finish) = unsafe { at.as_ref() } {
        if !ptr::eq(finish.notifier, notifier) {
            (before, at) = (at, finish.next);
            continue;
        }
        let next = finish.next;
        // SAFETY: as above.
        match unsafe { before.as_mut() } {
            Some(before) => before.next = next,
            None => chain.first = next,
        }
        if chain.last == at {
            chain.last = before;
        }
        if chain.first.is_null() {
            unlink(range);
        }
        return at;
    }
    ptr::null_mut()
}

/// Takes a range out of the chain of ranges.
fn unlink(range: *mut mmu_notifier_range) {
    // SAFETY: the range of a start under way.
    let outer = unsafe { (*range).outer };
    if INNERMOST.get() == range {
        return INNERMOST.set(outer);
    }
    let mut at = INNERMOST.get();
    // SAFETY: what is chained belongs to starts under way on this thread.
    while let Some(inner) = unsafe { at.as_mut() } {
        if inner.outer == range {
            inner.outer = outer;
            return;
        }
        at = inner.outer;
    }
}

/// Takes out what waits for this notifier in any start of this thread; true if anything did.
pub(crate) fn forget(notifier: *const mmu_interval_notifier) -> bool {
    let (mut found, mut at) = (false, INNERMOST.get());
    while !at.is_null() {
        // SAFETY: what is chained belongs to starts under way on this thread.
        let outer = unsafe { (*at).outer };
        // SAFETY: as above.
        found |= !unsafe { take(at, notifier) }.is_null();
        at = outer;
    }
    found
}
