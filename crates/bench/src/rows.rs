//! The rows: what is measured. Each file holds those of one kind; [`timing`] and [`beside`] have what they
//! share.
//!
//! A row that the C program has bears the name that it prints. The name of any other one says in brackets at its
//! end what its figure is ([`Unit`](crate::unit::Unit)).

mod batch;
mod beside;
mod churn;
mod guard;
mod interval;
mod large;
mod list;
mod memory;
mod mirror;
mod never_pause;
mod reading;
mod sharing;
mod threads;
mod timing;
mod warm;

pub(crate) use interval::is_wanted as are_intervals_wanted;

use crate::args;
use crate::subject::{KernelLike, Ours, Subject};
use crate::work::{Rows, Work};

/// Runs all wanted rows of a subject, and prints a line for each result.
pub(crate) fn run(subject: args::Subject, work: &Work) {
    match subject {
        args::Subject::Ours => {
            of_subject::<Ours>(work);
            of_ours(work);
        }
        args::Subject::KernelLike => of_subject::<KernelLike>(work),
    }
}

fn of_subject<S: Subject>(work: &Work) {
    if work.rows == Rows::All {
        of_the_reference::<S>(work);
    }
    of_both::<S>(work);
}

/// The rows that the C program has, in its order.
fn of_the_reference<S: Subject>(work: &Work) {
    list::no_subscriber::<S>(work);
    list::walks::<S>(work, &[1, 4, 16]);
    interval::all::<S>(work);
    threads::invalidators::<S>(work, &[1, 2]);
    threads::readers::<S>(work, &[1, 2]);
}

/// The rows that the C program lacks, and the twin has.
fn of_both<S: Subject>(work: &Work) {
    threads::invalidators_alone::<S>(work, &[1, 2, 8]);
    threads::readers_more::<S>(work, &[8]);
    list::long::<S>(work, 64);
    sharing::all::<S>(work);
    warm::inserts::<S>(work);
    churn::all::<S>(work);
    reading::all::<S>(work);
    batch::all::<S>(work);
    mirror::of_both::<S>(work);
    large::many_hits::<S>(work);
    large::all::<S>(work);
    memory::all::<S>(work);
}

/// The rows that only the library has.
fn of_ours(work: &Work) {
    guard::all(work);
    never_pause::remove(work);
    reading::without_a_thread(work);
    mirror::uses(work);
}
