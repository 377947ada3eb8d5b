//! What every platform with `std` shares: contexts in thread-local storage, and panics that are caught.

#![expect(unsafe_code, reason = "the address of a thread-local is kept for the time of a call")]

use std::any::Any;
use std::boxed::Box;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Instant;

use super::Context;

pub(crate) type Payload = Box<dyn Any + Send>;

std::thread_local! {
    // Const and without a destructor: it is there in every moment of a thread, also inside `free()` while
    // the thread ends, and reaching it allocates nothing.
    static CONTEXT: Context = const { Context::new() };
}

/// Calls `f` with the context of this thread.
#[inline(always)]
pub(crate) fn with_context<R>(f: impl FnOnce(Option<&Context>) -> R) -> R {
    // The address alone is fetched within `with`, which is not inlined around more.
    let context = CONTEXT.with(core::ptr::from_ref);
    // SAFETY: it has no destructor, so it lives as long as this thread, and `f` cannot keep the reference.
    f(Some(unsafe { &*context }))
}

/// Calls a callback and keeps its panic.
// Never inlined: where a value lives across a landing pad, LLVM may write it over the exception's pointer.
// Here no value does (docs/decisions/0009-panics-are-caught-by-the-tables.md). Where panics abort, none passes.
#[cfg_attr(panic = "unwind", inline(never))]
#[cfg_attr(not(panic = "unwind"), inline(always))]
pub(crate) fn catch<R>(callback: impl FnOnce() -> R) -> Result<R, Payload> {
    catch_here(callback)
}

/// The same, inlined, for a function that does nothing else.
#[inline(always)]
pub(crate) fn catch_here<R>(callback: impl FnOnce() -> R) -> Result<R, Payload> {
    catch_unwind(AssertUnwindSafe(callback))
}

/// Says whether a panic is passing through this thread.
#[inline]
pub(crate) fn is_panicking() -> bool {
    std::thread::panicking()
}

/// Lets a kept panic go on.
pub(crate) fn resume(payload: Payload) -> ! {
    resume_unwind(payload)
}

/// Nanoseconds on a clock that never goes back.
pub(crate) fn now() -> Option<u64> {
    static EPOCH: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    let elapsed = EPOCH.get_or_init(Instant::now).elapsed();
    Some(u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX))
}

pub(crate) fn spin() {
    core::hint::spin_loop();
}

pub(crate) fn give_way() {
    std::thread::yield_now();
}
