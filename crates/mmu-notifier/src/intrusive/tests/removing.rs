//! Removes in callbacks, of memory that is its user's again when they return (clause C3.7).

use core::mem::MaybeUninit;
use core::sync::atomic::AtomicU64;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::*;
use crate::batch::Batch;

/// Removes the interval that its word names when it is called, and counts its calls in steps of 2^48.
struct Removing;

const CALLED: u64 = 1 << 48;

impl Removing {
    fn make(space: &AddressSpace, byte: u64) -> NonNull<Interval> {
        static REMOVING: IntervalCallbacks = IntervalCallbacks::of::<Removing>();
        Self::make_with(&REMOVING, space, byte)
    }

    fn make_with(
        callbacks: &'static IntervalCallbacks,
        space: &AddressSpace,
        byte: u64,
    ) -> NonNull<Interval> {
        let interval = NonNull::from(Box::leak(Box::new(Interval::new(callbacks))));
        let range = Range::from_len(byte, 1).unwrap();
        // SAFETY: it stays where it is until it was removed.
        unsafe { Interval::insert(interval, space, range, Options::new()) }.unwrap();
        interval
    }

    fn word(interval: NonNull<Interval>) -> &'static AtomicU64 {
        // SAFETY: these tests use it before they free the interval.
        &unsafe { &*interval.as_ptr() }.word
    }

    /// Frees what is removed, whatever was written over it.
    fn free(interval: NonNull<Interval>) {
        // SAFETY: made by `make`, and in no space; what is not initialised is not dropped.
        drop(unsafe { Box::from_raw(interval.as_ptr().cast::<MaybeUninit<Interval>>()) });
    }

    fn calls(interval: NonNull<Interval>) -> u64 {
        Self::word(interval).load(Ordering::Relaxed) / CALLED
    }

    /// Removes what the word names, and writes over it what its first words are in use for: an order that was reached,
    /// and a table that leads nowhere.
    fn remove_named(interval: NonNull<Interval>) {
        let named = Self::word(interval).fetch_and(!(CALLED - 1), Ordering::Relaxed) & (CALLED - 1);
        let named = core::ptr::with_exposed_provenance_mut::<Interval>(named as usize);
        let Some(victim) = NonNull::new(named) else { return };
        let before = diagnostics::findings();
        // SAFETY: it was inserted.
        unsafe { Interval::remove(victim) };
        if diagnostics::findings() == before {
            let words = size_of::<Interval>() / size_of::<u64>();
            // SAFETY: it is removed, so its memory is the caller's.
            unsafe { core::slice::from_raw_parts_mut(victim.as_ptr().cast::<u64>(), words) }.fill(8);
        }
    }
}

impl IntervalOps for Removing {
    unsafe fn invalidate(interval: NonNull<Interval>, _: &Invalidation, _: Sequence) -> Answer {
        Self::word(interval).fetch_add(CALLED, Ordering::Relaxed);
        Self::remove_named(interval);
        Answer::Done
    }

    unsafe fn finish(_: NonNull<Interval>, _: &Invalidation) {}
}

/// Three intervals, of which the first removes the second when it is called: `start` invalidates all of them.
fn remove_in_anothers_callback(start: impl FnOnce(&AddressSpace)) {
    remove_in_anothers_callback_of(|space, _| start(space));
}

/// The same; `start` gets the first, too, whose word names the second.
fn remove_in_anothers_callback_of(start: impl FnOnce(&AddressSpace, NonNull<Interval>)) {
    let space = AddressSpace::new();
    let others: Vec<_> = (100..120).map(|byte| Removing::make(&space, byte)).collect();
    let [first, second, third] = [1, 2, 3].map(|byte| Removing::make(&space, byte));
    Removing::word(first).store(second.as_ptr().expose_provenance() as u64, Ordering::Relaxed);
    let before = diagnostics::findings();
    start(&space, first);
    assert_eq!(
        (Removing::calls(first), Removing::calls(third)),
        (1, 1),
        "each once, and the removed one not"
    );
    assert_eq!(diagnostics::findings(), before, "it is allowed");
    for interval in others.into_iter().chain([first, third]) {
        // SAFETY: it was inserted, and this is no callback.
        unsafe { Interval::remove(interval) };
        Removing::free(interval);
    }
    Removing::free(second);
}

#[test]
fn c3_7_who_is_removed_in_anothers_callback_is_not_looked_at_again() {
    let _alone = alone();
    remove_in_anothers_callback(|space| space.invalidate(Range::from_len(1u64, 3).unwrap(), || {}));
}

#[test]
fn c3_7_who_is_removed_in_the_callback_of_an_earlier_range_is_not_looked_at_again() {
    let _alone = alone();
    remove_in_anothers_callback(|space| {
        let mut batch = Batch::new(space);
        for byte in 1..=3u64 {
            batch.push(Range::from_len(byte, 1).unwrap()).unwrap();
        }
        batch.start().end();
    });
}

/// The same, and then refuses, or panics.
struct Failing<const PANICS: bool>;

impl<const PANICS: bool> IntervalOps for Failing<PANICS> {
    unsafe fn invalidate(interval: NonNull<Interval>, what: &Invalidation, seq: Sequence) -> Answer {
        // SAFETY: as promised by the caller.
        let _ = unsafe { Removing::invalidate(interval, what, seq) };
        assert!(!PANICS, "a callback panics");
        Answer::Refused
    }

    unsafe fn finish(_: NonNull<Interval>, _: &Invalidation) {}
}

#[test]
fn c3_7_c7_2_a_start_that_fails_does_not_look_again_at_who_was_removed() {
    static REFUSING: IntervalCallbacks = IntervalCallbacks::of::<Failing<false>>();
    static PANICKING: IntervalCallbacks = IntervalCallbacks::of::<Failing<true>>();
    for (callbacks, panics) in [(&REFUSING, false), (&PANICKING, true)] {
        let space = AddressSpace::new();
        let others: Vec<_> = (100..120).map(|byte| Removing::make(&space, byte)).collect();
        let first = Removing::make_with(callbacks, &space, 1);
        let [second, third] = [2, 3].map(|byte| Removing::make(&space, byte));
        Removing::word(first).store(second.as_ptr().expose_provenance() as u64, Ordering::Relaxed);
        let range = Range::from_len(1u64, 3).unwrap();
        let start = AssertUnwindSafe(|| space.try_invalidate(range, || {}).is_err());
        assert_eq!(catch_unwind(start).ok(), (!panics).then_some(true));
        assert_eq!((Removing::calls(first), Removing::calls(third), space.stats().active), (1, 0, 0));
        for interval in others.into_iter().chain([first, third]) {
            // SAFETY: it was inserted, and this is no callback.
            unsafe { Interval::remove(interval) };
            Removing::free(interval);
        }
        Removing::free(second);
    }
}

#[test]
fn c3_7_c3_9_who_is_removed_in_a_callback_within_a_callback_is_not_looked_at_again() {
    let _alone = alone();
    remove_in_anothers_callback_of(|space, first| {
        // The start of 1 to 3 calls this, which starts another range; there the remove is made.
        let (inner, remover) = (space.downgrade(), Removing::make(space, 50));
        let named = Removing::word(first).swap(0, Ordering::Relaxed);
        Removing::word(remover).store(named, Ordering::Relaxed);
        let outer = move |_: &Invalidation| {
            inner.invalidate(Range::from_len(50u64, 1).unwrap(), || {});
            Answer::Done
        };
        let outer = space.insert(Range::from_len(1u64, 1).unwrap(), outer).unwrap();
        space.invalidate(Range::from_len(1u64, 3).unwrap(), || {});
        assert_eq!(Removing::calls(remover), 1);
        drop(outer);
        // SAFETY: it was inserted, and this is no callback.
        unsafe { Interval::remove(remover) };
        Removing::free(remover);
    });
}

#[test]
fn c3_7_a_remove_of_one_that_stands_between_its_passes_is_diagnosed() {
    let _alone = alone();
    let space = AddressSpace::new();
    let (between_in, between) = make();
    // SAFETY: the device stays where it is until it was removed.
    unsafe { Interval::insert(between, &space, Range::from_len(1u64, 1).unwrap(), Options::new()) }.unwrap();
    let remover = Removing::make(&space, 2);
    Removing::word(remover).store(between.as_ptr().expose_provenance() as u64, Ordering::Relaxed);
    let before = diagnostics::findings();
    space.invalidate(Range::ALL, || {});
    assert_eq!((Removing::calls(remover), diagnostics::findings()), (1, before + 1));
    assert_eq!(device(between).hits.load(Ordering::Relaxed), 1);
    // SAFETY: it was inserted, and this is no callback.
    unsafe { Interval::remove(remover) };
    Removing::free(remover);
    // SAFETY: made by make, and removed.
    drop(unsafe { Box::from_raw(between_in.as_ptr()) });
}

#[test]
fn c3_7_a_remove_in_its_own_callback_is_diagnosed() {
    let _alone = alone();
    let space = AddressSpace::new();
    let interval = Removing::make(&space, 1);
    Removing::word(interval).store(interval.as_ptr().expose_provenance() as u64, Ordering::Relaxed);
    let before = diagnostics::findings();
    space.invalidate(Range::ALL, || {});
    assert_eq!((Removing::calls(interval), diagnostics::findings()), (1, before + 1));
    space.invalidate(Range::ALL, || {});
    assert_eq!(Removing::calls(interval), 1);
    Removing::free(interval);
}
