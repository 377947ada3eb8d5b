//! Changes that the program tells of itself, in a place of the caller's.

#![expect(unsafe_code, reason = "exported functions")]

use std::ffi::{c_int, c_void};

use mmu_notifier::{ActiveInvalidation, Event, Invalidation, Range};

use crate::border::{answer, call};
use crate::start::running;

/// As large as the header's structure.
type Words = [u64; 24];
/// What lies in it between begin and end.
type Bracket = ActiveInvalidation<'static>;

const _: () =
    assert!(size_of::<Bracket>() <= size_of::<Words>() && align_of::<Bracket>() <= align_of::<Words>());

#[unsafe(no_mangle)]
unsafe extern "C" fn mmu_monitor_external_begin(
    external: *mut Words,
    address: *const c_void,
    length: usize,
) -> c_int {
    let begin = || {
        let range = Range::from_len(address, length as u64).map_err(|error| error.to_string())?;
        let bracket = running()?.space().invalidate_start(Invalidation::new(range, Event::Unmap));
        // SAFETY: the caller's place is large enough, and nothing is in it yet.
        unsafe { external.cast::<Bracket>().write(bracket) };
        Ok::<(), String>(())
    };
    call("mmu_monitor_external_begin", || answer(begin()))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn mmu_monitor_external_end(external: *mut Words) {
    call("mmu_monitor_external_end", || {
        // SAFETY: the caller's begin wrote it, and it is ended once.
        unsafe { external.cast::<Bracket>().read() }.end();
    });
}
