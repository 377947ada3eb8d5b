//! Replacement: *counter = n; F; scan* against *publish; F; limit; search*. Each start calls exactly one of the
//! old record and the new one; and the old one's memory outlives every start that may have found it.
//!
//! A break shows as a start that calls both or none, or as a callback on a dropped notifier.

use std::sync::Arc;
use std::vec;

use loom::thread;

use super::{Probe, Watch, check, range, space};
use crate::interval::{Options, Subscription};
use crate::platform::be_number;

#[test]
fn each_start_calls_one_of_the_two_records_of_a_resize() {
    check(4, || {
        let space = Arc::new(space());
        let watch = Watch::new();
        let device = space.insert(range(4, 9), Probe(watch.clone())).unwrap();
        let invalidator = space.clone();
        let thread = thread::spawn(move || {
            be_number(1);
            invalidator.invalidate(range(5, 5), || ());
        });
        // The new record stands before the old one, or behind it.
        let device = device.resize(range(2, 6)).unwrap();
        thread.join().unwrap();
        assert_eq!(watch.calls(), 1);
        drop(device);
    });
}

#[test]
fn each_start_calls_one_of_old_and_new() {
    check(4, || {
        let space = Arc::new(space());
        let (old, new) = (Watch::new(), Watch::new());
        let device = space.insert(range(4, 9), Probe(old.clone())).unwrap();
        let invalidator = space.clone();
        let thread = thread::spawn(move || {
            be_number(1);
            invalidator.invalidate(range(5, 5), || ());
        });
        let probe = Probe(new.clone());
        let device = Subscription::replace(vec![device], &space, range(5, 9), Options::new(), probe).unwrap();
        assert_eq!(old.drops(), 1);
        thread.join().unwrap();
        assert_eq!(old.calls() + new.calls(), 1);
        drop(device);
    });
}
