//! Subscriptions embedded in structures of their user's, found again by their address, and what is diagnosed.

// A thread without a context is not recognised in its own callbacks.
#[cfg(feature = "std")]
mod removing;

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{
    End, Interval, IntervalCallbacks, IntervalOps, Listener, ListenerCallbacks, ListenerOps, Question,
    Released, Started,
};
use crate::address::Range;
use crate::diagnostics;
use crate::interval::{Answer, InsertErrorKind, Options, Sequence};
use crate::invalidation::{Invalidation, Owner};
use crate::list::{RegisterErrorKind, WouldBlock};
use crate::map_lock::MapLockGuard;
use crate::space::AddressSpace;
use crate::synchronize;

/// Findings are counted for the whole process: one test at a time looks at them.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A device structure with an interval inside, not at its front.
#[repr(C)]
struct Device {
    hits: AtomicU32,
    finished: AtomicU32,
    interval: Interval,
}

impl IntervalOps for Device {
    unsafe fn invalidate(interval: NonNull<Interval>, _: &Invalidation, _: Sequence) -> Answer {
        device(interval).hits.fetch_add(1, Ordering::Relaxed);
        Answer::Begun
    }

    unsafe fn finish(interval: NonNull<Interval>, _: &Invalidation) {
        device(interval).finished.fetch_add(1, Ordering::Relaxed);
    }
}

static DEVICE: IntervalCallbacks = IntervalCallbacks::of::<Device>();

/// container_of.
fn device<'d>(interval: NonNull<Interval>) -> &'d Device {
    let device = interval.as_ptr().cast::<u8>().wrapping_sub(core::mem::offset_of!(Device, interval));
    // SAFETY: every interval of this table lies in a device, and the pointer is one to the whole device.
    unsafe { &*device.cast::<Device>() }
}

fn make() -> (NonNull<Device>, NonNull<Interval>) {
    let device =
        Device { hits: AtomicU32::new(0), finished: AtomicU32::new(0), interval: Interval::new(&DEVICE) };
    let device = NonNull::from(Box::leak(Box::new(device)));
    let interval = device.as_ptr().cast::<u8>().wrapping_add(core::mem::offset_of!(Device, interval));
    (device, NonNull::new(interval.cast()).unwrap())
}

#[test]
fn an_interval_in_a_structure_of_its_user() {
    let space = AddressSpace::new();
    let (device, interval) = make();
    let range = Range::from_len(0x1000u64, 0x1000).unwrap();
    // SAFETY: the device stays where it is until it was removed.
    unsafe { Interval::insert(interval, &space, range, Options::new()) }.unwrap();
    // SAFETY: the device is alive until the end of the test.
    let seen = unsafe { device.as_ref() };
    let reader = &seen.interval;
    let token = reader.read_begin().unwrap();
    assert!(!reader.read_retry(token));
    let active = space.invalidate_start(range);
    assert_eq!((seen.hits.load(Ordering::Relaxed), seen.finished.load(Ordering::Relaxed)), (1, 1));
    assert!(reader.read_retry(token) && reader.try_read_begin().is_none());
    active.end();
    // SAFETY: it was inserted, and this is no callback.
    unsafe { Interval::remove(interval) };
    space.invalidate(range, || {});
    assert_eq!(seen.hits.load(Ordering::Relaxed), 1);
    // SAFETY: made by make, and removed.
    drop(unsafe { Box::from_raw(device.as_ptr()) });
}

#[test]
fn what_is_not_inserted_is_diagnosed_and_harmless() {
    let _alone = alone();
    let space = AddressSpace::new();
    let (device, interval) = make();
    let before = diagnostics::findings();
    // SAFETY: an interval that was never inserted may be removed: that is what is diagnosed.
    unsafe { Interval::remove(interval) };
    // SAFETY: the device is alive until the end of the test.
    assert!(unsafe { interval.as_ref() }.read_begin().is_none());
    // SAFETY: the device stays where it is until it was removed.
    unsafe { Interval::insert(interval, &space, Range::ALL, Options::new()) }.unwrap();
    // SAFETY: as above.
    let twice = unsafe { Interval::insert(interval, &space, Range::ALL, Options::new()) };
    assert_eq!(twice, Err(InsertErrorKind::Gone));
    // SAFETY: as above; twice, which is what is diagnosed.
    unsafe { Interval::remove(interval) };
    // SAFETY: as above.
    unsafe { Interval::remove(interval) };
    assert!(diagnostics::findings() >= before + 4);
    let gone = space.downgrade();
    drop(space);
    // SAFETY: as above.
    let result = unsafe { Interval::insert(interval, &gone, Range::ALL, Options::new()) };
    assert_eq!(result, Err(InsertErrorKind::Gone));
    // SAFETY: as above: after a failed insert, which is what is diagnosed.
    unsafe { Interval::remove(interval) };
    // SAFETY: made by make, and not inserted.
    drop(unsafe { Box::from_raw(device.as_ptr()) });
}

static HEARD: Mutex<Vec<&str>> = Mutex::new(Vec::new());

fn hear(what: &'static str) {
    HEARD.lock().unwrap().push(what);
}

/// Notes what it hears, and is a box of its own.
struct Hearing;

impl ListenerOps for Hearing {
    unsafe fn release(_: NonNull<Listener>) {
        hear("release");
    }

    unsafe fn invalidate_range_start(_: NonNull<Listener>, _: &Invalidation) -> Result<(), WouldBlock> {
        hear("start");
        Ok(())
    }

    unsafe fn invalidate_range_end(_: NonNull<Listener>, _: &Invalidation) {
        hear("end");
    }

    unsafe fn young(_: NonNull<Listener>, question: Question) -> bool {
        matches!(question, Question::Test(_))
    }

    unsafe fn free(listener: NonNull<Listener>) {
        hear("free");
        // SAFETY: made by Box::leak below, and this is its one free.
        drop(unsafe { Box::from_raw(listener.as_ptr()) });
    }
}

static LISTENER: ListenerCallbacks = ListenerCallbacks::of::<Hearing>();

fn heard() -> Vec<&'static str> {
    core::mem::take(&mut HEARD.lock().unwrap())
}

#[test]
fn a_listener_is_registered_found_put_and_freed() {
    let space = AddressSpace::new();
    let listener = NonNull::from(Box::leak(Box::new(Listener::new(&LISTENER))));
    let range = Range::from_len(0u64, 1).unwrap();
    {
        let lock = space.map_lock();
        assert_eq!(Listener::find(&space, &lock, &LISTENER).unwrap(), None);
        // SAFETY: the listener stays where it is until its free.
        unsafe { Listener::register(listener, &space, &lock) }.unwrap();
        // SAFETY: as above.
        let twice = unsafe { Listener::register(listener, &space, &lock) };
        assert_eq!(twice, Err(RegisterErrorKind::Gone));
        assert_eq!(Listener::find(&space, &lock, &LISTENER).unwrap(), Some(listener));
    }
    space.invalidate(range, || {});
    assert!(space.test_young(range.start()) && !space.clear_young(range));
    assert_eq!(heard(), ["start", "end"]);
    // SAFETY: registered, and found once more: two references.
    assert_eq!(unsafe { Listener::put(listener) }, Released::Kept);
    // SAFETY: as above.
    assert_eq!(unsafe { Listener::put(listener) }, Released::Last);
    synchronize();
    assert_eq!(heard(), ["free"], "put does not release");
    space.invalidate(range, || {});
    assert!(heard().is_empty());
    // Another one, unregistered instead.
    let other = NonNull::from(Box::leak(Box::new(Listener::new(&LISTENER))));
    // SAFETY: it stays where it is until it was unregistered.
    unsafe { Listener::register(other, &space, &space.map_lock()) }.unwrap();
    // SAFETY: registered, and this is no callback.
    unsafe { Listener::unregister(other) };
    // SAFETY: off already, which is what is diagnosed.
    unsafe { Listener::unregister(other) };
    assert_eq!(heard(), ["release"]);
    // SAFETY: made by Box::leak, and unregistered.
    drop(unsafe { Box::from_raw(other.as_ptr()) });
}

/// Sets its sequence for odd pages only.
struct Skipping;

impl IntervalOps for Skipping {
    unsafe fn invalidate(interval: NonNull<Interval>, what: &Invalidation, seq: Sequence) -> Answer {
        if what.range().start().get() & 0x1000 != 0 {
            // SAFETY: it is inserted.
            unsafe { interval.as_ref() }.set_sequence(seq.get());
        }
        Answer::Done
    }

    unsafe fn finish(_: NonNull<Interval>, _: &Invalidation) {}
}

static SKIPPING: IntervalCallbacks = IntervalCallbacks::of::<Skipping>();

#[test]
fn c3_12_a_callback_that_does_not_set_its_sequence_has_skipped() {
    let space = AddressSpace::new();
    let interval = NonNull::from(Box::leak(Box::new(Interval::with_own_sequence(&SKIPPING))));
    {
        let lock = space.map_lock();
        // SAFETY: it stays where it is until it was removed.
        unsafe { Interval::insert_locked(interval, &space, &lock, Range::ALL, Options::new()) }.unwrap();
    }
    // SAFETY: it is alive until the end of the test.
    let reader = unsafe { interval.as_ref() };
    let token = reader.read_begin().unwrap();
    let even = Invalidation::from(Range::from_len(0x2000u64, 1).unwrap());
    let odd = Invalidation::from(Range::from_len(0x1000u64, 1).unwrap());
    let started = Started::start(&space, even).unwrap();
    assert!(!reader.read_retry(token) && reader.read_begin() == Some(token), "not its business");
    // SAFETY: started above, in this space.
    unsafe { started.end(&space, || even, End::Whole) };
    let started = Started::start(&space, odd).unwrap();
    assert!(reader.read_retry(token) && reader.try_read_begin().is_none());
    // SAFETY: as above.
    unsafe { started.end(&space, || odd, End::OnlyEnd) };
    assert_eq!(reader.sequence(), reader.read_begin());
    // SAFETY: it was inserted, and this is no callback.
    unsafe { Interval::remove(interval) };
    // SAFETY: made by Box::leak, and removed.
    drop(unsafe { Box::from_raw(interval.as_ptr()) });
}

#[test]
fn an_interval_with_an_owner_and_a_label() {
    let space = AddressSpace::new();
    let (device, interval) = make();
    let range = Range::from_len(0x1000u64, 0x1000).unwrap();
    // SAFETY: the device is alive until the end of the test.
    let seen = unsafe { device.as_ref() };
    let owner = Owner::new(7).unwrap();
    for _ in 0..2 {
        let options = Options::new().owner(owner).label("device");
        // SAFETY: the device stays where it is until it was removed.
        unsafe { Interval::insert(interval, &space, range, options) }.unwrap();
        let token = seen.interval.read_begin().unwrap();
        space.invalidate(Invalidation::from(range).with_owner(owner), || {});
        assert!(!seen.interval.read_retry(token), "an invalidation of its own");
        space.invalidate(range, || {});
        assert!(seen.interval.read_retry(token));
        // SAFETY: it was inserted, and this is no callback.
        unsafe { Interval::remove(interval) };
    }
    assert_eq!(seen.hits.load(Ordering::Relaxed), 2);
    drop(space);
    // SAFETY: made by make, and removed.
    drop(unsafe { Box::from_raw(device.as_ptr()) });
}

/// Counts in its interval's word, and in steps of 100 what the table is called for.
struct Counting;

impl IntervalOps for Counting {
    unsafe fn invalidate(interval: NonNull<Interval>, _: &Invalidation, _: Sequence) -> Answer {
        // SAFETY: it is inserted.
        unsafe { interval.as_ref() }.word.fetch_add(100, Ordering::Relaxed);
        Answer::Done
    }

    unsafe fn finish(_: NonNull<Interval>, _: &Invalidation) {}
}

static COUNTING: IntervalCallbacks = IntervalCallbacks::of::<Counting>();

/// Refuses the owner 9.
unsafe extern "C" fn count(interval: NonNull<Interval>, owner: *mut core::ffi::c_void, seq: u64) -> bool {
    // SAFETY: it is inserted.
    let interval = unsafe { interval.as_ref() };
    interval.word.fetch_add(1, Ordering::Relaxed);
    interval.set_sequence(seq);
    owner.addr() != 9
}

#[test]
fn a_direct_callback_is_called_for_an_owner_and_without_options() {
    let space = AddressSpace::new();
    let interval = NonNull::from(Box::leak(Box::new(Interval::with_direct(&COUNTING, count))));
    // SAFETY: it is alive until the end of the test.
    let word = &unsafe { interval.as_ref() }.word;
    let of = |owner| Invalidation::from(Range::ALL).with_owner(Owner::new(owner).unwrap());
    for (options, hits) in [(Options::new(), 102), (Options::new().label("counting"), 300)] {
        word.store(0, Ordering::Relaxed);
        // SAFETY: it stays where it is until it was removed.
        unsafe { Interval::insert(interval, &space, Range::ALL, options) }.unwrap();
        space.invalidate(of(7), || {});
        space.invalidate(Range::ALL, || {});
        let refused = Started::start(&space, of(9).with_blockable(false));
        assert_eq!(refused.is_err(), hits == 102, "the direct callback refuses");
        if let Ok(started) = refused {
            // SAFETY: started above, in this space.
            unsafe { started.end(&space, || of(9), End::Whole) };
        }
        assert_eq!(word.load(Ordering::Relaxed), hits);
        // SAFETY: it was inserted, and this is no callback.
        unsafe { Interval::remove(interval) };
    }
    // SAFETY: made by Box::leak, and removed.
    drop(unsafe { Box::from_raw(interval.as_ptr()) });
}

#[test]
fn a_map_lock_whose_guard_was_forgotten() {
    let space = AddressSpace::new();
    // SAFETY: nobody holds it.
    assert!(unsafe { MapLockGuard::of_held(&space) }.is_none());
    core::mem::forget(space.map_lock());
    // SAFETY: this thread holds it, and the guard is the one that is dropped.
    let lock = unsafe { MapLockGuard::of_held(&space) }.unwrap();
    space.register_nobody_locked(&lock).unwrap();
    drop(lock);
    drop(space.map_lock());
}

#[test]
fn c8_1_a_second_release_does_nothing() {
    let space = AddressSpace::new();
    let (device, interval) = make();
    // SAFETY: the device stays where it is until it was removed.
    unsafe { Interval::insert(interval, &space, Range::ALL, Options::new()) }.unwrap();
    // SAFETY: the device is alive until the end of the test.
    let hits = &unsafe { device.as_ref() }.hits;
    space.release();
    space.release();
    drop(space);
    assert_eq!(hits.load(Ordering::Relaxed), 1);
    // SAFETY: it was inserted, and this is no callback.
    unsafe { Interval::remove(interval) };
    // SAFETY: made by make, and removed.
    drop(unsafe { Box::from_raw(device.as_ptr()) });
}
