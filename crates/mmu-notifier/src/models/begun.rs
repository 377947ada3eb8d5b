//! Second passes: two starts whose first passes a subscription answers with "begun", past what fits a frame.
//! The chain goes through the subscription, so one of the two chains it and the other finishes it at once.
//!
//! Each start makes one second pass for each first pass, behind it. A break shows as a second pass too many or
//! too few, or as a chain that leads into another start's.

use core::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::Arc;

use loom::thread;

use super::{check, range, space};
use crate::Invalidation;
use crate::interval::{Answer, Notifier, Sequence};
use crate::platform::be_number;

/// How often each of the two starts made its passes; a start is told by its first byte.
#[derive(Default)]
struct Passes {
    first: [AtomicU32; 2],
    second: [AtomicU32; 2],
}

struct Device(Arc<Passes>);

impl Notifier for Device {
    fn invalidate(&self, invalidation: &Invalidation, _: Sequence) -> Answer {
        self.0.first[invalidation.range().start().get() as usize].fetch_add(1, Relaxed);
        Answer::Begun
    }

    fn finish(&self, invalidation: &Invalidation) {
        let start = invalidation.range().start().get() as usize;
        let second = self.0.second[start].fetch_add(1, Relaxed);
        assert!(second < self.0.first[start].load(Relaxed), "finished before it began");
    }
}

#[test]
fn each_start_finishes_what_it_began() {
    check(3, || {
        let space = Arc::new(space());
        let passes: [Arc<Passes>; 3] = Default::default();
        // The first of them fits the frame, the others are chained.
        let devices = passes.clone().map(|passes| space.insert(range(0, 9), Device(passes)).unwrap());
        let invalidator = space.clone();
        let thread = thread::spawn(move || {
            be_number(1);
            invalidator.invalidate(range(0, 5), || ());
        });
        be_number(2);
        space.invalidate(range(1, 5), || ());
        thread.join().unwrap();
        for passes in &passes {
            for start in [0, 1] {
                let counts = (passes.first[start].load(Relaxed), passes.second[start].load(Relaxed));
                assert_eq!(counts, (1, 1));
            }
        }
        drop(devices);
    });
}
