//! Random operations beside a plain vector: who is called, in which order, and who is busy.

use std::sync::{Arc, Mutex};

use kernel_like::interval::{Interval, Notifier, Sequence, Subscription};
use kernel_like::{Active, Answer, Invalidation, Space};

type Calls = Arc<Mutex<Vec<u64>>>;

struct Device {
    id: u64,
    calls: Calls,
}

impl Notifier for Device {
    fn invalidate(interval: &Interval<Self>, what: &Invalidation, seq: Sequence) -> Answer {
        let mut calls = interval.calls.lock().unwrap();
        if !what.is_blockable() && interval.id % 7 == 0 {
            return Answer::Refused;
        }
        interval.set_seq(seq);
        calls.push(interval.id);
        Answer::Done
    }
}

/// What the model knows of an interval. It is in the tree from `placed` on.
struct Known {
    id: u64,
    start: u64,
    last: u64,
    placed: bool,
    busy: bool,
    subscription: Subscription<Device>,
}

struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 20) % n
    }
}

/// Intervals in the order in which they are called, and whether the tree is frozen.
#[derive(Default)]
struct Model {
    known: Vec<Known>,
    active: usize,
    frozen: bool,
}

impl Model {
    fn hits(&self, start: u64, last: u64) -> Vec<usize> {
        let hit = |known: &Known| known.placed && known.start <= last && known.last >= start;
        (0..self.known.len()).filter(|&i| hit(&self.known[i])).collect()
    }

    /// Gives who is called, and whether the start succeeds.
    fn start(&mut self, start: u64, last: u64, blockable: bool) -> (Vec<u64>, bool) {
        self.active += 1;
        let hits = self.hits(start, last);
        self.frozen |= !hits.is_empty();
        let mut called = Vec::new();
        for i in hits {
            if !blockable && self.known[i].id % 7 == 0 {
                self.end();
                return (called, false);
            }
            self.known[i].busy = true;
            called.push(self.known[i].id);
        }
        (called, true)
    }

    fn end(&mut self) {
        self.active -= 1;
        if self.active == 0 {
            self.frozen = false;
            self.known.iter_mut().for_each(|known| (known.placed, known.busy) = (true, false));
        }
    }

    fn insert(&mut self, mut known: Known) {
        known.placed = self.active == 0;
        known.busy = !known.placed;
        self.frozen |= known.busy;
        let place = self.known.partition_point(|other| other.start <= known.start);
        self.known.insert(place, known);
    }
}

#[test]
fn random_operations_agree_with_a_vector() {
    for seed in 1..=60 {
        println!("seed {seed}");
        run(seed);
    }
}

fn run(seed: u64) {
    let mut rng = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let (space, calls) = (Space::new(), Calls::default());
    // An invalidation that began before the first insert leaves no trace.
    let first = Device { id: 0, calls: Arc::clone(&calls) };
    let _first = space.insert(1 << 40..1 << 41, Interval::boxed(first)).expect("it has a user");
    let (mut model, mut active) = (Model::default(), Vec::<Active<'_>>::new());
    for id in 1..400 {
        match rng.below(6) {
            0 | 1 => {
                // Starts differ, since what is put off does not keep the order of equal ones.
                let start = rng.below(1000) * 1000 + id;
                let end = start + 1 + rng.below(3) * rng.below(300_000);
                let device = Interval::boxed(Device { id, calls: Arc::clone(&calls) });
                let subscription = space.insert(start..end, device).expect("it has a user");
                model.insert(Known { id, start, last: end - 1, placed: false, busy: false, subscription });
            }
            2 | 3 => {
                let start = rng.below(1_000_000);
                let end = start + 1 + rng.below(100_000);
                let blockable = rng.below(2) == 0;
                let (expected, succeeds) = model.start(start, end - 1, blockable);
                let started = if blockable {
                    Ok(space.invalidate_start(start..end))
                } else {
                    space.invalidate_start_nonblock(start..end)
                };
                assert_eq!(started.is_ok(), succeeds);
                active.extend(started);
                assert_eq!(calls.lock().unwrap().split_off(0), expected);
            }
            4 if !active.is_empty() => {
                active.swap_remove(rng.below(active.len() as u64) as usize).end();
                model.end();
            }
            _ => look(&mut model, &mut rng),
        }
    }
    active.clear();
}

/// Reads or removes one, if that would not wait for this thread's own invalidations.
fn look(model: &mut Model, rng: &mut Random) {
    if model.known.is_empty() {
        return;
    }
    let i = rng.below(model.known.len() as u64) as usize;
    if !model.known[i].busy {
        let subscription = &model.known[i].subscription;
        assert!(!subscription.read_retry(subscription.read_begin()));
    }
    if !model.frozen || !model.known[i].placed {
        let known = model.known.remove(i);
        assert_eq!(known.subscription.remove().into_callbacks().id, known.id);
    }
}
