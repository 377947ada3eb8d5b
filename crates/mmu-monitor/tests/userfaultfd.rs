//! The source `userfaultfd`: nobody waits for ever, no event is lost, and what it refuses it names.

#![expect(unsafe_code, clippy::undocumented_unsafe_blocks, reason = "system calls on memory of their own")]
#![cfg(target_os = "linux")]

mod support;

use std::process::Command;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use mmu_monitor::userfaultfd::USERFAULTFD;
use mmu_monitor::{Monitor, Operation, Origin, Source, When};
use mmu_notifier::Invalidation;
use mmu_notifier::interval::Answer;
use support::{Armed, Ear, PAGE, Recorder, anonymous, in_child, range, settle, unmap};

fn arm(what: &'static str) -> Option<Armed> {
    Armed::with("userfaultfd", what)
}

/// A recorder that hears the whole process for the time of a test.
fn listen(monitor: Monitor) -> (&'static Recorder, impl Sized) {
    let recorder: &'static Recorder = Box::leak(Box::new(Recorder::new()));
    (recorder, monitor.space().register(Ear(recorder)).unwrap())
}

fn watched(pages: usize) -> *mut u8 {
    let start = anonymous(pages);
    USERFAULTFD.watch(range(start, pages * PAGE)).unwrap();
    start
}

#[test]
fn what_it_claims_holds_for_every_origin() {
    let Some(_armed) = arm("claims") else { return };
    for origin in [Origin::Function, Origin::Inside, Origin::Direct, Origin::Elsewhere] {
        assert_eq!(USERFAULTFD.coverage(Operation::Unmap, origin), When::After);
        assert_eq!(USERFAULTFD.coverage(Operation::Discard, origin), When::Before);
        assert_eq!(USERFAULTFD.coverage(Operation::Protect, origin), When::Missed);
    }
}

#[test]
fn what_is_not_watched_is_not_told() {
    let Some(armed) = arm("unwatched") else { return };
    let (recorder, _registration) = listen(armed.monitor);
    let (start, other) = (watched(1), anonymous(1));
    unmap(other, 1);
    unmap(start, 1);
    settle(armed.monitor);
    assert!(!recorder.heard().iter().any(|heard| heard.overlaps(range(other, PAGE))));
    assert!(recorder.has_bracket(range(start, PAGE)));
}

#[test]
fn a_callback_may_unmap_watched_memory_more_than_the_queue_holds() {
    const NESTED: usize = 400;
    let Some(armed) = arm("nested") else { return };
    let (recorder, _registration) = listen(armed.monitor);
    let outer = watched(1);
    let inner: Vec<usize> = (0..NESTED).map(|_| watched(1) as usize).collect();
    let unmapped = inner.clone();
    let once = AtomicBool::new(false);
    let unmaps = move |_: &Invalidation| {
        if !once.swap(true, Ordering::Relaxed) {
            unmapped.iter().for_each(|start| unmap(*start as *mut u8, 1));
        }
        Answer::Done
    };
    let _place = armed.monitor.space().insert(range(outer, PAGE), unmaps).unwrap();
    unmap(outer, 1);
    settle(armed.monitor);
    inner.iter().for_each(|start| assert!(recorder.has_bracket(range(*start as *const u8, PAGE))));
}

#[test]
fn who_unmaps_does_not_wait_for_callbacks() {
    let Some(armed) = arm("slow callback") else { return };
    let (first, second) = (watched(1), watched(1));
    let (entered, leaves) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (is_in, may_go) = (entered.clone(), leaves.clone());
    let waits = move |_: &Invalidation| {
        is_in.store(true, Ordering::Release);
        while !may_go.load(Ordering::Acquire) {
            std::thread::yield_now();
        }
        Answer::Done
    };
    let _place = armed.monitor.space().insert(range(first, PAGE), waits).unwrap();
    unmap(first, 1);
    while !entered.load(Ordering::Acquire) {
        assert!(armed.monitor.is_pending(), "an event is neither pending nor told");
        std::thread::yield_now();
    }
    unmap(second, 1);
    assert!(armed.monitor.is_pending());
    leaves.store(true, Ordering::Release);
    settle(armed.monitor);
}

#[test]
fn a_child_is_not_watched_and_may_arm_anew() {
    let Some(armed) = arm("fork") else { return };
    let (recorder, _registration) = listen(armed.monitor);
    let start = watched(2);
    let status = in_child(|| {
        if USERFAULTFD.is_armed() || armed.monitor.is_pending() {
            return 1;
        }
        unmap(start, 2);
        if recorder.has_bracket(range(start, 2 * PAGE)) {
            return 2;
        }
        if USERFAULTFD.arm().is_err() || !USERFAULTFD.is_armed() {
            return 3;
        }
        let own = watched(1);
        unmap(own, 1);
        settle(armed.monitor);
        if recorder.has_bracket(range(own, PAGE)) { 0 } else { 4 }
    });
    assert_eq!(status, 0);
    assert!(USERFAULTFD.is_armed());
    unmap(start, 2);
    settle(armed.monitor);
    assert!(recorder.has_bracket(range(start, 2 * PAGE)));
}

#[test]
fn programs_start_and_processes_fork_while_memory_is_watched() {
    let Some(armed) = arm("exec") else { return };
    let start = watched(4);
    for _ in 0..5 {
        assert!(Command::new("/bin/true").status().unwrap().success());
    }
    // Past the C library: no handler of fork runs, and the child unmaps what the parent watches.
    let child = unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) };
    if child == 0 {
        let armed = USERFAULTFD.is_armed();
        let unmapped = unsafe { libc::munmap(start.cast(), 4 * PAGE) };
        unsafe { libc::_exit(i32::from(armed) | unmapped) };
    }
    let mut status = -1;
    assert_eq!(i64::from(unsafe { libc::waitpid(child as i32, &raw mut status, 0) }), child);
    assert_eq!(status, 0);
    assert!(!armed.monitor.is_pending());
    unmap(start, 4);
}

#[test]
fn a_process_that_is_watched_executes_another_program() {
    let Some(armed) = arm("execv") else { return };
    let arguments = [c"/bin/true".as_ptr(), ptr::null()];
    let status = in_child(|| {
        if USERFAULTFD.arm().is_ok() {
            unmap(watched(2), 1);
            settle(armed.monitor);
            unsafe { libc::execv(arguments[0], arguments.as_ptr()) };
        }
        1
    });
    assert_eq!(status, 0);
}

#[test]
fn what_cannot_be_watched_is_named() {
    let Some(_armed) = arm("refusals") else { return };
    let start = anonymous(1);
    let other = unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC | 1) } as i32;
    let mut api = [0xaa_u64, 0, 0];
    assert_eq!(unsafe { libc::ioctl(other, 0xc018_aa3f, api.as_mut_ptr()) }, 0);
    let mut register = [start as u64, PAGE as u64, 1, 0];
    assert_eq!(unsafe { libc::ioctl(other, 0xc020_aa00, register.as_mut_ptr()) }, 0);
    let taken = USERFAULTFD.watch(range(start, PAGE)).unwrap_err().to_string();
    assert!(taken.contains("another userfaultfd"), "{taken}");
    unsafe { libc::close(other) };
    USERFAULTFD.watch(range(start, PAGE)).unwrap();
    unmap(start, 1);
    // Where nothing may be mapped.
    let gone = USERFAULTFD.watch(range(ptr::without_provenance(PAGE), PAGE)).unwrap_err().to_string();
    assert!(gone.contains("nothing is mapped there"), "{gone}");
    let program = unsafe { libc::open(c"/proc/self/exe".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) };
    let shared = map(program, libc::PROT_READ, libc::MAP_SHARED);
    assert_eq!(unsafe { libc::close(program) }, 0);
    let constant = USERFAULTFD.watch(range(shared, PAGE)).unwrap_err().to_string();
    assert!(constant.contains("may not be written"), "{constant}");
    unmap(shared, 2);
}

#[test]
fn disarmed_it_is_silent_and_holds_nobody() {
    let Some(armed) = arm("disarm") else { return };
    let (recorder, _registration) = listen(armed.monitor);
    let (start, last) = (watched(1), watched(1));
    unmap(last, 1);
    USERFAULTFD.disarm();
    assert!(recorder.has_bracket(range(last, PAGE)), "what was made before was not told");
    unmap(start, 1);
    assert!(!recorder.has_bracket(range(start, PAGE)));
    assert!(!armed.monitor.is_pending() && !USERFAULTFD.is_armed());
    let refused = USERFAULTFD.watch(range(recorder_page(recorder), PAGE)).unwrap_err().to_string();
    assert!(refused.contains("not armed"), "{refused}");
    // With threads that unmap and ask meanwhile.
    let ends = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !ends.load(Ordering::Relaxed) {
                let start = anonymous(1);
                let _ = USERFAULTFD.watch(range(start, PAGE));
                unmap(start, 1);
                armed.monitor.is_pending();
            }
        });
        for _ in 0..20 {
            USERFAULTFD.arm().unwrap();
            USERFAULTFD.disarm();
        }
        ends.store(true, Ordering::Relaxed);
    });
}

fn recorder_page(recorder: &Recorder) -> *const u8 {
    ptr::from_ref(recorder).cast()
}

static ALARMS: AtomicUsize = AtomicUsize::new(0);

extern "C" fn alarm(_: i32) {
    ALARMS.fetch_add(1, Ordering::Relaxed);
}

#[test]
fn signals_lose_no_event() {
    const ROUNDS: usize = 3_000;
    let Some(armed) = arm("signals") else { return };
    let heard = Arc::new(AtomicUsize::new(0));
    let counts = heard.clone();
    let counter = move |_: &Invalidation| {
        counts.fetch_add(1, Ordering::Relaxed);
        Answer::Done
    };
    let start = anonymous(1);
    let _place = armed.monitor.space().insert(range(start, PAGE), counter).unwrap();
    let _timer = Timer::start();
    for _ in 0..ROUNDS {
        USERFAULTFD.watch(range(start, PAGE)).unwrap();
        // In its place at once, so that no other thread's is put there.
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
        let again = unsafe { libc::mmap(start.cast(), PAGE, libc::PROT_READ, flags, -1, 0) };
        assert_eq!(again, start.cast());
        settle(armed.monitor);
    }
    let alarms = ALARMS.load(Ordering::Relaxed);
    assert!(alarms > 0, "no signal came");
    assert_eq!(heard.load(Ordering::Relaxed), ROUNDS, "with {alarms} signals");
}

/// A signal each 200 microseconds, until dropped.
struct Timer;

impl Timer {
    fn start() -> Timer {
        unsafe { libc::signal(libc::SIGALRM, alarm as *const () as usize) };
        Timer::set(200);
        Timer
    }

    fn set(microseconds: i64) {
        let time = libc::timeval { tv_sec: 0, tv_usec: microseconds };
        let timer = libc::itimerval { it_interval: time, it_value: time };
        unsafe { libc::syscall(libc::SYS_setitimer, libc::ITIMER_REAL, &raw const timer, 0) };
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        Timer::set(0);
    }
}

/// Maps two pages of a file, or of none.
fn map(file: i32, protection: i32, flags: i32) -> *mut u8 {
    let place = unsafe { libc::mmap(ptr::null_mut(), 2 * PAGE, protection, flags, file, 0) };
    assert_ne!(place, libc::MAP_FAILED);
    place.cast()
}

#[test]
fn every_kind_of_memory_can_be_watched() {
    let Some(armed) = arm("kinds") else { return };
    let (recorder, _registration) = listen(armed.monitor);
    let memory = unsafe { libc::memfd_create(c"watched".as_ptr(), libc::MFD_CLOEXEC) };
    assert_eq!(unsafe { libc::ftruncate(memory, 2 * PAGE as i64) }, 0);
    let program = unsafe { libc::open(c"/proc/self/exe".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) };
    let (read, write) = (libc::PROT_READ, libc::PROT_READ | libc::PROT_WRITE);
    for (name, file, protection, flags) in [
        ("private", -1, write, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS),
        ("shared", -1, write, libc::MAP_SHARED | libc::MAP_ANONYMOUS),
        ("memfd, shared", memory, write, libc::MAP_SHARED),
        ("memfd, private", memory, write, libc::MAP_PRIVATE),
        ("a program's text", program, read | libc::PROT_EXEC, libc::MAP_PRIVATE),
        ("reserved", -1, libc::PROT_NONE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS),
    ] {
        let start = map(file, protection, flags);
        USERFAULTFD.watch(range(start, 2 * PAGE)).unwrap_or_else(|error| panic!("{name}: {error}"));
        recorder.clear();
        unmap(start, 2);
        settle(armed.monitor);
        assert!(recorder.has_bracket(range(start, 2 * PAGE)), "{name}");
    }
    [memory, program].into_iter().for_each(|file| assert_eq!(unsafe { libc::close(file) }, 0));
}

#[cfg(target_arch = "x86_64")]
#[test]
fn where_the_kernel_refuses_it_says_so() {
    let Some(_armed) = arm("refused") else { return };
    for (error, reason) in [
        (libc::EPERM, "userfaultfd is forbidden here"),
        (libc::ENOSYS, "this kernel has no userfaultfd"),
        (libc::EINVAL, "user mode alone"),
    ] {
        let status = in_child(|| {
            support::forbid(libc::SYS_userfaultfd, error);
            let refused = USERFAULTFD.arm().unwrap_err().to_string();
            i32::from(!refused.contains(reason) || USERFAULTFD.is_armed())
        });
        assert_eq!(status, 0, "{reason}");
    }
}
