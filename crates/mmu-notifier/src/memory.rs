//! Allocation that can fail.

#![expect(unsafe_code, reason = "allocating by hand")]

use alloc::alloc::alloc;
use alloc::boxed::Box;
use core::alloc::Layout;

/// Moves a value into a box; gives it back if there is no memory.
pub(crate) fn try_box<T>(value: T) -> Result<Box<T>, T> {
    if size_of::<T>() == 0 {
        return Ok(Box::new(value));
    }
    // SAFETY: the layout has a size.
    let memory = unsafe { alloc(Layout::new::<T>()) }.cast::<T>();
    if memory.is_null() {
        return Err(value);
    }
    // SAFETY: memory is fresh and fits a T.
    unsafe { memory.write(value) };
    // SAFETY: memory holds a T and came from the global allocator with T's layout.
    Ok(unsafe { Box::from_raw(memory) })
}
