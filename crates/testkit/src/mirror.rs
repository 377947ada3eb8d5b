//! P1: mirrors of a page table whose entries carry generations.
//!
//! Each page of the primary MMU has a generation that grows within an invalidation only. A mirror entry may
//! exist only while its generation is the page's: a lookup (under the mirror's lock) that finds another one has
//! used what was invalidated, or committed what was read before the end. The generations are relaxed atomics:
//! that a reader sees them behind an end is the library's promise, not theirs.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use mmu_notifier::interval::{Answer, Notifier, Sequence, Subscription};
use mmu_notifier::{AddressSpace, Event, Invalidation, Range};

use crate::run::{Random, Run, Violations, lock};

const PAGES: u64 = 64;

/// Gives the pages of `range` that exist, from the first to the one behind the last.
fn pages(range: Range) -> std::ops::Range<u64> {
    range.start().get().min(PAGES)..range.last().get().saturating_add(1).min(PAGES)
}

/// The secondary MMU's table: the generation each entry was made from.
struct Table(Mutex<Vec<Option<u64>>>);

impl Notifier for Table {
    fn invalidate(&self, invalidation: &Invalidation, _: Sequence) -> Answer {
        let mut entries = if invalidation.is_blockable() {
            lock(&self.0)
        } else {
            // Whoever may not block refuses where it would have to.
            match self.0.try_lock() {
                Ok(entries) => entries,
                Err(_) => return Answer::Refused,
            }
        };
        pages(invalidation.range()).for_each(|page| entries[page as usize] = None);
        Answer::Done
    }
}

struct Scene {
    primary: Vec<AtomicU64>,
    mirrors: Vec<Subscription<Table>>,
    violations: Violations,
    faults: AtomicU64,
}

impl Scene {
    /// Looks a page up as the device would, and checks what it finds.
    fn look_up(&self, mirror: &Subscription<Table>, page: u64) -> bool {
        let entries = lock(&mirror.0);
        let Some(found) = entries[page as usize] else { return false };
        let now = self.primary[page as usize].load(Ordering::Relaxed);
        self.violations
            .check(found == now, || format!("page {page}: generation {found} used, {now} is current"));
        true
    }

    /// Faults a page in: read_begin, walk the primary, commit under the lock unless hit.
    fn fault(&self, mirror: &Subscription<Table>, page: u64, random: &mut Random) {
        loop {
            let token = mirror.read_begin();
            let generation = self.primary[page as usize].load(Ordering::Relaxed);
            random.dawdle();
            let mut entries = lock(&mirror.0);
            if !mirror.read_retry(token) {
                entries[page as usize] = Some(generation);
                self.faults.fetch_add(1, Ordering::Relaxed);
                return;
            }
        }
    }

    fn check_empty(&self, range: Range, when: &str) {
        for mirror in self.mirrors.iter().filter(|mirror| mirror.range().overlaps(range)) {
            let entries = lock(&mirror.0);
            let left =
                pages(range).find(|page| mirror.range().contains(*page) && entries[*page as usize].is_some());
            self.violations.check(left.is_none(), || format!("page {left:?} has an entry {when}"));
        }
    }

    fn change(&self, range: Range, random: &mut Random) {
        self.check_empty(range, "behind start");
        for page in pages(range) {
            self.primary[page as usize].fetch_add(1, Ordering::Relaxed);
            random.dawdle();
        }
        self.check_empty(range, "before end");
    }

    fn invalidate(&self, space: &AddressSpace, random: &mut Random) {
        let what = Invalidation::new(random.range(PAGES - 8, 1..=8), Event::Clear);
        if random.once_in(3) {
            // A refusal is fine: nothing changes then.
            let _ = space.try_invalidate(what, || self.change(what.range(), random));
        } else {
            space.invalidate(what, || self.change(what.range(), random));
        }
    }
}

/// Runs mirrors, their faults and lookups, and invalidators side by side.
///
/// # Panics
/// If an old generation was used or committed.
pub fn stress(run: Run) {
    let space = AddressSpace::new();
    let mirrors = [(0, 64), (0, 16), (10, 30), (16, 32), (40, 41), (60, 64)]
        .map(|(start, end): (u64, u64)| {
            let range = Range::new(start, end).expect("pages of a mirror");
            space.insert(range, Table(Mutex::new(vec![None; PAGES as usize]))).expect("the space has a user")
        })
        .into();
    let primary = (0..PAGES).map(|_| AtomicU64::new(0)).collect();
    let scene =
        Arc::new(Scene { primary, mirrors, violations: Violations::default(), faults: AtomicU64::new(0) });
    thread::scope(|scope| {
        for number in 0..3 {
            let (scene, space, mut random) = (scene.clone(), space.clone(), run.random(number));
            scope.spawn(move || {
                while run.goes_on() {
                    scene.invalidate(&space, &mut random);
                    random.dawdle();
                }
            });
        }
        for number in 0..4 {
            let (scene, mut random) = (scene.clone(), run.random(100 + number));
            scope.spawn(move || {
                while run.goes_on() {
                    let mirror = &scene.mirrors[random.below(scene.mirrors.len() as u64) as usize];
                    let first = mirror.range().start().get();
                    let page = first + random.below(mirror.range().len() as u64);
                    if !scene.look_up(mirror, page) {
                        scene.fault(mirror, page, &mut random);
                    }
                    scene.look_up(mirror, page);
                }
            });
        }
    });
    scene.violations.verdict(run);
    assert!(scene.faults.load(Ordering::Relaxed) > 0, "nobody ever faulted a page in");
}
