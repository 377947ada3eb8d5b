//! The list side: subscribers that hear of every event in a space (clause C4).
//!
//! [`AddressSpaceRef::register`] puts one on the list, the newest first; a
//! [`Registration`] takes it off when it is dropped. [`AddressSpaceRef::get`] shares one between many.

#![expect(unsafe_code, reason = "records are shared with walks through raw pointers")]

mod array;
pub(crate) mod grace;
pub(crate) mod leave;
mod node;
mod record;
mod registration;
mod spares;
pub(crate) mod walk;

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests;

use alloc::sync::Arc;
use core::fmt;

pub(crate) use array::{Entrance, List, Lookup, Off, Refused, Unknown};
pub(crate) use node::{Callbacks, Key, Node, Young};
pub use registration::{Registration, Shared};

use crate::address::{Address, Range};
use crate::invalidation::Invalidation;
#[cfg(doc)]
use crate::space::AddressSpaceRef;
use crate::space::{LockAllError, Pte};

/// A callback would have to sleep, and may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WouldBlock;

/// A subscriber to all that happens in a space. Every callback has a default that does nothing, accepts, or
/// answers no; one that has only the default is treated as if it had heard.
///
/// # Context
/// Callbacks run in the thread that calls the space, in a read section that may sleep as far as the list is
/// concerned; whether they may depends on the caller: `invalidate_range_start` and its end only if the
/// invalidation is blockable, `release` always, the others as the primary MMU says. They may unregister and put
/// any subscription: this then does not wait for the own walk. A panic goes on to the caller.
pub trait Notifier: Send + Sync + 'static {
    /// The space exits, or this is unregistered: drop every translation and make no more. Called once.
    ///
    /// It may run beside the other callbacks.
    fn release(&self) {}

    /// A range is about to change: no translation of it may be used from now on until the end.
    ///
    /// # Errors
    /// [`WouldBlock`] refuses, only where the invalidation is not blockable; then there is no end.
    fn invalidate_range_start(&self, invalidation: &Invalidation) -> Result<(), WouldBlock> {
        let _ = invalidation;
        Ok(())
    }

    /// The change is done.
    fn invalidate_range_end(&self, invalidation: &Invalidation) {
        let _ = invalidation;
    }

    /// For a secondary MMU that shares the page tables: flush this range from its TLB. Called at each end,
    /// and by [`AddressSpaceRef::invalidate_range`](crate::AddressSpaceRef::invalidate_range).
    fn invalidate_range(&self, range: Range) {
        let _ = range;
    }

    /// Tells whether the range was accessed, forgets it, and flushes.
    fn clear_flush_young(&self, range: Range) -> bool {
        let _ = range;
        false
    }

    /// Tells whether the range was accessed, and forgets it; need not flush.
    fn clear_young(&self, range: Range) -> bool {
        let _ = range;
        false
    }

    /// Tells whether the page at this address was accessed.
    fn test_young(&self, address: Address) -> bool {
        let _ = address;
        false
    }

    /// The page table entry of this address is now another one.
    fn change_pte(&self, address: Address, pte: Pte) {
        let _ = (address, pte);
    }
}

impl<N: Notifier + ?Sized> Notifier for Arc<N> {
    fn release(&self) {
        (**self).release();
    }

    fn invalidate_range_start(&self, invalidation: &Invalidation) -> Result<(), WouldBlock> {
        (**self).invalidate_range_start(invalidation)
    }

    fn invalidate_range_end(&self, invalidation: &Invalidation) {
        (**self).invalidate_range_end(invalidation);
    }

    fn invalidate_range(&self, range: Range) {
        (**self).invalidate_range(range);
    }

    fn clear_flush_young(&self, range: Range) -> bool {
        (**self).clear_flush_young(range)
    }

    fn clear_young(&self, range: Range) -> bool {
        (**self).clear_young(range)
    }

    fn test_young(&self, address: Address) -> bool {
        (**self).test_young(address)
    }

    fn change_pte(&self, address: Address, pte: Pte) {
        (**self).change_pte(address, pte);
    }
}

/// Why a registration failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RegisterErrorKind {
    /// The space has no users any more.
    Gone,
    /// There is no memory.
    OutOfMemory,
    /// The primary MMU's `lock_all` failed.
    LockAll(LockAllError),
}

/// Why a registration of nobody failed.
pub type RegisterNobodyError = RegisterErrorKind;

impl fmt::Display for RegisterErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RegisterErrorKind::Gone => f.write_str("the address space has no users any more"),
            RegisterErrorKind::OutOfMemory => f.write_str("out of memory"),
            RegisterErrorKind::LockAll(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for RegisterErrorKind {}

impl From<Refused> for RegisterErrorKind {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Closed => RegisterErrorKind::Gone,
            Refused::OutOfMemory => RegisterErrorKind::OutOfMemory,
        }
    }
}

/// A failed registration: why, and the notifier, as if never touched.
pub struct RegisterError<N> {
    /// Why.
    pub cause: RegisterErrorKind,
    /// What was to be registered.
    pub notifier: N,
}

impl<N> fmt::Debug for RegisterError<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegisterError").field("cause", &self.cause).finish_non_exhaustive()
    }
}

impl<N> fmt::Display for RegisterError<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cause.fmt(f)
    }
}

impl<N> core::error::Error for RegisterError<N> {}

/// Why a shared notifier was not got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GetError<E> {
    /// The space has no users any more.
    Gone,
    /// 2^32 - 1 have got it already.
    Overflow,
    /// There is no memory.
    OutOfMemory,
    /// The primary MMU's `lock_all` failed.
    LockAll(LockAllError),
    /// What the caller's allocation returned.
    Alloc(E),
}

impl<E: fmt::Display> fmt::Display for GetError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GetError::Gone => f.write_str("the address space has no users any more"),
            GetError::Overflow => f.write_str("the shared notifier has as many references as it can have"),
            GetError::OutOfMemory => f.write_str("out of memory"),
            GetError::LockAll(error) => error.fmt(f),
            GetError::Alloc(error) => error.fmt(f),
        }
    }
}

impl<E: fmt::Debug + fmt::Display> core::error::Error for GetError<E> {}

impl<E> From<RegisterErrorKind> for GetError<E> {
    fn from(kind: RegisterErrorKind) -> Self {
        match kind {
            RegisterErrorKind::Gone => GetError::Gone,
            RegisterErrorKind::OutOfMemory => GetError::OutOfMemory,
            RegisterErrorKind::LockAll(error) => GetError::LockAll(error),
        }
    }
}
