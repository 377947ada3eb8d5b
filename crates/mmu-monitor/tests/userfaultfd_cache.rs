//! The source `userfaultfd` and a cache: look-ups that ask whether a change is pending are never wrong.
//!
//! Two threads hand one address to each other, as fast as they can: map, look up, enter, look up, unmap. The thread that
//! maps finds the address free as soon as the other's unmapping is done, which is before anybody is told of it.

#![expect(unsafe_code, clippy::undocumented_unsafe_blocks, reason = "system calls on memory of their own")]
#![cfg(target_os = "linux")]

mod support;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use mmu_monitor::userfaultfd::USERFAULTFD;
use mmu_monitor::{Monitor, Source};
use mmu_notifier::Invalidation;
use mmu_notifier::interval::{Answer, Notifier, Subscription};
use support::{Armed, PAGE, anonymous, range, settle, unmap};

/// Whether look-ups ask if a change is pending.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lookups {
    Ask,
    Trust,
}

/// A cache of one entry: which generation lies at its address.
struct Cache {
    monitor: Monitor,
    lookups: Lookups,
    entry: Arc<Mutex<Option<u64>>>,
}

impl Cache {
    fn entry(&self) -> MutexGuard<'_, Option<u64>> {
        self.entry.lock().unwrap()
    }

    fn is_pending(&self) -> bool {
        self.lookups == Lookups::Ask && self.monitor.is_pending()
    }

    /// Does `what` with the entry until nothing changed around it.
    fn settled<R, N: Notifier>(&self, place: &Subscription<N>, what: impl Fn(&mut Option<u64>) -> R) -> R {
        loop {
            let token = place.read_begin();
            let mut entry = self.entry();
            if !self.is_pending() && !place.read_retry(token) {
                return what(&mut entry);
            }
            drop(entry);
            std::thread::yield_now();
        }
    }
}

struct Count {
    stale: AtomicU64,
    right: AtomicU64,
}

const ROUNDS: u64 = 20_000;

/// Maps, looks up, enters, looks up, unmaps, over and over, at an address that another thread maps as well.
fn hand_over<N: Notifier>(
    cache: &Cache,
    place: &Subscription<N>,
    start: *mut u8,
    generations: &AtomicU64,
    count: &Count,
) {
    let (protection, flags) = (
        libc::PROT_READ | libc::PROT_WRITE,
        libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE,
    );
    for _ in 0..ROUNDS {
        while unsafe { libc::mmap(start.cast(), PAGE, protection, flags, -1, 0) } != start.cast() {
            std::thread::yield_now();
        }
        USERFAULTFD.watch(range(start, PAGE)).unwrap();
        let generation = generations.fetch_add(1, Ordering::Relaxed);
        unsafe { start.cast::<u64>().write(generation) };
        let found = cache.settled(place, |entry| *entry);
        if found.is_some() {
            // Whatever is found was entered for a mapping that is gone.
            count.stale.fetch_add(1, Ordering::Relaxed);
        }
        cache.settled(place, |entry| *entry = Some(generation));
        if cache.settled(place, |entry| *entry) == Some(unsafe { start.cast::<u64>().read() }) {
            count.right.fetch_add(1, Ordering::Relaxed);
        }
        unmap(start, 1);
    }
}

fn two_threads(monitor: Monitor, lookups: Lookups) -> (u64, u64) {
    // A hole between two mappings, so that nothing else is put there.
    let start = anonymous(3).wrapping_add(PAGE);
    unmap(start, 1);
    let cache = Cache { monitor, lookups, entry: Arc::default() };
    let entry = cache.entry.clone();
    let drop_it = move |_: &Invalidation| {
        *entry.lock().unwrap() = None;
        Answer::Done
    };
    let place = monitor.space().insert(range(start, PAGE), drop_it).unwrap();
    let count = Count { stale: AtomicU64::new(0), right: AtomicU64::new(0) };
    let generations = AtomicU64::new(1);
    let address = start as usize;
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| hand_over(&cache, &place, address as *mut u8, &generations, &count));
        }
    });
    settle(monitor);
    drop(place);
    (count.stale.into_inner(), count.right.into_inner())
}

#[test]
fn two_threads_hand_an_address_to_each_other() {
    let Some(armed) = Armed::with("userfaultfd", "hand over") else { return };
    let begun = Instant::now();
    let (stale, right) = two_threads(armed.monitor, Lookups::Ask);
    println!("asking: {stale} stale of {}, {right} right hits, {:?}", 2 * ROUNDS, begun.elapsed());
    assert_eq!(stale, 0);
    // Nothing but its own unmapping takes an entry away.
    assert_eq!(right, 2 * ROUNDS);
    let (stale, _) = two_threads(armed.monitor, Lookups::Trust);
    println!("without asking: {stale} stale of {}", 2 * ROUNDS);
    assert!(
        stale > 0,
        "look-ups that do not ask were right: this test would not notice if asking did nothing"
    );
}
