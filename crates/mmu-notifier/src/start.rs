//! Start and end: the calls of the primary MMU, on the interval side and then the list (clause C5).
//!
//! # Protocol
//! *Start*: claim a hazard; publish the range, phase calling; search; call what was found up to the limit of
//! that moment; second passes; phase active, **before** the list is walked; the list. An interval that refuses
//! or panics: second passes, idle, over. The list refuses: idle first, then the ends that are owed.
//! *End*: idle, which wakes readers; then the list; then the claim is given back.
//! Nothing is written per subscription but the sequence of those that are hit: the published range is the mark.

#![expect(unsafe_code, reason = "nodes are called through raw pointers")]

use core::fmt;
use core::ptr::{self, NonNull};

use crate::begun::Begun;
use crate::diagnostics::{self, Rule};
use crate::frame::{Frame, Kind};
use crate::hazard::{Claim, Hazard};
use crate::index::Batch;
use crate::interval::{Answer, Node, Sequence};
use crate::invalidation::{Invalidation, Owner};
use crate::list::walk;
use crate::platform::{self, Context, Payload};
use crate::space::Space;
use crate::subscriptions::Subscriptions;

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

/// What a start left for its end.
#[derive(Debug)]
pub(crate) struct Started {
    subscriptions: *const Subscriptions,
    claim: Held,
    identity: u64,
    list_limit: u64,
    /// The number of forks before the start: in the child of a later one it is over.
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

impl Started {
    fn new(subscriptions: &Subscriptions, claim: Option<Claim<'_>>, identity: u64, list_limit: u64) -> Self {
        let claim = match claim {
            None => Held::Nothing,
            Some(Claim::One(hazard)) => Held::One(hazard),
            Some(Claim::Crowd(_)) => Held::Crowd,
        };
        Started { subscriptions, claim, identity, list_limit, forks: crate::fork::count() }
    }

    /// Of a space that nobody watched.
    fn unwatched() -> Self {
        let subscriptions = ptr::null();
        Started { subscriptions, claim: Held::Nothing, identity: 0, list_limit: 0, forks: 0 }
    }

    fn claim<'s>(&self, subscriptions: &'s Subscriptions) -> Option<Claim<'s>> {
        match self.claim {
            Held::Nothing => None,
            // SAFETY: the hazard is one of the book of these subscriptions, and lives as long as it.
            Held::One(hazard) => Some(Claim::One(unsafe { &*hazard })),
            Held::Crowd => Some(Claim::Crowd(&subscriptions.book.crowd)),
        }
    }
}

/// Starts an invalidation; the caller ends it with [`end`] unless it failed.
///
/// # Context
/// Does not sleep by itself and allocates nothing; a callback's panic goes on behind it.
#[inline]
pub(crate) fn start(space: &Space, invalidation: &Invalidation) -> Result<Started, StartError> {
    // CONTRACT C2.2: a space that nobody watches pays this load and this branch.
    match space.subscriptions() {
        None => Ok(Started::unwatched()),
        Some(subscriptions) => {
            platform::with_context(|context| start_watched(space, subscriptions, context, invalidation))
        }
    }
}

fn start_watched(
    space: &Space,
    subscriptions: &Subscriptions,
    context: Option<&Context>,
    invalidation: &Invalidation,
) -> Result<Started, StartError> {
    if !subscriptions.index.is_open() {
        if subscriptions.list.count() == 0 {
            return Ok(Started::new(subscriptions, None, 0, 0));
        }
        let claim = subscriptions.book.claim(context);
        let calls = Calls { space, subscriptions, context, claim, invalidation };
        return calls.run(None);
    }
    let claim = subscriptions.book.claim(context);
    let calls = Calls { space, subscriptions, context, claim, invalidation };
    let mut hits = Hits::publish(subscriptions, claim, invalidation);
    if !hits.search(subscriptions, claim, invalidation) {
        subscriptions.ring(claim.activate(hits.identity));
        if subscriptions.list.count() == 0 {
            return Ok(Started::new(subscriptions, Some(claim), hits.identity, 0));
        }
        hits.activated = true;
    }
    calls.run(Some(&mut hits))
}

/// One range that is published, and what was found in it.
pub(crate) struct Hits {
    pub(crate) identity: u64,
    limit: u64,
    batch: Batch,
    complete: bool,
    activated: bool,
}

impl Hits {
    /// Publishes the range; what is inserted later is none of this start's.
    #[inline]
    pub(crate) fn publish(
        subscriptions: &Subscriptions,
        claim: Claim<'_>,
        invalidation: &Invalidation,
    ) -> Self {
        let owner = invalidation.owner().map_or(0, Owner::get);
        let identity = claim.publish(invalidation.range().bounds(), owner, subscriptions.index.epoch());
        // CONTRACT C3.3: who is inserted from here on is busy for this invalidation, and not called.
        let limit = subscriptions.index.limit();
        Hits { identity, limit, batch: Batch::new(), complete: true, activated: false }
    }

    /// Makes the first search; says whether it found anybody.
    #[inline]
    pub(crate) fn search(
        &mut self,
        subscriptions: &Subscriptions,
        claim: Claim<'_>,
        invalidation: &Invalidation,
    ) -> bool {
        let bounds = invalidation.range().bounds();
        self.complete = subscriptions.index.search(bounds, None, &mut self.batch);
        claim.unpin();
        !self.batch.as_slice().is_empty()
    }
}

/// A start that calls back.
struct Calls<'c> {
    space: &'c Space,
    subscriptions: &'c Subscriptions,
    context: Option<&'c Context>,
    claim: Claim<'c>,
    invalidation: &'c Invalidation,
}

impl Calls<'_> {
    /// Calls the intervals that were hit, if that side has begun, and the list.
    #[inline(never)]
    fn run(&self, hits: Option<&mut Hits>) -> Result<Started, StartError> {
        let identity = hits.as_ref().map(|hits| hits.identity);
        let kind = kind_of(self.invalidation, Kind::Intervals, Kind::IntervalsNonblock);
        let (result, exit_due) =
            Frame::around(self.context, self.subscriptions.id, self.claim, kind, |frame| {
                self.call(frame, hits)
            });
        let started = result.map(|limit| {
            let claim = identity.map(|_| self.claim);
            if claim.is_none() {
                self.claim.give_back();
            }
            Started::new(self.subscriptions, claim, identity.unwrap_or(0), limit)
        });
        if started.is_err() {
            self.claim.give_back();
        }
        conclude(self.space, started, exit_due)
    }

    /// Returns the limit up to which the list has heard of the start.
    fn call(&self, frame: &Frame, hits: Option<&mut Hits>) -> Result<u64, Failure> {
        let identity = hits.as_ref().map(|hits| hits.identity);
        if let Some(hits) = hits.filter(|hits| !hits.activated) {
            self.call_intervals(hits)?;
        }
        frame.set_kind(kind_of(self.invalidation, Kind::Walk, Kind::WalkNonblock));
        let over = || {
            // CONTRACT C5.3: the interval side is over before the ends of those who accepted.
            if let Some(identity) = identity {
                self.subscriptions.ring(self.claim.retire(identity));
            }
        };
        let heard = walk::start(self.subscriptions, self.claim, self.invalidation, over);
        heard.inspect_err(|_| self.claim.count(0, 1))
    }

    /// Calls the intervals that were hit: then the invalidation is active, or over if one refused or panicked.
    fn call_intervals(&self, hits: &mut Hits) -> Result<(), Failure> {
        let mut pass = Pass::new(self.subscriptions, self.invalidation);
        pass.call(self.claim, hits, self.invalidation);
        pass.finish();
        self.claim.count(pass.hits, u64::from(pass.failure.is_some()));
        match pass.failure {
            None => self.subscriptions.ring(self.claim.activate(hits.identity)),
            Some(_) => self.subscriptions.ring(self.claim.abandon(hits.identity)),
        }
        pass.failure.map_or(Ok(()), Err)
    }
}

/// The interval side of an exit: start and end of everything (clause C8.1).
pub(crate) fn release(space: &Space, subscriptions: &Subscriptions, invalidation: &Invalidation) {
    if !subscriptions.index.is_open() {
        return;
    }
    platform::with_context(|context| {
        let claim = subscriptions.book.claim(context);
        let calls = Calls { space, subscriptions, context, claim, invalidation };
        let mut hits = Hits::publish(subscriptions, claim, invalidation);
        hits.search(subscriptions, claim, invalidation);
        let (result, _) = Frame::around(context, subscriptions.id, claim, Kind::Intervals, |_| {
            calls.call_intervals(&mut hits)
        });
        if result.is_ok() {
            subscriptions.ring(claim.retire(hits.identity));
        }
        claim.give_back();
        if let Err(Failure::Panicked(payload)) = result {
            platform::resume(payload);
        }
    });
}

/// The kind of a frame, by whether the invalidation may block.
pub(crate) fn kind_of(invalidation: &Invalidation, blockable: Kind, not: Kind) -> Kind {
    if invalidation.is_blockable() { blockable } else { not }
}

/// Runs an exit that was left to this call, and turns a failure into what the caller gets.
pub(crate) fn conclude(
    space: &Space,
    started: Result<Started, Failure>,
    exit_due: bool,
) -> Result<Started, StartError> {
    if exit_due {
        // CONTRACT C8.3
        // SAFETY: the last user's drop left the exit to this call, whose caller is a holder.
        if let Err(payload) = platform::catch(|| unsafe { Space::exit_and_let_go(NonNull::from(space)) }) {
            if let Ok(started) = started {
                // A panic that comes before the caller has its guard ends what was begun.
                let _ = platform::catch(|| {
                    end(space, &started, &Invalidation::from(crate::Range::ALL), Ending::Whole)
                });
            }
            platform::resume(payload);
        }
    }
    match started {
        Ok(started) => Ok(started),
        Err(Failure::Refused) => Err(StartError::WouldBlock),
        Err(Failure::Panicked(payload)) => platform::resume(payload),
    }
}

/// The first and second passes of one start over the intervals that it hits.
pub(crate) struct Pass<'p> {
    subscriptions: &'p Subscriptions,
    blockable: bool,
    owner: u64,
    begun: Begun,
    pub(crate) hits: u64,
    pub(crate) failure: Option<Failure>,
}

impl<'p> Pass<'p> {
    pub(crate) fn new(subscriptions: &'p Subscriptions, invalidation: &Invalidation) -> Self {
        let owner = invalidation.owner().map_or(0, Owner::get);
        let blockable = invalidation.is_blockable();
        Pass { subscriptions, blockable, owner, begun: Begun::new(), hits: 0, failure: None }
    }

    /// Calls everybody in one range, until somebody refuses or panics.
    pub(crate) fn call(&mut self, claim: Claim<'_>, hits: &mut Hits, invalidation: &Invalidation) {
        loop {
            // SAFETY: found by this start, which is in phase calling (I6).
            let last = hits.batch.as_slice().last().map(|node| unsafe { &**node });
            let after = last.map(|node| (node.bounds().0, node.order()));
            for &node in hits.batch.as_slice() {
                self.call_one(node, hits.identity, hits.limit, invalidation);
                if self.failure.is_some() {
                    return;
                }
            }
            if hits.complete {
                return;
            }
            claim.pin(self.subscriptions.index.epoch());
            hits.batch.clear();
            hits.complete =
                self.subscriptions.index.search(invalidation.range().bounds(), after, &mut hits.batch);
            claim.unpin();
        }
    }

    #[inline]
    fn call_one(&mut self, node: *const Node, identity: u64, limit: u64, invalidation: &Invalidation) {
        // SAFETY: what a search finds is not null.
        let node = unsafe { NonNull::new_unchecked(node.cast_mut()) };
        // SAFETY: found by this start, which is in phase calling (I6).
        let hit = unsafe { node.as_ref() };
        let Some(callbacks) = hit.callbacks_for(limit) else { return };
        // CONTRACT C3.12: an invalidation of its own leaves its tokens fresh.
        if self.owner != 0 && hit.owner() == self.owner {
            return;
        }
        hit.hit(identity);
        self.hits += 1;
        // SAFETY: the table is that of the node, which this start found.
        let answer =
            platform::catch(|| unsafe { (callbacks.invalidate)(node, invalidation, Sequence(identity)) });
        match answer {
            Ok(Answer::Done) => {}
            Ok(Answer::Begun) => {
                if !self.begun.add(node, invalidation) {
                    self.finish_one(node, invalidation);
                }
            }
            Ok(Answer::Refused) if !self.blockable => self.failure = Some(Failure::Refused),
            // CONTRACT C5.2: a bug, taken as accepted.
            Ok(Answer::Refused) => {
                diagnostics::report(Rule::RefusedBlockable, "invalidate_start", hit.label());
            }
            Err(payload) => self.failure = Some(Failure::Panicked(payload)),
        }
    }

    /// Makes the second passes, in the order of the first ones (clause C3.8).
    pub(crate) fn finish(&mut self) {
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
pub(crate) fn end(space: &Space, started: &Started, invalidation: &Invalidation, ending: Ending) {
    let Some(subscriptions) = space.subscriptions() else { return };
    if started.forks != crate::fork::count() && !started.subscriptions.is_null() {
        // CONTRACT C7.3: begun before the fork; if it is still there it is this thread's.
        return end_after_fork(space, subscriptions, started, invalidation, ending);
    }
    end_watched(space, subscriptions, started, invalidation, ending);
}

fn end_watched(
    space: &Space,
    subscriptions: &Subscriptions,
    started: &Started,
    invalidation: &Invalidation,
    ending: Ending,
) {
    let claim = started.claim(subscriptions);
    if let Some(claim) = claim {
        if !claim.is_active(started.identity) {
            return diagnostics::report(Rule::EndWithoutStart, "invalidate_end", None);
        }
        subscriptions.ring(claim.retire(started.identity));
    }
    if subscriptions.list.count() == 0 {
        if let Some(claim) = claim {
            claim.give_back();
        }
        return;
    }
    platform::with_context(|context| {
        let claim = claim.unwrap_or_else(|| subscriptions.book.claim(context));
        let call = walk::Call { space, subscriptions, context, claim };
        call.end(invalidation, started.list_limit, ending);
    });
}

#[cold]
fn end_after_fork(
    space: &Space,
    subscriptions: &Subscriptions,
    started: &Started,
    invalidation: &Invalidation,
    ending: Ending,
) {
    let still_there = match started.claim(subscriptions) {
        Some(claim @ Claim::One(_)) => claim.is_active(started.identity),
        // The crowd of the parent is not counted here.
        Some(Claim::Crowd(_)) => false,
        None => true,
    };
    if still_there {
        end_watched(space, subscriptions, started, invalidation, ending);
    }
}
