//! `libmmu_monitor.so`: the monitor for programs that are not written in Rust, or not to be changed at all.
//!
//! `include/mmu_monitor.h` is written by hand and says what a C program sees. Preloaded the library starts by itself.
//!
//! | file | what |
//! |---|---|
//! | `start` | the start, which sources tell, and what they cover |
//! | `subscription` | subscriptions to everything and to a range |
//! | `external` | changes that the program tells of |
//! | `mm` | the process as an address space of libmmu_notifier |
//! | `preload`, `report` | the start by `LD_PRELOAD`, and the line at exit |
//! | `border` | what every call has in common: no panic leaves, errors are kept |
//!
//! # Safety
//! Every exported function is `unsafe`, for the same reasons; its C caller owes:
//! - a pointer is NULL where that is allowed, or leads to what the header says, alive during the call;
//! - a callback has the type that the header gives it, and does not unwind.
//!
//! A `SAFETY:` comment that speaks of "the caller's" names the first of these.

#![cfg(target_os = "linux")]

// Nothing in it reaches another library's thread-locals.
#[cfg(target_arch = "x86_64")]
mmu_notifier::keep_thread_locals_near!();

mod border;
mod external;
mod mm;
mod preload;
mod report;
mod start;
mod subscription;
