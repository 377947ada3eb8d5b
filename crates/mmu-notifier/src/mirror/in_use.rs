//! Uses in flight: how they begin, and the guards that a device holds.

use alloc::sync::Arc;
use core::fmt;
use core::mem::ManuallyDrop;
use core::ops::{Deref, DerefMut};

use super::{Attempt, Attempts, FaultError, Mirror, Table};
use crate::address::Range;
use crate::drain::{Drain, Refusal, Ticket};

impl<T: Table> Mirror<T> {
    /// Brings a translation in and begins to use it, in one step: no invalidation of `range` comes between.
    /// What `commit` returns goes into the guard.
    ///
    /// # Errors
    /// As [`fault_within`](Self::fault_within), and [`FaultError::OutOfMemory`].
    ///
    /// # Panics
    /// As [`fault`](Self::fault), and if `range` does not lie in the mirror's own.
    ///
    /// # Context
    /// As [`fault`](Self::fault).
    pub fn fault_in_use<'m, V, U, E>(
        &'m self,
        range: Range,
        attempts: Attempts,
        walk: impl FnMut(Attempt<'m, T>) -> Result<V, E>,
        commit: impl FnOnce(&mut T, V) -> U,
    ) -> Result<InUse<'m, T, U>, FaultError<E>> {
        let (mut held, value, running) = self.fault_until(range, attempts, walk, || self.begin_use(range))?;
        let value = held.run(|table| commit(table, value));
        Ok(InUse { value, running, mirror: self })
    }

    /// Begins to use what `look_up` finds in the table for `range`, under its lock. None if it finds nothing, or
    /// the range is being invalidated: then it is time for a [`fault_in_use`](Self::fault_in_use).
    ///
    /// From the return of an invalidation's start to its end no use of its range is in flight, and none begins:
    /// a blockable one waits for the guards, another is refused while there are any.
    ///
    /// ```
    /// use mmu_notifier::mirror::{Attempts, Mirror};
    /// use mmu_notifier::{AddressSpace, Range, StartError};
    ///
    /// let space = AddressSpace::new();
    /// let range = Range::from_len(0x1000u64, 0x1000)?;
    /// let mirror = Mirror::new(&space, range, None).unwrap();
    /// let in_use = match mirror.hold(range, |table| *table) {
    ///     Some(hit) => hit,
    ///     None => mirror
    ///         .fault_in_use(
    ///             range,
    ///             Attempts::UNBOUNDED,
    ///             |_| Ok::<_, ()>(42),
    ///             |table, frame| *table.insert(frame),
    ///         )
    ///         .unwrap(),
    /// };
    /// assert_eq!(*in_use, 42); // the device works on frame 42
    /// assert_eq!(space.try_invalidate(range, || ()), Err(StartError::WouldBlock));
    /// drop(in_use);
    /// assert_eq!(space.try_invalidate(range, || ()), Ok(()));
    /// # Ok::<(), mmu_notifier::RangeError>(())
    /// ```
    ///
    /// # Panics
    /// If this thread has the table's lock, or `range` does not lie in the mirror's own. If `look_up` panics
    /// the table is cleared before its next use.
    ///
    /// # Context
    /// May sleep, for the lock only. Not in the mirror's own closures.
    #[inline]
    pub fn hold<V>(
        &self,
        range: Range,
        look_up: impl FnOnce(&mut T) -> Option<V>,
    ) -> Option<InUse<'_, T, V>> {
        self.check_range(range);
        let mut held = self.lock("hold", None).ok()?;
        let running = self.begin_use(range).ok()?;
        let value = held.run(look_up)?;
        Some(InUse { value, running, mirror: self })
    }

    pub(super) fn check_range(&self, range: Range) {
        assert!(self.range().covers(range), "the range of a use must lie in that of its mirror");
    }

    /// Notes a use. Under the table's lock.
    #[inline]
    fn begin_use(&self, range: Range) -> Result<Running<'_>, Refusal> {
        let drain = self.drain();
        let ticket = drain.enter(range, || self.subscription.is_quiet(range))?;
        Ok(Running { drain, ticket, range })
    }
}

/// A use in flight: what a hit found, and the promise that its range is not invalidated before this is dropped.
///
/// An invalidation of the range waits for it, or is refused if it may not block. It may be sent, and dropped
/// anywhere, also in the mirror's closures. One that is forgotten costs liveness of its range only: blockable
/// invalidations of it wait for ever, others are always refused. In the child of a fork it holds up nobody.
///
/// Whoever has one should not wait for what an invalidation of its range may keep back: a fault of another part
/// of the mirror has a [timeout](Attempts::within), and if that comes, the use is let go of.
#[must_use = "the use is over when the guard is dropped"]
pub struct InUse<'m, T: Table, V> {
    // The value is dropped before the use is over.
    value: V,
    running: Running<'m>,
    mirror: &'m Mirror<T>,
}

/// A use of which the drain knows, until it is dropped.
struct Running<'m> {
    drain: &'m Drain,
    ticket: Ticket,
    range: Range,
}

impl Drop for Running<'_> {
    #[inline]
    fn drop(&mut self) {
        self.drain.leave(self.ticket);
    }
}

impl<'m, T: Table, V> InUse<'m, T, V> {
    /// The range that is in use.
    pub fn range(&self) -> Range {
        self.running.range
    }

    /// Becomes a guard that keeps the mirror, for an operation whose end comes on another thread.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use mmu_notifier::mirror::Mirror;
    /// use mmu_notifier::{AddressSpace, Range};
    ///
    /// let space = AddressSpace::new();
    /// let range = Range::from_len(0x1000u64, 0x1000)?;
    /// let mirror = Arc::new(Mirror::new(&space, range, None).unwrap());
    /// mirror.fault(|_| Ok::<_, ()>(42), |table, frame| *table = Some(frame)).unwrap();
    ///
    /// let operation = mirror.hold(range, |table| *table).unwrap().into_owned(&mirror);
    /// let completion = std::thread::spawn(move || assert_eq!(*operation, 42));
    /// space.invalidate(range, || { /* not before the operation is over */ });
    /// # completion.join().unwrap();
    /// # Ok::<(), mmu_notifier::RangeError>(())
    /// ```
    ///
    /// # Panics
    /// If `mirror` is another one.
    pub fn into_owned(self, mirror: &Arc<Mirror<T>>) -> OwnedInUse<T, V> {
        assert!(
            core::ptr::eq(self.mirror, &raw const **mirror),
            "a use can only keep the mirror that it is of"
        );
        let InUse { value, running, .. } = self;
        let running = ManuallyDrop::new(running);
        running.drain.give_away(running.ticket);
        let running = Kept { mirror: Some(Arc::clone(mirror)), ticket: running.ticket, range: running.range };
        OwnedInUse { value, running }
    }
}

/// An [`InUse`] that keeps its mirror, and so goes anywhere.
///
/// While there is one the mirror stays subscribed, whoever else lets go of it. If this is the last to keep
/// it, the drop [detaches](Mirror::detach) it, and so does not sleep.
#[must_use = "the use is over when the guard is dropped"]
pub struct OwnedInUse<T: Table, V> {
    // The value is dropped before the use is over.
    value: V,
    running: Kept<T>,
}

/// A use of which the drain knows, with its mirror.
struct Kept<T: Table> {
    /// None once it is dropped.
    mirror: Option<Arc<Mirror<T>>>,
    ticket: Ticket,
    range: Range,
}

impl<T: Table> Drop for Kept<T> {
    fn drop(&mut self) {
        let Some(mirror) = self.mirror.take() else { return };
        mirror.drain().leave(self.ticket);
        if let Some(mirror) = Arc::into_inner(mirror) {
            mirror.detach();
        }
    }
}

impl<T: Table, V> OwnedInUse<T, V> {
    /// The range that is in use.
    pub fn range(&self) -> Range {
        self.running.range
    }
}

impl<T: Table, V> Deref for InUse<'_, T, V> {
    type Target = V;

    fn deref(&self) -> &V {
        &self.value
    }
}

impl<T: Table, V> DerefMut for InUse<'_, T, V> {
    fn deref_mut(&mut self) -> &mut V {
        &mut self.value
    }
}

impl<T: Table, V> Deref for OwnedInUse<T, V> {
    type Target = V;

    fn deref(&self) -> &V {
        &self.value
    }
}

impl<T: Table, V> DerefMut for OwnedInUse<T, V> {
    fn deref_mut(&mut self) -> &mut V {
        &mut self.value
    }
}

impl<T: Table, V: fmt::Debug> fmt::Debug for InUse<'_, T, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InUse").field("range", &self.range()).field("value", &self.value).finish()
    }
}

impl<T: Table, V: fmt::Debug> fmt::Debug for OwnedInUse<T, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnedInUse").field("range", &self.range()).field("value", &self.value).finish()
    }
}
