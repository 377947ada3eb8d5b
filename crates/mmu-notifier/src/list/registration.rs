//! The owned registrations: a node and its notifier in one piece of memory, which the list may have [spare](super::spares).
//!
//! How they leave the list is told in [`super::leave`]; here is what becomes of their memory.

use core::alloc::Layout;
use core::any::TypeId;
use core::fmt;
use core::mem::{self, ManuallyDrop};
use core::ops::Deref;
use core::ptr::NonNull;

use super::leave;
use super::node::{Callbacks, Key, Node, Young};
use super::spares;
use super::{GetError, Lookup, Notifier, Off, RegisterError, RegisterErrorKind, Unknown, WouldBlock};
use crate::diagnostics;
use crate::frees;
use crate::hung::{Finish, Hung, When};
use crate::map_lock::MapLockGuard;
use crate::platform::{self, Payload};
use crate::scan::{Own, Wanted};
use crate::space::{AddressSpaceRef, Space};

/// # Invariants
/// `node` is the first field: its address is that of the record. `space` came from a holder; from its registration on the
/// record is one, with all others of the list.
#[repr(C)]
struct Record<N> {
    node: Node,
    notifier: N,
    space: NonNull<Space>,
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

    fn shared_key(key: u64) -> Key {
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

    fn space(&self) -> &AddressSpaceRef {
        // SAFETY: a record that others know is registered, so it is a holder.
        unsafe { AddressSpaceRef::borrow_raw(&self.space) }
    }
}

/// Drops a record, and gives its memory back, also if the drop panics; last it lets go of the space.
///
/// # Safety
/// It was registered; no walk knows it, and it is not used again.
unsafe fn free<N>(record: NonNull<Record<N>>) {
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
unsafe fn free_locked<N>(record: NonNull<Record<N>>, unknown: Unknown<'_>) {
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
fn add_at_once<N: Notifier>(
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
fn add<N: Notifier>(
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

/// A subscription to all of a space, owned by the subscriber. Dropping it unregisters it.
///
/// It dereferences to its notifier. It is a holder of its space, and may outlive the last user.
pub struct Registration<N: Notifier> {
    record: NonNull<Record<N>>,
}

// SAFETY: a registration is its notifier, which is Send and Sync, and a node that is meant to be shared.
unsafe impl<N: Notifier> Send for Registration<N> {}
// SAFETY: as above.
unsafe impl<N: Notifier> Sync for Registration<N> {}

impl<N: Notifier> Registration<N> {
    pub(crate) fn new(
        space: &AddressSpaceRef,
        lock: &MapLockGuard<'_>,
        notifier: N,
    ) -> Result<Self, RegisterError<N>> {
        match add_at_once(space, lock, notifier) {
            Ok(record) => Ok(Registration { record }),
            Err(notifier) => Registration::new_at_length(space, lock, notifier),
        }
    }

    #[inline(never)]
    fn new_at_length(
        space: &AddressSpaceRef,
        lock: &MapLockGuard<'_>,
        notifier: N,
    ) -> Result<Self, RegisterError<N>> {
        add(space, lock, notifier, None).map(|record| Registration { record })
    }

    /// Calls release, unless the exit did or does; takes it off the list; waits for the walks that run. When it
    /// returns, no callback runs or will run, and the notifier is dropped.
    ///
    /// In a walk of the own thread it does not wait for that; what it owns is then dropped behind it.
    ///
    /// # Context
    /// May sleep. No lock may be held that a callback of this space takes.
    pub fn unregister(self) {
        drop(self);
    }

    /// Leaves the list without release and without waiting (clause C4.3): no walk comes to it any more, and when
    /// those that run are over the notifier is dropped; who does that is told at [`Shared::put`].
    ///
    /// # Context
    /// Does not sleep; may be called in any callback, also in release.
    pub fn put(self) {
        let this = ManuallyDrop::new(self);
        // The record may hold its space as the last one: nothing that is borrowed here may go with it.
        let space = this.space().clone();
        let subscriptions = space.watched();
        let stamp = subscriptions.list.take_off(&this.record().node);
        // SAFETY: a registration is the one reference, and the record is alive until free_put; it holds its space.
        unsafe { leave::put(&space, subscriptions, this.record.cast(), stamp, free_put::<N>) };
    }

    fn record(&self) -> &Record<N> {
        // SAFETY: the record lives until the registration is dropped.
        unsafe { self.record.as_ref() }
    }

    /// The space that it belongs to.
    pub fn space(&self) -> &AddressSpaceRef {
        self.record().space()
    }
}

impl<N: Notifier> Drop for Registration<N> {
    fn drop(&mut self) {
        platform::in_drop(|| self.leave());
    }
}

impl<N: Notifier> Registration<N> {
    /// What `unregister` and `drop` do.
    fn leave(&mut self) {
        let space = self.space();
        let subscriptions = space.watched();
        let left = leave::unregister(subscriptions, self.record.cast());
        match left.off {
            Off::Unknown(unknown) if !mem::needs_drop::<Record<N>>() => {
                // SAFETY: off the list, and no walk knows it.
                platform::behind(&left.panic, || unsafe { free_locked(self.record, unknown) });
            }
            Off::Walked(stamp) if subscriptions.innermost().is_some() => self.leave_behind(stamp),
            off => {
                // A notifier is dropped where it is, and not under the lock.
                drop(off);
                // SAFETY: off the list, and every walk that may have found it is over.
                platform::behind(&left.panic, || unsafe { free(self.record) });
            }
        }
        if let Some(payload) = left.panic {
            platform::resume(payload);
        }
    }

    /// Within a walk of the own thread: that walk may still know the record.
    #[cold]
    fn leave_behind(&self, stamp: u64) {
        // The record may hold its space as the last one: nothing that is borrowed here may go with it.
        let held = self.space().clone();
        let wanted = Wanted::Walked { stamp, own: Own::Awaited };
        let how = (free_unregistered::<N> as Finish, When::MayBeLeft);
        // SAFETY: off the list, behind a full fence, and alive until free_unregistered; it holds its space.
        unsafe { leave::hang(held.watched(), self.record.cast(), wanted, how) };
    }
}

/// # Safety
/// The hung node is that of an unregistered `Record<N>` that no walk knows any more.
unsafe fn free_unregistered<N: Notifier>(hung: NonNull<Hung>) {
    // SAFETY: as promised by the caller.
    unsafe { free(leave::node_of(hung).cast::<Record<N>>()) };
}

/// # Safety
/// The hung node is that of a `Record<N>` that was put for the last time and that no walk knows any more.
unsafe fn free_put<N: Notifier>(hung: NonNull<Hung>) {
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

impl<N: Notifier> Deref for Registration<N> {
    type Target = N;

    fn deref(&self) -> &N {
        &self.record().notifier
    }
}

impl<N: Notifier> fmt::Debug for Registration<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registration").field("label", &self.record().node.label()).finish_non_exhaustive()
    }
}

/// One reference to a notifier that several share (clause C4.3). Dropping it puts it.
///
/// The free of the notifier is its drop, some time after the last put; see [`put`](Self::put).
pub struct Shared<N: Notifier> {
    record: NonNull<Record<N>>,
}

// SAFETY: a reference to a notifier that is Send and Sync, and to a node that is meant to be shared.
unsafe impl<N: Notifier> Send for Shared<N> {}
// SAFETY: as above.
unsafe impl<N: Notifier> Sync for Shared<N> {}

impl<N: Notifier> Shared<N> {
    /// Gets the one with this key, or allocates and registers it; the map lock is held.
    pub(crate) fn get<E>(
        space: &AddressSpaceRef,
        lock: &MapLockGuard<'_>,
        key: u64,
        alloc: impl FnOnce(&AddressSpaceRef) -> Result<N, E>,
    ) -> Result<Self, GetError<E>> {
        let key = Record::<N>::shared_key(key);
        if !space.has_users() {
            return Err(GetError::Gone);
        }
        let found = space.space().subscriptions().map_or(Err(Lookup::Nobody), |found| found.list.find(key));
        match found {
            Ok(node) => return Ok(Shared { record: node.cast() }),
            Err(Lookup::Closed) => return Err(GetError::Gone),
            Err(Lookup::Overflow) => return Err(GetError::Overflow),
            Err(Lookup::Nobody) => {}
        }
        let notifier = alloc(space).map_err(GetError::Alloc)?;
        // A failed registration drops the notifier: it is freed at once.
        add(space, lock, notifier, Some(key))
            .map(|record| Shared { record })
            .map_err(|error| error.cause.into())
    }

    /// Gives the reference back. With the last one the notifier is off the list: no walk comes to it any more,
    /// and when those that run are over it is dropped. It is not released, and nobody waits.
    ///
    /// Who drops it, and when: this call, if no walk of the space runs; else who ends the last of those that
    /// run; where the space leaves such work, the next call on it that may sleep; at the latest, and also
    /// without `std`, [`synchronize`](crate::synchronize).
    ///
    /// # Context
    /// Does not sleep; may be called in any callback, also in release.
    pub fn put(self) {
        drop(self);
    }

    fn record(&self) -> &Record<N> {
        // SAFETY: the record lives until the last reference is put.
        unsafe { self.record.as_ref() }
    }

    /// The space that it belongs to.
    pub fn space(&self) -> &AddressSpaceRef {
        self.record().space()
    }

    #[cfg(all(test, not(any(loom, shuttle))))]
    pub(crate) fn set_users(&self, users: u32) {
        let subscriptions = self.record().space().space().subscriptions().unwrap();
        subscriptions.list.set_users(&self.record().node, users);
    }
}

impl<N: Notifier> Drop for Shared<N> {
    fn drop(&mut self) {
        // The record may hold its space as the last one: nothing that is borrowed here may go with it.
        let space = self.space().clone();
        let subscriptions = space.watched();
        if let Some(stamp) = subscriptions.list.put(&self.record().node) {
            let free = free_put::<N>;
            // SAFETY: the last reference is gone, and the record is alive until free_put; it holds its space.
            platform::in_drop(|| unsafe {
                leave::put(&space, subscriptions, self.record.cast(), stamp, free)
            });
        }
    }
}

impl<N: Notifier> Deref for Shared<N> {
    type Target = N;

    fn deref(&self) -> &N {
        &self.record().notifier
    }
}

impl<N: Notifier> fmt::Debug for Shared<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("key", &self.record().node.key).finish_non_exhaustive()
    }
}
