//! Arming: the C library's text and an instruction in it, the handler, and the trap of a thread.

#![expect(unsafe_code, reason = "system calls")]

use core::sync::atomic::{AtomicUsize, Ordering};
use std::format;
use std::string::{String, ToString};
use std::sync::{Mutex, PoisonError};

use super::handler;
use super::thread::{self, BLOCK};
use crate::hooks::object::{self, Kind, Object};
use crate::hooks::pin;
use crate::kernel::{GATE, system_call, system_call_here};

const SET_DISPATCH: usize = 59;
const OFF: usize = 0;
const ON: usize = 1;
/// SIGSYS in a set of signals.
pub(super) const SIGSYS_BIT: u64 = 1 << (libc::SIGSYS - 1);

/// Where calls are allowed, once it is known.
static START: AtomicUsize = AtomicUsize::new(0);
static LENGTH: AtomicUsize = AtomicUsize::new(0);
/// What was the handler of SIGSYS.
static BEFORE: AtomicUsize = AtomicUsize::new(libc::SIG_DFL);

/// Finds the C library, and takes SIGSYS.
///
/// # Errors
/// What is not as it has to be.
pub(super) fn prepare() -> Result<(), String> {
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    if LENGTH.load(Ordering::Relaxed) == 0 {
        pin::check()?;
        let library = library()?;
        let gate = gate(&library).ok_or_else(|| format!("{} has no plain system call", library.name))?;
        START.store(library.text.start, Ordering::Relaxed);
        LENGTH.store(library.text.len(), Ordering::Relaxed);
        GATE.store(gate, Ordering::Relaxed);
    }
    if !is_handler_ours() {
        take_signal();
    }
    Ok(())
}

fn library() -> Result<Object, String> {
    let objects = object::find();
    if objects.iter().any(|object| object.kind == Kind::Static) {
        return Err("in a static executable the C library's calls cannot be told from others".to_string());
    }
    let library = objects.into_iter().find(|object| object.kind == Kind::Library);
    library.ok_or_else(|| "this process has no glibc whose calls could be let pass".to_string())
}

/// The address of a `syscall` with a `ret` behind it.
fn gate(library: &Object) -> Option<usize> {
    const CODE: [u8; 3] = [0x0f, 0x05, 0xc3];
    let place = library.code().windows(CODE.len()).position(|code| code == CODE)?;
    Some(library.text.start + place)
}

fn take_signal() {
    // SAFETY: all zero is a valid `sigaction`.
    let mut new: libc::sigaction = unsafe { core::mem::zeroed() };
    // SAFETY: as above.
    let mut old: libc::sigaction = unsafe { core::mem::zeroed() };
    new.sa_sigaction = handler::trapped as *const () as usize;
    // On the thread's own stack: a call may take the alternate one away.
    new.sa_flags = libc::SA_SIGINFO | libc::SA_NODEFER;
    // SAFETY: both are places of this function. The C library's return from the signal lies in its text.
    unsafe { libc::sigaction(libc::SIGSYS, &raw const new, &raw mut old) };
    BEFORE.store(old.sa_sigaction, Ordering::Relaxed);
}

/// What was the handler of SIGSYS before.
pub(super) fn handler_before() -> usize {
    BEFORE.load(Ordering::Relaxed)
}

fn is_handler_ours() -> bool {
    // SAFETY: all zero is a valid `sigaction`.
    let mut now: libc::sigaction = unsafe { core::mem::zeroed() };
    // SAFETY: the place is this function's.
    unsafe { libc::sigaction(libc::SIGSYS, core::ptr::null(), &raw mut now) };
    now.sa_sigaction == handler::trapped as *const () as usize
}

/// The signals that the calling thread blocks.
pub(super) fn blocked() -> u64 {
    let mut now = 0_u64;
    let words = [libc::SIG_SETMASK as usize, 0, &raw mut now as usize, size_of::<u64>(), 0, 0];
    // SAFETY: the kernel writes eight bytes.
    unsafe { system_call(libc::SYS_rt_sigprocmask as usize, words) };
    now
}

fn number() -> usize {
    // SAFETY: the call takes nothing.
    unsafe { system_call(libc::SYS_gettid as usize, [0; 6]) as usize }
}

/// Arms the calling thread, and tries it.
///
/// # Errors
/// The kernel does not have it, or SIGSYS is blocked, or does not come.
pub(super) fn arm_thread() -> Result<(), String> {
    if is_thread_armed() {
        return Ok(());
    }
    if blocked() & SIGSYS_BIT != 0 {
        return Err("this thread blocks SIGSYS, so that the kernel would end the process at the first call"
            .to_string());
    }
    if has_shadow_stack() {
        return Err(
            "this thread has a shadow stack, which a fork or clone that passes would put out of order"
                .to_string(),
        );
    }
    let selector = thread::with(|thread| {
        thread.selector.set(BLOCK);
        thread.selector.as_ptr() as usize
    });
    let (start, length) = (START.load(Ordering::Relaxed), LENGTH.load(Ordering::Relaxed));
    let error = set([ON, start, length, selector]);
    if error != 0 {
        return Err(format!(
            "the kernel has no syscall user dispatch (error {}): it takes Linux 5.11 on x86-64, and a seccomp filter \
             must let prctl pass",
            -error
        ));
    }
    if !is_trapped() {
        disarm_thread();
        return Err("self-test: a call outside the C library was made, and SIGSYS did not come".to_string());
    }
    thread::with(|thread| thread.armed.set(number()));
    Ok(())
}

fn has_shadow_stack() -> bool {
    const STATUS: usize = 0x5005;
    const SHADOW_STACK: u64 = 1;
    let mut features = 0_u64;
    let words = [STATUS, &raw mut features as usize, 0, 0, 0, 0];
    // SAFETY: the kernel writes eight bytes, if it knows the question.
    unsafe { system_call(libc::SYS_arch_prctl as usize, words) == 0 && features & SHADOW_STACK != 0 }
}

fn set([mode, start, length, selector]: [usize; 4]) -> isize {
    let words = [SET_DISPATCH, mode, start, length, selector, 0];
    // SAFETY: the selector is the thread's own, and lives as long as it.
    unsafe { system_call(libc::SYS_prctl as usize, words) }
}

/// Makes a call by an instruction of this crate, and looks whether it was trapped.
fn is_trapped() -> bool {
    let count = || thread::with(|thread| thread.trapped.get());
    let before = count();
    // SAFETY: the call takes nothing.
    unsafe { system_call_here(libc::SYS_getppid as usize, [0; 6]) };
    count() != before
}

/// Disarms the calling thread.
pub(super) fn disarm_thread() {
    thread::with(|thread| thread.armed.set(0));
    set([OFF, 0, 0, 0]);
}

/// Says whether the calling thread is armed, and the handler still there.
pub(super) fn is_thread_armed() -> bool {
    let armed = thread::with(|thread| thread.armed.get());
    armed != 0 && armed == number() && is_handler_ours()
}
