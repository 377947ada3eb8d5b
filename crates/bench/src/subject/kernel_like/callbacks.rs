//! The subscribers of the rows.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use ::kernel_like::interval::{self, Answer, Interval, Invalidation, Sequence};
use ::kernel_like::list;

use crate::count;

/// Counts its calls, all in one place.
pub(crate) struct Counter;

impl interval::Notifier for Counter {
    #[inline]
    fn invalidate(interval: &Interval<Self>, _: &Invalidation, seq: Sequence) -> Answer {
        interval.set_seq(seq);
        count::hit();
        Answer::Done
    }
}

impl list::Notifier for Counter {
    #[inline]
    fn invalidate_range_start(&self, _: &Invalidation) -> Answer {
        count::hit();
        Answer::Done
    }

    #[inline]
    fn invalidate_range_end(&self, _: &Invalidation) {
        count::hit();
    }
}

/// Counts its calls in a line of its own.
#[derive(Default)]
#[repr(align(128))]
pub(crate) struct Alone(AtomicU64);

impl interval::Notifier for Alone {
    #[inline]
    fn invalidate(interval: &Interval<Self>, _: &Invalidation, seq: Sequence) -> Answer {
        interval.set_seq(seq);
        interval.0.store(interval.0.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        Answer::Done
    }
}

/// Sleeps in its first callback.
pub(crate) struct Slow(pub(crate) Duration);

impl list::Notifier for Slow {
    fn invalidate_range_start(&self, _: &Invalidation) -> Answer {
        thread::sleep(self.0);
        Answer::Done
    }
}

/// A translation under its lock.
#[derive(Default)]
pub(crate) struct Table(pub(crate) Mutex<Option<u64>>);

impl interval::Notifier for Table {
    #[inline]
    fn invalidate(interval: &Interval<Self>, _: &Invalidation, seq: Sequence) -> Answer {
        let mut table = interval.0.lock().unwrap_or_else(PoisonError::into_inner);
        interval.set_seq(seq);
        *table = None;
        Answer::Done
    }
}
