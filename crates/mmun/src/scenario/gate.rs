//! Where the callbacks of a held subscriber wait: `hold` closes the gate, `let` opens it.

use std::sync::{Condvar, Mutex, PoisonError};

use super::lock::locked;

/// A gate, open at first.
#[derive(Default)]
pub(super) struct Gate {
    state: Mutex<State>,
    opened: Condvar,
}

#[derive(Default)]
struct State {
    closed: bool,
    /// How often it was opened: who waits goes on at the next opening, even if it is closed again before
    /// he runs.
    openings: u64,
}

impl Gate {
    /// Closes it for those that come from now on.
    pub(super) fn close(&self) {
        locked(&self.state).closed = true;
    }

    /// Opens it: those that wait go on, and who comes from now on passes.
    pub(super) fn open(&self) {
        let mut state = locked(&self.state);
        state.closed = false;
        state.openings += 1;
        self.opened.notify_all();
    }

    /// Passes at once if it is open, else at the next opening.
    pub(super) fn pass(&self) {
        let state = locked(&self.state);
        if !state.closed {
            return;
        }
        let before = state.openings;
        let opened = self.opened.wait_while(state, |state| state.openings == before);
        drop(opened.unwrap_or_else(PoisonError::into_inner));
    }
}
