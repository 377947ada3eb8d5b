//! What an invalidation is: its range, and all that a subscriber may want to know of it (clauses C2.4
//! and C2.5). The call itself, start to end, stands in [`active`](crate::active).

use core::fmt;
use core::num::NonZeroU64;

use crate::address::Range;

/// Why a range is invalidated.
///
/// It says why, never what remains: a subscriber that wants to know reads the primary MMU again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Event {
    /// The mapping goes away: munmap, or a mapping placed over it.
    Unmap,
    /// The translations are cleared, the mapping stays: discarded, reclaimed or moved pages.
    Clear,
    /// The permissions of the whole mapping change.
    ProtectionVma,
    /// The permissions of single pages change (copy on write).
    ProtectionPage,
    /// Writes are to be seen again (soft-dirty tracking).
    SoftDirty,
    /// The address space exits (clause C8).
    Release,
    /// Pages move to or from a device; the [`Owner`] says whose.
    Migrate,
    /// A device takes pages for itself; the [`Owner`] says which.
    Exclusive,
    /// An event that this version does not know, passed on as it came.
    Other(u32),
}

/// An opaque word by which a subscriber recognises the invalidations that it caused itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Owner(NonZeroU64);

impl Owner {
    /// Makes an owner of any number but 0.
    pub const fn new(word: u64) -> Option<Owner> {
        match NonZeroU64::new(word) {
            Some(word) => Some(Owner(word)),
            None => None,
        }
    }

    /// Makes the owner that stands for the object at this address; it is only compared.
    pub fn of<T>(object: &T) -> Owner {
        let address = core::ptr::from_ref(object) as usize as u64;
        // A reference is never null, so the fallback is never taken.
        Owner(NonZeroU64::new(address).unwrap_or(NonZeroU64::MIN))
    }

    /// Gives the word.
    pub const fn get(self) -> u64 {
        self.0.get()
    }
}

/// What a mapping permits, as far as the primary MMU knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Permissions {
    /// It may be read.
    pub read: bool,
    /// It may be written.
    pub write: bool,
    /// It may be executed.
    pub execute: bool,
}

/// An invalidation: a range, why, whose, and whether its callbacks may sleep.
///
/// A bare [`Range`] stands for [`Event::Unmap`] of it, the event that takes most away.
///
/// ```
/// use mmu_notifier::{Event, Invalidation, Range};
///
/// let discard = Invalidation::new(Range::new(0x1000u64, 0x3000u64)?, Event::Clear);
/// assert_eq!(discard.range().len(), 0x2000);
/// # Ok::<(), mmu_notifier::RangeError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Invalidation {
    range: Range,
    owner: Option<Owner>,
    details: Details,
}

/// Event, permissions, and whether callbacks may sleep, in one word: an invalidation goes through registers.
///
/// # Invariants
/// From the lowest bit on: the number of [`Event::Other`] (32 bits, else 0), which event (4), whether the
/// permissions are known, and if so read, write, execute; not blockable.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Details(u64);

impl Details {
    const EVENT: u32 = 32;
    const EVENTS: u64 = 0xf << Self::EVENT;
    const KNOWN: u64 = 1 << 36;
    const READ: u64 = 1 << 37;
    const WRITE: u64 = 1 << 38;
    const EXECUTE: u64 = 1 << 39;
    const NOT_BLOCKABLE: u64 = 1 << 40;

    const fn new(event: Event) -> Self {
        let (which, number) = match event {
            Event::Unmap => (0, 0),
            Event::Clear => (1, 0),
            Event::ProtectionVma => (2, 0),
            Event::ProtectionPage => (3, 0),
            Event::SoftDirty => (4, 0),
            Event::Release => (5, 0),
            Event::Migrate => (6, 0),
            Event::Exclusive => (7, 0),
            Event::Other(number) => (8, number),
        };
        Details(which << Self::EVENT | number as u64)
    }

    const fn event(self) -> Event {
        match (self.0 & Self::EVENTS) >> Self::EVENT {
            0 => Event::Unmap,
            1 => Event::Clear,
            2 => Event::ProtectionVma,
            3 => Event::ProtectionPage,
            4 => Event::SoftDirty,
            5 => Event::Release,
            6 => Event::Migrate,
            7 => Event::Exclusive,
            _ => Event::Other(self.0 as u32),
        }
    }

    const fn has(self, bit: u64) -> bool {
        self.0 & bit != 0
    }

    const fn with(self, bit: u64, set: bool) -> Self {
        Details(if set { self.0 | bit } else { self.0 & !bit })
    }
}

impl Invalidation {
    /// Describes an invalidation of `range`; the call that starts it says whether it may block.
    #[inline]
    pub const fn new(range: Range, event: Event) -> Self {
        Invalidation { range, owner: None, details: Details::new(event) }
    }

    /// Says who causes it.
    #[inline]
    pub const fn with_owner(self, owner: Owner) -> Self {
        Invalidation { owner: Some(owner), ..self }
    }

    /// Says what the mapping permits after the change.
    #[inline]
    pub const fn with_permissions(self, permissions: Permissions) -> Self {
        let Permissions { read, write, execute } = permissions;
        let known = self.details.with(Details::KNOWN, true).with(Details::READ, read);
        let details = known.with(Details::WRITE, write).with(Details::EXECUTE, execute);
        Invalidation { details, ..self }
    }

    /// Says whether callbacks may sleep, for [`Started::start`](crate::intrusive::Started::start); other calls say
    /// so themselves.
    #[inline]
    pub const fn with_blockable(self, blockable: bool) -> Self {
        Invalidation { details: self.details.with(Details::NOT_BLOCKABLE, !blockable), ..self }
    }

    /// Takes it apart, into what registers hold.
    #[inline]
    pub(crate) const fn split(self) -> (Range, Option<Owner>, Details) {
        (self.range, self.owner, self.details)
    }

    /// Puts it together again.
    #[inline]
    pub(crate) const fn join(range: Range, owner: Option<Owner>, details: Details) -> Self {
        Invalidation { range, owner, details }
    }

    /// The addresses that change.
    #[inline]
    pub const fn range(&self) -> Range {
        self.range
    }

    /// Why they change.
    #[inline]
    pub const fn event(&self) -> Event {
        self.details.event()
    }

    /// Who causes the change, if somebody said so.
    #[inline]
    pub const fn owner(&self) -> Option<Owner> {
        self.owner
    }

    /// What the mapping permits after the change, if the primary MMU knows.
    pub const fn permissions(&self) -> Option<Permissions> {
        let details = self.details;
        if !details.has(Details::KNOWN) {
            return None;
        }
        let (read, write) = (details.has(Details::READ), details.has(Details::WRITE));
        Some(Permissions { read, write, execute: details.has(Details::EXECUTE) })
    }

    /// Says whether a callback may sleep; one that would have to and may not refuses.
    #[inline]
    pub const fn is_blockable(&self) -> bool {
        !self.details.has(Details::NOT_BLOCKABLE)
    }

    /// Says whether the change only takes rights to write or execute away and leaves the right to read
    /// (clause C5.7): true only for [`Event::ProtectionVma`] with known permissions that include read.
    pub const fn is_update_to_read_only(&self) -> bool {
        // CONTRACT C5.7
        matches!(
            (self.event(), self.permissions()),
            (Event::ProtectionVma, Some(Permissions { read: true, .. }))
        )
    }
}

impl fmt::Debug for Invalidation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Invalidation")
            .field("range", &self.range)
            .field("event", &self.event())
            .field("owner", &self.owner)
            .field("permissions", &self.permissions())
            .field("blockable", &self.is_blockable())
            .finish()
    }
}

impl From<Range> for Invalidation {
    #[inline]
    fn from(range: Range) -> Self {
        Invalidation::new(range, Event::Unmap)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c5_7_update_to_read_only() {
        let readable = Permissions { read: true, write: false, execute: false };
        let none = Permissions { read: false, ..readable };
        let vma = Invalidation::new(Range::ALL, Event::ProtectionVma);
        assert!(!vma.is_update_to_read_only());
        assert!(vma.with_permissions(readable).is_update_to_read_only());
        assert!(!vma.with_permissions(none).is_update_to_read_only());
        assert!(
            !Invalidation::new(Range::ALL, Event::Unmap).with_permissions(readable).is_update_to_read_only()
        );
    }

    #[test]
    fn what_goes_in_comes_out() {
        let events =
            [Event::Unmap, Event::Clear, Event::ProtectionVma, Event::ProtectionPage, Event::SoftDirty];
        let others =
            [Event::Release, Event::Migrate, Event::Exclusive, Event::Other(0), Event::Other(u32::MAX)];
        for event in events.into_iter().chain(others) {
            let bare = Invalidation::new(Range::ALL, event);
            assert_eq!((bare.event(), bare.permissions(), bare.is_blockable()), (event, None, true));
            for bits in 0..8 {
                let (read, write, execute) = (bits & 1 != 0, bits & 2 != 0, bits & 4 != 0);
                let permissions = Permissions { read, write, execute };
                let full = bare.with_permissions(permissions).with_blockable(false);
                let told = (full.event(), full.permissions(), full.is_blockable());
                assert_eq!(told, (event, Some(permissions), false));
                assert_eq!(full.with_blockable(true).with_blockable(false), full);
            }
        }
    }

    #[test]
    fn an_owner_is_never_zero() {
        assert_eq!(Owner::new(0), None);
        assert_eq!(Owner::new(7).map(Owner::get), Some(7));
    }
}
