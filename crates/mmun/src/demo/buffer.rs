//! A registered buffer, and the subscriber that keeps its registration right.
//!
//! [`Buffer::deliver`] is one use: fill, read, compare. What stands before it differs:
//!
//! * *trusting*: the buffer was registered once, and that is believed for ever;
//! * *watched*: an interval subscription on the buffer's addresses, whose notifier is the [`Slot`].
//!
//! The protocol of a watched buffer. The subscriber's lock is `Uses::state`; `live` is the translation
//! that was committed, `users` counts the uses in flight.
//!
//! | reader | invalidation |
//! |---|---|
//! | live: count in, under the lock | `invalidate`, under the lock: live no more, |
//! | else: read_begin (sleeps while busy), | wait until nobody is counted in |
//! | register the pages that are there now, | (refuse instead, if it may not block), |
//! | under the lock read_retry: stale, start over; | clear the slot; |
//! | fresh: live, count in | then the system call, then the end |
//! | I/O and comparison, count out | |
//!
//! So from the return of start to the end nobody is counted in and nobody can be: a token from before is
//! stale, and a new one is given at the end only. A registration that a stale token leaves in the slot
//! is never used, as the slot is not live; the next one replaces it.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use mmu_notifier::interval::{Answer, InsertErrorKind, Notifier, Options, ReadToken, Sequence, Subscription};
use mmu_notifier::{AddressSpace, Invalidation};

use super::device::{Device, Memory, lock};
use super::explicit::Place;
use super::files::Source;

/// How long a registration waits for memory that may be locked: a kernel may let go of a cleared slot late.
const PATIENCE: Duration = Duration::from_secs(2);

/// One buffer with its slot in the device.
pub(super) struct Buffer<D: Device> {
    subscription: Option<Subscription<Slot<D>>>,
    entry: Entry<D>,
    place: Place<D::Memory>,
}

/// What one use found.
pub(super) struct Delivery {
    /// The bytes that the device says it delivered.
    pub(super) length: usize,
    /// Whether the program found the expected bytes.
    pub(super) right: bool,
}

impl<D: Device> Buffer<D> {
    /// Registers the buffer, once and for all.
    pub(super) fn trusting(device: &Arc<D>, index: u32, memory: D::Memory) -> io::Result<Self> {
        let buffer = Self::new(device, index, memory, None);
        buffer.register()?;
        Ok(buffer)
    }

    /// Subscribes to the changes of the buffer's addresses; it is registered when it is first used.
    pub(super) fn watched(
        space: &AddressSpace,
        device: &Arc<D>,
        index: u32,
        memory: D::Memory,
    ) -> Result<Self, InsertErrorKind> {
        let slot = Slot::new(Entry { device: Arc::clone(device), index });
        let options = Options::new().label("registered buffer");
        let subscription = space.insert_with(memory.range(), options, slot).map_err(|error| error.cause)?;
        Ok(Self::new(device, index, memory, Some(subscription)))
    }

    fn new(
        device: &Arc<D>,
        index: u32,
        memory: D::Memory,
        subscription: Option<Subscription<Slot<D>>>,
    ) -> Self {
        let entry = Entry { device: Arc::clone(device), index };
        Buffer { subscription, entry, place: Place::new(memory) }
    }

    pub(super) fn place(&self) -> &Place<D::Memory> {
        &self.place
    }

    /// Reads as many bytes as `expected` has from `offset` on through the registration, and compares.
    /// Before that the buffer is filled with `unlike`, which differs in every byte, so that nothing is
    /// right by chance.
    pub(super) fn deliver(
        &self,
        source: &Source,
        offset: u64,
        expected: &[u8],
        unlike: &[u8],
    ) -> io::Result<Delivery> {
        // Counted in until the comparison is done: dropped after the memory's lock, as it is declared
        // before.
        let _counted = match &self.subscription {
            Some(subscription) => Some(self.enter(subscription)?),
            None => None,
        };
        let mut memory = lock(&self.place.memory);
        memory.fill(unlike);
        let Entry { device, index } = &self.entry;
        let length = device.read(*index, &mut memory, source.file(), offset, expected.len())?;
        Ok(Delivery { length, right: memory.shows(&expected[..length.min(expected.len())]) })
    }

    /// The number of invalidations that the subscriber heard of, and of tokens that it found stale.
    pub(super) fn hits_and_retries(&self) -> (u64, u64) {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        self.subscription.as_deref().map_or((0, 0), |slot| (count(&slot.hits), count(&slot.retries)))
    }

    /// Counts in to a registration that is right: the one that is live, or a new one.
    fn enter<'a>(&'a self, subscription: &'a Subscription<Slot<D>>) -> io::Result<Use<'a>> {
        loop {
            if let Some(counted) = join(subscription) {
                return Ok(counted);
            }
            let token = subscription.read_begin();
            self.register()?;
            if let Some(counted) = commit(subscription, token) {
                return Ok(counted);
            }
            subscription.retries.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn register(&self) -> io::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            // A statement of its own, so that the lock is not held across the sleep.
            let registered = self.entry.device.register(self.entry.index, &lock(&self.place.memory));
            match registered {
                Err(error) if error.kind() == io::ErrorKind::OutOfMemory && Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                result => return result,
            }
        }
    }
}

/// Counts in if the slot is live.
fn join<D: Device>(subscription: &Subscription<Slot<D>>) -> Option<Use<'_>> {
    let mut state = lock(&subscription.uses.state);
    if !state.live {
        return None;
    }
    state.users += 1;
    Some(Use(&subscription.uses))
}

/// Makes the slot live and counts in, unless an invalidation came since the token was taken.
fn commit<D: Device>(subscription: &Subscription<Slot<D>>, token: ReadToken) -> Option<Use<'_>> {
    let mut state = lock(&subscription.uses.state);
    // CONTRACT C3.5: under the lock that the callback takes.
    if subscription.read_retry(token) {
        return None;
    }
    state.live = true;
    state.users += 1;
    Some(Use(&subscription.uses))
}

/// A numbered slot of a device.
struct Entry<D> {
    device: Arc<D>,
    index: u32,
}

/// The subscriber: whether the slot's registration may be used, and by how many it is.
pub(super) struct Slot<D> {
    entry: Entry<D>,
    uses: Uses,
    hits: AtomicU64,
    retries: AtomicU64,
}

impl<D> Slot<D> {
    fn new(entry: Entry<D>) -> Self {
        Slot { entry, uses: Uses::default(), hits: AtomicU64::new(0), retries: AtomicU64::new(0) }
    }
}

impl<D: Device> Notifier for Slot<D> {
    fn invalidate(&self, invalidation: &Invalidation, _seq: Sequence) -> Answer {
        self.hits.fetch_add(1, Ordering::Relaxed);
        let mut state = lock(&self.uses.state);
        // CONTRACT C3.6: who may not sleep refuses, before anything is changed.
        if state.users > 0 && !invalidation.is_blockable() {
            return Answer::Refused;
        }
        state.live = false;
        while state.users > 0 {
            state = self.uses.idle.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        self.entry.device.clear(self.entry.index);
        Answer::Done
    }
}

/// The subscriber's lock, and where an invalidation waits for the uses in flight.
#[derive(Default)]
struct Uses {
    state: Mutex<State>,
    idle: Condvar,
}

#[derive(Default)]
struct State {
    live: bool,
    users: u32,
}

/// Proof of being counted in; dropping it counts out.
struct Use<'a>(&'a Uses);

impl Drop for Use<'_> {
    fn drop(&mut self) {
        let mut state = lock(&self.0.state);
        state.users -= 1;
        if state.users == 0 {
            self.0.idle.notify_all();
        }
    }
}

#[cfg(test)]
mod tests;
