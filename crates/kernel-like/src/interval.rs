//! Interval subscriptions: a node with its user's callbacks behind it, and the right to one that is in a space.
#![expect(unsafe_code, reason = "nodes in their users' memory")]

use std::fmt;
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::node::{Link, Node};
use crate::space::Space;

pub use crate::invalidation::{Answer, Invalidation};

/// A sequence: what [`Interval::read_begin`] gives, and each hit renews.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Sequence(u64);

/// What an interval calls.
pub trait Notifier: Send + Sync + Sized + 'static {
    /// Drops the copies in the range, and calls [`Interval::set_seq`] under the lock that readers take around
    /// [`Interval::read_retry`]. Only for a range that [is blockable](Invalidation::is_blockable) it may sleep.
    fn invalidate(interval: &Interval<Self>, what: &Invalidation, seq: Sequence) -> Answer;
}

/// The record of a subscription, in its user's memory.
///
/// # Invariants
/// `node` is the first field, and its `call` was made for `C`. `node.space` is set exactly while it is in a space,
/// and one strong count of that space is the node's.
#[repr(C)]
pub struct Interval<C> {
    node: Node,
    callbacks: C,
}

impl<C: Notifier> Interval<C> {
    /// Makes one that is in no space.
    pub fn new(callbacks: C) -> Self {
        // INVARIANT: `call` is made for `C`.
        Self { node: Node::new(call::<C>), callbacks }
    }

    /// Makes one in memory of its own.
    pub fn boxed(callbacks: C) -> Box<Self> {
        Box::new(Self::new(callbacks))
    }
}

impl<C> Interval<C> {
    /// Takes a token, sleeping while an invalidation that hit this is active, or one beside.
    ///
    /// # Panics
    /// If it is in no space.
    #[inline]
    pub fn read_begin(&self) -> Sequence {
        let space = self.space().expect("the interval is in a space");
        // SAFETY: the node is in a space, so that its memory stays until it is removed, which waits for no reader
        // but whose caller has no more.
        let link = unsafe { self.link() };
        Sequence(space.intervals().read_begin(link))
    }

    /// Says, under the lock that the callback takes, whether the interval was hit since.
    #[inline]
    pub fn read_retry(&self, token: Sequence) -> bool {
        // ORDERING: the subscriber's lock orders it against `set_seq`.
        self.node.seq.load(Ordering::Relaxed) != token.0
    }

    /// Makes earlier tokens stale; for the callback, under the subscriber's lock.
    #[inline]
    pub fn set_seq(&self, seq: Sequence) {
        // ORDERING: the subscriber's lock orders it against `read_retry`.
        self.node.seq.store(seq.0, Ordering::Relaxed);
    }

    /// Gives what it was made with.
    #[inline]
    pub fn callbacks(&self) -> &C {
        &self.callbacks
    }

    /// Gives what it was made with back.
    pub fn into_callbacks(self) -> C {
        self.callbacks
    }

    #[inline]
    fn space(&self) -> Option<&Space> {
        // SAFETY: while `space` is set, a count of the space is the node's.
        self.node.space.get().map(|space| unsafe { space.as_ref() })
    }

    /// Makes a link to the node.
    ///
    /// # Safety
    /// The interval lives, and does not move, until the link is used for the last time.
    #[inline]
    unsafe fn link(&self) -> Link {
        // SAFETY: the caller's promise; the pointer is one to the whole interval.
        unsafe { Link::new(NonNull::from(self).cast()) }
    }

    /// Inserts it where it is, for whoever has intervals in an array or a larger record. The caller has looked for
    /// users of the space.
    ///
    /// # Safety
    /// - It is in no space, and the range is not empty.
    /// - It neither moves nor is freed nor borrowed exclusively before [`remove_in_place`](Self::remove_in_place).
    #[inline]
    pub(crate) unsafe fn insert_in_place(&self, space: &Arc<Space>, range: &Invalidation) {
        // INVARIANT: the count that the clone takes is the node's, until `remove_in_place`.
        self.node.space.set(NonNull::new(Arc::into_raw(Arc::clone(space)).cast_mut()));
        self.node.start.set(range.start());
        self.node.last.set(range.last());
        // SAFETY: the caller's promise.
        let link = unsafe { self.link() };
        space.intervals().insert(link);
    }

    /// Removes it, sleeping until no callback of it runs, nor any other invalidation that hit something is active.
    ///
    /// # Safety
    /// It was inserted, and is removed once, with no other use beside.
    pub unsafe fn remove_in_place(&self) {
        let space = self.node.space.get().expect("the interval is in a space");
        // SAFETY: it lives until it is removed, and is out of the tree afterwards.
        let link = unsafe { self.link() };
        // SAFETY: the count of the node keeps the space.
        let intervals = unsafe { space.as_ref() }.intervals();
        intervals.remove(link);
        // INVARIANT: it is in no space now, and gives its count back.
        self.node.space.set(None);
        // SAFETY: the count was taken by `Arc::into_raw` in `insert_in_place`.
        drop(unsafe { Arc::from_raw(space.as_ptr()) });
    }
}

impl<C> Deref for Interval<C> {
    type Target = C;

    #[inline]
    fn deref(&self) -> &C {
        &self.callbacks
    }
}

impl<C> fmt::Debug for Interval<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Interval").field("start", &self.node.start).field("last", &self.node.last).finish()
    }
}

/// # Safety
/// The node is the first field of an `Interval<C>`, and the link is a pointer to all of it.
unsafe fn call<C: Notifier>(node: Link, what: &Invalidation, seq: u64) -> Answer {
    // SAFETY: the caller's promise.
    let interval = unsafe { node.as_ptr().cast::<Interval<C>>().as_ref() };
    C::invalidate(interval, what, Sequence(seq))
}

/// An interval that is in a space. Dropping it removes it.
///
/// # Invariants
/// `interval` came out of a box, was inserted, and is not removed.
pub struct Subscription<C: Notifier> {
    interval: NonNull<Interval<C>>,
}

// SAFETY: it owns an interval, whose callbacks may go to, and be used by, any thread.
unsafe impl<C: Notifier> Send for Subscription<C> {}
// SAFETY: the same.
unsafe impl<C: Notifier> Sync for Subscription<C> {}

impl<C: Notifier> Subscription<C> {
    #[inline]
    pub(crate) fn insert(space: &Arc<Space>, range: &Invalidation, interval: Box<Interval<C>>) -> Self {
        // INVARIANT: it came out of a box, and is inserted below.
        let this = Self { interval: NonNull::from(Box::leak(interval)) };
        // SAFETY: the box was its own, so that it was in no space; it stays where it is until `take`.
        unsafe { this.insert_in_place(space, range) };
        this
    }

    /// Removes it, sleeping until no callback of it runs, nor any other invalidation that hit something is active.
    /// Not for a callback: it would wait for itself.
    #[inline]
    pub fn remove(self) -> Box<Interval<C>> {
        let this = std::mem::ManuallyDrop::new(self);
        this.take()
    }

    fn take(&self) -> Box<Interval<C>> {
        // SAFETY: it was inserted, and `remove` and `drop` come here once, having the only right to it.
        unsafe { self.remove_in_place() };
        // SAFETY: it came out of a box, and no link to it is left.
        unsafe { Box::from_raw(self.interval.as_ptr()) }
    }
}

impl<C: Notifier> Deref for Subscription<C> {
    type Target = Interval<C>;

    #[inline]
    fn deref(&self) -> &Interval<C> {
        // SAFETY: it lives until `take`, and is only ever shared.
        unsafe { self.interval.as_ref() }
    }
}

impl<C: Notifier> Drop for Subscription<C> {
    fn drop(&mut self) {
        drop(self.take());
    }
}

impl<C: Notifier> fmt::Debug for Subscription<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
