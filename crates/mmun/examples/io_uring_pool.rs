//! For authors of I/O libraries: a pool of io_uring's registered ("fixed") buffers whose memory an allocator may
//! purge and replace.
//!
//! To register a buffer the kernel looks up its pages once, and pins them. If the memory at that address is
//! discarded or mapped anew, a read into the registered buffer goes to the old pages: it reports success, and the
//! program finds zeros. No error comes from anywhere. Part one shows that.
//!
//! Part two is the remedy. Each buffer of the pool is a mirror whose table says whether the buffer's index is
//! alive. Whoever purges memory says so (`invalidate`): the index is dead from then
//! on, once the reads in flight are done; the next read that finds it dead registers the new pages first.
//!
//! ```sh
//! cargo run --release -p mmun --example io_uring_pool
//! ```
//!
//! It needs Linux with io_uring; without, it says so.

#[cfg(target_os = "linux")]
mod linux {
    #![expect(unsafe_code, reason = "maps memory, and hands its addresses to io_uring")]

    use std::fs::File;
    use std::io;
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::FileExt;
    use std::ptr::{NonNull, null_mut};
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;
    use std::time::{Duration, Instant};

    use io_uring::{IoUring, opcode, types};
    use mmu_notifier::mirror::{Attempts, FaultError, InUse, Mirror, Table};
    use mmu_notifier::{Address, AddressSpace, Event, Invalidation, Range};

    const LENGTH: usize = 4096;
    const BUFFERS: u16 = 4;
    /// How long the second part runs.
    const TIME: Duration = Duration::from_millis(700);

    /// Memory at a fixed address. Its bytes are only ever touched through raw pointers.
    ///
    /// # Invariants
    /// `start` begins `LENGTH` bytes that are mapped, and nobody else's, until this is dropped.
    struct Pages {
        start: NonNull<u8>,
    }

    // SAFETY: the addresses belong to this object, not to a thread.
    unsafe impl Send for Pages {}
    // SAFETY: its methods make system calls, or copy bytes that the caller has the right to (see `Pool::read`).
    unsafe impl Sync for Pages {}

    impl Pages {
        fn new() -> io::Result<Pages> {
            // SAFETY: mmap: without a fixed flag it takes free addresses.
            unsafe { map(null_mut(), 0) }.map(|start| Pages { start })
        }

        fn range(&self) -> Range {
            Range::from_len(Address::from(self.start.as_ptr()), LENGTH as u64).expect("it is mapped")
        }

        /// What an allocator does with memory that nobody uses: the mapping stays, its pages go.
        ///
        /// # Safety
        /// Nobody touches the bytes meanwhile.
        unsafe fn discard(&self) {
            // SAFETY: madvise: our own anonymous memory; as promised by the caller.
            let result = unsafe { libc::madvise(self.start.as_ptr().cast(), LENGTH, libc::MADV_DONTNEED) };
            assert_eq!(result, 0, "{}", io::Error::last_os_error());
        }

        /// What a new arena at an old address is: other memory in place of this.
        ///
        /// # Safety
        /// As for [`discard`](Self::discard).
        unsafe fn replace(&self) {
            // SAFETY: mmap: it replaces our own mapping; as promised by the caller.
            unsafe { map(self.start.as_ptr(), libc::MAP_FIXED) }.expect("a mapping can be replaced");
        }

        /// # Safety
        /// Nobody writes the bytes meanwhile, the kernel included.
        unsafe fn shows(&self, expected: &[u8]) -> bool {
            assert!(expected.len() <= LENGTH);
            // SAFETY: from_raw_parts: mapped, and of our own length; as promised by the caller.
            unsafe { std::slice::from_raw_parts(self.start.as_ptr(), expected.len()) == expected }
        }
    }

    impl Drop for Pages {
        fn drop(&mut self) {
            // SAFETY: munmap: the memory is ours, and nobody uses it after this.
            unsafe { libc::munmap(self.start.as_ptr().cast(), LENGTH) };
        }
    }

    /// # Safety
    /// With `MAP_FIXED` in `flags`, `address` begins a mapping of the caller's, whose bytes nobody touches.
    unsafe fn map(address: *mut u8, flags: i32) -> io::Result<NonNull<u8>> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | flags;
        // SAFETY: mmap: as promised by the caller.
        let start = unsafe { libc::mmap(address.cast(), LENGTH, access, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        NonNull::new(start.cast()).ok_or_else(|| io::Error::other("memory was mapped at address zero"))
    }

    /// The ring, with one operation in flight at most.
    struct Ring(IoUring);

    impl Ring {
        fn new() -> io::Result<Ring> {
            let ring = IoUring::new(2)?;
            ring.submitter().register_buffers_sparse(BUFFERS.into())?;
            Ok(Ring(ring))
        }

        /// Lets the kernel look up and pin the pages that are there now.
        fn register(&self, index: u16, pages: &Pages) -> io::Result<()> {
            let buffer = [libc::iovec { iov_base: pages.start.as_ptr().cast(), iov_len: LENGTH }];
            // SAFETY: register_buffers_update: the memory is mapped; the kernel pins its pages, and so may write
            // to them even when they are mapped no more.
            unsafe { self.0.submitter().register_buffers_update(index.into(), &buffer, None) }
        }

        /// Reads from the front of the file into a registered buffer.
        ///
        /// # Safety
        /// Nobody touches the bytes meanwhile.
        unsafe fn read(&mut self, index: u16, pages: &Pages, file: &File) -> io::Result<usize> {
            let file = types::Fd(file.as_raw_fd());
            let read = opcode::ReadFixed::new(file, pages.start.as_ptr(), LENGTH as u32, index).build();
            // SAFETY: push: file and memory are borrowed until the completion, which is awaited below.
            unsafe { self.0.submission().push(&read) }.map_err(io::Error::other)?;
            loop {
                match self.0.submit_and_wait(1) {
                    Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                    _ => {}
                }
                if let Some(done) = self.0.completion().next() {
                    let result = done.result();
                    return usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result));
                }
            }
        }
    }

    /// Without the library: registered once, believed for ever.
    fn what_goes_wrong(ring: &mut Ring, file: &File, expected: &[u8]) -> io::Result<()> {
        let pages = Pages::new()?;
        ring.register(0, &pages)?;
        for change in ["discarded", "mapped anew"] {
            match change {
                // SAFETY: discard: there is one thread, and no operation is in flight.
                "discarded" => unsafe { pages.discard() },
                // SAFETY: replace: the same.
                _ => unsafe { pages.replace() },
            }
            // SAFETY: read: there is one thread.
            let length = unsafe { ring.read(0, &pages, file) }?;
            // SAFETY: shows: the same, and the read is done.
            let right = unsafe { pages.shows(&expected[..length]) };
            println!(
                "without: memory {change}; the read reports {length} bytes, which the program {}",
                if right { "finds" } else { "does not find" }
            );
            ring.register(0, &pages)?;
            // SAFETY: read: there is one thread.
            let length = unsafe { ring.read(0, &pages, file) }?;
            // SAFETY: shows: the same, and the read is done.
            assert!(unsafe { pages.shows(&expected[..length]) }, "registered again it is right");
        }
        Ok(())
    }

    /// Whether an index leads to the pages that are mapped now.
    struct Registration {
        alive: bool,
        died: u64,
    }

    impl Table for Registration {
        fn invalidate(&mut self, _: &Invalidation) {
            self.died += u64::from(self.alive);
            self.alive = false;
        }
    }

    /// A buffer of the pool.
    struct Buffer {
        mirror: Mirror<Registration>,
        index: u16,
        pages: Pages,
    }

    /// The pool's memory, as the allocator and the reader share it.
    struct Pool(Vec<Buffer>);

    impl Pool {
        fn new(space: &AddressSpace) -> io::Result<Pool> {
            let buffer = |index| {
                let (pages, nothing) = (Pages::new()?, Registration { alive: false, died: 0 });
                let mirror = Mirror::new(space, pages.range(), nothing);
                Ok(Buffer { mirror: mirror.map_err(|error| io::Error::other(error.cause))?, index, pages })
            };
            (0..BUFFERS).map(buffer).collect::<io::Result<_>>().map(Pool)
        }
    }

    impl Buffer {
        /// Makes sure that the index is alive, for as long as the result is held.
        fn hold(&self, ring: &Ring) -> io::Result<InUse<'_, Registration, ()>> {
            let range = self.pages.range();
            if let Some(alive) = self.mirror.hold(range, |registration| registration.alive.then_some(())) {
                return Ok(alive);
            }
            let walk = |_| ring.register(self.index, &self.pages);
            let commit = |registration: &mut Registration, ()| registration.alive = true;
            self.mirror.fault_in_use(range, Attempts::UNBOUNDED, walk, commit).map_err(|error| match error {
                FaultError::Walk(error) => error,
                other => io::Error::other(other),
            })
        }

        /// Reads the file, and says whether the program finds it.
        fn read(&self, ring: &mut Ring, file: &File, expected: &[u8]) -> io::Result<bool> {
            let _in_use = self.hold(ring)?;
            // SAFETY: read: the allocator changes the memory within an invalidation only, and that waits for
            // `_in_use`; there is one reader.
            let length = unsafe { ring.read(self.index, &self.pages, file) }?;
            // SAFETY: shows: the same, and the read is done.
            Ok(length == expected.len() && unsafe { self.pages.shows(expected) })
        }
    }

    /// An allocator that purges the pool's memory again and again; returns how often it did.
    fn purge(space: &AddressSpace, pool: &Pool, done: &AtomicBool) -> u64 {
        for round in 0u64.. {
            let pages = &pool.0[round as usize % pool.0.len()].pages;
            if round % 2 == 0 {
                let what = Invalidation::new(pages.range(), Event::Clear);
                // SAFETY: discard: from the start on nobody holds the buffer, until the end.
                space.invalidate(what, || unsafe { pages.discard() });
            } else {
                // SAFETY: replace: the same.
                space.invalidate(pages.range(), || unsafe { pages.replace() });
            }
            if done.load(Ordering::Relaxed) {
                return round + 1;
            }
            thread::sleep(Duration::from_micros(200));
        }
        unreachable!("it goes on until it is done")
    }

    /// With the library: each change is announced.
    fn what_goes_right(ring: &mut Ring, file: &File, expected: &[u8]) -> io::Result<()> {
        let space = AddressSpace::new();
        let (pool, done) = (Pool::new(&space)?, AtomicBool::new(false));
        let (mut reads, mut wrong) = (0u64, 0u64);
        let purged = thread::scope(|scope| {
            let allocator = scope.spawn(|| purge(&space, &pool, &done));
            let began = Instant::now();
            let result: io::Result<()> = (0..).take_while(|_| began.elapsed() < TIME).try_for_each(|round| {
                let right = pool.0[round % pool.0.len()].read(ring, file, expected)?;
                reads += 1;
                wrong += u64::from(!right);
                Ok(())
            });
            done.store(true, Ordering::Relaxed);
            let purged = allocator.join().expect("the allocator does not panic");
            result.map(|()| purged)
        });
        let died: u64 = pool.0.iter().map(|buffer| buffer.mirror.with(|table| table.died)).sum();
        println!("with: {reads} reads, {wrong} wrong; memory changed {} times beneath them", purged?);
        println!("      an index died {died} times, and its buffer was registered again at the next read");
        assert_eq!(wrong, 0, "a read went to pages that were not there any more");
        Ok(())
    }

    pub(super) fn run() -> io::Result<()> {
        let mut ring = match Ring::new() {
            Ok(ring) => ring,
            Err(error) => {
                println!("nothing to show: io_uring cannot be used here ({error})");
                return Ok(());
            }
        };
        let file = File::open(std::env::current_exe()?)?;
        let mut expected = [0; LENGTH];
        file.read_exact_at(&mut expected, 0)?;
        what_goes_wrong(&mut ring, &file, &expected)?;
        what_goes_right(&mut ring, &file, &expected)
    }
}

#[cfg(target_os = "linux")]
fn main() -> std::io::Result<()> {
    linux::run()
}

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("nothing to show: io_uring is Linux's");
}

#[cfg(all(test, target_os = "linux"))]
#[test]
fn the_example_runs() {
    main().unwrap();
}
