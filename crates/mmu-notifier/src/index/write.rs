//! What inserts and removes do to the index, under its writer lock.

#![expect(unsafe_code, reason = "pages and nodes are reached through raw pointers under the writer lock")]

use core::ptr::{self, NonNull};

use super::compare::{Kind, of_kind};
use super::page::{FAN, Page};
use super::rebuild::pages_needed;
use super::reclaim::Pages;
use super::{Book, Index, Node, Refused};
use crate::sync::{AtomicPtr, Ordering, SpinGuard};

impl Index {
    /// Makes the index one that subscriptions can be inserted in.
    ///
    /// # Safety
    /// From here on it stays where it is: its first page stands in it.
    ///
    /// # Context
    /// Allocates nothing.
    pub(crate) unsafe fn open(&self) {
        let _lock = self.writer.lock.lock();
        if !self.is_open() {
            // SAFETY: nobody has made it: there is no root. It stays, as promised by the caller.
            self.set_root(unsafe { self.first.make() });
        }
    }

    /// Inserts a node with its bounds; gives it its order just before others can find it. From that order on
    /// it stands for those in `replaced` too: older starts call them, newer ones call it.
    ///
    /// # Safety
    /// - `node` is in no index and stays readable, and where it is, until [`remove`](Self::remove) and the
    ///   wait that follows it.
    /// - Those in `replaced` are in this index.
    ///
    /// # Context
    /// May allocate, with no lock held. The index is [open](Self::open).
    pub(crate) unsafe fn insert(
        &self,
        book: &Book,
        node: NonNull<Node>,
        replaced: &[NonNull<Node>],
    ) -> Result<(), Refused> {
        // SAFETY: the caller keeps the node readable.
        let bounds = unsafe { node.as_ref() }.bounds();
        let lock = self.writer.lock.lock();
        if self.writer.closed.get() {
            return Err(Refused::Closed);
        }
        let (page, _) = self.descend(bounds.0);
        if page.is_leaf() && page.used() < FAN {
            self.insert_locked(lock, page, bounds, node, replaced);
            return Ok(());
        }
        self.insert_slowly(lock, book, bounds, node, replaced)
    }

    /// Inserts where that takes new pages.
    #[inline(never)]
    fn insert_slowly<'i>(
        &'i self,
        mut lock: SpinGuard<'i>,
        book: &Book,
        bounds: (u64, u64),
        node: NonNull<Node>,
        replaced: &[NonNull<Node>],
    ) -> Result<(), Refused> {
        loop {
            if self.writer.closed.get() {
                return Err(Refused::Closed);
            }
            let (page, slot) = self.descend(bounds.0);
            let needed = pages_needed(page);
            // Even where there are enough: these are in the caches, and no memory that nobody has touched.
            self.writer.pages.reclaim(book);
            let missing = needed.saturating_sub(self.writer.pages.free_count());
            if missing == 0 {
                let leaf = self.leaf_for(page, slot, bounds.0);
                self.insert_locked(lock, leaf, bounds, node, replaced);
                return Ok(());
            }
            let count = self.writer.pages.worth_allocating(missing);
            drop(lock);
            self.add_pages(count, missing)?;
            lock = self.writer.lock.lock();
        }
    }

    /// Inserts into a leaf with a free slot, and opens the lock.
    #[inline(always)]
    fn insert_locked(
        &self,
        lock: SpinGuard<'_>,
        leaf: &Page,
        bounds: (u64, u64),
        node: NonNull<Node>,
        replaced: &[NonNull<Node>],
    ) {
        self.raise(leaf, bounds.1);
        let order = self.order.load(Ordering::Relaxed) + 1;
        for old in replaced {
            // SAFETY: the caller keeps those that are replaced readable.
            unsafe { old.as_ref() }.give_way_to(order);
        }
        // SAFETY: the caller keeps the node readable.
        unsafe { node.as_ref() }.enter(order);
        self.append(leaf, bounds, node.as_ptr());
        // ORDERING: release; whoever reads this order (acquire) finds the entry.
        self.order.store(order, Ordering::Release);
        self.writer.count.store(self.writer.count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        // ORDERING: entry, F; whatever this thread reads afterwards, a start that comes behind that finds the entry
        // (P7), though nothing was written that the start could have read.
        lock.open_fenced();
    }

    /// Takes a node out of the index, and withdraws it; behind it stands a full fence. A search that began before may
    /// still find it.
    ///
    /// # Safety
    /// `node` was inserted in this index and not removed since.
    ///
    /// # Context
    /// Allocates nothing and does not sleep.
    #[inline]
    pub(crate) unsafe fn remove(&self, node: NonNull<Node>) {
        // SAFETY: the caller keeps the node readable.
        let node = unsafe { node.as_ref() };
        let lock = self.writer.lock.lock();
        let (leaf, slot) = node.place().take();
        // SAFETY: the place of an inserted node names its leaf.
        let leaf = unsafe { &*leaf };
        let live = leaf.live.load(Ordering::Relaxed) & !(1 << slot);
        leaf.live.store(live, Ordering::Release);
        node.withdraw();
        self.lower(leaf, node.bounds().1);
        self.writer.count.store(self.writer.count.load(Ordering::Relaxed) - 1, Ordering::Relaxed);
        // ORDERING: withdrawn, F, scan; against publication, F, search of a start.
        lock.open_fenced();
    }

    fn add_pages(&self, count: usize, least: usize) -> Result<(), Refused> {
        let slab = Pages::allocate(count).or_else(|| Pages::allocate(least)).ok_or(Refused::OutOfMemory)?;
        let _lock = self.writer.lock.lock();
        self.writer.pages.add(slab);
        Ok(())
    }

    /// Goes down to the leaf for `start`, or to the inner page in which the child for it is missing.
    #[inline(always)]
    fn descend(&self, start: u64) -> (&Page, usize) {
        // SAFETY: the index is open, and linked pages live under the writer lock.
        let mut page = unsafe { &*self.root.load(Ordering::Relaxed) };
        while !page.is_leaf() {
            let slot = page.child_for(self.compare, start);
            // SAFETY: null, or a linked page.
            let Some(child) = (unsafe { page.child(slot).as_ref() }) else { return (page, slot) };
            if page.level.get() == 1 {
                // Its lines are fetched side by side.
                of_kind!(self.compare, kind => kind.prefetch_page(ptr::from_ref(child).cast()));
            }
            page = child;
        }
        (page, 0)
    }

    /// The leaf for `start`, with a free slot, where [`descend`](Self::descend) came to this page and slot.
    fn leaf_for<'p>(&'p self, page: &'p Page, slot: usize, start: u64) -> &'p Page {
        if !page.is_leaf() {
            let leaf = self.writer.pages.take(0);
            link(page, slot, leaf, 0);
            page.live.store(page.live.load(Ordering::Relaxed) | 1 << slot, Ordering::Release);
            return leaf;
        }
        if page.used() < FAN { page } else { self.rebuild(page, start) }
    }

    /// Raises the maxima above `page` to at least `last`, from the root down. No maximum is above one that is nearer to
    /// the root, so where one is high enough the rest is.
    #[inline]
    fn raise(&self, page: &Page, last: u64) {
        if page.top.get() < last {
            self.raise_in(page, last);
        }
    }

    #[inline(never)]
    fn raise_in(&self, page: &Page, last: u64) {
        // SAFETY: parents of linked pages are linked pages.
        let Some(inner) = (unsafe { page.parent.get().as_ref() }) else { return };
        self.raise(inner, last);
        set_max(inner, page, last);
    }

    /// Lowers the maxima above `page`, from which something with `last` was taken, and unlinks it if empty. Maxima that
    /// reach no separator may stay too high: they set no overhang bit.
    #[inline]
    fn lower(&self, page: &Page, last: u64) {
        let counts = page.top.get() == last && last >= page.ceiling.get();
        if counts || page.live.load(Ordering::Relaxed) == 0 {
            self.lower_in(page, last);
        }
    }

    #[inline(never)]
    fn lower_in(&self, page: &Page, last: u64) {
        // SAFETY: parents of linked pages are linked pages.
        let Some(inner) = (unsafe { page.parent.get().as_ref() }) else { return };
        if page.live.load(Ordering::Relaxed) == 0 {
            let slot = page.slot.get() as usize;
            inner.live.store(inner.live.load(Ordering::Relaxed) & !(1 << slot), Ordering::Release);
            inner.item[slot].store(ptr::null_mut(), Ordering::Release);
            set_max(inner, page, 0);
            self.writer.pages.retire(page, &self.epoch);
        } else {
            let highest = page.highest();
            if highest == last {
                return;
            }
            set_max(inner, page, highest);
        }
        self.lower(inner, last);
    }

    /// Writes an entry into the next slot of a leaf and sets its live bit.
    #[inline(always)]
    fn append(&self, leaf: &Page, (first, last): (u64, u64), node: *const Node) {
        let slot = leaf.used();
        // Behind those that start there or before, alive or dead; what is not there counts as the top of the space.
        let position = of_kind!(self.compare, kind => kind.count_all_up_to(&leaf.key, first)).min(slot);
        leaf.key[slot].store(first, Ordering::Relaxed);
        leaf.max[slot].store(last, Ordering::Relaxed);
        leaf.item[slot].store(node.cast_mut().cast(), Ordering::Relaxed);
        leaf.order.add(&leaf.used, position);
        // SAFETY: nodes in a leaf are inserted, so they are readable; the caller is the writer.
        unsafe { &*node }.place().set(leaf, slot);
        // ORDERING: release, for the acquire in `live`: who sees the bit sees the entry, and its slot in the order.
        leaf.live.store(leaf.live.load(Ordering::Relaxed) | 1 << slot, Ordering::Release);
    }

    pub(super) fn set_root(&self, page: &Page) {
        page.parent.set(ptr::null());
        // INVARIANT: nobody raises it, and who lowers it finds no parent.
        page.top.set(u64::MAX);
        self.root.store(ptr::from_ref(page).cast_mut(), Ordering::Release);
    }
}

/// Makes `child` that of a slot of an inner page, with its maximum.
pub(super) fn link(inner: &Page, slot: usize, child: &Page, max: u64) {
    hang(inner, slot, child);
    set_max(inner, child, max);
}

pub(super) fn hang(inner: &Page, slot: usize, child: &Page) {
    child.parent.set(inner);
    child.slot.set(slot as u32);
    let item: &AtomicPtr<()> = &inner.item[slot];
    // ORDERING: release, for the acquire in `child`.
    item.store(ptr::from_ref(child).cast_mut().cast(), Ordering::Release);
}

/// Stores the maximum of a child, there too, and whether it reaches the next separator.
fn set_max(inner: &Page, child: &Page, max: u64) {
    let slot = child.slot.get() as usize;
    child.top.set(max);
    child.ceiling.set(ceiling(inner, slot));
    inner.max[slot].store(max, Ordering::Relaxed);
    let others = inner.overhang.load(Ordering::Relaxed) & !(1 << slot);
    inner.overhang.store(others | reaches_next(inner, slot, max), Ordering::Relaxed);
}

/// The separator behind a slot. Behind the last one it is one of a page above, and not looked for.
fn ceiling(inner: &Page, slot: usize) -> u64 {
    if slot + 1 < inner.used() { inner.key(slot + 1) } else { 0 }
}

/// The bit of a slot if a maximum reaches the separator behind it.
#[inline]
pub(super) fn reaches_next(inner: &Page, slot: usize, max: u64) -> u32 {
    let next = if slot + 1 < FAN { inner.key(slot + 1) } else { u64::MAX };
    u32::from(max >= next) << slot
}
