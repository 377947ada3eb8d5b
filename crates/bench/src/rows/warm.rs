//! Inserts into memory that was used before: what an insert costs without the page faults of new memory.

use std::time::{Duration, Instant};

use super::interval::{LENGTH, SPACING};
use super::timing::row;
use crate::random::Random;
use crate::subject::Subject;
use crate::work::Work;

/// Inserts in random order, after as many were inserted and removed. Each round has an order of its own, which no
/// branch predictor has learnt.
pub(super) fn inserts<S: Subject>(work: &Work) {
    let mut random = Random::new();
    for size in work.sizes().filter(|size| *size <= 100_000) {
        row(work, "interval/insert-random, warm [kernel-like]", size, || {
            let space = S::space();
            fill::<S>(&space, &random.order(size));
            let rounds = work.turns(200_000).div_ceil(size);
            let taken: Duration = (0..rounds).map(|_| fill::<S>(&space, &random.order(size))).sum();
            taken.as_nanos() as f64 / (rounds * size) as f64
        });
    }
}

/// Inserts all, and removes them again; gives the time of the inserts.
fn fill<S: Subject>(space: &S::Space, order: &[u64]) -> Duration {
    let records: Vec<_> = order.iter().map(|_| S::record()).collect();
    let mut intervals = Vec::with_capacity(order.len());
    let begin = Instant::now();
    for (position, record) in order.iter().zip(records) {
        intervals.push(S::insert(space, record, position * SPACING, LENGTH));
    }
    let taken = begin.elapsed();
    for interval in intervals {
        S::remove(interval);
    }
    taken
}
