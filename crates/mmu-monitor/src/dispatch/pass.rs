//! Calls that cannot be made in a handler: they return twice, on another stack, or not at all.
//!
//! - fork, vfork and clone: the thread's registers are put back as they were at the instruction, vector registers and the
//!   stack pointer too, and the call is made in that state by an instruction of this file, with the trap off for that
//!   moment. Behind it only the place to go on has to be found, and rcx is free for that, since a system call overwrites it.
//!   The frame of the signal is left behind unused: its mask of signals is the thread's own. The child of a vfork, which
//!   runs on the same stack while the parent sleeps, may overwrite it.
//! - clone with a stack of its own: the child finds the place to go on at the top of that stack, since it may have another
//!   thread pointer.
//! - rt_sigreturn: made by the C library's instruction, with the stack pointer of the caller.
//!
//! A signal that is handled in the few instructions with the trap off finds it off, too.

#![expect(unsafe_code, reason = "the border between machine code and Rust")]

use core::arch::{asm, global_asm};
use core::ffi::c_int;
use core::ptr;

use super::thread;

unsafe extern "C" {
    fn mmu_monitor_pass(registers: *const i64, vectors: *const u8, features: u64) -> !;
    fn mmu_monitor_pass_to_stack(registers: *const i64, vectors: *const u8, features: u64) -> !;
}

/// Makes the call of the context, which has no stack for the child, and goes on behind it.
///
/// # Safety
/// - It is the context of a call of this thread, handed to a handler that blocks no signal.
pub(super) unsafe fn here(context: &mut libc::ucontext_t) -> ! {
    note_return(context, register(context, libc::REG_RSI));
    let (vectors, features) = vectors(context);
    // SAFETY: the caller's promise.
    unsafe { mmu_monitor_pass(context.uc_mcontext.gregs.as_ptr(), vectors, features) }
}

/// Makes the clone of the context, whose child has a stack of its own, and goes on behind it.
///
/// # Safety
/// - As above, and the stack is one.
pub(super) unsafe fn to_stack(context: &mut libc::ucontext_t) -> ! {
    let stack = register(context, libc::REG_RSI);
    note_return(context, stack);
    // The child takes both off its stack again.
    let words = [stack, register(context, libc::REG_RIP)];
    let top = stack - size_of_val(&words);
    // SAFETY: below the top of a stack there is room.
    unsafe { ptr::with_exposed_provenance_mut::<[usize; 2]>(top).write_unaligned(words) };
    context.uc_mcontext.gregs[libc::REG_RSI as usize] = top as i64;
    let (vectors, features) = vectors(context);
    // SAFETY: the caller's promise.
    unsafe { mmu_monitor_pass_to_stack(context.uc_mcontext.gregs.as_ptr(), vectors, features) }
}

/// Returns from the signal whose handler called rt_sigreturn with this stack pointer.
///
/// # Safety
/// - It did, and `gate` is the C library's instruction.
pub(super) unsafe fn return_from_signal(stack: usize, gate: usize) -> ! {
    // SAFETY: the caller's promise; the kernel replaces all registers.
    unsafe {
        asm!("mov rsp, {}", "jmp {}", in(reg) stack, in(reg) gate, in("rax") libc::SYS_rt_sigreturn, options(noreturn))
    }
}

fn register(context: &libc::ucontext_t, which: c_int) -> usize {
    context.uc_mcontext.gregs[which as usize] as usize
}

fn note_return(context: &libc::ucontext_t, second: usize) {
    thread::with(|thread| {
        thread.back.set(register(context, libc::REG_RIP));
        thread.second.set(second);
    });
}

/// Where the vector registers are kept, and which (0: by the old instruction).
fn vectors(context: &libc::ucontext_t) -> (*const u8, u64) {
    /// The kernel's note of what it kept beside x87 and SSE.
    #[repr(C)]
    struct Note {
        magic: u32,
        _size: u32,
        features: u64,
    }
    const PLACE: usize = 464;
    const MAGIC: u32 = 0x4650_5853;
    let kept = context.uc_mcontext.fpregs.cast::<u8>().cast_const();
    if kept.is_null() {
        return (kept, 0);
    }
    // SAFETY: the kernel's frame has 512 bytes at least, of which the last 48 hold the note.
    let note = unsafe { kept.wrapping_add(PLACE).cast::<Note>().read() };
    (kept, if note.magic == MAGIC { note.features } else { 0 })
}

global_asm!(
    // rdi: registers as in a context; rsi: vector registers; rdx: which. All as they were, but rcx and r11.
    ".macro MMU_MONITOR_PUT_BACK",
    "mov rbx, rdi",
    "test rsi, rsi",
    "jz 3f",
    "mov rax, rdx",
    "shr rdx, 32",
    "test rax, rax",
    "jz 2f",
    "xrstor64 [rsi]",
    "jmp 3f",
    "2:",
    "fxrstor64 [rsi]",
    "3:",
    "mov rcx, [rip + mmu_monitor_thread@GOTTPOFF]",
    "mov byte ptr fs:[rcx], {allow}",
    "push qword ptr [rbx + 136]",
    "popfq",
    "mov r8, [rbx]",
    "mov r9, [rbx + 8]",
    "mov r10, [rbx + 16]",
    "mov r12, [rbx + 32]",
    "mov r13, [rbx + 40]",
    "mov r14, [rbx + 48]",
    "mov r15, [rbx + 56]",
    "mov rdi, [rbx + 64]",
    "mov rsi, [rbx + 72]",
    "mov rbp, [rbx + 80]",
    "mov rdx, [rbx + 96]",
    "mov rax, [rbx + 104]",
    "mov rcx, [rbx + 120]",
    "mov rbx, [rbx + 88]",
    // The last: what lies below may be overwritten now.
    "mov rsp, rcx",
    ".endm",
    // Traps again, and goes on behind the caller's instruction.
    ".macro MMU_MONITOR_GO_ON",
    "mov rcx, [rip + mmu_monitor_thread@GOTTPOFF]",
    "mov byte ptr fs:[rcx], {block}",
    "mov rsi, fs:[rcx + {second}]",
    "mov rcx, fs:[rcx + {back}]",
    "jmp rcx",
    ".endm",
    "",
    ".pushsection .text.mmu_monitor_pass, \"ax\", @progbits",
    ".p2align 4",
    ".globl mmu_monitor_pass",
    ".hidden mmu_monitor_pass",
    "mmu_monitor_pass:",
    "MMU_MONITOR_PUT_BACK",
    "syscall",
    // A child too: it has the parent's thread-locals, or a copy.
    "MMU_MONITOR_GO_ON",
    "",
    ".p2align 4",
    ".globl mmu_monitor_pass_to_stack",
    ".hidden mmu_monitor_pass_to_stack",
    "mmu_monitor_pass_to_stack:",
    "MMU_MONITOR_PUT_BACK",
    "syscall",
    "mov rcx, rax",
    "jrcxz 4f",
    "MMU_MONITOR_GO_ON",
    "4:",
    "pop rsi",
    "pop rcx",
    "jmp rcx",
    ".popsection",
    allow = const thread::ALLOW,
    block = const thread::BLOCK,
    back = const core::mem::offset_of!(thread::Thread, back),
    second = const core::mem::offset_of!(thread::Thread, second),
);
