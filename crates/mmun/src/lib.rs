//! The command-line tool of `mmu-notifier`, as a library so that its parts can be tested.
//!
//! Each module is a subcommand: its clap `Args` and a `run` that does it. Results go to stdout, all the
//! rest to stderr.

pub mod demo;
#[cfg(target_os = "linux")]
pub mod doctor;
pub mod scenario;
