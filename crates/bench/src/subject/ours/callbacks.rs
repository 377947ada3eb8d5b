//! The subscribers of the rows.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use mmu_notifier::Invalidation;
use mmu_notifier::interval::{self, Answer, Sequence};
use mmu_notifier::list::{self, WouldBlock};

use crate::count;

/// Counts its calls, all in one place.
pub(crate) struct Counter;

impl interval::Notifier for Counter {
    #[inline]
    fn invalidate(&self, _: &Invalidation, _: Sequence) -> Answer {
        count::hit();
        Answer::Done
    }
}

impl list::Notifier for Counter {
    #[inline]
    fn invalidate_range_start(&self, _: &Invalidation) -> Result<(), WouldBlock> {
        count::hit();
        Ok(())
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
    fn invalidate(&self, _: &Invalidation, _: Sequence) -> Answer {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        Answer::Done
    }
}

/// Sleeps in its first callback.
pub(crate) struct Slow(pub(crate) Duration);

impl list::Notifier for Slow {
    fn invalidate_range_start(&self, _: &Invalidation) -> Result<(), WouldBlock> {
        thread::sleep(self.0);
        Ok(())
    }
}
