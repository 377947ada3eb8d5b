//! Hazards: where each call under way in a space says, for everybody to see, what it is doing.
//!
//! As a hazard pointer names the object that a thread uses, a [`Hazard`] names the *range* that a thread
//! invalidates; nothing is written per subscription. Who wants to know whether a range is quiet looks through
//! the space's hazards ([`scan`](crate::scan)).
//!
//! # Protocol
//! A hazard belongs to a thread number (its thread alone [claims](Book::claim) it) or to nobody (claimed by
//! compare-and-exchange). Whoever holds the claim, a thread or the guard that it gave away, does in this order:
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

use alloc::alloc::{alloc, dealloc};
use core::alloc::Layout;
use core::panic::Location;
use core::ptr::{self, NonNull};

use crate::hung::Post;
use crate::platform::{Context, with_context};
use crate::space::Stats;
use crate::sync::{AtomicPtr, AtomicU32, AtomicU64, Ordering, full_fence, publish, release_fence};

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

/// How many unclaimed hazards a call that may allocate leaves in the reserve.
const RESERVE: u32 = if cfg!(any(loom, shuttle)) { 2 } else { 16 };

/// The record of one call under way.
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
    starts: AtomicU64,
    /// Who waits for a change of this hazard. (Here the second cache line begins.)
    pub(crate) post: Post,
    hits: AtomicU64,
    refusals: AtomicU64,
    /// Where the start was called, while its guard belongs to that thread; for diagnostics.
    origin: AtomicPtr<Location<'static>>,
    /// The context of that thread, to be compared only.
    thread: AtomicPtr<Context>,
    /// The next in the book, or in the reserve.
    next: AtomicPtr<Hazard>,
    /// The next of the same thread number: a ring.
    sibling: AtomicPtr<Hazard>,
}

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
            refusals: AtomicU64::new(0),
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
        Hazard::count(&self.starts, 1);
    }

    /// The identity that a start of this hazard takes next.
    fn next_identity(&self) -> u64 {
        ((self.word.load(Ordering::Relaxed) & !PHASE) + GENERATION_ONE) | CALLING
    }

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

/// The right to one hazard, or to be one of the crowd.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Claim<'b> {
    /// A record of its own.
    One(&'b Hazard),
    /// One more of many.
    Crowd(&'b Crowd),
}

impl<'b> Claim<'b> {
    /// Publishes an invalidation in phase calling and pins its search to `epoch`; returns the identity.
    ///
    /// Behind it stands a full fence: what is searched from here on is at least as new as the publication.
    #[inline]
    pub(crate) fn publish(self, bounds: (u64, u64), owner: u64, epoch: u64) -> u64 {
        match self {
            Claim::One(hazard) => {
                hazard.describe(bounds, owner);
                hazard.pin.store(epoch, Ordering::Relaxed);
                let identity = hazard.next_identity();
                // ORDERING: publication and F; pairs with the F of every scan.
                publish(&hazard.word, identity);
                identity
            }
            Claim::Crowd(_) => {
                let identity = self.announce(bounds, owner);
                // ORDERING: publication, F.
                full_fence();
                identity
            }
        }
    }

    /// Publishes an invalidation in phase calling, without pin or fence: the caller passes a full fence before
    /// it searches.
    pub(crate) fn announce(self, bounds: (u64, u64), owner: u64) -> u64 {
        match self {
            Claim::One(hazard) => {
                hazard.describe(bounds, owner);
                let identity = hazard.next_identity();
                hazard.word.store(identity, Ordering::Release);
                identity
            }
            Claim::Crowd(crowd) => {
                crowd.open.fetch_add(1, Ordering::Relaxed);
                crowd.calling.fetch_add(1, Ordering::Relaxed);
                crowd.starts.fetch_add(1, Ordering::Relaxed);
                let generation = crowd.generation.fetch_add(GENERATION_ONE, Ordering::Relaxed);
                (CROWD_ID << ID_SHIFT) | (generation & GENERATIONS) | CALLING
            }
        }
    }

    /// Pins another search of the same start.
    pub(crate) fn pin(self, epoch: u64) {
        if let Claim::One(hazard) = self {
            // ORDERING: release: this overwrites the 0 of the unpin before, and `Book::lowest_pin` (acquire) may
            // read it in its place: the loads of that search come before.
            hazard.pin.store(epoch, Ordering::Release);
            // ORDERING: pin, F, search; against unlink, F, look at the pins.
            full_fence();
        }
    }

    /// Ends a search.
    #[inline]
    pub(crate) fn unpin(self) {
        if let Claim::One(hazard) = self {
            // ORDERING: release, for `Book::lowest_pin`: no load of the search comes after it.
            hazard.pin.store(0, Ordering::Release);
        }
    }

    /// Turns phase calling into active. Returns the post if somebody may have to hear of it.
    #[inline]
    pub(crate) fn activate(self, identity: u64) -> Option<&'b Post> {
        match self {
            Claim::One(hazard) => hazard.word.store(identity | ACTIVE, Ordering::Release),
            Claim::Crowd(crowd) => _ = crowd.calling.fetch_sub(1, Ordering::Release),
        }
        self.heard()
    }

    /// Says whether `identity` is published here in phase active: whether there is something to end.
    #[inline]
    pub(crate) fn is_active(self, identity: u64) -> bool {
        match self {
            Claim::One(hazard) => hazard.word.load(Ordering::Relaxed) == identity | ACTIVE,
            Claim::Crowd(crowd) => crowd.open.load(Ordering::Relaxed) != 0,
        }
    }

    /// Stores phase idle after phase active.
    #[inline]
    pub(crate) fn retire(self, identity: u64) -> Option<&'b Post> {
        match self {
            // ORDERING: release; who sees it idle (acquire) sees what the primary MMU wrote before the end.
            Claim::One(hazard) => hazard.word.store(identity & !PHASE, Ordering::Release),
            Claim::Crowd(crowd) => _ = crowd.open.fetch_sub(1, Ordering::Release),
        }
        self.heard()
    }

    /// Stores phase idle straight after phase calling, for a start that failed.
    pub(crate) fn abandon(self, identity: u64) -> Option<&'b Post> {
        if let Claim::Crowd(crowd) = self {
            crowd.calling.fetch_sub(1, Ordering::Release);
        }
        self.retire(identity)
    }

    /// Enters a read section of the list.
    #[inline]
    pub(crate) fn enter_section(self, stamp: u64) {
        match self {
            // ORDERING: release: a grace period may read this in place of the 0 of the section before, and takes
            // that for over: what its callbacks did comes before the free.
            Claim::One(hazard) => hazard.section.store(stamp << 1 | 1, Ordering::Release),
            Claim::Crowd(crowd) => _ = crowd.sections.fetch_add(1, Ordering::Relaxed),
        }
        // ORDERING: section, F, load of the list; against tombstone, F, look at the sections.
        full_fence();
    }

    /// Leaves the section. Returns the post if somebody may have to hear of it.
    #[inline]
    pub(crate) fn leave_section(self) -> Option<&'b Post> {
        match self {
            // ORDERING: release, so that what the walk did is over for who sees it left (acquire).
            Claim::One(hazard) => hazard.section.store(0, Ordering::Release),
            Claim::Crowd(crowd) => _ = crowd.sections.fetch_sub(1, Ordering::Release),
        }
        self.heard()
    }

    /// Gives the claim back; nothing of it may be used afterwards.
    #[inline]
    pub(crate) fn give_back(self) {
        if let Claim::One(hazard) = self {
            // ORDERING: release; the next claim of it (acquire) comes after all that was stored under this one.
            hazard.taken.store(0, Ordering::Release);
        }
    }

    /// Notes where the start was called, or that its guard may be on any thread.
    pub(crate) fn set_origin(self, origin: Option<&'static Location<'static>>) {
        if let Claim::One(hazard) = self {
            let origin = origin.map_or(ptr::null(), ptr::from_ref).cast_mut();
            hazard.origin.store(origin, Ordering::Relaxed);
            let thread = with_context(|context| context.map_or(ptr::null(), ptr::from_ref));
            hazard.thread.store(thread.cast_mut(), Ordering::Relaxed);
        }
    }

    /// Adds to the statistics of this space.
    pub(crate) fn count(self, hits: u64, refusals: u64) {
        if let Claim::One(hazard) = self {
            Hazard::count(&hazard.hits, hits);
            Hazard::count(&hazard.refusals, refusals);
        }
    }

    /// The hazard, or null in the crowd.
    pub(crate) fn as_ptr(self) -> *const Hazard {
        match self {
            Claim::One(hazard) => hazard,
            Claim::Crowd(_) => ptr::null(),
        }
    }

    #[inline(always)]
    fn heard(self) -> Option<&'b Post> {
        let post = match self {
            Claim::One(hazard) => &hazard.post,
            Claim::Crowd(crowd) => &crowd.post,
        };
        post.bell.is_heard().then_some(post)
    }
}

/// All hazards of a space.
///
/// # Invariants
/// `head` and `next` lead to hazards that live as long as the book; a hazard enters the list once and stays.
#[derive(Debug)]
pub(crate) struct Book {
    head: AtomicPtr<Hazard>,
    reserve: AtomicPtr<Hazard>,
    spare: AtomicU32,
    ids: AtomicU64,
    pub(crate) crowd: Crowd,
    /// Of the space, in this process; never used twice.
    id: u64,
}

impl Book {
    /// Makes an empty book for the space `id`; [`refill`](Self::refill) it before use.
    pub(crate) fn new(id: u64) -> Self {
        Book {
            head: AtomicPtr::new(ptr::null_mut()),
            reserve: AtomicPtr::new(ptr::null_mut()),
            spare: AtomicU32::new(0),
            ids: AtomicU64::new(FIRST_ID),
            crowd: Crowd::new(),
            id,
        }
    }

    /// Fills the reserve, with room for `more` than usual. False if there is no memory.
    ///
    /// # Context
    /// Allocates; none of the library's locks may be held.
    pub(crate) fn refill(&self, more: u32) -> bool {
        while self.spare.load(Ordering::Relaxed) < RESERVE + more {
            let Some(id) = self.fresh_id() else { return true };
            let layout = Layout::new::<Hazard>();
            // SAFETY: the layout of a hazard has a size.
            let memory = unsafe { alloc(layout) }.cast::<Hazard>();
            let Some(hazard) = NonNull::new(memory) else { return false };
            // SAFETY: hazard points to fresh memory of its layout.
            unsafe { hazard.write(Hazard::new(id)) };
            self.shelve(hazard.as_ptr());
        }
        true
    }

    fn fresh_id(&self) -> Option<u64> {
        let id = self.ids.fetch_add(1, Ordering::Relaxed);
        if id < IDS {
            return Some(id);
        }
        self.ids.store(IDS, Ordering::Relaxed);
        None
    }

    /// Puts a hazard that was never used into the reserve.
    fn shelve(&self, hazard: *mut Hazard) {
        self.spare.fetch_add(1, Ordering::Relaxed);
        push(&self.reserve, hazard);
    }

    /// Takes one out of the reserve.
    fn unshelve(&self) -> Option<&Hazard> {
        let mut top = self.reserve.load(Ordering::Acquire);
        loop {
            // SAFETY: hazards live as long as the book; this one was in the reserve a moment ago.
            let hazard = unsafe { top.as_ref() }?;
            let below = hazard.next.load(Ordering::Relaxed);
            // ORDERING: what leaves the reserve never comes back, so `top` cannot be another one's turn.
            match self.reserve.compare_exchange(top, below, Ordering::Acquire, Ordering::Acquire) {
                Ok(_) => break,
                Err(now) => top = now,
            }
        }
        self.spare.fetch_sub(1, Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { top.as_ref() }
    }

    /// Claims a record for one call of this thread. It never fails and allocates nothing.
    #[inline]
    pub(crate) fn claim(&self, context: Option<&Context>) -> Claim<'_> {
        if let Some(context) = context {
            // SAFETY: a record remembered for the id of this book is one of its hazards.
            if let Some(own) = unsafe { context.remembered(self.id).as_ref() } {
                if own.taken.load(Ordering::Acquire) == 0 && !own.is_used_up() {
                    own.taken.store(1, Ordering::Relaxed);
                    return Claim::One(own);
                }
            }
        }
        self.claim_slowly(context)
    }

    #[cold]
    fn claim_slowly(&self, context: Option<&Context>) -> Claim<'_> {
        let numbered = context.map(|context| (context, context.number())).filter(|(_, number)| *number != 0);
        let own = numbered.and_then(|(context, number)| self.claim_own(context, number));
        own.or_else(|| self.claim_shared()).map_or(Claim::Crowd(&self.crowd), Claim::One)
    }

    /// Claims a free one of this thread's own, or makes one out of the reserve.
    fn claim_own(&self, context: &Context, number: u32) -> Option<&Hazard> {
        let entry = self.iter().find(|hazard| hazard.number.load(Ordering::Relaxed) == number);
        let free = entry.and_then(|entry| self.claim_in_ring(entry));
        let own = match free {
            Some(hazard) => hazard,
            None => self.add_to_ring(entry, number)?,
        };
        context.remember(self.id, entry.unwrap_or(own));
        Some(own)
    }

    /// Claims a free one of those that belong to the same number as `entry`.
    fn claim_in_ring<'b>(&'b self, entry: &'b Hazard) -> Option<&'b Hazard> {
        let mut at = entry;
        loop {
            if at.taken.load(Ordering::Acquire) == 0 && self.renew(at) {
                at.taken.store(1, Ordering::Relaxed);
                return Some(at);
            }
            // SAFETY: the siblings of an enlisted hazard with a number are a ring of hazards of this book.
            at = unsafe { &*at.sibling.load(Ordering::Relaxed) };
            if ptr::eq(at, entry) {
                return None;
            }
        }
    }

    /// Takes one out of the reserve for `number`, claimed, into the ring of `entry`.
    fn add_to_ring(&self, entry: Option<&Hazard>, number: u32) -> Option<&Hazard> {
        let fresh = self.unshelve()?;
        let this = ptr::from_ref(fresh).cast_mut();
        let after = entry.map_or(this, |entry| entry.sibling.swap(this, Ordering::Relaxed));
        fresh.sibling.store(after, Ordering::Relaxed);
        fresh.number.store(number, Ordering::Relaxed);
        fresh.taken.store(1, Ordering::Relaxed);
        self.enlist(fresh);
        Some(fresh)
    }

    /// Claims one that belongs to nobody, or gives one out of the reserve to everybody.
    fn claim_shared(&self) -> Option<&Hazard> {
        let free = self.iter().find(|hazard| {
            hazard.number.load(Ordering::Relaxed) == 0
                && hazard.taken.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed).is_ok()
                && self.renew(hazard)
        });
        free.or_else(|| {
            let hazard = self.unshelve()?;
            hazard.taken.store(1, Ordering::Relaxed);
            self.enlist(hazard);
            Some(hazard)
        })
    }

    /// Gives a claimed or free hazard a new id if its generations are used up; false if there is none.
    fn renew(&self, hazard: &Hazard) -> bool {
        if !hazard.is_used_up() {
            return true;
        }
        let Some(id) = self.fresh_id() else { return false };
        // ORDERING: release, as the end whose word it overwrites.
        hazard.word.store(id << ID_SHIFT, Ordering::Release);
        true
    }

    /// Makes a hazard visible to every scan, for good.
    fn enlist(&self, hazard: &Hazard) {
        push(&self.head, ptr::from_ref(hazard).cast_mut());
    }

    pub(crate) fn first(&self) -> *const Hazard {
        self.head.load(Ordering::Acquire)
    }

    /// All hazards that calls have used so far.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Hazard> {
        let mut at = self.first();
        core::iter::from_fn(move || {
            // SAFETY: by the invariant of the book.
            let hazard = unsafe { at.as_ref() }?;
            at = hazard.next();
            Some(hazard)
        })
    }

    /// The epoch of the oldest search under way; `u64::MAX` if there is none.
    pub(crate) fn lowest_pin(&self) -> u64 {
        // ORDERING: unlink, F, look at the pins; against pin, F, search.
        full_fence();
        if self.crowd.calling() != 0 {
            return 0;
        }
        self.iter().map(Hazard::pin).filter(|pin| *pin != 0).min().unwrap_or(u64::MAX)
    }

    /// Sums up what was counted here: starts, hits, refusals, and invalidations that are active now.
    pub(crate) fn sum(&self) -> Stats {
        let mut stats = Stats {
            starts: self.crowd.starts.load(Ordering::Relaxed),
            active: u64::from(self.crowd.open()),
            ..Stats::default()
        };
        for hazard in self.iter() {
            stats.starts += hazard.starts.load(Ordering::Relaxed);
            stats.hits += hazard.hits.load(Ordering::Relaxed);
            stats.refusals += hazard.refusals.load(Ordering::Relaxed);
            stats.active += u64::from(hazard.word() & PHASE != 0);
        }
        stats
    }

    /// Where anybody may wait for a hazard, or for the crowd.
    pub(crate) fn posts(&self) -> impl Iterator<Item = &Post> {
        self.iter().map(|hazard| &hazard.post).chain(core::iter::once(&self.crowd.post))
    }

    /// In the child of a fork: what other threads were doing is over. `own` tells this thread's hazards.
    pub(crate) fn keep_only(&self, own: impl Fn(&Hazard) -> bool) {
        for hazard in self.iter().filter(|hazard| !own(hazard)) {
            hazard.word.store(hazard.word() & !PHASE, Ordering::Relaxed);
            hazard.pin.store(0, Ordering::Relaxed);
            hazard.section.store(0, Ordering::Relaxed);
            hazard.taken.store(0, Ordering::Relaxed);
        }
        // The crowd has no names: in the child nobody is of it.
        [&self.crowd.open, &self.crowd.calling, &self.crowd.sections]
            .iter()
            .for_each(|count| count.store(0, Ordering::Relaxed));
    }

    #[cfg(all(test, not(any(loom, shuttle))))]
    pub(crate) fn use_up_generations(&self) {
        for hazard in self.iter().filter(|hazard| hazard.word() & PHASE == 0) {
            let id = hazard.word() >> ID_SHIFT;
            hazard
                .word
                .store((id << ID_SHIFT) | ((GENERATIONS & !PHASE) - GENERATION_ONE), Ordering::Relaxed);
        }
    }
}

impl Drop for Book {
    fn drop(&mut self) {
        for list in [&self.head, &self.reserve] {
            let mut at = list.load(Ordering::Relaxed);
            // SAFETY: the book is going: nobody else uses its hazards, and each is in one of the two lists.
            while let Some(hazard) = unsafe { at.as_ref() } {
                let next = hazard.next.load(Ordering::Relaxed);
                // SAFETY: it was made by `refill` and is not used again.
                unsafe { ptr::drop_in_place(at) };
                // SAFETY: it was allocated by `refill` with this layout.
                unsafe { dealloc(at.cast(), Layout::new::<Hazard>()) };
                at = next;
            }
        }
    }
}

/// Pushes a hazard that is in no list.
fn push(list: &AtomicPtr<Hazard>, hazard: *mut Hazard) {
    let mut head = list.load(Ordering::Relaxed);
    loop {
        // SAFETY: hazards live as long as their book; this one is in no list, so `next` is free.
        unsafe { &*hazard }.next.store(head, Ordering::Relaxed);
        // ORDERING: release, for the acquire of who walks the list.
        match list.compare_exchange(head, hazard, Ordering::Release, Ordering::Relaxed) {
            Ok(_) => return,
            Err(now) => head = now,
        }
    }
}
