//! Those that wait for their second pass in one start (clause C3.8).
//!
//! The first 128 stand on the stack of the start. Further ones are chained through their nodes, each by one
//! compare-and-exchange; a node that stands in another start's chain is finished at once.

#![expect(unsafe_code, reason = "nodes are chained through raw pointers")]

use core::mem::MaybeUninit;
use core::ptr::{self, NonNull};

use crate::interval::Node;
use crate::invalidation::Invalidation;
use crate::sync::Ordering;

/// How many second passes a start keeps on its stack.
const KEPT: usize = if cfg!(any(loom, shuttle)) { 1 } else { 128 };

/// What is due: the node, and the invalidation that hit it.
pub(crate) type Due = (NonNull<Node>, *const Invalidation);

/// # Invariants
/// The entries of `kept` below `len` are written. The chain leads from `first` to `last` through nodes whose
/// `begun.next` this start moved from null; that of the last points to itself.
pub(crate) struct Begun {
    kept: [MaybeUninit<Due>; KEPT],
    len: usize,
    taken: usize,
    first: *const Node,
    last: *const Node,
}

impl Begun {
    #[inline]
    pub(crate) fn new() -> Self {
        let kept = [const { MaybeUninit::uninit() }; KEPT];
        Begun { kept, len: 0, taken: 0, first: ptr::null(), last: ptr::null() }
    }

    /// Adds a node; false if it has to be finished at once.
    pub(crate) fn add(&mut self, node: NonNull<Node>, invalidation: &Invalidation) -> bool {
        if self.len < KEPT {
            self.kept[self.len].write((node, invalidation));
            self.len += 1;
            return true;
        }
        self.chain(node, invalidation)
    }

    fn chain(&mut self, this: NonNull<Node>, invalidation: &Invalidation) -> bool {
        // SAFETY: the node began in this start, which is still in phase calling (I6).
        let node = unsafe { this.as_ref() };
        let this = this.as_ptr();
        // ORDERING: acquire pairs with the release in `next`: the start before is through with the link.
        let free =
            node.begun.next.compare_exchange(ptr::null_mut(), this, Ordering::Acquire, Ordering::Relaxed);
        if free.is_err() {
            return false;
        }
        node.begun.invalidation.set(invalidation);
        // SAFETY: the last of the chain began in this start, which is still in phase calling (I6).
        match unsafe { self.last.as_ref() } {
            Some(last) => last.begun.next.store(this, Ordering::Relaxed),
            None => self.first = this,
        }
        self.last = this;
        true
    }

    /// Says whether none was added.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Says whether any second pass is due.
    #[inline]
    pub(crate) fn is_due(&self) -> bool {
        self.taken < self.len || !self.first.is_null()
    }

    /// Takes the next, in the order in which they came.
    pub(crate) fn next(&mut self) -> Option<Due> {
        if self.taken < self.len {
            self.taken += 1;
            // SAFETY: taken is at most len here, so the entry is written.
            return Some(unsafe { self.kept[self.taken - 1].assume_init() });
        }
        let this = NonNull::new(self.first.cast_mut())?;
        // SAFETY: chained nodes began in this start, which is still in phase calling (I6).
        let node = unsafe { this.as_ref() };
        let next = node.begun.next.load(Ordering::Relaxed).cast_const();
        self.first = if ptr::eq(next, node) { ptr::null() } else { next };
        let due = (this, node.begun.invalidation.get());
        // ORDERING: release; the next start that chains it (acquire) comes behind.
        node.begun.next.store(ptr::null_mut(), Ordering::Release);
        Some(due)
    }
}
