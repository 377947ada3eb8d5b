//! The handler of SIGSYS: decodes the call, makes it, and puts the result where the caller expects it.
//!
//! It runs in the thread of the call, in the middle of it, under the rules of every bracket (see
//! [`process`]). No signal is blocked for it: what a callback does may trap as well, and what the call
//! does to the mask of signals has only to be carried over into the context, which the return from the signal restores.
//!
//! Its own calls go through the C library's instruction (see [`GATE`]), as does the return from the signal.

#![expect(unsafe_code, reason = "a handler of signals")]

use core::ffi::{c_int, c_void};
use core::sync::atomic::Ordering;

use super::{DISPATCH, machine, pass, thread};
use crate::call::{Call, NUMBERS};
use crate::kernel::{self, GATE, Reading, system_call};
use crate::process;

/// What the kernel says of a trapped call.
#[repr(C)]
struct Info {
    _signal: c_int,
    _error: c_int,
    code: c_int,
    _address: usize,
    _number: c_int,
    architecture: u32,
}

/// The handler.
///
/// # Safety
/// - The kernel calls it, for SIGSYS.
pub(super) unsafe extern "C" fn trapped(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    const USER_DISPATCH: c_int = 2;
    const X86_64: u32 = 0xc000_003e;
    // SAFETY: the kernel lends what it says of the signal, in this form if it is of a trapped call.
    let Info { code, architecture, .. } = unsafe { info.cast::<Info>().read() };
    if code != USER_DISPATCH {
        // SAFETY: it was the handler before, and the rest is the kernel's.
        return unsafe { crate::signal::hand_on(machine::handler_before(), signal, info, context) };
    }
    // SAFETY: the kernel lends the context of the thread.
    let context = unsafe { &mut *context.cast::<libc::ucontext_t>() };
    thread::with(|thread| thread.trapped.set(thread.trapped.get() + 1));
    if architecture != X86_64 {
        return make_again(context);
    }
    if !DISPATCH.armed.load(Ordering::Relaxed) {
        machine::disarm_thread();
    }
    // SAFETY: it is what the thread was about to do.
    let result = unsafe { make(context) };
    context.uc_mcontext.gregs[libc::REG_RAX as usize] = result as i64;
}

/// The call of a context.
fn call(context: &libc::ucontext_t) -> Call {
    let register = |which: c_int| context.uc_mcontext.gregs[which as usize] as usize;
    let arguments = [libc::REG_RDI, libc::REG_RSI, libc::REG_RDX, libc::REG_R10, libc::REG_R8, libc::REG_R9]
        .map(register);
    Call { number: register(libc::REG_RAX), arguments }
}

/// Makes the call of a context; gives its result, if it returns here.
///
/// # Safety
/// - The context is that of a call that was trapped.
unsafe fn make(context: &mut libc::ucontext_t) -> isize {
    let call = call(context);
    match call.number as i64 {
        libc::SYS_rt_sigreturn => {
            let stack = context.uc_mcontext.gregs[libc::REG_RSP as usize] as usize;
            // SAFETY: the caller's promise.
            unsafe { pass::return_from_signal(stack, GATE.load(Ordering::Relaxed)) }
        }
        // SAFETY: the caller's promise.
        libc::SYS_fork | libc::SYS_vfork => unsafe { pass::here(context) },
        // SAFETY: the caller's promise.
        libc::SYS_clone => unsafe { clone(context, &call) },
        libc::SYS_clone3 if needs_stack(call.arguments[0]) => -libc::ENOSYS as isize,
        // SAFETY: the caller's promise.
        libc::SYS_clone3 => unsafe { pass::here(context) },
        // SAFETY: the caller's promise.
        libc::SYS_rt_sigprocmask => unsafe { set_mask(context, &call) },
        // SAFETY: the caller's promise.
        libc::SYS_sigaltstack => unsafe { set_alternate_stack(context, &call) },
        _ if NUMBERS.contains(&call.number) && DISPATCH.armed.load(Ordering::Relaxed) => {
            // SAFETY: the caller's promise.
            unsafe { process::make_call(&call) }
        }
        // SAFETY: the caller's promise.
        _ => unsafe { system_call(call.number, call.arguments) },
    }
}

/// # Safety
/// - As [`make`].
unsafe fn clone(context: &mut libc::ucontext_t, call: &Call) -> isize {
    let [flags, stack, ..] = call.arguments;
    if stack != 0 {
        // SAFETY: the caller's promise.
        unsafe { pass::to_stack(context) }
    }
    if flags & libc::CLONE_SETTLS as usize != 0 {
        // A copy of this process with another thread pointer: it leaves the handler as the parent does.
        // SAFETY: the caller's promise.
        return unsafe { system_call(call.number, call.arguments) };
    }
    // SAFETY: the caller's promise.
    unsafe { pass::here(context) }
}

/// Says whether the child of a clone3 with these arguments has a stack or a thread pointer of its own.
fn needs_stack(arguments: usize) -> bool {
    const STACK: usize = 5;
    let mut words = [0_u64; STACK + 1];
    match kernel::read_own(arguments, &mut words) {
        Reading::Done => words[STACK] != 0 || words[0] & libc::CLONE_SETTLS as u64 != 0,
        Reading::NotThere => false,
        // Nobody knows: it is told to go by clone.
        Reading::Refused => true,
    }
}

/// # Safety
/// - As [`make`].
unsafe fn set_mask(context: &mut libc::ucontext_t, call: &Call) -> isize {
    // SAFETY: the caller's promise. The mask of the thread is that of the context.
    let result = unsafe { system_call(call.number, call.arguments) };
    // SAFETY: the kernel's sets are one word, the first of the C library's.
    let kept = unsafe { &mut *(&raw mut context.uc_sigmask).cast::<u64>() };
    *kept = machine::blocked() & !machine::SIGSYS_BIT;
    result
}

/// # Safety
/// - As [`make`].
unsafe fn set_alternate_stack(context: &mut libc::ucontext_t, call: &Call) -> isize {
    // SAFETY: the caller's promise.
    let result = unsafe { system_call(call.number, call.arguments) };
    let place = &raw mut context.uc_stack as usize;
    // SAFETY: the kernel writes one `stack_t`, which the return from the signal sets again.
    unsafe { system_call(libc::SYS_sigaltstack as usize, [0, place, 0, 0, 0, 0]) };
    result
}

/// Lets the thread make its call again, untrapped from now on.
fn make_again(context: &mut libc::ucontext_t) {
    /// The length of `int 0x80` and its like, in bytes.
    const INSTRUCTION: i64 = 2;
    machine::disarm_thread();
    context.uc_mcontext.gregs[libc::REG_RIP as usize] -= INSTRUCTION;
}
