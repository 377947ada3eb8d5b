//! The rule of the path: nothing is allocated or freed in the middle of a call. The allocator of this program knows it.

#![expect(unsafe_code, clippy::undocumented_unsafe_blocks, reason = "system calls on memory of their own")]
#![cfg(target_os = "linux")]

mod support;

use std::alloc::System;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mmu_monitor::{Monitor, Strict, is_inside};
use mmu_notifier::Invalidation;
use mmu_notifier::interval::{Answer, Notifier, Sequence, Subscription};
use support::{Ear, PAGE, Recorder, anonymous, range};

#[global_allocator]
static ALLOCATOR: Strict<System> = Strict(System);

fn monitor() -> Option<Monitor> {
    Monitor::start_with(&"hooks".parse().unwrap()).map_err(|reason| println!("skipped: {reason}")).ok()
}

/// Takes two passes, and takes others out of the space in its callback.
struct Busy {
    heard: Arc<AtomicUsize>,
    others: Mutex<Vec<Subscription<Plain>>>,
}

struct Plain;

impl Notifier for Plain {
    fn invalidate(&self, _: &Invalidation, _: Sequence) -> Answer {
        Answer::Done
    }
}

impl Notifier for Busy {
    fn invalidate(&self, _: &Invalidation, _: Sequence) -> Answer {
        assert!(is_inside());
        self.heard.fetch_add(1, Ordering::Relaxed);
        // What it owns is dropped later, by a call that may sleep.
        if let Some(other) = self.others.lock().unwrap().pop() {
            other.detach();
        }
        Answer::Begun
    }

    fn finish(&self, _: &Invalidation) {
        assert!(is_inside());
    }
}

#[test]
fn start_and_end_allocate_nothing_whatever_they_do() {
    let Some(monitor) = monitor() else { return };
    let page = anonymous(1);
    let here = range(page, PAGE);
    let heard = Arc::new(AtomicUsize::new(0));
    let others = (0..40).map(|_| monitor.space().insert(here, Plain).unwrap()).collect();
    let busy = Busy { heard: heard.clone(), others: Mutex::new(others) };
    let busy = Arc::new(monitor.space().insert(here, busy).unwrap());
    // More than one batch of hits.
    let many: Vec<_> = (0..300).map(|_| monitor.space().insert(here, Plain).unwrap()).collect();
    let recorder: &'static Recorder = Box::leak(Box::new(Recorder::new()));
    let _list = monitor.space().register(Ear(recorder)).unwrap();
    let reader = busy.clone();
    let reading = std::thread::spawn(move || {
        for _ in 0..2_000 {
            let token = reader.read_begin();
            std::hint::black_box(reader.read_retry(token));
        }
    });
    for round in 0..50 {
        // Each first call of a thread in the space, too.
        let address = page as usize;
        std::thread::spawn(move || unsafe { libc::madvise(address as *mut _, PAGE, libc::MADV_DONTNEED) })
            .join()
            .unwrap();
        assert!(heard.load(Ordering::Relaxed) > round);
    }
    reading.join().unwrap();
    assert!(!is_inside());
    drop(many);
    monitor.space().drop_deferred();
}

/// Ends its process.
fn a_callback_that_allocates() {
    let Some(monitor) = monitor() else { return };
    let page = anonymous(1);
    let allocates = |_: &Invalidation| {
        std::hint::black_box(Box::new([0_u8; 1234]));
        Answer::Done
    };
    let _subscription = monitor.space().insert(range(page, PAGE), allocates).unwrap();
    unsafe { libc::munmap(page.cast(), PAGE) };
    // Not reached.
    std::thread::sleep(Duration::from_secs(60));
}

#[test]
fn a_callback_that_allocates_is_named() {
    if support::is_child() {
        return a_callback_that_allocates();
    }
    if monitor().is_none() {
        return;
    }
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_callback_that_allocates_is_named", "--nocapture"])
        .env(support::CHILD, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&child.stderr);
    assert!(!child.status.success());
    // By the name of its type, where that is noted.
    let who = if mmu_notifier::diagnostics::ENABLED {
        "strict::a_callback_that_allocates::{{closure}}"
    } else {
        "a notifier"
    };
    let expected = format!("a callback of {who} allocated 1234 bytes in the middle of system call 11(");
    assert!(text.contains(&expected), "{text}");
}
