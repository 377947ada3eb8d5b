//! Walks: the calls of the list, each within a section of its own (clauses C4.5, C4.6 and C5).
//!
//! A start notes the number up to which it called; its end calls the same, less who left. Who refuses is noted
//! for the time of the walk as a bit a position, 1,024 on the stack at a time, further ones by recursion.

#![expect(unsafe_code, reason = "nodes are called through raw pointers")]

use core::ptr::NonNull;

use super::array::{Entries, List};
use super::node::{Callbacks, Flushed, Node, Young};
use crate::address::{Address, Range};
use crate::diagnostics::{self, Rule};
use crate::frame::{self, Frame, Kind, Link};
use crate::hazard::Claim;
use crate::invalidation::Invalidation;
use crate::platform::{self, Context, Payload};
use crate::space::{AddressSpaceRef, Pte, Space};
use crate::start::{Ending, Failure, Part, keep_first};
use crate::subscriptions::Subscriptions;

/// Positions that one frame of a start's walk notes refusals for.
const CHUNK: usize = 1024;

/// A call that walks the list, with its claim.
pub(crate) struct Call<'c> {
    pub(crate) space: &'c Space,
    pub(crate) subscriptions: &'c Subscriptions,
    pub(crate) context: Option<&'c Context>,
    pub(crate) section: Claim<'c>,
}

impl Call<'_> {
    /// Walks in the section, and gives its claim back with `give_back`. The first panic is kept for the caller.
    #[inline(always)]
    fn walk<R>(
        &self,
        visit: impl FnOnce(Entries<'_>, &mut Option<Payload>) -> R,
        give_back: impl FnOnce(),
    ) -> (R, Option<Payload>) {
        let list = &self.subscriptions.list;
        self.in_section(|| list.enter(self.section), |panic| visit(list.entries(), panic), give_back)
    }

    /// Calls back in the section that `enter` enters; as [`walk`](Self::walk).
    #[inline(always)]
    fn in_section<R>(
        &self,
        enter: impl FnOnce(),
        visit: impl FnOnce(&mut Option<Payload>) -> R,
        give_back: impl FnOnce(),
    ) -> (R, Option<Payload>) {
        let mut panic = None;
        let place = frame::Place { space: self.subscriptions.id, section: self.section, parts: &[] };
        let frame = Frame::new(&place, Kind::Walk);
        let link = frame.link(self.context);
        enter();
        let result = visit(&mut panic);
        (result, self.leave(panic, (&frame, link), give_back))
    }

    /// Leaves the section and the frame of a walk, and makes the exit that was left to it. Returns the first panic.
    pub(crate) fn leave(
        &self,
        mut panic: Option<Payload>,
        (frame, link): (&Frame, Link<'_>),
        give_back: impl FnOnce(),
    ) -> Option<Payload> {
        keep_first(&mut panic, self.subscriptions.leave_section(self.section));
        drop(link);
        give_back();
        if frame.is_exit_due() {
            // CONTRACT C8.3
            // SAFETY: the last user's drop left the exit to this call, whose caller is a holder.
            let exit = platform::catch(|| unsafe { Space::exit_and_let_go(NonNull::from(self.space)) });
            keep_first(&mut panic, exit.err());
        }
        panic
    }

    /// Walks, gives the claim back, and lets a panic go on behind that.
    fn ask<R>(&self, visit: impl FnOnce(Entries<'_>, &mut Option<Payload>) -> R) -> R {
        match self.walk(visit, || self.section.give_back()) {
            (_, Some(payload)) => platform::resume(payload),
            (answer, None) => answer,
        }
    }

    /// The list's part of an end; a panic is kept for the caller.
    #[inline(always)]
    pub(crate) fn end(
        &self,
        parts: &[Part],
        limit: u64,
        ending: Ending,
        give_back: impl FnOnce(),
    ) -> Option<Payload> {
        let visit = |entries: Entries<'_>, panic: &mut Option<Payload>| {
            parts.iter().for_each(|part| end_all(entries, &part.invalidation, limit, ending, panic));
        };
        self.walk(visit, give_back).1
    }

    pub(crate) fn invalidate_range(&self, range: Range) {
        let visit = |entries: Entries<'_>, panic: &mut Option<Payload>| {
            for node in newest_first(entries) {
                let callback = callbacks(node).invalidate_range;
                // SAFETY: the table is that of the node, which this section keeps readable.
                keep(panic, || unsafe { callback(node, range) });
            }
        };
        self.ask(visit);
    }

    pub(crate) fn change_pte(&self, address: Address, pte: Pte) {
        let visit = |entries: Entries<'_>, panic: &mut Option<Payload>| {
            for node in newest_first(entries) {
                let callback = callbacks(node).change_pte;
                // SAFETY: the table is that of the node, which this section keeps readable.
                keep(panic, || unsafe { callback(node, address, pte) });
            }
        };
        self.ask(visit);
    }

    /// Asks everybody, or until the first yes (clause C5.6).
    pub(crate) fn young(&self, question: Young) -> bool {
        let visit = |entries: Entries<'_>, panic: &mut Option<Payload>| {
            let mut young = false;
            for node in newest_first(entries) {
                let callback = callbacks(node).young;
                // SAFETY: the table is that of the node, which this section keeps readable.
                let answer = keep(panic, || unsafe { callback(node, question) });
                young |= answer.unwrap_or(false);
                if young && matches!(question, Young::Test(_)) {
                    break;
                }
            }
            young
        };
        self.ask(visit)
    }

    /// Releases everybody who was not released yet, newest first; a panic is kept for the caller.
    pub(crate) fn release_all(&self) -> Option<Payload> {
        let visit = |entries: Entries<'_>, panic: &mut Option<Payload>| {
            newest_first(entries).for_each(|node| release(node, panic));
        };
        self.walk(visit, || self.section.give_back()).1
    }

    /// Releases one node, unless somebody else does or did.
    pub(crate) fn release_one(&self, node: NonNull<Node>) -> Option<Payload> {
        // ORDERING: marked, then claimed (release): an exit that finds the node claimed (acquire) waits for this section.
        let mark = || self.subscriptions.list.mark(self.section);
        self.in_section(mark, |panic| release(node, panic), || self.section.give_back()).1
    }
}

/// Asks the list of a space.
pub(crate) fn ask<R>(space: &AddressSpaceRef, silent: R, ask: impl FnOnce(&Call<'_>) -> R) -> R {
    let space = space.space();
    let Some(subscriptions) = space.subscriptions().filter(|subscriptions| subscriptions.list.count() != 0)
    else {
        return silent;
    };
    platform::with_context(|context| {
        let section = subscriptions.book.claim(context);
        ask(&Call { space, subscriptions, context, section })
    })
}

/// Calls `release` if nobody has (clause C8.2).
fn release(node: NonNull<Node>, panic: &mut Option<Payload>) {
    // SAFETY: the caller's section, or its registration, keeps the node readable.
    let released = unsafe { node.as_ref() };
    if released.claim_release() {
        // SAFETY: the table is that of the node.
        keep(panic, || unsafe { (released.callbacks.release)(node) });
    }
}

/// Calls what an end owes each node, newest first; the first panic is kept, and the rest goes on.
fn end_all(
    entries: Entries<'_>,
    invalidation: &Invalidation,
    limit: u64,
    ending: Ending,
    panic: &mut Option<Payload>,
) {
    keep_first(panic, EndWalk::new(entries, invalidation, limit, ending).call_all());
}

/// The walk of an end.
pub(crate) struct EndWalk<'w> {
    entries: Entries<'w>,
    invalidation: &'w Invalidation,
    limit: u64,
    ending: Ending,
    /// How many positions are left.
    left: usize,
    flushed: Flushed,
}

impl<'w> EndWalk<'w> {
    /// The walk of an end in the section that this enters, behind a start that was heard up to `limit`.
    #[inline(always)]
    pub(crate) fn enter(
        list: &'w List,
        section: Claim<'_>,
        invalidation: &'w Invalidation,
        limit: u64,
        ending: Ending,
    ) -> Self {
        list.enter(section);
        Self::new(list.entries(), invalidation, limit, ending)
    }

    #[inline(always)]
    fn new(entries: Entries<'w>, invalidation: &'w Invalidation, limit: u64, ending: Ending) -> Self {
        EndWalk { entries, invalidation, limit, ending, left: entries.len(), flushed: Flushed::default() }
    }

    /// Calls what is owed to each node, newest first; returns the first panic, behind the rest.
    #[inline(always)]
    pub(crate) fn call_all(&mut self) -> Option<Payload> {
        match platform::catch(|| self.go_on()) {
            Ok(()) => None,
            Err(payload) => self.go_on_behind(payload),
        }
    }

    #[cold]
    fn go_on_behind(&mut self, first: Payload) -> Option<Payload> {
        let mut panic = Some(first);
        keep(&mut panic, || self.end_behind_flush());
        while keep(&mut panic, || self.go_on()).is_none() {
            keep(&mut panic, || self.end_behind_flush());
        }
        panic
    }

    /// Goes on to the last; a panic in between passes, and what is owed behind it stays.
    #[inline]
    fn go_on(&mut self) {
        for place in (0..self.left).rev() {
            self.left = place;
            if let Some(node) = self.entries.get(place) {
                self.tell(node);
            }
        }
    }

    #[inline(always)]
    fn tell(&self, node: NonNull<Node>) {
        let (callbacks, what) = (callbacks(node), self.invalidation);
        match self.ending {
            // SAFETY: the table is that of the node, which the section of this walk keeps readable.
            Ending::Whole if self.has_started(node) => unsafe {
                self.flushed.begin(node);
                (callbacks.flush_and_end)(node, what, &self.flushed);
            },
            // SAFETY: as above.
            Ending::Whole => unsafe { (callbacks.invalidate_range)(node, what.range()) },
            // SAFETY: as above.
            _ if self.has_started(node) => unsafe { (callbacks.end)(node, what) },
            _ => {}
        }
    }

    /// The end that is owed to the node whose flush panicked: that at which the walk stopped.
    #[cold]
    fn end_behind_flush(&self) {
        if let Some(node) = self.flushed.take() {
            // SAFETY: the table is that of the node, which the section of this walk keeps readable, on the list or off.
            unsafe { (callbacks(node).end)(node, self.invalidation) };
        }
    }

    /// CONTRACT C4.6: no end without its start.
    #[inline(always)]
    fn has_started(&self, node: NonNull<Node>) -> bool {
        // SAFETY: `entries` yields nodes that the walk's section keeps readable.
        unsafe { node.as_ref() }.is_registered_by(self.limit)
    }
}

/// The table of a node that a walk has come to.
fn callbacks(node: NonNull<Node>) -> &'static Callbacks {
    // SAFETY: the section of the walk keeps what it has come to readable.
    unsafe { node.as_ref() }.callbacks
}

/// The nodes of a walk, each looked up when its turn comes.
fn newest_first(entries: Entries<'_>) -> impl Iterator<Item = NonNull<Node>> {
    (0..entries.len()).rev().filter_map(move |place| entries.get(place))
}

/// Calls back; keeps the first panic of a walk (clause C7.2).
#[inline]
fn keep<R>(panic: &mut Option<Payload>, callback: impl FnOnce() -> R) -> Option<R> {
    match platform::catch(callback) {
        Ok(result) => Some(result),
        Err(payload) => {
            panic.get_or_insert(payload);
            None
        }
    }
}

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
        if let Err(stop) = walk.call_all() {
            walk.go_on_behind(stop, over, failure);
        }
        if failure.is_some() {
            let (mut panic, how) = (None, Ending::OnlyEnd);
            let each = |part: &Part| end_all(entries, &part.invalidation, limit, how, &mut panic);
            parts[..heard].iter().for_each(each);
            if let (Some(payload), Some(Failure::Refused)) = (panic, &failure) {
                *failure = Some(Failure::Panicked(payload));
            }
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

    /// Calls all starts, newest first, as long as each accepts.
    #[inline(always)]
    pub(crate) fn call_all(&self) -> Result<(), Stop> {
        let mut left = self.entries.len();
        let result = platform::catch(|| self.call_while_accepted(&mut left));
        // A panic leaves something, too.
        if left == 0 { Ok(()) } else { Err(Stop { left, panic: result.err() }) }
    }

    #[inline(always)]
    fn call_while_accepted(&self, left: &mut usize) {
        for place in (0..*left).rev() {
            let Some(node) = self.node(place) else { continue };
            *left = place + 1;
            // SAFETY: the table is that of the node.
            if unsafe { (callbacks(node).start)(node, self.invalidation) }.is_err() {
                return;
            }
        }
        *left = 0;
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
        match panic {
            Some(payload) => {
                chunk.refuse();
                *failure = Some(Failure::Panicked(payload));
            }
            None => _ = self.accept_refusal(&mut chunk, failure),
        }
        self.call_chunk(&mut chunk, over, failure);
    }

    /// Calls what is left of a chunk; behind the last, on a failure, the ends.
    fn call_chunk(&self, chunk: &mut Chunk<'_>, over: &mut dyn FnMut(), failure: &mut Option<Failure>) {
        let end = chunk.top.saturating_sub(CHUNK);
        if !matches!(failure, Some(Failure::Panicked(_))) {
            if let Err(payload) = platform::catch(|| self.call_down_to(end, chunk, failure)) {
                chunk.refuse();
                *failure = Some(Failure::Panicked(payload));
            }
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
        self.entries.get(place).filter(|node| {
            // SAFETY: the section of this walk keeps what is on the list readable.
            unsafe { node.as_ref() }.is_registered_by(self.limit)
        })
    }

    /// Calls the starts from the bottom of the chunk down to `end`. One that panics is left at the bottom.
    fn call_down_to(&self, end: usize, chunk: &mut Chunk<'_>, failure: &mut Option<Failure>) {
        for place in (end..chunk.bottom).rev() {
            chunk.bottom = place;
            let Some(node) = self.node(place) else { continue };
            // SAFETY: the table is that of the node.
            let accepted = unsafe { (callbacks(node).start)(node, self.invalidation) }.is_ok();
            if !accepted && !self.accept_refusal(chunk, failure) {
                return;
            }
        }
    }

    /// Takes the refusal of the one at the bottom for what it is; false if the walk is to stop.
    fn accept_refusal(&self, chunk: &mut Chunk<'_>, failure: &mut Option<Failure>) -> bool {
        if !self.invalidation.is_blockable() {
            chunk.refuse();
            failure.get_or_insert(Failure::Refused);
            return true;
        }
        // CONTRACT C5.2: a bug, taken as accepted.
        // SAFETY: the section of this walk keeps what is on the list readable.
        let label = self.entries.get(chunk.bottom).and_then(|node| unsafe { node.as_ref() }.label());
        let report = || diagnostics::report(Rule::RefusedBlockable, "invalidate_range_start", label);
        match platform::catch(report) {
            Ok(()) => true,
            Err(payload) => {
                *failure = Some(Failure::Panicked(payload));
                false
            }
        }
    }

    /// Calls the ends of those who accepted, newest first.
    fn ends(&self, chunk: &Chunk<'_>, failure: &mut Option<Failure>) {
        if let Some(outer) = chunk.outer {
            self.ends(outer, failure);
        }
        for place in (chunk.bottom..chunk.top).rev().filter(|place| !chunk.has_refused(*place)) {
            let Some(node) = self.node(place) else { continue };
            let callback = callbacks(node).end;
            // SAFETY: the table is that of the node, which this section keeps readable.
            let result = platform::catch(|| unsafe { callback(node, self.invalidation) });
            if let (Err(payload), Some(Failure::Refused)) = (result, &failure) {
                *failure = Some(Failure::Panicked(payload));
            }
        }
    }
}
