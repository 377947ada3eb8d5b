//! The list: *section; F; array* of a walk against *mark, tombstone; new stamp; F; sections* of a grace
//! period; the limit of a start against a registration; arrays that are replaced and freed; *section; claim* of a
//! release against *claim; sections* of an exit.
//!
//! A break shows as a callback on a dropped subscriber (or a drop that is not ordered behind it), as an end
//! without its start, as a subscriber that a walk missed, or as a deadlock.

use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use loom::sync::atomic::{AtomicU64, Ordering};
use loom::thread;

use super::{Watch, check, range};
use crate::list::{Notifier, WouldBlock};
use crate::platform::{be_number, without_light_barriers};
use crate::{AddressSpace, AddressSpaceRef, Invalidation, synchronize};

/// The frees of all spaces are in one list, so models that put run one at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A subscriber whose callbacks use what its drop takes away, and pair starts with ends.
struct Probe {
    watch: Arc<Watch>,
    open: AtomicU32,
    released: AtomicU32,
}

impl Probe {
    fn new(watch: &Arc<Watch>) -> Self {
        Probe { watch: watch.clone(), open: AtomicU32::new(0), released: AtomicU32::new(0) }
    }
}

impl Notifier for Probe {
    fn release(&self) {
        self.watch.memory.with(|_| ());
        assert_eq!(self.released.fetch_add(1, Relaxed), 0, "released twice");
    }

    fn invalidate_range_start(&self, _: &Invalidation) -> Result<(), WouldBlock> {
        self.watch.called();
        self.open.fetch_add(1, Relaxed);
        Ok(())
    }

    fn invalidate_range_end(&self, _: &Invalidation) {
        assert_eq!(self.watch.drops(), 0);
        self.watch.memory.with(|_| ());
        assert_ne!(self.open.fetch_sub(1, Relaxed), 0, "an end without its start");
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        // Others may do something before it is gone.
        thread::yield_now();
        self.watch.memory.with_mut(|_| ());
        self.watch.drops.fetch_add(1, Relaxed);
    }
}

fn invalidate(space: &AddressSpaceRef) -> thread::JoinHandle<()> {
    let space = space.clone();
    thread::spawn(move || {
        be_number(1);
        space.invalidate(range(0, 0), || ());
    })
}

#[test]
fn after_unregister_no_callback_runs() {
    check(3, || {
        let space = AddressSpace::new();
        let watch = Watch::new();
        let gone = space.register(Probe::new(&watch)).unwrap();
        let thread = invalidate(&space);
        gone.unregister();
        assert_eq!(watch.drops(), 1);
        thread.join().unwrap();
    });
}

#[test]
fn who_registers_beside_a_start_hears_no_end_without_it() {
    check(6, || {
        let space = AddressSpace::new();
        let (first, second) = (Watch::new(), Watch::new());
        let stays = space.register(Probe::new(&first)).unwrap();
        let thread = invalidate(&space);
        let late = space.register(Probe::new(&second)).unwrap();
        thread.join().unwrap();
        assert_eq!(first.calls(), 1);
        assert!(second.calls() <= 1);
        drop((stays, late));
    });
}

/// The array has two places: the third registration replaces it under a walk.
#[test]
fn a_walk_misses_nobody_while_the_array_is_replaced() {
    check(2, || {
        let space = AddressSpace::new();
        let (kept, other) = (Watch::new(), Watch::new());
        let stays = space.register(Probe::new(&kept)).unwrap();
        let goes = space.register(Probe::new(&other)).unwrap();
        let thread = invalidate(&space);
        let third = space.register(Probe::new(&Watch::new())).unwrap();
        drop(goes);
        assert_eq!(other.drops(), 1);
        thread.join().unwrap();
        assert_eq!(kept.calls(), 1);
        drop((stays, third));
    });
}

/// Release comes once, whether the exit or the unregister is first, and unregister returns behind it.
#[test]
fn exit_and_unregister_release_once() {
    check(3, || {
        let space = AddressSpace::new();
        let watch = Watch::new();
        let registration = space.register(Probe::new(&watch)).unwrap();
        let thread = thread::spawn(move || drop(space));
        registration.unregister();
        assert_eq!(watch.drops(), 1);
        thread.join().unwrap();
    });
}

/// A subscriber whose release is seen by who knows that it is over.
struct Released(Arc<Watch>);

impl Notifier for Released {
    fn release(&self) {
        thread::yield_now();
        self.0.memory.with_mut(|_| ());
    }
}

/// Whoever releases, the exit or an unregister, is through with it when the exit returns.
#[test]
fn an_exit_returns_behind_the_release_of_an_unregister() {
    check(3, || {
        let space = AddressSpace::new();
        let watch = Watch::new();
        let registration = space.register(Released(watch.clone())).unwrap();
        let thread = thread::spawn(move || registration.unregister());
        drop(space);
        watch.memory.with_mut(|_| ());
        thread.join().unwrap();
    });
}

/// A subscriber whose release follows a word to what another's drop takes away, as in a read section.
struct Follows(Arc<AtomicU64>, Arc<Watch>);

impl Notifier for Follows {
    fn release(&self) {
        if self.0.load(Ordering::Relaxed) == 0 {
            self.1.memory.with(|_| ());
        }
    }
}

/// C4.5: the release that unregister calls is a walk, which a grace period waits for, or which sees what came before that.
#[test]
fn the_free_of_a_put_comes_behind_the_release_of_an_unregister_that_may_know_of_it() {
    let _alone = alone();
    check(3, || {
        let space = AddressSpace::new();
        let (watch, unlinked) = (Watch::new(), Arc::new(AtomicU64::new(0)));
        let follows = space.register(Follows(unlinked.clone(), watch.clone())).unwrap();
        let shared = space.get(0, |_| Ok::<_, ()>(Probe::new(&watch))).unwrap();
        let thread = thread::spawn(move || {
            be_number(1);
            follows.unregister();
        });
        unlinked.store(1, Ordering::Relaxed);
        shared.put();
        thread.join().unwrap();
        assert_eq!(watch.drops(), 1);
    });
}

#[test]
fn the_free_of_a_put_comes_once_and_behind_the_walks() {
    let _alone = alone();
    check(6, || {
        let space = AddressSpace::new();
        let watch = Watch::new();
        let shared = space.get(0, |_| Ok::<_, ()>(Probe::new(&watch))).unwrap();
        let thread = invalidate(&space);
        shared.put();
        thread.join().unwrap();
        assert_eq!(watch.drops(), 1);
    });
}

#[test]
fn synchronize_returns_behind_the_free() {
    let _alone = alone();
    check(5, || {
        let space = AddressSpace::new();
        let watch = Watch::new();
        let shared = space.get(0, |_| Ok::<_, ()>(Probe::new(&watch))).unwrap();
        let thread = invalidate(&space);
        shared.put();
        synchronize();
        assert_eq!(watch.drops(), 1);
        thread.join().unwrap();
    });
}

/// Walks that see the mode quick, and an unregister that turns it: light barriers are full fences here, as heavy
/// ones are. The mode was turned back by two sections without a change.
#[test]
fn an_unregister_waits_for_a_walk_that_took_the_quick_way() {
    check(3, || {
        let space = AddressSpace::new();
        let watch = Watch::new();
        let gone = space.register(Probe::new(&watch)).unwrap();
        be_number(2);
        space.invalidate(range(0, 0), || ());
        let thread = invalidate(&space);
        gone.unregister();
        assert_eq!(watch.drops(), 1);
        thread.join().unwrap();
    });
}

/// The mode is turned back by one thread while another takes somebody off; a third walks.
#[test]
fn who_turns_the_mode_back_hides_no_change() {
    check(3, || {
        let space = AddressSpace::new();
        let (watch, other) = (Watch::new(), Watch::new());
        let stays = space.register(Probe::new(&other)).unwrap();
        let gone = space.register(Probe::new(&watch)).unwrap();
        let walker = space.clone();
        let thread = thread::spawn(move || {
            be_number(1);
            walker.invalidate(range(0, 0), || ());
            walker.invalidate(range(0, 0), || ());
        });
        gone.unregister();
        assert_eq!(watch.drops(), 1);
        thread.join().unwrap();
        drop(stays);
    });
}

/// P7 on the list's side, in a space without intervals: *entry; F; look* against *begun; F; list*. Light barriers are
/// nothing here; nobody waits at a bell.
fn a_registration_beside_a_start(others: usize) {
    without_light_barriers(|| {
        check(4, move || {
            let space = Arc::new(AddressSpace::new());
            // It is watched already, whether or not anybody is on the list.
            let mut list = Vec::from([space.register(Probe::new(&Watch::new())).unwrap()]);
            list.truncate(others);
            let (watch, begun) = (Watch::new(), Arc::new(AtomicU64::new(0)));
            let (invalidator, begins) = (space.downgrade(), begun.clone());
            let thread = thread::spawn(move || {
                be_number(1);
                begins.store(1, Ordering::Relaxed);
                invalidator.invalidate(range(0, 0), || ());
            });
            let late = space.register(Probe::new(&watch)).unwrap();
            let is_to_come = begun.load(Ordering::Relaxed) == 0;
            thread.join().unwrap();
            assert!(
                !is_to_come || watch.calls() == 1,
                "a start was missed that began behind the registration"
            );
            core::mem::forget((list, late));
        });
    });
}

#[test]
fn a_registration_is_called_by_a_start_that_it_saw_to_come() {
    a_registration_beside_a_start(1);
}

#[test]
fn a_first_registration_is_called_by_a_start_that_it_saw_to_come() {
    a_registration_beside_a_start(0);
}
