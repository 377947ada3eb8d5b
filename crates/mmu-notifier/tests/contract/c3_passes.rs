//! C3.8: callbacks in two passes.

use std::sync::Arc;

use mmu_notifier::{AddressSpace, Range};

use super::harness::{Recorder, background, range, within};
use super::probe::{Manner, Probe, Sub, insert, register};

fn begins(space: &AddressSpace, name: &str, at: Range, log: &Recorder) -> (Sub, Arc<Probe>) {
    let (sub, probe) = insert(space, name, at, log);
    probe.set(Manner::Begins);
    (sub, probe)
}

#[test]
fn c3_8_finish_comes_in_order_after_the_first_pass_and_before_the_list() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let _third = begins(&space, "C", range(0x3000, 0x4000), &log);
        let _first = begins(&space, "A", range(0x1000, 0x2000), &log);
        let _plain = insert(&space, "B", range(0x2000, 0x3000), &log);
        let _listed = register(&space, "N", &log);
        let active = space.invalidate_start(range(0x1000, 0x4000));
        log.expect(&["A invalidate", "B invalidate", "C invalidate", "A finish", "C finish", "N start"]);
        active.end();
        log.expect(&["N range", "N end"]);
    });
}

#[test]
fn c3_8_finish_comes_also_when_a_later_one_refuses_and_not_for_that() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let (first, _) = begins(&space, "A", range(0x1000, 0x2000), &log);
        let (_refusing, refusing) = insert(&space, "B", range(0x2000, 0x3000), &log);
        let _last = begins(&space, "C", range(0x3000, 0x4000), &log);
        let _listed = register(&space, "N", &log);
        refusing.set(Manner::Refuses);
        assert!(space.try_invalidate_start(range(0x1000, 0x4000)).is_err());
        log.expect(&["A invalidate", "B invalidate", "A finish"]);
        assert!(first.try_read_begin().is_some());
    });
}

#[test]
fn c3_8_more_than_128_hits_are_all_finished_in_order() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let subs: Vec<_> = (0..300u64)
            .map(|page| begins(&space, &page.to_string(), range(page << 12, (page + 1) << 12), &log))
            .collect();
        let active = space.invalidate_start(Range::ALL);
        let passes = ["invalidate", "finish"];
        let expected: Vec<String> =
            passes.iter().flat_map(|pass| (0..300).map(move |page| format!("{page} {pass}"))).collect();
        assert_eq!(log.take(), expected);
        active.end();
        assert!(subs.iter().all(|(sub, _)| sub.try_read_begin().is_some()));
    });
}

#[test]
fn c3_8_several_starts_stand_between_the_passes_at_once() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let (sub, _) = begins(&space, "S", range(0x1000, 0x2000), &log);
        let (_gate, last) = insert(&space, "LAST", range(0x1800, 0x2000), &log);
        last.gate.hold();
        let starts: Vec<_> = (0..5)
            .map(|_| {
                let space = space.clone();
                background(move || space.invalidate_start_owned(range(0x1000, 0x2000)))
            })
            .collect();
        last.gate.wait_inside(5);
        assert!(!log.take().contains(&"S finish".to_owned()), "all stand between the passes");
        last.gate.open();
        starts.into_iter().for_each(|start| start.join().end());
        assert_eq!(log.take().iter().filter(|event| *event == "S finish").count(), 5);
        assert!(sub.try_read_begin().is_some());
    });
}

#[test]
fn c3_8_past_128_hits_each_start_finishes_each_once() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let _subs: Vec<_> =
            (0..200u64).map(|page| begins(&space, "S", range(page << 12, (page + 1) << 12), &log)).collect();
        let (_gate, last) = insert(&space, "LAST", Range::to_top(u64::MAX), &log);
        last.gate.hold();
        let starts: Vec<_> = (0..4)
            .map(|_| {
                let space = space.clone();
                background(move || space.invalidate_start_owned(Range::ALL))
            })
            .collect();
        last.gate.wait_inside(4);
        last.gate.open();
        starts.into_iter().for_each(|start| start.join().end());
        let events = log.take();
        for (event, count) in [("S invalidate", 800), ("S finish", 800), ("LAST invalidate", 4)] {
            assert_eq!(events.iter().filter(|one| *one == event).count(), count, "{event}");
        }
    });
}

#[test]
fn c3_8_remove_waits_for_the_finish() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let (sub, probe) = begins(&space, "S", range(0x1000, 0x2000), &log);
        let (_later, later) = insert(&space, "LATER", range(0x1800, 0x2000), &log);
        later.gate.hold();
        let starter = space.clone();
        let start = background(move || starter.invalidate_start_owned(range(0x1000, 0x2000)));
        later.gate.wait_inside(1);
        let remove = background(move || sub.remove());
        remove.assert_waits("it stands between its passes");
        probe.gate.hold();
        later.gate.open();
        probe.gate.wait_inside(1);
        remove.assert_waits("its finish runs");
        probe.gate.open();
        remove.join();
        start.join().end();
        log.expect(&["S invalidate", "LATER invalidate", "S finish"]);
    });
}

#[test]
fn c3_8_it_is_busy_between_the_passes() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let (sub, probe) = begins(&space, "S", range(0x1000, 0x2000), &log);
        let sub = Arc::new(sub);
        let inner = sub.clone();
        probe.once("finish", move || assert!(inner.try_read_begin().is_none()));
        space.invalidate_start(range(0x1000, 0x2000)).end();
        assert!(sub.try_read_begin().is_some());
        log.expect(&["S invalidate", "S finish"]);
    });
}

#[test]
fn c3_8_the_exit_has_two_passes_too() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let _first = begins(&space, "A", range(0x1000, 0x2000), &log);
        let _plain = insert(&space, "B", range(0x2000, 0x3000), &log);
        let _listed = register(&space, "N", &log);
        drop(space);
        log.expect(&["A exit", "B exit", "A finish", "N release"]);
    });
}
