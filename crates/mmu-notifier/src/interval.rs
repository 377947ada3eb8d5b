//! The interval side: subscriptions to a range, with collision-retry (clause C3).
//!
//! A [`Subscription`] hears of every invalidation that overlaps its range, before the primary MMU makes the
//! change. A reader that builds translations takes a token first, reads the primary MMU, and commits under its
//! own lock only if no invalidation hit in between:
//!
//! ```
//! use std::sync::Mutex;
//! use mmu_notifier::interval::{Answer, Notifier, Sequence};
//! use mmu_notifier::{AddressSpace, Invalidation, Range};
//!
//! /// A device's translation of one range.
//! struct Translation(Mutex<Option<u64>>);
//!
//! impl Notifier for Translation {
//!     fn invalidate(&self, _: &Invalidation, _: Sequence) -> Answer {
//!         *self.0.lock().unwrap() = None;
//!         Answer::Done
//!     }
//! }
//!
//! let space = AddressSpace::new();
//! let range = Range::from_len(0x1000u64, 0x1000)?;
//! let device = space.insert(range, Translation(Mutex::new(None))).unwrap();
//! loop {
//!     let token = device.read_begin();
//!     let frame = 42; // walk the primary MMU
//!     let mut entry = device.0.lock().unwrap();
//!     if !device.read_retry(token) {
//!         *entry = Some(frame);
//!         break;
//!     }
//! }
//! space.invalidate(range, || { /* change the page table */ });
//! assert_eq!(*device.0.lock().unwrap(), None);
//! # Ok::<(), mmu_notifier::RangeError>(())
//! ```

#![expect(unsafe_code, reason = "records are shared with starts through raw pointers")]

mod node;
mod quiet;
mod read;
mod record;
pub(crate) mod removal;
mod replace;
mod subscription;
mod table;

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests;

use alloc::sync::Arc;
use core::fmt;

pub use node::Sequence;
pub(crate) use node::{Callbacks, Node, SequenceBy};
pub use read::{ReadBegin, ReadToken};
pub use replace::{NotReplaced, ReplaceError, ReplaceErrorKind};
pub use subscription::Subscription;
pub(crate) use table::Tables;

use crate::invalidation::{Invalidation, Owner};
use crate::space::LockAllError;

/// What a subscriber answers to an invalidation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The translations in the range are gone.
    Done,
    /// It would have to sleep and may not. Only where [`Invalidation::is_blockable`] says no; elsewhere it is
    /// a diagnosed bug, and taken as [`Done`](Answer::Done).
    Refused,
    /// It has begun, and [`Notifier::finish`] will complete it (clause C3.8).
    Begun,
}

/// A subscriber to a range: a secondary MMU that keeps translations of it.
///
/// Also implemented for `Arc`s of notifiers and for closures `Fn(&Invalidation) -> Answer`.
pub trait Notifier: Send + Sync + 'static {
    /// Drops the translations in the invalidation's range, under the subscriber's lock.
    ///
    /// Every token is stale before it is called. `seq` is odd and never comes twice to one subscription.
    ///
    /// # Context
    /// Runs in the thread that invalidates. May sleep only if the invalidation is blockable. May start and end
    /// invalidations of other ranges, remove this or another subscription (it then does not wait for itself),
    /// and detach any. A panic goes on to the caller of the start, which is undone.
    fn invalidate(&self, invalidation: &Invalidation, seq: Sequence) -> Answer;

    /// Completes what [`invalidate`](Self::invalidate) answered [`Begun`](Answer::Begun) to, after all that
    /// this invalidation hits were called once.
    ///
    /// # Context
    /// As for `invalidate`.
    fn finish(&self, invalidation: &Invalidation) {
        let _ = invalidation;
    }
}

impl<N: Notifier + ?Sized> Notifier for Arc<N> {
    fn invalidate(&self, invalidation: &Invalidation, seq: Sequence) -> Answer {
        (**self).invalidate(invalidation, seq)
    }

    fn finish(&self, invalidation: &Invalidation) {
        (**self).finish(invalidation);
    }
}

impl<F: Fn(&Invalidation) -> Answer + Send + Sync + 'static> Notifier for F {
    fn invalidate(&self, invalidation: &Invalidation, _seq: Sequence) -> Answer {
        self(invalidation)
    }
}

/// What a subscription may have beside its range.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    pub(crate) owner: Option<Owner>,
    pub(crate) label: Option<&'static str>,
}

impl Options {
    /// Neither owner nor label.
    pub const fn new() -> Self {
        Options { owner: None, label: None }
    }

    /// Says whether there is neither.
    pub(crate) const fn are_none(&self) -> bool {
        self.owner.is_none() && self.label.is_none()
    }

    /// Invalidations with this owner are not the subscriber's business (clause C3.12): it is not called for
    /// them, its tokens stay fresh, and it is not busy for them.
    pub const fn owner(self, owner: Owner) -> Self {
        Options { owner: Some(owner), ..self }
    }

    /// A name for diagnostics.
    pub const fn label(self, label: &'static str) -> Self {
        Options { label: Some(label), ..self }
    }
}

/// Why an insert failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InsertErrorKind {
    /// The space has no users any more.
    Gone,
    /// There is no memory.
    OutOfMemory,
    /// The primary MMU's `lock_all` failed; only where this is the first insert of its space.
    LockAll(LockAllError),
}

impl fmt::Display for InsertErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InsertErrorKind::Gone => f.write_str("the address space has no users any more"),
            InsertErrorKind::OutOfMemory => f.write_str("out of memory"),
            InsertErrorKind::LockAll(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for InsertErrorKind {}

/// A failed insert: why, and the notifier, as if never touched.
pub struct InsertError<N> {
    /// Why.
    pub cause: InsertErrorKind,
    /// What was to be inserted.
    pub notifier: N,
}

impl<N> fmt::Debug for InsertError<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InsertError").field("cause", &self.cause).finish_non_exhaustive()
    }
}

impl<N> fmt::Display for InsertError<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cause.fmt(f)
    }
}

impl<N> core::error::Error for InsertError<N> {}
