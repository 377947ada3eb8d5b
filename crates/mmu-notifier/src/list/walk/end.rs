//! The walk of an end: what it owes each node, newest first (clauses C4.6, C5.4 and C7.2).

#![expect(unsafe_code, reason = "nodes are called through raw pointers")]

use core::ptr::NonNull;

use super::super::array::Entries;
use super::super::node::Node;
use super::{callbacks, is_off, is_registered_by};
use crate::invalidation::Invalidation;
use crate::platform::Payload;
use crate::start::Ending;

/// Calls what an end owes each node, behind a start that was heard up to `limit`; the first panic is kept, and the rest
/// goes on.
#[inline(always)]
pub(crate) fn end_all(
    entries: Entries<'_>,
    invalidation: &Invalidation,
    limit: u64,
    ending: Ending,
    panic: &mut Option<Payload>,
) {
    for node in entries.newest_first() {
        // CONTRACT C4.6: no end without its start.
        match (ending, is_registered_by(node, limit)) {
            // SAFETY: the table is that of the node, which the section of this walk keeps readable.
            (Ending::Whole, true) => unsafe {
                if (callbacks(node).flush_and_end)(node, invalidation, panic) {
                    end_behind_flush(node, invalidation, panic);
                }
            },
            (Ending::Whole, false) => flush_alone(node, invalidation, panic),
            // SAFETY: as above.
            (_, true) => unsafe { (callbacks(node).end)(node, invalidation, panic) },
            (_, false) => {}
        }
    }
}

/// The flush of a node that has not heard the start, unless it is off the list.
#[cold]
#[inline(never)]
fn flush_alone(node: NonNull<Node>, invalidation: &Invalidation, panic: &mut Option<Payload>) {
    if is_off(node) {
        return;
    }
    // SAFETY: the table is that of the node, which the section of the walk keeps readable.
    unsafe { (callbacks(node).invalidate_range)(node, invalidation.range(), panic) };
}

/// The end that is owed to a node whose flush has panicked; also if it is off the list since (clause C4.2).
#[cold]
#[inline(never)]
fn end_behind_flush(node: NonNull<Node>, invalidation: &Invalidation, panic: &mut Option<Payload>) {
    // SAFETY: the table is that of the node, which the section of the walk keeps readable, on the list or off.
    unsafe { (callbacks(node).end)(node, invalidation, panic) };
}
