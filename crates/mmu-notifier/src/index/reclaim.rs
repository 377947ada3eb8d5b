//! The memory of pages: free ones, and retired ones that a search may still be in.
//!
//! # Protocol
//! *Retire*: unlink, then stamp the page with the epoch and advance the epoch (release). *Search*: pin with
//! the epoch (acquire), full fence, load the root. *Reclaim*: full fence, lowest pin; a retired page with a
//! smaller stamp becomes free. A search that is not seen passes its fence later, so it sees the page unlinked;
//! one that is seen with a newer pin saw the epoch advance, so the unlinking too.

#![expect(unsafe_code, reason = "pages are allocated and linked by hand")]

use alloc::alloc::dealloc;
use core::alloc::Layout;
use core::cell::{Cell, UnsafeCell};
use core::mem::MaybeUninit;
use core::ptr::{self, NonNull};

use super::page::Page;
use crate::hazard::Book;
use crate::memory::{HUGE, UNASKED, block, try_alloc_block};
use crate::sync::{AtomicU64, Ordering};

/// Pages that were allocated together; they stand behind this.
///
/// # Invariants
/// There is room for `count` pages from [`page`](Self::page) 0 on, in one block with this; the first `made` are pages.
pub(super) struct Slab {
    next: Cell<*mut Slab>,
    count: usize,
    made: Cell<usize>,
}

/// An index allocates that part of what it has: a small one touches little memory that it does not use.
const PART: usize = 8;
/// An index of so many pages allocates as many as a huge page holds.
const MANY: usize = if cfg!(any(loom, shuttle)) { usize::MAX } else { 2 * IN_HUGE };
const IN_HUGE: usize = (HUGE - BEFORE_PAGES) / size_of::<Page>();
/// What the pages of a slab begin behind at the most.
const BEFORE_PAGES: usize = size_of::<Slab>() + align_of::<Page>();

impl Slab {
    /// Makes one without pages; none if there is no memory.
    fn try_new(count: usize) -> Option<NonNull<Slab>> {
        let slab = try_alloc_block(layout(count))?.cast::<Slab>();
        // SAFETY: slab points to fresh memory that begins with room for one.
        unsafe { slab.write(Slab { next: Cell::new(ptr::null_mut()), count, made: Cell::new(0) }) };
        Some(slab)
    }

    /// Where a page of a slab stands.
    fn page(slab: NonNull<Slab>, at: usize) -> *mut Page {
        let behind = slab.as_ptr().wrapping_add(1).cast::<u8>();
        let pages = behind.wrapping_add(behind.align_offset(align_of::<Page>()));
        pages.cast::<Page>().wrapping_add(at)
    }

    /// Makes the next page, of `level`; none if all are made.
    ///
    /// # Safety
    /// The slab is the caller's.
    unsafe fn make(slab: NonNull<Slab>, level: u32) -> Option<*const Page> {
        // SAFETY: as promised by the caller.
        let header = unsafe { slab.as_ref() };
        let at = header.made.get();
        if at == header.count {
            return None;
        }
        let page = Slab::page(slab, at);
        // SAFETY: page points to fresh memory of its layout.
        unsafe { page.write(Page::new(level)) };
        header.made.set(at + 1);
        Some(page)
    }
}

/// Pages that are not linked; used under the writer lock.
///
/// # Invariants
/// A page is in one of the two lists, or linked below the root, and it is the [first](First), or in one of the slabs. Those
/// that the newest slab has not made yet are free as well; all older ones are made.
#[derive(Debug)]
pub(super) struct Pages {
    free: Cell<*const Page>,
    free_count: Cell<usize>,
    retired: Cell<*const Page>,
    slabs: Cell<*mut Slab>,
    /// How many there are, in all slabs and before them.
    count: Cell<usize>,
}

/// Memory for the first page of an index, of which it is part.
#[derive(Debug)]
pub(super) struct First(UnsafeCell<MaybeUninit<Page>>);

impl First {
    pub(super) fn new() -> Self {
        First(UnsafeCell::new(MaybeUninit::uninit()))
    }

    /// Makes the page, a leaf.
    ///
    /// # Safety
    /// It is made once, and this stays where it is from then on.
    pub(super) unsafe fn make(&self) -> &Page {
        let page = self.0.get().cast::<Page>();
        // SAFETY: it is memory for a page, which nobody uses yet, as promised by the caller.
        unsafe { page.write(Page::new(0)) };
        // SAFETY: it was just made.
        unsafe { &*page }
    }
}

impl Pages {
    pub(super) fn new() -> Self {
        Pages {
            free: Cell::new(ptr::null()),
            free_count: Cell::new(0),
            retired: Cell::new(ptr::null()),
            slabs: Cell::new(ptr::null_mut()),
            count: Cell::new(1),
        }
    }

    /// Allocates so many pages; none if there is no memory.
    ///
    /// # Context
    /// Allocates; none of the library's locks may be held.
    pub(super) fn allocate(count: usize) -> Option<NonNull<Slab>> {
        Slab::try_new(count)
    }

    /// How many pages to allocate where so many are missing.
    pub(super) fn worth_allocating(&self, missing: usize) -> usize {
        let count = self.count.get();
        missing.max(if count < MANY { count / PART } else { IN_HUGE })
    }

    /// Takes in what [`allocate`](Self::allocate) made.
    pub(super) fn add(&self, slab: NonNull<Slab>) {
        // Hardly ever is there more than one left.
        while let Some(page) = self.make(0) {
            self.free_count.set(self.free_count.get() - 1);
            self.add_free(page);
        }
        // SAFETY: a slab that was just made, and nobody else knows.
        let header = unsafe { slab.as_ref() };
        header.next.set(self.slabs.replace(slab.as_ptr()));
        self.free_count.set(self.free_count.get() + header.count);
        self.count.set(self.count.get() + header.count);
    }

    pub(super) fn free_count(&self) -> usize {
        self.free_count.get()
    }

    fn add_free(&self, page: *const Page) {
        // SAFETY: pages in no list are the writer's.
        unsafe { &*page }.next.set(self.free.replace(page));
        self.free_count.set(self.free_count.get() + 1);
    }

    /// Takes a free page and makes it an empty one of `level`. The caller has made sure that there is one.
    pub(super) fn take<'p>(&self, level: u32) -> &'p Page {
        self.free_count.set(self.free_count.get() - 1);
        // SAFETY: free pages are the writer's, and live until the index goes.
        let Some(page) = (unsafe { self.free.get().as_ref() }) else {
            let page = self.make(level).expect("the writer counted its free pages before it began");
            // SAFETY: it was just made, and lives until the index goes.
            return unsafe { &*page };
        };
        self.free.set(page.next.get());
        page.live.store(0, Ordering::Relaxed);
        page.overhang.store(0, Ordering::Relaxed);
        page.level.set(level);
        page.used.store(0, Ordering::Relaxed);
        page.parent.set(ptr::null());
        page.top.set(0);
        // Behind the last key stands the top of the space.
        page.key.iter().for_each(|key| key.store(u64::MAX, Ordering::Relaxed));
        if level > 0 {
            // A child that is not there is null.
            page.item.iter().for_each(|item| item.store(ptr::null_mut(), Ordering::Relaxed));
        }
        page
    }

    /// Makes one that the newest slab has not made yet; none if all are made.
    fn make(&self, level: u32) -> Option<*const Page> {
        let newest = NonNull::new(self.slabs.get())?;
        // SAFETY: the slabs are the writer's.
        unsafe { Slab::make(newest, level) }
    }

    /// Keeps a page that was just unlinked until no search can be in it.
    pub(super) fn retire(&self, page: &Page, epoch: &AtomicU64) {
        let now = epoch.load(Ordering::Relaxed);
        page.stamp.set(now);
        page.next.set(self.retired.replace(page));
        // ORDERING: release, after the unlinking: who pins the new epoch (acquire) does not find the page.
        epoch.store(now + 1, Ordering::Release);
    }

    /// Frees the retired pages that no search is in.
    pub(super) fn reclaim(&self, book: &Book) {
        let mut at = self.retired.replace(ptr::null());
        if at.is_null() {
            return;
        }
        let lowest = book.lowest_pin();
        // SAFETY: retired pages are the writer's to link.
        while let Some(page) = unsafe { at.as_ref() } {
            at = page.next.get();
            if page.stamp.get() < lowest {
                self.add_free(page);
            } else {
                page.next.set(self.retired.replace(page));
            }
        }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        let mut at = self.slabs.get();
        while let Some(slab) = NonNull::new(at) {
            // SAFETY: the index goes: nobody else knows its slabs, and each is linked once.
            let header = unsafe { slab.as_ref() };
            let (next, count) = (header.next.get(), header.count);
            for at in 0..header.made.get() {
                // SAFETY: it was made, and is not used again.
                unsafe { Slab::page(slab, at).drop_in_place() };
            }
            // SAFETY: it was allocated with this layout.
            unsafe { dealloc(slab.as_ptr().cast(), layout(count)) };
            at = next;
        }
    }
}

/// Of a slab with so many pages.
fn layout(count: usize) -> Layout {
    let size = BEFORE_PAGES + count * size_of::<Page>();
    block(if count == IN_HUGE { HUGE } else { size }, UNASKED)
}
