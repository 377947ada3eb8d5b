//! One range where there is no interval side: the list alone hears its start and its end.
//!
//! Each walk is a section of a hazard of this thread, claimed for its time: nothing is published there. What a panic
//! or a refusal leaves to do is out of line.

#![expect(unsafe_code, reason = "the context of the thread is kept for the time of a call")]

use core::mem::ManuallyDrop;
use core::slice;

use super::one::conclude_one;
use super::part::{Held, Left, Part, Started};
use super::{Calls, Conclusion, Ending, Failure, Outcome, kind_of};
use crate::frame::{self, Frame, Kind, Link};
use crate::hazard::{Claim, Hazard};
use crate::list::walk::{self, EndWalk, StartWalk, Stop};
use crate::platform::{self, Payload};
use crate::space::Space;
use crate::subscriptions::Subscriptions;
use crate::trace;

/// Starts; the hazard is free and of this thread.
#[inline(never)]
pub(super) fn start_listed(space: &Space, left: &mut Left, hazard: &Hazard) -> Held {
    let Some(subscriptions) = space.subscriptions() else { return Held::NOTHING };
    let Left { part, started } = left;
    let part = &*part;
    if !subscriptions.list.is_heard() {
        trace::started(subscriptions, slice::from_ref(part), 0);
        return Held::NOTHING;
    }
    // SAFETY: it is used in this call alone.
    let context = unsafe { platform::context() };
    let section = Claim::One(hazard);
    section.keep();
    let parts = slice::from_ref(part);
    let _span = trace::calling(subscriptions, parts);
    let place = frame::Place { space: subscriptions.id, section, parts };
    let frame = Frame::new(&place, kind_of(parts, Kind::Walk, Kind::WalkNonblock));
    let link = frame.link(context);
    let walk = StartWalk::enter(&subscriptions.list, section, &part.invalidation);
    started.list_limit = walk.limit;
    let heard = walk.call_all();
    if heard.is_err() || frame.is_exit_due() || section.leave_section().is_some() {
        let calls = Calls { space, subscriptions, context };
        let conclusion = calls.leave_listed(&walk, heard, section, (&frame, link));
        return Held::NOTHING.unless_refused(conclude_one(space, left, conclusion));
    }
    drop(link);
    section.give_back();
    trace::started(subscriptions, parts, 0);
    Held::NOTHING
}

impl Calls<'_> {
    /// Leaves the walk of a start that is more than accepted by everybody.
    #[cold]
    fn leave_listed(
        &self,
        walk: &StartWalk<'_>,
        heard: Result<(), Stop>,
        section: Claim<'_>,
        (frame, link): (&Frame, Link<'_>),
    ) -> Conclusion {
        let mut failure: Option<Failure> = None;
        if let Err(stop) = heard {
            walk.go_on_behind(stop, &mut || (), &mut failure);
        }
        let outcome = Outcome { failure, late: self.subscriptions.leave_section(section) };
        drop(link);
        section.give_back();
        Conclusion { outcome: ManuallyDrop::new(outcome), called: 0, exit_due: frame.is_exit_due() }
    }

    /// Leaves the walk of an end of which more is left.
    #[cold]
    fn leave_ended(&self, panic: Option<Payload>, section: Claim<'_>, framed: (&Frame, Link<'_>)) {
        let call = walk::Call {
            space: self.space,
            subscriptions: self.subscriptions,
            context: self.context,
            section,
        };
        if let Some(payload) = call.leave(panic, framed, || section.give_back()) {
            platform::in_drop(|| platform::resume(payload));
        }
    }
}

/// Ends; false if no hazard is at hand, and then nothing was done. A panic goes on behind it, unless one passes.
#[inline(always)]
pub(super) fn end_listed(
    space: &Space,
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
    let place = frame::Place { space: subscriptions.id, section, parts: &[] };
    let frame = Frame::new(&place, Kind::Walk);
    let link = frame.link(context);
    let (list, what) = (&subscriptions.list, &part.invalidation);
    let panic = EndWalk::enter(list, section, what, started.list_limit, ending).call_all();
    if panic.is_some() || frame.is_exit_due() || section.leave_section().is_some() {
        let calls = Calls { space, subscriptions, context };
        calls.leave_ended(panic, section, (&frame, link));
    } else {
        drop(link);
        section.give_back();
    }
    true
}
