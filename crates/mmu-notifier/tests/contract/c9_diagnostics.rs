//! C9: what is diagnosed, with the call, the subscriber and the rule; the program goes on.
//!
//! The hook is one for the whole process, so findings are told apart by their label or their call.

use std::sync::{Arc, Mutex, Once};

use mmu_notifier::diagnostics::{self, Report, Rule};
use mmu_notifier::interval::{Answer, Options, Subscription};
use mmu_notifier::{AddressSpace, AddressSpaceRef, Invalidation};

use super::harness::{lock, range, within};

static REPORTS: Mutex<Vec<Report>> = Mutex::new(Vec::new());

fn listen() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| diagnostics::set_hook(|report| lock(&REPORTS).push(*report)));
}

fn reported(rule: Rule, call: &str, subscriber: Option<&str>) -> bool {
    let found = |report: &Report| (report.rule, report.call, report.subscriber) == (rule, call, subscriber);
    lock(&REPORTS).iter().any(found)
}

#[test]
fn c9_a_refusal_of_what_may_block_is_diagnosed_and_taken_as_accepted() {
    within(|| {
        listen();
        let space = AddressSpace::new();
        let options = Options::new().label("stubborn");
        let refuses = |_: &Invalidation| Answer::Refused;
        let watch = space.insert_with(range(0, 16), options, refuses).unwrap();
        space.invalidate_start(range(0, 1)).end();
        assert!(reported(Rule::RefusedBlockable, "invalidate_start", Some("stubborn")));
        // A refusal that is allowed is counted, not diagnosed.
        assert!(space.try_invalidate_start(range(0, 1)).is_err());
        assert_eq!(space.stats().refusals, 1);
        drop(watch);
    });
}

#[test]
fn c9_sleeping_in_a_callback_that_may_not_is_diagnosed() {
    within(|| {
        listen();
        if !diagnostics::ENABLED {
            return;
        }
        let space = AddressSpace::new();
        let options = Options::new().label("sleepy");
        let other = space.insert_with(range(100, 101), options, |_: &Invalidation| Answer::Done).unwrap();
        let other = Arc::new(other);
        let read = other.clone();
        let _watch = space.insert(range(0, 16), move |_: &Invalidation| {
            read.read_begin();
            Answer::Done
        });
        space.try_invalidate_start(range(0, 1)).unwrap().end();
        assert!(reported(Rule::SleepInNonblockable, "read_begin", Some("sleepy")));
    });
}

#[test]
fn c9_the_map_lock_taken_in_a_callback_is_diagnosed() {
    within(|| {
        listen();
        if !diagnostics::ENABLED {
            return;
        }
        let space = AddressSpace::new();
        let holder: AddressSpaceRef = space.downgrade();
        let _watch = space.insert(range(0, 16), move |_: &Invalidation| {
            drop(holder.map_lock_shared());
            Answer::Done
        });
        space.invalidate(range(0, 1), || {});
        assert!(reported(Rule::MapLockInCallback, "map_lock_shared", None));
    });
}

#[test]
fn c9_a_locked_call_with_another_spaces_lock_is_diagnosed() {
    within(|| {
        listen();
        let (space, other) = (AddressSpace::new(), AddressSpace::new());
        let lock = other.map_lock();
        let watch = space.insert_locked(&lock, range(0, 1), Options::new(), |_: &Invalidation| Answer::Done);
        assert!(reported(Rule::NotLocked, "insert_locked", None));
        assert!(watch.is_ok(), "it goes on: the library's own books are safe all the same");
    });
}

#[test]
fn c7_1_c9_a_forgotten_guard_costs_the_readers_of_its_range_and_is_diagnosed() {
    within(|| {
        listen();
        let space = AddressSpace::builder().label("leaky").build().unwrap();
        let near = space.insert(range(0, 16), |_: &Invalidation| Answer::Done).unwrap();
        let far = space.insert(range(32, 48), |_: &Invalidation| Answer::Done).unwrap();
        std::mem::forget(space.invalidate_start(range(0, 1)));
        assert!(near.try_read_begin().is_none() && far.try_read_begin().is_some());
        Subscription::remove(near);
        drop(far);
        drop(space);
        assert!(reported(Rule::GuardLeaked, "drop of the last holder", Some("leaky")));
    });
}

#[test]
fn c9_a_report_reads_as_a_sentence() {
    within(|| {
        listen();
        let space = AddressSpace::new();
        let options = Options::new().label("worded");
        let refuses = |_: &Invalidation| Answer::Refused;
        let _watch = space.insert_with(range(0, 16), options, refuses).unwrap();
        space.invalidate(range(0, 1), || {});
        let reports = lock(&REPORTS);
        let report = reports.iter().find(|report| report.subscriber == Some("worded")).unwrap();
        let text =
            "invalidate_start (worded): a callback may refuse only where the invalidation is not blockable";
        assert_eq!(report.to_string(), text);
    });
}

#[test]
fn c9_a_reader_under_an_invalidation_of_its_own_thread_is_diagnosed() {
    within(|| {
        listen();
        if !diagnostics::ENABLED {
            return;
        }
        let space = AddressSpace::new();
        let options = Options::new().label("impatient");
        let watch = space.insert_with(range(0, 16), options, |_: &Invalidation| Answer::Done).unwrap();
        let active = space.invalidate_start(range(0, 1));
        // Without the bound it would wait for ever.
        assert!(watch.read_begin_timeout(std::time::Duration::from_millis(1)).is_none());
        active.end();
        let reports = lock(&REPORTS);
        let own = |report: &&Report| report.rule == Rule::WaitForOwnInvalidation;
        let report = reports.iter().find(|report| own(report) && report.subscriber == Some("impatient"));
        let origin = report.unwrap().origin.unwrap();
        assert!(origin.file().ends_with("c9_diagnostics.rs"), "it names where the start was: {origin}");
    });
}

#[test]
fn c9_a_start_behind_the_exit_is_diagnosed_and_served() {
    within(|| {
        listen();
        if !diagnostics::ENABLED {
            return;
        }
        let space = AddressSpace::new();
        let watch = space.insert(range(0, 16), |_: &Invalidation| Answer::Done).unwrap();
        let holder = space.downgrade();
        drop(space);
        let token = watch.read_begin();
        holder.invalidate(range(0, 1), || {});
        assert!(watch.read_retry(token));
        assert!(reported(Rule::StartAfterExit, "invalidate_start", None));
    });
}

#[test]
fn c9_synchronize_in_a_callback_is_diagnosed() {
    within(|| {
        listen();
        if !diagnostics::ENABLED {
            return;
        }
        let space = AddressSpace::new();
        let _watch = space.insert(range(0, 16), |_: &Invalidation| {
            // Nothing is pending here, so it returns; with a put of a listener that this walk is at, it would not.
            mmu_notifier::synchronize();
            Answer::Done
        });
        space.invalidate(range(0, 1), || {});
        assert!(reported(Rule::WaitInCallback, "synchronize", None));
    });
}

#[test]
fn c3_9_c9_a_callback_that_invalidates_its_own_range_is_diagnosed() {
    within(|| {
        listen();
        if !diagnostics::ENABLED {
            return;
        }
        let space = AddressSpace::new();
        let holder = space.downgrade();
        let nested = std::sync::atomic::AtomicBool::new(false);
        let _watch = space.insert(range(0, 16), move |_: &Invalidation| {
            // It goes on: the subscriber that holds no lock is called once more.
            if !nested.swap(true, std::sync::atomic::Ordering::Relaxed) {
                holder.invalidate(range(8, 9), || {});
            }
            Answer::Done
        });
        space.invalidate(range(8, 16), || {});
        assert!(reported(Rule::StartInOwnRange, "invalidate_start", None));
        assert_eq!(space.stats().hits, 2);
    });
}
