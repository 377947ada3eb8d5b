//! What `mmu_notifier.h` lays down: the structures, the numbers of the events, the types of the callbacks.
//!
//! Written after the header, for 64-bit machines, as the C interface is. `tests/c/layout.c` of that crate compares the
//! same numbers on the side of C.

#![allow(non_camel_case_types, reason = "names of C")]

use std::ffi::{c_int, c_void};
use std::mem::{MaybeUninit, offset_of};
use std::sync::atomic::{AtomicPtr, AtomicU64};

use ::mmu_notifier::Event;

/// As much of an address space as the header shows.
#[repr(C)]
pub(super) struct mm_struct {
    pub(super) notifier_subscriptions: AtomicPtr<c_void>,
}

#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct pte_t(pub(super) u64);

#[repr(C)]
pub(super) struct mmu_notifier_range {
    pub(super) vma: *mut c_void,
    pub(super) mm: *mut mm_struct,
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) flags: u32,
    pub(super) event: u32,
    pub(super) owner: *mut c_void,
    pub(super) private: [u64; 9],
}

/// In `flags`: callbacks may sleep.
pub(super) const BLOCKABLE: u32 = 1;

/// In the first private word of a range: started while nobody watched.
pub(super) const UNHEARD: u64 = 0x6d6d_756e_0001;

/// The events, by their numbers.
const EVENTS: [Event; 8] = [
    Event::Unmap,
    Event::Clear,
    Event::ProtectionVma,
    Event::ProtectionPage,
    Event::SoftDirty,
    Event::Release,
    Event::Migrate,
    Event::Exclusive,
];

/// Gives the number of an event.
pub(super) fn number_of(event: Event) -> u32 {
    match (event, EVENTS.iter().position(|known| *known == event)) {
        (Event::Other(number), _) => number,
        (_, place) => place.expect("each event that a script can name has a number") as u32,
    }
}

/// Gives the event of a number.
pub(super) fn event_of(number: u32) -> Event {
    EVENTS.get(number as usize).copied().unwrap_or(Event::Other(number))
}

type N = *mut mmu_notifier;
type M = *mut mm_struct;
type R = *const mmu_notifier_range;

#[repr(C)]
pub(super) struct mmu_notifier_ops {
    pub(super) release: Option<unsafe extern "C" fn(N, M)>,
    pub(super) clear_flush_young: Option<unsafe extern "C" fn(N, M, u64, u64) -> c_int>,
    pub(super) clear_young: Option<unsafe extern "C" fn(N, M, u64, u64) -> c_int>,
    pub(super) test_young: Option<unsafe extern "C" fn(N, M, u64) -> c_int>,
    pub(super) change_pte: Option<unsafe extern "C" fn(N, M, u64, pte_t)>,
    pub(super) invalidate_range_start: Option<unsafe extern "C" fn(N, R) -> c_int>,
    pub(super) invalidate_range_end: Option<unsafe extern "C" fn(N, R)>,
    pub(super) invalidate_range: Option<unsafe extern "C" fn(N, M, u64, u64)>,
    pub(super) alloc_notifier: Option<unsafe extern "C" fn(M) -> N>,
    pub(super) free_notifier: Option<unsafe extern "C" fn(N)>,
}

impl mmu_notifier_ops {
    /// No callback.
    pub(super) const NONE: Self = mmu_notifier_ops {
        release: None,
        clear_flush_young: None,
        clear_young: None,
        test_young: None,
        change_pte: None,
        invalidate_range_start: None,
        invalidate_range_end: None,
        invalidate_range: None,
        alloc_notifier: None,
        free_notifier: None,
    };
}

#[repr(C)]
pub(super) struct mmu_notifier {
    mark: u64,
    pub(super) ops: *const mmu_notifier_ops,
    private: MaybeUninit<[u64; 29]>,
    pub(super) mm: M,
    hlist: [*mut c_void; 2],
    users: u32,
    spare: [u64; 2],
}

#[repr(C)]
pub(super) struct mmu_interval_notifier_finish {
    link: *mut c_void,
    notifier: *mut mmu_interval_notifier,
}

type I = *mut mmu_interval_notifier;
type F = mmu_interval_notifier_finish;

#[repr(C)]
pub(super) struct mmu_interval_notifier_ops {
    pub(super) invalidate: Option<unsafe extern "C" fn(I, R, u64) -> bool>,
    pub(super) invalidate_start: Option<unsafe extern "C" fn(I, R, u64, *mut *mut F) -> bool>,
    pub(super) invalidate_finish: Option<unsafe extern "C" fn(*mut F)>,
}

#[repr(C)]
pub(super) struct mmu_interval_notifier {
    mark: u64,
    node: [u64; 3],
    pub(super) invalidate_seq: AtomicU64,
    quiet: u64,
    start: u64,
    last: u64,
    private: MaybeUninit<[u64; 6]>,
    ops: *const mmu_interval_notifier_ops,
    mm: M,
}

#[cfg(target_pointer_width = "64")]
const _: () = {
    assert!(offset_of!(mmu_notifier_range, private) == 48 && size_of::<mmu_notifier_range>() == 48 + 9 * 8);
    assert!(offset_of!(mmu_notifier, ops) == 8 && offset_of!(mmu_notifier, mm) == 248);
    assert!(size_of::<mmu_notifier>() == 296 && align_of::<mmu_notifier>() == 8);
    assert!(offset_of!(mmu_interval_notifier, invalidate_seq) == 32);
    assert!(offset_of!(mmu_interval_notifier, mm) == 120);
    assert!(size_of::<mmu_interval_notifier>() == 128 && align_of::<mmu_interval_notifier>() == 8);
    assert!(size_of::<mmu_notifier_ops>() == 80 && offset_of!(mmu_notifier_ops, invalidate_range) == 56);
    assert!(size_of::<mmu_interval_notifier_ops>() == 24 && size_of::<mmu_interval_notifier_finish>() == 16);
};
