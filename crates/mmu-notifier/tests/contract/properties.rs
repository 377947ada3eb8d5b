//! C11: the properties P1 to P8, each in its shortest form; the stress tests give them time.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use mmu_notifier::{AddressSpace, synchronize};

use super::harness::{Recorder, background, lock, range, within};
use super::probe::{Listed, Manner, Probe, insert, register};

#[test]
fn p1_nothing_read_before_an_end_is_committed_after_it() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let (sub, probe) = insert(&space, "S", range(1, 2), &log);
        let (primary, copy) = (Arc::new(AtomicU64::new(0)), Arc::new(Mutex::new(None)));
        let dropped = copy.clone();
        probe.on(move |_| *lock(&dropped) = None);
        let stop = Arc::new(AtomicBool::new(false));
        let (read, commit, until) = (primary.clone(), copy.clone(), stop.clone());
        let faults = background(move || {
            while !until.load(Ordering::Relaxed) {
                let token = sub.read_begin();
                let entry = read.load(Ordering::Relaxed);
                std::thread::yield_now();
                let mut copy = lock(&commit);
                if !sub.read_retry(token) {
                    *copy = Some(entry);
                }
            }
        });
        for generation in 1..=500 {
            space.invalidate(range(1, 2), || {
                assert_eq!(*lock(&copy), None);
                primary.store(generation, Ordering::Relaxed);
                std::thread::yield_now();
                assert_eq!(*lock(&copy), None, "committed between start and end");
            });
            let found = *lock(&copy);
            assert!(found.is_none_or(|found| found == generation), "{found:?} after {generation}");
        }
        stop.store(true, Ordering::Relaxed);
        faults.join();
        probe.quiet();
    });
}

#[test]
fn p2_no_callback_runs_after_remove_or_unregister_returned() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let stop = Arc::new(AtomicBool::new(false));
        let (user, until) = (space.clone(), stop.clone());
        let invalidator = background(move || {
            while !until.load(Ordering::Relaxed) {
                user.invalidate_start(range(1, 2)).end();
            }
        });
        for _ in 0..200 {
            let (sub, interval) = insert(&space, "S", range(1, 2), &log);
            let (listed, list) = register(&space, "N", &log);
            std::thread::yield_now();
            sub.remove();
            assert_eq!(Arc::strong_count(&interval), 1);
            interval.on(|_| std::process::abort());
            listed.unregister();
            list.on(|_| std::process::abort());
            assert_eq!(Arc::strong_count(&list), 1);
        }
        stop.store(true, Ordering::Relaxed);
        invalidator.join();
    });
}

#[test]
fn p3_everybody_is_woken() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let subs: Vec<_> =
            (0..10u64).map(|page| insert(&space, "S", range(page, page + 2), &log).0).map(Arc::new).collect();
        let actives: Vec<_> =
            (0..10u64).map(|page| space.invalidate_start_owned(range(page, page + 1))).collect();
        let readers: Vec<_> = subs
            .iter()
            .map(|sub| {
                let sub = sub.clone();
                background(move || sub.read_begin())
            })
            .collect();
        actives.into_iter().rev().for_each(|active| active.end());
        for reader in readers {
            reader.join();
        }
    });
}

#[test]
fn p4_free_comes_once_and_after_every_callback() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        for round in 0..100u64 {
            let probe = Probe::new("G", &log);
            let made = probe.clone();
            let shared = space.get(round % 2, move |_| Ok::<_, ()>(Listed::freed(&made)));
            let user = space.clone();
            let walk = background(move || user.invalidate_start(range(1, 2)).only_end());
            shared.expect("a shared notifier").put();
            walk.join();
            synchronize();
            let events = log.take();
            assert_eq!(events.last().map(String::as_str), Some("G free"));
            assert_eq!(events.iter().filter(|event| *event == "G free").count(), 1);
        }
    });
}

#[test]
fn p5_release_comes_once_when_exit_and_unregister_race() {
    within(|| {
        for _ in 0..100 {
            let log = Recorder::new();
            let space = AddressSpace::new();
            let (first, _) = register(&space, "N", &log);
            let (second, _) = register(&space, "M", &log);
            let unregister = background(move || first.unregister());
            let exit = background(move || drop(space));
            second.unregister();
            unregister.join();
            exit.join();
            let mut events = log.take();
            events.sort();
            assert_eq!(events, ["M release", "N release"]);
        }
    });
}

#[test]
fn p6_a_failed_start_leaves_no_trace() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let (sub, _) = insert(&space, "S", range(1, 5), &log);
        let (_listed, probe) = register(&space, "N", &log);
        probe.set(Manner::Refuses);
        let before = space.stats().active;
        for _ in 0..1000 {
            assert!(space.try_invalidate_start(range(1, 5)).is_err());
        }
        assert_eq!(space.stats().active, before);
        assert!(sub.try_read_begin().is_some());
        let (late, _) = insert(&space, "LATE", range(1, 5), &log);
        assert!(late.try_read_begin().is_some());
    });
}

#[test]
fn p7_an_interval_is_called_for_every_start_after_its_insert() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let (churner, stop) = (space.clone(), Arc::new(AtomicBool::new(false)));
        let until = stop.clone();
        let churn = background(move || {
            while !until.load(Ordering::Relaxed) {
                drop(insert(&churner, "CHURN", range(1, 9), &Recorder::new()));
                drop(register(&churner, "CHURN", &Recorder::new()));
            }
        });
        for _ in 0..300 {
            let (_sub, _) = insert(&space, "S", range(4, 5), &log);
            let (_listed, _) = register(&space, "N", &log);
            space.invalidate_start(range(1, 9)).only_end();
            log.expect(&["S invalidate", "N start", "N end"]);
            drop(_listed);
            log.take();
        }
        stop.store(true, Ordering::Relaxed);
        churn.join();
    });
}

#[test]
fn p8_with_invalidations_that_always_overlap_in_time_nobody_elsewhere_waits() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let (_hit, _) = insert(&space, "HIT", range(0x1000, 0x2000), &log);
        let mut active = space.invalidate_start_owned(range(0x1000, 0x2000));
        for _ in 0..200 {
            let next = space.invalidate_start_owned(range(0x1000, 0x2000));
            active.end();
            active = next;
            let (other, _) = insert(&space, "OTHER", range(0x2000, 0x3000), &log);
            let token = other.read_begin();
            assert!(!other.read_retry(token));
            other.remove();
            let (same, _) = insert(&space, "SAME", range(0x1000, 0x2000), &log);
            same.remove();
        }
        active.end();
    });
}
