//! Allocation that can fail: of one value, and of blocks for many.
//!
//! What stands on lines of its own is [aligned](Aligned) here. Allocators look long for aligned memory, and what they cut
//! off before and behind it is in the way of the next that is asked for: then that is memory which nobody has touched.

#![expect(unsafe_code, reason = "allocating by hand")]

use alloc::alloc::{alloc, dealloc};
use alloc::boxed::Box;
use core::alloc::Layout;
use core::mem::{ManuallyDrop, MaybeUninit};
use core::ops::Deref;
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

/// A box for what is aligned to more than allocators give unasked.
///
/// # Invariants
/// It stands in a block of [`ROOM`](Self::ROOM); the byte [behind](Self::behind) it tells how far from its beginning.
pub(crate) struct Aligned<T>(NonNull<T>);

impl<T> Aligned<T> {
    /// The layout of a block in which the value can move up to where it is aligned.
    const ROOM: Layout = {
        assert!(align_of::<T>() <= u8::MAX as usize);
        match Layout::from_size_align(size_of::<T>() + align_of::<T>(), UNASKED) {
            Ok(layout) => layout,
            Err(_) => panic!("a value has room beside it"),
        }
    };

    /// Makes a value where it stays; none if there is no memory.
    #[inline]
    pub(crate) fn try_new(make: impl FnOnce() -> T) -> Option<Self> {
        // SAFETY: the layout has a size.
        let block = NonNull::new(unsafe { alloc(Self::ROOM) })?.as_ptr();
        let before = block.align_offset(align_of::<T>());
        // INVARIANT: less than the alignment is skipped, so there is room for the value and for one byte.
        let made = Aligned(NonNull::new(block.wrapping_add(before).cast::<T>())?);
        // SAFETY: it is fresh memory, aligned for the value.
        unsafe { made.0.write(make()) };
        // SAFETY: the byte behind the value is in the block, too.
        unsafe { made.behind().write(before as u8) };
        Some(made)
    }

    fn behind(&self) -> *mut u8 {
        self.0.as_ptr().wrapping_add(1).cast()
    }

    pub(crate) fn into_raw(self) -> *mut T {
        ManuallyDrop::new(self).0.as_ptr()
    }

    /// # Safety
    /// The value came from [`into_raw`](Self::into_raw), and is not used otherwise any more.
    pub(crate) unsafe fn from_raw(value: NonNull<T>) -> Self {
        Aligned(value)
    }
}

impl<T> Deref for Aligned<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: by the invariant.
        unsafe { self.0.as_ref() }
    }
}

impl<T> Drop for Aligned<T> {
    fn drop(&mut self) {
        /// Given back also if the drop of the value panics.
        struct Block(*mut u8, Layout);

        impl Drop for Block {
            fn drop(&mut self) {
                // SAFETY: it was allocated with this layout, and what stood in it is gone.
                unsafe { dealloc(self.0, self.1) };
            }
        }

        // SAFETY: by the invariant.
        let before = unsafe { self.behind().read() };
        let _block = Block(self.0.as_ptr().cast::<u8>().wrapping_sub(before.into()), Self::ROOM);
        // SAFETY: by the invariant; it is not used again.
        unsafe { self.0.drop_in_place() };
    }
}

/// What allocators give without being asked.
pub(crate) const UNASKED: usize = 2 * align_of::<usize>();

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
