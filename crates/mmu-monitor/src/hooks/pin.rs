//! What must hold of this very library before others jump into it: it stays, and its thread-locals are there.
//!
//! Thread-locals that are allocated when a thread first reaches for them are a deadlock in the middle of `free`;
//! [`near`] keeps them from it, and here it is looked at.

#![expect(unsafe_code, reason = "questions to the dynamic linker")]

use std::string::{String, ToString};
use std::thread_local;

use super::near;

thread_local! {
    static HERE: u8 = const { 0 };
}

/// Makes sure of both.
///
/// # Errors
/// The library came too late.
pub(crate) fn check() -> Result<(), String> {
    /// More than any object has of thread-locals.
    const NEAR: usize = 1 << 18;
    let here = HERE.with(|here| core::ptr::from_ref(here) as usize);
    if near::block().abs_diff(here) > NEAR {
        return Err("the linker made the thread-locals of this library such that they are allocated in the middle of \
                    `free`; link it into the program, or load it with LD_PRELOAD"
            .to_string());
    }
    stay();
    Ok(())
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
