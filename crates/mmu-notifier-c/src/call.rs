//! The border: a call from C, which no panic leaves.

use std::ffi::c_void;

use notifier::diagnostics;

/// Ends the program if it is dropped: a panic is passing. It has the name of the call as a function, so that a call
/// that does not panic has no border in memory: a store before the fence of a start is one that the fence waits for.
struct Border<N: Fn() -> &'static str>(N);

impl<N: Fn() -> &'static str> Drop for Border<N> {
    fn drop(&mut self) {
        end_within((self.0)());
    }
}

#[cold]
#[inline(never)]
fn end_within(name: &'static str) -> ! {
    eprintln!("mmu_notifier: a panic within {name}");
    std::process::abort();
}

/// Runs the body of the call with this name: `call!(name, body)`.
macro_rules! call {
    ($name:expr, $body:expr) => {
        $crate::call::call_named(|| $name, $body)
    };
}

pub(crate) use call;

#[inline(always)]
pub(crate) fn call_named<R>(name: impl Fn() -> &'static str, body: impl FnOnce() -> R) -> R {
    let border = Border(name);
    let result = body();
    core::mem::forget(border);
    result
}

/// What a structure in C's memory carries while the library uses it: the complement of its own address, which neither
/// other memory nor a copy at another address carries. The header knows the mark of a library without diagnostics, for
/// what it does without a call; one with them has another mark, so that it sees every call.
pub(crate) fn mark_of(address: *const c_void) -> u64 {
    !(address as usize as u64) ^ diagnostics::ENABLED as u64
}
