//! The file descriptor of a userfaultfd, and the calls that are made on it.
//!
//! All go to the kernel directly: nothing here allocates or writes `errno`. Structures and numbers are those of the
//! kernel's interface (`linux/userfaultfd.h`).

#![expect(unsafe_code, reason = "system calls")]

use core::ffi::c_int;
use std::io;

use mmu_notifier::{Event, Range};

use crate::call::Change;
use crate::kernel::system_call;

/// The version of the interface that is spoken here.
const API: u64 = 0xaa;
const USER_MODE_ONLY: usize = 1;

/// What the kernel has to be able to do, by bit and by name.
const FEATURES: [(u64, &str); 4] = [
    (1 << 2, "events of mremap (Linux 4.11)"),
    (1 << 3, "events of madvise (Linux 4.11)"),
    (1 << 6, "events of munmap (Linux 4.11)"),
    (1 << 15, "registration of every mapping, WP_ASYNC (Linux 6.7)"),
];

const EVENT_REMAP: u8 = 0x14;
const EVENT_REMOVE: u8 = 0x15;
const EVENT_UNMAP: u8 = 0x16;

#[repr(C)]
struct Api {
    version: u64,
    features: u64,
    calls: u64,
}

#[repr(C)]
struct Part {
    start: u64,
    length: u64,
    mode: u64,
}

#[repr(C)]
struct Register {
    part: Part,
    calls: u64,
}

/// A message of the kernel: the event, and up to three words.
#[repr(C)]
struct Message {
    event: u8,
    reserved: [u8; 7],
    words: [u64; 3],
}

/// The number of a call that the kernel reads its argument of and writes it back.
const fn number<T>(which: usize) -> usize {
    const BOTH_WAYS: usize = 3 << 30;
    BOTH_WAYS | (size_of::<T>() << 16) | ((API as usize) << 8) | which
}

/// An open userfaultfd; closed when dropped, which lets all go that wait for an event of theirs to be read.
#[derive(Debug)]
pub(super) struct Descriptor(c_int);

fn checked(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result as i32))
}

impl Descriptor {
    /// Opens one that tells of munmap, mremap and madvise, for any kind of memory.
    ///
    /// # Errors
    /// The kernel has none, refuses, or lacks a feature.
    pub(super) fn open() -> io::Result<Descriptor> {
        let flags = libc::O_CLOEXEC as usize | libc::O_NONBLOCK as usize | USER_MODE_ONLY;
        // SAFETY: the call takes flags alone.
        let opened = unsafe { system_call(libc::SYS_userfaultfd as usize, [flags, 0, 0, 0, 0, 0]) };
        let file = Descriptor(checked(opened)? as c_int);
        let features = FEATURES.iter().fold(0, |all, (bit, _)| all | bit);
        let mut api = Api { version: API, features, calls: 0 };
        if file.call(number::<Api>(0x3f), &mut api).is_ok() {
            return Ok(file);
        }
        // A descriptor that refused may be asked again: what it can do.
        let mut able = Api { version: API, features: 0, calls: 0 };
        file.call(number::<Api>(0x3f), &mut able)?;
        let lacks = FEATURES.iter().find(|(bit, _)| able.features & bit == 0);
        Err(io::Error::other(lacks.map_or("the kernel refuses its own features", |(_, name)| name)))
    }

    /// Makes a call with an argument that it may write.
    fn call<T>(&self, number: usize, argument: &mut T) -> io::Result<usize> {
        let words = [self.0 as usize, number, core::ptr::from_mut(argument) as usize, 0, 0, 0];
        // SAFETY: `number` holds the size of `T`, which is all that the kernel reads and writes.
        checked(unsafe { system_call(libc::SYS_ioctl as usize, words) })
    }

    /// Registers `range`, which starts and ends with a page, without protecting any page of it.
    pub(super) fn register(&self, range: Range) -> io::Result<()> {
        const WRITE_PROTECT: u64 = 1 << 1;
        let length = u64::try_from(range.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let part = Part { start: range.start().get(), length, mode: WRITE_PROTECT };
        self.call(number::<Register>(0), &mut Register { part, calls: 0 }).map(drop)
    }

    /// Says whether a change is under way whose event nobody has read yet, or whose thread has not gone on yet.
    ///
    /// The kernel refuses to lift a protection while it is so, before it looks at anything else; when it is not, it
    /// refuses because no page is named. Any other answer counts as yes.
    pub(super) fn is_changing(&self) -> bool {
        let mut nothing = Part { start: 0, length: 0, mode: 0 };
        let answer = self.call(number::<Part>(6), &mut nothing);
        !answer.is_err_and(|error| error.raw_os_error() == Some(libc::EINVAL))
    }

    /// Waits until there is something to read here or in `other`, for `milliseconds` at most, or for ever if negative.
    pub(super) fn wait(&self, other: c_int, milliseconds: i64) -> Ready {
        let entry = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        let mut files = [entry(self.0), entry(other)];
        let time = libc::timespec { tv_sec: milliseconds / 1000, tv_nsec: milliseconds % 1000 * 1_000_000 };
        let time = if milliseconds < 0 { 0 } else { &raw const time as usize };
        // SAFETY: the kernel reads and writes the two entries, and reads the time.
        unsafe { system_call(libc::SYS_ppoll as usize, [files.as_mut_ptr() as usize, 2, time, 0, 0, 0]) };
        // Interrupted: neither.
        Ready { event: files[0].revents != 0, other: files[1].revents != 0 }
    }

    /// Reads the next event, if there is one; the thread that made the change goes on.
    pub(super) fn read(&self) -> Option<Change> {
        let mut message = Message { event: 0, reserved: [0; 7], words: [0; 3] };
        let words = [self.0 as usize, &raw mut message as usize, size_of::<Message>(), 0, 0, 0];
        // SAFETY: the kernel writes one message at most.
        let read = unsafe { system_call(libc::SYS_read as usize, words) };
        (read == size_of::<Message>() as isize).then(|| message.change())
    }

    /// Puts this file in the place of `number`, whatever is there.
    pub(super) fn replace(self, number: c_int) -> io::Result<Descriptor> {
        put(self.0, number)?;
        Ok(Descriptor(number))
    }

    /// The number, which nobody closes any more.
    pub(super) fn into_number(self) -> c_int {
        core::mem::ManuallyDrop::new(self).0
    }

    /// Lends the file of that number, which is not closed here.
    pub(super) fn lend(number: c_int) -> core::mem::ManuallyDrop<Descriptor> {
        core::mem::ManuallyDrop::new(Descriptor(number))
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        // SAFETY: it is this value's own.
        unsafe { system_call(libc::SYS_close as usize, [self.0 as usize, 0, 0, 0, 0, 0]) };
    }
}

/// Puts another name for `file` in the place of `number`, and closes what was there, in one step.
pub(super) fn put(file: c_int, number: c_int) -> io::Result<()> {
    let words = [file as usize, number as usize, libc::O_CLOEXEC as usize, 0, 0, 0];
    // SAFETY: `number` is one that this source owns.
    checked(unsafe { system_call(libc::SYS_dup3 as usize, words) }).map(drop)
}

/// Where there is something to read.
pub(super) struct Ready {
    pub(super) event: bool,
    pub(super) other: bool,
}

impl Message {
    /// What the message tells of; one that is not known counts as all.
    fn change(&self) -> Change {
        let [first, second, third] = self.words;
        let (event, range) = match self.event {
            EVENT_UNMAP => (Event::Unmap, Range::new(first, second)),
            EVENT_REMOVE => (Event::Clear, Range::new(first, second)),
            // The place that is left; what lay at the other one was unmapped by an event of its own.
            EVENT_REMAP => (Event::Unmap, Range::from_len(first, third)),
            _ => (Event::Unmap, Ok(Range::ALL)),
        };
        Change { range: range.unwrap_or(Range::ALL), event }
    }
}
