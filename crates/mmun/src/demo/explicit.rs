//! An explicit event source: the program's own changes of its mappings, each between a start and an end.
//!
//! [`Mappings`] stands between the program and the system calls that change a [`Place`]. It is the simplest
//! source there is: who changes memory through it, and through nothing else, misses no event.

use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use mmu_notifier::{AddressSpace, Event, Invalidation, Range};

use super::device::{Memory, lock};

/// A buffer at its address. Its lock excludes the program's accesses and the system calls from each other,
/// as the map lock of a kernel excludes page faults and munmap.
pub(super) struct Place<M> {
    range: Range,
    pub(super) memory: Mutex<M>,
}

impl<M: Memory> Place<M> {
    pub(super) fn new(memory: M) -> Self {
        Place { range: memory.range(), memory: Mutex::new(memory) }
    }
}

/// The changes of one address space, announced.
pub(super) struct Mappings {
    space: AddressSpace,
    starts: AtomicU64,
}

impl Mappings {
    pub(super) fn new(space: AddressSpace) -> Self {
        Mappings { space, starts: AtomicU64::new(0) }
    }

    /// munmap, then mmap at the same address: two system calls in one invalidation, since nobody could
    /// translate the hole between them.
    pub(super) fn munmap<M: Memory>(&self, place: &Place<M>) -> io::Result<()> {
        self.change(place, Event::Unmap, M::unmap_and_map)
    }

    /// mmap with `MAP_FIXED`: new memory in place of the old.
    pub(super) fn map_fixed<M: Memory>(&self, place: &Place<M>) -> io::Result<()> {
        self.change(place, Event::Unmap, M::map_over)
    }

    /// madvise with `MADV_DONTNEED`: the mapping stays, its pages go.
    pub(super) fn discard<M: Memory>(&self, place: &Place<M>) -> io::Result<()> {
        self.change(place, Event::Clear, M::discard)
    }

    /// mremap: the pages move away, others come back.
    pub(super) fn mremap<M: Memory>(&self, place: &Place<M>) -> io::Result<()> {
        self.change(place, Event::Unmap, M::exchange)
    }

    /// The number of invalidations so far.
    pub(super) fn starts(&self) -> u64 {
        self.starts.load(Ordering::Relaxed)
    }

    fn change<M: Memory>(
        &self,
        place: &Place<M>,
        event: Event,
        change: impl FnOnce(&mut M) -> io::Result<()>,
    ) -> io::Result<()> {
        // ORDERING: a plain count; the threads are joined before the last look at it.
        self.starts.fetch_add(1, Ordering::Relaxed);
        // The lock is taken after the start: a subscriber that drains its users in the callback waits for
        // readers that may still want it.
        self.space.invalidate(Invalidation::new(place.range, event), || change(&mut *lock(&place.memory)))
    }
}
