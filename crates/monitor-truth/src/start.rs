//! The start, when the dynamic linker runs the constructors of what is preloaded.

#![expect(unsafe_code, reason = "a constructor, and calls to the kernel")]

use std::ffi::c_int;
use std::fs::File;
use std::mem::forget;
use std::os::fd::AsRawFd;

use mmu_monitor::Monitor;
use mmu_notifier::interval::Answer;
use mmu_notifier::{Invalidation, Range};

use crate::mark::{self, Witness};

// SAFETY: the linker calls it once, behind the constructors of the C library, with the program's arguments, which it
// does not look at.
#[used]
#[unsafe(link_section = ".init_array")]
static START: extern "C" fn() = {
    extern "C" fn start() {
        if let Err(reason) = run() {
            eprintln!("monitor-truth: {reason}");
            std::process::abort();
        }
    }
    start
};

fn run() -> Result<(), String> {
    let name = std::env::var("MONITOR_TRUTH_MARKER").map_err(|error| error.to_string())?;
    let marker = File::options().write(true).open(&name).map_err(|error| format!("{name}: {error}"))?;
    mark::write_to(high(&marker)?);
    let space = Monitor::start().map_err(|error| error.to_string())?.space();
    // One on the list, which writes; one with a range, so that the index is walked too.
    forget(space.register(Witness).map_err(|error| error.to_string())?);
    let nothing = |_: &Invalidation| Answer::Done;
    forget(space.insert(Range::ALL, nothing).map_err(|error| error.to_string())?);
    // Last: the kernel hears nothing that the witness does not.
    make_machine()?;
    mark::write("ready", None);
    Ok(())
}

/// Makes the kernel subscribe to this process, for as long as it lives.
fn make_machine() -> Result<(), String> {
    const KVM_CREATE_VM: libc::c_ulong = 0xae01;
    let kvm = File::options().read(true).write(true).open("/dev/kvm");
    let kvm = kvm.map_err(|error| format!("/dev/kvm: {error}"))?;
    // SAFETY: the call takes a number, and gives a descriptor.
    let machine = unsafe { libc::ioctl(kvm.as_raw_fd(), KVM_CREATE_VM, 0) };
    if machine < 0 {
        return Err(format!("KVM_CREATE_VM: {}", std::io::Error::last_os_error()));
    }
    let kept = high(&machine);
    // SAFETY: it was given above, and nobody else knows it.
    unsafe { libc::close(machine) };
    kept.map(drop)
}

/// A copy of a descriptor where programs have none of their own, closed by exec.
fn high(file: &impl AsRawFd) -> Result<c_int, String> {
    const HIGH: c_int = 900;
    // SAFETY: it changes nothing but the table of descriptors.
    let copy = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_DUPFD_CLOEXEC, HIGH) };
    if copy < 0 { Err(format!("F_DUPFD: {}", std::io::Error::last_os_error())) } else { Ok(copy) }
}
