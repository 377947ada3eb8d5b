//! P4: shared notifiers are freed once, after every callback, and synchronize waits for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use mmu_notifier::list::{Notifier, WouldBlock};
use mmu_notifier::{AddressSpace, Invalidation, Range, synchronize};

use crate::run::{Random, Run, Violations};

/// What is counted of one shared notifier, kept beyond its end.
#[derive(Default)]
struct Life {
    inside: AtomicU64,
    freed: AtomicU64,
}

struct Counted {
    life: Arc<Life>,
    violations: Arc<Violations>,
    delay: u64,
}

impl Counted {
    fn called(&self) {
        self.life.inside.fetch_add(1, Ordering::SeqCst);
        let freed = self.life.freed.load(Ordering::SeqCst);
        self.violations.check(freed == 0, || "called after its free".to_owned());
        (0..self.delay).for_each(|_| thread::yield_now());
        self.life.inside.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let inside = self.life.inside.load(Ordering::SeqCst);
        self.violations.check(inside == 0, || format!("freed under {inside} callbacks"));
        (0..self.delay).for_each(|_| thread::yield_now());
        let before = self.life.freed.fetch_add(1, Ordering::SeqCst);
        self.violations.check(before == 0, || "freed twice".to_owned());
    }
}

impl Notifier for Counted {
    fn invalidate_range_start(&self, _: &Invalidation) -> Result<(), WouldBlock> {
        self.called();
        Ok(())
    }

    fn invalidate_range_end(&self, _: &Invalidation) {
        self.called();
    }

    fn invalidate_range(&self, _: Range) {
        self.called();
    }
}

/// Takes and gives back the shared notifier of a key; the key is the caller's alone or everybody's.
fn use_key(space: &AddressSpace, key: u64, alone: bool, violations: &Arc<Violations>, random: &mut Random) {
    let (life, mut made) = (Arc::new(Life::default()), false);
    let (own, delay) = (life.clone(), random.below(3));
    let shared = space.get(key, |_| {
        made = true;
        Ok::<_, ()>(Counted { life: own, violations: violations.clone(), delay })
    });
    let shared = shared.expect("the space has a user");
    let life = shared.life.clone();
    random.dawdle();
    let freed = life.freed.load(Ordering::SeqCst);
    violations.check(freed == 0, || "freed while a reference is held".to_owned());
    shared.put();
    if alone {
        violations.check(made, || "a key of one thread was found after its put".to_owned());
        synchronize();
        let freed = life.freed.load(Ordering::SeqCst);
        violations.check(freed == 1, || format!("freed {freed} times when synchronize returned"));
    }
}

/// Has shared notifiers come and go beside walks.
///
/// # Panics
/// If one was not freed exactly once, after its callbacks and before synchronize returned.
pub fn stress(run: Run) {
    let spaces = [AddressSpace::new(), AddressSpace::new()];
    let violations = Arc::new(Violations::default());
    thread::scope(|scope| {
        for number in 0..3 {
            let (spaces, mut random) = (spaces.clone(), run.random(number));
            scope.spawn(move || {
                while run.goes_on() {
                    let space = &spaces[random.below(2) as usize];
                    let active = space.invalidate_start(random.range(64, 1..=64));
                    random.dawdle();
                    active.end();
                }
            });
        }
        for number in 0..4 {
            let (spaces, violations, mut random) =
                (spaces.clone(), violations.clone(), run.random(100 + number));
            scope.spawn(move || {
                while run.goes_on() {
                    let space = &spaces[random.below(2) as usize];
                    let alone = random.once_in(2);
                    let key = if alone { 1000 + number } else { random.below(2) };
                    use_key(space, key, alone, &violations, &mut random);
                }
            });
        }
    });
    drop(spaces);
    violations.verdict(run);
}
