//! The index: which subscriptions overlap a range, in order, while others are inserted and removed.
//!
//! A B+-tree by (start, order of insertion). One writer at a time changes it, under a spinlock that neither a
//! search nor a callback ever takes; searches are wait-free. [`page`] holds the pages, [`mod@search`] looks
//! through them, [`compare`] how all entries of a page are compared at once, [`order`] which entry of a leaf comes before which,
//! [`write`](self) what inserts and removes do, [`rebuild`] what becomes of full pages, [`reclaim`] when the memory of
//! a page may be used again.
//!
//! # Protocol
//! - *Insert*: raise the maxima from the root down, write the entry, set its live bit (release), then raise
//!   the order counter (release). From then on the subscription is inserted: a start that reads the counter
//!   finds it. Equal starts go behind those that are there.
//! - *Remove*: clear the live bit (release), withdraw the node, then lower the maxima from the leaf up, where a search
//!   may look at them.
//! - *Search*: pin, F, limit = order counter (acquire), then down from the root. It may find entries above the
//!   limit (the caller leaves them out), and in a page that was replaced meanwhile entries that are removed
//!   already (their callbacks are no-ops by then); it misses nothing up to the limit that is not removed.
//!
//! # Invariants
//! - I2: whatever has an order up to the counter is reachable until its live bit is cleared; maxima and
//!   overhang never under-state what is reachable.
//! - I5: a page is unlinked before it is stamped, and reused only when every pin is newer than its stamp.

#![expect(unsafe_code, reason = "the fields of the writer are guarded by its lock")]

mod compare;
mod order;
mod page;
mod rebuild;
mod reclaim;
mod search;
mod write;

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests;

use core::cell::Cell;

use crate::hazard::Book;
use crate::interval::Node;
use crate::sync::{AtomicPtr, AtomicU64, Ordering, SpinLock};

use compare::{Compare, of_kind};
use page::Page;
use reclaim::{First, Pages};
pub(crate) use search::{BATCH, Batch, Found, Look};

/// Asks the processor what it has, which may take tens of microseconds the first time.
pub(crate) fn look_at_machine() {
    Compare::best();
}

/// Why an insert did not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The space exits or has exited.
    Closed,
    /// No memory for a page.
    OutOfMemory,
}

/// The index of a space. It is empty and unused until [`open`](Index::open).
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Index {
    root: AtomicPtr<Page>,
    order: AtomicU64,
    epoch: AtomicU64,
    compare: Compare,
    writer: Writer,
    first: First,
}

/// What only inserts and removes touch. It has cache lines of its own: every start reads what stands before it.
#[derive(Debug)]
#[repr(align(64))]
struct Writer {
    lock: SpinLock,
    pages: Pages,
    closed: Cell<bool>,
    count: AtomicU64,
}

// SAFETY: the cells of `writer` are used under its lock only; the rest is atomic.
unsafe impl Sync for Index {}
// SAFETY: nothing in an index belongs to a thread.
unsafe impl Send for Index {}

impl Index {
    pub(crate) fn new() -> Self {
        Index {
            root: AtomicPtr::new(core::ptr::null_mut()),
            order: AtomicU64::new(0),
            epoch: AtomicU64::new(1),
            compare: Compare::best(),
            writer: Writer {
                lock: SpinLock::new(),
                pages: Pages::new(),
                closed: Cell::new(false),
                count: AtomicU64::new(0),
            },
            first: First::new(),
        }
    }

    /// Says whether anybody was ever to be inserted: before that an invalidation leaves no trace here.
    #[inline]
    pub(crate) fn is_open(&self) -> bool {
        !self.root.load(Ordering::Acquire).is_null()
    }

    /// The epoch to pin a search with.
    #[inline]
    pub(crate) fn epoch(&self) -> u64 {
        // ORDERING: acquire pairs with the advance in `Pages::retire`: unlinked pages of older stamps are seen.
        self.epoch.load(Ordering::Acquire)
    }

    /// The highest order that is inserted.
    ///
    /// # Context
    /// The caller has published its range and passed a full fence.
    #[inline]
    pub(crate) fn limit(&self) -> u64 {
        // ORDERING: acquire pairs with the release in `insert`: all up to the limit can be found.
        self.order.load(Ordering::Acquire)
    }

    /// How many subscriptions are inserted.
    pub(crate) fn count(&self) -> u64 {
        self.writer.count.load(Ordering::Relaxed)
    }

    /// Collects the next subscriptions that overlap `bounds`, ascending, behind `after` (start and order).
    /// Returns false if the batch was full before the end.
    ///
    /// # Safety
    /// The index is open.
    ///
    /// # Context
    /// The caller has pinned the epoch, passed a full fence, and published `bounds` in phase calling,
    /// which keeps what it finds readable.
    #[inline]
    pub(crate) unsafe fn search(
        &self,
        bounds: (u64, u64),
        after: Option<(u64, u64)>,
        batch: &mut Batch,
    ) -> bool {
        // SAFETY: as promised by the caller.
        let look = unsafe { self.look(bounds) };
        of_kind!(self.compare, kind => search::collect(look, kind, bounds, after.as_ref(), batch))
    }

    /// Looks who overlaps `bounds`.
    ///
    /// # Safety
    /// The index is open.
    ///
    /// # Context
    /// As for [`search`](Self::search).
    #[inline(always)]
    pub(crate) unsafe fn look(&self, bounds: (u64, u64)) -> Look {
        // SAFETY: the index is open, as promised, and has a root from then on; the caller has pinned it.
        let root = unsafe { &*self.root.load(Ordering::Acquire) };
        of_kind!(self.compare, kind => search::look(root, kind, bounds))
    }

    /// Collects who was found, and looks for the rest of several; as [`search`](Self::search) otherwise.
    #[inline]
    pub(crate) fn collect(&self, look: Look, bounds: (u64, u64), batch: &mut Batch) -> bool {
        of_kind!(self.compare, kind => search::collect(look, kind, bounds, None, batch))
    }

    /// Takes the writer lock and says that nobody can be inserted any more.
    pub(crate) fn close(&self) {
        let _lock = self.writer.lock.lock();
        self.writer.closed.set(true);
    }

    /// Keeps inserts and removes out around a fork.
    pub(crate) fn lock_for_fork(&self) {
        self.writer.lock.lock_for_fork();
    }

    /// Lets them in again.
    pub(crate) fn unlock_after_fork(&self) {
        self.writer.lock.unlock_after_fork();
    }
}

/// Where a subscription stands in the index: its leaf, and in the low bits, which a page leaves free, its slot.
/// Used under the writer lock.
#[derive(Debug)]
#[repr(transparent)]
pub(crate) struct Place(Cell<*const Page>);

impl Place {
    pub(crate) fn nowhere() -> Self {
        const { assert!(page::FAN <= align_of::<Page>()) };
        Place(Cell::new(core::ptr::null()))
    }

    fn set(&self, page: *const Page, slot: usize) {
        self.0.set(page.map_addr(|address| address | slot));
    }

    /// Gives it, and forgets it.
    fn take(&self) -> (*const Page, usize) {
        let place = self.0.replace(core::ptr::null());
        let slot = place.addr() % align_of::<Page>();
        (place.map_addr(|address| address - slot), slot)
    }
}
