//! Users in flight, and the invalidations that wait for them (clause C6.2).
//!
//! # Protocol
//! A use of a range is noted in the book of its mirror, and struck out when its guard is dropped. The book has
//! a lock of its own that is held for a few instructions, so a guard can be dropped anywhere, also under the
//! mirror's lock or where nothing may sleep.
//!
//! *Begin*: under the book's lock, look for an active invalidation of the range; if there is none, note the use.
//! *Invalidation*: published; then, in its callback, under the book's lock, look for uses of its range; wait
//! until there is none. Whichever of the two has the book first is seen by the other. So between the return of
//! start and the end no use of the range is in flight, and none begins.
//!
//! In the child of a fork, uses from before the fork count as over: the devices are the parent's.

use alloc::vec::Vec;

use crate::address::Range;
use crate::diagnostics::{self, Rule};
use crate::fork;
use crate::invalidation::Invalidation;
use crate::mirror::lock::{Guard, Lock};
use crate::platform::{self, Bell};
use crate::sync::{AtomicU32, Ordering};

/// The uses of one mirror that are in flight.
///
/// # Invariants
/// `number` is that of the uses in the book; who changes the book stores it before the book is closed.
#[derive(Debug)]
pub(crate) struct Drain {
    number: AtomicU32,
    book: Lock<Book>,
    /// Rung when a use is over.
    over: Bell,
}

/// # Invariants
/// `free` and the `Free` entries that it leads to are a chain without a circle; its end lies past the vector.
#[derive(Default)]
struct Book {
    entries: Vec<Entry>,
    free: usize,
}

enum Entry {
    /// Nobody's; what is free next.
    Free(usize),
    Used(Use),
}

struct Use {
    range: Range,
    /// The number of forks at its beginning.
    forks: u32,
    /// The thread that is thought to end it; 0 if any may.
    thread: u64,
}

/// Why a use does not begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The range is being invalidated.
    Busy,
    /// There is no memory to note it in.
    OutOfMemory,
    /// The book was in use by a thread that was not forked with this one.
    Lost,
}

/// A use in flight, by its place in the book.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ticket {
    index: usize,
}

/// What an invalidation finds in the book.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Nobody,
    Others,
    /// One that the calling thread began.
    Own,
}

impl Drain {
    pub(crate) fn new() -> Self {
        Drain { number: AtomicU32::new(0), book: Lock::new(Book::default()), over: Bell::new() }
    }

    /// Says whether no use is in flight. In the child of a fork it may say that there are uses of the parent.
    ///
    /// # Context
    /// Under the mirror's lock.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        // ORDERING: acquire pairs with the release in `leave`: what was done in the uses is over. Those that began
        // before are seen by the lock of the mirror.
        self.number.load(Ordering::Acquire) == 0
    }

    /// Begins a use of `range`, unless that is not quiet; the caller ends it with [`leave`](Self::leave).
    ///
    /// # Context
    /// Under the mirror's lock. Does not sleep. Allocates.
    #[inline]
    pub(crate) fn enter(&self, range: Range, is_quiet: impl Fn() -> bool) -> Result<Ticket, Refusal> {
        loop {
            let mut book = self.book.spin().ok_or(Refusal::Lost)?;
            if !is_quiet() {
                return Err(Refusal::Busy);
            }
            let new = Use { range, forks: fork::count(), thread: platform::thread_id() };
            if let Some(index) = book.add(new) {
                self.change_number(&book, |number| number + 1);
                return Ok(Ticket { index });
            }
            let capacity = book.entries.capacity();
            drop(book);
            self.grow((2 * capacity).max(4))?;
        }
    }

    /// Makes room for so many uses. Nothing is allocated or freed under the lock: an allocator's own space may
    /// be the one that is watched.
    #[cold]
    fn grow(&self, capacity: usize) -> Result<(), Refusal> {
        let mut entries = Vec::new();
        entries.try_reserve_exact(capacity).map_err(|_| Refusal::OutOfMemory)?;
        let mut book = self.book.spin().ok_or(Refusal::Lost)?;
        if book.entries.capacity() < entries.capacity() {
            entries.append(&mut book.entries);
            core::mem::swap(&mut entries, &mut book.entries);
        }
        drop(book);
        Ok(())
    }

    /// Ends a use.
    ///
    /// # Context
    /// Does not sleep.
    #[inline]
    pub(crate) fn leave(&self, ticket: Ticket) {
        let Some(mut book) = self.book.spin() else { return };
        book.remove(ticket.index);
        self.change_number(&book, |number| number - 1);
        drop(book);
        if self.over.is_heard() {
            self.over.ring();
        }
    }

    fn change_number(&self, _book: &Guard<'_, Book>, change: impl Fn(u32) -> u32) {
        // ORDERING: release, for `is_empty`; under the lock of the book, so who reads 0 has all earlier ends before it.
        self.number.store(change(self.number.load(Ordering::Relaxed)), Ordering::Release);
    }

    /// Says that any thread may be the one to end the use.
    pub(crate) fn give_away(&self, ticket: Ticket) {
        if let Some(mut book) = self.book.spin() {
            if let Entry::Used(used) = &mut book.entries[ticket.index] {
                used.thread = 0;
            }
        }
    }

    /// Waits until no use of the invalidation's range is in flight. False if it would have to wait and may not.
    ///
    /// # Context
    /// In the callback of that invalidation, which is published; sleeps only if it is blockable. Allocates
    /// nothing.
    pub(crate) fn wait_out(&self, what: &Invalidation, label: Option<&'static str>) -> bool {
        match self.find(what.range()) {
            Found::Nobody => return true,
            _ if !what.is_blockable() => return false,
            Found::Others => {}
            Found::Own => diagnostics::report(Rule::WaitForOwnUse, "invalidate_start", label),
        }
        self.over.wait_until(None, || self.find(what.range()) == Found::Nobody)
    }

    /// Says whether a use that the calling thread began is in flight.
    pub(crate) fn has_own(&self) -> bool {
        self.find(Range::ALL) == Found::Own
    }

    /// A lost book has no uses of this process in it: they would have had to be noted.
    fn find(&self, range: Range) -> Found {
        self.book.spin().map_or(Found::Nobody, |book| book.find(range))
    }
}

impl Book {
    /// Notes a use; none if there is no room.
    #[inline]
    fn add(&mut self, new: Use) -> Option<usize> {
        let index = self.free;
        if let Some(entry) = self.entries.get_mut(index) {
            if let Entry::Free(next) = *entry {
                self.free = next;
            }
            *entry = Entry::Used(new);
        } else if index < self.entries.capacity() {
            self.entries.push(Entry::Used(new));
            self.free = self.entries.len();
        } else {
            return None;
        }
        Some(index)
    }

    fn remove(&mut self, index: usize) {
        self.entries[index] = Entry::Free(self.free);
        self.free = index;
    }

    fn find(&self, range: Range) -> Found {
        let (forks, thread) = (fork::count(), platform::thread_id());
        let mut found = Found::Nobody;
        for entry in &self.entries {
            match entry {
                Entry::Used(used) if used.forks == forks && used.range.overlaps(range) => {
                    if used.thread == thread && thread != 0 {
                        return Found::Own;
                    }
                    found = Found::Others;
                }
                _ => {}
            }
        }
        found
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    fn range(start: u64) -> Range {
        Range::from_len(start, 1).unwrap()
    }

    #[test]
    fn places_are_used_again_and_room_grows() {
        let drain = Drain::new();
        let mut tickets: Vec<Ticket> = (0..20).map(|at| drain.enter(range(at), || true).unwrap()).collect();
        assert_eq!(
            tickets.iter().map(|ticket| ticket.index).collect::<Vec<_>>(),
            (0..20).collect::<Vec<_>>()
        );
        let mut free: Vec<usize> = Vec::new();
        for index in [3, 19, 0] {
            drain.leave(tickets[index]);
            assert_eq!(drain.find(range(index as u64)), Found::Nobody);
            free.push(index);
        }
        while let Some(index) = free.pop() {
            tickets[index] = drain.enter(range(100), || true).unwrap();
            assert_eq!(tickets[index].index, index);
        }
        assert_eq!(drain.enter(range(100), || true).unwrap().index, 20);
        assert_eq!(drain.enter(range(0), || false).unwrap_err(), Refusal::Busy);
    }

    #[cfg(feature = "std")] // Without a context nothing is anybody's own.
    #[test]
    fn a_use_given_away_is_nobodys_own() {
        let drain = Drain::new();
        let ticket = drain.enter(range(1), || true).unwrap();
        assert_eq!(drain.find(Range::ALL), Found::Own);
        drain.give_away(ticket);
        assert_eq!(drain.find(Range::ALL), Found::Others);
        assert_eq!(drain.find(range(2)), Found::Nobody);
    }
}
