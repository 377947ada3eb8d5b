//! The one thing that every callback does: it counts, as that of the C program does.
//!
//! A load and a store, no atomic read-modify-write; two threads that count at once may lose counts, as in C.

use std::sync::atomic::{AtomicU64, Ordering};

static HITS: AtomicU64 = AtomicU64::new(0);

/// Counts a call.
#[inline]
pub(crate) fn hit() {
    HITS.store(HITS.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
}

/// Counts from 0 again, and gives what was counted.
pub(crate) fn take() -> u64 {
    HITS.swap(0, Ordering::Relaxed)
}
