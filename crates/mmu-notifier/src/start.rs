//! Start and end: the calls of the primary MMU, on the interval side and then the list (clause C5).
//!
//! # Protocol
//! *Start*: claim a hazard; publish the range, phase calling; search; call what was found up to the limit of
//! that moment; second passes; phase active, **before** the list is walked; the list. An interval that refuses
//! or panics: second passes, idle, over. The list refuses: idle first, then the ends that are owed.
//! *End*: idle, which wakes readers; then the list; then the claim is given back.
//! Nothing is written per subscription but the sequence of those that are hit: the published range is the mark.

#![expect(unsafe_code, reason = "nodes are called through raw pointers")]

use core::cell::Cell;
use core::fmt;
use core::panic::Location;
use core::ptr::{self, NonNull};
use core::slice;

use crate::begun::Begun;
use crate::diagnostics::{self, Rule};
use crate::frame::{self, Frame, Kind};
use crate::hazard::{Claim, Hazard};
use crate::hung::Post;
use crate::index::Batch;
use crate::interval::{Answer, Node, Sequence};
use crate::invalidation::{Invalidation, Owner};
use crate::list::walk;
use crate::platform::{self, Context, Payload};
use crate::space::Space;
use crate::subscriptions::Subscriptions;
use crate::sync::full_fence;

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

/// One range of a start, and its place among the hazards.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) invalidation: Invalidation,
    claim: Held,
    identity: u64,
}

/// What a start left for its end, beside its parts.
#[derive(Debug)]
pub(crate) struct Started {
    list_limit: u64,
    /// The number of forks before the start: in the child of a later one it may be over.
    forks: u32,
}

/// A claim without its lifetime.
#[derive(Clone, Copy, Debug)]
enum Held {
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
    fn announce<'s>(&mut self, subscriptions: &'s Subscriptions, context: Option<&Context>) -> Claim<'s> {
        let claim = subscriptions.book.claim(context);
        self.claim = Held::new(claim);
        let owner = self.invalidation.owner().map_or(0, Owner::get);
        self.identity = claim.announce(self.invalidation.range().bounds(), owner);
        claim
    }

    fn claim<'s>(&self, subscriptions: &'s Subscriptions) -> Option<Claim<'s>> {
        match self.claim {
            Held::Nothing => None,
            // SAFETY: the hazard is one of the book of these subscriptions, and lives as long as it.
            Held::One(hazard) => Some(Claim::One(unsafe { &*hazard })),
            Held::Crowd => Some(Claim::Crowd(&subscriptions.book.crowd)),
        }
    }

    /// Forgets a claim that is not this part's any more.
    #[cold]
    fn has_no_start(&mut self, started: &Started) {
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

    /// Gives the claim back, if there is one.
    fn give_back(&self, subscriptions: &Subscriptions) {
        if let Some(claim) = self.claim(subscriptions) {
            claim.give_back();
        }
    }
}

impl Held {
    fn new(claim: Claim<'_>) -> Self {
        match claim {
            Claim::One(hazard) => Held::One(hazard),
            Claim::Crowd(_) => Held::Crowd,
        }
    }
}

impl Started {
    #[inline]
    fn new(list_limit: u64) -> Self {
        Started { list_limit, forks: crate::fork::count() }
    }
}

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
            return if nobody { Ok(Started::new(0)) } else { self.run(slice::from_mut(part), None) };
        }
        let claim = subscriptions.book.claim(self.context);
        part.claim = Held::new(claim);
        let owner = part.invalidation.owner().map_or(0, Owner::get);
        let bounds = part.invalidation.range().bounds();
        part.identity = claim.publish(bounds, owner, subscriptions.index.epoch());
        // CONTRACT C3.3: who is inserted from here on is busy for this invalidation, and not called.
        let mut hits = Hits { limit: subscriptions.index.limit(), batch: Batch::new(), complete: true };
        hits.complete = subscriptions.index.search(bounds, None, &mut hits.batch);
        claim.unpin();
        if hits.batch.as_slice().is_empty() && nobody {
            let late = subscriptions.ring(claim.activate(part.identity));
            return self.conclude(Ok(Started::new(0)), slice::from_mut(part), false, late);
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
        let mut hits = Hits { limit: self.subscriptions.index.limit(), batch: Batch::new(), complete: false };
        self.run(parts, Some(&mut hits))
    }

    /// Calls the intervals that are hit, if that side has begun, and the list.
    #[inline(never)]
    fn run(self, parts: &mut [Part], hits: Option<&mut Hits>) -> Result<Started, StartError> {
        let Some(first) = parts.first() else { return Ok(Started::new(0)) };
        let kind = kind_of(&first.invalidation, Kind::Intervals, Kind::IntervalsNonblock);
        // The walk of the list is a section of the first range's hazard, or of one that is claimed for it.
        let claim = first.claim(self.subscriptions);
        let section = claim.unwrap_or_else(|| self.subscriptions.book.claim(self.context));
        let place = frame::Place { space: self.subscriptions.id, section, parts };
        let late = Late::default();
        let (result, exit_due) =
            Frame::around(self.context, &place, kind, |frame| self.call(frame, section, parts, hits, &late));
        if claim.is_none() {
            section.give_back();
        }
        if result.is_err() {
            parts.iter().for_each(|part| part.give_back(self.subscriptions));
        }
        self.conclude(result.map(Started::new), parts, exit_due, late.0.into_inner())
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
            (Ok(started), None) => Ok(started),
            (Ok(started), Some(payload)) => {
                // The caller gets no guard, so what was begun ends here.
                let _ = platform::catch(|| end(self.space, &started, parts, Ending::Whole));
                platform::resume(payload)
            }
            (Err(Failure::Refused), None) => Err(StartError::WouldBlock),
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
        let mut hits = Hits { limit: subscriptions.index.limit(), batch: Batch::new(), complete: false };
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

/// What a start has found so far of one range.
struct Hits {
    limit: u64,
    batch: Batch,
    complete: bool,
}

/// The kind of a frame, by whether the invalidation may block.
pub(crate) fn kind_of(invalidation: &Invalidation, blockable: Kind, not: Kind) -> Kind {
    if invalidation.is_blockable() { blockable } else { not }
}

/// The first and second passes of one start over the intervals that it hits.
struct Pass<'p> {
    subscriptions: &'p Subscriptions,
    limit: u64,
    begun: &'p mut Begun,
    hits: u64,
    failure: Option<Failure>,
}

impl<'p> Pass<'p> {
    fn new(subscriptions: &'p Subscriptions, limit: u64, begun: &'p mut Begun) -> Self {
        Pass { subscriptions, limit, begun, hits: 0, failure: None }
    }

    /// Calls everybody in one range, until somebody refuses or panics. What `hits` holds was found already.
    fn call(&mut self, claim: Claim<'_>, part: &Part, hits: &mut Hits) {
        let mut after = None;
        loop {
            // Before the callbacks run, which may free what they remove.
            if let Some(last) = hits.batch.as_slice().last() {
                // SAFETY: found by this start, which is in phase calling (I6).
                let last = unsafe { &**last };
                after = Some((last.bounds().0, last.order()));
            }
            for &node in hits.batch.as_slice() {
                self.call_one(node, part);
                if self.failure.is_some() {
                    return;
                }
            }
            if hits.complete {
                return;
            }
            claim.pin(self.subscriptions.index.epoch());
            hits.batch.clear();
            let bounds = part.invalidation.range().bounds();
            hits.complete = self.subscriptions.index.search(bounds, after, &mut hits.batch);
            claim.unpin();
        }
    }

    #[inline]
    fn call_one(&mut self, node: *const Node, part: &Part) {
        let invalidation = &part.invalidation;
        // SAFETY: what a search finds is not null.
        let node = unsafe { NonNull::new_unchecked(node.cast_mut()) };
        // SAFETY: found by this start, which is in phase calling (I6).
        let hit = unsafe { node.as_ref() };
        let Some(callbacks) = hit.callbacks_for(self.limit) else { return };
        // CONTRACT C3.12: an invalidation of its own leaves its tokens fresh.
        if invalidation.owner().is_some_and(|owner| owner.get() == hit.owner()) {
            return;
        }
        hit.hit(part.identity);
        self.hits += 1;
        // SAFETY: the table is that of the node, which this start found.
        let answer = platform::catch(|| unsafe {
            (callbacks.invalidate)(node, invalidation, Sequence(part.identity))
        });
        match answer {
            Ok(Answer::Done) => {}
            Ok(Answer::Begun) => {
                if !self.begun.add(node, invalidation) {
                    self.finish_one(node, invalidation);
                }
            }
            Ok(Answer::Refused) if !invalidation.is_blockable() => self.failure = Some(Failure::Refused),
            // CONTRACT C5.2: a bug, taken as accepted.
            Ok(Answer::Refused) => {
                let report = || diagnostics::report(Rule::RefusedBlockable, "invalidate_start", hit.label());
                self.failure = platform::catch(report).err().map(Failure::Panicked);
            }
            Err(payload) => self.failure = Some(Failure::Panicked(payload)),
        }
    }

    /// Makes the second passes, in the order of the first ones (clause C3.8).
    fn finish(&mut self) {
        while let Some((node, invalidation)) = self.begun.next() {
            // SAFETY: it is one that `call` was given, and outlives the pass.
            self.finish_one(node, unsafe { &*invalidation });
        }
    }

    fn finish_one(&mut self, node: NonNull<Node>, invalidation: &Invalidation) {
        // SAFETY: the node began in this start, which is still in phase calling (I6).
        let Some(callbacks) = (unsafe { node.as_ref() }).second_pass() else { return };
        // SAFETY: the table is that of the node, which answered that it has begun.
        let result = platform::catch(|| unsafe { (callbacks.finish)(node, invalidation) });
        if let Err(payload) = result {
            // CONTRACT C7.2: the first panic goes on after the rest of the walk.
            if !matches!(self.failure, Some(Failure::Panicked(_))) {
                self.failure = Some(Failure::Panicked(payload));
            }
        }
    }
}

/// Ends a start that succeeded.
///
/// # Context
/// Does not sleep by itself and allocates nothing. A callback's panic goes on behind it.
#[inline]
pub(crate) fn end(space: &Space, started: &Started, parts: &mut [Part], ending: Ending) {
    if let Some(subscriptions) = space.subscriptions() {
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
