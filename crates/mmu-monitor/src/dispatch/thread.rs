//! What each thread has of the trap: a few words at a place that machine code finds without a free register.
//!
//! They are thread-locals of the initial kind: they exist from the birth of the thread, and reaching them calls nobody.

#![expect(unsafe_code, reason = "thread-locals that machine code shares")]

use core::arch::{asm, global_asm};
use core::cell::Cell;

/// The words of a thread. `pass` knows their places.
#[repr(C)]
pub(super) struct Thread {
    /// The kernel reads it at each call outside the C library.
    pub(super) selector: Cell<u8>,
    /// Where the thread goes on behind a call that passes, and its second argument.
    pub(super) back: Cell<usize>,
    pub(super) second: Cell<usize>,
    /// The thread's number while it is armed. A child of fork has another one.
    pub(super) armed: Cell<usize>,
    /// How many calls were trapped.
    pub(super) trapped: Cell<usize>,
}

/// Calls pass.
pub(super) const ALLOW: u8 = 0;
/// Calls trap.
pub(super) const BLOCK: u8 = 1;

global_asm!(
    ".pushsection .tbss, \"awT\", @nobits",
    ".p2align 3",
    ".globl mmu_monitor_thread",
    ".hidden mmu_monitor_thread",
    ".type mmu_monitor_thread, @tls_object",
    ".size mmu_monitor_thread, {size}",
    "mmu_monitor_thread:",
    ".zero {size}",
    ".popsection",
    size = const size_of::<Thread>(),
);

/// The words of the calling thread.
#[inline(never)]
pub(super) fn this() -> *const Thread {
    let place: *const Thread;
    // SAFETY: it reads the thread pointer and the distance from it, which the linker filled in.
    unsafe {
        asm!(
            "mov {place}, [rip + mmu_monitor_thread@GOTTPOFF]",
            "add {place}, fs:[0]",
            place = out(reg) place,
            options(nostack, readonly),
        );
    }
    place
}

/// Does something with the words of the calling thread.
pub(super) fn with<R>(f: impl FnOnce(&Thread) -> R) -> R {
    // SAFETY: they start as zero, which is valid, and are this thread's alone, as long as it lives.
    f(unsafe { &*this() })
}
