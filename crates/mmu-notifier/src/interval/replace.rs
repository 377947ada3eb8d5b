//! Subscriptions that change their range, or take the place of several, at one moment.
//!
//! # Protocol
//! The new node is published with an order *n*; in the same step the old one is tagged as replaced, so that only
//! starts with a limit below *n* call it, and these skip the new one. So each start calls exactly one. The
//! old node stays in the index until no start is calling that may have passed the new one's place; then it is
//! removed as ever. The notifier stays where it is: the new node leads to it.

use alloc::vec::Vec;
use core::fmt;
use core::marker::PhantomData;
use core::mem::ManuallyDrop;
use core::ptr::{self, NonNull};

use super::node::Node;
use super::record::{First, first_of, free_all, free_moved, make_moved, take_apart};
use super::removal::{wait_for_callers, withdraw};
use super::{InsertErrorKind, Notifier, Options, Subscription};
use crate::address::Range;
use crate::platform::{self, keep_first};
use crate::space::AddressSpaceRef;
use crate::subscriptions::Subscriptions;
use crate::sync::full_fence;
use crate::trace;

impl<N: Notifier> Subscription<N> {
    /// Watches `range` from now on, with the same notifier. An address that is watched before and after is
    /// watched at every moment between; tokens of the old range are stale.
    ///
    /// # Errors
    /// Gives the subscription back, unchanged: the space is gone, no memory, or this is called in a callback of
    /// an invalidation that overlaps it.
    ///
    /// # Context
    /// May sleep, as [`remove`](Self::remove).
    pub fn resize(self, range: Range) -> Result<Self, ReplaceError<Self>> {
        let subscriptions = self.subscriptions();
        // SAFETY: the node is one of this subscription, which is alive.
        let first = unsafe { first_of::<N>(self.node) };
        let Some(node) = make_moved(first, subscriptions, range, self.node()) else {
            return Err(ReplaceError { cause: ReplaceErrorKind::OutOfMemory, subscriptions: self });
        };
        if let Err(cause) = take_over(subscriptions, node, &[self.node]) {
            // SAFETY: it was not inserted, so nobody else knows it.
            unsafe { free_moved::<N>(node) };
            return Err(ReplaceError { cause, subscriptions: self });
        }
        let old = ManuallyDrop::new(self);
        if old.node.cast() != first {
            // SAFETY: the node of an earlier resize was removed and waited for.
            unsafe { free_moved::<N>(old.node) };
        }
        Ok(Subscription { node, first: PhantomData })
    }

    /// Puts one new subscription in the place of several of its space, atomically as [`resize`](Self::resize).
    ///
    /// # Errors
    /// Gives all back, unchanged, and the notifier with them.
    ///
    /// # Context
    /// May sleep, as [`remove`](Self::remove). Removes the old ones.
    pub fn replace<O: Notifier>(
        olds: Vec<Subscription<O>>,
        space: &AddressSpaceRef,
        range: Range,
        options: Options,
        notifier: N,
    ) -> Result<Self, ReplaceError<NotReplaced<O, N>>> {
        let fail = |cause, olds, notifier| Err(ReplaceError { cause, subscriptions: (olds, notifier) });
        let foreign = olds.iter().any(|old| !ptr::eq(old.space().space(), space.space()));
        let Some(subscriptions) = space.space().subscriptions().filter(|_| !foreign && !olds.is_empty())
        else {
            return fail(ReplaceErrorKind::OtherSpace, olds, notifier);
        };
        let mut nodes = Vec::new();
        if nodes.try_reserve_exact(olds.len()).is_err() {
            return fail(ReplaceErrorKind::OutOfMemory, olds, notifier);
        }
        nodes.extend(olds.iter().map(|old| old.node));
        let first = match First::make(space, subscriptions, range, options, notifier) {
            Ok(first) => first,
            Err(notifier) => return fail(ReplaceErrorKind::OutOfMemory, olds, notifier),
        };
        if let Err(cause) = take_over(subscriptions, first.cast(), &nodes) {
            // SAFETY: it was not inserted, so nobody else knows it.
            let notifier = unsafe { take_apart(first) };
            return fail(cause, olds, notifier);
        }
        // If the drop of an old notifier panics, the new one is removed again.
        let new = Subscription { node: first.cast(), first: PhantomData };
        // SAFETY: take_over removed them and waited for every start that may have found them.
        unsafe { free_replaced(olds) };
        Ok(new)
    }
}

/// Puts `node` in the place of `olds`, and removes those.
fn take_over(
    subscriptions: &Subscriptions,
    node: NonNull<Node>,
    olds: &[NonNull<Node>],
) -> Result<(), ReplaceErrorKind> {
    if subscriptions.innermost().is_some() {
        return Err(ReplaceErrorKind::InCallback);
    }
    subscriptions.may_sleep();
    if !subscriptions.book.refill(0) {
        return Err(ReplaceErrorKind::OutOfMemory);
    }
    // SAFETY: the node is new; its owner frees it after its removal only. The olds are in the index.
    unsafe { subscriptions.index.insert(&subscriptions.book, node, olds) }
        .map_err(|refused| ReplaceErrorKind::from(InsertErrorKind::from(refused)))?;
    // ORDERING: counter = n, F, scan; against publication, F, limit of a start.
    full_fence();
    trace::inserted(subscriptions, node);
    olds.iter().for_each(|old| wait_for_callers(subscriptions, *old));
    for old in olds {
        withdraw(subscriptions, *old);
        wait_for_callers(subscriptions, *old);
    }
    Ok(())
}

/// Frees all nodes of subscriptions that another was put in the place of; a panic goes on behind the last.
///
/// # Safety
/// As for [`free_all`], for each.
unsafe fn free_replaced<N: Notifier>(olds: Vec<Subscription<N>>) {
    // They are out of the index, so none may ever be dropped as a subscription, not while a panic passes either.
    let mut olds = ManuallyDrop::new(olds);
    let mut panic = None;
    for old in olds.iter() {
        // SAFETY: as promised by the caller.
        let freed = platform::catch(|| unsafe { free_all::<N>(old.node) });
        keep_first(&mut panic, freed.err());
    }
    // SAFETY: 0 is not more than the capacity, and what stood there was freed.
    unsafe { olds.set_len(0) };
    drop(ManuallyDrop::into_inner(olds));
    if let Some(payload) = panic {
        platform::resume(payload);
    }
}

/// Why a subscription was not put in the place of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReplaceErrorKind {
    /// The space has no users any more.
    Gone,
    /// There is no memory.
    OutOfMemory,
    /// Called in a callback of this space, which it might have to wait for.
    InCallback,
    /// None is to be replaced, or one of another space.
    OtherSpace,
}

impl From<InsertErrorKind> for ReplaceErrorKind {
    fn from(kind: InsertErrorKind) -> Self {
        match kind {
            InsertErrorKind::OutOfMemory => ReplaceErrorKind::OutOfMemory,
            _ => ReplaceErrorKind::Gone,
        }
    }
}

impl fmt::Display for ReplaceErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ReplaceErrorKind::Gone => "the address space has no users any more",
            ReplaceErrorKind::OutOfMemory => "out of memory",
            ReplaceErrorKind::InCallback => {
                "a subscription cannot be replaced within a callback of its space"
            }
            ReplaceErrorKind::OtherSpace => {
                "the subscriptions to replace must be of this space, and not none"
            }
        })
    }
}

impl core::error::Error for ReplaceErrorKind {}

/// What a failed [`Subscription::replace`] gives back: the subscriptions, and the new notifier.
pub type NotReplaced<O, N> = (Vec<Subscription<O>>, N);

/// A failed replacement: why, and what is still as it was.
pub struct ReplaceError<S> {
    /// Why.
    pub cause: ReplaceErrorKind,
    /// What was to be replaced, and what with.
    pub subscriptions: S,
}

impl<S> fmt::Debug for ReplaceError<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplaceError").field("cause", &self.cause).finish_non_exhaustive()
    }
}

impl<S> fmt::Display for ReplaceError<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cause.fmt(f)
    }
}

impl<S> core::error::Error for ReplaceError<S> {}
