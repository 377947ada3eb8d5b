//! A second space that is brought along: whoever has an address space of another kind (one of C, say) hears of the same
//! changes, and makes its own starts and ends of them.

use std::sync::OnceLock;

use mmu_notifier::Invalidation;

/// Memory for what a follower must keep from a start to its end, on the stack of who makes the change.
pub type Place = [u64; 24];

/// An address space of another kind that stands for this process, too.
///
/// # Context
/// As for subscribers: called in the thread that makes the change, in the middle of it.
pub trait Follower: Sync {
    /// A change is about to be made. What it writes into `place` is there at the end.
    fn start(&self, what: &Invalidation, place: &mut Place);

    /// The change is made.
    fn end(&self, place: &mut Place);

    /// The process exits.
    fn release(&self);
}

static FOLLOWER: OnceLock<&'static dyn Follower> = OnceLock::new();

/// Sets the follower; false if there is one already, or forks cannot be told of.
pub(crate) fn set(follower: &'static dyn Follower) -> bool {
    // Asked first: whoever follows hears of forks, too. Handlers without a follower do nothing.
    FOLLOWER.get().is_none() && crate::fork::arm_follower() && FOLLOWER.set(follower).is_ok()
}

/// What the follower has begun; dropping it is the end. It does not move meanwhile.
pub(crate) struct Followed {
    follower: &'static dyn Follower,
    place: Place,
}

/// Starts with the follower, if there is one.
#[inline]
pub(crate) fn start(what: &Invalidation, followed: &mut Option<Followed>) {
    if let Some(&follower) = FOLLOWER.get() {
        follower.start(what, &mut followed.insert(Followed { follower, place: [0; 24] }).place);
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.follower.end(&mut self.place);
    }
}

/// Makes a change between the follower's start and end.
#[inline]
pub(crate) fn around<R>(what: &Invalidation, change: impl FnOnce() -> R) -> R {
    let mut followed = None;
    start(what, &mut followed);
    change()
}

pub(crate) fn release() {
    FOLLOWER.get().into_iter().for_each(|follower| follower.release());
}
