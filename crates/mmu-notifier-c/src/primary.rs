//! What else the primary MMU asks of the list.

#![expect(unsafe_code, reason = "calls from C")]

use std::ffi::{c_int, c_ulong};

use notifier::{Address, AddressSpaceRef, Pte, Range};

use crate::call::call;
use crate::mm::{mm_of, mm_struct};
use crate::range::half_open;
use crate::types::pte_t;

/// Asks the list of a space about a range; an empty range concerns nobody.
///
/// # Safety
/// The mm is NULL, or has a holder.
unsafe fn ask<R: Default>(
    name: &'static str,
    mm: *mut mm_struct,
    range: Option<Range>,
    ask: impl FnOnce(&AddressSpaceRef, Range) -> R,
) -> R {
    call!(name, || {
        // SAFETY: as promised by the caller.
        let mm = unsafe { mm_of(mm, name) };
        mm.zip(range).map_or_else(R::default, |(mm, range)| ask(mm.space(), range))
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn __mmu_notifier_invalidate_range(mm: *mut mm_struct, start: c_ulong, end: c_ulong) {
    let (name, range) = ("__mmu_notifier_invalidate_range", half_open(start, end));
    // SAFETY: the caller is a holder.
    unsafe { ask(name, mm, range, AddressSpaceRef::invalidate_range) };
}

#[unsafe(no_mangle)]
unsafe extern "C" fn __mmu_notifier_clear_flush_young(
    mm: *mut mm_struct,
    start: c_ulong,
    end: c_ulong,
) -> c_int {
    let (name, range) = ("__mmu_notifier_clear_flush_young", half_open(start, end));
    // SAFETY: the caller is a holder.
    c_int::from(unsafe { ask(name, mm, range, AddressSpaceRef::clear_flush_young) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn __mmu_notifier_clear_young(mm: *mut mm_struct, start: c_ulong, end: c_ulong) -> c_int {
    let (name, range) = ("__mmu_notifier_clear_young", half_open(start, end));
    // SAFETY: the caller is a holder.
    c_int::from(unsafe { ask(name, mm, range, AddressSpaceRef::clear_young) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn __mmu_notifier_test_young(mm: *mut mm_struct, address: c_ulong) -> c_int {
    let test = |space: &AddressSpaceRef, _: Range| space.test_young(Address::new(address));
    // SAFETY: the caller is a holder.
    c_int::from(unsafe { ask("__mmu_notifier_test_young", mm, Some(Range::ALL), test) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn __mmu_notifier_change_pte(mm: *mut mm_struct, address: c_ulong, pte: pte_t) {
    let change = |space: &AddressSpaceRef, _: Range| space.change_pte(Address::new(address), Pte(pte.0));
    // SAFETY: the caller is a holder.
    unsafe { ask("__mmu_notifier_change_pte", mm, Some(Range::ALL), change) };
}
