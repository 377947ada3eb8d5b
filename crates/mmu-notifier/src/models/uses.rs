//! Uses in flight beside an invalidation that looks at their number alone: C6.2.
//!
//! The invalidation writes what the uses read. A break shows as a use that is not ordered against that write: one that
//! an invalidation did not wait for, or one that began while it was active.

use std::sync::Arc;

use loom::cell::UnsafeCell;
use loom::thread;

use super::{check, range, space};
use crate::mirror::{Attempts, Mirror, Table};
use crate::platform::be_number;
use crate::{AddressSpace, Invalidation, StartError};

/// A page that a device uses, and the mirror that leads to it.
struct World {
    page: UnsafeCell<u64>,
    mirror: Mirror<Option<()>>,
    space: AddressSpace,
}

// SAFETY: loom fails a model that uses the cell from two threads without order.
unsafe impl Send for World {}
// SAFETY: as above.
unsafe impl Sync for World {}

impl World {
    /// One whose table leads to the page.
    fn new() -> Arc<World> {
        let space = space();
        let mirror = Mirror::new(&space, range(0, 0), Some(())).ok().unwrap();
        Arc::new(World { page: UnsafeCell::new(0), mirror, space })
    }

    fn change(&self) {
        // SAFETY: nothing uses the page meanwhile; loom fails the model if something does.
        self.page.with_mut(|page| unsafe { *page += 1 });
    }

    fn look(&self) -> u64 {
        // SAFETY: nothing changes the page meanwhile; loom fails the model if something does.
        self.page.with(|page| unsafe { *page })
    }
}

#[test]
fn a_use_and_an_invalidation_see_each_other() {
    check(3, || {
        let world = World::new();
        let other = world.clone();
        let invalidator = thread::spawn(move || {
            be_number(1);
            other.space.invalidate(range(0, 0), || other.change());
        });
        if let Some(held) = world.mirror.hold(range(0, 0), |table| *table) {
            assert_eq!(world.look(), 0, "the table led to a page that was changed");
            drop(held);
        }
        invalidator.join().unwrap();
        assert_eq!(world.look(), 1);
    });
}

#[test]
fn what_may_not_wait_is_refused_or_alone() {
    check(3, || {
        let world = World::new();
        let other = world.clone();
        let invalidator = thread::spawn(move || {
            be_number(1);
            other.space.try_invalidate(range(0, 0), || other.change())
        });
        let fault = world.mirror.fault_in_use(
            range(0, 0),
            Attempts::UNBOUNDED,
            |_| Ok::<_, ()>(()),
            |table, found| *table = Some(found),
        );
        let used = fault.map(|held| (world.look(), drop(held)).0);
        match invalidator.join().unwrap() {
            Ok(()) => assert!(used.is_ok_and(|page| page <= 1)),
            Err(refused) => assert_eq!((refused, used), (StartError::WouldBlock, Ok(0))),
        }
    });
}

/// A table that changes the page itself when it drops its translation: behind the callback a start passes fences of its
/// own here, which would order a change that comes later.
struct Changing(Arc<Page>);

#[derive(Debug)]
struct Page(UnsafeCell<u64>);

// SAFETY: loom fails a model that uses the cell from two threads without order.
unsafe impl Send for Page {}
// SAFETY: as above.
unsafe impl Sync for Page {}

impl Table for Changing {
    fn invalidate(&mut self, _: &Invalidation) {
        // SAFETY: no use is in flight; loom fails the model if one is.
        self.0.0.with_mut(|page| unsafe { *page += 1 });
    }
}

#[test]
fn what_was_done_in_a_use_is_over_when_the_table_is_invalidated() {
    check(3, || {
        let space = space();
        let page = Arc::new(Page(UnsafeCell::new(0)));
        let mirror = Mirror::new(&space, range(0, 0), Changing(page.clone())).ok().unwrap();
        let invalidator = thread::spawn(move || {
            be_number(1);
            space.invalidate(range(0, 0), || ());
        });
        if let Some(held) = mirror.hold(range(0, 0), |_| Some(())) {
            // SAFETY: nothing changes the page while it is in use; loom fails the model if something does.
            page.0.with(|page| unsafe { *page });
            drop(held);
        }
        invalidator.join().unwrap();
    });
}
