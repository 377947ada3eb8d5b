//! The structures of `include/mmu_notifier.h`. The C tests compare each size and offset with the numbers here.

#![allow(non_camel_case_types, reason = "names of C")]

use std::ffi::{c_int, c_long, c_ulong, c_void};
use std::mem::{MaybeUninit, offset_of};
use std::sync::atomic::{AtomicU32, AtomicU64};

use notifier::intrusive::{Interval, Listener, Started};

use crate::mm::mm_struct;

#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct pte_t(pub(crate) c_ulong);

#[repr(C)]
pub(crate) struct vm_area_struct {
    pub(crate) start: c_ulong,
    pub(crate) end: c_ulong,
    pub(crate) mm: *mut mm_struct,
    pub(crate) flags: c_ulong,
}

#[repr(C)]
pub(crate) struct mmu_notifier_range {
    pub(crate) vma: *const vm_area_struct,
    pub(crate) mm: *const mm_struct,
    pub(crate) start: c_ulong,
    pub(crate) end: c_ulong,
    pub(crate) flags: u32,
    pub(crate) event: u32,
    pub(crate) owner: *mut c_void,
    /// Whether it is started.
    pub(crate) mark: u64,
    pub(crate) started: MaybeUninit<Started>,
    /// What the last list callback that refused returned; 0 for none.
    pub(crate) refusal: c_long,
    /// Those that wait for their second pass, in the order of the first.
    pub(crate) first: *mut mmu_interval_notifier_finish,
    pub(crate) last: *mut mmu_interval_notifier_finish,
    /// The next range of this thread with such.
    pub(crate) outer: *mut mmu_notifier_range,
}

type N = *mut mmu_notifier;
type M = *mut mm_struct;
type R = *const mmu_notifier_range;

#[repr(C)]
pub(crate) struct mmu_notifier_ops {
    pub(crate) release: Option<unsafe extern "C" fn(N, M)>,
    pub(crate) clear_flush_young: Option<unsafe extern "C" fn(N, M, c_ulong, c_ulong) -> c_int>,
    pub(crate) clear_young: Option<unsafe extern "C" fn(N, M, c_ulong, c_ulong) -> c_int>,
    pub(crate) test_young: Option<unsafe extern "C" fn(N, M, c_ulong) -> c_int>,
    pub(crate) change_pte: Option<unsafe extern "C" fn(N, M, c_ulong, pte_t)>,
    pub(crate) invalidate_range_start: Option<unsafe extern "C" fn(N, R) -> c_int>,
    pub(crate) invalidate_range_end: Option<unsafe extern "C" fn(N, R)>,
    pub(crate) invalidate_range: Option<unsafe extern "C" fn(N, M, c_ulong, c_ulong)>,
    pub(crate) alloc_notifier: Option<unsafe extern "C" fn(M) -> N>,
    pub(crate) free_notifier: Option<unsafe extern "C" fn(N)>,
}

#[repr(C)]
pub(crate) struct hlist_node {
    pub(crate) next: *mut hlist_node,
    pub(crate) pprev: *mut *mut hlist_node,
}

/// What walks use comes first.
#[repr(C)]
pub(crate) struct mmu_notifier {
    /// Whether `listener` is there.
    pub(crate) mark: u64,
    pub(crate) ops: *const mmu_notifier_ops,
    pub(crate) listener: MaybeUninit<Listener>,
    pub(crate) mm: M,
    pub(crate) hlist: hlist_node,
    pub(crate) users: AtomicU32,
    spare: [u64; 2],
}

#[repr(C)]
pub(crate) struct mmu_interval_notifier_finish {
    pub(crate) next: *mut mmu_interval_notifier_finish,
    pub(crate) notifier: *mut mmu_interval_notifier,
}

type I = *mut mmu_interval_notifier;
type F = mmu_interval_notifier_finish;

pub(crate) type Invalidate = unsafe extern "C" fn(I, R, c_ulong) -> bool;

#[repr(C)]
pub(crate) struct mmu_interval_notifier_ops {
    pub(crate) invalidate: Option<Invalidate>,
    pub(crate) invalidate_start: Option<unsafe extern "C" fn(I, R, c_ulong, *mut *mut F) -> bool>,
    pub(crate) invalidate_finish: Option<unsafe extern "C" fn(*mut F)>,
}

/// What hits and reads use comes first. `invalidate_seq` and `interval_tree` of C are words of the interval itself.
#[repr(C)]
pub(crate) struct mmu_interval_notifier {
    /// Its own word is the mark.
    pub(crate) interval: MaybeUninit<Interval>,
    /// For the library; so the structure is as long as two cache lines.
    spare: MaybeUninit<u64>,
    pub(crate) ops: *const mmu_interval_notifier_ops,
    pub(crate) mm: M,
}

impl mmu_interval_notifier {
    /// The place of `mmun_mark`: whether `interval` is there.
    pub(crate) fn mark(this: *mut Self) -> *mut u64 {
        Self::interval(this).wrapping_byte_add(offset_of!(Interval, word)).cast()
    }

    /// The place of `invalidate_seq`.
    pub(crate) fn invalidate_seq(this: *mut Self) -> *mut AtomicU64 {
        Self::interval(this).wrapping_byte_add(Interval::SEQUENCE_AT).cast()
    }
}

/// Makes a function for each field that gives its place, for memory that is not all written yet.
macro_rules! places {
    ($type:ident { $($field:ident: $of:ty),* $(,)? }) => {
        impl $type {
            $(pub(crate) fn $field(this: *mut Self) -> *mut $of {
                this.wrapping_byte_add(offset_of!($type, $field)).cast()
            })*
        }
    };
}

places!(mmu_notifier {
    ops: *const mmu_notifier_ops,
    mm: M,
    users: AtomicU32,
    mark: u64,
    listener: Listener,
});
places!(mmu_interval_notifier {
    ops: *const mmu_interval_notifier_ops,
    mm: M,
    interval: Interval,
});

const _: () = {
    assert!(size_of::<c_ulong>() == 8, "the C interface is for 64-bit machines");
    assert!(offset_of!(mmu_notifier_range, mark) == 48);
    assert!(size_of::<mmu_notifier_range>() == 48 + 9 * 8);
    assert!(offset_of!(mmu_notifier, mark) == 0 && offset_of!(mmu_notifier, ops) == 8);
    assert!(offset_of!(mmu_notifier, mm) == 248 && offset_of!(mmu_notifier, hlist) == 256);
    assert!(offset_of!(mmu_notifier, users) == 272 && align_of::<mmu_notifier>() == 8);
    assert!(size_of::<mmu_notifier>() == 296);
    assert!(offset_of!(mmu_interval_notifier, interval) == 0 && offset_of!(Interval, word) == 0);
    assert!(offset_of!(mmu_interval_notifier, ops) == 112 && offset_of!(mmu_interval_notifier, mm) == 120);
    assert!(size_of::<mmu_interval_notifier>() == 128 && align_of::<mmu_interval_notifier>() == 8);
    // What C finds within the interval: invalidate_seq, mmun_quiet, interval_tree.
    assert!(Interval::SEQUENCE_AT == 32 && Interval::SETTLED_AT == 40 && Interval::BOUNDS_AT == 48);
    assert!(size_of::<mmu_notifier_ops>() == 80 && size_of::<mmu_interval_notifier_ops>() == 24);
    assert!(size_of::<mmu_interval_notifier_finish>() == 16 && size_of::<vm_area_struct>() == 32);
};
