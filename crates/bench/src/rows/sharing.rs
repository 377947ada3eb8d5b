//! Subscribers that come and go while somebody else is at it, and subscribers that several share.

use std::thread;
use std::time::{Duration, Instant};

use super::beside::beside;
use super::timing::{each, row};
use crate::subject::{PAGE, Subject};
use crate::work::Work;

pub(super) fn all<S: Subject>(work: &Work) {
    row(work, "unregister beside a walker [kernel-like]", 1, || beside_a_walker::<S>(work));
    row(work, "unregister+register beside a slow space [kernel-like]", 1, || beside_a_slow_one::<S>(work));
    row(work, "get+put, shared [kernel-like]", 1, || {
        let space = S::space();
        let held = S::get(&space);
        let figure = each(work.turns(1_000_000), |_| S::put(S::get(&space)));
        S::put(held);
        figure
    });
    row(work, "get+put, alone [kernel-like]", 1, || {
        let space = S::space();
        let _other = S::register(&space);
        each(work.turns(50_000), |_| S::put(S::get(&space)))
    });
}

/// Nanoseconds of an unregister while another thread walks the same list without a pause.
fn beside_a_walker<S: Subject>(work: &Work) -> f64 {
    let space = S::space();
    let _standing = S::register(&space);
    let turns = work.turns(20_000);
    let unregister = || {
        let one = S::register(&space);
        let begin = Instant::now();
        S::unregister(one);
        begin.elapsed()
    };
    let taken: Duration = beside(|| S::cycle(&space, 0, PAGE), || (0..turns).map(|_| unregister()).sum());
    taken.as_nanos() as f64 / turns as f64
}

/// The other space's callback takes a millisecond; each of these changes comes at another moment of it.
fn beside_a_slow_one<S: Subject>(work: &Work) -> f64 {
    let (space, other) = (S::space(), S::space());
    let _slow = S::register_slow(&other, Duration::from_millis(1));
    let _standing = S::register(&space);
    let turns = work.turns(100);
    let change = || {
        thread::sleep(Duration::from_micros(300));
        let begin = Instant::now();
        S::unregister(S::register(&space));
        begin.elapsed()
    };
    let taken: Duration = beside(|| S::cycle(&other, 0, PAGE), || (0..turns).map(|_| change()).sum());
    taken.as_nanos() as f64 / turns as f64
}
