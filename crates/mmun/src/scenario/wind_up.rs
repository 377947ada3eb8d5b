//! The end of a run: leaves nothing behind that a later run in the same process could feel.
//!
//! A script may end with threads that wait, callbacks that are held and frees that wait for them, and
//! `synchronize` waits for the frees of the whole process. So all that holds somebody up is taken away:
//! the gates are opened and the invalidations ended, until nobody waits any more. Then the handles are
//! dropped and the threads joined. What waits even then (the library is at fault) is abandoned, threads
//! and all.

use std::mem;
use std::sync::mpsc::channel;

use super::library::Library;
use super::names::Thing;
use super::run::Cast;
use super::worker::{Task, Worker};

/// Ends what a run left.
pub(super) fn wind_up<L: Library>(mut cast: Cast<L>) {
    cast.journal.close();
    if !let_all_go(&mut cast) || !drop_rest(&mut cast) {
        // Whatever is left may be in use by a thread that waits for ever.
        mem::forget(cast);
        return;
    }
    for worker in mem::take(&mut cast.workers).into_values() {
        worker.join();
    }
}

/// Takes away what holds somebody up until nobody waits, and says whether it came to that.
fn let_all_go<L: Library>(cast: &mut Cast<L>) -> bool {
    while !cast.waiting.is_empty() {
        cast.names.subscribers().for_each(|subscriber| subscriber.gate().open());
        let active = cast.names.consume_all(|thing| matches!(thing, Thing::Active(_)));
        let ended = active.len();
        if !apart(cast, move || drop(active)) {
            return false;
        }
        if collect(cast) + ended == 0 {
            return false;
        }
    }
    true
}

/// Drops every handle that is left, and says whether that came to an end.
fn drop_rest<L: Library>(cast: &mut Cast<L>) -> bool {
    cast.names.subscribers().for_each(|subscriber| subscriber.gate().open());
    let rest = cast.names.consume_all(|thing| !matches!(thing, Thing::Nothing | Thing::Token { .. }));
    rest.is_empty() || apart(cast, move || drop(rest))
}

/// Makes a call on a thread of its own, since it may call callbacks and wait; says whether it has come to an end when
/// every thread is idle or asleep.
pub(super) fn apart<L: Library>(cast: &Cast<L>, call: impl FnOnce() + Send + 'static) -> bool {
    let (sender, receiver) = channel();
    let Ok(worker) = Worker::spawn("wind-up", sender) else {
        mem::forget(call);
        return false;
    };
    worker.give(Task { line: 0, invalidation: String::new(), call: Box::new(call) });
    if cast.settle().is_err() || receiver.try_recv().is_err() {
        return false;
    }
    worker.join();
    true
}

/// Takes in the steps that have finished and says how many.
fn collect<L: Library>(cast: &mut Cast<L>) -> usize {
    let mut count = 0;
    for finished in cast.receiver.try_iter() {
        cast.waiting.retain(|step| step.line != finished.line);
        if let Some(outcome) = finished.outcome {
            outcome.apply(&mut cast.names);
        }
        count += 1;
    }
    count
}
