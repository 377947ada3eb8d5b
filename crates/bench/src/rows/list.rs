//! Spaces that nobody watches, and lists of subscribers.

use std::sync::atomic::{Ordering, compiler_fence};

use super::timing::{each, row};
use crate::subject::{PAGE, Subject};
use crate::work::Work;

/// Invalidations of a space that nobody has ever watched.
pub(super) fn no_subscriber<S: Subject>(work: &Work) {
    row(work, "invalidate/no-subscriber", 0, || {
        let space = S::space();
        each(work.turns(20_000_000), |turn| {
            // As in C: each turn reads anew whether there is anybody.
            compiler_fence(Ordering::SeqCst);
            S::cycle(&space, turn * PAGE, PAGE);
        })
    });
}

/// Invalidations of a space with a list; then one of its subscribers goes and comes again.
pub(super) fn walks<S: Subject>(work: &Work, lengths: &[u64]) {
    for &length in lengths {
        let space = S::space();
        let mut list: Vec<_> = (0..length).map(|_| S::register(&space)).collect();
        walk::<S>(work, "invalidate/list", &space, length);
        row(work, "unregister+register", length, || {
            let mut one = Some(list.remove(0));
            let figure = each(work.turns(20_000), |_| {
                one.take().into_iter().for_each(S::unregister);
                one = Some(S::register(&space));
            });
            list.extend(one);
            figure
        });
    }
}

/// A list that is longer than any of the C program's.
pub(super) fn long<S: Subject>(work: &Work, length: u64) {
    let space = S::space();
    let _list: Vec<_> = (0..length).map(|_| S::register(&space)).collect();
    walk::<S>(work, "invalidate/list [kernel-like]", &space, length);
}

fn walk<S: Subject>(work: &Work, name: &str, space: &S::Space, length: u64) {
    row(work, name, length, || each(work.turns(2_000_000), |_| S::cycle(space, 0, PAGE)));
}
