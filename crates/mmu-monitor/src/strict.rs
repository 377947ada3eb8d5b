//! An allocator that knows the rule: no callback of the monitor allocates or frees.
//!
//! A callback that does works for a long time: most changes of the mappings do not come out of the allocator, and an
//! allocator with one thread in it takes no locks. Then, once, it waits for a lock that its own thread holds. As the
//! global allocator of a debug build [`Strict`] finds it at the first call.

#![expect(unsafe_code, reason = "an allocator")]

use core::alloc::{GlobalAlloc, Layout};
use core::cell::Cell;
use core::fmt::{self, Write};
use core::ptr;
use std::thread_local;

use mmu_notifier::diagnostics;

use crate::call::Call;
use crate::kernel::system_call;

thread_local! {
    // Const and without a destructor: reaching it allocates nothing.
    static INSIDE: Cell<*const Call> = const { Cell::new(ptr::null()) };
}

/// Calls `f` as the inside of `call`.
#[inline]
pub(crate) fn inside<R>(call: &Call, f: impl FnOnce() -> R) -> R {
    // A panic that leaves `f` ends the process.
    let outer = INSIDE.replace(call);
    let result = f();
    INSIDE.set(outer);
    result
}

/// Says whether this thread is in the middle of a system call that the monitor brackets: callbacks run here.
pub fn is_inside() -> bool {
    !INSIDE.get().is_null()
}

/// An allocator that ends the process when a callback of the monitor allocates, frees or resizes, and says which.
///
/// ```
/// use std::alloc::System;
///
/// # #[cfg(debug_assertions)]
/// #[global_allocator]
/// static ALLOCATOR: mmu_monitor::Strict<System> = mmu_monitor::Strict(System);
/// # fn main() {}
/// ```
#[derive(Debug, Default)]
pub struct Strict<A>(pub A);

// SAFETY: each call is the inner allocator's, which keeps the trait's promises.
unsafe impl<A: GlobalAlloc> GlobalAlloc for Strict<A> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        check("allocated", layout);
        // SAFETY: the caller's duties are the same.
        unsafe { self.0.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        check("allocated", layout);
        // SAFETY: the caller's duties are the same.
        unsafe { self.0.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        check("freed", layout);
        // SAFETY: the caller's duties are the same.
        unsafe { self.0.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        check("resized", layout);
        // SAFETY: the caller's duties are the same.
        unsafe { self.0.realloc(memory, layout, size) }
    }
}

#[inline]
fn check(what: &str, layout: Layout) {
    // SAFETY: null, or a call that is under way in this thread, which lies on its stack.
    if let Some(call) = unsafe { INSIDE.get().as_ref() } {
        refuse(what, layout, call);
    }
}

#[cold]
fn refuse(what: &str, layout: Layout, call: &Call) -> ! {
    let who = diagnostics::calling().unwrap_or("a notifier");
    let [first, second, ..] = call.arguments;
    _ = writeln!(
        Stderr,
        "mmu-monitor: a callback of {who} {what} {} bytes in the middle of system call {}({first:#x}, {second:#x}, ..): callbacks \
         must not allocate or free",
        layout.size(),
        call.number
    );
    std::process::abort()
}

/// Standard error, without a lock or a buffer.
struct Stderr;

impl Write for Stderr {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let words = [2, text.as_ptr() as usize, text.len(), 0, 0, 0];
        // SAFETY: the kernel reads the text.
        unsafe { system_call(libc::SYS_write as usize, words) };
        Ok(())
    }
}
