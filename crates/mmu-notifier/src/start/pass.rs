//! The first and the second pass of a start over the intervals that it hits (clause C3.8).

#![expect(unsafe_code, reason = "nodes are called through raw pointers")]

use core::ops::Range;
use core::ptr::NonNull;

use super::{Failure, Part};
use crate::begun::Begun;
use crate::diagnostics::{self, Rule};
use crate::frame::Frame;
use crate::index::{BATCH, Batch, Found};
use crate::interval::{Answer, Node, Sequence, SequenceBy};
use crate::intrusive::Interval;
use crate::invalidation::Invalidation;
use crate::platform::{self, Payload};
use crate::subscriptions::Subscriptions;

/// Where in a batch the hits of each range end.
type Ends = [u8; BATCH];

const _: () = assert!(BATCH <= u8::MAX as usize);

/// How far the first passes over some hits came.
enum Came {
    Through,
    Refused,
    /// What was found behind this one (start and order) may be gone.
    To((u64, u64)),
}

/// The first and second passes of one start over the intervals that it hits.
pub(super) struct Pass<'p> {
    subscriptions: &'p Subscriptions,
    /// The highest order that is called.
    limit: u64,
    /// What was found so far of one range, and whether that is all; or what some ranges together hit.
    batch: &'p mut Batch,
    complete: bool,
    /// How many callbacks were called, over all ranges.
    pub(super) called: u64,
    begun: Begun,
    answers: Answers,
}

/// What the callbacks of a start have answered, beside that they have begun.
struct Answers {
    is_refused: bool,
    /// The first panic.
    panic: Option<Payload>,
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
        let answers = Answers { is_refused: false, panic: None };
        Pass { subscriptions, limit, batch, complete, called: 0, begun: Begun::new(), answers }
    }

    /// Goes on behind what the only one that is hit by one range answered, none if it was not called, and its panic.
    pub(super) fn begin_behind(
        &mut self,
        node: NonNull<Node>,
        part: &Part,
        (answer, panic): (Option<Answer>, Option<Payload>),
    ) {
        self.called = u64::from(answer.is_some());
        self.answers.panic = panic;
        if let Some(answer) = answer {
            self.answers.accept(answer, node, part, &mut self.begun);
        }
    }

    /// Makes the first passes over several ranges, until somebody refuses or panics.
    pub(super) fn begin_all(&mut self, parts: &[Part], frame: &Frame) {
        let mut left = parts;
        while let [first, ..] = left {
            let mut ends = [0; BATCH];
            let ends = self.search_ahead(left, first, &mut ends);
            // One that hits more than are collected at a time goes on by itself.
            let called = if ends.is_empty() {
                self.begin_one(first, frame).then_some(1)
            } else {
                self.call_ahead(left, ends, frame)
            };
            let Some(called) = called else { return };
            left = &left[called..];
        }
    }

    /// Says whether there is nothing more to do: no second passes, nothing to undo.
    #[inline(always)]
    pub(super) fn is_over(&self) -> bool {
        self.answers.are_good() && self.begun.is_empty()
    }

    /// Takes what the start failed by, if it did.
    pub(super) fn failure(&mut self) -> Option<Failure> {
        let panic = self.answers.panic.take().map(Failure::Panicked);
        panic.or(self.answers.is_refused.then_some(Failure::Refused))
    }

    /// Makes the second passes, if any are due, and counts the hits.
    pub(super) fn finish_all(&mut self, parts: &[Part]) {
        if self.begun.is_due() {
            self.finish(parts);
        }
        if let Some(claim) = parts.first().and_then(|part| part.claim(self.subscriptions)) {
            claim.count(self.called);
        }
    }

    /// Looks for the hits of as many ranges as there is room for, all under the pin of the first: one fence. Gives where
    /// in the batch those of each end. If it is none, the batch holds some of the first.
    fn search_ahead<'e>(&mut self, parts: &[Part], first: &Part, ends: &'e mut Ends) -> &'e [u8] {
        self.batch.clear();
        let claim = first.claim(self.subscriptions).expect("a range that is announced has a claim");
        claim.pin(self.subscriptions.index.epoch());
        let searched = parts.iter().zip(&mut *ends).map_while(|(part, end)| {
            let complete = self.search(part);
            *end = self.batch.len() as u8;
            complete.then_some(())
        });
        let searched = searched.count();
        claim.unpin();
        &ends[..searched]
    }

    /// Adds the hits of one range to those of others; false if there is no room for all.
    #[inline(always)]
    fn search(&mut self, part: &Part) -> bool {
        let (index, bounds) = (&self.subscriptions.index, part.invalidation.range().bounds());
        // SAFETY: a pass is made where the index is open.
        let look = unsafe { index.look(bounds) };
        self.complete = match look.found() {
            Found::Nobody => true,
            Found::One(node) => self.batch.push(node.as_ptr()),
            Found::Several(_) => index.collect(look, bounds, self.batch),
        };
        self.complete
    }

    /// Calls those who were found in some ranges; gives how many ranges are done, none if somebody refused.
    fn call_ahead(&mut self, parts: &[Part], ends: &[u8], frame: &Frame) -> Option<usize> {
        let mut begin = 0;
        for (done, (part, &end)) in parts.iter().zip(ends).enumerate() {
            match self.call_some(part, begin..usize::from(end), frame) {
                Came::Through => begin = usize::from(end),
                Came::Refused => return None,
                Came::To(after) => {
                    self.search_on(part, Some(after));
                    return self.begin_one(part, frame).then_some(done + 1);
                }
            }
        }
        Some(ends.len())
    }

    /// Makes the first passes over one range; false if somebody refuses or panics. (Where nothing is optimised it has a
    /// frame of its own, which is gone before the list is walked: the stack may be small.)
    #[cfg_attr(debug_assertions, inline)]
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(super) fn begin_one(&mut self, part: &Part, frame: &Frame) -> bool {
        loop {
            // Before the callbacks run, which may free what they remove.
            let last = if self.complete { None } else { self.batch.as_slice().last() };
            let after = last.map(|&last| {
                // SAFETY: found by this start, which is in phase calling (I6).
                let last = unsafe { &*last };
                (last.bounds().0, last.order())
            });
            let after = match self.call_some(part, 0..self.batch.len(), frame) {
                Came::Through if self.complete => return true,
                Came::Through => after,
                Came::Refused => return false,
                Came::To(after) => Some(after),
            };
            self.search_on(part, after);
        }
    }

    /// Looks for the next hits, behind those that were called.
    #[inline(never)]
    fn search_on(&mut self, part: &Part, after: Option<(u64, u64)>) {
        let Some(claim) = part.claim(self.subscriptions) else { return self.complete = true };
        claim.pin(self.subscriptions.index.epoch());
        self.batch.clear();
        let bounds = part.invalidation.range().bounds();
        // SAFETY: as in `search`.
        self.complete = unsafe { self.subscriptions.index.search(bounds, after, self.batch) };
        claim.unpin();
    }

    #[inline(always)]
    fn call_some(&mut self, part: &Part, hits: Range<usize>, frame: &Frame) -> Came {
        // Two loops: most invalidations have no owner, so that there is nothing to compare for each that is hit.
        match part.owner() {
            0 => self.call_each(part, hits, 0, frame),
            owner => self.call_each(part, hits, owner, frame),
        }
    }

    #[inline(always)]
    fn call_each(&mut self, part: &Part, hits: Range<usize>, owner: u64, frame: &Frame) -> Came {
        let limit = self.limit;
        for &node in &self.batch.as_slice()[hits] {
            // SAFETY: what a search finds is not null.
            let node = unsafe { NonNull::new_unchecked(node.cast_mut()) };
            frame.set_hit(node);
            let answer = call(node, part, (owner, limit), || self.called += 1, &mut self.answers.panic);
            if !matches!(answer, None | Some(Answer::Done))
                && !self.answers.accept_from(answer, node, part, (frame, &mut self.begun))
            {
                return Came::Refused;
            }
            if let Some(reached) = frame.reached() {
                return Came::To(reached);
            }
        }
        Came::Through
    }

    /// Makes the second passes, in the order of the first ones (clause C3.8). The first panic goes on after the rest.
    #[inline(never)]
    fn finish(&mut self, parts: &[Part]) {
        while let Some((node, invalidation)) = self.begun.next(parts) {
            // SAFETY: it is that of a range of this start, which outlives the pass.
            finish(node, unsafe { &*invalidation }, &mut self.answers.panic);
        }
    }
}

impl Answers {
    fn are_good(&self) -> bool {
        self.panic.is_none() && !self.is_refused
    }

    /// Goes on behind an answer other than done, in the first pass of this frame; false if the pass is over.
    #[inline(never)]
    fn accept_from(
        &mut self,
        answer: Option<Answer>,
        node: NonNull<Node>,
        part: &Part,
        (frame, begun): (&Frame, &mut Begun),
    ) -> bool {
        if answer == Some(Answer::Begun) {
            frame.set_begun();
        }
        answer.is_none_or(|answer| self.accept(answer, node, part, begun))
    }

    /// Goes on behind an answer; false if it is a refusal, or stands for a panic.
    fn accept(&mut self, answer: Answer, node: NonNull<Node>, part: &Part, begun: &mut Begun) -> bool {
        match answer {
            Answer::Done => {}
            Answer::Begun if begun.add(node, part) => {}
            Answer::Begun => finish(node, &part.invalidation, &mut self.panic),
            Answer::Refused if self.panic.is_some() => {}
            Answer::Refused if !part.invalidation.is_blockable() => self.is_refused = true,
            // CONTRACT C5.2: a bug, taken as accepted.
            Answer::Refused => {
                // SAFETY: found by this start, which is in phase calling (I6).
                let label = unsafe { node.as_ref() }.label();
                let report = || diagnostics::report(Rule::RefusedBlockable, "invalidate_start", label);
                self.panic = platform::catch(report).err();
            }
        }
        self.are_good()
    }
}

/// Calls a node that a start of this limit hits, behind `count`; none if it is not to be called.
#[inline(always)]
pub(super) fn call(
    node: NonNull<Node>,
    part: &Part,
    (owner, limit): (u64, u64),
    count: impl FnOnce(),
    panic: &mut Option<Payload>,
) -> Option<Answer> {
    // SAFETY: found by this start, which is in phase calling (I6).
    let hit = unsafe { node.as_ref() };
    let callbacks = hit.callbacks_for(limit)?;
    let sequence = Sequence(part.identity());
    if owner != 0 {
        if callbacks.sequence == SequenceBy::Direct {
            count();
            // SAFETY: the table says that there is a direct callback; this start found the node.
            return Some(unsafe { Interval::call_directly(node, owner, sequence) });
        }
        // CONTRACT C3.12: an invalidation of its own leaves its tokens fresh.
        if owner == callbacks.owner() {
            return None;
        }
    }
    if callbacks.sequence == SequenceBy::Start {
        hit.hit(sequence.0);
    }
    count();
    // SAFETY: the table is that of the node, which this start found.
    Some(unsafe { (callbacks.invalidate)(node, &part.invalidation, sequence, panic) })
}

/// Makes one second pass, unless a remove took it back.
fn finish(node: NonNull<Node>, invalidation: &Invalidation, panic: &mut Option<Payload>) {
    // SAFETY: the node began in this start, which is still in phase calling (I6).
    let Some(callbacks) = (unsafe { node.as_ref() }).second_pass() else { return };
    // SAFETY: the table is that of the node, which answered that it has begun.
    unsafe { (callbacks.finish)(node, invalidation, panic) };
}
