//! The index against a plain list: what a search finds, in order, while entries come and go.

#![expect(unsafe_code, reason = "nodes are inserted by hand")]

mod hostile;

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ptr::NonNull;

use super::{Batch, Index};
use crate::address::Range;
use crate::hazard::Book;
use crate::interval::{Answer, Callbacks, Node, Options, SequenceBy};

static CALLBACKS: Callbacks = Callbacks {
    invalidate: |_, _, _, _| Answer::Done,
    finish: |_, _, _| {},
    free: |_| {},
    options: Options::new(),
    sequence: SequenceBy::Start,
    moved: false,
    space: None,
};

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

struct Fixture {
    book: Book,
    index: Box<Index>,
    nodes: Vec<NonNull<Node>>,
    random: Random,
}

impl Fixture {
    fn new(seed: u64) -> Self {
        // SAFETY: nobody starts here, so nothing in the book is used.
        let (book, index) = (unsafe { Book::new(1) }, Box::new(Index::new()));
        assert!(book.refill(0));
        // SAFETY: its box does not give it away.
        unsafe { index.open() };
        Fixture { book, index, nodes: Vec::new(), random: Random(seed) }
    }

    fn insert(&mut self, range: Range) {
        // SAFETY: the table lives for ever.
        let node = unsafe { Node::with_table(range, &CALLBACKS) };
        let node = NonNull::from(Box::leak(Box::new(node)));
        // SAFETY: the node stays until it was removed; nobody searches beside it.
        unsafe { self.index.insert(&self.book, node, &[]) }.unwrap();
        self.nodes.push(node);
    }

    fn remove(&mut self, at: usize) {
        let node = self.nodes.swap_remove(at);
        // SAFETY: it was inserted and not removed.
        unsafe { self.index.remove(node) };
        // SAFETY: made by Box::leak, and no search is under way.
        drop(unsafe { Box::from_raw(node.as_ptr()) });
    }

    /// A small range on a small space, a long one now and then.
    fn range(&mut self, space: u64) -> Range {
        let start = self.random.below(space);
        let long = self.random.below(20) == 0;
        let length = 1 + self.random.below(if long { space } else { 8 });
        Range::from_len(start, length).unwrap()
    }

    /// Orders of all that overlap, as searched and as a plain list has them.
    fn check(&self, range: Range) {
        let (first, last) = (range.start().get(), range.last().get());
        let (mut batch, mut after, mut found) = (Batch::new(), None, Vec::new());
        loop {
            batch.clear();
            // SAFETY: these tests open it.
            let complete = unsafe { self.index.search((first, last), after, &mut batch) };
            // SAFETY: nodes are alive until they are removed.
            found.extend(batch.as_slice().iter().map(|node| unsafe { (**node).bounds().0 }).zip(
                // SAFETY: as above.
                batch.as_slice().iter().map(|node| unsafe { (**node).order() }),
            ));
            if complete {
                break;
            }
            after = found.last().copied();
        }
        let mut expected: Vec<(u64, u64)> = Vec::new();
        for node in &self.nodes {
            // SAFETY: as above.
            let node = unsafe { node.as_ref() };
            if node.bounds().0 <= last && node.bounds().1 >= first {
                expected.push((node.bounds().0, node.order()));
            }
        }
        expected.sort_unstable();
        assert_eq!(found, expected, "what overlaps {range}");
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        while !self.nodes.is_empty() {
            self.remove(self.nodes.len() - 1);
        }
    }
}

/// Inserts and removes so many times, growing to about `most`, shrinking, and growing again; all along a search finds what
/// a plain list does. Every range comes from `range`; now and then `beside` looks as well.
fn churn(
    fixture: &mut Fixture,
    steps: u64,
    most: u64,
    range: impl Fn(&mut Fixture) -> Range,
    beside: impl Fn(&Fixture),
) {
    for step in 0..steps {
        let grows = (step / (2 * most)) % 2 == 0;
        if fixture.nodes.is_empty() || fixture.random.below(10) < if grows { 8 } else { 2 } {
            let range = range(fixture);
            fixture.insert(range);
        } else {
            let at = fixture.random.below(fixture.nodes.len() as u64) as usize;
            fixture.remove(at);
        }
        let range = range(fixture);
        fixture.check(range);
        if step % 64 == 0 {
            beside(fixture);
        }
    }
    fixture.check(Range::ALL);
}

#[test]
fn a_search_finds_what_overlaps_in_order() {
    for seed in 1..=8 {
        churn(&mut Fixture::new(seed * 0x9e37_79b9), 3_000, 300, |fixture| fixture.range(1_000), |_| ());
    }
}

#[test]
fn equal_starts_over_many_leaves_keep_their_order() {
    for seed in 1..=8 {
        churn(&mut Fixture::new(seed * 0x51ed_2701), 1_500, 300, |fixture| fixture.range(4), |_| ());
    }
}

#[test]
fn everything_removed_leaves_an_index_that_works() {
    let mut fixture = Fixture::new(7);
    for round in 0..3 {
        for number in 0..5_000u64 {
            fixture.insert(Range::from_len(number * 7 % 5_000 * 16, 16).unwrap());
        }
        assert_eq!(fixture.index.count(), 5_000);
        fixture.check(Range::ALL);
        while !fixture.nodes.is_empty() {
            let at = fixture.random.below(fixture.nodes.len() as u64) as usize;
            fixture.remove(at);
        }
        fixture.check(Range::ALL);
        assert_eq!(fixture.index.count(), 0, "after round {round}");
    }
}

/// A leaf that a range covers is not compared: what is removed there is left out, and what ends before it is not found.
#[test]
fn leaves_that_a_range_covers_are_hit_as_they_are() {
    let mut fixture = Fixture::new(11);
    for number in 0..2_000u64 {
        fixture.insert(
            Range::from_len(number * 7 % 2_000 * 16, if number % 90 == 0 { 9_000 } else { 16 }).unwrap(),
        );
    }
    for _ in 0..600 {
        let at = fixture.random.below(fixture.nodes.len() as u64) as usize;
        fixture.remove(at);
        let (start, length) = (fixture.random.below(24_000), 1 + fixture.random.below(8_000));
        fixture.check(Range::from_len(start, length).unwrap());
    }
}

#[test]
fn the_top_of_the_space_is_reached() {
    let mut fixture = Fixture::new(3);
    for number in 0..200u64 {
        fixture.insert(Range::from_len(u64::MAX - number, 1).unwrap());
        fixture.insert(Range::to_top(number << 50));
    }
    fixture.check(Range::to_top(u64::MAX));
    fixture.check(Range::from_len(u64::MAX - 100, 50).unwrap());
    fixture.check(Range::from_len(0u64, 1).unwrap());
}

/// The separators behind the last child are the top of the space too: they were taken for children.
#[test]
fn many_that_start_with_the_last_byte_of_the_space() {
    let mut fixture = Fixture::new(5);
    for number in 0..3_000u64 {
        fixture.insert(Range::to_top(u64::MAX));
        if number % 50 == 0 {
            fixture.insert(Range::from_len(u64::MAX - number, 1).unwrap());
            fixture.check(Range::to_top(u64::MAX));
            fixture.check(Range::from_len(u64::MAX - 10, 11).unwrap());
        }
    }
    for _ in 0..2_000 {
        let at = fixture.random.below(fixture.nodes.len() as u64) as usize;
        fixture.remove(at);
        fixture.insert(Range::to_top(u64::MAX));
    }
    fixture.check(Range::ALL);
}
