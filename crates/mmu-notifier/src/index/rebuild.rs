//! Full pages: their entries move to new ones, in the same order and without the dead, and the new ones take their
//! place. A leaf becomes one or two. Where it becomes two, the page above it is copied too, since separators do not
//! change; if it was full as well, into two, and so on up to the root.
//!
//! All is done under the writer lock. Searches go through the old pages or through the new ones.

#![expect(unsafe_code, reason = "pages and nodes are reached through raw pointers under the writer lock")]

use super::Index;
use super::page::{Bits, FAN, Page, below};
use super::write::{hang, link, reaches_next};
use crate::sync::Ordering;

/// A full leaf with at most so many that are alive becomes one leaf, else two.
const ONE_LEAF: usize = FAN * 3 / 4;

/// How many pages an insert may use up that has come to this page.
pub(super) fn pages_needed(page: &Page) -> usize {
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
        if inner.live.load(Ordering::Relaxed) != below(FAN) {
            return needed + 1;
        }
        needed += 2;
        above = inner.parent.get();
    }
    needed + 1
}

impl Index {
    /// Replaces a full leaf by one or two without its dead entries; gives the one for `start`.
    pub(super) fn rebuild<'p>(&'p self, leaf: &'p Page, start: u64) -> &'p Page {
        let live = leaf.live().0;
        let alive = live.count_ones() as usize;
        let cut = if alive <= ONE_LEAF { alive } else { alive / 2 };
        let order = leaf.order.load(&leaf.used);
        let mut slots = order.among(live);
        let left = copy_entries(leaf, slots.by_ref().take(cut), self.writer.pages.take(0));
        let right = (cut < alive).then(|| copy_entries(leaf, slots, self.writer.pages.take(0)));
        self.replace(leaf, left, right);
        right.filter(|right| right.key <= start).unwrap_or(left).page
    }

    /// Puts `left`, and `right`, in the place of `old`, and retires `old`.
    fn replace(&self, old: &Page, left: Child<'_>, right: Option<Child<'_>>) {
        // SAFETY: parents of linked pages are linked pages.
        match (unsafe { old.parent.get().as_ref() }, right) {
            (None, None) => self.set_root(left.page),
            (None, Some(right)) => {
                let mut root = Filling::new(self.writer.pages.take(left.page.level.get() + 1));
                root.add(left);
                root.add(right);
                self.set_root(root.fill().page);
            }
            (Some(inner), None) => link(inner, old.slot.get() as usize, left.page, left.max),
            (Some(inner), Some(right)) => self.split_child(inner, old.slot.get() as usize, left, right),
        }
        self.writer.pages.retire(old, &self.epoch);
    }

    /// Copies an inner page with two children in place of the one in `slot`; into two pages if need be.
    fn split_child(&self, inner: &Page, slot: usize, left: Child<'_>, right: Child<'_>) {
        let live = inner.live.load(Ordering::Relaxed);
        let level = inner.level.get();
        // SAFETY: a child that is there is a linked page.
        let child = |at| Child { key: inner.key(at), page: unsafe { &*inner.child(at) }, max: inner.max(at) };
        let before = Bits(live & below(slot)).map(child);
        let behind = Bits(live & !below(slot) & !(1 << slot)).map(child);
        let mut children = before.chain([Child { key: inner.key(slot), ..left }, right]).chain(behind);
        let mut first = Filling::new(self.writer.pages.take(level));
        let cut = if live == below(FAN) { FAN / 2 + 1 } else { FAN };
        children.by_ref().take(cut).for_each(|child| first.add(child));
        let second = (live == below(FAN)).then(|| {
            let mut second = Filling::new(self.writer.pages.take(level));
            children.for_each(|child| second.add(child));
            second.fill()
        });
        self.replace(inner, first.fill(), second);
    }
}

/// Copies live entries, which are given in order, into a leaf that nobody can find yet.
fn copy_entries<'p>(from: &Page, slots: impl Iterator<Item = usize>, to: &'p Page) -> Child<'p> {
    let (mut count, mut max) = (0, 0);
    for slot in slots {
        let (last, node) = (from.max(slot), from.node(slot));
        to.key[count].store(from.key(slot), Ordering::Relaxed);
        to.max[count].store(last, Ordering::Relaxed);
        to.item[count].store(node.cast_mut().cast(), Ordering::Relaxed);
        // SAFETY: nodes in a leaf are inserted, so they are readable; the caller is the writer.
        unsafe { &*node }.place().set(to, count);
        max = last.max(max);
        count += 1;
    }
    to.order.fill(&to.used, count);
    to.live.store(below(count), Ordering::Release);
    Child { key: to.key(0), page: to, max }
}

/// A child of an inner page: its separator, and the highest last byte in it.
#[derive(Clone, Copy)]
struct Child<'p> {
    key: u64,
    page: &'p Page,
    max: u64,
}

/// An inner page that nobody can find yet, and how many children it has so far.
struct Filling<'p> {
    page: &'p Page,
    /// The separator of the first child: here it is 0, and this one stands in the page above.
    key: u64,
    count: usize,
    max: u64,
    last: Option<&'p Page>,
}

impl<'p> Filling<'p> {
    fn new(page: &'p Page) -> Self {
        Filling { page, key: 0, count: 0, max: 0, last: None }
    }

    /// Adds a child behind the others.
    #[inline]
    fn add(&mut self, child: Child<'p>) {
        match self.last.replace(child.page) {
            Some(before) => before.ceiling.set(child.key),
            None => self.key = child.key,
        }
        let separator = if self.count == 0 { 0 } else { child.key };
        self.page.key[self.count].store(separator, Ordering::Relaxed);
        self.page.max[self.count].store(child.max, Ordering::Relaxed);
        hang(self.page, self.count, child.page);
        child.page.top.set(child.max);
        self.count += 1;
        self.max = self.max.max(child.max);
    }

    /// Says that they are there.
    fn fill(self) -> Child<'p> {
        let Filling { page, key, count, max, last } = self;
        if let Some(last) = last {
            // What stands behind it is told by a page above.
            last.ceiling.set(0);
        }
        let overhang = (0..count).fold(0, |bits, slot| bits | reaches_next(page, slot, page.max(slot)));
        page.overhang.store(overhang, Ordering::Relaxed);
        page.used.store(count as u32, Ordering::Relaxed);
        page.live.store(below(count), Ordering::Release);
        Child { key, page, max }
    }
}
