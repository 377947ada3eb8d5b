//! Processes in states that the test harness is never in: of one thread, and forbidden to make memory executable.

#![allow(
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
    const PROGRAMS: [(&str, Program); 3] = [
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
    ];

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
            let child = Command::new(std::env::current_exe().unwrap()).env(CHILD, name).output().unwrap();
            let text = String::from_utf8_lossy(&child.stdout);
            assert!(child.status.success(), "{name}: {text}{}", String::from_utf8_lossy(&child.stderr));
            println!("{name}: {}", if text.is_empty() { "ok" } else { text.trim() });
        }
    }
}
