//! The threads of a scenario: each with a mailbox, in which it sleeps while it is idle.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{Builder, JoinHandle};

use super::journal;

/// What a thread does next.
pub(super) struct Task<T> {
    /// The line of the step.
    pub(super) line: usize,
    /// The invalidation that the step starts or ends.
    pub(super) invalidation: String,
    /// The call.
    pub(super) call: Call<T>,
}

/// A call and what comes of it.
pub(super) type Call<T> = Box<dyn FnOnce() -> T + Send>;

/// What came of a step.
pub(super) struct Finished<T> {
    /// The line of the step.
    pub(super) line: usize,
    /// What its call gave; none if it panicked.
    pub(super) outcome: Option<T>,
}

/// A thread of a scenario.
pub(super) struct Worker<T> {
    mailbox: Sender<Task<T>>,
    thread: JoinHandle<()>,
}

impl<T: Send + 'static> Worker<T> {
    /// Makes a thread.
    pub(super) fn spawn(name: &str, finished: Sender<Finished<T>>) -> io::Result<Worker<T>> {
        let (mailbox, tasks) = channel();
        let thread = Builder::new().name(name.to_string()).spawn(move || work(&tasks, &finished))?;
        Ok(Worker { mailbox, thread })
    }

    /// Gives it a task. It must be idle.
    pub(super) fn give(&self, task: Task<T>) {
        // A thread that is gone leaves its step waiting, which the output shows.
        let _ = self.mailbox.send(task);
    }

    /// Lets it end. It must be idle.
    pub(super) fn join(self) {
        drop(self.mailbox);
        // It ends without a panic, as it catches those of its calls.
        let _ = self.thread.join();
    }
}

fn work<T>(tasks: &Receiver<Task<T>>, finished: &Sender<Finished<T>>) {
    for Task { line, invalidation, call } in tasks {
        journal::enter(line, invalidation);
        // The calls of a run share only what stays whole when one of them panics: see `lock`.
        let outcome = catch_unwind(AssertUnwindSafe(call)).ok();
        if finished.send(Finished { line, outcome }).is_err() {
            return;
        }
    }
}
