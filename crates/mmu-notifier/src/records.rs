//! The memory of records: slots, in blocks that stay until the space goes. Each type has its own, the first of them
//! beside its [table](crate::interval::Tables).
//!
//! An allocator serves everybody; here the next record of a kind stands beside the one before, without a word of the
//! allocator between, and nobody has to look for it. Slots are taken and given back under one lock, which
//! nobody holds while the allocator runs. What does not fit a slot comes from the allocator by itself; so do all records
//! where `--cfg mmu_notifier_boxes` says so, for tools that watch the allocator to find what is used after its end.

#![expect(unsafe_code, reason = "slots are handed out as raw memory")]

use alloc::alloc::{alloc, dealloc};
use core::alloc::Layout;
use core::cell::Cell;
use core::ptr::{self, NonNull};

use crate::memory::{HUGE, block, try_alloc_block};
use crate::sync::SpinLock;

/// Whether there are slots at all, or what one record leaves serves another.
pub(crate) const SLOTS: bool = !cfg!(any(loom, shuttle, mmu_notifier_boxes));
/// The largest slot.
const MOST: usize = 256;
/// How many slots a type has at first. Each block has as many more as there are, up to so many bytes; where there are as
/// many as that holds, it is a huge page.
const FIRST: usize = 7;
const LARGEST: usize = 64 << 10;

/// The memory of the records of a space. On a cache line of its own: starts read what stands beside it.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct Records {
    lock: SpinLock,
    /// All blocks. Used under the lock.
    blocks: Cell<*mut Block>,
}

// SAFETY: the cell is used under the lock.
unsafe impl Sync for Records {}
// SAFETY: as above; nothing belongs to a thread.
unsafe impl Send for Records {}

/// The slots for records of one type, in the blocks of one space. Used under the lock of that.
///
/// # Invariants
/// `free` leads through slots that nobody has. From `fresh` on there is room for `left` that nobody has had yet. All others
/// are `taken`.
#[derive(Debug)]
pub(crate) struct Slots {
    free: Cell<*mut Free>,
    fresh: Cell<*mut u8>,
    left: Cell<usize>,
    /// How many there are in all blocks.
    count: Cell<usize>,
    /// How many somebody has.
    taken: Cell<usize>,
}

/// A slot that nobody has.
#[derive(Debug)]
struct Free {
    next: *mut Free,
}

/// The head of a block; the slots stand behind it. A record that is as large as a cache line stands in one there.
#[derive(Debug)]
#[repr(align(64))]
struct Block {
    next: *mut Block,
    layout: Layout,
}

/// Whether records of this layout stand in slots.
const fn fits(layout: Layout) -> bool {
    let least = size_of::<Free>() <= layout.size() && align_of::<Free>() <= layout.align();
    SLOTS && least && layout.size() <= MOST && layout.align() <= align_of::<Block>()
}

/// The layout of the first slots for records of this one.
pub(crate) fn first_slots(record: Layout) -> Layout {
    let size = if fits(record) { FIRST * record.size() } else { 0 };
    Layout::from_size_align(size, record.align()).expect("slots are small")
}

impl Records {
    pub(crate) fn new() -> Self {
        Records { lock: SpinLock::new(), blocks: Cell::new(ptr::null_mut()) }
    }

    /// Memory for a record of the type that these slots are for, whose layout this is; none if there is no more. The first
    /// calls `first`, under the lock: nobody has another one of these slots. What fits no slot is always the first.
    ///
    /// # Context
    /// May allocate; none of the library's locks may be held.
    #[inline]
    pub(crate) fn allocate(&self, slots: &Slots, layout: Layout, first: impl Fn()) -> Option<NonNull<u8>> {
        if !fits(layout) {
            // SAFETY: a record has a size.
            return NonNull::new(unsafe { alloc(layout) }).inspect(|_| first());
        }
        let taken = {
            let _lock = self.lock.lock();
            slots.take(layout.size(), &first)
        };
        taken.or_else(|| self.allocate_block(slots, layout.size(), &first))
    }

    /// Gives memory back. Says whether it was the last: nobody has any of these slots now, or it fits none.
    ///
    /// # Safety
    /// It came from [`allocate`](Self::allocate) with the same slots and layout, and is not used any more.
    #[inline]
    pub(crate) unsafe fn free(&self, slots: &Slots, memory: NonNull<u8>, layout: Layout) -> bool {
        if !fits(layout) {
            // SAFETY: as promised by the caller.
            unsafe { dealloc(memory.as_ptr(), layout) };
            return true;
        }
        let slot = memory.cast::<Free>();
        let _lock = self.lock.lock();
        // SAFETY: as promised by the caller; a slot is large enough.
        unsafe { slot.write(Free { next: slots.free.get() }) };
        slots.free.set(slot.as_ptr());
        slots.taken.set(slots.taken.get() - 1);
        slots.taken.get() == 0
    }

    /// Allocates a block, smaller if memory is short, and takes a slot.
    #[inline(never)]
    fn allocate_block(&self, slots: &Slots, bytes: usize, first: &dyn Fn()) -> Option<NonNull<u8>> {
        let there = self.count(slots);
        let largest = if there * bytes < HUGE { LARGEST } else { HUGE };
        let most = (largest - size_of::<Block>()) / bytes;
        let mut count = there.min(most);
        let (block, layout) = loop {
            let size = if count < most { size_of::<Block>() + count * bytes } else { largest };
            let layout = block(size, align_of::<Block>());
            match try_alloc_block(layout) {
                Some(block) => break (block.cast::<Block>(), layout),
                None if count == 1 => return None,
                None => count /= 2,
            }
        };
        let lock = self.lock.lock();
        if let Some(slot) = slots.take(bytes, first) {
            // Somebody else was quicker.
            drop(lock);
            // SAFETY: it was just allocated with this layout.
            unsafe { dealloc(block.as_ptr().cast(), layout) };
            return Some(slot);
        }
        // SAFETY: it is fresh, and begins with room for the head.
        unsafe { block.write(Block { next: self.blocks.get(), layout }) };
        self.blocks.set(block.as_ptr());
        slots.fresh.set(block.as_ptr().wrapping_add(1).cast());
        slots.left.set(count);
        slots.count.set(slots.count.get() + count);
        slots.take(bytes, first)
    }

    fn count(&self, slots: &Slots) -> usize {
        let _lock = self.lock.lock();
        slots.count.get()
    }

    /// Keeps everybody out around a fork.
    pub(crate) fn lock_for_fork(&self) {
        self.lock.lock_for_fork();
    }

    /// Lets them in again.
    pub(crate) fn unlock_after_fork(&self) {
        self.lock.unlock_after_fork();
    }
}

impl Slots {
    /// Makes the slots of a type, in memory for its [first ones](first_slots).
    ///
    /// # Safety
    /// Nobody else uses that memory, which lives as long as this.
    pub(crate) unsafe fn new(first: *mut u8) -> Self {
        Slots {
            free: Cell::new(ptr::null_mut()),
            fresh: Cell::new(first),
            left: Cell::new(FIRST),
            count: Cell::new(FIRST),
            taken: Cell::new(0),
        }
    }

    /// Takes a slot of so many bytes, and calls `first` if nobody has another one. Under the lock.
    #[inline]
    fn take(&self, bytes: usize, first: impl Fn()) -> Option<NonNull<u8>> {
        let memory = self.next(bytes)?;
        if self.taken.get() == 0 {
            first();
        }
        self.taken.set(self.taken.get() + 1);
        Some(memory)
    }

    /// The slot that was used last, or else the next fresh one.
    #[inline]
    fn next(&self, bytes: usize) -> Option<NonNull<u8>> {
        let free = self.free.get();
        // SAFETY: by the invariant.
        if let Some(slot) = unsafe { free.as_ref() } {
            self.free.set(slot.next);
            return NonNull::new(free.cast());
        }
        self.left.set(self.left.get().checked_sub(1)?);
        NonNull::new(self.fresh.replace(self.fresh.get().wrapping_add(bytes)))
    }
}

impl Drop for Records {
    fn drop(&mut self) {
        let mut at = self.blocks.get();
        while !at.is_null() {
            // SAFETY: the space goes, and all its records are gone; each block is linked once.
            let Block { next, layout } = unsafe { at.read() };
            // SAFETY: it was allocated with this layout, and is not used again.
            unsafe { dealloc(at.cast(), layout) };
            at = next;
        }
    }
}

#[cfg(all(test, not(any(loom, shuttle, mmu_notifier_boxes))))]
mod tests {
    use alloc::collections::BTreeMap;

    use super::*;

    fn layout(size: usize) -> Layout {
        Layout::from_size_align(size, 8).unwrap()
    }

    /// Slots that stay.
    fn slots(record: Layout) -> Slots {
        let room = first_slots(record);
        // SAFETY: the layout has a size.
        let memory = unsafe { alloc(Layout::from_size_align(room.size().max(1), room.align()).unwrap()) };
        // SAFETY: it is theirs, for good.
        unsafe { Slots::new(memory) }
    }

    /// Takes and gives back slots of several types at random; no two that are taken may overlap.
    #[test]
    fn slots_that_are_taken_do_not_overlap() {
        let records = Records::new();
        let line = Layout::from_size_align(64, 64).unwrap();
        let types = [layout(72), layout(80), layout(256), line].map(|layout| (slots(layout), layout));
        let mut taken: BTreeMap<usize, usize> = BTreeMap::new();
        let mut state = 7u64;
        for _ in 0..100_000 {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            let random = (state >> 33) as usize;
            let (slots, layout) = &types[random % 4];
            if random / 4 % 5 < 3 || taken.is_empty() {
                let slot = records.allocate(slots, *layout, || ()).unwrap().as_ptr() as usize;
                assert_eq!(slot % layout.align(), 0);
                let before = taken.range(..=slot).next_back();
                assert!(before.is_none_or(|(at, of)| at + types[*of].1.size() <= slot));
                let behind = taken.range(slot..).next();
                assert!(behind.is_none_or(|(at, _)| slot + layout.size() <= *at));
                taken.insert(slot, random % 4);
            } else {
                let some = taken.range(random..).next().or_else(|| taken.range(..).next());
                let (slot, of) = some.map(|(slot, of)| (*slot, *of)).unwrap();
                taken.remove(&slot);
                let (slots, layout) = &types[of];
                // SAFETY: it was taken with these, and is not used.
                unsafe { records.free(slots, NonNull::new(slot as *mut u8).unwrap(), *layout) };
            }
        }
    }

    #[test]
    fn a_record_of_a_cache_line_stands_in_one() {
        let (records, slots) = (Records::new(), slots(layout(64)));
        let taken =
            (0..10_000).map(|_| records.allocate(&slots, layout(64), || ()).unwrap().as_ptr() as usize);
        assert!(taken.skip(FIRST).all(|slot| slot % 64 == 0), "all but those beside the table");
    }

    #[test]
    fn what_is_given_back_is_taken_next() {
        let (records, slots) = (Records::new(), slots(layout(80)));
        let first = records.allocate(&slots, layout(80), || ()).unwrap();
        let second = records.allocate(&slots, layout(80), || ()).unwrap();
        assert_eq!(second.as_ptr() as usize - first.as_ptr() as usize, 80, "one behind the other");
        // SAFETY: it was taken with these, and is not used.
        unsafe { records.free(&slots, first, layout(80)) };
        assert_eq!(records.allocate(&slots, layout(80), || ()), Some(first));
    }

    #[test]
    fn the_first_and_the_last_are_told() {
        let (records, slots) = (Records::new(), slots(layout(80)));
        for _ in 0..2 {
            let firsts = Cell::new(0);
            let first = || {
                // Held before it is counted, and under the lock: the child of a fork finds both or neither.
                assert_eq!(slots.taken.get(), 0);
                firsts.set(firsts.get() + 1);
            };
            let taken = [(); 20].map(|()| records.allocate(&slots, layout(80), first).unwrap());
            assert_eq!(firsts.get(), 1);
            for (at, memory) in taken.into_iter().enumerate() {
                // SAFETY: it was taken with these, and is not used.
                assert_eq!(unsafe { records.free(&slots, memory, layout(80)) }, at == 19);
            }
        }
    }

    #[test]
    fn what_fits_no_slot_comes_from_the_allocator() {
        for (size, align) in [(MOST + 8, 8), (128, 128), (4096, 4096)] {
            let layout = Layout::from_size_align(size, align).unwrap();
            let (records, slots) = (Records::new(), slots(layout));
            let is_first = Cell::new(false);
            let memory = records.allocate(&slots, layout, || is_first.set(true)).unwrap();
            assert!(is_first.get());
            assert_eq!(memory.as_ptr() as usize % align, 0);
            assert!(records.blocks.get().is_null());
            // SAFETY: it was taken with these, and is not used.
            assert!(unsafe { records.free(&slots, memory, layout) });
        }
    }
}
