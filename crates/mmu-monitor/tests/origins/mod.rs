//! Ways to change mappings past the C library: an instruction of this program, a queue of io_uring.

#![expect(unsafe_code, clippy::undocumented_unsafe_blocks, reason = "system calls on memory of their own")]

use io_uring::{IoUring, opcode};
use mmu_notifier::Range;

use crate::support::{PAGE, anonymous, range, watched};

const WRITABLE: usize = (libc::PROT_READ | libc::PROT_WRITE) as usize;

/// Makes a call on watched pages by an instruction of this program: their address comes first, then `rest`.
#[cfg(target_arch = "x86_64")]
fn directly(number: i64, rest: [usize; 5], pages: usize) -> Result<Range, String> {
    let start = anonymous(pages);
    let whole = watched(range(start, pages * PAGE));
    let [second, third, fourth, fifth, sixth] = rest;
    match crate::support::direct(number, [start as usize, second, third, fourth, fifth, sixth]) {
        error @ -4095..0 => Err(std::io::Error::from_raw_os_error(-error as i32).to_string()),
        _ => Ok(whole),
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn directly(_number: i64, _rest: [usize; 5], _pages: usize) -> Result<Range, String> {
    Err("how a call is made on this machine is not known".into())
}

pub(crate) fn unmap() -> Result<Range, String> {
    directly(libc::SYS_munmap, [4 * PAGE, 0, 0, 0, 0], 4)
}

pub(crate) fn map_fixed() -> Result<Range, String> {
    let flags = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED) as usize;
    directly(libc::SYS_mmap, [PAGE, WRITABLE, flags, usize::MAX, 0], 1)
}

pub(crate) fn remap() -> Result<Range, String> {
    directly(libc::SYS_mremap, [PAGE, 64 * PAGE, libc::MREMAP_MAYMOVE as usize, 0, 0], 1)
}

pub(crate) fn protect() -> Result<Range, String> {
    directly(libc::SYS_mprotect, [PAGE, libc::PROT_READ as usize, 0, 0, 0], 1)
}

pub(crate) fn discard() -> Result<Range, String> {
    directly(libc::SYS_madvise, [PAGE, libc::MADV_DONTNEED as usize, 0, 0, 0], 1)
}

pub(crate) fn replace() -> Result<Range, String> {
    directly(libc::SYS_madvise, [PAGE, libc::MADV_PAGEOUT as usize, 0, 0, 0], 1)
}

/// madvise by a worker of the kernel.
pub(crate) fn discard_by_queue() -> Result<Range, String> {
    let start = anonymous(1);
    let page = watched(range(start, PAGE));
    let mut ring = IoUring::new(4).map_err(|error| format!("io_uring: {error}"))?;
    let advice = opcode::Madvise::new(start.cast(), PAGE as i64, libc::MADV_DONTNEED).build();
    unsafe { ring.submission().push(&advice) }.map_err(|error| error.to_string())?;
    ring.submit_and_wait(1).map_err(|error| error.to_string())?;
    match ring.completion().next().map(|answer| answer.result()) {
        Some(0) => Ok(page),
        other => Err(format!("io_uring's madvise: {other:?}")),
    }
}
