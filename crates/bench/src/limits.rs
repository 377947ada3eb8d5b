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
    let mut random = Random::new();
    let bound = black_box(1);
    let position = least(|| {
        black_box(random.below(bound));
    });
    format!(
        "limits    random position {position:.1} ns (each turn of most rows takes one), store + full fence {fenced:.1} ns, \
         exchange {exchange:.1} ns, what a start and end write {:.1} ns, miss of every cache {:.0} ns\n",
        writes(),
        miss()
    )
}

/// What a start and its end have to write and to wait for, whoever is there: a range, then a word that says that it is
/// published, behind which everybody's writes are seen; then that it is active, and over.
fn writes() -> f64 {
    let line: [AtomicU64; 4] = Default::default();
    let [word, first, last, pin] = black_box(&line);
    least(|| {
        let identity = word.load(Ordering::Relaxed) + 4;
        first.store(identity, Ordering::Relaxed);
        last.store(identity, Ordering::Relaxed);
        pin.store(identity, Ordering::Relaxed);
        word.swap(identity | 1, Ordering::SeqCst);
        word.store(identity | 3, Ordering::Release);
        word.store(identity, Ordering::Release);
    })
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
    fn the_line_names_five_steps() {
        let line = describe();
        assert_eq!(line.matches(" ns").count(), 5, "{line}");
    }
}
