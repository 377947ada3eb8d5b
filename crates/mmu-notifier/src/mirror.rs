//! The safe layer: a cache of translations with which the classic mistakes cannot be made (clause C6).
//!
//! A [`Mirror`] owns its table, the lock of it and the subscription. The table is reached through closures that
//! run under the lock. What a walk of the primary MMU found comes in through [`fault`](Mirror::fault) only if no
//! invalidation hit meanwhile, and each invalidation drops what is in its range ([`Table::invalidate`]). So
//! nobody can forget the retry, the lock or the sequence.
//!
//! ```
//! use std::collections::BTreeMap;
//! use mmu_notifier::mirror::{Mirror, Table};
//! use mmu_notifier::{AddressSpace, Invalidation, Range};
//!
//! /// A software TLB: page -> frame.
//! #[derive(Default)]
//! struct Tlb(BTreeMap<u64, u64>);
//!
//! impl Table for Tlb {
//!     fn invalidate(&mut self, what: &Invalidation) {
//!         let (first, last) = (what.range().start().get() >> 12, what.range().last().get() >> 12);
//!         self.0.retain(|page, _| !(first..=last).contains(page));
//!     }
//! }
//!
//! let space = AddressSpace::new();
//! let tlb = Mirror::new(&space, Range::ALL, Tlb::default()).unwrap();
//! let look_up = |page: u64| {
//!     if let Some(frame) = tlb.with(|tlb| tlb.0.get(&page).copied()) {
//!         return Ok(frame);
//!     }
//!     tlb.fault(
//!         |_| Ok::<_, ()>(page + 100), // walk the page table
//!         |tlb, frame| *tlb.0.entry(page).or_insert(frame),
//!     )
//! };
//! assert_eq!(look_up(1), Ok(101));
//! space.invalidate(Range::new(0x1000u64, 0x2000u64)?, || { /* change the page table */ });
//! assert_eq!(tlb.with(|tlb| tlb.0.len()), 0);
//! # Ok::<(), mmu_notifier::RangeError>(())
//! ```
//!
//! # Users in flight
//! A device that uses a translation for longer than a lock is held takes it with [`hold`](Mirror::hold) or
//! [`fault_in_use`](Mirror::fault_in_use): an invalidation of that range waits for the guard (clause C6.2).
//!
//! # Panics
//! A closure, or the table's own code, that panics under the lock leaves the table in doubt. It is not served
//! like that: before anything else is done with it, it is [cleared](Table::clear), and what is needed is faulted
//! in again. A panic in [`Table::invalidate`] goes out of the start, so that the change is not made.
//!
//! # Forks
//! In the child of a fork a mirror goes on as it was. Uses in flight from before count as over. If a thread that
//! is not there was using the table at that moment, the mirror is lost: faults and holds fail, and
//! [`with`](Mirror::with) panics.

mod attempts;
mod fault;
mod held;
mod in_use;
pub(crate) mod lock;

use core::fmt;

pub use attempts::{Attempt, Attempts, FaultError};
pub use in_use::{InUse, OwnedInUse};

use crate::address::Range;
use crate::diagnostics::{self, Rule};
use crate::drain::Drain;
use crate::interval::{Answer, InsertError, Notifier, Options, Sequence, Subscription};
use crate::invalidation::{Event, Invalidation};
use crate::space::AddressSpaceRef;
use held::{Held, State};
use lock::{Denied, Lock};

/// What a mirror keeps: copies of translations, in whatever form.
pub trait Table: Send + 'static {
    /// Drops whatever it holds in the invalidation's range.
    ///
    /// # Context
    /// Under the mirror's lock, in the thread that invalidates. May sleep only if the invalidation is blockable.
    /// What [`interval::Notifier::invalidate`](crate::interval::Notifier::invalidate) may not do is not for it
    /// either; nor may it call this mirror. A panic goes on to the caller of the start, which is undone.
    fn invalidate(&mut self, invalidation: &Invalidation);

    /// Drops everything, after a panic under the lock. Whatever state that left is to be expected.
    ///
    /// # Context
    /// Under the mirror's lock. Does not sleep.
    fn clear(&mut self) {
        self.invalidate(&Invalidation::new(Range::ALL, Event::Clear).with_blockable(false));
    }
}

/// One translation of the whole range: any invalidation drops it.
impl<V: Send + 'static> Table for Option<V> {
    fn invalidate(&mut self, _: &Invalidation) {
        *self = None;
    }
}

/// A table of translations of a range, kept right by its subscription. Dropping it removes that.
pub struct Mirror<T: Table> {
    subscription: Subscription<Core<T>>,
}

/// The notifier: what an invalidation needs.
struct Core<T> {
    lock: Lock<State<T>>,
    drain: Drain,
    /// The id of the space.
    space: u64,
    label: Option<&'static str>,
}

impl<T: Table> Notifier for Core<T> {
    #[inline]
    fn invalidate(&self, what: &Invalidation, _: Sequence) -> Answer {
        if let Ok(guard) = self.lock.try_lock() {
            // CONTRACT C6.2: under the lock, so that none begins.
            if self.drain.is_empty() {
                Held::new(guard, self.space).run(|table| table.invalidate(what));
                return Answer::Done;
            }
        }
        self.invalidate_slowly(what)
    }
}

impl<T: Table> Core<T> {
    /// The way of an invalidation that finds the lock held, or users in flight.
    #[cold]
    fn invalidate_slowly(&self, what: &Invalidation) -> Answer {
        if what.is_blockable() && self.lock.is_own() {
            self.locked_twice("invalidate_start");
        }
        // CONTRACT C6.2: the users first. While they are waited for the table stays open to look-ups.
        if !self.drain.wait_out(what, self.label) {
            return Answer::Refused;
        }
        // CONTRACT C6.1: readers that retry do not keep the lock from an invalidation.
        let lock = if what.is_blockable() { self.lock.lock_first() } else { self.lock.try_lock() };
        match lock {
            Ok(guard) => Held::new(guard, self.space).run(|table| table.invalidate(what)),
            Err(Denied::Busy | Denied::Own) => return Answer::Refused,
            // Nobody gets at the table any more, so nobody uses what is in it.
            Err(Denied::Lost) => {}
        }
        Answer::Done
    }

    /// The thread that has the lock wants it once more. A panic is better than a wait without end; that of an
    /// invalidation undoes its start.
    #[cold]
    fn locked_twice(&self, call: &'static str) -> ! {
        diagnostics::report(Rule::LockedTwice, call, self.label);
        panic!("{call} under the lock of a mirror, in one of its closures, wants that lock");
    }
}

impl<T: Table> Mirror<T> {
    /// Subscribes to `range`, with a table that holds nothing yet.
    ///
    /// # Errors
    /// As [`AddressSpaceRef::insert`]; the table comes back.
    ///
    /// # Context
    /// As [`AddressSpaceRef::insert`].
    pub fn new(space: &AddressSpaceRef, range: Range, table: T) -> Result<Self, InsertError<T>> {
        Self::with_options(space, range, Options::new(), table)
    }

    /// Subscribes with an owner or a label.
    ///
    /// ```
    /// use mmu_notifier::interval::Options;
    /// use mmu_notifier::mirror::Mirror;
    /// use mmu_notifier::{AddressSpace, Range};
    ///
    /// let space = AddressSpace::new();
    /// let options = Options::new().label("iotlb");
    /// let mirror = Mirror::with_options(&space, Range::ALL, options, None::<u64>).unwrap();
    /// assert_eq!(mirror.range(), Range::ALL);
    /// ```
    ///
    /// # Errors
    /// As [`new`](Self::new).
    ///
    /// # Context
    /// As [`new`](Self::new).
    pub fn with_options(
        space: &AddressSpaceRef,
        range: Range,
        options: Options,
        table: T,
    ) -> Result<Self, InsertError<T>> {
        let core = Core {
            lock: Lock::new(State::new(table)),
            drain: Drain::new(),
            space: space.id(),
            label: options.label,
        };
        match space.insert_with(range, options, core) {
            Ok(subscription) => Ok(Mirror { subscription }),
            Err(InsertError { cause, notifier }) => {
                Err(InsertError { cause, notifier: notifier.lock.into_inner().into_table() })
            }
        }
    }

    /// The range that it mirrors.
    pub fn range(&self) -> Range {
        self.subscription.range()
    }

    /// The space that it belongs to.
    pub fn space(&self) -> &AddressSpaceRef {
        self.subscription.space()
    }

    /// Removes it, as [`Subscription::remove`] does: when this returns the table is dropped.
    ///
    /// # Context
    /// As there.
    pub fn remove(self) {
        self.subscription.remove();
    }

    /// Lets go of it without waiting, as [`Subscription::detach`] does.
    ///
    /// # Context
    /// Does not sleep; may be called in any callback.
    pub fn detach(self) {
        self.subscription.detach();
    }

    /// Looks at the table, under its lock.
    ///
    /// # Panics
    /// If this thread has the lock already, and where the mirror is lost by a fork. If `look` panics the table
    /// is cleared before its next use.
    ///
    /// # Context
    /// May sleep. Not in the mirror's own closures. What `look` gives out may be stale as soon as this returns:
    /// a use that goes on is for [`hold`](Self::hold).
    #[inline]
    pub fn with<R>(&self, look: impl FnOnce(&T) -> R) -> R {
        self.with_mut(|table| look(table))
    }

    /// Changes the table, under its lock. What comes into it comes from [`fault`](Self::fault); this is for what
    /// goes, and for marks on what is there.
    ///
    /// # Panics
    /// As [`with`](Self::with).
    ///
    /// # Context
    /// As [`with`](Self::with).
    #[inline]
    pub fn with_mut<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        match self.lock("with", None) {
            Ok(mut held) => held.run(change),
            Err(_) => panic!("a thread that the fork left behind was using the table"),
        }
    }

    fn drain(&self) -> &Drain {
        &self.subscription.drain
    }

    /// Takes the lock.
    #[inline(always)]
    fn lock(&self, call: &'static str, deadline: Option<u64>) -> Result<Held<'_, T>, Denied> {
        let core = &*self.subscription;
        match core.lock.lock(deadline) {
            Ok(guard) => Ok(Held::new(guard, core.space)),
            Err(Denied::Own) => core.locked_twice(call),
            Err(denied) => Err(denied),
        }
    }
}

impl<T: Table> fmt::Debug for Mirror<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mirror")
            .field("range", &self.range())
            .field("label", &self.subscription.label)
            .finish()
    }
}
