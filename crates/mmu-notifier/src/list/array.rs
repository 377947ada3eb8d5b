//! The list itself: an array that grows at its end, with tombstones, walked from the newest to the oldest.
//!
//! # Protocol
//! *Register* appends an entry and then raises the number (release). *Take off* marks the node, then replaces
//! its entry by a tombstone. A full array is replaced by a copy without tombstones; walks may go on in the old
//! one, which is why the node is marked too. *Walk*: enter a section, load the array. *Grace period*: take off, new stamp
//! with the fence of the list, wait for every section of the old stamp or an older one; see [`grace`](super::grace).
//!
//! A walk that a grace period does not see loads the list later, so it sees the mark; one that it sees is
//! waited for; one that begins behind it carries a newer stamp and is not.

#![expect(unsafe_code, reason = "arrays are reached through raw pointers that a section protects")]

mod entrance;
mod removal;

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::alloc::Layout;
use core::cell::Cell;
use core::ptr::{self, NonNull};

pub(crate) use entrance::Entrance;
pub(crate) use removal::{Off, Unknown};

use super::grace::Grace;
use super::node::{Key, Node};
use super::spares::{self, Spares};
use crate::hazard::{Book, Claim};
use crate::scan::{Own, Scan, Wanted};
use crate::sync::{AtomicPtr, AtomicU64, Ordering, SpinGuard, SpinLock};

/// Entries of the first array.
const FIRST: usize = if cfg!(any(loom, shuttle)) { 2 } else { 16 };

/// Why a registration did not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The space exits or has exited.
    Closed,
    /// No memory for the array.
    OutOfMemory,
}

/// Why nobody was got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lookup {
    /// Nobody has this key.
    Nobody,
    /// The space exits or has exited.
    Closed,
    /// As many as can be have got it.
    Overflow,
}

#[derive(Debug)]
struct Array {
    entries: Vec<AtomicPtr<Node>>,
    len: AtomicU64,
    stamp: Cell<u64>,
    retired: Cell<*mut Array>,
}

impl Array {
    fn used(&self) -> &[AtomicPtr<Node>] {
        &self.entries[..self.len.load(Ordering::Relaxed) as usize]
    }
}

/// The list of a space.
#[derive(Debug)]
pub(crate) struct List {
    array: AtomicPtr<Array>,
    live: AtomicU64,
    number: AtomicU64,
    grace: Grace,
    lock: SpinLock,
    closed: Cell<bool>,
    /// How many nodes were registered and were not let go of yet; and one more from the first of them on, until the list is
    /// closed: so that the last does not let go of a holder which the next needs. Together they are one holder of the space.
    held: Cell<u64>,
    spares: Spares,
    /// Arrays that were replaced and are not freed yet. Changes under the lock.
    retired: AtomicPtr<Array>,
    /// How many entries the current array has room for. Changes under the lock.
    room: AtomicU64,
}

// SAFETY: `closed`, `held`, `spares` and the cells of arrays are used under `lock`; the rest is atomic.
unsafe impl Sync for List {}
// SAFETY: as above; nothing belongs to a thread.
unsafe impl Send for List {}

impl List {
    pub(crate) fn new() -> Self {
        List {
            array: AtomicPtr::new(ptr::null_mut()),
            live: AtomicU64::new(0),
            number: AtomicU64::new(0),
            grace: Grace::new(),
            lock: SpinLock::new(),
            closed: Cell::new(false),
            held: Cell::new(0),
            spares: Spares::new(),
            retired: AtomicPtr::new(ptr::null_mut()),
            room: AtomicU64::new(0),
        }
    }

    /// How many are on the list.
    #[inline]
    pub(crate) fn count(&self) -> u64 {
        self.live.load(Ordering::Acquire)
    }

    /// Enters a section of a walk.
    #[inline]
    pub(crate) fn enter(&self, claim: Claim<'_>) {
        self.grace.enter(claim);
    }

    /// Says whether anybody is on the list, for a start that has passed no fence of its own (P7).
    #[inline]
    pub(crate) fn is_heard(&self) -> bool {
        if self.count() != 0 {
            return true;
        }
        self.grace.look();
        self.count() != 0
    }

    /// Enters a section in which nothing is loaded of the list; its claim of a release is what passes F.
    #[inline]
    pub(crate) fn mark(&self, claim: Claim<'_>) {
        self.grace.mark(claim);
    }

    /// The number of the newest registration; whoever has it or a smaller one is found by a walk.
    #[inline]
    pub(crate) fn limit(&self) -> u64 {
        // ORDERING: acquire pairs with the release in `Entrance::append`.
        self.number.load(Ordering::Acquire)
    }

    /// What a walk goes through.
    ///
    /// # Context
    /// Within a section, behind its fence; to be used up before the section is left.
    #[inline]
    pub(crate) fn entries(&self) -> Entries<'_> {
        // ORDERING: acquire pairs with the release in `replace`.
        // SAFETY: arrays that a section may have loaded are freed after it only.
        match unsafe { self.array.load(Ordering::Acquire).as_ref() } {
            None => Entries(&[]),
            Some(array) => Entries(&array.entries[..array.len.load(Ordering::Acquire) as usize]),
        }
    }

    /// Makes sure that the next registration need not allocate, if nobody else registers meanwhile.
    #[inline]
    pub(crate) fn make_room(&self, book: &Book) -> Result<(), Refused> {
        self.reclaim(book);
        if self.has_room() { Ok(()) } else { self.grow() }
    }

    #[cold]
    fn grow(&self) -> Result<(), Refused> {
        let capacity = FIRST.max(2 * self.count() as usize);
        let mut entries = Vec::new();
        entries.try_reserve_exact(capacity).map_err(|_| Refused::OutOfMemory)?;
        entries.resize_with(capacity, || AtomicPtr::new(ptr::null_mut()));
        let array = Array {
            entries,
            len: AtomicU64::new(0),
            stamp: Cell::new(0),
            retired: Cell::new(ptr::null_mut()),
        };
        let array = crate::memory::try_box(array).map_err(|_| Refused::OutOfMemory)?;
        let lock = self.lock.lock();
        self.replace(&lock, array);
        Ok(())
    }

    #[inline]
    fn current(&self) -> Option<&Array> {
        // SAFETY: the current array is not freed; the callers hold the lock.
        unsafe { self.array.load(Ordering::Relaxed).as_ref() }
    }

    #[inline]
    fn has_room(&self) -> bool {
        self.room.load(Ordering::Relaxed) != 0
    }

    /// Takes tombstones off the end. A walk that has loaded the old length may find the next that is registered in their
    /// place: newer than its limit, and as good as any that it comes to.
    #[inline]
    fn trim(&self, array: &Array) {
        let last = array.used().iter().rposition(|entry| !entry.load(Ordering::Relaxed).is_null());
        self.set_len(array, last.map_or(0, |last| last as u64 + 1));
    }

    #[inline]
    fn set_len(&self, array: &Array, len: u64) {
        array.len.store(len, Ordering::Release);
        self.room.store(array.entries.len() as u64 - len, Ordering::Relaxed);
    }

    /// Puts `array` in the place of the current one, if everybody finds room in it.
    fn replace(&self, lock: &SpinGuard<'_>, array: Box<Array>) {
        if self.has_room() || self.count() as usize >= array.entries.len() {
            return;
        }
        let mut len = 0;
        if let Some(old) = self.current() {
            for entry in old.used() {
                let node = entry.load(Ordering::Relaxed);
                // SAFETY: entries that are no tombstones name nodes on the list.
                if let Some(moved) = unsafe { node.as_ref() } {
                    moved.place.set(len);
                    array.entries[len].store(node, Ordering::Relaxed);
                    len += 1;
                }
            }
        }
        self.set_len(&array, len as u64);
        // ORDERING: release, for the acquire in `entries`.
        let old = self.array.swap(Box::into_raw(array), Ordering::AcqRel);
        // SAFETY: the old array is not freed before it was retired here.
        if let Some(array) = unsafe { old.as_ref() } {
            // ORDERING: swap, then a new stamp (release): a walk that carries it (acquire) loads the new array.
            array.stamp.set(self.grace.advance(lock));
            self.retire(old);
        }
    }

    /// Puts a replaced array among those that are to be freed; under the lock.
    fn retire(&self, array: *mut Array) {
        // SAFETY: arrays are alive until `reclaim` or the drop frees them.
        unsafe { &*array }.retired.set(self.retired.load(Ordering::Relaxed));
        self.retired.store(array, Ordering::Relaxed);
    }

    /// Takes a node off the list, unless somebody else did, and begins a grace period. Its stamp is what sections to wait
    /// for carry at the most.
    pub(crate) fn take_off(&self, node: &Node) -> u64 {
        let lock = self.lock.lock();
        self.take_off_locked(&lock, node);
        self.begin_grace(lock)
    }

    fn begin_grace(&self, lock: SpinGuard<'_>) -> u64 {
        let stamp = self.grace.advance(&lock);
        self.grace.open_advanced(lock);
        stamp
    }

    #[inline(always)]
    fn take_off_locked(&self, _lock: &SpinGuard<'_>, node: &Node) {
        if node.is_off() {
            return;
        }
        node.take_off();
        if let Some(array) = self.current() {
            array.entries[node.place.get()].store(ptr::null_mut(), Ordering::Release);
            self.trim(array);
        }
        self.live.store(self.count() - 1, Ordering::Release);
    }

    /// Takes everybody off; as [`take_off`](Self::take_off).
    pub(crate) fn take_all_off(&self) -> u64 {
        let lock = self.lock.lock();
        for entry in self.current().map_or(&[][..], Array::used) {
            // SAFETY: entries that are no tombstones name nodes on the list.
            if let Some(node) = unsafe { entry.load(Ordering::Relaxed).as_ref() } {
                self.take_off_locked(&lock, node);
            }
        }
        self.begin_grace(lock)
    }

    /// Lets go of a node that no walk knows any more. True if that was the last: then the holder is the caller's.
    #[must_use]
    pub(crate) fn let_go(&self) -> bool {
        let lock = self.lock.lock();
        self.let_go_locked(&lock)
    }

    #[inline]
    fn let_go_locked(&self, _lock: &SpinGuard<'_>) -> bool {
        self.held.set(self.held.get() - 1);
        self.held.get() == 0
    }

    /// Memory for a record of this layout that an earlier one has left.
    pub(super) fn take_spare(&self, layout: Layout) -> Option<NonNull<u8>> {
        if spares::fits(layout) { self.spares.take(&self.lock.lock()) } else { None }
    }

    /// Lets go of a record, as [`let_go`](Self::let_go), and of its memory.
    ///
    /// # Safety
    /// It is memory for a record of this layout, and is not used any more.
    #[inline]
    #[must_use]
    pub(super) unsafe fn free(&self, memory: NonNull<u8>, layout: Layout) -> bool {
        // SAFETY: as promised by the caller.
        unsafe { self.free_locked(self.lock.lock(), memory, layout) }
    }

    /// The same under the lock, which it opens.
    ///
    /// # Safety
    /// As there.
    #[inline]
    unsafe fn free_locked(&self, lock: SpinGuard<'_>, memory: NonNull<u8>, layout: Layout) -> bool {
        let is_last = self.let_go_locked(&lock);
        if spares::fits(layout) {
            // SAFETY: as promised by the caller.
            unsafe { self.spares.keep(&lock, memory) };
        } else {
            drop(lock);
            // SAFETY: as promised by the caller.
            unsafe { spares::free(memory, layout) };
        }
        is_last
    }

    /// Counts one more user of the notifier with this key.
    pub(crate) fn find(&self, key: Key) -> Result<NonNull<Node>, Lookup> {
        let _lock = self.lock.lock();
        if self.closed.get() {
            return Err(Lookup::Closed);
        }
        let array = self.current().ok_or(Lookup::Nobody)?;
        let node = array.used().iter().rev().find_map(|entry| {
            let node = NonNull::new(entry.load(Ordering::Relaxed))?;
            // SAFETY: entries that are no tombstones name nodes on the list.
            (unsafe { node.as_ref() }.key == Some(key)).then_some(node)
        });
        let node = node.ok_or(Lookup::Nobody)?;
        // SAFETY: as above; the lock is held.
        let users = &unsafe { node.as_ref() }.users;
        users.set(users.get().checked_add(1).ok_or(Lookup::Overflow)?);
        Ok(node)
    }

    /// Counts one user less. If that was the last it is off the list, and this gives the stamp, as
    /// [`take_off`](Self::take_off).
    pub(crate) fn put(&self, node: &Node) -> Option<u64> {
        let lock = self.lock.lock();
        node.users.set(node.users.get() - 1);
        if node.users.get() != 0 {
            return None;
        }
        self.take_off_locked(&lock, node);
        Some(self.begin_grace(lock))
    }

    #[cfg(all(test, not(any(loom, shuttle))))]
    pub(crate) fn set_users(&self, node: &Node, users: u32) {
        let _lock = self.lock.lock();
        node.users.set(users);
    }

    /// Lets nobody be registered any more. True as in [`let_go`](Self::let_go).
    #[must_use]
    pub(crate) fn close(&self) -> bool {
        let lock = self.lock.lock();
        let was_open = !self.closed.replace(true);
        was_open && self.held.get() != 0 && self.let_go_locked(&lock)
    }

    /// Frees retired arrays that no walk is in.
    #[inline]
    pub(crate) fn reclaim(&self, book: &Book) {
        if self.has_retired() {
            self.free_retired(book);
        }
    }

    /// Says whether there are any. Who retires one later frees it later: what is missed here waits for the next call.
    #[inline]
    pub(crate) fn has_retired(&self) -> bool {
        !self.retired.load(Ordering::Relaxed).is_null()
    }

    #[cold]
    fn free_retired(&self, book: &Book) {
        let mut at = {
            let _lock = self.lock.lock();
            let first = self.retired.load(Ordering::Relaxed);
            self.retired.store(ptr::null_mut(), Ordering::Relaxed);
            first
        };
        self.grace.fence();
        while !at.is_null() {
            // SAFETY: retired arrays are alive until they are freed here; this one is in no list now.
            let array = unsafe { &*at };
            let next = array.retired.get();
            let wanted = Wanted::Walked { stamp: array.stamp.get(), own: Own::Awaited };
            if Scan::new(book, wanted).advance(book).is_none() {
                // SAFETY: it was made by `Box::into_raw`, and neither a walk nor a list leads to it any more.
                drop(unsafe { Box::from_raw(at) });
            } else {
                let _lock = self.lock.lock();
                self.retire(at);
            }
            at = next;
        }
    }

    /// Keeps the list as it is around a fork.
    pub(crate) fn lock_for_fork(&self) {
        self.lock.lock_for_fork();
    }

    /// Lets it change again.
    pub(crate) fn unlock_after_fork(&self) {
        self.lock.unlock_after_fork();
    }
}

impl Drop for List {
    fn drop(&mut self) {
        let current = self.array.load(Ordering::Relaxed);
        // The space goes, so nobody walks; the current array is in no other list.
        if !current.is_null() {
            self.retire(current);
        }
        let mut at = self.retired.load(Ordering::Relaxed);
        while !at.is_null() {
            // SAFETY: each array was made by `Box::into_raw` and is in this list once.
            let array = unsafe { Box::from_raw(at) };
            at = array.retired.get();
        }
    }
}

/// The entries of one array, from the oldest to the newest.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entries<'l>(&'l [AtomicPtr<Node>]);

impl Entries<'_> {
    pub(crate) fn len(self) -> usize {
        self.0.len()
    }

    /// The node at `place`, if one stands there; whether it was taken off meanwhile, it says itself.
    #[inline(always)]
    pub(crate) fn at(self, place: usize) -> Option<NonNull<Node>> {
        node_of(&self.0[place])
    }

    /// The nodes, as [`at`](Self::at), each looked up when its turn comes.
    #[inline(always)]
    pub(crate) fn newest_first(self) -> impl Iterator<Item = NonNull<Node>> {
        self.0.iter().rev().filter_map(node_of)
    }
}

#[inline(always)]
fn node_of(entry: &AtomicPtr<Node>) -> Option<NonNull<Node>> {
    NonNull::new(entry.load(Ordering::Acquire))
}
