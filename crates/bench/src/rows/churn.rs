//! One thread invalidates, another one inserts and removes, where neither touches what the other does.

use super::beside::{beside, for_a_time};
use super::interval::{LENGTH, SPACING};
use super::timing::row;
use crate::subject::{PAGE, Subject};
use crate::work::Work;

/// Where the churn is, far above the intervals that stay.
const ELSEWHERE: u64 = 1 << 40;

pub(super) fn all<S: Subject>(work: &Work) {
    let space = S::space();
    let standing = work.max.min(1_000);
    let _intervals: Vec<_> =
        (0..standing).map(|number| S::insert(&space, S::record(), number * SPACING, LENGTH)).collect();

    row(work, "interval/invalidate-1-hit beside churn [kernel-like]", standing, || {
        let mut record = Some(S::record());
        beside(
            || record = record.take().map(|record| turn::<S>(&space, record)),
            || for_a_time(work.time(200), |turn| S::cycle(&space, turn % standing * SPACING, PAGE)),
        )
    });
    row(work, "interval/insert+remove beside an invalidator [kernel-like]", standing, || {
        let mut place = 0;
        let mut record = Some(S::record());
        beside(
            || {
                place = (place + 1) % standing;
                S::cycle(&space, place * SPACING, PAGE);
            },
            || for_a_time(work.time(200), |_| record = record.take().map(|record| turn::<S>(&space, record))),
        )
    });
}

/// Inserts one and removes it.
#[inline]
fn turn<S: Subject>(space: &S::Space, record: S::Record) -> S::Record {
    S::remove(S::insert(space, record, ELSEWHERE, LENGTH))
}
