//! The list side: a linked list, walked in read sections of the one domain of the process.
//!
//! Entries stand in their users' memory. They go on and off under a spinlock; whoever takes one off waits for a grace
//! period before its memory is used otherwise. An entry that is off still leads on to the rest, for the walks that
//! are at it.
#![expect(unsafe_code, reason = "entries in their users' memory")]

use std::any::TypeId;
use std::fmt;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, OnceLock};
use std::thread;

use crate::invalidation::{Answer, Invalidation, Refused};
use crate::member::{Header, Member};
use crate::space::Space;
use crate::spin::Spinlock;
use crate::srcu;

pub use crate::member::Entry;

/// What a list notifier hears.
pub trait Notifier: Send + Sync + Sized + 'static {
    /// Drops every copy: the space is at its end, or this is unregistered. May run twice if both race.
    fn release(&self) {}

    /// Drops the copies in the range, and makes no new ones until the end.
    fn invalidate_range_start(&self, what: &Invalidation) -> Answer {
        let _ = what;
        Answer::Done
    }

    /// Hears that the change is over.
    fn invalidate_range_end(&self, what: &Invalidation) {
        let _ = what;
    }
}

/// The list of a space.
#[derive(Debug, Default)]
pub(crate) struct List {
    first: AtomicPtr<Header>,
    lock: Spinlock<()>,
}

impl List {
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        // ORDERING: as good as a walk that came a little earlier or later.
        self.first.load(Ordering::Relaxed).is_null()
    }

    pub(crate) fn start(&self, what: &Invalidation) -> Result<(), Refused> {
        let _section = srcu::read();
        // Allocates only if somebody refuses.
        let mut refusers = Vec::new();
        for member in self.walk() {
            if member.start(what) == Answer::Refused && !what.is_blockable() {
                refusers.push(member);
            }
        }
        if refusers.is_empty() {
            return Ok(());
        }
        self.walk().filter(|member| !refusers.contains(member)).for_each(|member| member.end(what));
        Err(Refused)
    }

    pub(crate) fn end(&self, what: &Invalidation) {
        let _section = srcu::read();
        self.walk().for_each(|member| member.end(what));
    }

    /// Releases everybody and takes all off; returns when the callbacks that run are done.
    pub(crate) fn exit(&self) {
        {
            let _section = srcu::read();
            self.walk().for_each(Member::release);
            while let Some(member) = Member::load(&self.first) {
                self.unlink(member);
            }
        }
        srcu::synchronize();
    }

    /// Goes through the list, newest first. For a read section.
    #[inline]
    fn walk(&self) -> impl Iterator<Item = Member> {
        std::iter::successors(Member::load(&self.first), |member| Member::load(&member.next))
    }

    fn link(&self, member: Member) {
        let _lock = self.lock.lock();
        let next = Member::load(&self.first);
        Member::store(&member.next, next);
        member.prev.set(None);
        member.on_list.set(true);
        if let Some(next) = next {
            next.prev.set(Some(member));
        }
        Member::store(&self.first, Some(member));
    }

    /// Takes a member off, if it is on.
    fn unlink(&self, member: Member) {
        let _lock = self.lock.lock();
        if !member.on_list.replace(false) {
            return;
        }
        let (prev, next) = (member.prev.get(), Member::load(&member.next));
        Member::store(prev.as_ref().map_or(&self.first, |prev| &prev.next), next);
        if let Some(next) = next {
            next.prev.set(prev);
        }
    }

    fn is_on(&self, member: Member) -> bool {
        let _lock = self.lock.lock();
        member.on_list.get()
    }

    /// Finds a shared entry, and counts one user more.
    fn find(&self, key: TypeId) -> Option<Member> {
        // An entry that is taken off meanwhile keeps its memory while the lock is held: `put` takes it, too.
        let _lock = self.lock.lock();
        let found = self.walk().find(|member| member.key == key && member.users.get() != 0)?;
        found.users.set(found.users.get() + 1);
        Some(found)
    }

    /// Counts one user less, and takes the entry off if that was the last one, which it says.
    fn put(&self, member: Member) -> bool {
        let last = {
            let _lock = self.lock.lock();
            member.users.set(member.users.get() - 1);
            member.users.get() == 0
        };
        if last {
            self.unlink(member);
        }
        last
    }
}

/// A list notifier that is registered. Dropping it unregisters it.
///
/// # Invariants
/// `entry` came out of a box and was linked in the space's list.
pub struct Registration<N: Notifier> {
    entry: NonNull<Entry<N>>,
    space: Arc<Space>,
}

// SAFETY: it owns an entry, whose notifier may go to, and be used by, any thread.
unsafe impl<N: Notifier> Send for Registration<N> {}
// SAFETY: the same.
unsafe impl<N: Notifier> Sync for Registration<N> {}

impl<N: Notifier> Registration<N> {
    pub(crate) fn link(space: &Arc<Space>, entry: Box<Entry<N>>) -> Self {
        // INVARIANT: out of a box, and linked below.
        let this = Self { entry: NonNull::from(Box::leak(entry)), space: Arc::clone(space) };
        space.list().link(this.member());
        this
    }

    /// Calls release, takes it off, and waits until no callback of it runs: nor any other of the process.
    pub fn unregister(self) -> Box<Entry<N>> {
        let mut this = ManuallyDrop::new(self);
        let entry = this.take();
        // SAFETY: `this` is not used any more, nor dropped.
        unsafe { std::ptr::drop_in_place(&raw mut this.space) };
        entry
    }

    fn take(&self) -> Box<Entry<N>> {
        let (list, member) = (self.space.list(), self.member());
        if list.is_on(member) {
            let _section = srcu::read();
            member.release();
        }
        list.unlink(member);
        srcu::synchronize();
        // SAFETY: it came out of a box; it is off the list, and a grace period is over. `unregister` and `drop` come
        // here once, having the only right to it.
        unsafe { Box::from_raw(self.entry.as_ptr()) }
    }

    fn member(&self) -> Member {
        // SAFETY: it came out of a box, and lives until a grace period after it was taken off.
        unsafe { Member::new(self.entry) }
    }
}

impl<N: Notifier> Deref for Registration<N> {
    type Target = N;

    #[inline]
    fn deref(&self) -> &N {
        // SAFETY: it lives until `take`, and is only ever shared.
        unsafe { self.entry.as_ref() }
    }
}

impl<N: Notifier> Drop for Registration<N> {
    fn drop(&mut self) {
        drop(self.take());
    }
}

impl<N: Notifier> fmt::Debug for Registration<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registration").finish_non_exhaustive()
    }
}

/// A user of the one notifier of its type in a space. Dropping it puts it: the last one takes the notifier off the
/// list, and a thread of the process frees it after a grace period.
///
/// # Invariants
/// `entry` came out of a box, was linked in the space's list, and one of its users is this.
pub struct Shared<N: Notifier> {
    entry: NonNull<Entry<N>>,
    space: Arc<Space>,
}

// SAFETY: it shares an entry, whose notifier may go to, and be used by, any thread.
unsafe impl<N: Notifier> Send for Shared<N> {}
// SAFETY: the same.
unsafe impl<N: Notifier> Sync for Shared<N> {}

impl<N: Notifier> Shared<N> {
    /// Finds the notifier of this type, or links the one that `make` makes. Under the map lock.
    pub(crate) fn get(space: &Arc<Space>, make: impl FnOnce() -> N) -> Self {
        if let Some(member) = space.list().find(TypeId::of::<N>()) {
            // INVARIANT: the key is that of `N`'s entries; `find` counted this user.
            return Self { entry: member.entry(), space: Arc::clone(space) };
        }
        // INVARIANT: out of a box, linked below, with one user.
        let entry = NonNull::from(Box::leak(Entry::boxed(make())));
        // SAFETY: it came out of a box, and lives until a grace period after it was taken off.
        let member = unsafe { Member::new(entry) };
        member.users.set(1);
        space.list().link(member);
        Self { entry, space: Arc::clone(space) }
    }

    /// Puts it, as dropping it does.
    pub fn put(self) {}
}

impl<N: Notifier> Deref for Shared<N> {
    type Target = N;

    #[inline]
    fn deref(&self) -> &N {
        // SAFETY: it lives while it has a user, and is only ever shared.
        unsafe { self.entry.as_ref() }
    }
}

impl<N: Notifier> Drop for Shared<N> {
    fn drop(&mut self) {
        // SAFETY: it came out of a box, and lives until a grace period after it was taken off.
        let member = unsafe { Member::new(self.entry) };
        if self.space.list().put(member) {
            free_later(Parted { member, space: Arc::clone(&self.space) });
        }
    }
}

impl<N: Notifier> fmt::Debug for Shared<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

/// An entry that was put by its last user, and the holder that it is.
struct Parted {
    member: Member,
    space: Arc<Space>,
}

/// Hands an entry to the thread that frees.
fn free_later(parted: Parted) {
    static QUEUE: OnceLock<Sender<Parted>> = OnceLock::new();
    let queue = QUEUE.get_or_init(|| {
        let (sender, receiver) = mpsc::channel::<Parted>();
        thread::spawn(move || {
            for parted in receiver {
                srcu::synchronize();
                // SAFETY: it is off the list and has no user, and a grace period is over.
                unsafe { parted.member.free() };
                drop(parted.space);
            }
        });
        sender
    });
    queue.send(parted).expect("the thread waits for ever");
}
