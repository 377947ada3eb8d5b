//! What stubs jump to: saves what `syscall` promises to keep, calls [`handle`], and goes on behind the site.
//!
//! On entry rax holds the number, the arguments are where the kernel expects them, r11 holds the address behind the
//! site, and rcx is free, since the system call would have overwritten both. The 128 bytes below the stack pointer are
//! the caller's. The flags are kept by `lahf` and `sahf`, which cost less than pushing them; the overflow flag too.
//!
//! Three entries: `plain` for a site in a function that uses no vector register, whose caller cannot count on them
//! either; `vectors` saves these too, x87 to AVX-512; `any` looks first whether the call is one of memory at all, and if
//! not goes back to the site's own `syscall` instruction as if nothing had been, so that what returns twice, or not at
//! all, or on another stack, does.
//!
//! # Stack
//! 320 bytes; 3,072 more where vectors are saved; then what [`handle`] uses, some 5 KiB, and the callbacks: less than a
//! thread of 16 KiB has (`stack.c` of `mmu-monitor-c` tries it in a release build).

#![expect(unsafe_code, reason = "the border between machine code and Rust")]

use core::arch::global_asm;

use super::site::Site;
use crate::call::{Call, NUMBERS};
use crate::process;

unsafe extern "C" {
    fn mmu_monitor_entry_plain();
    fn mmu_monitor_entry_vectors();
    fn mmu_monitor_entry_any();
}

/// The addresses of the entries.
pub(super) fn table() -> [usize; 3] {
    let entries: [unsafe extern "C" fn(); 3] =
        [mmu_monitor_entry_plain, mmu_monitor_entry_vectors, mmu_monitor_entry_any];
    entries.map(|entry| entry as *const () as usize)
}

/// Which of [`table`] a site's stub jumps to.
pub(super) fn index(site: &Site) -> usize {
    if site.is_any() { 2 } else { usize::from(site.has_vectors) }
}

/// The numbers of [`NUMBERS`], a bit each.
static IS_OF_MEMORY: [u64; 8] = {
    let mut bits = [0; 8];
    let mut index = 0;
    while index < NUMBERS.len() {
        bits[NUMBERS[index] / 64] |= 1 << (NUMBERS[index] % 64);
        index += 1;
    }
    bits
};

/// Makes the call of a site. A panic that arrives here ends the process.
extern "C" fn handle(call: &Call) -> isize {
    // SAFETY: it is the caller's call, whose duties it has met or not, as without this crate.
    unsafe { process::make_call(call) }
}

global_asm!(
    // Saves the flags and the way back below the caller's 128 bytes. Leaves the number in rcx.
    ".macro MMU_MONITOR_BEGIN",
    "lea rsp, [rsp - 128]",
    "mov rcx, rax",
    "lahf",
    "seto al",
    "push r11",
    "push rax",
    ".endm",
    // Lays out a `Call` on an aligned stack.
    ".macro MMU_MONITOR_LAY_OUT",
    "push rbp",
    "mov rbp, rsp",
    "and rsp, -64",
    "sub rsp, 64",
    "mov [rsp], rcx",
    "mov [rsp + 8], rdi",
    "mov [rsp + 16], rsi",
    "mov [rsp + 24], rdx",
    "mov [rsp + 32], r10",
    "mov [rsp + 40], r8",
    "mov [rsp + 48], r9",
    "mov rdi, rsp",
    ".endm",
    // Takes all back, with the result in rcx.
    ".macro MMU_MONITOR_FINISH",
    "mov rdi, [rsp + 8]",
    "mov rsi, [rsp + 16]",
    "mov rdx, [rsp + 24]",
    "mov r10, [rsp + 32]",
    "mov r8, [rsp + 40]",
    "mov r9, [rsp + 48]",
    "mov rsp, rbp",
    "pop rbp",
    "pop rax",
    "pop r11",
    "add al, 127",
    "sahf",
    "mov rax, rcx",
    "lea rsp, [rsp + 128]",
    "jmp r11",
    ".endm",
    "",
    ".pushsection .text.mmu_monitor_entry, \"ax\", @progbits",
    ".p2align 4",
    ".globl mmu_monitor_entry_plain",
    ".hidden mmu_monitor_entry_plain",
    "mmu_monitor_entry_plain:",
    "MMU_MONITOR_BEGIN",
    "2:",
    "MMU_MONITOR_LAY_OUT",
    "call {handle}",
    "mov rcx, rax",
    "MMU_MONITOR_FINISH",
    "",
    ".p2align 4",
    ".globl mmu_monitor_entry_any",
    ".hidden mmu_monitor_entry_any",
    "mmu_monitor_entry_any:",
    "MMU_MONITOR_BEGIN",
    // The kernel looks at the lower half alone.
    "mov eax, ecx",
    "cmp eax, 512",
    "jae 3f",
    "lea r11, [rip + {is_of_memory}]",
    "bt qword ptr [r11], rax",
    "jc 4f",
    // Not of memory: the site's own instruction makes it.
    "3:",
    "pop rax",
    "pop r11",
    "lea r11, [r11 - 2]",
    "add al, 127",
    "sahf",
    "mov rax, rcx",
    "lea rsp, [rsp + 128]",
    "jmp r11",
    "4:",
    "mov ecx, ecx",
    "jmp 2b",
    "",
    ".p2align 4",
    ".globl mmu_monitor_entry_vectors",
    ".hidden mmu_monitor_entry_vectors",
    "mmu_monitor_entry_vectors:",
    "MMU_MONITOR_BEGIN",
    "MMU_MONITOR_LAY_OUT",
    // The standard format of x87, SSE, AVX and AVX-512 ends at 2,688; its header starts as zero.
    "sub rsp, 2752",
    "xor eax, eax",
    "mov [rsp + 512], rax",
    "mov [rsp + 520], rax",
    "mov [rsp + 528], rax",
    "mov [rsp + 536], rax",
    "mov [rsp + 544], rax",
    "mov [rsp + 552], rax",
    "mov [rsp + 560], rax",
    "mov [rsp + 568], rax",
    "mov eax, 0xe7",
    "xor edx, edx",
    "xsave64 [rsp]",
    "call {handle}",
    "mov rcx, rax",
    "mov eax, 0xe7",
    "xor edx, edx",
    "xrstor64 [rsp]",
    "add rsp, 2752",
    "MMU_MONITOR_FINISH",
    ".popsection",
    handle = sym handle,
    is_of_memory = sym IS_OF_MEMORY,
);
