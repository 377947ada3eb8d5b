//! The safe layer: a cache of one translation with its lock; uses in flight.

use std::hint::black_box;

use super::interval::LENGTH;
use super::timing::{each, row};
use crate::subject::{Ours, PAGE, Subject};
use crate::work::Work;

/// What the twin's user does by hand: a mutex, a token, a retry.
pub(super) fn of_both<S: Subject>(work: &Work) {
    let space = S::space();
    let mirror = S::mirror(&space, 0, LENGTH);
    row(work, "mirror/hit [kernel-like]", 1, || {
        S::fault(&mirror, 1);
        let mut sum = 0;
        let figure = each(work.turns(2_000_000), |_| sum += S::look_up(&mirror).unwrap_or(0));
        black_box(sum);
        figure
    });
    row(work, "mirror/fault [kernel-like]", 1, || {
        each(work.turns(2_000_000), |turn| S::fault(&mirror, turn))
    });
    row(work, "mirror/invalidate+fault [kernel-like]", 1, || {
        each(work.turns(1_000_000), |turn| {
            S::cycle(&space, 0, PAGE);
            S::fault(&mirror, turn);
        })
    });
}

/// The guard of a use that invalidations wait for.
pub(super) fn uses(work: &Work) {
    let space = Ours::space();
    let mirror = Ours::mirror(&space, 0, LENGTH);
    row(work, "mirror/hold+drop", 1, || {
        Ours::fault(&mirror, 1);
        let mut sum = 0;
        let figure = each(work.turns(2_000_000), |_| {
            sum += mirror.hold(mirror.range(), |table| *table).map_or(0, |hit| *hit);
        });
        black_box(sum);
        figure
    });
}
