//! The source `dispatch` and calls that change the thread itself: processes, threads, signals, registers.

#![expect(
    unsafe_code,
    clippy::undocumented_unsafe_blocks,
    reason = "machine code as other languages' runtimes have it"
)]
#![cfg(all(target_os = "linux", target_arch = "x86_64", target_env = "gnu"))]

mod support;

use std::arch::{asm, global_asm};
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};

use mmu_monitor::dispatch::{self, DISPATCH};
use mmu_monitor::{Operation, Origin, Source, When};
use support::{Armed, Ear, PAGE, Recorder, anonymous, direct, in_child, range};

fn arm(what: &'static str) -> Option<Armed> {
    Armed::with("dispatch", what)
}

/// Whether the next direct call is heard, and claimed to be.
fn is_heard(armed: &Armed) -> bool {
    let recorder: &'static Recorder = Box::leak(Box::new(Recorder::new()));
    let _registration = armed.monitor.space().register(Ear(recorder)).unwrap();
    let start = anonymous(1);
    assert_eq!(direct(libc::SYS_munmap, [start as usize, PAGE, 0, 0, 0, 0]), 0);
    let claimed = DISPATCH.coverage(Operation::Unmap, Origin::Direct) == When::BeforeAndEnd;
    assert_eq!(claimed, recorder.has_bracket(range(start, PAGE)));
    claimed
}

fn exit_of(child: isize) -> i32 {
    assert!(child > 0, "{child}");
    let mut status = -1;
    assert_eq!(unsafe { libc::waitpid(child as i32, &raw mut status, 0) } as isize, child);
    status
}

global_asm!(
    // A call (rdi) whose child, on whatever stack, leaves with (rsi); r12, xmm6 and the red zone have to survive.
    ".globl mmu_monitor_test_twice",
    "mmu_monitor_test_twice:",
    "push r12",
    "mov r12, 0x1234567",
    "movq xmm6, r12",
    "mov qword ptr [rsp - 8], 0x7654321",
    "mov rax, rdi",
    "mov r9, rsi",
    "mov rdi, rdx",
    "mov rsi, rcx",
    "mov rdx, r8",
    "xor r10d, r10d",
    "xor r8d, r8d",
    "syscall",
    "cmp r12, 0x1234567",
    "jne 9f",
    "movq rcx, xmm6",
    "cmp rcx, r12",
    "jne 9f",
    "test rax, rax",
    "jz 2f",
    "cmp qword ptr [rsp - 8], 0x7654321",
    "jne 9f",
    "pop r12",
    "ret",
    // The child overwrites what lies below its stack pointer, as a program does that goes on.
    "2:",
    "mov ecx, 4096",
    "3:",
    "mov byte ptr [rsp + rcx - 4225], 0x55",
    "loop 3b",
    "mov rdi, r9",
    "mov eax, 60",
    "syscall",
    "9:",
    "ud2",
);

unsafe extern "C" {
    fn mmu_monitor_test_twice(call: i64, code: usize, first: usize, second: usize, third: usize) -> isize;
}

#[test]
fn a_process_is_forked_directly() {
    let Some(armed) = arm("direct fork") else { return };
    for (call, flags) in [(libc::SYS_fork, 0), (libc::SYS_vfork, 0), (libc::SYS_clone, libc::SIGCHLD)] {
        let child = unsafe { mmu_monitor_test_twice(call, 7, flags as usize, 0, 0) };
        assert_eq!(exit_of(child), 7 << 8, "{call}");
        assert!(is_heard(&armed));
    }
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    let child = unsafe { mmu_monitor_test_twice(libc::SYS_clone, 9, flags as usize, 0, 0) };
    assert_eq!(exit_of(child), 9 << 8);
    assert!(is_heard(&armed));
}

#[test]
fn a_process_is_cloned_directly_onto_a_stack_of_its_own() {
    let Some(armed) = arm("direct clone") else { return };
    let stack = anonymous(16).wrapping_add(16 * PAGE);
    for flags in
        [libc::SIGCHLD, libc::CLONE_VM | libc::SIGCHLD, libc::CLONE_VM | libc::CLONE_SETTLS | libc::SIGCHLD]
    {
        let child = unsafe { mmu_monitor_test_twice(libc::SYS_clone, 8, flags as usize, stack as usize, 0) };
        assert_eq!(exit_of(child), 8 << 8, "{flags:#x}");
        assert!(is_heard(&armed));
    }
}

#[test]
fn threads_are_cloned_directly() {
    let Some(armed) = arm("direct threads") else { return };
    let flags = libc::CLONE_VM
        | libc::CLONE_FS
        | libc::CLONE_FILES
        | libc::CLONE_SIGHAND
        | libc::CLONE_THREAD
        | libc::CLONE_SYSVSEM
        | libc::CLONE_PARENT_SETTID;
    for _ in 0..100 {
        let stack = anonymous(16);
        let top = stack.wrapping_add(16 * PAGE) as usize;
        let mut number = 0_i32;
        let place = &raw mut number as usize;
        let thread = unsafe { mmu_monitor_test_twice(libc::SYS_clone, 0, flags as usize, top, place) };
        assert!(thread > 0 && number as isize == thread, "{thread}");
        let task = std::path::PathBuf::from(format!("/proc/self/task/{thread}"));
        while task.exists() {
            std::thread::yield_now();
        }
        support::unmap(stack, 16);
    }
    assert!(is_heard(&armed));
}

#[test]
fn clone3_onto_a_stack_is_not_there_and_without_one_is() {
    let Some(armed) = arm("direct clone3") else { return };
    let stack = anonymous(4);
    let mut arguments = [0_u64; 8];
    arguments[4] = libc::SIGCHLD as u64;
    let place = arguments.as_mut_ptr() as usize;
    let child = unsafe { mmu_monitor_test_twice(libc::SYS_clone3, 5, place, size_of_val(&arguments), 0) };
    assert_eq!(exit_of(child), 5 << 8);
    assert!(is_heard(&armed));
    (arguments[5], arguments[6]) = (stack as u64, 4 * PAGE as u64);
    let place = arguments.as_mut_ptr() as usize;
    let refused = direct(libc::SYS_clone3, [place, size_of_val(&arguments), 0, 0, 0, 0]);
    assert_eq!(refused, -libc::ENOSYS as isize);
    assert_eq!(direct(libc::SYS_clone3, [8, 64, 0, 0, 0, 0]), -libc::EFAULT as isize);
}

#[test]
fn a_program_is_executed_directly() {
    let Some(armed) = arm("direct execve") else { return };
    let words = |program: &'static std::ffi::CStr| [program.as_ptr(), ptr::null()];
    for (program, code) in [(c"/bin/true", 0), (c"/bin/false", 1), (c"/nowhere", 3)] {
        let arguments = words(program);
        let status = in_child(|| {
            dispatch::arm_thread().unwrap();
            let words = [program.as_ptr() as usize, arguments.as_ptr() as usize, 0, 0, 0, 0];
            direct(libc::SYS_execve, words);
            3
        });
        assert_eq!(status, code << 8);
    }
    assert!(is_heard(&armed));
}

const SET: usize = libc::SIG_SETMASK as usize;

fn blocked() -> u64 {
    let mut now = 0_u64;
    direct(libc::SYS_rt_sigprocmask, [SET, 0, &raw mut now as usize, 8, 0, 0]);
    now
}

#[test]
fn signals_are_blocked_directly_and_sigsys_never_is() {
    let Some(armed) = arm("direct sigprocmask") else { return };
    let (all, mut old) = (u64::MAX, u64::MAX);
    let set = |new: &u64, old: &mut u64| {
        let (new, old) = (ptr::from_ref(new) as usize, ptr::from_mut(old) as usize);
        direct(libc::SYS_rt_sigprocmask, [SET, new, old, 8, 0, 0])
    };
    assert_eq!(set(&all, &mut old), 0);
    let unblockable =
        [libc::SIGKILL, libc::SIGSTOP, libc::SIGSYS].iter().fold(0, |all, one| all | 1 << (one - 1));
    assert_eq!(blocked(), !unblockable);
    assert!(is_heard(&armed));
    let before = old;
    assert_eq!(set(&before, &mut old), 0);
    assert_eq!((blocked(), old), (before, !unblockable));
    assert_eq!(direct(libc::SYS_rt_sigprocmask, [SET, 8, 0, 8, 0, 0]), -libc::EFAULT as isize);
    assert_eq!(blocked(), before);
}

fn block_all_by_library() {
    let mut all = unsafe { std::mem::zeroed::<libc::sigset_t>() };
    unsafe { libc::sigfillset(&raw mut all) };
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, ptr::null_mut()) };
}

#[test]
fn with_sigsys_blocked_a_thread_is_refused_and_an_armed_one_dies() {
    let Some(_armed) = arm("blocked SIGSYS") else { return };
    let refused = std::thread::spawn(|| {
        block_all_by_library();
        dispatch::arm_thread().unwrap_err().to_string()
    });
    let refused = refused.join().unwrap();
    assert!(refused.contains("blocks SIGSYS"), "{refused}");
    let calls_directly = |before: fn()| {
        in_child(move || {
            dispatch::arm_thread().unwrap();
            block_all_by_library();
            before();
            // The C library's calls are no matter.
            unsafe { libc::getppid() };
            i32::from(direct(libc::SYS_getppid, [0; 6]) < 0)
        })
    };
    assert_eq!(calls_directly(dispatch::disarm_thread), 0);
    let killed = calls_directly(|| ());
    assert!(libc::WIFSIGNALED(killed) && libc::WTERMSIG(killed) == libc::SIGSYS, "{killed:#x}");
}

#[test]
fn somebody_elses_sigsys_does_what_it_did() {
    let Some(_armed) = arm("other SIGSYS") else { return };
    let status = in_child(|| {
        unsafe { libc::raise(libc::SIGSYS) };
        0
    });
    assert!(libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGSYS, "{status:#x}");
}

#[test]
fn without_the_handler_nothing_is_claimed() {
    let Some(_armed) = arm("replaced handler") else { return };
    let status = in_child(|| {
        dispatch::arm_thread().unwrap();
        let claims = || DISPATCH.coverage(Operation::Unmap, Origin::Direct) == When::BeforeAndEnd;
        let before = claims();
        unsafe { libc::signal(libc::SIGSYS, libc::SIG_IGN) };
        let without = claims();
        // Arming again takes it back.
        let again = DISPATCH.arm().is_ok() && claims();
        i32::from(!(before && !without && again))
    });
    assert_eq!(status, 0);
}

#[test]
fn an_alternate_stack_that_is_set_directly_stays_set() {
    let Some(armed) = arm("direct sigaltstack") else { return };
    let mut before = unsafe { std::mem::zeroed::<libc::stack_t>() };
    unsafe { libc::sigaltstack(ptr::null(), &raw mut before) };
    let memory = anonymous(16);
    let new = libc::stack_t { ss_sp: memory.cast(), ss_flags: 0, ss_size: 16 * PAGE };
    assert_eq!(direct(libc::SYS_sigaltstack, [&raw const new as usize, 0, 0, 0, 0, 0]), 0);
    let mut now = before;
    unsafe { libc::sigaltstack(&raw const before, &raw mut now) };
    assert_eq!((now.ss_sp, now.ss_size), (new.ss_sp, new.ss_size));
    assert!(is_heard(&armed));
}

global_asm!(
    ".globl mmu_monitor_test_restorer",
    "mmu_monitor_test_restorer:",
    "mov eax, 15",
    "syscall",
    "ud2",
);

unsafe extern "C" {
    fn mmu_monitor_test_restorer();
}

static HANDLED: AtomicUsize = AtomicUsize::new(0);

extern "C" fn handled(_: i32) {
    HANDLED.fetch_add(usize::from(direct(libc::SYS_getppid, [0; 6]) >= 0), Ordering::Relaxed);
}

#[test]
fn a_handler_returns_by_an_instruction_of_its_own() {
    const RESTORER: usize = 0x0400_0000;
    let Some(armed) = arm("direct sigreturn") else { return };
    // Handler, flags, restorer, mask: as the kernel takes them.
    let action =
        [handled as *const () as usize, RESTORER, mmu_monitor_test_restorer as *const () as usize, 0];
    let words = [libc::SIGUSR2 as usize, action.as_ptr() as usize, 0, 8, 0, 0];
    assert_eq!(direct(libc::SYS_rt_sigaction, words), 0);
    let before = blocked();
    for round in 1..=100 {
        unsafe { libc::raise(libc::SIGUSR2) };
        assert_eq!((HANDLED.load(Ordering::Relaxed), blocked()), (round, before));
    }
    assert!(is_heard(&armed));
}

#[test]
fn registers_flags_and_the_red_zone_survive() {
    let Some(_armed) = arm("registers") else { return };
    let start = anonymous(1) as usize;
    let (wanted, mut found) = ([[0x11_u8; 16], [0x22; 16], [0x33; 16]], [[0_u8; 16]; 3]);
    let (other, red, carry, direction): (u64, u64, u8, u64);
    unsafe {
        asm!(
            "movdqu xmm0, [{wanted}]",
            "movdqu xmm7, [{wanted} + 16]",
            "movdqu xmm15, [{wanted} + 32]",
            "mov qword ptr [rsp - 128], 0x5a5a",
            "mov r13, 0x0123456789",
            "stc",
            "syscall",
            "setc r8b",
            "pushfq",
            "pop r9",
            "mov r10, [rsp - 128]",
            "movdqu [{found}], xmm0",
            "movdqu [{found} + 16], xmm7",
            "movdqu [{found} + 32], xmm15",
            wanted = in(reg) wanted.as_ptr(), found = in(reg) found.as_mut_ptr(),
            inout("rax") libc::SYS_madvise => _, in("rdi") start, in("rsi") PAGE, in("rdx") libc::MADV_DONTNEED as usize,
            out("r13") other, out("r8b") carry, out("r9") direction, out("r10") red,
            out("rcx") _, out("r11") _, out("xmm0") _, out("xmm7") _, out("xmm15") _,
        );
    }
    assert_eq!((found, other, red, carry), (wanted, 0x0123456789, 0x5a5a, 1));
    assert_eq!(direction & 1 << 10, 0);
}
