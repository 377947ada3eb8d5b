//! A hook that turns each finding into a panic, in a process of its own: the panic goes on out of the call, and
//! the space is as usable as after any other callback that panics (clauses C7.2 and C9).

use std::panic::{AssertUnwindSafe, catch_unwind};

use mmu_notifier::diagnostics::set_hook;
use mmu_notifier::interval::Answer;
use mmu_notifier::list::{self, WouldBlock};
use mmu_notifier::{AddressSpace, Invalidation, Range};

struct Refuses;

impl list::Notifier for Refuses {
    fn invalidate_range_start(&self, _: &Invalidation) -> Result<(), WouldBlock> {
        Err(WouldBlock)
    }
}

fn panics<R>(call: impl FnOnce() -> R) -> bool {
    catch_unwind(AssertUnwindSafe(call)).is_err()
}

#[test]
fn a_hook_that_panics_left_the_start_calling_for_ever() {
    set_hook(|report| panic!("{report}"));
    let space = AddressSpace::new();
    let watch = space.insert(Range::ALL, |_: &Invalidation| Answer::Refused).unwrap();
    assert!(panics(|| space.invalidate_start(Range::ALL)));
    assert!(watch.try_read_begin().is_some());
    watch.remove();
    let listed = space.register(Refuses).unwrap();
    assert!(panics(|| space.invalidate_start(Range::ALL)));
    assert_eq!(space.stats().active, 0);
    listed.unregister();
}
