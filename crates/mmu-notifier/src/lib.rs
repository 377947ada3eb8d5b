//! MMU notifiers for everybody.
//!
//! Whoever keeps a copy of address translations (a device TLB, registered I/O buffers, an emulator's software
//! TLB, a shadow page table, a code cache) uses the wrong memory when the address space changes under the copy.
//! This crate stands between the two: the *primary MMU* says what it is about to change
//! ([`AddressSpaceRef::invalidate`]), and every *secondary MMU* that subscribed drops its translations before,
//! and makes no new ones until the change is done.
//!
//! | you have | you want |
//! |---|---|
//! | translations of certain ranges | [`interval`]: told of what overlaps, with collision-retry for readers |
//! | interest in the whole space | [`list`]: told of everything, exit and ageing included |
//! | a cache of translations | [`mirror`]: table, lock and subscription in one, with users in flight |
//! | page tables, or calls that change mappings | [`AddressSpace`] and [`active`]: start, change, end |
//!
//! The crate sees no system call: it tells what it is told. Everything is precise: readers, inserts and removes
//! wait only for what overlaps them. Starts, ends, reads and removes allocate nothing.
//!
//! # Without `std`
//! The crate is `no_std` with `alloc`. Without the default feature `std` a kernel may supply how to sleep and
//! which context runs: see [`platform`].
//!
//! # Tracing
//! With the feature `tracing` what happens in a space that somebody watches is told to the crate of that name,
//! with the target `mmu_notifier`; without the feature nothing of it is compiled.
//!
//! | level | event | fields beside `space` (a number) and its `label` |
//! |---|---|---|
//! | trace | `started`, one a range | `range`, `event`, `owner`, `blockable`, `hits` (interval callbacks called) |
//! | trace | `ending`, one a range | `range` |
//! | debug | `refused`, one a range | `range`, `event`, `owner` |
//! | trace | `inserted`, `removing` (of a detach too) | `range`, `subscriber` (a label) |
//! | debug | `registered`, `unregistering`, `put` (the last) | `subscriber` |
//!
//! Callbacks of a start run in the span `start` (trace), those of an exit in the span `exit` (debug).
//!
//! The subscriber of `tracing` is called in the thread that makes the call, with none of the library's locks
//! held but the map lock of a registration. It may allocate, take locks and write to a file, all of which start
//! and end do not do by themselves: where they must not sleep, or are called from within an allocator
//! ([`Builder::defer_drops`]), leave the feature off, or filter the target out before the subscriber. A panic of
//! the subscriber ends there: it is dropped.
//!
//! # Clauses
//! Comments such as `C3.4` name clauses of the contract, which the repository holds as `docs/contract.md`.

#![no_std]

extern crate alloc;
#[cfg(any(feature = "std", test, loom, shuttle))]
extern crate std;

pub mod active;
mod address;
mod batch;
mod begun;
pub mod diagnostics;
mod drain;
mod exit;
mod fork;
mod frame;
mod frees;
mod hazard;
mod hung;
mod index;
pub mod interval;
pub mod intrusive;
mod invalidation;
pub mod list;
mod map_lock;
mod memory;
pub mod mirror;
#[cfg(all(test, loom))]
mod models;
pub mod platform;
mod records;
mod scan;
mod space;
mod start;
mod subscriptions;
mod sync;
mod trace;

pub use active::{ActiveInvalidation, OwnedActiveInvalidation};
pub use address::{Address, Range, RangeError};
pub use batch::{ActiveBatch, Batch};
pub use frees::synchronize;
pub use invalidation::{Event, Invalidation, Owner, Permissions};
pub use map_lock::{MapLockGuard, MapLockSharedGuard};
pub use space::{AddressSpace, AddressSpaceRef, Builder, LockAllError, OutOfMemory, PrimaryMmu, Pte, Stats};
pub use start::StartError;
