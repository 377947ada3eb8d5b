//! The kernel in miniature: it owns a page table, and a TLB keeps copies of some entries.
//!
//! The TLB is filled by [`Mmu::touch`], the fault handler, with collision-retry. The kernel unmaps, moves and
//! protects pages between the start and the end of an invalidation. A second device hears of everything, on the
//! list, until the address space exits. Everything that is claimed is asserted.

use alloc::sync::Arc;
use core::fmt;
use core::sync::atomic::{AtomicU32, Ordering};

use mmu_notifier::interval::{Answer, Notifier, Sequence, Subscription};
use mmu_notifier::list::{self, WouldBlock};
use mmu_notifier::mirror::{Attempts, Mirror};
use mmu_notifier::{Address, AddressSpace, Event, Invalidation, Range, StartError, diagnostics, synchronize};

use crate::lock::Lock;

const PAGE: u64 = 4096;
const PAGES: usize = 16;

/// The number of a page in the space.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Page(usize);

impl Page {
    fn range(self) -> Range {
        Range::from_len(Address::new(self.0 as u64 * PAGE), PAGE).expect("a page is not empty")
    }
}

/// The number of a frame of memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Frame(u32);

/// One frame a page, or none.
type Table = [Option<Frame>; PAGES];

/// The TLB: copies of entries of the page table.
struct Tlb {
    entries: Lock<Table>,
    flushes: AtomicU32,
}

impl Notifier for Tlb {
    fn invalidate(&self, what: &Invalidation, _seq: Sequence) -> Answer {
        // ORDERING: a plain count.
        self.flushes.fetch_add(1, Ordering::Relaxed);
        for (page, entry) in self.entries.lock().iter_mut().enumerate() {
            if Page(page).range().overlaps(what.range()) {
                *entry = None;
            }
        }
        Answer::Done
    }
}

/// A device that hears of everything, and will not be disturbed while it is at work.
#[derive(Default)]
struct Watcher {
    busy: AtomicU32,
    open: AtomicU32,
    heard: AtomicU32,
    released: AtomicU32,
}

impl list::Notifier for Watcher {
    fn release(&self) {
        self.released.fetch_add(1, Ordering::Relaxed);
    }

    fn invalidate_range_start(&self, what: &Invalidation) -> Result<(), WouldBlock> {
        if !what.is_blockable() && self.busy.load(Ordering::Relaxed) != 0 {
            return Err(WouldBlock);
        }
        self.open.fetch_add(1, Ordering::Relaxed);
        self.heard.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn invalidate_range_end(&self, _: &Invalidation) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The primary MMU and the TLB beside it.
struct Mmu {
    space: AddressSpace,
    table: Lock<Table>,
    tlb: Subscription<Tlb>,
    faults: AtomicU32,
}

impl Mmu {
    fn new() -> Self {
        let space = AddressSpace::builder().label("kernel").build().expect("the heap is empty yet");
        let whole = Range::from_len(Address::ZERO, PAGES as u64 * PAGE).expect("there are pages");
        let tlb = Tlb { entries: Lock::new([None; PAGES]), flushes: AtomicU32::new(0) };
        let tlb = space.insert(whole, tlb).expect("the space is new");
        Mmu { space, table: Lock::new([None; PAGES]), tlb, faults: AtomicU32::new(0) }
    }

    /// What a load or store does: finds the frame in the TLB, or faults it in.
    fn touch(&self, page: Page) -> Option<Frame> {
        let cached = self.tlb.entries.lock()[page.0];
        cached.or_else(|| self.fault(page))
    }

    fn fault(&self, page: Page) -> Option<Frame> {
        self.faults.fetch_add(1, Ordering::Relaxed);
        loop {
            let token = self.tlb.read_begin();
            let frame = self.table.lock()[page.0]?;
            let mut entries = self.tlb.entries.lock();
            if !self.tlb.read_retry(token) {
                entries[page.0] = Some(frame);
                return Some(frame);
            }
        }
    }

    /// Maps a page where none is: there are no copies of nothing.
    fn map(&self, page: Page, frame: Frame) {
        self.table.lock()[page.0] = Some(frame);
    }

    fn unmap(&self, page: Page) -> Option<Frame> {
        self.space.invalidate(page.range(), || self.table.lock()[page.0].take())
    }

    /// Puts another frame beneath a page, if everybody agrees at once.
    fn try_move(&self, page: Page, to: Frame) -> Result<(), StartError> {
        let what = Invalidation::new(page.range(), Event::Clear);
        self.space.try_invalidate(what, || self.table.lock()[page.0] = Some(to))
    }
}

/// What the program did, all of it checked.
#[derive(Clone, Copy)]
pub(crate) struct Report {
    faults: u32,
    flushes: u32,
    heard: u32,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { faults, flushes, heard } = self;
        write!(f, "{faults} faults, {flushes} TLB flushes, {heard} invalidations heard by the other device")
    }
}

/// Runs the kernel until its address space has exited.
pub(crate) fn run() -> Report {
    let findings = diagnostics::findings();
    let mmu = Mmu::new();
    let watcher = Arc::new(Watcher::default());
    let registration = mmu.space.register(watcher.clone()).expect("there is memory for one");

    translations_follow_the_page_table(&mmu);
    a_refusal_leaves_everything_as_it_was(&mmu, &watcher);
    a_reader_sees_that_it_would_wait(&mmu);
    a_use_in_flight_is_not_disturbed(&mmu);
    the_shared_notifier_is_freed(&mmu);

    let report = Report {
        faults: mmu.faults.load(Ordering::Relaxed),
        flushes: mmu.tlb.flushes.load(Ordering::Relaxed),
        heard: watcher.heard.load(Ordering::Relaxed),
    };
    assert_eq!(watcher.open.load(Ordering::Relaxed), 0, "each start had its end");

    // The exit drops every translation and releases who is on the list; both outlive the last user.
    let Mmu { space, tlb, .. } = mmu;
    drop(space);
    assert!(tlb.entries.lock().iter().all(Option::is_none));
    assert_eq!(watcher.released.load(Ordering::Relaxed), 1);
    assert!(tlb.space().upgrade().is_none());
    tlb.remove();
    registration.unregister();
    assert_eq!(watcher.released.load(Ordering::Relaxed), 1, "released once, by the exit");
    assert_eq!(diagnostics::findings(), findings, "nothing was diagnosed");
    report
}

fn translations_follow_the_page_table(mmu: &Mmu) {
    for page in 0..PAGES {
        mmu.map(Page(page), Frame(100 + page as u32));
    }
    for page in 0..PAGES {
        assert_eq!(mmu.touch(Page(page)), Some(Frame(100 + page as u32)));
    }
    assert_eq!(mmu.unmap(Page(3)), Some(Frame(103)));
    assert_eq!(mmu.touch(Page(3)), None, "the copy went before the page");
    assert_eq!(mmu.tlb.entries.lock()[4], Some(Frame(104)), "its neighbour stayed");
    mmu.map(Page(3), Frame(200));
    assert_eq!(mmu.touch(Page(3)), Some(Frame(200)));
}

fn a_refusal_leaves_everything_as_it_was(mmu: &Mmu, watcher: &Watcher) {
    watcher.busy.store(1, Ordering::Relaxed);
    assert_eq!(mmu.try_move(Page(5), Frame(300)), Err(StartError::WouldBlock));
    assert_eq!(mmu.touch(Page(5)), Some(Frame(105)), "the page was not moved");
    watcher.busy.store(0, Ordering::Relaxed);
    assert_eq!(mmu.try_move(Page(5), Frame(300)), Ok(()));
    assert_eq!(mmu.touch(Page(5)), Some(Frame(300)));
}

fn a_reader_sees_that_it_would_wait(mmu: &Mmu) {
    let token = mmu.tlb.try_read_begin().expect("nothing is being invalidated");
    let active = mmu.space.invalidate_start(Page(7).range());
    assert!(mmu.tlb.read_retry(token), "what was read before is stale");
    assert!(mmu.tlb.try_read_begin().is_none(), "busy until the end");
    active.end();
    assert!(mmu.tlb.try_read_begin().is_some());
}

/// A device that uses a translation for longer than a lock is held: its table is a mirror.
fn a_use_in_flight_is_not_disturbed(mmu: &Mmu) {
    let (page, range) = (Page(8), Page(8).range());
    let mirror = Mirror::new(&mmu.space, range, None).expect("there is memory for one");
    let walk = |_| mmu.table.lock()[page.0].ok_or(());
    let commit = |entry: &mut Option<Frame>, frame| *entry.insert(frame);
    let in_use = mirror.fault_in_use(range, Attempts::UNBOUNDED, walk, commit).expect("the page is mapped");
    assert_eq!(*in_use, Frame(108));
    assert_eq!(mmu.try_move(page, Frame(400)), Err(StartError::WouldBlock));
    drop(in_use);
    assert_eq!(mmu.try_move(page, Frame(400)), Ok(()));
    assert!(mirror.hold(range, |entry| *entry).is_none(), "what it knew is gone");
}

/// Counts its own drops.
struct Counted(Arc<AtomicU32>);

impl list::Notifier for Counted {}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn the_shared_notifier_is_freed(mmu: &Mmu) {
    let drops = Arc::new(AtomicU32::new(0));
    let make = |_: &_| Ok::<_, core::convert::Infallible>(Counted(drops.clone()));
    let first = mmu.space.get(1, make).expect("there is memory for one");
    let second = mmu.space.get(1, make).expect("it is there already");
    first.put();
    mmu.space.invalidate(Page(0).range(), || ());
    assert_eq!(drops.load(Ordering::Relaxed), 0, "still shared");
    second.put();
    synchronize();
    assert_eq!(drops.load(Ordering::Relaxed), 1);
}
