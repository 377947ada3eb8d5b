//! Tries on a page of its own whether an event comes, and whether the kernel says so while it is unread.

#![expect(unsafe_code, reason = "the page that is tried on")]

use core::ffi::c_int;
use std::format;
use std::string::{String, ToString};
use std::thread;

use mmu_notifier::Range;

use super::descriptor::Descriptor;

const PAGE: usize = 4096;
/// How long an event may take, in milliseconds: it comes at once or never.
const PATIENCE: i64 = 5000;
const NO_FILE: c_int = -1;

/// Watches a page, lets another thread unmap it, and looks.
///
/// # Errors
/// What was not as it has to be. Then the descriptor has to be closed, which lets that thread go.
pub(super) fn run(file: &Descriptor) -> Result<(), String> {
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping, wherever there is room.
    let page = unsafe { libc::mmap(core::ptr::null_mut(), PAGE, protection, flags, -1, 0) } as usize;
    let range = Range::from_len(page as u64, PAGE as u64).map_err(|error| format!("self-test: {error}"))?;
    file.register(range).map_err(|error| format!("self-test: a page cannot be registered: {error}"))?;
    if file.is_changing() {
        return Err("self-test: the kernel does not say whether an event is unread".to_string());
    }
    // SAFETY: the page is known to this function alone.
    let unmap = move || unsafe { libc::munmap(page as *mut _, PAGE) };
    let unmaps =
        thread::Builder::new().spawn(unmap).map_err(|error| format!("self-test: no thread: {error}"))?;
    if !file.wait(NO_FILE, PATIENCE).event {
        return Err("self-test: a watched page was unmapped by another thread, and no event came; while a library is \
                    being loaded no thread begins: arm when it is loaded, or load it with LD_PRELOAD"
            .to_string());
    }
    if !file.is_changing() {
        return Err("self-test: an event is unread, and the kernel does not say so".to_string());
    }
    let told = file.read().map(|change| change.range);
    if told != Some(range) {
        return Err(format!("self-test: {range:?} was unmapped, and the event says {told:?}"));
    }
    let _ = unmaps.join();
    if file.is_changing() {
        Err("self-test: no event is unread, and the kernel does not say so".to_string())
    } else {
        Ok(())
    }
}
