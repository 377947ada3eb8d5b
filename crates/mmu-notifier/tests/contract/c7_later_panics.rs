//! C7.2 where several callbacks panic: the first panic goes on, and what a later one carries may panic when it is dropped.

use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::sync::atomic::{AtomicU32, Ordering};

use mmu_notifier::{AddressSpace, Batch, list};

use super::harness::{Recorder, background, range, within};
use super::probe::{insert, register, slot, take};

/// What a later panic carries. Its drop panics.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("a payload fails");
    }
}

fn bomb() {
    panic_any(Bomb);
}

fn first() {
    panic!("the first");
}

/// The call panics with what [`first`] panics with.
fn expect_first<R>(call: impl FnOnce() -> R) {
    let payload = catch_unwind(AssertUnwindSafe(call)).err().expect("a callback panics");
    assert_eq!(payload.downcast_ref::<&str>(), Some(&"the first"));
}

/// Nothing of a call is left in the space: neither a range nor a walk.
fn expect_quiet(space: &AddressSpace) {
    assert_eq!(space.stats().active, 0);
    let space = space.clone();
    background(move || register(&space, "LATE", &Recorder::new()).0.unregister()).join();
}

#[test]
fn c7_2_two_ends_panic() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let [_a, (_b, bombs), (_c, panics)] = ["A", "B", "C"].map(|name| register(&space, name, &log));
        panics.once("end", first);
        bombs.once("end", bomb);
        let active = space.invalidate_start(range(1, 2));
        expect_first(|| active.end());
        log.expect(&[
            "C start", "B start", "A start", "C range", "C end", "B range", "B end", "A range", "A end",
        ]);
        expect_quiet(&space);
    });
}

#[test]
fn c7_2_a_start_panics_and_an_end_that_undoes_it() {
    within(|| {
        for intervals in [false, true] {
            let space = AddressSpace::new();
            let log = Recorder::new();
            let _interval = intervals.then(|| insert(&space, "I", range(0x1000, 0x2000), &log));
            let [(_a, panics), (_b, bombs)] = ["A", "B"].map(|name| register(&space, name, &log));
            panics.once("start", first);
            bombs.once("end", bomb);
            expect_first(|| space.try_invalidate_start(range(1, 2)).is_ok());
            log.expect(&["B start", "A start", "B end"]);
            expect_quiet(&space);
        }
    });
}

#[test]
fn c5_8_c7_2_a_start_panics_in_a_batch_and_an_end_that_undoes_it() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let [(_a, panics), (_b, bombs)] = ["A", "B"].map(|name| register(&space, name, &log));
        let mut batch = Batch::new(&space);
        batch.push(range(1, 2)).unwrap();
        batch.push(range(3, 4)).unwrap();
        // In the second range: then the first is undone by the walk of an end.
        let starts = AtomicU32::new(0);
        panics.on(move |kind| {
            if kind == "start" && starts.fetch_add(1, Ordering::Relaxed) == 1 {
                first();
            }
        });
        bombs.on(|kind| {
            if kind == "end" {
                bomb()
            }
        });
        expect_first(|| drop(batch.start()));
        drop(batch);
        log.expect(&["B start", "A start", "B start", "A start", "B end", "B end", "A end"]);
        bombs.quiet();
        expect_quiet(&space);
    });
}

#[test]
fn c7_2_the_change_panics_and_the_end_behind_it() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let (_listed, bombs) = register(&space, "N", &log);
        bombs.once("end", bomb);
        expect_first(|| space.invalidate(range(1, 2), first));
        log.expect(&["N start", "N range", "N end"]);
        expect_quiet(&space);
    });
}

/// Does this when it is dropped.
struct Freed(fn());

impl list::Notifier for Freed {}

impl Drop for Freed {
    fn drop(&mut self) {
        (self.0)();
    }
}

#[test]
fn c7_2_a_start_panics_and_a_free_behind_it() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let gone = slot(space.register(Freed(bomb)).unwrap());
        let (_listed, panics) = register(&space, "N", &log);
        panics.once("start", move || {
            take(&gone).expect("the registration").put();
            first();
        });
        expect_first(|| space.invalidate_start(range(1, 2)).end());
        log.expect(&["N start"]);
        expect_quiet(&space);
    });
}

#[test]
fn c7_2_a_free_behind_a_start_panics_and_the_end_of_what_was_begun() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let gone = slot(space.register(Freed(first)).unwrap());
        let (_listed, both) = register(&space, "N", &log);
        both.on(move |kind| match kind {
            "start" => take(&gone).into_iter().for_each(|gone| gone.put()),
            "end" => bomb(),
            _ => {}
        });
        expect_first(|| space.invalidate_start(range(1, 2)).end());
        log.expect(&["N start", "N range", "N end"]);
        both.quiet();
        expect_quiet(&space);
    });
}

#[test]
fn c7_2_c8_1_an_exit_in_which_both_sides_panic() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let (interval, panics) = insert(&space, "I", range(1, 2), &log);
        let (listed, bombs) = register(&space, "N", &log);
        panics.once("exit", first);
        bombs.once("release", bomb);
        let holder = space.downgrade();
        expect_first(|| drop(space));
        log.expect(&["I exit", "N release"]);
        assert_eq!(holder.stats().active, 0);
        background(move || drop((interval, listed))).join();
    });
}

#[test]
fn c7_2_c8_2_a_release_panics_and_the_drop_behind_it() {
    /// Panics in both.
    struct Both;

    impl list::Notifier for Both {
        fn release(&self) {
            first();
        }
    }

    impl Drop for Both {
        fn drop(&mut self) {
            bomb();
        }
    }

    within(|| {
        let space = AddressSpace::new();
        let listed = space.register(Both).unwrap();
        expect_first(|| listed.unregister());
        expect_quiet(&space);
        assert_eq!(space.stats().list, 0);
    });
}
