//! What an [`Interval`] calls: the ops of its user, as the tables of nodes want them.
//!
//! A table is made for a type, so that a start calls the type's functions themselves: the interval stands at a fixed place
//! before its node. Where the callback is one interval's own, it stands in the interval ([`Direct`]).

use core::ffi::c_void;
use core::ptr::NonNull;

use super::interval::Interval;
use crate::interval::{Answer, Callbacks, Node, Options, Sequence, SequenceBy};
use crate::invalidation::Invalidation;
use crate::platform::{self, Payload};

/// What the intervals of one user call.
pub trait IntervalOps {
    /// Drops the translations in the range; see
    /// [`interval::Notifier::invalidate`](crate::interval::Notifier::invalidate).
    ///
    /// # Safety
    /// The library calls it with an interval that was inserted with a table of this type and is not removed yet.
    unsafe fn invalidate(interval: NonNull<Interval>, what: &Invalidation, seq: Sequence) -> Answer;

    /// Completes what `invalidate` answered [`Answer::Begun`] to.
    ///
    /// # Safety
    /// As for `invalidate`.
    unsafe fn finish(interval: NonNull<Interval>, what: &Invalidation);
}

/// A callback of one interval, in place of [`IntervalOps::invalidate`]: see [`Interval::with_direct`].
///
/// It gets the interval, the word of the invalidation's owner as a pointer (whose provenance was exposed), and the
/// sequence; false refuses. Its type is one of C, so that a hit of an interface to C is one call, as in Rust.
///
/// # Safety
/// As for [`IntervalOps::invalidate`].
pub type Direct = unsafe extern "C" fn(NonNull<Interval>, *mut c_void, u64) -> bool;

/// The table that an [`Interval`] is made with: a start calls the [ops](IntervalOps) of its type, and nothing between.
#[derive(Debug)]
pub struct IntervalCallbacks {
    pub(super) by_start: Callbacks,
    pub(super) by_callback: Callbacks,
    pub(super) direct: Callbacks,
}

impl IntervalCallbacks {
    /// Makes the table of these ops.
    pub const fn of<O: IntervalOps>() -> Self {
        let by_start = Callbacks {
            invalidate: invalidate::<O>,
            finish: finish::<O>,
            free,
            options: Options::new(),
            sequence: SequenceBy::Start,
            moved: false,
            space: None,
        };
        IntervalCallbacks {
            by_start,
            by_callback: Callbacks { sequence: SequenceBy::Callback, ..by_start },
            direct: Callbacks { sequence: SequenceBy::Direct, ..by_start },
        }
    }
}

/// # Safety
/// The node is that of an [`Interval`] with a table of these ops, found by a start.
unsafe fn invalidate<O: IntervalOps>(
    node: NonNull<Node>,
    what: &Invalidation,
    seq: Sequence,
    panic: &mut Option<Payload>,
) -> Answer {
    // SAFETY: as promised by the caller.
    let answer = platform::keep(panic, || unsafe { O::invalidate(Interval::around(node), what, seq) });
    answer.unwrap_or(Answer::Refused)
}

/// # Safety
/// As for [`invalidate`].
unsafe fn finish<O: IntervalOps>(node: NonNull<Node>, what: &Invalidation, panic: &mut Option<Payload>) {
    // SAFETY: as promised by the caller.
    platform::keep(panic, || unsafe { O::finish(Interval::around(node), what) });
}

/// # Safety
/// None: its memory is its user's, so that it never hangs, and nobody calls this.
unsafe fn free(_: NonNull<Node>) {}

/// # Safety
/// None: nobody calls it.
pub(super) unsafe extern "C" fn no_direct(_: NonNull<Interval>, _: *mut c_void, _: u64) -> bool {
    true
}
