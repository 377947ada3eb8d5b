//! The form with a guard, beside the form with a closure that all other rows use.

use super::interval::{LENGTH, SPACING};
use super::timing::{each, row};
use crate::subject::{Ours, PAGE, Subject};
use crate::work::Work;

pub(super) fn all(work: &Work) {
    let size = work.max.min(1_000);
    let space = Ours::space();
    let _intervals: Vec<_> =
        (0..size).map(|number| Ours::insert(&space, (), number * SPACING, LENGTH)).collect();
    row(work, "interval/invalidate-1-hit, in order", size, || {
        each(work.turns(1_000_000), |turn| Ours::cycle(&space, turn % size * SPACING, PAGE))
    });
    row(work, "interval/invalidate-1-hit, in order, with a guard", size, || {
        each(work.turns(1_000_000), |turn| Ours::start(&space, turn % size * SPACING, PAGE).end())
    });
}
