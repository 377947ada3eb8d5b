//! What an invalidation is: its range, and all that a subscriber may want to know of it (clauses C2.4
//! and C2.5). The call itself, start to end, stands in [`active`](crate::active).

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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Invalidation {
    range: Range,
    event: Event,
    owner: Option<Owner>,
    permissions: Option<Permissions>,
    blockable: bool,
}

impl Invalidation {
    /// Describes an invalidation of `range`; the call that starts it says whether it may block.
    pub const fn new(range: Range, event: Event) -> Self {
        Invalidation { range, event, owner: None, permissions: None, blockable: true }
    }

    /// Says who causes it.
    pub const fn with_owner(self, owner: Owner) -> Self {
        Invalidation { owner: Some(owner), ..self }
    }

    /// Says what the mapping permits after the change.
    pub const fn with_permissions(self, permissions: Permissions) -> Self {
        Invalidation { permissions: Some(permissions), ..self }
    }

    pub(crate) const fn with_blockable(self, blockable: bool) -> Self {
        Invalidation { blockable, ..self }
    }

    /// The addresses that change.
    pub const fn range(&self) -> Range {
        self.range
    }

    /// Why they change.
    pub const fn event(&self) -> Event {
        self.event
    }

    /// Who causes the change, if somebody said so.
    pub const fn owner(&self) -> Option<Owner> {
        self.owner
    }

    /// What the mapping permits after the change, if the primary MMU knows.
    pub const fn permissions(&self) -> Option<Permissions> {
        self.permissions
    }

    /// Says whether a callback may sleep; one that would have to and may not refuses.
    pub const fn is_blockable(&self) -> bool {
        self.blockable
    }

    /// Says whether the change only takes rights to write or execute away and leaves the right to read
    /// (clause C5.7): true only for [`Event::ProtectionVma`] with known permissions that include read.
    pub const fn is_update_to_read_only(&self) -> bool {
        // CONTRACT C5.7
        matches!((self.event, self.permissions), (Event::ProtectionVma, Some(Permissions { read: true, .. })))
    }
}

impl From<Range> for Invalidation {
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
    fn an_owner_is_never_zero() {
        assert_eq!(Owner::new(0), None);
        assert_eq!(Owner::new(7).map(Owner::get), Some(7));
    }
}
