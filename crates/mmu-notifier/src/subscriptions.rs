//! What a space needs once somebody watches it: made at the first registration of any kind, freed with the
//! last holder (clause C2.2).

#![expect(unsafe_code, reason = "what hazards stand in has to stay where it is")]

use core::ptr::NonNull;

use crate::frame::{self, Sleep};
use crate::hazard::{Book, Claim};
use crate::hung::{Hooks, Post};
use crate::index::Index;
use crate::interval::Tables;
use crate::list::List;
use crate::memory::Aligned;
use crate::platform::{self, Bell, Payload};
use crate::records::Records;
use crate::space::Space;
use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// Both sides of a space's subscriptions, and the hazards that they share.
#[derive(Debug)]
pub(crate) struct Subscriptions {
    pub(crate) index: Index,
    pub(crate) book: Book,
    pub(crate) hooks: Hooks,
    pub(crate) list: List,
    pub(crate) tables: Tables,
    pub(crate) records: Records,
    /// Rung when a free that put began has run, or was left to a call that may sleep.
    pub(crate) freed: Bell,
    pub(crate) waits: AtomicU64,
    pub(crate) refusals: AtomicU64,
    /// Not 0 once somebody makes the exit.
    exiting: AtomicU32,
    /// Not 0 once the exit is over.
    exited: AtomicU32,
    space: Home,
    /// Of the space, in this process; never used twice.
    pub(crate) id: u64,
    /// Of the space.
    pub(crate) label: Option<&'static str>,
}

/// The space that they belong to, which frees them.
#[derive(Debug)]
struct Home(NonNull<Space>);

// SAFETY: it stands for a reference to a space, which may be shared as an `AddressSpaceRef` is.
unsafe impl Send for Home {}
// SAFETY: as above.
unsafe impl Sync for Home {}

impl Subscriptions {
    /// Makes those of a space; none if there is no memory.
    ///
    /// # Safety
    /// The space lives, and stays where it is, as long as they do.
    pub(crate) unsafe fn try_new(
        space: &Space,
        id: u64,
        label: Option<&'static str>,
        leaves_work: bool,
    ) -> Option<Aligned<Subscriptions>> {
        // Made where it stays: this is large, and most of it is written when it is used.
        Aligned::try_new(|| Subscriptions {
            index: Index::new(),
            // SAFETY: it is made where it stays.
            book: unsafe { Book::new(id) },
            hooks: Hooks::new(leaves_work),
            list: List::new(),
            tables: Tables::new(),
            records: Records::new(),
            freed: Bell::new(),
            waits: AtomicU64::new(0),
            refusals: AtomicU64::new(0),
            exiting: AtomicU32::new(0),
            exited: AtomicU32::new(0),
            space: Home(NonNull::from(space)),
            id,
            label,
        })
    }

    /// The space. A call that makes a holder of it is one already.
    #[inline]
    pub(crate) fn space(&self) -> &Space {
        // SAFETY: it lives as long as these, as promised to `try_new`.
        unsafe { self.space.0.as_ref() }
    }

    /// Tells those who wait at `post`, if anybody may. Returns the panic of what was finished there, which the
    /// caller lets go on once its own books are in order.
    #[inline]
    #[must_use]
    pub(crate) fn ring(&self, post: Option<&Post>) -> Option<Payload> {
        self.ring_heard(post?)
    }

    #[cold]
    fn ring_heard(&self, post: &Post) -> Option<Payload> {
        let panic = platform::catch(|| self.hooks.ring(&self.book, post)).err();
        // A free that was left to the next call that may sleep: one that sleeps already is that call.
        if self.hooks.has_ready() && self.freed.is_heard() {
            self.freed.ring();
        }
        panic
    }

    /// Finishes what was left to calls that may sleep, of which this is one.
    #[inline]
    pub(crate) fn may_sleep(&self) {
        self.hooks.finish_ready();
    }

    /// Says whether an insert needs nothing made, and has nothing to finish, before it begins.
    #[inline]
    pub(crate) fn is_ready_for_intervals(&self) -> bool {
        self.index.is_open() && self.book.is_full() && !self.has_left()
    }

    /// Says whether anything was.
    #[inline]
    pub(crate) fn has_left(&self) -> bool {
        self.hooks.has_ready()
    }

    pub(crate) fn count_wait(&self) {
        self.waits.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_refusal(&self) {
        self.refusals.fetch_add(1, Ordering::Relaxed);
    }

    /// Says whether the calling thread is in a callback of this space.
    #[inline]
    pub(crate) fn innermost(&self) -> Option<Sleep> {
        frame::innermost(self.id)
    }

    /// Claims the one exit; false if somebody else has it.
    pub(crate) fn claim_exit(&self) -> bool {
        self.exiting.swap(1, Ordering::AcqRel) == 0
    }

    /// Says that the exit is over.
    pub(crate) fn set_exited(&self) {
        self.exited.store(1, Ordering::Relaxed);
    }

    pub(crate) fn has_exited(&self) -> bool {
        self.exited.load(Ordering::Relaxed) != 0
    }

    /// Leaves the section of `claim`; a panic as in [`ring`](Self::ring).
    #[must_use]
    #[inline]
    pub(crate) fn leave_section(&self, claim: Claim<'_>) -> Option<Payload> {
        self.ring(claim.leave_section())
    }
}

impl Drop for Subscriptions {
    fn drop(&mut self) {
        self.hooks.finish_ready();
    }
}
