//! Whether a node in its user's memory is in a space; what cannot be is seen and refused.
//!
//! The word is an ordinary atomic under the model checkers too: `new` is const.

use core::sync::atomic::{AtomicU32, Ordering};

const OUT: u32 = 0;
const CHANGING: u32 = 1;
const IN: u32 = 2;

/// In a space, out of it, or on the way.
///
/// # Invariants
/// Who moved it to CHANGING is the only one to move it on.
#[derive(Debug)]
pub(super) struct Membership(AtomicU32);

impl Membership {
    pub(super) const fn out() -> Self {
        Membership(AtomicU32::new(OUT))
    }

    /// Begins to enter; false if it is in or on the way.
    pub(super) fn begin_to_enter(&self) -> bool {
        self.0.compare_exchange(OUT, CHANGING, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// Begins to leave; false if it is not in.
    pub(super) fn begin_to_leave(&self) -> bool {
        self.0.compare_exchange(IN, CHANGING, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// Says that it is in. By who began to enter.
    pub(super) fn set_in(&self) {
        // ORDERING: release, for the acquire of who sees it in: the node is there.
        self.0.store(IN, Ordering::Release);
    }

    /// Says that it is out. By who began to enter and failed, or to leave.
    pub(super) fn set_out(&self) {
        // ORDERING: release, for the acquire of who enters next.
        self.0.store(OUT, Ordering::Release);
    }

    /// Says that nobody has it in, or brings it in or out.
    pub(super) fn is_out(&self) -> bool {
        self.0.load(Ordering::Acquire) == OUT
    }

    pub(super) fn is_in(&self) -> bool {
        self.0.load(Ordering::Acquire) == IN
    }
}
