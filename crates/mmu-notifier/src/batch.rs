//! Batches: one invalidation of several ranges, for an unmap of many pieces (clause C5.8).
//!
//! ```
//! use mmu_notifier::{AddressSpace, Batch, Range};
//!
//! let space = AddressSpace::new();
//! let mut batch = Batch::new(&space);
//! for start in [0x1000u64, 0x8000, 0x4000] {
//!     batch.push(Range::from_len(start, 0x1000)?)?;
//! }
//! let active = batch.start();
//! // unmap the three pieces
//! active.end();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use alloc::vec::Vec;
use core::fmt;

use crate::invalidation::Invalidation;
use crate::space::{AddressSpaceRef, OutOfMemory};
use crate::start::{self, Ending, Part, StartError, Started};

/// Ranges of one space that are to be invalidated together, in the order in which they were pushed.
///
/// Building it may allocate and fail; starting and ending it does not, and it may be started again after its
/// end. Overlapping ranges are allowed: who is hit by two is called twice.
pub struct Batch<'s> {
    space: &'s AddressSpaceRef,
    parts: Vec<Part>,
}

impl<'s> Batch<'s> {
    /// An empty batch.
    pub fn new(space: &'s AddressSpaceRef) -> Self {
        Batch { space, parts: Vec::new() }
    }

    /// Adds a range, behind the others.
    ///
    /// # Errors
    /// There is no memory; the batch is as it was.
    ///
    /// # Context
    /// Allocates.
    pub fn push(&mut self, what: impl Into<Invalidation>) -> Result<(), OutOfMemory> {
        self.parts.try_reserve(1).map_err(|_| OutOfMemory)?;
        // Without room set aside a part would count as one of the whole space: coarser.
        let room = u32::try_from(self.parts.len() + 1).unwrap_or(u32::MAX);
        let subscriptions = self.space.space().subscriptions();
        if !subscriptions.is_none_or(|subscriptions| subscriptions.book.refill(room)) {
            return Err(OutOfMemory);
        }
        self.parts.push(Part::new(what.into()));
        Ok(())
    }

    /// How many ranges it has.
    pub fn len(&self) -> usize {
        self.parts.len()
    }

    /// Says whether it has no range; starting it then does nothing.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Starts the invalidation of all ranges; its callbacks may sleep. Each subscription that any of them hits is
    /// called once for each range that hits it, and is busy until the one end.
    ///
    /// # Context
    /// Sleeps only in callbacks; allocates nothing.
    pub fn start(&mut self) -> ActiveBatch<'_, 's> {
        match self.start_as(true) {
            Ok(active) => active,
            // CONTRACT C5.2
            Err(StartError::WouldBlock) => {
                unreachable!("a refusal of a blockable start is taken as accepted")
            }
        }
    }

    /// The same where no callback may sleep. A refusal undoes all.
    ///
    /// # Errors
    /// [`StartError::WouldBlock`] if one refused; there is nothing to end.
    ///
    /// # Context
    /// Does not sleep; allocates nothing.
    pub fn try_start(&mut self) -> Result<ActiveBatch<'_, 's>, StartError> {
        self.start_as(false)
    }

    fn start_as(&mut self, blockable: bool) -> Result<ActiveBatch<'_, 's>, StartError> {
        for part in &mut self.parts {
            *part = Part::new(part.invalidation.with_blockable(blockable));
        }
        let started = start::start(self.space.space(), &mut self.parts)?;
        Ok(ActiveBatch { batch: self, started, ending: Ending::Whole })
    }
}

impl fmt::Debug for Batch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.parts.iter().map(|part| part.invalidation)).finish()
    }
}

/// A batch that is active until this guard is dropped.
#[must_use = "the invalidation ends when the guard is dropped"]
pub struct ActiveBatch<'b, 's> {
    batch: &'b mut Batch<'s>,
    started: Started,
    ending: Ending,
}

impl ActiveBatch<'_, '_> {
    /// Ends the invalidation of all ranges.
    ///
    /// # Context
    /// Does not sleep by itself; callbacks may, if the batch was started so.
    pub fn end(self) {}

    /// Ends it without `invalidate_range`, which the caller has called already.
    pub fn only_end(mut self) {
        self.ending = Ending::OnlyEnd;
    }
}

impl Drop for ActiveBatch<'_, '_> {
    fn drop(&mut self) {
        let batch = &mut *self.batch;
        start::end(batch.space.space(), &self.started, &mut batch.parts, self.ending);
    }
}

impl fmt::Debug for ActiveBatch<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ActiveBatch").field(&self.batch).finish()
    }
}
