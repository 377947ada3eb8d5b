//! The safe layer (clause C6): mirrors, users in flight, deferred drops, under hostile timing.
//!
//! Each test runs under a watchdog that ends the process loudly. Findings are looked up by thread, so tests do
//! not see each other's.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Once, mpsc};
use std::thread::{self, ThreadId, scope, sleep};
use std::time::{Duration, Instant};

use mmu_notifier::diagnostics::{self, Rule};
use mmu_notifier::interval::Options;
use mmu_notifier::mirror::{Attempts, FaultError, Mirror, Table};
use mmu_notifier::{AddressSpace, Event, Invalidation, Owner, Range, StartError, list};

/// Ends the process if a test takes longer than any machine needs.
struct Watchdog(#[expect(dead_code, reason = "its drop is the message")] mpsc::Sender<()>);

impl Watchdog {
    fn new(test: &'static str) -> Self {
        let (sender, receiver) = mpsc::channel::<()>();
        thread::spawn(move || {
            if receiver.recv_timeout(Duration::from_secs(120)) == Err(mpsc::RecvTimeoutError::Timeout) {
                eprintln!("{test}: still waiting after two minutes");
                std::process::abort();
            }
        });
        Watchdog(sender)
    }
}

static LOG: Mutex<Vec<(ThreadId, Rule)>> = Mutex::new(Vec::new());

/// Keeps what is found from now on.
fn listen() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        diagnostics::set_hook(|report| LOG.lock().unwrap().push((thread::current().id(), report.rule)));
    });
}

/// The findings of a thread so far.
fn findings(thread: ThreadId) -> Vec<Rule> {
    LOG.lock().unwrap().iter().filter(|(id, _)| *id == thread).map(|(_, rule)| *rule).collect()
}

fn own_findings() -> Vec<Rule> {
    findings(thread::current().id())
}

/// Waits until `condition` holds; the watchdog bounds it.
fn until(condition: impl Fn() -> bool) {
    while !condition() {
        sleep(Duration::from_micros(200));
    }
}

fn panics<R>(f: impl FnOnce() -> R) -> bool {
    catch_unwind(AssertUnwindSafe(f)).is_err()
}

/// The part of a second that a call with a timeout is given.
const SOON: Duration = Duration::from_millis(10);

const PAGE: u64 = 0x1000;

fn page(number: u64) -> Range {
    Range::from_len(number * PAGE, PAGE).unwrap()
}

/// Page -> frame.
#[derive(Default)]
struct Tlb {
    entries: BTreeMap<u64, u64>,
    /// Pages whose invalidation panics.
    explosive: Option<u64>,
    cleared: u64,
}

impl Table for Tlb {
    fn invalidate(&mut self, what: &Invalidation) {
        let (first, last) = (what.range().start().get() / PAGE, what.range().last().get() / PAGE);
        if self.explosive.is_some_and(|page| (first..=last).contains(&page)) {
            self.explosive = None;
            panic!("the device does not answer");
        }
        self.entries.retain(|page, _| !(first..=last).contains(page));
    }

    fn clear(&mut self) {
        self.entries.clear();
        self.cleared += 1;
    }
}

fn tlb(space: &AddressSpace) -> Mirror<Tlb> {
    Mirror::new(space, Range::ALL, Tlb::default()).unwrap()
}

fn get(tlb: &Mirror<Tlb>, page: u64) -> Option<u64> {
    tlb.with(|tlb| tlb.entries.get(&page).copied())
}

/// Brings a page in.
fn bring(tlb: &Mirror<Tlb>, page: u64, frame: u64) -> Result<(), FaultError<()>> {
    tlb.fault(|_| Ok(frame), |tlb, frame| _ = tlb.entries.insert(page, frame))
}

/// Begins to use a page that is in the table.
fn hold<'m>(tlb: &'m Mirror<Tlb>, number: u64) -> Option<mmu_notifier::mirror::InUse<'m, Tlb, u64>> {
    tlb.hold(page(number), |tlb| tlb.entries.get(&number).copied())
}

#[test]
fn c6_1_a_walk_that_an_invalidation_hit_is_repeated() {
    let _watchdog = Watchdog::new("c6_1 repeated");
    let space = AddressSpace::new();
    let tlb = tlb(&space);
    let mut seen = Vec::new();
    let result = tlb.fault(
        |attempt| {
            assert!(!attempt.is_stale());
            if attempt.number() < 3 {
                space.invalidate(page(1), || ());
                assert!(attempt.is_stale());
            }
            seen.push(attempt.number());
            Ok::<_, ()>(u64::from(attempt.number()))
        },
        |tlb, frame| tlb.entries.insert(1, frame),
    );
    assert_eq!((result, seen, get(&tlb, 1)), (Ok(None), vec![1, 2, 3], Some(3)));
}

#[test]
fn c6_1_an_invalidation_drops_its_range_under_the_lock_and_nothing_else() {
    let space = AddressSpace::new();
    let tlb = tlb(&space);
    (0..4).for_each(|page| bring(&tlb, page, page).unwrap());
    space.invalidate(page(1), || assert_eq!(tlb.with(|tlb| tlb.entries.len()), 3));
    assert_eq!((get(&tlb, 0), get(&tlb, 1), get(&tlb, 2)), (Some(0), None, Some(2)));
}

#[test]
fn c6_1_walks_are_bounded_if_asked() {
    let space = AddressSpace::new();
    let tlb = tlb(&space);
    let walks = AtomicUsize::new(0);
    let twice = Attempts::at_most(NonZeroU32::new(2).unwrap());
    let hit = |_| {
        walks.fetch_add(1, Ordering::Relaxed);
        space.invalidate(page(1), || ());
        Ok::<_, ()>(7)
    };
    let result = tlb.fault_within(Range::ALL, twice, hit, |_, _: u64| panic!("nothing stale is committed"));
    assert_eq!((result, walks.load(Ordering::Relaxed)), (Err(FaultError::Contended), 2));
}

#[test]
fn c6_1_what_fails_in_the_walk_is_passed_on() {
    let space = AddressSpace::new();
    let tlb = tlb(&space);
    let result = tlb.fault(|_| Err::<u64, _>("not mapped"), |_, _| panic!("there is nothing to commit"));
    assert_eq!(result, Err(FaultError::Walk("not mapped")));
    assert_eq!(result.unwrap_err().to_string(), "not mapped");
}

#[test]
fn c6_1_after_the_exit_a_fault_says_gone() {
    let space = AddressSpace::new();
    let tlb = tlb(&space);
    bring(&tlb, 1, 7).unwrap();
    let mut space = Some(space);
    // The exit comes during the walk.
    let exit = |_| {
        drop(space.take());
        Ok::<_, ()>(())
    };
    let during = tlb.fault(exit, |_, ()| panic!("committed after the exit"));
    assert_eq!(during, Err(FaultError::Gone));
    assert_eq!(get(&tlb, 1), None, "the exit dropped what was there");
    let after = tlb.fault(|_| -> Result<(), ()> { panic!("walked after the exit") }, |_, ()| ());
    assert_eq!(after, Err(FaultError::Gone));
    assert!(tlb.hold(page(1), |tlb| tlb.entries.get(&1).copied()).is_none());
    let (holder, table) = (tlb.space().clone(), Tlb { cleared: 42, ..Tlb::default() });
    let refused = Mirror::new(&holder, Range::ALL, table).unwrap_err();
    assert_eq!(refused.notifier.cleared, 42, "the table comes back");
}

#[test]
fn c6_1_faults_race_with_the_exit_and_leave_nothing_behind() {
    let _watchdog = Watchdog::new("c6_1 exit race");
    for _ in 0..300 {
        let space = AddressSpace::new();
        let tlb = tlb(&space);
        scope(|scope| {
            scope.spawn(|| while bring(&tlb, 1, 7).is_ok() {});
            scope.spawn(|| drop(space));
        });
        assert_eq!(bring(&tlb, 1, 7), Err(FaultError::Gone));
        assert_eq!(get(&tlb, 1), None);
    }
}

#[test]
fn c6_1_with_a_timeout_a_forgotten_guard_holds_nobody_up() {
    let _watchdog = Watchdog::new("c6_1 timeout");
    let space = AddressSpace::new();
    let (tlb, other) = (tlb(&space), Mirror::new(&space, page(9), None).unwrap());
    std::mem::forget(space.invalidate_start(page(1)));
    let soon = Attempts::UNBOUNDED.within(SOON);
    let result =
        tlb.fault_within(Range::ALL, soon, |_| -> Result<(), ()> { panic!("walked while busy") }, |_, ()| ());
    assert_eq!(result, Err(FaultError::Contended));
    assert_eq!(
        other.fault_within(page(9), soon, |_| Ok::<_, ()>(1), |table, one| *table = Some(one)),
        Ok(())
    );
    // A lock that another thread keeps.
    let (locked, done) = (AtomicBool::new(false), AtomicBool::new(false));
    scope(|scope| {
        scope.spawn(|| {
            other.with(|_| {
                locked.store(true, Ordering::SeqCst);
                until(|| done.load(Ordering::SeqCst));
            });
        });
        until(|| locked.load(Ordering::SeqCst));
        let result = other.fault_within(page(9), soon, |_| Ok::<_, ()>(2), |table, two| *table = Some(two));
        assert_eq!(result, Err(FaultError::Contended));
        done.store(true, Ordering::SeqCst);
    });
    assert_eq!(other.with(|table| *table), Some(1));
    // Invalidations in each walk, until the time is up.
    let endless = |_| {
        space.invalidate(page(9), || ());
        Ok::<_, ()>(())
    };
    assert_eq!(other.fault_within(page(9), soon, endless, |_, ()| ()), Err(FaultError::Contended));
}

#[test]
fn c6_1_one_that_may_not_block_is_refused_while_the_lock_is_held() {
    let _watchdog = Watchdog::new("c6_1 refused");
    let space = AddressSpace::new();
    let tlb = tlb(&space);
    bring(&tlb, 1, 7).unwrap();
    let (locked, done) = (AtomicBool::new(false), AtomicBool::new(false));
    scope(|scope| {
        scope.spawn(|| {
            tlb.with(|_| {
                locked.store(true, Ordering::SeqCst);
                until(|| done.load(Ordering::SeqCst));
            });
        });
        until(|| locked.load(Ordering::SeqCst));
        assert_eq!(space.try_invalidate(page(1), || ()), Err(StartError::WouldBlock));
        done.store(true, Ordering::SeqCst);
    });
    assert_eq!(get(&tlb, 1), Some(7), "nothing was changed");
    assert_eq!(space.try_invalidate(page(1), || ()), Ok(()));
    assert_eq!(get(&tlb, 1), None);
}

#[test]
fn c6_1_readers_that_retry_do_not_starve_an_invalidation() {
    let _watchdog = Watchdog::new("c6_1 starvation");
    let space = AddressSpace::new();
    let tlb = tlb(&space);
    let over = AtomicBool::new(false);
    scope(|scope| {
        for number in 0..4 {
            let (tlb, over) = (&tlb, &over);
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    bring(tlb, number, number).unwrap();
                    // The lock is taken again at once, and held for long.
                    tlb.with(|_| sleep(Duration::from_micros(300)));
                }
            });
        }
        for _ in 0..200 {
            space.invalidate(page(1), || ());
        }
        over.store(true, Ordering::Relaxed);
    });
}

#[test]
fn c6_1_after_a_panic_under_the_lock_the_table_is_cleared_and_usable() {
    let space = AddressSpace::new();
    let tlb = tlb(&space);
    bring(&tlb, 1, 7).unwrap();
    assert!(panics(|| tlb.fault(
        |_| Ok::<_, ()>(8),
        |tlb, frame| {
            tlb.entries.insert(2, frame);
            panic!("half way");
        }
    )));
    assert_eq!(tlb.with(|tlb| (tlb.entries.len(), tlb.cleared)), (0, 1), "half-written is not served");
    bring(&tlb, 1, 7).unwrap();
    assert!(panics(|| tlb.with(|_| panic!("while reading"))));
    assert!(hold(&tlb, 1).is_none());
    assert_eq!(tlb.with(|tlb| tlb.cleared), 2);
    bring(&tlb, 1, 7).unwrap();
    assert!(panics(|| tlb.hold(page(1), |_| -> Option<()> { panic!("in a look-up") })));
    assert_eq!(space.try_invalidate(page(1), || ()), Ok(()), "neither lock nor use was left behind");
    assert!(panics(|| tlb.fault(|_| -> Result<(), ()> { panic!("in the walk") }, |_, ()| ())));
    assert_eq!(bring(&tlb, 1, 7), Ok(()));
    assert_eq!(tlb.with(|tlb| tlb.cleared), 3, "a walk has no lock to leave anything in doubt");
}

#[test]
fn c6_1_a_panic_in_invalidate_undoes_the_start() {
    let space = AddressSpace::new();
    let tlb = tlb(&space);
    bring(&tlb, 1, 7).unwrap();
    tlb.with_mut(|tlb| tlb.explosive = Some(1));
    let mut changed = false;
    assert!(panics(|| space.invalidate(page(1), || changed = true)));
    assert!(!changed);
    assert_eq!((space.stats().active, get(&tlb, 1)), (0, None));
    assert_eq!(bring(&tlb, 1, 8), Ok(()));
    space.invalidate(page(1), || ());
    assert_eq!(get(&tlb, 1), None);
}

/// One whose `clear` is the default.
struct Plain(Vec<Invalidation>);

impl Table for Plain {
    fn invalidate(&mut self, what: &Invalidation) {
        self.0.push(*what);
    }
}

#[test]
fn c6_1_a_clear_is_an_invalidation_of_everything_that_may_not_sleep() {
    let space = AddressSpace::new();
    let mirror = Mirror::new(&space, page(1), Plain(Vec::new())).unwrap();
    assert!(panics(|| mirror.with(|_| panic!("in doubt"))));
    let seen = mirror.with(|plain| plain.0.clone());
    assert_eq!(
        seen.iter().map(|what| (what.range(), what.is_blockable())).collect::<Vec<_>>(),
        [(Range::ALL, false)]
    );
}

#[test]
fn c6_1_a_closure_that_comes_back_is_diagnosed_and_does_not_deadlock() {
    let _watchdog = Watchdog::new("c6_1 re-entry");
    listen();
    let space = AddressSpace::new();
    let (tlb, other) = (tlb(&space), Mirror::new(&space, page(1), None::<u64>).unwrap());
    assert!(panics(|| tlb.with(|_| tlb.with(|_| ()))));
    assert!(panics(|| tlb.with(|_| bring(&tlb, 1, 1))));
    assert!(panics(|| tlb.with(|_| tlb.hold(page(1), |_| Some(())).is_some())));
    assert_eq!(own_findings(), [Rule::LockedTwice; 3]);
    // An invalidation that would wait for the lock of its own thread: undone, also for who was called before.
    assert!(panics(|| tlb.with(|_| space.invalidate(page(1), || panic!("changed")))));
    assert_eq!(own_findings(), [Rule::LockedTwice; 4]);
    assert_eq!(tlb.with(|_| space.try_invalidate(page(1), || ())), Err(StartError::WouldBlock));
    assert_eq!(own_findings().len(), 4, "a refusal that is allowed is no finding");
    assert_eq!(space.stats().active, 0);
    assert_eq!(bring(&tlb, 1, 1), Ok(()));
    // Other ranges may be invalidated under the lock.
    assert_eq!(other.with(|_| space.try_invalidate(page(3), || ())), Ok(()));
    other.with(|_| space.invalidate(page(3), || ()));
    assert_eq!(own_findings().len(), 4);
}

#[test]
fn c6_1_c9_what_waits_for_invalidations_under_a_mirrors_lock_is_diagnosed() {
    listen();
    let space = AddressSpace::new();
    let far = AddressSpace::new();
    let [low, high] = [page(1), page(2)].map(|range| Mirror::new(&space, range, None::<u64>).unwrap());
    let elsewhere = Mirror::new(&far, page(1), None::<u64>).unwrap();
    let fault = |mirror: &Mirror<_>| mirror.fault(|_| Ok::<_, ()>(1), |table, one| *table = Some(one));
    low.with(|_| fault(&elsewhere)).unwrap();
    assert_eq!(own_findings(), [], "the other space's invalidations do not need this lock");
    low.with(|_| fault(&high)).unwrap();
    let expected = if diagnostics::ENABLED { 3 } else { 0 };
    low.with(|_| drop(high));
    low.with(|_| drop(space.map_lock()));
    assert_eq!(own_findings(), vec![Rule::WaitUnderLock; expected]);
    drop(space.map_lock());
    assert_eq!(own_findings().len(), expected, "the lock is open again");
}

#[test]
fn c6_1_c3_12_its_own_invalidations_are_none_of_its_business() {
    let space = AddressSpace::new();
    let owner = Owner::new(7).unwrap();
    let mirror = Mirror::with_options(&space, page(1), Options::new().owner(owner), None).unwrap();
    let own = Invalidation::new(page(1), Event::Migrate).with_owner(owner);
    let result =
        mirror.fault(|_| Ok::<_, ()>(space.invalidate(own, || 5)), |table, five| *table = Some(five));
    assert_eq!((result, mirror.with(|table| *table)), (Ok(()), Some(5)));
    let _in_use = mirror.hold(page(1), |table| *table).unwrap();
    assert_eq!(space.try_invalidate(own, || ()), Ok(()));
    assert_eq!(space.try_invalidate(page(1), || ()), Err(StartError::WouldBlock));
}

/// Pages of a made-up primary MMU, each of which says what a translation of it must be.
struct Pages(Vec<AtomicU64>);

#[test]
fn c6_1_p1_what_is_in_the_table_is_what_the_primary_mmu_says() {
    let _watchdog = Watchdog::new("c6_1 p1");
    let space = AddressSpace::new();
    let tlb = tlb(&space);
    let pages = Pages((0..4).map(AtomicU64::new).collect());
    let over = AtomicBool::new(false);
    scope(|scope| {
        for reader in 0..2 {
            let (tlb, pages, over) = (&tlb, &pages, &over);
            scope.spawn(move || {
                let mut number = reader;
                while !over.load(Ordering::Relaxed) {
                    number = (number + 1) % 4;
                    let walk = |_| {
                        let frame = pages.0[number].load(Ordering::Relaxed);
                        thread::yield_now();
                        Ok::<_, ()>(frame)
                    };
                    let commit = |tlb: &mut Tlb, frame| tlb.entries.insert(number as u64, frame);
                    if reader == 0 {
                        tlb.fault(walk, commit).unwrap();
                    } else {
                        tlb.fault_within(page(number as u64), Attempts::UNBOUNDED, walk, commit).unwrap();
                    }
                    tlb.with(|tlb| {
                        for (&page, &frame) in &tlb.entries {
                            assert_eq!(frame, pages.0[page as usize].load(Ordering::Relaxed));
                        }
                    });
                }
            });
        }
        let changers: Vec<_> = (0..2u64)
            .map(|changer| {
                let (space, pages) = (&space, &pages);
                scope.spawn(move || {
                    for round in 0..3_000 {
                        let number = changer * 2 + round % 2;
                        let change = || pages.0[number as usize].store(round + 4, Ordering::Relaxed);
                        if round % 3 == 0 {
                            let _ = space.try_invalidate(page(number), change);
                        } else {
                            space.invalidate(page(number), change);
                        }
                    }
                })
            })
            .collect();
        let results: Vec<_> = changers.into_iter().map(|changer| changer.join()).collect();
        over.store(true, Ordering::Relaxed);
        results.into_iter().for_each(|result| result.unwrap());
    });
}

#[test]
fn c6_2_an_invalidation_waits_for_the_uses_of_its_range() {
    let _watchdog = Watchdog::new("c6_2 waits");
    let space = AddressSpace::new();
    let tlb = tlb(&space);
    (1..4).for_each(|page| bring(&tlb, page, 10 + page).unwrap());
    let (first, second) = (hold(&tlb, 1).unwrap(), hold(&tlb, 1).unwrap());
    assert_eq!((*first, first.range()), (11, page(1)));
    // Another range is not held up, whether it may block or not.
    space.invalidate(page(2), || ());
    assert_eq!(space.try_invalidate(page(2), || ()), Ok(()));
    assert_eq!(space.try_invalidate(page(1), || ()), Err(StartError::WouldBlock));
    assert_eq!(get(&tlb, 1), Some(11), "a refusal changes nothing");
    let changed = AtomicBool::new(false);
    scope(|scope| {
        scope.spawn(|| space.invalidate(page(1), || changed.store(true, Ordering::SeqCst)));
        // From its callback on no new use of that range begins; look-ups and uses of others go on.
        until(|| tlb.hold(page(1), |_| Some(())).is_none());
        assert_eq!(get(&tlb, 1), Some(11));
        assert_eq!(hold(&tlb, 3).as_deref(), Some(&13));
        drop(first);
        sleep(Duration::from_millis(10));
        assert!(!changed.load(Ordering::SeqCst), "one use is still in flight");
        drop(second);
    });
    assert!(changed.load(Ordering::SeqCst));
    assert_eq!(get(&tlb, 1), None);
}

#[test]
fn c6_2_no_use_begins_between_start_and_end() {
    let _watchdog = Watchdog::new("c6_2 begins");
    let space = AddressSpace::new();
    let tlb = tlb(&space);
    let active = space.invalidate_start(page(1));
    // Whatever the closure says.
    assert!(tlb.hold(page(1), |_| Some(())).is_none());
    assert!(tlb.hold(page(2), |_| Some(())).is_some());
    let once = Attempts::UNBOUNDED.within(Duration::ZERO);
    let result = tlb.fault_in_use(page(1), once, |_| Ok::<_, ()>(()), |_, ()| ());
    assert_eq!(result.unwrap_err(), FaultError::Contended);
    active.end();
    assert!(tlb.hold(page(1), |_| Some(())).is_some());
    // Also for one that was inserted while it is active.
    let active = space.invalidate_start(page(1));
    let late = Mirror::new(&space, Range::ALL, None::<u64>).unwrap();
    assert!(late.hold(page(1), |_| Some(())).is_none());
    active.end();
    assert!(late.hold(page(1), |_| Some(())).is_some());
}

#[test]
fn c6_2_a_device_may_use_several_pages_while_one_is_wanted_back() {
    let _watchdog = Watchdog::new("c6_2 several pages");
    listen();
    let space = AddressSpace::new();
    let tlb = tlb(&space);
    bring(&tlb, 1, 11).unwrap();
    let first = hold(&tlb, 1).unwrap();
    let bring_second = |attempts| tlb.fault_in_use(page(2), attempts, |_| Ok::<_, ()>(12), |_, frame| frame);
    scope(|scope| {
        scope.spawn(|| space.invalidate(page(1), || ()));
        until(|| space.stats().active == 1);
        // The invalidation of the first page waits for this thread, which brings in the second one.
        let second = bring_second(Attempts::UNBOUNDED.within(Duration::from_secs(60)));
        assert_eq!(second.as_deref(), Ok(&12));
        drop(first);
    });
    let first = tlb.hold(page(1), |_| Some(())).unwrap();
    scope(|scope| {
        scope.spawn(|| space.invalidate(Range::ALL, || ()));
        // From its callback on no use begins; before, one may, and would be waited for too.
        until(|| tlb.hold(page(1), |_| Some(())).is_none());
        // One that wants both back: who waits with a timeout gets away.
        assert_eq!(bring_second(Attempts::UNBOUNDED.within(SOON)).unwrap_err(), FaultError::Contended);
        drop(first);
    });
    assert_eq!(own_findings(), []);
    let _first = tlb.hold(page(1), |_| Some(())).unwrap();
    bring_second(Attempts::UNBOUNDED).map(drop).unwrap();
    let expected = if diagnostics::ENABLED { vec![Rule::FaultInUse] } else { vec![] };
    assert_eq!(own_findings(), expected);
}

#[test]
fn c6_1_a_fault_of_a_part_waits_for_that_part_only() {
    let _watchdog = Watchdog::new("c6_1 part");
    let space = AddressSpace::new();
    let tlb = tlb(&space);
    let active = space.invalidate_start(page(1));
    let soon = Attempts::UNBOUNDED.within(SOON);
    let part = |number| {
        let commit = |tlb: &mut Tlb, frame| _ = tlb.entries.insert(number, frame);
        tlb.fault_within(page(number), soon, |_| Ok::<_, ()>(number), commit)
    };
    assert_eq!(part(2), Ok(()));
    assert_eq!(part(1), Err(FaultError::Contended));
    active.end();
    assert_eq!((part(1), part(2)), (Ok(()), Ok(())));
}

#[test]
fn c6_2_a_forgotten_use_costs_its_range_only() {
    let _watchdog = Watchdog::new("c6_2 forgotten");
    let space = AddressSpace::new();
    let tlb = tlb(&space);
    std::mem::forget(tlb.hold(page(1), |_| Some(())).unwrap());
    assert_eq!(space.try_invalidate(page(1), || ()), Err(StartError::WouldBlock));
    space.invalidate(page(2), || ());
    assert_eq!(bring(&tlb, 1, 7), Ok(()), "readers are not held up");
    drop(tlb);
    space.invalidate(page(1), || ());
}

#[test]
fn c6_2_a_use_may_be_dropped_anywhere() {
    let _watchdog = Watchdog::new("c6_2 anywhere");
    let space = AddressSpace::new();
    let tlb = tlb(&space);
    let in_use = tlb.hold(page(1), |_| Some(())).unwrap();
    tlb.with(|_| drop(in_use));
    let in_use = tlb.hold(page(1), |_| Some(())).unwrap();
    scope(|scope| scope.spawn(move || drop(in_use)).join().unwrap());
    let in_use = tlb.hold(page(1), |_| Some(())).unwrap();
    assert!(panics(move || {
        let _in_use = in_use;
        panic!("the device panics");
    }));
    assert_eq!(space.try_invalidate(page(1), || ()), Ok(()));
}

#[test]
fn c6_2_a_range_outside_the_mirror_is_refused_loudly() {
    let space = AddressSpace::new();
    let mirror = Mirror::new(&space, page(1), None::<u64>).unwrap();
    assert!(panics(|| mirror.hold(Range::ALL, |_| Some(())).is_some()));
    let walk = |_| -> Result<(), ()> { panic!("walked for nothing") };
    let outside = || mirror.fault_in_use(page(2), Attempts::UNBOUNDED, walk, |_, ()| ()).is_ok();
    assert!(panics(outside));
    assert_eq!(mirror.with(|table| *table), None);
}

#[test]
fn c6_2_an_owned_use_keeps_the_mirror_subscribed() {
    let _watchdog = Watchdog::new("c6_2 owned");
    let space = AddressSpace::new();
    let tlb = Arc::new(tlb(&space));
    bring(&tlb, 1, 7).unwrap();
    let operation = hold(&tlb, 1).unwrap().into_owned(&tlb);
    assert_eq!((*operation, operation.range()), (7, page(1)));
    let stranger = Arc::new(Mirror::new(&space, page(1), None::<u64>).unwrap());
    let other = Arc::new(Mirror::new(&space, page(1), None::<u64>).unwrap());
    assert!(panics(|| stranger.hold(page(1), |_| Some(())).unwrap().into_owned(&other)));
    drop((stranger, other));
    drop(tlb);
    assert_eq!(space.try_invalidate(page(1), || ()), Err(StartError::WouldBlock));
    let changed = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&changed);
    let completion = thread::spawn(move || {
        sleep(Duration::from_millis(20));
        assert!(!seen.load(Ordering::SeqCst), "changed under the operation");
        drop(operation);
    });
    space.invalidate(page(1), || changed.store(true, Ordering::SeqCst));
    completion.join().unwrap();
    assert_eq!(space.stats().intervals, 0, "the last use let go of the mirror");
}

#[test]
fn c6_2_c9_waiting_for_an_own_use_is_diagnosed() {
    let _watchdog = Watchdog::new("c6_2 own");
    listen();
    let space = AddressSpace::new();
    let tlb = Arc::new(tlb(&space));
    let thread = thread::current().id();
    let in_use = tlb.hold(page(1), |_| Some(())).unwrap();
    assert_eq!(space.try_invalidate(page(1), || ()), Err(StartError::WouldBlock));
    assert_eq!(own_findings(), []);
    scope(|scope| {
        // It is not lost in the end: another thread drops it, once the finding is there.
        scope.spawn(move || {
            until(|| findings(thread) == [Rule::WaitForOwnUse]);
            drop(in_use);
        });
        space.invalidate(page(1), || ());
    });
    // An operation that another thread completes is meant to be waited for.
    let operation = tlb.hold(page(1), |_| Some(())).unwrap().into_owned(&tlb);
    let completion = thread::spawn(move || drop(operation));
    space.invalidate(page(1), || ());
    completion.join().unwrap();
    assert_eq!(own_findings(), [Rule::WaitForOwnUse]);
}

#[test]
fn c6_2_no_frame_is_freed_under_a_use() {
    let _watchdog = Watchdog::new("c6_2 frames");
    const FREED: u64 = u64::MAX;
    let space = AddressSpace::new();
    let tlb = tlb(&space);
    // Page n is backed by frame frames[n]; a frame that is freed says so.
    let frames: Vec<AtomicU64> = (0..10_000).map(AtomicU64::new).collect();
    let table: Vec<AtomicUsize> = (0..2).map(AtomicUsize::new).collect();
    let (over, uses) = (AtomicBool::new(false), AtomicUsize::new(0));
    scope(|scope| {
        for number in [0usize, 1, 0] {
            let (tlb, frames, table, over, uses) = (&tlb, &frames, &table, &over, &uses);
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    let range = page(number as u64);
                    let in_use = hold(tlb, number as u64).unwrap_or_else(|| {
                        let walk = |_| Ok::<_, ()>(table[number].load(Ordering::Relaxed) as u64);
                        tlb.fault_in_use(range, Attempts::UNBOUNDED, walk, |tlb, frame| {
                            tlb.entries.insert(number as u64, frame);
                            frame
                        })
                        .unwrap()
                    });
                    for _ in 0..20 {
                        let found = frames[*in_use as usize].load(Ordering::Relaxed);
                        assert_ne!(found, FREED, "freed under the use");
                        std::hint::spin_loop();
                    }
                    uses.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let changer = scope.spawn(|| {
            let mut next = 2;
            let deadline = Instant::now() + Duration::from_millis(1500);
            while next < frames.len() && Instant::now() < deadline {
                let number = next % 2;
                let change = || {
                    let old = table[number].swap(next, Ordering::Relaxed);
                    frames[old].store(FREED, Ordering::Relaxed);
                };
                if next % 5 != 0 {
                    space.invalidate(page(number as u64), change);
                    next += 1;
                } else if space.try_invalidate(page(number as u64), change).is_ok() {
                    next += 1;
                }
            }
        });
        let result = changer.join();
        over.store(true, Ordering::Relaxed);
        result.unwrap();
    });
    assert!(uses.load(Ordering::Relaxed) > 0);
}

/// What is dropped says so, with the number of invalidations that were active then.
struct Page {
    name: &'static str,
    space: mmu_notifier::AddressSpaceRef,
    log: Log,
    explodes: bool,
}

impl Drop for Page {
    fn drop(&mut self) {
        self.log.lock().unwrap().push((self.name, self.space.stats().active));
        if self.explodes {
            panic!("a destructor panics");
        }
    }
}

/// Says when an end came by.
struct Ends {
    log: Log,
    explodes: bool,
}

impl list::Notifier for Ends {
    fn invalidate_range_end(&self, _: &Invalidation) {
        self.log.lock().unwrap().push(("end", 0));
        assert!(!self.explodes, "an end panics");
    }
}

type Log = Arc<Mutex<Vec<(&'static str, u64)>>>;

fn deferring(explodes: bool) -> (AddressSpace, list::Registration<Ends>, Log) {
    let log = Log::default();
    let space = AddressSpace::new();
    space.register_nobody().unwrap();
    let ends = space.register(Ends { log: log.clone(), explodes }).unwrap();
    (space, ends, log)
}

fn dying(name: &'static str, space: &AddressSpace, log: &Log, explodes: bool) -> Page {
    Page { name, space: space.downgrade(), log: log.clone(), explodes }
}

#[test]
fn c6_3_what_is_deferred_is_dropped_after_the_end_in_order() {
    let (space, _ends, log) = deferring(false);
    let mut active = space.invalidate_start(page(1));
    for name in ["first", "second", "third"] {
        active.defer_drop(dying(name, &space, &log, false));
    }
    assert_eq!(*log.lock().unwrap(), []);
    active.end();
    assert_eq!(*log.lock().unwrap(), [("end", 0), ("first", 0), ("second", 0), ("third", 0)]);
    log.lock().unwrap().clear();
    let mut active = space.try_invalidate_start(page(1)).unwrap();
    active.defer_drop(dying("page", &space, &log, false));
    active.only_end();
    assert_eq!(*log.lock().unwrap(), [("end", 0), ("page", 0)]);
}

#[test]
fn c6_3_it_is_dropped_once_where_the_guard_goes() {
    let (space, _ends, log) = deferring(false);
    let mut active = space.invalidate_start(page(1));
    active.defer_drop(dying("before", &space, &log, false));
    let holder = space.downgrade();
    let mut owned = {
        let borrowed = holder.invalidate_start_owned(page(2));
        active.end();
        borrowed
    };
    log.lock().unwrap().clear();
    owned.defer_drop(dying("page", &space, &log, false));
    thread::spawn(move || drop(owned)).join().unwrap();
    assert_eq!(*log.lock().unwrap(), [("end", 0), ("page", 0)]);
}

#[test]
fn c6_3_a_panic_of_the_change_ends_then_drops() {
    let (space, _ends, log) = deferring(false);
    assert!(panics(|| {
        let mut active = space.invalidate_start(page(1));
        active.defer_drop(dying("page", &space, &log, false));
        panic!("in the middle of the change");
    }));
    assert_eq!(*log.lock().unwrap(), [("end", 0), ("page", 0)]);
}

#[test]
fn c6_3_a_panic_of_an_end_or_a_drop_does_not_keep_the_rest() {
    let (space, ends, log) = deferring(true);
    let mut active = space.invalidate_start(page(1));
    active.defer_drop(dying("page", &space, &log, false));
    assert!(panics(|| active.end()));
    assert_eq!(*log.lock().unwrap(), [("end", 0), ("page", 0)]);
    drop(ends);
    log.lock().unwrap().clear();
    let mut active = space.invalidate_start(page(1));
    active.defer_drop(dying("first", &space, &log, true));
    active.defer_drop(dying("second", &space, &log, false));
    assert!(panics(|| active.end()));
    assert_eq!(*log.lock().unwrap(), [("first", 0), ("second", 0)]);
    assert_eq!(space.stats().active, 0);
}

#[test]
fn c6_3_a_drop_may_invalidate_again() {
    let _watchdog = Watchdog::new("c6_3 again");
    /// A page table whose free invalidates what it mapped.
    struct PageTable(mmu_notifier::AddressSpaceRef);
    impl Drop for PageTable {
        fn drop(&mut self) {
            self.0.invalidate(page(1), || ());
        }
    }
    let space = AddressSpace::new();
    let tlb = tlb(&space);
    bring(&tlb, 1, 7).unwrap();
    let mut active = space.invalidate_start(page(2));
    active.defer_drop(PageTable(space.downgrade()));
    active.end();
    assert_eq!((get(&tlb, 1), space.stats().active), (None, 0));
}

#[test]
fn c6_3_a_forgotten_guard_keeps_what_it_was_given() {
    let (space, ends, log) = deferring(false);
    let mut active = space.invalidate_start(page(1));
    active.defer_drop(dying("page", &space, &log, false));
    std::mem::forget(active);
    drop(ends);
    assert_eq!(*log.lock().unwrap(), []);
}
