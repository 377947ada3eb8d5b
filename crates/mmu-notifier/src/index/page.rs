//! The pages of the index, and the search through them.
//!
//! Leaves and inner pages have one form: up to 32 entries of (key, maximum, item), and a bitmap of those that
//! are there. In a leaf an entry is a subscription: first byte, last byte, node. Its entries stand in the order
//! in which they came and never move; a slot is used once in a page's life. In an inner page an entry is a
//! child: its separator (no start below the child is smaller), the highest last byte below it, and the page.
//! Separators ascend and never change; behind the last they are `u64::MAX`.
//!
//! Bit *i* of `overhang` says that something below child *i* reaches the next separator: only then can the
//! child matter to a query that begins behind that separator. Without long intervals no maximum is ever read.

#![expect(unsafe_code, reason = "pages are reached through raw pointers that a pin protects")]

use core::cell::Cell;
use core::mem::MaybeUninit;
use core::ptr;

use crate::interval::Node;
use crate::sync::{AtomicPtr, AtomicU32, AtomicU64, Ordering};

/// Entries a page.
pub(crate) const FAN: usize = if cfg!(any(loom, shuttle)) { 2 } else { 32 };

/// Hits that a search collects at a time.
pub(crate) const BATCH: usize = if cfg!(any(loom, shuttle)) { 1 } else { 128 };

/// A leaf or an inner page.
///
/// # Invariants
/// `level` and, in an inner page, `key` do not change while the page can be found. Cells belong to the writer.
#[derive(Debug)]
#[repr(C, align(64))]
pub(super) struct Page {
    /// Which entries are there.
    pub(super) live: AtomicU32,
    /// Which children reach beyond the next separator.
    pub(super) overhang: AtomicU32,
    /// 0 for a leaf.
    pub(super) level: Cell<u32>,
    /// How many slots are used, dead ones included.
    pub(super) used: Cell<u32>,
    pub(super) parent: Cell<*const Page>,
    pub(super) slot: Cell<u32>,
    pub(super) stamp: Cell<u64>,
    /// The next in the list of retired or of free pages.
    pub(super) next: Cell<*const Page>,
    /// What its allocator gave: pages are linked by references, and none of those may free one.
    pub(super) memory: Cell<*mut Page>,
    pub(super) key: [AtomicU64; FAN],
    pub(super) max: [AtomicU64; FAN],
    pub(super) item: [AtomicPtr<()>; FAN],
}

impl Page {
    /// An empty page.
    pub(super) fn new() -> Self {
        Page {
            live: AtomicU32::new(0),
            overhang: AtomicU32::new(0),
            level: Cell::new(0),
            used: Cell::new(0),
            parent: Cell::new(ptr::null()),
            slot: Cell::new(0),
            stamp: Cell::new(0),
            next: Cell::new(ptr::null()),
            memory: Cell::new(ptr::null_mut()),
            key: core::array::from_fn(|_| AtomicU64::new(u64::MAX)),
            max: core::array::from_fn(|_| AtomicU64::new(0)),
            item: core::array::from_fn(|_| AtomicPtr::new(ptr::null_mut())),
        }
    }

    pub(super) fn is_leaf(&self) -> bool {
        self.level.get() == 0
    }

    pub(super) fn live(&self) -> Bits {
        // ORDERING: acquire pairs with the release that sets a bit: the entry is there.
        Bits(self.live.load(Ordering::Acquire))
    }

    pub(super) fn key(&self, slot: usize) -> u64 {
        self.key[slot].load(Ordering::Relaxed)
    }

    pub(super) fn max(&self, slot: usize) -> u64 {
        self.max[slot].load(Ordering::Relaxed)
    }

    /// A child of an inner page.
    pub(super) fn child(&self, slot: usize) -> *const Page {
        // ORDERING: acquire pairs with the release that linked the child: its entries are there.
        self.item[slot].load(Ordering::Acquire).cast()
    }

    /// A subscription in a leaf.
    pub(super) fn node(&self, slot: usize) -> *const Node {
        self.item[slot].load(Ordering::Relaxed).cast_const().cast()
    }

    /// The child that a start belongs below: the last whose separator is not greater.
    pub(super) fn child_for(&self, start: u64) -> usize {
        let mut low = 0;
        for step in [16, 8, 4, 2, 1] {
            if low + step < FAN && self.key(low + step) <= start {
                low += step;
            }
        }
        low
    }

    /// The highest last byte of what is there; 0 if nothing is.
    pub(super) fn highest(&self) -> u64 {
        self.live().map(|slot| self.max(slot)).max().unwrap_or(0)
    }
}

/// The set bits of a word, ascending.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bits(pub(super) u32);

impl Iterator for Bits {
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        let bit = (self.0 != 0).then(|| self.0.trailing_zeros() as usize);
        self.0 &= self.0.wrapping_sub(1);
        bit
    }
}

/// The bits below `slot`.
fn below(slot: usize) -> u32 {
    ((1u64 << slot) - 1) as u32
}

/// What is searched for.
#[derive(Debug)]
pub(super) struct Query {
    pub(super) first: u64,
    pub(super) last: u64,
    /// Start and order of the last hit that was collected before.
    pub(super) after: Option<(u64, u64)>,
}

impl Query {
    fn is_new(&self, start: u64, node: *const Node) -> bool {
        // SAFETY: the entry overlaps the published range, so its node is readable (I6 of the start).
        self.after.is_none_or(|after| (start, unsafe { &*node }.order()) > after)
    }
}

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
    pub(crate) fn as_slice(&self) -> &[*const Node] {
        let written = &self.nodes[..self.len];
        // SAFETY: by the invariant these entries are written, and MaybeUninit has the layout of its content.
        unsafe { &*(ptr::from_ref(written) as *const [*const Node]) }
    }

    fn push(&mut self, node: *const Node) -> bool {
        let room = self.len < BATCH;
        if room {
            self.nodes[self.len].write(node);
            self.len += 1;
        }
        room
    }
}

/// Collects what overlaps the query below `page`; false if the batch is full before the end.
pub(super) fn search(page: *const Page, query: &Query, batch: &mut Batch) -> bool {
    // SAFETY: the caller has pinned: a page that can be reached is not reused meanwhile.
    let Some(page) = (unsafe { page.as_ref() }) else { return true };
    if page.is_leaf() {
        return search_leaf(page, query, batch);
    }
    let begin = page.child_for(query.first);
    let end = page.child_for(query.last);
    let live = page.live().0 & (below(end) | 1 << end);
    let reaching = live & below(begin) & page.overhang.load(Ordering::Relaxed);
    let left = Bits(reaching).filter(|slot| page.max(*slot) >= query.first);
    let children = left.chain(Bits(live & !below(begin)));
    let from = query.after.map_or(0, |(start, _)| start);
    for slot in children {
        // All starts below a child are at most the next separator.
        let passed = slot + 1 < FAN && page.key(slot + 1) < from;
        if !passed && !search(page.child(slot), query, batch) {
            return false;
        }
    }
    true
}

/// Collects what overlaps the query in a leaf, by start; equal starts stand in the order of their slots.
#[inline]
fn search_leaf(leaf: &Page, query: &Query, batch: &mut Batch) -> bool {
    let mut hits = 0u32;
    for slot in leaf.live() {
        let hit = leaf.key(slot) <= query.last && leaf.max(slot) >= query.first;
        hits |= u32::from(hit) << slot;
    }
    if hits == 0 {
        return true;
    }
    let mut slots = [0u8; FAN];
    let count = sort_by_start(leaf, Bits(hits), &mut slots);
    slots[..count].iter().all(|&slot| {
        let (start, node) = (leaf.key(slot.into()), leaf.node(slot.into()));
        !query.is_new(start, node) || batch.push(node)
    })
}

/// Writes the slots in `bits` in the order of their starts; they are nearly in order already.
fn sort_by_start(leaf: &Page, bits: Bits, slots: &mut [u8; FAN]) -> usize {
    let mut count = 0;
    for slot in bits {
        let start = leaf.key(slot);
        let mut at = count;
        while at > 0 && leaf.key(slots[at - 1].into()) > start {
            slots[at] = slots[at - 1];
            at -= 1;
        }
        slots[at] = slot as u8;
        count += 1;
    }
    count
}
