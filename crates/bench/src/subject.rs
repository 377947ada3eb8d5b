//! What rows ask of a library: the calls that they measure.
//!
//! The rows are written once, for every subject; the calls are inlined into them.

mod ours;

pub(crate) use ours::Ours;

/// A page, in bytes.
pub(crate) const PAGE: u64 = 4096;

/// A library that is measured.
pub(crate) trait Subject {
    /// An address space, with its user.
    type Space: Sync;
    /// A subscription to a range; its callback counts.
    type Interval: Send + Sync;
    /// A subscription to the whole space; its callbacks count.
    type Registration: Send;

    fn space() -> Self::Space;

    /// Starts an invalidation and ends it.
    fn cycle(space: &Self::Space, from: u64, length: u64);

    fn insert(space: &Self::Space, from: u64, length: u64) -> Self::Interval;

    fn remove(interval: Self::Interval);

    /// Begins to read and asks whether to retry.
    fn read(interval: &Self::Interval) -> bool;

    fn register(space: &Self::Space) -> Self::Registration;

    fn unregister(registration: Self::Registration);
}
