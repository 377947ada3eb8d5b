//! What the machine itself asks for the steps that no library can do without. Machines differ by more than a factor
//! of three in these; what a ratio can reach differs with them.
//!
//! What is done *by hand* is a start and its end of which nothing is left but these steps, in one loop: no subscriber could
//! be inserted or removed, none may panic or call back, and there is but one thread. The [`protocol`] by hand is all that a
//! start and its end look at and say so that there may be more of each.

mod protocol;

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::time::Instant;

use crate::count;
use crate::random::Random;

/// Some lines that say it, in nanoseconds.
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
    let [list, list_4, list_16] = [1, 4, 16].map(list);
    format!(
        "limits    random position {position:.1} ns (each turn of most rows takes one), store + full fence {fenced:.1} ns, \
         exchange {exchange:.1} ns, miss of every cache {:.0} ns\n\
         by hand   start and end {:.1} ns, with one hit {:.1} ns, with a list of 1, 4 and 16 {list:.1}, {list_4:.1} and \
         {list_16:.1} ns\n\
         protocol  by hand, start and end {:.1} ns, with one hit {:.1} ns\n",
        miss(),
        start_and_end(None),
        start_and_end(Some(called)),
        protocol::start_and_end(0x2000),
        protocol::start_and_end(0),
    )
}

/// A callback, as a row has it: it counts.
type Callback = fn(&Slot) -> bool;

/// Where a start says what it does.
#[derive(Default)]
struct Slot {
    word: AtomicU64,
    first: AtomicU64,
    last: AtomicU64,
    pin: AtomicU64,
}

#[inline(never)]
fn called(_: &Slot) -> bool {
    count::hit();
    true
}

/// A start and its end at a random position, beside one subscription: the range, then a word that says that it is published,
/// behind which everybody's writes are seen; a comparison; if that is to hit, the subscription's sequence and its callback;
/// then that it is active, and over.
fn start_and_end(hit: Option<Callback>) -> f64 {
    let (slot, seq) = (Slot::default(), AtomicU64::new(0));
    let (slot, seq) = (black_box(&slot), black_box(&seq));
    let bounds = [AtomicU64::new(0), AtomicU64::new(0x1fff)];
    let [first, last] = black_box(&bounds);
    let at = if hit.is_some() { 0 } else { 0x2000 };
    let (mut random, bound, hit) = (Random::new(), black_box(1), black_box(hit));
    least(|| {
        let position = random.below(bound) * 0x4000 + at;
        let identity = slot.word.load(Ordering::Relaxed) + 4;
        slot.first.store(position, Ordering::Relaxed);
        slot.last.store(position + 0xfff, Ordering::Relaxed);
        slot.pin.store(identity, Ordering::Relaxed);
        slot.word.swap(identity | 1, Ordering::SeqCst);
        if first.load(Ordering::Acquire) <= position + 0xfff && last.load(Ordering::Acquire) >= position {
            seq.store(identity | 1, Ordering::Release);
            if let Some(callback) = hit {
                callback(slot);
            }
        }
        slot.word.store(identity | 3, Ordering::Release);
        slot.word.store(identity, Ordering::Release);
    })
}

/// A start and its end that only a list hears: two sections, in each of which everybody is called.
fn list(subscribers: usize) -> f64 {
    let slot = Slot::default();
    let slot = black_box(&slot);
    let list: Vec<Callback> = black_box(vec![called; subscribers]);
    least(|| {
        for section in [1, 3] {
            slot.word.store(section, Ordering::Release);
            for callback in &list {
                callback(slot);
            }
            slot.word.store(0, Ordering::Release);
        }
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
    fn the_lines_name_what_is_measured() {
        let lines = describe();
        assert_eq!(lines.matches(" ns").count(), 9, "{lines}");
    }
}
