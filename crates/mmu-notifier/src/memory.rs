//! Allocation that can fail: of one value, and of blocks for many.

#![expect(unsafe_code, reason = "allocating by hand")]

use alloc::alloc::alloc;
use alloc::boxed::Box;
use core::alloc::Layout;
use core::mem::MaybeUninit;
use core::ptr::NonNull;

use crate::platform;

/// Moves a value into a box; gives it back if there is no memory.
pub(crate) fn try_box<T>(value: T) -> Result<Box<T>, T> {
    if size_of::<T>() == 0 {
        return Ok(Box::new(value));
    }
    // SAFETY: the layout has a size.
    let memory = unsafe { alloc(Layout::new::<T>()) }.cast::<MaybeUninit<T>>();
    if memory.is_null() {
        return Err(value);
    }
    // SAFETY: memory is fresh, fits a T, and came from the global allocator with T's layout.
    let mut memory = unsafe { Box::from_raw(memory) };
    memory.write(value);
    // SAFETY: it was just written.
    Ok(unsafe { memory.assume_init() })
}

/// What a block is at the most: a huge page of most machines. Where much is kept in such blocks, a look at any of it
/// seldom misses the TLB.
pub(crate) const HUGE: usize = 2 << 20;

/// The layout of a block of `size` bytes, which are at most [`HUGE`]; one of these may stand on one huge page.
pub(crate) fn block(size: usize, align: usize) -> Layout {
    let align = if size == HUGE { HUGE } else { align };
    Layout::from_size_align(size, align).expect("a block is no larger than a huge page")
}

/// Allocates a block.
pub(crate) fn try_alloc_block(layout: Layout) -> Option<NonNull<u8>> {
    // SAFETY: a block has a size.
    let block = NonNull::new(unsafe { alloc(layout) })?;
    if layout.size() == HUGE {
        platform::prefer_huge_page(block);
    }
    Some(block)
}
