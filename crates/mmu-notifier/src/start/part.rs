//! The ranges of a start, each with its place among the hazards.

#![expect(unsafe_code, reason = "a claim is kept as a raw pointer")]

use core::panic::Location;
use core::ptr;

use crate::diagnostics::{self, Rule};
use crate::hazard::{Claim, Hazard};
use crate::invalidation::{Invalidation, Owner};
use crate::platform::{self, Context};
use crate::space::Space;
use crate::subscriptions::Subscriptions;

/// One range of a start, and its place among the hazards.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) invalidation: Invalidation,
    pub(super) claim: Held,
    pub(super) identity: u64,
}

/// What a start left for its end, beside its parts.
#[derive(Debug)]
pub(crate) struct Started {
    pub(super) list_limit: u64,
    /// The number of forks before the start: in the child of a later one it may be over.
    pub(super) forks: u32,
}

/// A claim without its lifetime.
#[derive(Clone, Copy, Debug)]
pub(super) enum Held {
    /// The interval side left no trace.
    Nothing,
    One(*const Hazard),
    Crowd,
}

impl Part {
    #[inline]
    pub(crate) fn new(invalidation: Invalidation) -> Self {
        Part { invalidation, claim: Held::Nothing, identity: 0 }
    }

    /// Claims a hazard and stores the range there; behind it the caller passes a full fence.
    pub(super) fn announce<'s>(
        &mut self,
        subscriptions: &'s Subscriptions,
        context: Option<&Context>,
    ) -> Claim<'s> {
        let claim = subscriptions.book.claim(context);
        self.claim = Held::new(claim);
        let owner = self.invalidation.owner().map_or(0, Owner::get);
        self.identity = claim.announce(self.invalidation.range().bounds(), owner);
        claim
    }

    pub(super) fn claim<'s>(&self, subscriptions: &'s Subscriptions) -> Option<Claim<'s>> {
        match self.claim {
            Held::Nothing => None,
            // SAFETY: the hazard is one of the book of these subscriptions, and lives as long as it.
            Held::One(hazard) => Some(Claim::One(unsafe { &*hazard })),
            Held::Crowd => Some(Claim::Crowd(&subscriptions.book.crowd)),
        }
    }

    /// Forgets a claim that is not this part's any more.
    #[cold]
    pub(super) fn has_no_start(&mut self, started: &Started) {
        self.claim = Held::Nothing;
        // CONTRACT C7.3: what was begun before a fork, by another thread, is over without a word.
        if started.forks == crate::fork::count() {
            diagnostics::report(Rule::EndWithoutStart, "invalidate_end", None);
        }
    }

    /// Notes where the start was called, or that the guard may go to another thread.
    pub(crate) fn set_origin(&self, space: &Space, origin: Option<&'static Location<'static>>) {
        if let Some(claim) = space.subscriptions().and_then(|subscriptions| self.claim(subscriptions)) {
            claim.set_origin(origin);
        }
    }

    /// Says whether it stands at this hazard.
    pub(crate) fn is_at(&self, hazard: &Hazard) -> bool {
        matches!(self.claim, Held::One(own) if ptr::eq(own, hazard))
    }

    pub(crate) fn is_in_crowd(&self) -> bool {
        matches!(self.claim, Held::Crowd)
    }

    /// Ends what is active at a hazard of its own, where there is no list: the short way. False if there is
    /// more to it; then nothing was done.
    #[inline]
    pub(super) fn end_alone(&self, subscriptions: &Subscriptions) -> bool {
        let Held::One(hazard) = self.claim else { return false };
        // SAFETY: the hazard is one of the book of these subscriptions, and lives as long as it.
        let claim = Claim::One(unsafe { &*hazard });
        if !claim.is_active(self.identity) {
            return false;
        }
        let heard = claim.retire(self.identity);
        let late = subscriptions.ring(heard);
        claim.give_back();
        if let Some(payload) = late {
            platform::resume(payload);
        }
        true
    }

    /// Gives the claim back, if there is one.
    pub(super) fn give_back(&self, subscriptions: &Subscriptions) {
        if let Some(claim) = self.claim(subscriptions) {
            claim.give_back();
        }
    }
}

impl Held {
    pub(super) fn new(claim: Claim<'_>) -> Self {
        match claim {
            Claim::One(hazard) => Held::One(hazard),
            Claim::Crowd(_) => Held::Crowd,
        }
    }
}

impl Started {
    #[inline]
    pub(super) fn new(list_limit: u64) -> Self {
        Started { list_limit, forks: crate::fork::count() }
    }
}
