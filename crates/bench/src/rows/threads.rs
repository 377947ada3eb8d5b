//! Several threads in one space, each with a subscription of its own, far from the others'.

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::timing::row;
use crate::subject::{PAGE, Subject};
use crate::work::Work;

/// Threads that invalidate what they watch.
pub(super) fn invalidators<S: Subject>(work: &Work, threads: &[u64]) {
    let (space, _intervals) = far_apart::<S>();
    for &threads in threads {
        row(work, "interval/invalidate-hit threads", threads, || {
            all_at_once(work.time(700), threads, |thread, stop| {
                let base = (thread + 1) << 40;
                until(stop, |turn| S::cycle(&space, base + turn * PAGE, PAGE))
            })
        });
    }
}

/// Threads that read what they watch, while nobody invalidates.
pub(super) fn readers<S: Subject>(work: &Work, threads: &[u64]) {
    let (_space, intervals) = far_apart::<S>();
    for &threads in threads {
        row(work, "interval/read threads", threads, || {
            all_at_once(work.time(700), threads, |thread, stop| {
                let mut retries = 0;
                let own = &intervals[thread as usize];
                let turns = until(stop, |_| retries += u64::from(S::read(own)));
                black_box(retries);
                turns
            })
        });
    }
}

/// Eight subscriptions, 2^40 bytes from each other.
fn far_apart<S: Subject>() -> (S::Space, Vec<S::Interval>) {
    let space = S::space();
    let intervals = (1..=8).map(|number| S::insert(&space, number << 40, 1 << 20)).collect();
    (space, intervals)
}

/// Repeats `work` in groups of 64 turns until it is told to stop; gives the number of turns.
pub(super) fn until(stop: &AtomicBool, mut work: impl FnMut(u64)) -> u64 {
    let mut turns = 0;
    while !stop.load(Ordering::Relaxed) {
        (0..64).for_each(&mut work);
        turns += 64;
    }
    turns
}

/// Nanoseconds of the clock on the wall a turn, over the turns of all threads.
pub(super) fn all_at_once(
    time: Duration,
    threads: u64,
    body: impl Fn(u64, &AtomicBool) -> u64 + Sync,
) -> f64 {
    let stop = AtomicBool::new(false);
    let (body, stop) = (&body, &stop);
    let begin = Instant::now();
    let turns: u64 = thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|thread| scope.spawn(move || body(thread, stop))).collect();
        thread::sleep(time);
        stop.store(true, Ordering::Relaxed);
        running.into_iter().map(|thread| thread.join().expect("a row does not panic")).sum()
    });
    begin.elapsed().as_nanos() as f64 / turns as f64
}
