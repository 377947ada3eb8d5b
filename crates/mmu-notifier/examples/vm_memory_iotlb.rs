//! For authors of virtual machine monitors and vhost-user backends: an IOTLB whose translations are never used
//! behind the reply to an unmap.
//!
//! The shapes are those of the crate `vm-memory`: guest memory in regions, and an IOMMU between the device and
//! it that maps I/O virtual addresses (IOVA) to guest physical ones (GPA) with permissions. The guest's driver
//! maps, protects and unmaps; worker threads of the device copy to and from IOVAs at the same time.
//!
//! The usual IOTLB behind a read lock loses the race between a translation that a worker has got and an unmap
//! that is answered meanwhile. Here the IOTLB is a [`Mirror`], and a worker *holds* the IOVAs that it copies:
//!
//! * [`Iommu::unmap`] returns when nobody uses the translation any more, and nobody can get it again;
//! * a protect to read-only takes the right to write away, and keeps the entry;
//! * [`Iommu::unplug`] does all mappings of a region in one batch, so that its memory can be taken away.
//!
//! While a page is unmapped the guest fills it with a number of its own. A worker that finds that number, or
//! overwrites it, has used memory that the guest had been told was its own again.
//!
//! ```sh
//! cargo run --release -p mmu-notifier --example vm_memory_iotlb
//! ```

use std::collections::BTreeMap;
use std::sync::RwLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use std::{fmt, thread};

use mmu_notifier::interval::Options;
use mmu_notifier::mirror::{Attempts, FaultError, InUse, Mirror, Table};
use mmu_notifier::{AddressSpace, Batch, Event, Invalidation, Permissions, Range};

const PAGE: u64 = 4096;
/// Eight-byte words of a page.
const WORDS: u64 = PAGE / 8;

/// A guest physical address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Gpa(u64);

/// An I/O virtual address: what the guest's driver gives to the device.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Iova(u64);

impl Iova {
    fn range(self, length: u64) -> Range {
        Range::from_len(self.0, length).expect("a mapping holds a page at least, far below the top")
    }
}

/// A piece of guest memory.
struct Region {
    start: Gpa,
    words: Vec<AtomicU64>,
}

/// All guest memory, as devices see it.
struct GuestMemory(Vec<Region>);

impl GuestMemory {
    fn new(regions: &[(Gpa, u64)]) -> Self {
        let region = |&(start, pages): &(Gpa, u64)| Region {
            start,
            words: (0..pages * WORDS).map(|_| AtomicU64::new(0)).collect(),
        };
        GuestMemory(regions.iter().map(region).collect())
    }

    /// The words of a page.
    fn page(&self, at: Gpa) -> &[AtomicU64] {
        let holds = |region: &&Region| (region.start..region.end()).contains(&at);
        let region = self.0.iter().find(holds).expect("the IOMMU maps nothing but guest memory");
        let first = ((at.0 - region.start.0) / 8) as usize;
        &region.words[first..first + WORDS as usize]
    }

    fn fill(&self, at: Gpa, value: u64) {
        self.page(at).iter().for_each(|word| word.store(value, Ordering::Relaxed));
    }
}

impl Region {
    fn end(&self) -> Gpa {
        Gpa(self.start.0 + self.words.len() as u64 * 8)
    }
}

/// What the device wants to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Access {
    Read,
    Write,
}

/// A translation of one page.
#[derive(Clone, Copy, Debug)]
struct Mapping {
    to: Gpa,
    writable: bool,
}

impl Mapping {
    fn permits(self, access: Access) -> bool {
        access == Access::Read || self.writable
    }
}

/// Why the device may not access an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    Unmapped(Iova),
    ReadOnly(Iova),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Unmapped(at) => write!(f, "nothing is mapped at {:#x}", at.0),
            Fault::ReadOnly(at) => write!(f, "{:#x} is mapped for reading only", at.0),
        }
    }
}

/// The emulated IOMMU: the primary MMU. Its table is what the guest wrote; its space is where changes of that
/// are announced.
struct Iommu {
    space: AddressSpace,
    table: RwLock<BTreeMap<Iova, Mapping>>,
}

impl Iommu {
    fn new() -> Self {
        let space = AddressSpace::builder().label("iova").build().expect("no memory for an address space");
        Iommu { space, table: RwLock::default() }
    }

    /// Maps a page where none is: nobody has a copy of that.
    fn map(&self, at: Iova, to: Gpa) {
        let old = self.table.write().unwrap().insert(at, Mapping { to, writable: true });
        assert!(old.is_none(), "the driver unmaps first");
    }

    /// Takes the right to write away.
    fn protect(&self, at: Iova) {
        let left = Permissions { read: true, write: false, execute: false };
        let what = Invalidation::new(at.range(PAGE), Event::ProtectionVma).with_permissions(left);
        self.space.invalidate(what, || {
            self.table.write().unwrap().entry(at).and_modify(|mapping| mapping.writable = false);
        });
    }

    /// Unmaps a page. When this returns, the guest is told that the memory is its own again.
    fn unmap(&self, at: Iova) -> Option<Mapping> {
        self.space.invalidate(at.range(PAGE), || self.table.write().unwrap().remove(&at))
    }

    /// Unmaps all that leads to a region, in one go: behind this its memory may be taken away.
    fn unplug(&self, region: &Region) -> usize {
        let inside = |mapping: &Mapping| (region.start..region.end()).contains(&mapping.to);
        let mut batch = Batch::new(&self.space);
        for (at, _) in self.table.read().unwrap().iter().filter(|(_, mapping)| inside(mapping)) {
            batch.push(at.range(PAGE)).expect("no memory for a batch");
        }
        let count = batch.len();
        let active = batch.start();
        self.table.write().unwrap().retain(|_, mapping| !inside(mapping));
        active.end();
        count
    }

    /// The walk: slow, and without any lock of the device's.
    fn walk(&self, pages: &[Iova], access: Access) -> Result<Vec<Mapping>, Fault> {
        let table = self.table.read().unwrap();
        let find = |&at: &Iova| match table.get(&at) {
            None => Err(Fault::Unmapped(at)),
            Some(mapping) if mapping.permits(access) => Ok(*mapping),
            Some(_) => Err(Fault::ReadOnly(at)),
        };
        pages.iter().map(find).collect()
    }
}

/// The device's copies of translations.
#[derive(Default)]
struct Entries(BTreeMap<Iova, Mapping>);

impl Table for Entries {
    fn invalidate(&mut self, what: &Invalidation) {
        let hit = |at: &Iova| at.range(PAGE).overlaps(what.range());
        if what.is_update_to_read_only() {
            let all = self.0.iter_mut().filter(|(at, _)| hit(at));
            all.for_each(|(_, mapping)| mapping.writable = false);
        } else {
            self.0.retain(|at, _| !hit(at));
        }
    }
}

impl Entries {
    /// All of these pages, or nothing.
    fn look_up(&self, pages: &[Iova], access: Access) -> Option<Vec<Mapping>> {
        let find = |at: &Iova| self.0.get(at).copied().filter(|mapping| mapping.permits(access));
        pages.iter().map(find).collect()
    }
}

/// A device with an IOTLB, and as many worker threads as like.
struct Device<'g> {
    iommu: &'g Iommu,
    memory: &'g GuestMemory,
    iotlb: Mirror<Entries>,
    walks: AtomicU64,
}

/// Translations that are in use: nobody unmaps them before this is dropped.
type InFlight<'d> = InUse<'d, Entries, Vec<Mapping>>;

impl<'g> Device<'g> {
    fn new(iommu: &'g Iommu, memory: &'g GuestMemory) -> Self {
        let options = Options::new().label("iotlb");
        let iotlb = Mirror::with_options(&iommu.space, Range::ALL, options, Entries::default());
        Device { iommu, memory, iotlb: iotlb.expect("the guest is running"), walks: AtomicU64::new(0) }
    }

    /// Translates pages that follow one another, for as long as the result is held.
    fn translate(&self, at: Iova, count: u64, access: Access) -> Result<InFlight<'_>, Fault> {
        let pages: Vec<Iova> = (0..count).map(|page| Iova(at.0 + page * PAGE)).collect();
        let range = at.range(count * PAGE);
        if let Some(hit) = self.iotlb.hold(range, |entries| entries.look_up(&pages, access)) {
            return Ok(hit);
        }
        let walk = |_| {
            self.walks.fetch_add(1, Ordering::Relaxed);
            self.iommu.walk(&pages, access)
        };
        let commit = |entries: &mut Entries, found: Vec<Mapping>| {
            entries.0.extend(pages.iter().copied().zip(found.iter().copied()));
            found
        };
        self.iotlb.fault_in_use(range, Attempts::UNBOUNDED, walk, commit).map_err(|error| match error {
            FaultError::Walk(fault) => fault,
            other => panic!("the guest is running, and there is memory: {other}"),
        })
    }

    /// Reads pages; returns what each is full of.
    fn read(&self, at: Iova, count: u64) -> Result<Vec<u64>, Fault> {
        let in_flight = self.translate(at, count, Access::Read)?;
        let read = |mapping: &Mapping| {
            let page = self.memory.page(mapping.to);
            let first = page[0].load(Ordering::Relaxed);
            let same = page.iter().all(|word| word.load(Ordering::Relaxed) == first);
            assert!(same, "the guest reused a page that the device was reading");
            first
        };
        Ok(in_flight.iter().map(read).collect())
    }

    /// Overwrites pages with what is there: the guest sees nothing of it, unless the page is its own by now.
    fn rewrite(&self, at: Iova, count: u64) -> Result<(), Fault> {
        let in_flight = self.translate(at, count, Access::Write)?;
        for mapping in in_flight.iter() {
            for word in self.memory.page(mapping.to) {
                word.store(word.load(Ordering::Relaxed), Ordering::Relaxed);
            }
        }
        Ok(())
    }
}

/// Permissions, and what one call does to the next.
fn step_by_step(memory: &GuestMemory) {
    let iommu = Iommu::new();
    let device = Device::new(&iommu, memory);
    let (at, next) = (Iova(0x8000_0000), Iova(0x8000_1000));
    assert_eq!(device.read(at, 1), Err(Fault::Unmapped(at)));
    iommu.map(at, Gpa(0));
    iommu.map(next, memory.0[1].start);
    assert_eq!(device.read(at, 2), Ok(vec![0, 0]), "one copy over two pages, and two regions");
    let walks = device.walks.load(Ordering::Relaxed);
    assert_eq!(device.rewrite(at, 2), Ok(()));
    iommu.protect(next);
    assert_eq!(device.read(at, 2), Ok(vec![0, 0]));
    assert_eq!(device.walks.load(Ordering::Relaxed), walks, "read-only: the entry stayed");
    assert_eq!(device.rewrite(at, 2), Err(Fault::ReadOnly(next)));
    println!("a write where it may not: {}", Fault::ReadOnly(next));

    // An unmap waits for the copy in flight.
    let unmapped = AtomicBool::new(false);
    thread::scope(|scope| {
        let in_flight = device.translate(at, 1, Access::Read).expect("it is mapped");
        scope.spawn(|| {
            iommu.unmap(at);
            unmapped.store(true, Ordering::SeqCst);
        });
        // Until the unmap has begun, a hit; then nobody gets at the page any more.
        while device.iotlb.hold(at.range(PAGE), |_| Some(())).is_some() {
            thread::yield_now();
        }
        assert!(!unmapped.load(Ordering::SeqCst), "not before the copy is done");
        drop(in_flight);
    });
    assert_eq!(device.read(at, 1), Err(Fault::Unmapped(at)));
    assert_eq!(iommu.unplug(&memory.0[1]), 1);
    assert_eq!(device.read(next, 1), Err(Fault::Unmapped(next)));
}

/// What the guest fills a page with while that is its own; pages that are mapped hold other numbers.
const GUEST: u64 = u64::MAX;
/// Slots of the driver's ring: a page of I/O virtual addresses each.
const SLOTS: u64 = 8;
/// How long it all runs.
const TIME: Duration = Duration::from_millis(400);

fn slot(index: u64) -> Iova {
    Iova(0x4000_0000 + index * PAGE)
}

/// The guest: its driver unmaps pages, uses them for itself, finds nothing of that overwritten, and maps them
/// again; some it protects. Returns how often.
fn guest(iommu: &Iommu, memory: &GuestMemory) -> u64 {
    // The first pages of both regions, in turns, so that one copy crosses from one to the other.
    let page = |index: u64| Gpa(memory.0[index as usize % 2].start.0 + index / 2 * PAGE);
    let (began, mut round) = (Instant::now(), 0);
    while began.elapsed() < TIME {
        round += 1;
        let index = round * 5 % SLOTS;
        iommu.unmap(slot(index));
        memory.fill(page(index), GUEST);
        let same = |word: &AtomicU64| word.load(Ordering::Relaxed) == GUEST;
        assert!(memory.page(page(index)).iter().all(same), "the device wrote to a page that was unmapped");
        memory.fill(page(index), round);
        iommu.map(slot(index), page(index));
        if round % 4 == 0 {
            iommu.protect(slot(index));
        }
        if round % 100 == 0 {
            // The second region is unplugged, and comes back with other contents.
            iommu.unplug(&memory.0[1]);
            (0..8).for_each(|page| memory.fill(Gpa(memory.0[1].start.0 + page * PAGE), GUEST));
        }
    }
    round
}

fn main() {
    let memory = GuestMemory::new(&[(Gpa(0), 8), (Gpa(0x1_0000_0000), 8)]);
    step_by_step(&memory);

    let iommu = Iommu::new();
    let device = Device::new(&iommu, &memory);
    let running = AtomicBool::new(true);
    let (copies, faults) = (AtomicU64::new(0), AtomicU64::new(0));
    let rounds = thread::scope(|scope| {
        for worker in 0..3 {
            let (device, running, copies, faults) = (&device, &running, &copies, &faults);
            scope.spawn(move || {
                for round in 0u64.. {
                    let (at, count) = (slot((round + worker) % (SLOTS - 1)), 1 + round % 2);
                    let result = match (round + worker) % 3 {
                        0 => device.rewrite(at, count),
                        _ => device.read(at, count).map(|found| assert!(!found.contains(&GUEST))),
                    };
                    let counter = if result.is_ok() { copies } else { faults };
                    counter.fetch_add(1, Ordering::Relaxed);
                    if !running.load(Ordering::Relaxed) {
                        break;
                    }
                }
            });
        }
        let rounds = scope.spawn(|| guest(&iommu, &memory)).join();
        running.store(false, Ordering::Relaxed);
        rounds.expect("the guest found its pages as it left them")
    });
    let walks = device.walks.load(Ordering::Relaxed);
    println!("{} copies by 3 workers, none of a page that the guest had back", copies.into_inner());
    println!(
        "{} faults, where nothing was mapped or a write not permitted; {walks} walks",
        faults.into_inner()
    );
    println!("{rounds} pages unmapped meanwhile: {:?}", iommu.space.stats());
}

#[cfg(test)]
#[test]
fn the_example_runs() {
    main();
}
