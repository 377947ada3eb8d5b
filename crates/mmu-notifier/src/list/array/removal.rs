//! Taking a node off for good: who unregisters looks for walks while the list is locked still. Where there are none, as is the
//! rule, the list lets go of the node under the same lock.

#![expect(unsafe_code, reason = "memory is given back raw")]

use core::alloc::Layout;
use core::ptr::NonNull;

use super::List;
use crate::hazard::Book;
use crate::list::node::Node;
use crate::scan::nobody_walks;
use crate::sync::SpinGuard;

/// What became of a node that was taken off the list.
#[derive(Debug)]
pub(crate) enum Off<'l> {
    /// No walk knows it.
    Unknown(Unknown<'l>),
    /// Sections of this stamp or an older one may know it.
    Walked(u64),
}

/// The evidence that no walk knows a node that is off the list, with the lock under which that was seen.
#[derive(Debug)]
pub(crate) struct Unknown<'l> {
    list: &'l List,
    lock: SpinGuard<'l>,
}

impl List {
    /// Takes a node off the list, unless somebody else did, and looks whether a walk may know it.
    #[inline(always)]
    pub(crate) fn remove(&self, node: &Node, book: &Book) -> Off<'_> {
        let lock = self.lock.lock();
        self.take_off_locked(&lock, node);
        let stamp = self.grace.advance(&lock);
        // ORDERING: as behind the fence of the list: the F of `advance`, and the mode says that there is nothing more to it.
        if self.grace.is_fenced() && nobody_walks(book, stamp) {
            return Off::Unknown(Unknown { list: self, lock });
        }
        self.grace.open_advanced(lock);
        Off::Walked(stamp)
    }
}

impl Unknown<'_> {
    /// As [`List::free`].
    ///
    /// # Safety
    /// As there.
    #[inline]
    #[must_use]
    pub(in crate::list) unsafe fn free(self, memory: NonNull<u8>, layout: Layout) -> bool {
        // SAFETY: as promised by the caller.
        unsafe { self.list.free_locked(self.lock, memory, layout) }
    }
}
