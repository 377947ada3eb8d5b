//! Linux: futexes, `membarrier`, and thread numbers that survive any way in which a thread may end.
//!
//! A number is a robust mutex that its thread locks and never unlocks. When the thread is gone the kernel
//! marks the mutex, and the next thread in need takes it over. So no destructor runs at a thread's exit, a
//! number can be taken in any moment of a thread's life (inside `free()`, with signals blocked, while it
//! ends), and nothing is allocated.

#![expect(unsafe_code, reason = "system calls and pthread mutexes")]

use core::cell::UnsafeCell;
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicU32 as StaticU32, Ordering::Relaxed, compiler_fence};
use std::sync::{Once, OnceLock};

pub(crate) use super::threads::{
    Payload, catch, catch_here, give_way, is_panicking, now, resume, spin, with_context,
};
use crate::sync::{AtomicU32, Ordering, full_fence};

/// The most threads that have a number at one time; further ones share records.
const NUMBERS: usize = 4096;

/// Sleeps while `word` is `value`, until `deadline` at the latest.
pub(crate) fn wait(word: &AtomicU32, value: u32, deadline: Option<u64>) {
    let left = deadline.map(|end| end.saturating_sub(now().unwrap_or(end)));
    let timeout = left.map(|left| libc::timespec {
        tv_sec: (left / 1_000_000_000) as libc::time_t,
        tv_nsec: (left % 1_000_000_000) as libc::c_long,
    });
    let timeout = timeout.as_ref().map_or(core::ptr::null(), core::ptr::from_ref);
    let operation = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: the word is alive while it is borrowed; timeout is null or points to a live timespec.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), operation, value, timeout) };
}

/// Wakes all who sleep on `word`, behind `change`.
pub(crate) fn wake(word: &AtomicU32, change: impl FnOnce()) {
    change();
    let operation = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: FUTEX_WAKE only uses the address of the word as a key.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), operation, i32::MAX) };
}

/// How long [`settle`] sleeps, in nanoseconds: much longer than any processor keeps a store.
const NAP: u64 = 10_000_000;

/// Not 0 as long as heavy barriers reach every thread; before the first space they do not.
static BARRIERS: StaticU32 = StaticU32::new(0);

/// Says whether light barriers may be relied on: whether heavy ones reach every thread. Once taken away they stay so.
#[inline]
pub(crate) fn has_barriers() -> bool {
    !cfg!(mmu_notifier_tsan) && BARRIERS.load(Relaxed) != 0
}

/// Orders the accesses around it, as long as the other side uses [`heavy_barrier`], and that reaches everybody.
#[inline(always)]
pub(crate) fn light_barrier() {
    // ORDERING: pairs with heavy_barrier, which makes every running thread pass a full barrier.
    compiler_fence(core::sync::atomic::Ordering::SeqCst);
}

/// A full barrier on every thread of the process that runs. False if it reaches this one only: then other sides
/// need fences, and what they did without one is seen behind [`settle`].
pub(crate) fn heavy_barrier() -> bool {
    full_fence();
    if BARRIERS.load(Relaxed) != 0 && !membarrier(libc::MEMBARRIER_CMD_PRIVATE_EXPEDITED) {
        // The registration does not survive every fork and exec; it can be had again.
        let again = membarrier(libc::MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED)
            && membarrier(libc::MEMBARRIER_CMD_PRIVATE_EXPEDITED);
        if !again {
            // A sandbox forbids it by now.
            BARRIERS.store(0, Relaxed);
        }
    }
    has_barriers()
}

/// Sleeps until what other threads have stored so far can be seen: no processor keeps a store for so long.
#[cold]
pub(crate) fn settle() {
    full_fence();
    std::thread::sleep(std::time::Duration::from_nanos(NAP));
    full_fence();
}

fn membarrier(command: libc::c_int) -> bool {
    // SAFETY: membarrier takes no pointers.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) };
    result == 0
}

/// Asks for one huge page in place of many small ones, for a block of that size which nobody has used yet.
pub(crate) fn prefer_huge_page(block: core::ptr::NonNull<u8>) {
    // A kernel that has none refuses, which changes nothing.
    // SAFETY: the advice changes no content, and the block is the caller's.
    unsafe { libc::madvise(block.as_ptr().cast(), crate::memory::HUGE, libc::MADV_HUGEPAGE) };
}

/// Finds out, before the first space, which barriers there are.
fn choose_barriers() {
    let expedited = membarrier(libc::MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED)
        && membarrier(libc::MEMBARRIER_CMD_PRIVATE_EXPEDITED);
    BARRIERS.store(u32::from(expedited), Relaxed);
}

/// The signals that a forking thread had blocked before.
struct Mask(UnsafeCell<libc::sigset_t>);

// SAFETY: it is used between the two halves of a fork by the thread that holds the locks of all spaces.
unsafe impl Sync for Mask {}

/// What runs around a fork, on top of what blocks signals meanwhile: a handler that forks, too, would wait for locks of its
/// own thread.
struct AroundFork {
    prepare: OnceLock<extern "C" fn()>,
    parent: OnceLock<extern "C" fn()>,
    child: OnceLock<extern "C" fn()>,
    mask: Mask,
}

static AROUND_FORK: AroundFork = AroundFork {
    prepare: OnceLock::new(),
    parent: OnceLock::new(),
    child: OnceLock::new(),
    // SAFETY: all zero is a valid set.
    mask: Mask(UnsafeCell::new(unsafe { core::mem::zeroed() })),
};

extern "C" fn before_fork() {
    // SAFETY: all zero is a valid set.
    let mut all: libc::sigset_t = unsafe { core::mem::zeroed() };
    // SAFETY: as above.
    let mut old: libc::sigset_t = unsafe { core::mem::zeroed() };
    // SAFETY: both are places of this function.
    unsafe { libc::sigfillset(&raw mut all) };
    // SAFETY: as above.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut old) };
    AROUND_FORK.prepare.get().into_iter().for_each(|prepare| prepare());
    // SAFETY: the locks are held.
    unsafe { *AROUND_FORK.mask.0.get() = old };
}

extern "C" fn after_fork_in_parent() {
    // SAFETY: the locks are still held.
    let old = unsafe { *AROUND_FORK.mask.0.get() };
    AROUND_FORK.parent.get().into_iter().for_each(|parent| parent());
    unblock(&old);
}

extern "C" fn after_fork_in_child() {
    // SAFETY: the locks are still held.
    let old = unsafe { *AROUND_FORK.mask.0.get() };
    NUMBER_TABLE.forget_all();
    AROUND_FORK.child.get().into_iter().for_each(|child| child());
    unblock(&old);
}

fn unblock(old: &libc::sigset_t) {
    // SAFETY: a set that this thread had before.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, old, core::ptr::null_mut()) };
}

/// Registers what runs around a fork: before it in the parent, after it in the parent, and in the child. Signals are
/// blocked from the first to the second. Called before the first space is made.
pub(crate) fn on_fork(prepare: extern "C" fn(), parent: extern "C" fn(), child: extern "C" fn()) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        choose_barriers();
        let _ = AROUND_FORK.prepare.set(prepare);
        let _ = AROUND_FORK.parent.set(parent);
        let _ = AROUND_FORK.child.set(child);
        // SAFETY: the handlers are functions of this library, which is never unloaded while it is in use.
        let result = unsafe {
            libc::pthread_atfork(Some(before_fork), Some(after_fork_in_parent), Some(after_fork_in_child))
        };
        assert!(result == 0, "pthread_atfork failed: {result}");
    });
}

/// The numbers: entry `n - 1` belongs to number `n`.
struct Numbers {
    /// Held while a thread takes a number.
    busy: StaticU32,
    /// How many mutexes are initialised.
    made: StaticU32,
    mutexes: UnsafeCell<[MaybeUninit<libc::pthread_mutex_t>; NUMBERS]>,
}

// SAFETY: the mutexes are made under `busy` and are meant to be shared.
unsafe impl Sync for Numbers {}

static NUMBER_TABLE: Numbers = Numbers {
    busy: StaticU32::new(0),
    made: StaticU32::new(0),
    mutexes: UnsafeCell::new([const { MaybeUninit::uninit() }; NUMBERS]),
};

/// Gives this thread a number; 0 if all are taken.
#[cold]
pub(crate) fn take_number() -> u32 {
    NUMBER_TABLE.take()
}

impl Numbers {
    /// Takes the lowest number whose thread is gone, or a new one.
    fn take(&self) -> u32 {
        let mut turns = 0;
        while self.busy.compare_exchange(0, 1, Ordering::Acquire, Relaxed).is_err() {
            super::relax(&mut turns);
        }
        let made = self.made.load(Relaxed);
        let inherited = (0..made).find(|&index| self.inherit(index));
        let number = inherited.map_or_else(|| self.make(made), |index| index + 1);
        self.busy.store(0, Ordering::Release);
        number
    }

    fn mutex(&self, index: u32) -> *mut libc::pthread_mutex_t {
        let base = self.mutexes.get().cast::<libc::pthread_mutex_t>();
        base.wrapping_add(index as usize)
    }

    /// Takes a number over if its thread is gone.
    fn inherit(&self, index: u32) -> bool {
        // SAFETY: index < made, so the mutex is initialised.
        match unsafe { libc::pthread_mutex_trylock(self.mutex(index)) } {
            0 => true,
            libc::EOWNERDEAD => {
                // SAFETY: this thread just locked the mutex and was told that its owner died.
                unsafe { libc::pthread_mutex_consistent(self.mutex(index)) };
                true
            }
            _ => false,
        }
    }

    /// Makes one more number for this thread; 0 if there is no room.
    fn make(&self, index: u32) -> u32 {
        if index as usize >= NUMBERS || !self.initialise(index) {
            return 0;
        }
        self.made.store(index + 1, Relaxed);
        if self.inherit(index) { index + 1 } else { 0 }
    }

    fn initialise(&self, index: u32) -> bool {
        let mut attributes = MaybeUninit::<libc::pthread_mutexattr_t>::uninit();
        let attributes = attributes.as_mut_ptr();
        // SAFETY: attributes points to room for the object that is made there.
        if unsafe { libc::pthread_mutexattr_init(attributes) } != 0 {
            return false;
        }
        // SAFETY: attributes was initialised above.
        let robust = unsafe { libc::pthread_mutexattr_setrobust(attributes, libc::PTHREAD_MUTEX_ROBUST) };
        // SAFETY: the mutex lies in the table and is not in use: index >= made, or this is a forked child.
        let made = unsafe { libc::pthread_mutex_init(self.mutex(index), attributes) };
        // SAFETY: attributes was initialised above and is not used again.
        unsafe { libc::pthread_mutexattr_destroy(attributes) };
        robust == 0 && made == 0
    }

    /// In the child of a fork: the threads that had numbers are not here, and this one takes a new one.
    fn forget_all(&self) {
        self.busy.store(0, Relaxed);
        for index in 0..self.made.load(Relaxed) {
            self.initialise(index);
        }
    }
}
