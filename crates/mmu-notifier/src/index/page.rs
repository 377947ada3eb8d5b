//! The pages of the index.
//!
//! Leaves and inner pages have one form: up to 32 entries of (key, maximum, item), and a bitmap of those that
//! are there. In a leaf an entry is a subscription: first byte, last byte, node. Its entries stand in the order
//! in which they came and never move; a slot is used once in a page's life; [`order`](super::order) tells which
//! comes before which. In an inner page an entry is a child: its separator (no start below the child is smaller), its
//! maximum (no last byte below it is higher), and the page. Separators ascend and never change; the first of a page is 0,
//! as whoever comes to the page belongs below it. Keys of slots that are not used are `u64::MAX`. The item of a child that
//! is not there is null: a search that has only one way to go takes it by the child's number, and waits for no bits.
//!
//! Bit *i* of `overhang` says that something below child *i* reaches the next separator: only then can the
//! child matter to a query that begins behind that separator. Without long intervals no search reads a maximum, and
//! removes leave it as it is.

use core::cell::Cell;
use core::ptr;

use super::compare::{Compare, Word, of_kind};
use super::order::Order;
use crate::interval::Node;
use crate::sync::{AtomicPtr, AtomicU32, Ordering};

/// Entries a page.
pub(crate) const FAN: usize = if cfg!(any(loom, shuttle)) { 2 } else { 32 };

/// A leaf or an inner page.
///
/// # Invariants
/// `level` and, in an inner page, `used` and `key` do not change while the page can be found. In an inner page the item of a
/// slot without a live bit is null, or a child that is just being linked or unlinked. Cells belong to the writer; `top` of
/// a linked page is what its parent has as its maximum.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Page {
    /// Which entries are there.
    pub(super) live: AtomicU32,
    /// Which children reach beyond the next separator.
    pub(super) overhang: AtomicU32,
    /// 0 for a leaf.
    pub(super) level: Cell<u32>,
    /// How many slots are used, dead ones included; in a leaf the version of the order.
    pub(super) used: AtomicU32,
    pub(super) parent: Cell<*const Page>,
    pub(super) slot: Cell<u32>,
    /// Its maximum again, so that most changes of a leaf need not look at its parent; of the root the top of the space.
    pub(super) top: Cell<u64>,
    /// No separator behind it is lower; 0 if that is not known. What does not reach it, nobody asks the maxima for.
    pub(super) ceiling: Cell<u64>,
    pub(super) stamp: Cell<u64>,
    /// The next in the list of retired or of free pages.
    pub(super) next: Cell<*const Page>,
    /// Of the entries of a leaf.
    pub(super) order: Order,
    pub(super) key: [Word; FAN],
    pub(super) max: [Word; FAN],
    pub(super) item: [AtomicPtr<()>; FAN],
}

impl Page {
    /// An empty page of `level`.
    pub(super) fn new(level: u32) -> Self {
        Page {
            live: AtomicU32::new(0),
            overhang: AtomicU32::new(0),
            level: Cell::new(level),
            used: AtomicU32::new(0),
            parent: Cell::new(ptr::null()),
            slot: Cell::new(0),
            top: Cell::new(0),
            ceiling: Cell::new(0),
            stamp: Cell::new(0),
            next: Cell::new(ptr::null()),
            order: Order::new(),
            key: core::array::from_fn(|_| Word::new(u64::MAX)),
            max: core::array::from_fn(|_| Word::new(0)),
            item: core::array::from_fn(|_| AtomicPtr::new(ptr::null_mut())),
        }
    }

    /// How many slots are used; for the writer, and of an inner page.
    pub(super) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed) as usize
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

    /// The child that a start belongs below.
    #[inline]
    pub(super) fn child_for(&self, compare: Compare, start: u64) -> usize {
        of_kind!(compare, kind => self.last_child_up_to(kind, start))
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
pub(super) fn below(slot: usize) -> u32 {
    ((1u64 << slot) - 1) as u32
}
