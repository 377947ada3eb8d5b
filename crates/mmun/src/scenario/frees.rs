//! When the free of a shared subscriber is printed.
//!
//! A free runs when it can, which may be at any time after the last put; so that the output is the same on
//! every run it is printed at the first `synchronize` after that put, or at the end of the file.

use std::mem;
use std::sync::Arc;

use super::subscriber::Subscriber;

/// The frees that are due and not printed, in order of their puts.
#[derive(Default)]
pub(super) struct Frees {
    due: Vec<Due>,
}

struct Due {
    subscriber: Arc<Subscriber>,
    /// The line of the `synchronize` that prints it.
    synchronize: Option<usize>,
}

impl Frees {
    /// Notes that the last name of a subscriber is put.
    pub(super) fn put(&mut self, subscriber: Arc<Subscriber>) {
        self.due.push(Due { subscriber, synchronize: None });
    }

    /// Gives those that the `synchronize` of this line is the first to wait for.
    pub(super) fn claim(&mut self, line: usize) -> Vec<Arc<Subscriber>> {
        let unclaimed = self.due.iter_mut().filter(|due| due.synchronize.is_none());
        unclaimed
            .map(|due| {
                due.synchronize = Some(line);
                Arc::clone(&due.subscriber)
            })
            .collect()
    }

    /// Takes out what the `synchronize` of this line prints.
    pub(super) fn of(&mut self, line: usize) -> Vec<String> {
        let (done, rest) =
            mem::take(&mut self.due).into_iter().partition(|due| due.synchronize == Some(line));
        self.due = rest;
        freed(&done)
    }

    /// Says whether there are any.
    pub(super) fn are_due(&self) -> bool {
        !self.due.is_empty()
    }

    /// Gives what the end of the file prints.
    pub(super) fn rest(&self) -> Vec<String> {
        freed(&self.due)
    }
}

fn freed(due: &[Due]) -> Vec<String> {
    due.iter().filter_map(|due| due.subscriber.freed()).collect()
}
