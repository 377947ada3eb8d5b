//! What hung nodes are linked by, and lists of them; all is used under the lock of the hooks.

#![expect(unsafe_code, reason = "nodes are linked through raw pointers")]

use core::cell::Cell;
use core::ptr::{self, NonNull};

/// The place of a node in a list: the next one, and in the lowest bit whether this one is short.
#[derive(Debug)]
#[repr(transparent)]
pub(crate) struct Link(Cell<*const Link>);

/// The bit of a link that says that it is short.
const SHORT: usize = 1;

impl Link {
    /// That of a [`Hung`](super::Hung).
    pub(super) fn long() -> Self {
        Link(Cell::new(ptr::null()))
    }

    /// The link of an interval's node.
    pub(crate) fn short() -> Self {
        // INVARIANT: the caller puts it where an interval's node has its link.
        Link(Cell::new(ptr::without_provenance(SHORT)))
    }

    pub(super) fn is_short(&self) -> bool {
        self.0.get().addr() & SHORT != 0
    }

    pub(super) fn next(&self) -> *const Link {
        self.0.get().map_addr(|address| address & !SHORT)
    }

    pub(super) fn set_next(&self, next: *const Link) {
        let short = self.0.get().addr() & SHORT;
        self.0.set(next.map_addr(|address| address | short));
    }
}

/// Nodes in order; used under the lock of the hooks.
#[derive(Debug)]
pub(super) struct Queue {
    first: Cell<*const Link>,
    last: Cell<*const Link>,
}

impl Queue {
    pub(super) fn new() -> Self {
        Queue { first: Cell::new(ptr::null()), last: Cell::new(ptr::null()) }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.first.get().is_null()
    }

    /// Adds a node that is alive until it is finished or cancelled.
    pub(super) fn push(&self, node: NonNull<Link>) {
        // SAFETY: as the caller promises.
        unsafe { node.as_ref() }.set_next(ptr::null());
        // SAFETY: queued nodes are alive.
        match unsafe { self.last.replace(node.as_ptr()).as_ref() } {
            Some(last) => last.set_next(node.as_ptr()),
            None => self.first.set(node.as_ptr()),
        }
    }

    pub(super) fn pop(&self) -> Option<NonNull<Link>> {
        let node = NonNull::new(self.first.get().cast_mut())?;
        // SAFETY: queued nodes are alive.
        self.first.set(unsafe { node.as_ref() }.next());
        if self.first.get().is_null() {
            self.last.set(ptr::null());
        }
        Some(node)
    }

    /// Takes a node out, wherever it stands; false if it is not here.
    pub(super) fn take_out(&self, node: &Link) -> bool {
        let (mut at, mut before) = (self.first.get(), ptr::null::<Link>());
        // SAFETY: queued nodes are alive.
        while let Some(queued) = unsafe { at.as_ref() } {
            let next = queued.next();
            if ptr::eq(queued, node) {
                // SAFETY: as above.
                match unsafe { before.as_ref() } {
                    Some(before) => before.set_next(next),
                    None => self.first.set(next),
                }
                if next.is_null() {
                    self.last.set(before);
                }
                return true;
            }
            (before, at) = (at, next);
        }
        false
    }
}
