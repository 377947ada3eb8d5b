//! What once went wrong: a test for each mended bug, named after it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mmu_notifier::interval::{Answer, Notifier, Options, Sequence, Subscription};
use mmu_notifier::{AddressSpace, Invalidation};

use super::harness::{range, within};

fn panics<R>(call: impl FnOnce() -> R) -> bool {
    catch_unwind(AssertUnwindSafe(call)).is_err()
}

/// Counts its drop, and panics in it.
struct Unruly(Arc<AtomicU64>);

impl Notifier for Unruly {
    fn invalidate(&self, _: &Invalidation, _: Sequence) -> Answer {
        Answer::Done
    }
}

impl Drop for Unruly {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
        panic!("a drop that panics");
    }
}

#[test]
fn a_replaced_notifier_whose_drop_panics_had_the_others_removed_twice() {
    within(|| {
        let (space, drops) = (AddressSpace::new(), Arc::new(AtomicU64::new(0)));
        let olds = (0..3).map(|n| space.insert(range(n, n + 1), Unruly(drops.clone())).unwrap()).collect();
        let new = |_: &Invalidation| Answer::Done;
        assert!(panics(|| Subscription::replace(olds, &space, range(0, 3), Options::new(), new)));
        assert_eq!((drops.load(Ordering::Relaxed), space.stats().intervals), (3, 0));
    });
}
