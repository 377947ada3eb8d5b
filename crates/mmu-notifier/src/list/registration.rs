//! The owned registrations: one of a subscriber by itself, and one that several share.

use core::fmt;
use core::mem::{self, ManuallyDrop};
use core::ops::Deref;
use core::ptr::NonNull;

use super::leave;
use super::record::{Record, add, add_at_once, free, free_locked, free_put, free_unregistered};
use super::{GetError, Lookup, Notifier, Off, RegisterError};
use crate::hung::{Finish, When};
use crate::map_lock::MapLockGuard;
use crate::platform;
use crate::scan::{Own, Wanted};
use crate::space::AddressSpaceRef;

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
