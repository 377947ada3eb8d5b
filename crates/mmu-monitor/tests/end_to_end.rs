//! The whole of it: threads hand one address to each other, and a cache of registered io_uring buffers is never wrong.
//!
//! Two threads take turns, as fast as they can, to map a page at one address, read a file into it through the buffer that
//! is registered for that address, and unmap it. A third registers the address ahead of them whenever the cache has
//! nothing. What is registered are pages, not addresses: a read through a stale registration reports success, and the page
//! shows zeros. With the monitor there is not one. With any single part of the protection left out there are some.

#![expect(
    unsafe_code,
    clippy::undocumented_unsafe_blocks,
    clippy::multiple_unsafe_ops_per_block,
    reason = "system calls on memory of their own"
)]
#![cfg(target_os = "linux")]

mod support;

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use io_uring::{IoUring, opcode, types};
use mmu_monitor::hooks::HOOKS;
use mmu_monitor::{Monitor, Source, explicit};
use mmu_notifier::interval::{Answer, Subscription};
use mmu_notifier::list::Notifier;
use mmu_notifier::{Event, Invalidation, Range};
use support::{PAGE, anonymous, range};

const ROUNDS: u64 = 20_000;

/// Which part of the protection is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Without {
    Nothing,
    /// No source tells of changes.
    Source,
    /// The cache does not drop what it hears of.
    Drop,
    /// What is registered counts, whatever happened meanwhile.
    Retry,
    /// The cache hears of a change when it is over.
    Start,
}

/// The cache: one address, one buffer of a ring.
struct Cache {
    without: Without,
    place: *mut u8,
    ring: Mutex<IoUring>,
    is_registered: Mutex<bool>,
    file: File,
}

// The place is an address, not a thread's.
unsafe impl Send for Cache {}
unsafe impl Sync for Cache {}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Cache {
    fn new(without: Without, place: *mut u8) -> io::Result<Cache> {
        let ring = IoUring::new(4)?;
        ring.submitter().register_buffers_sparse(1)?;
        let mut file = File::from(unsafe {
            use std::os::fd::FromRawFd;
            std::os::fd::OwnedFd::from_raw_fd(libc::memfd_create(c"pattern".as_ptr(), 0))
        });
        file.write_all(&[b'F'; PAGE])?;
        Ok(Cache { without, place, ring: Mutex::new(ring), is_registered: Mutex::new(false), file })
    }

    fn drop_translation(&self) {
        if self.without != Without::Drop {
            *lock(&self.is_registered) = false;
        }
    }

    /// Registers what lies at the place now.
    fn register(&self) -> io::Result<()> {
        let buffer = [libc::iovec { iov_base: self.place.cast(), iov_len: PAGE }];
        unsafe { lock(&self.ring).submitter().register_buffers_update(0, &buffer, None) }
    }

    /// Makes sure that the place is registered; false if it is not mapped.
    fn ensure<N>(&self, watched: &Subscription<N>) -> bool
    where
        N: mmu_notifier::interval::Notifier,
    {
        loop {
            let token = (self.without != Without::Start).then(|| watched.read_begin());
            let is_stale =
                || self.without != Without::Retry && token.is_some_and(|token| watched.read_retry(token));
            if self.without == Without::Retry {
                // It may lose the processor here.
                std::thread::yield_now();
            }
            let mut is_registered = lock(&self.is_registered);
            if !*is_registered && self.register().is_err() {
                return false;
            }
            if !is_stale() {
                *is_registered = true;
                return true;
            }
        }
    }

    /// Reads the file into the place, by the registered buffer; says whether it arrived.
    fn read(&self) -> bool {
        let mut ring = lock(&self.ring);
        let read = opcode::ReadFixed::new(types::Fd(self.file.as_raw_fd()), self.place, PAGE as u32, 0);
        unsafe { ring.submission().push(&read.build()) }.expect("there is room");
        ring.submit_and_wait(1).expect("the ring works");
        let done = ring.completion().next().expect("it is done").result();
        assert_eq!(done, PAGE as i32, "the read reports success");
        unsafe { self.place.add(PAGE - 1).read() == b'F' }
    }

    /// Maps a page at the place, if nobody else has.
    fn map(&self) -> bool {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
        let writable = libc::PROT_READ | libc::PROT_WRITE;
        let mapped = unsafe { libc::mmap(self.place.cast(), PAGE, writable, flags, -1, 0) };
        mapped == self.place.cast()
    }
}

/// Hears of changes when they are over.
struct Late(Arc<Cache>);

impl Notifier for Late {
    fn invalidate_range_end(&self, what: &Invalidation) {
        if what.range().contains(self.0.place) {
            // It may lose the processor here.
            std::thread::yield_now();
            self.0.drop_translation();
        }
    }
}

struct Outcome {
    rounds: u64,
    wrong: u64,
}

/// Runs the load, until `rounds` a thread are done, or the first wrong read if `stops`.
fn run(monitor: Monitor, without: Without, rounds: u64, stops: bool) -> io::Result<Outcome> {
    // A hole of one page, which nothing else fits into.
    let place = anonymous(3).wrapping_add(PAGE);
    unsafe { libc::munmap(place.cast(), PAGE) };
    let cache = Arc::new(Cache::new(without, place)?);
    let heard = cache.clone();
    let watched = monitor.space().insert(range(place, PAGE), move |_: &Invalidation| {
        if heard.without != Without::Start {
            heard.drop_translation();
        }
        Answer::Done
    });
    let watched = Arc::new(watched.map_err(io::Error::other)?);
    let late = (without == Without::Start).then(|| monitor.space().register(Late(cache.clone())).unwrap());
    let (over, wrong, done) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let deadline = Instant::now() + Duration::from_secs(60);
    std::thread::scope(|scope| {
        let owner = || {
            for _ in 0..rounds {
                while !cache.map() {
                    assert!(Instant::now() < deadline, "somebody else has the place");
                    std::thread::yield_now();
                }
                assert!(cache.ensure(&watched), "what is mapped can be registered");
                wrong.fetch_add(u64::from(!cache.read()), Ordering::Relaxed);
                unsafe { libc::munmap(cache.place.cast(), PAGE) };
                done.fetch_add(1, Ordering::Relaxed);
                if Instant::now() > deadline || (stops && wrong.load(Ordering::Relaxed) > 0) {
                    break;
                }
            }
        };
        let owners = [scope.spawn(owner), scope.spawn(owner)];
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                cache.ensure(&watched);
                std::thread::yield_now();
            }
        });
        owners.into_iter().for_each(|owner| owner.join().unwrap());
        over.store(true, Ordering::Relaxed);
    });
    drop(late);
    Ok(Outcome { rounds: done.into_inner(), wrong: wrong.into_inner() })
}

#[test]
fn an_address_that_changes_hands_is_never_read_wrongly() {
    let monitor = match Monitor::start_with(&"hooks".parse().unwrap()) {
        Ok(monitor) => monitor,
        Err(reason) => return println!("skipped: {reason}"),
    };
    let whole = match run(monitor, Without::Nothing, ROUNDS, false) {
        Ok(whole) => whole,
        Err(reason) => return println!("skipped: no io_uring with sparse buffers: {reason}"),
    };
    println!("{:?}: {} wrong of {}", Without::Nothing, whole.wrong, whole.rounds);
    assert_eq!(whole.wrong, 0);
    assert_eq!(whole.rounds, 2 * ROUNDS);
    for without in [Without::Source, Without::Drop, Without::Retry, Without::Start] {
        if without == Without::Source {
            HOOKS.disarm();
        }
        let broken = run(monitor, without, 100 * ROUNDS, true).unwrap();
        HOOKS.arm().unwrap();
        println!("without {without:?}: {} wrong of {}", broken.wrong, broken.rounds);
        assert!(broken.wrong > 0, "without {without:?} nothing went wrong: the test shows nothing");
    }
}

#[test]
fn what_the_program_says_itself_is_enough() {
    let monitor = Monitor::start_with(&"explicit".parse().unwrap()).unwrap();
    let page = anonymous(1);
    let heard = Arc::new(AtomicU64::new(0));
    let counted = heard.clone();
    let watched = move |_: &Invalidation| {
        counted.fetch_add(1, Ordering::Relaxed);
        Answer::Done
    };
    let _watched = monitor.space().insert(range(page, PAGE), watched).unwrap();
    // A hole in a file: no source sees it, so whoever makes it says so.
    let hole = Invalidation::new(Range::from_len(page, PAGE as u64).unwrap(), Event::Clear);
    assert_eq!(explicit::external(hole, || 5), 5);
    assert_eq!(heard.load(Ordering::Relaxed), 1);
    unsafe { explicit::munmap(page.cast(), PAGE) }.unwrap();
    assert_eq!(heard.load(Ordering::Relaxed), 2);
}
