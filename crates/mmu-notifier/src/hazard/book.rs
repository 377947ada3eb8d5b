//! The book: all hazards of a space, those that are in use and the reserve.

#![expect(unsafe_code, reason = "hazards are reached through raw pointers that live as long as their book")]

use core::ptr::{self, NonNull};

use super::reserve::{Reserve, Slab};
use super::{CALLING, Claim, Crowd, FIRST_ID, Hazard, ID_SHIFT, IDS, PHASE, RESERVE};
use crate::hung::Post;
use crate::platform::Context;
use crate::space::Stats;
use crate::sync::{AtomicPtr, AtomicU64, Ordering, full_fence};

/// All hazards of a space.
///
/// # Invariants
/// `head` and `next` lead to all hazards that were taken out of the reserve, in whose memory they live as long as the book;
/// a hazard enters the list once and stays.
#[derive(Debug)]
pub(crate) struct Book {
    head: AtomicPtr<Hazard>,
    reserve: Reserve,
    ids: AtomicU64,
    pub(crate) crowd: Crowd,
    /// Of the space, in this process; never used twice.
    id: u64,
}

impl Book {
    /// Makes an empty book for the space `id`, with a full reserve.
    ///
    /// # Safety
    /// It stays where it is once it is used: hazards stand in it.
    pub(crate) unsafe fn new(id: u64) -> Self {
        Book {
            head: AtomicPtr::new(ptr::null_mut()),
            // SAFETY: as promised by the caller.
            reserve: unsafe { Reserve::new(FIRST_ID) },
            ids: AtomicU64::new(FIRST_ID + RESERVE as u64),
            crowd: Crowd::new(),
            id,
        }
    }

    /// The id of the space.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Says whether [`refill`](Self::refill) has nothing to do.
    #[inline]
    pub(crate) fn is_full(&self) -> bool {
        self.reserve.spare() >= RESERVE as u32
    }

    /// Fills the reserve, with room for `more` than usual. False if there is no memory.
    ///
    /// # Context
    /// Allocates; none of the library's locks may be held.
    #[inline]
    pub(crate) fn refill(&self, more: u32) -> bool {
        self.reserve.spare() >= RESERVE as u32 + more || self.add_slabs(more)
    }

    #[cold]
    fn add_slabs(&self, more: u32) -> bool {
        while self.reserve.spare() < RESERVE as u32 + more {
            let Some(slab) = Slab::allocate() else { return false };
            // Behind the allocation: one that fails uses up no ids.
            let Some(id) = self.fresh_ids(RESERVE as u64) else {
                // SAFETY: it was just allocated.
                unsafe { Slab::free(slab) };
                return true;
            };
            self.reserve.add(slab, id);
        }
        true
    }

    /// Takes so many ids that nobody had; returns the first.
    fn fresh_ids(&self, count: u64) -> Option<u64> {
        let id = self.ids.fetch_add(count, Ordering::Relaxed);
        if id + count <= IDS {
            return Some(id);
        }
        self.ids.store(IDS, Ordering::Relaxed);
        None
    }

    /// Claims a record for one call of this thread. It never fails and allocates nothing.
    #[inline]
    pub(crate) fn claim(&self, context: Option<&Context>) -> Claim<'_> {
        match self.remembered(context) {
            Some(own) => {
                own.taken.store(1, Ordering::Relaxed);
                Claim::One(own)
            }
            None => self.claim_slowly(context),
        }
    }

    /// The record that this thread used last in this space, and its next identity, if it is free: what is published there
    /// claims it.
    #[inline(always)]
    pub(crate) fn at_hand(&self, context: Option<&Context>) -> Option<(&Hazard, u64)> {
        let own = self.last_used(context?)?;
        Some((own, own.free_identity()?))
    }

    /// A free record of this thread, if it has used one in this space.
    #[inline]
    pub(crate) fn remembered(&self, context: Option<&Context>) -> Option<&Hazard> {
        // Free with an identity left: a call that claims it may publish there.
        match self.at_hand(context) {
            Some((own, _)) => Some(own),
            None => self.sibling(context),
        }
    }

    #[inline(always)]
    fn last_used(&self, context: &Context) -> Option<&Hazard> {
        // SAFETY: a record remembered for the id of this book is one of its hazards.
        context.remembered(self.id).map(|own| unsafe { &*own })
    }

    /// Another free record of this thread than the one that it used last in this space, for a call within a call. It is
    /// looked at first from then on.
    #[inline(never)]
    pub(crate) fn sibling(&self, context: Option<&Context>) -> Option<&Hazard> {
        let context = context?;
        let own = self.last_used(context)?;
        let free = own.siblings().find(|hazard| hazard.free_identity().is_some())?;
        context.remember(self.id, free);
        Some(free)
    }

    /// A record that this thread claims for its first call in the space, or for one call more within others; none:
    /// it is one of the crowd.
    #[cold]
    pub(crate) fn claim_another(&self, context: Option<&Context>) -> Option<&Hazard> {
        match self.claim_slowly(context) {
            Claim::One(hazard) => Some(hazard),
            Claim::Crowd(_) => None,
        }
    }

    #[cold]
    fn claim_slowly(&self, context: Option<&Context>) -> Claim<'_> {
        let numbered = context.map(|context| (context, context.number())).filter(|(_, number)| *number != 0);
        let own = numbered.and_then(|(context, number)| self.claim_own(context, number));
        own.or_else(|| self.claim_shared(context)).map_or(Claim::Crowd(&self.crowd), Claim::One)
    }

    /// Claims a free one of this thread's own, or makes one out of the reserve.
    fn claim_own(&self, context: &Context, number: u32) -> Option<&Hazard> {
        let entry = self.iter().find(|hazard| hazard.number.load(Ordering::Relaxed) == number);
        let free = entry.and_then(|entry| self.claim_in_ring(entry));
        let own = match free {
            Some(hazard) => hazard,
            None => self.add_to_ring(entry, number)?,
        };
        context.remember(self.id, own);
        Some(own)
    }

    /// Claims a free one of those that belong to the same number as `entry`.
    fn claim_in_ring<'b>(&'b self, entry: &'b Hazard) -> Option<&'b Hazard> {
        let free = entry.siblings().find(|hazard| hazard.is_free() && self.renew(hazard))?;
        free.taken.store(1, Ordering::Relaxed);
        Some(free)
    }

    /// Takes one out of the reserve for `number`, claimed, into the ring of `entry`.
    fn add_to_ring(&self, entry: Option<&Hazard>, number: u32) -> Option<&Hazard> {
        let hazard = self.reserve.take()?;
        let this = hazard.as_ptr();
        // SAFETY: hazards live as long as the book.
        let fresh = unsafe { hazard.as_ref() };
        let after = entry.map_or(this, |entry| entry.sibling.swap(this, Ordering::Relaxed));
        fresh.sibling.store(after, Ordering::Relaxed);
        fresh.number.store(number, Ordering::Relaxed);
        fresh.taken.store(1, Ordering::Relaxed);
        self.enlist(hazard);
        Some(fresh)
    }

    /// Claims one that belongs to nobody, or gives one out of the reserve to everybody.
    fn claim_shared(&self, context: Option<&Context>) -> Option<&Hazard> {
        let free = self.iter().find(|hazard| {
            hazard.number.load(Ordering::Relaxed) == 0
                && hazard.taken.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed).is_ok()
                && self.renew(hazard)
        });
        let claimed = free.or_else(|| {
            let hazard = self.reserve.take()?;
            // SAFETY: hazards live as long as the book.
            let fresh = unsafe { hazard.as_ref() };
            fresh.taken.store(1, Ordering::Relaxed);
            self.enlist(hazard);
            Some(fresh)
        })?;
        // For the child of a fork: whose it was.
        let thread = context.map_or(ptr::null(), ptr::from_ref);
        claimed.thread.store(thread.cast_mut(), Ordering::Relaxed);
        Some(claimed)
    }

    /// Gives a claimed or free hazard a new id if its generations are used up; false if there is none.
    fn renew(&self, hazard: &Hazard) -> bool {
        if !hazard.is_used_up() {
            return true;
        }
        let Some(id) = self.fresh_ids(1) else { return false };
        hazard.starts.store(hazard.starts(), Ordering::Relaxed);
        // ORDERING: release, as the end whose word it overwrites.
        hazard.word.store(id << ID_SHIFT, Ordering::Release);
        true
    }

    /// Makes a hazard visible to every scan, for good. The book frees it with this pointer.
    fn enlist(&self, hazard: NonNull<Hazard>) {
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            // SAFETY: hazards live as long as the book; this one is in no list, so `next` is free.
            unsafe { hazard.as_ref() }.next.store(head, Ordering::Relaxed);
            // ORDERING: release, for the acquire of who walks the list.
            match self.head.compare_exchange(head, hazard.as_ptr(), Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => head = now,
            }
        }
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
        // A search that has found nobody leaves its pin, and phase calling with it.
        let calling = self.iter().filter(|hazard| hazard.word() & PHASE == CALLING);
        calling.map(Hazard::pin).filter(|pin| *pin != 0).min().unwrap_or(u64::MAX)
    }

    /// Sums up what was counted here: starts, hits, and invalidations that are active now.
    pub(crate) fn sum(&self) -> Stats {
        let mut stats = Stats {
            starts: self.crowd.starts.load(Ordering::Relaxed),
            active: u64::from(self.crowd.open()),
            ..Stats::default()
        };
        for hazard in self.iter() {
            stats.starts += hazard.starts();
            stats.hits += hazard.hits.load(Ordering::Relaxed);
            stats.active += u64::from(hazard.word() & PHASE != 0);
        }
        stats
    }

    /// Where anybody may wait for a hazard, or for the crowd.
    pub(crate) fn posts(&self) -> impl Iterator<Item = &Post> {
        self.iter().map(|hazard| &hazard.post).chain(core::iter::once(&self.crowd.post))
    }

    /// In the child of a fork: what other threads were doing is over. `own` tells the hazards of this thread, whose
    /// context this is, and `crowd` how many calls of this thread are open, calling, and in sections there.
    ///
    /// From here on no hazard has a number, which the first thread that comes may get: what goes on at one keeps it
    /// claimed, and is known by the context.
    pub(crate) fn keep_only(
        &self,
        own: impl Fn(&Hazard) -> bool,
        context: Option<&Context>,
        crowd: (u32, u32, u32),
    ) {
        for hazard in self.iter() {
            if own(hazard) {
                let thread = context.map_or(ptr::null(), ptr::from_ref).cast_mut();
                hazard.thread.store(thread, Ordering::Relaxed);
                hazard.taken.store(u32::from(!hazard.is_free()), Ordering::Relaxed);
            } else {
                hazard.word.store(hazard.word() & !PHASE, Ordering::Relaxed);
                hazard.pin.store(0, Ordering::Relaxed);
                hazard.section.store(0, Ordering::Relaxed);
                hazard.taken.store(0, Ordering::Relaxed);
            }
            hazard.number.store(0, Ordering::Relaxed);
        }
        self.crowd.open.store(crowd.0, Ordering::Relaxed);
        self.crowd.calling.store(crowd.1, Ordering::Relaxed);
        self.crowd.sections.store(crowd.2, Ordering::Relaxed);
        self.reserve.recount();
    }

    #[cfg(all(test, not(any(loom, shuttle))))]
    pub(crate) fn use_up_generations(&self) {
        use super::{GENERATION_ONE, GENERATIONS};
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
        let mut at = self.head.load(Ordering::Relaxed);
        while !at.is_null() {
            // SAFETY: by the invariant.
            let next = unsafe { &*at }.next.load(Ordering::Relaxed);
            // SAFETY: the book is going: nobody else uses its hazards, and each is linked once.
            unsafe { ptr::drop_in_place(at) };
            at = next;
        }
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn c7_3_c7_4_a_slab_that_a_thread_was_adding_at_the_fork_is_not_counted_in_the_child() {
        // SAFETY: it stays here.
        let book = unsafe { Book::new(1) };
        assert!(book.refill(0));
        book.reserve.count_a_slab_that_is_not_linked();
        // What the child does.
        book.keep_only(|_| false, None, (0, 0, 0));
        // Each insert of the child sets room aside, and each new thread's first start takes some.
        for thread in 0..4 * RESERVE {
            assert!(book.refill(0));
            let claim = book.claim(None);
            assert!(matches!(claim, Claim::One(_)), "thread {thread} got none: it counts as the whole space");
        }
    }
}
