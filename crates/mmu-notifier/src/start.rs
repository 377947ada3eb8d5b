//! Start and end: the calls of the primary MMU, on the interval side and then the list (clause C5).
//!
//! # Protocol
//! *Start*: claim a hazard; publish the range, phase calling; search; call what was found up to the limit of
//! that moment; second passes; phase active, **before** the list is walked; the list. An interval that refuses
//! or panics: second passes, idle, over. The list refuses: idle first, then the ends that are owed.
//! *End*: idle, which wakes readers; then the list; then the claim is given back.
//! Nothing is written per subscription but the sequence of those that are hit: the published range is the mark.

#![expect(unsafe_code, reason = "nodes are called through raw pointers")]

mod part;
mod pass;

use core::fmt;
use core::ptr::NonNull;
use core::slice;

pub(crate) use part::{Part, Started};
use pass::Hits;

use crate::diagnostics;
use crate::frame::{self, Frame, Kind};
use crate::hazard::Claim;
use crate::hung::Post;
use crate::invalidation::Invalidation;
use crate::list::walk;
use crate::platform::{self, Context, Payload};
use crate::space::Space;
use crate::subscriptions::Subscriptions;
use crate::sync::full_fence;
use crate::trace;

/// Why a non-blockable start failed. There is no end to call, and but for the tokens of those that were
/// called it is as if the start had never been.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StartError {
    /// A subscriber would have had to sleep.
    WouldBlock,
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a subscriber would have to sleep: try again where the invalidation may block")
    }
}

impl core::error::Error for StartError {}

/// Why a start ends what it began.
pub(crate) enum Failure {
    Refused,
    Panicked(Payload),
}

/// Whether an end calls `invalidate_range` (clause C5.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// There is nothing to end.
    Nothing,
    /// It does.
    Whole,
    /// The caller already did.
    OnlyEnd,
}

/// How a start goes that calls back.
#[derive(Default)]
pub(crate) struct Outcome {
    /// Why it ends what it began.
    pub(crate) failure: Option<Failure>,
    /// The first panic of what is freed or woken when a call changes its phase: it goes on behind the call, whose
    /// books are in order then (clause C7.2).
    pub(crate) late: Option<Payload>,
}

/// Keeps the first panic of several.
pub(crate) fn keep_first(late: &mut Option<Payload>, panic: Option<Payload>) {
    if panic.is_some() {
        *late = late.take().or(panic);
    }
}

/// Starts an invalidation of one range or several; the caller ends it with [`end`] unless it failed.
///
/// # Context
/// Does not sleep by itself and allocates nothing; a callback's panic goes on behind it.
#[inline]
pub(crate) fn start(space: &Space, parts: &mut [Part], started: &mut Started) -> Result<(), StartError> {
    // CONTRACT C2.2: a space that nobody watched pays this load and this branch.
    match space.subscriptions() {
        None => Ok(()),
        Some(subscriptions) => start_watched(space, subscriptions, parts, started),
    }
}

fn start_watched(
    space: &Space,
    subscriptions: &Subscriptions,
    parts: &mut [Part],
    started: &mut Started,
) -> Result<(), StartError> {
    platform::with_context(|context| {
        diagnostics::start(subscriptions, parts);
        let calls = Calls { space, subscriptions, context };
        let result = match parts {
            [part] => calls.start_one(part, started),
            parts => calls.start_several(parts, started),
        };
        started.forks = crate::fork::count();
        result
    })
}

/// A start under way.
#[derive(Clone, Copy)]
struct Calls<'c> {
    space: &'c Space,
    subscriptions: &'c Subscriptions,
    context: Option<&'c Context>,
}

impl<'c> Calls<'c> {
    /// The way of a single range, which is short where a hazard is at hand, nobody is hit, and the list is empty.
    #[inline]
    fn start_one(self, part: &mut Part, started: &mut Started) -> Result<(), StartError> {
        let subscriptions = self.subscriptions;
        let quick = subscriptions.index.is_open().then(|| subscriptions.book.claim_remembered(self.context));
        let Some(hazard) = quick.flatten() else {
            return self.start_several(slice::from_mut(part), started);
        };
        let claim = Claim::One(hazard);
        part.hold(claim);
        let bounds = part.invalidation.range().bounds();
        part.identity = claim.publish(bounds, part.owner(), subscriptions.index.epoch());
        // CONTRACT C3.3: who is inserted from here on is busy for this invalidation, and not called.
        let mut hits = Hits::new(subscriptions.index.limit());
        hits.complete = subscriptions.index.search(bounds, None, &mut hits.batch);
        claim.unpin();
        if !hits.batch.as_slice().is_empty() || subscriptions.list.count() != 0 {
            return self.run_one(part, claim, &mut hits, started);
        }
        match claim.activate(part.identity) {
            None => {
                trace::started(subscriptions, slice::from_ref(part), 0);
                Ok(())
            }
            heard => {
                let mut outcome = Outcome { failure: None, late: subscriptions.ring(heard) };
                self.conclude(slice::from_mut(part), started, 0, &mut outcome, false)
            }
        }
    }

    /// Any number of ranges: all are published before the one fence, and leave phase calling together.
    #[inline(never)]
    fn start_several(self, parts: &mut [Part], started: &mut Started) -> Result<(), StartError> {
        if parts.is_empty() || !self.subscriptions.index.is_open() {
            return self.run(parts, None, None, started);
        }
        for part in &mut *parts {
            part.announce(self.subscriptions, self.context);
        }
        // ORDERING: publication of all, F, limit and searches.
        full_fence();
        let mut hits = Hits::new(self.subscriptions.index.limit());
        let claim = parts.first().and_then(|part| part.claim(self.subscriptions));
        self.run(parts, claim, Some(&mut hits), started)
    }

    /// [`run`](Self::run) for a single range with a hazard at hand.
    #[inline(never)]
    fn run_one(
        self,
        part: &mut Part,
        claim: Claim<'_>,
        hits: &mut Hits,
        started: &mut Started,
    ) -> Result<(), StartError> {
        self.run(slice::from_mut(part), Some(claim), Some(hits), started)
    }

    /// Calls the intervals that are hit, if that side has begun, and the list. `claim` is that of the first range.
    #[inline(always)]
    fn run(
        self,
        parts: &mut [Part],
        claim: Option<Claim<'_>>,
        mut hits: Option<&mut Hits>,
        started: &mut Started,
    ) -> Result<(), StartError> {
        let mut outcome = Outcome::default();
        let nobody = hits.is_none() && self.subscriptions.list.count() == 0;
        let Some(first) = parts.first().filter(|_| !nobody) else {
            return self.conclude(parts, started, 0, &mut outcome, false);
        };
        let _span = trace::calling(self.subscriptions, parts);
        let kind = kind_of(&first.invalidation, Kind::Intervals, Kind::IntervalsNonblock);
        // The walk of the list is a section of the first range's hazard, or of one that is claimed for it.
        let section = claim.unwrap_or_else(|| self.subscriptions.book.claim(self.context));
        let frame = Frame::new(&frame::Place { space: self.subscriptions.id, section, parts }, kind);
        let link = frame.link(self.context);
        self.call(&frame, section, parts, hits.as_deref_mut(), started, &mut outcome);
        drop(link);
        if claim.is_none() {
            section.give_back();
        }
        let called = hits.map_or(0, |hits| hits.called);
        let result = self.conclude(parts, started, called, &mut outcome, frame.is_exit_due());
        // It is empty by now; its drop would have to find that out.
        core::mem::forget(outcome);
        result
    }

    /// Calls the intervals, then the list. Sets the limit up to which the list has heard of the start.
    #[inline(always)]
    fn call(
        self,
        frame: &Frame,
        section: Claim<'_>,
        parts: &[Part],
        hits: Option<&mut Hits>,
        started: &mut Started,
        outcome: &mut Outcome,
    ) {
        let begun = hits.is_some();
        if let Some(hits) = hits {
            pass::call_intervals(self.subscriptions, parts, hits, outcome);
            if outcome.failure.is_some() {
                return self.each(parts, &mut outcome.late, Claim::abandon);
            }
            // Then the invalidation is active.
            self.each(parts, &mut outcome.late, Claim::activate);
        }
        if self.subscriptions.list.count() == 0 {
            return;
        }
        if let Some(part) = parts.first() {
            frame.set_kind(kind_of(&part.invalidation, Kind::Walk, Kind::WalkNonblock));
        }
        let Outcome { failure, late } = outcome;
        let mut over = || {
            // CONTRACT C5.3: the interval side is over before the ends of those who accepted.
            if begun {
                self.each(parts, late, Claim::retire);
            }
        };
        started.list_limit = walk::start(self.subscriptions, section, parts, &mut over, failure);
        keep_first(late, self.subscriptions.leave_section(section));
        if failure.is_some() {
            section.count(0, 1);
        }
    }

    /// Changes the phase of every part, and tells those who wait for it.
    #[inline(always)]
    fn each(
        self,
        parts: &[Part],
        late: &mut Option<Payload>,
        change: impl Fn(Claim<'c>, u64) -> Option<&'c Post>,
    ) {
        for part in parts {
            if let Some(claim) = part.claim(self.subscriptions) {
                keep_first(late, self.subscriptions.ring(change(claim, part.identity)));
            }
        }
    }

    /// Turns an outcome into what the caller gets.
    #[inline]
    fn conclude(
        self,
        parts: &mut [Part],
        started: &mut Started,
        called: u64,
        outcome: &mut Outcome,
        exit_due: bool,
    ) -> Result<(), StartError> {
        if let (Outcome { failure: None, late: None }, false) = (&*outcome, exit_due) {
            trace::started(self.subscriptions, parts, called);
            return Ok(());
        }
        self.conclude_roughly(parts, started, called, outcome, exit_due)
    }

    /// Runs an exit that was left to this call, and undoes a start that failed.
    #[cold]
    fn conclude_roughly(
        self,
        parts: &mut [Part],
        started: &mut Started,
        called: u64,
        outcome: &mut Outcome,
        exit_due: bool,
    ) -> Result<(), StartError> {
        let Outcome { failure, mut late } = core::mem::take(outcome);
        if failure.is_some() {
            parts.iter().for_each(|part| part.give_back(self.subscriptions));
        }
        if exit_due {
            // CONTRACT C8.3
            // SAFETY: the last user's drop left the exit to this call, whose caller is a holder.
            let exit = platform::catch(|| unsafe { Space::exit_and_let_go(NonNull::from(self.space)) });
            keep_first(&mut late, exit.err());
        }
        match (failure, late) {
            (None, None) => {
                trace::started(self.subscriptions, parts, called);
                Ok(())
            }
            (None, Some(payload)) => {
                // The caller gets no guard, so what was begun ends here.
                let _ = platform::catch(|| end(self.space, started, parts, Ending::Whole));
                platform::resume(payload)
            }
            (Some(Failure::Refused), None) => {
                trace::refused(self.subscriptions, parts);
                Err(StartError::WouldBlock)
            }
            (Some(Failure::Panicked(payload)), _) | (_, Some(payload)) => platform::resume(payload),
        }
    }
}

/// The interval side of an exit: start and end of everything (clause C8.1).
pub(crate) fn release(space: &Space, subscriptions: &Subscriptions, invalidation: &Invalidation) {
    if !subscriptions.index.is_open() {
        return;
    }
    platform::with_context(|context| {
        let calls = Calls { space, subscriptions, context };
        let mut part = Part::new(*invalidation);
        let section = part.announce(subscriptions, context);
        // ORDERING: publication, F, limit and search.
        full_fence();
        let mut hits = Hits::new(subscriptions.index.limit());
        let parts = slice::from_ref(&part);
        let place = frame::Place { space: subscriptions.id, section, parts };
        let mut outcome = Outcome::default();
        let frame = Frame::new(&place, Kind::Intervals);
        let link = frame.link(context);
        pass::call_intervals(subscriptions, parts, &mut hits, &mut outcome);
        calls.each(parts, &mut outcome.late, Claim::abandon);
        drop(link);
        part.give_back(subscriptions);
        let panic = if let Some(Failure::Panicked(payload)) = outcome.failure { Some(payload) } else { None };
        if let Some(payload) = panic.or(outcome.late) {
            platform::resume(payload);
        }
    });
}

/// The kind of a frame, by whether the invalidation may block.
pub(crate) fn kind_of(invalidation: &Invalidation, blockable: Kind, not: Kind) -> Kind {
    if invalidation.is_blockable() { blockable } else { not }
}

/// Ends a start that succeeded.
///
/// # Context
/// Does not sleep by itself and allocates nothing. A callback's panic goes on behind it, unless it ends while one
/// passes: it is called by drops.
#[inline]
pub(crate) fn end(space: &Space, started: &Started, parts: &mut [Part], ending: Ending) {
    if let (Some(subscriptions), true) = (space.subscriptions(), ending != Ending::Nothing) {
        end_watched(space, subscriptions, started, parts, ending);
    }
}

fn end_watched(
    space: &Space,
    subscriptions: &Subscriptions,
    started: &Started,
    parts: &mut [Part],
    ending: Ending,
) {
    trace::ending(subscriptions, parts);
    if let ([part], 0) = (&*parts, subscriptions.list.count()) {
        if part.end_alone(subscriptions) {
            return;
        }
    }
    platform::in_drop(|| end_each(space, subscriptions, started, parts, ending));
}

/// The way of several ranges, of one in the crowd, and of what the list hears.
#[inline(never)]
fn end_each(
    space: &Space,
    subscriptions: &Subscriptions,
    started: &Started,
    parts: &mut [Part],
    ending: Ending,
) {
    let mut late = None;
    for part in &mut *parts {
        let Some(claim) = part.claim(subscriptions) else { continue };
        if claim.is_active(part.identity) && !is_of_a_parent(started, claim) {
            keep_first(&mut late, subscriptions.ring(claim.retire(part.identity)));
        } else {
            keep_first(&mut late, platform::catch(|| part.has_no_start(started)).err());
        }
    }
    match late {
        None => end_list(space, subscriptions, started, parts, ending),
        Some(payload) => {
            let _ = platform::catch(|| end_list(space, subscriptions, started, parts, ending));
            platform::resume(payload);
        }
    }
}

/// The list's part of an end, which then gives the claims back.
fn end_list(space: &Space, subscriptions: &Subscriptions, started: &Started, parts: &[Part], ending: Ending) {
    let give_back = || parts.iter().for_each(|part| part.give_back(subscriptions));
    if subscriptions.list.count() == 0 {
        return give_back();
    }
    platform::with_context(|context| {
        let claim = parts.first().and_then(|part| part.claim(subscriptions));
        let section = claim.unwrap_or_else(|| subscriptions.book.claim(context));
        let call = walk::Call { space, subscriptions, context, section };
        call.end(parts, started.list_limit, ending, || {
            if claim.is_none() {
                section.give_back();
            }
            give_back();
        });
    });
}

/// Says whether the start was made before a fork and counted among a crowd that was left there: a hazard
/// keeps its word, but in the child nobody is of the crowd.
fn is_of_a_parent(started: &Started, claim: Claim<'_>) -> bool {
    started.forks != crate::fork::count() && matches!(claim, Claim::Crowd(_))
}
