//! Loom models: each goes through every order that the memory model allows one protocol of the crate.
//!
//! A model a file. Its head says which property it proves, and what a break of it would look like. The models
//! run the crate's own types, with pages, batches and reserves so small that a handful of calls fills them.
//! Memory that a protocol has to keep alive or in order is a [`Watch`], whose cell loom checks: a use that is
//! not ordered against the other ones fails, whether or not it happened at a bad time.
//!
//! Plain `core` atomics in a model are its observer's: loom runs all threads of a model on one, so they tell
//! what happened before what in the order of the run, and hide nothing by ordering it.

#![expect(unsafe_code, reason = "cells that loom checks are shared on purpose")]

mod begun;
mod bell;
mod claims;
mod detach;
mod epoch;
mod grace;
mod list;
mod lock;
mod reading;
mod replace;
mod scanning;
mod uses;
mod withdrawal;

use core::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::Arc;

use loom::cell::UnsafeCell;

use crate::hazard::Book;
use crate::interval::{self, Answer, Sequence};
use crate::{AddressSpace, Invalidation, Range};

/// Goes through the orders of `model` with so many preemptions at the most, or as many as
/// `LOOM_MAX_PREEMPTIONS` says.
fn check(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(preemptions));
    builder.max_branches = 20_000;
    builder.check(model);
}

/// A book, to be put where it stays before it is used.
fn book() -> Book {
    // SAFETY: so do the models.
    unsafe { Book::new(1) }
}

/// A space that intervals can be inserted in.
fn space() -> AddressSpace {
    let space = AddressSpace::new();
    space.register_nobody().expect("there is memory");
    space
}

fn range(first: u64, last: u64) -> Range {
    Range::from_first_last(first, last).expect("the bounds of a range")
}

/// What a subscriber leaves for the model to see.
#[derive(Debug)]
struct Watch {
    /// Read by every callback, written by the drop.
    memory: UnsafeCell<()>,
    calls: AtomicU32,
    drops: AtomicU32,
}

// SAFETY: loom fails a model that uses the cell from two threads without order.
unsafe impl Send for Watch {}
// SAFETY: as above.
unsafe impl Sync for Watch {}

impl Watch {
    fn new() -> Arc<Watch> {
        Arc::new(Watch { memory: UnsafeCell::new(()), calls: AtomicU32::new(0), drops: AtomicU32::new(0) })
    }

    fn called(&self) {
        assert_eq!(self.drops(), 0, "called after it was removed");
        self.memory.with(|_| ());
        self.calls.fetch_add(1, Relaxed);
        loom::thread::yield_now();
        assert_eq!(self.drops(), 0, "dropped while it was called");
    }

    fn calls(&self) -> u32 {
        self.calls.load(Relaxed)
    }

    fn drops(&self) -> u32 {
        self.drops.load(Relaxed)
    }
}

/// A subscriber whose callbacks use what its drop takes away.
struct Probe(Arc<Watch>);

impl interval::Notifier for Probe {
    fn invalidate(&self, _: &Invalidation, _: Sequence) -> Answer {
        self.0.called();
        Answer::Done
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        // Others may do something before it is gone.
        loom::thread::yield_now();
        self.0.memory.with_mut(|_| ());
        self.0.drops.fetch_add(1, Relaxed);
    }
}
