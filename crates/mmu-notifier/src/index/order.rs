//! The order of the entries of a leaf: by start, equal starts by insertion. Entries never move; this is a list of
//! their slots, one byte each.
//!
//! # Protocol
//! There are two lists, and a version, which is the number of entries: its lowest bit tells the valid one. *Add*:
//! fill the other list; version + 1 (release). *Load*: version (acquire), the list, F(acquire), version again: if it
//! is another one the list may have been overwritten meanwhile; again. A leaf has [`FAN`] entries in its life, so a
//! search loads that often at the most.
//!
//! An entry is added here before its live bit is set: a search that has seen the bit finds the slot.

use super::page::FAN;
use crate::sync::{AtomicU32, AtomicU64, Ordering, acquire_fence, release_fence};

const WORDS: usize = FAN.div_ceil(8);

/// Slots in order; the first `count` count.
pub(super) struct Slots {
    bytes: [u8; 8 * WORDS],
    count: usize,
}

/// The order of the entries of a leaf.
#[derive(Debug)]
pub(super) struct Order {
    lists: [[AtomicU64; WORDS]; 2],
    version: AtomicU32,
}

impl Order {
    pub(super) fn new() -> Self {
        let list = |_| core::array::from_fn(|_| AtomicU64::new(0));
        Order { lists: core::array::from_fn(list), version: AtomicU32::new(0) }
    }

    /// Forgets all, in a page that nobody can find.
    pub(super) fn clear(&self) {
        self.version.store(0, Ordering::Relaxed);
    }

    /// Makes it the order of the slots themselves, in a page that nobody can find.
    pub(super) fn fill(&self, count: usize) {
        for (at, word) in self.lists[count % 2].iter().enumerate() {
            let slots = core::array::from_fn(|byte| (8 * at + byte) as u8);
            word.store(u64::from_le_bytes(slots), Ordering::Relaxed);
        }
        self.version.store(count as u32, Ordering::Relaxed);
    }

    /// Adds the next slot at `position`. By the writer.
    pub(super) fn add(&self, position: usize) {
        let slot = self.version.load(Ordering::Relaxed);
        let mut slots = self.read(slot);
        slots.bytes.copy_within(position..slot as usize, position + 1);
        slots.bytes[position] = slot as u8;
        // ORDERING: the version before, then the list that it does not name; pairs with the fence in `load`.
        release_fence();
        let list = &self.lists[(slot as usize + 1) % 2];
        for (word, bytes) in list.iter().zip(slots.bytes.chunks_exact(8)) {
            word.store(u64::from_le_bytes(bytes.try_into().expect("eight bytes")), Ordering::Relaxed);
        }
        // ORDERING: release, for the acquire in `load`: the list is there.
        self.version.store(slot + 1, Ordering::Release);
    }

    /// The slots in order, those of dead entries included.
    pub(super) fn load(&self) -> Slots {
        // ORDERING: acquire pairs with the release in `add`.
        let mut version = self.version.load(Ordering::Acquire);
        loop {
            let slots = self.read(version);
            // ORDERING: the list, then the version: if a word was that of the addition after the next, this is newer.
            acquire_fence();
            let now = self.version.load(Ordering::Relaxed);
            if now == version {
                return slots;
            }
            version = now;
            // ORDERING: as the acquire load above.
            acquire_fence();
        }
    }

    fn read(&self, version: u32) -> Slots {
        let mut bytes = [0; 8 * WORDS];
        for (word, bytes) in self.lists[version as usize % 2].iter().zip(bytes.chunks_exact_mut(8)) {
            bytes.copy_from_slice(&word.load(Ordering::Relaxed).to_le_bytes());
        }
        Slots { bytes, count: version as usize }
    }
}

impl Slots {
    /// Those of them whose bit is set, in order.
    #[inline]
    pub(super) fn among(&self, bits: u32) -> impl Iterator<Item = usize> + '_ {
        let slots = self.bytes.iter().take(self.count).map(|slot| usize::from(*slot));
        slots.filter(move |slot| bits >> slot & 1 == 1)
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
            let order = Arc::new(Order::new());
            let reader = order.clone();
            let thread = loom::thread::spawn(move || {
                let found: Vec<usize> = reader.load().among(u32::MAX).collect();
                let valid: Vec<usize> = (0..found.len()).rev().collect();
                assert_eq!(found, valid);
            });
            (0..3).for_each(|_| order.add(0));
            thread.join().unwrap();
            assert_eq!(order.load().among(0b101).collect::<Vec<_>>(), [2, 0]);
        });
    }
}
