//! Changes that the program tells of itself, in a place of the caller's.

#![expect(unsafe_code, reason = "exported functions")]

use std::ffi::{c_int, c_void};

use core::ptr::NonNull;

use mmu_notifier::{Event, Invalidation, Range};
use monitor::explicit::Begun;

use crate::border::{answer, call};
use crate::start::running;

/// As large as the header's structure.
type Words = [u64; 64];
const _: () = assert!(size_of::<Begun>() <= size_of::<Words>() && align_of::<Begun>() <= align_of::<Words>());

#[unsafe(no_mangle)]
unsafe extern "C" fn mmu_monitor_external_begin(
    external: *mut Words,
    address: *const c_void,
    length: usize,
) -> c_int {
    let begin = || {
        let range = Range::from_len(address, length as u64).map_err(|error| error.to_string())?;
        running()?;
        let place = NonNull::new(external.cast::<Begun>()).ok_or("external: NULL is no place")?;
        // SAFETY: the caller's place is large enough, nothing is in it yet, and it stays where it is.
        unsafe { Begun::begin(place, Invalidation::new(range, Event::Unmap)) };
        Ok::<(), String>(())
    };
    call("mmu_monitor_external_begin", || answer(begin()))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn mmu_monitor_external_end(external: *mut Words) {
    call("mmu_monitor_external_end", || {
        // SAFETY: the caller's begin wrote it, and it is ended once.
        unsafe { external.cast::<Begun>().drop_in_place() };
    });
}
