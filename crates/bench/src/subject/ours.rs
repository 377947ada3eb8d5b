//! The library, as its users call it.

use mmu_notifier::interval::{self, Answer, Sequence, Subscription};
use mmu_notifier::list::{self, Registration, WouldBlock};
use mmu_notifier::{AddressSpace, Invalidation, Range};

use super::Subject;
use crate::count;

/// mmu-notifier.
pub(crate) struct Ours;

/// A subscriber that counts its calls.
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

#[inline]
fn range(from: u64, length: u64) -> Range {
    Range::from_len(from, length).expect("rows use ranges within the space")
}

impl Subject for Ours {
    type Space = AddressSpace;
    type Interval = Subscription<Counter>;
    type Registration = Registration<Counter>;

    fn space() -> AddressSpace {
        AddressSpace::new()
    }

    #[inline]
    fn cycle(space: &AddressSpace, from: u64, length: u64) {
        space.invalidate(range(from, length), || ());
    }

    #[inline]
    fn insert(space: &AddressSpace, from: u64, length: u64) -> Self::Interval {
        space.insert(range(from, length), Counter).expect("the space has a user, the machine memory")
    }

    #[inline]
    fn remove(interval: Self::Interval) {
        interval.remove();
    }

    #[inline]
    fn read(interval: &Self::Interval) -> bool {
        let token = interval.read_begin();
        interval.read_retry(token)
    }

    #[inline]
    fn register(space: &AddressSpace) -> Self::Registration {
        space.register(Counter).expect("the space has a user, the machine memory")
    }

    #[inline]
    fn unregister(registration: Self::Registration) {
        registration.unregister();
    }
}
