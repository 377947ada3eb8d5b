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
use core::fmt;
use core::panic::Location;
use core::slice;

use crate::diagnostics;
use crate::invalidation::Invalidation;
use crate::platform;
use crate::space::AddressSpaceRef;
use crate::start::{self, Ending, Part, StartError, Started};

impl AddressSpaceRef {
    /// Starts an invalidation, makes the change, and ends it, also if the change panics.
    ///
    /// # Context
    /// Sleeps only in callbacks and in `change`; allocates nothing.
    pub fn invalidate<R>(&self, what: impl Into<Invalidation>, change: impl FnOnce() -> R) -> R {
        let active = self.invalidate_start(what);
        let result = change();
        active.end();
        result
    }

    /// The same where no callback may sleep.
    ///
    /// # Errors
    /// [`StartError::WouldBlock`] if one refused; then `change` was not called.
    ///
    /// # Context
    /// Does not sleep, but for `change`; allocates nothing.
    pub fn try_invalidate<R>(
        &self,
        what: impl Into<Invalidation>,
        change: impl FnOnce() -> R,
    ) -> Result<R, StartError> {
        let active = self.try_invalidate_start(what)?;
        let result = change();
        active.end();
        Ok(result)
    }

    /// Starts an invalidation whose callbacks may sleep. It always succeeds.
    ///
    /// # Context
    /// Sleeps only in callbacks; allocates nothing.
    #[inline]
    #[track_caller]
    pub fn invalidate_start(&self, what: impl Into<Invalidation>) -> ActiveInvalidation<'_> {
        let mut part = Part::new(what.into().with_blockable(true));
        match start::start(self.space(), slice::from_mut(&mut part)) {
            Ok(started) => ActiveInvalidation::new(self, part, started),
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
        let mut part = Part::new(what.into().with_blockable(false));
        let started = start::start(self.space(), slice::from_mut(&mut part))?;
        Ok(ActiveInvalidation::new(self, part, started))
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

/// What both guards hold.
struct Active {
    part: Part,
    started: Started,
    ending: Ending,
    /// What is to be dropped behind the end; most guards have nothing.
    deferred: Option<Box<Deferred>>,
}

/// Values that are dropped in the order in which they came.
type Deferred = Vec<Box<dyn Any + Send>>;

impl Active {
    #[inline]
    fn end(&mut self, space: &AddressSpaceRef) {
        // CONTRACT C6.3: what is deferred is a field, so it is dropped strictly after this.
        start::end(space.space(), &self.started, slice::from_mut(&mut self.part), self.ending);
    }

    fn defer_drop(&mut self, value: Box<dyn Any + Send>) {
        self.deferred.get_or_insert_default().push(value);
    }
}

/// An invalidation that is active until this guard is dropped.
///
/// A guard that is forgotten keeps the readers of its range waiting for ever, and nothing else.
#[must_use = "the invalidation ends when the guard is dropped"]
pub struct ActiveInvalidation<'s> {
    space: &'s AddressSpaceRef,
    active: Active,
}

impl<'s> ActiveInvalidation<'s> {
    #[inline]
    #[track_caller]
    fn new(space: &'s AddressSpaceRef, part: Part, started: Started) -> Self {
        if diagnostics::ENABLED {
            // CONTRACT C7.1: a guard that is forgotten is named by where its start was.
            part.set_origin(space.space(), Some(Location::caller()));
        }
        ActiveInvalidation { space, active: Active { part, started, ending: Ending::Whole, deferred: None } }
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
        self.active.defer_drop(Box::new(value));
    }

    fn into_owned(self) -> OwnedActiveInvalidation {
        if diagnostics::ENABLED {
            self.active.part.set_origin(self.space.space(), None);
        }
        let space = self.space.clone();
        let this = core::mem::ManuallyDrop::new(self);
        #[expect(unsafe_code, reason = "a guard with a Drop cannot be taken apart")]
        // SAFETY: `this` is not dropped, so what is read out of it is moved.
        let active = unsafe { core::ptr::read(&raw const this.active) };
        OwnedActiveInvalidation { active, space }
    }
}

impl Drop for ActiveInvalidation<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.space.has_notifiers() {
            platform::in_drop(|| self.active.end(self.space));
        }
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
    active: Active,
    space: AddressSpaceRef,
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
        self.active.defer_drop(Box::new(value));
    }
}

impl Drop for OwnedActiveInvalidation {
    fn drop(&mut self) {
        platform::in_drop(|| self.active.end(&self.space));
    }
}

impl fmt::Debug for OwnedActiveInvalidation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OwnedActiveInvalidation").field(&self.active.part.invalidation).finish()
    }
}
