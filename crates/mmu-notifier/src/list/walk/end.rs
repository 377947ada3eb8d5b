//! The walk of an end: what it owes each node, newest first (clauses C4.6, C5.4 and C7.2).

#![expect(unsafe_code, reason = "nodes are called through raw pointers")]

use core::ptr::NonNull;

use super::super::array::{Entries, List};
use super::super::node::{Flushed, Node};
use super::{callbacks, keep};
use crate::hazard::Claim;
use crate::invalidation::Invalidation;
use crate::platform::{self, Payload};
use crate::start::{Ending, keep_first};

/// Calls what an end owes each node, newest first; the first panic is kept, and the rest goes on.
pub(super) fn end_all(
    entries: Entries<'_>,
    invalidation: &Invalidation,
    limit: u64,
    ending: Ending,
    panic: &mut Option<Payload>,
) {
    keep_first(panic, EndWalk::new(entries, invalidation, limit, ending).call_all());
}

/// The walk of an end.
pub(crate) struct EndWalk<'w> {
    entries: Entries<'w>,
    invalidation: &'w Invalidation,
    limit: u64,
    ending: Ending,
    /// How many positions are left.
    left: usize,
    flushed: Flushed,
}

impl<'w> EndWalk<'w> {
    /// The walk of an end in the section that this enters, behind a start that was heard up to `limit`.
    #[inline(always)]
    pub(crate) fn enter(
        list: &'w List,
        section: Claim<'_>,
        invalidation: &'w Invalidation,
        limit: u64,
        ending: Ending,
    ) -> Self {
        list.enter(section);
        Self::new(list.entries(), invalidation, limit, ending)
    }

    #[inline(always)]
    fn new(entries: Entries<'w>, invalidation: &'w Invalidation, limit: u64, ending: Ending) -> Self {
        EndWalk { entries, invalidation, limit, ending, left: entries.len(), flushed: Flushed::default() }
    }

    /// Calls what is owed to each node, newest first; returns the first panic, behind the rest.
    #[inline(always)]
    pub(crate) fn call_all(&mut self) -> Option<Payload> {
        match platform::catch(|| self.go_on()) {
            Ok(()) => None,
            Err(payload) => self.go_on_behind(payload),
        }
    }

    #[cold]
    fn go_on_behind(&mut self, first: Payload) -> Option<Payload> {
        let mut panic = Some(first);
        keep(&mut panic, || self.end_behind_flush());
        while keep(&mut panic, || self.go_on()).is_none() {
            keep(&mut panic, || self.end_behind_flush());
        }
        panic
    }

    /// Goes on to the last; a panic in between passes, and what is owed behind it stays.
    #[inline]
    fn go_on(&mut self) {
        for place in (0..self.left).rev() {
            self.left = place;
            if let Some(node) = self.entries.get(place) {
                self.tell(node);
            }
        }
    }

    #[inline(always)]
    fn tell(&self, node: NonNull<Node>) {
        let (callbacks, what) = (callbacks(node), self.invalidation);
        match self.ending {
            // SAFETY: the table is that of the node, which the section of this walk keeps readable.
            Ending::Whole if self.has_started(node) => unsafe {
                self.flushed.begin(node);
                (callbacks.flush_and_end)(node, what, &self.flushed);
            },
            // SAFETY: as above.
            Ending::Whole => unsafe { (callbacks.invalidate_range)(node, what.range()) },
            // SAFETY: as above.
            _ if self.has_started(node) => unsafe { (callbacks.end)(node, what) },
            _ => {}
        }
    }

    /// The end that is owed to the node whose flush panicked: that at which the walk stopped.
    #[cold]
    fn end_behind_flush(&self) {
        if let Some(node) = self.flushed.take() {
            // SAFETY: the table is that of the node, which the section of this walk keeps readable, on the list or off.
            unsafe { (callbacks(node).end)(node, self.invalidation) };
        }
    }

    /// CONTRACT C4.6: no end without its start.
    #[inline(always)]
    fn has_started(&self, node: NonNull<Node>) -> bool {
        // SAFETY: `entries` yields nodes that the walk's section keeps readable.
        unsafe { node.as_ref() }.is_registered_by(self.limit)
    }
}
