//! The node of a list subscription: what walks of the list call.

use core::any::TypeId;
use core::cell::Cell;
use core::ptr::NonNull;

use super::WouldBlock;
use crate::address::{Address, Range};
use crate::frees::Ticket;
use crate::hung::Hung;
use crate::invalidation::Invalidation;
use crate::platform::Payload;
use crate::space::Pte;
use crate::sync::{AtomicU32, AtomicU64, Ordering, exchange};

/// A question about the accessed bits (clause C5.6).
#[derive(Clone, Copy, Debug)]
pub(crate) enum Young {
    /// Tell and clear, and flush the secondary TLB.
    ClearFlush(Range),
    /// Tell and clear; the secondary TLB need not be flushed.
    Clear(Range),
    /// Tell, for one address.
    Test(Address),
}

/// Calls `invalidate_range_start`. One that panics is said to refuse.
type Start = unsafe fn(NonNull<Node>, &Invalidation, &mut Option<Payload>) -> Result<(), WouldBlock>;

/// What a node calls, given the node that the table was made for. None of them unwinds: each keeps the first panic of its
/// walk.
#[derive(Debug)]
pub(crate) struct Callbacks {
    pub(crate) release: unsafe fn(NonNull<Node>, &mut Option<Payload>),
    pub(crate) start: Start,
    pub(crate) end: unsafe fn(NonNull<Node>, &Invalidation, &mut Option<Payload>),
    /// `invalidate_range` and the end, so that an end is one call a node; says whether the end was not called, since
    /// the other panicked.
    pub(crate) flush_and_end: unsafe fn(NonNull<Node>, &Invalidation, &mut Option<Payload>) -> bool,
    pub(crate) invalidate_range: unsafe fn(NonNull<Node>, Range, &mut Option<Payload>),
    /// One that panics says no.
    pub(crate) young: unsafe fn(NonNull<Node>, Young, &mut Option<Payload>) -> bool,
    pub(crate) change_pte: unsafe fn(NonNull<Node>, Address, Pte, &mut Option<Payload>),
}

/// Stands in the place of a number, above each, so that one look tells a walk whom it calls.
const OFF: u64 = u64::MAX;

/// By what get finds a shared notifier: its type, and a word that the user chooses.
pub(crate) type Key = (TypeId, u64);

/// A list subscription, as the library sees it. What walks look at comes first.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Node {
    pub(crate) callbacks: &'static Callbacks,
    /// The number of its registration; [`OFF`] once it was taken off the list.
    number: AtomicU64,
    released: AtomicU32,
    /// Where it stands in the array, under the lock of the list.
    pub(super) place: Cell<usize>,
    /// How many have got it, under the lock of the list.
    pub(super) users: Cell<u32>,
    pub(super) key: Option<Key>,
    label: Option<&'static str>,
    pub(crate) hung: Hung,
    pub(crate) ticket: Ticket,
}

#[expect(unsafe_code, reason = "cells that a lock guards")]
// SAFETY: `place` and `users` are used under the lock of the list, `hung` under that of the hooks, `ticket`
// under that of the frees; the rest is atomic or never changes.
unsafe impl Sync for Node {}
#[expect(unsafe_code, reason = "cells that a lock guards")]
// SAFETY: as above; nothing belongs to a thread.
unsafe impl Send for Node {}

impl Node {
    pub(crate) fn new(callbacks: &'static Callbacks, key: Option<Key>, label: Option<&'static str>) -> Self {
        Node {
            callbacks,
            released: AtomicU32::new(0),
            number: AtomicU64::new(0),
            place: Cell::new(0),
            users: Cell::new(1),
            key,
            label,
            hung: Hung::new(),
            ticket: Ticket::new(),
        }
    }

    /// Takes its number and its place. Called by the list, under its lock.
    #[inline]
    pub(super) fn enter(&self, number: u64, place: usize) {
        self.number.store(number, Ordering::Relaxed);
        self.place.set(place);
    }

    /// Says whether it was registered when the numbers had come up to `limit`, and is not taken off the list since.
    #[inline]
    pub(crate) fn is_registered_by(&self, limit: u64) -> bool {
        // ORDERING: as in `is_off`.
        self.number.load(Ordering::Acquire) <= limit
    }

    /// Says whether it was taken off the list: then no walk calls it that has not come to it.
    #[inline]
    pub(crate) fn is_off(&self) -> bool {
        // ORDERING: acquire pairs with the release in `take_off`: who skips the node comes behind that. Who does not is in
        // a section that the grace period sees; see `Grace`.
        self.number.load(Ordering::Acquire) == OFF
    }

    pub(super) fn take_off(&self) {
        self.number.store(OFF, Ordering::Release);
    }

    /// Claims the one release, and passes a full fence; false if somebody else has it.
    pub(crate) fn claim_release(&self) -> bool {
        // ORDERING: one of two claims wins. Who loses (acquire) finds the section that the winner (release) calls in, and
        // waits for it. And section, F, what the callback loads; against what a grace period is to be behind, F, sections.
        exchange(&self.released, 1) == 0
    }

    pub(crate) fn label(&self) -> Option<&'static str> {
        self.label
    }
}
