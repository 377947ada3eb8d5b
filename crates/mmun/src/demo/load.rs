//! The load: readers that read files through their buffers, and mutators that change the buffers' mappings.
//!
//! [`run`] does one half of the comparison. Both halves are the same code and the same load; the one
//! difference is whether the buffers are subscribed, and so whether anybody hears of the changes
//! ([`Half`]).

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{ScopedJoinHandle, scope};
use std::time::{Duration, Instant};

use mmu_notifier::AddressSpace;
use mmu_notifier::interval::InsertErrorKind;

use super::buffer::Buffer;
use super::device::{BUFFER, Bank, Device};
use super::explicit::Mappings;
use super::files::Source;
use super::progress::Progress;
use super::random::Random;
use super::report::Counts;

/// Reader threads, each with a device of its own.
pub(super) const READERS: usize = 4;
/// Buffers of each reader. All together they are 1 MiB, far below what an ordinary user may lock.
pub(super) const BUFFERS: usize = 4;
/// Threads that change the mappings of all the buffers.
pub(super) const MUTATORS: usize = 2;

/// What a mutator lets pass between two changes, so that the readers have most of the machine.
const PAUSE: Duration = Duration::from_micros(50);
/// How often the progress is shown.
const TICK: Duration = Duration::from_millis(50);

/// Which half of the comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Half {
    /// Buffers are registered once, and nobody hears of a change.
    Without,
    /// Each buffer is subscribed.
    With,
}

/// What is read, for how long, and picked from which seed.
pub(super) struct Load<'a> {
    pub(super) sources: &'a [Source],
    pub(super) seed: u64,
    pub(super) length: Duration,
}

/// Runs the load once.
///
/// # Errors
/// The first operation that failed; what a stale registration does is no failure, it reports success.
pub(super) fn run<D: Device>(
    half: Half,
    banks: Vec<Bank<D>>,
    load: &Load<'_>,
    progress: &Progress,
) -> Result<Counts, LoadError> {
    let space = AddressSpace::new();
    let buffers = banks.into_iter().map(|bank| prepare(half, &space, bank)).collect::<Result<Vec<_>, _>>()?;
    let run = Run { load, buffers, mappings: Mappings::new(space), tally: Tally::default() };
    let began = Instant::now();
    run.threads(half, progress)?;
    Ok(run.counts(began.elapsed()))
}

/// Makes the buffers of one reader.
fn prepare<D: Device>(half: Half, space: &AddressSpace, bank: Bank<D>) -> Result<Vec<Buffer<D>>, LoadError> {
    let Bank { device, memories } = bank;
    (0u32..)
        .zip(memories)
        .map(|(index, memory)| match half {
            Half::Without => Buffer::trusting(&device, index, memory).map_err(LoadError::Register),
            Half::With => Buffer::watched(space, &device, index, memory).map_err(LoadError::Subscribe),
        })
        .collect()
}

/// One half while it runs: the buffers of each reader, and what is counted.
struct Run<'a, D: Device> {
    load: &'a Load<'a>,
    buffers: Vec<Vec<Buffer<D>>>,
    mappings: Mappings,
    tally: Tally,
}

/// ORDERING: plain counts and a flag that publishes nothing: relaxed; the threads are joined before the
/// last look.
#[derive(Default)]
struct Tally {
    over: AtomicBool,
    reads: AtomicU64,
    wrong_reads: AtomicU64,
}

impl<D: Device> Run<'_, D> {
    fn threads(&self, half: Half, progress: &Progress) -> Result<(), LoadError> {
        // One change of each before the first read, so that a slow start of the mutators shows nothing rosier.
        for buffer in self.buffers.iter().flatten() {
            self.mappings.discard(buffer.place()).map_err(LoadError::Change)?;
        }
        scope(|scope| {
            let readers = (0..self.buffers.len()).map(|reader| scope.spawn(move || self.reader(reader)));
            let mutators = (0..MUTATORS).map(|mutator| scope.spawn(move || self.mutator(mutator)));
            let threads: Vec<_> = readers.collect::<Vec<_>>().into_iter().chain(mutators).collect();
            self.watch_the_clock(half, progress);
            join(threads)
        })
    }

    fn watch_the_clock(&self, half: Half, progress: &Progress) {
        let deadline = Instant::now() + self.load.length;
        while !self.is_over() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                self.tally.over.store(true, Ordering::Relaxed);
            }
            let wrong = self.tally.wrong_reads.load(Ordering::Relaxed);
            progress.show(half, self.load.length - left, self.tally.reads.load(Ordering::Relaxed), wrong);
            std::thread::sleep(left.min(TICK));
        }
    }

    fn is_over(&self) -> bool {
        self.tally.over.load(Ordering::Relaxed)
    }

    /// Reads until the half is over. One that fails ends it for all.
    fn reader(&self, number: usize) -> Result<(), LoadError> {
        let _ender = Ender(&self.tally.over);
        let mut reader = Reader::new(Random::new(self.load.seed, number as u64));
        while !self.is_over() {
            let source = &self.load.sources[reader.random.index(self.load.sources.len())];
            let buffers = &self.buffers[number];
            let buffer = &buffers[reader.random.index(buffers.len())];
            match reader.read(buffer, source).map_err(|error| LoadError::Read(source.path().into(), error))? {
                Verdict::Right => {}
                Verdict::Wrong => _ = self.tally.wrong_reads.fetch_add(1, Ordering::Relaxed),
                Verdict::Unclear => continue,
            }
            self.tally.reads.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Changes mappings until the half is over.
    fn mutator(&self, number: usize) -> Result<(), LoadError> {
        let _ender = Ender(&self.tally.over);
        let mut random = Random::new(self.load.seed, (READERS + number) as u64);
        while !self.is_over() {
            let buffers = &self.buffers[random.index(self.buffers.len())];
            let place = buffers[random.index(buffers.len())].place();
            let changed = match random.below(4) {
                0 => self.mappings.munmap(place),
                1 => self.mappings.map_fixed(place),
                2 => self.mappings.discard(place),
                _ => self.mappings.mremap(place),
            };
            changed.map_err(LoadError::Change)?;
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }

    fn counts(&self, took: Duration) -> Counts {
        let heard = self.buffers.iter().flatten().map(Buffer::hits_and_retries);
        let (hits, retries) = heard.fold((0, 0), |(hits, retries), (h, r)| (hits + h, retries + r));
        Counts {
            reads: self.tally.reads.load(Ordering::Relaxed),
            wrong_reads: self.tally.wrong_reads.load(Ordering::Relaxed),
            invalidations: self.mappings.starts(),
            hits,
            retries,
            seconds: took.as_secs_f64(),
        }
    }
}

/// Ends the half when a thread ends, be it by an error or a panic.
struct Ender<'a>(&'a AtomicBool);

impl Drop for Ender<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Waits for all the threads; the first error counts, and a panic goes on.
fn join(threads: Vec<ScopedJoinHandle<'_, Result<(), LoadError>>>) -> Result<(), LoadError> {
    let results: Vec<_> = threads.into_iter().map(ScopedJoinHandle::join).collect();
    results.into_iter().try_for_each(|result| result.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
}

/// What a comparison showed.
enum Verdict {
    Right,
    /// The read reported success, and the data is not there.
    Wrong,
    /// The file itself changed, or has become shorter: it counts for nobody.
    Unclear,
}

/// What one reader thread keeps.
struct Reader {
    random: Random,
    expected: Vec<u8>,
    unlike: Vec<u8>,
}

impl Reader {
    fn new(random: Random) -> Self {
        Reader { random, expected: Vec::with_capacity(BUFFER), unlike: Vec::with_capacity(BUFFER) }
    }

    /// Reads some part of the file through the buffer, and the same part the ordinary way.
    fn read<D: Device>(&mut self, buffer: &Buffer<D>, source: &Source) -> io::Result<Verdict> {
        let offset = self.random.below(source.length());
        let length = self.length();
        self.expected.resize(length, 0);
        let there = source.pread(&mut self.expected, offset)?;
        self.expected.truncate(there);
        self.unlike.clear();
        self.unlike.extend(self.expected.iter().map(|byte| !byte));
        if there == 0 {
            return Ok(Verdict::Unclear);
        }
        let delivery = buffer.deliver(source, offset, &self.expected, &self.unlike)?;
        match (delivery.length, delivery.right) {
            (0, _) => Ok(Verdict::Unclear),
            (_, true) => Ok(Verdict::Right),
            (_, false) => self.look_again(source, offset),
        }
    }

    /// Picks a length: each power of two up to the whole buffer is as likely to be its bound, so that
    /// most reads are short, as they are in life.
    fn length(&mut self) -> usize {
        let bound = BUFFER >> self.random.below(u64::from(BUFFER.ilog2()) + 1);
        1 + self.random.index(bound)
    }

    /// Tells a wrong read from a file that was written meanwhile.
    fn look_again(&mut self, source: &Source, offset: u64) -> io::Result<Verdict> {
        let again = &mut self.unlike;
        let there = source.pread(again, offset)?;
        Ok(if again[..there] == self.expected[..] { Verdict::Wrong } else { Verdict::Unclear })
    }
}

/// What ended a half before its time.
#[derive(Debug)]
pub(super) enum LoadError {
    Register(io::Error),
    Subscribe(InsertErrorKind),
    Read(PathBuf, io::Error),
    Change(io::Error),
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LoadError::Register(error) => write!(f, "cannot register a buffer: {error}"),
            LoadError::Subscribe(cause) => write!(f, "cannot subscribe to a buffer: {cause:?}"),
            LoadError::Read(path, error) => {
                write!(f, "cannot read {} through a buffer: {error}", Path::display(path))
            }
            LoadError::Change(error) => write!(f, "cannot change the mapping of a buffer: {error}"),
        }
    }
}

impl std::error::Error for LoadError {}
