//! What inserts and removes do to the index, under its writer lock.

#![expect(unsafe_code, reason = "pages and nodes are reached through raw pointers under the writer lock")]

use core::ptr::{self, NonNull};

use super::compare::{Kind, of_kind};
use super::page::{Bits, FAN, Page, below};
use super::reclaim::Pages;
use super::{Book, Index, Node, Refused};
use crate::sync::{AtomicPtr, Ordering, SpinGuard, full_fence};

/// A full leaf with at most so many that are alive becomes one leaf, else two.
const ONE_LEAF: usize = FAN * 3 / 4;

impl Index {
    /// Allocates what [`open`](Self::open) needs.
    pub(crate) fn prepare(&self) -> Result<(), Refused> {
        self.add_pages(1)
    }

    /// Makes the index one that subscriptions can be inserted in. It was [prepared](Self::prepare).
    pub(crate) fn open(&self) {
        let _lock = self.writer.lock.lock();
        if !self.is_open() {
            self.set_root(self.writer.pages.take(0));
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
        loop {
            let lock = self.writer.lock.lock();
            if self.writer.closed.get() {
                return Err(Refused::Closed);
            }
            let (page, _) = self.descend(bounds.0);
            if page.is_leaf() && page.used() < FAN {
                self.insert_locked(lock, page, bounds, node, replaced);
                return Ok(());
            }
            let needed = self.pages_needed(bounds.0);
            if self.writer.pages.free_count() < needed {
                self.writer.pages.reclaim(book);
            }
            let missing = needed.saturating_sub(self.writer.pages.free_count());
            if missing == 0 {
                let leaf = self.leaf_for(bounds.0);
                self.insert_locked(lock, leaf, bounds, node, replaced);
                return Ok(());
            }
            let count = self.writer.pages.worth_allocating(missing);
            drop(lock);
            self.add_pages(count)?;
        }
    }

    /// Inserts into a leaf with a free slot, and opens the lock.
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
        drop(lock);
        // ORDERING: entry, F; whatever this thread reads afterwards, a start that comes behind that finds the entry
        // (P7), though nothing was written that the start could have read.
        full_fence();
    }

    /// Takes a node out of the index. A search that began before may still find it.
    ///
    /// # Safety
    /// `node` was inserted in this index and not removed since.
    ///
    /// # Context
    /// Allocates nothing and does not sleep.
    pub(crate) unsafe fn remove(&self, node: NonNull<Node>) {
        // SAFETY: the caller keeps the node readable.
        let node = unsafe { node.as_ref() };
        let _lock = self.writer.lock.lock();
        let (leaf, slot) = node.place().take();
        // SAFETY: the place of an inserted node names its leaf.
        let leaf = unsafe { &*leaf };
        let live = leaf.live.load(Ordering::Relaxed) & !(1 << slot);
        leaf.live.store(live, Ordering::Release);
        self.lower(leaf, node.bounds().1);
        self.writer.count.store(self.writer.count.load(Ordering::Relaxed) - 1, Ordering::Relaxed);
    }

    /// How many pages an insert at `start` may use up.
    fn pages_needed(&self, start: u64) -> usize {
        let (page, _) = self.descend(start);
        if !page.is_leaf() {
            return 1;
        }
        if page.used() < FAN {
            return 0;
        }
        // Two leaves; for each page above them a copy, or two halves and a new root.
        let mut needed = 2;
        let mut above = page.parent.get();
        // SAFETY: parents of linked pages are linked pages.
        while let Some(inner) = unsafe { above.as_ref() } {
            if (inner.live.load(Ordering::Relaxed).count_ones() as usize) < FAN {
                return needed + 1;
            }
            needed += 2;
            above = inner.parent.get();
        }
        needed + 1
    }

    fn add_pages(&self, count: usize) -> Result<(), Refused> {
        let slab = Pages::allocate(count).ok_or(Refused::OutOfMemory)?;
        let _lock = self.writer.lock.lock();
        self.writer.pages.add(slab);
        Ok(())
    }

    /// Goes down to the leaf for `start`, or to the inner page in which the child for it is missing.
    fn descend(&self, start: u64) -> (&Page, usize) {
        // SAFETY: the index is open, and linked pages live under the writer lock.
        let mut page = unsafe { &*self.root.load(Ordering::Relaxed) };
        loop {
            if page.is_leaf() {
                return (page, 0);
            }
            // Behind the last separator stands the top of the space, which is a start as well.
            let slot = page.child_for(self.compare, start).min(page.used() - 1);
            if page.live.load(Ordering::Relaxed) & (1 << slot) == 0 {
                return (page, slot);
            }
            // SAFETY: the child is there, so it is a linked page.
            page = unsafe { &*page.child(slot) };
        }
    }

    /// The leaf for `start`, with a free slot.
    fn leaf_for(&self, start: u64) -> &Page {
        let (page, slot) = self.descend(start);
        if !page.is_leaf() {
            let leaf = self.writer.pages.take(0);
            link(page, slot, leaf);
            page.live.store(page.live.load(Ordering::Relaxed) | 1 << slot, Ordering::Release);
            return leaf;
        }
        if page.used() < FAN {
            return page;
        }
        self.rebuild(page);
        self.descend(start).0
    }

    /// Raises the maxima above `page` to at least `last`, from the root down. No maximum is above one that is nearer to
    /// the root, so where one is high enough the rest is.
    #[inline]
    fn raise(&self, page: &Page, last: u64) {
        // SAFETY: parents of linked pages are linked pages.
        if let Some(inner) = unsafe { page.parent.get().as_ref() } {
            let slot = page.slot.get() as usize;
            if inner.max(slot) < last {
                self.raise_in(inner, slot, last);
            }
        }
    }

    #[inline(never)]
    fn raise_in(&self, inner: &Page, slot: usize, last: u64) {
        self.raise(inner, last);
        set_max(inner, slot, last);
    }

    /// Lowers the maxima above `page`, from which something with `last` was taken, and unlinks it if empty.
    fn lower(&self, page: &Page, last: u64) {
        // SAFETY: parents of linked pages are linked pages.
        let Some(inner) = (unsafe { page.parent.get().as_ref() }) else { return };
        let slot = page.slot.get() as usize;
        if page.live.load(Ordering::Relaxed) == 0 {
            inner.live.store(inner.live.load(Ordering::Relaxed) & !(1 << slot), Ordering::Release);
            inner.item[slot].store(ptr::null_mut(), Ordering::Release);
            set_max(inner, slot, 0);
            self.writer.pages.retire(page, &self.epoch);
        } else if inner.max(slot) == last {
            let highest = page.highest();
            if highest == last {
                return;
            }
            set_max(inner, slot, highest);
        } else {
            return;
        }
        self.lower(inner, last);
    }

    /// Replaces a full leaf by one or two without its dead entries.
    fn rebuild(&self, leaf: &Page) {
        let live = leaf.live().0;
        let alive = live.count_ones() as usize;
        let cut = if alive <= ONE_LEAF { alive } else { alive / 2 };
        let left = self.writer.pages.take(0);
        let right = (cut < alive).then(|| self.writer.pages.take(0));
        for (at, slot) in leaf.order.load(&leaf.used).among(live).enumerate() {
            match right {
                Some(right) if at >= cut => copy_entry(leaf, slot, right, at - cut),
                _ => copy_entry(leaf, slot, left, at),
            }
        }
        fill(left, cut);
        let right = right.map(|right| {
            fill(right, alive - cut);
            (right.key(0), right)
        });
        self.replace(leaf, left, right);
    }

    /// Puts `left`, and `right` with its separator, in the place of `old`, and retires `old`.
    fn replace(&self, old: &Page, left: &Page, right: Option<(u64, &Page)>) {
        // SAFETY: parents of linked pages are linked pages.
        match (unsafe { old.parent.get().as_ref() }, right) {
            (None, None) => self.set_root(left),
            (None, Some((key, right))) => {
                let root = self.writer.pages.take(left.level.get() + 1);
                add_child(root, 0, left, left.highest());
                add_child(root, key, right, right.highest());
                self.set_root(root);
            }
            (Some(inner), None) => {
                let slot = old.slot.get() as usize;
                link(inner, slot, left);
                set_max(inner, slot, left.highest());
            }
            (Some(inner), Some(right)) => self.split_child(inner, old.slot.get() as usize, left, right),
        }
        self.writer.pages.retire(old, &self.epoch);
    }

    /// Copies an inner page with two children in place of the one in `slot`; into two pages if need be.
    fn split_child(&self, inner: &Page, slot: usize, left: &Page, right: (u64, &Page)) {
        let alive = inner.live.load(Ordering::Relaxed).count_ones() as usize;
        let level = inner.level.get();
        let first = self.writer.pages.take(level);
        let second = (alive == FAN).then(|| self.writer.pages.take(level));
        let mut key_of_second = 0;
        let mut add = |key: u64, child: &Page, max: u64| {
            let into_first = second.is_none() || first.used() <= FAN / 2;
            match second.filter(|_| !into_first) {
                Some(second) => {
                    if second.used() == 0 {
                        key_of_second = key;
                    }
                    add_child(second, key, child, max);
                }
                // The first child left takes over the range of dead ones before it.
                None if first.used() == 0 => add_child(first, inner.key(0), child, max),
                None => add_child(first, key, child, max),
            }
        };
        for at in Bits(inner.live.load(Ordering::Relaxed)) {
            if at == slot {
                add(inner.key(at), left, left.highest());
                add(right.0, right.1, right.1.highest());
            } else {
                // SAFETY: the child is there, so it is a linked page.
                add(inner.key(at), unsafe { &*inner.child(at) }, inner.max(at));
            }
        }
        self.replace(inner, first, second.map(|second| (key_of_second, second)));
    }

    /// Writes an entry into the next slot of a leaf and sets its live bit.
    fn append(&self, leaf: &Page, (first, last): (u64, u64), node: *const Node) {
        let slot = leaf.used();
        // Behind those that start there or before, alive or dead.
        let before = of_kind!(self.compare, kind => kind.up_to(&leaf.key, first)) & below(slot);
        leaf.key[slot].store(first, Ordering::Relaxed);
        leaf.max[slot].store(last, Ordering::Relaxed);
        leaf.item[slot].store(node.cast_mut().cast(), Ordering::Relaxed);
        leaf.order.add(&leaf.used, before.count_ones() as usize);
        // SAFETY: nodes in a leaf are inserted, so they are readable; the caller is the writer.
        unsafe { &*node }.place().set(leaf, slot);
        // ORDERING: release, for the acquire in `live`: who sees the bit sees the entry, and its slot in the order.
        leaf.live.store(leaf.live.load(Ordering::Relaxed) | 1 << slot, Ordering::Release);
    }

    fn set_root(&self, page: &Page) {
        page.parent.set(ptr::null());
        self.root.store(ptr::from_ref(page).cast_mut(), Ordering::Release);
    }
}

/// Copies a live entry into a leaf that nobody can find yet; [`fill`] makes it one of that.
fn copy_entry(from: &Page, slot: usize, to: &Page, at: usize) {
    to.key[at].store(from.key(slot), Ordering::Relaxed);
    to.max[at].store(from.max(slot), Ordering::Relaxed);
    let node = from.node(slot);
    to.item[at].store(node.cast_mut().cast(), Ordering::Relaxed);
    // SAFETY: nodes in a leaf are inserted, so they are readable; the caller is the writer.
    unsafe { &*node }.place().set(to, at);
}

/// Says that the first `count` entries of a leaf that nobody can find yet are there, in the order of their slots.
fn fill(leaf: &Page, count: usize) {
    leaf.order.fill(&leaf.used, count);
    leaf.live.store(below(count), Ordering::Release);
}

/// Adds a child behind the others of an inner page that nobody can find yet.
fn add_child(inner: &Page, key: u64, child: &Page, max: u64) {
    let slot = inner.used();
    inner.used.store(slot as u32 + 1, Ordering::Relaxed);
    inner.key[slot].store(key, Ordering::Relaxed);
    link(inner, slot, child);
    inner.live.store(inner.live.load(Ordering::Relaxed) | 1 << slot, Ordering::Release);
    set_max(inner, slot, max);
    if let Some(before) = slot.checked_sub(1) {
        // Now there is a separator behind it that it may reach.
        set_max(inner, before, inner.max(before));
    }
}

fn link(inner: &Page, slot: usize, child: &Page) {
    child.parent.set(inner);
    child.slot.set(slot as u32);
    let item: &AtomicPtr<()> = &inner.item[slot];
    // ORDERING: release, for the acquire in `child`.
    item.store(ptr::from_ref(child).cast_mut().cast(), Ordering::Release);
}

/// Stores the maximum of a child and whether it reaches the next separator.
fn set_max(inner: &Page, slot: usize, max: u64) {
    inner.max[slot].store(max, Ordering::Relaxed);
    let next = if slot + 1 < FAN { inner.key(slot + 1) } else { u64::MAX };
    let reaches = u32::from(max >= next) << slot;
    let others = inner.overhang.load(Ordering::Relaxed) & !(1 << slot);
    inner.overhang.store(others | reaches, Ordering::Relaxed);
}
