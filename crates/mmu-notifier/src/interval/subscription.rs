//! The owned subscription: a node and its notifier in one allocation, removed when it is dropped.
//!
//! # Removal
//! Withdraw (out of the index, no callbacks any more), F, wait for starts of other threads that overlap and
//! are calling. In a callback of the own thread the memory stays until that call is over: a hung node frees
//! it. Detach leaves all waiting to the hung node.
//!
//! # Replacement
//! The new node is published with an order *n*; in the same step the old one's table is swapped for one that
//! only starts with a limit below *n* pass, and these skip the new one. So each start calls exactly one. The
//! old node stays in the index until no start is calling that may have passed the new one's place; then it is
//! removed as above. The notifier stays where it is: the new node leads to it.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;
use core::marker::PhantomData;
use core::ops::Deref;
use core::ptr::{self, NonNull};

use super::node::{Callbacks, Node};
use super::removal::{wait_for_callers, withdraw};
use super::{Answer, InsertError, InsertErrorKind, Notifier, Options, Sequence};
use crate::address::Range;
use crate::diagnostics;
use crate::hung::{Hung, When};
use crate::invalidation::{Invalidation, Owner};
use crate::platform;
use crate::scan::{Own, Wanted};
use crate::space::AddressSpaceRef;
use crate::subscriptions::Subscriptions;
use crate::sync::full_fence;
use crate::trace;

/// What all nodes of a subscription lead to. Dropped: the notifier, then the space.
struct Root<N> {
    notifier: N,
    space: AddressSpaceRef,
}

/// The first node and the root, in one allocation.
///
/// # Invariants
/// - `node` is the first field: its address is that of the record.
/// - The data of every node of the subscription is the address of `root`, which is freed with or after them.
#[repr(C)]
struct First<N> {
    node: Node,
    root: Root<N>,
}

/// The callbacks of a subscriber of one type.
struct Table<N>(PhantomData<N>);

impl<N: Notifier> First<N> {
    /// Makes one with a node for `range`; gives the notifier back if there is no memory.
    fn make(
        space: &AddressSpaceRef,
        range: Range,
        options: Options,
        notifier: N,
    ) -> Result<NonNull<Self>, N> {
        let node = Node::new(range, options.owner, options.label, Table::<N>::CALLBACKS);
        let root = Root { notifier, space: space.clone() };
        let first = crate::memory::try_box(First { node, root }).map_err(|first| first.root.notifier)?;
        let first = NonNull::from(Box::leak(first));
        // By its address alone: a pointer made of a reference to the root would not lead to the node before it.
        let root = first.as_ptr().cast::<u8>().wrapping_add(core::mem::offset_of!(First<N>, root));
        // SAFETY: first is a fresh allocation that nobody else knows.
        unsafe { &(*first.as_ptr()).node }.set_data(root.cast_const().cast());
        Ok(first)
    }
}

/// Where the root is that a node of a `Subscription<N>` leads to.
fn root_behind<N>(node: &Node) -> *const Root<N> {
    node.data().cast()
}

impl<N: Notifier> Table<N> {
    const CALLBACKS: &'static Callbacks = &Callbacks { invalidate: invalidate::<N>, finish: finish::<N> };
}

/// # Safety
/// The node is that of a `Subscription<N>`, found by a start.
unsafe fn invalidate<N: Notifier>(node: NonNull<Node>, what: &Invalidation, seq: Sequence) -> Answer {
    // SAFETY: the node is readable until the start is through (I6).
    let root = root_behind::<N>(unsafe { node.as_ref() });
    // SAFETY: the root goes with the last node that leads to it.
    let root = unsafe { &*root };
    root.notifier.invalidate(what, seq)
}

/// # Safety
/// As for [`invalidate`].
unsafe fn finish<N: Notifier>(node: NonNull<Node>, what: &Invalidation) {
    // SAFETY: the node is readable until the start is through (I6).
    let root = root_behind::<N>(unsafe { node.as_ref() });
    // SAFETY: the root goes with the last node that leads to it.
    let root = unsafe { &*root };
    root.notifier.finish(what);
}

/// A subscription to a range, owned by the subscriber. Dropping it removes it.
///
/// It dereferences to its notifier. It is a holder of its space, and may outlive the last user.
pub struct Subscription<N: Notifier> {
    /// The node in the index: that of the first record until the first resize.
    node: NonNull<Node>,
    first: NonNull<First<N>>,
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
        let first = First::make(space, range, options, notifier)
            .map_err(|notifier| InsertError { cause: InsertErrorKind::OutOfMemory, notifier })?;
        let node = first.cast::<Node>();
        // SAFETY: the node is not in an index, and is freed after its removal only.
        let result = unsafe { subscriptions.index.insert(&subscriptions.book, node, &[]) };
        match result {
            Ok(()) => {
                trace::inserted(subscriptions, node);
                Ok(Subscription { node, first })
            }
            Err(refused) => {
                // SAFETY: it was not inserted, so nobody else knows it.
                let first = unsafe { Box::from_raw(first.as_ptr()) };
                Err(InsertError { cause: refused.into(), notifier: first.root.notifier })
            }
        }
    }

    #[inline]
    pub(super) fn node(&self) -> &Node {
        // SAFETY: the node lives until the subscription is removed.
        unsafe { self.node.as_ref() }
    }

    fn root(&self) -> &Root<N> {
        // SAFETY: the first record lives until the subscription is removed.
        unsafe { &(*self.first.as_ptr()).root }
    }

    /// The space that it belongs to.
    pub fn space(&self) -> &AddressSpaceRef {
        &self.root().space
    }

    pub(super) fn subscriptions(&self) -> &Subscriptions {
        self.root().space.watched()
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
        let old = self.node();
        let node = Node::new(range, Owner::new(old.owner()), old.label(), Table::<N>::CALLBACKS);
        node.set_data(old.data());
        let node = match crate::memory::try_box(node) {
            Ok(node) => NonNull::from(Box::leak(node)),
            Err(_) => return Err(ReplaceError { cause: ReplaceErrorKind::OutOfMemory, subscriptions: self }),
        };
        if let Err(cause) = take_over(subscriptions, node, &[self.node]) {
            // SAFETY: it was not inserted, so nobody else knows it.
            drop(unsafe { Box::from_raw(node.as_ptr()) });
            return Err(ReplaceError { cause, subscriptions: self });
        }
        let old = core::mem::ManuallyDrop::new(self);
        if old.node.cast() != old.first {
            // SAFETY: the node of an earlier resize was removed and waited for; the root is not with it.
            drop(unsafe { Box::from_raw(old.node.as_ptr()) });
        }
        Ok(Subscription { node, first: old.first })
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
        let first = match First::make(space, range, options, notifier) {
            Ok(first) => first,
            Err(notifier) => return fail(ReplaceErrorKind::OutOfMemory, olds, notifier),
        };
        if let Err(cause) = take_over(subscriptions, first.cast(), &nodes) {
            // SAFETY: it was not inserted, so nobody else knows it.
            let first = unsafe { Box::from_raw(first.as_ptr()) };
            return fail(cause, olds, first.root.notifier);
        }
        // If the drop of an old notifier panics, the new one is removed again.
        let new = Subscription { node: first.cast(), first };
        // SAFETY: take_over removed them and waited for every start that may have found them.
        unsafe { free_replaced(olds) };
        Ok(new)
    }

    /// Leaves the rest to a hung node, which frees the records when no start can know them any more.
    fn leave_behind(&self, subscriptions: &Subscriptions) {
        let hung = self.node.as_ptr().cast::<u8>().wrapping_add(core::mem::offset_of!(Node, hung));
        // SAFETY: the hung node lies in the node, so its address is not null.
        let hung = unsafe { NonNull::new_unchecked(hung.cast()) };
        let wanted = Wanted::Called { bounds: self.node().bounds(), own: Own::Awaited };
        let how = (free_hung::<N> as crate::hung::Finish, When::MayBeLeft);
        // SAFETY: the node is withdrawn, behind a full fence, and stays until free_hung; the space is held by its
        // root.
        unsafe { subscriptions.hooks.hang(&subscriptions.book, hung, wanted, how) };
    }
}

/// Frees all nodes of a subscription, and what they lead to.
///
/// # Safety
/// No start knows the nodes, and they are not used again.
unsafe fn free_nodes<N>(node: NonNull<Node>, first: NonNull<First<N>>) {
    if node.cast() != first {
        // SAFETY: a node of its own, made by `resize`; as promised by the caller.
        drop(unsafe { Box::from_raw(node.as_ptr()) });
    }
    // SAFETY: made by `First::make`; as promised by the caller.
    drop(unsafe { Box::from_raw(first.as_ptr()) });
}

/// Frees all nodes of subscriptions that another was put in the place of; a panic goes on behind the last.
///
/// # Safety
/// As for [`free_nodes`], for each.
unsafe fn free_replaced<N: Notifier>(olds: Vec<Subscription<N>>) {
    // They are out of the index, so none may ever be dropped as a subscription, not while a panic passes either.
    let mut olds = core::mem::ManuallyDrop::new(olds);
    let mut panic = None;
    for old in olds.iter() {
        // SAFETY: as promised by the caller.
        let freed = platform::catch(|| unsafe { free_nodes(old.node, old.first) });
        panic = panic.or(freed.err());
    }
    // SAFETY: 0 is not more than the capacity, and what stood there was freed.
    unsafe { olds.set_len(0) };
    drop(core::mem::ManuallyDrop::into_inner(olds));
    if let Some(payload) = panic {
        platform::resume(payload);
    }
}

/// # Safety
/// The hung node is that of a withdrawn `Subscription<N>` that no start knows any more.
unsafe fn free_hung<N: Notifier>(hung: NonNull<Hung>) {
    let node = hung.as_ptr().cast::<u8>().wrapping_sub(core::mem::offset_of!(Node, hung));
    // SAFETY: the node begins before its hung node in the same allocation, so its address is not null.
    let node = unsafe { NonNull::new_unchecked(node.cast::<Node>()) };
    // SAFETY: the node is alive until it is freed below.
    let root = root_behind::<N>(unsafe { node.as_ref() });
    let first = root.cast::<u8>().wrapping_sub(core::mem::offset_of!(First<N>, root)).cast_mut();
    // SAFETY: the root lies in the first record, behind its node.
    let first = unsafe { NonNull::new_unchecked(first.cast()) };
    // SAFETY: no start knows the nodes any more.
    unsafe { free_nodes::<N>(node, first) };
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
        withdraw(subscriptions, self.node);
        wait_for_callers(subscriptions, self.node);
        if subscriptions.innermost().is_some() {
            // CONTRACT C3.7: within a callback the own thread's calls are not waited for. Other threads' second
            // passes are over; those of the own one are taken back.
            self.node().strike();
            self.leave_behind(subscriptions);
            return;
        }
        let left = platform::catch(|| subscriptions.may_sleep()).err();
        // SAFETY: withdrawn, and every start that may have found it was waited for.
        unsafe { free_nodes(self.node, self.first) };
        if let Some(payload) = left {
            platform::resume(payload);
        }
    }
}

impl<N: Notifier> Deref for Subscription<N> {
    type Target = N;

    fn deref(&self) -> &N {
        &self.root().notifier
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
