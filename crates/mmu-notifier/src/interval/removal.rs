//! Taking a node out, for subscriptions of every kind: withdraw, F, wait for who may be calling it.

use core::ptr::NonNull;

use super::node::Node;
use crate::scan::{Own, Scan, Wanted};
use crate::subscriptions::Subscriptions;
use crate::sync::full_fence;
use crate::trace;

/// Takes a node out of the index and silences it; behind it stands a full fence.
pub(crate) fn withdraw(subscriptions: &Subscriptions, node: NonNull<Node>) {
    trace::removing(subscriptions, node);
    // SAFETY: the node is in the index, and nobody else removes it: the caller owns the subscription.
    unsafe { subscriptions.index.remove(node) };
    // SAFETY: the node is readable until its owner frees it.
    unsafe { node.as_ref() }.withdraw();
    // ORDERING: withdrawn, F, scan; against publication, F, search of a start.
    full_fence();
}

/// Waits for starts of other threads that overlap and are calling.
pub(crate) fn wait_for_callers(subscriptions: &Subscriptions, node: NonNull<Node>) {
    // SAFETY: the node is readable until its owner frees it.
    let bounds = unsafe { node.as_ref() }.bounds();
    let wanted = Wanted::Called { bounds, own: Own::Skipped };
    Scan::new(&subscriptions.book, wanted).wait(subscriptions, None);
}
