//! Start and end: the calls of the primary MMU, on the interval side and then the list (clause C5).
//!
//! # Protocol
//! *Start*: claim a hazard; publish the range, phase calling; search; call what was found up to the limit of
//! that moment; second passes; phase active, **before** the list is walked; the list. An interval that refuses
//! or panics: second passes, idle, over. The list refuses: idle first, then the ends that are owed.
//! *End*: idle, which wakes readers; then the list; then the claim is given back.
//! Nothing is written per subscription but the sequence of those that are hit: the published range is the mark.
//!
//! One range at a time has a way of its own as long as it can ([`one`]); what is here serves any number.

#![expect(unsafe_code, reason = "nodes are called through raw pointers")]

mod end;
mod listed;
mod one;
mod outcome;
mod part;
mod pass;

use core::mem::ManuallyDrop;
use core::ptr::NonNull;
use core::slice;

pub(crate) use end::{Ending, end, end_here, end_left, end_one, end_shortly, end_told, end_unwatched};
pub(crate) use one::{start_here, start_one};
pub use outcome::StartError;
pub(crate) use outcome::{Failure, Outcome};
pub(crate) use part::{Held, Left, Part, Started};
use pass::Pass;

use crate::diagnostics;
use crate::frame::{Frame, Link};
use crate::hazard::Claim;
use crate::hung::Post;
use crate::index::Batch;
use crate::invalidation::Invalidation;
use crate::list::walk;
use crate::platform::{self, Context, Payload, keep_first};
use crate::space::Space;
use crate::subscriptions::Subscriptions;
use crate::sync::full_fence;
use crate::trace;

/// Starts an invalidation of several ranges; the caller ends it with [`end()`] unless it failed.
///
/// # Context
/// As [`start_one`].
pub(crate) fn start(space: &Space, parts: &mut [Part]) -> Result<Started, StartError> {
    let Some(subscriptions) = space.subscriptions() else { return Ok(Started::new()) };
    platform::with_context(|context| {
        parts.iter().for_each(|part| diagnostics::start(subscriptions, part.invalidation.range()));
        Calls { subscriptions, context }.start_several(parts)
    })
}

/// What a start leaves to be done when it is out of its frame: as long as that is linked, callbacks may look at the
/// parts, which are therefore shared.
struct Conclusion {
    /// Empty in the end; its drop would have to find that out.
    outcome: ManuallyDrop<Outcome>,
    /// How many callbacks of intervals were called.
    called: u64,
    /// Up to which number the list has heard of it.
    list_limit: u64,
    exit_due: bool,
}

/// A start under way.
struct Calls<'c> {
    subscriptions: &'c Subscriptions,
    context: Option<&'c Context>,
}

impl<'c> Calls<'c> {
    /// Those of a start that is under way on this thread.
    fn of(subscriptions: &'c Subscriptions) -> Self {
        // SAFETY: it is used in this call alone.
        let context = unsafe { platform::context() };
        Calls { subscriptions, context }
    }

    /// Any number of ranges: all are published before the one fence, and leave phase calling together.
    #[inline(never)]
    fn start_several(&self, parts: &mut [Part]) -> Result<Started, StartError> {
        if parts.is_empty() {
            return Ok(Started::unheard());
        }
        if !self.subscriptions.index.is_open() {
            if !self.subscriptions.list.is_heard() {
                trace::started(self.subscriptions, parts, 0);
                return Ok(Started::unheard());
            }
            let section = self.subscriptions.book.claim(self.context);
            return self.run(parts, section, None);
        }
        for part in &mut *parts {
            part.announce(self.subscriptions, self.context);
        }
        // ORDERING: publication of all, F, limit and searches.
        full_fence();
        let mut batch = Batch::new();
        let limit = self.subscriptions.index.limit();
        let mut pass = Pass::new(self.subscriptions, limit, &mut batch, false);
        let claim = parts.first().and_then(|part| part.claim(self.subscriptions));
        let section = claim.expect("a range that is announced has a claim");
        self.run(parts, section, Some(&mut pass))
    }

    /// Calls the intervals that are hit, if that side has begun, and the list. The walk of the list is a section of
    /// the first range's hazard; without an interval side, of one that was claimed for it and is given back here.
    #[inline(always)]
    fn run(
        &self,
        parts: &mut [Part],
        section: Claim<'_>,
        mut pass: Option<&mut Pass<'_>>,
    ) -> Result<Started, StartError> {
        let mut conclusion = {
            let parts = &*parts;
            let _span = trace::calling(self.subscriptions, parts);
            let frame = Frame::of_intervals(self.subscriptions.id, parts);
            let link = frame.link(self.context);
            if let Some(pass) = &mut pass {
                pass.begin_all(parts, &frame);
            }
            self.go_on(parts, section, pass, (&frame, link))
        };
        self.conclude(parts, &mut conclusion)
    }

    /// Goes on behind the first passes.
    #[inline(always)]
    fn go_on(
        &self,
        parts: &[Part],
        section: Claim<'_>,
        mut pass: Option<&mut Pass<'_>>,
        (frame, link): (&Frame, Link<'_>),
    ) -> Conclusion {
        let mut outcome = ManuallyDrop::new(Outcome::default());
        let list_limit = self.call(frame, section, parts, pass.as_deref_mut(), &mut outcome);
        drop(link);
        if pass.is_none() {
            section.give_back();
        }
        let called = pass.map_or(0, |pass| pass.called);
        Conclusion { outcome, called, list_limit, exit_due: frame.is_exit_due() }
    }

    /// Makes the second passes, then calls the list. Gives the limit up to which the list has heard of the start.
    #[inline(always)]
    fn call(
        &self,
        frame: &Frame,
        section: Claim<'_>,
        parts: &[Part],
        pass: Option<&mut Pass<'_>>,
        outcome: &mut Outcome,
    ) -> u64 {
        let begun = pass.is_some();
        if let Some(pass) = pass {
            pass.finish_all(parts);
            frame.end_passes();
            outcome.failure = pass.failure();
            if outcome.failure.is_some() {
                self.each(parts, &mut outcome.late, Claim::abandon);
                return 0;
            }
            // Then the invalidation is active.
            self.each(parts, &mut outcome.late, Claim::activate);
        }
        if self.subscriptions.list.count() == 0 {
            return 0;
        }
        frame.walk(section);
        // What is published may be over before the walk is.
        section.keep();
        let Outcome { failure, late } = outcome;
        let mut over = || {
            // CONTRACT C5.3: the interval side is over before the ends of those who accepted.
            if begun {
                self.each(parts, late, Claim::retire);
            }
        };
        let limit = walk::start(self.subscriptions, section, parts, &mut over, failure);
        keep_first(late, self.subscriptions.leave_section(section));
        limit
    }

    /// Changes the phase of every part, and tells those who wait for it.
    #[inline(always)]
    fn each(
        &self,
        parts: &[Part],
        late: &mut Option<Payload>,
        change: impl Fn(Claim<'c>, u64) -> Option<&'c Post>,
    ) {
        for part in parts {
            if let Some(claim) = part.claim(self.subscriptions) {
                keep_first(late, self.subscriptions.ring(change(claim, part.identity())));
            }
        }
    }

    /// Turns a conclusion into what the caller gets.
    #[inline]
    fn conclude(&self, parts: &mut [Part], conclusion: &mut Conclusion) -> Result<Started, StartError> {
        let Conclusion { outcome, called, list_limit, exit_due } = conclusion;
        let started = Started { list_limit: *list_limit, ..Started::unheard() };
        if let (Outcome { failure: None, late: None }, false) = (&**outcome, *exit_due) {
            trace::started(self.subscriptions, parts, *called);
            return Ok(started);
        }
        self.conclude_roughly(parts, started, *called, core::mem::take(&mut **outcome), *exit_due)
    }

    /// Runs an exit that was left to this call, and undoes a start that failed.
    #[cold]
    fn conclude_roughly(
        &self,
        parts: &mut [Part],
        started: Started,
        called: u64,
        outcome: Outcome,
        exit_due: bool,
    ) -> Result<Started, StartError> {
        let Outcome { failure, mut late } = outcome;
        if failure.is_some() {
            self.subscriptions.count_refusal();
            parts.iter().for_each(|part| part.give_back(self.subscriptions));
        }
        if exit_due {
            // CONTRACT C8.3
            // SAFETY: the last user's drop left the exit to this call, whose caller is a holder.
            let exit = platform::catch(|| unsafe {
                Space::exit_and_let_go(NonNull::from(self.subscriptions.space()))
            });
            keep_first(&mut late, exit.err());
            if started.forks != crate::fork::count() {
                // CONTRACT C7.3: a fork in the exit did not find this call in a frame.
                parts.iter_mut().for_each(Part::forget_crowd);
            }
        }
        match (failure, late) {
            (None, None) => {
                trace::started(self.subscriptions, parts, called);
                Ok(started)
            }
            (None, Some(payload)) => {
                // The caller gets no guard, so what was begun ends here.
                _ = platform::catch(|| end(self.subscriptions.space(), &started, parts, Ending::Whole))
                    .map_err(platform::discard);
                platform::resume(payload)
            }
            (Some(Failure::Refused), None) => {
                trace::refused(self.subscriptions, parts);
                Err(StartError::WouldBlock)
            }
            (Some(Failure::Panicked(payload)), late) => {
                late.into_iter().for_each(platform::discard);
                platform::resume(payload)
            }
            (Some(Failure::Refused), Some(payload)) => platform::resume(payload),
        }
    }
}

/// The interval side of an exit: start and end of everything (clause C8.1).
pub(crate) fn release(subscriptions: &Subscriptions, invalidation: &Invalidation) {
    if !subscriptions.index.is_open() {
        return;
    }
    platform::with_context(|context| {
        let calls = Calls { subscriptions, context };
        let mut part = Part::new(*invalidation);
        part.announce(subscriptions, context);
        // ORDERING: publication, F, limit and search.
        full_fence();
        let mut batch = Batch::new();
        let limit = subscriptions.index.limit();
        let mut pass = Pass::new(subscriptions, limit, &mut batch, false);
        let parts = slice::from_ref(&part);
        let mut outcome = Outcome::default();
        let frame = Frame::of_intervals(subscriptions.id, parts);
        let link = frame.link(context);
        pass.begin_all(parts, &frame);
        pass.finish_all(parts);
        frame.end_passes();
        outcome.failure = pass.failure();
        calls.each(parts, &mut outcome.late, Claim::abandon);
        drop(link);
        part.give_back(subscriptions);
        let Outcome { mut failure, late } = outcome;
        Failure::keep_first(&mut failure, late);
        if let Some(Failure::Panicked(payload)) = failure {
            platform::resume(payload);
        }
    });
}
