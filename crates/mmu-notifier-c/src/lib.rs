//! The C interface of `mmu-notifier`: the kernel's names, letter for letter, over the core's intrusive layer.
//!
//! `include/mmu_notifier.h` is written by hand and says what a C program sees; [`types`] has the same structures.
//! No protocol is implemented here: each call checks what it is given ([`call`], [`report`]), translates it, and
//! translates the answer ([`errno`]).
//!
//! | file | calls |
//! |---|---|
//! | `mm` | address spaces, the map lock, exit |
//! | `interval`, `second_pass` | subscriptions to a range |
//! | `list` | subscriptions to a whole space, get and put |
//! | `range`, `primary` | what the primary MMU calls |
//! | `additions` | what has no counterpart in a kernel (`mmun_...`) |
//!
//! A panic never leaves: it ends the program with its message. As installed, the library is built so that panics abort
//! at once: then nothing stands between a start and the callbacks of C. Where they unwind, the border names the call.
//!
//! # Safety
//! Every exported function is `unsafe`, for the same reasons; its C caller owes:
//! - a pointer is NULL or leads to a structure of its type that is alive during the call, and what it is registered or
//!   inserted with stays where it is until it was taken out again;
//! - a function in a table of callbacks has the type that the header gives it, and does not unwind;
//! - a space is used by those who hold it (`mmgrab`, or as its users).
//!
//! A `SAFETY:` comment that speaks of "the caller's" names the first of these.

// Called within allocators, by who feeds it. Nothing in it reaches another library's thread-locals.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
notifier::keep_thread_locals_near!();

mod additions;
mod call;
mod errno;
mod interval;
mod list;
mod mm;
mod primary;
mod range;
mod report;
mod second_pass;
mod types;
