//! C3.11: a subscription's range changes, or one is put in the place of several, at one moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use mmu_notifier::interval::{Answer, Options, ReplaceErrorKind, Subscription};
use mmu_notifier::{AddressSpace, Invalidation};

use super::harness::{Gate, background, range, within};

type Counter = Arc<AtomicU64>;

fn counting(counter: &Counter) -> impl Fn(&Invalidation) -> Answer + Send + Sync + 'static {
    let counter = counter.clone();
    move |_| {
        counter.fetch_add(1, Ordering::Relaxed);
        Answer::Done
    }
}

fn count(counter: &Counter) -> u64 {
    counter.swap(0, Ordering::Relaxed)
}

#[test]
fn c3_11_after_a_resize_the_new_range_is_watched_and_the_old_one_is_not() {
    within(|| {
        let (space, calls) = (AddressSpace::new(), Counter::default());
        let small = space.insert(range(0x1000, 0x2000), counting(&calls)).unwrap();
        let token = small.read_begin();
        let large = small.resize(range(0x1800, 0x9000)).unwrap();
        assert_eq!(large.range(), range(0x1800, 0x9000));
        assert!(large.read_retry(token), "a token of the old range is stale");
        space.invalidate(range(0x1000, 0x1800), || {});
        assert_eq!(count(&calls), 0);
        space.invalidate(range(0x1000, 0x1801), || {});
        space.invalidate(range(0x8fff, 0x9000), || {});
        assert_eq!(count(&calls), 2);
        // Again, and back: the notifier is the same one all the time.
        let small = large.resize(range(0, 1)).unwrap().resize(range(0x1000, 0x2000)).unwrap();
        space.invalidate(range(0x1fff, 0x2000), || {});
        assert_eq!(count(&calls), 1);
        assert_eq!(space.stats().intervals, 1);
        small.remove();
        assert_eq!((space.stats().intervals, Arc::strong_count(&calls)), (0, 1), "the notifier was dropped");
    });
}

#[test]
fn c3_11_busy_is_carried_over() {
    within(|| {
        let (space, calls) = (AddressSpace::new(), Counter::default());
        let watch = space.insert(range(0x1000, 0x2000), counting(&calls)).unwrap();
        let both = space.invalidate_start_owned(range(0x1fff, 0x2000));
        let only_new = space.invalidate_start_owned(range(0x3000, 0x3001));
        let watch = watch.resize(range(0x1000, 0x4000)).unwrap();
        assert_eq!(count(&calls), 1, "who begins in the middle of an invalidation is not called for it");
        assert!(watch.try_read_begin().is_none());
        both.end();
        assert!(watch.try_read_begin().is_none(), "C3.3 for what is new");
        only_new.end();
        assert!(watch.try_read_begin().is_some());
    });
}

#[test]
fn c3_11_one_in_the_place_of_several() {
    within(|| {
        let (space, old, new) = (AddressSpace::new(), Counter::default(), Counter::default());
        let olds =
            (0..50).map(|n| space.insert(range(n * 16, n * 16 + 16), counting(&old)).unwrap()).collect();
        let whole =
            Subscription::replace(olds, &space, range(0, 800), Options::new().label("whole"), counting(&new));
        let whole = whole.unwrap();
        assert_eq!((space.stats().intervals, Arc::strong_count(&old)), (1, 1), "the old ones are gone");
        space.invalidate(range(5, 500), || {});
        assert_eq!((count(&old), count(&new)), (0, 1));
        whole.remove();
    });
}

#[test]
fn c3_11_what_cannot_be_replaced_stays_as_it_was() {
    within(|| {
        let (space, other, calls) = (AddressSpace::new(), AddressSpace::new(), Counter::default());
        let watch = space.insert(range(0, 16), counting(&calls)).unwrap();
        let failed =
            Subscription::replace(vec![watch], &other, range(0, 32), Options::new(), counting(&calls));
        let error = failed.map(drop).unwrap_err();
        assert_eq!(error.cause, ReplaceErrorKind::OtherSpace);
        let (mut olds, _notifier) = error.subscriptions;
        let watch = olds.pop().unwrap();
        space.invalidate(range(0, 1), || {});
        assert_eq!(count(&calls), 1, "it was not touched");
        drop(space);
        assert_eq!(count(&calls), 1, "the exit");
        let error = watch.resize(range(0, 64)).map(drop).unwrap_err();
        assert_eq!((error.cause, error.subscriptions.range()), (ReplaceErrorKind::Gone, range(0, 16)));
    });
}

#[test]
fn c3_11_within_a_callback_it_is_an_error_not_a_deadlock() {
    within(|| {
        let (space, calls) = (AddressSpace::new(), Counter::default());
        let watch = space.insert(range(0, 16), counting(&calls)).unwrap();
        let slot = Arc::new(std::sync::Mutex::new(Some(watch)));
        let taken = slot.clone();
        let seen = Arc::new(AtomicBool::new(false));
        let tell = seen.clone();
        let _resizer = space.insert(range(0, 16), move |_: &Invalidation| {
            let watch = taken.lock().unwrap().take();
            if let Some(watch) = watch {
                let error = watch.resize(range(0, 32)).map(drop).unwrap_err();
                tell.store(error.cause == ReplaceErrorKind::InCallback, Ordering::Relaxed);
                *taken.lock().unwrap() = Some(error.subscriptions);
            }
            Answer::Done
        });
        space.invalidate(range(0, 1), || {});
        assert!(seen.load(Ordering::Relaxed));
    });
}

#[test]
fn c3_11_a_resize_waits_for_a_callback_that_runs_and_is_called_by_none_twice() {
    within(|| {
        let (space, calls) = (AddressSpace::new(), Counter::default());
        let gate = Arc::new(Gate::default());
        let (door, counter) = (gate.clone(), calls.clone());
        let watch = space.insert(range(0, 16), move |_: &Invalidation| {
            counter.fetch_add(1, Ordering::Relaxed);
            door.pass();
            Answer::Done
        });
        let watch = watch.unwrap();
        gate.hold();
        let user = space.clone();
        let start = background(move || user.invalidate(range(0, 16), || {}));
        start.assert_waits("its callback is held");
        let resize = background(move || watch.resize(range(8, 32)).unwrap());
        resize.assert_waits("the old range's callback runs");
        gate.open();
        let watch = resize.join();
        start.join();
        assert_eq!(count(&calls), 1);
        space.invalidate(range(31, 32), || {});
        assert_eq!(count(&calls), 1);
        watch.remove();
    });
}

/// P7 across replacements: whoever invalidates an address that is watched before and after calls exactly once.
#[test]
fn c3_11_p7_each_start_calls_exactly_one_of_old_and_new() {
    within(|| {
        let (space, calls) = (AddressSpace::new(), Counter::default());
        let mut watch = space.insert(range(0, 4096), counting(&calls)).unwrap();
        let (stop, starts) = (Arc::new(AtomicBool::new(false)), Counter::default());
        let (user, over, heard, started) = (space.clone(), stop.clone(), calls.clone(), starts.clone());
        let invalidator = thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                let before = heard.load(Ordering::SeqCst);
                user.invalidate(range(2048, 2049), || {});
                assert_eq!(heard.load(Ordering::SeqCst), before + 1, "start {started:?}");
                started.fetch_add(1, Ordering::Relaxed);
            }
        });
        let mut step = 0u64;
        // Both have to have done something, however the machine shares its time out.
        while step < 20_000 || (starts.load(Ordering::Relaxed) < 1_000 && !invalidator.is_finished()) {
            watch = watch.resize(range(step % 7 * 100, 2049 + step % 11 * 100)).unwrap();
            step += 1;
        }
        stop.store(true, Ordering::Relaxed);
        invalidator.join().unwrap();
        watch.remove();
    });
}
