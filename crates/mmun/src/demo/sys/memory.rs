//! [`Mapping`]: one buffer of real memory, and the system calls that change it under its address.

use std::io;
use std::ptr::{NonNull, null_mut};
use std::sync::atomic::{AtomicUsize, Ordering};

use mmu_notifier::{Address, Range};

use crate::demo::device::{BUFFER, Memory};

/// Left without access behind each part, so that overruns fault and nothing fits into the hole but the
/// buffer.
const GAP: usize = 64 << 10;
const PART: usize = BUFFER + GAP;
const RESERVED: usize = 3 * PART;

/// Where buffers are asked for: far below the addresses at which a process is given memory that it does not ask
/// for by address, so that no other thread's small mapping, a signal stack say, comes to lie in a hole.
const FAR_AWAY: usize = 0x3000_0000_0000;

/// How often memory is mapped into the hole again before it counts as taken by somebody else.
const ATTEMPTS: usize = 1000;

/// A reservation of three parts: the buffer itself (home), the pages that were moved away, and a place
/// that they pass through.
///
/// # Invariants
/// `base` starts `RESERVED` bytes that belong to this mapping alone, and while `whole` the first
/// `BUFFER` bytes of each part can be read and written. When not `whole`, home is a hole that somebody
/// else may have taken: then nothing here is touched any more, nor given back.
pub(in crate::demo) struct Mapping {
    base: NonNull<u8>,
    whole: bool,
}

// SAFETY: the addresses belong to the mapping, not to a thread; the pointer is to memory that it owns.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Reserves the addresses, and maps memory at the three parts.
    pub(super) fn new() -> io::Result<Mapping> {
        let base = map(far_away(), RESERVED, libc::PROT_NONE, 0)?;
        // INVARIANT: fresh from mmap, so nobody else's; whole once all the parts are mapped.
        let mapping = Mapping { base, whole: true };
        for part in [mapping.home(), mapping.away(), mapping.passage()] {
            map(part, BUFFER, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_FIXED)?;
        }
        Ok(mapping)
    }

    /// Where the buffer starts, as long as there is one.
    pub(super) fn start(&self) -> io::Result<*mut u8> {
        if self.whole { Ok(self.home()) } else { Err(io::Error::from_raw_os_error(libc::EFAULT)) }
    }

    fn home(&self) -> *mut u8 {
        self.base.as_ptr()
    }

    fn away(&self) -> *mut u8 {
        self.home().wrapping_add(PART)
    }

    fn passage(&self) -> *mut u8 {
        self.home().wrapping_add(2 * PART)
    }

    /// Maps memory into the hole at home. What another thread mapped there meanwhile is left alone, and
    /// may go.
    fn fill_hole(&mut self) -> io::Result<()> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        for _ in 0..ATTEMPTS {
            match map(self.home(), BUFFER, access, libc::MAP_FIXED_NOREPLACE) {
                Err(error) if error.raw_os_error() == Some(libc::EEXIST) => std::thread::yield_now(),
                result => {
                    // INVARIANT: whole again, with the hole filled.
                    self.whole = result.is_ok();
                    return result.map(drop);
                }
            }
        }
        Err(io::Error::other("another thread mapped memory at the buffer's address while it was unmapped"))
    }
}

impl Memory for Mapping {
    fn range(&self) -> Range {
        Range::from_len(Address::from(self.home()), BUFFER as u64).expect("a mapping lies below the top")
    }

    fn fill(&mut self, bytes: &[u8]) {
        let Ok(start) = self.start() else { return };
        assert!(bytes.len() <= BUFFER);
        // SAFETY: copy_nonoverlapping: home holds `BUFFER` writable bytes (whole), `bytes` is no longer
        // than that, and as home is ours alone the two do not overlap.
        unsafe { start.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
    }

    fn shows(&self, bytes: &[u8]) -> bool {
        let Ok(start) = self.start() else { return false };
        assert!(bytes.len() <= BUFFER);
        // SAFETY: from_raw_parts: home holds `BUFFER` readable, initialised bytes (whole); all that
        // writes to them, the I/O of `Ring::read` included, has `&mut self`, so nothing does while this
        // slice lives.
        let memory = unsafe { std::slice::from_raw_parts(start, bytes.len()) };
        memory == bytes
    }

    fn unmap_and_map(&mut self) -> io::Result<()> {
        let start = self.start()?;
        // INVARIANT: home is about to be a hole; `fill_hole` says when it is none any more.
        self.whole = false;
        // SAFETY: munmap: home is ours, no reference to its bytes lives (`&mut self`), and until the
        // hole is filled nothing touches it.
        check(unsafe { libc::munmap(start.cast(), BUFFER) })?;
        self.fill_hole()
    }

    fn map_over(&mut self) -> io::Result<()> {
        map(self.start()?, BUFFER, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_FIXED).map(drop)
    }

    fn discard(&mut self) -> io::Result<()> {
        let start = self.start()?;
        // SAFETY: madvise: home is ours and anonymous, so that it reads as zeroes afterwards; no
        // reference to its bytes lives (`&mut self`).
        check(unsafe { libc::madvise(start.cast(), BUFFER, libc::MADV_DONTNEED) })
    }

    fn exchange(&mut self) -> io::Result<()> {
        let home = self.start()?;
        move_pages(home, self.passage())?;
        move_pages(self.away(), home)?;
        move_pages(self.passage(), self.away())
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if self.whole {
            // SAFETY: munmap: the reservation is ours, and nobody uses it after this. It can fail only
            // for want of kernel memory, and then stays mapped.
            unsafe { libc::munmap(self.base.as_ptr().cast(), RESERVED) };
        }
    }
}

/// An address for the next reservation: a wish, which the system need not grant.
fn far_away() -> *mut u8 {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed) % (1 << 20);
    null_mut::<u8>().wrapping_add(FAR_AWAY + number * RESERVED)
}

/// Maps anonymous memory: near the wish `address`, or with a `MAP_FIXED` flag at `address`, which lies in a
/// [`Mapping`] then.
fn map(address: *mut u8, length: usize, access: i32, fixed: i32) -> io::Result<NonNull<u8>> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | fixed;
    // SAFETY: mmap: without a fixed flag it takes free addresses; with MAP_FIXED the callers above give
    // a part of their own reservation, to whose bytes no reference lives; with MAP_FIXED_NOREPLACE
    // nothing is replaced.
    let mapped = unsafe { libc::mmap(address.cast(), length, access, flags, -1, 0) };
    if mapped == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    match NonNull::new(mapped.cast()) {
        // Kernels before 4.17 take the flag of no replacement for a hint.
        Some(at) if fixed == 0 || at.as_ptr() == address => Ok(at),
        _ => Err(io::Error::from_raw_os_error(libc::ENOSYS)),
    }
}

/// Moves the pages of one part to another. The source stays mapped, empty, so that there is never a hole.
fn move_pages(from: *mut u8, to: *mut u8) -> io::Result<()> {
    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED | libc::MREMAP_DONTUNMAP;
    // SAFETY: mremap: both are parts of the caller's own reservation, which it has exclusively; they do
    // not overlap.
    let moved = unsafe { libc::mremap(from.cast(), BUFFER, BUFFER, flags, to) };
    if moved == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn check(result: i32) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each change leaves a buffer that can be used and that does not show what was there before.
    #[test]
    fn changes_leave_other_pages_at_the_same_address() {
        let mut mapping = Mapping::new().unwrap();
        let range = mapping.range();
        let changes = [
            Mapping::unmap_and_map,
            Mapping::map_over,
            Mapping::discard,
            Mapping::exchange as fn(&mut _) -> _,
        ];
        for change in changes {
            mapping.fill(b"old");
            change(&mut mapping).unwrap();
            assert!(!mapping.shows(b"old"));
            assert_eq!(mapping.range(), range);
        }
        mapping.exchange().unwrap();
        assert!(mapping.shows(b"old"), "exchanged twice, the pages are back");
    }

    #[test]
    fn a_buffer_that_was_lost_is_left_alone() {
        let mut mapping = Mapping::new().unwrap();
        mapping.whole = false;
        mapping.fill(b"x");
        assert!(!mapping.shows(b""));
        assert_eq!(mapping.discard().unwrap_err().raw_os_error(), Some(libc::EFAULT));
        mapping.whole = true;
    }
}
