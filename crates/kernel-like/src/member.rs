//! What stands in a list: a header with its user's notifier behind it, and pointers to it.
//!
//! Neighbours: `list` links and walks them, and owns the rights to them.
#![expect(unsafe_code, reason = "links to entries in their users' memory")]

use std::any::TypeId;
use std::cell::Cell;
use std::fmt;
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicPtr, Ordering};

use crate::invalidation::{Answer, Invalidation};
use crate::list::Notifier;

/// The head of an entry.
///
/// # Invariants
/// The cells are used under the list's lock only. `ops` was made for the type of the entry.
pub(crate) struct Header {
    /// Read by walks, in a section.
    pub(crate) next: AtomicPtr<Header>,
    pub(crate) prev: Cell<Option<Member>>,
    pub(crate) on_list: Cell<bool>,
    /// How many got it by its key; 0 for one that was registered.
    pub(crate) users: Cell<usize>,
    pub(crate) key: TypeId,
    ops: &'static Ops,
}

/// The functions of an entry's type.
struct Ops {
    start: unsafe fn(Member, &Invalidation) -> Answer,
    end: unsafe fn(Member, &Invalidation),
    release: unsafe fn(Member),
    free: unsafe fn(Member),
}

// SAFETY: nothing in a header belongs to a thread.
unsafe impl Send for Header {}
// SAFETY: its cells are used under a lock.
unsafe impl Sync for Header {}

/// A list notifier with its place in a list.
///
/// # Invariants
/// `header` is the first field, and its `ops` was made for `N`.
#[repr(C)]
pub struct Entry<N> {
    header: Header,
    notifier: N,
}

impl<N: Notifier> Entry<N> {
    const OPS: Ops = Ops { start: start::<N>, end: end::<N>, release: release::<N>, free: free::<N> };

    /// Makes one that is in no list.
    pub fn new(notifier: N) -> Self {
        let header = Header {
            next: AtomicPtr::default(),
            prev: Cell::new(None),
            on_list: Cell::new(false),
            users: Cell::new(0),
            key: TypeId::of::<N>(),
            // INVARIANT: made for `N`.
            ops: &Self::OPS,
        };
        Self { header, notifier }
    }

    /// Makes one in memory of its own.
    pub fn boxed(notifier: N) -> Box<Self> {
        Box::new(Self::new(notifier))
    }
}

impl<N> Entry<N> {
    /// Gives the notifier back.
    pub fn into_notifier(self) -> N {
        self.notifier
    }
}

impl<N> Deref for Entry<N> {
    type Target = N;

    #[inline]
    fn deref(&self) -> &N {
        &self.notifier
    }
}

impl<N> fmt::Debug for Entry<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry").finish_non_exhaustive()
    }
}

/// A pointer to the header of an entry.
///
/// # Invariants
/// The entry lives as long as the pointer is used, and the pointer may be used for all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct Member(NonNull<Header>);

// SAFETY: it is used as a reference to a header, which may be shared.
unsafe impl Send for Member {}

impl Member {
    /// Makes a pointer to an entry.
    ///
    /// # Safety
    /// It came out of a box, and lives until the pointer and all its copies are used for the last time.
    pub(crate) unsafe fn new<N>(entry: NonNull<Entry<N>>) -> Self {
        // INVARIANT: the caller's promise.
        Self(entry.cast())
    }

    /// Reads a pointer of the list's.
    #[inline]
    pub(crate) fn load(from: &AtomicPtr<Header>) -> Option<Self> {
        // ORDERING: pairs with the stores of `store`, so that the entry is seen whole.
        // INVARIANT: what a list leads to stays for a grace period after it was taken off, and walks are in sections.
        NonNull::new(from.load(Ordering::Acquire)).map(Self)
    }

    /// Writes one.
    pub(crate) fn store(to: &AtomicPtr<Header>, member: Option<Self>) {
        let pointer = member.map_or(std::ptr::null_mut(), |member| member.0.as_ptr());
        // ORDERING: pairs with the load of `load`.
        to.store(pointer, Ordering::Release);
    }

    /// Gives the pointer to the entry.
    pub(crate) fn entry<N>(self) -> NonNull<Entry<N>> {
        self.0.cast()
    }

    #[inline]
    pub(crate) fn start(self, what: &Invalidation) -> Answer {
        // SAFETY: `ops` was made for the type of the entry, which lives.
        unsafe { (self.ops.start)(self, what) }
    }

    #[inline]
    pub(crate) fn end(self, what: &Invalidation) {
        // SAFETY: `ops` was made for the type of the entry, which lives.
        unsafe { (self.ops.end)(self, what) }
    }

    pub(crate) fn release(self) {
        // SAFETY: `ops` was made for the type of the entry, which lives.
        unsafe { (self.ops.release)(self) }
    }

    /// Frees the entry.
    ///
    /// # Safety
    /// Nobody uses it any more.
    pub(crate) unsafe fn free(self) {
        let free = self.ops.free;
        // SAFETY: `ops` was made for the type of the entry; the caller's promise.
        unsafe { free(self) }
    }
}

impl Deref for Member {
    type Target = Header;

    #[inline]
    fn deref(&self) -> &Header {
        // SAFETY: the entry lives while the pointer is used, and is only ever shared.
        unsafe { self.0.as_ref() }
    }
}

/// # Safety
/// The member is the header of a living `Entry<N>`.
#[inline]
unsafe fn notifier<'a, N>(member: Member) -> &'a N {
    // SAFETY: the caller's promise.
    unsafe { &member.entry::<N>().as_ref().notifier }
}

/// # Safety
/// The member is the header of a living `Entry<N>`.
unsafe fn start<N: Notifier>(member: Member, what: &Invalidation) -> Answer {
    // SAFETY: the caller's promise.
    unsafe { notifier::<N>(member) }.invalidate_range_start(what)
}

/// # Safety
/// The member is the header of a living `Entry<N>`.
unsafe fn end<N: Notifier>(member: Member, what: &Invalidation) {
    // SAFETY: the caller's promise.
    unsafe { notifier::<N>(member) }.invalidate_range_end(what);
}

/// # Safety
/// The member is the header of a living `Entry<N>`.
unsafe fn release<N: Notifier>(member: Member) {
    // SAFETY: the caller's promise.
    unsafe { notifier::<N>(member) }.release();
}

/// # Safety
/// The member is the header of an `Entry<N>` that nobody uses any more.
unsafe fn free<N: Notifier>(member: Member) {
    // SAFETY: entries in lists come out of boxes, and nobody uses this one.
    drop(unsafe { Box::from_raw(member.entry::<N>().as_ptr()) });
}
