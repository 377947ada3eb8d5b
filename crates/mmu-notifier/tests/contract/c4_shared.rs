//! C4.3: get and put of shared notifiers.

use std::sync::Arc;

use mmu_notifier::list::{GetError, Shared};
use mmu_notifier::{AddressSpace, AddressSpaceRef, synchronize};

use super::harness::{Recorder, background, range, within};
use super::probe::{Listed, Probe, insert, slot, take};

fn get(space: &AddressSpaceRef, key: u64, probe: &Arc<Probe>) -> Shared<Listed> {
    let probe = probe.clone();
    space.get(key, move |_| Ok::<_, ()>(Listed::freed(&probe))).expect("a shared notifier")
}

#[test]
fn c4_3_get_finds_the_one_of_its_key_and_counts_its_users() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let probe = Probe::new("G", &log);
        let first = get(&space, 1, &probe);
        let unused = Probe::new("UNUSED", &log);
        let second = get(&space, 1, &unused);
        let other_key = get(&space, 2, &Probe::new("H", &log));
        assert!(Arc::ptr_eq(first.probe(), second.probe()));
        assert!(!Arc::ptr_eq(first.probe(), other_key.probe()));
        let elsewhere = AddressSpace::new();
        let foreign = get(&elsewhere, 1, &unused);
        assert!(!Arc::ptr_eq(first.probe(), foreign.probe()), "another space has its own");
        space.invalidate_start(range(1, 2)).only_end();
        log.expect(&["H start", "G start", "H end", "G end"]);
        drop((first, other_key, foreign));
        synchronize();
        let mut freed = log.take();
        freed.sort();
        assert_eq!(freed, ["H free", "UNUSED free"], "one user of G is left");
        second.put();
        synchronize();
        log.expect(&["G free"]);
    });
}

#[test]
fn c4_3_different_types_do_not_share_a_key() {
    struct Other;
    impl mmu_notifier::list::Notifier for Other {}
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let listed = get(&space, 1, &Probe::new("G", &log));
        let other = space.get(1, |_| Ok::<_, ()>(Other)).expect("one of its own");
        assert_eq!(space.stats().list, 2);
        drop((listed, other));
    });
}

#[test]
fn c4_3_an_error_of_alloc_is_passed_on() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let failed = space.get::<Listed, _>(1, |_| Err("no device"));
        assert_eq!(failed.err(), Some(GetError::Alloc("no device")));
        assert!(!space.has_notifiers());
        let shared = get(&space, 1, &Probe::new("G", &log));
        let found = space.get::<Listed, _>(1, |_| Err("not asked")).expect("it is there");
        drop((shared, found));
        synchronize();
        log.expect(&["G free"]);
    });
}

#[test]
fn c4_3_alloc_is_given_the_space_under_the_map_lock() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let (user, record) = (space.clone(), log.clone());
        let made = space.get(1, move |given| {
            assert!(given.upgrade().is_some());
            let inserter = user.clone();
            let first_insert = background(move || drop(insert(&inserter, "S", range(1, 2), &record)));
            first_insert.assert_waits("the map lock is held");
            drop(first_insert);
            Ok::<_, ()>(Listed::new(&Probe::new("G", &log)))
        });
        drop(made.expect("a shared notifier"));
        // The first insert gets the lock now; whoever wants it next waits for that at the most.
        drop(space.map_lock());
    });
}

#[test]
fn c4_3_put_waits_for_nobody_and_frees_after_the_walks() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let probe = Probe::new("G", &log);
        let shared = get(&space, 1, &probe);
        probe.gate.hold();
        let starter = space.clone();
        let start = background(move || starter.invalidate_start_owned(range(1, 2)));
        probe.gate.wait_inside(1);
        background(move || shared.put()).join();
        log.expect(&["G start"]);
        probe.gate.open();
        start.join().end();
        synchronize();
        log.expect(&["G free"]);
        drop(space);
        log.expect(&[]);
    });
}

#[test]
fn c4_3_after_the_last_put_a_new_one_is_made() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let (old, new) = (Probe::new("OLD", &log), Probe::new("NEW", &log));
        let shared = get(&space, 1, &old);
        old.gate.hold();
        let starter = space.clone();
        let start = background(move || starter.invalidate_start_owned(range(1, 2)));
        old.gate.wait_inside(1);
        shared.put();
        let shared = get(&space, 1, &new);
        assert!(Arc::ptr_eq(shared.probe(), &new), "the old one is on its way out");
        old.gate.open();
        start.join().only_end();
        shared.put();
        synchronize();
        let mut events = log.take();
        assert_eq!(events.remove(0), "OLD start");
        events.sort();
        assert_eq!(events, ["NEW free", "OLD free"]);
    });
}

#[test]
fn c4_3_a_space_without_users_is_gone_though_the_key_is_there() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let holder = space.downgrade();
        let shared = get(&space, 1, &Probe::new("G", &log));
        drop(space);
        log.expect(&["G release"]);
        let again = holder.get::<Listed, ()>(1, |_| unreachable!("the space is gone"));
        assert_eq!(again.err(), Some(GetError::Gone));
        shared.put();
        synchronize();
        log.expect(&["G free"]);
    });
}

#[test]
fn c4_3_put_may_be_called_within_release_and_within_callbacks() {
    within(|| {
        for kind in ["release", "start", "end", "range", "young"] {
            let log = Recorder::new();
            let space = AddressSpace::new();
            let probe = Probe::new("G", &log);
            let shared = slot(get(&space, 1, &probe));
            probe.once(kind, move || take(&shared).expect("the reference").put());
            space.invalidate_start(range(1, 2)).end();
            space.clear_young(range(1, 2));
            drop(space);
            synchronize();
            let events = log.take();
            assert_eq!(events.last().map(String::as_str), Some("G free"), "{kind}");
            assert_eq!(events.iter().filter(|event| *event == "G free").count(), 1, "{kind}");
        }
    });
}

#[test]
fn c4_3_get_and_put_within_a_release_of_another_space() {
    within(|| {
        let log = Recorder::new();
        let (dying, living) = (AddressSpace::new(), AddressSpace::new());
        let probe = Probe::new("D", &log);
        let shared = get(&dying, 1, &probe);
        let (other, user) = (Probe::new("L", &log), living.clone());
        let made = other.clone();
        probe.once("release", move || {
            let shared = get(&user, 1, &made);
            shared.put();
        });
        drop(dying);
        drop(shared);
        synchronize();
        let mut events = log.take();
        assert_eq!(events.remove(0), "D release");
        events.sort();
        assert_eq!(events, ["D free", "L free"]);
    });
}

#[test]
fn c4_3_put_does_not_release() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        get(&space, 1, &Probe::new("G", &log)).put();
        drop(space);
        synchronize();
        log.expect(&["G free"]);
    });
}

#[test]
fn c4_3_what_was_registered_may_be_put_instead_without_release_and_wait() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let probe = Probe::new("R", &log);
        let registered = space.register(Listed::freed(&probe)).expect("a registration");
        probe.gate.hold();
        let user = space.clone();
        let walk = background(move || user.invalidate(range(0, 1), || {}));
        walk.assert_waits("its callback is held");
        registered.put();
        let waiter = background(synchronize);
        waiter.assert_waits("a walk that began before the put has not ended");
        probe.gate.open();
        walk.join();
        waiter.join();
        let events = log.take();
        assert!(!events.iter().any(|event| event.contains("release")), "{events:?}");
        assert_eq!(events.last().map(String::as_str), Some("R free"), "{events:?}");
    });
}
