//! A word on which threads sleep, over the two primitives that each platform has for it.

use super::primitives;
use crate::sync::{AtomicU32, Ordering};

/// A word on which threads sleep.
#[derive(Debug)]
pub(crate) struct Futex {
    word: AtomicU32,
}

impl Futex {
    pub(crate) fn new() -> Self {
        Futex { word: AtomicU32::new(0) }
    }

    pub(crate) fn value(&self) -> u32 {
        self.word.load(Ordering::Acquire)
    }

    /// Sleeps while the word is `value`, until `deadline` at the latest; may return early.
    pub(crate) fn wait(&self, value: u32, deadline: Option<u64>) {
        primitives::wait(&self.word, value, deadline);
    }

    /// Changes the word and wakes all sleepers.
    pub(crate) fn advance_and_wake(&self) {
        primitives::wake(&self.word, || {
            self.word.fetch_add(1, Ordering::Release);
        });
    }
}
