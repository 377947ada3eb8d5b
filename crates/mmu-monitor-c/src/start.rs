//! The start from C, which sources tell, and what they cover.

#![expect(unsafe_code, reason = "exported functions")]

use std::ffi::{CStr, c_char, c_int};
use std::mem::MaybeUninit;

use monitor::{Choice, Monitor, Operation, Origin, StartError, When};

use crate::border::{answer, call};

/// The monitor, for calls that need one.
pub(crate) fn running() -> Result<Monitor, &'static str> {
    Monitor::get().ok_or("the monitor is not started: call mmu_monitor_start first")
}

fn start(sources: Option<&CStr>) -> Result<(), StartError> {
    match sources {
        None => Monitor::start()?,
        Some(words) => Monitor::start_with(&words.to_string_lossy().parse::<Choice>()?)?,
    };
    Ok(())
}

#[unsafe(no_mangle)]
unsafe extern "C" fn mmu_monitor_start(sources: *const c_char) -> c_int {
    call("mmu_monitor_start", || {
        // SAFETY: the caller's text ends with a zero.
        let sources = (!sources.is_null()).then(|| unsafe { CStr::from_ptr(sources) });
        answer(start(sources))
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn mmu_monitor_armed(text: *mut c_char, size: usize) -> usize {
    call("mmu_monitor_armed", || {
        let names = Monitor::get().map_or_else(String::new, |monitor| monitor.armed().join(","));
        if size > 0 {
            let fits = names.len().min(size - 1);
            // SAFETY: the caller's place has `size` bytes, fits < size.
            let place = unsafe { std::slice::from_raw_parts_mut(text.cast::<MaybeUninit<u8>>(), fits + 1) };
            for (place, byte) in place.iter_mut().zip(names.bytes().take(fits).chain([0])) {
                place.write(byte);
            }
        }
        names.len()
    })
}

#[unsafe(no_mangle)]
extern "C" fn mmu_monitor_coverage(operation: c_int, origin: c_int) -> c_int {
    call("mmu_monitor_coverage", || {
        // Both tables stand in the order of the header.
        let operation = usize::try_from(operation).ok().and_then(|index| Operation::ALL.get(index));
        let origin = usize::try_from(origin).ok().and_then(|index| Origin::ALL.get(index));
        let (Some(monitor), Some(&operation), Some(&origin)) = (Monitor::get(), operation, origin) else {
            return 0;
        };
        match monitor.coverage(operation, origin) {
            When::Missed => 0,
            When::After => 1,
            When::Before => 2,
            When::BeforeAndEnd => 3,
        }
    })
}
