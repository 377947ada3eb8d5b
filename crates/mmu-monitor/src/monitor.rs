//! The monitor: the space of this process, its sources, and what they cover.

use core::fmt;
use std::vec::Vec;

use mmu_notifier::{AddressSpaceRef, OutOfMemory, Range};

use crate::choice::{Choice, UnknownSource};
use crate::dispatch::DISPATCH;
use crate::explicit::EXPLICIT;
use crate::follower::Follower;
use crate::hooks::HOOKS;
use crate::operation::{Operation, Origin, When};
use crate::process;
use crate::source::{Source, SourceError};
use crate::userfaultfd::USERFAULTFD;

/// All sources there are, the best first.
pub static SOURCES: [&dyn Source; 4] = [&HOOKS, &DISPATCH, &USERFAULTFD, &EXPLICIT];

/// The monitor of this process; all values of this type stand for the same one.
#[derive(Clone, Copy, Debug)]
pub struct Monitor {
    space: &'static AddressSpaceRef,
}

impl Monitor {
    /// Starts the sources that the user chose by `MMU_MONITOR`, else the best that work here.
    ///
    /// Sources that tell already go on; starting again adds to them.
    ///
    /// # Errors
    /// The user chose none, or one that does not exist or does not work here. Where nothing was chosen, what does not
    /// work is passed over: [`coverage`](Self::coverage) and [`require`](Self::require) say what is left.
    pub fn start() -> Result<Monitor, StartError> {
        Self::start_with(&Choice::from_environment()?)
    }

    /// Starts the sources of `choice`.
    ///
    /// # Errors
    /// As above.
    pub fn start_with(choice: &Choice) -> Result<Monitor, StartError> {
        if *choice == Choice::Off {
            return Err(StartError::Off);
        }
        let monitor = Monitor { space: process::make()? };
        crate::fork::arm()?;
        // Explicit calls cannot fail, and do no harm beside others.
        EXPLICIT.arm()?;
        match choice {
            Choice::Named(names) => {
                let wanted = SOURCES.iter().filter(|source| names.contains(&source.name()));
                wanted.copied().try_for_each(Source::arm)?;
            }
            // What does not work is not covered, which `coverage` says.
            _ => drop(HOOKS.arm()),
        }
        Ok(monitor)
    }

    /// The monitor, if it was started.
    pub fn get() -> Option<Monitor> {
        process::space().map(|space| Monitor { space })
    }

    /// The space whose changes the sources tell of: subscribe here.
    pub fn space(self) -> &'static AddressSpaceRef {
        self.space
    }

    /// Brings another address space along, which hears of the same changes, within the starts and ends of this one.
    /// False, and nothing is brought along, if there is one already, or no memory.
    pub fn follow(self, follower: &'static dyn Follower) -> bool {
        crate::follower::set(follower)
    }

    /// When the armed sources tell of an operation, the best of them, as the calling thread has it: some sources arm
    /// threads one by one ([`dispatch`](crate::dispatch)), some see watched ranges alone ([`watch`](Self::watch)).
    pub fn coverage(self, operation: Operation, origin: Origin) -> When {
        let armed = SOURCES.iter().filter(|source| source.is_armed());
        armed.map(|source| source.coverage(operation, origin)).max().unwrap_or(When::Missed)
    }

    /// Makes sure that each of `operations`, made by any of `origins`, is told of.
    ///
    /// # Errors
    /// The first that is not: who keeps a copy must not keep it.
    pub fn require(self, operations: &[Operation], origins: &[Origin]) -> Result<(), Uncovered> {
        for &operation in operations {
            for &origin in origins {
                if self.coverage(operation, origin) == When::Missed {
                    return Err(Uncovered { operation, origin });
                }
            }
        }
        Ok(())
    }

    /// Asks the sources that need it to look after `range`.
    ///
    /// # Errors
    /// What one of them says.
    pub fn watch(self, range: Range) -> Result<(), SourceError> {
        SOURCES.iter().filter(|source| source.is_armed()).try_for_each(|source| source.watch(range))
    }

    /// Says whether a source has a change that it has not told of yet. Who looks something up in a cache that is fed by
    /// a source that tells afterwards ([`When::After`]) asks behind the look-up.
    pub fn is_pending(self) -> bool {
        SOURCES.iter().any(|source| source.is_pending())
    }

    /// The names of the sources that tell.
    pub fn armed(self) -> Vec<&'static str> {
        SOURCES.iter().filter(|source| source.is_armed()).map(|source| source.name()).collect()
    }

    /// Stops all sources. The space stays, and its subscribers: they hear nothing more.
    pub fn stop(self) {
        SOURCES.iter().for_each(|source| source.disarm());
    }
}

/// Why there is no monitor.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StartError {
    /// The user wants none.
    Off,
    /// A word of `MMU_MONITOR` names no source.
    Unknown(UnknownSource),
    /// A source that was asked for cannot tell.
    Source(SourceError),
    /// There is no memory.
    OutOfMemory,
}

impl From<UnknownSource> for StartError {
    fn from(error: UnknownSource) -> Self {
        StartError::Unknown(error)
    }
}

impl From<SourceError> for StartError {
    fn from(error: SourceError) -> Self {
        StartError::Source(error)
    }
}

impl From<OutOfMemory> for StartError {
    fn from(_: OutOfMemory) -> Self {
        StartError::OutOfMemory
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Off => write!(f, "the monitor is switched off by {}=off", crate::choice::VARIABLE),
            StartError::Unknown(error) => error.fmt(f),
            StartError::Source(error) => error.fmt(f),
            StartError::OutOfMemory => f.write_str("no memory for the space of this process"),
        }
    }
}

impl std::error::Error for StartError {}

/// An operation that no armed source tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Uncovered {
    /// What nobody tells of.
    pub operation: Operation,
    /// Made by whom.
    pub origin: Origin,
}

impl fmt::Display for Uncovered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no source tells of {} made by {}: nothing may be kept", self.operation, self.origin)
    }
}

impl std::error::Error for Uncovered {}
