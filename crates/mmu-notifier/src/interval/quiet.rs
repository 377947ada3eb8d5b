//! Waiting until a node is quiet: the reader's half of collision-retry, whose protocol stands in
//! [`node`](super::node). [`read`](super::read) is what subscribers see of it.

use super::node::{Node, Sequence};
use crate::address::Range;
use crate::hazard::Hazard;
use crate::scan::{Scan, Wanted};
use crate::subscriptions::Subscriptions;
use crate::sync::full_fence;

impl Node {
    /// Says whether what is published there makes the node busy.
    pub(crate) fn is_busy_for(&self, hazard: &Hazard) -> bool {
        let ((first, last), owner) = (hazard.bounds(), self.owner());
        let (own_first, own_last) = self.bounds();
        let own = owner != 0 && hazard.owner() == owner;
        first <= own_last && own_first <= last && !own
    }

    /// Looks for what makes the node busy: the sequence that the look is for, and the scan at the first that does.
    #[inline(always)]
    fn look(&self, subscriptions: &Subscriptions) -> (Sequence, Option<Scan>) {
        let sequence = self.sequence();
        (sequence, self.look_at(subscriptions, self.bounds()))
    }

    /// Looks for what is active and overlaps `bounds`.
    #[inline(always)]
    fn look_at(&self, subscriptions: &Subscriptions, bounds: (u64, u64)) -> Option<Scan> {
        let wanted = Wanted::Quiet { bounds, owner: self.owner() };
        // ORDERING: sequence, F, scan; against publication, F, sequence of a start.
        full_fence();
        Scan::at_first_block(&subscriptions.book, wanted)
    }

    /// Says whether nothing is active that overlaps `part` of the range.
    pub(crate) fn is_quiet(&self, subscriptions: &Subscriptions, part: Range) -> bool {
        self.look_at(subscriptions, part.bounds()).is_none()
    }

    /// Waits as [`read_begin`](Self::read_begin), for what overlaps `part`. It does not settle the node, which
    /// may be busy elsewhere; the sequence is good for what is read of `part`, by the same argument.
    pub(crate) fn read_begin_part(
        &self,
        subscriptions: &Subscriptions,
        part: Range,
        deadline: Option<u64>,
    ) -> Option<Sequence> {
        loop {
            let sequence = self.sequence();
            let blocked = self.look_at(subscriptions, part.bounds());
            if blocked.is_some_and(|scan| !scan.wait(subscriptions, deadline)) {
                return None;
            }
            if self.sequence() == sequence {
                return Some(sequence);
            }
        }
    }

    /// Waits until the node is not busy; none if the deadline came first.
    ///
    /// # Context
    /// May sleep; not in a callback of an invalidation that makes the node busy.
    #[inline]
    pub(crate) fn read_begin(
        &self,
        subscriptions: &Subscriptions,
        deadline: Option<u64>,
    ) -> Option<Sequence> {
        self.settled_sequence().or_else(|| self.read_begin_looking(subscriptions, deadline))
    }

    /// The same where the sequence is not settled. The fence waits for every store before it: where nothing blocks, there
    /// is none here.
    #[cold]
    #[inline(never)]
    pub(super) fn read_begin_looking(
        &self,
        subscriptions: &Subscriptions,
        deadline: Option<u64>,
    ) -> Option<Sequence> {
        self.settle_if_quiet(subscriptions).or_else(|| self.wait_and_settle(subscriptions, deadline))
    }

    #[cold]
    #[inline(never)]
    fn wait_and_settle(&self, subscriptions: &Subscriptions, deadline: Option<u64>) -> Option<Sequence> {
        loop {
            let (sequence, blocked) = self.look(subscriptions);
            if blocked.is_some_and(|scan| !scan.wait(subscriptions, deadline)) {
                return None;
            }
            // CONTRACT C3.4: on it sleeps if another invalidation hit it meanwhile.
            if let Some(token) = self.settle(sequence) {
                return Some(token);
            }
        }
    }

    /// The token if the node is not busy now.
    pub(crate) fn try_read_begin(&self, subscriptions: &Subscriptions) -> Option<Sequence> {
        self.settled_sequence().or_else(|| self.settle_if_quiet(subscriptions))
    }

    #[inline(always)]
    fn settle_if_quiet(&self, subscriptions: &Subscriptions) -> Option<Sequence> {
        let (sequence, blocked) = self.look(subscriptions);
        if blocked.is_none() { self.settle(sequence) } else { None }
    }
}
