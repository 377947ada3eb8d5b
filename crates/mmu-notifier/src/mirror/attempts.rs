//! How often and how long a fault is tried, and why it failed.

use core::fmt;
use core::num::NonZeroU32;
use core::time::Duration;

use super::{Mirror, Table};
use crate::interval::ReadToken;
use crate::platform;

/// A bound on the walks of a fault, on its time, on both, or on neither.
///
/// ```
/// use core::num::NonZeroU32;
/// use core::time::Duration;
/// use mmu_notifier::mirror::Attempts;
///
/// let three = NonZeroU32::new(3).unwrap();
/// let patience = Attempts::at_most(three).within(Duration::from_millis(20));
/// assert_ne!(patience, Attempts::UNBOUNDED);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attempts {
    most: Option<NonZeroU32>,
    timeout: Option<Duration>,
}

impl Attempts {
    /// As often and as long as it takes.
    pub const UNBOUNDED: Attempts = Attempts { most: None, timeout: None };

    /// At most so many walks.
    pub const fn at_most(walks: NonZeroU32) -> Self {
        Attempts { most: Some(walks), timeout: None }
    }

    /// For so long at the most. Neither an invalidation that never ends nor a busy lock holds it up for longer;
    /// a walk under way is not cut short. Without a clock (see [`platform`]) nothing is waited for.
    pub const fn within(self, timeout: Duration) -> Self {
        Attempts { timeout: Some(timeout), ..self }
    }

    /// A moment to give up at; on a machine without a clock it is past already.
    #[inline]
    pub(super) fn deadline(self) -> Option<u64> {
        self.timeout.map(|timeout| platform::deadline(timeout).unwrap_or(0))
    }

    /// Says whether there may be another walk after so many.
    pub(super) fn allow_more(self, walks: u32, deadline: Option<u64>) -> bool {
        let late = deadline.is_some_and(|end| platform::now().is_none_or(|now| now >= end));
        !late && self.most.is_none_or(|most| walks < most.get())
    }
}

/// One walk of a fault.
pub struct Attempt<'m, T: Table> {
    pub(super) mirror: &'m Mirror<T>,
    pub(super) token: ReadToken,
    pub(super) number: u32,
}

impl<T: Table> Attempt<'_, T> {
    /// Which walk of this fault it is, from 1 on.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Says whether what this walk finds is stale already: a hint to a long one to stop.
    pub fn is_stale(&self) -> bool {
        self.mirror.subscription.check_retry(self.token)
    }
}

impl<T: Table> fmt::Debug for Attempt<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attempt").field("number", &self.number).finish_non_exhaustive()
    }
}

/// Why a fault brought nothing in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FaultError<E> {
    /// The space has no users any more.
    Gone,
    /// The bound of the [`Attempts`] was reached.
    Contended,
    /// The walk failed, with this.
    Walk(E),
    /// There is no memory to note a use in.
    OutOfMemory,
    /// This is the child of a fork, and a thread that is not here was using the table.
    Lost,
}

impl<E: fmt::Display> fmt::Display for FaultError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FaultError::Gone => f.write_str("the address space has no users any more"),
            FaultError::Contended => {
                f.write_str("invalidations came between more often than was allowed for")
            }
            FaultError::Walk(error) => error.fmt(f),
            FaultError::OutOfMemory => f.write_str("out of memory"),
            FaultError::Lost => f.write_str("a thread that the fork left behind was using the table"),
        }
    }
}

impl<E: core::error::Error + 'static> core::error::Error for FaultError<E> {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            // Display shows the walk's own error, so its source is the next one.
            FaultError::Walk(error) => error.source(),
            _ => None,
        }
    }
}
