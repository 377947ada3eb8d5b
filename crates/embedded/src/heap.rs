//! The heap: one block of memory, cut up from the bottom.
//!
//! What is freed on top is used again, and so is everything once nothing is in use any more; the rest stays
//! as it is. That is enough for a program whose allocations are few and last.

#![expect(unsafe_code, reason = "an allocator gives out raw memory")]

use core::alloc::{GlobalAlloc, Layout};
use core::ptr;

use crate::lock::Lock;

const SIZE: usize = 1 << 20;

#[global_allocator]
static HEAP: Heap = Heap(Lock::new(Arena { memory: Memory([0; SIZE]), top: 0, blocks: 0 }));

struct Heap(Lock<Arena>);

struct Arena {
    memory: Memory,
    /// The first byte that is free, with all above it.
    top: usize,
    /// How many blocks are in use.
    blocks: usize,
}

#[repr(align(4096))]
struct Memory([u8; SIZE]);

impl Arena {
    /// A block of this layout; null if there is no room.
    fn take(&mut self, layout: Layout) -> *mut u8 {
        let base = self.memory.0.as_mut_ptr();
        let Some(address) = (base.addr() + self.top).checked_next_multiple_of(layout.align()) else {
            return ptr::null_mut();
        };
        let start = address - base.addr();
        match start.checked_add(layout.size()) {
            Some(end) if end <= SIZE => {
                self.top = end;
                self.blocks += 1;
                base.wrapping_add(start)
            }
            _ => ptr::null_mut(),
        }
    }

    fn give_back(&mut self, block: *mut u8, size: usize) {
        let start = block.addr() - self.memory.0.as_ptr().addr();
        self.blocks -= 1;
        if self.blocks == 0 {
            self.top = 0;
        } else if start + size == self.top {
            self.top = start;
        }
    }
}

// SAFETY: blocks lie in the one arena, are as long and as aligned as asked, and none overlaps another that is
// in use: the next one begins at `top`, which is above all of them.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.0.lock().take(layout)
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        self.0.lock().give_back(block, layout.size());
    }
}
