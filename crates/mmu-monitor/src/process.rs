//! The address space of this process, and the bracket around each change of it.
//!
//! There is one for the whole process, made once and never freed: whatever looks for it (a patched system call, a
//! signal handler, a wrapper) finds it by one load.
//!
//! # What a bracket may do
//! It runs in the thread that makes the change, in the middle of it: inside `free` with an arena's lock held, inside
//! the dynamic linker, at the end of a thread with all signals blocked. It allocates nothing, prints nothing,
//! takes no lock that is ever held over an allocation, and reaches no thread-local with a destructor; the core's start
//! and end keep the same rules. Subscribers' callbacks have to keep them too. A callback that panics there ends the
//! process: it cannot unwind through a system call.

#![expect(unsafe_code, reason = "system calls, and the C library's errno")]

use std::sync::OnceLock;

use mmu_notifier::{AddressSpace, AddressSpaceRef, Invalidation, OutOfMemory};

use crate::call::{Call, Change, Effect};
use crate::follower;
use crate::kernel::system_call;
use crate::strict;

static SPACE: OnceLock<AddressSpace> = OnceLock::new();

/// The space of this process, once [`make`] made it.
#[inline]
pub(crate) fn space() -> Option<&'static AddressSpaceRef> {
    SPACE.get().map(|space| &**space)
}

/// Makes the space, or gives the one that is there.
pub(crate) fn make() -> Result<&'static AddressSpaceRef, OutOfMemory> {
    if let Some(space) = space() {
        return Ok(space);
    }
    let made = AddressSpace::builder().label("this process").defer_drops().build()?;
    Ok(SPACE.get_or_init(|| made))
}

/// Makes a change between the starts and the ends of what it invalidates.
#[inline]
pub(crate) fn bracket<R>(effect: Effect, change: impl FnOnce() -> R) -> R {
    let Some(space) = space() else { return change() };
    match effect {
        Effect::Nothing => change(),
        Effect::One(one) => around(space, &invalidation(one), change),
        Effect::Two(left, replaced) => {
            around(space, &invalidation(left), || around(space, &invalidation(replaced), change))
        }
    }
}

fn invalidation(change: Change) -> Invalidation {
    Invalidation::new(change.range, change.event)
}

/// Makes a change between the starts and ends of one invalidation.
#[inline]
pub(crate) fn around<R>(space: &AddressSpaceRef, what: &Invalidation, change: impl FnOnce() -> R) -> R {
    space.invalidate(*what, || follower::around(what, change))
}

/// Makes a memory system call between the starts and the ends of what it invalidates. `errno` stays as it is.
///
/// # Safety
/// - Whatever the call owes the kernel.
pub(crate) unsafe fn make_call(call: &Call) -> isize {
    // SAFETY: the caller answers for the call.
    let change = || unsafe { system_call(call.number, call.arguments) };
    match call.effect() {
        Effect::Nothing => change(),
        effect => {
            // A callback may call functions that write it.
            // SAFETY: it is always there, for each thread.
            let errno = unsafe { libc::__errno_location() };
            // SAFETY: this thread's own.
            let kept = unsafe { *errno };
            let result = strict::inside(call, || bracket(effect, change));
            // SAFETY: as above.
            unsafe { *errno = kept };
            result
        }
    }
}
