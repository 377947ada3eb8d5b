//! An interval subscription in its user's memory.

use core::cell::UnsafeCell;
use core::fmt;
use core::marker::PhantomPinned;
use core::mem::{MaybeUninit, offset_of};
use core::ptr::{self, NonNull};
use core::sync::atomic::AtomicU64;

use super::membership::Membership;
use super::ops::{Direct, IntervalCallbacks, no_direct};
use crate::address::Range;
use crate::diagnostics::{self, Rule};
use crate::interval::{Answer, Callbacks, InsertErrorKind, Node, Options, Sequence, removal};
use crate::map_lock::MapLockGuard;
use crate::space::AddressSpaceRef;
use crate::subscriptions::Subscriptions;
use crate::trace;

/// An interval subscription to be embedded in its user's structure.
///
/// # Invariants
/// `node` is initialised while it is in a space; `space` is the holder that it has then.
#[repr(C)]
pub struct Interval {
    /// For its user, beside what hits and reads use.
    pub word: AtomicU64,
    direct: Direct,
    node: UnsafeCell<MaybeUninit<Node>>,
    table: &'static Callbacks,
    space: UnsafeCell<Option<AddressSpaceRef>>,
    membership: Membership,
    _pinned: PhantomPinned,
}

// SAFETY: `node` and `space` change only by who began to enter or to leave; the node is meant to be shared.
unsafe impl Sync for Interval {}
// SAFETY: nothing in it belongs to a thread.
unsafe impl Send for Interval {}

/// A space that is ready for one more, and what its subscribers need.
type Ready<'s> = (&'s AddressSpaceRef, &'s Subscriptions);

impl Interval {
    /// Where its sequence stands, in bytes from its start, for code that wants no call for it: a word that is read with
    /// acquire, and in the callback of one [with its own sequence](Self::with_own_sequence) written with release.
    pub const SEQUENCE_AT: usize = offset_of!(Interval, node) + Node::SEQUENCE_AT;

    /// Where the sequence stands that was last found quiet: if it (read with acquire, behind the other) is the same,
    /// it is what [`read_begin`](Self::read_begin) gives.
    pub const SETTLED_AT: usize = offset_of!(Interval, node) + Node::SETTLED_AT;

    /// Where its range stands while it is inserted: the first and the last address, two words to be read only.
    pub const BOUNDS_AT: usize = offset_of!(Interval, node) + Node::BOUNDS_AT;

    /// Makes one that is in no space.
    pub const fn new(callbacks: &'static IntervalCallbacks) -> Self {
        Self::with_table(&callbacks.by_start, no_direct)
    }

    /// Makes one whose callback makes its tokens stale, with [`set_sequence`](Self::set_sequence). A callback that
    /// does not do so has skipped the invalidation (clause C3.12).
    pub const fn with_own_sequence(callbacks: &'static IntervalCallbacks) -> Self {
        Self::with_table(&callbacks.by_callback, no_direct)
    }

    /// Makes one [with its own sequence](Self::with_own_sequence), for which invalidations with an owner call `direct`.
    /// Others, as that of the exit is, call `invalidate` of the table; so do all if it is inserted with options.
    pub const fn with_direct(callbacks: &'static IntervalCallbacks, direct: Direct) -> Self {
        Self::with_table(&callbacks.direct, direct)
    }

    const fn with_table(table: &'static Callbacks, direct: Direct) -> Self {
        Interval {
            word: AtomicU64::new(0),
            direct,
            node: UnsafeCell::new(MaybeUninit::uninit()),
            table,
            space: UnsafeCell::new(None),
            membership: Membership::out(),
            _pinned: PhantomPinned,
        }
    }

    /// Inserts it into a space (`mmu_interval_notifier_insert`). With an owner or a label it allocates room for these.
    ///
    /// # Errors
    /// As [`AddressSpaceRef::insert`]; it is then as if never touched. One that is inserted already is diagnosed
    /// and counts as gone.
    ///
    /// # Safety
    /// - `this` points to an `Interval`, through a pointer that may also be used for what its callbacks reach.
    /// - It is not moved, freed or overwritten until [`remove`](Self::remove) has returned.
    ///
    /// # Context
    /// As [`AddressSpaceRef::insert`].
    pub unsafe fn insert(
        this: NonNull<Interval>,
        space: &AddressSpaceRef,
        range: Range,
        options: Options,
    ) -> Result<(), InsertErrorKind> {
        // SAFETY: as promised by the caller.
        unsafe { Self::insert_into(this, range, options, || Ok((space, space.ready_to_insert()?))) }
    }

    /// Inserts it under the map lock (`mmu_interval_notifier_insert_locked`).
    ///
    /// # Errors
    /// As [`insert`](Self::insert).
    ///
    /// # Safety
    /// As for [`insert`](Self::insert).
    ///
    /// # Context
    /// As [`AddressSpaceRef::insert_locked`].
    pub unsafe fn insert_locked(
        this: NonNull<Interval>,
        space: &AddressSpaceRef,
        lock: &MapLockGuard<'_>,
        range: Range,
        options: Options,
    ) -> Result<(), InsertErrorKind> {
        // SAFETY: as promised by the caller.
        unsafe {
            Self::insert_into(this, range, options, || Ok((space, space.ready_to_insert_locked(lock)?)))
        }
    }

    /// # Safety
    /// As for [`insert`](Self::insert).
    unsafe fn insert_into<'s>(
        this: NonNull<Interval>,
        range: Range,
        options: Options,
        ready: impl FnOnce() -> Result<Ready<'s>, InsertErrorKind>,
    ) -> Result<(), InsertErrorKind> {
        // SAFETY: as promised by the caller.
        let interval = unsafe { this.as_ref() };
        if !interval.membership.begin_to_enter() {
            diagnostics::report(Rule::InsertedTwice, "insert", options.label);
            return Err(InsertErrorKind::Gone);
        }
        // SAFETY: this call began to enter.
        let result = ready().and_then(|ready| unsafe { Self::insert_free(this, ready, range, options) });
        match result {
            Ok(()) => interval.membership.set_in(),
            Err(_) => interval.membership.set_out(),
        }
        result
    }

    /// # Safety
    /// As [`insert`](Self::insert), and the caller began to enter.
    unsafe fn insert_free(
        this: NonNull<Interval>,
        (space, subscriptions): Ready<'_>,
        range: Range,
        options: Options,
    ) -> Result<(), InsertErrorKind> {
        // SAFETY: as promised by the caller.
        let interval = unsafe { this.as_ref() };
        let table = Node::table_with(interval.table, options).ok_or(InsertErrorKind::OutOfMemory)?;
        // SAFETY: the table lives for ever, or is a box that goes with the node.
        let node = unsafe { Node::with_table(range, table) };
        // SAFETY: between begin and end of entering nobody else uses the node.
        unsafe { &mut *interval.node.get() }.write(node);
        let node = Self::node_in(this);
        // SAFETY: as promised by the caller; the node was written above.
        let inserted = unsafe { subscriptions.index.insert(&subscriptions.book, node, &[]) };
        if let Err(error) = inserted {
            // SAFETY: it was written above, and nobody else knows it.
            unsafe { interval.drop_node() };
            return Err(error.into());
        }
        // SAFETY: between begin and end of entering nobody else uses the space.
        unsafe { *interval.space.get() = Some(space.clone()) };
        trace::inserted(subscriptions, node);
        Ok(())
    }

    /// Removes it (`mmu_interval_notifier_remove`): when this returns, no callback of it runs or will run, and
    /// its memory is the caller's. One that is not inserted is diagnosed, and left alone.
    ///
    /// # Safety
    /// - `this` was promised to [`insert`](Self::insert), or is an interval that was never inserted.
    /// - It is not called in a callback of this interval, whose memory its caller could free; that is
    ///   diagnosed, and then this returns without having waited for that callback.
    ///
    /// # Context
    /// May sleep, as [`Subscription::remove`](crate::interval::Subscription::remove).
    pub unsafe fn remove(this: NonNull<Interval>) {
        // SAFETY: as promised by the caller.
        let interval = unsafe { this.as_ref() };
        if !interval.membership.begin_to_leave() {
            return diagnostics::report(Rule::NotInserted, "remove", None);
        }
        // SAFETY: it was in, so there is a holder, and it is this call's to take.
        let space = unsafe { &mut *interval.space.get() }.take();
        let space = space.expect("an inserted interval holds its space");
        let subscriptions = space.watched();
        diagnostics::may_sleep(subscriptions, "remove", interval.node().label());
        let mut in_own_call = false;
        if removal::withdraw_and_wait(subscriptions, Self::node_in(this)) {
            interval.node().strike();
            in_own_call = diagnostics::removed_in_own_call(subscriptions, interval.node());
        }
        // The call that it may stand in looks at its table yet: better a leak.
        if !in_own_call {
            // SAFETY: it was in, and no start knows it any more.
            unsafe { interval.drop_node() };
        }
        interval.membership.set_out();
        subscriptions.may_sleep();
    }

    /// Drops the node, and with it the room for its owner and label.
    ///
    /// # Safety
    /// The node is initialised, and nobody uses it from now on.
    unsafe fn drop_node(&self) {
        // SAFETY: as promised by the caller.
        let node = unsafe { &mut *self.node.get() };
        // SAFETY: as promised by the caller.
        unsafe { node.assume_init_drop() };
    }

    /// The interval around a node, which is that of one.
    #[inline(always)]
    pub(super) fn around(node: NonNull<Node>) -> NonNull<Interval> {
        let interval = node.as_ptr().wrapping_byte_sub(offset_of!(Interval, node)).cast();
        // SAFETY: an interval begins before its node in the same allocation, so its address is not null.
        unsafe { NonNull::new_unchecked(interval) }
    }

    /// The node in an interval, through the same pointer.
    #[inline]
    fn node_in(this: NonNull<Interval>) -> NonNull<Node> {
        let node = this.as_ptr().wrapping_byte_add(offset_of!(Interval, node)).cast();
        // SAFETY: the node stands behind the interval's start in the same allocation, so its address is not null.
        unsafe { NonNull::new_unchecked(node) }
    }

    /// Calls the direct callback.
    ///
    /// # Safety
    /// The node is that of an interval with one, found by a start in phase calling.
    #[inline(always)]
    pub(crate) unsafe fn call_directly(node: NonNull<Node>, owner: u64, seq: Sequence) -> Answer {
        let interval = Interval::around(node);
        // SAFETY: it is readable until the start is through (I6).
        let direct = unsafe { (*interval.as_ptr()).direct };
        let owner = ptr::with_exposed_provenance_mut(owner as usize);
        // SAFETY: the callback is the one that the interval was made with.
        if unsafe { direct(interval, owner, seq.get()) } { Answer::Done } else { Answer::Refused }
    }

    /// The node; it is or was in a space.
    #[inline]
    fn node(&self) -> &Node {
        // SAFETY: the callers have seen it in: nobody writes to the cell.
        let node = unsafe { &*self.node.get() };
        // SAFETY: the callers have seen it in, so the node is initialised.
        unsafe { node.assume_init_ref() }
    }

    /// Says whether it is inserted.
    #[inline]
    pub fn is_inserted(&self) -> bool {
        self.membership.is_in()
    }

    /// What it reads with; none, diagnosed, if it is not inserted.
    #[inline]
    fn reader(&self, call: &'static str) -> Option<(&Node, &Subscriptions)> {
        if !self.is_inserted() {
            not_inserted(call);
            return None;
        }
        // SAFETY: it is in; who removes it meanwhile breaks the promise of not using it any more.
        let space = unsafe { &*self.space.get() }.as_ref()?;
        Some((self.node(), space.watched()))
    }

    /// Waits until it is not busy (`mmu_interval_read_begin`). None, diagnosed, if it is not inserted.
    ///
    /// # Context
    /// May sleep; it must not be removed meanwhile.
    #[inline]
    pub fn read_begin(&self) -> Option<Sequence> {
        let (node, subscriptions) = self.reader("read_begin")?;
        diagnostics::read_begin(subscriptions, node);
        node.read_begin(subscriptions, None)
    }

    /// The sequence if it is not busy now; none if it is, or (diagnosed) is not inserted.
    pub fn try_read_begin(&self) -> Option<Sequence> {
        let (node, subscriptions) = self.reader("try_read_begin")?;
        node.try_read_begin(subscriptions)
    }

    /// The sequence of the last hit, or the first one; none if it is not inserted.
    pub fn sequence(&self) -> Option<Sequence> {
        self.is_inserted().then(|| self.node().sequence())
    }

    /// Makes its tokens stale (`mmu_interval_set_seq`): for one that was made
    /// [with its own sequence](Self::with_own_sequence), and in its callback, with the sequence that this got.
    ///
    /// # Context
    /// Under the subscriber's lock.
    #[inline]
    pub fn set_sequence(&self, sequence: u64) {
        // A callback may come before the insert has returned.
        if self.membership.is_out() {
            return not_inserted("set_seq");
        }
        self.node().hit(sequence);
    }

    /// Says whether any invalidation hit it since `sequence` was read, or it is not inserted any more: then
    /// start over (`mmu_interval_read_retry`).
    ///
    /// # Context
    /// Under the subscriber's lock.
    #[inline]
    pub fn read_retry(&self, sequence: Sequence) -> bool {
        !self.is_inserted() || self.node().sequence() != sequence
    }
}

#[cold]
fn not_inserted(call: &'static str) {
    diagnostics::report(Rule::NotInserted, call, None);
}

impl fmt::Debug for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Interval").field("inserted", &self.is_inserted()).finish_non_exhaustive()
    }
}

impl Drop for Interval {
    fn drop(&mut self) {
        // A promise of `insert` is broken; removing it here is the best that can be done.
        if self.is_inserted() {
            diagnostics::report(Rule::FreedInserted, "drop of an interval", None);
            // SAFETY: it is still where it was inserted: drop is called in place.
            unsafe { Interval::remove(NonNull::from(&mut *self)) };
        }
    }
}
