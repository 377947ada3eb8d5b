//! What the hooks owe the code that they patch, and what hostile timing does to them.

#![expect(
    unsafe_code,
    clippy::undocumented_unsafe_blocks,
    clippy::multiple_unsafe_ops_per_block,
    reason = "machine code, and system calls on memory of their own"
)]
#![cfg(all(target_os = "linux", target_arch = "x86_64", target_env = "gnu"))]

mod support;

use std::arch::{asm, global_asm};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use mmu_monitor::hooks::HOOKS;
use mmu_monitor::{Monitor, Source};
use mmu_notifier::interval::Answer;
use mmu_notifier::{Event, Invalidation};
use support::{PAGE, anonymous, range};

/// The monitor with hooks; none where they cannot be had, which is said once.
fn monitor() -> Option<Monitor> {
    static STARTED: OnceLock<Option<Monitor>> = OnceLock::new();
    *STARTED.get_or_init(|| match Monitor::start_with(&"hooks".parse().unwrap()) {
        Ok(monitor) => Some(monitor),
        Err(reason) => {
            println!("skipped: {reason}");
            None
        }
    })
}

/// Calls `f` each time that a page's range is invalidated.
fn watch(
    monitor: Monitor,
    page: *mut u8,
    f: impl Fn(&Invalidation) + Send + Sync + 'static,
) -> mmu_notifier::interval::Subscription<impl mmu_notifier::interval::Notifier> {
    let told = move |what: &Invalidation| {
        f(what);
        Answer::Done
    };
    monitor.space().insert(range(page, PAGE), told).unwrap()
}

// Calls madvise by the patched function with all registers set, and looks which came back.
global_asm!(
    ".globl registers_around",
    // rdi: a page; rsi: the function; rdx: where 12 registers go. All flags are set before it.
    "registers_around:",
    "push rbx",
    "push rbp",
    "push r12",
    "push r13",
    "push r14",
    "push r15",
    "sub rsp, 8",
    "mov [rsp], rdx",
    "mov r11, rsi",
    "mov rsi, 4096",
    "mov rdx, 4", // MADV_DONTNEED
    "mov rbx, 0x1001",
    "mov rbp, 0x1002",
    "mov r12, 0x1003",
    "mov r13, 0x1004",
    "mov r14, 0x1005",
    "mov r15, 0x1006",
    "mov r8, 0x1007",
    "mov r9, 0x1008",
    "mov r10, 0x1009",
    "call r11",
    "mov r11, [rsp]",
    "mov [r11], rbx",
    "mov [r11 + 8], rbp",
    "mov [r11 + 16], r12",
    "mov [r11 + 24], r13",
    "mov [r11 + 32], r14",
    "mov [r11 + 40], r15",
    "mov [r11 + 48], r8",
    "mov [r11 + 56], r9",
    "mov [r11 + 64], r10",
    "mov [r11 + 72], rdi",
    "mov [r11 + 80], rsi",
    "mov [r11 + 88], rdx",
    "add rsp, 8",
    "pop r15",
    "pop r14",
    "pop r13",
    "pop r12",
    "pop rbp",
    "pop rbx",
    "ret",
);

unsafe extern "C" {
    fn registers_around(page: *mut u8, function: usize, registers: &mut [u64; 12]) -> i64;
}

#[test]
fn all_registers_but_three_come_back() {
    let Some(monitor) = monitor() else { return };
    let page = anonymous(1);
    let hits = Arc::new(AtomicUsize::new(0));
    let counted = hits.clone();
    let _watched = watch(monitor, page, move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        // A callback may use all of them.
        std::hint::black_box((0..64).map(|number| f64::from(number).sqrt()).sum::<f64>());
    });
    let mut registers = [0; 12];
    let result = unsafe { registers_around(page, libc::madvise as *const () as usize, &mut registers) };
    assert_eq!((result, hits.load(Ordering::Relaxed)), (0, 1));
    let expected = [0x1001, 0x1002, 0x1003, 0x1004, 0x1005, 0x1006, 0x1007, 0x1008, 0x1009];
    assert_eq!(registers[..9], expected);
    assert_eq!(registers[9..], [page as u64, 4096, 4]);
}

#[test]
fn errno_is_the_calls_own() {
    let Some(monitor) = monitor() else { return };
    let page = anonymous(1);
    let _watched = watch(monitor, page, |_| unsafe { *libc::__errno_location() = libc::EXDEV });
    unsafe { *libc::__errno_location() = 0 };
    assert_eq!(unsafe { libc::madvise(page.cast(), PAGE, libc::MADV_DONTNEED) }, 0);
    assert_eq!(unsafe { *libc::__errno_location() }, 0);
    assert_eq!(unsafe { libc::mprotect(page.wrapping_add(1).cast(), 1, libc::PROT_READ) }, -1);
    assert_eq!(unsafe { *libc::__errno_location() }, libc::EINVAL);
}

#[test]
fn the_function_syscall_still_makes_what_returns_twice_or_elsewhere() {
    let Some(_) = monitor() else { return };
    assert_eq!(unsafe { libc::syscall(libc::SYS_getpid) }, i64::from(std::process::id()));
    // A fork past the C library's own.
    let child = unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) };
    if child == 0 {
        unsafe { libc::_exit(7) };
    }
    let mut status = 0;
    assert_eq!(i64::from(unsafe { libc::waitpid(child as i32, &mut status, 0) }), child);
    assert_eq!(libc::WEXITSTATUS(status), 7);
    assert!(Command::new("/bin/true").status().unwrap().success());
}

/// A callback that counts what this thread does. Once the page is unmapped, another thread may get its address.
fn counts(calls: &Arc<AtomicUsize>) -> impl Fn(&Invalidation) + Send + Sync + use<> {
    let (calls, this) = (calls.clone(), unsafe { libc::pthread_self() });
    move |_| {
        if unsafe { libc::pthread_self() } == this {
            calls.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[test]
fn the_upper_half_of_a_calls_number_means_nothing() {
    let Some(monitor) = monitor() else { return };
    let page = anonymous(1);
    let hits = Arc::new(AtomicUsize::new(0));
    let _watched = watch(monitor, page, counts(&hits));
    assert_eq!(unsafe { libc::syscall(1 << 32 | libc::SYS_munmap, page, PAGE) }, 0);
    assert_eq!(hits.load(Ordering::Relaxed), 1);
    assert_eq!(unsafe { libc::syscall(1 << 32 | libc::SYS_getpid) }, i64::from(std::process::id()));
}

#[test]
fn a_call_that_fails_has_its_end_and_changes_nothing() {
    let Some(monitor) = monitor() else { return };
    let page = anonymous(1);
    let watched = watch(monitor, page, |_| ());
    let token = watched.read_begin();
    // Not a multiple of a page.
    assert_eq!(unsafe { libc::munmap(page.wrapping_add(1).cast(), 1) }, -1);
    assert!(watched.read_retry(token), "it was told of");
    // It is over: a new token is to be had at once.
    assert!(!watched.read_retry(watched.read_begin()));
    assert_eq!(unsafe { page.read() }, 1);
}

#[test]
fn a_callback_may_change_mappings_itself() {
    let Some(monitor) = monitor() else { return };
    let (page, other) = (anonymous(1), anonymous(1));
    let heard = Arc::new(AtomicUsize::new(0));
    let _other = watch(monitor, other, counts(&heard));
    let other = other as usize;
    let _watched = watch(monitor, page, move |_| {
        assert_eq!(unsafe { libc::munmap(other as *mut _, PAGE) }, 0);
    });
    assert_eq!(unsafe { libc::munmap(page.cast(), PAGE) }, 0);
    assert_eq!(heard.load(Ordering::Relaxed), 1);
}

#[test]
fn a_fork_in_the_middle_of_a_call_leaves_the_child_usable() {
    let Some(monitor) = monitor() else { return };
    let page = anonymous(1) as usize;
    let (inside, go_on) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (entered, released) = (inside.clone(), go_on.clone());
    let owner = std::process::id();
    let watched = Arc::new(watch(monitor, page as *mut u8, move |what| {
        if what.event() == Event::Clear && std::process::id() == owner {
            entered.store(true, Ordering::Release);
            wait_for(&released);
        }
    }));
    let caller =
        std::thread::spawn(move || unsafe { libc::madvise(page as *mut _, PAGE, libc::MADV_DONTNEED) });
    wait_for(&inside);
    let child = unsafe { libc::fork() };
    if child == 0 {
        // Nobody ends the other thread's call here: whoever waited for it would wait for ever.
        unsafe { libc::alarm(20) };
        let token = watched.read_begin();
        let result = unsafe { libc::madvise(page as *mut _, PAGE, libc::MADV_DONTNEED) };
        unsafe { libc::_exit(i32::from(!watched.read_retry(token)) + result * 2) };
    }
    let mut status = 0;
    unsafe { libc::waitpid(child, &mut status, 0) };
    go_on.store(true, Ordering::Release);
    assert_eq!(caller.join().unwrap(), 0);
    assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0, "{status:#x}");
}

fn wait_for(flag: &AtomicBool) {
    let begun = Instant::now();
    while !flag.load(Ordering::Acquire) {
        assert!(begun.elapsed() < Duration::from_secs(60), "nobody came");
        std::thread::yield_now();
    }
}

/// How long each stress runs, in seconds.
fn seconds() -> u64 {
    std::env::var("SECONDS_PER_TEST").map_or(2, |text| text.parse().expect("SECONDS_PER_TEST is a number"))
}

fn put_in_and_taken_out_under_load() {
    let Ok(monitor) = Monitor::start_with(&"explicit".parse().unwrap()) else { return };
    let stop = Arc::new(AtomicBool::new(false));
    let calls = Arc::new(AtomicU64::new(0));
    let workers: Vec<_> = (0..3)
        .map(|_| {
            let (stop, calls) = (stop.clone(), calls.clone());
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    work();
                    calls.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let begun = Instant::now();
    let mut rounds = 0;
    while begun.elapsed() < Duration::from_secs(seconds()) {
        HOOKS.arm().unwrap();
        let page = anonymous(1);
        let hits = Arc::new(AtomicUsize::new(0));
        let counted = hits.clone();
        let watched = watch(monitor, page, move |_| _ = counted.fetch_add(1, Ordering::Relaxed));
        unsafe { libc::munmap(page.cast(), PAGE) };
        // More than once if a worker had the same place behind it.
        assert_ne!(hits.load(Ordering::Relaxed), 0, "armed means heard");
        drop(watched);
        HOOKS.disarm();
        let page = anonymous(1);
        let watched = watch(monitor, page, |_| panic!("disarmed means silent"));
        unsafe { libc::munmap(page.cast(), PAGE) };
        drop(watched);
        rounds += 1;
    }
    stop.store(true, Ordering::Relaxed);
    workers.into_iter().for_each(|worker| worker.join().unwrap());
    println!("{rounds} rounds beside {} rounds of calls", calls.load(Ordering::Relaxed));
    assert!(rounds > 0 && calls.load(Ordering::Relaxed) > 0);
}

/// All calls that have a site and can be made at any time.
fn work() {
    let start = anonymous(4);
    let page = |number: usize| start.wrapping_add(number * PAGE).cast::<libc::c_void>();
    let over = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
    let writable = libc::PROT_READ | libc::PROT_WRITE;
    unsafe {
        assert_eq!(libc::mmap(page(0), PAGE, writable, over, -1, 0), page(0));
        assert_eq!(libc::mprotect(page(1), PAGE, libc::PROT_READ), 0);
        assert_eq!(libc::madvise(page(2), PAGE, libc::MADV_DONTNEED), 0);
        assert_eq!(libc::posix_madvise(page(2), PAGE, libc::POSIX_MADV_NORMAL), 0);
        assert_eq!(libc::syscall(libc::SYS_getpid), i64::from(std::process::id()));
        assert_eq!(
            libc::mremap(page(3), PAGE, PAGE, libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED, page(0)),
            page(0)
        );
        assert_eq!(libc::syscall(libc::SYS_munmap, page(0), PAGE), 0);
        // The fourth has moved: what lies there now is somebody else's.
        assert_eq!(libc::munmap(page(1), 2 * PAGE), 0);
    }
    drop(std::hint::black_box(vec![1_u8; 1 << 20]));
    std::thread::spawn(|| ()).join().unwrap();
}

#[test]
fn hooks_come_and_go_while_threads_run() {
    if support::is_child() {
        return put_in_and_taken_out_under_load();
    }
    if monitor().is_none() {
        return;
    }
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "hooks_come_and_go_while_threads_run", "--nocapture"])
        .env(support::CHILD, "1")
        .output()
        .unwrap();
    println!("{}", String::from_utf8_lossy(&child.stdout));
    assert!(child.status.success(), "{}: {}", child.status, String::from_utf8_lossy(&child.stderr));
}

#[test]
fn what_lies_below_the_stack_pointer_stays() {
    let Some(monitor) = monitor() else { return };
    let page = anonymous(1);
    let _watched = watch(monitor, page, |_| ());
    // The replaced instruction may stand in a leaf function: here its caller is one. `call` itself takes eight
    // bytes, so what is looked at lies below them.
    let (kept, result): (u64, i64);
    unsafe {
        asm!(
            "mov qword ptr [rsp - 72], 0x5a5a",
            "call r11",
            "mov r10, [rsp - 72]",
            lateout("r10") kept,
            inlateout("r11") libc::madvise as *const () as usize => _,
            inlateout("rdi") page => _,
            inlateout("rsi") PAGE => _,
            inlateout("rdx") 4_usize => _,
            lateout("rax") result,
            clobber_abi("C"),
        );
    }
    assert_eq!((kept, result), (0x5a5a, 0));
}

/// Runs `main` on a stack of so many bytes of its own, and says how many of them it touched.
fn stack_of(main: extern "C" fn(*mut libc::c_void) -> *mut libc::c_void, size: usize) -> usize {
    const FRESH: u8 = 0xa5;
    let stack = anonymous(size / PAGE);
    unsafe { stack.write_bytes(FRESH, size) };
    let page = anonymous(1);
    unsafe {
        let mut attributes: libc::pthread_attr_t = std::mem::zeroed();
        libc::pthread_attr_init(&mut attributes);
        assert_eq!(libc::pthread_attr_setstack(&mut attributes, stack.cast(), size), 0);
        let mut thread = std::mem::zeroed();
        assert_eq!(libc::pthread_create(&mut thread, &attributes, main, page.cast()), 0);
        assert_eq!(libc::pthread_join(thread, std::ptr::null_mut()), 0);
    }
    let bytes = unsafe { std::slice::from_raw_parts(stack, size) };
    size - bytes.iter().take_while(|byte| **byte == FRESH).count()
}

extern "C" fn discard(page: *mut libc::c_void) -> *mut libc::c_void {
    unsafe { libc::madvise(page, PAGE, libc::MADV_DONTNEED) };
    page
}

extern "C" fn idle(page: *mut libc::c_void) -> *mut libc::c_void {
    unsafe { libc::getppid() };
    page
}

#[test]
fn the_smallest_stack_is_large_enough() {
    let Some(monitor) = monitor() else { return };
    // Everybody is told of all: two passes over both sides.
    let everything = |_: &Invalidation| Answer::Begun;
    let _intervals: Vec<_> =
        (0..200).map(|_| monitor.space().insert(mmu_notifier::Range::ALL, everything).unwrap()).collect();
    let _list =
        monitor.space().register(support::Ear(Box::leak(Box::new(support::Recorder::new())))).unwrap();
    // What is not optimised takes more.
    let size = if cfg!(debug_assertions) { 128 << 10 } else { 16 << 10 };
    let (used, without) = (stack_of(discard, size), stack_of(idle, size));
    println!("stack: {used} bytes with a call, {without} without, of {size}");
    assert!(used < size * 7 / 8, "{used} bytes");
}
