//! The start of one range, the usual one: inlined as far as a range goes that hits nobody.
//!
//! The fence of the publication waits for every store before it, those of the start before too: with hits they are what
//! takes the time. So nothing is kept in memory that registers hold, and whatever takes more goes out of line behind the
//! fence: a range that hits one ([`run_one`]), one that hits several or is heard by the list ([`run_several`]), one for
//! which no hazard is at hand ([`start_elsewhere`]), and one where there is no interval side
//! ([`listed`](super::listed)).

#![expect(unsafe_code, reason = "the context of the thread is kept for the time of a call")]

use core::mem::{ManuallyDrop, MaybeUninit};
use core::ptr::NonNull;
use core::slice;

use super::listed::start_listed;
use super::part::Leaves;
use super::pass::{self, Pass};
use super::{Calls, Conclusion, Held, Left, Outcome, Part, StartError, Started};
use crate::address::Range;
use crate::diagnostics;
use crate::frame::{Frame, Link};
use crate::hazard::{Claim, Hazard};
use crate::hung::Post;
use crate::index::{Batch, Found, Look};
use crate::interval::{Answer, Node};
use crate::invalidation::{Details, Invalidation, Owner};
use crate::platform::{self, Payload};
use crate::space::Space;
use crate::subscriptions::Subscriptions;
use crate::trace;

/// Starts an invalidation of one range; the caller ends it with [`end_one`](super::end_one) unless it failed.
///
/// # Context
/// Does not sleep by itself and allocates nothing; a callback's panic goes on behind it.
#[inline]
pub(crate) fn start_one(
    space: &Space,
    what: Invalidation,
    started: &mut Started,
) -> Result<Held, StartError> {
    // CONTRACT C2.2: a space that nobody watched pays this load and this branch.
    let Some(_) = space.subscriptions() else { return Ok(Held::NOTHING) };
    let (range, owner, details) = what.split();
    start_apart(space, range, owner, details, started).if_accepted()
}

/// The way of guards: not inlined, and by registers.
#[inline(never)]
fn start_apart(
    space: &Space,
    range: Range,
    owner: Option<Owner>,
    details: Details,
    started: &mut Started,
) -> Held {
    let Some(subscriptions) = space.subscriptions() else { return Held::NOTHING };
    let mut room = MaybeUninit::uninit();
    let (held, left) = start_here(subscriptions, range, owner, details, &mut room);
    *started = left.map_or_else(Started::unheard, |left| left.started);
    held
}

/// Starts an invalidation of one range that hits nobody; goes out of line for all else. What that leaves for the end is
/// returned, with the part in `room`; if nothing is, the hazard knows it all.
///
/// The fence of the publication waits for every store before it. So this is made to be inlined, takes the address of
/// nothing, and goes through registers. (Where nothing is optimised, each variable of what is inlined has its place on
/// the stack, which may be small.)
#[cfg_attr(debug_assertions, inline)]
#[cfg_attr(not(debug_assertions), inline(always))]
pub(crate) fn start_here<'r>(
    subscriptions: &Subscriptions,
    range: Range,
    owner: Option<Owner>,
    details: Details,
    room: &'r mut MaybeUninit<Part>,
) -> (Held, Option<Left<'r>>) {
    // First of all: its hook may panic, or start an invalidation itself.
    diagnostics::start(subscriptions, range);
    // SAFETY: it is used in this call alone.
    let context = unsafe { platform::context() };
    let part = || Part::new(Invalidation::join(range, owner, details));
    match subscriptions.book.at_hand(context) {
        None => Left::by(room, part(), |part| start_elsewhere(subscriptions, part)),
        Some((hazard, _)) if !subscriptions.index.is_open() => {
            Left::by(room, part(), |part| (Held::NOTHING, start_listed(subscriptions, part, hazard)))
        }
        Some(hazard) => start_at(subscriptions, hazard, range, owner, details, room),
    }
}

/// Starts one range at a free hazard of this thread, under its next identity. The index is open.
#[cfg_attr(debug_assertions, inline)]
#[cfg_attr(not(debug_assertions), inline(always))]
fn start_at<'r>(
    subscriptions: &Subscriptions,
    (hazard, identity): (&Hazard, u64),
    range: Range,
    owner: Option<Owner>,
    details: Details,
    room: &'r mut MaybeUninit<Part>,
) -> (Held, Option<Left<'r>>) {
    let index = &subscriptions.index;
    hazard.publish(identity, range.bounds(), owner.map_or(0, Owner::get), index.epoch());
    // CONTRACT C3.3: who is inserted from here on is busy for this invalidation, and not called.
    let limit = index.limit();
    // SAFETY: both callers have found it open.
    let look = unsafe { index.look(range.bounds()) };
    let held = Held::new(Claim::One(hazard), identity);
    let part = || Part::held(Invalidation::join(range, owner, details), held);
    if let Found::One(node) = look.found() {
        let hit = move |part: &mut Part| (held, hit_one(subscriptions, hazard, part, node, limit));
        return Left::by(room, part(), hit);
    }
    if !look.is_nobody() || subscriptions.list.count() != 0 {
        return Left::by(room, part(), move |part| (held, hit_several(subscriptions, part, limit, look)));
    }
    if let Some(post) = Claim::One(hazard).activate(identity) {
        return Left::by(room, part(), move |part| (held, ring(subscriptions, part, post)));
    }
    if trace::ENABLED {
        trace::started(subscriptions, slice::from_ref(&part()), 0);
    }
    (held, None)
}

/// The way of one range where no hazard is at hand.
#[cold]
#[inline(never)]
fn start_elsewhere(subscriptions: &Subscriptions, part: &mut Part) -> (Held, Leaves) {
    let calls = Calls::of(subscriptions);
    let context = calls.context;
    let (range, owner, details) = part.invalidation.split();
    if !subscriptions.index.is_open() {
        return calls.run_slowly(part);
    }
    let book = &subscriptions.book;
    let Some(hazard) = book.sibling(context).or_else(|| book.claim_another(context)) else {
        return calls.run_slowly(part);
    };
    let mut room = MaybeUninit::uninit();
    let at = (hazard, hazard.next_identity());
    let (held, found) = start_at(subscriptions, at, range, owner, details, &mut room);
    part.held = held;
    (held, found.map_or(Leaves::Hazard, |left| Leaves::More(left.started.list_limit)))
}

/// [`run_one`], said to be cold, so that the way of what hits nobody is laid out as one piece.
#[cold]
#[inline(never)]
fn hit_one(
    subscriptions: &Subscriptions,
    hazard: &Hazard,
    part: &mut Part,
    node: NonNull<Node>,
    limit: u64,
) -> Leaves {
    run_one(subscriptions, hazard, part, node, limit)
}

/// [`run_several`], in the same way.
#[cold]
#[inline(never)]
fn hit_several(subscriptions: &Subscriptions, part: &mut Part, limit: u64, look: Look) -> Leaves {
    run_several(subscriptions, part, limit, look)
}

/// The way of one range that is published and hits one. Nothing is in memory but what callbacks may look at: what it takes
/// besides is made where there is more to it.
#[inline(never)]
fn run_one(
    subscriptions: &Subscriptions,
    hazard: &Hazard,
    owned: &mut Part,
    node: NonNull<Node>,
    limit: u64,
) -> Leaves {
    let (part, claim) = (&*owned, Claim::One(hazard));
    claim.unpin();
    let _span = trace::calling(subscriptions, slice::from_ref(part));
    let frame = Frame::of_intervals(subscriptions.id, slice::from_ref(part));
    frame.set_hit(node);
    // SAFETY: it is used in this call alone.
    let link = frame.link(unsafe { platform::context() });
    // Empty unless there is more to it; its drop would have to find that out.
    let mut panic = ManuallyDrop::new(None);
    let answer = pass::call(node, part, (part.owner(), limit), || (), &mut panic);
    let conclusion = if matches!(answer, None | Some(Answer::Done)) && subscriptions.list.count() == 0 {
        let called = u64::from(answer.is_some());
        match activate_found(subscriptions, part, claim, called, (&frame, link)) {
            None => return Leaves::Hazard,
            Some(conclusion) => conclusion,
        }
    } else {
        let answer = (answer, ManuallyDrop::into_inner(panic));
        go_on_behind(subscriptions, part, (node, answer), (&frame, link))
    };
    conclude_one(subscriptions, owned, conclusion)
}

/// The way of one range that is published, and hits several or is heard by the list.
#[inline(never)]
fn run_several(subscriptions: &Subscriptions, owned: &mut Part, limit: u64, look: Look) -> Leaves {
    let (part, calls) = (&*owned, Calls::of(subscriptions));
    let context = calls.context;
    let Some(claim @ Claim::One(_)) = part.claim(subscriptions) else { return Leaves::More(0) };
    let mut batch = Batch::new();
    let complete = subscriptions.index.collect(look, part.invalidation.range().bounds(), &mut batch);
    claim.unpin();
    let _span = trace::calling(subscriptions, slice::from_ref(part));
    let mut pass = Pass::new(subscriptions, limit, &mut batch, complete);
    let frame = Frame::of_intervals(subscriptions.id, slice::from_ref(part));
    let link = frame.link(context);
    pass.begin_one(part, &frame);
    let conclusion = if pass.is_over() && subscriptions.list.count() == 0 {
        match activate_found(subscriptions, part, claim, pass.called, (&frame, link)) {
            None => return Leaves::Hazard,
            Some(conclusion) => conclusion,
        }
    } else {
        calls.go_on_found(part, &mut pass, (&frame, link))
    };
    conclude_one(subscriptions, owned, conclusion)
}

/// Goes on behind the first pass over the only one that is hit, where there is more to it.
#[inline(never)]
fn go_on_behind(
    subscriptions: &Subscriptions,
    part: &Part,
    (node, answer): (NonNull<Node>, (Option<Answer>, Option<Payload>)),
    framed: (&Frame, Link<'_>),
) -> Conclusion {
    let mut batch = Batch::new();
    // Nobody is searched for any more.
    let mut pass = Pass::new(subscriptions, 0, &mut batch, true);
    pass.begin_behind(node, part, answer);
    Calls::of(subscriptions).go_on_found(part, &mut pass, framed)
}

/// Ends the passes of a start behind which no list hears of it; none if nothing else is left of it.
#[cfg_attr(debug_assertions, inline)]
#[cfg_attr(not(debug_assertions), inline(always))]
fn activate_found(
    subscriptions: &Subscriptions,
    part: &Part,
    claim: Claim<'_>,
    called: u64,
    (frame, link): (&Frame, Link<'_>),
) -> Option<Conclusion> {
    claim.count(called);
    let post = claim.activate(part.identity());
    if post.is_some() || frame.is_exit_due() {
        return Some(ring_found(subscriptions, called, post, (frame, link)));
    }
    drop(link);
    trace::started(subscriptions, slice::from_ref(part), called);
    None
}

/// Tells those who wait for a start that hit somebody.
#[cold]
#[inline(never)]
fn ring_found(
    subscriptions: &Subscriptions,
    called: u64,
    post: Option<&Post>,
    (frame, link): (&Frame, Link<'_>),
) -> Conclusion {
    frame.end_passes();
    let late = subscriptions.ring(post);
    drop(link);
    let outcome = ManuallyDrop::new(Outcome { failure: None, late });
    Conclusion { outcome, called, list_limit: 0, exit_due: frame.is_exit_due() }
}

/// Tells those who wait for a start that hit nobody.
#[cold]
#[inline(never)]
fn ring(subscriptions: &Subscriptions, part: &mut Part, post: &Post) -> Leaves {
    let late = subscriptions.ring(Some(post));
    let outcome = ManuallyDrop::new(Outcome { failure: None, late });
    conclude_one(subscriptions, part, Conclusion { outcome, called: 0, list_limit: 0, exit_due: false })
}

/// Does what is left of the start of one range.
#[inline(never)]
pub(super) fn conclude_one(
    subscriptions: &Subscriptions,
    part: &mut Part,
    mut conclusion: Conclusion,
) -> Leaves {
    Calls::of(subscriptions).conclude(slice::from_mut(part), &mut conclusion).into()
}

impl Calls<'_> {
    /// The way of one range for which there is no hazard, or none is at hand.
    #[inline(never)]
    fn run_slowly(&self, part: &mut Part) -> (Held, Leaves) {
        let result = self.start_several(slice::from_mut(part));
        (part.held, result.into())
    }

    /// Goes on behind first passes, where there is more to it.
    #[inline(never)]
    fn go_on_found(&self, part: &Part, pass: &mut Pass<'_>, framed: (&Frame, Link<'_>)) -> Conclusion {
        let claim = part.claim(self.subscriptions).expect("a range that is published has a claim");
        self.go_on(slice::from_ref(part), claim, Some(pass), framed)
    }
}
