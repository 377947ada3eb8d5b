//! Several threads in one space, each with a subscription of its own, far from the others'.

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::timing::row;
use crate::subject::{PAGE, Subject};
use crate::work::Work;

/// Threads that invalidate what they watch; all callbacks count in one place, as in C.
pub(super) fn invalidators<S: Subject>(work: &Work, threads: &[u64]) {
    invalidate::<S, _>(work, "interval/invalidate-hit threads", threads, 700, |space, from| {
        S::insert(space, S::record(), from, WATCHED)
    });
}

/// The same with callbacks that share nothing.
pub(super) fn invalidators_alone<S: Subject>(work: &Work, threads: &[u64]) {
    invalidate::<S, _>(
        work,
        "interval/invalidate-hit threads, own counters [kernel-like]",
        threads,
        300,
        |space, from| S::insert_alone(space, from, WATCHED),
    );
}

/// Threads that read what they watch, while nobody invalidates.
pub(super) fn readers<S: Subject>(work: &Work, threads: &[u64]) {
    read::<S>(work, "interval/read threads", threads);
}

/// The same with numbers of threads that the C program has not.
pub(super) fn readers_more<S: Subject>(work: &Work, threads: &[u64]) {
    read::<S>(work, "interval/read threads [kernel-like]", threads);
}

/// How many bytes each watches, 2^40 bytes from each other.
const WATCHED: u64 = 1 << 20;

/// Eight subscriptions.
fn far_apart<S: Subject, I>(insert: impl Fn(&S::Space, u64) -> I) -> (S::Space, Vec<I>) {
    let space = S::space();
    let intervals = (1..=8).map(|number| insert(&space, number << 40)).collect();
    (space, intervals)
}

fn invalidate<S: Subject, I>(
    work: &Work,
    name: &str,
    threads: &[u64],
    milliseconds: u64,
    insert: impl Fn(&S::Space, u64) -> I,
) {
    let time = work.time(milliseconds);
    let (space, _intervals) = far_apart::<S, I>(insert);
    for &threads in threads {
        row(work, name, threads, || {
            all_at_once(time, threads, |thread, stop| {
                let base = (thread + 1) << 40;
                until(stop, |turn| S::cycle(&space, base + turn * PAGE, PAGE))
            })
        });
    }
}

fn read<S: Subject>(work: &Work, name: &str, threads: &[u64]) {
    let (_space, intervals) = far_apart::<S, _>(|space, from| S::insert(space, S::record(), from, WATCHED));
    for &threads in threads {
        row(work, name, threads, || {
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

/// Repeats `turn` in groups of 64, at least one, until it is told to stop; gives the number of turns.
fn until(stop: &AtomicBool, mut turn: impl FnMut(u64)) -> u64 {
    let mut turns = 0;
    loop {
        (0..64).for_each(&mut turn);
        turns += 64;
        if stop.load(Ordering::Relaxed) {
            return turns;
        }
    }
}

/// Nanoseconds of the clock on the wall a turn, over the turns of all threads.
fn all_at_once(time: Duration, threads: u64, body: impl Fn(u64, &AtomicBool) -> u64 + Sync) -> f64 {
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
