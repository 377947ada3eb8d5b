//! What the library needs of the machine below it, and the only module with a `cfg` for it.
//!
//! | need | Linux with `std` | elsewhere with `std` | without `std` |
//! |---|---|---|---|
//! | [`Context`] of the running thread | thread-local, no destructor | the same | `Platform::context` |
//! | its number | a robust mutex a number | none | given by the kernel |
//! | sleep and wake | futex | a table of condition variables | `Platform::wait` |
//! | barrier on every thread | `membarrier` | none: full fences | none: full fences |
//! | panics in callbacks | caught and resumed | the same | not caught |
//! | huge pages for large blocks | `madvise` | as it comes | as it comes |
//!
//! A thread without a number shares records with others and pays one compare-and-exchange a start; a thread
//! without a context is not recognised in its own callbacks: there it may not remove or unregister.

#![expect(unsafe_code, reason = "the address of a context is kept for the time of a call")]

use core::cell::Cell;
use core::mem;
use core::ptr;
use core::sync::atomic::AtomicU64 as StaticU64;
use core::time::Duration;

use crate::frame::Frame;
use crate::hazard::Hazard;
use crate::sync::{AtomicU32, Ordering, full_fence};

#[cfg(all(not(feature = "std"), not(any(loom, shuttle))))]
mod bare;
#[cfg(not(any(loom, shuttle)))]
mod futex;
#[cfg(all(feature = "std", target_os = "linux", not(mmu_notifier_std_parking), not(any(loom, shuttle))))]
mod linux;
#[cfg(any(loom, shuttle))]
mod model;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod near;
#[cfg(all(
    feature = "std",
    any(not(target_os = "linux"), mmu_notifier_std_parking),
    not(any(loom, shuttle))
))]
mod parking;
#[cfg(all(feature = "std", not(any(loom, shuttle))))]
mod threads;

#[cfg(all(not(feature = "std"), not(any(loom, shuttle))))]
use bare as primitives;
#[cfg(all(not(feature = "std"), not(any(loom, shuttle))))]
pub use bare::{AlreadyInstalled, Platform, install};
#[cfg(all(
    feature = "std",
    target_os = "linux",
    not(mmu_notifier_std_parking),
    not(any(loom, shuttle))
))]
use linux as primitives;
#[cfg(any(loom, shuttle))]
use model as primitives;
#[cfg(all(
    feature = "std",
    any(not(target_os = "linux"), mmu_notifier_std_parking),
    not(any(loom, shuttle))
))]
use parking as primitives;

#[cfg(not(any(loom, shuttle)))]
pub(crate) use futex::Futex;
#[cfg(any(loom, shuttle))]
pub(crate) use model::Futex;
pub(crate) use primitives::{
    catch, has_barriers, heavy_barrier, light_barrier, now, on_fork, prefer_huge_page, resume, settle,
    with_context,
};

#[cfg(all(test, loom))]
pub(crate) use primitives::{be_number, without_barriers, without_light_barriers};

/// What a panicking callback left.
pub(crate) type Payload = primitives::Payload;

/// Stands for the number of a thread that asked for one and got none.
const REFUSED: u32 = u32::MAX;

/// How many spaces a thread remembers its record of.
const REMEMBERED: usize = 4;

/// What the library keeps for a thread, or in a kernel for a task: its calls under way, and where its
/// records are. It owns nothing, so a thread may end without a word.
#[derive(Debug)]
pub struct Context {
    number: Cell<u32>,
    id: Cell<u64>,
    /// The space of the mirror whose lock this thread took last and still has; 0 if it has none.
    locked: Cell<u64>,
    frames: Cell<*const Frame>,
    /// The type of the notifier whose callback runs, where that is noted.
    calling: Cell<Option<&'static str>>,
    remembered: [Cell<(u64, *const Hazard)>; REMEMBERED],
}

impl Context {
    /// The context of a thread that has no number yet.
    pub const fn new() -> Self {
        Context {
            number: Cell::new(0),
            id: Cell::new(0),
            locked: Cell::new(0),
            frames: Cell::new(ptr::null()),
            calling: Cell::new(None),
            remembered: [const { Cell::new((0, ptr::null())) }; REMEMBERED],
        }
    }

    /// The context of a thread or CPU with a number of its own, from 1 on; small numbers are best.
    ///
    /// At any time one thread at the most may use a number.
    pub const fn with_number(number: u32) -> Self {
        let context = Context::new();
        Context { number: Cell::new(number), ..context }
    }

    /// The number of this thread, taken at its first call; 0 if it has none.
    pub(crate) fn number(&self) -> u32 {
        if self.number.get() == 0 {
            let number = primitives::take_number();
            // A thread that got none does not ask again: the search for one is long where all are taken.
            self.number.set(if number == 0 { REFUSED } else { number });
        }
        self.known_number()
    }

    /// The number of this thread if it has taken one already; else 0.
    pub(crate) fn known_number(&self) -> u32 {
        match self.number.get() {
            REFUSED => 0,
            number => number,
        }
    }

    /// A number that no other thread has or had, in this process or in those that it is a fork of.
    #[inline]
    fn id(&self) -> u64 {
        if self.id.get() == 0 {
            self.take_id();
        }
        self.id.get()
    }

    #[cold]
    fn take_id(&self) {
        static IDS: StaticU64 = StaticU64::new(1);
        self.id.set(IDS.fetch_add(1, core::sync::atomic::Ordering::Relaxed));
    }

    /// Forgets the number and what goes with it: in the child of a fork every number is free again.
    pub(crate) fn forget_number(&self) {
        self.number.set(0);
        self.remembered.iter().for_each(|entry| entry.set((0, ptr::null())));
    }

    #[inline]
    pub(crate) fn frames(&self) -> *const Frame {
        self.frames.get()
    }

    pub(crate) fn set_frames(&self, frame: *const Frame) {
        self.frames.set(frame);
    }

    pub(crate) fn calling(&self) -> Option<&'static str> {
        self.calling.get()
    }

    pub(crate) fn set_calling(&self, notifier: Option<&'static str>) {
        self.calling.set(notifier);
    }

    /// The record that was [remembered](Self::remember) for the space `id`, which is never used twice, nor 0.
    #[inline(always)]
    pub(crate) fn remembered(&self, id: u64) -> Option<*const Hazard> {
        let (space, hazard) = self.remembered[id as usize % REMEMBERED].get();
        (space == id).then_some(hazard)
    }

    pub(crate) fn remember(&self, id: u64, hazard: &Hazard) {
        self.remembered[id as usize % REMEMBERED].set((id, hazard));
    }
}

impl Default for Context {
    fn default() -> Self {
        Context::new()
    }
}

/// The context of this thread, for a call that is to stay in registers: no closure takes their addresses.
///
/// # Safety
/// The caller does not keep it beyond its own call, which stays on this thread.
#[inline(always)]
pub(crate) unsafe fn context<'c>() -> Option<&'c Context> {
    let context = with_context(|context| context.map_or(ptr::null(), ptr::from_ref));
    // SAFETY: null, or the context of this thread, which lives as long as it.
    unsafe { context.as_ref() }
}

/// The [id](Context::id) of this thread; 0 if it has no context.
#[inline]
pub(crate) fn thread_id() -> u64 {
    with_context(|context| context.map_or(0, Context::id))
}

/// The space of the mirror's lock that this thread has; 0 if it has none.
pub(crate) fn locked() -> u64 {
    with_context(|context| context.map_or(0, |context| context.locked.get()))
}

/// Notes the space of the mirror's lock that this thread has from now on; gives that of before.
#[inline]
pub(crate) fn exchange_locked(space: u64) -> u64 {
    with_context(|context| context.map_or(0, |context| context.locked.replace(space)))
}

/// Calls back, and keeps the first panic of those that a call makes.
///
/// For the functions of a table, which are made for the type of a callback and do nothing else: it is inlined, so that a
/// callback that cannot panic costs nothing.
#[inline(always)]
pub(crate) fn keep<R>(panic: &mut Option<Payload>, callback: impl FnOnce() -> R) -> Option<R> {
    match primitives::catch_here(callback) {
        Ok(result) => Some(result),
        Err(payload) => {
            keep_payload(panic, payload);
            None
        }
    }
}

/// Takes a panic that was kept. Where there is none nothing is copied: of such a place one word was stored only, and who loads
/// both waits for that store.
#[inline(always)]
pub(crate) fn take_kept(panic: &mut Option<Payload>) -> Option<Payload> {
    if panic.is_some() { take_payload(panic) } else { None }
}

#[cold]
#[inline(never)]
fn take_payload(panic: &mut Option<Payload>) -> Option<Payload> {
    panic.take()
}

/// Keeps the first panic of several.
#[inline]
pub(crate) fn keep_first(first: &mut Option<Payload>, panic: Option<Payload>) {
    if let Some(payload) = panic {
        keep_payload(first, payload);
    }
}

/// What a later panic carries is dropped; if that panics too, what that one carries is not.
#[cold]
#[inline(never)]
fn keep_payload(first: &mut Option<Payload>, payload: Payload) {
    if first.is_none() {
        *first = Some(payload);
        return;
    }
    discard(payload);
}

/// Drops what a panic carries; if that panics too, drops what that one carries, and forgets what a third would.
#[cold]
#[inline(never)]
pub(crate) fn discard(payload: Payload) {
    let drop_it = |payload: Payload| {
        catch(move || {
            let _later = payload;
        })
    };
    _ = drop_it(payload).or_else(drop_it).map_err(mem::forget);
}

/// Does what comes behind a call that may have panicked: then a panic of this is a later one.
#[inline]
pub(crate) fn behind(panic: &Option<Payload>, work: impl FnOnce()) {
    do_behind(panic.is_some(), work);
}

/// Does the work of a destructor. Its panic goes on, unless another one is passing already: two would abort
/// the program, so the first one is kept (clause C7.2).
#[inline]
pub(crate) fn in_drop(work: impl FnOnce()) {
    do_behind(primitives::is_panicking(), work);
}

#[inline]
fn do_behind(has_panicked: bool, work: impl FnOnce()) {
    if has_panicked {
        _ = catch(work).map_err(discard);
    } else {
        work();
    }
}

/// Passes the time in a loop that waits for another thread's next few instructions.
pub(crate) fn relax(turns: &mut u32) {
    *turns += 1;
    if *turns < 64 { primitives::spin() } else { primitives::give_way() }
}

/// A moment to give up at, on the platform's clock; none where there is no clock.
pub(crate) fn deadline(timeout: Duration) -> Option<u64> {
    let nanoseconds = u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX);
    Some(now()?.saturating_add(nanoseconds))
}

/// Where threads sleep until somebody has done something, and how many are there.
///
/// # Protocol
/// Who waits: [`enter`](Bell::enter), then looks whether it still has to wait, then [`sleep`](Bell::sleep),
/// and looks again. Who changes something: changes it, then looks whether it is [heard](Bell::is_heard), and
/// [rings](Bell::ring). `enter` ends with a heavy barrier and the look begins with a light one, so either the changer
/// sees the waiter or the waiter the change.
///
/// Where heavy barriers do not reach everybody, the bell is *fenced*: a bit beside the count sends the changer through
/// a full fence. A bell that was made before they were taken away becomes so with its next waiter, who then sleeps until
/// what others did without a fence can be seen.
#[derive(Debug)]
pub(crate) struct Bell {
    waiters: AtomicU32,
    futex: Futex,
}

/// The bit of a fenced bell, and a waiter, in `Bell::waiters`.
const FENCED: u32 = 1;
const WAITER: u32 = 2;

impl Bell {
    pub(crate) fn new() -> Self {
        let waiters = if has_barriers() { 0 } else { FENCED };
        Bell { waiters: AtomicU32::new(waiters), futex: Futex::new() }
    }

    /// Announces a waiter, asleep or hung up here.
    pub(crate) fn enter(&self) {
        let before = self.waiters.fetch_add(WAITER, Ordering::Relaxed);
        // ORDERING: heavy barrier against the light one in `is_heard`: announcement, then look.
        if !heavy_barrier() && before & FENCED == 0 {
            settle();
            self.waiters.fetch_or(FENCED, Ordering::Relaxed);
        }
    }

    /// Takes back an announcement.
    pub(crate) fn leave(&self) {
        self.waiters.fetch_sub(WAITER, Ordering::Relaxed);
    }

    /// The number of the last call; to be read before the look that decides to sleep.
    pub(crate) fn calls(&self) -> u32 {
        self.futex.value()
    }

    /// Sleeps until a call after `calls`, or the deadline; may wake early.
    pub(crate) fn sleep(&self, calls: u32, deadline: Option<u64>) {
        self.futex.wait(calls, deadline);
    }

    /// Says whether somebody may have to hear of a change that was just made.
    #[inline(always)]
    pub(crate) fn is_heard(&self) -> bool {
        // ORDERING: light barrier against the heavy one in `enter`: change, then look for waiters.
        light_barrier();
        self.waiters.load(Ordering::Relaxed) != 0 && self.is_heard_behind_fence()
    }

    #[inline(never)]
    fn is_heard_behind_fence(&self) -> bool {
        // ORDERING: the same against the fence in `enter`, where the heavy barrier reached nobody else.
        full_fence();
        self.waiters.load(Ordering::Relaxed) >= WAITER
    }

    /// Wakes all who sleep.
    #[cold]
    pub(crate) fn ring(&self) {
        self.futex.advance_and_wake();
    }

    /// In the child of a fork: nobody sleeps here any more.
    pub(crate) fn forget_waiters(&self) {
        self.waiters.fetch_and(FENCED, Ordering::Relaxed);
    }

    /// Waits until `over` says so; false if the deadline came first.
    pub(crate) fn wait_until(&self, deadline: Option<u64>, mut over: impl FnMut() -> bool) -> bool {
        for _ in 0..SPINS {
            if over() {
                return true;
            }
            primitives::spin();
        }
        self.enter();
        let done = loop {
            let calls = self.calls();
            if over() {
                break true;
            }
            if deadline.is_some_and(|end| now().is_none_or(|now| now >= end)) {
                break false;
            }
            self.sleep(calls, deadline);
        };
        self.leave();
        done
    }
}

/// How often a waiter looks before it goes to sleep.
const SPINS: u32 = if cfg!(any(loom, shuttle)) { 1 } else { 100 };
