//! How a start goes: what the caller is told, and what goes on behind the call.

use core::fmt;

use crate::platform::{self, Payload};

/// Why a non-blockable start failed. There is no end to call, and but for the tokens of those that were
/// called it is as if the start had never been.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StartError {
    /// A subscriber would have had to sleep.
    WouldBlock,
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a subscriber would have to sleep: try again where the invalidation may block")
    }
}

impl core::error::Error for StartError {}

/// Why a start ends what it began.
pub(crate) enum Failure {
    Refused,
    Panicked(Payload),
}

impl Failure {
    /// Keeps the first panic of a start that fails.
    pub(crate) fn keep_first(failure: &mut Option<Failure>, panic: Option<Payload>) {
        match (panic, &*failure) {
            (Some(later), Some(Failure::Panicked(_))) => platform::discard(later),
            (Some(payload), _) => *failure = Some(Failure::Panicked(payload)),
            (None, _) => {}
        }
    }
}

/// How a start goes that calls back.
#[derive(Default)]
pub(crate) struct Outcome {
    /// Why it ends what it began.
    pub(crate) failure: Option<Failure>,
    /// The first panic of what is freed or woken when a call changes its phase: it goes on behind the call, whose
    /// books are in order then (clause C7.2).
    pub(crate) late: Option<Payload>,
}
