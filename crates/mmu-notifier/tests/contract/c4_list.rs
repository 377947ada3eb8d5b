//! C4.1, C4.2 and C4.6: registration, unregistration, and who hears which end.

use std::num::NonZeroI32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use mmu_notifier::interval::InsertErrorKind;
use mmu_notifier::list::{GetError, RegisterErrorKind};
use mmu_notifier::{AddressSpace, LockAllError, PrimaryMmu, Pte};

use super::harness::{Recorder, background, range, wait_until, within};
use super::probe::{Listed, Probe, insert, register, slot, take};

#[test]
fn c4_1_the_newest_is_called_first() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let _listed: Vec<_> = ["N1", "N2", "N3"].map(|name| register(&space, name, &log)).into();
        space.change_pte(mmu_notifier::Address::new(0x10), Pte(5));
        log.expect(&["N3 pte 0x10 5", "N2 pte 0x10 5", "N1 pte 0x10 5"]);
        drop(space);
        log.expect(&["N3 release", "N2 release", "N1 release"]);
    });
}

#[test]
fn c4_1_a_space_without_users_is_gone_and_gives_the_notifier_back() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let holder = space.downgrade();
        drop(space);
        let probe = Probe::new("N", &log);
        let refused = holder.register(Listed::new(&probe)).expect_err("no user is left");
        assert_eq!(refused.cause, RegisterErrorKind::Gone);
        assert!(Arc::ptr_eq(refused.notifier.probe(), &probe));
        assert_eq!(holder.register_nobody(), Err(RegisterErrorKind::Gone));
        drop(refused);
        assert_eq!(Arc::strong_count(&probe), 1);
        log.expect(&[]);
    });
}

/// A primary MMU whose locks can be refused, and which knows when they are held.
#[derive(Clone, Default)]
struct Locks {
    refuse: Arc<AtomicBool>,
    held: Arc<AtomicBool>,
    taken: Arc<AtomicUsize>,
}

const INTERRUPTED: LockAllError = LockAllError(match NonZeroI32::new(-4) {
    Some(number) => number,
    None => unreachable!(),
});

impl PrimaryMmu for Locks {
    fn lock_all(&self) -> Result<(), LockAllError> {
        if self.refuse.load(Ordering::SeqCst) {
            return Err(INTERRUPTED);
        }
        self.taken.fetch_add(1, Ordering::SeqCst);
        assert!(!self.held.swap(true, Ordering::SeqCst), "taken twice");
        Ok(())
    }

    fn unlock_all(&self) {
        assert!(self.held.swap(false, Ordering::SeqCst), "given back and not taken");
    }
}

#[test]
fn c4_1_an_error_of_lock_all_is_passed_on_and_nothing_is_left_behind() {
    within(|| {
        let log = Recorder::new();
        let locks = Locks::default();
        let space = AddressSpace::builder().primary(locks.clone()).build().expect("a space");
        locks.refuse.store(true, Ordering::SeqCst);
        let probe = Probe::new("N", &log);
        let refused = space.register(Listed::freed(&probe)).expect_err("it is refused");
        assert_eq!(refused.cause, RegisterErrorKind::LockAll(INTERRUPTED));
        log.expect(&[]);
        drop(refused);
        log.expect(&["N free"]);
        let got = space.get(1, |_| Ok::<_, ()>(Listed::freed(&probe)));
        assert_eq!(got.err(), Some(GetError::LockAll(INTERRUPTED)));
        log.expect(&["N free"]);
        assert_eq!(space.register_nobody(), Err(RegisterErrorKind::LockAll(INTERRUPTED)));
        let inserted = space.insert(range(1, 2), probe.clone()).expect_err("the first of its space");
        assert_eq!(inserted.cause, InsertErrorKind::LockAll(INTERRUPTED));
        drop(inserted);
        assert_eq!(Arc::strong_count(&probe), 1);
        assert!(!space.has_notifiers(), "a failed registration changes nothing");
        locks.refuse.store(false, Ordering::SeqCst);
        let listed = register(&space, "M", &log);
        assert!(locks.taken.load(Ordering::SeqCst) > 0 && !locks.held.load(Ordering::SeqCst));
        space.invalidate_start(range(1, 2)).end();
        log.expect(&["M start", "M range", "M end"]);
        drop(listed);
    });
}

#[test]
fn c4_1_nobody_registered_is_no_subscriber() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        space.register_nobody().expect("a registration of nobody");
        space.register_nobody().expect("and another");
        assert!(space.has_notifiers());
        space.invalidate_start(range(1, 2)).end();
        assert_eq!((space.stats().list, space.stats().intervals), (0, 0));
        drop(space);
        log.expect(&[]);
    });
}

#[test]
fn c4_2_unregister_calls_release_and_waits_for_running_walks() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let (listed, probe) = register(&space, "N", &log);
        probe.gate.hold();
        let starter = space.clone();
        let start = background(move || starter.invalidate_start_owned(range(1, 2)));
        probe.gate.wait_inside(1);
        let unregister = background(move || listed.unregister());
        probe.gate.wait_inside(2);
        log.expect(&["N start", "N release"]);
        unregister.assert_waits("both callbacks are held");
        probe.gate.open();
        unregister.join();
        assert_eq!(Arc::strong_count(&probe), 1);
        start.join().end();
        log.expect(&[]);
    });
}

#[test]
fn c4_2_one_that_is_off_the_list_is_not_called_by_a_walk_under_way() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let (old, _) = register(&space, "OLD", &log);
        let _mid = register(&space, "MID", &log);
        let (_new, new) = register(&space, "NEW", &log);
        new.gate.hold();
        let starter = space.clone();
        let start = background(move || starter.invalidate_start_owned(range(1, 2)));
        new.gate.wait_inside(1);
        let unregister = background(move || old.unregister());
        unregister.assert_waits("a walk began before it");
        new.gate.open();
        unregister.join();
        start.join().end();
        log.expect(&[
            "NEW start",
            "OLD release",
            "MID start",
            "NEW range",
            "NEW end",
            "MID range",
            "MID end",
        ]);
    });
}

#[test]
fn c4_2_the_one_that_a_walk_is_at_is_called_to_the_last() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let (listed, probe) = register(&space, "N", &log);
        let active = space.invalidate_start_owned(range(1, 2));
        let (gone, mark) = (slot(listed), log.clone());
        let unregister = Arc::new(std::sync::Mutex::new(None));
        let started = unregister.clone();
        probe.once("range", move || {
            let listed = take(&gone).expect("the registration");
            let unregister = background(move || listed.unregister());
            unregister.assert_waits("the walk is at it");
            *super::harness::lock(&started) = Some(unregister);
            mark.note("unregister waits");
        });
        active.end();
        take(&unregister).expect("the unregister").join();
        log.expect(&["N start", "N range", "N release", "unregister waits", "N end"]);
    });
}

#[test]
fn c4_2_unregistered_within_its_own_walk_it_does_not_wait_for_that() {
    within(|| {
        for kind in ["start", "range", "end", "young"] {
            let log = Recorder::new();
            let space = AddressSpace::new();
            let (_old, _) = register(&space, "OLD", &log);
            let (listed, probe) = register(&space, "N", &log);
            let listed = slot(listed);
            probe.once(kind, move || take(&listed).expect("the registration").unregister());
            space.invalidate_start(range(1, 2)).end();
            space.clear_young(range(1, 2));
            let events = log.take();
            assert_eq!(events.iter().filter(|event| *event == "N release").count(), 1, "{kind}");
            assert_eq!(events.iter().filter(|event| event.starts_with("OLD")).count(), 4, "{kind}");
            space.invalidate_start(range(1, 2)).end();
            log.expect(&["OLD start", "OLD range", "OLD end"]);
            probe.quiet();
            mmu_notifier::synchronize();
            wait_until("the notifier is dropped", || Arc::strong_count(&probe) == 1);
        }
    });
}

#[test]
fn c4_2_a_callback_may_unregister_another() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let (old, _) = register(&space, "OLD", &log);
        let (_new, probe) = register(&space, "NEW", &log);
        let old = slot(old);
        probe.once("start", move || take(&old).expect("the registration").unregister());
        space.invalidate_start(range(1, 2)).end();
        log.expect(&["NEW start", "OLD release", "NEW range", "NEW end"]);
    });
}

#[test]
fn c4_2_dropped_is_unregistered_and_intervals_do_not_matter() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let (listed, _) = register(&space, "N", &log);
        let (_sub, interval) = insert(&space, "S", range(1, 2), &log);
        interval.gate.hold();
        let starter = space.clone();
        let start = background(move || starter.invalidate_start_owned(range(1, 2)));
        interval.gate.wait_inside(1);
        background(move || drop(listed)).join();
        interval.gate.open();
        start.join().end();
        log.expect(&["S invalidate", "N release"]);
    });
}

#[test]
fn c4_6_no_end_without_its_start_and_no_start_without_its_end() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let (early, _) = register(&space, "EARLY", &log);
        let (leaver, _) = register(&space, "LEAVER", &log);
        let active = space.invalidate_start(range(1, 2));
        let (late, _) = register(&space, "LATE", &log);
        leaver.unregister();
        log.expect(&["LEAVER start", "EARLY start", "LEAVER release"]);
        active.end();
        log.expect(&["LATE range", "EARLY range", "EARLY end"]);
        space.invalidate_start(range(1, 2)).only_end();
        log.expect(&["LATE start", "EARLY start", "LATE end", "EARLY end"]);
        drop((early, late));
    });
}

#[test]
fn c4_6_registered_before_the_list_is_walked_it_hears_both() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let (_sub, interval) = insert(&space, "S", range(1, 2), &log);
        let _old = register(&space, "OLD", &log);
        interval.gate.hold();
        let starter = space.clone();
        let start = background(move || starter.invalidate_start_owned(range(1, 2)));
        interval.gate.wait_inside(1);
        let _new = register(&space, "NEW", &log);
        interval.gate.open();
        start.join().only_end();
        let events = log.take();
        let of_new: Vec<_> = events.iter().filter(|event| event.starts_with("NEW")).collect();
        assert_eq!(of_new, ["NEW start", "NEW end"]);
    });
}

#[test]
fn c4_6_registered_during_the_walk_it_hears_neither() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let (_old, probe) = register(&space, "OLD", &log);
        probe.gate.hold();
        let starter = space.clone();
        let start = background(move || starter.invalidate_start_owned(range(1, 2)));
        probe.gate.wait_inside(1);
        let _new = register(&space, "NEW", &log);
        probe.gate.open();
        start.join().only_end();
        log.expect(&["OLD start", "OLD end"]);
    });
}
