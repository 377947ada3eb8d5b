//! A process's own address space as the primary MMU.
//!
//! Whoever keeps translations of this process's addresses (buffers registered with io_uring or a network card, a GPU's
//! page tables, a cache of registrations) must hear of each change of the mappings: before it, and when it is over. This
//! crate makes an ordinary process tell, without privilege: a [`Monitor`] is an address space of
//! [`mmu_notifier`] that one or more [sources](Source) feed.
//!
//! ```
//! use mmu_monitor::{Monitor, Operation, Origin};
//!
//! let monitor = Monitor::start()?;
//! // Whoever subscribes to `monitor.space()` is called before each change and left alone when it is over.
//! if let Err(gap) = monitor.require(&Operation::REPLACING, &[Origin::Function, Origin::Inside]) {
//!     println!("{gap}");
//! }
//! # Ok::<(), mmu_monitor::StartError>(())
//! ```
//!
//! | source | sees | when | needs |
//! |---|---|---|---|
//! | [`hooks`] | what the C library does, for whomever | around | x86-64, glibc |
//! | [`dispatch`] | system call instructions outside the C library, in threads that [arm](dispatch::arm_thread) | around | x86-64, glibc, Linux 5.11 |
//! | [`userfaultfd`] | what anybody does to ranges that it [watches](Source::watch) | after; before a discard | Linux 6.7 |
//! | [`explicit`] | what goes through its wrappers | around | nothing |
//!
//! Linux only; elsewhere the crate is empty.
//!
//! # Context
//! Callbacks run in the thread that makes the change (but for [`userfaultfd`], which has a thread for them), inside
//! `free`, the dynamic linker or the end of a thread: they must not allocate, free, print, unwind, start or join
//! threads, or take a lock that is ever held over one of these.
//! What this crate and the core do there keeps the same rule.

#![cfg(target_os = "linux")]

mod call;
pub mod choice;
pub mod dispatch;
pub mod explicit;
mod follower;
mod fork;
pub mod hooks;
mod kernel;
mod maps;
mod monitor;
mod operation;
mod process;
#[cfg(all(target_os = "linux", target_arch = "x86_64", target_env = "gnu"))]
mod signal;
mod source;
mod strict;
pub mod userfaultfd;

pub use choice::{Choice, UnknownSource};
pub use follower::{Follower, Place};
pub use monitor::{Monitor, SOURCES, StartError, Uncovered};
pub use operation::{Operation, Origin, When};
pub use source::{Source, SourceError};
pub use strict::{Strict, is_inside};
