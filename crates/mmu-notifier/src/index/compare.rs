//! Comparing all entries of a page at once: with what vectors the machine has (`vector`), or one after the other
//! (`plain`). Entries that are not there are compared too, and masked by the caller.
//!
//! What compares is a [`Kind`], and searches are compiled for each, so that nothing is called for a page. A [`Compare`] is
//! the best kind of this machine; [`of_kind`] goes from the one to the other.

#[cfg(not(all(feature = "std", target_arch = "x86_64", not(any(loom, shuttle, mmu_notifier_tsan)))))]
mod plain;
#[cfg(all(feature = "std", target_arch = "x86_64", not(any(loom, shuttle, mmu_notifier_tsan))))]
mod vector;

#[cfg(not(all(feature = "std", target_arch = "x86_64", not(any(loom, shuttle, mmu_notifier_tsan)))))]
pub(super) use plain::{Compare, of_kind};
#[cfg(all(feature = "std", target_arch = "x86_64", not(any(loom, shuttle, mmu_notifier_tsan))))]
pub(super) use vector::{Compare, of_kind};

use super::page::FAN;
use crate::sync::{AtomicU64, Ordering};

/// The bit that tells negative numbers.
const SIGN: u64 = 1 << 63;

/// A word of an entry, kept with its highest bit the other way round: vectors compare signed numbers.
#[derive(Debug)]
#[cfg_attr(not(any(loom, shuttle)), repr(transparent))]
pub(super) struct Word(AtomicU64);

impl Word {
    pub(super) fn new(value: u64) -> Self {
        Word(AtomicU64::new(value ^ SIGN))
    }

    #[inline]
    pub(super) fn load(&self, ordering: Ordering) -> u64 {
        self.0.load(ordering) ^ SIGN
    }

    #[inline(always)]
    fn is_below(&self, bound: u64) -> bool {
        (self.0.load(Ordering::Relaxed) as i64) < (bound ^ SIGN) as i64
    }

    #[inline]
    pub(super) fn store(&self, value: u64, ordering: Ordering) {
        self.0.store(value ^ SIGN, ordering);
    }
}

/// One word of each entry of a page.
type Words = [Word; FAN];

/// So few children, as a root often has, are compared without vectors, which take longer to answer.
pub(super) const FEW: usize = if FAN < 8 { FAN } else { 8 };

/// A way to compare.
pub(super) trait Kind: Copy {
    /// Those of the entries `live` whose key is at most `last` and whose maximum is at least `first`, as bits.
    fn overlapping(self, keys: &Words, maxima: &Words, first: u64, last: u64, live: u32) -> u32;

    /// How many keys are below `bound`.
    fn count_all_below(self, keys: &Words, bound: u64) -> usize;

    /// Of keys that ascend, how many are below `bound`.
    fn count_below(self, keys: &Words, bound: u64) -> usize;

    /// Of the first [`FEW`] keys, which ascend from one that is below `bound`, how many are.
    #[inline(always)]
    fn count_few_below(self, keys: &Words, bound: u64) -> usize {
        1 + keys[1..FEW].iter().filter(|key| key.is_below(bound)).count()
    }

    /// How many keys are at most `bound`.
    #[inline(always)]
    fn count_all_up_to(self, keys: &Words, bound: u64) -> usize {
        bound.checked_add(1).map_or(FAN, |behind| self.count_all_below(keys, behind))
    }

    /// Has the line of this address fetched, where there is an instruction for that.
    #[inline(always)]
    fn prefetch(self, _address: *const ()) {}

    /// Has what a search compares in a page fetched.
    #[inline(always)]
    fn prefetch_page(self, _page: *const ()) {}

    /// Has what tells the entries of a leaf fetched, in their order.
    #[inline(always)]
    fn prefetch_entries(self, _leaf: *const ()) {}
}

/// One after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Scalar;

impl Kind for Scalar {
    #[inline(always)]
    fn overlapping(self, keys: &Words, maxima: &Words, first: u64, last: u64, live: u32) -> u32 {
        live & bits(|at| load(keys, at) <= last && load(maxima, at) >= first)
    }

    #[inline(always)]
    fn count_all_below(self, keys: &Words, bound: u64) -> usize {
        bits(|at| load(keys, at) < bound).count_ones() as usize
    }

    #[inline(always)]
    fn count_below(self, keys: &Words, bound: u64) -> usize {
        // To find the first that is missing is quicker than to count bits where the compiler may not assume an
        // instruction for that.
        bits(|at| load(keys, at) < bound).trailing_ones() as usize
    }
}

#[inline(always)]
fn load(words: &Words, at: usize) -> u64 {
    words[at].load(Ordering::Relaxed)
}

/// The bits of all entries for which `test` holds, without a branch for each.
#[inline(always)]
fn bits(test: impl Fn(usize) -> bool) -> u32 {
    (0..FAN).fold(0, |bits, at| bits | u32::from(test(at)) << at)
}
