//! Timing a piece of work, and saying what came out.

use std::hint::black_box;
use std::time::Instant;

use crate::line::Line;
use crate::work::Work;

/// Nanoseconds a turn of `turns` turns, each given its number.
pub(super) fn each(turns: u64, mut work: impl FnMut(u64)) -> f64 {
    let turns = black_box(turns);
    let begin = Instant::now();
    for turn in 0..turns {
        work(turn);
    }
    begin.elapsed().as_nanos() as f64 / turns as f64
}

/// Prints a result, for who started this process.
pub(super) fn report(row: &str, n: u64, figure: f64) {
    println!("{}", Line { row: row.to_owned(), n, figure });
}

/// Measures a row if it is wanted.
pub(super) fn row(work: &Work, name: &str, n: u64, measure: impl FnOnce() -> f64) {
    if work.wants(name) {
        report(name, n, measure());
    }
}
