//! What concerns many subscriptions at once: long ranges, long intervals, exit.

use std::time::Instant;

use super::interval::{LENGTH, SPACING};
use super::timing::{each, row};
use crate::count;
use crate::random::Random;
use crate::subject::{PAGE, Subject};
use crate::work::Work;

/// Inserts `size` intervals in random order.
fn fill<S: Subject>(size: u64) -> (S::Space, Vec<S::Interval>) {
    let space = S::space();
    let order = Random::new().order(size);
    let insert = |position| S::insert(&space, S::record(), position * SPACING, LENGTH);
    let intervals = order.into_iter().map(insert).collect();
    (space, intervals)
}

/// Ranges over many intervals.
pub(super) fn many_hits<S: Subject>(work: &Work) {
    let size = work.max.min(100_000);
    let hits = size.min(1_500);
    row(work, "interval/invalidate-1500-hits [kernel-like]", size, || {
        let (space, _intervals) = fill::<S>(size);
        let mut random = Random::new();
        let turns = work.turns(3_000);
        count::take();
        let figure = each(turns, |_| {
            S::cycle(&space, random.below(size - hits + 1) * SPACING, hits * SPACING);
        });
        assert_eq!(count::take(), turns * hits, "each of these invalidations hits so many");
        figure
    });
}

const LONG: &str = "interval/invalidate-1-hit below 16 long ones [kernel-like]";
const WHOLE: &str = "interval/invalidate-all [kernel-like]";
const EXIT: &str = "exit [kernel-like]";

/// As many intervals as there may be.
pub(super) fn all<S: Subject>(work: &Work) {
    if ![LONG, WHOLE, EXIT].iter().any(|name| work.wants(name)) {
        return;
    }
    let size = work.max.min(1_000_000);
    let (space, intervals) = fill::<S>(size);
    row(work, WHOLE, size, || each(work.turns(30_000).min(3), |_| S::cycle_all(&space)));

    let long: Vec<_> = (0..16).map(|_| S::insert(&space, S::record(), 0, 1 << 63)).collect();
    row(work, LONG, size, || {
        let mut random = Random::new();
        each(work.turns(300_000), |_| S::cycle(&space, random.below(size) * SPACING, PAGE))
    });
    long.into_iter().for_each(|interval| drop(S::remove(interval)));

    row(work, EXIT, size, || {
        let begin = Instant::now();
        S::exit(space);
        begin.elapsed().as_nanos() as f64
    });
    drop(intervals);
}
