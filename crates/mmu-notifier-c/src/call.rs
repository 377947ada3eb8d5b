//! The border: a call from C, which no panic leaves.

use std::ffi::c_void;

use notifier::diagnostics;

/// Ends the program if it is dropped: a panic is passing.
struct Border(&'static str);

impl Drop for Border {
    // Inlined, so that a call that does not panic has no border in memory.
    #[inline(always)]
    fn drop(&mut self) {
        end_within(self.0);
    }
}

#[cold]
#[inline(never)]
fn end_within(name: &'static str) -> ! {
    eprintln!("mmu_notifier: a panic within {name}");
    std::process::abort();
}

/// Runs the body of the call with this name.
#[inline(always)]
pub(crate) fn call<R>(name: &'static str, body: impl FnOnce() -> R) -> R {
    let border = Border(name);
    let result = body();
    core::mem::forget(border);
    result
}

/// What a structure in C's memory carries while the library uses it: other memory carries it by chance only once in
/// 2^64 times, a copy at another address never. The header knows the mark of a library without diagnostics, for what it
/// does without a call; one with them has another mark, so that it sees every call.
pub(crate) fn mark_of(address: *const c_void) -> u64 {
    const KEY: u64 = 0x9e37_79b9_7f4a_7c15 ^ diagnostics::ENABLED as u64;
    (address as usize as u64).rotate_left(17) ^ KEY
}
