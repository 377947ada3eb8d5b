//! Threads beside each other: collision-retry, removes beside invalidators, grace periods.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use kernel_like::interval::{Interval, Notifier, Sequence};
use kernel_like::list::{self, Entry};
use kernel_like::{Answer, Gone, Invalidation, Refused, Space, synchronize};

/// Runs it, and fails loudly if it hangs.
fn watched(work: impl FnOnce() + Send + 'static) {
    let (done, wait) = mpsc::channel();
    let running = thread::spawn(move || {
        work();
        done.send(()).expect("somebody waits");
    });
    match wait.recv_timeout(Duration::from_secs(120)) {
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("it hangs"),
        _ => running.join().expect("it does not panic"),
    }
}

/// Keeps a copy of one number of its owner.
#[derive(Default)]
struct Copied {
    copy: Mutex<Option<u64>>,
}

impl Notifier for Copied {
    fn invalidate(interval: &Interval<Self>, _what: &Invalidation, seq: Sequence) -> Answer {
        let mut copy = interval.copy.lock().unwrap();
        interval.set_seq(seq);
        *copy = None;
        Answer::Done
    }
}

/// Repeats on a thread until told to stop.
fn until(stop: &AtomicBool, mut work: impl FnMut()) {
    while !stop.load(Ordering::Relaxed) {
        work();
    }
}

fn stop_after(stop: &AtomicBool, time: Duration) {
    let began = Instant::now();
    while began.elapsed() < time {
        thread::sleep(Duration::from_millis(10));
    }
    stop.store(true, Ordering::Relaxed);
}

#[test]
fn no_reader_keeps_what_an_invalidation_overtook() {
    watched(|| {
        let (space, stop) = (Space::new(), AtomicBool::new(false));
        let truths: Vec<AtomicU64> = (0..4).map(AtomicU64::new).collect();
        let insert = |i: u64| space.insert(i * 100..i * 100 + 150, Interval::boxed(Copied::default()));
        let devices: Vec<_> = (0..4).map(|i| insert(i).expect("it has a user")).collect();
        let kept = AtomicUsize::new(0);
        thread::scope(|scope| {
            for i in 0..4 {
                let (device, truth, kept, stop) = (&devices[i], &truths[i], &kept, &stop);
                scope.spawn(move || {
                    until(stop, || {
                        let token = device.read_begin();
                        let seen = truth.load(Ordering::Relaxed);
                        let mut copy = device.copy.lock().unwrap();
                        if !device.read_retry(token) {
                            *copy = Some(seen);
                            kept.fetch_add(1, Ordering::Relaxed);
                        }
                    })
                });
                let space = &space;
                scope.spawn(move || {
                    until(stop, || {
                        let start = i as u64 * 100;
                        let active = space.invalidate_start(start..start + 100);
                        assert_eq!(*device.copy.lock().unwrap(), None, "a copy within an invalidation");
                        let new = truth.load(Ordering::Relaxed) + 4;
                        truth.store(new, Ordering::Relaxed);
                        active.end();
                        thread::yield_now();
                        let copy = *device.copy.lock().unwrap();
                        assert!(copy.is_none_or(|copy| copy == new), "a copy of what was before");
                    })
                });
            }
            stop_after(&stop, Duration::from_secs(1));
        });
        assert!(kept.load(Ordering::Relaxed) > 0);
    });
}

/// Counts calls that come to it after it was removed.
struct Grave {
    removed: AtomicBool,
}

impl Notifier for Grave {
    fn invalidate(interval: &Interval<Self>, _what: &Invalidation, seq: Sequence) -> Answer {
        interval.set_seq(seq);
        assert!(!interval.removed.load(Ordering::Relaxed), "called after its remove");
        Answer::Done
    }
}

impl Drop for Grave {
    fn drop(&mut self) {
        self.removed.store(true, Ordering::Relaxed);
    }
}

#[test]
fn removes_and_inserts_beside_invalidators() {
    watched(|| {
        let (space, stop) = (Space::new(), AtomicBool::new(false));
        let rounds = AtomicUsize::new(0);
        thread::scope(|scope| {
            for i in 0..2 {
                let (space, stop) = (&space, &stop);
                scope.spawn(move || {
                    until(stop, || {
                        let outer = space.invalidate_start(i * 50..i * 50 + 100);
                        space.invalidate_start(0..10_000).end();
                        outer.end();
                    })
                });
            }
            for i in 0..3 {
                let (space, stop, rounds) = (&space, &stop, &rounds);
                scope.spawn(move || {
                    until(stop, || {
                        let grave = || Interval::boxed(Grave { removed: AtomicBool::new(false) });
                        let [one, two] =
                            [0, 20].map(|at| space.insert(i + at..i + at + 60, grave()).unwrap());
                        let _ = one.read_begin();
                        let back = one.remove();
                        drop(two);
                        back.removed.store(true, Ordering::Relaxed);
                        rounds.fetch_add(1, Ordering::Relaxed);
                    })
                });
            }
            stop_after(&stop, Duration::from_secs(1));
        });
        assert!(rounds.load(Ordering::Relaxed) > 0);
        assert_eq!(Arc::strong_count(&space), 1);
    });
}

#[test]
fn a_reader_and_a_remove_wait_for_the_last_end() {
    watched(|| {
        let space = Space::new();
        let insert = |start| space.insert(start..start + 10, Interval::boxed(Copied::default())).unwrap();
        let (read, removed) = (insert(0), insert(100));
        let (hit, other) = (space.invalidate_start(0..1), space.invalidate_start(500..501));
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                let _ = read.read_begin();
                assert!(over.load(Ordering::SeqCst), "the reader did not wait");
            });
            scope.spawn(|| {
                drop(removed);
                assert!(over.load(Ordering::SeqCst), "the remove did not wait");
            });
            hit.end();
            thread::sleep(Duration::from_millis(50));
            over.store(true, Ordering::SeqCst);
            other.end();
        });
    });
}

/// Notes what it hears; slow or refusing if asked.
#[derive(Default)]
struct Listener {
    heard: Arc<Mutex<Vec<&'static str>>>,
    refuses: bool,
}

impl Listener {
    fn hear(&self, what: &'static str) {
        self.heard.lock().unwrap().push(what);
    }
}

impl list::Notifier for Listener {
    fn release(&self) {
        self.hear("release");
    }

    fn invalidate_range_start(&self, what: &Invalidation) -> Answer {
        self.hear("start");
        if self.refuses && !what.is_blockable() { Answer::Refused } else { Answer::Done }
    }

    fn invalidate_range_end(&self, _what: &Invalidation) {
        self.hear("end");
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.hear("drop");
    }
}

#[test]
fn the_list_hears_everything_and_a_refusal_is_undone() {
    let space = Space::new();
    let (old, new) = (Arc::default(), Arc::default());
    let listener = |heard: &Arc<_>, refuses| Entry::boxed(Listener { heard: Arc::clone(heard), refuses });
    let first = space.register(listener(&old, false)).unwrap();
    let second = space.register(listener(&new, true)).unwrap();
    let device = space.insert(0..10, Interval::boxed(Copied::default())).unwrap();
    assert_eq!(space.invalidate_start_nonblock(0..10).err(), Some(Refused));
    // The interval side is over, too: this would wait for ever.
    let _ = device.read_begin();
    assert_eq!(*old.lock().unwrap(), ["start", "end"]);
    assert_eq!(*new.lock().unwrap(), ["start"]);
    space.invalidate_start(5..5).end();
    space.invalidate_start(0..10).end();
    assert_eq!(*new.lock().unwrap(), ["start", "start", "end"]);
    drop(second.unregister());
    assert_eq!(new.lock().unwrap()[3..], ["release", "drop"]);
    space.exit();
    space.exit();
    assert_eq!(old.lock().unwrap()[2..], ["start", "end", "release"]);
    drop(first);
    assert_eq!(old.lock().unwrap()[5..], ["drop"]);
    let (gone, _) = space.insert(0..1, Interval::boxed(Copied::default())).unwrap_err();
    assert_eq!(gone, Gone);
}

#[test]
fn the_last_put_frees_after_the_callbacks() {
    watched(|| {
        let (space, heard) = (Space::new(), Arc::default());
        let make = || Listener { heard: Arc::clone(&heard), refuses: false };
        let one = space.get(make).unwrap();
        let two = space.get::<Listener>(|| unreachable!("it is there")).unwrap();
        one.put();
        space.invalidate_start(0..1).end();
        two.put();
        space.invalidate_start(0..1).end();
        synchronize();
        while Arc::strong_count(&space) > 1 {
            thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(*heard.lock().unwrap(), ["start", "end", "drop"]);
    });
}

#[test]
fn an_unregister_waits_for_walks_and_churn_harms_none() {
    watched(|| {
        let (space, stop) = (Space::new(), AtomicBool::new(false));
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| until(&stop, || space.invalidate_start(0..1).end()));
                scope.spawn(|| {
                    until(&stop, || {
                        let heard = Arc::default();
                        let entry = Entry::boxed(Listener { heard: Arc::clone(&heard), refuses: false });
                        drop(space.register(entry).unwrap().unregister());
                        let heard = heard.lock().unwrap();
                        assert_eq!(heard.last(), Some(&"drop"), "heard something after it was unregistered");
                    })
                });
            }
            stop_after(&stop, Duration::from_secs(1));
        });
    });
}
