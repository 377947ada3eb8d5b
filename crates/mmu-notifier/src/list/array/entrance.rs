//! Entering the list: who registers appends its node under the lock, with what an earlier one left taken under the same.

#![expect(unsafe_code, reason = "nodes are reached through raw pointers")]

use core::ptr::NonNull;

use super::{List, Refused};
use crate::list::node::Node;
use crate::sync::{Ordering, SpinGuard};

/// The right to put one more on the list: its lock is held, nobody has closed it, and there is room.
#[derive(Debug)]
pub(crate) struct Entrance<'l> {
    list: &'l List,
    lock: SpinGuard<'l>,
}

impl List {
    /// Locks the list for one more; none if there is no room.
    #[inline(always)]
    pub(crate) fn entrance(&self) -> Option<Result<Entrance<'_>, Refused>> {
        let lock = self.lock.lock();
        if self.closed.get() {
            return Some(Err(Refused::Closed));
        }
        self.has_room().then_some(Ok(Entrance { list: self, lock }))
    }
}

impl Entrance<'_> {
    /// Memory that an earlier record has left, for one that fits.
    #[inline]
    pub(in crate::list) fn take_spare(&self) -> Option<NonNull<u8>> {
        self.list.spares.take(&self.lock)
    }

    /// Puts a node at the head of the list. The first that the list holds calls `hold`, which makes the holder that all are.
    ///
    /// # Safety
    /// The node stays where it is, and readable, until it was taken off and a grace period is over.
    ///
    /// # Context
    /// Allocates nothing.
    #[inline(always)]
    pub(crate) unsafe fn enter(self, node: NonNull<Node>, hold: impl FnOnce()) {
        // SAFETY: as promised by the caller.
        unsafe { self.append(node) };
        let Entrance { list, lock } = self;
        if list.held.get() == 0 {
            hold();
            list.held.set(1);
        }
        list.held.set(list.held.get() + 1);
        // ORDERING: entry, fence of the list; whatever this thread reads afterwards, a start that comes behind that
        // finds the entry (P7), though nothing was written that the start could have read.
        list.grace.open(lock);
    }

    /// # Safety
    /// The node is readable.
    #[inline(always)]
    unsafe fn append(&self, node: NonNull<Node>) {
        let list = self.list;
        let array = list.current().expect("there is room in it");
        let number = list.number.load(Ordering::Relaxed) + 1;
        let place = array.len.load(Ordering::Relaxed);
        // SAFETY: as promised by the caller.
        unsafe { node.as_ref() }.enter(number, place as usize);
        array.entries[place as usize].store(node.as_ptr(), Ordering::Release);
        list.set_len(array, place + 1);
        list.live.store(list.count() + 1, Ordering::Release);
        // ORDERING: release; a walk that reads this number (acquire) finds the entry.
        list.number.store(number, Ordering::Release);
    }
}
