//! The mappings of this process, as the kernel lists them in `/proc/self/maps`; read without allocating.

#![expect(unsafe_code, reason = "system calls")]

use crate::kernel::system_call;

/// One mapping, half-open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mapping {
    pub(crate) start: usize,
    pub(crate) end: usize,
    /// Where in the file it begins, in bytes.
    pub(crate) offset: usize,
    /// The device's numbers, major and minor.
    pub(crate) device: (usize, usize),
    pub(crate) inode: usize,
    /// A segment of System V shared memory.
    pub(crate) is_segment: bool,
}

/// Calls `f` with each mapping, by address; none if they cannot be read.
///
/// Changes meanwhile may be seen or not.
pub(crate) fn for_each(mut f: impl FnMut(&Mapping)) -> Option<()> {
    let file = File::open()?;
    let mut lines = Lines { buffer: [0; 512], filled: 0, skips: false };
    while file.fill(&mut lines)? {
        lines.take(|line| {
            if let Some(mapping) = parse(line) {
                f(&mapping);
            }
        });
    }
    Some(())
}

/// The lines of a file, of which only the first bytes count.
struct Lines {
    buffer: [u8; 512],
    filled: usize,
    /// The rest of a line that was longer is passed over.
    skips: bool,
}

impl Lines {
    /// Hands out each whole line, and the head of one that fills the buffer.
    fn take(&mut self, mut f: impl FnMut(&[u8])) {
        let mut from = 0;
        while let Some(length) = self.buffer[from..self.filled].iter().position(|&byte| byte == b'\n') {
            if !self.skips {
                f(&self.buffer[from..from + length]);
            }
            self.skips = false;
            from += length + 1;
        }
        if from == 0 && self.filled == self.buffer.len() {
            if !self.skips {
                f(&self.buffer);
            }
            (self.skips, from) = (true, self.filled);
        }
        self.buffer.copy_within(from..self.filled, 0);
        self.filled -= from;
    }
}

struct File(usize);

impl File {
    fn open() -> Option<File> {
        let name = c"/proc/self/maps";
        let flags = (libc::O_RDONLY | libc::O_CLOEXEC) as usize;
        let arguments = [libc::AT_FDCWD as usize, name.as_ptr() as usize, flags, 0, 0, 0];
        // SAFETY: the name ends with a zero, and the file is closed again.
        let file = unsafe { system_call(libc::SYS_openat as usize, arguments) };
        usize::try_from(file).ok().map(File)
    }

    /// Reads on; false at the end.
    fn fill(&self, lines: &mut Lines) -> Option<bool> {
        let free = &mut lines.buffer[lines.filled..];
        let arguments = [self.0, free.as_mut_ptr() as usize, free.len(), 0, 0, 0];
        // SAFETY: the kernel writes at most the free bytes of the buffer.
        let read = unsafe { system_call(libc::SYS_read as usize, arguments) };
        lines.filled += usize::try_from(read).ok()?;
        Some(read > 0)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        // SAFETY: it is this value's own.
        unsafe { system_call(libc::SYS_close as usize, [self.0, 0, 0, 0, 0, 0]) };
    }
}

/// Reads `start-end permissions offset major:minor inode path`.
fn parse(line: &[u8]) -> Option<Mapping> {
    let mut words = line.split(|&byte| byte == b' ').filter(|word| !word.is_empty());
    let (start, end) = pair(words.next()?, b'-')?;
    let _permissions = words.next()?;
    let offset = number(words.next()?, 16)?;
    let device = pair(words.next()?, b':')?;
    let inode = number(words.next()?, 10)?;
    let is_segment = words.next().is_some_and(|path| path.starts_with(b"/SYSV"));
    Some(Mapping { start, end, offset, device, inode, is_segment })
}

fn pair(word: &[u8], between: u8) -> Option<(usize, usize)> {
    let at = word.iter().position(|&byte| byte == between)?;
    Some((number(&word[..at], 16)?, number(&word[at + 1..], 16)?))
}

fn number(digits: &[u8], radix: u32) -> Option<usize> {
    usize::from_str_radix(core::str::from_utf8(digits).ok()?, radix).ok()
}
