//! The start by `LD_PRELOAD`: the dynamic linker calls a constructor before the program runs.
//!
//! Who links the library starts the monitor himself; only where `LD_PRELOAD` names it does it start here. What goes wrong is
//! said in one line, and the program runs on without a monitor.

#![expect(unsafe_code, reason = "a constructor, and a question to the dynamic linker")]

use std::ffi::{CStr, OsStr, c_void};
use std::os::unix::ffi::OsStrExt;

use monitor::{Choice, Monitor, StartError};

use crate::report;

// SAFETY: the linker calls it once, behind the constructors of the C library, with the program's arguments, which it
// does not look at.
#[used]
#[unsafe(link_section = ".init_array")]
static START: extern "C" fn() = {
    extern "C" fn start() {
        crate::border::call("the start of the preloaded library", || {
            if is_preloaded() {
                if let Err(reason) = run() {
                    eprintln!("mmu_monitor: not started: {reason}");
                }
            }
        });
    }
    start
};

fn run() -> Result<(), String> {
    let choice = match Choice::from_environment().map_err(|error| error.to_string())? {
        // Explicit calls alone are no use to a program that makes none.
        Choice::Best => "hooks".parse().map_err(|error: monitor::UnknownSource| error.to_string())?,
        choice => choice,
    };
    match Monitor::start_with(&choice) {
        Ok(monitor) => report::begin(monitor),
        Err(StartError::Off) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

/// Says whether `LD_PRELOAD` names this library.
fn is_preloaded() -> bool {
    let Some(list) = std::env::var_os("LD_PRELOAD") else { return false };
    let separators = |byte: &u8| matches!(byte, b':' | b' ');
    let own = own_path();
    let own = file_name(own.as_bytes());
    !own.is_empty() && list.as_bytes().split(separators).any(|path| file_name(path) == own)
}

fn file_name(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or_default()
}

/// The path by which the linker knows this library.
fn own_path() -> std::ffi::OsString {
    // SAFETY: all zero is a valid `Dl_info`.
    let mut info: libc::Dl_info = unsafe { core::mem::zeroed() };
    let inside = &raw const START;
    // SAFETY: the linker fills it in, or says that it knows nothing of the address.
    if unsafe { libc::dladdr(inside.cast::<c_void>(), &raw mut info) } == 0 || info.dli_fname.is_null() {
        return Default::default();
    }
    // SAFETY: the linker's name ends with a zero.
    OsStr::from_bytes(unsafe { CStr::from_ptr(info.dli_fname) }.to_bytes()).to_owned()
}
