//! Thread-locals at a fixed distance from the thread, for shared libraries that contain this crate.

/// Keeps the thread-locals of a shared library where those of an executable are: in the block that every thread has from
/// its first moment. For a library (`cdylib`) of x86-64 ELF that may be called from within an allocator; executables need it
/// not.
///
/// A shared library asks the dynamic linker for the address of a thread-local (`__tls_get_addr`). After a `dlopen` or
/// `dlclose` by anybody, the linker first brings the thread's table up to date, and may allocate and free for that: inside
/// `free`, that is a deadlock. This macro, said once at the library's root, makes a function that answers; the linker of the
/// library is told to take it, in `build.rs`:
///
/// ```
/// println!("cargo::rustc-cdylib-link-arg=-Wl,--defsym=__tls_get_addr=mmu_notifier_thread_local");
/// ```
///
/// The answer stays within the library. When it is loaded, the distance is filled in; if there is no more room in the
/// block of threads, loading it is refused.
///
/// # Safety
/// The answer is right for the library's own thread-locals alone. So no code that is linked into it may reach those of
/// another library by name, as C++ code does with libstdc++ (`std::call_once`).
#[macro_export]
macro_rules! keep_thread_locals_near {
    () => {
        // The question: rdi leads to the number of the object, which is this one, and the offset in its block.
        ::core::arch::global_asm!(
            ".pushsection .tbss.mmu_notifier_anchor, \"awT\", @nobits",
            ".p2align 3",
            "mmu_notifier_anchor:",
            ".zero 8",
            ".popsection",
            ".pushsection .rodata.mmu_notifier_anchor, \"a\", @progbits",
            ".p2align 3",
            "mmu_notifier_anchor_offset:",
            ".quad mmu_notifier_anchor@dtpoff",
            ".popsection",
            ".pushsection .text.mmu_notifier_thread_local, \"ax\", @progbits",
            ".p2align 4",
            ".globl mmu_notifier_thread_local",
            ".hidden mmu_notifier_thread_local",
            ".type mmu_notifier_thread_local, @function",
            "mmu_notifier_thread_local:",
            "movq mmu_notifier_anchor@gottpoff(%rip), %rax",
            "subq mmu_notifier_anchor_offset(%rip), %rax",
            "addq 8(%rdi), %rax",
            "addq %fs:0, %rax",
            "ret",
            ".popsection",
            options(att_syntax),
        );
    };
}
