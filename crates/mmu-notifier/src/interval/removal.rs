//! Taking a node out, for subscriptions of every kind: withdraw, F, wait for who may be calling it.

use core::ptr::NonNull;

use super::node::Node;
use crate::scan::{Own, Scan, Wanted};
use crate::subscriptions::Subscriptions;
use crate::trace;

/// Takes a node out of the index and silences it; behind it stands a full fence.
#[inline]
pub(crate) fn withdraw(subscriptions: &Subscriptions, node: NonNull<Node>) {
    trace::removing(subscriptions, node);
    // SAFETY: the node is in the index, and nobody else removes it: the caller owns the subscription.
    unsafe { subscriptions.index.remove(node) };
}

/// Waits for starts of other threads that overlap and are calling.
#[inline]
pub(crate) fn wait_for_callers(subscriptions: &Subscriptions, node: NonNull<Node>) {
    // SAFETY: the node is readable until its owner frees it.
    let bounds = unsafe { node.as_ref() }.bounds();
    Scan::wait_for_all(subscriptions, Wanted::Called { bounds, own: Own::Skipped });
}

/// Does both. Returns whether the calling thread is in a callback of the space, whose own call was not waited for.
#[inline(never)]
pub(crate) fn withdraw_and_wait(subscriptions: &Subscriptions, node: NonNull<Node>) -> bool {
    withdraw(subscriptions, node);
    wait_for_callers(subscriptions, node);
    subscriptions.innermost().is_some()
}
