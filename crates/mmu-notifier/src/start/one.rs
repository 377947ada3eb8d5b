//! The start of one range, the usual one: inlined as far as a range goes that hits nobody.
//!
//! The fence of the publication waits for every store before it. So up to there nothing is kept in memory; whatever
//! takes more than registers goes out of line behind it: a range that hits one ([`run_one`]), one that hits several or
//! is heard by the list ([`run_several`]), one for which no hazard is at hand ([`start_elsewhere`]),
//! and one where there is no interval side ([`listed`](super::listed)).

#![expect(unsafe_code, reason = "the context of the thread is kept for the time of a call")]

use core::mem::{ManuallyDrop, MaybeUninit};
use core::ptr::NonNull;
use core::slice;

use super::listed::start_listed;
use super::part::Leaves;
use super::pass::{self, Pass};
use super::{Calls, Conclusion, Held, Left, Outcome, Part, StartError, Started, frame_of};
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
    let (held, left) = start_here(space, subscriptions, range, owner, details, &mut room);
    *started = left.map_or_else(Started::unheard, Left::started);
    held
}

/// Starts an invalidation of one range that hits nobody; goes out of line for all else. What that leaves for the end
/// stands in `room`; if nothing does, the hazard knows it all.
///
/// The fence of the publication waits for every store before it. So this is made to be inlined, takes the address of
/// nothing, and goes through registers. (Where nothing is optimised, each variable of what is inlined has its place on
/// the stack, which may be small.)
#[cfg_attr(debug_assertions, inline)]
#[cfg_attr(not(debug_assertions), inline(always))]
pub(crate) fn start_here<'r>(
    space: &Space,
    subscriptions: &Subscriptions,
    range: Range,
    owner: Option<Owner>,
    details: Details,
    room: &'r mut MaybeUninit<Left>,
) -> (Held, Option<&'r Left>) {
    // First of all: its hook may panic, or start an invalidation itself.
    diagnostics::start(subscriptions, range);
    // SAFETY: it is used in this call alone.
    let context = unsafe { platform::context() };
    let part = || Part::new(Invalidation::join(range, owner, details));
    match subscriptions.book.at_hand(context) {
        None => Left::fill(room, part(), |left| start_elsewhere(space, left)),
        Some((hazard, _)) if !subscriptions.index.is_open() => {
            Left::fill(room, part(), |left| (Held::NOTHING, start_listed(space, left, hazard)))
        }
        Some(hazard) => start_at(space, subscriptions, hazard, range, owner, details, room),
    }
}

/// Starts one range at a free hazard of this thread, under its next identity.
#[cfg_attr(debug_assertions, inline)]
#[cfg_attr(not(debug_assertions), inline(always))]
fn start_at<'r>(
    space: &Space,
    subscriptions: &Subscriptions,
    (hazard, identity): (&Hazard, u64),
    range: Range,
    owner: Option<Owner>,
    details: Details,
    room: &'r mut MaybeUninit<Left>,
) -> (Held, Option<&'r Left>) {
    let index = &subscriptions.index;
    hazard.publish(identity, range.bounds(), owner.map_or(0, Owner::get), index.epoch());
    // CONTRACT C3.3: who is inserted from here on is busy for this invalidation, and not called.
    let limit = index.limit();
    let look = index.look(range.bounds());
    let held = Held::new(Claim::One(hazard), identity);
    let part = || Part::held(Invalidation::join(range, owner, details), held);
    if let Found::One(node) = look.found() {
        let of = (space, subscriptions);
        return Left::fill(room, part(), move |left| (held, hit_one(of, hazard, left, node, limit)));
    }
    if !look.is_nobody() || subscriptions.list.count() != 0 {
        return Left::fill(room, part(), move |left| (held, hit_several(space, left, limit, look)));
    }
    if let Some(post) = Claim::One(hazard).activate(identity) {
        return Left::fill(room, part(), move |left| (held, ring(space, left, post)));
    }
    if trace::ENABLED {
        trace::started(subscriptions, slice::from_ref(&part()), 0);
    }
    (held, None)
}

/// The way of one range where no hazard is at hand.
#[cold]
#[inline(never)]
fn start_elsewhere(space: &Space, left: &mut Left) -> (Held, Leaves) {
    let Some(calls) = Calls::of(space) else { return (Held::NOTHING, Leaves::More) };
    let Calls { subscriptions, context, .. } = calls;
    let (range, owner, details) = left.part.invalidation.split();
    if !subscriptions.index.is_open() {
        return calls.run_slowly(left);
    }
    let book = &subscriptions.book;
    let Some(hazard) = book.sibling(context).or_else(|| book.claim_another(context)) else {
        return calls.run_slowly(left);
    };
    let mut room = MaybeUninit::uninit();
    let at = (hazard, hazard.next_identity());
    let (held, found) = start_at(space, subscriptions, at, range, owner, details, &mut room);
    left.part.held = held;
    left.started = found.map_or_else(Started::unheard, Left::started);
    // A claim that is made for good measure goes beyond what is published.
    let alone = found.is_none() && !Claim::One(hazard).is_kept();
    (held, if alone { Leaves::Hazard } else { Leaves::More })
}

/// [`run_one`], said to be cold, so that the way of what hits nobody is laid out as one piece.
#[cold]
#[inline(never)]
fn hit_one(
    of: (&Space, &Subscriptions),
    hazard: &Hazard,
    left: &mut Left,
    node: NonNull<Node>,
    limit: u64,
) -> Leaves {
    run_one(of, hazard, left, node, limit)
}

/// [`run_several`], in the same way.
#[cold]
#[inline(never)]
fn hit_several(space: &Space, left: &mut Left, limit: u64, look: Look) -> Leaves {
    run_several(space, left, limit, look)
}

/// The way of one range that is published and hits one. Nothing is in memory but what callbacks may look at: what it takes
/// besides is made where there is more to it.
#[inline(never)]
fn run_one(
    (space, subscriptions): (&Space, &Subscriptions),
    hazard: &Hazard,
    left: &mut Left,
    node: NonNull<Node>,
    limit: u64,
) -> Leaves {
    let Left { part, started } = &mut *left;
    let (part, claim) = (&*part, Claim::One(hazard));
    claim.unpin();
    let _span = trace::calling(subscriptions, slice::from_ref(part));
    let frame = frame_of(subscriptions, slice::from_ref(part), claim);
    frame.set_hit(node);
    // SAFETY: it is used in this call alone.
    let link = frame.link(unsafe { platform::context() });
    // Empty unless there is more to it; its drop would have to find that out.
    let mut panic = ManuallyDrop::new(None);
    let answer = pass::call(node, part, (part.owner(), limit), || (), &mut panic);
    let conclusion = if matches!(answer, None | Some(Answer::Done)) && subscriptions.list.count() == 0 {
        let called = u64::from(answer.is_some());
        match activate_found((space, subscriptions), part, claim, called, (&frame, link)) {
            None => return Leaves::Hazard,
            Some(conclusion) => conclusion,
        }
    } else {
        let answer = (answer, ManuallyDrop::into_inner(panic));
        go_on_behind(space, part, (node, answer), limit, (&frame, link), started)
    };
    conclude_one(space, left, conclusion)
}

/// The way of one range that is published, and hits several or is heard by the list.
#[inline(never)]
fn run_several(space: &Space, left: &mut Left, limit: u64, look: Look) -> Leaves {
    let Left { part, started } = &mut *left;
    let (part, Some(calls)) = (&*part, Calls::of(space)) else { return Leaves::More };
    let Calls { subscriptions, context, .. } = calls;
    let Some(claim @ Claim::One(_)) = part.claim(subscriptions) else { return Leaves::More };
    let mut batch = Batch::new();
    let complete = subscriptions.index.collect(look, part.invalidation.range().bounds(), &mut batch);
    claim.unpin();
    let _span = trace::calling(subscriptions, slice::from_ref(part));
    let mut pass = Pass::new(subscriptions, limit, &mut batch, complete);
    let frame = frame_of(subscriptions, slice::from_ref(part), claim);
    let link = frame.link(context);
    pass.begin_one(part, &frame);
    let conclusion = if pass.is_over() && subscriptions.list.count() == 0 {
        match activate_found((space, subscriptions), part, claim, pass.called, (&frame, link)) {
            None => return Leaves::Hazard,
            Some(conclusion) => conclusion,
        }
    } else {
        calls.go_on_found(part, &mut pass, (&frame, link), started)
    };
    conclude_one(space, left, conclusion)
}

/// Goes on behind the first pass over the only one that is hit, where there is more to it.
#[inline(never)]
fn go_on_behind(
    space: &Space,
    part: &Part,
    (node, answer): (NonNull<Node>, (Option<Answer>, Option<Payload>)),
    limit: u64,
    framed: (&Frame, Link<'_>),
    started: &mut Started,
) -> Conclusion {
    let calls = Calls::of(space).expect("somebody was hit there");
    let mut batch = Batch::new();
    let mut pass = Pass::new(calls.subscriptions, limit, &mut batch, true);
    pass.begin_behind(node, part, answer);
    calls.go_on_found(part, &mut pass, framed, started)
}

/// Ends the passes of a start behind which no list hears of it; none if nothing else is left of it.
#[cfg_attr(debug_assertions, inline)]
#[cfg_attr(not(debug_assertions), inline(always))]
fn activate_found(
    (space, subscriptions): (&Space, &Subscriptions),
    part: &Part,
    claim: Claim<'_>,
    called: u64,
    (frame, link): (&Frame, Link<'_>),
) -> Option<Conclusion> {
    claim.count(called);
    let post = claim.activate(part.identity());
    if post.is_some() || frame.is_exit_due() {
        return Some(ring_found(space, called, post, (frame, link)));
    }
    drop(link);
    trace::started(subscriptions, slice::from_ref(part), called);
    None
}

/// Tells those who wait for a start that hit somebody.
#[cold]
#[inline(never)]
fn ring_found(
    space: &Space,
    called: u64,
    post: Option<&Post>,
    (frame, link): (&Frame, Link<'_>),
) -> Conclusion {
    frame.end_passes();
    let late = space.subscriptions().and_then(|subscriptions| subscriptions.ring(post));
    drop(link);
    let outcome = ManuallyDrop::new(Outcome { failure: None, late });
    Conclusion { outcome, called, exit_due: frame.is_exit_due() }
}

/// Tells those who wait for a start that hit nobody.
#[cold]
#[inline(never)]
fn ring(space: &Space, left: &mut Left, post: &Post) -> Leaves {
    let late = space.subscriptions().and_then(|subscriptions| subscriptions.ring(Some(post)));
    let outcome = ManuallyDrop::new(Outcome { failure: None, late });
    conclude_one(space, left, Conclusion { outcome, called: 0, exit_due: false })
}

/// Does what is left of the start of one range.
#[inline(never)]
pub(super) fn conclude_one(space: &Space, left: &mut Left, mut conclusion: Conclusion) -> Leaves {
    let Some(calls) = Calls::of(space) else { return Leaves::More };
    calls.conclude(slice::from_mut(&mut left.part), &mut left.started, &mut conclusion).into()
}

impl Calls<'_> {
    /// The way of one range for which there is no hazard, or none is at hand.
    #[inline(never)]
    fn run_slowly(&self, Left { part, started }: &mut Left) -> (Held, Leaves) {
        let result = self.start_several(slice::from_mut(part), started);
        (part.held, result.into())
    }

    /// Goes on behind first passes, where there is more to it.
    #[inline(never)]
    fn go_on_found(
        &self,
        part: &Part,
        pass: &mut Pass<'_>,
        framed: (&Frame, Link<'_>),
        started: &mut Started,
    ) -> Conclusion {
        let claim = part.claim(self.subscriptions).expect("a range that is published has a claim");
        self.go_on(slice::from_ref(part), claim, Some(pass), framed, started)
    }
}
