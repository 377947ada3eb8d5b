//! The two threads of the source: one reads events, one tells of them.
//!
//! The thread that made a change sleeps in the kernel until its event is read. So the reading thread does nothing else:
//! it never calls a subscriber, allocates, takes a lock, or waits but for events. A callback that unmaps watched memory
//! itself thus goes on like anybody; its event is told of when the callback is over. Both threads are born with all
//! signals blocked, so that no handler of the program's runs in them.

#![expect(unsafe_code, reason = "system calls")]

use core::ffi::c_int;
use core::sync::atomic::{AtomicBool, Ordering};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{self, Builder, JoinHandle, Thread};

use super::descriptor::{Descriptor, put};
use super::queue::Queue;
use crate::call::Effect;
use crate::kernel::system_call;
use crate::process;

/// The threads, and how to end them.
#[derive(Debug)]
pub(super) struct Threads {
    stop: Stop,
    reader: JoinHandle<()>,
    teller: JoinHandle<()>,
}

impl Threads {
    /// Starts them, to read the descriptor of that number.
    ///
    /// # Errors
    /// There can be no more threads or files; then none of them is left.
    pub(super) fn start(file: c_int, queue: &'static Queue) -> io::Result<Threads> {
        let _blocked = Blocked::all();
        let stop = Stop::new()?;
        let number = stop.0;
        let ends = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&ends);
        let teller = Builder::new().name("mmu-monitor tell".into()).spawn(move || tell(queue, &seen))?;
        let (at_end, wakes) = (Arc::clone(&ends), teller.thread().clone());
        let reader = Builder::new().name("mmu-monitor read".into()).spawn(move || {
            read(file, number, queue, &wakes);
            end_telling(&at_end, &wakes);
        });
        match reader {
            Ok(reader) => Ok(Threads { stop, reader, teller }),
            Err(error) => {
                end_telling(&ends, teller.thread());
                let _ = teller.join();
                Err(error)
            }
        }
    }

    /// Ends them: what was made until now is read and told of, and the descriptor's number stands for nothing then.
    ///
    /// In a callback, which the telling thread makes, it does not wait for that thread.
    pub(super) fn end(self) {
        self.stop.say();
        // A thread that panicked has ended the process.
        let _ = self.reader.join();
        if self.teller.thread().id() != thread::current().id() {
            let _ = self.teller.join();
        }
    }
}

/// A file that is readable when the reading thread is to end; closed when dropped.
#[derive(Debug)]
struct Stop(c_int);

impl Stop {
    fn new() -> io::Result<Stop> {
        // SAFETY: the call takes numbers alone.
        let file = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if file < 0 { Err(io::Error::last_os_error()) } else { Ok(Stop(file)) }
    }

    fn say(&self) {
        let one = 1_u64;
        // SAFETY: the kernel reads eight bytes.
        unsafe { libc::write(self.0, (&raw const one).cast(), size_of_val(&one)) };
    }
}

impl Drop for Stop {
    fn drop(&mut self) {
        // SAFETY: it is this value's own, and the thread that used it is gone.
        unsafe { libc::close(self.0) };
    }
}

/// Lets the telling thread end, once it has told of all that was read.
fn end_telling(ends: &AtomicBool, teller: &Thread) {
    // ORDERING: pairs with the Acquire in `tell`: who sees the end finds in the queue all that was read.
    ends.store(true, Ordering::Release);
    teller.unpark();
}

/// Reads until told to end, then what is left, and closes the descriptor: nobody waits in vain for being read.
fn read(file: c_int, stop: c_int, queue: &Queue, teller: &Thread) {
    let descriptor = Descriptor::lend(file);
    loop {
        let ready = descriptor.wait(stop, -1);
        if ready.event && queue.fill(|| descriptor.read()) {
            teller.unpark();
        }
        if ready.other {
            break;
        }
    }
    while queue.fill(|| descriptor.read()) {}
    // Fails only if the number is not this source's any more.
    let _ = put(stop, file);
}

fn tell(queue: &Queue, ends: &AtomicBool) {
    loop {
        // ORDERING: before the look into the queue. Pairs with the Release in `end_telling`.
        let is_last = ends.load(Ordering::Acquire);
        while let Some(untold) = queue.take() {
            let told = catch_unwind(AssertUnwindSafe(|| process::bracket(Effect::One(untold.change), || ())));
            if told.is_err() {
                // As in a system call of anybody's: a callback must not panic, and nobody is there to hear it.
                std::process::abort();
            }
            queue.told(untold.count);
        }
        if is_last {
            return;
        }
        thread::park();
    }
}

/// Signals of the calling thread, all blocked until dropped.
struct Blocked(u64);

impl Blocked {
    fn all() -> Blocked {
        Blocked(exchange(u64::MAX))
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        exchange(self.0);
    }
}

/// Sets the mask of blocked signals; gives the old one.
fn exchange(mask: u64) -> u64 {
    let mut old = 0_u64;
    let (new, place) = (&raw const mask as usize, &raw mut old as usize);
    let words = [libc::SIG_SETMASK as usize, new, place, size_of::<u64>(), 0, 0];
    // SAFETY: the kernel reads and writes eight bytes each.
    unsafe { system_call(libc::SYS_rt_sigprocmask as usize, words) };
    old
}
