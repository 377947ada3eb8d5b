//! Events and spans for the crate `tracing`, with the feature of that name; without it every function here is
//! empty, and nothing remains of its call.
//!
//! What is told, and at which level, stands in the [crate's documentation](crate#tracing). Everything is told
//! outside the library's own locks. A space is named by its id, which is never used twice in a process, and by
//! its label.

#[cfg(feature = "tracing")]
pub(crate) use told::*;
#[cfg(not(feature = "tracing"))]
pub(crate) use untold::*;

#[cfg(feature = "tracing")]
mod told {
    use core::mem;
    use core::ptr::NonNull;

    use tracing::field::display;
    use tracing::span::EnteredSpan;
    use tracing::{debug, debug_span, trace, trace_span};

    use crate::address::Range;
    use crate::interval::Node;
    use crate::invalidation::Owner;
    use crate::list;
    use crate::platform;
    use crate::start::Part;
    use crate::subscriptions::Subscriptions;

    /// Whether anything is told.
    pub(crate) const ENABLED: bool = true;

    /// What a call is told within; it ends when this is dropped.
    pub(crate) struct Span(Option<EnteredSpan>);

    const TARGET: &str = "mmu_notifier";

    /// Calls the subscriber of `tracing`. Its panic ends here: no call of the library stops half-way for it.
    fn tell<R>(told: impl FnOnce() -> R) -> Option<R> {
        // What a panic left is forgotten, since its drop may panic too.
        platform::catch(told).map_err(mem::forget).ok()
    }

    impl Drop for Span {
        fn drop(&mut self) {
            tell(|| self.0.take());
        }
    }

    /// The span of a start that calls somebody; of several ranges it names the first.
    pub(crate) fn calling(subscriptions: &Subscriptions, parts: &[Part]) -> Span {
        let range = parts.first().map(|part| display(part.invalidation.range()));
        let (space, ranges) = (subscriptions.id, parts.len());
        let label = subscriptions.label;
        Span(tell(|| trace_span!(target: TARGET, "start", space, label, range, ranges).entered()))
    }

    /// The span of an exit.
    pub(crate) fn exiting(subscriptions: &Subscriptions) -> Span {
        let (space, label) = (subscriptions.id, subscriptions.label);
        Span(tell(|| debug_span!(target: TARGET, "exit", space, label).entered()))
    }

    /// A start succeeded; `hits` interval callbacks were called for all its parts together.
    #[inline]
    pub(crate) fn started(subscriptions: &Subscriptions, parts: &[Part], hits: u64) {
        for part in parts {
            let (what, space, label) = (&part.invalidation, subscriptions.id, subscriptions.label);
            let (range, event, blockable) = (what.range(), what.event(), what.is_blockable());
            let owner = what.owner().map(Owner::get);
            tell(|| trace!(target: TARGET, space, label, %range, ?event, owner, blockable, hits, "started"));
        }
    }

    /// A start was refused.
    pub(crate) fn refused(subscriptions: &Subscriptions, parts: &[Part]) {
        for part in parts {
            let (what, space, label) = (&part.invalidation, subscriptions.id, subscriptions.label);
            let (range, event, owner) = (what.range(), what.event(), what.owner().map(Owner::get));
            tell(|| debug!(target: TARGET, space, label, %range, ?event, owner, "refused"));
        }
    }

    /// An invalidation is about to end: its readers go on.
    #[inline]
    pub(crate) fn ending(subscriptions: &Subscriptions, parts: &[Part]) {
        for part in parts {
            let (space, label) = (subscriptions.id, subscriptions.label);
            let range = part.invalidation.range();
            tell(|| trace!(target: TARGET, space, label, %range, "ending"));
        }
    }

    /// An interval was inserted.
    pub(crate) fn inserted(subscriptions: &Subscriptions, node: NonNull<Node>) {
        about(subscriptions, node, "inserted");
    }

    /// An interval is about to be removed: nobody calls it who has not begun to.
    pub(crate) fn removing(subscriptions: &Subscriptions, node: NonNull<Node>) {
        about(subscriptions, node, "removing");
    }

    #[expect(unsafe_code, reason = "nodes are reached through raw pointers")]
    fn about(subscriptions: &Subscriptions, node: NonNull<Node>, message: &'static str) {
        // SAFETY: its owner calls this, and frees it after its removal only.
        let node = unsafe { node.as_ref() };
        let (first, last) = node.bounds();
        let range = Range::from_first_last(first, last).ok().map(display);
        let (space, label, subscriber) = (subscriptions.id, subscriptions.label, node.label());
        tell(|| trace!(target: TARGET, space, label, range, subscriber, "{message}"));
    }

    /// A list subscriber was registered. The map lock is held.
    pub(crate) fn registered(subscriptions: &Subscriptions, node: &list::Node) {
        let (space, label, subscriber) = (subscriptions.id, subscriptions.label, node.label());
        tell(|| debug!(target: TARGET, space, label, subscriber, "registered"));
    }

    /// A list subscriber is about to be unregistered.
    pub(crate) fn unregistering(subscriptions: &Subscriptions, node: &list::Node) {
        let (space, label, subscriber) = (subscriptions.id, subscriptions.label, node.label());
        tell(|| debug!(target: TARGET, space, label, subscriber, "unregistering"));
    }

    /// The last reference to a list subscriber was put.
    pub(crate) fn put(subscriptions: &Subscriptions, node: &list::Node) {
        let (space, label, subscriber) = (subscriptions.id, subscriptions.label, node.label());
        tell(|| debug!(target: TARGET, space, label, subscriber, "put"));
    }
}

#[cfg(not(feature = "tracing"))]
mod untold {
    use core::ptr::NonNull;

    use crate::interval::Node;
    use crate::list;
    use crate::start::Part;
    use crate::subscriptions::Subscriptions;

    pub(crate) const ENABLED: bool = false;

    /// Stands for a span.
    pub(crate) struct Span;

    #[inline(always)]
    pub(crate) fn calling(_: &Subscriptions, _: &[Part]) -> Span {
        Span
    }

    #[inline(always)]
    pub(crate) fn exiting(_: &Subscriptions) -> Span {
        Span
    }

    #[inline(always)]
    pub(crate) fn started(_: &Subscriptions, _: &[Part], _: u64) {}

    #[inline(always)]
    pub(crate) fn refused(_: &Subscriptions, _: &[Part]) {}

    #[inline(always)]
    pub(crate) fn ending(_: &Subscriptions, _: &[Part]) {}

    #[inline(always)]
    pub(crate) fn inserted(_: &Subscriptions, _: NonNull<Node>) {}

    #[inline(always)]
    pub(crate) fn removing(_: &Subscriptions, _: NonNull<Node>) {}

    #[inline(always)]
    pub(crate) fn registered(_: &Subscriptions, _: &list::Node) {}

    #[inline(always)]
    pub(crate) fn unregistering(_: &Subscriptions, _: &list::Node) {}

    #[inline(always)]
    pub(crate) fn put(_: &Subscriptions, _: &list::Node) {}
}
