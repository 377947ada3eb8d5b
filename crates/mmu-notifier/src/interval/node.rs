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
//! # Invariants
//! - I3: a sequence never comes twice to one subscription.
//! - I4: `settled == s` implies that some thread, after it had read s, saw every hazard that concerns the node
//!   idle, or waited for it.
//! - I6: a node that a start found is readable until that start leaves phase calling.

use core::cell::Cell;
use core::ptr::{self, NonNull};

use super::Answer;
use crate::address::Range;
use crate::hazard::Hazard;
use crate::hung::Hung;
use crate::index::Place;
use crate::invalidation::{Invalidation, Owner};
use crate::scan::{Scan, Wanted};
use crate::subscriptions::Subscriptions;
use crate::sync::{AtomicPtr, AtomicU64, Ordering, full_fence};

/// A sequence: what [`read_begin`](super::Subscription::read_begin) hands out, and each hit renews.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Sequence(pub(crate) u64);

impl Sequence {
    /// Gives its number: odd where it is that of an invalidation.
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// What a node calls.
#[derive(Debug)]
pub(crate) struct Callbacks {
    /// # Safety
    /// The node is the one that the table was given with, found by a start in phase calling.
    pub(crate) invalidate: unsafe fn(NonNull<Node>, &Invalidation, Sequence) -> Answer,
    /// # Safety
    /// The same, after `invalidate` answered "begun" in this start.
    pub(crate) finish: unsafe fn(NonNull<Node>, &Invalidation),
}

/// Stands in the place of the callbacks of a node that another replaces: it is called by older starts only.
static REPLACED: Callbacks = Callbacks { invalidate: never_invalidate, finish: never_finish };

/// # Safety
/// None: it does nothing.
#[expect(unsafe_code, reason = "the type of the table")]
unsafe fn never_invalidate(_: NonNull<Node>, _: &Invalidation, _: Sequence) -> Answer {
    Answer::Done
}

/// # Safety
/// None: it does nothing.
#[expect(unsafe_code, reason = "the type of the table")]
unsafe fn never_finish(_: NonNull<Node>, _: &Invalidation) {}

/// An interval subscription, as the library sees it. The first cache line is what starts and reads use.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Node {
    first: u64,
    last: u64,
    seq: AtomicU64,
    settled: AtomicU64,
    /// Null once the node is withdrawn: nobody is called any more.
    table: AtomicPtr<Callbacks>,
    order: AtomicU64,
    place: Place,
    callbacks: &'static Callbacks,
    owner: u64,
    label: Option<&'static str>,
    /// The order of the node that replaces this one; 0 once a remove in a callback of the own thread has taken
    /// back what second pass it has coming.
    until: AtomicU64,
    /// For the subscriber's kind: what the node leads to. It does not change once the node is inserted.
    data: Cell<*const ()>,
    pub(crate) begun: BegunLink,
    pub(crate) hung: Hung,
}

/// The place of a node in the chain of those that wait for their second pass, past what fits a frame.
#[derive(Debug)]
pub(crate) struct BegunLink {
    pub(crate) next: AtomicPtr<Node>,
    pub(crate) invalidation: Cell<*const Invalidation>,
}

#[expect(unsafe_code, reason = "cells that a protocol guards")]
// SAFETY: `data` does not change once others can find the node, `place` belongs to the index's writer, `hung` to the hooks' lock, `begun.invalidation` to who moved
// `begun.next` from null; the rest is atomic or never changes.
unsafe impl Sync for Node {}
#[expect(unsafe_code, reason = "cells that a protocol guards")]
// SAFETY: as above; nothing belongs to a thread.
unsafe impl Send for Node {}

impl Node {
    pub(crate) fn new(
        range: Range,
        owner: Option<Owner>,
        label: Option<&'static str>,
        callbacks: &'static Callbacks,
    ) -> Self {
        let (first, last) = range.bounds();
        Node {
            first,
            last,
            seq: AtomicU64::new(0),
            settled: AtomicU64::new(0),
            table: AtomicPtr::new(ptr::from_ref(callbacks).cast_mut()),
            order: AtomicU64::new(0),
            place: Place::nowhere(),
            callbacks,
            owner: owner.map_or(0, Owner::get),
            label,
            until: AtomicU64::new(u64::MAX),
            data: Cell::new(ptr::null()),
            begun: BegunLink { next: AtomicPtr::new(ptr::null_mut()), invalidation: Cell::new(ptr::null()) },
            hung: Hung::new(),
        }
    }

    #[inline]
    pub(crate) fn bounds(&self) -> (u64, u64) {
        (self.first, self.last)
    }

    #[inline]
    pub(crate) fn order(&self) -> u64 {
        self.order.load(Ordering::Relaxed)
    }

    /// What the node leads to.
    pub(crate) fn data(&self) -> *const () {
        self.data.get()
    }

    /// Says what it leads to; before it is inserted.
    pub(crate) fn set_data(&self, data: *const ()) {
        self.data.set(data);
    }

    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    pub(crate) fn owner(&self) -> u64 {
        self.owner
    }

    pub(crate) fn label(&self) -> Option<&'static str> {
        self.label
    }

    /// Takes its order, and with it a first sequence that no invalidation has. Called by the index.
    pub(crate) fn enter(&self, order: u64) {
        self.order.store(order, Ordering::Relaxed);
        // INVARIANT: I3: the id part is 0, and it is even. It is not settled: the first read finds what runs.
        self.seq.store(order << 2, Ordering::Relaxed);
    }

    /// What a start with this limit calls; none if it is withdrawn or belongs to another start.
    #[inline]
    pub(crate) fn callbacks_for(&self, limit: u64) -> Option<&'static Callbacks> {
        if self.order() > limit {
            return None;
        }
        let table = self.table.load(Ordering::Acquire).cast_const();
        if ptr::eq(table, self.callbacks) {
            return Some(self.callbacks);
        }
        let replaced = ptr::eq(table, &REPLACED) && limit < self.until.load(Ordering::Relaxed);
        replaced.then_some(self.callbacks)
    }

    /// The callbacks of a second pass that is due; none if a remove took it back.
    pub(crate) fn second_pass(&self) -> Option<&'static Callbacks> {
        (self.until.load(Ordering::Relaxed) != 0).then_some(self.callbacks)
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
        self.table.store(ptr::null_mut(), Ordering::Release);
    }

    /// Takes second passes back that the calling thread still owes.
    pub(crate) fn strike(&self) {
        self.until.store(0, Ordering::Relaxed);
    }

    /// From now on only starts with a limit below `order`, that of the replacement, call it.
    pub(crate) fn give_way_to(&self, order: u64) {
        self.until.store(order, Ordering::Relaxed);
        self.table.store((&raw const REPLACED).cast_mut(), Ordering::Release);
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

    /// Says whether what is published there makes the node busy.
    pub(crate) fn is_busy_for(&self, hazard: &Hazard) -> bool {
        let ((first, last), own) = (hazard.bounds(), self.owner != 0 && hazard.owner() == self.owner);
        first <= self.last && self.first <= last && !own
    }

    /// Looks for what makes the node busy, with the sequence that the look is for.
    pub(crate) fn look(&self, subscriptions: &Subscriptions) -> (Sequence, Scan) {
        let sequence = self.sequence();
        // ORDERING: sequence, F, scan; against publication, F, sequence of a start.
        full_fence();
        let wanted = Wanted::Quiet { bounds: self.bounds(), owner: self.owner };
        (sequence, Scan::new(&subscriptions.book, wanted))
    }

    /// Looks for what is active and overlaps `part` of the range.
    fn look_at(&self, subscriptions: &Subscriptions, part: Range) -> Scan {
        // ORDERING: sequence, F, scan; against publication, F, sequence of a start.
        full_fence();
        let wanted = Wanted::Quiet { bounds: part.bounds(), owner: self.owner };
        Scan::new(&subscriptions.book, wanted)
    }

    /// Says whether nothing is active that overlaps `part` of the range.
    pub(crate) fn is_quiet(&self, subscriptions: &Subscriptions, part: Range) -> bool {
        self.look_at(subscriptions, part).advance(&subscriptions.book).is_none()
    }

    /// Waits as [`read_begin`](Self::read_begin), for what overlaps `part`. It does not settle the node, which
    /// may be busy elsewhere; the sequence is good for what is read of `part`, by the same argument.
    pub(crate) fn read_begin_part(
        &self,
        subscriptions: &Subscriptions,
        part: Range,
        deadline: Option<u64>,
    ) -> Option<Sequence> {
        if part.bounds() == self.bounds() {
            return self.read_begin(subscriptions, deadline);
        }
        self.settled_sequence().or_else(|| {
            loop {
                let sequence = self.sequence();
                if !self.look_at(subscriptions, part).wait(subscriptions, deadline) {
                    return None;
                }
                if self.sequence() == sequence {
                    return Some(sequence);
                }
            }
        })
    }

    /// After a look that found or waited for nothing more: the token, unless the node was hit meanwhile.
    pub(crate) fn settle(&self, sequence: Sequence) -> Option<Sequence> {
        let fresh = self.sequence() == sequence;
        if fresh {
            // INVARIANT: I4, by the look that the caller has behind it.
            self.settled.store(sequence.0, Ordering::Release);
        }
        fresh.then_some(sequence)
    }

    /// Waits until the node is not busy; none if the deadline came first.
    ///
    /// # Context
    /// May sleep; not in a callback of an invalidation that makes the node busy.
    #[inline]
    pub(crate) fn read_begin(
        &self,
        subscriptions: &Subscriptions,
        deadline: Option<u64>,
    ) -> Option<Sequence> {
        self.settled_sequence().or_else(|| self.read_begin_slowly(subscriptions, deadline))
    }

    #[cold]
    fn read_begin_slowly(&self, subscriptions: &Subscriptions, deadline: Option<u64>) -> Option<Sequence> {
        loop {
            let (sequence, scan) = self.look(subscriptions);
            if !scan.wait(subscriptions, deadline) {
                return None;
            }
            // CONTRACT C3.4: on it sleeps if another invalidation hit it meanwhile.
            if let Some(token) = self.settle(sequence) {
                return Some(token);
            }
        }
    }

    /// The token if the node is not busy now.
    pub(crate) fn try_read_begin(&self, subscriptions: &Subscriptions) -> Option<Sequence> {
        self.settled_sequence().or_else(|| {
            let (sequence, scan) = self.look(subscriptions);
            scan.advance(&subscriptions.book).is_none().then(|| self.settle(sequence)).flatten()
        })
    }
}
