//! A start whose end is kept in its caller's memory, in place of a guard that borrows the space.

use core::mem::MaybeUninit;

use crate::invalidation::Invalidation;
use crate::space::AddressSpaceRef;
use crate::start::{self, Ending, Held, Part, StartError};

/// What a start left for its end; see [`start`](Started::start). To be written into the caller's own structure.
#[derive(Clone, Copy, Debug)]
pub struct Started {
    held: Held,
    started: start::Started,
}

/// How an invalidation ends (clause C5.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With `invalidate_range`.
    Whole,
    /// Without `invalidate_range`, which the caller has called already.
    OnlyEnd,
}

impl Started {
    /// What a start leaves that nobody has heard: its end is heard by who flushes by `invalidate_range` alone.
    #[must_use]
    pub fn unheard() -> Self {
        Started { held: Held::NOTHING, started: start::Started::new() }
    }

    /// Starts an invalidation (`__mmu_notifier_invalidate_range_start`), blockable or not as `what` says.
    ///
    /// # Errors
    /// [`StartError::WouldBlock`] if it is not blockable and somebody refused; there is nothing to end.
    ///
    /// # Context
    /// As [`AddressSpaceRef::invalidate_start`].
    #[inline]
    pub fn start(space: &AddressSpaceRef, what: Invalidation) -> Result<Self, StartError> {
        let Some(subscriptions) = space.space().subscriptions() else { return Ok(Self::unheard()) };
        let (range, owner, details) = what.split();
        let mut room = MaybeUninit::uninit();
        let (held, left) = start::start_here(subscriptions, range, owner, details, &mut room);
        let started = left.map_or_else(start::Started::unheard, |left| left.started);
        Ok(Started { held: held.if_accepted()?, started })
    }

    /// Ends it (`__mmu_notifier_invalidate_range_end`). A second end of one start is diagnosed, and does nothing on
    /// the interval side. `what` is asked only if there is somebody to be told.
    ///
    /// # Safety
    /// - `self` was returned by [`start`](Self::start) for this space, or is [`unheard`](Self::unheard).
    /// - The space has had a holder ever since.
    ///
    /// # Context
    /// As [`ActiveInvalidation::end`](crate::ActiveInvalidation::end).
    #[inline]
    pub unsafe fn end(&self, space: &AddressSpaceRef, what: impl FnOnce() -> Invalidation, end: End) {
        if !start::end_shortly(space.space(), self.held) {
            self.end_told(space, what, end);
        }
    }

    /// The way of an end that somebody is told of, out of the way of the others.
    #[inline(never)]
    fn end_told(&self, space: &AddressSpaceRef, what: impl FnOnce() -> Invalidation, end: End) {
        let ending = match end {
            End::Whole => Ending::Whole,
            End::OnlyEnd => Ending::OnlyEnd,
        };
        if let Some(subscriptions) = space.space().subscriptions() {
            let part = Part::held(what(), self.held);
            start::end_told(subscriptions, &self.started, &part, ending);
        }
    }
}
