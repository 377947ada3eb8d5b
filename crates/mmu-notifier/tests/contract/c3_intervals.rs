//! C3.3, C3.6, C3.9, C3.10 and C3.12: insertion, the callback, nesting, side by side, owners.

use std::sync::{Arc, Barrier};

use mmu_notifier::interval::{InsertErrorKind, Options};
use mmu_notifier::{AddressSpace, Event, Invalidation, Owner};

use super::harness::{Recorder, background, range, within};
use super::probe::{Manner, Probe, insert, slot, take};

#[test]
fn c3_3_inserted_inside_an_invalidation_it_is_busy_and_not_called() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let (_first, _) = insert(&space, "FIRST", range(0x1000, 0x2000), &log);
        let overlapping = space.invalidate_start(range(0x1000, 0x2000));
        let elsewhere = space.invalidate_start(range(0x5000, 0x6000));
        log.take();
        let (sub, _) = insert(&space, "S", range(0x1800, 0x3000), &log);
        let (free, _) = insert(&space, "FREE", range(0x2000, 0x5000), &log);
        assert!(free.try_read_begin().is_some(), "both only touch it");
        let reader = background(move || (sub.read_begin(), sub));
        reader.assert_waits("inserted inside");
        overlapping.end();
        let (token, sub) = reader.join();
        elsewhere.end();
        assert!(!sub.read_retry(token));
        log.expect(&[]);
    });
}

#[test]
fn c3_3_inserted_inside_two_it_is_busy_until_both_end() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        space.register_nobody().expect("a registration of nobody");
        let (first, second) =
            (space.invalidate_start(range(0x1000, 0x2000)), space.invalidate_start(range(0x1800, 0x1900)));
        let (sub, _) = insert(&space, "S", range(0x1000, 0x2000), &log);
        first.end();
        assert!(sub.try_read_begin().is_none());
        second.end();
        assert!(sub.try_read_begin().is_some());
    });
}

#[test]
fn c3_3_insert_waits_for_no_invalidation() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let (_first, probe) = insert(&space, "FIRST", range(0x1000, 0x2000), &log);
        probe.gate.hold();
        let starter = space.clone();
        let start = background(move || starter.invalidate_start_owned(range(0x1000, 0x2000)));
        probe.gate.wait_inside(1);
        let (inserter, record) = (space.clone(), log.clone());
        let (sub, _) = background(move || insert(&inserter, "S", range(0x1000, 0x2000), &record)).join();
        assert!(sub.try_read_begin().is_none());
        probe.gate.open();
        start.join().end();
        log.expect(&["FIRST invalidate"]);
        space.invalidate_start(range(0x1000, 0x2000)).end();
        log.expect(&["FIRST invalidate", "S invalidate"]);
    });
}

#[test]
fn c3_3_a_space_without_users_is_gone_and_gives_the_notifier_back() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let holder = space.downgrade();
        drop(space);
        let probe = Probe::new("S", &log);
        let refused = holder.insert(range(1, 2), probe.clone()).expect_err("no user is left");
        assert_eq!(refused.cause, InsertErrorKind::Gone);
        assert!(Arc::ptr_eq(&refused.notifier, &probe));
        drop(refused);
        assert_eq!(Arc::strong_count(&probe), 1, "nothing is left behind");
    });
}

#[test]
fn c3_6_the_sequence_advances_before_the_callback_and_never_comes_twice() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let (sub, probe) = insert(&space, "S", range(0x1000, 0x2000), &log);
        let sub = Arc::new(sub);
        let token = sub.read_begin();
        let inner = sub.clone();
        probe.once("invalidate", move || assert!(inner.read_retry(token), "stale within its callback"));
        for round in 0..200u64 {
            let nested = space.invalidate_start(range(0x1000, 0x1001 + round));
            space.invalidate_start(range(0x1000, 0x2000)).end();
            nested.end();
        }
        probe.quiet();
        let sequences = probe.sequences();
        assert_eq!(sequences.len(), 400);
        for (index, one) in sequences.iter().enumerate() {
            assert!(!sequences[..index].contains(one), "a sequence came twice");
        }
    });
}

#[test]
fn c3_6_it_is_told_whether_it_may_block_and_refuses_only_then() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let (sub, probe) = insert(&space, "S", range(0x1000, 0x2000), &log);
        probe.set(Manner::Refuses);
        space.invalidate_start(range(0x1000, 0x2000)).end();
        assert!(space.try_invalidate_start(range(0x1000, 0x2000)).is_err());
        let blockable: Vec<bool> = probe.heard().iter().map(Invalidation::is_blockable).collect();
        assert_eq!(blockable, [true, false]);
        assert!(sub.try_read_begin().is_some());
    });
}

#[test]
fn c3_9_starts_and_ends_nest_within_a_thread() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let (outer, _) = insert(&space, "OUTER", range(0x1000, 0x4000), &log);
        let (inner, _) = insert(&space, "INNER", range(0x3000, 0x4000), &log);
        let first = space.invalidate_start(range(0x1000, 0x2000));
        let second = space.invalidate_start(range(0x3000, 0x4000));
        let third = space.invalidate_start(range(0x3000, 0x3001));
        log.expect(&[
            "OUTER invalidate",
            "OUTER invalidate",
            "INNER invalidate",
            "OUTER invalidate",
            "INNER invalidate",
        ]);
        second.end();
        assert!(inner.try_read_begin().is_none());
        third.end();
        assert!(inner.try_read_begin().is_some());
        assert!(outer.try_read_begin().is_none());
        first.end();
        assert!(outer.try_read_begin().is_some());
    });
}

#[test]
fn c3_9_a_callback_starts_and_ends_other_ranges() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let (_device, probe) = insert(&space, "DEVICE", range(0x1000, 0x2000), &log);
        let (other, _) = insert(&space, "OTHER", range(0x5000, 0x6000), &log);
        let (inner, foreign) = (space.clone(), AddressSpace::new());
        let (_elsewhere, _) = insert(&foreign, "ELSEWHERE", range(0x1000, 0x2000), &log);
        let other = Arc::new(other);
        let (reader, user) = (other.clone(), foreign.clone());
        probe.once("invalidate", move || {
            let active = inner.invalidate_start(range(0x5000, 0x5001));
            assert!(reader.try_read_begin().is_none());
            user.invalidate_start(range(0x1000, 0x2000)).end();
            active.end();
            assert!(reader.try_read_begin().is_some());
        });
        space.invalidate_start(range(0x1000, 0x2000)).end();
        log.expect(&["DEVICE invalidate", "OTHER invalidate", "ELSEWHERE invalidate"]);
        drop(other);
    });
}

#[test]
fn c3_9_a_start_in_a_callback_may_outlive_the_outer_start() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let (_device, probe) = insert(&space, "DEVICE", range(0x1000, 0x2000), &log);
        let (other, _) = insert(&space, "OTHER", range(0x5000, 0x6000), &log);
        let kept = Arc::new(std::sync::Mutex::new(None));
        let (inner, keep) = (space.clone(), kept.clone());
        probe.once("invalidate", move || {
            *super::harness::lock(&keep) = Some(inner.invalidate_start_owned(range(0x5000, 0x5001)));
        });
        let outer = space.invalidate_start(range(0x1000, 0x2000));
        outer.end();
        assert!(other.try_read_begin().is_none());
        take(&kept).expect("the inner start").end();
        assert!(other.try_read_begin().is_some());
    });
}

#[test]
fn c3_10_invalidations_of_different_ranges_run_side_by_side() {
    within(|| {
        const THREADS: usize = 24;
        let log = Recorder::new();
        let space = AddressSpace::new();
        let together = Arc::new(Barrier::new(THREADS));
        let mut subs = Vec::new();
        let mut starts = Vec::new();
        for index in 0..THREADS as u64 {
            let (sub, probe) = insert(&space, "S", range(index << 12, (index + 1) << 12), &log);
            let meet = together.clone();
            // Each callback returns only when all are in theirs.
            probe.once("invalidate", move || {
                meet.wait();
            });
            subs.push(sub);
            let starter = space.clone();
            starts.push(background(move || {
                let active = starter.invalidate_start_owned(range(index << 12, (index + 1) << 12));
                active.end();
            }));
        }
        starts.into_iter().for_each(|start| start.join());
        assert_eq!(log.take().len(), THREADS);
    });
}

#[test]
fn c3_12_its_own_invalidation_does_not_concern_it() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let (mine, theirs) = (Owner::new(7).unwrap(), Owner::new(8).unwrap());
        let options = Options::new().owner(mine).label("device");
        let sub =
            space.insert_with(range(0x1000, 0x2000), options, Probe::new("S", &log)).expect("an insert");
        let (other, _) = insert(&space, "OTHER", range(0x1000, 0x2000), &log);
        let token = sub.read_begin();
        let what = Invalidation::new(range(0x1000, 0x2000), Event::Migrate);
        let own = space.invalidate_start(what.with_owner(mine));
        log.expect(&["OTHER invalidate"]);
        assert!(!sub.read_retry(token), "its token stays fresh");
        assert!(sub.try_read_begin().is_some(), "nor is it busy");
        assert!(other.try_read_begin().is_none());
        // Another hit comes and goes meanwhile: the own one still does not count.
        let foreign = space.invalidate_start(what.with_owner(theirs));
        log.expect(&["S invalidate", "OTHER invalidate"]);
        assert!(sub.try_read_begin().is_none() && sub.read_retry(token));
        foreign.end();
        assert!(sub.try_read_begin().is_some());
        own.end();
    });
}

#[test]
fn c3_12_inserted_inside_its_own_invalidation_it_is_not_busy() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        space.register_nobody().expect("a registration of nobody");
        let mine = Owner::new(7).unwrap();
        let what = Invalidation::new(range(0x1000, 0x2000), Event::Migrate).with_owner(mine);
        let own = space.invalidate_start(what);
        let options = Options::new().owner(mine);
        let sub =
            space.insert_with(range(0x1000, 0x2000), options, Probe::new("S", &log)).expect("an insert");
        assert!(sub.try_read_begin().is_some());
        let fault_loop = background(move || {
            let token = sub.read_begin();
            sub.read_retry(token)
        });
        assert!(!fault_loop.join(), "a device's fault loop comes to an end");
        own.end();
    });
}

#[test]
fn c3_9_a_callback_inserts_and_removes() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let (_device, probe) = insert(&space, "DEVICE", range(0x1000, 0x2000), &log);
        let (old, _) = insert(&space, "OLD", range(0x5000, 0x6000), &log);
        let old = slot(old);
        let (inner, record) = (space.clone(), log.clone());
        let made = Arc::new(std::sync::Mutex::new(None));
        let keep = made.clone();
        probe.once("invalidate", move || {
            take(&old).expect("the old one").remove();
            *super::harness::lock(&keep) = Some(insert(&inner, "NEW", range(0x5000, 0x6000), &record));
        });
        space.invalidate_start(range(0x1000, 0x2000)).end();
        space.invalidate_start(range(0x5000, 0x6000)).end();
        log.expect(&["DEVICE invalidate", "NEW invalidate"]);
        drop(take(&made));
    });
}
