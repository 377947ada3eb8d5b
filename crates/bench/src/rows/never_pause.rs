//! A remove while invalidations of other ranges never pause: at each moment one is active. The kernel's way
//! never returns from it, so that there is nothing to compare it with.

use std::time::Instant;

use super::beside::beside_body;
use super::interval::LENGTH;
use super::timing::row;
use crate::samples::median;
use crate::subject::{Ours, PAGE, Subject};
use crate::work::Work;

/// The median of many: a thread that was put aside meanwhile says nothing of the library.
pub(super) fn remove(work: &Work) {
    const HERE: u64 = 1 << 40;
    const ELSEWHERE: u64 = 1 << 41;
    row(work, "interval/remove while others never pause [us]", 1, || {
        let space = Ours::space();
        let _watched = [HERE, ELSEWHERE].map(|from| Ours::insert(&space, (), from, LENGTH));
        beside_body(
            |other| {
                let mut here = Ours::start(&space, HERE, PAGE);
                while other.goes_on() {
                    let elsewhere = Ours::start(&space, ELSEWHERE, PAGE);
                    here.end();
                    here = Ours::start(&space, HERE, PAGE);
                    elsewhere.end();
                }
            },
            || {
                let removes = (0..work.turns(100_000)).map(|_| {
                    let interval = Ours::insert(&space, (), 0, LENGTH);
                    let begin = Instant::now();
                    interval.remove();
                    begin.elapsed().as_nanos() as f64
                });
                median(&removes.collect::<Vec<_>>()).unwrap_or_default()
            },
        )
    });
}
