//! Thread-locals at a fixed distance from the thread, in a shared library too.
//!
//! A shared library asks the dynamic linker for the address of a thread-local (`__tls_get_addr`). After a `dlopen` or
//! `dlclose` by anybody, the linker first brings the thread's table up to date, and may allocate and free for that: inside
//! `free`, where a start may run, that is a deadlock. So the library that this crate is linked into answers the question
//! itself: its thread-locals lie where those of an executable do, in the block that every thread has from its first moment
//! (the linker fills in the distance, or refuses to load the library when there is no more room there).
//!
//! The answer is hidden, so nobody outside gets it, and weak, so that a static executable keeps its own; executables never
//! ask.

#![expect(unsafe_code, reason = "an answer to compilers, in machine code")]

use core::arch::global_asm;

unsafe extern "C" {
    fn mmu_monitor_thread_local(question: &[usize; 2]) -> usize;
}

/// Where the thread-locals of this object begin, in this thread.
pub(super) fn block() -> usize {
    // SAFETY: the function below, of that type, which only reads.
    unsafe { mmu_monitor_thread_local(&[0, 0]) }
}

// The question: rdi leads to the number of the object, which is this one, and the offset in its block.
global_asm!(
    ".pushsection .tbss.mmu_monitor_anchor, \"awT\", @nobits",
    ".p2align 3",
    "mmu_monitor_anchor:",
    ".zero 8",
    ".popsection",
    ".pushsection .rodata.mmu_monitor_anchor, \"a\", @progbits",
    ".p2align 3",
    "mmu_monitor_anchor_offset:",
    ".quad mmu_monitor_anchor@dtpoff",
    ".popsection",
    ".pushsection .text.mmu_monitor_thread_local, \"ax\", @progbits",
    ".p2align 4",
    ".weak __tls_get_addr",
    ".hidden __tls_get_addr",
    ".type __tls_get_addr, @function",
    ".globl mmu_monitor_thread_local",
    ".hidden mmu_monitor_thread_local",
    "__tls_get_addr:",
    "mmu_monitor_thread_local:",
    "movq mmu_monitor_anchor@gottpoff(%rip), %rax",
    "subq mmu_monitor_anchor_offset(%rip), %rax",
    "addq 8(%rdi), %rax",
    "addq %fs:0, %rax",
    "ret",
    ".popsection",
    options(att_syntax),
);
