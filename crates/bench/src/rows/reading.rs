//! Readers beside invalidations: of other ranges, of their own, and one that they wait for.

use std::hint::black_box;
use std::pin::pin;
use std::sync::mpsc;
use std::task::{Context, Waker};
use std::thread;
use std::time::{Duration, Instant};

use super::beside::{beside, for_a_time};
use super::interval::{LENGTH, SPACING};
use super::timing::{each, row};
use crate::samples::median;
use crate::subject::{Ours, PAGE, Subject};
use crate::work::Work;

pub(super) fn all<S: Subject>(work: &Work) {
    let space = S::space();
    let size = work.max.clamp(2, 1_000);
    let intervals: Vec<_> =
        (0..size).map(|number| S::insert(&space, S::record(), number * SPACING, LENGTH)).collect();

    row(work, "interval/read-begin+retry beside an invalidator [kernel-like]", size, || {
        let mut retries = 0;
        let figure = beside(
            || S::cycle(&space, 0, PAGE),
            || for_a_time(work.time(200), |_| retries += u64::from(S::read(&intervals[1]))),
        );
        black_box(retries);
        figure
    });
    row(work, "interval/hit+read of the same [kernel-like]", size, || {
        let mut retries = 0;
        let figure = each(work.turns(1_000_000), |turn| {
            let place = turn % size;
            S::cycle(&space, place * SPACING, PAGE);
            retries += u64::from(S::read(&intervals[place as usize]));
        });
        black_box(retries);
        figure
    });
    row(work, "interval/wake a waiting reader [kernel-like]", 1, || {
        wake::<S>(&space, &intervals[0], work.turns(300))
    });
}

/// From just before the end of an invalidation to the return of the read that sleeps for it: the median, as a
/// thread that was put aside meanwhile says nothing of the library.
fn wake<S: Subject>(space: &S::Space, interval: &S::Interval, turns: u64) -> f64 {
    let (go, wait) = mpsc::channel::<()>();
    let (awake, woken) = mpsc::channel();
    let figures: Vec<f64> = thread::scope(|scope| {
        scope.spawn(move || {
            while wait.recv().is_ok() {
                S::read_begin(interval);
                let _ = awake.send(Instant::now());
            }
        });
        let figures = (0..turns).map(|_| {
            let active = S::start(space, 0, PAGE);
            go.send(()).expect("the reader waits");
            // Long enough for it to be asleep.
            thread::sleep(Duration::from_micros(200));
            let begin = Instant::now();
            drop(active);
            let woken: Instant = woken.recv().expect("the reader answers");
            woken.saturating_duration_since(begin).as_nanos() as f64
        });
        let figures = figures.collect();
        drop(go);
        figures
    });
    median(&figures).unwrap_or_default()
}

/// A future that is ready at its first poll.
pub(super) fn without_a_thread(work: &Work) {
    row(work, "interval/read-begin-async+retry", 1, || {
        let space = Ours::space();
        let interval = Ours::insert(&space, (), 0, LENGTH);
        let mut context = Context::from_waker(Waker::noop());
        let mut ready = 0;
        let figure = each(work.turns(2_000_000), |_| {
            let poll = pin!(interval.read_begin_async()).poll(&mut context);
            ready += u64::from(poll.map(|token| !interval.read_retry(token)).is_ready());
        });
        black_box(ready);
        figure
    });
}
