//! Random schedules of the whole subsystem under shuttle, through its public interface.
//!
//! Threads insert, resize, detach, remove, read, invalidate, register, unregister, get, put, synchronize and
//! exit, in an order that the schedule's random numbers choose; the subscribers check P1 to P8 of the contract.
//! Pages, batches and reserves are tiny here, so a few calls fill them; every other thread has no number.
//!
//! `SHUTTLE_ITERATIONS` sets how many schedules each test tries, `SHUTTLE_RANDOM_SEED` repeats a run whose seed
//! was printed; a failure also prints its schedule. Memory is sequentially consistent here: what a weaker one
//! may do is for the loom models beside the code.
#![cfg(shuttle)]

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64 as Observed, Ordering::Relaxed};
use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use mmu_notifier::interval::{Answer, Notifier, Sequence, Subscription};
use mmu_notifier::list::{self, WouldBlock};
use mmu_notifier::{Address, AddressSpace, AddressSpaceRef, Event, Invalidation, Owner, Pte, Range};
use shuttle::rand::{Rng, thread_rng};
use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::sync::Mutex;
use shuttle::sync::atomic::{AtomicU64, Ordering};
use shuttle::{Config, Runner, thread};

/// Pages of a space.
const PAGES: usize = 4;
/// Calls of a thread in one schedule.
const CALLS: usize = 5;

/// Runs `model` under random schedules, then under probabilistic ones with few changes of priority.
fn explore(name: &str, model: fn()) {
    // The frees of all spaces are in one list, so one schedule runs at a time.
    static ALONE: StdMutex<()> = StdMutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let iterations = number("SHUTTLE_ITERATIONS").unwrap_or(20_000) as usize;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_nanos() as u64);
    let seed = number("SHUTTLE_RANDOM_SEED").unwrap_or(now);
    println!("{name}: SHUTTLE_RANDOM_SEED={seed} SHUTTLE_ITERATIONS={iterations}");
    let mut config = Config::new();
    config.stack_size = 0x4_0000;
    // It says that memory is sequentially consistent here; so does the head.
    config.silence_warnings = true;
    Runner::new(RandomScheduler::new_from_seed(seed, iterations), config.clone()).run(model);
    for depth in 2..=4 {
        let scheduler = PctScheduler::new_from_seed(seed, depth, iterations / 4);
        Runner::new(scheduler, config.clone()).run(model);
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|value| value.parse().expect("a number"))
}

/// What the primary MMU maps, and how many changes of each page are between their start and their end.
struct Primary {
    space: AddressSpaceRef,
    pages: [AtomicU64; PAGES],
    changing: [AtomicI64; PAGES],
}

impl Primary {
    fn new(space: &AddressSpaceRef) -> Arc<Self> {
        Arc::new(Primary {
            space: space.clone(),
            pages: core::array::from_fn(|_| AtomicU64::new(0)),
            changing: Default::default(),
        })
    }

    /// Gives every page in the range a new content, unless the start is refused. `hears` must hear of it.
    fn change(&self, range: Range, id: u64, blockable: bool, hears: &[&Device]) {
        let what = Invalidation::new(range, Event::Clear).with_owner(Owner::new(id).expect("ids begin at 1"));
        let active = if blockable {
            self.space.invalidate_start(what)
        } else {
            let Ok(active) = self.space.try_invalidate_start(what) else { return };
            active
        };
        for device in hears.iter().filter(|device| device.range().overlaps(range)) {
            assert!(device.heard.lock().unwrap().contains(&id), "P7: inserted before, and not called");
        }
        for page in pages(range) {
            self.changing[page].fetch_add(1, Relaxed);
            self.pages[page].store(id, Ordering::Relaxed);
        }
        thread::yield_now();
        for device in hears {
            let entries = device.entries.lock().unwrap();
            assert!(pages(range).all(|page| entries[page].is_none()), "P1: committed between start and end");
        }
        for page in pages(range) {
            self.changing[page].fetch_sub(1, Relaxed);
        }
        active.end();
    }
}

fn pages(range: Range) -> impl Iterator<Item = usize> {
    range.start().get() as usize..=range.last().get() as usize
}

fn range(first: usize, last: usize) -> Range {
    Range::from_first_last(first, last).unwrap()
}

fn random_range(least: usize) -> Range {
    let first = thread_rng().gen_range(least..PAGES);
    range(first, thread_rng().gen_range(first..PAGES))
}

/// A number that no other change of the process has.
fn fresh_id() -> u64 {
    static IDS: Observed = Observed::new(1);
    IDS.fetch_add(1, Relaxed)
}

/// A secondary MMU: its translations, under its lock, and what it has heard.
struct Device {
    range: StdMutex<Range>,
    entries: Mutex<[Option<u64>; PAGES]>,
    heard: StdMutex<HashSet<u64>>,
    gone: AtomicBool,
    /// 1: refuses where it may; 2: has second passes.
    kind: u32,
    begun: AtomicI64,
}

impl Device {
    fn new(range: Range) -> Arc<Self> {
        Arc::new(Device {
            range: StdMutex::new(range),
            entries: Mutex::new([None; PAGES]),
            heard: StdMutex::default(),
            gone: AtomicBool::new(false),
            kind: thread_rng().gen_range(0..4),
            begun: AtomicI64::new(0),
        })
    }

    fn range(&self) -> Range {
        *self.range.lock().unwrap()
    }

    /// Reads every page of the range, and commits unless an invalidation hit meanwhile.
    fn fault(&self, subscription: &Subscription<Arc<Device>>, primary: &Primary) {
        let token = subscription.read_begin();
        let read: [u64; PAGES] = core::array::from_fn(|page| primary.pages[page].load(Ordering::Relaxed));
        let mut entries = self.entries.lock().unwrap();
        if subscription.read_retry(token) {
            return;
        }
        for page in pages(self.range()) {
            assert_eq!(primary.changing[page].load(Relaxed), 0, "P1: fresh between start and end");
            assert_eq!(primary.pages[page].load(Ordering::Relaxed), read[page], "P1: fresh, and stale");
            entries[page] = Some(read[page]);
        }
    }

    /// To be called when its remove has returned.
    fn is_over(&self) {
        self.gone.store(true, Relaxed);
        assert_eq!(self.begun.load(Relaxed), 0, "a second pass is missing");
    }
}

impl Notifier for Device {
    fn invalidate(&self, invalidation: &Invalidation, _: Sequence) -> Answer {
        assert!(!self.gone.load(Relaxed), "P2: called after its removal");
        if !invalidation.is_blockable() && self.kind == 1 {
            return Answer::Refused;
        }
        let mut entries = self.entries.lock().unwrap();
        assert!(!self.gone.load(Relaxed), "P2: removed while it was called");
        if invalidation.event() != Event::Release {
            pages(invalidation.range()).for_each(|page| entries[page] = None);
        }
        if let Some(owner) = invalidation.owner() {
            assert!(self.heard.lock().unwrap().insert(owner.get()), "called twice by one start");
        }
        if self.kind != 2 {
            return Answer::Done;
        }
        self.begun.fetch_add(1, Relaxed);
        Answer::Begun
    }

    fn finish(&self, _: &Invalidation) {
        assert!(!self.gone.load(Relaxed), "P2: finished after its removal");
        thread::yield_now();
        assert!(self.begun.fetch_sub(1, Relaxed) > 0, "finished and not begun");
    }
}

/// How many list subscribers were made and dropped.
#[derive(Default)]
struct Tally {
    made: AtomicI64,
    dropped: AtomicI64,
}

impl Tally {
    fn assert_all_dropped(&self) {
        assert_eq!(self.made.load(Relaxed), self.dropped.load(Relaxed), "P4: not freed once each");
    }
}

/// A subscriber to all of a space.
struct Listener {
    tally: Arc<Tally>,
    released: Arc<AtomicI64>,
    running: AtomicI64,
    /// The starts that await their end.
    heard: StdMutex<Vec<u64>>,
    refuses: bool,
}

impl Listener {
    fn new(tally: &Arc<Tally>) -> Self {
        tally.made.fetch_add(1, Relaxed);
        Listener {
            tally: tally.clone(),
            released: Arc::default(),
            running: AtomicI64::new(0),
            heard: StdMutex::default(),
            refuses: thread_rng().gen_bool(0.2),
        }
    }

    fn run<R>(&self, callback: impl FnOnce() -> R) -> R {
        self.running.fetch_add(1, Relaxed);
        thread::yield_now();
        let result = callback();
        self.running.fetch_sub(1, Relaxed);
        result
    }
}

impl list::Notifier for Listener {
    fn release(&self) {
        self.run(|| assert_eq!(self.released.fetch_add(1, Relaxed), 0, "P5: released twice"));
    }

    fn invalidate_range_start(&self, invalidation: &Invalidation) -> Result<(), WouldBlock> {
        self.run(|| {
            if self.refuses && !invalidation.is_blockable() {
                return Err(WouldBlock);
            }
            self.heard.lock().unwrap().extend(invalidation.owner().map(Owner::get));
            Ok(())
        })
    }

    fn invalidate_range_end(&self, invalidation: &Invalidation) {
        self.run(|| {
            let Some(owner) = invalidation.owner() else { return };
            let mut heard = self.heard.lock().unwrap();
            let start = heard.iter().position(|heard| *heard == owner.get());
            heard.remove(start.expect("C4.6: an end without its start"));
        });
    }

    fn invalidate_range(&self, _: Range) {
        self.run(|| ());
    }

    fn test_young(&self, _: Address) -> bool {
        self.run(|| false)
    }

    fn change_pte(&self, _: Address, _: Pte) {
        self.run(|| ());
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert_eq!(self.running.load(Relaxed), 0, "P4: freed while it was called");
        }
        self.tally.dropped.fetch_add(1, Relaxed);
    }
}

/// One thread: random calls of the interval side, on pages from `least` on.
fn use_intervals(primary: &Primary, least: usize) {
    let mut mine: Vec<Subscription<Arc<Device>>> = Vec::new();
    for _ in 0..CALLS {
        match thread_rng().gen_range(0..8) {
            0 | 1 => {
                let range = random_range(least);
                mine.extend(primary.space.insert(range, Device::new(range)).ok());
            }
            2 | 3 => {
                let hears: Vec<&Device> = mine.iter().map(|mine| &***mine).collect();
                primary.change(random_range(least), fresh_id(), thread_rng().gen_bool(0.7), &hears);
            }
            4 | 5 => mine.iter().for_each(|mine| mine.fault(mine, primary)),
            6 => match mine.pop() {
                Some(subscription) if thread_rng().gen_bool(0.5) => subscription.detach(),
                Some(subscription) => remove(subscription),
                None => {}
            },
            _ => {
                if let Some(subscription) = mine.pop() {
                    mine.push(resize(subscription, random_range(least)));
                }
            }
        }
    }
    mine.into_iter().for_each(remove);
}

fn remove(subscription: Subscription<Arc<Device>>) {
    let device = Arc::clone(&subscription);
    subscription.remove();
    device.is_over();
}

/// Resizes to the union of both ranges, so that what is watched stays watched.
fn resize(subscription: Subscription<Arc<Device>>, other: Range) -> Subscription<Arc<Device>> {
    let old = subscription.range();
    let (first, last) = (old.start().min(other.start()), old.last().max(other.last()));
    let union = Range::from_first_last(first, last).unwrap();
    match subscription.resize(union) {
        Ok(subscription) => {
            *subscription.range.lock().unwrap() = union;
            subscription
        }
        Err(error) => error.subscriptions,
    }
}

/// One thread: random calls of the list side; `key` is its own.
fn use_list(space: &AddressSpaceRef, tally: &Arc<Tally>, key: u64) {
    let own = Arc::<Tally>::default();
    for _ in 0..CALLS {
        match thread_rng().gen_range(0..6) {
            0 | 1 => {
                let Ok(registration) = space.register(Listener::new(tally)) else { continue };
                let released = registration.released.clone();
                space.change_pte(Address::ZERO, Pte(0));
                registration.unregister();
                assert_eq!(released.load(Relaxed), 1, "P5: not released when unregister returns");
            }
            2 => {
                // Everybody's.
                if let Ok(shared) = space.get(0, |_| Ok::<_, ()>(Listener::new(tally))) {
                    thread::yield_now();
                    shared.put();
                }
            }
            3 => {
                // This thread's own, so its put is the last one.
                let Ok(shared) = space.get(key, |_| Ok::<_, ()>(Listener::new(&own))) else { continue };
                shared.put();
                mmu_notifier::synchronize();
                own.assert_all_dropped();
            }
            4 => {
                let what = Invalidation::new(random_range(0), Event::Unmap);
                let what = what.with_owner(Owner::new(fresh_id()).unwrap());
                drop(space.try_invalidate_start(what));
            }
            _ => {
                space.test_young(Address::ZERO);
                space.invalidate_range(Range::ALL);
            }
        }
    }
}

fn join(threads: impl IntoIterator<Item = thread::JoinHandle<()>>) {
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

/// P1, P2, P3, P6 and P7 on the interval side.
#[test]
fn intervals() {
    explore("intervals", || {
        let space = AddressSpace::new();
        let primary = Primary::new(&space);
        let shared = Device::new(range(0, PAGES - 1));
        let subscription = Arc::new(space.insert(shared.range(), shared.clone()).unwrap());
        let mut threads = Vec::new();
        for _ in 0..2 {
            let primary = primary.clone();
            threads.push(thread::spawn(move || use_intervals(&primary, 0)));
        }
        let (reader, read) = (primary.clone(), subscription.clone());
        threads.push(thread::spawn(move || (0..3).for_each(|_| read.fault(&read, &reader))));
        for _ in 0..3 {
            primary.change(random_range(0), fresh_id(), true, &[&shared]);
        }
        join(threads);
        // Nobody is busy any more, and what is committed is what is mapped.
        assert!(subscription.try_read_begin().is_some(), "P3, P6: busy without an invalidation");
        let entries = shared.entries.lock().unwrap();
        for (entry, page) in entries.iter().zip(&primary.pages) {
            assert!(entry.is_none_or(|entry| entry == page.load(Ordering::Relaxed)), "P1");
        }
    });
}

/// P4 and P5, and starts paired with ends, on the list side.
#[test]
fn lists() {
    explore("lists", || {
        let tally = Arc::<Tally>::default();
        let space = AddressSpace::new();
        let threads: Vec<_> = (1..=3)
            .map(|key| {
                let (space, tally) = (space.downgrade(), tally.clone());
                thread::spawn(move || use_list(&space, &tally, key))
            })
            .collect();
        join(threads);
        mmu_notifier::synchronize();
        tally.assert_all_dropped();
    });
}

/// Both sides of two spaces, whose users go while others call.
#[test]
fn exits() {
    explore("exits", || {
        let tally = Arc::<Tally>::default();
        let spaces = [AddressSpace::new(), AddressSpace::new()];
        let registration = spaces[0].register(Listener::new(&tally)).unwrap();
        let released = registration.released.clone();
        let mut threads = Vec::new();
        for (key, space) in spaces.iter().enumerate() {
            let primary = Primary::new(space);
            threads.push(thread::spawn(move || use_intervals(&primary, 0)));
            let (space, tally) = (space.downgrade(), tally.clone());
            threads.push(thread::spawn(move || use_list(&space, &tally, key as u64 + 1)));
        }
        let first = spaces[0].downgrade();
        drop(spaces);
        assert_eq!(released.load(Relaxed), 1, "P5: not released when the exit is over");
        assert!(first.insert(range(0, 0), |_: &Invalidation| Answer::Done).is_err());
        join(threads);
        drop(registration);
        mmu_notifier::synchronize();
        tally.assert_all_dropped();
    });
}

/// A subscriber that calls the space out of its callback.
struct Caller {
    space: AddressSpaceRef,
    user: Mutex<Option<AddressSpace>>,
    itself: Arc<Mutex<Option<Subscription<Caller>>>>,
    running: AtomicI64,
}

impl Notifier for Caller {
    fn invalidate(&self, invalidation: &Invalidation, _: Sequence) -> Answer {
        if invalidation.event() == Event::Release {
            return Answer::Done;
        }
        self.running.fetch_add(1, Relaxed);
        self.space.invalidate(range(2, 2), thread::yield_now);
        match thread_rng().gen_range(0..3) {
            0 => drop(self.user.lock().unwrap().take()),
            1 => {
                let itself = self.itself.lock().unwrap().take();
                itself.into_iter().for_each(Subscription::detach);
            }
            _ => {}
        }
        self.running.fetch_sub(1, Relaxed);
        Answer::Done
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        assert_eq!(self.running.load(Relaxed), 0, "P2: dropped while it was called");
    }
}

/// What callbacks may do: start and end invalidations of other ranges, detach themselves, let the last user go.
#[test]
fn callbacks_that_call() {
    explore("callbacks_that_call", || {
        let space = AddressSpace::new();
        let holder = space.downgrade();
        let upper = holder.insert(range(2, 3), Device::new(range(2, 3))).unwrap();
        let itself = Arc::new(Mutex::new(None));
        let caller = Caller {
            space: holder.clone(),
            user: Mutex::new(Some(space)),
            itself: itself.clone(),
            running: AtomicI64::new(0),
        };
        *itself.lock().unwrap() = Some(holder.insert(range(0, 1), caller).unwrap());
        let threads = [1, 2].map(|_| {
            let holder = holder.clone();
            thread::spawn(move || {
                for _ in 0..2 {
                    holder.invalidate(random_range(0), thread::yield_now);
                }
            })
        });
        upper.read_begin();
        join(threads);
        let left = itself.lock().unwrap().take();
        drop(left);
        remove(upper);
    });
}

/// P8: page 0 is being invalidated all the time. Nobody who has to do with other pages waits for it, nor who
/// inserts and removes over it. A wait would be a deadlock.
#[test]
fn nobody_waits_for_what_does_not_overlap() {
    explore("nobody_waits_for_what_does_not_overlap", || {
        let space = AddressSpace::new();
        space.register_nobody().unwrap();
        let primary = Primary::new(&space);
        let zero = range(0, 0);
        let mut active = space.invalidate_start_owned(zero);
        let threads = [1, 2].map(|_| {
            let primary = primary.clone();
            thread::spawn(move || use_intervals(&primary, 1))
        });
        for _ in 0..2 {
            let subscription = space.insert(zero, Device::new(zero)).unwrap();
            assert!(subscription.try_read_begin().is_none(), "it is not busy");
            // The next one begins before this one ends.
            let next = space.invalidate_start_owned(zero);
            core::mem::replace(&mut active, next).end();
            remove(subscription);
        }
        join(threads);
        active.end();
    });
}
