//! Walks: the calls of the list, each within a section of its own (clauses C4.5, C4.6 and C5).
//!
//! A start notes the number up to which it called ([`StartWalk`]); its end calls the same, less who left ([`end_all`]).

#![expect(unsafe_code, reason = "nodes are called through raw pointers")]

mod end;
mod start;

use core::ptr::NonNull;

pub(crate) use end::end_all;
pub(crate) use start::{StartWalk, Stop, start};

use super::array::Entries;
use super::node::{Callbacks, Node, Young};
use crate::address::{Address, Range};
use crate::frame::{Frame, Link};
use crate::hazard::Claim;
use crate::platform::{self, Context, Payload, keep_first};
use crate::space::{AddressSpaceRef, Pte, Space};
use crate::start::{Ending, Part};
use crate::subscriptions::Subscriptions;

/// A call that walks the list, with its claim.
pub(crate) struct Call<'c> {
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
        let frame = Frame::of_walk(self.subscriptions.id, &[], self.section);
        let link = frame.link(self.context);
        enter();
        let result = visit(&mut panic);
        keep_first(&mut panic, self.leave((&frame, link), give_back));
        (result, platform::take_kept(&mut panic))
    }

    /// Leaves the section and the frame of a walk, and makes the exit that was left to it. Returns the first panic.
    #[inline(always)]
    pub(crate) fn leave(
        &self,
        (frame, link): (&Frame, Link<'_>),
        give_back: impl FnOnce(),
    ) -> Option<Payload> {
        let mut panic = self.subscriptions.leave_section(self.section);
        drop(link);
        give_back();
        if frame.is_exit_due() {
            // CONTRACT C8.3
            // SAFETY: the last user's drop left the exit to this call, whose caller is a holder.
            let exit = platform::catch(|| unsafe {
                Space::exit_and_let_go(NonNull::from(self.subscriptions.space()))
            });
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
            for node in on_list(entries) {
                // SAFETY: the table is that of the node, which this section keeps readable.
                unsafe { (callbacks(node).invalidate_range)(node, range, panic) };
            }
        };
        self.ask(visit);
    }

    pub(crate) fn change_pte(&self, address: Address, pte: Pte) {
        let visit = |entries: Entries<'_>, panic: &mut Option<Payload>| {
            for node in on_list(entries) {
                // SAFETY: the table is that of the node, which this section keeps readable.
                unsafe { (callbacks(node).change_pte)(node, address, pte, panic) };
            }
        };
        self.ask(visit);
    }

    /// Asks everybody, or until the first yes (clause C5.6).
    pub(crate) fn young(&self, question: Young) -> bool {
        let visit = |entries: Entries<'_>, panic: &mut Option<Payload>| {
            let mut young = false;
            for node in on_list(entries) {
                // SAFETY: the table is that of the node, which this section keeps readable.
                young |= unsafe { (callbacks(node).young)(node, question, panic) };
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
            on_list(entries).for_each(|node| release(node, panic));
        };
        self.walk(visit, || self.section.give_back()).1
    }

    /// Releases one node, unless somebody else does or did.
    #[inline(always)]
    pub(crate) fn release_one(&self, node: NonNull<Node>) -> Option<Payload> {
        // ORDERING: marked, then claimed (release, F): an exit that finds the node claimed (acquire) waits for this section.
        let mark = || self.subscriptions.list.mark(self.section);
        self.in_section(mark, |panic| release(node, panic), || self.section.give_back_kept()).1
    }
}

/// Asks the list of a space.
pub(crate) fn ask<R>(space: &AddressSpaceRef, silent: R, ask: impl FnOnce(&Call<'_>) -> R) -> R {
    let Some(subscriptions) =
        space.space().subscriptions().filter(|subscriptions| subscriptions.list.count() != 0)
    else {
        return silent;
    };
    platform::with_context(|context| {
        let section = subscriptions.book.claim(context);
        ask(&Call { subscriptions, context, section })
    })
}

/// Calls `release` if nobody has (clause C8.2).
fn release(node: NonNull<Node>, panic: &mut Option<Payload>) {
    // SAFETY: the caller's section, or its registration, keeps the node readable.
    let released = unsafe { node.as_ref() };
    if released.claim_release() {
        // SAFETY: the table is that of the node.
        unsafe { (released.callbacks.release)(node, panic) };
    }
}

/// The table of a node that a walk has come to.
fn callbacks(node: NonNull<Node>) -> &'static Callbacks {
    // SAFETY: the section of the walk keeps what it has come to readable.
    unsafe { node.as_ref() }.callbacks
}

/// Says whether a node was registered when the numbers had come up to `limit`, and is on the list.
#[inline(always)]
fn is_registered_by(node: NonNull<Node>, limit: u64) -> bool {
    // SAFETY: the section of the walk keeps what it has come to readable.
    unsafe { node.as_ref() }.is_registered_by(limit)
}

/// The nodes of a walk that calls whoever is on the list.
fn on_list(entries: Entries<'_>) -> impl Iterator<Item = NonNull<Node>> {
    entries.newest_first().filter(|node| !is_off(*node))
}

/// Says whether a node was taken off the list.
fn is_off(node: NonNull<Node>) -> bool {
    // SAFETY: the section of the walk keeps what it has come to readable.
    unsafe { node.as_ref() }.is_off()
}
