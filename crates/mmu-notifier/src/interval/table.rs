//! The tables of owned subscriptions. All records of one type in one space lead to one table, and through it to their
//! space, and to the slots that they stand in: less in each.
//!
//! A space keeps its tables in a list, newest first, until its memory goes. Whoever finds none for a type adds one; two
//! at once may add two. The first slots stand behind the table, in one piece of memory.

use alloc::alloc::{alloc, dealloc};
use core::alloc::Layout;
use core::ptr::{self, NonNull};

use super::node::Callbacks;
use crate::records::{Slots, first_slots};
use crate::space::{AddressSpaceRef, Space};
use crate::sync::{AtomicPtr, Ordering};

/// The space of a table, which is not held by it: as long as there are records of its type, these are a holder. And the slots
/// for them there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SpaceOf {
    space: NonNull<Space>,
    slots: NonNull<Slots>,
}

// SAFETY: a space is meant to be shared between threads.
unsafe impl Send for SpaceOf {}
// SAFETY: as above.
unsafe impl Sync for SpaceOf {}

impl SpaceOf {
    /// The space as that of a holder.
    ///
    /// # Safety
    /// The space has a holder as long as the result is used.
    #[inline]
    pub(super) unsafe fn held(&self) -> &AddressSpaceRef {
        // SAFETY: as promised by the caller; it came from a holder.
        unsafe { AddressSpaceRef::borrow_raw(&self.space) }
    }

    /// The slots for records of the type of the table.
    ///
    /// # Safety
    /// The space has a holder as long as the result is used.
    #[inline]
    pub(super) unsafe fn slots(&self) -> &Slots {
        // SAFETY: as promised by the caller; they stand in a table of the space.
        unsafe { self.slots.as_ref() }
    }

    /// The holder that the records were.
    ///
    /// # Safety
    /// It is the caller's: the last record is gone.
    pub(super) unsafe fn take(self) -> AddressSpaceRef {
        // SAFETY: as promised by the caller; it came from a holder.
        unsafe { AddressSpaceRef::from_raw(self.space) }
    }
}

/// A table in its space.
#[derive(Debug)]
struct Table {
    callbacks: Callbacks,
    slots: Slots,
    /// That of the records.
    layout: Layout,
    next: *mut Table,
}

/// The tables of a space.
///
/// # Invariants
/// The list leads through tables that live as long as this, each in memory [with its first slots](with_slots); what
/// changes in them are the slots.
#[derive(Debug)]
pub(crate) struct Tables(AtomicPtr<Table>);

// SAFETY: tables are the same for every thread; their slots are used under the lock of the records.
unsafe impl Send for Tables {}
// SAFETY: as above.
unsafe impl Sync for Tables {}

impl Tables {
    pub(crate) fn new() -> Self {
        Tables(AtomicPtr::new(ptr::null_mut()))
    }

    /// The table of records in `space`, whose tables these are, with this layout and these callbacks; none if there is
    /// no memory. By what they are: where code is unloaded, another type may stand at the same address.
    #[inline]
    pub(super) fn get(&self, of: &Callbacks, layout: Layout, space: &AddressSpaceRef) -> Option<&Callbacks> {
        // ORDERING: acquire pairs with the release in `add`.
        let mut at = self.0.load(Ordering::Acquire);
        // SAFETY: by the invariant.
        while let Some(table) = unsafe { at.as_ref() } {
            if table.layout == layout && table.callbacks.calls_as(of) {
                return Some(&table.callbacks);
            }
            at = table.next;
        }
        self.add(of, layout, space)
    }

    #[cold]
    fn add(&self, of: &Callbacks, layout: Layout, space: &AddressSpaceRef) -> Option<&Callbacks> {
        let (whole, behind) = with_slots(layout);
        // SAFETY: a table has a size.
        let memory = NonNull::new(unsafe { alloc(whole) })?;
        let table = memory.cast::<Table>().as_ptr();
        // SAFETY: the first slots stand behind the table, and go with it.
        let slots = unsafe { Slots::new(memory.as_ptr().wrapping_add(behind)) };
        // SAFETY: it is fresh memory, which begins with room for a table.
        unsafe { table.write(Table { callbacks: *of, slots, layout, next: ptr::null_mut() }) };
        // SAFETY: until it is in the list it is this call's.
        let slots = NonNull::from(unsafe { &(*table).slots });
        // SAFETY: as above.
        unsafe { (*table).callbacks.space = Some(SpaceOf { space: space.as_raw(), slots }) };
        let mut first = self.0.load(Ordering::Relaxed);
        loop {
            // SAFETY: until it is in the list it is this call's.
            unsafe { (*table).next = first };
            // ORDERING: release, for the acquire in `get`, here too: those behind it come with it.
            match self.0.compare_exchange(first, table, Ordering::AcqRel, Ordering::Relaxed) {
                // SAFETY: by the invariant, of which it is part now.
                Ok(_) => return Some(unsafe { &(*table).callbacks }),
                Err(now) => first = now,
            }
        }
    }
}

impl Drop for Tables {
    fn drop(&mut self) {
        let mut at = self.0.load(Ordering::Relaxed);
        while !at.is_null() {
            // SAFETY: the space goes, and all its records are gone: nobody else knows its tables.
            let table = unsafe { at.read() };
            let (whole, _) = with_slots(table.layout);
            // SAFETY: it was allocated with this layout, and is not used again.
            unsafe { dealloc(at.cast(), whole) };
            at = table.next;
        }
    }
}

/// The layout of a table for records of this one with their first slots, and where those stand in it.
fn with_slots(record: Layout) -> (Layout, usize) {
    Layout::new::<Table>().extend(first_slots(record)).expect("slots are small")
}
