//! A preload for tests: the kernel registers an MMU notifier of its own on the program, and the monitor's brackets
//! are written into the same trace.
//!
//! Where `/dev/kvm` may be opened, a virtual machine makes the kernel hear of every invalidation of the process that
//! made it, and its tracepoint `kvm:kvm_unmap_hva_range` prints each start. A [`Witness`] writes the monitor's
//! starts and ends to the `trace_marker` of the same trace, which keeps the order of both. `tests/kernel_truth.rs`
//! compares them.
//!
//! `MONITOR_TRUTH_MARKER` names the `trace_marker`; `MMU_MONITOR` chooses the sources. Marks are `ready PID`,
//! `bracket+ PID FIRST LAST`, `bracket- PID FIRST LAST` and `released PID`, with addresses in hexadecimal digits. What goes wrong
//! ends the program: a run that proves nothing must not look like one that does.

#![cfg(target_os = "linux")]

// Nothing in it reaches another library's thread-locals.
#[cfg(target_arch = "x86_64")]
mmu_notifier::keep_thread_locals_near!();

mod mark;
mod start;
