//! C8.3: the last user goes inside a callback.

use std::sync::{Arc, Mutex};

use mmu_notifier::AddressSpace;

use super::harness::{Recorder, background, lock, range, within};
use super::probe::{insert, register, slot, take};

#[test]
fn c8_3_a_last_user_dropped_in_a_callback_exits_behind_the_call() {
    within(|| {
        for kind in ["invalidate", "start"] {
            let log = Recorder::new();
            let space = AddressSpace::new();
            let holder = space.downgrade();
            let (_first, interval) = insert(&space, "S", range(1, 2), &log);
            let _second = insert(&space, "T", range(1, 2), &log);
            let (_listed, list) = register(&space, "N", &log);
            let user = slot(space);
            let probe = if kind == "start" { &list } else { &interval };
            probe.once(kind, move || drop(take(&user)));
            let active = holder.invalidate_start_owned(range(1, 2));
            log.expect(&["S invalidate", "T invalidate", "N start", "S exit", "T exit", "N release"]);
            assert!(holder.upgrade().is_none());
            active.end();
            log.expect(&[]);
        }
    });
}

#[test]
fn c8_3_it_exits_under_no_lock_of_the_subscriber() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let holder = space.downgrade();
        let (_sub, probe) = insert(&space, "S", range(1, 2), &log);
        let (user, subscribers) = (slot(space), Arc::new(Mutex::new(())));
        let seen = log.clone();
        probe.on(move |kind| {
            let Ok(held) = subscribers.try_lock() else { return seen.note("deadlock") };
            if kind == "invalidate" {
                drop(take(&user));
            }
            drop(held);
        });
        background(move || drop(holder.invalidate_start(range(1, 2)))).join();
        log.expect(&["S invalidate", "S exit"]);
        probe.quiet();
    });
}

#[test]
fn c8_3_dropped_in_a_nested_call_it_waits_for_the_outermost() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let holder = space.downgrade();
        let (_outer, outer) = insert(&space, "OUTER", range(0x1000, 0x2000), &log);
        let (_inner, inner) = insert(&space, "INNER", range(0x5000, 0x6000), &log);
        let user = slot(space);
        inner.once("invalidate", move || drop(take(&user)));
        let (nested, mark) = (holder.clone(), log.clone());
        outer.once("invalidate", move || {
            nested.invalidate_start(range(0x5000, 0x6000)).end();
            mark.note("the nested call is over");
        });
        drop(holder.invalidate_start(range(0x1000, 0x2000)));
        log.expect(&[
            "OUTER invalidate",
            "INNER invalidate",
            "the nested call is over",
            "OUTER exit",
            "INNER exit",
        ]);
    });
}

#[test]
fn c8_3_dropped_in_an_end_or_a_question_it_waits_for_that_walk() {
    within(|| {
        for kind in ["end", "young"] {
            let log = Recorder::new();
            let space = AddressSpace::new();
            let holder = space.downgrade();
            let _old = register(&space, "OLD", &log);
            let (_new, probe) = register(&space, "NEW", &log);
            let user = slot(space);
            probe.once(kind, move || drop(take(&user)));
            let active = holder.invalidate_start(range(1, 2));
            log.take();
            active.only_end();
            if kind == "young" {
                log.take();
                holder.clear_young(range(1, 2));
            }
            let called = [format!("NEW {kind}"), format!("OLD {kind}")];
            log.expect(&[&called[0], &called[1], "NEW release", "OLD release"]);
        }
    });
}

#[test]
fn c8_3_users_taken_in_a_callback_postpone_the_exit() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let (_sub, probe) = insert(&space, "S", range(1, 2), &log);
        let holder = space.downgrade();
        let kept = Arc::new(Mutex::new(None));
        let keep = kept.clone();
        probe.once("invalidate", move || *lock(&keep) = holder.upgrade());
        space.invalidate_start(range(1, 2)).end();
        drop(space);
        log.expect(&["S invalidate"]);
        drop(take(&kept));
        log.expect(&["S exit"]);
    });
}
