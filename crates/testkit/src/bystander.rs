//! P8: while one range is invalidated without any pause, nobody elsewhere waits.
//!
//! The invalidations of the busy range hand over to one another, each begun before the last one ends, until the
//! bystanders have done their work: were there anything that they had to wait for, they never would.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use mmu_notifier::interval::{Answer, Notifier, Sequence};
use mmu_notifier::{AddressSpace, Invalidation, Range};

use crate::run::{Random, Run};

const BYSTANDERS: u64 = 4;
/// What each bystander has to get done, at the least.
const WORK: u64 = 500;

struct Quiet;

impl Notifier for Quiet {
    fn invalidate(&self, _: &Invalidation, _: Sequence) -> Answer {
        Answer::Done
    }
}

fn busy() -> Range {
    Range::new(0x1000u64, 0x2000u64).expect("the busy range")
}

/// Inserts, reads and removes beside the busy range, and inserts and removes within it.
fn work(space: &AddressSpace, random: &mut Random) {
    let beside = [random.range(0x1000 - 64, 1..=64), Range::to_top(0x2000 + random.below(64))];
    for range in beside {
        let sub = space.insert(range, Quiet).expect("the space has a user");
        let token = sub.read_begin();
        assert!(!sub.read_retry(token), "hit by an invalidation of another range");
        sub.remove();
    }
    let within = space.insert(busy(), Quiet).expect("the space has a user");
    assert!(within.try_read_begin().is_none(), "inserted while its range was invalidated");
    within.remove();
}

/// Counts what bystanders get done while the busy range is invalidated all the time.
///
/// # Panics
/// If one of them was hit; the watchdog speaks if one waits.
pub fn stress(run: Run) {
    let space = AddressSpace::new();
    let _hit = space.insert(busy(), Quiet).expect("the space has a user");
    let (stop, handed) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut active = space.invalidate_start_owned(busy());
    thread::scope(|scope| {
        let bystanders: Vec<_> = (0..BYSTANDERS)
            .map(|number| {
                let (space, mut random) = (space.clone(), run.random(number));
                scope.spawn(move || {
                    let mut done = 0;
                    while done < WORK || run.goes_on() {
                        work(&space, &mut random);
                        done += 1;
                    }
                })
            })
            .collect();
        let (user, stop, handed) = (space.clone(), &stop, &handed);
        scope.spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let next = user.invalidate_start_owned(busy());
                active.end();
                active = next;
                handed.fetch_add(1, Ordering::Relaxed);
            }
            active.end();
        });
        let outcomes: Vec<_> = bystanders.into_iter().map(|bystander| bystander.join()).collect();
        stop.store(true, Ordering::Relaxed);
        for outcome in outcomes {
            outcome.expect("a bystander that nothing disturbs");
        }
    });
    assert!(handed.into_inner() > 0, "the invalidations never handed over");
}

/// The same with one invalidation that is held open from before the first to after the last of the work.
///
/// # Panics
/// As [`stress`].
pub fn beside_one_held_open(run: Run) {
    let space = AddressSpace::new();
    let _hit = space.insert(busy(), Quiet).expect("the space has a user");
    let active = space.invalidate_start(busy());
    thread::scope(|scope| {
        for number in 0..BYSTANDERS {
            let (space, mut random) = (space.clone(), run.random(number));
            scope.spawn(move || (0..WORK).for_each(|_| work(&space, &mut random)));
        }
    });
    active.end();
}
