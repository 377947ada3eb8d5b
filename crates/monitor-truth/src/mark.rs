//! The witness: writes what the monitor tells to the trace. As callbacks must, it allocates nothing and calls the
//! kernel alone.

#![expect(unsafe_code, reason = "system calls")]

use std::fmt::{self, Write};
use std::sync::atomic::{AtomicI32, Ordering};

use mmu_notifier::Invalidation;
use mmu_notifier::list::{Notifier, WouldBlock};

/// The open `trace_marker`.
static MARKER: AtomicI32 = AtomicI32::new(-1);

/// Says where marks go from now on.
pub(crate) fn write_to(marker: i32) {
    MARKER.store(marker, Ordering::Relaxed);
}

/// Writes one mark, with this process's number behind its first word.
pub(crate) fn write(word: &str, range: Option<&Invalidation>) {
    let mut line = Line { bytes: [0; 96], length: 0 };
    // INVARIANT: the longest mark has 55 bytes.
    let _ = match range.map(Invalidation::range) {
        Some(range) => {
            let (first, last) = (range.start().get(), range.last().get());
            write!(line, "{word} {} {first:x} {last:x}", process())
        }
        None => write!(line, "{word} {}", process()),
    };
    let words = [MARKER.load(Ordering::Relaxed) as usize, line.bytes.as_ptr() as usize, line.length];
    // SAFETY: the kernel reads that many bytes of the line.
    unsafe { system_call(libc::SYS_write, words) };
}

fn process() -> isize {
    // SAFETY: it only answers.
    unsafe { system_call(libc::SYS_getpid, [0; 3]) }
}

/// A system call past the C library, whose functions are being watched and write `errno`.
///
/// # Safety
/// - Whatever the call of that number owes its caller.
#[cfg(target_arch = "x86_64")]
unsafe fn system_call(number: libc::c_long, [first, second, third]: [usize; 3]) -> isize {
    let result;
    // SAFETY: the kernel writes rax, rcx and r11, and the memory that the caller answers for.
    unsafe {
        core::arch::asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") first,
            in("rsi") second,
            in("rdx") third,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result
}

/// As above.
///
/// # Safety
/// - As above.
#[cfg(not(target_arch = "x86_64"))]
unsafe fn system_call(number: libc::c_long, [first, second, third]: [usize; 3]) -> isize {
    // SAFETY: the caller answers for the call.
    unsafe { libc::syscall(number, first, second, third) as isize }
}

struct Line {
    bytes: [u8; 96],
    length: usize,
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let place = self.bytes.get_mut(self.length..self.length + text.len()).ok_or(fmt::Error)?;
        place.copy_from_slice(text.as_bytes());
        self.length += text.len();
        Ok(())
    }
}

/// A subscriber to the whole process.
pub(crate) struct Witness;

impl Notifier for Witness {
    fn release(&self) {
        write("released", None);
    }

    fn invalidate_range_start(&self, invalidation: &Invalidation) -> Result<(), WouldBlock> {
        write("bracket+", Some(invalidation));
        Ok(())
    }

    fn invalidate_range_end(&self, invalidation: &Invalidation) {
        write("bracket-", Some(invalidation));
    }
}
