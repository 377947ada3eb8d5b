//! The search through the pages of the index: who overlaps a range, in order.
//!
//! It looks first ([`look`]): mostly there is but one way down, and at its end nobody, or one. What may be several is
//! collected ([`collect`]) in batches, each behind the last hit of the one before. A leaf that the range covers is hit as it is.

#![expect(unsafe_code, reason = "pages are reached through raw pointers that a pin protects")]

use core::iter;
use core::mem::MaybeUninit;
use core::ptr::{self, NonNull};

use super::compare::{FEW, Kind};
use super::page::{Bits, FAN, Page, below};
use crate::interval::Node;
use crate::sync::Ordering;

/// Hits that a search collects at a time.
pub(crate) const BATCH: usize = if cfg!(any(loom, shuttle)) { 1 } else { 128 };

/// How many children beyond the one at hand a search has fetched.
const AHEAD: usize = 2;

/// The leaves below a page of this level are not in the caches.
const HIGH: u32 = 3;

/// Start and order of the last hit that was collected before.
pub(super) type After<'a> = Option<&'a (u64, u64)>;

/// Subscriptions that a search has found, in the order in which they are called.
///
/// # Invariants
/// The first `len` entries are written.
pub(crate) struct Batch {
    len: usize,
    nodes: [MaybeUninit<*const Node>; BATCH],
}

impl Batch {
    #[inline]
    pub(crate) fn new() -> Self {
        Batch { len: 0, nodes: [const { MaybeUninit::uninit() }; BATCH] }
    }

    pub(crate) fn clear(&mut self) {
        self.len = 0;
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub(crate) fn as_slice(&self) -> &[*const Node] {
        let written = &self.nodes[..self.len];
        // SAFETY: by the invariant these entries are written, and MaybeUninit has the layout of its content.
        unsafe { &*(ptr::from_ref(written) as *const [*const Node]) }
    }

    /// Adds one; false if there is no room.
    #[inline]
    pub(crate) fn push(&mut self, node: *const Node) -> bool {
        self.extend(core::iter::once(node))
    }

    /// Adds those behind the others; false if there is no room for one.
    #[inline(always)]
    fn extend(&mut self, nodes: impl Iterator<Item = *const Node>) -> bool {
        // Not counted in memory: each addition would wait for the one before to be stored.
        let mut len = self.len;
        for node in nodes {
            let Some(entry) = self.nodes.get_mut(len) else {
                self.len = len;
                return false;
            };
            entry.write(node);
            len += 1;
        }
        self.len = len;
        true
    }
}

/// Who overlaps a range: nobody, one, or several below a page, or perhaps none of them.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Found {
    Nobody,
    One(NonNull<Node>),
    Several(NonNull<Page>),
}

/// The same in one word, as a search returns it: null, a node, or a page and [`SEVERAL`](Self::SEVERAL).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look(*const ());

impl Look {
    const NOBODY: Look = Look(ptr::null());
    /// A bit that nodes and pages leave free.
    const SEVERAL: usize = 1;

    fn one(node: *const Node) -> Self {
        Look(node.cast())
    }

    fn several(page: &Page) -> Self {
        Look(ptr::from_ref(page).cast::<()>().map_addr(|address| address | Self::SEVERAL))
    }

    #[inline(always)]
    pub(crate) fn is_nobody(self) -> bool {
        self.0.is_null()
    }

    #[inline(always)]
    pub(crate) fn found(self) -> Found {
        const { assert!(align_of::<Node>() > Self::SEVERAL && align_of::<Page>() > Self::SEVERAL) };
        let page = self.0.map_addr(|address| address & !Self::SEVERAL);
        match NonNull::new(self.0.cast_mut()) {
            None => Found::Nobody,
            Some(node) if ptr::eq(page, self.0) => Found::One(node.cast()),
            // SAFETY: it has another bit than that one, so it is not null.
            Some(_) => Found::Several(unsafe { NonNull::new_unchecked(page.cast_mut()) }.cast()),
        }
    }
}

/// Says who overlaps `bounds` below `page`. It calls nothing, so that it needs no stack.
#[inline(never)]
pub(super) fn look<K: Kind>(page: &Page, compare: K, bounds: (u64, u64)) -> Look {
    if page.is_leaf() { look_at_leaf(page, compare, bounds) } else { look_below(page, compare, bounds) }
}

#[inline(always)]
fn look_at_leaf<K: Kind>(page: &Page, compare: K, bounds: (u64, u64)) -> Look {
    let hits = page.hits(compare, bounds);
    if hits == 0 {
        return Look::NOBODY;
    }
    if !hits.is_power_of_two() {
        return Look::several(page);
    }
    let node = page.node(hits.trailing_zeros() as usize % FAN);
    compare.prefetch(node.cast());
    Look::one(node)
}

/// Goes down from an inner page as long as there is but one way.
#[inline(always)]
fn look_below<K: Kind>(mut page: &Page, compare: K, bounds: (u64, u64)) -> Look {
    // Behind the last byte of the space there is none. Separators that are that byte go on from the page before them.
    let behind_first = bounds.0.saturating_add(1);
    while !page.is_leaf() {
        let next = page.separators_below(compare, behind_first);
        // INVARIANT: where there is no child its item is null, so the bit of the only one need not be waited for. Who is
        // inserted below a child comes behind its link, and a page is unlinked by its item before it is stamped (I5).
        let goes_on = page.key.get(next).is_some_and(|next| next.load(Ordering::Relaxed) <= bounds.1);
        if goes_on || page.reaches_beyond(next - 1) {
            return look_at_children(page, compare, bounds);
        }
        // SAFETY: at least one separator is below a bound that is not 0, and FAN are at the most.
        let child = unsafe { page.item.get_unchecked(next - 1) };
        // ORDERING: as in `child`.
        // SAFETY: as above; a child that was unlinked is null.
        let Some(child) = (unsafe { child.load(Ordering::Acquire).cast::<Page>().as_ref() }) else {
            return Look::NOBODY;
        };
        page = child;
    }
    look_at_leaf(page, compare, bounds)
}

/// Goes on with an inner page of which several children may matter, if it is but one of them.
#[inline(never)]
fn look_at_children<K: Kind>(page: &Page, compare: K, bounds: (u64, u64)) -> Look {
    let Children { all: children, .. } = page.children(compare, bounds);
    if !children.is_power_of_two() {
        return Look::several(page);
    }
    // SAFETY: the caller has pinned: a page that can be reached is not reused meanwhile; null is one that was unlinked.
    let child = unsafe { page.child(children.trailing_zeros() as usize).as_ref() };
    child.map_or(Look::NOBODY, |child| look(child, compare, bounds))
}

/// Collects who was found, and those below a page where several may be; false if the batch is full before the end.
#[inline(never)]
pub(super) fn collect<K: Kind>(
    look: Look,
    compare: K,
    bounds: (u64, u64),
    after: After<'_>,
    batch: &mut Batch,
) -> bool {
    let page = match look.found() {
        Found::Nobody => return true,
        Found::One(node) => return take(node.as_ptr(), after, batch),
        // SAFETY: the caller has pinned: a page that was found is not reused meanwhile.
        Found::Several(page) => unsafe { page.as_ref() },
    };
    if page.is_leaf() {
        return take_all(page, compare, page.hits(compare, bounds), after, batch);
    }
    let Children { all, whole } = page.children(compare, bounds);
    let children = all & !page.passed(compare, after);
    let is_whole = |slot| whole >> slot & 1 == 1;
    let fetch = |slot| {
        let child = page.child(slot).cast();
        if is_whole(slot) { compare.prefetch_entries(child) } else { compare.prefetch_page(child) }
    };
    let mut ahead = Bits(children);
    ahead.by_ref().take(AHEAD).for_each(fetch);
    if let (HIGH.., Some(second)) = (page.level.get(), Bits(children).nth(1)) {
        // It comes while those before it are collected, which may be long intervals that are hit each time.
        fetch_leaf(page.child(second), compare, bounds.0);
    }
    Bits(children).all(|slot| {
        ahead.next().into_iter().for_each(fetch);
        // No start below a child is smaller than its separator: behind that of the last hit all are new.
        let after = after.filter(|(start, _)| page.key(slot) <= *start);
        let child = page.child(slot);
        // SAFETY: as in `look_at_children`.
        match unsafe { child.as_ref() } {
            None => true,
            Some(leaf) if leaf.is_leaf() => {
                let hits = if is_whole(slot) { leaf.live().0 } else { leaf.hits(compare, bounds) };
                take_all(leaf, compare, hits, after, batch)
            }
            Some(inner) => collect(look_below(inner, compare, bounds), compare, bounds, after, batch),
        }
    })
}

/// Has the leaf fetched that stands below `page` for `byte`.
#[inline(never)]
fn fetch_leaf(mut page: *const Page, compare: impl Kind, byte: u64) {
    // SAFETY: as in `look_at_children`.
    while let Some(inner) = unsafe { page.as_ref() }.filter(|page| !page.is_leaf()) {
        page = inner.child(inner.last_child_up_to(compare, byte));
        if inner.level.get() == 1 {
            compare.prefetch_page(page.cast());
            return;
        }
    }
}

/// Collects those that are hit in a leaf, in order.
#[inline(always)]
fn take_all(leaf: &Page, compare: impl Kind, hits: u32, after: After<'_>, batch: &mut Batch) -> bool {
    if hits & hits.wrapping_sub(1) == 0 {
        return Bits(hits).all(|slot| take(leaf.node(slot), after, batch));
    }
    let slots = leaf.order.load(&leaf.used);
    let node = |slot| {
        let node = leaf.node(slot % FAN);
        compare.prefetch(node.cast());
        node
    };
    if after.is_none() && slots.are(hits) {
        // As in most leaves of many hits: there is nothing to look at for each.
        return batch.extend(slots.in_order().map(node));
    }
    batch.extend(slots.among(hits).map(node).filter(|node| is_new(*node, after)))
}

/// Adds one that is hit, unless an earlier search has found it; false if there is no room.
#[inline(always)]
fn take(node: *const Node, after: After<'_>, batch: &mut Batch) -> bool {
    !is_new(node, after) || batch.extend(iter::once(node))
}

/// Says whether no earlier search has found it.
#[inline(always)]
fn is_new(node: *const Node, after: After<'_>) -> bool {
    after.is_none_or(|after| {
        // SAFETY: it overlaps the published range, so the node is readable (I6 of the start).
        let node = unsafe { &*node };
        (node.bounds().0, node.order()) > *after
    })
}

/// Children of an inner page, as bits.
struct Children {
    all: u32,
    /// Leaves among them in which everything is hit.
    whole: u32,
}

impl Page {
    /// The last child whose separator is not above `byte`.
    #[inline(always)]
    pub(super) fn last_child_up_to(&self, compare: impl Kind, byte: u64) -> usize {
        let behind = byte.checked_add(1).map(|behind| self.separators_below(compare, behind));
        behind.unwrap_or_else(|| self.used()) - 1
    }

    /// How many separators are below a bound that is not 0: at least one, since the first is 0. What stands behind them is
    /// the top of the space, which is below no bound.
    #[inline(always)]
    fn separators_below(&self, compare: impl Kind, bound: u64) -> usize {
        if self.used() <= FEW {
            compare.count_few_below(&self.key, bound)
        } else {
            compare.count_below(&self.key, bound)
        }
    }

    /// Says whether something below a child before `begin` reaches beyond the next separator.
    #[inline(always)]
    fn reaches_beyond(&self, begin: usize) -> bool {
        let overhang = self.overhang.load(Ordering::Relaxed);
        overhang != 0 && overhang & below(begin) != 0
    }

    /// The children of an inner page that hold nothing behind the last hit, as bits.
    #[inline(always)]
    fn passed(&self, compare: impl Kind, after: After<'_>) -> u32 {
        // All starts below a child are at most the next separator.
        let before = after.and_then(|(start, _)| start.checked_sub(1));
        before.map_or(0, |byte| below(self.last_child_up_to(compare, byte)))
    }

    /// The children of an inner page that may hold what overlaps `bounds`.
    #[inline(always)]
    fn children(&self, compare: impl Kind, (first, last): (u64, u64)) -> Children {
        let begin = self.last_child_up_to(compare, first);
        let end = self.last_child_up_to(compare, last);
        let live = self.live().0;
        let within = live & (below(end) | 1 << end) & !below(begin);
        let reaching = live & below(begin) & self.overhang.load(Ordering::Relaxed);
        let reaches = |bits, slot| if self.max(slot) >= first { bits | 1 << slot } else { bits };
        let all = Bits(reaching).fold(within, reaches);
        // What they hold starts between two separators that are within the bounds.
        let whole = if self.level.get() == 1 { within & !(1 << begin | 1 << end) } else { 0 };
        Children { all, whole }
    }

    /// The entries of a leaf that overlap `bounds`, as bits.
    #[inline(always)]
    fn hits(&self, compare: impl Kind, (first, last): (u64, u64)) -> u32 {
        compare.overlapping(&self.key, &self.max, first, last, self.live().0)
    }
}
