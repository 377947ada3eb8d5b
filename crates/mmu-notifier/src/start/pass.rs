//! The first and the second pass of a start over the intervals that it hits (clause C3.8).

#![expect(unsafe_code, reason = "nodes are called through raw pointers")]

use core::ptr::NonNull;

use super::{Failure, Outcome, Part};
use crate::begun::Begun;
use crate::diagnostics::{self, Rule};
use crate::hazard::Claim;
use crate::index::Batch;
use crate::interval::{Answer, Node, Sequence, SequenceBy};
use crate::invalidation::Invalidation;
use crate::platform;
use crate::subscriptions::Subscriptions;

/// What a start has found so far of one range.
pub(super) struct Hits<'b> {
    pub(super) limit: u64,
    pub(super) batch: &'b mut Batch,
    pub(super) complete: bool,
    /// How many callbacks were called, over all ranges.
    pub(super) called: u64,
}

impl<'b> Hits<'b> {
    /// Nothing is found yet.
    pub(super) fn new(limit: u64, batch: &'b mut Batch) -> Self {
        Hits { limit, batch, complete: false, called: 0 }
    }
}

/// Calls everybody who is hit, until somebody refuses or panics, and makes the second passes.
#[inline(always)]
pub(super) fn call_intervals(
    subscriptions: &Subscriptions,
    parts: &[Part],
    hits: &mut Hits<'_>,
    outcome: &mut Outcome,
) {
    let mut pass = Pass { subscriptions, hits, begun: Begun::new(), failure: &mut outcome.failure };
    let first = platform::catch(|| pass.call_all(parts));
    if let Err(payload) = first {
        *pass.failure = Some(Failure::Panicked(payload));
    }
    if pass.begun.is_due() {
        pass.finish();
    }
    if let Some(claim) = parts.first().and_then(|part| part.claim(subscriptions)) {
        claim.count(hits.called);
    }
}

/// The first and second passes of one start over the intervals that it hits.
struct Pass<'p, 'b> {
    subscriptions: &'p Subscriptions,
    hits: &'p mut Hits<'b>,
    begun: Begun,
    failure: &'p mut Option<Failure>,
}

impl Pass<'_, '_> {
    /// Makes the first passes. What `hits` holds was found already, of the first range.
    #[inline]
    fn call_all(&mut self, parts: &[Part]) {
        for part in parts {
            let Some(claim) = part.claim(self.subscriptions) else { continue };
            if !self.call(claim, part) {
                return;
            }
            self.hits.batch.clear();
            self.hits.complete = false;
        }
    }

    /// Calls everybody in one range; false if somebody refused.
    #[inline]
    fn call(&mut self, claim: Claim<'_>, part: &Part) -> bool {
        loop {
            let complete = self.hits.complete;
            // Before the callbacks run, which may free what they remove.
            let last = self.hits.batch.as_slice().last().filter(|_| !complete);
            let after = last.map(|&last| {
                // SAFETY: found by this start, which is in phase calling (I6).
                let last = unsafe { &*last };
                (last.bounds().0, last.order())
            });
            if !self.call_batch(part) {
                return false;
            }
            if complete {
                return true;
            }
            self.search_on(claim, part, after);
        }
    }

    /// Looks for the next hits, behind those that were called.
    #[inline(never)]
    fn search_on(&mut self, claim: Claim<'_>, part: &Part, after: Option<(u64, u64)>) {
        claim.pin(self.subscriptions.index.epoch());
        self.hits.batch.clear();
        let bounds = part.invalidation.range().bounds();
        self.hits.complete = self.subscriptions.index.search(bounds, after, self.hits.batch);
        claim.unpin();
    }

    #[inline(always)]
    fn call_batch(&mut self, part: &Part) -> bool {
        let Hits { limit, batch, called, .. } = &mut *self.hits;
        let (invalidation, owner) = (&part.invalidation, part.owner());
        for &node in batch.as_slice() {
            // SAFETY: what a search finds is not null.
            let node = unsafe { NonNull::new_unchecked(node.cast_mut()) };
            // SAFETY: found by this start, which is in phase calling (I6).
            let hit = unsafe { node.as_ref() };
            let Some(callbacks) = hit.callbacks_for(*limit) else { continue };
            // CONTRACT C3.12: an invalidation of its own leaves its tokens fresh.
            if owner != 0 && owner == hit.owner() {
                continue;
            }
            if callbacks.sequence == SequenceBy::Start {
                hit.hit(part.identity());
            }
            *called += 1;
            // SAFETY: the table is that of the node, which this start found.
            match unsafe { (callbacks.invalidate)(node, invalidation, Sequence(part.identity())) } {
                Answer::Done => {}
                Answer::Begun => begin(&mut self.begun, node, invalidation),
                Answer::Refused if !invalidation.is_blockable() => {
                    *self.failure = Some(Failure::Refused);
                    return false;
                }
                // CONTRACT C5.2: a bug, taken as accepted.
                Answer::Refused => {
                    diagnostics::report(Rule::RefusedBlockable, "invalidate_start", hit.label());
                }
            }
        }
        true
    }

    /// Makes the second passes, in the order of the first ones (clause C3.8).
    #[inline(never)]
    fn finish(&mut self) {
        while self.begun.is_due() {
            let second = platform::catch(|| {
                while let Some((node, invalidation)) = self.begun.next() {
                    // SAFETY: it is one that `call_batch` was given, and outlives the pass.
                    finish_one(node, unsafe { &*invalidation });
                }
            });
            // CONTRACT C7.2: the first panic goes on after the rest of the walk.
            if let (Err(payload), None | Some(Failure::Refused)) = (second, &*self.failure) {
                *self.failure = Some(Failure::Panicked(payload));
            }
        }
    }
}

/// Keeps a second pass for later, or makes it at once.
#[inline(never)]
fn begin(begun: &mut Begun, node: NonNull<Node>, invalidation: &Invalidation) {
    if !begun.add(node, invalidation) {
        finish_one(node, invalidation);
    }
}

fn finish_one(node: NonNull<Node>, invalidation: &Invalidation) {
    // SAFETY: the node began in this start, which is still in phase calling (I6).
    let Some(callbacks) = (unsafe { node.as_ref() }).second_pass() else { return };
    // SAFETY: the table is that of the node, which answered that it has begun.
    unsafe { (callbacks.finish)(node, invalidation) };
}
