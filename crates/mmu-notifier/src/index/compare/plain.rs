//! Without vectors: what every machine can.

use super::Words;

/// Compares one after the other.
#[derive(Clone, Copy, Debug)]
pub(in crate::index) struct Compare;

impl Compare {
    /// The one that there is.
    pub(in crate::index) fn best() -> Self {
        Compare
    }

    /// The entries whose key is at most `last` and whose maximum is at least `first`, as bits.
    #[inline]
    pub(in crate::index) fn overlapping(self, keys: &Words, maxima: &Words, first: u64, last: u64) -> u32 {
        super::overlapping(keys, maxima, first, last)
    }

    /// How many keys are at most `bound`.
    #[inline]
    pub(in crate::index) fn count_all_up_to(self, keys: &Words, bound: u64) -> usize {
        super::count_all_up_to(keys, bound)
    }

    /// Of keys that ascend, how many are at most `bound`.
    #[inline]
    pub(in crate::index) fn count_up_to(self, keys: &Words, bound: u64) -> usize {
        super::count_up_to(keys, bound)
    }

    /// There is no instruction for this.
    #[inline]
    pub(in crate::index) fn prefetch(self, _address: *const ()) {}

    /// There is no instruction for this.
    #[inline]
    pub(in crate::index) fn prefetch_page(self, _page: *const ()) {}
}
