//! Several invalidations that are active at once: nested ones, and batches.

use super::interval::{LENGTH, SPACING};
use super::timing::{each, row};
use crate::subject::{PAGE, Subject};
use crate::work::Work;

/// How many ranges a batch has.
const RANGES: u64 = 64;
/// How many invalidations stand within each other.
const DEPTH: u64 = 4;

pub(super) fn all<S: Subject>(work: &Work) {
    let space = S::space();
    let _intervals: Vec<_> =
        (0..1_000).map(|number| S::insert(&space, S::record(), number * SPACING, LENGTH)).collect();
    let pages: Vec<u64> = (0..RANGES).map(|number| number * 15 * SPACING).collect();

    row(work, "invalidate/nested, each start+end [kernel-like]", DEPTH, || {
        each(work.turns(300_000), |_| nest::<S>(&space, DEPTH)) / DEPTH as f64
    });
    row(work, "invalidate/64 ranges singly [kernel-like]", RANGES, || {
        each(work.turns(20_000), |_| pages.iter().for_each(|page| S::cycle(&space, *page, PAGE)))
    });
    row(work, "invalidate/64 ranges as a batch [kernel-like]", RANGES, || {
        let mut batch = S::batch(&space, &pages);
        each(work.turns(20_000), |_| S::cycle_batch(&mut batch))
    });
    row(work, "invalidate/64 ranges as a batch, with its making [kernel-like]", RANGES, || {
        each(work.turns(20_000), |_| S::cycle_batch(&mut S::batch(&space, &pages)))
    });
}

/// Starts, does the same within for the next range, ends.
fn nest<S: Subject>(space: &S::Space, depth: u64) {
    if depth > 0 {
        let active = S::start(space, depth * 100 * SPACING, PAGE);
        nest::<S>(space, depth - 1);
        drop(active);
    }
}
