//! [`Ring`]: an io_uring whose registered buffers are slots of a secondary MMU.
//!
//! To register a buffer the kernel looks up the pages that are mapped there now and pins them: it keeps
//! the translation, and no change of the mapping is heard. A read into such a buffer (`READ_FIXED`) goes
//! to the pinned pages, whatever the address shows by then, and reports success.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::ptr::null_mut;
use std::sync::Mutex;

use io_uring::{IoUring, cqueue, opcode, squeue, types};

use super::Mapping;
use crate::demo::device::{BUFFER, Device, lock};

/// A ring with a table of slots, and one operation in flight at most.
///
/// Any thread may change a slot, beside an operation on another; the kernel serialises that.
pub(in crate::demo) struct Ring {
    ring: IoUring,
    /// Held by who uses the two queues; false once an operation is stuck in one.
    usable: Mutex<bool>,
}

impl Ring {
    /// Sets up a plain ring with that many empty slots.
    pub(super) fn new(slots: u32) -> io::Result<Ring> {
        let ring = IoUring::new(2)?;
        ring.submitter().register_buffers_sparse(slots)?;
        Ok(Ring { ring, usable: Mutex::new(true) })
    }

    fn update(&self, slot: u32, start: *mut u8, length: usize) -> io::Result<()> {
        let buffer = [libc::iovec { iov_base: start.cast(), iov_len: length }];
        // SAFETY: register_buffers_update: the kernel checks the addresses and pins the pages, which so
        // outlive their mapping. They are a mapping's own (`register` has a reference to it, so it is
        // mapped now), or none at all; what is written to them later is told in `read`.
        unsafe { self.ring.submitter().register_buffers_update(slot, &buffer, None) }
    }

    /// Hands one operation to the kernel and waits until it is done.
    ///
    /// # Safety
    /// The operation's file and buffer are valid, and the buffer the caller's alone, until this returns.
    unsafe fn perform(&self, operation: &squeue::Entry) -> io::Result<u32> {
        let mut usable = lock(&self.usable);
        if !*usable {
            return Err(io::Error::other("an operation that the kernel would not take is in the queue"));
        }
        // SAFETY: submission_shared: the queues are used only by who holds the lock.
        let mut submissions = unsafe { self.ring.submission_shared() };
        // SAFETY: push: the caller vouches for the operation's file and buffer until it is done, which
        // is awaited, or not taken up, after which nothing is submitted any more.
        let pushed = unsafe { submissions.push(operation) };
        drop(submissions);
        pushed.map_err(|_| io::Error::from(io::ErrorKind::ResourceBusy))?;
        let done = self.wait().inspect_err(|_| *usable = false)?;
        let result = done.result();
        if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(result as u32) }
    }

    /// Submits what is queued, and waits for its completion, however long: until then the buffer is the
    /// kernel's.
    ///
    /// # Errors
    /// What the kernel answers if it does not take it up; then it is still queued.
    fn wait(&self) -> io::Result<cqueue::Entry> {
        loop {
            let submitted = self.ring.submit_and_wait(1);
            // SAFETY: completion_shared: the only caller holds the lock of the queues.
            let mut completions = unsafe { self.ring.completion_shared() };
            if let Some(done) = completions.next() {
                return Ok(done);
            }
            drop(completions);
            let Err(error) = submitted else { continue };
            if !is_passing(&error) && !self.is_submitted() {
                return Err(error);
            }
            std::thread::yield_now();
        }
    }

    fn is_submitted(&self) -> bool {
        // SAFETY: submission_shared: the only caller's caller holds the lock of the queues, and has no
        // other.
        unsafe { self.ring.submission_shared() }.is_empty()
    }
}

/// Says whether it was a signal, or a want of memory or room that passes.
fn is_passing(error: &io::Error) -> bool {
    let passing = [libc::EINTR, libc::EAGAIN, libc::EBUSY, libc::ENOMEM];
    error.raw_os_error().is_some_and(|code| passing.contains(&code))
}

impl Device for Ring {
    type Memory = Mapping;

    fn register(&self, slot: u32, memory: &Mapping) -> io::Result<()> {
        self.update(slot, memory.start()?, BUFFER)
    }

    fn clear(&self, slot: u32) {
        // It can fail only for a slot that there is not. The slot is dead already, and what it might
        // keep is no more than memory.
        let _ = self.update(slot, null_mut(), 0);
    }

    fn read(
        &self,
        slot: u32,
        memory: &mut Mapping,
        file: &File,
        offset: u64,
        length: usize,
    ) -> io::Result<usize> {
        assert!(length <= BUFFER);
        let operation = opcode::ReadFixed::new(
            types::Fd(file.as_raw_fd()),
            memory.start()?,
            length as u32,
            u16::try_from(slot).map_err(io::Error::other)?,
        )
        .offset(offset)
        .build();
        // SAFETY: perform: `file` is open as long as its reference, and `memory` exclusively ours. The
        // kernel writes to the pages that the slot pins, and checks that it was registered for these
        // addresses: so the pages are this mapping's, be they at home, away or nowhere any more, and no
        // reference to them lives.
        let delivered = unsafe { self.perform(&operation) }?;
        Ok(delivered as usize)
    }
}
