//! C7.1, C7.2 and C7.5: forgotten guards, callbacks that panic, and bad arguments.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::channel;

use mmu_notifier::{AddressSpace, Range, synchronize};

use super::harness::{Recorder, background, range, wait_until, within};
use super::probe::{Listed, Manner, Probe, insert, register, slot, take};

fn panics<R>(call: impl FnOnce() -> R) -> bool {
    catch_unwind(AssertUnwindSafe(call)).is_err()
}

#[test]
fn c7_1_a_forgotten_guard_keeps_only_its_own_range_busy() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let (hit, hit_probe) = insert(&space, "HIT", range(0x1000, 0x2000), &log);
        let (free, _) = insert(&space, "FREE", range(0x2000, 0x3000), &log);
        let (_listed, _) = register(&space, "N", &log);
        std::mem::forget(space.invalidate_start(range(0x1000, 0x2000)));
        std::mem::forget(space.invalidate_start_owned(range(0x1800, 0x1900)));
        log.take();
        assert!(hit.try_read_begin().is_none());
        assert!(free.try_read_begin().is_some());
        let (inside, _) = insert(&space, "INSIDE", range(0x1000, 0x2000), &log);
        assert!(inside.try_read_begin().is_none());
        space.invalidate_start(range(0x1000, 0x3000)).only_end();
        log.expect(&["HIT invalidate", "INSIDE invalidate", "FREE invalidate", "N start", "N end"]);
        assert!(free.try_read_begin().is_some() && hit.try_read_begin().is_none());
        hit.remove();
        assert_eq!(Arc::strong_count(&hit_probe), 1);
        drop(space);
        log.expect(&["INSIDE exit", "FREE exit", "N release"]);
    });
}

#[test]
fn c7_1_a_guard_forgotten_by_a_thread_that_died_stays_so() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let (hit, _) = insert(&space, "HIT", range(0x1000, 0x2000), &log);
        let (free, _) = insert(&space, "FREE", range(0x2000, 0x3000), &log);
        for _ in 0..8 {
            let user = space.clone();
            background(move || std::mem::forget(user.invalidate_start(range(0x1000, 0x2000)))).join();
        }
        assert!(hit.try_read_begin().is_none());
        assert!(free.try_read_begin().is_some());
    });
}

#[test]
fn c7_1_a_thousand_forgotten_guards_cost_liveness_and_nothing_else() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let (hit, _) = insert(&space, "HIT", range(0x1000, 0x2000), &log);
        for _ in 0..1000 {
            std::mem::forget(space.invalidate_start(range(0x1000, 0x1001)));
        }
        assert_eq!(log.take().len(), 1000, "a start is never refused for want of room");
        assert!(hit.try_read_begin().is_none());
        let other = AddressSpace::new();
        let (elsewhere, _) = insert(&other, "ELSEWHERE", range(0x1000, 0x2000), &log);
        assert!(elsewhere.try_read_begin().is_some());
        let (late, _) = insert(&space, "LATE", range(0x8000, 0x9000), &log);
        space.invalidate_start(range(0x8000, 0x9000)).end();
        log.expect(&["LATE invalidate"]);
        background(move || drop((hit, late))).join();
    });
}

#[test]
fn c7_2_a_panic_in_an_interval_callback_ends_what_was_begun() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let (first, begun) = insert(&space, "A", range(0x1000, 0x2000), &log);
        begun.set(Manner::Begins);
        let (second, panicking) = insert(&space, "B", range(0x2000, 0x3000), &log);
        panicking.once("invalidate", || panic!("of the test"));
        let _listed = register(&space, "N", &log);
        assert!(panics(|| space.invalidate_start(range(0x1000, 0x3000))));
        log.expect(&["A invalidate", "B invalidate", "A finish"]);
        assert!(first.try_read_begin().is_some() && second.try_read_begin().is_some());
        space.invalidate_start(range(0x1000, 0x3000)).only_end();
        log.expect(&["A invalidate", "B invalidate", "A finish", "N start", "N end"]);
        background(move || drop((first, second))).join();
    });
}

#[test]
fn c7_2_a_panic_in_a_list_start_ends_both_sides() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let (sub, _) = insert(&space, "S", range(1, 2), &log);
        let _old = register(&space, "OLD", &log);
        let (_mid, panicking) = register(&space, "MID", &log);
        let _new = register(&space, "NEW", &log);
        panicking.once("start", || panic!("of the test"));
        assert!(panics(|| space.try_invalidate_start(range(1, 2))));
        let events = log.take();
        let count =
            |name: &str, kind: &str| events.iter().filter(|one| **one == format!("{name} {kind}")).count();
        assert_eq!(count("NEW", "start"), 1);
        for name in ["NEW", "OLD"] {
            assert_eq!(count(name, "start"), count(name, "end"), "{name} in {events:?}");
        }
        assert!(sub.try_read_begin().is_some());
        space.invalidate_start(range(1, 2)).only_end();
        assert_eq!(log.take().len(), 7);
    });
}

#[test]
fn c7_2_a_panic_in_finish_goes_on_after_the_other_finishes() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let (first, panicking) = insert(&space, "A", range(0x1000, 0x2000), &log);
        let (second, begun) = insert(&space, "B", range(0x2000, 0x3000), &log);
        panicking.set(Manner::Begins);
        begun.set(Manner::Begins);
        panicking.once("finish", || panic!("of the test"));
        assert!(panics(|| space.invalidate_start(range(0x1000, 0x3000))));
        log.expect(&["A invalidate", "B invalidate", "A finish", "B finish"]);
        assert!(first.try_read_begin().is_some() && second.try_read_begin().is_some());
        background(move || drop((first, second))).join();
    });
}

#[test]
fn c7_2_a_panic_in_an_end_goes_on_after_the_rest_of_the_walk() {
    within(|| {
        for kind in ["end", "range"] {
            let log = Recorder::new();
            let space = AddressSpace::new();
            let (sub, _) = insert(&space, "S", range(1, 2), &log);
            let _old = register(&space, "OLD", &log);
            let (_new, panicking) = register(&space, "NEW", &log);
            panicking.once(kind, || panic!("of the test"));
            let active = space.invalidate_start(range(1, 2));
            assert!(panics(|| active.end()), "{kind}");
            let events = log.take();
            assert_eq!(events[events.len() - 2..], ["OLD range", "OLD end"]);
            assert!(sub.try_read_begin().is_some());
            space.invalidate_start(range(1, 2)).end();
            assert_eq!(log.take().len(), 7);
        }
    });
}

#[test]
fn c7_2_a_panic_in_a_flush_goes_on_after_the_same_ones_end() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let [_first, (_second, probe)] = ["N1", "N2"].map(|name| register(&space, name, &log));
        let active = space.invalidate_start(range(1, 2));
        log.expect(&["N2 start", "N1 start"]);
        probe.once("range", || panic!("a flush fails"));
        assert!(catch_unwind(AssertUnwindSafe(|| active.end())).is_err());
        log.expect(&["N2 range", "N2 end", "N1 range", "N1 end"]);
        probe.quiet();
    });
}

#[test]
fn c4_2_c7_2_a_panic_in_a_flush_does_not_keep_the_end_from_one_that_is_leaving() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let (listed, probe) = register(&space, "N", &log);
        let active = space.invalidate_start_owned(range(1, 2));
        let gone = slot(listed);
        let (leaving, left) = channel();
        probe.once("range", move || {
            let listed = take(&gone).expect("the registration");
            let unregister = background(move || listed.unregister());
            unregister.assert_waits("the walk is at it");
            leaving.send(unregister).expect("the test listens");
            panic!("a flush fails");
        });
        assert!(panics(|| active.end()));
        left.recv().expect("the unregister").join();
        log.expect(&["N start", "N range", "N release", "N end"]);
    });
}

#[test]
fn c7_2_a_panic_in_release_goes_on_after_the_rest() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let (gone, panicking) = register(&space, "GONE", &log);
        panicking.once("release", || panic!("of the test"));
        assert!(panics(|| gone.unregister()));
        space.invalidate_start(range(1, 2)).end();
        log.expect(&["GONE release"]);
        let (_old, _) = register(&space, "OLD", &log);
        let (_new, panicking) = register(&space, "NEW", &log);
        panicking.once("release", || panic!("of the test"));
        assert!(panics(move || drop(space)));
        log.expect(&["NEW release", "OLD release"]);
    });
}

#[test]
fn c7_2_a_panic_in_free_goes_on_and_synchronize_is_not_stuck() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let probe = Probe::new("G", &log);
        let made = probe.clone();
        let shared = space.get(1, move |_| Ok::<_, ()>(Listed::freed(&made))).expect("a shared notifier");
        probe.once("free", || panic!("of the test"));
        panics(|| {
            shared.put();
            synchronize();
        });
        background(synchronize).join();
        log.expect(&["G free"]);
        let again = space.get(1, |_| Ok::<_, ()>(Listed::new(&probe)));
        drop(again.expect("another of that key"));
        space.invalidate_start(range(1, 2)).end();
    });
}

#[test]
fn c7_2_who_waits_for_a_callback_that_panics_is_not_forgotten() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let (sub, probe) = insert(&space, "S", range(1, 2), &log);
        let (reader, _) = insert(&space, "READER", range(1, 2), &log);
        let (listed, list) = register(&space, "N", &log);
        probe.gate.hold();
        probe.once("invalidate", || panic!("of the test"));
        let starter = space.clone();
        let start = background(move || drop(starter.invalidate_start_owned(range(1, 2))));
        probe.gate.wait_inside(1);
        let remove = background(move || sub.remove());
        remove.settle();
        probe.gate.open();
        assert!(start.outcome().is_err());
        remove.join();
        background(move || reader.read_begin()).join();
        list.gate.hold();
        list.once("start", || panic!("of the test"));
        let starter = space.clone();
        let start = background(move || drop(starter.invalidate_start_owned(range(1, 2))));
        list.gate.wait_inside(1);
        let unregister = background(move || listed.unregister());
        unregister.settle();
        list.gate.open();
        assert!(start.outcome().is_err());
        unregister.join();
        wait_until("the notifier is dropped", || Arc::strong_count(&list) == 1);
    });
}

#[test]
fn c7_2_a_panic_of_the_change_ends_the_invalidation() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let (sub, _) = insert(&space, "S", range(1, 2), &log);
        let _listed = register(&space, "N", &log);
        assert!(panics(|| space.invalidate(range(1, 2), || panic!("of the test"))));
        log.expect(&["S invalidate", "N start", "N range", "N end"]);
        assert!(sub.try_read_begin().is_some());
    });
}

#[test]
fn c7_2_an_alloc_that_panics_gives_the_map_lock_back() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        assert!(panics(|| space.get::<Listed, ()>(1, |_| panic!("of the test"))));
        let user = space.clone();
        background(move || drop(register(&user, "N", &log))).join();
    });
}

#[test]
fn c7_5_bad_ranges_cannot_be_made_and_every_good_one_is_taken() {
    assert!(Range::new(u64::MAX, u64::MAX).is_err());
    assert!(Range::from_len(1u64, u64::MAX).is_ok());
    assert!(Range::from_len(2u64, u64::MAX).is_err());
    assert!(Range::from_first_last(3u64, 2u64).is_err());
    assert!(Range::of_slice::<u64>(&[]).is_none());
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let ranges =
            [range(0, 1), range(0, u64::MAX), Range::to_top(0u64), Range::to_top(u64::MAX), Range::ALL];
        for one in ranges {
            let (sub, _) = insert(&space, "S", one, &log);
            assert_eq!(sub.range(), one);
            for other in ranges {
                space.invalidate_start(other).end();
                assert_eq!(log.take().len(), usize::from(one.overlaps(other)), "{one} and {other}");
            }
        }
    });
}

/// A list subscriber whose end panics.
struct PanicsAtTheEnd;

impl mmu_notifier::list::Notifier for PanicsAtTheEnd {
    fn invalidate_range_end(&self, _: &mmu_notifier::Invalidation) {
        panic!("the end");
    }
}

#[test]
fn c7_2_a_panic_of_the_change_and_one_of_the_end_behind_it_do_not_abort() {
    within(|| {
        let space = AddressSpace::new();
        let registered = space.register(PanicsAtTheEnd).expect("a registration");
        let change = std::panic::AssertUnwindSafe(|| space.invalidate(range(0, 1), || panic!("the change")));
        let payload = std::panic::catch_unwind(change).expect_err("it panicked");
        assert_eq!(payload.downcast_ref::<&str>(), Some(&"the change"), "the first one goes on");
        assert_eq!(space.stats().active, 0);
        registered.unregister();
    });
}
