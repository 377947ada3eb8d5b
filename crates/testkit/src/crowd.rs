//! Thousands of intervals that come, go and change, against a vector that is filtered and sorted.

use std::sync::{Arc, Mutex};

use mmu_notifier::interval::{Answer, Notifier, Sequence, Subscription};
use mmu_notifier::{AddressSpace, Invalidation, Range};

use crate::run::{Random, lock};

struct Member {
    number: u64,
    called: Arc<Mutex<Vec<u64>>>,
}

impl Notifier for Member {
    fn invalidate(&self, _: &Invalidation, _: Sequence) -> Answer {
        lock(&self.called).push(self.number);
        if self.number % 3 == 0 { Answer::Begun } else { Answer::Done }
    }
}

/// The shape of the intervals of a crowd.
#[derive(Clone, Copy, Debug)]
pub enum Shape {
    /// Pages side by side, some of several pages.
    Pages,
    /// Many that start at the same few places.
    EqualStarts,
    /// Small ones, and some that span nearly everything.
    LongAndShort,
    /// All at the top of the address space.
    Top,
}

impl Shape {
    /// All shapes.
    pub const ALL: [Shape; 4] = [Shape::Pages, Shape::EqualStarts, Shape::LongAndShort, Shape::Top];

    fn draw(self, random: &mut Random) -> Range {
        match self {
            Shape::Pages => {
                let page = random.below(100_000);
                Range::from_len(page << 12, (random.below(3) + 1) << 12).expect("a page")
            }
            Shape::EqualStarts => {
                Range::from_len(random.below(20) * 100, random.below(150) + 1).expect("a short one")
            }
            Shape::LongAndShort if random.once_in(10) => {
                Range::from_len(random.below(1000), (1 << 30) + random.below(1 << 30)).expect("a long one")
            }
            Shape::LongAndShort => random.range(1 << 31, 1..=4096),
            Shape::Top => {
                let first = u64::MAX - random.below(5000);
                let more = random.below(200).min(u64::MAX - first);
                Range::from_first_last(first, first + more).expect("at the top")
            }
        }
    }
}

/// A crowd in its space.
pub struct Crowd {
    shape: Shape,
    space: AddressSpace,
    /// In order of insertion.
    members: Vec<(u64, Subscription<Member>)>,
    called: Arc<Mutex<Vec<u64>>>,
    numbers: u64,
}

impl Crowd {
    /// Makes a crowd of `size` members.
    pub fn new(shape: Shape, size: usize, random: &mut Random) -> Crowd {
        let space = AddressSpace::new();
        let mut crowd = Crowd { shape, space, members: Vec::new(), called: Arc::default(), numbers: 0 };
        (0..size).for_each(|_| crowd.insert(shape.draw(random)));
        crowd
    }

    fn insert(&mut self, range: Range) {
        self.numbers += 1;
        let member = Member { number: self.numbers, called: self.called.clone() };
        let sub = self.space.insert(range, member).expect("the space has a user");
        self.members.push((self.numbers, sub));
    }

    /// Inserts, removes or changes the range of `changes` members.
    pub fn churn(&mut self, changes: usize, random: &mut Random) {
        for _ in 0..changes {
            let at = random.below(self.members.len() as u64 + 1) as usize;
            let gone = if at < self.members.len() { Some(self.members.remove(at)) } else { None };
            match (random.below(3), gone) {
                // One goes for good, one comes; or one changes at one end only.
                (0, Some((_, sub))) => sub.remove(),
                (1, Some((_, sub))) => {
                    let (first, last) = (sub.range().start().get(), sub.range().last().get());
                    sub.detach();
                    let middle = first + (last - first) / 2;
                    self.insert(Range::from_first_last(first, middle).expect("a half"));
                }
                (_, gone) => {
                    drop(gone);
                    self.insert(self.shape.draw(random));
                    self.insert(self.shape.draw(random));
                }
            }
        }
    }

    /// Invalidates `range` and compares who was called, in order, with who should be.
    ///
    /// # Panics
    /// If they differ, or if who is busy differs.
    pub fn check(&self, range: Range) {
        let mut hit: Vec<_> = self.members.iter().filter(|(_, sub)| sub.range().overlaps(range)).collect();
        // Stable, and the vector is in order of insertion.
        hit.sort_by_key(|(_, sub)| sub.range().start());
        let expected: Vec<u64> = hit.iter().map(|(number, _)| *number).collect();
        let active = self.space.invalidate_start(range);
        let called = std::mem::take(&mut *lock(&self.called));
        assert_eq!(called, expected, "{:?}, {} members, {range}", self.shape, self.members.len());
        for (number, sub) in self.members.iter().step_by(7) {
            let busy = sub.try_read_begin().is_none();
            assert_eq!(busy, sub.range().overlaps(range), "member {number} and {range}");
        }
        active.end();
        assert!(hit.iter().all(|(_, sub)| sub.try_read_begin().is_some()));
    }

    /// Checks the whole space, and `count` ranges drawn like the members'.
    pub fn check_all(&self, count: usize, random: &mut Random) {
        self.check(Range::ALL);
        for _ in 0..count {
            let range = self.shape.draw(random);
            self.check(range);
            self.check(Range::from_first_last(range.last(), range.last()).expect("a byte"));
        }
    }
}
