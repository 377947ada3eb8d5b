//! Allocation that can fail.

#![expect(unsafe_code, reason = "allocating by hand")]

use alloc::alloc::alloc;
use alloc::boxed::Box;
use core::alloc::Layout;
use core::mem::MaybeUninit;

/// Moves a value into a box; gives it back if there is no memory.
pub(crate) fn try_box<T>(value: T) -> Result<Box<T>, T> {
    try_box_made(value, |value| value)
}

/// Makes a value of another one where it stays; gives that back if there is no memory.
#[inline(always)]
pub(crate) fn try_box_made<V, T>(of: V, make: impl FnOnce(V) -> T) -> Result<Box<T>, V> {
    if size_of::<T>() == 0 {
        return Ok(Box::new(make(of)));
    }
    // SAFETY: the layout has a size.
    let memory = unsafe { alloc(Layout::new::<T>()) }.cast::<MaybeUninit<T>>();
    if memory.is_null() {
        return Err(of);
    }
    // SAFETY: memory is fresh, fits a T, and came from the global allocator with T's layout.
    let mut memory = unsafe { Box::from_raw(memory) };
    memory.write(make(of));
    // SAFETY: it was just written.
    Ok(unsafe { memory.assume_init() })
}
