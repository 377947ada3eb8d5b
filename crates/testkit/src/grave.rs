//! P2: who was removed or unregistered is dead, and a callback of the dead is caught.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use mmu_notifier::interval::{Answer, Sequence};
use mmu_notifier::list::WouldBlock;
use mmu_notifier::{AddressSpace, Invalidation, Range, interval, list};

use crate::run::{Random, Run, Violations};

const ALIVE: u64 = 0xa11f_e000_a11f_e000;
const DEAD: u64 = 0xdead_dead_dead_dead;

struct Mortal {
    /// Poisoned when it is dropped: a callback on freed memory does not find it alive.
    state: AtomicU64,
    /// Set by its owner when remove or unregister has returned.
    buried: Arc<AtomicBool>,
    inside: AtomicU64,
    violations: Arc<Violations>,
}

impl Mortal {
    fn new(violations: &Arc<Violations>) -> (Mortal, Arc<AtomicBool>) {
        let buried = Arc::new(AtomicBool::new(false));
        let (state, inside) = (AtomicU64::new(ALIVE), AtomicU64::new(0));
        (Mortal { state, buried: buried.clone(), inside, violations: violations.clone() }, buried)
    }

    fn called(&self, kind: &str) {
        self.inside.fetch_add(1, Ordering::Relaxed);
        for look in ["first", "last"] {
            let state = self.state.load(Ordering::Relaxed);
            self.violations
                .check(state == ALIVE, || format!("{kind} on memory that says {state:#x}, {look}"));
            let buried = self.buried.load(Ordering::Relaxed);
            self.violations.check(!buried, || format!("{kind} after remove or unregister returned, {look}"));
            thread::yield_now();
        }
        self.inside.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Mortal {
    fn drop(&mut self) {
        let inside = self.inside.load(Ordering::Relaxed);
        self.violations.check(inside == 0, || format!("dropped under {inside} callbacks"));
        self.state.store(DEAD, Ordering::Relaxed);
    }
}

impl interval::Notifier for Mortal {
    fn invalidate(&self, invalidation: &Invalidation, _: Sequence) -> Answer {
        self.called("invalidate");
        if invalidation.range().start().get() % 2 == 0 { Answer::Begun } else { Answer::Done }
    }

    fn finish(&self, _: &Invalidation) {
        self.called("finish");
    }
}

impl list::Notifier for Mortal {
    fn release(&self) {
        self.called("release");
    }

    fn invalidate_range_start(&self, _: &Invalidation) -> Result<(), WouldBlock> {
        self.called("start");
        Ok(())
    }

    fn invalidate_range_end(&self, _: &Invalidation) {
        self.called("end");
    }

    fn invalidate_range(&self, _: Range) {
        self.called("range");
    }

    fn clear_young(&self, _: Range) -> bool {
        self.called("young");
        false
    }
}

fn come_and_go(space: &AddressSpace, violations: &Arc<Violations>, random: &mut Random) {
    let (mortal, buried) = Mortal::new(violations);
    if random.once_in(2) {
        let sub = space.insert(random.range(64, 1..=64), mortal).expect("the space has a user");
        random.dawdle();
        match random.below(4) {
            // Nothing says when a detached one is called last, so it is never buried.
            0 => return sub.detach(),
            1 => drop(sub),
            _ => sub.remove(),
        }
    } else {
        let listed = space.register(mortal).expect("the space has a user");
        random.dawdle();
        listed.unregister();
    }
    buried.store(true, Ordering::Relaxed);
}

/// Has subscribers come and go beside invalidations and questions.
///
/// # Panics
/// If a callback ran after remove or unregister returned, or if memory was freed under one.
pub fn stress(run: Run) {
    let space = AddressSpace::new();
    let violations = Arc::new(Violations::default());
    thread::scope(|scope| {
        for number in 0..3 {
            let (space, mut random) = (space.clone(), run.random(number));
            scope.spawn(move || {
                while run.goes_on() {
                    let active = space.invalidate_start(random.range(64, 1..=64));
                    random.dawdle();
                    active.end();
                    space.clear_young(random.range(64, 1..=4));
                }
            });
        }
        for number in 0..3 {
            let (space, violations, mut random) =
                (space.clone(), violations.clone(), run.random(100 + number));
            scope.spawn(move || {
                while run.goes_on() {
                    come_and_go(&space, &violations, &mut random);
                }
            });
        }
    });
    drop(space);
    violations.verdict(run);
}
