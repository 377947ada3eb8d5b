//! The plain twin of the kernel's way. What it leaves to its users, such as the memory of a subscription, stands
//! here as a careful user would have it.

mod callbacks;

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use ::kernel_like::interval::{Interval, Subscription};
use ::kernel_like::list::{Entry, Registration, Shared};
use ::kernel_like::{Active, Space};

use super::{PAGE, Subject};
use callbacks::{Alone, Counter, Slow, Table};

/// The crate `kernel-like`.
pub(crate) struct KernelLike;

/// Why nothing here fails.
const READY: &str = "the space has a user";

impl Subject for KernelLike {
    type Space = Arc<Space>;
    type Record = Box<Interval<Counter>>;
    type Interval = Subscription<Counter>;
    type Alone = Subscription<Alone>;
    type Registration = Registration<Counter>;
    type Slow = Registration<Slow>;
    type Shared = Shared<Counter>;
    type Mirror = Subscription<Table>;
    type Active<'s> = Active<'s>;
    /// There are no batches: one range after another.
    type Batch<'s> = (&'s Space, Vec<u64>);

    fn space() -> Arc<Space> {
        Space::new()
    }

    fn exit(space: Arc<Space>) {
        space.exit();
    }

    #[inline]
    fn cycle(space: &Arc<Space>, from: u64, length: u64) {
        space.invalidate_start(from..from + length).end();
    }

    #[inline]
    fn cycle_all(space: &Arc<Space>) {
        // An end of 0 is the top of the address space.
        #[expect(
            clippy::reversed_empty_ranges,
            reason = "so the twin writes the whole space but its first byte"
        )]
        space.invalidate_start(1..0).end();
    }

    #[inline]
    fn start(space: &Arc<Space>, from: u64, length: u64) -> Active<'_> {
        space.invalidate_start(from..from + length)
    }

    fn batch<'s>(space: &'s Arc<Space>, pages: &[u64]) -> Self::Batch<'s> {
        (space, pages.to_vec())
    }

    #[inline]
    fn cycle_batch((space, pages): &mut Self::Batch<'_>) {
        for &page in pages.iter() {
            space.invalidate_start(page..page + PAGE).end();
        }
    }

    #[inline]
    fn record() -> Self::Record {
        Interval::boxed(Counter)
    }

    #[inline]
    fn insert(space: &Arc<Space>, record: Self::Record, from: u64, length: u64) -> Self::Interval {
        space.insert(from..from + length, record).expect(READY)
    }

    #[inline]
    fn remove(interval: Self::Interval) -> Self::Record {
        interval.remove()
    }

    #[inline]
    fn read(interval: &Self::Interval) -> bool {
        let token = interval.read_begin();
        interval.read_retry(token)
    }

    fn read_begin(interval: &Self::Interval) {
        interval.read_begin();
    }

    fn insert_alone(space: &Arc<Space>, from: u64, length: u64) -> Self::Alone {
        space.insert(from..from + length, Interval::boxed(Alone::default())).expect(READY)
    }

    #[inline]
    fn register(space: &Arc<Space>) -> Self::Registration {
        space.register(Entry::boxed(Counter)).expect(READY)
    }

    #[inline]
    fn unregister(registration: Self::Registration) {
        drop(registration.unregister());
    }

    fn register_slow(space: &Arc<Space>, sleep: Duration) -> Self::Slow {
        space.register(Entry::boxed(Slow(sleep))).expect(READY)
    }

    #[inline]
    fn get(space: &Arc<Space>) -> Self::Shared {
        space.get(|| Counter).expect(READY)
    }

    #[inline]
    fn put(shared: Self::Shared) {
        shared.put();
    }

    fn mirror(space: &Arc<Space>, from: u64, length: u64) -> Self::Mirror {
        space.insert(from..from + length, Interval::boxed(Table::default())).expect(READY)
    }

    #[inline]
    fn look_up(mirror: &Self::Mirror) -> Option<u64> {
        *mirror.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[inline]
    fn fault(mirror: &Self::Mirror, translation: u64) {
        loop {
            let token = mirror.read_begin();
            let mut table = mirror.0.lock().unwrap_or_else(PoisonError::into_inner);
            if !mirror.read_retry(token) {
                *table = Some(translation);
                return;
            }
        }
    }
}
