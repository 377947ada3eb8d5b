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

use core::cell::Cell;
use core::fmt;
use core::ptr::NonNull;
use core::slice;

use part::Held;
pub(crate) use part::{Part, Started};
use pass::{Hits, Pass};

use crate::begun::Begun;
use crate::diagnostics;
use crate::frame::{self, Frame, Kind};
use crate::hazard::Claim;
use crate::hung::Post;
use crate::index::Batch;
use crate::invalidation::{Invalidation, Owner};
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
    /// It does.
    Whole,
    /// The caller already did.
    OnlyEnd,
}

/// Starts an invalidation of one range or several; the caller ends it with [`end`] unless it failed.
///
/// # Context
/// Does not sleep by itself and allocates nothing; a callback's panic goes on behind it.
#[inline]
pub(crate) fn start(space: &Space, parts: &mut [Part]) -> Result<Started, StartError> {
    // CONTRACT C2.2: a space that nobody watched pays this load and this branch.
    match space.subscriptions() {
        None => Ok(Started::new(0)),
        Some(subscriptions) => platform::with_context(|context| {
            diagnostics::start(subscriptions, parts);
            let calls = Calls { space, subscriptions, context };
            match parts {
                [part] => calls.start_one(part),
                parts => calls.start_several(parts),
            }
        }),
    }
}

/// A start under way.
#[derive(Clone, Copy)]
struct Calls<'c> {
    space: &'c Space,
    subscriptions: &'c Subscriptions,
    context: Option<&'c Context>,
}

impl<'c> Calls<'c> {
    /// The way of a single range, which is short where nobody is hit and the list is empty.
    fn start_one(self, part: &mut Part) -> Result<Started, StartError> {
        let (subscriptions, nobody) = (self.subscriptions, self.subscriptions.list.count() == 0);
        if !subscriptions.index.is_open() {
            return if nobody {
                self.conclude(Ok(Started::new(0)), slice::from_mut(part), 0, false, None)
            } else {
                self.run(slice::from_mut(part), None)
            };
        }
        let claim = subscriptions.book.claim(self.context);
        part.claim = Held::new(claim);
        let owner = part.invalidation.owner().map_or(0, Owner::get);
        let bounds = part.invalidation.range().bounds();
        part.identity = claim.publish(bounds, owner, subscriptions.index.epoch());
        // CONTRACT C3.3: who is inserted from here on is busy for this invalidation, and not called.
        let mut hits =
            Hits { limit: subscriptions.index.limit(), batch: Batch::new(), complete: true, called: 0 };
        hits.complete = subscriptions.index.search(bounds, None, &mut hits.batch);
        claim.unpin();
        if hits.batch.as_slice().is_empty() && nobody {
            let Some(post) = claim.activate(part.identity) else {
                trace::started(subscriptions, slice::from_ref(part), 0);
                return Ok(Started::new(0));
            };
            let late = subscriptions.ring(Some(post));
            return self.conclude(Ok(Started::new(0)), slice::from_mut(part), 0, false, late);
        }
        self.run(slice::from_mut(part), Some(&mut hits))
    }

    /// Several ranges: all are published before the one fence, and leave phase calling together.
    fn start_several(self, parts: &mut [Part]) -> Result<Started, StartError> {
        if parts.is_empty() || !self.subscriptions.index.is_open() {
            return self.run(parts, None);
        }
        for part in &mut *parts {
            part.announce(self.subscriptions, self.context);
        }
        // ORDERING: publication of all, F, limit and searches.
        full_fence();
        let mut hits =
            Hits { limit: self.subscriptions.index.limit(), batch: Batch::new(), complete: false, called: 0 };
        self.run(parts, Some(&mut hits))
    }

    /// Calls the intervals that are hit, if that side has begun, and the list.
    #[inline(never)]
    fn run(self, parts: &mut [Part], mut hits: Option<&mut Hits>) -> Result<Started, StartError> {
        let Some(first) = parts.first() else { return Ok(Started::new(0)) };
        let _span = trace::calling(self.subscriptions, parts);
        let kind = kind_of(&first.invalidation, Kind::Intervals, Kind::IntervalsNonblock);
        // The walk of the list is a section of the first range's hazard, or of one that is claimed for it.
        let claim = first.claim(self.subscriptions);
        let section = claim.unwrap_or_else(|| self.subscriptions.book.claim(self.context));
        let place = frame::Place { space: self.subscriptions.id, section, parts };
        let late = Late::default();
        let call = |frame: &Frame| self.call(frame, section, parts, hits.as_deref_mut(), &late);
        let (result, exit_due) = Frame::around(self.context, &place, kind, call);
        if claim.is_none() {
            section.give_back();
        }
        if result.is_err() {
            parts.iter().for_each(|part| part.give_back(self.subscriptions));
        }
        let called = hits.map_or(0, |hits| hits.called);
        self.conclude(result.map(Started::new), parts, called, exit_due, late.0.into_inner())
    }

    /// Returns the limit up to which the list has heard of the start.
    fn call(
        self,
        frame: &Frame,
        section: Claim<'_>,
        parts: &[Part],
        hits: Option<&mut Hits>,
        late: &Late,
    ) -> Result<u64, Failure> {
        let begun = hits.is_some();
        if let Some(hits) = hits {
            self.call_intervals(parts, hits, late)?;
        }
        if let Some(part) = parts.first() {
            frame.set_kind(kind_of(&part.invalidation, Kind::Walk, Kind::WalkNonblock));
        }
        let over = || {
            // CONTRACT C5.3: the interval side is over before the ends of those who accepted.
            if begun {
                self.each(parts, late, Claim::retire);
            }
        };
        walk::start(self.subscriptions, section, parts, over, late).inspect_err(|_| section.count(0, 1))
    }

    /// Calls the intervals that are hit: then the invalidation is active, or over if one refused or panicked.
    fn call_intervals(self, parts: &[Part], hits: &mut Hits, late: &Late) -> Result<(), Failure> {
        let mut begun = Begun::new();
        let mut pass = Pass::new(self.subscriptions, hits.limit, &mut begun);
        for part in parts {
            if let Some(claim) = part.claim(self.subscriptions).filter(|_| pass.failure.is_none()) {
                pass.call(claim, part, hits);
                hits.batch.clear();
                hits.complete = false;
            }
        }
        pass.finish();
        hits.called = pass.hits;
        if let Some(claim) = parts.first().and_then(|part| part.claim(self.subscriptions)) {
            claim.count(pass.hits, u64::from(pass.failure.is_some()));
        }
        match pass.failure {
            None => self.each(parts, late, Claim::activate),
            Some(_) => self.each(parts, late, Claim::abandon),
        }
        pass.failure.map_or(Ok(()), Err)
    }

    /// Changes the phase of every part, and tells those who wait for it.
    fn each(self, parts: &[Part], late: &Late, change: impl Fn(Claim<'c>, u64) -> Option<&'c Post>) {
        for part in parts {
            if let Some(claim) = part.claim(self.subscriptions) {
                late.keep(self.subscriptions.ring(change(claim, part.identity)));
            }
        }
    }

    /// Runs an exit that was left to this call, and turns a failure into what the caller gets.
    #[inline]
    fn conclude(
        self,
        started: Result<Started, Failure>,
        parts: &mut [Part],
        called: u64,
        exit_due: bool,
        mut late: Option<Payload>,
    ) -> Result<Started, StartError> {
        if exit_due {
            // CONTRACT C8.3
            // SAFETY: the last user's drop left the exit to this call, whose caller is a holder.
            let exit = platform::catch(|| unsafe { Space::exit_and_let_go(NonNull::from(self.space)) });
            late = late.or(exit.err());
        }
        match (started, late) {
            (Ok(started), None) => {
                trace::started(self.subscriptions, parts, called);
                Ok(started)
            }
            (Ok(started), Some(payload)) => {
                // The caller gets no guard, so what was begun ends here.
                let _ = platform::catch(|| end(self.space, &started, parts, Ending::Whole));
                platform::resume(payload)
            }
            (Err(Failure::Refused), None) => {
                trace::refused(self.subscriptions, parts);
                Err(StartError::WouldBlock)
            }
            (Err(Failure::Panicked(payload)), _) | (_, Some(payload)) => platform::resume(payload),
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
        let mut hits =
            Hits { limit: subscriptions.index.limit(), batch: Batch::new(), complete: false, called: 0 };
        let parts = slice::from_ref(&part);
        let place = frame::Place { space: subscriptions.id, section, parts };
        let late = Late::default();
        let (result, _) = Frame::around(context, &place, Kind::Intervals, |_| {
            calls.call_intervals(parts, &mut hits, &late)
        });
        if result.is_ok() {
            calls.each(parts, &late, Claim::retire);
        }
        part.give_back(subscriptions);
        let panic = if let Err(Failure::Panicked(payload)) = result { Some(payload) } else { None };
        if let Some(payload) = panic.or(late.0.into_inner()) {
            platform::resume(payload);
        }
    });
}

/// The first panic of what is freed or woken when a call changes its phase: it goes on behind the call, whose
/// books are in order then (clause C7.2).
#[derive(Default)]
pub(crate) struct Late(Cell<Option<Payload>>);

impl Late {
    pub(crate) fn keep(&self, panic: Option<Payload>) {
        if panic.is_some() {
            let first = self.0.take();
            self.0.set(first.or(panic));
        }
    }
}

/// The kind of a frame, by whether the invalidation may block.
pub(crate) fn kind_of(invalidation: &Invalidation, blockable: Kind, not: Kind) -> Kind {
    if invalidation.is_blockable() { blockable } else { not }
}

/// Ends a start that succeeded.
///
/// # Context
/// Does not sleep by itself and allocates nothing. A callback's panic goes on behind it.
#[inline]
pub(crate) fn end(space: &Space, started: &Started, parts: &mut [Part], ending: Ending) {
    let Some(subscriptions) = space.subscriptions() else { return };
    trace::ending(subscriptions, parts);
    if let ([part], 0) = (&*parts, subscriptions.list.count()) {
        if part.end_alone(subscriptions) {
            return;
        }
    }
    end_watched(space, subscriptions, started, parts, ending);
}

fn end_watched(
    space: &Space,
    subscriptions: &Subscriptions,
    started: &Started,
    parts: &mut [Part],
    ending: Ending,
) {
    let late = Late::default();
    for part in &mut *parts {
        let Some(claim) = part.claim(subscriptions) else { continue };
        if claim.is_active(part.identity) && !is_of_a_parent(started, claim) {
            late.keep(subscriptions.ring(claim.retire(part.identity)));
        } else {
            late.keep(platform::catch(|| part.has_no_start(started)).err());
        }
    }
    match late.0.into_inner() {
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
