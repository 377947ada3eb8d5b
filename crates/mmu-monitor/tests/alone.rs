//! Processes in states that the test harness is never in: of one thread, and forbidden to make memory executable.

#![expect(
    unsafe_code,
    clippy::undocumented_unsafe_blocks,
    clippy::multiple_unsafe_ops_per_block,
    reason = "system calls on memory of their own"
)]

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("skipped: the monitor is of Linux");
}

#[cfg(target_os = "linux")]
mod support;

#[cfg(target_os = "linux")]
fn main() {
    linux::main();
}

#[cfg(target_os = "linux")]
mod linux {
    use std::process::Command;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use mmu_monitor::{Monitor, StartError};
    use mmu_notifier::Invalidation;
    use mmu_notifier::interval::Answer;

    use crate::support::{CHILD, PAGE, anonymous, range};

    type Program = fn();

    /// The programs: each runs in a process of its own, before which it has nothing but one thread.
    const PROGRAMS: [(&str, Program); 7] = [
        ("one thread patches without writable text", || assert!(is_heard(start().expect("hooks")))),
        ("one thread patches though nothing may become executable", || {
            forbid();
            assert!(is_heard(start().expect("hooks")));
        }),
        ("with two threads it says that it came too late", || {
            forbid();
            let (stop, wait) = std::sync::mpsc::channel::<()>();
            let other = std::thread::spawn(move || wait.recv());
            let reason = start().expect_err("its text cannot be written").to_string();
            assert!(reason.contains("before its first thread"), "{reason}");
            drop(stop);
            _ = other.join();
        }),
        ("who has patched before is named, and nothing is touched", || {
            patch_head_of_munmap(replacement);
            let reason = start().expect_err("it is not as expected").to_string();
            assert!(reason.contains("alone-") && reason.contains("has patched it before"), "{reason}");
            assert_eq!(unsafe { libc::munmap(anonymous(1).cast(), PAGE) }, 77);
        }),
        ("who patches later, and calls by number, is heard and left alone", || {
            let monitor = start().expect("hooks");
            patch_head_of_munmap(by_number);
            assert!(is_heard(monitor));
            monitor.stop();
            let page = anonymous(1);
            assert_eq!(unsafe { libc::munmap(page.cast(), PAGE) }, 0);
            assert_eq!(BY_NUMBER.load(Ordering::Relaxed), 2, "its patch is still there");
        }),
        ("a signal's handler forks while its thread forks", || {
            let monitor = start().expect("hooks");
            fork_in_handlers();
            assert!(is_heard(monitor));
        }),
        ("the exit releases the space", || {
            // Registered before the monitor's, so called after it.
            unsafe { libc::atexit(look_whether_released) };
            let monitor = start().expect("hooks");
            std::mem::forget(monitor.space().register(Leaves).unwrap());
            std::process::exit(8);
        }),
    ];

    static HANDLED: AtomicUsize = AtomicUsize::new(0);

    fn fork_and_wait() {
        match unsafe { libc::fork() } {
            0 => unsafe { libc::_exit(0) },
            child => assert_eq!(unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) }, child),
        }
    }

    extern "C" fn on_alarm(_: libc::c_int) {
        HANDLED.fetch_add(1, Ordering::Relaxed);
        fork_and_wait();
    }

    /// Forks over and over, and in a handler that interrupts it every few hundred microseconds.
    fn fork_in_handlers() {
        // A hang is a failure.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        let often = libc::timeval { tv_sec: 0, tv_usec: 700 };
        let timer = libc::itimerval { it_interval: often, it_value: often };
        unsafe { libc::signal(libc::SIGALRM, on_alarm as *const () as usize) };
        unsafe { libc::setitimer(libc::ITIMER_REAL, &timer, std::ptr::null_mut()) };
        while HANDLED.load(Ordering::Relaxed) < 200 && std::time::Instant::now() < deadline {
            fork_and_wait();
        }
        unsafe { libc::setitimer(libc::ITIMER_REAL, &std::mem::zeroed(), std::ptr::null_mut()) };
        assert!(HANDLED.load(Ordering::Relaxed) >= 20, "too few signals came");
    }

    static RELEASED: AtomicUsize = AtomicUsize::new(0);

    struct Leaves;

    impl mmu_notifier::list::Notifier for Leaves {
        fn release(&self) {
            RELEASED.fetch_add(1, Ordering::Relaxed);
        }
    }

    extern "C" fn look_whether_released() {
        unsafe { libc::_exit(if RELEASED.load(Ordering::Relaxed) == 1 { 0 } else { 9 }) };
    }

    static BY_NUMBER: AtomicUsize = AtomicUsize::new(0);

    extern "C" fn by_number(page: *mut libc::c_void, length: usize) -> libc::c_int {
        BY_NUMBER.fetch_add(1, Ordering::Relaxed);
        unsafe { libc::syscall(libc::SYS_munmap, page, length) as libc::c_int }
    }

    extern "C" fn replacement(_: *mut libc::c_void, _: usize) -> libc::c_int {
        77
    }

    /// Writes a jump over the head of the C library's function, as patching tools do.
    fn patch_head_of_munmap(replacement: extern "C" fn(*mut libc::c_void, usize) -> libc::c_int) {
        let function = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"munmap".as_ptr()) } as usize;
        let target = replacement as *const () as usize;
        let [a, b, c, d, e, f, g, h] = target.to_le_bytes();
        // mov $target, %r11; jmp *%r11
        let jump = [0x49, 0xbb, a, b, c, d, e, f, g, h, 0x41, 0xff, 0xe3];
        let page = (function & !(PAGE - 1)) as *mut libc::c_void;
        let all = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
        assert_eq!(unsafe { libc::mprotect(page, 2 * PAGE, all) }, 0);
        unsafe { std::ptr::copy_nonoverlapping(jump.as_ptr(), function as *mut u8, jump.len()) };
    }

    fn start() -> Result<Monitor, StartError> {
        Monitor::start_with(&"hooks".parse().unwrap())
    }

    /// Forbids this process to make memory executable that was writable.
    fn forbid() {
        const REFUSE_EXEC_GAIN: u64 = 1;
        if unsafe { libc::prctl(65, REFUSE_EXEC_GAIN, 0, 0, 0) } != 0 {
            println!("skipped: this kernel cannot forbid it (PR_SET_MDWE)");
            std::process::exit(0);
        }
    }

    fn is_heard(monitor: Monitor) -> bool {
        static HEARD: AtomicUsize = AtomicUsize::new(0);
        let page = anonymous(1);
        let heard = |_: &Invalidation| {
            HEARD.fetch_add(1, Ordering::Relaxed);
            Answer::Done
        };
        let _watched = monitor.space().insert(range(page, PAGE), heard).unwrap();
        unsafe { libc::munmap(page.cast(), PAGE) };
        HEARD.load(Ordering::Relaxed) == 1
    }

    pub(super) fn main() {
        if let Some(wanted) = std::env::var_os(CHILD) {
            let (_, program) = PROGRAMS.iter().find(|(name, _)| *name == wanted).unwrap();
            return program();
        }
        if !cfg!(all(target_arch = "x86_64", target_env = "gnu")) {
            return println!("skipped: no hooks here yet");
        }
        for (name, _) in PROGRAMS {
            // A program that hangs ends by a signal.
            let mut child = Command::new("timeout");
            let child =
                child.arg("60").arg(std::env::current_exe().unwrap()).env(CHILD, name).output().unwrap();
            let text = String::from_utf8_lossy(&child.stdout);
            assert!(child.status.success(), "{name}: {text}{}", String::from_utf8_lossy(&child.stderr));
            println!("{name}: {}", if text.is_empty() { "ok" } else { text.trim() });
        }
    }
}
