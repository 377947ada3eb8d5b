//! The owned subscription: the handle of its [records](super::record), which are removed when it is dropped.
//! How it changes its range is told in [`replace`](super::replace).
//!
//! # Removal
//! Withdraw (out of the index, no callbacks any more), F, wait for starts of other threads that overlap and
//! are calling. In a callback of the own thread the memory stays until that call is over: a hung node frees
//! it. Detach leaves all waiting to the hung node.

use core::fmt;
use core::marker::PhantomData;
use core::ops::Deref;
use core::ptr::NonNull;

use super::node::Node;
use super::record::{First, first_of, free_all, space_of, take_apart};
use super::removal::{withdraw, withdraw_and_wait};
use super::{InsertError, InsertErrorKind, Notifier, Options};
use crate::address::Range;
use crate::diagnostics;
use crate::platform;
use crate::space::AddressSpaceRef;
use crate::subscriptions::Subscriptions;
use crate::trace;

/// A subscription to a range, owned by the subscriber. Dropping it removes it.
///
/// It dereferences to its notifier. It is a holder of its space, and may outlive the last user.
pub struct Subscription<N: Notifier> {
    /// The node in the index: that of the first record until the first resize. All else is reached through it, since
    /// one who reads among many waits for the line of the handle, and for that of the node.
    pub(super) node: NonNull<Node>,
    pub(super) first: PhantomData<NonNull<First<N>>>,
}

// SAFETY: a subscription is its notifier, which is Send and Sync, and nodes that are meant to be shared.
unsafe impl<N: Notifier> Send for Subscription<N> {}
// SAFETY: as above.
unsafe impl<N: Notifier> Sync for Subscription<N> {}

impl<N: Notifier> Subscription<N> {
    /// Inserts a new one; `subscriptions` are those of `space`, ready for intervals.
    pub(crate) fn insert(
        space: &AddressSpaceRef,
        subscriptions: &Subscriptions,
        range: Range,
        options: Options,
        notifier: N,
    ) -> Result<Self, InsertError<N>> {
        let first = First::make(space, subscriptions, range, options, notifier)
            .map_err(|notifier| InsertError { cause: InsertErrorKind::OutOfMemory, notifier })?;
        let node = first.cast::<Node>();
        // SAFETY: the node is not in an index, and is freed after its removal only.
        let result = unsafe { subscriptions.index.insert(&subscriptions.book, node, &[]) };
        match result {
            Ok(()) => {
                trace::inserted(subscriptions, node);
                Ok(Subscription { node, first: PhantomData })
            }
            Err(refused) => {
                // SAFETY: it was not inserted, so nobody else knows it.
                let notifier = unsafe { take_apart(first) };
                Err(InsertError { cause: refused.into(), notifier })
            }
        }
    }

    #[inline]
    pub(super) fn node(&self) -> &Node {
        // SAFETY: the node lives until the subscription is removed.
        unsafe { self.node.as_ref() }
    }

    /// The space that it belongs to.
    #[inline]
    pub fn space(&self) -> &AddressSpaceRef {
        // SAFETY: the records of this subscription keep a holder.
        unsafe { space_of(self.node()).held() }
    }

    #[inline]
    pub(super) fn subscriptions(&self) -> &Subscriptions {
        self.space().watched()
    }

    /// The range that it watches.
    pub fn range(&self) -> Range {
        let (first, last) = self.node().bounds();
        Range::from_first_last(first, last).expect("a node has the bounds of a range")
    }

    /// Removes it: when this returns, no callback of it runs or will run, and the notifier is dropped.
    ///
    /// It waits for starts that overlap it and are still calling interval callbacks, and for nothing else. In
    /// a callback it does not wait for its own thread; what it owns is then dropped when that call is over.
    ///
    /// # Context
    /// May sleep. No lock may be held that a callback of an overlapping subscription takes.
    pub fn remove(self) {
        drop(self);
    }

    /// Lets go of it without waiting: no callback begins from now on, and what it owns is dropped when the
    /// last one that runs is over (or later, where the space leaves that to calls that may sleep).
    ///
    /// # Context
    /// Does not sleep; may be called in any callback.
    pub fn detach(self) {
        let this = core::mem::ManuallyDrop::new(self);
        // The records may hold their space as the last ones: what is borrowed of it may not go with them.
        let held = this.space().clone();
        let subscriptions = held.watched();
        withdraw(subscriptions, this.node);
        this.leave_behind(subscriptions);
    }

    /// Leaves the rest to the hooks, which free the records when no start can know them any more.
    fn leave_behind(&self, subscriptions: &Subscriptions) {
        // SAFETY: the node is withdrawn, behind a full fence, and its handle goes; with its record goes what holds the space.
        unsafe { subscriptions.hooks.hang_interval(&subscriptions.book, self.node) };
    }
}

impl<N: Notifier> Drop for Subscription<N> {
    fn drop(&mut self) {
        platform::in_drop(|| self.leave());
    }
}

impl<N: Notifier> Subscription<N> {
    /// What `remove` and `drop` do.
    fn leave(&mut self) {
        let subscriptions = self.subscriptions();
        diagnostics::may_sleep(subscriptions, "remove", self.node().label());
        if withdraw_and_wait(subscriptions, self.node) {
            // CONTRACT C3.7: within a callback the own thread's calls are not waited for. Other threads' second
            // passes are over; those of the own one are taken back.
            self.node().strike();
            self.leave_behind(subscriptions);
            return;
        }
        let left =
            subscriptions.has_left().then(|| platform::catch(|| subscriptions.may_sleep()).err()).flatten();
        // SAFETY: withdrawn, and every start that may have found it was waited for.
        platform::behind(&left, || unsafe { free_all::<N>(self.node) });
        if let Some(payload) = left {
            platform::resume(payload);
        }
    }
}

impl<N: Notifier> Deref for Subscription<N> {
    type Target = N;

    fn deref(&self) -> &N {
        // SAFETY: the node is one of this subscription, which is alive.
        let first = unsafe { first_of::<N>(self.node) };
        // SAFETY: the first record lives until the subscription is removed.
        unsafe { &(*first.as_ptr()).notifier }
    }
}

impl<N: Notifier> fmt::Debug for Subscription<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription")
            .field("range", &self.range())
            .field("label", &self.node().label())
            .finish()
    }
}

impl From<crate::index::Refused> for InsertErrorKind {
    fn from(refused: crate::index::Refused) -> Self {
        match refused {
            crate::index::Refused::Closed => InsertErrorKind::Gone,
            crate::index::Refused::OutOfMemory => InsertErrorKind::OutOfMemory,
        }
    }
}
