//! Those that wait for their second pass in one start (clause C3.8).
//!
//! The first 128 stand on the stack of the start. Further ones are chained through their nodes, those of each range by
//! themselves, each by one compare-and-exchange; a node that stands in another chain is finished at once.

#![expect(unsafe_code, reason = "nodes are chained through raw pointers")]

use core::cell::Cell;
use core::mem::MaybeUninit;
use core::ptr::{self, NonNull};

use crate::interval::Node;
use crate::invalidation::Invalidation;
use crate::start::Part;
use crate::sync::Ordering;

/// How many second passes a start keeps on its stack.
const KEPT: usize = if cfg!(any(loom, shuttle)) { 1 } else { 128 };

/// What is due: the node, and the invalidation that hit it.
pub(crate) type Due = (NonNull<Node>, *const Invalidation);

/// The first of a chain, which stands beside its range; null if there is none.
///
/// # Invariants
/// The chain leads through nodes whose `begun` this start moved from null; that of the last points to itself.
#[derive(Debug)]
pub(crate) struct Chain(Cell<*const Node>);

impl Chain {
    #[inline]
    pub(crate) fn new() -> Self {
        Chain(Cell::new(ptr::null()))
    }
}

/// # Invariants
/// The entries of `kept` below `len` are written. Nothing is chained behind range `at`, nor before it while passes are
/// finished; `last` is the last that was chained, null once all chains were found empty.
pub(crate) struct Begun {
    kept: [MaybeUninit<Due>; KEPT],
    len: usize,
    taken: usize,
    last: *const Node,
    at: usize,
}

impl Begun {
    #[inline]
    pub(crate) fn new() -> Self {
        let kept = [const { MaybeUninit::uninit() }; KEPT];
        Begun { kept, len: 0, taken: 0, last: ptr::null(), at: 0 }
    }

    /// Adds a node that a range hit; false if it has to be finished at once. Ranges come in their order.
    pub(crate) fn add(&mut self, node: NonNull<Node>, part: &Part) -> bool {
        if self.len < KEPT {
            self.kept[self.len].write((node, &part.invalidation));
            self.len += 1;
            return true;
        }
        self.chain(node, &part.begun)
    }

    fn chain(&mut self, this: NonNull<Node>, chain: &Chain) -> bool {
        // SAFETY: the node began in this start, which is still in phase calling (I6).
        let node = unsafe { this.as_ref() };
        let this = this.as_ptr();
        // ORDERING: acquire pairs with the release in `next`: the start before is through with the link.
        let free = node.begun.compare_exchange(ptr::null_mut(), this, Ordering::Acquire, Ordering::Relaxed);
        if free.is_err() {
            return false;
        }
        // SAFETY: the last of the chain began in this start, which is still in phase calling (I6).
        match unsafe { self.last.as_ref() } {
            // INVARIANT: a chain that has begun is that of the range at hand, whose last was chained last.
            Some(last) if !chain.0.get().is_null() => last.begun.store(this, Ordering::Relaxed),
            _ => chain.0.set(this),
        }
        self.last = this;
        true
    }

    /// Says whether none was added.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Says whether any second pass may be due.
    #[inline]
    pub(crate) fn is_due(&self) -> bool {
        self.taken < self.len || !self.last.is_null()
    }

    /// Takes the next, in the order in which they came. The ranges are those that they were added for.
    pub(crate) fn next(&mut self, parts: &[Part]) -> Option<Due> {
        if self.taken < self.len {
            self.taken += 1;
            // SAFETY: taken is at most len here, so the entry is written.
            return Some(unsafe { self.kept[self.taken - 1].assume_init() });
        }
        while let Some(part) = parts.get(self.at).filter(|_| !self.last.is_null()) {
            if let Some(node) = part.begun.next() {
                return Some((node, &part.invalidation));
            }
            self.at += 1;
        }
        self.last = ptr::null();
        None
    }
}

impl Chain {
    /// Takes the first.
    fn next(&self) -> Option<NonNull<Node>> {
        let this = NonNull::new(self.0.get().cast_mut())?;
        // SAFETY: chained nodes began in this start, which is still in phase calling (I6).
        let node = unsafe { this.as_ref() };
        let next = node.begun.load(Ordering::Relaxed).cast_const();
        self.0.set(if ptr::eq(next, node) { ptr::null() } else { next });
        // ORDERING: release; the next start that chains it (acquire) comes behind.
        node.begun.store(ptr::null_mut(), Ordering::Release);
        Some(this)
    }
}
