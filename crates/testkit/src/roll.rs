//! P7: whoever is inserted or registered answers the roll of every start that began afterwards, once.
//!
//! Each start carries a ticket, drawn from one counter, as its owner word. A subscriber notes the tickets that
//! it was called for. When its insert has returned, the counter is read: starts with that ticket or a later one
//! began afterwards. Before it is removed, the tickets of starts that have returned are read: each of those that
//! began after the insert must have been noted exactly once.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use mmu_notifier::interval::{Answer, Sequence};
use mmu_notifier::list::WouldBlock;
use mmu_notifier::{AddressSpace, Event, Invalidation, Owner, Range, interval, list};

use crate::run::{Random, Run, Violations, lock};

/// The page that every invalidation here covers.
const COMMON: u64 = 32;
/// How many returned starts an invalidator remembers.
const MEMORY: usize = 1 << 16;

fn ticket(invalidation: &Invalidation) -> u64 {
    invalidation.owner().map_or(0, Owner::get)
}

#[derive(Default)]
struct Notes {
    starts: Mutex<Vec<u64>>,
    ends: Mutex<Vec<u64>>,
}

struct Noting(Arc<Notes>);

impl interval::Notifier for Noting {
    fn invalidate(&self, invalidation: &Invalidation, _: Sequence) -> Answer {
        lock(&self.0.starts).push(ticket(invalidation));
        Answer::Done
    }
}

impl list::Notifier for Noting {
    fn invalidate_range_start(&self, invalidation: &Invalidation) -> Result<(), WouldBlock> {
        lock(&self.0.starts).push(ticket(invalidation));
        Ok(())
    }

    fn invalidate_range_end(&self, invalidation: &Invalidation) {
        lock(&self.0.ends).push(ticket(invalidation));
    }
}

struct Office {
    next: AtomicU64,
    returned: Vec<Mutex<VecDeque<u64>>>,
    violations: Violations,
}

impl Office {
    fn invalidate(&self, space: &AddressSpace, invalidator: usize, random: &mut Random) {
        let first = random.below(COMMON + 1);
        let range = Range::from_first_last(first, COMMON + random.below(32)).expect("it covers the page");
        let number = self.next.fetch_add(1, Ordering::SeqCst);
        let what = Invalidation::new(range, Event::Clear).with_owner(Owner::new(number).expect("not 0"));
        let active = space.invalidate_start(what);
        let mut returned = lock(&self.returned[invalidator]);
        returned.push_back(number);
        if returned.len() > MEMORY {
            returned.pop_front();
        }
        drop(returned);
        random.dawdle();
        active.end();
    }

    /// Gives the tickets from `first` on whose starts have returned.
    fn due(&self, first: u64) -> Vec<u64> {
        let mut due = Vec::new();
        for returned in &self.returned {
            due.extend(lock(returned).iter().rev().take_while(|ticket| **ticket >= first));
        }
        due
    }

    fn check(&self, kind: &str, due: &[u64], notes: &Notes) {
        let mut starts = lock(&notes.starts).clone();
        starts.sort_unstable();
        let twice = starts.windows(2).find(|pair| pair[0] == pair[1]);
        self.violations.check(twice.is_none(), || format!("{kind} called twice for start {twice:?}"));
        for ticket in due {
            let called = starts.binary_search(ticket).is_ok();
            self.violations
                .check(called, || format!("{kind} not called for start {ticket}, begun after it came"));
        }
        for ticket in lock(&notes.ends).iter() {
            let started = starts.binary_search(ticket).is_ok();
            self.violations.check(started, || format!("{kind} heard the end {ticket} without its start"));
        }
    }

    /// Inserts or registers one, waits a little, asks for the roll, takes it away.
    fn visit(&self, space: &AddressSpace, random: &mut Random) -> usize {
        let notes = Arc::new(Notes::default());
        let (sub, listed, kind) = if random.once_in(2) {
            let first = COMMON - random.below(8);
            let range = Range::from_first_last(first, COMMON + random.below(8)).expect("around the page");
            (Some(space.insert(range, Noting(notes.clone())).expect("a user")), None, "an interval")
        } else {
            (None, Some(space.register(Noting(notes.clone())).expect("a user")), "a list notifier")
        };
        let first = self.next.load(Ordering::SeqCst);
        (0..random.below(20)).for_each(|_| thread::yield_now());
        let due = self.due(first);
        drop(sub);
        drop(listed);
        self.check(kind, &due, &notes);
        due.len()
    }
}

/// Has subscribers come and go beside starts that each has to answer.
///
/// # Panics
/// If a start that began after the insert or registration did not call it exactly once.
pub fn stress(run: Run) {
    const INVALIDATORS: usize = 3;
    let space = AddressSpace::new();
    let returned = (0..INVALIDATORS).map(|_| Mutex::default()).collect();
    let office = Office { next: AtomicU64::new(1), returned, violations: Violations::default() };
    let answered = AtomicU64::new(0);
    // One that stays, so that the interval side is never empty.
    let everywhere = Range::from_len(0u64, 100).expect("all pages");
    let _stays = space.insert(everywhere, Noting(Arc::default())).expect("the space has a user");
    thread::scope(|scope| {
        for number in 0..INVALIDATORS {
            let (space, office, mut random) = (space.clone(), &office, run.random(number as u64));
            scope.spawn(move || {
                while run.goes_on() {
                    office.invalidate(&space, number, &mut random);
                }
            });
        }
        for number in 0..3 {
            let (space, office, answered) = (space.clone(), &office, &answered);
            let mut random = run.random(100 + number);
            scope.spawn(move || {
                while run.goes_on() {
                    let due = office.visit(&space, &mut random);
                    answered.fetch_add(due as u64, Ordering::Relaxed);
                }
            });
        }
    });
    office.violations.verdict(run);
    assert!(answered.into_inner() > 0, "no start came between an insert and its remove");
}
