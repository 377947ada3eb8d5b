//! The node of an interval: what the tree links, starts call and readers read.
//!
//! Neighbours: `tree` and `intervals` use it under their rules; `interval` puts it before its user's callbacks.
#![expect(unsafe_code, reason = "links to nodes in their users' memory")]

use std::cell::Cell;
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, AtomicU64};

use crate::invalidation::{Answer, Invalidation};
use crate::space::Space;

/// Calls the callback of the interval that the node is part of.
///
/// # Safety
/// The node is the first field of an interval of the type that the function was made for.
pub(crate) type Call = unsafe fn(Link, &Invalidation, u64) -> Answer;

/// A node, 88 bytes as in C.
///
/// # Invariants
/// - The cells of a node that is in a space change only under the space's lock, and `child`, `parent`, `balance`,
///   `max` only while no start that hit something is active; else they are read under the lock or by such a start.
/// - `start`, `last`, `call` and `space` stay as they are while the node is in a space.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Node {
    pub(crate) child: [Cell<Option<Link>>; 2],
    pub(crate) start: Cell<u64>,
    pub(crate) last: Cell<u64>,
    /// The highest `last` in the subtree.
    pub(crate) max: Cell<u64>,
    pub(crate) seq: AtomicU64,
    pub(crate) call: Call,
    pub(crate) parent: Cell<Option<Link>>,
    /// The height on the right less that on the left.
    pub(crate) balance: Cell<i8>,
    pub(crate) place: AtomicU8,
    /// The next one whose remove is put off.
    pub(crate) next: Cell<Option<Link>>,
    /// The space, one holder of which is the node's.
    pub(crate) space: Cell<Option<NonNull<Space>>>,
}

// SAFETY: nothing in a node belongs to a thread.
unsafe impl Send for Node {}
// SAFETY: its cells are used as the invariants say, so that no two threads use one unless both read.
unsafe impl Sync for Node {}

impl Node {
    pub(crate) fn new(call: Call) -> Self {
        Self {
            child: [Cell::new(None), Cell::new(None)],
            start: Cell::new(0),
            last: Cell::new(0),
            max: Cell::new(0),
            seq: AtomicU64::new(0),
            call,
            parent: Cell::new(None),
            balance: Cell::new(0),
            place: AtomicU8::new(0),
            next: Cell::new(None),
            space: Cell::new(None),
        }
    }
}

/// A pointer to a node.
///
/// # Invariants
/// The node lives as long as the link is used, and the pointer may be used for the whole interval around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct Link(NonNull<Node>);

// SAFETY: it is used as a reference to a node, which may be shared.
unsafe impl Send for Link {}
// SAFETY: the same.
unsafe impl Sync for Link {}

impl Link {
    /// Makes a link.
    ///
    /// # Safety
    /// The node lives, and does not move, until the link and all its copies are used for the last time; `node` was
    /// made from a pointer to the whole interval.
    #[inline]
    pub(crate) unsafe fn new(node: NonNull<Node>) -> Self {
        // INVARIANT: the caller's promise.
        Self(node)
    }

    #[inline]
    pub(crate) fn as_ptr(self) -> NonNull<Node> {
        self.0
    }
}

impl Deref for Link {
    type Target = Node;

    #[inline]
    fn deref(&self) -> &Node {
        // SAFETY: the node lives while the link is used, and is only ever shared.
        unsafe { self.0.as_ref() }
    }
}
