//! A run: its seed, its length, its random numbers, and the watchdog around it.

use std::ops::RangeInclusive;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mmu_notifier::Range;

/// How long somebody may sleep before it counts as for ever.
const PATIENCE: Duration = Duration::from_secs(60);

/// The length and the seed of one run.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    seed: u64,
    length: Duration,
    end: Instant,
}

impl Run {
    /// Begins a run of `STRESS_SECONDS` (2) with the seed `STRESS_SEED` (the time), and prints both.
    pub fn begin(name: &str) -> Run {
        let seconds = number("STRESS_SECONDS").unwrap_or(2);
        let clock = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |now| now.as_nanos() as u64);
        let seed = number("STRESS_SEED").unwrap_or_else(clock);
        eprintln!("{name}: STRESS_SEED={seed} STRESS_SECONDS={seconds}");
        let length = Duration::from_secs(seconds);
        Run { seed, length, end: Instant::now() + length }
    }

    /// Gives the seed.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Says whether the run is not over.
    pub fn goes_on(&self) -> bool {
        Instant::now() < self.end
    }

    /// Gives the random numbers of one of the run's threads.
    pub fn random(&self, thread: u64) -> Random {
        Random(self.seed ^ thread.wrapping_mul(0xd6e8_feb8_6659_fd93))
    }
}

/// Reads a number from the environment.
pub fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// Runs `load` on a thread of its own; fails, naming it and its seed, if somebody in it sleeps for ever.
///
/// # Panics
/// If `load` panics or hangs.
pub fn watched(name: &'static str, load: impl FnOnce(Run) + Send + 'static) {
    let run = Run::begin(name);
    let (done, finished) = channel();
    let thread = thread::spawn(move || {
        load(run);
        // Nobody listens any more only if the watchdog has spoken.
        let _ = done.send(());
    });
    if finished.recv_timeout(run.length + PATIENCE) == Err(RecvTimeoutError::Timeout) {
        panic!("{name} hangs: somebody sleeps for ever; STRESS_SEED={}", run.seed);
    }
    if let Err(panic) = thread.join() {
        resume_unwind(panic);
    }
}

/// Repeatable random numbers (splitmix64).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Gives the next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Gives a number below `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.number() % bound
    }

    /// Says yes once in `times`.
    pub fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// Gives a range with its start below `space` and a length among `lengths`.
    ///
    /// # Panics
    /// If such a range leaves the address space.
    pub fn range(&mut self, space: u64, lengths: RangeInclusive<u64>) -> Range {
        let (start, more) = (self.below(space), self.below(lengths.end() - lengths.start() + 1));
        Range::from_len(start, lengths.start() + more).expect("a range far below the top")
    }

    /// Lets others go first, sometimes.
    pub fn dawdle(&mut self) {
        match self.below(8) {
            0 => thread::yield_now(),
            1 => (0..self.below(200)).for_each(|_| std::hint::spin_loop()),
            _ => (),
        }
    }
}

/// Violations seen, by callbacks too, where a panic would end up in somebody else's call.
#[derive(Debug, Default)]
pub struct Violations {
    count: AtomicU64,
    first: Mutex<Option<String>>,
}

impl Violations {
    /// Notes a violation unless `holds`.
    pub fn check(&self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.count.fetch_add(1, Ordering::Relaxed);
            lock(&self.first).get_or_insert_with(what);
        }
    }

    /// Fails if there was a violation.
    ///
    /// # Panics
    /// If there was one, with the first.
    pub fn verdict(&self, run: Run) {
        let count = self.count.load(Ordering::Relaxed);
        if let Some(first) = lock(&self.first).take() {
            panic!("{count} violations with STRESS_SEED={}, the first: {first}", run.seed);
        }
    }
}

/// Locks, whatever panicked under the lock before.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
