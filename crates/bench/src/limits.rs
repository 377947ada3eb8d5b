//! What the machine itself asks for the steps that no library can do without. Machines differ by more than a factor
//! of three in these; what a ratio can reach differs with them.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::time::Instant;

use crate::random::Random;

/// A line that says it, in nanoseconds.
pub(crate) fn describe() -> String {
    let word = AtomicU64::new(0);
    let word = black_box(&word);
    let fenced = least(|| {
        word.store(1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    });
    let exchange = least(|| {
        black_box(word.swap(1, Ordering::SeqCst));
    });
    format!(
        "limits    store + full fence {fenced:.1} ns, exchange {exchange:.1} ns, miss of every cache {:.0} ns\n",
        miss()
    )
}

/// The least of some short measurements: what others do meanwhile only adds to it.
fn least(mut step: impl FnMut()) -> f64 {
    const TURNS: u32 = 300_000;
    let once = |_| {
        let begin = Instant::now();
        for _ in 0..TURNS {
            step();
        }
        begin.elapsed().as_nanos() as f64 / f64::from(TURNS)
    };
    (0..5).map(once).fold(f64::INFINITY, f64::min)
}

/// One load after another of 128 MiB, each from where the one before says.
fn miss() -> f64 {
    const WORDS: u64 = 16 << 20;
    const LOADS: u64 = 300_000;
    // A line a word that is used; the ring goes through them in random order.
    let order = Random::new().order(WORDS / 8);
    let mut next = vec![0u64; WORDS as usize];
    for pair in order.windows(2) {
        next[pair[0] as usize * 8] = pair[1] * 8;
    }
    let mut at = order[0] * 8;
    let begin = Instant::now();
    for _ in 0..LOADS {
        at = next[at as usize];
    }
    black_box(at);
    begin.elapsed().as_nanos() as f64 / LOADS as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_names_three_steps() {
        let line = describe();
        assert_eq!(line.matches(" ns").count(), 3, "{line}");
    }
}
