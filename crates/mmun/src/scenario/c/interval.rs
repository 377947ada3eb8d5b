//! A device with an interval subscription embedded, as a driver of C has it.
//!
//! The callback finds the device around the subscription, takes the device's lock, and sets the sequence under it. What
//! a second pass needs is memory of the device's own, one piece for each start.

#![expect(unsafe_code, reason = "structures of C")]

use std::mem::{MaybeUninit, offset_of};
use std::sync::Arc;

use mmu_notifier::interval::Answer;
use mmu_notifier::{Address, Event};

use super::abi::{
    event_of, mmu_interval_notifier, mmu_interval_notifier_finish, mmu_interval_notifier_ops,
    mmu_notifier_range,
};
use super::calls::calls;
use super::inline::mmu_interval_read_retry;
use super::mm::{Holder, blocking};
use crate::scenario::subscriber::Subscriber;

struct Device {
    subscriber: Arc<Subscriber>,
    /// Unwritten at first, as C allows.
    sub: MaybeUninit<mmu_interval_notifier>,
}

/// What waits for a second pass.
struct Flush {
    subscriber: Arc<Subscriber>,
    event: Event,
    finish: MaybeUninit<mmu_interval_notifier_finish>,
}

static ONE_PASS: mmu_interval_notifier_ops = mmu_interval_notifier_ops {
    invalidate: Some(invalidate),
    invalidate_start: None,
    invalidate_finish: None,
};

static TWO_PASSES: mmu_interval_notifier_ops = mmu_interval_notifier_ops {
    invalidate: None,
    invalidate_start: Some(invalidate_start),
    invalidate_finish: Some(invalidate_finish),
};

/// A device whose subscription is inserted; its drop is the remove.
///
/// # Invariants
/// The device came from a `Box`, and its subscription is inserted.
pub(in crate::scenario) struct Interval(*mut Device);

// SAFETY: reads and the remove may be called on any thread.
unsafe impl Send for Interval {}
// SAFETY: as above.
unsafe impl Sync for Interval {}

impl Interval {
    /// Inserts the subscription of a new device; or gives the negative errno.
    pub(super) fn insert(
        holder: &Holder,
        start: Address,
        length: u64,
        subscriber: Arc<Subscriber>,
    ) -> Result<Interval, i32> {
        let ops = if subscriber.has_finish() { &TWO_PASSES } else { &ONE_PASS };
        let device = Box::into_raw(Box::new(Device { subscriber, sub: MaybeUninit::uninit() }));
        // SAFETY: the device's memory stays where it is until the remove, the table for good.
        let error = unsafe {
            (calls().mmu_interval_notifier_insert)(sub_of(device), holder.mm(), start.get(), length, ops)
        };
        if error == 0 {
            // INVARIANT: made and inserted above.
            return Ok(Interval(device));
        }
        // SAFETY: from the box above; it is not inserted.
        drop(unsafe { Box::from_raw(device) });
        Err(error)
    }

    /// Begins to read.
    pub(super) fn read_begin(&self) -> u64 {
        // SAFETY: by the invariant it is inserted.
        unsafe { (calls().mmu_interval_read_begin)(sub_of(self.0)) }
    }

    /// Says whether what was read since is of no use.
    pub(super) fn read_retry(&self, seq: u64) -> bool {
        // SAFETY: by the invariant it is inserted.
        unsafe { mmu_interval_read_retry(sub_of(self.0), seq) }
    }
}

impl Drop for Interval {
    fn drop(&mut self) {
        // SAFETY: by the invariant it is inserted.
        unsafe { (calls().mmu_interval_notifier_remove)(sub_of(self.0)) };
        // SAFETY: by the invariant it came from a box; behind the remove nobody uses it.
        drop(unsafe { Box::from_raw(self.0) });
    }
}

fn sub_of(device: *mut Device) -> *mut mmu_interval_notifier {
    device.wrapping_byte_add(offset_of!(Device, sub)).cast()
}

/// `container_of`, and the part that both forms of the callback share.
///
/// # Safety
/// It is the call of a callback of a device here.
unsafe fn hit(
    sub: *mut mmu_interval_notifier,
    range: *const mmu_notifier_range,
    seq: u64,
) -> (Answer, Arc<Subscriber>, Event) {
    let device: *const Device = sub.wrapping_byte_sub(offset_of!(Device, sub)).cast();
    // SAFETY: the subscription lies in a device, which is not freed before its remove has returned.
    let subscriber = Arc::clone(unsafe { &(*device).subscriber });
    // SAFETY: the range of a callback, which is read only.
    let range = unsafe { &*range };
    let event = event_of(range.event);
    let lock = subscriber.lock();
    // SAFETY: within the callback, with what it got.
    unsafe { (calls().mmu_interval_set_seq)(sub, seq) };
    drop(lock);
    (subscriber.invalidate(event, blocking(range)), subscriber, event)
}

unsafe extern "C" fn invalidate(
    sub: *mut mmu_interval_notifier,
    range: *const mmu_notifier_range,
    seq: u64,
) -> bool {
    // SAFETY: the library calls it for a device.
    let (answer, ..) = unsafe { hit(sub, range, seq) };
    answer != Answer::Refused
}

unsafe extern "C" fn invalidate_start(
    sub: *mut mmu_interval_notifier,
    range: *const mmu_notifier_range,
    seq: u64,
    finish: *mut *mut mmu_interval_notifier_finish,
) -> bool {
    // SAFETY: the library calls it for a device.
    let (answer, subscriber, event) = unsafe { hit(sub, range, seq) };
    if answer == Answer::Begun {
        let flush = Box::into_raw(Box::new(Flush { subscriber, event, finish: MaybeUninit::uninit() }));
        // SAFETY: the place that the library gives for it.
        unsafe { finish.write(flush.wrapping_byte_add(offset_of!(Flush, finish)).cast()) };
    }
    answer != Answer::Refused
}

unsafe extern "C" fn invalidate_finish(finish: *mut mmu_interval_notifier_finish) {
    let flush: *mut Flush = finish.wrapping_byte_sub(offset_of!(Flush, finish)).cast();
    // SAFETY: made in the first pass, which this is the one end of.
    let flush = unsafe { Box::from_raw(flush) };
    flush.subscriber.finish(flush.event);
}
