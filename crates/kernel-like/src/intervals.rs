//! The interval side of a space: one sequence, one count of active invalidations, one tree, one spinlock.
//!
//! # Protocol
//! - The sequence is even while nothing is hit. The first *start* that finds a hit makes it odd, which **freezes**
//!   the tree: starts then walk it without the lock. The last *end* makes it even again, and thaws.
//! - A callback stores the odd sequence in its node. Who finds it there and in the space, under the lock, is busy:
//!   *read_begin* sleeps until the space's sequence moves on. A node's sequence is odd from its insertion on, so that
//!   an even one of the space means that nobody is busy.
//! - *insert* with a start active freezes too, since the node is to be busy, and leaves the node to the last end.
//! - *remove* from a frozen tree leaves the node to the last end, and sleeps until it **is out** (not: until the
//!   sequence moves on, which says nothing about an end that has not come to the node).
//!
//! # Invariants
//! Frozen implies active > 0. A node is in the tree exactly if its place says so (`IN`, `GOING`), and the tree, and
//! the links of the nodes in it, change only under the lock and while not frozen.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::invalidation::{Answer, Invalidation, Refused};
use crate::node::Link;
use crate::queue::Queue;
use crate::spin::{Guard, Spinlock};
use crate::tree::{self, Tree};

/// Where a node is: in no space.
const OUT: u8 = 0;
/// In the list of inserts put off.
const COMING: u8 = 1;
/// In the tree.
const IN: u8 = 2;
/// In the tree, and in the list of removes put off.
const GOING: u8 = 3;

/// The interval side.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Intervals {
    state: Spinlock<State>,
    /// Written under the lock.
    seq: AtomicU64,
    queue: Queue,
}

#[derive(Debug, Default)]
struct State {
    active: u64,
    tree: Tree,
    /// Inserts put off, linked both ways: `child[0]` leads on, `parent` back.
    coming: Option<Link>,
    /// Removes put off, linked by `next`.
    going: Option<Link>,
}

impl Default for Intervals {
    fn default() -> Self {
        Self { state: Spinlock::default(), seq: AtomicU64::new(2), queue: Queue::default() }
    }
}

impl Intervals {
    /// Calls all that overlap. What is begun ends with the drop of what this gives.
    #[inline]
    pub(crate) fn start(&self, what: &Invalidation) -> Result<Begun<'_>, Refused> {
        let (start, last) = (what.start(), what.last());
        let (first, seq) = {
            let mut state = self.state.lock();
            state.active += 1;
            match state.tree.first(start, last) {
                None => return Ok(Begun(self)),
                first => (first, self.freeze(&state)),
            }
        };
        let begun = Begun(self);
        let mut next = first;
        while let Some(node) = next {
            if call(node, what, seq) == Answer::Refused && !what.is_blockable() {
                return Err(Refused);
            }
            next = tree::next(node, start, last);
        }
        Ok(begun)
    }

    /// Ends what a start began.
    #[inline]
    pub(crate) fn end(&self) {
        let mut state = self.state.lock();
        state.active -= 1;
        if state.active != 0 {
            return;
        }
        let seq = self.seq(&state);
        if !is_frozen(seq) {
            return;
        }
        // ORDERING: pairs with the load in `wait_until_over`: who wakes sees what the owner wrote before.
        self.seq.store(seq + 1, Ordering::Release);
        if state.going.is_some() || state.coming.is_some() {
            state.catch_up();
        }
        drop(state);
        self.queue.wake_all();
    }

    /// Inserts a node, or leaves it to the last end.
    pub(crate) fn insert(&self, node: Link) {
        let mut state = self.state.lock();
        // ORDERING: `seq` and `place` are read under the lock, or after this by who was handed the node.
        if state.active == 0 {
            node.seq.store(self.seq(&state) - 1, Ordering::Relaxed);
            state.put_in(node);
        } else {
            node.seq.store(self.freeze(&state), Ordering::Relaxed);
            state.put_off(node);
        }
    }

    /// Removes a node: afterwards it is nobody's but the caller's.
    pub(crate) fn remove(&self, node: Link) {
        let mut state = self.state.lock();
        if node.place.load(Ordering::Relaxed) == COMING {
            state.call_off(node);
        } else if is_frozen(self.seq(&state)) {
            node.next.set(state.going);
            node.place.store(GOING, Ordering::Relaxed);
            state.going = Some(node);
            drop(state);
            // ORDERING: pairs with the store in `take_out`, the last access to the node there.
            self.queue.wait_until(|| node.place.load(Ordering::Acquire) == OUT);
        } else {
            state.take_out(node);
        }
    }

    /// Takes a token while the node is not busy.
    #[inline]
    pub(crate) fn read_begin(&self, node: Link) -> u64 {
        let state = self.state.lock();
        // ORDERING: a callback stores it without this lock. What is missed here was stored beside, by a start whose
        // callback makes the token stale under the subscriber's lock.
        let token = node.seq.load(Ordering::Relaxed);
        let busy = token == self.seq(&state);
        drop(state);
        if busy {
            self.wait_until_over(token);
        }
        token
    }

    /// Sleeps until the sequence moves on.
    #[cold]
    fn wait_until_over(&self, token: u64) {
        // ORDERING: pairs with the store in `end`.
        self.queue.wait_until(|| self.seq.load(Ordering::Acquire) != token);
    }

    #[inline]
    fn seq(&self, _held: &Guard<'_, State>) -> u64 {
        // ORDERING: it is written under the lock that is held.
        self.seq.load(Ordering::Relaxed)
    }

    /// Makes the sequence odd, and gives it.
    #[inline]
    fn freeze(&self, held: &Guard<'_, State>) -> u64 {
        let seq = self.seq(held) | 1;
        // ORDERING: it is read under the lock, or by sleepers for whom it does not move on here.
        self.seq.store(seq, Ordering::Relaxed);
        seq
    }
}

impl State {
    fn put_in(&mut self, node: Link) {
        node.place.store(IN, Ordering::Relaxed);
        self.tree.insert(node);
    }

    fn take_out(&mut self, node: Link) {
        self.tree.erase(node);
        // ORDERING: pairs with the load of the remove that sleeps: the node may be gone after this.
        node.place.store(OUT, Ordering::Release);
    }

    fn put_off(&mut self, node: Link) {
        node.place.store(COMING, Ordering::Relaxed);
        node.parent.set(None);
        node.child[0].set(self.coming);
        if let Some(other) = self.coming {
            other.parent.set(Some(node));
        }
        self.coming = Some(node);
    }

    /// Takes a node whose insert was put off out of that list.
    fn call_off(&mut self, node: Link) {
        let (before, behind) = (node.parent.get(), node.child[0].get());
        match before {
            None => self.coming = behind,
            Some(before) => before.child[0].set(behind),
        }
        if let Some(behind) = behind {
            behind.parent.set(before);
        }
        node.place.store(OUT, Ordering::Relaxed);
    }

    /// Does what was put off.
    #[cold]
    fn catch_up(&mut self) {
        while let Some(node) = self.going {
            self.going = node.next.get();
            self.take_out(node);
        }
        while let Some(node) = self.coming {
            self.coming = node.child[0].get();
            self.put_in(node);
        }
    }
}

/// A start whose end is due: at once if it is refused or panics.
pub(crate) struct Begun<'a>(&'a Intervals);

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

#[inline]
fn is_frozen(seq: u64) -> bool {
    seq & 1 == 1
}

#[inline]
#[expect(unsafe_code, reason = "calls back by a function pointer")]
fn call(node: Link, what: &Invalidation, seq: u64) -> Answer {
    // SAFETY: a node's `call` is made for the type of its interval, in `Interval::new`.
    unsafe { (node.call)(node, what, seq) }
}
