//! What once went wrong: a test for each mended bug, named after it.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use mmu_notifier::interval::{Answer, Notifier, Options, ReadToken, Sequence, Subscription};
use mmu_notifier::{AddressSpace, AddressSpaceRef, Batch, Invalidation, Range, list, synchronize};

use super::harness::{Gate, Recorder, background, lock, range, within};
use super::probe::{Listed, Probe, insert, register, slot, take};

fn panics<R>(call: impl FnOnce() -> R) -> bool {
    catch_unwind(AssertUnwindSafe(call)).is_err()
}

/// Counts its drop, and panics in it.
struct Unruly(Arc<AtomicU64>);

impl Notifier for Unruly {
    fn invalidate(&self, _: &Invalidation, _: Sequence) -> Answer {
        Answer::Done
    }
}

impl Drop for Unruly {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
        panic!("a drop that panics");
    }
}

#[test]
fn a_replaced_notifier_whose_drop_panics_had_the_others_removed_twice() {
    within(|| {
        let (space, drops) = (AddressSpace::new(), Arc::new(AtomicU64::new(0)));
        let olds = (0..3).map(|n| space.insert(range(n, n + 1), Unruly(drops.clone())).unwrap()).collect();
        let new = |_: &Invalidation| Answer::Done;
        assert!(panics(|| Subscription::replace(olds, &space, range(0, 3), Options::new(), new)));
        assert_eq!((drops.load(Ordering::Relaxed), space.stats().intervals), (3, 0));
    });
}

#[test]
fn a_free_that_was_left_while_synchronize_slept_was_left_for_ever() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::builder().defer_drops().build().unwrap();
        let (_slow, slow_probe) = register(&space, "SLOW", &log);
        let probe = Probe::new("PUT", &log);
        let shared = space.get::<_, ()>(1, |_| Ok(Listed::freed(&probe))).unwrap();
        slow_probe.gate.hold();
        let walker = space.clone();
        let walk = background(move || walker.invalidate_range(range(0, 1)));
        slow_probe.gate.wait_inside(1);
        shared.put();
        let waiter = background(synchronize);
        waiter.assert_waits("the walk has not left the notifier");
        slow_probe.gate.open();
        walk.join();
        waiter.join();
        assert_eq!(Arc::strong_count(&probe), 1, "it was freed");
    });
}

#[test]
fn what_a_release_put_or_detached_was_left_for_ever() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::builder().defer_drops().build().unwrap();
        let put = Probe::new("PUT", &log);
        let shared = slot(space.get::<_, ()>(1, |_| Ok(Listed::freed(&put))).unwrap());
        let (detached, detached_probe) = insert(&space, "DETACHED", range(0, 1), &log);
        let detached = slot(detached);
        let (listed, probe) = register(&space, "N", &log);
        probe.once("release", move || {
            take(&shared).unwrap().put();
            take(&detached).unwrap().detach();
        });
        drop(space);
        assert_eq!((Arc::strong_count(&put), Arc::strong_count(&detached_probe)), (1, 1));
        drop(listed);
    });
}

#[test]
fn what_was_detached_behind_the_exit_was_left_by_synchronize_too() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::builder().defer_drops().build().unwrap();
        let (detached, probe) = insert(&space, "DETACHED", range(0, 1), &log);
        drop(space);
        detached.detach();
        synchronize();
        assert_eq!(Arc::strong_count(&probe), 1);
    });
}

#[test]
fn a_drop_that_panicked_behind_a_start_left_the_range_busy() {
    within(|| {
        let log = Recorder::new();
        let (space, drops) = (AddressSpace::new(), Arc::new(AtomicU64::new(0)));
        let unruly = slot(space.insert(range(0, 1), Unruly(drops.clone())).unwrap());
        let (watch, probe) = insert(&space, "WATCH", range(0, 4), &log);
        probe.once("invalidate", move || take(&unruly).unwrap().detach());
        let (_listed, _) = register(&space, "N", &log);
        let mut batch = Batch::new(&space);
        (0..4).for_each(|at| batch.push(range(at, at + 1)).unwrap());
        assert!(panics(|| batch.start().end()));
        let call = "WATCH invalidate";
        log.expect(&[
            call, call, call, call, "N start", "N start", "N start", "N start", "N range", "N end",
            "N range", "N end", "N range", "N end", "N range", "N end",
        ]);
        assert_eq!((drops.load(Ordering::Relaxed), space.stats().active), (1, 0));
        assert!(watch.try_read_begin().is_some());
        batch.start().end();
        watch.remove();
    });
}

#[test]
fn a_free_that_panicked_behind_a_walk_lost_the_exit_that_was_left_to_it() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let holder = space.downgrade();
        let free = Probe::new("FREE", &log);
        free.once("free", || panic!("a free that panics"));
        let shared = slot(space.get::<_, ()>(1, |_| Ok(Listed::freed(&free))).unwrap());
        let (listed, probe) = register(&space, "N", &log);
        let space = slot(space);
        probe.once("range", move || {
            take(&shared).unwrap().put();
            drop(take(&space));
        });
        assert!(panics(|| holder.invalidate_range(range(0, 1))));
        log.expect(&["N range", "FREE free", "N release"]);
        drop(listed);
    });
}

/// A waker that drops a future, as an executor may that runs what it wakes.
struct DropsOther(Mutex<Option<Pin<Box<dyn Future<Output = ReadToken> + Send>>>>);

impl Wake for DropsOther {
    fn wake(self: Arc<Self>) {
        drop(take(&self.0));
    }
}

#[test]
fn a_waker_that_dropped_another_future_of_the_same_invalidation_waited_for_itself() {
    within(|| {
        let log = Recorder::new();
        let space = AddressSpace::new();
        let watch = Arc::new(insert(&space, "WATCH", range(0, 4), &log).0);
        let active = space.invalidate_start(range(0, 1));
        let wakers = [(); 2].map(|()| Arc::new(DropsOther(Mutex::new(None))));
        for (own, other) in [(0, 1), (1, 0)] {
            let watch = watch.clone();
            let mut future: Pin<Box<dyn Future<Output = ReadToken> + Send>> =
                Box::pin(async move { watch.read_begin_async().await });
            let waker = Waker::from(wakers[own].clone());
            assert!(future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            *lock(&wakers[other].0) = Some(future);
        }
        active.end();
        let left = wakers.iter().filter(|waker| lock(&waker.0).is_some()).count();
        assert_eq!(left, 1, "the first that was woken dropped the other, which was then not woken");
    });
}

/// Where the wake of an end stands, and what goes on meanwhile.
#[derive(Default)]
struct Stage {
    in_wake: Gate,
    in_callback: AtomicU64,
    freed_in_callback: AtomicU64,
}

impl Wake for Stage {
    fn wake(self: Arc<Self>) {
        self.in_wake.pass();
    }
}

/// In its first flush lets the wake go on, starts within, and has its registration dropped by another thread.
struct Flushed {
    stage: Arc<Stage>,
    space: AddressSpaceRef,
    ended: Arc<Gate>,
    drop_it: mpsc::Sender<()>,
}

impl list::Notifier for Flushed {
    fn invalidate_range(&self, _: Range) {
        if self.stage.in_callback.swap(1, Ordering::SeqCst) != 0 {
            return;
        }
        self.stage.in_wake.open();
        self.ended.pass();
        self.space.invalidate(range(8, 9), || {});
        self.drop_it.send(()).unwrap();
        std::thread::sleep(Duration::from_millis(100));
        self.stage.in_callback.store(2, Ordering::SeqCst);
    }
}

#[test]
fn an_end_on_another_thread_gave_back_the_claim_of_a_walk_that_began_meanwhile() {
    within(|| {
        let (space, stage, ended) =
            (AddressSpace::new(), Arc::new(Stage::default()), Arc::new(Gate::default()));
        let watch = space.insert(range(0, 1), |_: &Invalidation| Answer::Done).unwrap();
        space.invalidate(range(0, 1), || {});
        let active = space.invalidate_start_owned(range(0, 1));
        stage.in_wake.hold();
        ended.hold();
        let mut future = Box::pin(watch.read_begin_async());
        let waker = Waker::from(stage.clone());
        assert!(future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        let over = ended.clone();
        let ender = background(move || {
            drop(active);
            over.open();
        });
        stage.in_wake.wait_inside(1);
        // The hazard is free again, and this thread's.
        let (drop_it, dropping) = mpsc::channel();
        let flushed =
            Flushed { stage: stage.clone(), space: space.downgrade(), ended: ended.clone(), drop_it };
        let registration = space.register(flushed).unwrap();
        let seen = stage.clone();
        let dropper = background(move || {
            dropping.recv().unwrap();
            drop(registration);
            seen.freed_in_callback.store(seen.in_callback.load(Ordering::SeqCst), Ordering::SeqCst);
        });
        space.invalidate_range(range(0, 1));
        ender.join();
        dropper.join();
        assert_eq!(stage.freed_in_callback.load(Ordering::SeqCst), 2, "freed while its callback ran");
    });
}

/// Has no size, so that the record of a resize is larger than its first one.
struct Sizeless;

impl Notifier for Sizeless {
    fn invalidate(&self, _: &Invalidation, _: Sequence) -> Answer {
        Answer::Done
    }
}

#[test]
fn a_resize_was_written_over_the_neighbour_of_one_that_was_resized_and_removed() {
    let space = AddressSpace::new();
    let [resized, neighbour, later] =
        [0, 10, 20].map(|at| space.insert(range(at, at + 1), Sizeless).unwrap());
    let resized = resized.resize(range(2, 3)).unwrap();
    resized.remove();
    let before = neighbour.read_begin();
    // Its record took the slot that the first record of the other had left, and more.
    let later = later.resize(range(22, 23)).unwrap();
    assert_eq!(neighbour.range(), range(10, 11));
    assert!(!neighbour.read_retry(before));
    space.invalidate(range(10, 11), || {});
    assert!(neighbour.read_retry(before));
    neighbour.remove();
    later.remove();
}

/// Notes where it is, in its release and in its drop.
struct Located(Arc<Mutex<Vec<usize>>>);

impl Located {
    fn note(&self) {
        lock(&self.0).push(std::ptr::from_ref(self).addr());
    }
}

impl list::Notifier for Located {
    fn release(&self) {
        self.note();
    }
}

impl Drop for Located {
    fn drop(&mut self) {
        self.note();
    }
}

#[test]
fn a_list_notifier_beside_which_nobody_walked_was_dropped_elsewhere() {
    within(|| {
        let (space, places) = (AddressSpace::new(), Arc::new(Mutex::new(Vec::new())));
        space.register(Located(places.clone())).map_err(|error| error.cause).unwrap().unregister();
        let places = lock(&places);
        assert_eq!(places[0], places[1]);
    });
}
