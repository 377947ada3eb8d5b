//! What the header has as inline functions, in the same few lines each: nothing exports them. Those that only spare a
//! call (`mmun_read_begin`, `mmun_set_seq`) are left to the C programs.

#![expect(unsafe_code, reason = "structures of C")]

use std::ffi::c_int;
use std::sync::atomic::Ordering;

use super::abi::{
    BLOCKABLE, UNHEARD, mm_struct, mmu_interval_notifier, mmu_notifier, mmu_notifier_ops, mmu_notifier_range,
    pte_t,
};
use super::calls::calls;

/// # Safety
/// The mm has a holder.
pub(super) unsafe fn mm_has_notifiers(mm: *mut mm_struct) -> bool {
    // SAFETY: as promised by the caller.
    let subscriptions = unsafe { &(*mm).notifier_subscriptions };
    // ORDERING: relaxed, as in the header; what follows a yes is ordered by the library.
    !subscriptions.load(Ordering::Relaxed).is_null()
}

/// # Safety
/// The mm has a holder; the table stays as long as what it makes.
pub(super) unsafe fn mmu_notifier_get(ops: *const mmu_notifier_ops, mm: *mut mm_struct) -> *mut mmu_notifier {
    // SAFETY: as promised by the caller.
    unsafe { (calls().mmap_write_lock)(mm) };
    // SAFETY: as promised by the caller; the lock is held.
    let subscription = unsafe { (calls().mmu_notifier_get_locked)(ops, mm) };
    // SAFETY: it was locked above.
    unsafe { (calls().mmap_write_unlock)(mm) };
    subscription
}

/// # Safety
/// It is inserted.
pub(super) unsafe fn mmu_interval_read_retry(sub: *mut mmu_interval_notifier, seq: u64) -> bool {
    // SAFETY: as promised by the caller.
    let current = unsafe { &(*sub).invalidate_seq };
    // ORDERING: pairs with the release of `mmu_interval_set_seq`.
    current.load(Ordering::Acquire) != seq
}

/// # Safety
/// The range is the caller's, stays where it is until its end, and its mm has a holder as long.
pub(super) unsafe fn mmu_notifier_invalidate_range_start(range: *mut mmu_notifier_range) {
    // SAFETY: as promised by the caller.
    unsafe { (*range).flags |= BLOCKABLE };
    // SAFETY: as promised by the caller. A start that may block succeeds.
    unsafe { start(range) };
}

/// # Safety
/// As for [`mmu_notifier_invalidate_range_start`].
pub(super) unsafe fn mmu_notifier_invalidate_range_start_nonblock(range: *mut mmu_notifier_range) -> c_int {
    // SAFETY: as promised by the caller.
    unsafe { (*range).flags &= !BLOCKABLE };
    // SAFETY: as promised by the caller.
    unsafe { start(range) }
}

/// # Safety
/// As for [`mmu_notifier_invalidate_range_start`].
unsafe fn start(range: *mut mmu_notifier_range) -> c_int {
    // SAFETY: as promised by the caller.
    let mm = unsafe { (*range).mm };
    // SAFETY: as promised by the caller.
    if unsafe { mm_has_notifiers(mm) } {
        // SAFETY: as promised by the caller.
        return unsafe { (calls().__mmu_notifier_invalidate_range_start)(range) };
    }
    // SAFETY: as promised by the caller.
    unsafe { (*range).private[0] = UNHEARD };
    0
}

/// # Safety
/// It is started, and not ended.
pub(super) unsafe fn mmu_notifier_invalidate_range_end(range: *mut mmu_notifier_range) {
    // SAFETY: as promised by the caller.
    let mm = unsafe { (*range).mm };
    // SAFETY: the start's caller has kept a holder since.
    if unsafe { mm_has_notifiers(mm) } {
        // SAFETY: as promised by the caller.
        unsafe { (calls().__mmu_notifier_invalidate_range_end)(range, false) };
    }
}

/// # Safety
/// The mm has a holder.
pub(super) unsafe fn mmu_notifier_invalidate_range(mm: *mut mm_struct, start: u64, end: u64) {
    // SAFETY: as promised by the caller.
    if unsafe { mm_has_notifiers(mm) } {
        // SAFETY: as promised by the caller.
        unsafe { (calls().__mmu_notifier_invalidate_range)(mm, start, end) };
    }
}

/// # Safety
/// The mm has a holder.
pub(super) unsafe fn mmu_notifier_clear_flush_young(mm: *mut mm_struct, start: u64, end: u64) -> c_int {
    // SAFETY: as promised by the caller.
    let heard = unsafe { mm_has_notifiers(mm) };
    // SAFETY: as promised by the caller.
    if heard { unsafe { (calls().__mmu_notifier_clear_flush_young)(mm, start, end) } } else { 0 }
}

/// # Safety
/// The mm has a holder.
pub(super) unsafe fn mmu_notifier_clear_young(mm: *mut mm_struct, start: u64, end: u64) -> c_int {
    // SAFETY: as promised by the caller.
    let heard = unsafe { mm_has_notifiers(mm) };
    // SAFETY: as promised by the caller.
    if heard { unsafe { (calls().__mmu_notifier_clear_young)(mm, start, end) } } else { 0 }
}

/// # Safety
/// The mm has a holder.
pub(super) unsafe fn mmu_notifier_test_young(mm: *mut mm_struct, address: u64) -> c_int {
    // SAFETY: as promised by the caller.
    let heard = unsafe { mm_has_notifiers(mm) };
    // SAFETY: as promised by the caller.
    if heard { unsafe { (calls().__mmu_notifier_test_young)(mm, address) } } else { 0 }
}

/// # Safety
/// The mm has a holder.
pub(super) unsafe fn mmu_notifier_change_pte(mm: *mut mm_struct, address: u64, pte: pte_t) {
    // SAFETY: as promised by the caller.
    if unsafe { mm_has_notifiers(mm) } {
        // SAFETY: as promised by the caller.
        unsafe { (calls().__mmu_notifier_change_pte)(mm, address, pte) };
    }
}
