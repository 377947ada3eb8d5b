//! What rows ask of a library: the calls that they measure.
//!
//! The rows are written once, for every subject; the calls are inlined into them.

mod kernel_like;
mod ours;

use std::time::Duration;

pub(crate) use kernel_like::KernelLike;
pub(crate) use ours::Ours;

/// A page, in bytes.
pub(crate) const PAGE: u64 = 4096;

/// A library that is measured. Ranges are given as start and length in bytes.
pub(crate) trait Subject {
    /// An address space, with its user.
    type Space: Sync;
    /// The memory that a subscription to a range needs, if its user supplies it.
    type Record: Send;
    /// A subscription to a range; its callback counts, all in one place.
    type Interval: Send + Sync;
    /// A subscription to a range; its callback counts in memory of its own.
    type Alone: Send + Sync;
    /// A subscription to the whole space; its callbacks count.
    type Registration: Send;
    /// A subscription to the whole space; its first callback sleeps.
    type Slow: Send;
    /// One reference to a subscription to the whole space that several share.
    type Shared;
    /// A cache of one translation, with its lock and its subscription.
    type Mirror: Sync;
    /// An invalidation that has begun; its drop ends it.
    type Active<'s>;
    /// Ranges that are invalidated together, if the library can do that.
    type Batch<'s>;

    fn space() -> Self::Space;

    /// Lets the last user go.
    fn exit(space: Self::Space);

    /// Starts an invalidation and ends it, in the form without a guard if there is one.
    fn cycle(space: &Self::Space, from: u64, length: u64);

    /// The same for all addresses.
    fn cycle_all(space: &Self::Space);

    fn start(space: &Self::Space, from: u64, length: u64) -> Self::Active<'_>;

    /// Prepares a batch of one page from each of the addresses on.
    fn batch<'s>(space: &'s Self::Space, pages: &[u64]) -> Self::Batch<'s>;

    /// Starts and ends a batch.
    fn cycle_batch(batch: &mut Self::Batch<'_>);

    fn record() -> Self::Record;

    fn insert(space: &Self::Space, record: Self::Record, from: u64, length: u64) -> Self::Interval;

    fn remove(interval: Self::Interval) -> Self::Record;

    /// Begins to read and asks whether to retry.
    fn read(interval: &Self::Interval) -> bool;

    /// Begins to read, sleeping while the interval is busy.
    fn read_begin(interval: &Self::Interval);

    fn insert_alone(space: &Self::Space, from: u64, length: u64) -> Self::Alone;

    fn register(space: &Self::Space) -> Self::Registration;

    fn unregister(registration: Self::Registration);

    fn register_slow(space: &Self::Space, sleep: Duration) -> Self::Slow;

    fn get(space: &Self::Space) -> Self::Shared;

    fn put(shared: Self::Shared);

    fn mirror(space: &Self::Space, from: u64, length: u64) -> Self::Mirror;

    /// Looks for the translation.
    fn look_up(mirror: &Self::Mirror) -> Option<u64>;

    /// Brings the translation in.
    fn fault(mirror: &Self::Mirror, translation: u64);
}
