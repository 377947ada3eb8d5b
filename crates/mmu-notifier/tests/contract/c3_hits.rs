//! C3.1 and C3.2: whom a start calls, in which order, and when an end frees whom.

use mmu_notifier::{AddressSpace, Range};

use super::harness::{Recorder, background, range, within};
use super::probe::{Probe, insert};

#[test]
fn c3_1_hits_are_called_once_in_ascending_order_before_start_returns() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let (_c, _) = insert(&space, "C", range(0x3000, 0x4000), &log);
        let (_a, _) = insert(&space, "A", range(0x1000, 0x9000), &log);
        let (_b, _) = insert(&space, "B", range(0x2000, 0x2001), &log);
        let (_far, _) = insert(&space, "FAR", range(0x9000, 0xa000), &log);
        let active = space.invalidate_start(range(0x2000, 0x9000));
        log.expect(&["A invalidate", "B invalidate", "C invalidate"]);
        active.end();
        log.expect(&[]);
    });
}

#[test]
fn c3_1_equal_starts_are_called_in_order_of_insertion() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let names: Vec<String> = (0..100).map(|number| number.to_string()).collect();
        let mut subs: Vec<_> = names
            .iter()
            .enumerate()
            .map(|(number, name)| {
                insert(&space, name, range(0x1000, 0x1001 + (number as u64 * 37) % 50), &log).0
            })
            .collect();
        // One in the middle goes and comes back: it is the last then.
        subs.remove(40).remove();
        let (_again, _) = insert(&space, "again", range(0x1000, 0x1001), &log);
        space.invalidate_start(range(0x1000, 0x1001)).end();
        let expected: Vec<String> = names
            .iter()
            .filter(|name| *name != "40")
            .map(|name| format!("{name} invalidate"))
            .chain(["again invalidate".to_owned()])
            .collect();
        assert_eq!(log.take(), expected);
    });
}

#[test]
fn c3_1_long_ranges_far_to_the_left_are_hit_too() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let (_long, _) = insert(&space, "LONG", range(0, 1 << 40), &log);
        let _short: Vec<_> = (1..2000u64)
            .map(|page| insert(&space, "short", range(page << 12, (page + 1) << 12), &log).0)
            .collect();
        space.invalidate_start(range((1999 << 12) + 1, 1999 << 12 | 3)).end();
        log.expect(&["LONG invalidate", "short invalidate"]);
        space.invalidate_start(range(1 << 39, (1 << 39) + 1)).end();
        log.expect(&["LONG invalidate"]);
    });
}

#[test]
fn c3_1_it_is_busy_from_its_callback_until_the_end() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let (sub, probe) = insert(&space, "S", range(0x1000, 0x2000), &log);
        probe.gate.hold();
        let starter = space.clone();
        let start = background(move || starter.invalidate_start_owned(range(0x1000, 0x1001)));
        probe.gate.wait_inside(1);
        assert!(sub.try_read_begin().is_none(), "its callback runs");
        probe.gate.open();
        let active = start.join();
        assert!(sub.try_read_begin().is_none(), "the end has not come");
        active.end();
        assert!(sub.try_read_begin().is_some());
    });
}

#[test]
fn c3_1_one_that_is_gone_before_its_turn_is_not_called() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let (_first, probe) = insert(&space, "FIRST", range(0x1000, 0x2000), &log);
        let (detached, _) = insert(&space, "DETACHED", range(0x1800, 0x2000), &log);
        let (removed, _) = insert(&space, "REMOVED", range(0x1900, 0x2000), &log);
        let (_last, _) = insert(&space, "LAST", range(0x1a00, 0x2000), &log);
        // It has been read: what that left in the record does not bring the callback back.
        detached.read_begin();
        probe.gate.hold();
        let starter = space.clone();
        let start = background(move || starter.invalidate_start_owned(range(0x1000, 0x2000)));
        probe.gate.wait_inside(1);
        detached.detach();
        let remove = background(move || removed.remove());
        // Whether it waits for the start or not, it is off before the start comes to it.
        remove.settle();
        probe.gate.open();
        remove.join();
        start.join().end();
        log.expect(&["FIRST invalidate", "LAST invalidate"]);
    });
}

#[test]
fn c3_1_a_read_beside_a_start_that_has_not_come_to_it_never_commits() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let (_first, probe) = insert(&space, "FIRST", range(0x1000, 0x2000), &log);
        let (later, _) = insert(&space, "LATER", range(0x1800, 0x2000), &log);
        probe.gate.hold();
        let starter = space.clone();
        let start = background(move || starter.invalidate_start_owned(range(0x1000, 0x2000)));
        probe.gate.wait_inside(1);
        let token = later.try_read_begin();
        probe.gate.open();
        let active = start.join();
        if let Some(token) = token {
            assert!(later.read_retry(token), "the callback that came makes it stale");
        }
        active.end();
    });
}

#[test]
fn c3_2_an_end_frees_and_wakes_those_without_another_active_one() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let (low, _) = insert(&space, "LOW", range(0x1000, 0x2000), &log);
        let (both, _) = insert(&space, "BOTH", range(0x1000, 0x4000), &log);
        let first = space.invalidate_start(range(0x1000, 0x2000));
        let second = space.invalidate_start(range(0x3000, 0x4000));
        let low = background(move || (low.read_begin(), low));
        let both = background(move || (both.read_begin(), both));
        low.assert_waits("the first overlaps it");
        first.end();
        let (token, low) = low.join();
        assert!(!low.read_retry(token));
        both.assert_waits("the second overlaps it");
        second.end();
        let (token, both) = both.join();
        assert!(!both.read_retry(token));
    });
}

#[test]
fn c3_2_ends_come_in_any_order_and_on_any_thread() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let (sub, _) = insert(&space, "S", range(0x1000, 0x2000), &log);
        let actives: Vec<_> = (0..3).map(|_| space.invalidate_start_owned(range(0x1000, 0x2000))).collect();
        for (left, active) in (0..3).rev().zip(actives) {
            assert!(sub.try_read_begin().is_none());
            background(move || active.end()).join();
            assert_eq!(sub.try_read_begin().is_some(), left == 0);
        }
    });
}

#[test]
fn c3_2_an_end_of_a_thread_that_died_is_as_good() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let (sub, _) = insert(&space, "S", Range::ALL, &log);
        let starter = space.clone();
        let active = background(move || starter.invalidate_start_owned(range(1, 2))).join();
        // Threads that come and go may take the dead one's place, but not its invalidation.
        for _ in 0..50 {
            let other = space.clone();
            background(move || other.invalidate_start(range(3, 4)).end()).join();
        }
        assert!(sub.try_read_begin().is_none());
        active.end();
        assert!(sub.try_read_begin().is_some());
    });
}

#[test]
fn c3_2_an_end_of_another_range_frees_nobody() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let sub = space.insert(range(0x1000, 0x2000), Probe::new("S", &log)).expect("an insert");
        let mine = space.invalidate_start(range(0x1000, 0x2000));
        let other = space.invalidate_start(range(0x2000, 0x3000));
        let reader = background(move || sub.read_begin());
        other.end();
        reader.assert_waits("only the other has ended");
        mine.end();
        reader.join();
    });
}
