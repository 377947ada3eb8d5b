//! What the load needs of a machine: [`Memory`], a buffer as the program and its primary MMU see it, and
//! [`Device`], the secondary MMU that delivers into it.
//!
//! Two machines fit: the kernel with io_uring ([`sys`](super::sys)), and one in software
//! ([`software`](super::software)). Whatever is compared is written once, over these two traits.

use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mmu_notifier::Range;

/// The bytes of one buffer.
pub(super) const BUFFER: usize = 64 << 10;

/// One buffer, as the program sees it at its address.
///
/// The four changes leave a buffer of the same length at the same address with other pages beneath it.
pub(super) trait Memory: Send + 'static {
    /// The addresses of the buffer.
    fn range(&self) -> Range;

    /// Writes `bytes` to the front of the buffer, as the program does.
    fn fill(&mut self, bytes: &[u8]);

    /// Says whether the program finds `bytes` at the front of the buffer.
    fn shows(&self, bytes: &[u8]) -> bool;

    /// Unmaps the buffer, then maps new memory at the same address.
    fn unmap_and_map(&mut self) -> io::Result<()>;

    /// Maps new memory over the buffer, in one step.
    fn map_over(&mut self) -> io::Result<()>;

    /// Gives the contents back to the system; the mapping stays.
    fn discard(&mut self) -> io::Result<()>;

    /// Moves the pages away, and those that were moved away the time before back to the address.
    fn exchange(&mut self) -> io::Result<()>;
}

/// A secondary MMU: numbered slots, each of which keeps the translation of one buffer.
pub(super) trait Device: Send + Sync + 'static {
    /// The memory that it delivers into.
    type Memory: Memory;

    /// Translates the buffer as it is mapped now, and keeps that in `slot`.
    fn register(&self, slot: u32, memory: &Self::Memory) -> io::Result<()>;

    /// Forgets what `slot` keeps.
    fn clear(&self, slot: u32);

    /// Reads `length` bytes of `file` from `offset` on through what `slot` keeps, and says how many came.
    fn read(
        &self,
        slot: u32,
        memory: &mut Self::Memory,
        file: &File,
        offset: u64,
        length: usize,
    ) -> io::Result<usize>;
}

/// What one reader thread works with: a device of its own, and the buffers of its slots.
pub(super) struct Bank<D: Device> {
    pub(super) device: Arc<D>,
    pub(super) memories: Vec<D::Memory>,
}

/// Takes a lock. What a panicking thread left behind one of ours is whole, and the panic ends the run
/// anyway.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
