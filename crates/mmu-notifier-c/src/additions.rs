//! What has no counterpart in a kernel: the hook for findings, errors as text, statistics, versions.

#![expect(unsafe_code, reason = "calls from C")]

use std::ffi::{CStr, c_char, c_int, c_ulong, c_void};

use crate::call::call;
use crate::errno::{BAD_ARGUMENT, EAGAIN, EINTR, EINVAL, ENOMEM, EOVERFLOW};
use crate::mm::{LockAll, mm_of, mm_struct};
use crate::report::{self, Hook, Listening, misuse};

#[unsafe(no_mangle)]
unsafe extern "C" fn mmun_set_lock_all(
    mm: *mut mm_struct,
    take: Option<unsafe extern "C" fn(*mut mm_struct, *mut c_void) -> c_int>,
    drop: Option<unsafe extern "C" fn(*mut mm_struct, *mut c_void)>,
    data: *mut c_void,
) -> c_int {
    const NAME: &str = "mmun_set_lock_all";
    call!(NAME, || {
        // SAFETY: the caller is a holder.
        let Some(mm) = (unsafe { mm_of(mm, NAME) }) else { return BAD_ARGUMENT.0 };
        if take.is_some() != drop.is_some() {
            misuse(NAME, "give both, or neither");
            return BAD_ARGUMENT.0;
        }
        let hooks = take.zip(drop).map(|(take, drop)| LockAll { take, drop, data });
        *mm.lock_all.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = hooks;
        0
    })
}

#[unsafe(no_mangle)]
extern "C" fn mmun_set_report_hook(hook: Option<Hook>, data: *mut c_void) {
    call!("mmun_set_report_hook", || report::listen(hook.map(|hook| Listening { hook, data })));
}

#[unsafe(no_mangle)]
unsafe extern "C" fn mmun_report_to_stderr(text: *const c_char, _data: *mut c_void) {
    call!("mmun_report_to_stderr", || {
        if !text.is_null() {
            // SAFETY: the caller gives a string.
            let text = unsafe { CStr::from_ptr(text) };
            eprintln!("mmu_notifier: {}", text.to_string_lossy());
        }
    });
}

#[unsafe(no_mangle)]
extern "C" fn mmun_reports() -> c_ulong {
    call!("mmun_reports", report::count)
}

#[unsafe(no_mangle)]
extern "C" fn mmun_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

#[unsafe(no_mangle)]
extern "C" fn mmun_error_text(error: c_int) -> *const c_char {
    let text = match error.wrapping_abs() {
        0 => c"success",
        EINTR => c"the primary MMU was interrupted while it took its locks",
        EAGAIN => c"a subscriber would have to sleep: try again where the invalidation may block",
        ENOMEM => c"out of memory",
        EINVAL => c"a bad argument, or the address space has no users any more",
        EOVERFLOW => c"the range leaves the address space or is empty, or there are too many references",
        _ => c"an error of the primary MMU or of alloc_notifier",
    };
    text.as_ptr()
}

/// Numbers of a space; new ones come at the end.
#[derive(Clone, Copy)]
#[repr(C)]
struct Stats([u64; 7]);

#[unsafe(no_mangle)]
unsafe extern "C" fn mmun_get_stats(mm: *mut mm_struct, stats: *mut c_void, size: usize) {
    const NAME: &str = "mmun_get_stats";
    call!(NAME, || {
        if stats.is_null() {
            return misuse(NAME, "stats must not be NULL");
        }
        // SAFETY: the caller is a holder.
        let Some(mm) = (unsafe { mm_of(mm, NAME) }) else { return };
        let found = mm.space().stats();
        let all = Stats([
            found.starts,
            found.hits,
            found.refusals,
            found.waits,
            found.active,
            found.intervals,
            found.list,
        ]);
        let size = size.min(size_of::<Stats>());
        // SAFETY: the caller's structure has at least so many bytes.
        unsafe { std::ptr::copy_nonoverlapping((&raw const all).cast::<u8>(), stats.cast(), size) };
    });
}
