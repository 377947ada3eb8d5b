//! C5.2 and C5.3: blockable starts succeed; a refused one undoes exactly what it did.

use mmu_notifier::{AddressSpace, StartError};

use super::harness::{Recorder, background, range, within};
use super::probe::{Listed, Manner, Probe, insert, register, slot, take};

#[test]
fn c5_2_a_blockable_start_succeeds_whatever_the_callbacks_answer() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let (sub, interval) = insert(&space, "S", range(1, 2), &log);
        let _after = insert(&space, "T", range(1, 2), &log);
        let (_listed, list) = register(&space, "N", &log);
        interval.set(Manner::RefusesAlways);
        list.set(Manner::RefusesAlways);
        let active = space.invalidate_start(range(1, 2));
        assert!(sub.try_read_begin().is_none(), "taken as accepted");
        active.only_end();
        log.expect(&["S invalidate", "T invalidate", "N start", "N end"]);
        assert!(sub.try_read_begin().is_some());
    });
}

#[test]
fn c5_2_the_call_sets_the_flag_whatever_it_was() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let (_sub, probe) = insert(&space, "S", range(1, 2), &log);
        let first = space.try_invalidate_start(range(1, 2)).expect("it accepts");
        let used = *first.invalidation();
        assert!(!used.is_blockable());
        first.end();
        space.invalidate_start(used).end();
        space.try_invalidate_start(used).expect("it accepts").end();
        space.invalidate_start_owned(used).end();
        space.try_invalidate_start_owned(used).expect("it accepts").end();
        let flags: Vec<bool> = probe.heard().iter().map(|heard| heard.is_blockable()).collect();
        assert_eq!(flags, [false, true, false, true, false]);
    });
}

#[test]
fn c5_3_an_interval_that_refuses_stops_the_walk() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let (first, _) = insert(&space, "A", range(0x1000, 0x2000), &log);
        let (refusing, probe) = insert(&space, "B", range(0x2000, 0x3000), &log);
        let (last, _) = insert(&space, "C", range(0x3000, 0x4000), &log);
        let _listed = register(&space, "N", &log);
        probe.set(Manner::Refuses);
        let error = space.try_invalidate_start(range(0x1000, 0x4000)).err();
        assert_eq!(error, Some(StartError::WouldBlock));
        log.expect(&["A invalidate", "B invalidate"]);
        for sub in [&first, &refusing, &last] {
            assert!(sub.try_read_begin().is_some(), "no trace is left");
        }
        space.invalidate_start(range(0x1000, 0x4000)).only_end();
        log.expect(&["A invalidate", "B invalidate", "C invalidate", "N start", "N end"]);
    });
}

#[test]
fn c5_3_in_the_list_all_are_called_and_those_that_accepted_get_their_end() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let (sub, _) = insert(&space, "S", range(1, 2), &log);
        let _n1 = register(&space, "N1", &log);
        let (_n2, second) = register(&space, "N2", &log);
        let _n3 = register(&space, "N3", &log);
        let (_n4, fourth) = register(&space, "N4", &log);
        second.set(Manner::Refuses);
        fourth.set(Manner::Refuses);
        assert_eq!(space.try_invalidate_start_owned(range(1, 2)).err(), Some(StartError::WouldBlock));
        log.expect(&["S invalidate", "N4 start", "N3 start", "N2 start", "N1 start", "N3 end", "N1 end"]);
        assert!(sub.try_read_begin().is_some(), "the interval side is over");
    });
}

#[test]
fn c5_3_the_interval_side_is_over_before_the_ends_come() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let (sub, _) = insert(&space, "S", range(1, 2), &log);
        let sub = std::sync::Arc::new(sub);
        let (_old, old) = register(&space, "OLD", &log);
        let (_new, new) = register(&space, "NEW", &log);
        new.set(Manner::Refuses);
        let reader = sub.clone();
        old.on(move |kind| match kind {
            "start" => assert!(reader.try_read_begin().is_none()),
            "end" => assert!(reader.try_read_begin().is_some()),
            _ => (),
        });
        assert!(space.try_invalidate_start(range(1, 2)).is_err());
        log.expect(&["S invalidate", "NEW start", "OLD start", "OLD end"]);
        old.quiet();
    });
}

/// That the interval side is over is told where the free waits too, for the same walk.
#[test]
fn c5_3_what_is_put_in_a_failing_walk_is_freed_behind_it() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let _sub = insert(&space, "S", range(8, 9), &log);
        let (_old, _) = register(&space, "OLD", &log);
        let put = Probe::new("PUT", &log);
        let shared = slot(space.get::<_, ()>(1, |_| Ok(Listed::freed(&put))).unwrap());
        let (_new, new) = register(&space, "NEW", &log);
        put.once("start", move || take(&shared).unwrap().put());
        new.set(Manner::Refuses);
        assert!(space.try_invalidate_start(range(1, 2)).is_err());
        log.expect(&["NEW start", "PUT start", "OLD start", "OLD end", "PUT free"]);
    });
}

#[test]
fn c5_3_a_refused_start_wakes_who_waits_for_it() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let (sub, _) = insert(&space, "S", range(1, 2), &log);
        let (_listed, probe) = register(&space, "N", &log);
        probe.set(Manner::Refuses);
        probe.gate.hold();
        let starter = space.clone();
        let start = background(move || starter.try_invalidate_start_owned(range(1, 2)).is_err());
        probe.gate.wait_inside(1);
        let reader = background(move || sub.read_begin());
        reader.assert_waits("the start has not failed yet");
        probe.gate.open();
        assert!(start.join());
        reader.join();
    });
}

#[test]
fn c5_3_the_change_of_a_refused_call_does_not_run() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let (_sub, probe) = insert(&space, "S", range(1, 2), &log);
        probe.set(Manner::Refuses);
        let refused = space.try_invalidate(range(1, 2), || panic!("it must not run"));
        assert_eq!(refused, Err::<(), _>(StartError::WouldBlock));
        assert_eq!(space.invalidate(range(1, 2), || 3), 3);
        assert_eq!(space.try_invalidate(range(2, 3), || 4), Ok(4));
    });
}

#[test]
fn c5_3_every_mixture_of_answers_is_undone_exactly() {
    const MANNERS: [Manner; 2] = [Manner::Accepts, Manner::Refuses];
    within(|| {
        for pattern in 0..64u32 {
            let log = Recorder::new();
            let space = AddressSpace::new();
            let manner = |bit: u32| MANNERS[(pattern >> bit & 1) as usize];
            let subs = [0, 1, 2].map(|bit| {
                let (sub, probe) = insert(&space, &format!("S{bit}"), range(u64::from(bit) + 1, 10), &log);
                probe.set(manner(bit));
                sub
            });
            let listed = [3, 4, 5].map(|bit| {
                let (listed, probe) = register(&space, &format!("N{bit}"), &log);
                probe.set(manner(bit));
                listed
            });
            let result = space.try_invalidate_start(range(1, 10));
            assert_eq!(result.is_err(), pattern != 0);
            let mut expected = Vec::new();
            let first_refusal = (0..3).find(|bit| manner(*bit) == Manner::Refuses);
            expected.extend((0..=first_refusal.unwrap_or(2)).map(|bit| format!("S{bit} invalidate")));
            if first_refusal.is_none() {
                expected.extend([5, 4, 3].map(|bit| format!("N{bit} start")));
                if pattern != 0 {
                    let accepted = [5, 4, 3].into_iter().filter(|bit| manner(*bit) == Manner::Accepts);
                    expected.extend(accepted.map(|bit| format!("N{bit} end")));
                }
            }
            assert_eq!(log.take(), expected, "pattern {pattern:06b}");
            drop(result);
            assert!(subs.iter().all(|sub| sub.try_read_begin().is_some()), "pattern {pattern:06b}");
            drop(listed);
        }
    });
}

#[test]
fn c5_3_one_registered_during_the_failing_walk_hears_neither() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let (_n, refusing) = register(&space, "N", &log);
        let (_o, held) = register(&space, "O", &log);
        refusing.set(Manner::Refuses);
        held.gate.hold();
        let starter = space.clone();
        let start = background(move || starter.try_invalidate_start_owned(range(1, 2)).is_err());
        held.gate.wait_inside(1);
        let _m = register(&space, "M", &log);
        held.gate.open();
        assert!(start.join());
        log.expect(&["O start", "N start", "O end"]);
    });
}

#[test]
fn c5_3_more_than_a_thousand_refusals_are_told_apart() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let listed: Vec<_> = (0..1500)
            .map(|index| {
                let (listed, probe) = register(&space, &index.to_string(), &log);
                probe.set(if index % 3 == 0 { Manner::Refuses } else { Manner::Accepts });
                listed
            })
            .collect();
        assert!(space.try_invalidate_start(range(1, 2)).is_err());
        let starts = (0..1500).rev().map(|index| format!("{index} start"));
        let ends = (0..1500).rev().filter(|index| index % 3 != 0).map(|index| format!("{index} end"));
        assert_eq!(log.take(), starts.chain(ends).collect::<Vec<_>>());
        drop(listed);
    });
}
