//! Hazards: where each call under way in a space says, for everybody to see, what it is doing.
//!
//! As a hazard pointer names the object that a thread uses, a [`Hazard`] names the *range* that a thread
//! invalidates; nothing is written per subscription. Who wants to know whether a range is quiet looks through
//! the space's hazards ([`scan`](crate::scan)).
//!
//! # Protocol
//! A hazard belongs to a thread number (its thread alone [claims](Book::claim) it) or to nobody (claimed by
//! compare-and-exchange). It is free where `word` is idle and `taken` is 0: what is published claims it as well,
//! so that a start and its end need not write `taken`; whatever claims it without a word, or goes on behind the
//! word's end (a walk of the list), does. Whoever holds the claim, a thread or the guard that it gave away, does
//! in this order:
//! 1. stores the range and the pin, publishes `word` = *identity*, phase **calling**; full fence (F);
//! 2. searches the index, calls callbacks; stores phase **active**;
//! 3. stores phase **idle**, and gives the claim back.
//!
//! The list is walked in *sections*: `section` is odd inside and carries the stamp of the last grace period.
//! Each change of `word` or `section` that somebody may wait for is followed by a look at the bell.
//!
//! A hazard is never freed while its space lives. Those that are not claimed wait in a reserve, which is filled
//! by calls that may allocate. Where it is empty and nobody's hazards are all claimed, a call joins the
//! [`Crowd`]: a count, which stands for an invalidation of the whole space.
//!
//! # Invariants
//! - I1: a range is published before its search and until its end.
//! - An identity never comes twice: id (20 bits) | generation (42 bits) | phase (2 bits); a generation that
//!   is used up takes a new id, and no invalidation has id 0. With phase calling (1) it is the sequence that
//!   subscriptions are given: odd.

#![expect(unsafe_code, reason = "hazards are reached through raw pointers that live as long as their book")]

mod book;
mod claim;
mod reserve;

use core::panic::Location;
use core::ptr;

pub(crate) use book::Book;
pub(crate) use claim::Claim;

use crate::address::Range;
use crate::hung::Post;
use crate::invalidation::Owner;
use crate::platform::Context;
use crate::sync::{AtomicPtr, AtomicU32, AtomicU64, Ordering, publish, release_fence};

/// The phase bits of a word.
pub(crate) const PHASE: u64 = 3;
/// Callbacks of intervals are being called.
pub(crate) const CALLING: u64 = 1;
/// Begun and not ended.
pub(crate) const ACTIVE: u64 = 3;

const GENERATION_ONE: u64 = 1 << 2;
const ID_SHIFT: u32 = 44;
const GENERATIONS: u64 = (1 << ID_SHIFT) - 1;
/// The id of everything that a crowd starts.
const CROWD_ID: u64 = 1;
const FIRST_ID: u64 = 2;
const IDS: u64 = 1 << (64 - ID_SHIFT);

/// How many unclaimed hazards a call that may allocate leaves in the reserve; so many are allocated together.
const RESERVE: usize = if cfg!(any(loom, shuttle)) { 2 } else { 16 };

/// The record of one call under way: two cache lines, what starts and ends write in the first.
#[derive(Debug)]
#[repr(C, align(128))]
pub(crate) struct Hazard {
    word: AtomicU64,
    first: AtomicU64,
    last: AtomicU64,
    /// The owner of the invalidation, 0 for none.
    owner: AtomicU64,
    /// The epoch of a search under way, 0 for none.
    pin: AtomicU64,
    /// Twice the stamp plus one within a walk of the list, else 0.
    section: AtomicU64,
    taken: AtomicU32,
    /// The thread number that it belongs to; 0: nobody's.
    number: AtomicU32,
    /// The next in the book. Here, so that a scan looks at no other line.
    next: AtomicPtr<Hazard>,
    /// Who waits for a change of this hazard. (Here the second cache line begins.)
    pub(crate) post: Post,
    hits: AtomicU64,
    /// Sections that had to pass a fence (the lowest bits), and the stamp under which they are counted.
    fenced: AtomicU64,
    /// Where the start was called, while its guard belongs to that thread; for diagnostics.
    origin: AtomicPtr<Location<'static>>,
    /// The context of the thread that claimed it, where it is nobody's or that is diagnosed; to be compared only.
    thread: AtomicPtr<Context>,
    /// Starts under ids that are used up; those of the present one are its generations.
    starts: AtomicU64,
    /// The next of the same thread number: a ring.
    sibling: AtomicPtr<Hazard>,
}

const _: () = assert!(cfg!(any(loom, shuttle)) || size_of::<Hazard>() == 128);

impl Hazard {
    fn new(id: u64) -> Self {
        Hazard {
            word: AtomicU64::new(id << ID_SHIFT),
            first: AtomicU64::new(0),
            last: AtomicU64::new(0),
            owner: AtomicU64::new(0),
            pin: AtomicU64::new(0),
            section: AtomicU64::new(0),
            taken: AtomicU32::new(0),
            number: AtomicU32::new(0),
            starts: AtomicU64::new(0),
            post: Post::new(),
            hits: AtomicU64::new(0),
            fenced: AtomicU64::new(0),
            origin: AtomicPtr::new(ptr::null_mut()),
            thread: AtomicPtr::new(ptr::null_mut()),
            next: AtomicPtr::new(ptr::null_mut()),
            sibling: AtomicPtr::new(ptr::null_mut()),
        }
    }

    /// Identity and phase. Acquire: behind an idle word stands all that was written before the end.
    #[inline]
    pub(crate) fn word(&self) -> u64 {
        self.word.load(Ordering::Acquire)
    }

    /// The published range as first and last byte; to be believed only if the word is the same afterwards.
    #[inline]
    pub(crate) fn bounds(&self) -> (u64, u64) {
        (self.first.load(Ordering::Relaxed), self.last.load(Ordering::Relaxed))
    }

    /// What is published here, as its invalidation said it; for who holds the claim.
    #[inline]
    pub(crate) fn described(&self) -> (Range, Option<Owner>) {
        let (first, last) = self.bounds();
        (Range::from_bounds(first, last), Owner::new(self.owner()))
    }

    pub(crate) fn owner(&self) -> u64 {
        self.owner.load(Ordering::Relaxed)
    }

    pub(crate) fn pin(&self) -> u64 {
        self.pin.load(Ordering::Acquire)
    }

    pub(crate) fn section(&self) -> u64 {
        self.section.load(Ordering::Acquire)
    }

    pub(crate) fn next(&self) -> *const Hazard {
        // ORDERING: acquire pairs with the release in `Book::enlist`: the fields of the next are there.
        self.next.load(Ordering::Acquire)
    }

    /// Where the invalidation that is active here was started, if that is known and its guard is still there.
    pub(crate) fn origin(&self) -> Option<&'static Location<'static>> {
        let origin = self.origin.load(Ordering::Relaxed).cast_const();
        // SAFETY: null, or a location that lives for ever, stored by `set_origin`.
        unsafe { origin.as_ref() }.filter(|_| self.word() & PHASE == ACTIVE)
    }

    /// Says whether the thread with this context was the one that [`origin`](Self::origin) is about.
    pub(crate) fn was_started_by(&self, context: &Context) -> bool {
        ptr::eq(self.thread.load(Ordering::Relaxed), context)
    }

    /// Says whether it belongs to this thread number, which is not 0.
    pub(crate) fn belongs_to(&self, number: u32) -> bool {
        number != 0 && self.number.load(Ordering::Relaxed) == number
    }

    /// Stores what the next identity stands for.
    #[inline]
    fn describe(&self, (first, last): (u64, u64), owner: u64) {
        // ORDERING: the end before, then this range; pairs with the second look of a scan that read the word
        // of the one and the range of the other.
        release_fence();
        self.first.store(first, Ordering::Relaxed);
        self.last.store(last, Ordering::Relaxed);
        self.owner.store(owner, Ordering::Relaxed);
    }

    /// Publishes an invalidation in phase calling under its next identity, and pins its search to `epoch`.
    ///
    /// Behind it stands a full fence: what is searched from here on is at least as new as the publication.
    #[inline(always)]
    pub(crate) fn publish(&self, identity: u64, bounds: (u64, u64), owner: u64, epoch: u64) {
        self.describe(bounds, owner);
        // ORDERING: behind the release fence in `describe`, so who finds this pin (acquire, `Book::lowest_pin`) in
        // place of the one that an earlier search left comes behind the loads of that search; and before the
        // publication, so who finds that finds the pin.
        self.pin.store(epoch, Ordering::Relaxed);
        // ORDERING: publication and F; pairs with the F of every scan.
        publish(&self.word, identity);
    }

    /// The others of the same thread number, and at last itself; for that thread.
    fn siblings(&self) -> impl Iterator<Item = &Hazard> {
        let mut at = Some(self);
        core::iter::from_fn(move || {
            let sibling = at?.sibling.load(Ordering::Relaxed);
            // SAFETY: the siblings of an enlisted hazard with a number are a ring of hazards of its book.
            let sibling = unsafe { &*sibling };
            at = (!ptr::eq(sibling, self)).then_some(sibling);
            Some(sibling)
        })
    }

    /// Says whether nobody has claimed it; for those who alone may claim it.
    #[inline]
    fn is_free(&self) -> bool {
        // ORDERING: both acquire, the word first: an end that goes on with a walk stores `taken`, then idle (release);
        // what it gives back last (release) comes before the next claim.
        self.word() & PHASE == 0 && self.taken.load(Ordering::Acquire) == 0
    }

    /// The identity of the next start if it is free, and has one left; as [`is_free`](Self::is_free).
    #[inline(always)]
    fn free_identity(&self) -> Option<u64> {
        let word = self.word();
        let identity = word.wrapping_add(GENERATION_ONE + CALLING);
        let is_free = word & PHASE == 0 && self.taken.load(Ordering::Acquire) == 0;
        (is_free && identity & GENERATIONS & !PHASE != 0).then_some(identity)
    }

    /// How many starts it has seen.
    fn starts(&self) -> u64 {
        self.starts.load(Ordering::Relaxed) + (self.word() & GENERATIONS) / GENERATION_ONE
    }

    /// The identity that a start of this hazard takes next.
    #[inline]
    pub(crate) fn next_identity(&self) -> u64 {
        ((self.word.load(Ordering::Relaxed) & !PHASE) + GENERATION_ONE) | CALLING
    }

    #[inline]
    fn is_used_up(&self) -> bool {
        self.word.load(Ordering::Relaxed) & GENERATIONS & !PHASE == GENERATIONS & !PHASE
    }

    /// Adds to a statistic that only the holder of the claim writes.
    fn count(counter: &AtomicU64, more: u64) {
        counter.store(counter.load(Ordering::Relaxed) + more, Ordering::Relaxed);
    }
}

/// Those for whom no hazard was left: a count of invalidations of the whole space.
#[derive(Debug)]
pub(crate) struct Crowd {
    open: AtomicU32,
    calling: AtomicU32,
    sections: AtomicU32,
    generation: AtomicU64,
    starts: AtomicU64,
    pub(crate) post: Post,
}

impl Crowd {
    fn new() -> Self {
        Crowd {
            open: AtomicU32::new(0),
            calling: AtomicU32::new(0),
            sections: AtomicU32::new(0),
            generation: AtomicU64::new(0),
            starts: AtomicU64::new(0),
            post: Post::new(),
        }
    }

    pub(crate) fn open(&self) -> u32 {
        self.open.load(Ordering::Acquire)
    }

    pub(crate) fn calling(&self) -> u32 {
        self.calling.load(Ordering::Acquire)
    }

    pub(crate) fn sections(&self) -> u32 {
        self.sections.load(Ordering::Acquire)
    }
}
