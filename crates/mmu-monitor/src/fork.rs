//! Fork and exit, which the C library tells of by itself, whatever the sources are.
//!
//! A fork write-protects what is private, in the parent too: from before it until after it the whole space is
//! invalidated (`Event::ProtectionPage`). The forking thread's bracket goes on in the child, which ends its own.
//! The core's handlers were registered before these, so they run inside the bracket; a follower, whose space is made
//! later, has handlers of its own behind those of its space. At exit the space is released.
//!
//! A process that is made by `clone` alone, past the C library, is not told of; nor is a death by signal.

#![expect(unsafe_code, reason = "functions of the C library")]

use core::cell::{Cell, RefCell};
use core::mem::ManuallyDrop;
use std::sync::OnceLock;
use std::thread_local;

use mmu_notifier::{ActiveInvalidation, Event, Invalidation, OutOfMemory, Range};

use crate::follower::{self, Followed};
use crate::process;

/// What a thread keeps from before a fork until after it.
struct Forking {
    /// How many forks it is in: a handler of a signal may fork, too. The outermost one has the bracket.
    depth: Cell<u32>,
    bracket: Cell<Option<ManuallyDrop<ActiveInvalidation<'static>>>>,
}

thread_local! {
    // Const and without a destructor: reaching it allocates nothing.
    static FORKING: Forking = const { Forking { depth: Cell::new(0), bracket: Cell::new(None) } };
    static FOLLOWED: ManuallyDrop<RefCell<Option<Followed>>> = const { ManuallyDrop::new(RefCell::new(None)) };
}

/// Asks the C library to tell, once a process.
///
/// # Errors
/// It has no memory to remember that.
pub(crate) fn arm() -> Result<(), OutOfMemory> {
    static ARMED: OnceLock<bool> = OnceLock::new();
    let is_armed = ARMED.get_or_init(|| {
        // SAFETY: the handlers are functions of this crate, which stays loaded.
        let forks = unsafe { libc::pthread_atfork(Some(before), Some(after), Some(after)) };
        // SAFETY: as above.
        let exits = unsafe { libc::atexit(leave) };
        forks == 0 && exits == 0
    });
    if *is_armed { Ok(()) } else { Err(OutOfMemory) }
}

/// The same for the follower, once there is one: its own space's handlers, which take its locks, were registered when that
/// was made, and so run within these. False if there is no memory to remember that.
pub(crate) fn arm_follower() -> bool {
    // SAFETY: as above.
    unsafe { libc::pthread_atfork(Some(before_follower), Some(after_follower), Some(after_follower)) == 0 }
}

fn whole() -> Invalidation {
    Invalidation::new(Range::ALL, Event::ProtectionPage)
}

extern "C" fn before() {
    FORKING.with(|forking| {
        forking.depth.set(forking.depth.get() + 1);
        if let (1, Some(space)) = (forking.depth.get(), process::space()) {
            forking.bracket.set(Some(ManuallyDrop::new(space.invalidate_start(whole()))));
        }
    });
}

extern "C" fn after() {
    FORKING.with(|forking| {
        forking.depth.set(forking.depth.get() - 1);
        if forking.depth.get() == 0 {
            forking
                .bracket
                .take()
                .map(ManuallyDrop::into_inner)
                .into_iter()
                .for_each(ActiveInvalidation::end);
        }
    });
}

extern "C" fn before_follower() {
    // Of a fork within a fork this one begins before that of the process, and the outer one has begun.
    if FORKING.with(|forking| forking.depth.get()) == 0 {
        FOLLOWED.with(|followed| follower::start(&whole(), &mut followed.borrow_mut()));
    }
}

extern "C" fn after_follower() {
    if FORKING.with(|forking| forking.depth.get()) == 0 {
        FOLLOWED.with(|followed| *followed.borrow_mut() = None);
    }
}

extern "C" fn leave() {
    if let Some(space) = process::space() {
        space.release();
        follower::release();
    }
}
