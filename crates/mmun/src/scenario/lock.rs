//! Taking a mutex although somebody panicked under it.
//!
//! The state behind the mutexes of a run is whole after each statement, and a panic is a result of its
//! step like any other, so that poisoning says nothing here.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Takes the mutex.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
