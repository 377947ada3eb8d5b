//! C7.4: no memory at each allocation: the call fails, nothing is left behind, and the next one works.

use std::num::NonZeroI32;

use mmu_notifier::interval::{Answer, InsertErrorKind, Notifier, Options, ReplaceErrorKind, Subscription};
use mmu_notifier::list::{GetError, RegisterErrorKind};
use mmu_notifier::{AddressSpace, Batch, Invalidation, LockAllError, OutOfMemory, PrimaryMmu, Range, list};

use super::c7_allocation::{failing_above, failing_from};
use super::harness::{range, within};

fn done(_: &Invalidation) -> Answer {
    Answer::Done
}

struct Listed;

impl list::Notifier for Listed {}

/// Lets the first, second, third ... allocation of `call` and all behind it fail, until it succeeds.
fn each_allocation<T, E>(mut call: impl FnMut() -> Result<T, E>, mut failed: impl FnMut(E)) -> T {
    for allowed in 0..10_000 {
        match failing_from(allowed, &mut call) {
            Ok(result) => return result,
            Err(error) => failed(error),
        }
    }
    panic!("it never succeeds");
}

#[test]
fn c7_4_no_memory_for_a_space() {
    within(|| {
        let mut failures = 0;
        let space = each_allocation(
            || AddressSpace::builder().build(),
            |error| {
                assert_eq!(error, OutOfMemory);
                failures += 1;
            },
        );
        assert!(failures > 0 && !space.has_notifiers());
    });
}

struct Locks(u64);

impl PrimaryMmu for Locks {
    fn lock_all(&self) -> Result<(), LockAllError> {
        NonZeroI32::new(self.0 as i32).map_or(Ok(()), |error| Err(LockAllError(error)))
    }

    fn unlock_all(&self) {}
}

#[test]
fn c7_4_no_memory_for_a_primary_mmu_fails_the_build() {
    within(|| {
        let mut failures = 0;
        let space = each_allocation(
            || AddressSpace::builder().primary(Locks(0)).build(),
            |error| {
                assert_eq!(error, OutOfMemory);
                failures += 1;
            },
        );
        assert!(failures > 1, "for the primary MMU, and for the space");
        drop(space.insert(range(0, 1), done as fn(&Invalidation) -> Answer).unwrap());
    });
}

/// Inserts two thousand of the notifiers that `make` makes; returns how often an allocation failed an insert.
fn insert_where_memory_fails<N: Notifier>(make: impl Fn() -> N) -> usize {
    let space = AddressSpace::new();
    let mut failures = 0;
    let mut insert = |space: &AddressSpace, number: u64| {
        each_allocation(
            || space.insert(range(number, number + 1), make()),
            |error| {
                assert_eq!(error.cause, InsertErrorKind::OutOfMemory);
                assert_eq!(space.stats().intervals, number, "nothing is left behind");
                failures += 1;
            },
        )
    };
    // Enough for leaves to split and for the root to grow twice.
    let subscriptions: Vec<_> = (0..2_000).map(|number| insert(&space, number)).collect();
    assert_eq!(space.stats().intervals, 2_000);
    space.invalidate(range(0, 2_000), || {});
    assert_eq!(space.stats().hits, 2_000);
    drop(subscriptions);
    failures
}

#[test]
fn c7_4_no_memory_for_an_insert() {
    within(|| {
        let failures = insert_where_memory_fails(|| done as fn(&Invalidation) -> Answer);
        assert!(failures > 20, "records and pages come in blocks: {failures}");
    });
}

#[test]
fn c7_4_no_memory_for_an_insert_of_a_large_notifier() {
    within(|| {
        let large = [0u64; 100];
        let failures = insert_where_memory_fails(|| {
            move |what: &Invalidation| {
                if what.range().start().get() + 1 == large[99] { Answer::Refused } else { Answer::Done }
            }
        });
        assert!(failures > 2_000, "each record by itself: {failures}");
    });
}

/// Inserts so many that the index asks for its largest blocks, removes every second one, and puts others in their place;
/// an invalidation of everything calls those that are there. All is on one thread, where nothing sleeps: so no time is
/// set, which emulated processors may need much of.
fn insert_many(largest_block: usize) {
    // Thread Sanitizer takes fifty times as long.
    const MANY: u64 = if cfg!(mmu_notifier_tsan) { 10_000 } else { 100_000 };
    let space = AddressSpace::new();
    let insert = |number| {
        let made = range(2 * number, 2 * number + 1);
        failing_above(largest_block, || space.insert(made, done as fn(&Invalidation) -> Answer))
    };
    let mut subscriptions: Vec<_> = (0..MANY).map(|number| Some(insert(number).unwrap())).collect();
    let mut hits = 0;
    let mut expect = |more: u64| {
        space.invalidate(Range::ALL, || {});
        hits += more;
        assert_eq!((space.stats().intervals, space.stats().hits), (more, hits));
    };
    expect(MANY);
    subscriptions.iter_mut().step_by(2).for_each(|subscription| *subscription = None);
    expect(MANY / 2);
    subscriptions.iter_mut().zip(0..).step_by(2).for_each(|(place, number)| *place = insert(number).ok());
    expect(MANY);
}

#[test]
fn c3_1_among_a_hundred_thousand_each_is_called() {
    insert_many(usize::MAX);
}

#[test]
fn c7_4_where_no_large_block_is_to_be_had_inserts_take_small_ones() {
    // The least that a space needs at once is the block of its hazards.
    insert_many(8 << 10);
}

#[test]
fn c7_4_no_memory_for_the_list() {
    within(|| {
        let space = AddressSpace::new();
        let mut failures = 0;
        let registrations: Vec<_> = (0..100)
            .map(|count| {
                each_allocation(
                    || space.register(Listed),
                    |error| {
                        assert_eq!(error.cause, RegisterErrorKind::OutOfMemory);
                        assert_eq!(space.stats().list, count, "nothing is left behind");
                        failures += 1;
                    },
                )
            })
            .collect();
        let shared = each_allocation(
            || space.get::<Listed, ()>(1, |_| Ok(Listed)),
            |error| {
                assert_eq!(error, GetError::OutOfMemory);
                failures += 1;
            },
        );
        assert!(failures > 100);
        assert_eq!(space.stats().list, 101);
        drop((shared, registrations));
        let other = AddressSpace::new();
        each_allocation(
            || other.register_nobody(),
            |error| assert_eq!(error, RegisterErrorKind::OutOfMemory),
        );
    });
}

#[test]
fn c7_4_no_memory_for_a_replacement_or_a_batch() {
    within(|| {
        let space = AddressSpace::new();
        let mut watch = Some(space.insert(range(0, 16), done as fn(&Invalidation) -> Answer).unwrap());
        let mut failures = 0;
        let resized = each_allocation(
            || {
                let old: Subscription<fn(&Invalidation) -> Answer> = watch.take().unwrap();
                old.resize(range(0, 32)).map_err(|error| {
                    assert_eq!(error.cause, ReplaceErrorKind::OutOfMemory);
                    watch = Some(error.subscriptions);
                })
            },
            |()| failures += 1,
        );
        let mut olds = Some(vec![resized]);
        let whole = each_allocation(
            || {
                let options = Options::new();
                let notifier = done as fn(&Invalidation) -> Answer;
                Subscription::replace(olds.take().unwrap(), &space, range(0, 64), options, notifier).map_err(
                    |error| {
                        assert_eq!(error.cause, ReplaceErrorKind::OutOfMemory);
                        olds = Some(error.subscriptions.0);
                    },
                )
            },
            |()| failures += 1,
        );
        assert!(failures >= 2);
        space.invalidate(range(63, 64), || {});
        assert_eq!(space.stats().hits, 1);
        let mut batch = Batch::new(&space);
        each_allocation(|| batch.push(range(0, 1)), |error| assert_eq!(error, OutOfMemory));
        assert_eq!(batch.len(), 1);
        drop(whole);
    });
}
