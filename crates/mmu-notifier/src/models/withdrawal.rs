//! Publication against withdrawal: *publish; F; limit; search* of a start against *withdraw; F; scan* of a
//! remove. P2: when remove has returned, no callback runs or will run. P7: what was inserted before a start
//! and is not removed beside it is called.
//!
//! A break shows as a callback on a dropped subscriber, or as a drop that is not ordered behind the last
//! callback.

use std::sync::Arc;

use loom::sync::atomic::{AtomicU64, Ordering};
use loom::thread;

use super::{Probe, Watch, check, range, space};
use crate::platform::be_number;

#[test]
fn after_remove_no_callback_runs() {
    check(5, || {
        let space = space();
        let watch = Watch::new();
        let gone = space.insert(range(0, 9), Probe(watch.clone())).unwrap();
        let invalidator = space.downgrade();
        let thread = thread::spawn(move || {
            be_number(1);
            invalidator.invalidate(range(5, 5), || ());
        });
        gone.remove();
        assert_eq!(watch.drops(), 1);
        thread.join().unwrap();
        assert!(watch.calls() <= 1);
    });
}

/// The start is longer than a batch: the second search is a search of its own.
#[test]
fn after_remove_no_callback_runs_from_a_later_batch() {
    check(5, || {
        let space = space();
        let (first, second) = (Watch::new(), Watch::new());
        let stays = space.insert(range(0, 9), Probe(first.clone())).unwrap();
        let gone = space.insert(range(1, 9), Probe(second.clone())).unwrap();
        let invalidator = space.downgrade();
        let thread = thread::spawn(move || {
            be_number(1);
            invalidator.invalidate(range(5, 5), || ());
        });
        gone.remove();
        thread.join().unwrap();
        assert_eq!((first.calls(), second.drops()), (1, 1));
        drop(stays);
    });
}

/// The invalidator's record is the second one of its kind, enlisted beside the remove's scan.
#[test]
fn a_record_that_is_new_to_the_scan_is_not_missed() {
    check(5, || {
        let space = space();
        let watch = Watch::new();
        let other = space.invalidate_start_owned(range(100, 100));
        let gone = space.insert(range(0, 9), Probe(watch.clone())).unwrap();
        let invalidator = space.downgrade();
        let thread = thread::spawn(move || invalidator.invalidate(range(5, 5), || ()));
        gone.remove();
        assert_eq!(watch.drops(), 1);
        thread.join().unwrap();
        other.end();
    });
}

/// No record is left: the start is one of the crowd.
#[test]
fn after_remove_no_callback_of_the_crowd_runs() {
    check(5, || {
        let space = space();
        let watch = Watch::new();
        let gone = space.insert(range(0, 9), Probe(watch.clone())).unwrap();
        let held = [1, 2].map(|_| space.invalidate_start_owned(range(100, 100)));
        let invalidator = space.downgrade();
        let thread = thread::spawn(move || invalidator.invalidate(range(5, 5), || ()));
        gone.remove();
        assert_eq!(watch.drops(), 1);
        thread.join().unwrap();
        drop(held);
    });
}

/// An insert races with two starts: the one that begins behind it calls it.
#[test]
fn an_insert_is_called_by_every_later_start() {
    check(4, || {
        let space = Arc::new(space());
        let watch = Watch::new();
        let invalidator = space.downgrade();
        let thread = thread::spawn(move || {
            be_number(1);
            invalidator.invalidate(range(5, 5), || ());
        });
        let inserted = space.insert(range(0, 9), Probe(watch.clone())).unwrap();
        let before = watch.calls();
        space.invalidate(range(9, 9), || ());
        assert!(watch.calls() > before);
        thread.join().unwrap();
        drop(inserted);
    });
}

/// P7, where nothing is written that the start could have read: who finds, behind its insert, that an invalidation
/// has not begun is called by it. *Entry; F; look* against *begun; publish; F; search*.
#[test]
fn an_insert_is_called_by_a_start_that_it_saw_to_come() {
    check(4, || {
        let space = Arc::new(space());
        let (watch, begun) = (Watch::new(), Arc::new(AtomicU64::new(0)));
        let (invalidator, begins) = (space.downgrade(), begun.clone());
        let thread = thread::spawn(move || {
            be_number(1);
            begins.store(1, Ordering::Relaxed);
            invalidator.invalidate(range(5, 5), || ());
        });
        let inserted = space.insert(range(0, 9), Probe(watch.clone())).unwrap();
        let is_to_come = begun.load(Ordering::Relaxed) == 0;
        thread.join().unwrap();
        assert!(!is_to_come || watch.calls() == 1, "a start was missed that began behind the insert");
        drop(inserted);
    });
}
