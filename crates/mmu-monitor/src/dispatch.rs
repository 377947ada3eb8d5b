//! The source `dispatch`: system call instructions outside the C library trap, in threads that ask for it.
//!
//! A backstop beside [`hooks`](crate::hooks), for code that makes its own system calls: assembly, another C library,
//! another language's runtime. The kernel lets calls from the C library's text pass, which costs them nothing that could
//! be seen, and sends SIGSYS for every other (syscall user dispatch). The handler makes the call, a memory call between
//! a start and an end, and goes on behind the instruction. A trapped call costs one to three microseconds, nearly all of
//! them the kernel's, for the signal and the return from it.
//!
//! `machine` arms, `thread` holds what each thread has of it, `handler` makes calls, and `pass` those that cannot be made
//! in a handler: it puts the thread back where it was, makes the call there, with the trap off for that moment, and goes on.
//!
//! # Threads
//! The kernel has this by thread: [`Source::arm`] arms the calling thread, [`arm_thread`] another. Threads that were
//! started later are not armed. [`Source::coverage`] and with it `Monitor::require` answer for the thread that asks.
//! A child of fork and a program that is executed are not armed.
//!
//! # What an armed thread must not do
//! - *Block SIGSYS, and then make a system call outside the C library*: the kernel ends the process. So does one by the
//!   dynamic linker or the vdso. A thread in which it is blocked is refused. An `rt_sigprocmask` that traps never
//!   blocks it; `pthread_sigmask` of the C library does, and so does a handler that was installed with SIGSYS in its mask.
//!   Who needs that disarms the thread before ([`disarm_thread`]).
//! - *Make such calls on a very small stack.* The handler runs on the stack of the call, which needs a few KiB: an
//!   alternate stack is not used, since the very call may unmap it. Stacks of goroutines are too small.
//! - *Change its thread pointer* by a call of its own.
//! - *Install its own handler of SIGSYS.* Coverage is gone then, and says so.
//!
//! With shadow stacks a thread is refused: a call that passes leaves the frame of a signal behind, and with it their order.
//!
//! # What is different for a trapped call
//! clone3 with a stack or a thread pointer of its own gets ENOSYS, as in many containers, and callers fall back to clone.
//! fork and exit made directly are not told of. Calls by `int 0x80` disarm the thread.

use core::sync::atomic::{AtomicBool, Ordering};
use std::format;
use std::string::String;

use crate::operation::{Operation, Origin, When};
use crate::source::{Source, SourceError};

#[cfg(all(target_os = "linux", target_arch = "x86_64", target_env = "gnu"))]
mod handler;
#[cfg(all(target_os = "linux", target_arch = "x86_64", target_env = "gnu"))]
mod machine;
#[cfg(all(target_os = "linux", target_arch = "x86_64", target_env = "gnu"))]
mod pass;
#[cfg(all(target_os = "linux", target_arch = "x86_64", target_env = "gnu"))]
mod thread;

#[cfg(not(all(target_os = "linux", target_arch = "x86_64", target_env = "gnu")))]
mod machine {
    //! Elsewhere the kernel traps nothing yet, or there is no C library whose text is known.

    use std::string::{String, ToString};

    pub(super) fn prepare() -> Result<(), String> {
        Err("not on this machine: it takes x86-64 and glibc; `explicit` works everywhere".to_string())
    }

    pub(super) fn arm_thread() -> Result<(), String> {
        prepare()
    }

    pub(super) fn disarm_thread() {}

    pub(super) fn is_thread_armed() -> bool {
        false
    }
}

/// The source `dispatch`.
#[derive(Debug)]
pub struct Dispatch {
    armed: AtomicBool,
}

/// The source of this process.
pub static DISPATCH: Dispatch = Dispatch { armed: AtomicBool::new(false) };

fn refusal(reason: String) -> SourceError {
    SourceError::new("dispatch", reason)
}

/// Arms the calling thread. Does nothing if it is armed.
///
/// # Errors
/// The source is not armed, or the thread blocks SIGSYS.
pub fn arm_thread() -> Result<(), SourceError> {
    if !DISPATCH.is_armed() {
        return Err(refusal(String::from("it is not armed, so no thread can be")));
    }
    machine::arm_thread().map_err(refusal)
}

/// Disarms the calling thread: its calls outside the C library go to the kernel untold.
pub fn disarm_thread() {
    machine::disarm_thread();
}

impl Source for Dispatch {
    fn name(&self) -> &'static str {
        "dispatch"
    }

    /// As the calling thread sees it.
    fn coverage(&self, operation: Operation, origin: Origin) -> When {
        let is_trapped = origin == Origin::Direct
            && operation.is_call()
            && !matches!(operation, Operation::Fork | Operation::Exit);
        if is_trapped && machine::is_thread_armed() { When::BeforeAndEnd } else { When::Missed }
    }

    /// Arms the source, and the calling thread.
    fn arm(&self) -> Result<(), SourceError> {
        crate::process::make().map_err(|error| refusal(format!("{error}")))?;
        machine::prepare().map_err(refusal)?;
        let before = self.armed.swap(true, Ordering::Relaxed);
        machine::arm_thread().map_err(|reason| {
            self.armed.store(before, Ordering::Relaxed);
            refusal(reason)
        })
    }

    fn is_armed(&self) -> bool {
        self.armed.load(Ordering::Relaxed)
    }

    /// Disarms the calling thread. Others make their next trapped call untold, and are disarmed by it.
    fn disarm(&self) {
        self.armed.store(false, Ordering::Relaxed);
        machine::disarm_thread();
    }
}
