//! What no caller of the public interface can bring about: numbers that run out.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};
use std::sync::Mutex;

use super::record::First;
use super::{Answer, Notifier, Sequence};
use crate::address::Range;
use crate::batch::Batch;
use crate::invalidation::Invalidation;
use crate::space::AddressSpace;

/// There may be millions of them, and an insert pays for each cache line and each page that they fill.
#[cfg(target_pointer_width = "64")]
#[test]
fn a_record_without_options_is_no_bigger_than_a_cache_line() {
    // Order, table, sequence, settled; first, last, place; the chain of second passes.
    assert_eq!(size_of::<First<()>>(), size_of::<[u64; 8]>());
    assert_eq!(align_of::<First<()>>(), align_of::<u64>(), "an allocator gives that without a detour");
}

#[derive(Default)]
struct Sequences(Mutex<Vec<u64>>);

impl Notifier for Sequences {
    fn invalidate(&self, _: &Invalidation, seq: Sequence) -> Answer {
        self.0.lock().unwrap().push(seq.get());
        Answer::Done
    }
}

/// Invalidates everything over and over, while generations run out; then on another thread, whose hazard begins with an id
/// that nobody may have come to.
fn expect_fresh_sequences(invalidate: impl Fn(&AddressSpace) + Sync) {
    let space = AddressSpace::new();
    let heard = space.insert(Range::ALL, Sequences::default()).unwrap();
    invalidate(&space);
    for _ in 0..4 {
        space.space().subscriptions().unwrap().book.use_up_generations();
        for _ in 0..5 {
            let token = heard.read_begin();
            invalidate(&space);
            assert!(heard.read_retry(token));
        }
    }
    std::thread::scope(|scope| _ = scope.spawn(|| (0..5).for_each(|_| invalidate(&space))));
    let mut sequences = heard.0.lock().unwrap().clone();
    assert!(sequences.iter().all(|seq| seq % 2 == 1), "a sequence of an invalidation is odd");
    let count = sequences.len();
    sequences.sort_unstable();
    sequences.dedup();
    assert_eq!((sequences.len(), count), (26, 26));
}

#[test]
fn c3_6_a_sequence_never_repeats_when_the_generations_of_a_hazard_run_out() {
    expect_fresh_sequences(|space| space.invalidate(Range::ALL, || {}));
    expect_fresh_sequences(|space| space.invalidate_start(Range::ALL).end());
}

#[test]
fn c3_6_c5_8_nor_does_it_in_a_batch() {
    expect_fresh_sequences(|space| {
        let mut batch = Batch::new(space);
        batch.push(Range::ALL).unwrap();
        batch.start().end();
    });
}

/// More invalidations at once than there are hazards: each further one counts as one of the whole space.
#[test]
fn c7_4_past_the_room_set_aside_an_invalidation_counts_as_one_of_the_whole_space() {
    let space = AddressSpace::new();
    let hits = Arc::new(AtomicU64::new(0));
    let counter = hits.clone();
    let near = space
        .insert(Range::from_len(0u64, 0x1000).unwrap(), move |_: &Invalidation| {
            counter.fetch_add(1, Ordering::Relaxed);
            Answer::Done
        })
        .unwrap();
    let far = Range::from_len(0x10_0000u64, 1).unwrap();
    let mut active: Vec<_> = (0..100).map(|_| space.invalidate_start(far)).collect();
    assert!(near.try_read_begin().is_none(), "coarser: the crowd stands for the whole space");
    let token_range = Range::from_len(0u64, 1).unwrap();
    space.invalidate(token_range, || {});
    assert_eq!(hits.load(Ordering::Relaxed), 1, "it is called for what overlaps, as ever");
    assert_eq!(space.stats().active, 100);
    while let Some(guard) = active.pop() {
        guard.end();
    }
    assert_eq!(space.stats().active, 0);
    assert!(near.try_read_begin().is_some());
}

#[cfg(feature = "std")] // Without a context a thread is not recognised in its own callbacks.
#[test]
fn c3_7_removed_within_its_own_callback_by_one_of_the_crowd() {
    let space = AddressSpace::new();
    let far = Range::from_len(0x10_0000u64, 1).unwrap();
    let slot: Arc<Mutex<Option<super::Subscription<Own>>>> = Arc::default();
    let own = space.insert(Range::from_len(0u64, 0x1000).unwrap(), Own(slot.clone())).unwrap();
    let crowd: Vec<_> = (0..100).map(|_| space.invalidate_start(far)).collect();
    *slot.lock().unwrap() = Some(own);
    let weak = Arc::downgrade(&slot);
    drop(slot);
    space.invalidate(Range::from_len(0u64, 1).unwrap(), || {});
    assert!(weak.upgrade().is_none(), "what the subscription owned is gone behind the call");
    drop(crowd);
}

#[cfg(feature = "std")]
struct Own(Arc<Mutex<Option<super::Subscription<Own>>>>);

#[cfg(feature = "std")]
impl Notifier for Own {
    fn invalidate(&self, _: &Invalidation, _: Sequence) -> Answer {
        let own = self.0.lock().unwrap().take();
        own.unwrap().remove();
        Answer::Done
    }
}
