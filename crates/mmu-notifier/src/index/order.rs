//! The order of the entries of a leaf: by start, equal starts by insertion. Entries never move; this is a list of
//! their slots, one byte each.
//!
//! # Protocol
//! There are two lists, and a version, which is the number of entries in the leaf: its lowest bit tells the valid one. *Add*:
//! fill the other list; version + 1 (release). *Load*: version (acquire), the list, F(acquire), version again: if it
//! is another one the list may have been overwritten meanwhile; again. A leaf has [`FAN`] entries in its life, so a
//! search loads that often at the most.
//!
//! An entry is added here before its live bit is set: a search that has seen the bit finds the slot.

use super::page::{FAN, below};
use crate::sync::{AtomicU32, AtomicU64, Ordering, acquire_fence, release_fence};

const WORDS: usize = FAN.div_ceil(8);

/// Slots in order; the first `count` count.
pub(super) struct Slots {
    bytes: [u8; 8 * WORDS],
    count: usize,
}

/// The order of the entries of a leaf; the version stands elsewhere in the page.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct Order([[AtomicU64; WORDS]; 2]);

impl Order {
    pub(super) fn new() -> Self {
        let list = |_| core::array::from_fn(|_| AtomicU64::new(0));
        Order(core::array::from_fn(list))
    }

    /// Makes it the order of the slots themselves, in a page that nobody can find.
    pub(super) fn fill(&self, version: &AtomicU32, count: usize) {
        for (at, word) in self.0[count % 2].iter().enumerate() {
            let slots = core::array::from_fn(|byte| (8 * at + byte) as u8);
            word.store(u64::from_le_bytes(slots), Ordering::Relaxed);
        }
        version.store(count as u32, Ordering::Relaxed);
    }

    /// Adds the next slot at `position`. By the writer.
    #[inline]
    pub(super) fn add(&self, version: &AtomicU32, position: usize) {
        let slot = version.load(Ordering::Relaxed);
        let words = self.0[slot as usize % 2].each_ref().map(|word| word.load(Ordering::Relaxed));
        let list = &self.0[(slot as usize + 1) % 2];
        // ORDERING: the version before, then the list that it does not name; pairs with the fence in `load`.
        release_fence();
        for (to, word) in list.iter().zip(with_gap(words, position)) {
            to.store(word, Ordering::Relaxed);
        }
        let (word, shift) = (&list[position / 8], 8 * (position % 8));
        let others = word.load(Ordering::Relaxed) & !(0xff << shift);
        word.store(others | u64::from(slot) << shift, Ordering::Relaxed);
        // ORDERING: release, for the acquire in `load`: the list is there.
        version.store(slot + 1, Ordering::Release);
    }

    /// The slots in order, those of dead entries included.
    pub(super) fn load(&self, version: &AtomicU32) -> Slots {
        // ORDERING: acquire pairs with the release in `add`.
        let mut before = version.load(Ordering::Acquire);
        loop {
            let slots = self.read(before);
            // ORDERING: the list, then the version: if a word was that of the addition after the next, this is newer.
            acquire_fence();
            let now = version.load(Ordering::Relaxed);
            if now == before {
                return slots;
            }
            before = now;
            // ORDERING: as the acquire load above.
            acquire_fence();
        }
    }

    fn read(&self, version: u32) -> Slots {
        let mut bytes = [0; 8 * WORDS];
        for (word, bytes) in self.0[version as usize % 2].iter().zip(bytes.chunks_exact_mut(8)) {
            bytes.copy_from_slice(&word.load(Ordering::Relaxed).to_le_bytes());
        }
        Slots { bytes, count: version as usize }
    }
}

/// Bytes that are all ones below a position, and 0 from it on, if they are read as many bytes before the middle.
static BELOW: [u8; 16 * WORDS] = {
    let mut bytes = [0; 16 * WORDS];
    let mut at = 0;
    while at < 8 * WORDS {
        bytes[at] = 0xff;
        at += 1;
    }
    bytes
};

/// Moves the bytes from `position` on by one; which byte is there then is open. In registers, since a load waits long
/// for what was stored in pieces, and without a branch, since positions cannot be foreseen.
#[inline]
fn with_gap(words: [u64; WORDS], position: usize) -> [u64; WORDS] {
    let below = &BELOW[8 * WORDS - position..][..8 * WORDS];
    core::array::from_fn(|at| {
        let below = u64::from_le_bytes(core::array::from_fn(|byte| below[8 * at + byte]));
        let before = if at == 0 { 0 } else { words[at - 1] >> 56 };
        words[at] & below | (words[at] << 8 | before) & !below
    })
}

impl Slots {
    /// Says whether these bits are those of all of them.
    #[inline]
    pub(super) fn are(&self, bits: u32) -> bool {
        bits == below(self.count)
    }

    /// All of them, in order.
    #[inline]
    pub(super) fn in_order(&self) -> impl Iterator<Item = usize> + '_ {
        self.bytes[..self.count.min(8 * WORDS)].iter().map(|slot| usize::from(*slot))
    }

    /// Those of them whose bit is set, in order.
    #[inline]
    pub(super) fn among(&self, bits: u32) -> impl Iterator<Item = usize> + '_ {
        self.in_order().filter(move |slot| bits >> slot & 1 == 1)
    }
}

#[cfg(all(test, loom))]
mod models {
    use alloc::vec::Vec;
    use std::sync::Arc;

    use super::*;

    /// Three additions, each before all others: the third overwrites the list of the first.
    #[test]
    fn a_list_that_is_loaded_was_valid() {
        loom::model(|| {
            let order = Arc::new((Order::new(), AtomicU32::new(0)));
            let reader = order.clone();
            let thread = loom::thread::spawn(move || {
                let found: Vec<usize> = reader.0.load(&reader.1).among(u32::MAX).collect();
                let valid: Vec<usize> = (0..found.len()).rev().collect();
                assert_eq!(found, valid);
            });
            (0..3).for_each(|_| order.0.add(&order.1, 0));
            thread.join().unwrap();
            assert_eq!(order.0.load(&order.1).among(0b101).collect::<Vec<_>>(), [2, 0]);
        });
    }
}
