//! The source `userfaultfd`: the kernel itself tells of changes of the ranges that it was asked to watch.
//!
//! Nothing is patched, and it does not matter who makes the call: the C library, other code, a queue of io_uring. In
//! return it tells late: the thread that unmaps has unmapped, and sleeps, when the event comes. Until then, look-ups must
//! ask. The pages that are watched are not protected, and cost nothing; their mapping is split at the edges.
//!
//! ```text
//!  thread that unmaps             kernel                reading thread         telling thread
//!  munmap ───────────────▶ "changing", unmaps, event
//!     sleeps                                            untold + 1
//!     goes on ◀──────────── "changing" no more ◀─────── reads, queues ───────▶ start, end
//!                                                                              untold - 1
//! ```
//!
//! # When a look-up is right
//! A thread takes a token ([`read_begin`](mmu_notifier::interval::Subscription::read_begin)), finds an entry, and asks, in this order,
//! [`Source::is_pending`] and [`read_retry`](mmu_notifier::interval::Subscription::read_retry). If either says yes it starts over.
//! Take a change that was made before the look-up, as it was if the same address stands for something else by now.
//! - Its event is unread: the kernel says so, since it marks a change before it makes it.
//! - Its event was read, by a thread that had raised `untold` before. The kernel's mark is gone only behind the reading.
//!   So who sees no mark and then looks at `untold` sees it raised, unless start and end are made; then the callback
//!   has dropped the entry before the token was taken, or the token is stale.
//!
//! The other way round, `untold` first, would miss an event that is read in between.
//!
//! While others go on unmapping watched memory, somewhere, look-ups may start over many times. In a callback the answer is
//! always yes: its own event is not told of until it returns.
//!
//! # What it does not see
//! mprotect, `MADV_PAGEOUT`, `_COLLAPSE` and `_GUARD_INSTALL`, shmdt, shmat with `SHM_REMAP`, remap_file_pages, holes in
//! files. Of `MADV_DONTNEED` and its like it tells before the pages go, and not when they have gone: who looks up in
//! between finds the old page. A child of fork is not watched; it may arm anew. A child that is made past the C library
//! keeps the descriptor open until it ends or executes: until then, after a disarm, threads that unmap what was watched wait.

#![expect(unsafe_code, reason = "functions of the C library")]

use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering, fence};
use std::format;
use std::io;
use std::string::String;
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use mmu_notifier::Range;

use crate::operation::{Operation, Origin, When};
use crate::source::{Source, SourceError};

mod descriptor;
mod queue;
mod self_test;
mod threads;

use descriptor::Descriptor;
use queue::Queue;
use threads::Threads;

const NAME: &str = "userfaultfd";
const NONE: i32 = -1;

/// The source `userfaultfd`.
#[derive(Debug)]
pub struct Userfaultfd {
    threads: Mutex<Option<Threads>>,
    queue: Queue,
    armed: AtomicBool,
    /// The process that armed it.
    process: AtomicU32,
    /// The descriptor's number. Once there is one it stays this source's: who asks meanwhile never asks another file.
    file: AtomicI32,
}

/// The source of this process.
pub static USERFAULTFD: Userfaultfd = Userfaultfd {
    threads: Mutex::new(None),
    queue: Queue::new(),
    armed: AtomicBool::new(false),
    process: AtomicU32::new(0),
    file: AtomicI32::new(NONE),
};

impl Source for Userfaultfd {
    fn name(&self) -> &'static str {
        NAME
    }

    /// Of ranges that are [watched](Source::watch), by whomever.
    fn coverage(&self, operation: Operation, _: Origin) -> When {
        match operation {
            Operation::Unmap | Operation::MapFixed | Operation::Remap | Operation::Break => When::After,
            Operation::Discard => When::Before,
            _ => When::Missed,
        }
    }

    fn arm(&self) -> Result<(), SourceError> {
        let mut threads = self.lock();
        if self.is_armed() {
            return Ok(());
        }
        crate::process::make().map_err(|error| refusal(format!("{error}")))?;
        forget_in_children();
        let file = Descriptor::open().map_err(|error| refusal(explain(&error)))?;
        self_test::run(&file).map_err(refusal)?;
        // Of the parent's threads a child has none, and nothing of them to wait for.
        core::mem::forget(threads.take());
        *threads =
            Some(self.start(file).map_err(|error| refusal(format!("no thread to read events: {error}")))?);
        self.process.store(std::process::id(), Ordering::Relaxed);
        // ORDERING: pairs with the Acquire in `is_pending`: who sees it armed sees the descriptor.
        self.armed.store(true, Ordering::Release);
        Ok(())
    }

    fn is_armed(&self) -> bool {
        self.armed.load(Ordering::Acquire) && self.process.load(Ordering::Relaxed) == std::process::id()
    }

    /// Stops to watch all ranges. Changes that were made until now are told of.
    fn disarm(&self) {
        if !self.is_armed() {
            return;
        }
        // Without the lock: a callback that is waited for may ask for a range to be watched.
        let threads = self.lock().take();
        if let Some(threads) = threads {
            threads.end();
            self.armed.store(false, Ordering::Release);
        }
    }

    /// Watches `range`, rounded to pages, until it is unmapped.
    ///
    /// What is mapped there later is another mapping, to be watched anew.
    fn watch(&self, range: Range) -> Result<(), SourceError> {
        let _stays = self.lock();
        if !self.is_armed() {
            return Err(refusal(String::from("it is not armed, so nothing can be watched")));
        }
        // SAFETY: a question.
        let within = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as u64 - 1;
        let (first, last) = (range.start().get() & !within, range.last().get() | within);
        let file = Descriptor::lend(self.file.load(Ordering::Relaxed));
        Range::from_first_last(first, last)
            .map_err(|error| refusal(format!("{error}")))
            .and_then(|pages| file.register(pages).map_err(|error| refusal(explain_range(range, &error))))
    }

    /// # Context
    /// One system call, which takes no lock. The order of the two questions is what makes it exact.
    fn is_pending(&self) -> bool {
        // ORDERING: pairs with the Release in `arm`.
        if !self.armed.load(Ordering::Acquire) {
            return false;
        }
        if Descriptor::lend(self.file.load(Ordering::Relaxed)).is_changing() {
            // The number stands for no userfaultfd while it is being disarmed.
            return self.armed.load(Ordering::Acquire);
        }
        // ORDERING: the kernel's answer before the look at the queue. Pairs with `Queue::fill`: no mark means that the
        // events from before were read, and before each reading it was raised.
        fence(Ordering::SeqCst);
        self.queue.is_behind()
    }
}

impl Userfaultfd {
    fn lock(&self) -> MutexGuard<'_, Option<Threads>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the descriptor its number, and the threads the descriptor.
    fn start(&self, file: Descriptor) -> io::Result<Threads> {
        let file = match self.file.load(Ordering::Relaxed) {
            NONE => file,
            number => file.replace(number)?,
        };
        let number = file.into_number();
        // If there are no threads, it is replaced the next time. Nothing is registered with it.
        self.file.store(number, Ordering::Relaxed);
        Threads::start(number, &USERFAULTFD.queue)
    }
}

fn refusal(reason: String) -> SourceError {
    SourceError::new(NAME, reason)
}

fn explain(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::ENOSYS) => String::from("this kernel has no userfaultfd (Linux 4.3, CONFIG_USERFAULTFD)"),
        Some(libc::EPERM) => String::from(
            "userfaultfd is forbidden here: a container's seccomp filter has to allow it, or \
             vm.unprivileged_userfaultfd before Linux 5.11",
        ),
        Some(libc::EINVAL) => String::from("this kernel has no userfaultfd for user mode alone (Linux 5.11)"),
        Some(_) => format!("userfaultfd: {error}"),
        None => format!("this kernel's userfaultfd lacks {error}"),
    }
}

fn explain_range(range: Range, error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EBUSY) => format!(
            "{range:?} belongs to another userfaultfd (of a garbage collector, a virtual machine, another library): only \
             one can watch it; `hooks` sees it too"
        ),
        Some(libc::EINVAL) => {
            format!(
                "{range:?} cannot be watched: nothing is mapped there, or the kernel's own pages (vdso, vvar)"
            )
        }
        Some(libc::EPERM) => {
            format!("{range:?} cannot be watched: it is a shared mapping of a file that may not be written")
        }
        _ => format!("{range:?} cannot be watched: {error}"),
    }
}

/// Lets a child of fork know that nobody watches it, and lets go of the descriptor there.
fn forget_in_children() {
    static ONCE: Once = Once::new();
    extern "C" fn forget() {
        USERFAULTFD.armed.store(false, Ordering::Relaxed);
        USERFAULTFD.queue.forget();
        match USERFAULTFD.file.swap(NONE, Ordering::Relaxed) {
            NONE => {}
            number => drop(core::mem::ManuallyDrop::into_inner(Descriptor::lend(number))),
        }
    }
    ONCE.call_once(|| {
        // SAFETY: the handler is a function of this crate, which stays loaded.
        unsafe { libc::pthread_atfork(None, None, Some(forget)) };
    });
}
