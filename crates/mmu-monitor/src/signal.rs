//! Signals that are somebody else's: they are handed on to whoever handled them before.

#![expect(unsafe_code, reason = "handlers of signals")]

use core::ffi::{c_int, c_void};

/// Does what `before` would have done, which is a handler or one of the words of `signal`.
///
/// # Safety
/// - If it is a handler, it was installed as one for that signal.
/// - The rest is what the kernel called a handler of that signal with.
pub(crate) unsafe fn hand_on(before: usize, signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    match before {
        libc::SIG_DFL => {
            // SAFETY: what would have happened happens when this returns.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
            // SAFETY: as above.
            unsafe { libc::raise(signal) };
        }
        libc::SIG_IGN => {}
        handler => {
            // SAFETY: the caller's promise; further arguments do no harm to one that takes one.
            let handler: unsafe extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) =
                unsafe { core::mem::transmute(handler) };
            // SAFETY: as the kernel would have called it.
            unsafe { handler(signal, info, context) };
        }
    }
}
