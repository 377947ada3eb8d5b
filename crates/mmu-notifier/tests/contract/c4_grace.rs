//! C4.4 and C4.5: synchronize, and what a grace period waits for.

use mmu_notifier::{Address, AddressSpace, Pte, synchronize};

use super::harness::{Recorder, background, range, within};
use super::probe::{Listed, Probe, insert, register};

#[test]
fn c4_4_synchronize_returns_when_the_frees_have_run() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let probe = Probe::new("G", &log);
        let made = probe.clone();
        let shared = space.get(1, move |_| Ok::<_, ()>(Listed::freed(&made))).expect("a shared notifier");
        let (_old, walk) = register(&space, "OLD", &log);
        walk.gate.hold();
        let starter = space.clone();
        let start = background(move || starter.invalidate_start_owned(range(1, 2)));
        walk.gate.wait_inside(1);
        shared.put();
        let barrier = background(synchronize);
        barrier.assert_waits("a walk from before the put runs");
        probe.gate.hold();
        walk.gate.open();
        probe.gate.wait_inside(1);
        barrier.assert_waits("the free itself runs");
        probe.gate.open();
        barrier.join();
        assert_eq!(log.take().last().map(String::as_str), Some("G free"));
        start.join().end();
    });
}

#[test]
fn c4_4_synchronize_covers_every_space() {
    within(|| {
        let log = Recorder::new();
        let spaces: Vec<_> = (0..5).map(|_| AddressSpace::new()).collect();
        for space in &spaces {
            let probe = Probe::new("G", &log);
            let made = space.get(1, move |_| Ok::<_, ()>(Listed::freed(&probe)));
            background(move || made.expect("a shared notifier").put()).join();
        }
        synchronize();
        log.expect(&["G free"; 5]);
    });
}

#[test]
fn c4_4_without_a_put_synchronize_waits_for_no_callback() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let (_listed, probe) = register(&space, "N", &log);
        probe.gate.hold();
        let starter = space.clone();
        let start = background(move || starter.invalidate_start_owned(range(1, 2)));
        probe.gate.wait_inside(1);
        background(synchronize).join();
        probe.gate.open();
        start.join().end();
    });
}

#[test]
fn c4_5_a_slow_callback_in_one_space_delays_no_other_space() {
    within(|| {
        let log = Recorder::new();
        let (slow, fast) = (AddressSpace::new(), AddressSpace::new());
        let (_slow, probe) = register(&slow, "SLOW", &log);
        let (listed, _) = register(&fast, "FAST", &log);
        probe.gate.hold();
        let starter = slow.clone();
        let start = background(move || starter.invalidate_start_owned(range(1, 2)));
        probe.gate.wait_inside(1);
        background(move || {
            fast.invalidate_start(range(1, 2)).end();
            listed.unregister();
        })
        .join();
        probe.gate.open();
        start.join().end();
    });
}

#[test]
fn c4_5_a_grace_period_waits_for_earlier_walks_and_not_for_later_ones() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let (_n1, early) = register(&space, "N1", &log);
        let (_n2, late) = register(&space, "N2", &log);
        let (leaver, _) = register(&space, "LEAVER", &log);
        early.gate.hold();
        let starter = space.clone();
        let start = background(move || starter.invalidate_start_owned(range(1, 2)));
        early.gate.wait_inside(1);
        let unregister = background(move || leaver.unregister());
        unregister.assert_waits("a walk began before it");
        late.gate.hold();
        let caller = space.clone();
        let later = background(move || caller.change_pte(Address::new(1), Pte(1)));
        late.gate.wait_inside(1);
        early.gate.open();
        unregister.join();
        later.assert_waits("its own callback is held");
        late.gate.open();
        later.join();
        start.join().end();
    });
}

#[test]
fn c4_5_a_grace_period_waits_for_no_interval_callback_nor_for_an_end() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let (listed, _) = register(&space, "N", &log);
        let (_sub, probe) = insert(&space, "S", range(0x1000, 0x2000), &log);
        let active = space.invalidate_start(range(0x8000, 0x9000));
        probe.gate.hold();
        let starter = space.clone();
        let start = background(move || starter.invalidate_start_owned(range(0x1000, 0x2000)));
        probe.gate.wait_inside(1);
        background(move || listed.unregister()).join();
        probe.gate.open();
        active.end();
        start.join().end();
    });
}

#[test]
fn c4_5_walks_that_overlap_in_time_for_ever_do_not_starve_an_unregister() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let (_old, old) = register(&space, "OLD", &log);
        let (leaver, _) = register(&space, "LEAVER", &log);
        let walk = || {
            old.gate.hold();
            let starter = space.clone();
            background(move || starter.invalidate_start_owned(range(1, 2)))
        };
        let first = walk();
        old.gate.wait_inside(1);
        let unregister = background(move || leaver.unregister());
        unregister.assert_waits("a walk began before it");
        let second = walk();
        old.gate.wait_inside(2);
        // Only now do both go; there was never a moment without a walk.
        old.gate.open();
        unregister.join();
        first.join().end();
        second.join().end();
    });
}

#[test]
fn c4_5_nested_walks_of_one_thread_are_each_waited_for() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let (leaver, _) = register(&space, "LEAVER", &log);
        let (_old, old) = register(&space, "OLD", &log);
        let inner = space.clone();
        old.once("start", move || {
            // A walk within a walk: its end must not look like the end of the outer one.
            inner.clear_young(range(1, 2));
        });
        old.gate.hold();
        let starter = space.clone();
        let start = background(move || starter.invalidate_start_owned(range(1, 2)));
        old.gate.wait_inside(1);
        let unregister = background(move || leaver.unregister());
        unregister.assert_waits("a walk began before it");
        old.gate.open();
        unregister.join();
        start.join().end();
        let events = log.take();
        assert!(!events.contains(&"LEAVER end".to_owned()), "{events:?}");
    });
}
