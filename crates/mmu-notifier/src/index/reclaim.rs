//! The memory of pages: free ones, and retired ones that a search may still be in.
//!
//! # Protocol
//! *Retire*: unlink, then stamp the page with the epoch and advance the epoch (release). *Search*: pin with
//! the epoch (acquire), full fence, load the root. *Reclaim*: full fence, lowest pin; a retired page with a
//! smaller stamp becomes free. A search that is not seen passes its fence later, so it sees the page unlinked;
//! one that is seen with a newer pin saw the epoch advance, so the unlinking too.

#![expect(unsafe_code, reason = "pages are allocated and linked by hand")]

use alloc::alloc::{alloc, dealloc};
use core::alloc::Layout;
use core::cell::Cell;
use core::ptr;

use super::page::Page;
use crate::hazard::Book;
use crate::sync::{AtomicU64, Ordering};

/// Pages that are not linked; used under the writer lock.
///
/// # Invariants
/// A page is in one of the two lists, or linked below the root, or with its allocator.
#[derive(Debug)]
pub(super) struct Pages {
    free: Cell<*const Page>,
    free_count: Cell<usize>,
    retired: Cell<*const Page>,
}

impl Pages {
    pub(super) fn new() -> Self {
        Pages { free: Cell::new(ptr::null()), free_count: Cell::new(0), retired: Cell::new(ptr::null()) }
    }

    /// Makes a page; none if there is no memory.
    ///
    /// # Context
    /// Allocates; none of the library's locks may be held.
    pub(super) fn allocate() -> Option<*const Page> {
        // SAFETY: the layout of a page has a size.
        let page = unsafe { alloc(Layout::new::<Page>()) }.cast::<Page>();
        if page.is_null() {
            return None;
        }
        // SAFETY: page points to fresh memory of its layout.
        unsafe { page.write(Page::new()) };
        // SAFETY: page was written above.
        unsafe { &*page }.memory.set(page);
        Some(page)
    }

    pub(super) fn free_count(&self) -> usize {
        self.free_count.get()
    }

    pub(super) fn add_free(&self, page: *const Page) {
        // SAFETY: pages in no list are the writer's.
        unsafe { &*page }.next.set(self.free.replace(page));
        self.free_count.set(self.free_count.get() + 1);
    }

    /// Takes a free page and makes it an empty one of `level`. The caller has made sure that there is one.
    pub(super) fn take<'p>(&self, level: u32) -> &'p Page {
        let page = self.free.get();
        assert!(!page.is_null(), "the writer counted its free pages before it began");
        // SAFETY: free pages are the writer's, and live until the index goes.
        let page = unsafe { &*page };
        self.free.set(page.next.get());
        self.free_count.set(self.free_count.get() - 1);
        page.live.store(0, Ordering::Relaxed);
        page.overhang.store(0, Ordering::Relaxed);
        page.level.set(level);
        page.used.set(0);
        page.parent.set(ptr::null());
        // Behind the last separator of an inner page stands the top.
        page.key.iter().for_each(|key| key.store(u64::MAX, Ordering::Relaxed));
        page
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

    /// Gives all unlinked pages back to the allocator; `root` too, with all below it.
    pub(super) fn deallocate(&self, root: *const Page) {
        deallocate_tree(root);
        for list in [&self.free, &self.retired] {
            let mut at = list.replace(ptr::null());
            // SAFETY: the index goes: nobody else knows these pages.
            while let Some(page) = unsafe { at.as_ref() } {
                at = page.next.get();
                deallocate_page(page);
            }
        }
    }
}

fn deallocate_tree(page: *const Page) {
    // SAFETY: the index goes: nobody else knows its pages.
    let Some(inner) = (unsafe { page.as_ref() }) else { return };
    if !inner.is_leaf() {
        inner.live().for_each(|slot| deallocate_tree(inner.child(slot)));
    }
    deallocate_page(page);
}

fn deallocate_page(page: *const Page) {
    // SAFETY: the page was made by `allocate` and is not freed yet.
    let page = unsafe { &*page }.memory.get();
    // SAFETY: the page was made by `allocate` and is not used again.
    unsafe { ptr::drop_in_place(page) };
    // SAFETY: the page was allocated with this layout.
    unsafe { dealloc(page.cast(), Layout::new::<Page>()) };
}
