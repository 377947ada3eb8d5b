//! The first and the second pass of a start over the intervals that it hits (clause C3.8).

#![expect(unsafe_code, reason = "nodes are called through raw pointers")]

use core::ptr::NonNull;

use super::{Failure, Part};
use crate::begun::Begun;
use crate::diagnostics::{self, Rule};
use crate::hazard::Claim;
use crate::index::Batch;
use crate::interval::{Answer, Node, Sequence};
use crate::invalidation::Invalidation;
use crate::platform;
use crate::subscriptions::Subscriptions;

/// What a start has found so far of one range.
pub(super) struct Hits {
    pub(super) limit: u64,
    pub(super) batch: Batch,
    pub(super) complete: bool,
    /// How many callbacks were called, over all ranges.
    pub(super) called: u64,
}

/// The first and second passes of one start over the intervals that it hits.
pub(super) struct Pass<'p> {
    subscriptions: &'p Subscriptions,
    pub(super) limit: u64,
    begun: &'p mut Begun,
    pub(super) hits: u64,
    pub(super) failure: Option<Failure>,
}

impl<'p> Pass<'p> {
    pub(super) fn new(subscriptions: &'p Subscriptions, limit: u64, begun: &'p mut Begun) -> Self {
        Pass { subscriptions, limit, begun, hits: 0, failure: None }
    }

    /// Calls everybody in one range, until somebody refuses or panics. What `hits` holds was found already.
    pub(super) fn call(&mut self, claim: Claim<'_>, part: &Part, hits: &mut Hits) {
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
    pub(super) fn finish(&mut self) {
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
