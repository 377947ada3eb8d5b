//! Measures a cycle of start and end, reads, inserts and removes, one row a size: `rows [MAX]`.
//!
//! The columns are name, subscribers or threads, nanoseconds per operation. `MAX` is the largest number of intervals
//! (1,000,000). Nodes stand in one array, as a C program would have them.
#![expect(unsafe_code, reason = "intervals in an array")]

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use kernel_like::interval::{Interval, Notifier, Sequence};
use kernel_like::list::{self, Entry};
use kernel_like::{Answer, Invalidation, Space};

const PAGE: u64 = 4096;

static HITS: AtomicU64 = AtomicU64::new(0);

fn hit() {
    HITS.store(HITS.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
}

struct Device;

impl Notifier for Device {
    fn invalidate(interval: &Interval<Self>, _what: &Invalidation, seq: Sequence) -> Answer {
        interval.set_seq(seq);
        hit();
        Answer::Done
    }
}

struct Listener;

impl list::Notifier for Listener {
    fn invalidate_range_start(&self, _what: &Invalidation) -> Answer {
        hit();
        Answer::Done
    }

    fn invalidate_range_end(&self, _what: &Invalidation) {
        hit();
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

fn report(name: &str, of: u64, count: u64, began: Instant) {
    println!("{name:<34} {of:>10} {:>10.1}", began.elapsed().as_nanos() as f64 / count as f64);
}

#[inline]
fn cycle(space: &Space, start: u64, end: u64) {
    space.invalidate_start(start..end).end();
}

fn lists() {
    let space = Space::new();
    let (began, n) = (Instant::now(), 20_000_000);
    for i in 0..n {
        cycle(black_box(&space), i * PAGE, (i + 1) * PAGE);
    }
    report("invalidate/no-subscriber", 0, n, began);
    for count in [1, 4, 16] {
        let space = Space::new();
        let register = |entry| space.register(entry).expect("the space has a user");
        let mut members: Vec<_> = (0..count).map(|_| Some(register(Entry::boxed(Listener)))).collect();
        let (began, n) = (Instant::now(), 2_000_000);
        (0..n).for_each(|_| cycle(&space, 0, PAGE));
        report("invalidate/list", count, n, began);
        let (began, n) = (Instant::now(), 20_000);
        for _ in 0..n {
            let entry = members[0].take().expect("it is registered").unregister();
            members[0] = Some(register(entry));
        }
        report("unregister+register", count, n, began);
    }
}

/// Measures one size.
fn intervals(k: u64, rng: &mut Random) {
    let space = Space::new();
    let nodes: Vec<Interval<Device>> = (0..k).map(|_| Interval::new(Device)).collect();
    let mut places: Vec<u64> = (0..k).collect();
    for i in (1..k).rev() {
        places.swap(i as usize, rng.below(i + 1) as usize);
    }
    let began = Instant::now();
    for (node, place) in nodes.iter().zip(&places) {
        let start = place * 4 * PAGE;
        // SAFETY: each is inserted once, and stays in the array until it is removed below.
        unsafe { space.insert_in_place(start..start + 2 * PAGE, node) }.expect("the space has a user");
    }
    report("interval/insert-random", k, k, began);
    invalidations(&space, k, rng);
    reads(&nodes, rng);
    let began = Instant::now();
    for node in &nodes {
        // SAFETY: it was inserted above, and this is the only remove.
        unsafe { node.remove_in_place() };
    }
    report("interval/remove", k, k, began);
}

#[inline(never)]
fn invalidations(space: &Space, k: u64, rng: &mut Random) {
    let (began, n) = (Instant::now(), 1_000_000);
    for _ in 0..n {
        let start = rng.below(k) * 4 * PAGE + 2 * PAGE;
        cycle(space, start, start + PAGE);
    }
    report("interval/invalidate-miss", k, n, began);
    HITS.store(0, Ordering::Relaxed);
    let began = Instant::now();
    for _ in 0..n {
        let start = rng.below(k) * 4 * PAGE;
        cycle(space, start, start + PAGE);
    }
    report("interval/invalidate-1-hit", k, n, began);
    assert_eq!(HITS.load(Ordering::Relaxed), n);
    if k >= 100 {
        let (began, n) = (Instant::now(), 100_000);
        for _ in 0..n {
            let start = rng.below(k - 99) * 4 * PAGE;
            cycle(space, start, start + 400 * PAGE);
        }
        report("interval/invalidate-100-hits", k, n, began);
    }
}

/// Reads beside nobody. A function of its own, so that the generator stays in a register: behind a locked
/// instruction each load from the stack costs more than the read itself.
#[inline(never)]
fn reads(nodes: &[Interval<Device>], rng: &mut Random) {
    let (k, mut own) = (nodes.len() as u64, Random(rng.below(u64::MAX) | 1));
    let (began, n, mut stale) = (Instant::now(), 2_000_000, 0);
    for _ in 0..n {
        let node = &nodes[own.below(k) as usize];
        let token = node.read_begin();
        stale += u64::from(node.read_retry(token));
    }
    report("interval/read-begin+retry", k, n, began);
    assert_eq!(stale, 0);
}

/// Runs `work`, 64 operations each time it is called, on some threads for 0.7 seconds.
fn threads(name: &str, count: u64, work: impl Fn(u64) + Sync) {
    let (stop, began) = (AtomicBool::new(false), Instant::now());
    let done = thread::scope(|scope| {
        let run = |thread| {
            let mut done = 0;
            while !stop.load(Ordering::Relaxed) {
                work(thread);
                done += 64;
            }
            done
        };
        let running: Vec<_> = (0..count).map(|thread| scope.spawn(move || run(thread))).collect();
        thread::sleep(Duration::from_millis(700));
        stop.store(true, Ordering::Relaxed);
        running.into_iter().map(|thread| thread.join().expect("it does not panic")).sum()
    });
    report(name, count, done, began);
}

fn on_threads() {
    let space = Space::new();
    let insert = |thread: u64| {
        let start = (thread + 1) << 40;
        space.insert(start..start + (1 << 20), Interval::boxed(Device)).expect("the space has a user")
    };
    let subscriptions: Vec<_> = (0..8).map(insert).collect();
    for count in 1..=2 {
        threads("interval/invalidate-hit threads", count, |thread| {
            let start = (thread + 1) << 40;
            (0..64).for_each(|i| cycle(&space, start + i * PAGE, start + (i + 1) * PAGE));
        });
    }
    for count in 1..=2 {
        threads("interval/read threads", count, |thread| {
            let subscription = &subscriptions[thread as usize];
            for _ in 0..64 {
                black_box(subscription.read_retry(subscription.read_begin()));
            }
        });
    }
}

fn main() {
    let max = std::env::args().nth(1).map_or(1_000_000, |max| max.parse().expect("a number of intervals"));
    let mut rng = Random(88_172_645_463_325_252);
    lists();
    let mut k = 1;
    while k <= max {
        intervals(k, &mut rng);
        k *= 10;
    }
    on_threads();
}
