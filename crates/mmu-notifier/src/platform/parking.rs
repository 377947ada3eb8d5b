//! `std` without futexes of our own: a table of condition variables, full fences, no thread numbers.
//!
//! Chosen where the system is not Linux, and by `--cfg mmu_notifier_std_parking` anywhere.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

pub(crate) use super::threads::{
    Payload, catch, catch_here, give_way, is_panicking, now, resume, spin, with_context,
};
use crate::sync::{AtomicU32, Ordering, full_fence};

/// How many condition variables the sleepers of all spaces share.
const PLACES: usize = 64;

static TABLE: [(Mutex<()>, Condvar); PLACES] = [const { (Mutex::new(()), Condvar::new()) }; PLACES];

fn place(word: &AtomicU32) -> &'static (Mutex<()>, Condvar) {
    &TABLE[core::ptr::from_ref(word) as usize / 64 % PLACES]
}

/// Sleeps while `word` is `value`, until `deadline` at the latest.
pub(crate) fn wait(word: &AtomicU32, value: u32, deadline: Option<u64>) {
    let (mutex, condition) = place(word);
    let guard = mutex.lock().unwrap_or_else(PoisonError::into_inner);
    if word.load(Ordering::Acquire) != value {
        return;
    }
    match deadline {
        None => drop(condition.wait(guard)),
        Some(end) => {
            let left = end.saturating_sub(now().unwrap_or(end));
            drop(condition.wait_timeout(guard, Duration::from_nanos(left)));
        }
    }
}

/// Makes `change` and wakes all who sleep on `word`.
pub(crate) fn wake(word: &AtomicU32, change: impl FnOnce()) {
    let (mutex, condition) = place(word);
    let guard = mutex.lock().unwrap_or_else(PoisonError::into_inner);
    change();
    condition.notify_all();
    drop(guard);
}

/// There is no barrier for all threads here: where a light one would do, a full fence stands.
pub(crate) fn has_barriers() -> bool {
    false
}

#[inline(always)]
pub(crate) fn light_barrier() {}

pub(crate) fn heavy_barrier() -> bool {
    full_fence();
    false
}

/// Nothing was done without a fence.
pub(crate) fn settle() {}

/// Registers what runs around a fork, where the system has one.
#[cfg(unix)]
#[expect(unsafe_code, reason = "pthread_atfork")]
pub(crate) fn on_fork(prepare: extern "C" fn(), parent: extern "C" fn(), child: extern "C" fn()) {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        // SAFETY: the handlers are functions of this library, which is never unloaded while it is in use.
        let result = unsafe { libc::pthread_atfork(Some(prepare), Some(parent), Some(child)) };
        assert!(result == 0, "pthread_atfork failed: {result}");
    });
}

/// There is no fork here.
#[cfg(not(unix))]
pub(crate) fn on_fork(_: extern "C" fn(), _: extern "C" fn(), _: extern "C" fn()) {}

/// No numbers: threads share records.
pub(crate) fn take_number() -> u32 {
    0
}

/// Memory is as it comes here.
pub(crate) fn prefer_huge_page(_block: core::ptr::NonNull<u8>) {}
