//! Tries each patched call once, through the C library's function, and looks whether its start arrives.
//!
//! The program break stays where it is, and nothing of the program's is touched: all happens to pages of its own. What
//! the kernel refuses here (shared memory in a container, say) counts if its start arrived before the refusal.

#![expect(unsafe_code, reason = "the calls that are tried")]

use core::ffi::{c_int, c_void};
use core::ptr;
use core::sync::atomic::{AtomicUsize, Ordering};
use std::format;
use std::string::String;
use std::sync::Arc;

use mmu_notifier::interval::Answer;
use mmu_notifier::{AddressSpaceRef, Invalidation, Range};

/// Pages of the scratch memory.
const PAGES: usize = 8;
/// Those that are there in the end. What lies where the others were is somebody else's by then.
const KEPT: [usize; 4] = [0, 1, 2, 5];
const PAGE: usize = 4096;

/// Scratch memory that is watched.
struct Scratch {
    start: *mut c_void,
    starts: Arc<AtomicUsize>,
}

/// Tries all calls.
///
/// # Errors
/// The name of the first whose start did not arrive.
pub(super) fn run(space: &AddressSpaceRef) -> Result<(), String> {
    let start = anonymous(PAGES).ok_or("self-test: no memory to try the calls on")?;
    let starts = Arc::new(AtomicUsize::new(0));
    let counter = starts.clone();
    let range =
        Range::from_len(start.cast_const(), (PAGES * PAGE) as u64).map_err(|error| format!("{error}"))?;
    let heard = move |_: &Invalidation| {
        counter.fetch_add(1, Ordering::Relaxed);
        Answer::Done
    };
    let subscription = space.insert(range, heard).map_err(|error| format!("self-test: {error}"))?;
    let scratch = Scratch { start, starts };
    let silent = scratch.silent();
    drop(subscription);
    for page in KEPT {
        // SAFETY: it is the scratch memory of this function.
        unsafe { libc::munmap(start.wrapping_byte_add(page * PAGE), PAGE) };
    }
    match silent {
        Some(name) => Err(format!("self-test: {name} was made, and its start did not arrive")),
        None => Ok(()),
    }
}

fn anonymous(pages: usize) -> Option<*mut c_void> {
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping, wherever there is room.
    let place = unsafe { libc::mmap(ptr::null_mut(), pages * PAGE, protection, flags, -1, 0) };
    (place != libc::MAP_FAILED).then_some(place)
}

impl Scratch {
    /// The first call that was not heard; none if all were.
    fn silent(&self) -> Option<&'static str> {
        let page = |number: usize| self.start.wrapping_byte_add(number * PAGE);
        let tries: [(&str, &dyn Fn()); 10] = [
            ("mmap", &|| map_over(page(0))),
            ("mprotect", &|| protect(page(0))),
            ("pkey_mprotect", &|| protect_by_key(page(0))),
            ("madvise", &|| discard(page(1))),
            ("process_madvise", &|| discard_by_process(page(1))),
            ("mremap", &|| move_over(page(3), page(2))),
            ("remap_file_pages", &|| remap_file_pages(page(2))),
            ("shmat", &|| attach_over(page(4))),
            // Of the segment, or of nothing if there was none.
            ("shmdt", &|| detach(page(4))),
            ("munmap", &|| unmap(page(6))),
        ];
        // A filter may end the process at calls that a program hardly makes.
        let common = ["mmap", "mprotect", "madvise", "mremap", "munmap"];
        let is_filtered = is_filtered();
        let mut tries = tries.into_iter().filter(|(name, _)| !is_filtered || common.contains(name));
        let is_silent = |make: &dyn Fn()| !self.is_heard(make);
        tries.find(|(_, make)| is_silent(make)).map(|(name, _)| name)
    }

    fn is_heard(&self, make: &dyn Fn()) -> bool {
        let before = self.starts.load(Ordering::Relaxed);
        make();
        self.starts.load(Ordering::Relaxed) != before
    }
}

/// Says whether a seccomp filter looks at this process's calls, or that is not known.
fn is_filtered() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    !status.lines().any(|line| line.split_whitespace().eq(["Seccomp:", "0"]))
}

const WRITABLE: c_int = libc::PROT_READ | libc::PROT_WRITE;

fn map_over(page: *mut c_void) {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
    // SAFETY: the page is scratch.
    unsafe { libc::mmap(page, PAGE, WRITABLE, flags, -1, 0) };
}

fn protect(page: *mut c_void) {
    // SAFETY: the page is scratch.
    unsafe { libc::mprotect(page, PAGE, WRITABLE) };
}

fn discard(page: *mut c_void) {
    // SAFETY: the page is scratch.
    unsafe { libc::madvise(page, PAGE, libc::MADV_DONTNEED) };
}

fn move_over(from: *mut c_void, to: *mut c_void) {
    // SAFETY: both pages are scratch.
    unsafe { libc::mremap(from, PAGE, PAGE, libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED, to) };
}

fn remap_file_pages(page: *mut c_void) {
    // SAFETY: the page is scratch; it is of no file, so the kernel refuses.
    unsafe { libc::remap_file_pages(page, PAGE, 0, 0, 0) };
}

/// By the function `syscall`.
fn unmap(page: *mut c_void) {
    // SAFETY: the page is scratch.
    unsafe { libc::syscall(libc::SYS_munmap, page, PAGE) };
    // SAFETY: as above.
    unsafe { libc::munmap(page.wrapping_byte_add(PAGE), PAGE) };
}

/// Where the kernel refuses, the page stays as it is, for the life of the process.
fn attach_over(page: *mut c_void) {
    // SAFETY: a new segment.
    let segment = unsafe { libc::shmget(libc::IPC_PRIVATE, PAGE, 0o600) };
    // SAFETY: the page is scratch.
    unsafe { libc::shmat(segment, page, libc::SHM_REMAP) };
    // SAFETY: it goes when it is attached no more.
    unsafe { libc::shmctl(segment, libc::IPC_RMID, ptr::null_mut()) };
}

fn detach(page: *mut c_void) {
    // SAFETY: the page is scratch.
    unsafe { libc::shmdt(page) };
}

// Younger than the oldest glibc: without them the system call is made by number, which the library must hear too.

fn protect_by_key(page: *mut c_void) {
    const NO_KEY: c_int = -1;
    // SAFETY: the page is scratch.
    unsafe { libc::syscall(libc::SYS_pkey_mprotect, page, PAGE, WRITABLE, NO_KEY) };
}

fn discard_by_process(page: *mut c_void) {
    let this = std::process::id() as c_int;
    // SAFETY: a descriptor of this process.
    let process = unsafe { libc::syscall(libc::SYS_pidfd_open, this, 0) };
    let part = libc::iovec { iov_base: page, iov_len: PAGE };
    // SAFETY: the page is scratch.
    unsafe { libc::syscall(libc::SYS_process_madvise, process, &raw const part, 1, libc::MADV_DONTNEED, 0) };
    if let Ok(process) = c_int::try_from(process) {
        // SAFETY: opened above.
        unsafe { libc::close(process) };
    }
}
