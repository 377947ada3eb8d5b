//! The node of an interval subscription: what the index finds, starts call and readers read.
//!
//! # Protocol (collision-retry)
//! - A start that hits a node stores its identity as `seq` (release), then calls. So a token that was read
//!   before is stale from then on.
//! - *read_begin*: s = `seq` (acquire). If `settled` is s too, somebody has found the range quiet since s was
//!   stored: s is the token. Else F, scan the hazards for what overlaps, wait for each; if `seq` is still s,
//!   store `settled` = s (release): that is the token. Else again, with the newer s.
//! - *read_retry*: is `seq` another than the token?
//!
//! Two starts may store `seq` in any order. Whatever precedes s in the modification order of `seq` was stored
//! behind its start's F; the reader's F comes behind its load of s, so behind those, and its scan sees them.
//!
//! # One word, two lives
//! A record is as small as can be, since there may be millions. So what a node needs only while its subscription
//! has a handle makes room for what it needs once the handle is given up: `settled` is for readers, who borrow
//! the handle, and then the order of the node that replaces this one; `place` is for the index, and once the node
//! is out of it, its link among the hung ones. The lowest bits of `table` tell.
//!
//! # Invariants
//! - I3: a sequence never comes twice to one subscription.
//! - I4: `settled == s` implies that some thread, after it had read s, saw every hazard that concerns the node
//!   idle, or waited for it.
//! - I6: a node that a start found is readable until that start leaves phase calling.

#![expect(unsafe_code, reason = "a node leads to its table and to the rest of its record by raw pointers")]

use alloc::boxed::Box;
use core::hint;
use core::mem::offset_of;
use core::ptr::{self, NonNull, fn_addr_eq};

use super::table::SpaceOf;
use super::{Answer, Options};
use crate::address::Range;
use crate::hung::Link;
use crate::index::Place;
use crate::invalidation::{Invalidation, Owner};
use crate::platform::Payload;
use crate::sync::{AtomicPtr, AtomicU64, Ordering};

/// A sequence: what [`read_begin`](super::Subscription::read_begin) hands out, and each hit renews.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Sequence(pub(crate) u64);

impl Sequence {
    /// Gives its number: odd where it is that of an invalidation.
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// What a node calls, and what else is the same for its whole life. What is called does not unwind: it keeps the first
/// panic of its caller's call.
///
/// A record with neither owner nor label uses the table of its type, or of its type in its space. One that has them has
/// a table of its own.
#[derive(Clone, Copy, Debug)]
#[repr(align(8))]
pub(crate) struct Callbacks {
    /// Of one that panics the panic is kept, and the answer is "refused".
    ///
    /// # Safety
    /// The node is the one that the table was given with, found by a start in phase calling.
    pub(crate) invalidate: unsafe fn(NonNull<Node>, &Invalidation, Sequence, &mut Option<Payload>) -> Answer,
    /// # Safety
    /// The same, after `invalidate` answered "begun" in this start.
    pub(crate) finish: unsafe fn(NonNull<Node>, &Invalidation, &mut Option<Payload>),
    /// Frees the node's record, and what that leads to.
    ///
    /// # Safety
    /// The node is the one that the table was given with; no start knows it, and it is not used again.
    pub(crate) free: unsafe fn(NonNull<Node>),
    pub(crate) options: Options,
    pub(crate) sequence: SequenceBy,
    /// The record is one that leads to another.
    pub(crate) moved: bool,
    /// That of the records, if it stands here.
    pub(crate) space: Option<SpaceOf>,
}

impl Callbacks {
    /// Says whether it calls the same functions in the same way, whatever the options and the space.
    #[inline]
    pub(super) fn calls_as(&self, other: &Callbacks) -> bool {
        fn_addr_eq(self.invalidate, other.invalidate)
            && fn_addr_eq(self.finish, other.finish)
            && fn_addr_eq(self.free, other.free)
            && self.sequence == other.sequence
            && self.moved == other.moved
    }

    /// The word of the owner; 0 for none.
    #[inline]
    pub(crate) fn owner(&self) -> u64 {
        self.options.owner.map_or(0, Owner::get)
    }
}

/// Who makes a node's tokens stale when it is hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SequenceBy {
    /// The start, before it calls.
    Start,
    /// The callback, under the subscriber's lock; one that does not leaves them fresh (clause C3.12).
    Callback,
    /// The callback, which is the direct one of an [`Interval`](crate::intrusive::Interval). There is no owner then.
    Direct,
}

/// In `table`: nobody calls the node any more.
const WITHDRAWN: usize = 1;
/// In `table`: starts with a limit below `settled` call the node, others what replaces it.
const REPLACED: usize = 2;
/// In `table`: a remove in a callback of the own thread has taken back what second pass it has coming.
const STRUCK: usize = 4;
const TAGS: usize = WITHDRAWN | REPLACED | STRUCK;

/// An interval subscription, as the library sees it: a cache line on most machines.
///
/// # Invariants
/// - `table` leads to a table that lives as long as the node. If that has options and the node is ever dropped,
///   it is a box of the node's own.
/// - A tag is set by who has the handle by value, and never taken back.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Node {
    order: AtomicU64,
    /// With tags in the lowest bits.
    table: AtomicPtr<Callbacks>,
    seq: AtomicU64,
    /// The sequence that was found quiet; behind REPLACED the order of the node that replaces this one.
    settled: AtomicU64,
    first: u64,
    last: u64,
    /// Behind [`hang`](Node::hang) it is a [`Link`].
    place: Place,
    /// The next of those that wait for their second pass, past what fits a frame.
    pub(crate) begun: AtomicPtr<Node>,
}

// SAFETY: `place` belongs to the index's writer, and then as a link to the hooks' lock; the rest is atomic or never
// changes.
unsafe impl Sync for Node {}
// SAFETY: as above; nothing belongs to a thread.
unsafe impl Send for Node {}

impl Node {
    /// Where `seq` and `settled` stand, for readers that are not in this library.
    pub(crate) const SEQUENCE_AT: usize = offset_of!(Node, seq);
    pub(crate) const SETTLED_AT: usize = offset_of!(Node, settled);
    /// Where the first and the last address stand, one behind the other.
    pub(crate) const BOUNDS_AT: usize = offset_of!(Node, first);

    /// The table of a node with these options: this one, or a box for a node of its own; none if there is no memory.
    #[inline]
    pub(crate) fn table_with(table: &Callbacks, options: Options) -> Option<*const Callbacks> {
        if options.are_none() { Some(table) } else { Node::own_table(table, options) }
    }

    #[cold]
    fn own_table(table: &Callbacks, options: Options) -> Option<*const Callbacks> {
        let sequence = match table.sequence {
            SequenceBy::Direct => SequenceBy::Callback,
            other => other,
        };
        let own = crate::memory::try_box(Callbacks { options, sequence, ..*table }).ok()?;
        Some(Box::into_raw(own))
    }

    /// Makes one with this table.
    ///
    /// # Safety
    /// The table lives as long as the node. If it has options, it is a box that the node frees, or the node is
    /// never dropped.
    #[inline]
    pub(crate) unsafe fn with_table(range: Range, table: *const Callbacks) -> Self {
        const { assert!(align_of::<Callbacks>() > TAGS) };
        let (first, last) = range.bounds();
        // INVARIANT: as promised by the caller; no tag is set.
        Node {
            order: AtomicU64::new(0),
            table: AtomicPtr::new(table.cast_mut()),
            seq: AtomicU64::new(0),
            settled: AtomicU64::new(0),
            first,
            last,
            place: Place::nowhere(),
            begun: AtomicPtr::new(ptr::null_mut()),
        }
    }

    /// Its table, whatever became of it.
    #[inline]
    fn table(&self) -> &Callbacks {
        let table = self.table.load(Ordering::Relaxed).map_addr(|address| address & !TAGS);
        // SAFETY: by the invariant of the node.
        unsafe { &*table }
    }

    fn tag(&self, tag: usize) {
        let table = self.table.load(Ordering::Relaxed);
        // INVARIANT: the caller has the handle by value, so nobody else sets a tag meanwhile.
        // ORDERING: release, for the acquire in `callbacks_for`: who sees REPLACED sees the order.
        self.table.store(table.map_addr(|address| address | tag), Ordering::Release);
    }

    #[inline]
    pub(crate) fn bounds(&self) -> (u64, u64) {
        (self.first, self.last)
    }

    #[inline]
    pub(crate) fn order(&self) -> u64 {
        self.order.load(Ordering::Relaxed)
    }

    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    pub(crate) fn owner(&self) -> u64 {
        self.table().owner()
    }

    #[inline]
    pub(crate) fn label(&self) -> Option<&'static str> {
        self.table().options.label
    }

    /// Says whether its record leads to another one.
    #[inline]
    pub(super) fn is_moved(&self) -> bool {
        self.table().moved
    }

    /// The space of its record, if that stands in its table.
    #[inline]
    pub(super) fn space(&self) -> Option<&SpaceOf> {
        self.table().space.as_ref()
    }

    pub(crate) fn options(&self) -> Options {
        self.table().options
    }

    /// Takes its order, and with it a first sequence that no invalidation has. Called by the index.
    pub(crate) fn enter(&self, order: u64) {
        self.order.store(order, Ordering::Relaxed);
        // INVARIANT: I3: the id part is 0, and it is even. It is not settled: the first read finds what runs.
        self.seq.store(order << 2, Ordering::Relaxed);
    }

    /// What a start with this limit calls; none if it is withdrawn or belongs to another start.
    #[inline]
    pub(crate) fn callbacks_for(&self, limit: u64) -> Option<&Callbacks> {
        if self.order() > limit {
            return None;
        }
        let table = self.table.load(Ordering::Acquire);
        if table.addr() & TAGS != 0 {
            return self.callbacks_of_given_up(table.addr() & TAGS, limit);
        }
        // SAFETY: by the invariant of the node. (Without it the caller's code asks.)
        unsafe { hint::assert_unchecked(!table.is_null()) };
        // SAFETY: by the invariant of the node; there is no tag.
        Some(unsafe { &*table })
    }

    #[cold]
    fn callbacks_of_given_up(&self, tags: usize, limit: u64) -> Option<&Callbacks> {
        let replaced = tags & (WITHDRAWN | REPLACED) == REPLACED;
        (replaced && limit < self.settled.load(Ordering::Relaxed)).then(|| self.table())
    }

    /// The callbacks of a second pass that is due; none if a remove took it back.
    pub(crate) fn second_pass(&self) -> Option<&Callbacks> {
        (self.table.load(Ordering::Relaxed).addr() & STRUCK == 0).then(|| self.table())
    }

    /// Makes every token stale: this invalidation hits.
    #[inline]
    pub(crate) fn hit(&self, identity: u64) {
        // ORDERING: release, behind the publication of the hazard: who reads this sequence (acquire) sees the
        // hazard that it has to wait for.
        self.seq.store(identity, Ordering::Release);
    }

    /// Nobody calls it from now on who has not already begun to.
    pub(crate) fn withdraw(&self) {
        self.tag(WITHDRAWN);
    }

    /// Takes second passes back that the calling thread still owes.
    pub(crate) fn strike(&self) {
        self.tag(STRUCK);
    }

    /// From now on only starts with a limit below `order`, that of the replacement, call it. The caller has the
    /// handle by value, and does not give it back.
    pub(crate) fn give_way_to(&self, order: u64) {
        // INVARIANT: readers borrow the handle, so there is none, nor will be: the word is free.
        self.settled.store(order, Ordering::Relaxed);
        self.tag(REPLACED);
    }

    /// Makes the place of a node that is out of the index its link among the hung ones.
    ///
    /// # Safety
    /// The node is withdrawn, and alive until the hooks free it; the pointer leads to its whole record.
    pub(crate) unsafe fn hang(node: NonNull<Node>) -> NonNull<Link> {
        const { assert!(size_of::<Link>() == size_of::<Place>() && align_of::<Link>() == align_of::<Place>()) };
        let link = node.as_ptr().wrapping_byte_add(offset_of!(Node, place)).cast::<Link>();
        // SAFETY: the word is the node's, a link fits it, and the index has forgotten it.
        unsafe { link.write(Link::short()) };
        // SAFETY: it lies in the node, so its address is not null.
        unsafe { NonNull::new_unchecked(link) }
    }

    /// The node whose link it is.
    pub(crate) fn of_link(link: NonNull<Link>) -> NonNull<Node> {
        let node = link.as_ptr().wrapping_byte_sub(offset_of!(Node, place)).cast::<Node>();
        // SAFETY: the node begins before its link in the same allocation, so its address is not null.
        unsafe { NonNull::new_unchecked(node) }
    }

    /// Frees the record of a node, and what that leads to.
    ///
    /// # Safety
    /// As for [`Callbacks::free`]; the pointer leads to the whole record.
    pub(crate) unsafe fn free(node: NonNull<Node>) {
        // SAFETY: as promised by the caller.
        let free = unsafe { node.as_ref() }.table().free;
        // SAFETY: as promised by the caller; the table is that of the node.
        unsafe { free(node) };
    }

    /// The sequence of the last hit.
    #[inline]
    pub(crate) fn sequence(&self) -> Sequence {
        // ORDERING: acquire; behind the callback that goes with this sequence.
        Sequence(self.seq.load(Ordering::Acquire))
    }

    /// Says whether the sequence was found quiet, and returns it.
    #[inline]
    pub(crate) fn settled_sequence(&self) -> Option<Sequence> {
        let sequence = self.sequence();
        // ORDERING: acquire pairs with the release in `settle`: what came before the ends is visible.
        (self.settled.load(Ordering::Acquire) == sequence.0).then_some(sequence)
    }

    /// After a look that found or waited for nothing more: the token, unless the node was hit meanwhile.
    pub(super) fn settle(&self, sequence: Sequence) -> Option<Sequence> {
        let fresh = self.sequence() == sequence;
        if fresh {
            // INVARIANT: I4, by the look that the caller has behind it.
            self.settled.store(sequence.0, Ordering::Release);
        }
        fresh.then_some(sequence)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if !self.options().are_none() {
            let own = self.table.load(Ordering::Relaxed).map_addr(|address| address & !TAGS);
            // SAFETY: by the invariant of the node the table is a box of its own, which nobody else uses now.
            drop(unsafe { Box::from_raw(own) });
        }
    }
}
