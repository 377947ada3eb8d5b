//! P6: starts that fail, on either side, among starts that do not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::thread;

use mmu_notifier::interval::{Answer, Sequence};
use mmu_notifier::list::WouldBlock;
use mmu_notifier::{AddressSpace, Invalidation, interval, list};

use crate::run::{Run, Violations};

/// Refuses every so often, if it may; counts starts without their end.
struct Moody {
    calls: AtomicU64,
    refuses_each: u64,
    open: AtomicI64,
    violations: Arc<Violations>,
}

impl Moody {
    fn new(refuses_each: u64, violations: &Arc<Violations>) -> Arc<Moody> {
        let (calls, open) = (AtomicU64::new(0), AtomicI64::new(0));
        Arc::new(Moody { calls, refuses_each, open, violations: violations.clone() })
    }

    fn refuses(&self, invalidation: &Invalidation) -> bool {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        !invalidation.is_blockable() && call % self.refuses_each == 0
    }
}

/// An interval that is moody.
struct OnRange(Arc<Moody>);

impl interval::Notifier for OnRange {
    fn invalidate(&self, invalidation: &Invalidation, _: Sequence) -> Answer {
        if self.0.refuses(invalidation) { Answer::Refused } else { Answer::Done }
    }
}

/// A moody one on the list.
struct OnList(Arc<Moody>);

impl list::Notifier for OnList {
    fn invalidate_range_start(&self, invalidation: &Invalidation) -> Result<(), WouldBlock> {
        if self.0.refuses(invalidation) {
            return Err(WouldBlock);
        }
        self.0.open.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn invalidate_range_end(&self, _: &Invalidation) {
        let before = self.0.open.fetch_sub(1, Ordering::SeqCst);
        self.0.violations.check(before > 0, || "an end without its start".to_owned());
    }
}

/// Mixes refused and accepted starts, with readers that must not sleep for a failed one.
///
/// # Panics
/// If a failed start leaves a trace: an end too many or too few, or a busy subscription.
pub fn stress(run: Run) {
    let space = AddressSpace::new();
    let violations = Arc::new(Violations::default());
    let (subs, stop) = (mixed_subs(&space, &violations), AtomicBool::new(false));
    let moody: Vec<_> = [3, 5, u64::MAX].map(|each| Moody::new(each, &violations)).into();
    let listed: Vec<_> =
        moody.iter().map(|moody| space.register(OnList(moody.clone())).expect("a user")).collect();
    let (refused, accepted) = (AtomicU64::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        let invalidators: Vec<_> = (0..4)
            .map(|number| {
                let (space, mut random) = (space.clone(), run.random(number));
                let (refused, accepted) = (&refused, &accepted);
                scope.spawn(move || {
                    while run.goes_on() {
                        let range = random.range(60, 1..=8);
                        let result = if random.once_in(4) {
                            Ok(space.invalidate_start(range))
                        } else {
                            space.try_invalidate_start(range)
                        };
                        let count = if result.is_ok() { accepted } else { refused };
                        count.fetch_add(1, Ordering::Relaxed);
                        random.dawdle();
                    }
                })
            })
            .collect();
        for number in 0..2 {
            let (subs, stop, mut random) = (&subs, &stop, run.random(100 + number));
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    subs[random.below(subs.len() as u64) as usize].read_begin();
                }
            });
        }
        for invalidator in invalidators {
            invalidator.join().expect("an invalidator");
        }
        stop.store(true, Ordering::Relaxed);
    });
    let free = subs.iter().all(|sub| sub.try_read_begin().is_some());
    violations.check(free, || "busy though nothing is active".to_owned());
    for moody in &moody {
        let open = moody.open.load(Ordering::SeqCst);
        violations.check(open == 0, || format!("{open} starts without their end"));
    }
    drop(listed);
    violations.verdict(run);
    assert!(refused.into_inner() > 0 && accepted.into_inner() > 0, "both kinds must have come");
}

fn mixed_subs(space: &AddressSpace, violations: &Arc<Violations>) -> Vec<interval::Subscription<OnRange>> {
    (0..12u64)
        .map(|page| {
            let range = mmu_notifier::Range::from_len(page * 5, 7).expect("pages");
            let each = if page % 3 == 0 { 7 } else { u64::MAX };
            space.insert(range, OnRange(Moody::new(each, violations))).expect("the space has a user")
        })
        .collect()
}
