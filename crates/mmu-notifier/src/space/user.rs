//! Users of a space: the last one's drop is the exit.

#![expect(unsafe_code, reason = "a space is counted by hand, as an Arc is")]

use core::fmt;
use core::mem::ManuallyDrop;
use core::ops::Deref;

use super::{AddressSpaceRef, Builder, MOST, Space};
use crate::frame;
use crate::platform;
use crate::sync::Ordering;

/// A user of an address space. Clone is mmget, drop is mmput: when the last one goes the space exits.
pub struct AddressSpace {
    pub(super) holder: ManuallyDrop<AddressSpaceRef>,
}

impl AddressSpace {
    /// Makes a space with one user.
    ///
    /// # Panics
    /// If there is no memory; [`Builder::build`] returns an error instead.
    #[expect(clippy::new_without_default, reason = "a new space is a resource, not a default value")]
    pub fn new() -> Self {
        AddressSpace::builder().build().expect("no memory for an address space")
    }

    /// Makes a space with options.
    pub fn builder() -> Builder {
        Builder { label: None, primary: Ok(None), leaves_work: false }
    }

    /// Becomes a mere holder, which keeps the object but not the space alive.
    pub fn downgrade(&self) -> AddressSpaceRef {
        (**self).clone()
    }
}

impl Deref for AddressSpace {
    type Target = AddressSpaceRef;

    #[inline]
    fn deref(&self) -> &AddressSpaceRef {
        &self.holder
    }
}

impl Clone for AddressSpace {
    fn clone(&self) -> Self {
        let before = self.space().users.fetch_add(1, Ordering::Relaxed);
        assert!(before < MOST, "an address space has users without end");
        AddressSpace { holder: ManuallyDrop::new(AddressSpaceRef { space: self.space }) }
    }
}

impl Drop for AddressSpace {
    fn drop(&mut self) {
        // ORDERING: as in Arc: what each user did comes before the exit.
        if self.space().users.fetch_sub(1, Ordering::AcqRel) != 1 {
            return;
        }
        // CONTRACT C8.3: not within a callback of the space.
        if !frame::leave_exit(self.space().id) {
            // SAFETY: this was the last user, so the holder that all users shared is this one's.
            platform::in_drop(|| unsafe { Space::exit_and_let_go(self.space) });
        }
    }
}

impl fmt::Debug for AddressSpace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AddressSpace").field("label", &self.label()).finish_non_exhaustive()
    }
}
