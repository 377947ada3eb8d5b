//! Wait and wake: *enter; heavy barrier; look* of a waiter against *change; light barrier; look for waiters* of
//! who changes something. P3: whoever sleeps is woken.
//!
//! A lost wake-up shows as a deadlock.

use std::sync::Arc;

use loom::sync::atomic::{AtomicU64, Ordering};
use loom::thread;

use super::check;
use crate::platform::{Bell, without_barriers};
use crate::sync::SpinLock;

/// Where no heavy barrier reaches anybody: the bell is fenced, and light barriers are nothing.
#[test]
fn no_wake_up_is_lost_at_a_fenced_bell() {
    without_barriers(|| check(6, one_waiter));
}

#[test]
fn no_wake_up_is_lost() {
    check(6, one_waiter);
}

fn one_waiter() {
    let (bell, changed) = (Arc::new(Bell::new()), Arc::new(AtomicU64::new(0)));
    let (there, change) = (bell.clone(), changed.clone());
    let thread = thread::spawn(move || {
        change.store(1, Ordering::Release);
        if there.is_heard() {
            there.ring();
        }
    });
    assert!(bell.wait_until(None, || changed.load(Ordering::Acquire) == 1));
    thread.join().unwrap();
}

#[test]
fn both_of_two_waiters_are_woken_by_either_change() {
    check(4, || {
        let (bell, changed) = (Arc::new(Bell::new()), Arc::new(AtomicU64::new(0)));
        let change = |(bell, changed): (Arc<Bell>, Arc<AtomicU64>)| {
            changed.fetch_add(1, Ordering::Release);
            if bell.is_heard() {
                bell.ring();
            }
        };
        let shared = (bell.clone(), changed.clone());
        let changer = thread::spawn(move || change(shared));
        let (there, seen) = (bell.clone(), changed.clone());
        let waiter =
            thread::spawn(move || assert!(there.wait_until(None, || seen.load(Ordering::Acquire) == 2)));
        change((bell, changed));
        changer.join().unwrap();
        waiter.join().unwrap();
    });
}

#[test]
fn a_spin_lock_has_one_holder_and_hands_over_what_was_written() {
    check(6, || {
        let lock = Arc::new((SpinLock::new(), AtomicU64::new(0)));
        let add = |lock: &(SpinLock, AtomicU64)| {
            let _held = lock.0.lock();
            lock.1.store(lock.1.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        };
        let other = lock.clone();
        let thread = thread::spawn(move || add(&other));
        add(&lock);
        thread.join().unwrap();
        assert_eq!(lock.1.load(Ordering::Relaxed), 2);
    });
}
