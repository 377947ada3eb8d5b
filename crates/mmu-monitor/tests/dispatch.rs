//! The source `dispatch`: calls past the C library are heard in armed threads, and happen as if nobody listened.

#![expect(
    unsafe_code,
    clippy::undocumented_unsafe_blocks,
    clippy::multiple_unsafe_ops_per_block,
    reason = "system calls on memory of their own"
)]
#![cfg(all(target_os = "linux", target_arch = "x86_64", target_env = "gnu"))]

mod support;

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use mmu_monitor::dispatch::{self, DISPATCH};
use mmu_monitor::hooks::HOOKS;
use mmu_monitor::{Monitor, Operation, Origin, Source, When};
use mmu_notifier::interval::Answer;
use mmu_notifier::{Event, Invalidation, Range};
use support::{Armed, Ear, PAGE, Recorder, anonymous, direct, in_child, range, unmap};

fn arm(what: &'static str) -> Option<Armed> {
    Armed::with("dispatch", what)
}

fn listen(monitor: Monitor) -> (&'static Recorder, impl Sized) {
    let recorder: &'static Recorder = Box::leak(Box::new(Recorder::new()));
    (recorder, monitor.space().register(Ear(recorder)).unwrap())
}

fn unmap_directly(start: *mut u8, pages: usize) {
    assert_eq!(direct(libc::SYS_munmap, [start as usize, pages * PAGE, 0, 0, 0, 0]), 0);
}

fn covers_this_thread() -> bool {
    DISPATCH.coverage(Operation::Unmap, Origin::Direct) == When::BeforeAndEnd
}

/// Whether the next direct call is heard.
fn is_heard(recorder: &Recorder) -> bool {
    let start = anonymous(1);
    recorder.clear();
    unmap_directly(start, 1);
    recorder.has_bracket(range(start, PAGE))
}

#[test]
fn a_call_is_heard_before_and_behind_and_gives_its_result() {
    let Some(armed) = arm("calls") else { return };
    let (recorder, _registration) = listen(armed.monitor);
    let this = unsafe { libc::gettid() } as u64;
    let calls: [(i64, [usize; 4], Event); 4] = [
        (libc::SYS_mprotect, [PAGE, libc::PROT_READ as usize, 0, 0], Event::ProtectionVma),
        (libc::SYS_madvise, [PAGE, libc::MADV_DONTNEED as usize, 0, 0], Event::Clear),
        (libc::SYS_mremap, [PAGE, 2 * PAGE, libc::MREMAP_MAYMOVE as usize, 0], Event::Unmap),
        (libc::SYS_munmap, [PAGE, 0, 0, 0], Event::Unmap),
    ];
    for (number, [second, third, fourth, fifth], event) in calls {
        let start = anonymous(2);
        recorder.clear();
        let result = direct(number, [start as usize, second, third, fourth, fifth, 0]);
        let whole = range(start, PAGE);
        assert!(result == 0 || number == libc::SYS_mremap && result > 0, "{number}: {result}");
        assert!(recorder.has_bracket(whole), "{number}: {:x?}", recorder.heard());
        let heard: Vec<_> = recorder.heard().into_iter().filter(|heard| heard.overlaps(whole)).collect();
        assert_eq!(heard.len(), 2, "{number}");
        assert_eq!((heard[0].event, heard[0].thread, heard[0].mapped), (event, this, true));
    }
    unsafe { *libc::__errno_location() = 77 };
    assert_eq!(direct(libc::SYS_munmap, [1, PAGE, 0, 0, 0, 0]), -libc::EINVAL as isize);
    assert_eq!(direct(libc::SYS_close, [usize::MAX, 0, 0, 0, 0, 0]), -libc::EBADF as isize);
    assert_eq!(unsafe { *libc::__errno_location() }, 77);
    assert_eq!(direct(libc::SYS_getpid, [0; 6]), std::process::id() as isize);
}

#[test]
fn the_c_library_is_let_pass_and_hooks_beside_tell_once() {
    let Some(armed) = arm("beside hooks") else { return };
    let (recorder, _registration) = listen(armed.monitor);
    let start = anonymous(1);
    unmap(start, 1);
    assert!(!recorder.has_bracket(range(start, PAGE)));
    if let Err(reason) = HOOKS.arm() {
        return println!("beside hooks: skipped: {reason}");
    }
    let calls: [fn(*mut u8, usize); 2] = [unmap, unmap_directly];
    for call in calls {
        let start = anonymous(1);
        recorder.clear();
        call(start, 1);
        let heard = recorder.heard().iter().filter(|heard| heard.overlaps(range(start, PAGE))).count();
        assert_eq!(heard, 2);
    }
    HOOKS.disarm();
}

#[test]
fn threads_are_armed_one_by_one() {
    let Some(armed) = arm("threads") else { return };
    let (recorder, _registration) = listen(armed.monitor);
    assert!(covers_this_thread() && is_heard(recorder));
    let other = || {
        assert!(!covers_this_thread() && !is_heard(recorder));
        dispatch::arm_thread().unwrap();
        assert!(covers_this_thread() && is_heard(recorder));
        assert!(armed.monitor.require(&[Operation::Unmap], &[Origin::Direct]).is_ok());
        dispatch::disarm_thread();
        assert!(!covers_this_thread() && !is_heard(recorder));
        // Ends armed: the C library blocks all signals there, and makes calls.
        dispatch::arm_thread().unwrap();
    };
    // One after the other, since they may unmap the same address.
    std::thread::scope(|scope| (0..20).for_each(|_| scope.spawn(other).join().unwrap()));
    assert_eq!(DISPATCH.coverage(Operation::Fork, Origin::Direct), When::Missed);
    assert_eq!(DISPATCH.coverage(Operation::Unmap, Origin::Inside), When::Missed);
}

#[test]
fn disarmed_no_thread_is_heard() {
    let Some(armed) = arm("disarm") else { return };
    let (recorder, _registration) = listen(armed.monitor);
    let (is_armed, is_disarmed) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            dispatch::arm_thread().unwrap();
            is_armed.store(true, Ordering::Release);
            while !is_disarmed.load(Ordering::Acquire) {
                std::thread::yield_now();
            }
            assert!(!is_heard(recorder) && !is_heard(recorder));
            assert!(dispatch::arm_thread().unwrap_err().to_string().contains("not armed"));
        });
        while !is_armed.load(Ordering::Acquire) {
            std::thread::yield_now();
        }
        DISPATCH.disarm();
        is_disarmed.store(true, Ordering::Release);
    });
    assert!(!is_heard(recorder) && !DISPATCH.is_armed());
}

#[test]
fn a_child_of_fork_is_not_armed_and_may_arm_anew() {
    let Some(armed) = arm("fork") else { return };
    let (recorder, _registration) = listen(armed.monitor);
    let status = in_child(|| {
        if covers_this_thread() || is_heard(recorder) {
            return 1;
        }
        if dispatch::arm_thread().is_err() || !covers_this_thread() {
            return 2;
        }
        if is_heard(recorder) { 0 } else { 3 }
    });
    assert_eq!(status, 0);
    assert!(covers_this_thread() && is_heard(recorder));
}

#[test]
fn programs_start() {
    let Some(_armed) = arm("exec") else { return };
    for _ in 0..5 {
        assert!(Command::new("/bin/true").status().unwrap().success());
    }
    assert!(Command::new("/bin/sh").args(["-c", "/bin/true && exit 7"]).status().unwrap().code() == Some(7));
}

#[test]
fn a_callback_may_make_direct_calls_itself() {
    let Some(armed) = arm("nested") else { return };
    let (recorder, _registration) = listen(armed.monitor);
    let (outer, inner) = (anonymous(1), anonymous(1) as usize);
    let once = AtomicBool::new(false);
    let unmaps = move |_: &Invalidation| {
        if !once.swap(true, Ordering::Relaxed) {
            unmap_directly(inner as *mut u8, 1);
        }
        Answer::Done
    };
    let _place = armed.monitor.space().insert(range(outer, PAGE), unmaps).unwrap();
    unmap_directly(outer, 1);
    assert!(recorder.has_bracket(range(outer, PAGE)));
    assert!(recorder.has_bracket(range(inner as *const u8, PAGE)));
}

static FROM_HANDLER: AtomicUsize = AtomicUsize::new(0);

/// A handler that maps and unmaps directly.
extern "C" fn alarm(_: i32) {
    let flags = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as usize;
    let place = direct(libc::SYS_mmap, [0, PAGE, libc::PROT_READ as usize, flags, usize::MAX, 0]);
    assert_eq!(direct(libc::SYS_munmap, [place as usize, PAGE, 0, 0, 0, 0]), 0);
    FROM_HANDLER.fetch_add(1, Ordering::Relaxed);
}

#[test]
fn signals_lose_no_call() {
    const ROUNDS: usize = 20_000;
    let Some(armed) = arm("signals") else { return };
    let (all, own) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let count = |counter: &Arc<AtomicUsize>| {
        let counter = counter.clone();
        move |_: &Invalidation| {
            counter.fetch_add(1, Ordering::Relaxed);
            Answer::Done
        }
    };
    let start = anonymous(1);
    let _all = armed.monitor.space().insert(Range::ALL, count(&all)).unwrap();
    let _own = armed.monitor.space().insert(range(start, PAGE), count(&own)).unwrap();
    let this = unsafe { libc::pthread_self() };
    unsafe { libc::signal(libc::SIGALRM, alarm as *const () as usize) };
    let ends = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !ends.load(Ordering::Relaxed) {
                unsafe { libc::pthread_kill(this, libc::SIGALRM) };
                std::thread::sleep(std::time::Duration::from_micros(50));
            }
        });
        for _ in 0..ROUNDS {
            let words = [start as usize, PAGE, libc::MADV_DONTNEED as usize, 0, 0, 0];
            assert_eq!(direct(libc::SYS_madvise, words), 0);
        }
        ends.store(true, Ordering::Relaxed);
    });
    let handled = FROM_HANDLER.load(Ordering::Relaxed);
    assert!(handled > 0, "no signal came");
    assert_eq!(own.load(Ordering::Relaxed), ROUNDS);
    assert_eq!(all.load(Ordering::Relaxed), ROUNDS + handled);
}

#[test]
fn a_thread_with_sixteen_kib_of_stack_is_heard() {
    let Some(armed) = arm("small stack") else { return };
    let (recorder, _registration) = listen(armed.monitor);
    let small = std::thread::Builder::new().stack_size(16 << 10);
    let thread = small.spawn(|| {
        dispatch::arm_thread().unwrap();
        is_heard(recorder)
    });
    assert!(thread.unwrap().join().unwrap());
}

#[test]
fn where_the_kernel_refuses_it_says_so() {
    let Some(_armed) = arm("refused") else { return };
    let status = in_child(|| {
        support::forbid(libc::SYS_prctl, libc::EINVAL);
        let refused = DISPATCH.arm().unwrap_err().to_string();
        i32::from(!refused.contains("no syscall user dispatch (error 22)") || covers_this_thread())
    });
    assert_eq!(status, 0);
}

#[test]
fn a_call_by_the_old_gate_is_made_and_disarms_the_thread() {
    const GETPID: i32 = 20;
    let Some(_armed) = arm("int 0x80") else { return };
    let status = in_child(|| {
        dispatch::arm_thread().unwrap();
        let process: i32;
        unsafe {
            std::arch::asm!("int 0x80", inlateout("eax") GETPID => process, out("r8") _, out("r9") _, out("r10") _, out("r11") _, options(nostack))
        };
        i32::from(process != std::process::id() as i32 || covers_this_thread())
    });
    if libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGSEGV {
        return println!("int 0x80: skipped: this kernel does not have it");
    }
    assert_eq!(status, 0);
}
