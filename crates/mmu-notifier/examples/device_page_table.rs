//! For authors of user-space drivers: a device with a page table of its own, fed from several threads while the
//! owner of the memory moves pages.
//!
//! [`Owner`] is the primary MMU. It keeps pages in frames, moves one to another frame now and then, and frees the
//! old frame at once: behind the end of the invalidation nobody looks at it. [`Device`] is the secondary MMU,
//! with collision-retry written out: take a token, read the owner's table without any lock of the device's,
//! then commit under the lock that `invalidate` takes, unless the token is stale.
//!
//! (Most devices are better served by a [`Mirror`](mmu_notifier::mirror::Mirror), which is this, ready-made.
//! Written out it fits drivers that have a lock and a table already.)
//!
//! Every frame says which page it holds. A device thread that finds another page in a frame, or a free one, has
//! used a stale translation.
//!
//! ```sh
//! cargo run --release -p mmu-notifier --example device_page_table
//! ```

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use mmu_notifier::interval::{Answer, Notifier, Options, Sequence, Subscription};
use mmu_notifier::{AddressSpace, Event, Invalidation, Range, StartError};

const PAGE: u64 = 4096;
const PAGES: u64 = 64;
/// How long it all runs.
const TIME: Duration = Duration::from_millis(400);
/// What a frame holds that belongs to no page.
const FREE: u64 = u64::MAX;

/// The number of a page in the address space.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Page(u64);

impl Page {
    fn range(self) -> Range {
        Range::from_len(self.0 * PAGE, PAGE).expect("pages lie far below the top")
    }
}

/// A frame of memory; what counts here is only which page it holds.
type Frame = Arc<AtomicU64>;

/// Who owns the address space, and moves its pages.
struct Owner {
    space: AddressSpace,
    table: Mutex<BTreeMap<Page, Frame>>,
}

impl Owner {
    fn new() -> Self {
        let frame = |page| (Page(page), Frame::new(page.into()));
        Owner { space: AddressSpace::new(), table: Mutex::new((0..PAGES).map(frame).collect()) }
    }

    /// Walks the page table.
    fn walk(&self, page: Page) -> Frame {
        self.table.lock().unwrap()[&page].clone()
    }

    /// Copies the page to a new frame, and frees the old one.
    fn change(&self, page: Page) {
        let old = self.table.lock().unwrap().insert(page, Frame::new(page.0.into()));
        old.expect("every page has a frame").store(FREE, Ordering::Relaxed);
    }

    fn move_page(&self, page: Page) {
        self.space.invalidate(Invalidation::new(page.range(), Event::Clear), || self.change(page));
    }

    /// The same for who holds a spinlock: refused if a device would have to sleep.
    fn try_move_page(&self, page: Page) -> Result<(), StartError> {
        self.space.try_invalidate(Invalidation::new(page.range(), Event::Clear), || self.change(page))
    }
}

/// The device's page table. It is used under its lock, so that an invalidation waits for accesses under way.
#[derive(Default)]
struct Device {
    table: Mutex<BTreeMap<Page, Frame>>,
    stale_tokens: AtomicU64,
}

impl Notifier for Device {
    fn invalidate(&self, what: &Invalidation, _: Sequence) -> Answer {
        let mut table = match self.table.try_lock() {
            Ok(table) => table,
            Err(_) if !what.is_blockable() => return Answer::Refused,
            Err(_) => self.table.lock().unwrap(),
        };
        table.retain(|page, _| !page.range().overlaps(what.range()));
        Answer::Done
    }
}

/// One access by the device: returns what it found in the frame.
fn access(device: &Subscription<Device>, owner: &Owner, page: Page) -> u64 {
    loop {
        if let Some(frame) = device.table.lock().unwrap().get(&page) {
            return frame.load(Ordering::Relaxed); // the access itself, still under the lock
        }
        let token = device.read_begin(); // sleeps while a page of the device's range is being moved
        let frame = owner.walk(page); // the slow part, with no lock of the device's
        let mut table = device.table.lock().unwrap();
        if !device.read_retry(token) {
            table.insert(page, frame);
        } else {
            device.stale_tokens.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// What collision-retry is for, step by step.
fn what_was_read_before_is_not_committed() {
    let (owner, page) = (Owner::new(), Page(5));
    let device = owner.space.insert(Range::ALL, Device::default()).expect("the space is in use");
    let token = device.read_begin();
    let frame = owner.walk(page);
    assert!(!device.read_retry(token), "nothing has happened yet");
    owner.move_page(page);
    assert_eq!(frame.load(Ordering::Relaxed), FREE, "who commits this now works on freed memory");
    assert!(device.read_retry(token), "and is told so");
    assert_eq!(access(&device, &owner, page), page.0);
    assert_eq!(device.table.lock().unwrap().len(), 1);

    // While the device is at work, a move that may not sleep is refused, and nothing has changed.
    let at_work = device.table.lock().unwrap();
    assert_eq!(owner.try_move_page(page), Err(StartError::WouldBlock));
    assert_eq!(at_work[&page].load(Ordering::Relaxed), page.0);
}

fn main() {
    what_was_read_before_is_not_committed();

    let owner = Owner::new();
    // One subscription for each half of the memory: a move in one holds nobody up in the other.
    let devices = ["device, lower half", "device, upper half"].map(|label| {
        let first = if label.contains("upper") { PAGES / 2 } else { 0 };
        let range = Range::from_len(first * PAGE, PAGES / 2 * PAGE).expect("it is not empty");
        let options = Options::new().label(label);
        owner.space.insert_with(range, options, Device::default()).expect("the space is in use")
    });
    let (done, accesses) = (AtomicBool::new(false), AtomicU64::new(0));
    let (mut moved, mut refused) = (0, 0);
    thread::scope(|scope| {
        for worker in 0..4 {
            let (owner, devices, done, accesses) = (&owner, &devices, &done, &accesses);
            scope.spawn(move || {
                for round in 0.. {
                    let page = Page((round * 7 + worker * 13) % PAGES);
                    let device = devices.iter().find(|device| device.range().covers(page.range()));
                    let found = access(device.expect("the halves are all there is"), owner, page);
                    assert_eq!(found, page.0, "a stale translation was used");
                    accesses.fetch_add(1, Ordering::Relaxed);
                    if done.load(Ordering::Relaxed) {
                        break;
                    }
                }
            });
        }
        let began = Instant::now();
        for round in (0..).take_while(|_| began.elapsed() < TIME) {
            let page = Page(round * 11 % PAGES);
            if round % 2 == 0 {
                owner.move_page(page);
                moved += 1;
            } else {
                match owner.try_move_page(page) {
                    Ok(()) => moved += 1,
                    Err(_) => refused += 1,
                }
            }
        }
        done.store(true, Ordering::Relaxed);
    });

    let stale: u64 = devices.iter().map(|device| device.stale_tokens.load(Ordering::Relaxed)).sum();
    let accesses = accesses.into_inner();
    println!("{accesses} accesses by 4 threads of the device, each to the frame that held the page");
    println!("{moved} pages moved meanwhile; {refused} moves refused, as they might not wait");
    println!("{stale} translations were thrown away because a page moved while they were read");
    println!("{:?}", owner.space.stats());
}

#[cfg(test)]
#[test]
fn the_example_runs() {
    main();
}
