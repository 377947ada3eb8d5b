//! Fork (clause C7.3): a child starts with every space of the parent usable by the one thread that it has.
//!
//! Every space is in a registry. Before a fork its lock is taken, and with it every lock of the library's own,
//! so that the child finds whole books. In the child, what other threads had begun counts as over there:
//! their hazards are idle, their sections left, their waiters gone, the map locks open, their thread numbers
//! free. What the forking thread has begun goes on. An end that comes for something that is over is quiet.

#![expect(unsafe_code, reason = "spaces are linked through raw pointers under the lock of the registry")]

use core::cell::{Cell, UnsafeCell};
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::frame;
use crate::frees;
use crate::hazard::Hazard;
use crate::platform::{self, with_context};
use crate::space::{AddressSpaceRef, Space};

/// The place of a space in the registry.
#[derive(Debug)]
pub(crate) struct Registered {
    previous: Cell<*const Space>,
    next: Cell<*const Space>,
}

impl Registered {
    pub(crate) fn new() -> Self {
        Registered { previous: Cell::new(ptr::null()), next: Cell::new(ptr::null()) }
    }
}

/// All spaces; the list is used under `held`.
struct Registry {
    held: AtomicBool,
    first: UnsafeCell<*const Space>,
}

// SAFETY: the list is used under `held`.
unsafe impl Sync for Registry {}

static REGISTRY: Registry = Registry { held: AtomicBool::new(false), first: UnsafeCell::new(ptr::null()) };
static FORKS: AtomicU32 = AtomicU32::new(0);

/// How many forks lie between the first process and this one.
#[inline]
pub(crate) fn count() -> u32 {
    FORKS.load(Ordering::Relaxed)
}

impl Registry {
    fn lock(&self) {
        let mut turns = 0;
        while self.held.swap(true, Ordering::Acquire) {
            platform::relax(&mut turns);
        }
    }

    fn unlock(&self) {
        self.held.store(false, Ordering::Release);
    }

    /// Calls `f` with each space. The lock is held.
    fn for_each(&self, mut f: impl FnMut(&Space)) {
        // SAFETY: the lock is held, so nobody else uses the list.
        let mut at = unsafe { *self.first.get() };
        // SAFETY: spaces are taken out of the list before they are freed.
        while let Some(space) = unsafe { at.as_ref() } {
            at = space.registered.next.get();
            f(space);
        }
    }
}

/// Holds one of all spaces that `wanted` says yes to, if there is one that has a holder.
pub(crate) fn find(wanted: impl Fn(&Space) -> bool) -> Option<AddressSpaceRef> {
    let mut found = None;
    REGISTRY.lock();
    // SAFETY: the lock is held, so nobody else uses the list.
    let mut at = unsafe { *REGISTRY.first.get() };
    // SAFETY: spaces are taken out of the list before they are freed.
    while let (None, Some(space)) = (&found, unsafe { at.as_ref() }) {
        if wanted(space) {
            // SAFETY: it is in the list, so it is not freed yet, and was entered as the pointer of its box.
            found = unsafe { AddressSpaceRef::try_hold(at.cast_mut()) };
        }
        at = space.registered.next.get();
    }
    REGISTRY.unlock();
    found
}

/// Readies the process for its first space: what runs around a fork, and which barriers there are, which bells ask when
/// they are made.
pub(crate) fn prepare() {
    if !cfg!(any(loom, shuttle)) {
        platform::on_fork(before, after_in_parent, after_in_child);
    }
}

/// Enters a new space; it is taken out by [`forget`] before it is freed.
///
/// # Safety
/// The space is alive, and the pointer is one that it may be freed with. It was made behind [`prepare`].
pub(crate) unsafe fn remember(space: NonNull<Space>) {
    if cfg!(any(loom, shuttle)) {
        // A model does not fork, and models that run side by side have nothing in common.
        return;
    }
    REGISTRY.lock();
    // SAFETY: the lock is held, so nobody else uses the list.
    let first = unsafe { &mut *REGISTRY.first.get() };
    // SAFETY: spaces are taken out of the list before they are freed.
    if let Some(first) = unsafe { first.as_ref() } {
        first.registered.previous.set(space.as_ptr());
    }
    // SAFETY: as promised by the caller.
    unsafe { space.as_ref() }.registered.next.set(*first);
    *first = space.as_ptr();
    REGISTRY.unlock();
}

/// Takes a space out that is about to be freed.
pub(crate) fn forget(space: &Space) {
    if cfg!(any(loom, shuttle)) {
        return;
    }
    REGISTRY.lock();
    let (previous, next) = (space.registered.previous.get(), space.registered.next.get());
    // SAFETY: spaces are taken out of the list before they are freed.
    match unsafe { previous.as_ref() } {
        Some(previous) => previous.registered.next.set(next),
        // SAFETY: the lock is held, so nobody else uses the list.
        None => unsafe { *REGISTRY.first.get() = next },
    }
    // SAFETY: as above.
    if let Some(next) = unsafe { next.as_ref() } {
        next.registered.previous.set(previous);
    }
    REGISTRY.unlock();
}

/// Takes the library's locks, in the order: registry, then a space's records, writer, list and hooks; the frees last.
extern "C" fn before() {
    REGISTRY.lock();
    REGISTRY.for_each(|space| {
        if let Some(subscriptions) = space.subscriptions() {
            subscriptions.records.lock_for_fork();
            subscriptions.index.lock_for_fork();
            subscriptions.list.lock_for_fork();
            subscriptions.hooks.lock_for_fork();
        }
    });
    frees::lock_for_fork();
}

extern "C" fn after_in_parent() {
    frees::unlock_after_fork();
    REGISTRY.for_each(open);
    REGISTRY.unlock();
}

extern "C" fn after_in_child() {
    FORKS.fetch_add(1, Ordering::Relaxed);
    with_context(|context| {
        let number = context.map_or(0, |context| context.known_number());
        REGISTRY.for_each(|space| {
            space.map_lock.forget_other_holders(context);
            if let Some(subscriptions) = space.subscriptions() {
                let id = subscriptions.id;
                let (calling, sections) = frame::own_in_crowd(id);
                let crowd = (frame::own_open_in_crowd(id), calling, sections);
                let own = |hazard: &Hazard| {
                    hazard.belongs_to(number)
                        || context.is_some_and(|context| hazard.was_started_by(context))
                        || frame::is_own(id, hazard)
                };
                subscriptions.book.keep_only(own, context, crowd);
                subscriptions.hooks.hang_again(&subscriptions.book);
                subscriptions.freed.forget_waiters();
            }
        });
        frees::forget_running();
        if let Some(context) = context {
            context.forget_number();
        }
    });
    after_in_parent();
}

/// Opens the locks of a space.
fn open(space: &Space) {
    if let Some(subscriptions) = space.subscriptions() {
        subscriptions.hooks.unlock_after_fork();
        subscriptions.list.unlock_after_fork();
        subscriptions.index.unlock_after_fork();
        subscriptions.records.unlock_after_fork();
    }
}
