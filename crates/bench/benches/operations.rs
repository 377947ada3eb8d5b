//! The operations of the library one by one, for who works on it: `cargo bench -p bench [FILTER]`.
//!
//! Few and short: no comparison, no spread between machines. What is compared with targets comes from the program
//! `bench`.

use std::hint::black_box;

use divan::Bencher;
use mmu_notifier::interval::{Answer, Subscription};
use mmu_notifier::list;
use mmu_notifier::mirror::Mirror;
use mmu_notifier::{AddressSpace, Invalidation, Range};

const PAGE: u64 = 4096;
const SIZES: [u64; 3] = [1, 1_000, 100_000];

fn main() {
    divan::main();
}

type Callback = fn(&Invalidation) -> Answer;

/// A space with intervals of two pages each, two pages apart.
fn space(size: u64) -> (AddressSpace, Vec<Subscription<Callback>>) {
    let space = AddressSpace::new();
    let intervals = (0..size).map(|number| insert(&space, number * 4 * PAGE)).collect();
    (space, intervals)
}

fn insert(space: &AddressSpace, from: u64) -> Subscription<Callback> {
    space.insert(range(from, 2 * PAGE), (|_| Answer::Done) as Callback).expect("the space has a user")
}

fn range(from: u64, length: u64) -> Range {
    Range::from_len(from, length).expect("it lies within the space")
}

#[divan::bench(args = SIZES)]
fn invalidate_miss(bencher: Bencher<'_, '_>, size: u64) {
    let (space, _intervals) = space(size);
    let range = range(2 * PAGE, PAGE);
    bencher.bench_local(|| space.invalidate(black_box(range), || ()));
}

#[divan::bench(args = SIZES)]
fn invalidate_miss_with_a_guard(bencher: Bencher<'_, '_>, size: u64) {
    let (space, _intervals) = space(size);
    let range = range(2 * PAGE, PAGE);
    bencher.bench_local(|| space.invalidate_start(black_box(range)).end());
}

#[divan::bench(args = SIZES)]
fn invalidate_hit(bencher: Bencher<'_, '_>, size: u64) {
    let (space, _intervals) = space(size);
    let range = range(0, PAGE);
    bencher.bench_local(|| space.invalidate(black_box(range), || ()));
}

#[divan::bench]
fn invalidate_nobody(bencher: Bencher<'_, '_>) {
    let space = AddressSpace::new();
    bencher.bench_local(|| space.invalidate(black_box(range(0, PAGE)), || ()));
}

#[divan::bench]
fn read(bencher: Bencher<'_, '_>) {
    let (_space, intervals) = space(1);
    bencher.bench_local(|| {
        let token = intervals[0].read_begin();
        intervals[0].read_retry(token)
    });
}

#[divan::bench(args = SIZES)]
fn insert_and_remove(bencher: Bencher<'_, '_>, size: u64) {
    let (space, _intervals) = space(size);
    bencher.bench_local(|| insert(&space, 2 * PAGE).remove());
}

#[divan::bench]
fn list_of_one(bencher: Bencher<'_, '_>) {
    struct Nothing;
    impl list::Notifier for Nothing {}
    let space = AddressSpace::new();
    let _one = space.register(Nothing).expect("the space has a user");
    bencher.bench_local(|| space.invalidate(black_box(range(0, PAGE)), || ()));
}

#[divan::bench]
fn mirror_hit(bencher: Bencher<'_, '_>) {
    let space = AddressSpace::new();
    let mirror = Mirror::new(&space, range(0, PAGE), Some(7)).expect("the space has a user");
    bencher.bench_local(|| mirror.with(|table| *table));
}
