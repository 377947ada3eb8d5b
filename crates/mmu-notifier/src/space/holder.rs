//! Holders of a space, and every call that is made on one.

#![expect(unsafe_code, reason = "a space is counted by hand, as an Arc is")]

use alloc::boxed::Box;
use core::fmt;
use core::mem::ManuallyDrop;
use core::ptr::NonNull;

use super::{AddressSpace, MOST, Pte, Space, Stats};
use crate::address::{Address, Range};
use crate::diagnostics::{self, Rule};
use crate::interval::{self, InsertError, InsertErrorKind, Options, Subscription};
use crate::list::{self, GetError, RegisterError, RegisterErrorKind, Registration, Shared, Young};
use crate::map_lock::{MapLockGuard, MapLockSharedGuard};
use crate::subscriptions::Subscriptions;
use crate::sync::Ordering;

/// A holder of an address space: the object stays valid, though its users may have gone. Clone is mmgrab, drop
/// is mmdrop.
///
/// All calls stand here; an [`AddressSpace`] dereferences to it.
#[repr(transparent)]
pub struct AddressSpaceRef {
    pub(super) space: NonNull<Space>,
}

// SAFETY: a space is meant to be shared between threads; its counts are atomic.
unsafe impl Send for AddressSpaceRef {}
// SAFETY: as above.
unsafe impl Sync for AddressSpaceRef {}

impl AddressSpaceRef {
    #[inline]
    pub(crate) fn space(&self) -> &Space {
        // SAFETY: this is a holder.
        unsafe { self.space.as_ref() }
    }

    /// Makes one more holder.
    ///
    /// # Safety
    /// - The space has a holder now.
    /// - `space` was got from [`as_raw`](Self::as_raw).
    pub(crate) unsafe fn from_held(space: NonNull<Space>) -> Self {
        // SAFETY: as promised by the caller.
        unsafe { space.as_ref() }.hold();
        AddressSpaceRef { space }
    }

    /// Makes one more holder, unless the last one has gone.
    ///
    /// # Safety
    /// - `space` is not freed yet, and stays so during this call.
    /// - It is a pointer that the space may be freed with.
    pub(crate) unsafe fn try_hold(space: *mut Space) -> Option<Self> {
        let space = NonNull::new(space)?;
        let one_more = |holders: u64| (holders != 0 && holders < MOST).then(|| holders + 1);
        // SAFETY: as promised by the caller.
        let holders = &unsafe { space.as_ref() }.holders;
        holders.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
        Some(AddressSpaceRef { space })
    }

    /// Takes over a holder.
    ///
    /// # Safety
    /// - It is the caller's, who lets go of it.
    /// - `space` was got from [`as_raw`](Self::as_raw).
    pub(crate) unsafe fn from_raw(space: NonNull<Space>) -> Self {
        AddressSpaceRef { space }
    }

    /// The space as that of a holder which is somebody else's.
    ///
    /// # Safety
    /// - The space has a holder as long as the result is used.
    /// - `space` was got from [`as_raw`](Self::as_raw).
    #[inline]
    pub(crate) unsafe fn borrow_raw(space: &NonNull<Space>) -> &Self {
        // SAFETY: it is transparent, and the caller keeps the space.
        unsafe { &*core::ptr::from_ref(space).cast() }
    }

    pub(crate) fn as_raw(&self) -> NonNull<Space> {
        self.space
    }

    /// Becomes a user, if there still is one (mmget_not_zero).
    pub fn upgrade(&self) -> Option<AddressSpace> {
        let one_more = |users: u64| (users != 0 && users < MOST).then(|| users + 1);
        self.space().users.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
        // SAFETY: this is a holder; all users share the holder that the first one had.
        Some(AddressSpace { holder: ManuallyDrop::new(AddressSpaceRef { space: self.space }) })
    }

    /// Says whether the space has a user.
    #[inline]
    pub fn has_users(&self) -> bool {
        self.space().has_users()
    }

    /// Makes the exit now (`mmu_notifier_release`), though the space has users; that of the last user then does
    /// nothing. From a callback of the space it does nothing, and is diagnosed.
    ///
    /// # Context
    /// May sleep.
    pub fn release(&self) {
        if self.space().subscriptions().is_some_and(|found| found.innermost().is_some()) {
            return diagnostics::report(Rule::WaitInCallback, "release", None);
        }
        self.space().exit();
    }

    /// Drops what put and detach left to a call that may sleep (see
    /// [`Builder::defer_drops`](crate::Builder::defer_drops)): this is one.
    ///
    /// # Context
    /// Runs frees.
    pub fn drop_deferred(&self) {
        self.space().subscriptions().into_iter().for_each(Subscriptions::may_sleep);
    }

    /// Says whether anybody has ever registered or inserted (`mm_has_notifiers`): from then on always yes.
    #[inline]
    pub fn has_notifiers(&self) -> bool {
        self.space().subscriptions().is_some()
    }

    /// Of the space, in this process; never used twice.
    pub(crate) fn id(&self) -> u64 {
        self.space().id
    }

    /// The name that its maker gave it.
    pub fn label(&self) -> Option<&'static str> {
        self.space().label
    }

    /// Takes the map lock for writing.
    ///
    /// # Context
    /// May sleep. Not in a callback of the space: the holder of the lock may be invalidating.
    #[inline]
    pub fn map_lock(&self) -> MapLockGuard<'_> {
        diagnostics::map_lock(self.space().subscriptions(), "map_lock");
        self.space().map_lock.write();
        MapLockGuard { space: self.space() }
    }

    /// Takes the map lock for a registration, with what was left to calls that may sleep done before.
    #[inline]
    fn map_lock_to_register(&self) -> MapLockGuard<'_> {
        if let Some(subscriptions) = self.space().subscriptions() {
            subscriptions.may_sleep();
        }
        self.map_lock()
    }

    /// Takes the map lock for reading.
    ///
    /// # Context
    /// As [`map_lock`](Self::map_lock).
    pub fn map_lock_shared(&self) -> MapLockSharedGuard<'_> {
        diagnostics::map_lock(self.space().subscriptions(), "map_lock_shared");
        self.space().map_lock.read();
        MapLockSharedGuard { space: self.space() }
    }

    /// Inserts a subscription to `range` (`mmu_interval_notifier_insert`).
    ///
    /// # Errors
    /// The space has no users, no memory, or the primary MMU's locks cannot be had; the notifier comes back.
    ///
    /// # Context
    /// May sleep and allocate. As the first insert of its space it takes the map lock. Never waits for an
    /// invalidation.
    pub fn insert<N: interval::Notifier>(
        &self,
        range: Range,
        notifier: N,
    ) -> Result<Subscription<N>, InsertError<N>> {
        self.insert_with(range, Options::new(), notifier)
    }

    /// Inserts a subscription with an owner or a label.
    ///
    /// # Errors
    /// As [`insert`](Self::insert).
    ///
    /// # Context
    /// As [`insert`](Self::insert).
    pub fn insert_with<N: interval::Notifier>(
        &self,
        range: Range,
        options: Options,
        notifier: N,
    ) -> Result<Subscription<N>, InsertError<N>> {
        match self.ready_to_insert() {
            Ok(subscriptions) => Subscription::insert(self, subscriptions, range, options, notifier),
            Err(cause) => Err(InsertError { cause, notifier }),
        }
    }

    /// Makes the interval side ready for one more, under the map lock if it is the first.
    #[inline]
    pub(crate) fn ready_to_insert(&self) -> Result<&Subscriptions, InsertErrorKind> {
        match self.space().subscriptions() {
            Some(found) if self.has_users() && found.is_ready_for_intervals() => Ok(found),
            _ => self.make_ready_to_insert(),
        }
    }

    #[inline(never)]
    fn make_ready_to_insert(&self) -> Result<&Subscriptions, InsertErrorKind> {
        if !self.has_users() {
            return Err(InsertErrorKind::Gone);
        }
        match self.space().subscriptions().filter(|subscriptions| subscriptions.index.is_open()) {
            None => {
                let _lock = self.map_lock_to_register();
                Ok(self.space().ready_for_intervals()?)
            }
            Some(subscriptions) => {
                subscriptions.may_sleep();
                subscriptions.book.refill(0).then_some(subscriptions).ok_or(InsertErrorKind::OutOfMemory)
            }
        }
    }

    /// The same under the map lock.
    pub(crate) fn ready_to_insert_locked(
        &self,
        lock: &MapLockGuard<'_>,
    ) -> Result<&Subscriptions, InsertErrorKind> {
        self.space().check_lock(lock, "insert_locked");
        Ok(self.space().ready_for_intervals()?)
    }

    /// What subscribers need; for those who are one.
    #[inline]
    pub(crate) fn watched(&self) -> &Subscriptions {
        self.space().subscriptions().expect("a space with a subscriber is watched for good")
    }

    /// Inserts a subscription under the map lock.
    ///
    /// # Errors
    /// As [`insert`](Self::insert).
    ///
    /// # Context
    /// As [`insert`](Self::insert), with the map lock held.
    pub fn insert_locked<N: interval::Notifier>(
        &self,
        lock: &MapLockGuard<'_>,
        range: Range,
        options: Options,
        notifier: N,
    ) -> Result<Subscription<N>, InsertError<N>> {
        match self.ready_to_insert_locked(lock) {
            Ok(subscriptions) => Subscription::insert(self, subscriptions, range, options, notifier),
            Err(cause) => Err(InsertError { cause, notifier }),
        }
    }

    /// Registers a subscriber to all of the space (`mmu_notifier_register`).
    ///
    /// # Errors
    /// The space has no users, no memory, or the primary MMU's locks cannot be had; the notifier comes back.
    ///
    /// # Context
    /// May sleep and allocate; takes the map lock.
    pub fn register<N: list::Notifier>(&self, notifier: N) -> Result<Registration<N>, RegisterError<N>> {
        let lock = self.map_lock_to_register();
        self.register_locked(&lock, notifier)
    }

    /// Registers under the map lock (`__mmu_notifier_register`).
    ///
    /// # Errors
    /// As [`register`](Self::register).
    ///
    /// # Context
    /// As [`register`](Self::register), with the map lock held.
    pub fn register_locked<N: list::Notifier>(
        &self,
        lock: &MapLockGuard<'_>,
        notifier: N,
    ) -> Result<Registration<N>, RegisterError<N>> {
        Registration::new(self, lock, notifier)
    }

    /// Makes what subscribers need, the interval side included, so that later inserts need no map lock.
    ///
    /// # Errors
    /// As [`register`](Self::register).
    ///
    /// # Context
    /// As [`register`](Self::register).
    pub fn register_nobody(&self) -> Result<(), RegisterErrorKind> {
        let lock = self.map_lock_to_register();
        self.register_nobody_locked(&lock)
    }

    /// The same under the map lock.
    ///
    /// # Errors
    /// As [`register`](Self::register).
    ///
    /// # Context
    /// As [`register`](Self::register), with the map lock held.
    pub fn register_nobody_locked(&self, lock: &MapLockGuard<'_>) -> Result<(), RegisterErrorKind> {
        self.space().check_lock(lock, "register_nobody_locked");
        self.space().ready_for_intervals().map(drop)
    }

    /// Gets the one notifier of type `N` with this key that is shared in this space, or makes it
    /// (`mmu_notifier_get`).
    ///
    /// # Errors
    /// The space has no users (also if the key is still on the list), too many references, no memory, the primary
    /// MMU's locks cannot be had, or what `alloc` returned.
    ///
    /// # Context
    /// May sleep and allocate; takes the map lock, and calls `alloc` under it.
    pub fn get<N: list::Notifier, E>(
        &self,
        key: u64,
        alloc: impl FnOnce(&AddressSpaceRef) -> Result<N, E>,
    ) -> Result<Shared<N>, GetError<E>> {
        let lock = self.map_lock_to_register();
        Shared::get(self, &lock, key, alloc)
    }

    /// Tells the list that secondary TLBs that share the page tables must drop a range
    /// (`mmu_notifier_invalidate_range`, today `arch_invalidate_secondary_tlbs`).
    ///
    /// # Context
    /// Does not sleep by itself.
    pub fn invalidate_range(&self, range: Range) {
        list::walk::ask(self, (), |call| call.invalidate_range(range));
    }

    /// Asks every list subscriber whether the range was accessed, clears that, and flushes; true if any says so.
    ///
    /// # Context
    /// Does not sleep by itself.
    pub fn clear_flush_young(&self, range: Range) -> bool {
        list::walk::ask(self, false, |call| call.young(Young::ClearFlush(range)))
    }

    /// The same without the need to flush.
    ///
    /// # Context
    /// Does not sleep by itself.
    pub fn clear_young(&self, range: Range) -> bool {
        list::walk::ask(self, false, |call| call.young(Young::Clear(range)))
    }

    /// Asks whether the page at this address was accessed, until somebody says so.
    ///
    /// # Context
    /// Does not sleep by itself.
    pub fn test_young(&self, address: Address) -> bool {
        list::walk::ask(self, false, |call| call.young(Young::Test(address)))
    }

    /// Tells every list subscriber of a new page table entry.
    ///
    /// # Context
    /// Does not sleep by itself.
    pub fn change_pte(&self, address: Address, pte: Pte) {
        list::walk::ask(self, (), |call| call.change_pte(address, pte));
    }

    /// What has happened in the space so far, and what is there now.
    pub fn stats(&self) -> Stats {
        let Some(subscriptions) = self.space().subscriptions() else { return Stats::default() };
        Stats {
            waits: subscriptions.waits.load(Ordering::Relaxed),
            refusals: subscriptions.refusals.load(Ordering::Relaxed),
            intervals: subscriptions.index.count(),
            list: subscriptions.list.count(),
            ..subscriptions.book.sum()
        }
    }
}

impl Clone for AddressSpaceRef {
    #[inline]
    fn clone(&self) -> Self {
        self.space().hold();
        AddressSpaceRef { space: self.space }
    }
}

impl Drop for AddressSpaceRef {
    #[inline]
    fn drop(&mut self) {
        // ORDERING: as in Arc: what each holder did comes before the free.
        if self.space().holders.fetch_sub(1, Ordering::AcqRel) == 1 {
            // SAFETY: this was the last holder.
            unsafe { free(self.space) };
        }
    }
}

/// # Safety
/// The last holder has gone, and nobody else calls this.
#[cold]
unsafe fn free(space: NonNull<Space>) {
    // SAFETY: nobody else frees it.
    crate::fork::forget(unsafe { space.as_ref() });
    // SAFETY: made by `Builder::build`, and nobody holds it any more.
    drop(unsafe { Box::from_raw(space.as_ptr()) });
}

impl fmt::Debug for AddressSpaceRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AddressSpaceRef").field("label", &self.label()).finish_non_exhaustive()
    }
}
