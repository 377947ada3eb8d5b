//! One range where there is no interval side: the list alone hears its start and its end.
//!
//! Each walk is a section of a hazard of this thread, claimed for its time: nothing is published there. What a panic
//! or a refusal leaves to do is out of line.

#![expect(unsafe_code, reason = "the context of the thread is kept for the time of a call")]

use core::mem::ManuallyDrop;
use core::slice;

use super::one::conclude_one;
use super::part::{Leaves, Part, Started};
use super::{Calls, Conclusion, Ending, Failure, Outcome};
use crate::frame::{Frame, Link};
use crate::hazard::{Claim, Hazard};
use crate::list::walk::{self, StartWalk, Stop, end_all};
use crate::platform::{self, Payload};
use crate::subscriptions::Subscriptions;
use crate::trace;

/// Starts; the hazard is free and of this thread.
#[inline(never)]
pub(super) fn start_listed(subscriptions: &Subscriptions, part: &mut Part, hazard: &Hazard) -> Leaves {
    let parts = slice::from_ref(&*part);
    if !subscriptions.list.is_heard() {
        trace::started(subscriptions, parts, 0);
        return Leaves::More(0);
    }
    let section = Claim::One(hazard);
    section.keep();
    let _span = trace::calling(subscriptions, parts);
    let frame = Frame::of_walk(subscriptions.id, parts, section);
    // SAFETY: it is used in this call alone.
    let link = frame.link(unsafe { platform::context() });
    let walk = StartWalk::enter(&subscriptions.list, section, &part.invalidation);
    let list_limit = walk.limit;
    // Its drop would have to look for a panic.
    let stop = ManuallyDrop::new(walk.call_all());
    if stop.is_some() || frame.is_exit_due() || section.leave_section().is_some() {
        let stop = ManuallyDrop::into_inner(stop);
        let conclusion = leave_listed(subscriptions, walk, stop, section, (&frame, link));
        return conclude_one(subscriptions, part, conclusion);
    }
    drop(link);
    section.give_back_kept();
    trace::started(subscriptions, parts, 0);
    Leaves::More(list_limit)
}

/// Leaves the walk of a start that is more than accepted by everybody.
#[cold]
#[inline(never)]
fn leave_listed(
    subscriptions: &Subscriptions,
    walk: StartWalk<'_>,
    stop: Option<Stop>,
    section: Claim<'_>,
    (frame, link): (&Frame, Link<'_>),
) -> Conclusion {
    let list_limit = walk.limit;
    let mut failure: Option<Failure> = None;
    if let Some(stop) = stop {
        walk.go_on_behind(stop, &mut || (), &mut failure);
    }
    let late = subscriptions.leave_section(section);
    drop(link);
    section.give_back();
    let outcome = ManuallyDrop::new(Outcome { failure, late });
    Conclusion { outcome, called: 0, list_limit, exit_due: frame.is_exit_due() }
}

/// Leaves the walk of an end of which more is left.
#[cold]
#[inline(never)]
fn leave_ended(
    subscriptions: &Subscriptions,
    mut panic: Option<Payload>,
    section: Claim<'_>,
    framed: (&Frame, Link<'_>),
) {
    let Calls { subscriptions, context } = Calls::of(subscriptions);
    let call = walk::Call { subscriptions, context, section };
    platform::keep_first(&mut panic, call.leave(framed, || section.give_back()));
    if let Some(payload) = panic {
        platform::in_drop(|| platform::resume(payload));
    }
}

/// Ends; false if no hazard is at hand, and then nothing was done. A panic goes on behind it, unless one passes.
#[inline(always)]
pub(super) fn end_listed(
    subscriptions: &Subscriptions,
    started: &Started,
    part: &Part,
    ending: Ending,
) -> bool {
    // SAFETY: it is used in this call alone.
    let context = unsafe { platform::context() };
    let Some(hazard) = subscriptions.book.remembered(context) else { return false };
    let section = Claim::One(hazard);
    section.keep();
    let frame = Frame::of_walk(subscriptions.id, &[], section);
    let link = frame.link(context);
    let list = &subscriptions.list;
    // Its drop would have to look.
    let mut panic = ManuallyDrop::new(None);
    list.enter(section);
    end_all(list.entries(), &part.invalidation, started.list_limit, ending, &mut panic);
    if panic.is_some() || frame.is_exit_due() || section.leave_section().is_some() {
        leave_ended(subscriptions, ManuallyDrop::into_inner(panic), section, (&frame, link));
    } else {
        drop(link);
        section.give_back_kept();
    }
    true
}
