//! Address spaces: users, holders, and everything that is called on one (clauses C2, C3, C4 and C5).
//!
//! [`AddressSpace`] is a user, [`AddressSpaceRef`] a holder, as `Arc` and `Weak` are. All users together are
//! one holder. When the last user goes the space exits ([`exit`](crate::exit)); with the last holder its memory
//! goes.

#![expect(unsafe_code, reason = "a space is counted by hand, as an Arc is")]

use alloc::boxed::Box;
use core::fmt;
use core::mem::ManuallyDrop;
use core::num::NonZeroI32;
use core::ops::Deref;
use core::ptr::{self, NonNull};
use core::sync::atomic::AtomicU64 as StaticU64;

use crate::address::{Address, Range};
use crate::diagnostics::{self, Rule};
use crate::fork::Registered;
use crate::frame;
use crate::interval::{self, InsertError, InsertErrorKind, Options, Subscription};
use crate::list::{self, GetError, RegisterError, RegisterErrorKind, Registration, Shared, Young};
use crate::map_lock::{MapLock, MapLockGuard, MapLockSharedGuard};
use crate::subscriptions::Subscriptions;
use crate::sync::{AtomicPtr, AtomicU64, Ordering, full_fence};

/// What a page table entry holds; the library only passes it on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pte(pub u64);

/// Why the primary MMU could not lock: a number of its own, passed on unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LockAllError(pub NonZeroI32);

impl fmt::Display for LockAllError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the primary MMU could not take all its locks: error {}", self.0)
    }
}

impl core::error::Error for LockAllError {}

/// No memory for a space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfMemory;

impl fmt::Display for OutOfMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("out of memory")
    }
}

impl core::error::Error for OutOfMemory {}

/// What the library asks of the primary MMU (`mm_take_all_locks`).
pub trait PrimaryMmu: Send + Sync + 'static {
    /// Takes every lock under which invalidations begin and end, so that none is under way.
    ///
    /// # Errors
    /// Whatever it likes; the registration that asked for it fails with that.
    ///
    /// # Context
    /// Called with the map lock held. Until [`unlock_all`](Self::unlock_all) nothing is allocated and nobody is
    /// called.
    fn lock_all(&self) -> Result<(), LockAllError>;

    /// Opens them again.
    fn unlock_all(&self);
}

/// The space itself; it lives as long as somebody holds it.
#[derive(Debug)]
pub(crate) struct Space {
    users: AtomicU64,
    holders: AtomicU64,
    subscriptions: AtomicPtr<Subscriptions>,
    pub(crate) map_lock: MapLock,
    label: Option<&'static str>,
    primary: Option<Primary>,
    leaves_work: bool,
    pub(crate) registered: Registered,
    id: u64,
}

/// What subscribers need: published already, or made and not published yet.
enum Prepared<'s> {
    There(&'s Subscriptions),
    Made(Box<Subscriptions>),
}

impl Deref for Prepared<'_> {
    type Target = Subscriptions;

    fn deref(&self) -> &Subscriptions {
        match self {
            Prepared::There(subscriptions) => subscriptions,
            Prepared::Made(made) => made,
        }
    }
}

struct Primary(Box<dyn PrimaryMmu>);

impl fmt::Debug for Primary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrimaryMmu")
    }
}

/// Past so many users or holders something counts without end: as with `Arc`, the program cannot go on.
const MOST: u64 = u64::MAX / 2;

impl Space {
    /// What subscribers need, once somebody has registered.
    #[inline]
    pub(crate) fn subscriptions(&self) -> Option<&Subscriptions> {
        // ORDERING: acquire pairs with the release in `publish`.
        // SAFETY: null, or made by `prepare` and freed with the space.
        unsafe { self.subscriptions.load(Ordering::Acquire).as_ref() }
    }

    fn has_users(&self) -> bool {
        self.users.load(Ordering::Relaxed) != 0
    }

    fn hold(&self) {
        let before = self.holders.fetch_add(1, Ordering::Relaxed);
        assert!(before < MOST, "an address space is held without end");
    }

    /// Makes what subscribers need, if it is not there yet; it is not published. The map lock is held.
    fn prepare(&self) -> Result<Prepared<'_>, RegisterErrorKind> {
        if !self.has_users() {
            return Err(RegisterErrorKind::Gone);
        }
        if let Some(subscriptions) = self.subscriptions() {
            subscriptions.may_sleep();
            let ready = subscriptions.book.refill(0);
            return if ready {
                Ok(Prepared::There(subscriptions))
            } else {
                Err(RegisterErrorKind::OutOfMemory)
            };
        }
        let made = Subscriptions::try_new(self.id, self.leaves_work);
        made.map(Prepared::Made).ok_or(RegisterErrorKind::OutOfMemory)
    }

    /// Publishes what was prepared.
    fn publish<'s>(&'s self, prepared: Prepared<'s>) -> &'s Subscriptions {
        let made = match prepared {
            Prepared::There(subscriptions) => return subscriptions,
            Prepared::Made(made) => Box::into_raw(made),
        };
        let null = ptr::null_mut();
        // ORDERING: release, for the acquire in `subscriptions`.
        if self.subscriptions.compare_exchange(null, made, Ordering::AcqRel, Ordering::Acquire).is_err() {
            // Only where the map lock was not held, which is diagnosed.
            // SAFETY: made by `prepare`, and nobody else knows it.
            drop(unsafe { Box::from_raw(made) });
        }
        // ORDERING: published, F, users; against users, F, subscriptions in `exit`: one of the two closes.
        full_fence();
        let subscriptions = self.subscriptions().expect("it was just published");
        if !self.has_users() {
            subscriptions.close();
        }
        subscriptions
    }

    /// Makes sure that intervals can be inserted. The map lock is held.
    fn ready_for_intervals(&self) -> Result<&Subscriptions, RegisterErrorKind> {
        let prepared = self.prepare()?;
        if prepared.index.is_open() {
            return Ok(self.publish(prepared));
        }
        prepared.index.prepare().map_err(|_| RegisterErrorKind::OutOfMemory)?;
        self.with_all_locked(|| {
            let subscriptions = self.publish(prepared);
            subscriptions.index.open();
            subscriptions
        })
    }

    /// Runs `change` while the primary MMU holds all its locks.
    fn with_all_locked<R>(&self, change: impl FnOnce() -> R) -> Result<R, RegisterErrorKind> {
        let Some(Primary(primary)) = &self.primary else { return Ok(change()) };
        primary.lock_all().map_err(RegisterErrorKind::LockAll)?;
        let result = change();
        primary.unlock_all();
        Ok(result)
    }

    /// Puts a node on the list.
    ///
    /// # Safety
    /// The node stays where it is until it was taken off the list and a grace period is over.
    pub(crate) unsafe fn add_to_list(
        &self,
        lock: &MapLockGuard<'_>,
        node: NonNull<list::Node>,
    ) -> Result<(), RegisterErrorKind> {
        self.check_lock(lock, "register_locked");
        loop {
            let prepared = self.prepare()?;
            prepared.list.make_room(&prepared.book, self.id)?;
            let registered = self.with_all_locked(|| {
                let subscriptions = self.publish(prepared);
                // SAFETY: as promised by the caller.
                unsafe { subscriptions.list.try_register(node) }
            })?;
            // None: somebody who does not hold the map lock took the room.
            if let Some(result) = registered {
                return result.map_err(Into::into);
            }
        }
    }

    /// Makes the exit, and drops the holder that all users shared; also if the exit panics.
    ///
    /// # Safety
    /// - The last user has gone, and this is called once for it.
    /// - `space` comes from an [`AddressSpaceRef`], or there is another holder than the users'.
    pub(crate) unsafe fn exit_and_let_go(space: NonNull<Space>) {
        let holder = AddressSpaceRef { space };
        holder.space().exit();
    }

    fn check_lock(&self, lock: &MapLockGuard<'_>, call: &'static str) {
        if !ptr::eq(lock.space, self) {
            diagnostics::report(Rule::NotLocked, call, None);
        }
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        let subscriptions = self.subscriptions.load(Ordering::Relaxed);
        if !subscriptions.is_null() {
            // SAFETY: made by `prepare`; with the last holder nobody else knows it.
            let subscriptions = unsafe { Box::from_raw(subscriptions) };
            diagnostics::leaked_guards(&subscriptions, self.label);
        }
    }
}

/// A holder of an address space: the object stays valid, though its users may have gone. Clone is mmgrab, drop
/// is mmdrop.
///
/// All calls stand here; an [`AddressSpace`] dereferences to it.
pub struct AddressSpaceRef {
    space: NonNull<Space>,
}

// SAFETY: a space is meant to be shared between threads; its counts are atomic.
unsafe impl Send for AddressSpaceRef {}
// SAFETY: as above.
unsafe impl Sync for AddressSpaceRef {}

impl AddressSpaceRef {
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
    pub fn has_users(&self) -> bool {
        self.space().has_users()
    }

    /// Says whether anybody has ever registered or inserted (`mm_has_notifiers`): from then on always yes.
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
    pub fn map_lock(&self) -> MapLockGuard<'_> {
        diagnostics::map_lock(self.space().subscriptions(), "map_lock");
        self.space().map_lock.write();
        MapLockGuard { space: self.space() }
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
    pub(crate) fn ready_to_insert(&self) -> Result<&Subscriptions, InsertErrorKind> {
        if !self.has_users() {
            return Err(InsertErrorKind::Gone);
        }
        match self.space().subscriptions().filter(|subscriptions| subscriptions.index.is_open()) {
            None => {
                let _lock = self.map_lock();
                Ok(self.space().ready_for_intervals()?)
            }
            Some(subscriptions) => {
                subscriptions.may_sleep();
                subscriptions.book.refill(0).then_some(subscriptions).ok_or(InsertErrorKind::OutOfMemory)
            }
        }
    }

    /// What subscribers need; for those who are one.
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
        self.space().check_lock(lock, "insert_locked");
        match self.space().ready_for_intervals() {
            Ok(subscriptions) => Subscription::insert(self, subscriptions, range, options, notifier),
            Err(cause) => Err(InsertError { cause: cause.into(), notifier }),
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
        let lock = self.map_lock();
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
        let _lock = self.map_lock();
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
        let lock = self.map_lock();
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
            intervals: subscriptions.index.count(),
            list: subscriptions.list.count(),
            ..subscriptions.book.sum()
        }
    }
}

/// Numbers of a space; those that count are exact only while nothing happens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Invalidations that the interval side has seen begin.
    pub starts: u64,
    /// Interval callbacks that were called.
    pub hits: u64,
    /// Starts that failed.
    pub refusals: u64,
    /// How often a call had to wait for another thread's call.
    pub waits: u64,
    /// Invalidations that are active now.
    pub active: u64,
    /// Interval subscriptions.
    pub intervals: u64,
    /// List subscriptions.
    pub list: u64,
}

impl Clone for AddressSpaceRef {
    fn clone(&self) -> Self {
        self.space().hold();
        AddressSpaceRef { space: self.space }
    }
}

impl Drop for AddressSpaceRef {
    fn drop(&mut self) {
        // ORDERING: as in Arc: what each holder did comes before the free.
        if self.space().holders.fetch_sub(1, Ordering::AcqRel) == 1 {
            crate::fork::forget(self.space());
            // SAFETY: made by `Builder::build`, and this was the last holder.
            drop(unsafe { Box::from_raw(self.space.as_ptr()) });
        }
    }
}

impl fmt::Debug for AddressSpaceRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AddressSpaceRef").field("label", &self.label()).finish_non_exhaustive()
    }
}

/// A user of an address space. Clone is mmget, drop is mmput: when the last one goes the space exits.
pub struct AddressSpace {
    holder: ManuallyDrop<AddressSpaceRef>,
}

impl AddressSpace {
    /// Makes a space with one user.
    ///
    /// # Panics
    /// If there is no memory; [`Builder::build`] returns an error instead.
    #[expect(clippy::new_without_default, reason = "a new space is a resource, not a default value")]
    pub fn new() -> Self {
        AddressSpace::builder().build().expect("no memory for an address space")
    }

    /// Makes a space with options.
    pub fn builder() -> Builder {
        Builder { label: None, primary: None, leaves_work: false }
    }

    /// Becomes a mere holder, which keeps the object but not the space alive.
    pub fn downgrade(&self) -> AddressSpaceRef {
        (**self).clone()
    }
}

impl Deref for AddressSpace {
    type Target = AddressSpaceRef;

    fn deref(&self) -> &AddressSpaceRef {
        &self.holder
    }
}

impl Clone for AddressSpace {
    fn clone(&self) -> Self {
        let before = self.space().users.fetch_add(1, Ordering::Relaxed);
        assert!(before < MOST, "an address space has users without end");
        AddressSpace { holder: ManuallyDrop::new(AddressSpaceRef { space: self.space }) }
    }
}

impl Drop for AddressSpace {
    fn drop(&mut self) {
        // ORDERING: as in Arc: what each user did comes before the exit.
        if self.space().users.fetch_sub(1, Ordering::AcqRel) != 1 {
            return;
        }
        // CONTRACT C8.3: not within a callback of the space.
        if !frame::leave_exit(self.space().id) {
            // SAFETY: this was the last user, so the holder that all users shared is this one's.
            unsafe { Space::exit_and_let_go(self.space) };
        }
    }
}

impl fmt::Debug for AddressSpace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AddressSpace").field("label", &self.label()).finish_non_exhaustive()
    }
}

/// How a space is made.
#[derive(Debug)]
pub struct Builder {
    label: Option<&'static str>,
    primary: Option<Primary>,
    leaves_work: bool,
}

impl Builder {
    /// Gives the space a name for diagnostics.
    pub fn label(self, label: &'static str) -> Self {
        Builder { label: Some(label), ..self }
    }

    /// Lets registrations lock the primary MMU.
    pub fn primary(self, primary: impl PrimaryMmu) -> Self {
        Builder { primary: Some(Primary(Box::new(primary))), ..self }
    }

    /// Starts and ends free nothing (clause C7.4): what put and detach leave to drop waits for the next call of
    /// the space that may sleep, or for [`synchronize`](crate::synchronize). For spaces that are invalidated
    /// from within an allocator.
    pub fn defer_drops(self) -> Self {
        Builder { leaves_work: true, ..self }
    }

    /// Makes the space, with one user.
    ///
    /// # Errors
    /// There is no memory.
    pub fn build(self) -> Result<AddressSpace, OutOfMemory> {
        static IDS: StaticU64 = StaticU64::new(1);
        let space = Space {
            users: AtomicU64::new(1),
            holders: AtomicU64::new(1),
            subscriptions: AtomicPtr::new(ptr::null_mut()),
            map_lock: MapLock::new(),
            label: self.label,
            primary: self.primary,
            leaves_work: self.leaves_work,
            registered: Registered::new(),
            id: IDS.fetch_add(1, core::sync::atomic::Ordering::Relaxed),
        };
        let space = crate::memory::try_box(space).map_err(|_| OutOfMemory)?;
        let space = NonNull::from(Box::leak(space));
        // SAFETY: the space was just made, and is freed with this pointer.
        unsafe { crate::fork::remember(space) };
        Ok(AddressSpace { holder: ManuallyDrop::new(AddressSpaceRef { space }) })
    }
}

impl From<RegisterErrorKind> for InsertErrorKind {
    fn from(kind: RegisterErrorKind) -> Self {
        match kind {
            RegisterErrorKind::OutOfMemory => InsertErrorKind::OutOfMemory,
            RegisterErrorKind::LockAll(error) => InsertErrorKind::LockAll(error),
            RegisterErrorKind::Gone => InsertErrorKind::Gone,
        }
    }
}
