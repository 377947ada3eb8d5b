//! Does each operation so many times among `N` subscriptions, each in a function of its own: for a tool that counts
//! instructions (`ci/growth`), since counts, unlike times, are the same at each run.
//!
//!     growth N TURNS

use std::hint::black_box;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

use mmu_notifier::interval::{Answer, Subscription};
use mmu_notifier::{AddressSpace, Event, Invalidation, Range};

const PAGE: u64 = 4096;

/// Every fourth page begins a subscription of two.
const SPACING: u64 = 4 * PAGE;

static HITS: AtomicU64 = AtomicU64::new(0);

fn callback(_: &Invalidation) -> Answer {
    HITS.store(HITS.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    Answer::Done
}

type Device = Subscription<fn(&Invalidation) -> Answer>;

/// Numbers that look random, the same ones in each run (splitmix64).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

fn pages(page: u64, count: u64) -> Range {
    Range::from_len(page * PAGE, count * PAGE).expect("a range of pages")
}

fn insert(space: &AddressSpace, range: Range) -> Device {
    space.insert(range, callback as fn(&Invalidation) -> Answer).expect("there is memory")
}

fn cycle(space: &AddressSpace, range: Range) {
    space.invalidate(Invalidation::new(range, Event::Unmap), || ());
}

#[inline(never)]
fn row_unwatched(space: &AddressSpace, turns: u64) {
    (0..turns).for_each(|page| cycle(black_box(space), pages(page, 1)));
}

#[inline(never)]
fn row_miss(space: &AddressSpace, places: &[u64]) {
    places.iter().for_each(|place| cycle(space, pages(place * 4 + 2, 1)));
}

#[inline(never)]
fn row_hit(space: &AddressSpace, places: &[u64]) {
    places.iter().for_each(|place| cycle(space, pages(place * 4, 1)));
}

#[inline(never)]
fn row_hits_10(space: &AddressSpace, places: &[u64]) {
    places.iter().for_each(|place| cycle(space, pages(place * 4, 40)));
}

#[inline(never)]
fn row_hits_100(space: &AddressSpace, places: &[u64]) {
    places.iter().for_each(|place| cycle(space, pages(place * 4, 400)));
}

#[inline(never)]
fn row_read(devices: &[Device], places: &[u64]) {
    for &place in places {
        let device = &devices[place as usize];
        let token = device.read_begin();
        black_box(device.read_retry(token));
    }
}

#[inline(never)]
fn row_insert(space: &AddressSpace, devices: &mut Vec<Device>, places: &[u64]) {
    devices.extend(places.iter().map(|place| insert(space, pages(place * 4 + 2, 1))));
}

#[inline(never)]
fn row_remove(devices: Vec<Device>) {
    devices.into_iter().for_each(Subscription::remove);
}

fn numbers() -> Option<(u64, u64)> {
    let mut words = std::env::args().skip(1).map(|word| word.parse::<u64>());
    let (Some(Ok(n)), Some(Ok(turns)), None) = (words.next(), words.next(), words.next()) else {
        return None;
    };
    (n > 0 && turns > 0).then_some((n, turns))
}

fn main() -> ExitCode {
    let Some((n, turns)) = numbers() else {
        eprintln!("growth: give two numbers: of subscriptions, and of turns, both above 0");
        return ExitCode::FAILURE;
    };
    row_unwatched(&AddressSpace::new(), turns);
    let mut random = Random(1);
    let mut order: Vec<u64> = (0..n).collect();
    for last in (1..n).rev() {
        order.swap(last as usize, random.below(last + 1) as usize);
    }
    let space = AddressSpace::new();
    let devices: Vec<Device> = order
        .iter()
        .map(|place| insert(&space, Range::from_len(place * SPACING, 2 * PAGE).unwrap()))
        .collect();
    let places: Vec<u64> = (0..turns).map(|_| random.below(n)).collect();
    row_miss(&space, &places);
    row_hit(&space, &places);
    let room_for = |hits: u64| places.iter().map(|place| place % (n - hits + 1)).collect::<Vec<u64>>();
    if n >= 10 {
        row_hits_10(&space, &room_for(10));
    }
    if n >= 100 {
        row_hits_100(&space, &room_for(100));
    }
    // Behind the hits each is read once before it counts: the first read after a hit looks around.
    devices.iter().for_each(|device| _ = device.read_begin());
    row_read(&devices, &places);
    let mut more = Vec::with_capacity(turns as usize);
    row_insert(&space, &mut more, &places);
    row_remove(more);
    ExitCode::SUCCESS
}
