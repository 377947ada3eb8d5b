//! A list subscription in its user's memory.

use core::any::TypeId;
use core::cell::UnsafeCell;
use core::fmt;
use core::marker::PhantomPinned;
use core::mem::MaybeUninit;
use core::ops::Deref;
use core::ptr::NonNull;

use super::membership::Membership;
use crate::address::{Address, Range};
use crate::diagnostics::{self, Rule};
use crate::frees::{self, Ticket};
use crate::hung::Hung;
use crate::invalidation::Invalidation;
use crate::list::{Callbacks, GetError, Key, Lookup, Node, RegisterErrorKind, WouldBlock, Young, leave};
use crate::map_lock::MapLockGuard;
use crate::platform::{self, Payload};
use crate::space::{AddressSpaceRef, Pte, Space};

/// A question about accessed bits (clause C5.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// Tell, clear, and flush the secondary TLB.
    ClearFlush(Range),
    /// Tell and clear.
    Clear(Range),
    /// Tell, for one address.
    Test(Address),
}

/// What the listeners of one user call, as [`list::Notifier`](crate::list::Notifier) has it.
///
/// # Safety
/// The library calls them with a listener that was registered with a table of this type, from its registration on until
/// its unregister has returned or its free runs; `free` is called once, and then the memory is the user's.
#[expect(missing_docs, reason = "the callbacks of list::Notifier, under their names")]
#[expect(clippy::missing_safety_doc, reason = "the same for all, above")]
pub trait ListenerOps: 'static {
    unsafe fn release(listener: NonNull<Listener>) {
        let _ = listener;
    }

    unsafe fn invalidate_range_start(
        listener: NonNull<Listener>,
        what: &Invalidation,
    ) -> Result<(), WouldBlock> {
        let _ = (listener, what);
        Ok(())
    }

    unsafe fn invalidate_range_end(listener: NonNull<Listener>, what: &Invalidation) {
        let _ = (listener, what);
    }

    unsafe fn invalidate_range(listener: NonNull<Listener>, range: Range) {
        let _ = (listener, range);
    }

    unsafe fn young(listener: NonNull<Listener>, question: Question) -> bool {
        let _ = (listener, question);
        false
    }

    unsafe fn change_pte(listener: NonNull<Listener>, address: Address, pte: Pte) {
        let _ = (listener, address, pte);
    }

    /// The last put is done and no walk knows it: its memory is the user's. May not sleep.
    unsafe fn free(listener: NonNull<Listener>) {
        let _ = listener;
    }
}

/// The table that a [`Listener`] is made with: a walk calls the [ops](ListenerOps) of its type, and nothing between.
#[derive(Debug)]
pub struct ListenerCallbacks {
    node: Callbacks,
    free: unsafe fn(NonNull<Listener>),
}

impl ListenerCallbacks {
    /// Makes the table of these ops.
    pub const fn of<O: ListenerOps>() -> Self {
        let node = Callbacks {
            release: release::<O>,
            start: start::<O>,
            end: end::<O>,
            flush_and_end: flush_and_end::<O>,
            invalidate_range: invalidate_range::<O>,
            young: young::<O>,
            change_pte: change_pte::<O>,
        };
        ListenerCallbacks { node, free: O::free }
    }
}

/// A list subscription to be embedded in its user's structure.
///
/// # Invariants
/// `node` is the first field, and is initialised while it is in a space; `space` is that one, of which it is a holder then,
/// with all others of the list.
#[repr(C)]
pub struct Listener {
    node: UnsafeCell<MaybeUninit<Node>>,
    callbacks: &'static ListenerCallbacks,
    key: u64,
    space: UnsafeCell<Option<NonNull<Space>>>,
    membership: Membership,
    _pinned: PhantomPinned,
}

// SAFETY: `node` and `space` change only by who began to enter or to leave; the node is meant to be shared.
unsafe impl Sync for Listener {}
// SAFETY: nothing in it belongs to a thread.
unsafe impl Send for Listener {}

/// # Safety
/// The node is that of a [`Listener`] with a table of these ops, which a walk has come to, or whose owner has it.
unsafe fn release<O: ListenerOps>(node: NonNull<Node>, panic: &mut Option<Payload>) {
    // SAFETY: as promised by the caller; the node is its first field.
    platform::keep(panic, || unsafe { O::release(node.cast()) });
}

/// # Safety
/// As for [`release`].
unsafe fn start<O: ListenerOps>(
    node: NonNull<Node>,
    what: &Invalidation,
    panic: &mut Option<Payload>,
) -> Result<(), WouldBlock> {
    // SAFETY: as promised by the caller; the node is its first field.
    let answer = platform::keep(panic, || unsafe { O::invalidate_range_start(node.cast(), what) });
    answer.unwrap_or(Err(WouldBlock))
}

/// # Safety
/// As for [`release`].
unsafe fn end<O: ListenerOps>(node: NonNull<Node>, what: &Invalidation, panic: &mut Option<Payload>) {
    // SAFETY: as promised by the caller; the node is its first field.
    platform::keep(panic, || unsafe { O::invalidate_range_end(node.cast(), what) });
}

/// # Safety
/// As for [`release`].
unsafe fn flush_and_end<O: ListenerOps>(
    node: NonNull<Node>,
    what: &Invalidation,
    panic: &mut Option<Payload>,
) -> bool {
    let mut is_owed = true;
    platform::keep(panic, || {
        // SAFETY: as promised by the caller; the node is its first field.
        unsafe { O::invalidate_range(node.cast(), what.range()) };
        is_owed = false;
        // SAFETY: as above; a callback that runs frees nothing that its walk knows.
        unsafe { O::invalidate_range_end(node.cast(), what) };
    });
    is_owed
}

/// # Safety
/// As for [`release`].
unsafe fn invalidate_range<O: ListenerOps>(node: NonNull<Node>, range: Range, panic: &mut Option<Payload>) {
    // SAFETY: as promised by the caller; the node is its first field.
    platform::keep(panic, || unsafe { O::invalidate_range(node.cast(), range) });
}

/// # Safety
/// As for [`release`].
unsafe fn young<O: ListenerOps>(node: NonNull<Node>, question: Young, panic: &mut Option<Payload>) -> bool {
    let question = match question {
        Young::ClearFlush(range) => Question::ClearFlush(range),
        Young::Clear(range) => Question::Clear(range),
        Young::Test(address) => Question::Test(address),
    };
    // SAFETY: as promised by the caller; the node is its first field.
    platform::keep(panic, || unsafe { O::young(node.cast(), question) }).unwrap_or(false)
}

/// # Safety
/// As for [`release`].
unsafe fn change_pte<O: ListenerOps>(
    node: NonNull<Node>,
    address: Address,
    pte: Pte,
    panic: &mut Option<Payload>,
) {
    // SAFETY: as promised by the caller; the node is its first field.
    platform::keep(panic, || unsafe { O::change_pte(node.cast(), address, pte) });
}

/// What a listener that leaves still holds; lets go of it when it is dropped.
struct Held(NonNull<Space>);

impl Deref for Held {
    type Target = AddressSpaceRef;

    fn deref(&self) -> &AddressSpaceRef {
        // SAFETY: it is a holder.
        unsafe { AddressSpaceRef::borrow_raw(&self.0) }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.watched().list.let_go() {
            // SAFETY: it was the last of the holder that all on the list were.
            drop(unsafe { AddressSpaceRef::from_raw(self.0) });
        }
    }
}

/// What became of a reference that was put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Released {
    /// Others still have it.
    Kept,
    /// It was the last: the listener is off the list, and its `free` runs when no walk knows it any more.
    Last,
}

impl Listener {
    /// Makes one that is in no space.
    pub const fn new(callbacks: &'static ListenerCallbacks) -> Self {
        Listener {
            node: UnsafeCell::new(MaybeUninit::uninit()),
            callbacks,
            key: 0,
            space: UnsafeCell::new(None),
            membership: Membership::out(),
            _pinned: PhantomPinned,
        }
    }

    /// Gives it a key that takes the place of its table's address: where one table serves all, and what tells
    /// them apart lies behind it. 0 is no key.
    pub const fn with_key(mut self, key: u64) -> Self {
        self.key = key;
        self
    }

    /// Registers it under the map lock (`__mmu_notifier_register`), with the address of its table as its key
    /// unless it has [another](Self::with_key).
    ///
    /// # Errors
    /// As [`AddressSpaceRef::register`]; it is then as if never touched. One that is registered already is
    /// diagnosed and counts as gone.
    ///
    /// # Safety
    /// - `this` points to a `Listener`, through a pointer that may also be used for what its callbacks reach.
    /// - It is not moved, freed or overwritten until [`unregister`](Self::unregister) has returned, or its
    ///   `free` runs.
    ///
    /// # Context
    /// As [`AddressSpaceRef::register`], with the map lock held.
    pub unsafe fn register(
        this: NonNull<Listener>,
        space: &AddressSpaceRef,
        lock: &MapLockGuard<'_>,
    ) -> Result<(), RegisterErrorKind> {
        // SAFETY: as promised by the caller.
        let listener = unsafe { this.as_ref() };
        if !listener.membership.begin_to_enter() {
            diagnostics::report(Rule::InsertedTwice, "register", None);
            return Err(RegisterErrorKind::Gone);
        }
        let node = Node::new(&listener.callbacks.node, Some(listener.key()), None);
        // SAFETY: between begin and end of entering nobody else uses the node.
        unsafe { &mut *listener.node.get() }.write(node);
        // SAFETY: between begin and end of entering nobody else uses the space; walks do not.
        unsafe { *listener.space.get() = Some(space.as_raw()) };
        // SAFETY: as promised by the caller; the node is the first field.
        let result = unsafe { space.space().add_to_list(lock, this.cast()) };
        if result.is_ok() {
            listener.membership.set_in();
        } else {
            // SAFETY: it is not on the list, and this call began to enter.
            unsafe { *listener.space.get() = None };
            listener.membership.set_out();
        }
        result
    }

    /// The holder that it is with the others of the list.
    ///
    /// # Safety
    /// It is in a space, and the caller takes it out of that.
    unsafe fn take_space(&self) -> Held {
        // SAFETY: as promised by the caller.
        let space = unsafe { &mut *self.space.get() }.take();
        Held(space.expect("a listener that is in holds its space"))
    }

    /// Listeners of one table are one for [`find`](Self::find), as with the kernel's ops pointer.
    fn key(&self) -> Key {
        let own = core::ptr::from_ref(self.callbacks) as usize as u64;
        Self::key_of(if self.key == 0 { own } else { self.key })
    }

    fn key_of(word: u64) -> Key {
        (TypeId::of::<Listener>(), word)
    }

    /// Releases it, unless the exit did; takes it off the list; waits for the walks that run
    /// (`mmu_notifier_unregister`). Then its memory is the caller's. One that is off is diagnosed, and left alone.
    ///
    /// # Safety
    /// - `this` was promised to [`register`](Self::register), or is a listener that was never registered.
    /// - It is not called within a walk of the own thread, whose callbacks may still use the memory; that is
    ///   diagnosed, and then this returns without having waited for that walk.
    ///
    /// # Context
    /// May sleep.
    pub unsafe fn unregister(this: NonNull<Listener>) {
        // SAFETY: as promised by the caller.
        let listener = unsafe { this.as_ref() };
        if !listener.membership.begin_to_leave() {
            return diagnostics::report(Rule::NotInserted, "unregister", None);
        }
        // SAFETY: it was in, and it is this call's to take out.
        let space = unsafe { listener.take_space() };
        let subscriptions = space.watched();
        if subscriptions.innermost().is_some() {
            diagnostics::report(Rule::WaitInCallback, "unregister", None);
        }
        let left = leave::unregister(subscriptions, this.cast());
        drop(left.off);
        listener.membership.set_out();
        if let Some(payload) = left.panic {
            platform::resume(payload);
        }
    }

    /// Counts one more user of the listener with this table (`mmu_notifier_get`); none if nobody has it: then
    /// make one, and [`register`](Self::register) it, under the same map lock.
    ///
    /// # Errors
    /// [`GetError::Gone`] or [`GetError::Overflow`].
    ///
    /// # Context
    /// With the map lock held. Does not sleep.
    pub fn find(
        space: &AddressSpaceRef,
        lock: &MapLockGuard<'_>,
        callbacks: &'static ListenerCallbacks,
    ) -> Result<Option<NonNull<Listener>>, GetError<core::convert::Infallible>> {
        Self::find_key(space, lock, core::ptr::from_ref(callbacks) as usize as u64)
    }

    /// The same for a listener that was given this [key](Self::with_key).
    ///
    /// # Errors
    /// As [`find`](Self::find).
    ///
    /// # Context
    /// As [`find`](Self::find).
    pub fn find_key(
        space: &AddressSpaceRef,
        _lock: &MapLockGuard<'_>,
        key: u64,
    ) -> Result<Option<NonNull<Listener>>, GetError<core::convert::Infallible>> {
        if !space.has_users() {
            return Err(GetError::Gone);
        }
        let Some(subscriptions) = space.space().subscriptions() else { return Ok(None) };
        match subscriptions.list.find(Self::key_of(key)) {
            Ok(node) => Ok(Some(node.cast())),
            Err(Lookup::Nobody) => Ok(None),
            Err(Lookup::Closed) => Err(GetError::Gone),
            Err(Lookup::Overflow) => Err(GetError::Overflow),
        }
    }

    /// Gives one reference back (`mmu_notifier_put`). With the last one it is off the list, and `free` runs when
    /// no walk knows it any more; who runs it is told at [`Shared::put`](crate::list::Shared::put). One put too
    /// many is diagnosed, and does nothing.
    ///
    /// # Safety
    /// `this` was got from [`find`](Self::find), or registered, and its `free` has not run.
    ///
    /// # Context
    /// Does not sleep.
    pub unsafe fn put(this: NonNull<Listener>) -> Released {
        // SAFETY: as promised by the caller.
        let listener = unsafe { this.as_ref() };
        if !listener.membership.is_in() {
            diagnostics::report(Rule::NotInserted, "put", None);
            return Released::Kept;
        }
        // SAFETY: it is in, and stays so until the free.
        let space = unsafe { *listener.space.get() }.expect("a registered listener holds its space");
        // SAFETY: it is a holder.
        let space = unsafe { AddressSpaceRef::from_held(space) };
        let subscriptions = space.watched();
        // SAFETY: the node is the first field of the listener, and initialised while it is in.
        let Some(stamp) = subscriptions.list.put(unsafe { this.cast::<Node>().as_ref() }) else {
            return Released::Kept;
        };
        listener.membership.begin_to_leave();
        // SAFETY: the last reference is gone; the listener holds its space until its free.
        unsafe { leave::put(&space, subscriptions, this.cast(), stamp, free) };
        Released::Last
    }
}

/// # Safety
/// The hung node is that of a [`Listener`] that was put for the last time and that no walk knows any more.
unsafe fn free(hung: NonNull<Hung>) {
    let node = leave::node_of(hung);
    let listener = node.cast::<Listener>();
    // SAFETY: as promised by the caller; the node is the first field of the listener.
    let callback = unsafe { (*listener.as_ptr()).callbacks }.free;
    // SAFETY: the listener is alive until its callback.
    let leaving = unsafe { listener.as_ref() };
    // SAFETY: the last put left the rest to this call.
    let space = unsafe { leaving.take_space() };
    // The ticket outlives the node, whose memory the callback may free.
    let ticket = Ticket::new();
    // SAFETY: the node is initialised until it is out.
    frees::move_on(unsafe { &node.as_ref().ticket }, &ticket);
    frees::run(&ticket);
    // SAFETY: the listener is alive until its callback.
    unsafe { (*listener.as_ptr()).membership.set_out() };
    // SAFETY: the table is that of the listener, and this is its one free.
    let result = platform::catch(|| unsafe { callback(listener) });
    frees::end(&ticket, space.space());
    if let Err(payload) = result {
        platform::resume(payload);
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let registered = self.membership.is_in();
        f.debug_struct("Listener").field("registered", &registered).finish_non_exhaustive()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // A promise of `register` is broken; unregistering it here is the best that can be done.
        if self.membership.is_in() {
            diagnostics::report(Rule::FreedInserted, "drop of a listener", None);
            // SAFETY: it is still where it was registered: drop is called in place.
            unsafe { Listener::unregister(NonNull::from(&mut *self)) };
        }
    }
}
