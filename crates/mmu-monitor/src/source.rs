//! Sources: where a monitor learns of changes.

use core::fmt;
use std::string::String;

use mmu_notifier::Range;

use crate::operation::{Operation, Origin, When};

/// A way to learn of changes of this process's mappings.
///
/// There is one of each a process, so each is a value that lives as long as the process. What a source claims it
/// sees, it sees while it is armed; what it does not see it says.
pub trait Source: Sync {
    /// The word by which `MMU_MONITOR` and messages name it.
    fn name(&self) -> &'static str;

    /// When it tells of `operation` made by `origin`, once it is armed.
    fn coverage(&self, operation: Operation, origin: Origin) -> When;

    /// Begins to tell. Does nothing if it does already.
    ///
    /// # Errors
    /// Why it cannot, here and now; then it has changed nothing.
    ///
    /// # Context
    /// Allocates, and makes calls of its own that are told of. Not in a callback.
    fn arm(&self) -> Result<(), SourceError>;

    /// Says whether it tells.
    fn is_armed(&self) -> bool;

    /// Stops to tell. What is under way gets its end.
    ///
    /// # Context
    /// Not in a callback.
    fn disarm(&self);

    /// Asks it to look after `range`, if it tells of what it was asked for alone.
    ///
    /// # Errors
    /// Why it cannot.
    fn watch(&self, _range: Range) -> Result<(), SourceError> {
        Ok(())
    }

    /// Says whether a change was made that it has not told of yet. Only one that tells after the change ever has one,
    /// and only while it is armed.
    fn is_pending(&self) -> bool {
        false
    }
}

/// Why a source cannot tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceError {
    pub(crate) source: &'static str,
    pub(crate) reason: String,
}

impl SourceError {
    /// Gives the source's name and the reason, which says what would help.
    pub fn new(source: &'static str, reason: impl Into<String>) -> Self {
        SourceError { source, reason: reason.into() }
    }

    /// Why.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// The name of the source.
    pub fn source_name(&self) -> &'static str {
        self.source
    }
}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "source `{}`: {}", self.source, self.reason)
    }
}

impl std::error::Error for SourceError {}
