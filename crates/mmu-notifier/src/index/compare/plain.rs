//! Without vectors: what every machine can.

use super::Scalar;

/// How entries are compared on this machine.
#[derive(Clone, Copy, Debug)]
pub(in crate::index) enum Compare {
    /// One after the other.
    Scalar(Scalar),
}

impl Compare {
    /// The one that there is.
    pub(in crate::index) fn best() -> Self {
        Compare::Scalar(Scalar)
    }
}

/// Says something with the kind of a [`Compare`].
macro_rules! of_kind {
    ($compare:expr, $kind:ident => $say:expr) => {
        match $compare {
            $crate::index::compare::Compare::Scalar($kind) => $say,
        }
    };
}

pub(in crate::index) use of_kind;
