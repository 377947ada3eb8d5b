//! Address spaces: users, holders, and everything that is called on one (clauses C2, C3, C4 and C5).
//!
//! [`AddressSpace`] is a user, [`AddressSpaceRef`] a holder, as `Arc` and `Weak` are. All users together are
//! one holder. When the last user goes the space exits ([`exit`](crate::exit)); with the last holder its memory
//! goes.

#![expect(unsafe_code, reason = "a space is counted by hand, as an Arc is")]

mod holder;
mod user;

use alloc::boxed::Box;
use core::fmt;
use core::mem::{ManuallyDrop, offset_of};
use core::num::NonZeroI32;
use core::ops::Deref;
use core::ptr::{self, NonNull};
use core::sync::atomic::AtomicU64 as StaticU64;

pub use holder::AddressSpaceRef;
pub use user::AddressSpace;

use crate::diagnostics::{self, Rule};
use crate::fork::Registered;
use crate::interval::InsertErrorKind;
use crate::list::{self, RegisterErrorKind};
use crate::map_lock::{MapLock, MapLockGuard};
use crate::memory::Aligned;
use crate::subscriptions::Subscriptions;
use crate::sync::{AtomicPtr, AtomicU64, Ordering, full_fence};
use crate::trace;

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

/// The space itself; it lives as long as somebody holds it. Every start reads where its subscriptions are, inserts and
/// removes count holders: the two stand a cache line apart.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Space {
    subscriptions: AtomicPtr<Subscriptions>,
    users: AtomicU64,
    pub(crate) map_lock: MapLock,
    label: Option<&'static str>,
    primary: Option<Primary>,
    leaves_work: bool,
    pub(crate) registered: Registered,
    id: u64,
    holders: AtomicU64,
}

const _: () = assert!(
    cfg!(not(target_pointer_width = "64"))
        || offset_of!(Space, holders) - offset_of!(Space, subscriptions) >= 64
);

/// What subscribers need: published already, or made and not published yet.
enum Prepared<'s> {
    There(&'s Subscriptions),
    Made(Aligned<Subscriptions>),
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

    #[inline]
    fn has_users(&self) -> bool {
        self.users.load(Ordering::Relaxed) != 0
    }

    #[inline]
    fn hold(&self) {
        let before = self.holders.fetch_add(1, Ordering::Relaxed);
        assert!(before < MOST, "an address space is held without end");
    }

    /// Makes what subscribers need, if it is not there yet; it is not published. The map lock is held.
    #[inline]
    fn prepare(&self) -> Result<Prepared<'_>, RegisterErrorKind> {
        if !self.has_users() {
            return Err(RegisterErrorKind::Gone);
        }
        if let Some(subscriptions) = self.subscriptions() {
            let ready = subscriptions.book.refill(0);
            return if ready {
                Ok(Prepared::There(subscriptions))
            } else {
                Err(RegisterErrorKind::OutOfMemory)
            };
        }
        self.make()
    }

    #[cold]
    fn make(&self) -> Result<Prepared<'_>, RegisterErrorKind> {
        // SAFETY: a space stays where it is, and frees its subscriptions with itself.
        let made = unsafe { Subscriptions::try_new(self, self.id, self.label, self.leaves_work) };
        made.map(Prepared::Made).ok_or(RegisterErrorKind::OutOfMemory)
    }

    /// Publishes what was prepared.
    #[inline]
    fn publish<'s>(&'s self, prepared: Prepared<'s>) -> &'s Subscriptions {
        match prepared {
            Prepared::There(subscriptions) => subscriptions,
            Prepared::Made(made) => self.publish_made(made),
        }
    }

    #[cold]
    fn publish_made(&self, made: Aligned<Subscriptions>) -> &Subscriptions {
        let made = made.into_raw();
        let null = ptr::null_mut();
        // ORDERING: release, for the acquire in `subscriptions`.
        if self.subscriptions.compare_exchange(null, made, Ordering::AcqRel, Ordering::Acquire).is_err() {
            // Only where the map lock was not held, which is diagnosed.
            // SAFETY: made by `prepare`, and nobody else knows it.
            drop(NonNull::new(made).map(|made| unsafe { Aligned::from_raw(made) }));
        }
        // ORDERING: published, F, users; against users, F, subscriptions in `exit`: one of the two closes.
        full_fence();
        let subscriptions = self.subscriptions().expect("it was just published");
        if !self.has_users() {
            self.close(subscriptions);
        }
        subscriptions
    }

    /// Lets nobody in any more.
    pub(crate) fn close(&self, subscriptions: &Subscriptions) {
        subscriptions.index.close();
        if subscriptions.list.close() {
            // ORDERING: as in Arc, for who frees the space: not this call, whose caller is a holder.
            self.holders.fetch_sub(1, Ordering::Release);
        }
    }

    /// Makes sure that intervals can be inserted. The map lock is held.
    fn ready_for_intervals(&self) -> Result<&Subscriptions, RegisterErrorKind> {
        let prepared = self.prepare()?;
        if prepared.index.is_open() {
            return Ok(self.publish(prepared));
        }
        self.with_all_locked(|| {
            let subscriptions = self.publish(prepared);
            // SAFETY: what is published stays where it is.
            unsafe { subscriptions.index.open() };
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

    /// Puts a node on the list. From then on it is a holder, with all others of the list together, until
    /// [`List::let_go`](list::List::let_go).
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
            prepared.list.make_room(&prepared.book)?;
            let entered = self.with_all_locked(|| {
                let entrance = self.publish(prepared).list.entrance()?;
                // SAFETY: as promised by the caller.
                Some(entrance.map(|entrance| unsafe { entrance.enter(node, || self.hold()) }))
            })?;
            // None: somebody who does not hold the map lock took the room.
            if let Some(result) = entered {
                result?;
                // SAFETY: as promised by the caller.
                unsafe { self.tell_registered(node) };
                return Ok(());
            }
        }
    }

    /// The list, locked for one more, if nothing has to be made for that, and nobody to be called.
    #[inline(always)]
    pub(crate) fn entrance(&self, lock: &MapLockGuard<'_>) -> Option<list::Entrance<'_>> {
        let Subscriptions { book, list, .. } = self.subscriptions()?;
        let is_ready = ptr::eq(lock.space, self)
            && self.has_users()
            && self.primary.is_none()
            && book.is_full()
            && !list.has_retired();
        if is_ready { list.entrance()?.ok() } else { None }
    }

    /// Puts a node on the list that was locked for it; as [`add_to_list`](Self::add_to_list).
    ///
    /// # Safety
    /// As there.
    #[inline(always)]
    pub(crate) unsafe fn enter_list(&self, entrance: list::Entrance<'_>, node: NonNull<list::Node>) {
        // SAFETY: as promised by the caller.
        unsafe { entrance.enter(node, || self.hold()) };
        // SAFETY: as promised by the caller.
        unsafe { self.tell_registered(node) };
    }

    /// # Safety
    /// The node was just put on the list, by a caller who keeps it.
    #[inline(always)]
    unsafe fn tell_registered(&self, node: NonNull<list::Node>) {
        // SAFETY: as promised by the caller.
        let node = unsafe { node.as_ref() };
        self.subscriptions().into_iter().for_each(|watched| trace::registered(watched, node));
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
        if let Some(subscriptions) = NonNull::new(self.subscriptions.load(Ordering::Relaxed)) {
            // SAFETY: made by `prepare`; with the last holder nobody else knows it.
            let subscriptions = unsafe { Aligned::from_raw(subscriptions) };
            diagnostics::leaked_guards(&subscriptions);
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

/// How a space is made.
#[derive(Debug)]
pub struct Builder {
    label: Option<&'static str>,
    primary: Result<Option<Primary>, OutOfMemory>,
    leaves_work: bool,
}

impl Builder {
    /// Gives the space a name for diagnostics.
    pub fn label(self, label: &'static str) -> Self {
        Builder { label: Some(label), ..self }
    }

    /// Lets registrations lock the primary MMU.
    pub fn primary(self, primary: impl PrimaryMmu) -> Self {
        // Without memory the build is what fails.
        let primary = crate::memory::try_box(primary).map_err(|_| OutOfMemory);
        Builder { primary: primary.map(|primary| Some(Primary(primary))), ..self }
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
    /// There is no memory, or there was none for the primary MMU.
    pub fn build(self) -> Result<AddressSpace, OutOfMemory> {
        static IDS: StaticU64 = StaticU64::new(1);
        // Once a process, and better here than in an insert.
        crate::index::look_at_machine();
        crate::fork::prepare();
        let space = Space {
            users: AtomicU64::new(1),
            holders: AtomicU64::new(1),
            subscriptions: AtomicPtr::new(ptr::null_mut()),
            map_lock: MapLock::new(),
            label: self.label,
            primary: self.primary?,
            leaves_work: self.leaves_work,
            registered: Registered::new(),
            id: IDS.fetch_add(1, core::sync::atomic::Ordering::Relaxed),
        };
        let space = crate::memory::try_box(space).map_err(|_| OutOfMemory)?;
        let space = NonNull::from(Box::leak(space));
        // SAFETY: the space was just made, behind `prepare`, and is freed with this pointer.
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
