//! The protocol, step by step, on the machine in software.

use std::sync::atomic::AtomicBool;
use std::thread::{scope, sleep};

use mmu_notifier::mirror::Attempt;
use mmu_notifier::{Event, StartError};

use super::*;
use crate::demo::device::Bank;
use crate::demo::explicit::Mappings;
use crate::demo::software::{self, Table};

fn watched() -> (AddressSpace, Buffer<Table>) {
    let space = AddressSpace::new();
    let Bank { device, mut memories } = software::banks(1, 1).remove(0);
    let buffer = Buffer::watched(&space, &device, 0, memories.remove(0)).unwrap();
    (space, buffer)
}

/// Waits until `condition` holds, and fails loudly if it never does.
fn until(condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < deadline, "this never came");
        sleep(Duration::from_millis(1));
    }
}

fn hold(buffer: &Buffer<Table>) -> InUse<'_, Slot<Table>, ()> {
    buffer.hold(buffer.mirror.as_ref().unwrap()).unwrap()
}

fn is_registered(buffer: &Buffer<Table>) -> bool {
    let program = std::fs::File::open(std::env::current_exe().unwrap()).unwrap();
    buffer.entry.device.read(0, &mut lock(&buffer.place.memory), &program, 0, 1).is_ok()
}

#[test]
fn an_invalidation_waits_for_the_use_in_flight() {
    let (space, buffer) = watched();
    let mappings = Mappings::new(space);
    let changed = AtomicBool::new(false);
    let in_use = hold(&buffer);
    scope(|scope| {
        scope.spawn(|| {
            mappings.munmap(buffer.place()).unwrap();
            changed.store(true, Ordering::SeqCst);
        });
        until(|| mappings.starts() == 1);
        sleep(Duration::from_millis(20));
        assert!(is_registered(&buffer), "not cleared under the use");
        assert!(!changed.load(Ordering::SeqCst), "not changed under the use");
        drop(in_use);
        until(|| changed.load(Ordering::SeqCst));
    });
    assert!(!is_registered(&buffer));
}

#[test]
fn one_that_may_not_block_is_refused_and_leaves_the_slot_live() {
    let (space, buffer) = watched();
    let discard = Invalidation::new(lock(&buffer.place.memory).range(), Event::Clear);
    let in_use = hold(&buffer);
    assert_eq!(space.try_invalidate(discard, || ()), Err(StartError::WouldBlock));
    assert!(is_registered(&buffer));
    drop(in_use);
    assert_eq!(space.try_invalidate(discard, || ()), Ok(()));
    assert!(!is_registered(&buffer));
}

#[test]
fn a_registration_that_was_stale_is_not_used() {
    let (space, buffer) = watched();
    let mirror = buffer.mirror.as_ref().unwrap();
    let mappings = Mappings::new(space);
    let is_live = || mirror.hold(mirror.range(), |slot| slot.live.then_some(())).is_some();
    let walk = |attempt: Attempt<'_, Slot<Table>>| {
        assert!(!is_live(), "what a stale walk left in the slot is not live");
        if attempt.number() == 1 {
            mappings.discard(buffer.place())?;
        }
        buffer.register()?;
        if attempt.number() == 2 {
            mappings.discard(buffer.place())?;
        }
        io::Result::Ok(attempt.number())
    };
    let walks = mirror.fault_in_use(mirror.range(), Attempts::UNBOUNDED, walk, |slot, number| {
        slot.live = true;
        number
    });
    assert_eq!(*walks.unwrap(), 3);
    assert!(is_live());
    assert_eq!(buffer.hits_and_retries().0, 2);
}

#[test]
fn trusting_is_wrong_after_a_change_and_watching_is_right() {
    let source = Source::open(&std::env::current_exe().unwrap()).unwrap();
    let (expected, unlike) = (b"\x7fELF", [0; 4]);
    let (space, watching) = watched();
    let Bank { device, mut memories } = software::banks(1, 1).remove(0);
    let trusting = Buffer::trusting(&device, 0, memories.remove(0)).unwrap();
    let mappings = Mappings::new(space);
    for (buffer, right) in [(&trusting, false), (&watching, true)] {
        assert!(buffer.deliver(&source, 0, expected, &unlike).unwrap().right);
        mappings.map_fixed(buffer.place()).unwrap();
        let delivery = buffer.deliver(&source, 0, expected, &unlike).unwrap();
        assert_eq!((delivery.length, delivery.right), (4, right), "success is reported either way");
    }
}
