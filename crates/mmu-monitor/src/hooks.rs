//! The source `hooks`: the memory system calls of the C library itself are patched.
//!
//! glibc makes each of its memory system calls in one place of its own, `mov $number, %eax; syscall`, whoever wanted it:
//! the program, `free`, the end of a thread; the dynamic linker has copies. The five bytes of the `mov` become a jump to
//! a stub nearby, which makes the call between a start and an end and goes on behind it. The `syscall` instruction stays,
//! and threads that are about to execute it are not disturbed.
//!
//! ```text
//!  munmap:  mov $11,%eax ──becomes──▶ jmp stub       stub:  mov $11,%eax        entry: saves registers
//!           syscall                   syscall               lea back,%r11              start, syscall, end
//!   back:   cmp ...                   cmp ...  ◀──┐         jmp entry                  restores them
//!                                                 └────────────────────────────────── jmp *%r11
//! ```
//!
//! `object` finds the C library and the dynamic linker, `function` the bounds of the functions with system calls,
//! `site` the places, each verified by decoding the whole function around it; `stub` writes the stubs, `text` patches,
//! `entry` is what stubs jump to, and `self_test` tries each call. Where one place is not as expected, nothing is
//! patched and the reason is named.
//!
//! # What it does to the process
//! Text pages of the C library become private copies. Where one thread runs, they are written through
//! `/proc/self/mem`; else they are writable and executable for the time of the patching, which takes less than a
//! millisecond. A page of stubs a library is mapped read-only and executable. Nothing else changes: other system calls run
//! as before. [`Source::disarm`] puts the old bytes back; the stubs stay for who is inside.
//!
//! # Registers and stack
//! The caller finds what `syscall` promises: all registers but rax, rcx and r11 as they were, vector registers too where
//! the function around the call uses any, `errno`, the flags, and the 128 bytes below the stack pointer.

use core::sync::atomic::{AtomicBool, Ordering};
use std::format;
use std::sync::{Mutex, PoisonError};

use crate::operation::{Operation, Origin, When};
use crate::source::{Source, SourceError};

#[cfg(all(target_os = "linux", target_arch = "x86_64", target_env = "gnu"))]
mod entry;
#[cfg(all(target_os = "linux", target_arch = "x86_64", target_env = "gnu"))]
mod foreign;
#[cfg(all(target_os = "linux", target_arch = "x86_64", target_env = "gnu"))]
mod function;
#[cfg(all(target_os = "linux", target_arch = "x86_64", target_env = "gnu"))]
mod install;
#[cfg(all(target_os = "linux", target_arch = "x86_64", target_env = "gnu"))]
pub(crate) mod object;
#[cfg(all(target_os = "linux", target_arch = "x86_64", target_env = "gnu"))]
pub(crate) mod pin;
#[cfg(all(target_os = "linux", target_arch = "x86_64", target_env = "gnu"))]
mod self_test;
#[cfg(all(target_os = "linux", target_arch = "x86_64", target_env = "gnu"))]
mod site;
#[cfg(all(target_os = "linux", target_arch = "x86_64", target_env = "gnu"))]
mod stub;
#[cfg(all(test, target_os = "linux", target_arch = "x86_64", target_env = "gnu"))]
mod tests;
#[cfg(all(target_os = "linux", target_arch = "x86_64", target_env = "gnu"))]
mod text;

#[cfg(not(all(target_os = "linux", target_arch = "x86_64", target_env = "gnu")))]
mod install {
    //! Elsewhere there is nothing to patch yet.

    use std::string::{String, ToString};

    #[derive(Debug)]
    pub(super) enum Installed {}

    impl Installed {
        pub(super) fn prepare() -> Result<Installed, String> {
            Err("not yet on this machine: it takes x86-64 and glibc; `explicit` works everywhere".to_string())
        }

        pub(super) fn put(&self) -> Result<(), String> {
            match *self {}
        }

        pub(super) fn take_back(&self) {
            match *self {}
        }

        pub(super) fn places(&self) -> std::vec::Vec<String> {
            match *self {}
        }
    }
}

use install::Installed;

/// The source `hooks`.
#[derive(Debug)]
pub struct Hooks {
    installed: Mutex<Option<Installed>>,
    /// Whether they are in; asked without the lock, also in a callback or behind a fork.
    armed: AtomicBool,
}

/// The source of this process.
pub static HOOKS: Hooks = Hooks { installed: Mutex::new(None), armed: AtomicBool::new(false) };

impl Hooks {
    /// The patched places, one line each: where, and which call.
    pub fn places(&self) -> std::vec::Vec<std::string::String> {
        let installed = self.installed.lock().unwrap_or_else(PoisonError::into_inner);
        installed.iter().filter(|_| self.is_armed()).flat_map(Installed::places).collect()
    }
}

impl Source for Hooks {
    fn name(&self) -> &'static str {
        "hooks"
    }

    fn coverage(&self, operation: Operation, origin: Origin) -> When {
        match (operation, origin) {
            (operation, Origin::Function | Origin::Inside) if operation.is_call() => When::BeforeAndEnd,
            _ => When::Missed,
        }
    }

    fn arm(&self) -> Result<(), SourceError> {
        let refuse = |reason| SourceError::new("hooks", reason);
        let mut installed = self.installed.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.is_armed() {
            let made = crate::process::make().and_then(|_| crate::fork::arm());
            made.map_err(|error| refuse(format!("{error}")))?;
            if installed.is_none() {
                *installed = Some(Installed::prepare().map_err(refuse)?);
            }
            installed.as_ref().map_or(Ok(()), Installed::put).map_err(refuse)?;
            self.armed.store(true, Ordering::Release);
        }
        Ok(())
    }

    fn is_armed(&self) -> bool {
        self.armed.load(Ordering::Acquire)
    }

    fn disarm(&self) {
        let installed = self.installed.lock().unwrap_or_else(PoisonError::into_inner);
        if self.armed.swap(false, Ordering::AcqRel) {
            installed.iter().for_each(Installed::take_back);
        }
    }
}
