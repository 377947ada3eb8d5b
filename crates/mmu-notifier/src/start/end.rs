//! The end of a start: idle, which wakes readers; then the list; then the claims are given back.
//!
//! One range at a hazard of its own, in a space without a list, is the short way: a look and a store. One that only
//! the list hears has a way of its own too; all else goes through [`end_each`].

#![expect(unsafe_code, reason = "what is held leads to a hazard by a raw pointer")]

use core::slice;

use super::listed::end_listed;
use super::part::{Held, Left, Part, Started};
use crate::address::Range;
use crate::hazard::Claim;
use crate::invalidation::{Details, Invalidation, Owner};
use crate::list::walk;
use crate::platform::{self, keep_first};
use crate::space::Space;
use crate::subscriptions::Subscriptions;
use crate::trace;

/// Whether an end calls `invalidate_range` (clause C5.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// There is nothing to end.
    Nothing,
    /// It does.
    Whole,
    /// The caller already did.
    OnlyEnd,
}

/// Ends a start of one range that succeeded.
///
/// # Context
/// Does not sleep by itself and allocates nothing. A callback's panic goes on behind it, unless it ends while one
/// passes: it is called by drops.
#[inline]
pub(crate) fn end_one(space: &Space, started: &Started, part: Part, ending: Ending) {
    if let (Some(subscriptions), true) = (space.subscriptions(), ending != Ending::Nothing) {
        if trace::ENABLED || !part.held.end_alone(subscriptions) {
            let (range, owner, details) = part.invalidation.split();
            end_rest(subscriptions, started, part.held, range, owner, details, ending);
        }
    }
}

/// The same, inlined, for what [`start_here`](super::start_here) started and left on this thread, in the same call.
#[cfg_attr(debug_assertions, inline)]
#[cfg_attr(not(debug_assertions), inline(always))]
pub(crate) fn end_here(subscriptions: &Subscriptions, held: Held, details: Details, left: Option<Left<'_>>) {
    match left {
        Some(Left { part, started }) => end_more(subscriptions, part, started),
        None if !trace::ENABLED && held.end_active(subscriptions) => {}
        None => end_left(subscriptions, held, details, None),
    }
}

/// The way of such an end of which somebody hears.
#[inline(never)]
fn end_more(subscriptions: &Subscriptions, part: &Part, started: Started) {
    trace::ending(subscriptions, slice::from_ref(part));
    end_in_turn(subscriptions, &started, part, Ending::Whole);
}

/// The way of such an end that is more than one store.
#[inline(never)]
pub(crate) fn end_left(subscriptions: &Subscriptions, held: Held, details: Details, left: Option<Left<'_>>) {
    match left {
        Some(Left { part, started }) => end_told(subscriptions, &started, part, Ending::Whole),
        None => {
            // SAFETY: nothing was left, and the caller holds the space.
            let part = unsafe { held.described(details) };
            end_told(subscriptions, &Started::unheard(), &part, Ending::Whole);
        }
    }
}

/// Ends a start of one range that nobody has to be told of; false if there is more to it, and then nothing was done.
#[inline]
pub(crate) fn end_shortly(space: &Space, held: Held) -> bool {
    !trace::ENABLED && space.subscriptions().is_some_and(|subscriptions| held.end_alone(subscriptions))
}

/// Ends what began before anybody watched the space.
#[inline]
pub(crate) fn end_unwatched(space: &Space, what: Invalidation) {
    let Some(subscriptions) = space.subscriptions() else { return };
    let (range, owner, details) = what.split();
    end_rest(subscriptions, &Started::new(), Held::NOTHING, range, owner, details, Ending::Whole);
}

/// The way of an end that is more than one store. Its parameters keep the part out of memory where it is not needed.
#[inline(never)]
fn end_rest(
    subscriptions: &Subscriptions,
    started: &Started,
    held: Held,
    range: Range,
    owner: Option<Owner>,
    details: Details,
    ending: Ending,
) {
    let part = Part::held(Invalidation::join(range, owner, details), held);
    end_told(subscriptions, started, &part, ending);
}

/// Ends a start of one range that succeeded, where somebody may have to be told.
///
/// # Context
/// As [`end_one`].
#[inline(never)]
pub(crate) fn end_told(subscriptions: &Subscriptions, started: &Started, part: &Part, ending: Ending) {
    trace::ending(subscriptions, slice::from_ref(part));
    end_in_turn(subscriptions, started, part, ending);
}

#[inline(always)]
fn end_in_turn(subscriptions: &Subscriptions, started: &Started, part: &Part, ending: Ending) {
    if subscriptions.index.is_open() || !end_listed(subscriptions, started, part, ending) {
        end_slowly(subscriptions, started, part, ending);
    }
}

/// [`end_each`] of one range.
#[inline(never)]
fn end_slowly(subscriptions: &Subscriptions, started: &Started, part: &Part, ending: Ending) {
    let each = || end_each(subscriptions, started, slice::from_mut(&mut part.clone()), ending);
    platform::in_drop(each);
}

/// Ends a start of several ranges that succeeded.
///
/// # Context
/// As [`end_one`].
pub(crate) fn end(space: &Space, started: &Started, parts: &mut [Part], ending: Ending) {
    if let Some(subscriptions) = space.subscriptions() {
        trace::ending(subscriptions, parts);
        platform::in_drop(|| end_each(subscriptions, started, parts, ending));
    }
}

#[inline(never)]
fn end_each(subscriptions: &Subscriptions, started: &Started, parts: &mut [Part], ending: Ending) {
    let mut late = None;
    for part in &mut *parts {
        let Some(claim) = part.claim(subscriptions) else { continue };
        if claim.is_active(part.identity()) && !is_of_a_parent(started, claim) {
            claim.keep();
            keep_first(&mut late, subscriptions.ring(claim.retire(part.identity())));
        } else {
            keep_first(&mut late, platform::catch(|| part.has_no_start(started)).err());
        }
    }
    let give_back = || parts.iter().for_each(|part| part.give_back(subscriptions));
    if subscriptions.list.count() == 0 {
        give_back();
    } else {
        let panic = platform::with_context(|context| {
            let claim = parts.first().and_then(|part| part.claim(subscriptions));
            let section = claim.unwrap_or_else(|| subscriptions.book.claim(context));
            let call = walk::Call { subscriptions, context, section };
            call.end(parts, started.list_limit, ending, || {
                if claim.is_none() {
                    section.give_back();
                }
                give_back();
            })
        });
        keep_first(&mut late, panic);
    }
    if let Some(payload) = late {
        platform::resume(payload);
    }
}

/// Says whether the start was made before a fork and counted among a crowd that was left there: a hazard
/// keeps its word, but in the child nobody is of the crowd.
fn is_of_a_parent(started: &Started, claim: Claim<'_>) -> bool {
    started.forks != crate::fork::count() && matches!(claim, Claim::Crowd(_))
}
