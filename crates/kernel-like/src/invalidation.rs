//! What a callback is told, and what it may answer.

use std::error::Error;
use std::fmt;
use std::ops::Range;

/// A range that the owner of a space is about to change.
#[derive(Clone, Copy, Debug)]
pub struct Invalidation {
    start: u64,
    last: u64,
    blockable: bool,
}

impl Invalidation {
    /// Makes one; an end of 0 is the top of the address space.
    #[inline]
    pub(crate) fn new(range: Range<u64>) -> Self {
        Self { start: range.start, last: range.end.wrapping_sub(1), blockable: true }
    }

    /// Makes one of everything there is.
    pub(crate) fn of_all() -> Self {
        Self { start: 0, last: u64::MAX, blockable: true }
    }

    /// Gives the same as one whose callbacks must not sleep.
    #[inline]
    pub(crate) fn nonblock(self) -> Self {
        Self { blockable: false, ..self }
    }

    /// Gives its first address.
    #[inline]
    pub fn start(&self) -> u64 {
        self.start
    }

    /// Gives its last address.
    #[inline]
    pub fn last(&self) -> u64 {
        self.last
    }

    /// Says whether callbacks may sleep.
    #[inline]
    pub fn is_blockable(&self) -> bool {
        self.blockable
    }

    /// Says whether it covers no address.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.last < self.start
    }
}

/// What a callback answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The copies in the range are gone.
    Done,
    /// It would have to sleep and may not.
    Refused,
}

/// A callback refused: the invalidation did not start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused;

/// The space has no users any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone;

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a callback would have to sleep")
    }
}

impl fmt::Display for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the space has no users any more")
    }
}

impl Error for Refused {}
impl Error for Gone {}
