//! C3.7: remove and detach, from outside and from within callbacks.

use std::sync::Arc;

use mmu_notifier::AddressSpace;
use mmu_notifier::interval::{Answer, Notifier, Options, Sequence};

use super::harness::{Recorder, background, range, wait_until, within};
use super::probe::{Manner, Probe, insert, slot, take};

#[test]
fn c3_7_remove_waits_for_no_end() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let (sub, probe) = insert(&space, "S", range(0x1000, 0x2000), &log);
        let active = space.invalidate_start(range(0x1000, 0x2000));
        background(move || sub.remove()).join();
        assert_eq!(Arc::strong_count(&probe), 1, "the notifier is the caller's again");
        active.end();
        log.expect(&["S invalidate"]);
    });
}

#[test]
fn c3_7_remove_waits_for_its_running_callbacks() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let (sub, probe) = insert(&space, "S", range(0x1000, 0x2000), &log);
        probe.gate.hold();
        let starts: Vec<_> = (0..2)
            .map(|_| {
                let starter = space.clone();
                background(move || starter.invalidate_start_owned(range(0x1000, 0x2000)))
            })
            .collect();
        probe.gate.wait_inside(2);
        let remove = background(move || sub.remove());
        remove.assert_waits("two callbacks of it run");
        probe.gate.open();
        remove.join();
        let actives: Vec<_> = starts.into_iter().map(|start| start.join()).collect();
        space.invalidate_start(range(0x1000, 0x2000)).end();
        log.expect(&["S invalidate", "S invalidate"]);
        drop(actives);
        assert_eq!(Arc::strong_count(&probe), 1);
    });
}

#[test]
fn c3_7_remove_waits_for_no_callback_elsewhere() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let (_held, probe) = insert(&space, "HELD", range(0x1000, 0x2000), &log);
        let (sub, _) = insert(&space, "S", range(0x2000, 0x3000), &log);
        probe.gate.hold();
        let starter = space.clone();
        let start = background(move || starter.invalidate_start_owned(range(0x1000, 0x2000)));
        probe.gate.wait_inside(1);
        background(move || drop(sub)).join();
        probe.gate.open();
        start.join().end();
    });
}

#[test]
fn c3_7_a_later_start_does_not_prolong_a_remove() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let (sub, probe) = insert(&space, "S", range(0x1000, 0x2000), &log);
        let (_beside, later) = insert(&space, "BESIDE", range(0x1000, 0x2000), &log);
        probe.gate.hold();
        let starter = space.clone();
        let start = background(move || starter.invalidate_start_owned(range(0x1000, 0x2000)));
        probe.gate.wait_inside(1);
        let remove = background(move || sub.remove());
        remove.assert_waits("its callback runs");
        later.gate.hold();
        let starter = space.clone();
        let second = background(move || starter.invalidate_start_owned(range(0x1000, 0x1001)));
        later.gate.wait_inside(1);
        probe.gate.open();
        // The first start may be waited for until it has called BESIDE too, so that one goes on.
        later.gate.wait_inside(2);
        later.gate.open();
        remove.join();
        start.join().end();
        second.join().end();
    });
}

#[test]
fn c3_7_removed_in_its_own_callback_it_does_not_wait_for_that() {
    within(|| {
        type Way = fn(super::probe::Sub);
        let ways: [Way; 3] = [|sub| sub.remove(), |sub| sub.detach(), drop];
        for way in ways {
            let log = Recorder::new();
            let space = AddressSpace::new();
            let (sub, probe) = insert(&space, "S", range(0x1000, 0x2000), &log);
            let sub = slot(sub);
            let (_after, _) = insert(&space, "AFTER", range(0x1800, 0x2000), &log);
            probe.once("invalidate", move || way(take(&sub).expect("the subscription")));
            space.invalidate_start(range(0x1000, 0x2000)).end();
            space.invalidate_start(range(0x1000, 0x2000)).end();
            log.expect(&["S invalidate", "AFTER invalidate", "AFTER invalidate"]);
            probe.quiet();
            mmu_notifier::synchronize();
            wait_until("the notifier is dropped", || Arc::strong_count(&probe) == 1);
        }
    });
}

#[test]
fn c3_7_removed_in_the_callback_of_another_it_waits_for_other_threads() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let (sub, probe) = insert(&space, "S", range(0x1000, 0x2000), &log);
        let (_remover, remover) = insert(&space, "REMOVER", range(0x5000, 0x6000), &log);
        let sub = slot(sub);
        let mark = log.clone();
        remover.once("invalidate", move || {
            take(&sub).expect("the subscription").remove();
            mark.note("removed");
        });
        probe.gate.hold();
        let starter = space.clone();
        let calling = background(move || starter.invalidate_start_owned(range(0x1000, 0x1001)));
        probe.gate.wait_inside(1);
        let starter = space.clone();
        let removing = background(move || starter.invalidate_start_owned(range(0x5000, 0x6000)));
        removing.assert_waits("a callback of it runs on another thread");
        log.expect(&["S invalidate", "REMOVER invalidate"]);
        probe.gate.open();
        removing.join().end();
        calling.join().end();
        space.invalidate_start(range(0x1000, 0x1001)).end();
        log.expect(&["removed"]);
    });
}

#[test]
fn c3_7_removed_in_the_callback_of_another_it_is_never_called() {
    within(|| {
        for before in [true, false] {
            let log = Recorder::new();
            let space = AddressSpace::new();
            let (_mid, probe) = insert(&space, "MID", range(0x1800, 0x2000), &log);
            let place = if before { range(0x1000, 0x2000) } else { range(0x1900, 0x2000) };
            let (sub, _) = insert(&space, "S", place, &log);
            let sub = slot(sub);
            probe.once("invalidate", move || take(&sub).expect("the subscription").remove());
            space.invalidate_start(range(0x1000, 0x2000)).end();
            let expected: &[&str] =
                if before { &["S invalidate", "MID invalidate"] } else { &["MID invalidate"] };
            log.expect(expected);
        }
    });
}

#[test]
fn c3_7_removed_by_another_between_its_passes_it_is_not_finished() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let (sub, begun) = insert(&space, "BEGUN", range(0x1000, 0x2000), &log);
        let (_later, probe) = insert(&space, "LATER", range(0x1800, 0x2000), &log);
        begun.set(Manner::Begins);
        let sub = slot(sub);
        let mark = log.clone();
        probe.once("invalidate", move || {
            take(&sub).expect("the subscription").remove();
            mark.note("removed");
        });
        space.invalidate_start(range(0x1000, 0x2000)).end();
        // Nothing of it runs after remove returned (P2), though it is the same thread that removed it.
        log.expect(&["BEGUN invalidate", "LATER invalidate", "removed"]);
    });
}

#[test]
fn c3_7_two_callbacks_may_detach_each_others_subscription() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let (first, first_probe) = insert(&space, "A", range(0x1000, 0x2000), &log);
        let (second, second_probe) = insert(&space, "B", range(0x2000, 0x3000), &log);
        let (first, second) = (slot(first), slot(second));
        let both = Arc::new(std::sync::Barrier::new(2));
        for (probe, victim) in [(&first_probe, second), (&second_probe, first)] {
            let both = both.clone();
            probe.once("invalidate", move || {
                both.wait();
                take(&victim).expect("the other").detach();
            });
        }
        let starts = [range(0x1000, 0x2000), range(0x2000, 0x3000)].map(|what| {
            let space = space.clone();
            background(move || space.invalidate_start(what).end())
        });
        starts.into_iter().for_each(|start| start.join());
        log.take();
        space.invalidate_start(range(0x1000, 0x3000)).end();
        log.expect(&[]);
    });
}

#[test]
fn c3_7_detach_never_waits_and_drops_after_the_callback() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let (sub, probe) = insert(&space, "S", range(0x1000, 0x2000), &log);
        probe.gate.hold();
        let starter = space.clone();
        let start = background(move || starter.invalidate_start_owned(range(0x1000, 0x2000)));
        probe.gate.wait_inside(1);
        background(move || sub.detach()).join();
        assert!(Arc::strong_count(&probe) > 1, "its callback still runs");
        probe.gate.open();
        start.join().end();
        mmu_notifier::synchronize();
        wait_until("the notifier is dropped", || Arc::strong_count(&probe) == 1);
        space.invalidate_start(range(0x1000, 0x2000)).end();
        log.expect(&["S invalidate"]);
    });
}

#[test]
fn c3_7_detach_drops_all_that_a_resized_one_owns() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let probe = Probe::new("S", &log);
        let options = Options::new().label("S");
        let sub = space.insert_with(range(0x1000, 0x2000), options, probe.clone()).unwrap();
        let sub = sub.resize(range(0x1800, 0x3000)).unwrap().resize(range(0x1800, 0x4000)).unwrap();
        let sub = slot(sub);
        probe.once("invalidate", move || take(&sub).unwrap().detach());
        space.invalidate_start(range(0x3000, 0x4000)).end();
        assert_eq!(Arc::strong_count(&probe), 1, "the notifier is dropped");
        log.expect(&["S invalidate"]);
    });
}

/// Takes a lock in its callback that whoever drops it takes too.
struct Locking {
    lock: Arc<std::sync::Mutex<()>>,
    log: Recorder,
}

impl Notifier for Locking {
    fn invalidate(&self, _: &mmu_notifier::Invalidation, _: Sequence) -> Answer {
        drop(super::harness::lock(&self.lock));
        Answer::Done
    }
}

impl Drop for Locking {
    fn drop(&mut self) {
        drop(super::harness::lock(&self.lock));
        self.log.note("dropped");
    }
}

#[test]
fn c3_7_what_a_removed_one_owns_may_use_the_space_in_its_drop() {
    within(|| {
        struct Reentrant(AddressSpace, Recorder);
        impl Notifier for Reentrant {
            fn invalidate(&self, _: &mmu_notifier::Invalidation, _: Sequence) -> Answer {
                Answer::Done
            }
        }
        impl Drop for Reentrant {
            fn drop(&mut self) {
                // No lock of the library may be held around a drop.
                drop(insert(&self.0, "FROM DROP", range(0x8000, 0x9000), &self.1));
                self.0.invalidate_start(range(0x1000, 0x2000)).end();
                self.1.note("dropped");
            }
        }
        let log = Recorder::new();
        let space = AddressSpace::new();
        let notifier = Reentrant(space.clone(), log.clone());
        space.insert(range(0x1000, 0x2000), notifier).expect("an insert").remove();
        log.expect(&["dropped"]);
        let lock = Arc::new(std::sync::Mutex::new(()));
        let locking = Locking { lock, log: log.clone() };
        let sub = space.insert(range(0x1000, 0x2000), locking).expect("an insert");
        space.invalidate_start(range(0x1000, 0x2000)).end();
        drop(sub);
        log.expect(&["dropped"]);
    });
}

#[test]
fn c3_7_a_forgotten_subscription_goes_on_being_called() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let sub = space.insert(range(0x1000, 0x2000), Probe::new("S", &log)).expect("an insert");
        std::mem::forget(sub);
        space.invalidate_start(range(0x1000, 0x2000)).end();
        drop(space);
        log.expect(&["S invalidate", "S exit"]);
    });
}
