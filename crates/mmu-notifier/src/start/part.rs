//! The ranges of a start, each with its place among the hazards.

#![expect(unsafe_code, reason = "a claim is kept as a raw pointer")]

use core::mem::MaybeUninit;
use core::panic::Location;
use core::ptr;

use super::StartError;
use crate::begun::Chain;
use crate::diagnostics::{self, Rule};
use crate::hazard::{CALLING, Claim, Hazard, PHASE};
use crate::hung::Post;
use crate::invalidation::{Details, Invalidation, Owner};
use crate::platform::{self, Context};
use crate::space::Space;
use crate::subscriptions::Subscriptions;

/// One range of a start, and what the start left for its end.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) invalidation: Invalidation,
    pub(crate) held: Held,
    /// Those that it hit and that wait for their second pass, past what fits the start.
    pub(crate) begun: Chain,
}

/// The place of an invalidation among the hazards, and its identity there: two words, for registers. Where there is
/// none, or one in the crowd, the hazard is null.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held {
    hazard: *const Hazard,
    identity: u64,
}

/// What a start left for its end, beside its parts, where it was more than publish and search.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Started {
    pub(super) list_limit: u64,
    /// The number of forks by the end of the start: in the child of a later one it may be over.
    pub(super) forks: u32,
}

/// What a start of one range left for its end, where it is more than a hazard.
#[derive(Clone, Copy)]
pub(crate) struct Left<'p> {
    pub(super) part: &'p Part,
    pub(crate) started: Started,
}

/// What a start of one range leaves for its end: two words, for registers.
#[derive(Clone, Copy, Debug)]
pub(super) enum Leaves {
    /// What is published at a hazard of its own.
    Hazard,
    /// More than that; and the list has heard of it up to this number.
    More(u64),
    /// Nothing: it was refused.
    Nothing,
}

/// Stands in the place of an identity for a start that failed, beside no hazard: even, as no identity is.
const REFUSED: u64 = 2;

impl Held {
    /// The interval side left no trace.
    pub(crate) const NOTHING: Held = Held { hazard: ptr::null(), identity: 0 };
    /// The start failed; there is nothing to end.
    const REFUSED: Held = Held { hazard: ptr::null(), identity: REFUSED };

    #[inline]
    pub(super) fn new(claim: Claim<'_>, identity: u64) -> Self {
        Held { hazard: claim.as_ptr(), identity }
    }

    #[cold]
    fn refused() -> Self {
        Held::REFUSED
    }

    /// This, if the start was not refused.
    #[inline]
    pub(crate) fn if_accepted(self) -> Result<Held, StartError> {
        if self.hazard.is_null() && self.identity == REFUSED { Err(StartError::WouldBlock) } else { Ok(self) }
    }

    fn is_in_crowd(self) -> bool {
        self.hazard.is_null() && self.identity & PHASE == CALLING
    }

    #[inline]
    fn claim(self, subscriptions: &Subscriptions) -> Option<Claim<'_>> {
        // SAFETY: null, or a hazard of the book of these subscriptions, which lives as long as it.
        let one = unsafe { self.hazard.as_ref() }.map(Claim::One);
        one.or_else(|| self.is_in_crowd().then_some(Claim::Crowd(&subscriptions.book.crowd)))
    }

    /// What was started at a hazard of its own, as that knows it.
    ///
    /// # Safety
    /// The start left nothing else for its end, and its space is alive.
    pub(super) unsafe fn described(self, details: Details) -> Part {
        // SAFETY: as promised by the caller, it is a hazard of a space that is alive.
        let (range, owner) = unsafe { &*self.hazard }.described();
        Part::held(Invalidation::join(range, owner, details), self)
    }

    /// Notes where the start was called, or that the guard may go to another thread.
    pub(crate) fn set_origin(self, space: &Space, origin: Option<&'static Location<'static>>) {
        if let Some(claim) = space.subscriptions().and_then(|subscriptions| self.claim(subscriptions)) {
            claim.set_origin(origin);
        }
    }

    /// Ends what is active at a hazard of its own, in a space without a list: the short way. False if there is
    /// more to it; then nothing was done.
    #[inline(always)]
    pub(super) fn end_alone(self, subscriptions: &Subscriptions) -> bool {
        // A guard may come through a fork, and what a C driver calls an end of may never have begun.
        let is_active = self.claim(subscriptions).is_some_and(|claim| claim.is_active(self.identity));
        is_active && self.end_active(subscriptions)
    }

    /// The same for who started it and is in that call still, so that it is active if it is at a hazard of its own.
    #[inline(always)]
    pub(super) fn end_active(self, subscriptions: &Subscriptions) -> bool {
        let Some(claim @ Claim::One(_)) = self.claim(subscriptions) else { return false };
        // Before: behind the idle word the hazard may be claimed anew, unless this claim was kept beyond it: the first of
        // a thread is, and what the child of a fork finds under way.
        if claim.is_kept() || subscriptions.list.count() != 0 {
            return false;
        }
        if let Some(post) = claim.retire(self.identity) {
            ring_behind(subscriptions, post);
        }
        true
    }
}

/// Tells those who wait for an end.
#[cold]
fn ring_behind(subscriptions: &Subscriptions, post: &Post) {
    if let Some(payload) = subscriptions.ring(Some(post)) {
        platform::in_drop(|| platform::resume(payload));
    }
}

impl Clone for Part {
    /// Gives one of which no second pass is due.
    #[inline]
    fn clone(&self) -> Self {
        Part::held(self.invalidation, self.held)
    }
}

impl Part {
    #[inline]
    pub(crate) fn new(invalidation: Invalidation) -> Self {
        Part::held(invalidation, Held::NOTHING)
    }

    /// One that stands there among the hazards.
    #[inline]
    pub(crate) fn held(invalidation: Invalidation, held: Held) -> Self {
        Part { invalidation, held, begun: Chain::new() }
    }

    /// Claims a hazard and stores the range there; behind it the caller passes a full fence.
    pub(super) fn announce<'s>(
        &mut self,
        subscriptions: &'s Subscriptions,
        context: Option<&Context>,
    ) -> Claim<'s> {
        let claim = subscriptions.book.claim(context);
        let identity = claim.announce(self.invalidation.range().bounds(), self.owner());
        self.held = Held::new(claim, identity);
        claim
    }

    /// The word of the invalidation's owner; 0 for none.
    #[inline]
    pub(super) fn owner(&self) -> u64 {
        self.invalidation.owner().map_or(0, Owner::get)
    }

    #[inline]
    pub(super) fn identity(&self) -> u64 {
        self.held.identity
    }

    #[inline]
    pub(super) fn claim<'s>(&self, subscriptions: &'s Subscriptions) -> Option<Claim<'s>> {
        self.held.claim(subscriptions)
    }

    /// Forgets a claim that is not this part's any more.
    #[cold]
    pub(super) fn has_no_start(&mut self, started: &Started) {
        self.held = Held::NOTHING;
        // CONTRACT C7.3: what was begun before a fork, by another thread, is over without a word.
        if started.forks == crate::fork::count() {
            diagnostics::report(Rule::EndWithoutStart, "invalidate_end", None);
        }
    }

    /// Says whether it stands at this hazard.
    pub(crate) fn is_at(&self, hazard: &Hazard) -> bool {
        ptr::eq(self.held.hazard, hazard)
    }

    pub(crate) fn is_in_crowd(&self) -> bool {
        self.held.is_in_crowd()
    }

    /// In the child of a fork within the start: nobody is of the crowd there who was between two callbacks.
    pub(super) fn forget_crowd(&mut self) {
        if self.is_in_crowd() {
            self.held = Held::NOTHING;
        }
    }

    /// Gives the claim back, if there is one.
    pub(super) fn give_back(&self, subscriptions: &Subscriptions) {
        if let Some(claim) = self.claim(subscriptions) {
            claim.give_back();
        }
    }
}

impl Started {
    #[inline]
    pub(crate) fn new() -> Self {
        Started { list_limit: 0, forks: 0 }
    }

    /// What is left by a start that is over now, and of which the list has heard nothing.
    #[inline]
    pub(crate) fn unheard() -> Self {
        Started { list_limit: 0, forks: crate::fork::count() }
    }
}

impl<'p> Left<'p> {
    /// What is held behind a start of `part`, and what else it leaves.
    #[cfg_attr(debug_assertions, inline)]
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(super) fn by(
        room: &'p mut MaybeUninit<Part>,
        part: Part,
        start: impl FnOnce(&mut Part) -> (Held, Leaves),
    ) -> (Held, Option<Self>) {
        let part = room.write(part);
        match start(part) {
            (held, Leaves::Hazard) => (held, None),
            (held, Leaves::More(list_limit)) => {
                let started = Started { list_limit, ..Started::unheard() };
                (held, Some(Left { part, started }))
            }
            (_, Leaves::Nothing) => (Held::refused(), None),
        }
    }
}

impl From<Result<Started, StartError>> for Leaves {
    fn from(result: Result<Started, StartError>) -> Self {
        match result {
            Ok(started) => Leaves::More(started.list_limit),
            Err(StartError::WouldBlock) => Leaves::Nothing,
        }
    }
}
