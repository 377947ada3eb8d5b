//! The change of phase, and of the call, under a scan: a hazard is taken by one call after the other, and a
//! scan may read the word of the one and the range of the next.
//!
//! A scan that lets such a hazard pass must still see what the older call did; that is `look_again`. A break
//! shows as a fresh token for a page that was read before the end of the older call, or as a drop that is not
//! ordered behind the older call's callback.

use std::sync::Arc;

use loom::sync::atomic::{AtomicU64, Ordering::Relaxed};
use loom::thread;

use super::{Probe, Watch, check, range, space};
use crate::Invalidation;
use crate::interval::Answer;
use crate::platform::{be_number, without_light_barriers};

#[test]
fn a_read_that_sees_the_next_call_sees_the_end_of_the_one_before() {
    check(3, || {
        let space = Arc::new(space());
        let page = Arc::new(AtomicU64::new(0));
        let device = space.insert(range(0, 1), |_: &Invalidation| Answer::Done).unwrap();
        let (invalidator, written) = (space.clone(), page.clone());
        let thread = thread::spawn(move || {
            be_number(1);
            invalidator.invalidate(range(0, 0), || written.store(1, Relaxed));
            invalidator.invalidate(range(9, 9), || ());
        });
        let token = device.read_begin();
        let value = page.load(Relaxed);
        thread.join().unwrap();
        assert!(device.read_retry(token) || value == 1);
        drop(device);
    });
}

#[test]
fn a_remove_that_sees_the_next_call_is_behind_the_callback_of_the_one_before() {
    check(4, || {
        let space = Arc::new(space());
        let watch = Watch::new();
        let device = space.insert(range(0, 1), Probe(watch.clone())).unwrap();
        let invalidator = space.clone();
        let thread = thread::spawn(move || {
            be_number(1);
            invalidator.invalidate(range(0, 0), || ());
            invalidator.invalidate(range(9, 9), || ());
        });
        device.remove();
        assert_eq!(watch.drops(), 1);
        thread.join().unwrap();
    });
}

/// Calling to active is one invalidation: a reader that found it calling waits on until it is over.
#[test]
fn active_is_the_same_call_as_calling() {
    check(5, || {
        let space = Arc::new(space());
        let page = Arc::new(AtomicU64::new(0));
        let device = space.insert(range(0, 1), |_: &Invalidation| Answer::Done).unwrap();
        let (invalidator, written) = (space.clone(), page.clone());
        let thread = thread::spawn(move || {
            be_number(1);
            let active = invalidator.invalidate_start(range(0, 0));
            written.store(1, Relaxed);
            active.end();
        });
        let token = device.try_read_begin();
        let value = page.load(Relaxed);
        thread.join().unwrap();
        assert!(token.is_none_or(|token| device.read_retry(token) || value == 1));
        drop(device);
    });
}

/// Nobody waits, so an end passes no full fence before the next call's range.
#[test]
fn between_heavy_barriers_a_read_sees_the_end_of_the_call_before() {
    without_light_barriers(|| {
        check(5, || {
            let space = Arc::new(space());
            let page = Arc::new(AtomicU64::new(0));
            let device = space.insert(range(0, 1), |_: &Invalidation| Answer::Done).unwrap();
            let (invalidator, written) = (space.clone(), page.clone());
            let thread = thread::spawn(move || {
                be_number(1);
                invalidator.invalidate(range(0, 0), || written.store(1, Relaxed));
                invalidator.invalidate(range(9, 9), || ());
            });
            let token = device.try_read_begin();
            let value = page.load(Relaxed);
            thread.join().unwrap();
            assert!(token.is_none_or(|token| device.read_retry(token) || value == 1));
            drop(device);
        });
    });
}
