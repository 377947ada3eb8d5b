//! Fork and exit, which the C library tells of by itself, whatever the sources are.
//!
//! A fork write-protects what is private, in the parent too: from before it until after it the whole space is
//! invalidated (`Event::ProtectionPage`). The forking thread's bracket goes on in the child, which ends its own.
//! The core's handlers were registered before these, so they run inside the bracket. At exit the space is released.
//!
//! A process that is made by `clone` alone, past the C library, is not told of; nor is a death by signal.

#![expect(unsafe_code, reason = "functions of the C library")]

use core::cell::{Cell, RefCell};
use core::mem::ManuallyDrop;
use std::sync::Once;
use std::thread_local;

use mmu_notifier::{ActiveInvalidation, Event, Invalidation, Range};

use crate::follower::{self, Followed};
use crate::process;

type Bracket = ManuallyDrop<ActiveInvalidation<'static>>;

thread_local! {
    // Const and without a destructor: reaching it allocates nothing.
    static FORKING: Cell<Option<Bracket>> = const { Cell::new(None) };
    static FOLLOWED: ManuallyDrop<RefCell<Option<Followed>>> = const { ManuallyDrop::new(RefCell::new(None)) };
}

/// Asks the C library to tell, once a process.
pub(crate) fn arm() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: the handlers are functions of this crate, which stays loaded.
        unsafe { libc::pthread_atfork(Some(before), Some(after), Some(after)) };
        // SAFETY: as above.
        unsafe { libc::atexit(leave) };
    });
}

extern "C" fn before() {
    if let Some(space) = process::space() {
        let whole = Invalidation::new(Range::ALL, Event::ProtectionPage);
        FORKING.set(Some(ManuallyDrop::new(space.invalidate_start(whole))));
        FOLLOWED.with(|followed| follower::start(&whole, &mut followed.borrow_mut()));
    }
}

extern "C" fn after() {
    if let Some(bracket) = FORKING.take() {
        FOLLOWED.with(|followed| *followed.borrow_mut() = None);
        ManuallyDrop::into_inner(bracket).end();
    }
}

extern "C" fn leave() {
    if let Some(space) = process::space() {
        space.release();
        follower::release();
    }
}
