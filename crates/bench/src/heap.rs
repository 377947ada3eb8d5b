//! An allocator that counts, while it is asked to: how many bytes are allocated.
//!
//! Otherwise it passes everything on to the system's, behind one load that is well predicted.

#![expect(unsafe_code, reason = "an allocator is unsafe to implement")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

/// The system's allocator, and a count.
struct Counting;

#[global_allocator]
static HEAP: Counting = Counting;

static ON: AtomicBool = AtomicBool::new(false);
static LIVE: AtomicI64 = AtomicI64::new(0);

/// Runs `work`, and gives by how many bytes more are allocated afterwards. Only one thread may do so at a time.
pub(crate) fn growth<R>(work: impl FnOnce() -> R) -> (R, i64) {
    LIVE.store(0, Ordering::Relaxed);
    ON.store(true, Ordering::Relaxed);
    let result = work();
    ON.store(false, Ordering::Relaxed);
    (result, LIVE.load(Ordering::Relaxed))
}

#[inline]
fn count(bytes: usize, sign: i64) {
    if ON.load(Ordering::Relaxed) {
        LIVE.fetch_add(sign * bytes as i64, Ordering::Relaxed);
    }
}

// SAFETY: everything is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 1);
        // SAFETY: as promised by the caller.
        unsafe { System.alloc(layout) }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 1);
        // SAFETY: as promised by the caller.
        unsafe { System.alloc_zeroed(layout) }
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        count(layout.size(), -1);
        // SAFETY: as promised by the caller; the block came from the system's allocator.
        unsafe { System.dealloc(block, layout) }
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(layout.size(), -1);
        count(size, 1);
        // SAFETY: as promised by the caller; the block came from the system's allocator.
        unsafe { System.realloc(block, layout, size) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stays_is_counted() {
        // Other tests allocate at the same time, but not so much.
        let (kept, bytes) = growth(|| {
            drop(vec![0u8; 50 << 20]);
            vec![0u8; 10 << 20]
        });
        assert!((9 << 20..12 << 20).contains(&bytes), "{} {bytes}", kept.len());
    }
}
