//! C3.4 and C3.5: read_begin in its forms, and read_retry.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mmu_notifier::interval::Answer;
use mmu_notifier::mirror::{Attempts, Mirror};
use mmu_notifier::{AddressSpace, Invalidation};

use super::harness::{LIMIT, Recorder, background, lock, range, within};
use super::probe::{Manner, insert};

#[test]
fn c3_4_read_begin_sleeps_until_the_end() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let (sub, _) = insert(&space, "S", range(0x1000, 0x2000), &log);
        let active = space.invalidate_start(range(0x1fff, 0x3000));
        let reader = background(move || (sub.read_begin(), sub));
        reader.assert_waits("it is busy");
        active.end();
        let (token, sub) = reader.join();
        assert!(!sub.read_retry(token));
    });
}

#[test]
fn c3_4_read_begin_sleeps_on_if_another_hits_it_meanwhile() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let (sub, _) = insert(&space, "S", range(0x1000, 0x2000), &log);
        let sub = Arc::new(sub);
        let first = space.invalidate_start(range(0x1000, 0x2000));
        let waiting = sub.clone();
        let reader = background(move || waiting.read_begin());
        reader.assert_waits("the first is active");
        let second = space.invalidate_start(range(0x1000, 0x2000));
        first.end();
        reader.assert_waits("the second hit it");
        second.end();
        assert!(!sub.read_retry(reader.join()));
    });
}

#[test]
fn c3_4_a_token_comes_from_a_moment_without_a_busy_one() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let (sub, _) = insert(&space, "S", range(0x1000, 0x2000), &log);
        assert!(sub.try_read_begin().is_some());
        assert!(sub.read_begin_timeout(Duration::from_millis(1)).is_some());
        let active = space.invalidate_start(range(0x1000, 0x2000));
        assert!(sub.try_read_begin().is_none());
        assert!(sub.read_begin_timeout(Duration::ZERO).is_none());
        assert!(sub.read_begin_timeout(Duration::from_millis(20)).is_none());
        active.end();
        let token = sub.read_begin_timeout(LIMIT).expect("nobody is active");
        assert!(!sub.read_retry(token));
    });
}

#[test]
fn c3_4_a_bounded_wait_is_woken_by_the_end() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let (sub, _) = insert(&space, "S", range(0x1000, 0x2000), &log);
        let active = space.invalidate_start(range(0x1000, 0x2000));
        let reader = background(move || sub.read_begin_timeout(Duration::MAX).is_some());
        reader.assert_waits("it is busy");
        active.end();
        assert!(reader.join());
    });
}

#[test]
fn c3_4_what_was_written_before_the_end_is_seen_behind_it() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let (sub, _) = insert(&space, "S", range(0x1000, 0x2000), &log);
        let sub = Arc::new(sub);
        // Relaxed on purpose: the end and the read alone order it.
        let entry = Arc::new(AtomicU64::new(0));
        for round in 1..=200 {
            let active = space.invalidate_start_owned(range(0x1000, 0x2000));
            let (reader, seen) = (sub.clone(), entry.clone());
            let reader = std::thread::spawn(move || {
                reader.read_begin();
                seen.load(Ordering::Relaxed)
            });
            entry.store(round, Ordering::Relaxed);
            active.end();
            assert_eq!(reader.join().unwrap(), round);
        }
    });
}

#[test]
fn c3_4_many_readers_wake_at_one_end() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let (sub, _) = insert(&space, "S", range(0x1000, 0x2000), &log);
        let sub = Arc::new(sub);
        let active = space.invalidate_start(range(0x1000, 0x2000));
        let readers: Vec<_> = (0..20)
            .map(|_| {
                let sub = sub.clone();
                background(move || sub.read_begin())
            })
            .collect();
        readers[19].assert_waits("it is busy");
        active.end();
        for reader in readers {
            assert!(!sub.read_retry(reader.join()));
        }
    });
}

#[test]
fn c3_4_a_reader_of_one_range_waits_for_no_other() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let (sub, _) = insert(&space, "S", range(0x1000, 0x2000), &log);
        let (_held, probe) = insert(&space, "HELD", range(0x2000, 0x3000), &log);
        probe.gate.hold();
        let starter = space.clone();
        let start = background(move || starter.invalidate_start_owned(range(0x2000, 0x3000)));
        probe.gate.wait_inside(1);
        let reader = background(move || {
            let token = sub.read_begin();
            sub.read_retry(token)
        });
        assert!(!reader.join());
        probe.gate.open();
        start.join().end();
    });
}

#[test]
fn c3_5_a_hit_makes_tokens_stale_and_nothing_else_does() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let (sub, _) = insert(&space, "S", range(0x1000, 0x2000), &log);
        let token = sub.read_begin();
        for _ in 0..10 {
            space.invalidate_start(range(0x2000, 0x3000)).end();
            space.invalidate_range(range(0x1000, 0x2000));
            space.clear_flush_young(range(0x1000, 0x2000));
        }
        assert!(!sub.read_retry(token) && !sub.check_retry(token));
        let active = space.invalidate_start(range(0x1000, 0x1001));
        assert!(sub.read_retry(token) && sub.check_retry(token), "already before the end");
        active.end();
        assert!(sub.read_retry(token) && sub.check_retry(token), "and for ever");
        let next = sub.read_begin();
        assert!(!sub.read_retry(next) && sub.read_retry(token));
    });
}

#[test]
fn c3_5_a_hit_counts_though_its_start_failed() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let (before, _) = insert(&space, "BEFORE", range(0x1000, 0x2000), &log);
        let (refusing, probe) = insert(&space, "REFUSING", range(0x2000, 0x3000), &log);
        let (after, _) = insert(&space, "AFTER", range(0x3000, 0x4000), &log);
        probe.set(Manner::Refuses);
        let tokens = [before.read_begin(), refusing.read_begin(), after.read_begin()];
        assert!(space.try_invalidate_start(range(0x1000, 0x4000)).is_err());
        assert!(before.read_retry(tokens[0]));
        assert!(refusing.read_retry(tokens[1]));
        assert!(!after.read_retry(tokens[2]), "it was not called");
    });
}

#[test]
fn c3_5_read_retry_under_the_lock_of_the_callback_decides() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let table = Arc::new(Mutex::new(Vec::new()));
        let (sub, probe) = insert(&space, "S", range(0x1000, 0x2000), &log);
        let dropped = table.clone();
        probe.on(move |kind| {
            if kind == "invalidate" {
                lock(&dropped).clear();
            }
        });
        let sub = Arc::new(sub);
        let token = sub.read_begin();
        let committing = lock(&table);
        let starter = space.clone();
        let start = background(move || starter.invalidate_start_owned(range(0x1000, 0x2000)));
        start.assert_waits("its callback wants the lock");
        // The sequence advanced before the callback came for the lock, so this commit is refused.
        assert!(sub.read_retry(token));
        drop(committing);
        start.join().end();
        let token = sub.read_begin();
        let mut committing = lock(&table);
        assert!(!sub.read_retry(token));
        committing.push(1);
        drop(committing);
        space.invalidate_start(range(0x1000, 0x2000)).end();
        assert!(lock(&table).is_empty());
        probe.quiet();
    });
}

/// Settled, and not come to yet: the checks of a build with diagnostics do not make it wait.
#[test]
fn c3_1_a_settled_read_in_the_callback_of_an_earlier_one_does_not_wait_for_its_own_thread() {
    within(|| {
        let space = AddressSpace::new();
        let later = Arc::new(space.insert(range(8, 16), |_: &Invalidation| Answer::Done).unwrap());
        later.read_begin();
        let (read, reads) = (later.clone(), Arc::new(AtomicU64::new(0)));
        let counted = reads.clone();
        let callback = move |_: &Invalidation| {
            read.read_begin();
            counted.fetch_add(1, Ordering::Relaxed);
            Answer::Done
        };
        let _earlier = space.insert(range(0, 8), callback).unwrap();
        space.invalidate(range(0, 16), || {});
        assert_eq!(reads.load(Ordering::Relaxed), 1);
    });
}

/// The same for a fault of a mirror, of the whole range and of a part.
#[test]
fn c3_1_a_settled_fault_in_the_callback_of_an_earlier_one_is_not_contended() {
    within(|| {
        let space = AddressSpace::new();
        let later = Arc::new(Mirror::new(&space, range(8, 16), None::<u64>).unwrap());
        let fault = |mirror: &Mirror<_>, part| {
            let once = Attempts::UNBOUNDED.within(Duration::from_millis(20));
            mirror.fault_within(part, once, |_| Ok::<_, ()>(1), |table, value| *table = Some(value))
        };
        fault(&later, range(8, 16)).unwrap();
        let (mirror, faults) = (later.clone(), Arc::new(Mutex::new(Vec::new())));
        let noted = faults.clone();
        let callback = move |_: &Invalidation| {
            lock(&noted).extend([range(8, 16), range(9, 10)].map(|part| fault(&mirror, part)));
            Answer::Done
        };
        let _earlier = space.insert(range(0, 8), callback).unwrap();
        space.invalidate(range(0, 16), || {});
        assert_eq!(*lock(&faults), [Ok(()), Ok(())]);
        assert_eq!(later.with(|table| *table), None);
    });
}
