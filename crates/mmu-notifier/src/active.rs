//! Invalidations that are active: the calls of the primary MMU, as a closure, a guard, or an owned guard.
//!
//! ```
//! use mmu_notifier::{AddressSpace, Event, Invalidation, Range};
//!
//! let space = AddressSpace::new();
//! let range = Range::new(0x1000u64, 0x3000u64)?;
//! // The closure form cannot be forgotten.
//! space.invalidate(range, || { /* unmap it */ });
//! // A guard ends the invalidation when it is dropped.
//! let active = space.invalidate_start(Invalidation::new(range, Event::Clear));
//! /* discard the pages */
//! active.end();
//! # Ok::<(), mmu_notifier::RangeError>(())
//! ```

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::any::Any;
use core::borrow::Borrow;
use core::fmt;
use core::mem::{self, MaybeUninit};
use core::panic::Location;

use crate::address::Range;
use crate::diagnostics;
use crate::invalidation::{Details, Invalidation, Owner};
use crate::space::AddressSpaceRef;
use crate::start::{self, Ending, Held, Left, Part, StartError, Started};
use crate::subscriptions::Subscriptions;

impl AddressSpaceRef {
    /// Starts an invalidation, makes the change, and ends it, also if the change panics.
    ///
    /// # Context
    /// Sleeps only in callbacks and in `change`; allocates nothing.
    #[inline]
    #[track_caller]
    pub fn invalidate<R>(&self, what: impl Into<Invalidation>, change: impl FnOnce() -> R) -> R {
        // CONTRACT C2.2: a space that nobody watches pays this, and the same look at the end.
        if !self.has_notifiers() {
            return Unwatched::run(self, what.into().with_blockable(true), change);
        }
        let (range, owner, details) = what.into().with_blockable(true).split();
        match Scope::run(self, range, owner, details, change) {
            Ok(result) => result,
            // CONTRACT C5.2
            Err(StartError::WouldBlock) => {
                unreachable!("a refusal of a blockable start is taken as accepted")
            }
        }
    }

    /// The same where no callback may sleep.
    ///
    /// # Errors
    /// [`StartError::WouldBlock`] if one refused; then `change` was not called.
    ///
    /// # Context
    /// Does not sleep, but for `change`; allocates nothing.
    #[inline]
    #[track_caller]
    pub fn try_invalidate<R>(
        &self,
        what: impl Into<Invalidation>,
        change: impl FnOnce() -> R,
    ) -> Result<R, StartError> {
        if !self.has_notifiers() {
            return Ok(Unwatched::run(self, what.into().with_blockable(false), change));
        }
        let (range, owner, details) = what.into().with_blockable(false).split();
        Scope::run(self, range, owner, details, change)
    }

    /// Starts an invalidation whose callbacks may sleep. It always succeeds.
    ///
    /// # Context
    /// Sleeps only in callbacks; allocates nothing.
    #[inline]
    #[track_caller]
    pub fn invalidate_start(&self, what: impl Into<Invalidation>) -> ActiveInvalidation<'_> {
        match ActiveInvalidation::start(self, what.into().with_blockable(true)) {
            Ok(guard) => guard,
            // CONTRACT C5.2
            Err(StartError::WouldBlock) => {
                unreachable!("a refusal of a blockable start is taken as accepted")
            }
        }
    }

    /// Starts an invalidation whose callbacks may not sleep.
    ///
    /// # Errors
    /// [`StartError::WouldBlock`] if one refused; there is nothing to end.
    ///
    /// # Context
    /// Does not sleep; allocates nothing.
    #[inline]
    #[track_caller]
    pub fn try_invalidate_start(
        &self,
        what: impl Into<Invalidation>,
    ) -> Result<ActiveInvalidation<'_>, StartError> {
        ActiveInvalidation::start(self, what.into().with_blockable(false))
    }

    /// As [`invalidate_start`](Self::invalidate_start), with a guard that holds the space and may be sent.
    pub fn invalidate_start_owned(&self, what: impl Into<Invalidation>) -> OwnedActiveInvalidation {
        self.invalidate_start(what).into_owned()
    }

    /// As [`try_invalidate_start`](Self::try_invalidate_start), with a guard that holds the space and may be
    /// sent.
    ///
    /// # Errors
    /// As there.
    pub fn try_invalidate_start_owned(
        &self,
        what: impl Into<Invalidation>,
    ) -> Result<OwnedActiveInvalidation, StartError> {
        Ok(self.try_invalidate_start(what)?.into_owned())
    }
}

/// An invalidation that began before anybody watched the space. It leaves no trace, but whoever registers
/// meanwhile hears its end (clause C5.4).
struct Unwatched<'s> {
    space: &'s AddressSpaceRef,
    what: Invalidation,
}

impl Unwatched<'_> {
    #[inline]
    fn run<R>(space: &AddressSpaceRef, what: Invalidation, change: impl FnOnce() -> R) -> R {
        let _end = Unwatched { space, what };
        change()
    }
}

impl Drop for Unwatched<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        if self.space.has_notifiers() {
            start::end_unwatched(self.space.space(), self.what);
        }
    }
}

/// An invalidation that ends where it began, also if a panic passes: the drop is for that. Its fields stay in registers,
/// since nothing takes their address.
struct Scope<'s> {
    subscriptions: &'s Subscriptions,
    held: Held,
    details: Details,
    left: Option<Left<'s>>,
}

impl Scope<'_> {
    /// Out of line, so that the caller of a space that nobody watches pays for none of it; by registers.
    #[inline(never)]
    #[track_caller]
    fn run<R>(
        space: &AddressSpaceRef,
        range: Range,
        owner: Option<Owner>,
        details: Details,
        change: impl FnOnce() -> R,
    ) -> Result<R, StartError> {
        let Some(subscriptions) = space.space().subscriptions() else {
            return Ok(Unwatched::run(space, Invalidation::join(range, owner, details), change));
        };
        let mut room = MaybeUninit::uninit();
        let (held, left) = start::start_here(subscriptions, range, owner, details, &mut room);
        let held = held.if_accepted()?;
        if diagnostics::ENABLED {
            // CONTRACT C7.1: one that hangs is named by where its start was.
            held.set_origin(space.space(), Some(Location::caller()));
        }
        let scope = Scope { subscriptions, held, details, left };
        let result = change();
        mem::forget(scope);
        start::end_here(subscriptions, held, details, left);
        Ok(result)
    }
}

impl Drop for Scope<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        start::end_left(self.subscriptions, self.held, self.details, self.left);
    }
}

/// An invalidation from its start to its end, which is the drop; for guards.
struct Active<S: Borrow<AddressSpaceRef>> {
    space: S,
    part: Part,
    started: Started,
    ending: Ending,
}

impl<S: Borrow<AddressSpaceRef>> Drop for Active<S> {
    #[inline]
    fn drop(&mut self) {
        start::end_one(self.space.borrow().space(), &self.started, self.part.clone(), self.ending);
    }
}

/// What is to be dropped behind an end, in the order in which it came. Hardly ever is there anything: its drop is a
/// look at one word, so that a guard which stays where it was made stays in registers.
#[derive(Default)]
struct Deferred(Option<Box<Values>>);

#[derive(Default)]
struct Values(Vec<Box<dyn Any + Send>>);

impl Deferred {
    fn push(&mut self, value: impl Send + 'static) {
        self.0.get_or_insert_default().0.push(Box::new(value));
    }
}

impl Drop for Deferred {
    #[inline]
    fn drop(&mut self) {
        if let Some(values) = self.0.take() {
            drop_all(values);
        }
    }
}

#[cold]
fn drop_all(values: Box<Values>) {
    drop(values);
}

/// An invalidation that is active until this guard is dropped.
///
/// A guard that is forgotten keeps the readers of its range waiting for ever, and nothing else.
#[must_use = "the invalidation ends when the guard is dropped"]
pub struct ActiveInvalidation<'s> {
    active: Active<&'s AddressSpaceRef>,
    // CONTRACT C6.3: a field behind that one, so it is dropped strictly after the end.
    deferred: Deferred,
}

impl<'s> ActiveInvalidation<'s> {
    /// Starts one. The guard is made behind that, of what is in registers.
    #[inline]
    #[track_caller]
    fn start(space: &'s AddressSpaceRef, what: Invalidation) -> Result<Self, StartError> {
        let mut started = Started::new();
        let held = start::start_one(space.space(), what, &mut started)?;
        let part = Part::held(what, held);
        if diagnostics::ENABLED {
            // CONTRACT C7.1: a guard that is forgotten is named by where its start was.
            held.set_origin(space.space(), Some(Location::caller()));
        }
        let active = Active { space, part, started, ending: Ending::Whole };
        Ok(ActiveInvalidation { active, deferred: Deferred::default() })
    }

    /// Ends the invalidation.
    ///
    /// # Context
    /// Does not sleep by itself; callbacks may, if the invalidation is blockable.
    #[inline]
    pub fn end(self) {}

    /// Ends it without `invalidate_range`, which the caller has called already.
    pub fn only_end(mut self) {
        self.active.ending = Ending::OnlyEnd;
    }

    /// What is being invalidated.
    pub fn invalidation(&self) -> &Invalidation {
        &self.active.part.invalidation
    }

    /// Keeps what the primary MMU frees (pages, page tables) until the invalidation is over, and drops it then.
    ///
    /// # Context
    /// Allocates.
    pub fn defer_drop<T: Send + 'static>(&mut self, value: T) {
        self.deferred.push(value);
    }

    fn into_owned(mut self) -> OwnedActiveInvalidation {
        let Active { space, part, started, ending } = &mut self.active;
        if diagnostics::ENABLED {
            part.held.set_origin(space.space(), None);
        }
        let ending = mem::replace(ending, Ending::Nothing);
        let active = Active { space: space.clone(), part: part.clone(), started: *started, ending };
        OwnedActiveInvalidation { active, deferred: self.deferred }
    }
}

impl fmt::Debug for ActiveInvalidation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ActiveInvalidation").field(&self.active.part.invalidation).finish()
    }
}

/// An invalidation that is active until this guard is dropped, on whatever thread. It holds the space, but is
/// no user of it.
#[must_use = "the invalidation ends when the guard is dropped"]
pub struct OwnedActiveInvalidation {
    active: Active<AddressSpaceRef>,
    // CONTRACT C6.3: as in [`ActiveInvalidation`].
    deferred: Deferred,
}

#[expect(unsafe_code, reason = "the guard leads to a hazard by a raw pointer")]
// SAFETY: the hazard lives as long as the space, which is held, and its claim may be given back by any thread.
unsafe impl Send for OwnedActiveInvalidation {}
#[expect(unsafe_code, reason = "the guard leads to a hazard by a raw pointer")]
// SAFETY: a shared guard only shows what is invalidated.
unsafe impl Sync for OwnedActiveInvalidation {}

impl OwnedActiveInvalidation {
    /// Ends the invalidation.
    ///
    /// # Context
    /// Does not sleep by itself; callbacks may, if the invalidation is blockable.
    pub fn end(self) {}

    /// Ends it without `invalidate_range`, which the caller has called already.
    pub fn only_end(mut self) {
        self.active.ending = Ending::OnlyEnd;
    }

    /// What is being invalidated.
    pub fn invalidation(&self) -> &Invalidation {
        &self.active.part.invalidation
    }

    /// Keeps what the primary MMU frees until the invalidation is over, and drops it then.
    ///
    /// # Context
    /// Allocates.
    pub fn defer_drop<T: Send + 'static>(&mut self, value: T) {
        self.deferred.push(value);
    }
}

impl fmt::Debug for OwnedActiveInvalidation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OwnedActiveInvalidation").field(&self.active.part.invalidation).finish()
    }
}
