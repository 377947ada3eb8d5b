//! A device with a list subscription embedded, as a driver of C has it; and shared ones, which the library asks the
//! driver to allocate and to free.

#![expect(unsafe_code, reason = "structures of C")]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::c_int;
use std::mem::{MaybeUninit, offset_of};
use std::ptr;
use std::sync::{Arc, Mutex};

use super::abi::{mm_struct, mmu_notifier, mmu_notifier_ops, mmu_notifier_range, pte_t};
use super::calls::calls;
use super::inline::mmu_notifier_get;
use super::mm::{Holder, blocking};
use super::{EAGAIN, LAST_ERROR};
use crate::scenario::lock::locked;
use crate::scenario::subscriber::Subscriber;
use crate::scenario::verb::Callback;

struct Device {
    subscriber: Arc<Subscriber>,
    /// Unwritten at first but for its `ops`, as C allows.
    mn: MaybeUninit<mmu_notifier>,
}

impl Device {
    fn new(subscriber: Arc<Subscriber>) -> *mut Device {
        Box::into_raw(Box::new(Device { subscriber, mn: MaybeUninit::uninit() }))
    }
}

static HEARS_ALL: mmu_notifier_ops = mmu_notifier_ops {
    release: Some(release),
    clear_flush_young: Some(young),
    clear_young: Some(young),
    test_young: Some(test_young),
    change_pte: Some(change_pte),
    invalidate_range_start: Some(start),
    invalidate_range_end: Some(end),
    invalidate_range: Some(invalidate_range),
    ..mmu_notifier_ops::NONE
};

/// A device that is registered; its drop is the unregister.
///
/// # Invariants
/// The device came from a `Box`, and its subscription is registered.
pub(in crate::scenario) struct List(*mut Device);

// SAFETY: the unregister may be called on any thread.
unsafe impl Send for List {}

impl List {
    /// Registers a new device; or gives the negative errno.
    pub(super) fn register(holder: &Holder, subscriber: Arc<Subscriber>) -> Result<List, c_int> {
        let device = Device::new(subscriber);
        let mn = mn_of(device);
        // SAFETY: the device's own memory.
        unsafe { (*mn).ops = &HEARS_ALL };
        // SAFETY: it stays where it is until the unregister, the table for good.
        let error = unsafe { (calls().mmu_notifier_register)(mn, holder.mm()) };
        if error == 0 {
            // INVARIANT: made and registered above.
            return Ok(List(device));
        }
        // SAFETY: made above; it is not registered.
        drop(unsafe { Box::from_raw(device) });
        Err(error)
    }
}

impl Drop for List {
    fn drop(&mut self) {
        let mn = mn_of(self.0);
        // SAFETY: registered, so that the library has written it.
        let mm = unsafe { (*mn).mm };
        // SAFETY: by the invariant it is registered, and with that holds its mm.
        unsafe { (calls().mmu_notifier_unregister)(mn, mm) };
        // SAFETY: by the invariant it came from a box; behind the unregister nobody uses it.
        drop(unsafe { Box::from_raw(self.0) });
    }
}

/// A reference to a shared device; its drop is the put.
///
/// # Invariants
/// It has one reference of those that `mmu_notifier_get` gave.
pub(in crate::scenario) struct Shared(*mut mmu_notifier);

// SAFETY: the put may be called on any thread.
unsafe impl Send for Shared {}

thread_local! {
    /// For whom `alloc_notifier` makes a device on this thread: it is told nothing but the mm.
    static MAKE: RefCell<Option<Arc<Subscriber>>> = const { RefCell::new(None) };
}

impl Shared {
    /// Gets the device of `key`, which is made for `make` if there is none; or gives the negative errno.
    pub(super) fn get(holder: &Holder, key: u64, make: Arc<Subscriber>) -> Result<Shared, c_int> {
        MAKE.set(Some(make));
        // SAFETY: the mm has a holder, and the table stays.
        let mn = unsafe { mmu_notifier_get(ops_of(key), holder.mm()) };
        MAKE.set(None);
        match mn.addr().wrapping_neg() {
            error @ 1..=LAST_ERROR => Err(-(error as c_int)),
            // INVARIANT: the get gave a reference.
            _ => Ok(Shared(mn)),
        }
    }

    /// Gives the subscriber of the device.
    pub(super) fn subscriber(&self) -> Arc<Subscriber> {
        // SAFETY: by the invariant it is alive, in a device.
        Arc::clone(unsafe { subscriber_of(self.0) })
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: by the invariant it has a reference to give back.
        unsafe { (calls().mmu_notifier_put)(self.0) };
    }
}

/// Gives the table of a key, whose address tells shared devices of one mm apart. It stays: a free may come late.
fn ops_of(key: u64) -> &'static mmu_notifier_ops {
    static TABLES: Mutex<BTreeMap<u64, &'static mmu_notifier_ops>> = Mutex::new(BTreeMap::new());
    locked(&TABLES).entry(key).or_insert_with(|| {
        Box::leak(Box::new(mmu_notifier_ops {
            release: Some(release),
            alloc_notifier: Some(alloc),
            free_notifier: Some(free),
            ..mmu_notifier_ops::NONE
        }))
    })
}

fn mn_of(device: *mut Device) -> *mut mmu_notifier {
    device.wrapping_byte_add(offset_of!(Device, mn)).cast()
}

fn device_of(mn: *mut mmu_notifier) -> *mut Device {
    mn.wrapping_byte_sub(offset_of!(Device, mn)).cast()
}

/// # Safety
/// The subscription lies in a device that is alive.
unsafe fn subscriber_of<'d>(mn: *mut mmu_notifier) -> &'d Arc<Subscriber> {
    // SAFETY: as promised by the caller.
    unsafe { &(*device_of(mn)).subscriber }
}

unsafe extern "C" fn alloc(_mm: *mut mm_struct) -> *mut mmu_notifier {
    MAKE.take().map_or(ptr::null_mut(), |subscriber| mn_of(Device::new(subscriber)))
}

unsafe extern "C" fn free(mn: *mut mmu_notifier) {
    // SAFETY: made by `alloc`; this is its one free.
    let device = unsafe { Box::from_raw(device_of(mn)) };
    device.subscriber.free();
}

unsafe extern "C" fn release(mn: *mut mmu_notifier, _mm: *mut mm_struct) {
    // SAFETY: the library calls it for a device.
    unsafe { subscriber_of(mn) }.call(Callback::Release);
}

unsafe extern "C" fn start(mn: *mut mmu_notifier, range: *const mmu_notifier_range) -> c_int {
    // SAFETY: the range of a callback, which is read only.
    let may = blocking(unsafe { &*range });
    // SAFETY: the library calls it for a device.
    if unsafe { subscriber_of(mn) }.start(may) { 0 } else { EAGAIN }
}

unsafe extern "C" fn end(mn: *mut mmu_notifier, _range: *const mmu_notifier_range) {
    // SAFETY: the library calls it for a device.
    unsafe { subscriber_of(mn) }.call(Callback::End);
}

unsafe extern "C" fn invalidate_range(mn: *mut mmu_notifier, _mm: *mut mm_struct, _start: u64, _end: u64) {
    // SAFETY: the library calls it for a device.
    unsafe { subscriber_of(mn) }.call(Callback::Invalidate);
}

unsafe extern "C" fn young(mn: *mut mmu_notifier, _mm: *mut mm_struct, _start: u64, _end: u64) -> c_int {
    // SAFETY: the library calls it for a device.
    unsafe { subscriber_of(mn) }.young().into()
}

unsafe extern "C" fn test_young(mn: *mut mmu_notifier, _mm: *mut mm_struct, _address: u64) -> c_int {
    // SAFETY: the library calls it for a device.
    unsafe { subscriber_of(mn) }.young().into()
}

unsafe extern "C" fn change_pte(mn: *mut mmu_notifier, _mm: *mut mm_struct, _address: u64, _pte: pte_t) {
    // SAFETY: the library calls it for a device.
    unsafe { subscriber_of(mn) }.call(Callback::ChangePte);
}
