//! P3 and P5: the last user leaves while others unregister, read and invalidate.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use mmu_notifier::interval::{self, Answer, Sequence};
use mmu_notifier::list;
use mmu_notifier::{AddressSpace, Invalidation, Range};

use crate::run::{Random, Run, Violations};

#[derive(Default)]
struct Releases {
    begun: AtomicU64,
    done: AtomicU64,
}

struct Leaver(Arc<Releases>);

impl list::Notifier for Leaver {
    fn release(&self) {
        self.0.begun.fetch_add(1, Ordering::SeqCst);
        thread::yield_now();
        self.0.done.fetch_add(1, Ordering::SeqCst);
    }
}

struct Quiet;

impl interval::Notifier for Quiet {
    fn invalidate(&self, _: &Invalidation, _: Sequence) -> Answer {
        Answer::Done
    }
}

/// One space from its first subscriber to its exit, with everything at once at the end.
fn round(violations: &Violations, random: &mut Random) {
    let space = AddressSpace::new();
    let holder = space.downgrade();
    let releases: Vec<_> = (0..6).map(|_| Arc::new(Releases::default())).collect();
    let mut listed: Vec<_> = releases
        .iter()
        .map(|releases| space.register(Leaver(releases.clone())).expect("the space has a user"))
        .collect();
    let sub = space.insert(Range::ALL, Quiet).expect("the space has a user");
    let kept = listed.split_off(3 + random.below(3) as usize);
    let users = [space.clone(), space];
    thread::scope(|scope| {
        for user in users {
            scope.spawn(move || drop(user));
        }
        for (listed, releases) in listed.into_iter().zip(&releases) {
            scope.spawn(move || {
                listed.unregister();
                let done = releases.done.load(Ordering::SeqCst);
                violations.check(done == 1, || format!("unregister returned after {done} releases"));
            });
        }
        scope.spawn(|| {
            let token = sub.read_begin();
            sub.read_retry(token);
        });
        if let Some(user) = holder.upgrade() {
            scope.spawn(move || user.invalidate_start(Range::ALL).end());
        }
    });
    violations.check(holder.upgrade().is_none(), || "a user is left".to_owned());
    drop(kept);
    for releases in releases {
        let (begun, done) = (releases.begun.load(Ordering::SeqCst), releases.done.load(Ordering::SeqCst));
        violations.check((begun, done) == (1, 1), || format!("{begun} releases begun, {done} done"));
    }
    violations.check(sub.try_read_begin().is_some(), || "the exit's invalidation never ended".to_owned());
}

/// Has spaces exit while their subscribers leave.
///
/// # Panics
/// If a release did not run exactly once, or unregister returned before it.
pub fn stress(run: Run) {
    let (violations, mut random) = (Violations::default(), run.random(0));
    while run.goes_on() {
        round(&violations, &mut random);
    }
    violations.verdict(run);
}

/// Has readers wait for ranges that invalidators hit without a pause, and counts who comes through.
///
/// # Panics
/// If a reader never came through; the watchdog speaks if one sleeps for ever.
pub fn wake_everybody(run: Run) {
    let space = AddressSpace::new();
    let subs: Vec<_> = (0..16u64)
        .map(|page| Range::from_len(page * 4, 8).expect("pages"))
        .map(|range| space.insert(range, Quiet).expect("the space has a user"))
        .collect();
    let reads: Vec<_> = subs.iter().map(|_| AtomicU64::new(0)).collect();
    thread::scope(|scope| {
        for number in 0..3 {
            let (space, mut random) = (space.clone(), run.random(number));
            scope.spawn(move || {
                while run.goes_on() {
                    let first = space.invalidate_start_owned(random.range(60, 1..=8));
                    let second = space.invalidate_start(random.range(60, 1..=8));
                    random.dawdle();
                    // The one that began first ends first, or on another thread.
                    if random.once_in(50) {
                        scope.spawn(move || first.end());
                    } else {
                        first.end();
                    }
                    second.end();
                }
            });
        }
        for number in 0..6usize {
            let (subs, reads, mut random) = (&subs, &reads, run.random(100 + number as u64));
            scope.spawn(move || {
                while run.goes_on() {
                    let index = random.below(subs.len() as u64) as usize;
                    subs[index].read_begin();
                    reads[index].fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    assert!(subs.iter().all(|sub| sub.try_read_begin().is_some()), "busy though nothing is active");
    let total: u64 = reads.iter().map(|reads| reads.load(Ordering::Relaxed)).sum();
    assert!(total > 0, "no reader ever came through; STRESS_SEED={}", run.seed());
}
