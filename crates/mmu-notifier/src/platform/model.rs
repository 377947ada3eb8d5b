//! Under a model checker: its threads, its mutexes, and a wake-up that is lost shows as a deadlock.

#[cfg(all(test, loom))]
use core::cell::Cell;
use std::boxed::Box;

use super::Context;
use crate::sync::{AtomicU32, Ordering, full_fence};

#[cfg(loom)]
use loom::{
    sync::{Condvar, Mutex},
    thread,
};
#[cfg(shuttle)]
use shuttle::{
    sync::{Condvar, Mutex},
    thread,
};

pub(crate) type Payload = Box<dyn core::any::Any + Send>;

/// A word on which threads sleep.
#[derive(Debug)]
pub(crate) struct Futex {
    word: AtomicU32,
    mutex: Mutex<()>,
    condition: Condvar,
}

impl Futex {
    pub(crate) fn new() -> Self {
        Futex { word: AtomicU32::new(0), mutex: Mutex::new(()), condition: Condvar::new() }
    }

    pub(crate) fn value(&self) -> u32 {
        self.word.load(Ordering::Acquire)
    }

    /// Sleeps while the word is `value`; a model has no clock.
    pub(crate) fn wait(&self, value: u32, _deadline: Option<u64>) {
        let mut guard = self.mutex.lock().expect("no panic under the lock");
        while self.value() == value {
            guard = self.condition.wait(guard).expect("no panic under the lock");
        }
    }

    /// Changes the word and wakes all sleepers.
    pub(crate) fn advance_and_wake(&self) {
        let guard = self.mutex.lock().expect("no panic under the lock");
        self.word.fetch_add(1, Ordering::Release);
        self.condition.notify_all();
        drop(guard);
    }
}

#[cfg(loom)]
loom::thread_local! {
    static CONTEXT: Context = Context::new();
}

#[cfg(shuttle)]
shuttle::thread_local! {
    static CONTEXT: Context = Context::new();
}

pub(crate) fn with_context<R>(f: impl FnOnce(Option<&Context>) -> R) -> R {
    CONTEXT.with(|context| f(Some(context)))
}

pub(crate) fn catch<R>(callback: impl FnOnce() -> R) -> Result<R, Payload> {
    catch_here(callback)
}

pub(crate) fn catch_here<R>(callback: impl FnOnce() -> R) -> Result<R, Payload> {
    Ok(callback())
}

/// Panics are not caught here, so none is kept while another passes.
pub(crate) fn is_panicking() -> bool {
    false
}

pub(crate) fn resume(payload: Payload) -> ! {
    std::panic::resume_unwind(payload)
}

pub(crate) fn now() -> Option<u64> {
    None
}

pub(crate) fn spin() {
    thread::yield_now();
}

pub(crate) fn give_way() {
    thread::yield_now();
}

#[cfg(all(test, loom))]
std::thread_local! {
    static HAS_BARRIERS: Cell<bool> = const { Cell::new(true) };
}

/// Takes the heavy barriers away while `model` runs, and the light ones with them: what is made in it is fenced.
#[cfg(all(test, loom))]
pub(crate) fn without_barriers(model: impl FnOnce()) {
    HAS_BARRIERS.set(false);
    without_light_barriers(model);
    HAS_BARRIERS.set(true);
}

#[cfg(all(test, loom))]
std::thread_local! {
    static LIGHT_IS_FULL: Cell<bool> = const { Cell::new(true) };
}

/// Makes light barriers nothing while `model` runs: what they are between two heavy ones. For models in which
/// nobody waits at a bell, so that they show what holds without the fences that light barriers are here.
#[cfg(all(test, loom))]
pub(crate) fn without_light_barriers(model: impl FnOnce()) {
    LIGHT_IS_FULL.set(false);
    model();
    LIGHT_IS_FULL.set(true);
}

pub(crate) fn light_barrier() {
    #[cfg(all(test, loom))]
    if !LIGHT_IS_FULL.get() {
        return;
    }
    // ORDERING: in a model both sides of the asymmetric barrier are full fences.
    full_fence();
}

pub(crate) fn heavy_barrier() -> bool {
    full_fence();
    has_barriers()
}

pub(crate) fn has_barriers() -> bool {
    #[cfg(all(test, loom))]
    return HAS_BARRIERS.get();
    #[cfg(not(all(test, loom)))]
    true
}

pub(crate) fn settle() {}

pub(crate) fn on_fork(_: extern "C" fn(), _: extern "C" fn(), _: extern "C" fn()) {}

/// Threads of a loom model share records, unless they took a number by [`be_number`].
#[cfg(loom)]
pub(crate) fn take_number() -> u32 {
    0
}

/// Every other thread of a shuttle run has a number, the others share records.
#[cfg(shuttle)]
pub(crate) fn take_number() -> u32 {
    let thread = usize::from(shuttle::current::me()) as u32;
    if thread % 2 == 0 { 0 } else { thread }
}

/// Gives the calling thread of a model a number: from then on it has records of its own.
#[cfg(all(test, loom))]
pub(crate) fn be_number(number: u32) {
    CONTEXT.with(|context| context.number.set(number));
}

/// Memory is as it comes here.
pub(crate) fn prefer_huge_page(_block: core::ptr::NonNull<u8>) {}
