//! Many small intervals in one space: two pages each, two pages apart, inserted in random order.

use std::hint::black_box;
use std::time::Instant;

use super::timing::{each, report, row};
use crate::count;
use crate::random::Random;
use crate::subject::{PAGE, Subject};
use crate::work::Work;

const INSERT: &str = "interval/insert-random";
const MISS: &str = "interval/invalidate-miss";
const HIT: &str = "interval/invalidate-1-hit";
const HITS: &str = "interval/invalidate-100-hits";
const READ: &str = "interval/read-begin+retry";
const REMOVE: &str = "interval/remove";

/// From one interval's start to the next one's.
pub(super) const SPACING: u64 = 4 * PAGE;
/// How long each is.
pub(super) const LENGTH: u64 = 2 * PAGE;

/// Says whether any of these rows is wanted.
pub(crate) fn is_wanted(work: &Work) -> bool {
    [INSERT, MISS, HIT, HITS, READ, REMOVE].iter().any(|name| work.wants(name))
}

/// All rows, for each number of intervals.
pub(super) fn all<S: Subject>(work: &Work) {
    if !is_wanted(work) {
        return;
    }
    let mut random = Random::new();
    for size in work.sizes() {
        of_size::<S>(work, size, &mut random);
    }
}

fn of_size<S: Subject>(work: &Work, size: u64, random: &mut Random) {
    let space = S::space();
    let mut intervals = Vec::with_capacity(size as usize);
    let order = random.order(size);
    let begin = Instant::now();
    for position in order {
        intervals.push(S::insert(&space, S::record(), position * SPACING, LENGTH));
    }
    let inserted = begin.elapsed();
    row(work, INSERT, size, || inserted.as_nanos() as f64 / size as f64);

    invalidations::<S>(work, size, random, &space);
    row(work, READ, size, || {
        let mut retries = 0;
        let figure = each(work.turns(2_000_000), |_| {
            retries += u64::from(S::read(&intervals[random.below(size) as usize]));
        });
        black_box(retries);
        figure
    });

    let mut records = Vec::with_capacity(size as usize);
    let begin = Instant::now();
    for interval in intervals {
        records.push(S::remove(interval));
    }
    let removed = begin.elapsed();
    if work.wants(REMOVE) {
        report(REMOVE, size, removed.as_nanos() as f64 / size as f64);
    }
}

fn invalidations<S: Subject>(work: &Work, size: u64, random: &mut Random, space: &S::Space) {
    let turns = work.turns(1_000_000);
    row(work, MISS, size, || each(turns, |_| S::cycle(space, random.below(size) * SPACING + LENGTH, PAGE)));
    row(work, HIT, size, || {
        count::take();
        let figure = each(turns, |_| S::cycle(space, random.below(size) * SPACING, PAGE));
        assert_eq!(count::take(), turns, "each of these invalidations hits one");
        figure
    });
    if size >= 100 {
        row(work, HITS, size, || {
            each(work.turns(100_000), |_| S::cycle(space, random.below(size - 99) * SPACING, 100 * SPACING))
        });
    }
}
