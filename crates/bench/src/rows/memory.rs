//! Memory: what the library asks the allocator for. What a subscriber keeps of its own is not in it, such as
//! the handle of each subscription.

use super::interval::{LENGTH, SPACING};
use super::timing::row;
use crate::heap;
use crate::random::Random;
use crate::subject::Subject;
use crate::work::Work;

pub(super) fn all<S: Subject>(work: &Work) {
    row(work, "space that nobody watches [bytes]", 0, || heap::growth(S::space).1 as f64);
    row(work, "space that one watches [bytes]", 1, || {
        heap::growth(|| {
            let space = S::space();
            let interval = S::insert(&space, S::record(), 0, LENGTH);
            (space, interval)
        })
        .1 as f64
    });
    for size in [1, work.max.min(1_000_000)] {
        row(work, "subscription [bytes]", size, || subscriptions::<S>(size));
    }
}

/// Bytes a subscription, of `size` that are inserted in random order into a new space.
fn subscriptions<S: Subject>(size: u64) -> f64 {
    let space = S::space();
    let order = Random::new().order(size);
    let mut intervals = Vec::with_capacity(order.len());
    let ((), bytes) = heap::growth(|| {
        for position in order {
            intervals.push(S::insert(&space, S::record(), position * SPACING, LENGTH));
        }
    });
    bytes as f64 / size as f64
}
