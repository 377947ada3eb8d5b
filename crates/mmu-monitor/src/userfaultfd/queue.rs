//! Events that were read and not yet told: a ring between the thread that reads and the one that tells.
//!
//! It has room for 256. What does not fit is not lost: it counts as a change of everything, so who reads never waits.
//! Nothing here allocates.
//!
//! [`Queue::is_behind`] answers for each event from before it is read until its start and end are made.

use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use mmu_notifier::{Event, Range};

use crate::call::Change;

const ROOM: usize = 256;

/// The ring. One thread pushes, one takes.
#[derive(Debug)]
pub(super) struct Queue {
    slots: [Slot; ROOM],
    /// How many were pushed and taken, ever.
    pushed: AtomicUsize,
    taken: AtomicUsize,
    /// How many did not fit since the last time that all was told of.
    overflowed: AtomicUsize,
    /// How many are being read, or were read and not told of.
    untold: AtomicUsize,
}

#[derive(Debug)]
struct Slot {
    first: AtomicU64,
    last: AtomicU64,
    /// Whether the mapping goes, or its pages alone.
    unmaps: AtomicU64,
}

impl Slot {
    const fn new() -> Slot {
        Slot { first: AtomicU64::new(0), last: AtomicU64::new(0), unmaps: AtomicU64::new(0) }
    }
}

/// What is to be told of.
pub(super) struct Untold {
    pub(super) change: Change,
    /// How many events it stands for.
    pub(super) count: usize,
}

impl Queue {
    pub(super) const fn new() -> Queue {
        Queue {
            slots: [const { Slot::new() }; ROOM],
            pushed: AtomicUsize::new(0),
            taken: AtomicUsize::new(0),
            overflowed: AtomicUsize::new(0),
            untold: AtomicUsize::new(0),
        }
    }

    /// Reads an event by `read` and puts it into the ring. False if there was none.
    pub(super) fn fill(&self, read: impl FnOnce() -> Option<Change>) -> bool {
        // ORDERING: before the read, by which the kernel learns that the event is gone from its side. Pairs with the
        // load in `is_behind`, which comes after the question to the kernel.
        self.untold.fetch_add(1, Ordering::SeqCst);
        let Some(change) = read() else {
            self.told(1);
            return false;
        };
        self.push(change);
        true
    }

    fn push(&self, change: Change) {
        let pushed = self.pushed.load(Ordering::Relaxed);
        // ORDERING: pairs with the Release in `take`: a slot that is free was read before it is written again.
        if pushed - self.taken.load(Ordering::Acquire) == ROOM {
            // ORDERING: pairs with the swap in `take`, which comes before the telling: the event was read before.
            self.overflowed.fetch_add(1, Ordering::Release);
            return;
        }
        let slot = &self.slots[pushed % ROOM];
        slot.first.store(change.range.start().get(), Ordering::Relaxed);
        slot.last.store(change.range.last().get(), Ordering::Relaxed);
        slot.unmaps.store(u64::from(change.event == Event::Unmap), Ordering::Relaxed);
        // ORDERING: pairs with the Acquire in `take`: who sees the count sees the slot.
        self.pushed.store(pushed + 1, Ordering::Release);
    }

    /// Takes what is to be told of next, which [`told`](Self::told) follows.
    pub(super) fn take(&self) -> Option<Untold> {
        // ORDERING: pairs with the Release in `push`.
        let count = self.overflowed.swap(0, Ordering::Acquire);
        if count > 0 {
            return Some(Untold { change: Change { range: Range::ALL, event: Event::Unmap }, count });
        }
        let taken = self.taken.load(Ordering::Relaxed);
        // ORDERING: pairs with the Release in `push`.
        if taken == self.pushed.load(Ordering::Acquire) {
            return None;
        }
        let slot = &self.slots[taken % ROOM];
        let (first, last) = (slot.first.load(Ordering::Relaxed), slot.last.load(Ordering::Relaxed));
        let event = if slot.unmaps.load(Ordering::Relaxed) == 1 { Event::Unmap } else { Event::Clear };
        // ORDERING: pairs with the Acquire in `push`.
        self.taken.store(taken + 1, Ordering::Release);
        let range = Range::from_first_last(first, last).unwrap_or(Range::ALL);
        Some(Untold { change: Change { range, event }, count: 1 })
    }

    /// Says that `count` events were told of.
    pub(super) fn told(&self, count: usize) {
        // ORDERING: behind the start and the end. Pairs with the load in `is_behind`: who sees the event gone from here
        // sees what its start and end did.
        self.untold.fetch_sub(count, Ordering::SeqCst);
    }

    /// Forgets all: in a child of fork, which has neither of the threads.
    pub(super) fn forget(&self) {
        [&self.pushed, &self.taken, &self.overflowed, &self.untold]
            .into_iter()
            .for_each(|count| count.store(0, Ordering::Relaxed));
    }

    /// Says whether an event is being read, or was read and not told of.
    pub(super) fn is_behind(&self) -> bool {
        // ORDERING: pairs with `fill` and `told`.
        self.untold.load(Ordering::SeqCst) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(number: u64) -> Change {
        let event = if number % 2 == 0 { Event::Unmap } else { Event::Clear };
        Change { range: Range::from_len(number * 4096, 4096).unwrap(), event }
    }

    #[test]
    fn what_is_pushed_comes_out_in_order() {
        let queue = Queue::new();
        for round in 0..5 {
            (0..40).for_each(|number| assert!(queue.fill(|| Some(change(round * 40 + number)))));
            for number in 0..40 {
                let untold = queue.take().unwrap();
                assert_eq!((untold.change, untold.count), (change(round * 40 + number), 1));
                assert!(queue.is_behind());
                queue.told(untold.count);
            }
            assert!(queue.take().is_none());
            assert!(!queue.is_behind());
        }
    }

    #[test]
    fn what_does_not_fit_counts_as_everything() {
        let queue = Queue::new();
        (0..ROOM as u64 + 3).for_each(|number| assert!(queue.fill(|| Some(change(number)))));
        let all = queue.take().unwrap();
        assert_eq!((all.change.range, all.count), (Range::ALL, 3));
        queue.told(all.count);
        (0..ROOM as u64).for_each(|number| {
            assert_eq!(queue.take().unwrap().change, change(number));
            assert!(queue.is_behind());
            queue.told(1);
        });
        assert!(!queue.is_behind());
    }

    #[test]
    fn nothing_read_leaves_nothing_behind() {
        let queue = Queue::new();
        let behind_while_reading = core::cell::Cell::new(false);
        let read = queue.fill(|| {
            behind_while_reading.set(queue.is_behind());
            None
        });
        assert!(!read && behind_while_reading.get() && !queue.is_behind());
    }
}
