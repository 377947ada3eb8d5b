//! The first and the second pass of a start over the intervals that it hits (clause C3.8).

#![expect(unsafe_code, reason = "nodes are called through raw pointers")]

use core::ptr::NonNull;

use super::{Failure, Part};
use crate::begun::Begun;
use crate::diagnostics::{self, Rule};
use crate::index::Batch;
use crate::interval::{Answer, Node, Sequence, SequenceBy};
use crate::intrusive::Interval;
use crate::invalidation::Invalidation;
use crate::platform::{self, Payload};
use crate::subscriptions::Subscriptions;

/// The first and second passes of one start over the intervals that it hits.
pub(super) struct Pass<'p> {
    subscriptions: &'p Subscriptions,
    /// The highest order that is called.
    limit: u64,
    /// What was found so far of one range, and whether that is all.
    batch: &'p mut Batch,
    complete: bool,
    /// How many callbacks were called, over all ranges.
    pub(super) called: u64,
    begun: Begun,
    pub(super) failure: Option<Failure>,
}

impl<'p> Pass<'p> {
    /// Nobody was called yet. What `batch` holds was found already, of the first range.
    #[inline(always)]
    pub(super) fn new(
        subscriptions: &'p Subscriptions,
        limit: u64,
        batch: &'p mut Batch,
        complete: bool,
    ) -> Self {
        Pass { subscriptions, limit, batch, complete, called: 0, begun: Begun::new(), failure: None }
    }

    /// Makes the first passes over one range, until somebody refuses or panics.
    #[inline(always)]
    pub(super) fn begin_one(&mut self, part: &Part) {
        if let Err(payload) = platform::catch(|| _ = self.call(part)) {
            self.fail(payload);
        }
    }

    /// Makes those over several ranges.
    pub(super) fn begin_all(&mut self, parts: &[Part]) {
        if let Err(payload) = platform::catch(|| self.call_all(parts)) {
            self.fail(payload);
        }
    }

    /// Says whether there is nothing more to do: no second passes, nothing to undo.
    #[inline(always)]
    pub(super) fn is_over(&self) -> bool {
        self.failure.is_none() && self.begun.is_empty()
    }

    /// Makes the second passes, if any are due, and counts the hits.
    pub(super) fn finish_all(&mut self, parts: &[Part]) {
        if self.begun.is_due() {
            self.finish();
        }
        if let Some(claim) = parts.first().and_then(|part| part.claim(self.subscriptions)) {
            claim.count(self.called);
        }
    }

    #[cold]
    fn fail(&mut self, payload: Payload) {
        self.failure = Some(Failure::Panicked(payload));
    }

    fn call_all(&mut self, parts: &[Part]) {
        for part in parts {
            if part.claim(self.subscriptions).is_some() && !self.call(part) {
                return;
            }
            self.batch.clear();
            self.complete = false;
        }
    }

    /// Calls everybody in one range; false if somebody refused.
    #[inline(always)]
    fn call(&mut self, part: &Part) -> bool {
        while !self.complete {
            // Before the callbacks run, which may free what they remove.
            let after = self.batch.as_slice().last().map(|&last| {
                // SAFETY: found by this start, which is in phase calling (I6).
                let last = unsafe { &*last };
                (last.bounds().0, last.order())
            });
            if !self.call_batch(part) {
                return false;
            }
            self.search_on(part, after);
        }
        self.call_batch(part)
    }

    /// Looks for the next hits, behind those that were called.
    #[inline(never)]
    fn search_on(&mut self, part: &Part, after: Option<(u64, u64)>) {
        let Some(claim) = part.claim(self.subscriptions) else { return self.complete = true };
        claim.pin(self.subscriptions.index.epoch());
        self.batch.clear();
        let bounds = part.invalidation.range().bounds();
        self.complete = self.subscriptions.index.search(bounds, after, self.batch);
        claim.unpin();
    }

    #[inline(always)]
    fn call_batch(&mut self, part: &Part) -> bool {
        let (invalidation, owner, limit) = (&part.invalidation, part.owner(), self.limit);
        for &node in self.batch.as_slice() {
            // SAFETY: what a search finds is not null.
            let node = unsafe { NonNull::new_unchecked(node.cast_mut()) };
            // SAFETY: found by this start, which is in phase calling (I6).
            let hit = unsafe { node.as_ref() };
            let Some(callbacks) = hit.callbacks_for(limit) else { continue };
            let direct = owner != 0 && callbacks.sequence == SequenceBy::Direct;
            // CONTRACT C3.12: an invalidation of its own leaves its tokens fresh.
            if !direct && owner != 0 && owner == callbacks.owner() {
                continue;
            }
            if callbacks.sequence == SequenceBy::Start {
                hit.hit(part.identity());
            }
            self.called += 1;
            let sequence = Sequence(part.identity());
            let answer = if direct {
                // SAFETY: the table says that there is a direct callback; this start found the node.
                unsafe { Interval::call_directly(node, owner, sequence) }
            } else {
                // SAFETY: the table is that of the node, which this start found.
                unsafe { (callbacks.invalidate)(node, invalidation, sequence) }
            };
            match answer {
                Answer::Done => {}
                Answer::Begun => begin(&mut self.begun, node, invalidation),
                Answer::Refused if !invalidation.is_blockable() => {
                    self.failure = Some(Failure::Refused);
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
            if let (Err(payload), None | Some(Failure::Refused)) = (second, &self.failure) {
                self.failure = Some(Failure::Panicked(payload));
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
