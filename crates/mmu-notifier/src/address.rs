//! Addresses and ranges of an address space.
//!
//! A [`Range`] is half-open, never empty, assumes no page granularity, and can reach the last byte of
//! the space (clause C2.4). It is kept as its first and last byte, so that nothing overflows at the top.

use core::fmt;

/// An address in an address space, in bytes. Which space, and whether it is virtual, guest physical or
/// I/O virtual, is for the program to say.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Address(u64);

impl Address {
    /// The first byte of every address space.
    pub const ZERO: Address = Address(0);

    /// Makes an address from its number.
    pub const fn new(address: u64) -> Self {
        Address(address)
    }

    /// Gives the number of this address.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl From<u64> for Address {
    fn from(address: u64) -> Self {
        Address(address)
    }
}

impl From<usize> for Address {
    fn from(address: usize) -> Self {
        Address(address as u64)
    }
}

impl<T: ?Sized> From<*const T> for Address {
    fn from(pointer: *const T) -> Self {
        Address(pointer.cast::<u8>() as usize as u64)
    }
}

impl<T: ?Sized> From<*mut T> for Address {
    fn from(pointer: *mut T) -> Self {
        Address(pointer.cast::<u8>() as usize as u64)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// A half-open range of addresses that holds at least one byte.
///
/// # Invariants
/// `first <= last`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Range {
    first: u64,
    last: u64,
}

impl Range {
    /// The whole address space, its last byte included.
    pub const ALL: Range = Range { first: 0, last: u64::MAX };

    /// Makes the range `start..end` (`end` is the first byte behind it).
    ///
    /// A range that reaches the last byte of the space has no such `end`: use [`Range::from_len`] or
    /// [`Range::to_top`].
    ///
    /// # Errors
    /// [`RangeError::Empty`] if both are equal, [`RangeError::Reversed`] if `end` lies below `start`.
    pub fn new(start: impl Into<Address>, end: impl Into<Address>) -> Result<Range, RangeError> {
        let (start, end) = (start.into().0, end.into().0);
        match start.cmp(&end) {
            // INVARIANT: start < end, so end - 1 neither wraps nor lies below start.
            core::cmp::Ordering::Less => Ok(Range { first: start, last: end - 1 }),
            core::cmp::Ordering::Equal => Err(RangeError::Empty),
            core::cmp::Ordering::Greater => Err(RangeError::Reversed),
        }
    }

    /// Makes the range of `length` bytes from `start` on; it may end with the last byte of the space.
    ///
    /// # Errors
    /// [`RangeError::Empty`] if `length` is 0, [`RangeError::PastTop`] if it leaves the space.
    pub fn from_len(start: impl Into<Address>, length: u64) -> Result<Range, RangeError> {
        let first = start.into().0;
        let Some(more) = length.checked_sub(1) else { return Err(RangeError::Empty) };
        // INVARIANT: the addition is checked, so last >= first.
        first.checked_add(more).map(|last| Range { first, last }).ok_or(RangeError::PastTop)
    }

    /// Makes the range from `first` to `last`, both included.
    ///
    /// # Errors
    /// [`RangeError::Reversed`] if `last` lies below `first`.
    pub fn from_first_last(first: impl Into<Address>, last: impl Into<Address>) -> Result<Range, RangeError> {
        let (first, last) = (first.into().0, last.into().0);
        if last < first { Err(RangeError::Reversed) } else { Ok(Range { first, last }) }
    }

    /// Makes the range from `start` to the last byte of the space.
    pub fn to_top(start: impl Into<Address>) -> Range {
        Range { first: start.into().0, last: u64::MAX }
    }

    /// Gives the range of the bytes of `slice` in this process, if it has any.
    pub fn of_slice<T>(slice: &[T]) -> Option<Range> {
        Range::from_len(slice.as_ptr(), size_of_val(slice) as u64).ok()
    }

    /// The first byte.
    pub const fn start(self) -> Address {
        Address(self.first)
    }

    /// The last byte (inclusive).
    pub const fn last(self) -> Address {
        Address(self.last)
    }

    /// The first byte behind the range; none if the range reaches the top of the space.
    pub const fn end(self) -> Option<Address> {
        match self.last.checked_add(1) {
            Some(end) => Some(Address(end)),
            None => None,
        }
    }

    /// The number of bytes, 2^64 for [`Range::ALL`].
    #[expect(clippy::len_without_is_empty, reason = "a range is never empty")]
    pub const fn len(self) -> u128 {
        (self.last - self.first) as u128 + 1
    }

    /// Says whether the two have a byte in common.
    pub const fn overlaps(self, other: Range) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    /// Says whether `address` lies in the range.
    pub fn contains(self, address: impl Into<Address>) -> bool {
        let address = address.into().0;
        self.first <= address && address <= self.last
    }

    /// Says whether every byte of `other` lies in this range.
    pub const fn covers(self, other: Range) -> bool {
        self.first <= other.first && other.last <= self.last
    }

    /// The range with these [`bounds`](Self::bounds).
    pub(crate) const fn from_bounds(first: u64, last: u64) -> Range {
        debug_assert!(first <= last);
        Range { first, last }
    }

    /// Gives the bytes that both have.
    pub fn intersection(self, other: Range) -> Option<Range> {
        let (first, last) = (self.first.max(other.first), self.last.min(other.last));
        (first <= last).then_some(Range { first, last })
    }

    pub(crate) const fn bounds(self) -> (u64, u64) {
        (self.first, self.last)
    }
}

impl fmt::Debug for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.end() {
            Some(end) => write!(f, "{:#x}..{end}", self.first),
            None => write!(f, "{:#x}..=top", self.first),
        }
    }
}

/// Why two numbers make no [`Range`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RangeError {
    /// It would hold no byte.
    Empty,
    /// Its end lies below its start.
    Reversed,
    /// It would reach past the last byte of the address space.
    PastTop,
}

impl fmt::Display for RangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RangeError::Empty => "the range is empty: it must hold at least one byte",
            RangeError::Reversed => "the range is reversed: its end must lie above its start",
            RangeError::PastTop => "the range reaches past the top of the address space",
        })
    }
}

impl core::error::Error for RangeError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_byte_can_be_covered() {
        let top = Range::from_len(u64::MAX, 1).unwrap();
        assert_eq!(top, Range::to_top(u64::MAX));
        assert_eq!((top.end(), top.len()), (None, 1));
        assert!(Range::ALL.covers(top));
        assert_eq!(Range::ALL.len(), 1 << 64);
        assert_eq!(Range::from_len(u64::MAX, 2), Err(RangeError::PastTop));
    }

    #[test]
    fn empty_and_reversed_are_errors() {
        assert_eq!(Range::new(5u64, 5u64), Err(RangeError::Empty));
        assert_eq!(Range::new(6u64, 5u64), Err(RangeError::Reversed));
        assert_eq!(Range::from_len(0u64, 0), Err(RangeError::Empty));
        assert_eq!(Range::from_first_last(1u64, 0u64), Err(RangeError::Reversed));
        assert!(Range::of_slice::<u8>(&[]).is_none());
    }

    #[test]
    fn touching_is_not_overlapping() {
        let (low, high) = (Range::new(0u64, 8u64).unwrap(), Range::new(8u64, 9u64).unwrap());
        assert!(!low.overlaps(high) && !high.overlaps(low));
        assert!(low.overlaps(Range::new(7u64, 9u64).unwrap()));
        assert_eq!(low.intersection(high), None);
    }
}
