//! Without `std`: what a kernel supplies, or spinning with full fences where it supplies nothing.

use core::fmt;

use super::Context;
use crate::sync::{AtomicU32, Ordering, full_fence};

/// The services of a kernel. Each has a default that works on a machine with one thread, or by spinning.
///
/// # Safety
/// - [`context`](Self::context) gives two tasks that are in a call of the library, callbacks included, neither
///   the same context nor contexts with the same [number](Context::with_number).
/// - A task gets the same one from the beginning of a call to its end.
#[expect(unsafe_code, reason = "two tasks that write one record would free what a third one uses")]
pub unsafe trait Platform: Sync {
    /// The context of the running task; none if it has none. With a number its starts are cheapest.
    fn context(&self) -> Option<&Context> {
        None
    }

    /// Sleeps while `word` is `value`; may return early. `deadline` is a moment on the clock of
    /// [`now`](Self::now).
    ///
    /// # Context
    /// Called only by what may sleep (clause C5.9), with none of the library's locks held.
    fn wait(&self, word: &AtomicU32, value: u32, deadline: Option<u64>) {
        let _ = (word, value, deadline);
        core::hint::spin_loop();
    }

    /// Wakes everybody who sleeps on `word`. May be called by a start or an end, so it does not sleep.
    fn wake(&self, word: &AtomicU32) {
        let _ = word;
    }

    /// Nanoseconds on a clock that never goes back; none where there is no clock: then waits with a
    /// timeout return at once.
    fn now(&self) -> Option<u64> {
        None
    }
}

/// What is used until a kernel installs its own.
struct Nothing;

#[expect(unsafe_code, reason = "an unsafe trait")]
// SAFETY: it gives no context.
unsafe impl Platform for Nothing {}

static INSTALLED: AtomicU32 = AtomicU32::new(0);
static PLATFORM: Slot = Slot(core::cell::UnsafeCell::new(&Nothing));

struct Slot(core::cell::UnsafeCell<&'static dyn Platform>);

#[expect(unsafe_code, reason = "a static that is written once")]
// SAFETY: written once, by who moves INSTALLED from 0 to 1; read only after it is 2 (acquire).
unsafe impl Sync for Slot {}

/// A platform was installed before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AlreadyInstalled;

impl fmt::Display for AlreadyInstalled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a platform is installed already: install one, before the first address space is made")
    }
}

impl core::error::Error for AlreadyInstalled {}

/// Installs the kernel's services, once, before the first address space is made.
///
/// # Errors
/// [`AlreadyInstalled`] at every further call.
#[expect(unsafe_code, reason = "a static that is written once")]
pub fn install(platform: &'static dyn Platform) -> Result<(), AlreadyInstalled> {
    if INSTALLED.compare_exchange(0, 1, Ordering::Relaxed, Ordering::Relaxed).is_err() {
        return Err(AlreadyInstalled);
    }
    // SAFETY: only one caller gets here, and nobody reads before INSTALLED is 2.
    unsafe { *PLATFORM.0.get() = platform };
    INSTALLED.store(2, Ordering::Release);
    Ok(())
}

#[expect(unsafe_code, reason = "a static that is written once")]
fn platform() -> &'static dyn Platform {
    // ORDERING: acquire pairs with the release in `install`.
    if INSTALLED.load(Ordering::Acquire) != 2 {
        return &Nothing;
    }
    // SAFETY: INSTALLED is 2, so the slot is written and never changes again.
    unsafe { *PLATFORM.0.get() }
}

/// Without `std` a panic is not caught: it ends the program, or unwinds through the library, which then
/// leaves what it was doing undone.
pub(crate) type Payload = core::convert::Infallible;

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
    match payload {}
}

#[inline(always)]
pub(crate) fn with_context<R>(f: impl FnOnce(Option<&Context>) -> R) -> R {
    f(platform().context())
}

pub(crate) fn now() -> Option<u64> {
    platform().now()
}

pub(crate) fn spin() {
    core::hint::spin_loop();
}

pub(crate) fn give_way() {
    core::hint::spin_loop();
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

/// There is no fork here.
pub(crate) fn on_fork(_: extern "C" fn(), _: extern "C" fn(), _: extern "C" fn()) {}

/// The kernel gives numbers with its contexts.
pub(crate) fn take_number() -> u32 {
    0
}

/// Sleeps while `word` is `value`, until `deadline` at the latest.
pub(crate) fn wait(word: &AtomicU32, value: u32, deadline: Option<u64>) {
    platform().wait(word, value, deadline);
}

/// Wakes all who sleep on `word`, behind `change`.
pub(crate) fn wake(word: &AtomicU32, change: impl FnOnce()) {
    change();
    platform().wake(word);
}

/// Memory is as it comes here.
pub(crate) fn prefer_huge_page(_block: core::ptr::NonNull<u8>) {}
