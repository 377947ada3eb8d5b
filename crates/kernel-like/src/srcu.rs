//! Sleepable RCU: one domain for all lists of the process.
//!
//! Each thread has a slot with two counters of the read sections that it is in. A section counts in the one that
//! the domain's index names. A grace period waits for the counters that are not named, lets the index name them, and
//! waits for the others: sections that begin meanwhile do not prolong it.
//!
//! A section does *count, full fence, read*; a grace period is called after a change and does *full fence, look at
//! each counter*. So a section that it does not find counted sees the change. Slots are never freed; a thread that
//! goes leaves its own to the next one.

use std::cell::Cell;
use std::hint;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering, fence};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

/// The counters of a thread.
#[derive(Debug)]
#[repr(align(64))]
struct Slot {
    /// Written by the thread that has the slot.
    inside: [AtomicU32; 2],
    taken: AtomicBool,
    next: OnceLock<Box<Slot>>,
}

/// The first slot; the others hang on it.
static FIRST: Slot = Slot::new(false);
/// Which counter new sections use.
static INDEX: AtomicUsize = AtomicUsize::new(0);
/// Held by a grace period.
static GRACE: Mutex<()> = Mutex::new(());

thread_local! {
    static OWN: Cell<Option<&'static Slot>> = const { Cell::new(None) };
    static LEAVING: Leaving = const { Leaving };
}

/// A read section. It ends on the thread that it began on.
pub(crate) struct Section {
    inside: &'static AtomicU32,
}

/// Begins a read section.
#[inline]
pub(crate) fn read() -> Section {
    let slot = OWN.get().unwrap_or_else(take_slot);
    // ORDERING: an old index will do: a grace period waits for both counters.
    let inside = &slot.inside[INDEX.load(Ordering::Relaxed) & 1];
    // ORDERING: only this thread writes it; the fence pairs with the one in `synchronize`: that sees the count, or
    // this section what was changed before.
    inside.store(inside.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    fence(Ordering::SeqCst);
    Section { inside }
}

impl Drop for Section {
    #[inline]
    fn drop(&mut self) {
        fence(Ordering::SeqCst);
        // ORDERING: pairs with the load in `wait_for`: who sees it sees all that the section did.
        self.inside.store(self.inside.load(Ordering::Relaxed) - 1, Ordering::Release);
    }
}

/// Waits until each section that began before is over.
pub(crate) fn synchronize() {
    // ORDERING: pairs with the fence in `read`.
    fence(Ordering::SeqCst);
    let _one_at_a_time = GRACE.lock().unwrap_or_else(PoisonError::into_inner);
    for _ in 0..2 {
        // ORDERING: it is written under the lock only; readers need no order.
        let index = INDEX.load(Ordering::Relaxed) & 1;
        wait_for(1 - index);
        INDEX.store(1 - index, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }
}

fn wait_for(index: usize) {
    for slot in slots() {
        let mut looks = 0;
        // ORDERING: pairs with the store in `Section::drop`.
        while slot.inside[index].load(Ordering::Acquire) != 0 {
            looks += 1;
            match looks {
                0..200 => hint::spin_loop(),
                200..400 => thread::yield_now(),
                _ => thread::sleep(Duration::from_micros(50)),
            }
        }
    }
}

fn slots() -> impl Iterator<Item = &'static Slot> {
    std::iter::successors(Some(&FIRST), |slot| slot.next.get().map(|next| &**next))
}

/// Takes a slot that a thread left, or a new one.
#[cold]
fn take_slot() -> &'static Slot {
    // ORDERING: pairs with the store in `Leaving::drop`: the counters of who left are seen.
    let free = slots().find(|slot| !slot.taken.swap(true, Ordering::Acquire));
    let slot = free.unwrap_or_else(add_slot);
    OWN.set(Some(slot));
    // A section in a destructor of the thread comes too late for this: the slot is then lost.
    let _ = LEAVING.try_with(|_| ());
    slot
}

fn add_slot() -> &'static Slot {
    let mut new = Box::new(Slot::new(true));
    loop {
        let last = slots().last().expect("there is the first one");
        match last.next.set(new) {
            Ok(()) => return last.next.get().expect("it was set"),
            Err(back) => new = back,
        }
    }
}

impl Slot {
    const fn new(taken: bool) -> Self {
        Self {
            inside: [AtomicU32::new(0), AtomicU32::new(0)],
            taken: AtomicBool::new(taken),
            next: OnceLock::new(),
        }
    }
}

/// Gives the slot back when the thread goes.
struct Leaving;

impl Drop for Leaving {
    fn drop(&mut self) {
        if let Some(slot) = OWN.take() {
            // ORDERING: pairs with the swap in `take_slot`.
            slot.taken.store(false, Ordering::Release);
        }
    }
}
