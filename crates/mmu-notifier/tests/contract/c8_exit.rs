//! C8.1 and C8.2: what happens when the last user goes.

use std::sync::Arc;

use mmu_notifier::{Address, AddressSpace, Pte};

use super::harness::{Gate, Recorder, background, range, wait_until, within};
use super::probe::{Manner, insert, register, slot, take};

#[test]
fn c8_1_intervals_ascending_then_release_newest_first() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let second = space.clone();
        let _s2 = insert(&space, "S2", range(0x2000, 0x3000), &log);
        let _s1 = insert(&space, "S1", range(0x1000, 0x2000), &log);
        let _n1 = register(&space, "N1", &log);
        let _n2 = register(&space, "N2", &log);
        drop(space);
        log.expect(&[]);
        drop(second);
        log.expect(&["S1 exit", "S2 exit", "N2 release", "N1 release"]);
    });
}

#[test]
fn c8_1_all_must_accept() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let (sub, probe) = insert(&space, "S", range(1, 2), &log);
        let _other = insert(&space, "T", range(1, 2), &log);
        probe.set(Manner::RefusesAlways);
        let _listed = register(&space, "N", &log);
        drop(space);
        log.expect(&["S exit", "T exit", "N release"]);
        assert!(sub.try_read_begin().is_some(), "the exit's invalidation has ended");
    });
}

#[test]
fn c8_1_it_is_an_invalidation_that_ends() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let (sub, _) = insert(&space, "S", range(1, 2), &log);
        let (_listed, probe) = register(&space, "N", &log);
        let sub = Arc::new(sub);
        let token = sub.read_begin();
        let reader = sub.clone();
        probe.once("release", move || assert!(reader.try_read_begin().is_some()));
        drop(space);
        assert!(sub.read_retry(token));
        let token = sub.read_begin();
        assert!(!sub.read_retry(token));
        log.expect(&["S exit", "N release"]);
    });
}

#[test]
fn c8_1_a_reader_waits_while_the_exit_calls() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let (sub, probe) = insert(&space, "S", range(1, 2), &log);
        probe.gate.hold();
        let exit = background(move || drop(space));
        probe.gate.wait_inside(1);
        let reader = background(move || sub.read_begin());
        reader.assert_waits("the exit is at it");
        probe.gate.open();
        exit.join();
        reader.join();
    });
}

#[test]
fn c8_1_it_neither_waits_for_nor_ends_an_active_invalidation() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let (sub, _) = insert(&space, "S", range(1, 2), &log);
        let _listed = register(&space, "N", &log);
        let active = space.invalidate_start_owned(range(1, 2));
        background(move || drop(space)).join();
        log.expect(&["S invalidate", "N start", "S exit", "N release"]);
        let reader = background(move || sub.read_begin());
        reader.assert_waits("the invalidation is still active");
        active.end();
        reader.join();
        log.expect(&[]);
    });
}

#[test]
fn c8_1_starts_beside_the_exit_are_served() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let holder = space.downgrade();
        let (_sub, probe) = insert(&space, "S", range(1, 2), &log);
        let _listed = register(&space, "N", &log);
        probe.gate.hold();
        let exit = background(move || drop(space));
        probe.gate.wait_inside(1);
        let reverse_map = holder.clone();
        let start = background(move || reverse_map.invalidate_start_owned(range(1, 2)));
        probe.gate.wait_inside(2);
        assert!(holder.upgrade().is_none());
        assert!(holder.insert(range(1, 2), super::probe::Probe::new("T", &log)).is_err());
        probe.gate.open();
        start.join().only_end();
        exit.join();
        let events = log.take();
        assert_eq!(events[..2], ["S exit", "S invalidate"]);
        let count = |one: &str| events.iter().filter(|event| *event == one).count();
        assert_eq!(count("N release"), 1);
        assert!(count("N start") >= count("N end"), "taken off, it hears no end: {events:?}");
    });
}

#[test]
fn c8_1_it_waits_for_running_callbacks_though_the_list_is_empty() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let (listed, probe) = register(&space, "N", &log);
        probe.gate.hold();
        let caller = space.downgrade();
        let call = background(move || caller.change_pte(Address::new(1), Pte(1)));
        probe.gate.wait_inside(1);
        let unregister = background(move || listed.unregister());
        probe.gate.wait_inside(2);
        let exit = background(move || drop(space));
        exit.assert_waits("a walk began before it");
        probe.gate.open();
        call.join();
        unregister.join();
        exit.join();
        log.expect(&["N pte 0x1 1", "N release"]);
    });
}

#[test]
fn c8_1_whom_it_took_off_a_walk_under_way_does_not_call() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let _old = register(&space, "OLD", &log);
        let (_new, new) = register(&space, "NEW", &log);
        let gate = Arc::new(Gate::default());
        gate.hold();
        let door = gate.clone();
        // Only the walk is held, not the release that the exit calls.
        new.on(move |kind| {
            if kind.starts_with("pte") {
                door.pass()
            }
        });
        let caller = space.downgrade();
        let call = background(move || caller.change_pte(Address::new(1), Pte(1)));
        gate.wait_inside(1);
        let exit = background(move || drop(space));
        exit.assert_waits("a walk began before it");
        log.expect(&["NEW pte 0x1 1", "NEW release", "OLD release"]);
        gate.open();
        call.join();
        exit.join();
        log.expect(&[]);
    });
}

#[test]
fn c8_1_nobody_watching_it_is_quiet() {
    within(|| {
        let space = AddressSpace::new();
        let holder = space.downgrade();
        background(move || drop(space)).join();
        assert!(holder.upgrade().is_none());
    });
}

#[test]
fn c8_2_release_runs_once_whoever_comes_first() {
    within(|| {
        for exit_first in [true, false] {
            let log = Recorder::new();
            let space = AddressSpace::new();
            let (listed, _) = register(&space, "N", &log);
            if exit_first {
                drop(space);
                log.expect(&["N release"]);
                listed.unregister();
            } else {
                listed.unregister();
                log.expect(&["N release"]);
                drop(space);
            }
            log.expect(&[]);
        }
    });
}

#[test]
fn c8_2_unregister_returns_only_after_the_release_of_the_exit() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let (listed, probe) = register(&space, "N", &log);
        probe.gate.hold();
        let exit = background(move || drop(space));
        probe.gate.wait_inside(1);
        let unregister = background(move || listed.unregister());
        unregister.assert_waits("the exit is in its release");
        probe.gate.open();
        exit.join();
        unregister.join();
        log.expect(&["N release"]);
    });
}

#[test]
fn c8_2_the_exit_returns_only_after_the_release_of_an_unregister() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let (listed, probe) = register(&space, "N", &log);
        probe.gate.hold();
        let unregister = background(move || listed.unregister());
        probe.gate.wait_inside(1);
        let exit = background(move || drop(space));
        exit.assert_waits("its release runs");
        probe.gate.open();
        exit.join();
        unregister.join();
        log.expect(&["N release"]);
    });
}

#[test]
fn c8_2_unregistered_within_its_own_release() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let _old = register(&space, "OLD", &log);
        let (listed, probe) = register(&space, "N", &log);
        let listed = slot(listed);
        probe.once("release", move || take(&listed).expect("the registration").unregister());
        background(move || drop(space)).join();
        log.expect(&["N release", "OLD release"]);
        probe.quiet();
        mmu_notifier::synchronize();
        wait_until("the notifier is dropped", || Arc::strong_count(&probe) == 1);
    });
}
