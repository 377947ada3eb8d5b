//! Leaving the list: unregister and put, for nodes of every kind.
//!
//! # Unregister
//! Release, unless the exit has it (its section is waited for like any walk); off the list; a grace period, unless a look
//! at the walks, before the list is unlocked, finds none.
//! Within a walk of the own thread that walk is not waited for: the caller hangs the node up, and what frees
//! the memory comes behind the walk.
//!
//! # Put
//! The last put takes the node off the list and hangs it up until the walks of that moment are over; then it is
//! freed. If nothing runs, put does it itself; else who ends the last of those walks, outside its section; in a
//! space that leaves such work, the next call that may sleep, and [`synchronize`](crate::synchronize) at the
//! latest.

#![expect(unsafe_code, reason = "nodes are reached through raw pointers")]

use core::ptr::NonNull;

use super::Off;
use super::node::Node;
use super::walk::Call;
use crate::diagnostics;
use crate::frees;
use crate::hung::{Finish, Hung, When};
use crate::platform::{self, Payload, with_context};
use crate::scan::{Own, Scan, Wanted};
use crate::space::AddressSpaceRef;
use crate::subscriptions::Subscriptions;
use crate::trace;

/// What an unregister left to its caller.
pub(crate) struct Left<'l> {
    /// Whether walks may know the node still: those of the own thread, at the most.
    pub(crate) off: Off<'l>,
    /// That of the release; it goes on behind everything else.
    pub(crate) panic: Option<Payload>,
}

/// Releases a node unless somebody did, takes it off, and waits for the walks of other threads.
///
/// # Context
/// May sleep.
pub(crate) fn unregister(subscriptions: &Subscriptions, node: NonNull<Node>) -> Left<'_> {
    // SAFETY: the node is registered, so it is readable until its owner frees it.
    let registered = unsafe { node.as_ref() };
    diagnostics::may_sleep(subscriptions, "unregister", registered.label());
    trace::unregistering(subscriptions, registered);
    // CONTRACT C8.2: once, by whoever comes first.
    let mut panic = with_context(|context| {
        let section = subscriptions.book.claim(context);
        Call { subscriptions, context, section }.release_one(node)
    });
    let list = &subscriptions.list;
    let has_more_to_do =
        subscriptions.has_left() || list.has_retired() || subscriptions.innermost().is_some();
    let off = if has_more_to_do {
        Off::Walked(list.take_off(registered))
    } else {
        list.remove(registered, &subscriptions.book)
    };
    let Off::Walked(stamp) = off else { return Left { off, panic } };
    let others = Wanted::Walked { stamp, own: Own::Skipped };
    Scan::wait_for_all(subscriptions, others);
    list.reclaim(&subscriptions.book);
    // CONTRACT C7.2: a panic of what was left by others comes behind this node's own end.
    let left =
        subscriptions.has_left().then(|| platform::catch(|| subscriptions.may_sleep()).err()).flatten();
    platform::keep_first(&mut panic, left);
    Left { off, panic }
}

/// Leaves the free of a node, which the last put took off the list with this stamp, to a time when no walk knows it.
///
/// # Safety
/// - `free` may be called with the hung node of this node, on any thread.
/// - The node is alive until then, and holds `space`.
///
/// # Context
/// Does not sleep.
pub(crate) unsafe fn put(
    space: &AddressSpaceRef,
    subscriptions: &Subscriptions,
    node: NonNull<Node>,
    stamp: u64,
    free: Finish,
) {
    // SAFETY: as promised by the caller.
    let last = unsafe { node.as_ref() };
    trace::put(subscriptions, last);
    frees::begin(&last.ticket, space);
    let wanted = Wanted::Walked { stamp, own: Own::Awaited };
    // SAFETY: as promised by the caller; off the list, behind a full fence.
    unsafe { hang(subscriptions, node, wanted, (free, When::MayBeLeft)) };
}

/// Hangs a node up until `wanted` is over.
///
/// # Safety
/// As for [`Hooks::hang`](crate::hung::Hooks::hang); the node holds the space.
pub(crate) unsafe fn hang(
    subscriptions: &Subscriptions,
    node: NonNull<Node>,
    wanted: Wanted,
    how: (Finish, When),
) {
    let hung = node.as_ptr().cast::<u8>().wrapping_add(core::mem::offset_of!(Node, hung));
    // SAFETY: the hung node lies in the node, so its address is not null.
    let hung = unsafe { NonNull::new_unchecked(hung.cast()) };
    // SAFETY: as promised by the caller.
    unsafe { subscriptions.hooks.hang(&subscriptions.book, hung, wanted, how) };
}

/// The node that a hung node is part of.
pub(crate) fn node_of(hung: NonNull<Hung>) -> NonNull<Node> {
    let node = hung.as_ptr().cast::<u8>().wrapping_sub(core::mem::offset_of!(Node, hung));
    // SAFETY: the node begins before its hung node in the same allocation, so its address is not null.
    unsafe { NonNull::new_unchecked(node.cast()) }
}
