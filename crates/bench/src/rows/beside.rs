//! One thread that is measured beside another one that is not.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// What the other thread looks at.
#[derive(Default)]
pub(super) struct Other {
    begun: AtomicBool,
    over: AtomicBool,
}

impl Other {
    /// Says whether the other thread is to make one more turn.
    pub(super) fn goes_on(&self) -> bool {
        if !self.begun.load(Ordering::Relaxed) {
            self.begun.store(true, Ordering::Relaxed);
        }
        !self.over.load(Ordering::Relaxed)
    }
}

/// The measured thread is through, also if it panics.
struct Through<'o>(&'o Other);

impl Drop for Through<'_> {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Relaxed);
    }
}

/// Measures while the other thread makes turn after turn.
pub(super) fn beside<R>(mut turn: impl FnMut() + Send, measure: impl FnOnce() -> R) -> R {
    beside_body(
        |other| {
            while other.goes_on() {
                turn();
            }
        },
        measure,
    )
}

/// Measures while the other thread runs `body`, which returns soon after it may not go on.
pub(super) fn beside_body<R>(body: impl FnOnce(&Other) + Send, measure: impl FnOnce() -> R) -> R {
    let other = Other::default();
    thread::scope(|scope| {
        let other = &other;
        scope.spawn(move || body(other));
        while !other.begun.load(Ordering::Relaxed) {
            thread::yield_now();
        }
        let _through = Through(other);
        measure()
    })
}

/// Nanoseconds a turn, of as many turns as fit into some time.
pub(super) fn for_a_time(time: Duration, mut turn: impl FnMut(u64)) -> f64 {
    let begin = Instant::now();
    let mut turns = 0;
    loop {
        for _ in 0..16 {
            turn(turns);
            turns += 1;
        }
        let taken = begin.elapsed();
        if taken >= time {
            return taken.as_nanos() as f64 / turns as f64;
        }
    }
}
