//! C5.1, C5.4 to C5.7 and C5.9, and C6.3: the primary MMU's calls, none of which refuses.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};

use mmu_notifier::{Address, AddressSpace, Event, Invalidation, Permissions, Pte, Range};

use super::harness::{Recorder, background, range, within};
use super::probe::{Listed, Probe, insert, register};

#[test]
fn c5_1_intervals_first_then_the_list() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let _listed = register(&space, "N", &log);
        let _sub = insert(&space, "S", range(0x1000, 0x2000), &log);
        let active = space.invalidate_start(range(0x1000, 0x2000));
        log.expect(&["S invalidate", "N start"]);
        active.end();
        log.expect(&["N range", "N end"]);
        space.invalidate_start(range(0x3000, 0x4000)).end();
        log.expect(&["N start", "N range", "N end"]);
    });
}

#[test]
fn c5_1_one_that_nobody_watches_hears_nothing_and_changes_nothing() {
    within(|| {
        let space = AddressSpace::new();
        let value = space.invalidate(range(1, 2), || 7);
        assert_eq!(value, 7);
        assert_eq!(space.try_invalidate(range(1, 2), || 8), Ok(8));
        assert!(!space.clear_flush_young(range(1, 2)) && !space.clear_young(range(1, 2)));
        assert!(!space.test_young(Address::new(1)));
        space.change_pte(Address::new(1), Pte(2));
        space.invalidate_range(range(1, 2));
        assert!(!space.has_notifiers());
    });
}

#[test]
fn c5_1_the_change_runs_between_start_and_end() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let _listed = register(&space, "N", &log);
        let mark = log.clone();
        space.invalidate(range(1, 2), || mark.note("change"));
        log.expect(&["N start", "change", "N range", "N end"]);
        assert_eq!(space.try_invalidate(range(1, 2), || mark.note("change")), Ok(()));
        log.expect(&["N start", "change", "N range", "N end"]);
    });
}

#[test]
fn c5_4_the_interval_side_ends_before_the_list_hears_of_it() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let (sub, _) = insert(&space, "S", range(1, 2), &log);
        let (_listed, probe) = register(&space, "N", &log);
        let sub = Arc::new(sub);
        let reader = sub.clone();
        probe.on(move |kind| match kind {
            "start" => assert!(reader.try_read_begin().is_none()),
            "range" | "end" => assert!(reader.try_read_begin().is_some()),
            _ => (),
        });
        space.invalidate_start(range(1, 2)).end();
        log.expect(&["S invalidate", "N start", "N range", "N end"]);
        probe.quiet();
    });
}

#[test]
fn c5_4_each_hears_invalidate_range_and_then_the_end() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let _listed: Vec<_> = ["N1", "N2"].map(|name| register(&space, name, &log)).into();
        let active = space.invalidate_start(range(1, 2));
        log.expect(&["N2 start", "N1 start"]);
        active.end();
        log.expect(&["N2 range", "N2 end", "N1 range", "N1 end"]);
        space.invalidate_start(range(1, 2)).only_end();
        log.expect(&["N2 start", "N1 start", "N2 end", "N1 end"]);
        space.invalidate_start_owned(range(1, 2)).only_end();
        log.expect(&["N2 start", "N1 start", "N2 end", "N1 end"]);
        drop(space.invalidate_start(range(1, 2)));
        log.expect(&["N2 start", "N1 start", "N2 range", "N2 end", "N1 range", "N1 end"]);
    });
}

/// It hears no end, since it heard no start, but the flush that is for everybody.
#[test]
fn c5_4_who_registers_during_an_invalidation_that_nobody_watched_hears_its_flush() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let listed = space.invalidate(range(1, 2), || register(&space, "N", &log));
        log.expect(&["N range"]);
        drop(listed);
        log.expect(&["N release"]);

        let space = AddressSpace::new();
        let active = space.invalidate_start(range(1, 2));
        let _listed = register(&space, "G", &log);
        active.end();
        log.expect(&["G range"]);

        let space = AddressSpace::new();
        let held = Mutex::new(None);
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            space.try_invalidate(range(1, 2), || {
                *held.lock().unwrap() = Some(register(&space, "P", &log));
                panic!("the change fails");
            })
        }));
        assert!(panicked.is_err());
        log.expect(&["P range"]);
    });
}

#[test]
fn c5_5_invalidate_range_is_for_the_list_only() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let _listed = register(&space, "N", &log);
        let (sub, _) = insert(&space, "S", Range::ALL, &log);
        let token = sub.read_begin();
        space.invalidate_range(range(1, 2));
        log.expect(&["N range"]);
        assert!(!sub.read_retry(token));
    });
}

#[test]
fn c5_6_everybody_is_asked_for_young_and_the_answer_is_the_or() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let probes: Vec<_> = ["N1", "N2", "N3"].map(|name| register(&space, name, &log)).into();
        type Call = fn(&AddressSpace) -> bool;
        let calls: [Call; 2] =
            [|space| space.clear_flush_young(range(1, 2)), |space| space.clear_young(range(1, 2))];
        for call in calls {
            for young in [None, Some(0), Some(1), Some(2)] {
                for (index, (_, probe)) in probes.iter().enumerate() {
                    probe.set_young(Some(index) == young);
                }
                assert_eq!(call(&space), young.is_some());
                log.expect(&["N3 young", "N2 young", "N1 young"]);
            }
        }
    });
}

#[test]
fn c5_6_test_young_stops_at_the_first_yes() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let _n1 = register(&space, "N1", &log);
        let (_n2, second) = register(&space, "N2", &log);
        let _n3 = register(&space, "N3", &log);
        assert!(!space.test_young(Address::new(1)));
        log.expect(&["N3 young", "N2 young", "N1 young"]);
        second.set_young(true);
        assert!(space.test_young(Address::new(1)));
        log.expect(&["N3 young", "N2 young"]);
    });
}

#[test]
fn c5_6_change_pte_goes_to_everybody_as_it_is() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let _listed: Vec<_> = ["N1", "N2"].map(|name| register(&space, name, &log)).into();
        let (sub, _) = insert(&space, "S", Range::ALL, &log);
        let token = sub.read_begin();
        space.change_pte(Address::new(u64::MAX), Pte(u64::MAX));
        let largest = u64::MAX;
        log.expect(&[&format!("N2 pte {largest:#x} {largest}"), &format!("N1 pte {largest:#x} {largest}")]);
        assert!(!sub.read_retry(token), "it is no invalidation");
    });
}

#[test]
fn c5_7_only_a_protection_that_leaves_reading_is_an_update_to_read_only() {
    let readable = Permissions { read: true, write: false, execute: false };
    let events = [Event::Unmap, Event::Clear, Event::ProtectionPage, Event::SoftDirty, Event::ProtectionVma];
    for event in events {
        let what = Invalidation::new(Range::ALL, event);
        assert!(!what.is_update_to_read_only(), "the permissions are not known");
        let vma = event == Event::ProtectionVma;
        assert_eq!(what.with_permissions(readable).is_update_to_read_only(), vma);
        let unreadable = Permissions { read: false, ..readable };
        assert!(!what.with_permissions(unreadable).is_update_to_read_only());
    }
}

#[test]
fn c5_9_start_and_end_take_neither_the_map_lock_nor_wait_for_who_does() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let _listed = register(&space, "N", &log);
        let (sub, _) = insert(&space, "S", range(1, 2), &log);
        let token = sub.read_begin();
        let probe = Probe::new("G", &log);
        let shared = space.get(1, move |_| Ok::<_, ()>(Listed::new(&probe))).expect("a shared notifier");
        let held = space.map_lock();
        let user = space.clone();
        // What C5.9 lists as never sleeping, while somebody holds the map lock and another wants it.
        let wants = space.clone();
        let waiting = background(move || drop(wants.map_lock()));
        waiting.assert_waits("it is held");
        background(move || {
            user.invalidate_start(range(1, 2)).end();
            assert!(user.try_invalidate_start(range(1, 2)).is_ok());
            shared.put();
            assert!(sub.read_retry(token));
            user.clear_flush_young(range(1, 2));
            user.test_young(Address::new(1));
            user.change_pte(Address::new(1), Pte(1));
            user.invalidate_range(range(1, 2));
            assert!(sub.try_read_begin().is_some());
            sub.detach();
        })
        .join();
        drop(held);
        waiting.join();
    });
}

#[test]
fn c6_3_what_is_deferred_is_dropped_strictly_after_the_end() {
    struct Frame(Recorder, &'static str);
    impl Drop for Frame {
        fn drop(&mut self) {
            self.0.note(self.1);
        }
    }
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let _listed = register(&space, "N", &log);
        for only in [true, false] {
            let mut active = space.invalidate_start(range(1, 2));
            active.defer_drop(Frame(log.clone(), "first"));
            active.defer_drop(Frame(log.clone(), "second"));
            if only {
                active.only_end()
            } else {
                drop(active)
            }
            let mut events = log.take();
            let mut dropped = events.split_off(events.len() - 2);
            dropped.sort();
            assert_eq!(dropped, ["first", "second"], "after {events:?}");
        }
        // In a space that nobody watches too.
        let unwatched = AddressSpace::new();
        let mut active = unwatched.invalidate_start(range(1, 2));
        active.defer_drop(Frame(log.clone(), "alone"));
        log.expect(&[]);
        active.end();
        log.expect(&["alone"]);
    });
}
