//! The record of an owned registration: its node and its notifier in one piece of memory, which the list may have
//! [spare](super::spares).
//!
//! How it leaves the list is told in [`super::leave`]; here is what becomes of its memory.

use core::alloc::Layout;
use core::any::TypeId;
use core::ptr::NonNull;

use super::leave;
use super::node::{Callbacks, Key, Node, Young};
use super::spares;
use super::{Notifier, RegisterError, RegisterErrorKind, Unknown, WouldBlock};
use crate::diagnostics;
use crate::frees;
use crate::hung::Hung;
use crate::map_lock::MapLockGuard;
use crate::platform::{self, Payload};
use crate::space::{AddressSpaceRef, Space};

/// # Invariants
/// `node` is the first field: its address is that of the record. `space` came from a holder; from its registration on the
/// record is one, with all others of the list.
#[repr(C)]
pub(super) struct Record<N> {
    pub(super) node: Node,
    pub(super) notifier: N,
    pub(super) space: NonNull<Space>,
}

impl<N: Notifier> Record<N> {
    const CALLBACKS: &'static Callbacks = &Callbacks {
        release: |node, panic| call(&node, panic, N::release).unwrap_or(()),
        start: |node, what, panic| {
            let answer = call(&node, panic, |notifier: &N| notifier.invalidate_range_start(what));
            answer.unwrap_or(Err(WouldBlock))
        },
        end: |node, what, panic| {
            call(&node, panic, |notifier: &N| notifier.invalidate_range_end(what)).unwrap_or(());
        },
        flush_and_end: |node, what, panic| {
            let mut is_owed = true;
            call(&node, panic, |notifier: &N| {
                notifier.invalidate_range(what.range());
                is_owed = false;
                notifier.invalidate_range_end(what);
            });
            is_owed
        },
        invalidate_range: |node, range, panic| {
            call(&node, panic, |notifier: &N| notifier.invalidate_range(range)).unwrap_or(());
        },
        young: |node, question, panic| {
            call(&node, panic, |notifier: &N| young(notifier, question)).unwrap_or(false)
        },
        change_pte: |node, address, pte, panic| {
            call(&node, panic, |notifier: &N| notifier.change_pte(address, pte)).unwrap_or(());
        },
    };

    pub(super) fn shared_key(key: u64) -> Key {
        (TypeId::of::<N>(), key)
    }

    /// Writes a record.
    ///
    /// # Safety
    /// It is memory for a record, which nobody uses.
    // In each caller: one without a key then copies none. What is copied together was stored in pieces, and such a load waits
    // for all stores before it, which takes longer than a locked operation.
    #[inline(always)]
    unsafe fn write(
        memory: NonNull<u8>,
        space: &AddressSpaceRef,
        notifier: N,
        key: Option<Key>,
    ) -> NonNull<Self> {
        let record = memory.cast::<Self>();
        let node = Node::new(Self::CALLBACKS, key, None);
        // SAFETY: as promised by the caller.
        unsafe { record.write(Record { node, notifier, space: space.as_raw() }) };
        record
    }
}

/// The notifier of a node whose table is that of `Record<N>`: walks call a node with its own table only.
fn notifier<N>(node: &NonNull<Node>) -> &N {
    // SAFETY: the node is the first field of a `Record<N>`, which is readable until the walk is over.
    unsafe { &(*node.cast::<Record<N>>().as_ptr()).notifier }
}

/// Calls back; none if that panics.
#[inline(always)]
fn call<N: Notifier, R>(
    node: &NonNull<Node>,
    panic: &mut Option<Payload>,
    callback: impl FnOnce(&N) -> R,
) -> Option<R> {
    platform::keep(panic, || diagnostics::call::<N, R>(|| callback(notifier(node))))
}

fn young(notifier: &impl Notifier, question: Young) -> bool {
    match question {
        Young::ClearFlush(range) => notifier.clear_flush_young(range),
        Young::Clear(range) => notifier.clear_young(range),
        Young::Test(address) => notifier.test_young(address),
    }
}

impl<N> Record<N> {
    const LAYOUT: Layout = Layout::new::<Self>();

    pub(super) fn space(&self) -> &AddressSpaceRef {
        // SAFETY: a record that others know is registered, so it is a holder.
        unsafe { AddressSpaceRef::borrow_raw(&self.space) }
    }
}

/// Drops a record, and gives its memory back, also if the drop panics; last it lets go of the space.
///
/// # Safety
/// It was registered; no walk knows it, and it is not used again.
pub(super) unsafe fn free<N>(record: NonNull<Record<N>>) {
    /// What is left of a record that was registered; see [`give_back`].
    struct Memory<N>(NonNull<Record<N>>, NonNull<Space>);

    impl<N> Drop for Memory<N> {
        #[inline]
        fn drop(&mut self) {
            // SAFETY: what it held is gone, and so is who used it.
            unsafe { give_back(self.0, self.1) };
        }
    }

    // SAFETY: as promised by the caller.
    let _memory = Memory(record, unsafe { record.as_ref() }.space);
    // SAFETY: as promised by the caller.
    unsafe { record.drop_in_place() };
}

/// As [`free`], while the list is locked still, of a record that has nothing to drop.
///
/// # Safety
/// As for [`free`]; the evidence is that of its node.
#[inline]
pub(super) unsafe fn free_locked<N>(record: NonNull<Record<N>>, unknown: Unknown<'_>) {
    // SAFETY: as promised by the caller.
    let space = unsafe { record.as_ref() }.space;
    // SAFETY: there was nothing to drop.
    if unsafe { unknown.free(record.cast(), Record::<N>::LAYOUT) } {
        // SAFETY: it was the last of the holder that all on the list were.
        drop(unsafe { AddressSpaceRef::from_raw(space) });
    }
}

/// Gives the memory of a record back, and lets go of its space.
///
/// # Safety
/// It was registered there, what it held is gone, and it is not used again.
#[inline]
unsafe fn give_back<N>(record: NonNull<Record<N>>, space: NonNull<Space>) {
    // SAFETY: the record is a holder.
    let list = &unsafe { AddressSpaceRef::borrow_raw(&space) }.watched().list;
    // SAFETY: as promised by the caller.
    if unsafe { list.free(record.cast(), Record::<N>::LAYOUT) } {
        // SAFETY: it was the last of the holder that all on the list were.
        drop(unsafe { AddressSpaceRef::from_raw(space) });
    }
}

/// Makes a record without a key and puts it on the list, under one lock of it; the notifier comes back where something has to
/// be made for that, or somebody called.
#[inline(always)]
pub(super) fn add_at_once<N: Notifier>(
    space: &AddressSpaceRef,
    lock: &MapLockGuard<'_>,
    notifier: N,
) -> Result<NonNull<Record<N>>, N> {
    let entrance = if spares::fits(Record::<N>::LAYOUT) { space.space().entrance(lock) } else { None };
    let Some(entrance) = entrance else { return Err(notifier) };
    let Some(memory) = entrance.take_spare() else { return Err(notifier) };
    // SAFETY: it was left by a record that fits as this one does.
    let record = unsafe { Record::write(memory, space, notifier, None) };
    // SAFETY: the record stays where it is until it was unregistered or put.
    unsafe { space.space().enter_list(entrance, record.cast()) };
    Ok(record)
}

/// Makes a record and puts it on the list.
#[inline(always)]
pub(super) fn add<N: Notifier>(
    space: &AddressSpaceRef,
    lock: &MapLockGuard<'_>,
    notifier: N,
    key: Option<Key>,
) -> Result<NonNull<Record<N>>, RegisterError<N>> {
    let layout = Record::<N>::LAYOUT;
    let spare = space.space().subscriptions().and_then(|found| found.list.take_spare(layout));
    let Some(memory) = spare.or_else(|| spares::allocate(layout)) else {
        return Err(RegisterError { cause: RegisterErrorKind::OutOfMemory, notifier });
    };
    // SAFETY: it is memory for a record, which nobody uses.
    let record = unsafe { Record::write(memory, space, notifier, key) };
    // SAFETY: the record stays where it is until it was unregistered or put.
    match unsafe { space.space().add_to_list(lock, record.cast()) } {
        Ok(()) => Ok(record),
        Err(cause) => {
            // SAFETY: it was not registered, so nobody else knows it.
            let Record { notifier, .. } = unsafe { record.read() };
            // SAFETY: it was read out.
            unsafe { spares::free(memory, layout) };
            Err(RegisterError { cause, notifier })
        }
    }
}

/// # Safety
/// The hung node is that of an unregistered `Record<N>` that no walk knows any more.
pub(super) unsafe fn free_unregistered<N: Notifier>(hung: NonNull<Hung>) {
    // SAFETY: as promised by the caller.
    unsafe { free(leave::node_of(hung).cast::<Record<N>>()) };
}

/// # Safety
/// The hung node is that of a `Record<N>` that was put for the last time and that no walk knows any more.
pub(super) unsafe fn free_put<N: Notifier>(hung: NonNull<Hung>) {
    let node = leave::node_of(hung);
    let record = node.cast::<Record<N>>();
    // SAFETY: as promised by the caller.
    let (ticket, space) = (&unsafe { node.as_ref() }.ticket, unsafe { record.as_ref() }.space);
    frees::run(ticket);
    // SAFETY: the address of a field of the record.
    let notifier = unsafe { &raw mut (*record.as_ptr()).notifier };
    // The ticket ends, and the space is let go, also if the notifier's drop panics.
    // SAFETY: the notifier is not used again.
    let result = platform::catch(|| unsafe { notifier.drop_in_place() });
    // SAFETY: the record is a holder.
    frees::end(ticket, unsafe { AddressSpaceRef::borrow_raw(&space) }.space());
    // SAFETY: what is left of the record is its node, which nobody uses any more.
    unsafe { give_back(record, space) };
    if let Err(payload) = result {
        platform::resume(payload);
    }
}
