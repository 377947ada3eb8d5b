//! An interval subscription in its user's memory.

use core::cell::UnsafeCell;
use core::fmt;
use core::marker::PhantomPinned;
use core::mem::MaybeUninit;
use core::ptr::NonNull;

use super::membership::Membership;
use crate::address::Range;
use crate::diagnostics::{self, Rule};
use crate::interval::{Answer, Callbacks, InsertErrorKind, Node, Options, Sequence, SequenceBy, removal};
use crate::invalidation::Invalidation;
use crate::map_lock::MapLockGuard;
use crate::space::AddressSpaceRef;
use crate::subscriptions::Subscriptions;
use crate::trace;

/// What an [`Interval`] calls.
#[derive(Clone, Copy, Debug)]
pub struct IntervalCallbacks {
    /// Drops the translations in the range; see
    /// [`interval::Notifier::invalidate`](crate::interval::Notifier::invalidate).
    ///
    /// # Safety
    /// The library calls it with an interval that was inserted with this table and is not removed yet.
    pub invalidate: unsafe fn(NonNull<Interval>, &Invalidation, Sequence) -> Answer,
    /// Completes what `invalidate` answered [`Answer::Begun`] to.
    ///
    /// # Safety
    /// As for `invalidate`.
    pub finish: unsafe fn(NonNull<Interval>, &Invalidation),
}

/// An interval subscription to be embedded in its user's structure.
///
/// # Invariants
/// `node` is the first field, and is initialised while it is in a space; `space` is the holder that it has then, and
/// `table` that of the node if it has an owner or a label. What hits and readers use stands together.
#[repr(C)]
pub struct Interval {
    node: UnsafeCell<MaybeUninit<Node>>,
    callbacks: &'static IntervalCallbacks,
    membership: Membership,
    space: UnsafeCell<Option<AddressSpaceRef>>,
    table: UnsafeCell<Callbacks>,
    _pinned: PhantomPinned,
}

// SAFETY: `node`, `table` and `space` change only by who began to enter or to leave; the node is meant to be shared.
unsafe impl Sync for Interval {}
// SAFETY: nothing in it belongs to a thread.
unsafe impl Send for Interval {}

/// The table of an interval, but for its options.
const CALLBACKS: Callbacks = Callbacks {
    invalidate,
    finish,
    free,
    options: Options::new(),
    sequence: SequenceBy::Start,
    moved: false,
    space: None,
};

/// The tables of all that have neither owner nor label.
static BY_START: Callbacks = CALLBACKS;
static BY_CALLBACK: Callbacks = Callbacks { sequence: SequenceBy::Callback, ..CALLBACKS };

/// # Safety
/// The node is that of an inserted [`Interval`].
unsafe fn invalidate(node: NonNull<Node>, what: &Invalidation, seq: Sequence) -> Answer {
    let interval = node.cast::<Interval>();
    // SAFETY: it is not freed before its removal has waited for this start.
    let callback = unsafe { (*interval.as_ptr()).callbacks }.invalidate;
    // SAFETY: the table is the one that the interval was made with.
    unsafe { callback(interval, what, seq) }
}

/// # Safety
/// As for [`invalidate`].
unsafe fn finish(node: NonNull<Node>, what: &Invalidation) {
    let interval = node.cast::<Interval>();
    // SAFETY: it is not freed before its removal has waited for this start.
    let callback = unsafe { (*interval.as_ptr()).callbacks }.finish;
    // SAFETY: the table is the one that the interval was made with.
    unsafe { callback(interval, what) }
}

/// # Safety
/// None: its memory is its user's, so that it never hangs, and nobody calls this.
unsafe fn free(_: NonNull<Node>) {}

/// A space that is ready for one more, and what its subscribers need.
type Ready<'s> = (&'s AddressSpaceRef, &'s Subscriptions);

impl Interval {
    /// Where its sequence stands, in bytes from its start, for code that wants no call for it: a word that is read with
    /// acquire, and in the callback of one [with its own sequence](Self::with_own_sequence) written with release.
    pub const SEQUENCE_AT: usize = Node::SEQUENCE_AT;

    /// Where the sequence stands that was last found quiet: if it (read with acquire, behind the other) is the same,
    /// it is what [`read_begin`](Self::read_begin) gives.
    pub const SETTLED_AT: usize = Node::SETTLED_AT;

    /// Makes one that is in no space.
    pub const fn new(callbacks: &'static IntervalCallbacks) -> Self {
        Self::with_sequence_by(SequenceBy::Start, callbacks)
    }

    /// Makes one whose callback makes its tokens stale, with [`set_sequence`](Self::set_sequence). A callback that
    /// does not do so has skipped the invalidation (clause C3.12).
    pub const fn with_own_sequence(callbacks: &'static IntervalCallbacks) -> Self {
        Self::with_sequence_by(SequenceBy::Callback, callbacks)
    }

    const fn with_sequence_by(sequence: SequenceBy, callbacks: &'static IntervalCallbacks) -> Self {
        Interval {
            node: UnsafeCell::new(MaybeUninit::uninit()),
            table: UnsafeCell::new(Callbacks { sequence, ..CALLBACKS }),
            callbacks,
            space: UnsafeCell::new(None),
            membership: Membership::out(),
            _pinned: PhantomPinned,
        }
    }

    /// Inserts it into a space (`mmu_interval_notifier_insert`).
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
        // SAFETY: between begin and end of entering nobody else uses the table.
        let own = unsafe { &mut *interval.table.get() };
        own.options = options;
        let table: *const Callbacks = match own.sequence {
            _ if !options.are_none() => own,
            SequenceBy::Start => &BY_START,
            SequenceBy::Callback => &BY_CALLBACK,
        };
        // SAFETY: the table lives for ever, or lies beside the node, which is never dropped.
        let node = unsafe { Node::with_table(range, table) };
        // SAFETY: between begin and end of entering nobody else uses the node.
        unsafe { &mut *interval.node.get() }.write(node);
        // SAFETY: as promised by the caller; the node is the first field.
        unsafe { subscriptions.index.insert(&subscriptions.book, this.cast(), &[]) }?;
        // SAFETY: between begin and end of entering nobody else uses the space.
        unsafe { *interval.space.get() = Some(space.clone()) };
        trace::inserted(subscriptions, this.cast());
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
        if removal::withdraw_and_wait(subscriptions, this.cast()) {
            interval.node().strike();
            diagnostics::removed_in_own_call(subscriptions, interval.node());
        }
        interval.membership.set_out();
        subscriptions.may_sleep();
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
