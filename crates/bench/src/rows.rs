//! The rows: what is measured. Each file holds those of one kind; [`timing`] has what they share.

mod interval;
mod list;
mod threads;
mod timing;

use crate::args;
use crate::subject::{Ours, Subject};
use crate::work::Work;

/// Runs all wanted rows of a subject, and prints a line for each result.
pub(crate) fn run(subject: args::Subject, work: &Work) {
    match subject {
        args::Subject::Ours => of_the_reference::<Ours>(work),
    }
}

/// The rows that the C program has, in its order.
fn of_the_reference<S: Subject>(work: &Work) {
    list::no_subscriber::<S>(work);
    list::walks::<S>(work, &[1, 4, 16]);
    interval::all::<S>(work);
    threads::invalidators::<S>(work, &[1, 2]);
    threads::readers::<S>(work, &[1, 2]);
}
