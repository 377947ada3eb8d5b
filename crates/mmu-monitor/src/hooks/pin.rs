//! What must hold of this very library before others jump into it: it stays, and its thread-locals are there.
//!
//! A library that is loaded late gets its thread-locals when a thread first reaches for them, from the allocator. In the
//! middle of `free` that is a deadlock. So it has to be there from the start: linked, or preloaded.

#![expect(unsafe_code, reason = "questions to the dynamic linker")]

use std::string::{String, ToString};
use std::thread_local;

thread_local! {
    static HERE: u8 = const { 0 };
}

/// Makes sure of both.
///
/// # Errors
/// The library came too late.
pub(super) fn check() -> Result<(), String> {
    /// More than any program has of thread-locals that exist from the start.
    const NEAR: usize = 1 << 18;
    let here = HERE.with(|here| core::ptr::from_ref(here) as usize);
    if thread_pointer().abs_diff(here) > NEAR {
        return Err("the library was loaded while the program ran: its thread-locals would be allocated in the middle \
                    of `free`; link it, or load it with LD_PRELOAD"
            .to_string());
    }
    stay();
    Ok(())
}

fn thread_pointer() -> usize {
    let pointer;
    // SAFETY: on x86-64 the thread's own block begins with its address.
    unsafe {
        core::arch::asm!("mov {}, fs:[0]", out(reg) pointer, options(nostack, readonly, preserves_flags));
    }
    pointer
}

/// Keeps the object that this code is in from being unloaded, if it is one that could be.
#[cfg(not(target_feature = "crt-static"))]
fn stay() {
    // SAFETY: all zero is a valid `Dl_info`.
    let mut info: libc::Dl_info = unsafe { core::mem::zeroed() };
    let inside = check as *const core::ffi::c_void;
    // SAFETY: the linker fills it in, or says that it knows nothing of the address.
    if unsafe { libc::dladdr(inside, &raw mut info) } != 0 && !info.dli_fname.is_null() {
        // For the executable itself this finds nothing, and changes nothing.
        // SAFETY: the linker's own name; nothing is loaded anew.
        unsafe { libc::dlopen(info.dli_fname, libc::RTLD_NOW | libc::RTLD_NOLOAD | libc::RTLD_NODELETE) };
    }
}

#[cfg(target_feature = "crt-static")]
fn stay() {}
