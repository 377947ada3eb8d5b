//! Frees that put has begun and that have not run yet, of all spaces: what [`synchronize`] waits for.
//!
//! Each put of a last user takes a ticket. The tickets are in one list, in order, under one lock that is held
//! for a few instructions. A node with a ticket holds its space, so a space that is found here is alive.

#![expect(unsafe_code, reason = "tickets are linked through raw pointers under a lock")]

use core::cell::{Cell, UnsafeCell};
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicBool, Ordering};

use crate::space::{AddressSpaceRef, Space};

/// The place of a node among the frees that are under way.
#[derive(Debug)]
pub(crate) struct Ticket {
    number: Cell<u64>,
    space: Cell<Option<NonNull<Space>>>,
    previous: Cell<*const Ticket>,
    next: Cell<*const Ticket>,
    state: Cell<State>,
}

/// What a ticket stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// It is in no list.
    Out,
    /// Its free waits for walks, or for a call that may sleep.
    Waiting,
    /// Its free runs.
    Running,
}

impl Ticket {
    pub(crate) fn new() -> Self {
        Ticket {
            number: Cell::new(0),
            space: Cell::new(None),
            previous: Cell::new(ptr::null()),
            next: Cell::new(ptr::null()),
            state: Cell::new(State::Out),
        }
    }
}

/// The list; used under `held`.
struct Frees {
    held: AtomicBool,
    list: UnsafeCell<Tickets>,
}

struct Tickets {
    first: *const Ticket,
    last: *const Ticket,
    given: u64,
}

// SAFETY: the list is used under `held`.
unsafe impl Sync for Frees {}

static FREES: Frees = Frees {
    held: AtomicBool::new(false),
    list: UnsafeCell::new(Tickets { first: ptr::null(), last: ptr::null(), given: 0 }),
};

impl Frees {
    fn with<R>(&self, change: impl FnOnce(&mut Tickets) -> R) -> R {
        let mut turns = 0;
        while self.held.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_err() {
            crate::platform::relax(&mut turns);
        }
        // SAFETY: `held` was taken; `change` is code of this module, which does not come back here.
        let result = change(unsafe { &mut *self.list.get() });
        self.held.store(false, Ordering::Release);
        result
    }
}

/// Says that the free of the node with this ticket is under way in `space`.
pub(crate) fn begin(ticket: &Ticket, space: &AddressSpaceRef) {
    FREES.with(|tickets| {
        tickets.given += 1;
        ticket.number.set(tickets.given);
        ticket.space.set(Some(space.as_raw()));
        ticket.state.set(State::Waiting);
        ticket.previous.set(tickets.last);
        ticket.next.set(ptr::null());
        // SAFETY: tickets in the list belong to nodes that are not freed yet.
        match unsafe { tickets.last.as_ref() } {
            Some(last) => last.next.set(ticket),
            None => tickets.first = ticket,
        }
        tickets.last = ticket;
    });
}

/// Says that the free of the node runs now.
pub(crate) fn run(ticket: &Ticket) {
    FREES.with(|_| ticket.state.set(State::Running));
}

impl Tickets {
    /// Takes a ticket out of the list, if it is in it.
    fn take_out(&mut self, ticket: &Ticket) {
        if ticket.state.replace(State::Out) == State::Out {
            return;
        }
        let (previous, next) = (ticket.previous.get(), ticket.next.get());
        // SAFETY: tickets in the list belong to nodes that are not freed yet.
        match unsafe { previous.as_ref() } {
            Some(previous) => previous.next.set(next),
            None => self.first = next,
        }
        // SAFETY: as above.
        match unsafe { next.as_ref() } {
            Some(next) => next.previous.set(previous),
            None => self.last = previous,
        }
    }
}

/// Says that it has run, and tells who waits in [`synchronize`]. The caller holds the space.
pub(crate) fn end(ticket: &Ticket, space: &Space) {
    FREES.with(|tickets| tickets.take_out(ticket));
    if let Some(subscriptions) = space.subscriptions().filter(|subscriptions| subscriptions.freed.is_heard())
    {
        subscriptions.freed.ring();
    }
}

/// Puts `to` in the place of `from`, whose node is about to be given back to its user by its free.
pub(crate) fn move_on(from: &Ticket, to: &Ticket) {
    FREES.with(|tickets| {
        let (previous, next) = (from.previous.get(), from.next.get());
        to.number.set(from.number.get());
        to.space.set(from.space.get());
        to.state.set(from.state.replace(State::Out));
        to.previous.set(previous);
        to.next.set(next);
        // SAFETY: tickets in the list belong to nodes that are not freed yet.
        match unsafe { previous.as_ref() } {
            Some(previous) => previous.next.set(to),
            None => tickets.first = to,
        }
        // SAFETY: as above.
        match unsafe { next.as_ref() } {
            Some(next) => next.previous.set(to),
            None => tickets.last = to,
        }
    });
}

/// Waits until every free that a put before this call has begun has run, in every space (clause C4.4).
///
/// Code that holds callbacks calls it before it is unloaded.
///
/// # Context
/// May sleep. Not in a callback, which it would wait for.
pub fn synchronize() {
    crate::diagnostics::synchronize();
    // CONTRACT C7.4: what detach left has no ticket.
    let has_left = |space: &Space| space.subscriptions().is_some_and(|found| found.hooks.has_ready());
    while let Some(space) = crate::fork::find(has_left) {
        space.watched().may_sleep();
    }
    let mine = FREES.with(|tickets| tickets.given);
    while let Some((number, space)) = oldest(mine) {
        let Some(subscriptions) = space.space().subscriptions() else { return };
        // A space may have left the free to a call like this one.
        subscriptions.may_sleep();
        subscriptions.count_wait();
        let has_run = || oldest_number().is_none_or(|oldest| oldest > number);
        // Or it became ready meanwhile, and was left to this call.
        subscriptions.freed.wait_until(None, || has_run() || subscriptions.hooks.has_ready());
    }
}

/// The oldest free that is under way and has a number up to `limit`, with its space.
fn oldest(limit: u64) -> Option<(u64, AddressSpaceRef)> {
    FREES.with(|tickets| {
        // SAFETY: tickets in the list belong to nodes that are not freed yet.
        let first = unsafe { tickets.first.as_ref() }?;
        if first.number.get() > limit {
            return None;
        }
        // SAFETY: the node of the ticket holds its space until the ticket is out of the list.
        let space = unsafe { AddressSpaceRef::from_held(first.space.get()?) };
        Some((first.number.get(), space))
    })
}

fn oldest_number() -> Option<u64> {
    // SAFETY: tickets in the list belong to nodes that are not freed yet.
    FREES.with(|tickets| unsafe { tickets.first.as_ref() }.map(|first| first.number.get()))
}

/// Keeps the tickets as they are around a fork.
pub(crate) fn lock_for_fork() {
    let mut turns = 0;
    while FREES.held.swap(true, Ordering::Acquire) {
        crate::platform::relax(&mut turns);
    }
}

/// In the child of a fork, which holds the lock: frees that another thread was running are over there.
pub(crate) fn forget_running() {
    // SAFETY: the lock is held since before the fork.
    let tickets = unsafe { &mut *FREES.list.get() };
    let mut at = tickets.first;
    // SAFETY: tickets in the list belong to nodes that are not freed yet.
    while let Some(ticket) = unsafe { at.as_ref() } {
        at = ticket.next.get();
        if ticket.state.get() == State::Running {
            tickets.take_out(ticket);
        }
    }
}

/// Lets them change again.
pub(crate) fn unlock_after_fork() {
    FREES.held.store(false, Ordering::Release);
}
