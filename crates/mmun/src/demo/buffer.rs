//! A registered buffer, and the subscriber that keeps its registration right.
//!
//! [`Buffer::deliver`] is one use: fill, read, compare. What stands before it differs:
//!
//! * *trusting*: the buffer was registered once, and that is believed for ever;
//! * *watched*: a [`Mirror`] of the buffer's addresses, whose table is the [`Slot`].
//!
//! A watched buffer is held from before the I/O until after the comparison: it joins the registration that is
//! live, or faults one in, which registers the pages that are there now. An invalidation waits for who holds
//! it, then clears the slot; until its end nobody can hold the buffer. A registration that a stale walk leaves
//! in the slot is never used, as the slot is not live; the next one replaces it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mmu_notifier::interval::{InsertErrorKind, Options};
use mmu_notifier::mirror::{Attempts, FaultError, InUse, Mirror, Table};
use mmu_notifier::{AddressSpace, Invalidation};

use super::device::{Device, Memory, lock};
use super::explicit::Place;
use super::files::Source;

/// How long a registration waits for memory that may be locked: a kernel may let go of a cleared slot late.
const PATIENCE: Duration = Duration::from_secs(2);

/// One buffer with its slot in the device.
pub(super) struct Buffer<D: Device> {
    mirror: Option<Mirror<Slot<D>>>,
    entry: Entry<D>,
    place: Place<D::Memory>,
    retries: AtomicU64,
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
        let slot = Slot { entry: Entry { device: Arc::clone(device), index }, live: false, hits: 0 };
        let options = Options::new().label("registered buffer");
        let mirror =
            Mirror::with_options(space, memory.range(), options, slot).map_err(|error| error.cause)?;
        Ok(Self::new(device, index, memory, Some(mirror)))
    }

    fn new(device: &Arc<D>, index: u32, memory: D::Memory, mirror: Option<Mirror<Slot<D>>>) -> Self {
        let entry = Entry { device: Arc::clone(device), index };
        Buffer { mirror, entry, place: Place::new(memory), retries: AtomicU64::new(0) }
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
        // Until the comparison is done: dropped after the memory's lock, as it is declared before.
        let _in_use = self.mirror.as_ref().map(|mirror| self.hold(mirror)).transpose()?;
        let mut memory = lock(&self.place.memory);
        memory.fill(unlike);
        let Entry { device, index } = &self.entry;
        let length = device.read(*index, &mut memory, source.file(), offset, expected.len())?;
        Ok(Delivery { length, right: memory.shows(&expected[..length.min(expected.len())]) })
    }

    /// The number of invalidations that the mirror heard of, and of walks that were stale.
    pub(super) fn hits_and_retries(&self) -> (u64, u64) {
        let hits = self.mirror.as_ref().map_or(0, |mirror| mirror.with(|slot| slot.hits));
        (hits, self.retries.load(Ordering::Relaxed))
    }

    /// Holds a registration that is right: the one that is live, or a new one.
    fn hold<'m>(&self, mirror: &'m Mirror<Slot<D>>) -> io::Result<InUse<'m, Slot<D>, ()>> {
        let range = mirror.range();
        if let Some(live) = mirror.hold(range, |slot| slot.live.then_some(())) {
            return Ok(live);
        }
        let result = mirror.fault_in_use(
            range,
            Attempts::UNBOUNDED,
            |attempt| {
                self.retries.fetch_add(u64::from(attempt.number() > 1), Ordering::Relaxed);
                self.register()
            },
            |slot, ()| slot.live = true,
        );
        result.map_err(|error| match error {
            FaultError::Walk(error) => error,
            other => io::Error::other(other),
        })
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

/// A numbered slot of a device.
struct Entry<D> {
    device: Arc<D>,
    index: u32,
}

/// The table: whether the slot's registration may be used.
pub(super) struct Slot<D> {
    entry: Entry<D>,
    live: bool,
    hits: u64,
}

impl<D: Device> Table for Slot<D> {
    fn invalidate(&mut self, _: &Invalidation) {
        self.hits += 1;
        self.live = false;
        self.entry.device.clear(self.entry.index);
    }
}

#[cfg(test)]
mod tests;
