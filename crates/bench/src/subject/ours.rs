//! The library, as its users call it.

mod callbacks;

use std::time::Duration;

use mmu_notifier::interval::Subscription;
use mmu_notifier::list::{Registration, Shared};
use mmu_notifier::mirror::Mirror;
use mmu_notifier::{ActiveInvalidation, AddressSpace, Batch, Range};

use super::{PAGE, Subject};
use callbacks::{Alone, Counter, Slow};

/// mmu-notifier.
pub(crate) struct Ours;

#[inline]
pub(crate) fn range(from: u64, length: u64) -> Range {
    Range::from_len(from, length).expect("rows use ranges within the space")
}

/// Why nothing here fails.
const READY: &str = "the space has a user, and the machine has memory";

impl Subject for Ours {
    type Space = AddressSpace;
    /// The library allocates it.
    type Record = ();
    type Interval = Subscription<Counter>;
    type Alone = Subscription<Alone>;
    type Registration = Registration<Counter>;
    type Slow = Registration<Slow>;
    type Shared = Shared<Counter>;
    type Mirror = Mirror<Option<u64>>;
    type Active<'s> = ActiveInvalidation<'s>;
    type Batch<'s> = Batch<'s>;

    fn space() -> AddressSpace {
        AddressSpace::new()
    }

    fn exit(space: AddressSpace) {
        drop(space);
    }

    #[inline]
    fn cycle(space: &AddressSpace, from: u64, length: u64) {
        space.invalidate(range(from, length), || ());
    }

    #[inline]
    fn cycle_all(space: &AddressSpace) {
        space.invalidate(Range::ALL, || ());
    }

    #[inline]
    fn start(space: &AddressSpace, from: u64, length: u64) -> ActiveInvalidation<'_> {
        space.invalidate_start(range(from, length))
    }

    fn batch<'s>(space: &'s AddressSpace, pages: &[u64]) -> Batch<'s> {
        let mut batch = Batch::new(space);
        for &page in pages {
            batch.push(range(page, PAGE)).expect(READY);
        }
        batch
    }

    #[inline]
    fn cycle_batch(batch: &mut Batch<'_>) {
        batch.start().end();
    }

    fn record() {}

    #[inline]
    fn insert(space: &AddressSpace, (): (), from: u64, length: u64) -> Self::Interval {
        space.insert(range(from, length), Counter).expect(READY)
    }

    #[inline]
    fn remove(interval: Self::Interval) {
        interval.remove();
    }

    #[inline]
    fn read(interval: &Self::Interval) -> bool {
        let token = interval.read_begin();
        interval.read_retry(token)
    }

    fn read_begin(interval: &Self::Interval) {
        interval.read_begin();
    }

    fn insert_alone(space: &AddressSpace, from: u64, length: u64) -> Self::Alone {
        space.insert(range(from, length), Alone::default()).expect(READY)
    }

    #[inline]
    fn register(space: &AddressSpace) -> Self::Registration {
        space.register(Counter).expect(READY)
    }

    #[inline]
    fn unregister(registration: Self::Registration) {
        registration.unregister();
    }

    fn register_slow(space: &AddressSpace, sleep: Duration) -> Self::Slow {
        space.register(Slow(sleep)).expect(READY)
    }

    #[inline]
    fn get(space: &AddressSpace) -> Self::Shared {
        space.get(7, |_| Ok::<_, ()>(Counter)).expect(READY)
    }

    #[inline]
    fn put(shared: Self::Shared) {
        shared.put();
    }

    fn mirror(space: &AddressSpace, from: u64, length: u64) -> Self::Mirror {
        Mirror::new(space, range(from, length), None).expect(READY)
    }

    #[inline]
    fn look_up(mirror: &Self::Mirror) -> Option<u64> {
        mirror.with(|table| *table)
    }

    #[inline]
    fn fault(mirror: &Self::Mirror, translation: u64) {
        mirror
            .fault(|_| Ok::<_, ()>(translation), |table, translation| *table = Some(translation))
            .expect(READY);
    }
}
