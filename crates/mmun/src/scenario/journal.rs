//! What callbacks print, kept by the step in which they ran until that step is printed.
//!
//! A thread says with [`enter`] which step it is at; a callback calls [`Journal::note`] on whatever thread
//! the library runs it. A thread that is at no step (one of the library's) counts as at the newest one.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::mem;
use std::sync::Mutex;

use super::lock::locked;

thread_local! {
    static PLACE: RefCell<Option<Place>> = const { RefCell::new(None) };
}

/// What a thread is at.
struct Place {
    line: usize,
    invalidation: String,
}

/// Says that this thread is at the step of `line` now, which starts or ends `invalidation`.
pub(super) fn enter(line: usize, invalidation: String) {
    PLACE.set(Some(Place { line, invalidation }));
}

/// Gives the name of the invalidation that this thread starts or ends.
pub(super) fn invalidation() -> String {
    PLACE.with_borrow(|place| {
        place.as_ref().map_or_else(|| "?".to_string(), |place| place.invalidation.clone())
    })
}

/// The notes of a run.
#[derive(Default)]
pub(super) struct Journal {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// By line of the step.
    notes: BTreeMap<usize, Vec<String>>,
    newest: usize,
    closed: bool,
    written: u64,
}

impl Journal {
    /// Says which step begins.
    pub(super) fn begin(&self, line: usize) {
        locked(&self.state).newest = line;
    }

    /// Writes down what a callback prints.
    pub(super) fn note(&self, text: String) {
        let line = PLACE.with_borrow(|place| place.as_ref().map(|place| place.line));
        let mut state = locked(&self.state);
        if state.closed {
            return;
        }
        let line = line.unwrap_or(state.newest);
        state.notes.entry(line).or_default().push(text);
        state.written += 1;
    }

    /// Takes out the notes of a step.
    pub(super) fn take(&self, line: usize) -> Vec<String> {
        locked(&self.state).notes.get_mut(&line).map(mem::take).unwrap_or_default()
    }

    /// Counts the notes so far.
    pub(super) fn written(&self) -> u64 {
        locked(&self.state).written
    }

    /// Drops what comes from now on: the run is over.
    pub(super) fn close(&self) {
        locked(&self.state).closed = true;
    }
}
