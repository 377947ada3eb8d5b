//! Comparing all entries of a page at once: with what vectors the machine has (`vector`), or one after the other
//! (`plain`). Entries that are not there are compared too, and masked by the caller.

#[cfg(not(all(feature = "std", target_arch = "x86_64", not(any(loom, shuttle, mmu_notifier_tsan)))))]
mod plain;
#[cfg(all(feature = "std", target_arch = "x86_64", not(any(loom, shuttle, mmu_notifier_tsan))))]
mod vector;

#[cfg(not(all(feature = "std", target_arch = "x86_64", not(any(loom, shuttle, mmu_notifier_tsan)))))]
pub(super) use plain::Compare;
#[cfg(all(feature = "std", target_arch = "x86_64", not(any(loom, shuttle, mmu_notifier_tsan))))]
pub(super) use vector::Compare;

use super::page::FAN;
use crate::sync::{AtomicU64, Ordering};

/// One word of each entry of a page.
type Words = [AtomicU64; FAN];

/// The entries whose key is at most `last` and whose maximum is at least `first`, as bits.
#[inline]
fn overlapping(keys: &Words, maxima: &Words, first: u64, last: u64) -> u32 {
    bits(|at| load(keys, at) <= last && load(maxima, at) >= first)
}

/// The entries whose key is at most `bound`, as bits.
#[inline]
fn up_to(keys: &Words, bound: u64) -> u32 {
    bits(|at| load(keys, at) <= bound)
}

/// How many keys are at most `bound`.
#[inline]
fn count_all_up_to(keys: &Words, bound: u64) -> usize {
    up_to(keys, bound).count_ones() as usize
}

/// Of keys that ascend, how many are at most `bound`.
#[inline]
fn count_up_to(keys: &Words, bound: u64) -> usize {
    // To find the first that is missing is quicker than to count bits where the compiler may not assume an instruction
    // for that.
    up_to(keys, bound).trailing_ones() as usize
}

fn load(words: &Words, at: usize) -> u64 {
    words[at].load(Ordering::Relaxed)
}

/// The bits of all entries for which `test` holds, without a branch for each.
#[inline]
fn bits(test: impl Fn(usize) -> bool) -> u32 {
    (0..FAN).fold(0, |bits, at| bits | u32::from(test(at)) << at)
}
