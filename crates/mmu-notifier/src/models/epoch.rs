//! Epochs: *pin; F; load the root* of a search against *unlink; stamp and advance; F; pins* of a reclaim. A
//! page is used again only when no search can be in it.
//!
//! Pages have two entries here, so three inserts split the root, and removes unlink leaves whose memory the
//! next inserts take. A break shows as a start that misses a subscription that was there all the time, or calls
//! one that it did not overlap.

use std::sync::Arc;

use loom::thread;

use super::{Probe, Watch, check, range, space};
use crate::platform::be_number;
use crate::{AddressSpace, Batch};

/// Rebuilds the leaf that a search may be in, twice: the second time the first leaf is free again.
#[test]
fn a_search_misses_nobody_while_its_page_is_replaced() {
    check(3, || {
        let space = Arc::new(space());
        let (watch, other) = (Watch::new(), Watch::new());
        let stays = space.insert(range(5, 5), Probe(watch.clone())).unwrap();
        let invalidator = space.clone();
        let thread = thread::spawn(move || {
            be_number(1);
            invalidator.invalidate(range(5, 6), || ());
        });
        for _ in 0..3 {
            space.insert(range(8, 8), Probe(other.clone())).map(drop).unwrap();
            other.drops.store(0, core::sync::atomic::Ordering::Relaxed);
        }
        thread.join().unwrap();
        assert_eq!((watch.calls(), other.calls()), (1, 0));
        drop(stays);
    });
}

/// A start that hits 5 finds it while inserts replace its page, and nobody is removed: no other fence than
/// the reclaim's own stands between unlink and pins.
fn found_beside_inserts(start: fn(&AddressSpace)) {
    check(2, move || {
        let space = Arc::new(space());
        let (watch, other) = (Watch::new(), Watch::new());
        let insert = |at, watch: &Arc<Watch>| space.insert(range(at, at), Probe(watch.clone())).unwrap();
        let stays = [insert(5, &watch), insert(8, &other)];
        let invalidator = space.clone();
        let thread = thread::spawn(move || {
            be_number(1);
            start(&invalidator);
        });
        let more = [8, 8, 8].map(|at| insert(at, &other));
        thread.join().unwrap();
        assert_eq!((watch.calls(), other.calls()), (1, 0));
        drop((stays, more));
    });
}

#[test]
fn a_search_misses_nobody_while_only_inserts_replace_its_page() {
    found_beside_inserts(|space| space.invalidate(range(5, 6), || ()));
}

/// The start is one of two ranges, which are searched under the pin of the first.
#[test]
fn a_search_under_the_pin_of_another_range_misses_nobody() {
    found_beside_inserts(|space| {
        let mut batch = Batch::new(space);
        batch.push(range(1, 1)).unwrap();
        batch.push(range(5, 6)).unwrap();
        batch.start().end();
    });
}

/// The start is longer than a batch, so it pins a second search.
#[test]
fn a_later_search_misses_nobody_either() {
    check(2, || {
        let space = Arc::new(space());
        let (first, second, other) = (Watch::new(), Watch::new(), Watch::new());
        let insert = |at, watch: &Arc<Watch>| space.insert(range(at, at), Probe(watch.clone())).unwrap();
        let stays = [insert(5, &first), insert(6, &second)];
        let invalidator = space.clone();
        let thread = thread::spawn(move || {
            be_number(1);
            invalidator.invalidate(range(5, 6), || ());
        });
        let more = [8, 8, 8].map(|at| insert(at, &other));
        thread.join().unwrap();
        assert_eq!((first.calls(), second.calls(), other.calls()), (1, 1, 0));
        drop((stays, more));
    });
}

/// A leaf runs empty and is unlinked; its page comes back in another place.
#[test]
fn a_search_misses_nobody_while_a_leaf_is_unlinked_and_used_again() {
    check(3, || {
        let space = Arc::new(space());
        let (watch, other) = (Watch::new(), Watch::new());
        let stays = space.insert(range(10, 99), Probe(watch.clone())).unwrap();
        let moving = [20, 30].map(|at| space.insert(range(at, at), Probe(Watch::new())).unwrap());
        let invalidator = space.clone();
        let thread = thread::spawn(move || {
            be_number(1);
            invalidator.invalidate(range(50, 60), || ());
        });
        moving.into_iter().for_each(drop);
        let back = space.insert(range(11, 11), Probe(other.clone())).unwrap();
        thread.join().unwrap();
        assert_eq!((watch.calls(), other.calls()), (1, 0));
        drop((stays, back));
    });
}
