//! Sequence and settled: P1 without a lock. Starts store `seq` in any order, readers settle it for each other.
//!
//! If at the end of all the sequence still is the token, no invalidation hit since the token was taken; so what
//! the reader read behind its `read_begin` is what the primary MMU wrote last. A break shows as a reader with
//! such a token and an older value.

use std::sync::Arc;

use loom::sync::Mutex;
use loom::sync::atomic::{AtomicU64, Ordering::Relaxed};
use loom::thread;

use super::{check, range, space};
use crate::interval::{Answer, ReadToken, Subscription};
use crate::platform::{be_number, without_light_barriers};
use crate::{AddressSpace, Invalidation};

/// What the primary MMU maps, one word an invalidator, and a subscription to both.
struct World {
    pages: [AtomicU64; 2],
    device: Subscription<fn(&Invalidation) -> Answer>,
    space: AddressSpace,
}

fn done(_: &Invalidation) -> Answer {
    Answer::Done
}

impl World {
    fn new() -> Arc<World> {
        let space = space();
        let device = space.insert(range(0, 1), done as fn(&Invalidation) -> Answer).unwrap();
        Arc::new(World { pages: [AtomicU64::new(0), AtomicU64::new(0)], device, space })
    }

    fn change(&self, page: usize) {
        be_number(page as u32 + 1);
        let first = page as u64;
        self.space.invalidate(range(first, first), || self.pages[page].store(1, Relaxed));
    }

    /// Reads once; returns the token's number and what was read.
    fn read(&self) -> (u64, [u64; 2]) {
        self.read_behind(self.device.read_begin())
    }

    fn read_behind(&self, token: ReadToken) -> (u64, [u64; 2]) {
        (token.sequence().get(), [self.pages[0].load(Relaxed), self.pages[1].load(Relaxed)])
    }

    fn judge(&self, (token, read): (u64, [u64; 2]), now: [u64; 2]) {
        if self.device.sequence().get() == token {
            assert_eq!(read, now, "a fresh token, and something older was read");
        }
    }
}

#[test]
fn a_fresh_token_stands_for_what_was_written_last() {
    check(5, || {
        let world = World::new();
        let invalidator = world.clone();
        let thread = thread::spawn(move || invalidator.change(0));
        let read = world.read();
        thread.join().unwrap();
        world.judge(read, [1, 0]);
    });
}

#[test]
fn two_readers_settle_for_each_other() {
    check(2, || {
        let world = World::new();
        let (invalidator, reader) = (world.clone(), world.clone());
        let changer = thread::spawn(move || invalidator.change(0));
        let other = thread::spawn(move || reader.read());
        let read = world.read();
        let reads = [read, other.join().unwrap()];
        changer.join().unwrap();
        reads.into_iter().for_each(|read| world.judge(read, [1, 0]));
    });
}

#[test]
fn two_starts_store_their_sequence_in_any_order() {
    check(2, || {
        let world = World::new();
        let invalidators = [0, 1].map(|page| {
            let world = world.clone();
            thread::spawn(move || world.change(page))
        });
        let read = world.read();
        for thread in invalidators {
            thread.join().unwrap();
        }
        world.judge(read, [1, 1]);
        // Behind both ends a read is never busy, and sees both.
        let token = world.device.try_read_begin().expect("nothing is active");
        assert_eq!(token.sequence(), world.device.sequence());
    });
}

/// The sequence that a thread has stored itself may still be on its way: then another start's comes before it, and what that
/// start published must be seen all the same.
#[test]
fn a_read_behind_a_hit_of_its_own_thread_sees_the_other_start() {
    // Nobody waits, so the start passes no fence behind the hit, nor the end.
    without_light_barriers(|| {
        check(3, || {
            let world = World::new();
            let invalidator = world.clone();
            let thread = thread::spawn(move || invalidator.change(1));
            world.change(0);
            let read = world.device.try_read_begin().map(|token| world.read_behind(token));
            thread.join().unwrap();
            read.into_iter().for_each(|read| world.judge(read, [1, 1]));
        });
    });
}

/// The whole scheme with the subscriber's lock: between start and end nothing is committed.
#[test]
fn nothing_is_committed_between_start_and_end() {
    check(4, || {
        let space = Arc::new(space());
        let page = Arc::new(AtomicU64::new(0));
        let entry = Arc::new(Mutex::new(None));
        let cleared = entry.clone();
        let device = space.insert(range(0, 1), move |_: &Invalidation| {
            *cleared.lock().unwrap() = None;
            Answer::Done
        });
        let device = device.unwrap();
        let (invalidator, written, seen) = (space.clone(), page.clone(), entry.clone());
        let thread = thread::spawn(move || {
            be_number(1);
            invalidator.invalidate(range(0, 0), || {
                assert_eq!(*seen.lock().unwrap(), None);
                written.store(1, Relaxed);
                assert_eq!(*seen.lock().unwrap(), None);
            });
        });
        let token = device.read_begin();
        let value = page.load(Relaxed);
        {
            let mut entry = entry.lock().unwrap();
            if !device.read_retry(token) {
                *entry = Some(value);
            }
        }
        thread.join().unwrap();
        assert_ne!(*entry.lock().unwrap(), Some(0), "what was read before the end was committed behind it");
    });
}

/// A subscription that is inserted beside an invalidation is busy for it, though never called.
#[test]
fn an_insert_beside_an_invalidation_is_busy() {
    check(4, || {
        let space = Arc::new(space());
        let page = Arc::new(AtomicU64::new(0));
        let (invalidator, written) = (space.clone(), page.clone());
        let thread = thread::spawn(move || {
            be_number(1);
            invalidator.invalidate(range(0, 0), || written.store(1, Relaxed));
        });
        let device = space.insert(range(0, 1), done as fn(&Invalidation) -> Answer).unwrap();
        let token = device.read_begin();
        let value = page.load(Relaxed);
        thread.join().unwrap();
        if !device.read_retry(token) && value == 0 {
            // Then the start came behind the read, and would have called.
            panic!("the token is fresh, and an invalidation that it did not wait for is over");
        }
        drop(device);
    });
}
