//! Thread-locals at a fixed distance from the thread, for shared libraries that bring this crate along.

/// Keeps the thread-locals of a shared library where those of an executable are: in the block that every thread has from
/// its first moment. A library (`cdylib`) that contains this crate says it once, at its root; an executable never does.
///
/// A shared library asks the dynamic linker for the address of a thread-local (`__tls_get_addr`). After a `dlopen` or
/// `dlclose` by anybody, the linker first brings the thread's table up to date, and may allocate and free for that: inside
/// `free`, where a start may run, that is a deadlock. With this macro the library answers the question itself. The answer is
/// hidden, so nobody outside gets it. The linker fills in the distance, or refuses to load the library when there is no
/// more room in the block.
///
/// # Safety
/// The answer is right for the library's own thread-locals alone. So no code that is linked into it may reach those of
/// another library by name, as C++ code does with libstdc++ (`std::call_once`).
#[macro_export]
macro_rules! keep_thread_locals_near {
    () => {
        // The question: rdi leads to the number of the object, which is this one, and the offset in its block.
        ::core::arch::global_asm!(
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
            ".globl __tls_get_addr",
            ".hidden __tls_get_addr",
            ".type __tls_get_addr, @function",
            "__tls_get_addr:",
            "movq mmu_monitor_anchor@gottpoff(%rip), %rax",
            "subq mmu_monitor_anchor_offset(%rip), %rax",
            "addq 8(%rdi), %rax",
            "addq %fs:0, %rax",
            "ret",
            ".popsection",
            options(att_syntax),
        );
    };
}
