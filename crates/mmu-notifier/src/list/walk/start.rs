//! The walk of a start: calls as long as each accepts; a failure undoes what was accepted (clause C5).
//!
//! Who refuses is noted for the time of the walk as a bit a position, 1,024 on the stack at a time, further ones by
//! recursion.

#![expect(unsafe_code, reason = "nodes are called through raw pointers")]

use core::mem::ManuallyDrop;
use core::ptr::NonNull;

use super::super::array::{Entries, List};
use super::super::node::Node;
use super::end::end_all;
use super::{callbacks, is_registered_by};
use crate::diagnostics::{self, Rule};
use crate::hazard::Claim;
use crate::invalidation::Invalidation;
use crate::platform::{self, Payload};
use crate::start::{Ending, Failure, Part};
use crate::subscriptions::Subscriptions;

/// Positions that one frame of a start's walk notes refusals for.
const CHUNK: usize = 1024;

/// The list's part of a start, in a section that the caller leaves: returns the number up to which it was heard.
///
/// On a refusal or a panic `over` is called, then those who accepted get their end, in the same section.
#[inline(always)]
pub(crate) fn start(
    subscriptions: &Subscriptions,
    section: Claim<'_>,
    parts: &[Part],
    over: &mut dyn FnMut(),
    failure: &mut Option<Failure>,
) -> u64 {
    subscriptions.list.enter(section);
    // CONTRACT C4.6: who registers from here on hears neither this start nor its end.
    let limit = subscriptions.list.limit();
    start_parts(subscriptions.list.entries(), limit, parts, over, failure);
    limit
}

/// Calls the starts of one range after the other; a failure undoes all that were heard.
#[inline(always)]
fn start_parts(
    entries: Entries<'_>,
    limit: u64,
    parts: &[Part],
    over: &mut dyn FnMut(),
    failure: &mut Option<Failure>,
) {
    for (heard, part) in parts.iter().enumerate() {
        let walk = StartWalk { entries, limit, invalidation: &part.invalidation };
        if let Some(stop) = walk.call_all() {
            walk.go_on_behind(stop, over, failure);
        }
        if failure.is_some() {
            let (mut panic, how) = (None, Ending::OnlyEnd);
            let each = |part: &Part| end_all(entries, &part.invalidation, limit, how, &mut panic);
            parts[..heard].iter().for_each(each);
            Failure::keep_first(failure, panic);
            return;
        }
    }
}

/// Where a walk met the first that did not accept: the position behind it, and its panic, if it was one.
pub(crate) struct Stop {
    left: usize,
    panic: Option<Payload>,
}

/// The walk of a start.
#[derive(Clone, Copy)]
pub(crate) struct StartWalk<'w> {
    entries: Entries<'w>,
    pub(crate) limit: u64,
    invalidation: &'w Invalidation,
}

/// The positions from `top` (exclusive) down to `bottom` (inclusive), and who refused there.
struct Chunk<'o> {
    top: usize,
    bottom: usize,
    /// None: nobody.
    refused: Option<[u64; CHUNK / 64]>,
    outer: Option<&'o Chunk<'o>>,
}

impl Chunk<'_> {
    /// Notes that the one at the bottom gets no end.
    #[cold]
    fn refuse(&mut self) {
        let bit = self.top - 1 - self.bottom;
        self.refused.get_or_insert([0; CHUNK / 64])[bit / 64] |= 1 << (bit % 64);
    }

    fn has_refused(&self, place: usize) -> bool {
        let bit = self.top - 1 - place;
        self.refused.is_some_and(|bits| bits[bit / 64] >> (bit % 64) & 1 == 1)
    }
}

impl<'w> StartWalk<'w> {
    /// The walk of a start in the section that this enters.
    #[inline(always)]
    pub(crate) fn enter(list: &'w List, section: Claim<'_>, invalidation: &'w Invalidation) -> Self {
        list.enter(section);
        // CONTRACT C4.6: who registers from here on hears neither this start nor its end.
        let limit = list.limit();
        StartWalk { entries: list.entries(), limit, invalidation }
    }

    /// Calls all starts, newest first, as long as each accepts; none: all have.
    #[inline(always)]
    pub(crate) fn call_all(&self) -> Option<Stop> {
        // Empty unless one refuses; its drop would have to find that out.
        let mut panic = ManuallyDrop::new(None);
        for place in (0..self.entries.len()).rev() {
            let Some(node) = self.node(place) else { continue };
            // SAFETY: the table is that of the node.
            if unsafe { (callbacks(node).start)(node, self.invalidation, &mut panic) }.is_err() {
                return Some(Stop { left: place + 1, panic: ManuallyDrop::into_inner(panic) });
            }
        }
        None
    }

    /// Goes on behind the first that did not accept; behind the last, on a failure, `over` is called, and the ends.
    #[cold]
    pub(crate) fn go_on_behind(
        &self,
        Stop { left, panic }: Stop,
        over: &mut dyn FnMut(),
        failure: &mut Option<Failure>,
    ) {
        let above = Chunk { top: self.entries.len(), bottom: left, refused: None, outer: None };
        let mut chunk = Chunk { top: left, bottom: left - 1, refused: None, outer: Some(&above) };
        self.accept_refusal(&mut chunk, panic, failure);
        self.call_chunk(&mut chunk, over, failure);
    }

    /// Calls what is left of a chunk; behind the last, on a failure, the ends.
    fn call_chunk(&self, chunk: &mut Chunk<'_>, over: &mut dyn FnMut(), failure: &mut Option<Failure>) {
        let end = chunk.top.saturating_sub(CHUNK);
        if !matches!(failure, Some(Failure::Panicked(_))) {
            self.call_down_to(end, chunk, failure);
        }
        self.go_on(end, chunk, over, failure);
    }

    /// Goes on below a chunk, or undoes it.
    #[inline(never)]
    fn go_on(&self, end: usize, chunk: &Chunk<'_>, over: &mut dyn FnMut(), failure: &mut Option<Failure>) {
        if end > 0 && !matches!(failure, Some(Failure::Panicked(_))) {
            // Another stack frame notes the next positions.
            let mut below = Chunk { top: end, bottom: end, refused: None, outer: Some(chunk) };
            return self.call_chunk(&mut below, over, failure);
        }
        if failure.is_some() {
            over();
            self.ends(chunk, failure);
        }
    }

    #[inline]
    fn node(&self, place: usize) -> Option<NonNull<Node>> {
        self.entries.at(place).filter(|node| is_registered_by(*node, self.limit))
    }

    /// Calls the starts from the bottom of the chunk down to `end`. One that panics is left at the bottom.
    fn call_down_to(&self, end: usize, chunk: &mut Chunk<'_>, failure: &mut Option<Failure>) {
        for place in (end..chunk.bottom).rev() {
            chunk.bottom = place;
            let Some(node) = self.node(place) else { continue };
            let mut panic = None;
            // SAFETY: the table is that of the node.
            let accepted = unsafe { (callbacks(node).start)(node, self.invalidation, &mut panic) }.is_ok();
            if !accepted && !self.accept_refusal(chunk, panic, failure) {
                return;
            }
        }
    }

    /// Takes the refusal of the one at the bottom, or its panic, for what it is; false if the walk is to stop.
    fn accept_refusal(
        &self,
        chunk: &mut Chunk<'_>,
        mut panic: Option<Payload>,
        failure: &mut Option<Failure>,
    ) -> bool {
        let accepts = panic.is_none() && self.invalidation.is_blockable();
        if !accepts {
            chunk.refuse();
            failure.get_or_insert(Failure::Refused);
        } else {
            // CONTRACT C5.2: a bug, taken as accepted.
            // SAFETY: the section of this walk keeps readable what stands in its array.
            let label = self.entries.at(chunk.bottom).and_then(|node| unsafe { node.as_ref() }.label());
            let report = || diagnostics::report(Rule::RefusedBlockable, "invalidate_range_start", label);
            panic = platform::catch(report).err();
        }
        let has_panicked = panic.is_some();
        Failure::keep_first(failure, panic);
        !has_panicked
    }

    /// Calls the ends of those who accepted, newest first.
    fn ends(&self, chunk: &Chunk<'_>, failure: &mut Option<Failure>) {
        if let Some(outer) = chunk.outer {
            self.ends(outer, failure);
        }
        for place in (chunk.bottom..chunk.top).rev().filter(|place| !chunk.has_refused(*place)) {
            let Some(node) = self.node(place) else { continue };
            let mut panic = None;
            // SAFETY: the table is that of the node, which this section keeps readable.
            unsafe { (callbacks(node).end)(node, self.invalidation, &mut panic) };
            Failure::keep_first(failure, panic);
        }
    }
}
