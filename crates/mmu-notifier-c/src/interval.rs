//! Subscriptions to a range (clause C3): the core's `Interval` in the private part of C's structure.
//!
//! `invalidate_seq` is the core's own sequence, so that a hit writes, and a reader's check loads, one word. It is
//! [`NONE`] outside of a space.

#![expect(unsafe_code, reason = "structures of C")]

use std::ffi::{c_int, c_ulong};
use std::mem::{self, offset_of};
use std::ptr::{self, NonNull};
use std::sync::atomic::Ordering;

use notifier::interval::{Answer, InsertErrorKind, Options, Sequence};
use notifier::intrusive::{Direct, Interval, IntervalCallbacks, IntervalOps};
use notifier::{Invalidation, MapLockGuard, Range};

use crate::call::{call, mark_of};
use crate::errno::{BAD_ARGUMENT, EOVERFLOW, Errno, answer};
use crate::mm::{mm_of, mm_struct};
use crate::range;
use crate::report::misuse;
use crate::second_pass;
use crate::types::{
    Invalidate, mmu_interval_notifier, mmu_interval_notifier_finish, mmu_interval_notifier_ops,
    mmu_notifier_range,
};

/// No sequence: every token differs from it.
const NONE: u64 = u64::MAX;

/// Subscriptions whose table has `invalidate`.
struct OnePass;

/// Subscriptions whose table has `invalidate_start` and `invalidate_finish`.
struct TwoPasses;

static ONE_PASS: IntervalCallbacks = IntervalCallbacks::of::<OnePass>();
static TWO_PASSES: IntervalCallbacks = IntervalCallbacks::of::<TwoPasses>();

/// The structure that begins with an interval.
fn around(interval: NonNull<Interval>) -> *mut mmu_interval_notifier {
    const { assert!(offset_of!(mmu_interval_notifier, interval) == 0) };
    interval.as_ptr().cast()
}

/// The range that a callback of this subscription gets.
///
/// # Safety
/// It is inserted, and hit by this invalidation.
unsafe fn range_for(this: *mut mmu_interval_notifier, what: &Invalidation) -> *mut mmu_notifier_range {
    // SAFETY: as promised by the caller.
    range::of_callback(what, || unsafe { (*this).mm })
}

/// A driver's `invalidate` as the core calls it.
fn direct(invalidate: Invalidate) -> Direct {
    // SAFETY: they differ in what their pointers lead to: the structure, which begins with its interval; and the range,
    // which travels as the owner's word, its provenance exposed.
    unsafe { mem::transmute::<Invalidate, Direct>(invalidate) }
}

impl IntervalOps for OnePass {
    unsafe fn invalidate(interval: NonNull<Interval>, what: &Invalidation, seq: Sequence) -> Answer {
        let this = around(interval);
        // SAFETY: the interval lies in a structure of C, and is inserted.
        let ops = unsafe { (*this).ops };
        // SAFETY: checked by the insert; the user keeps the table.
        let Some(invalidate) = (unsafe { (*ops).invalidate }) else { return Answer::Done };
        // SAFETY: as above; this invalidation hits it.
        let range = unsafe { range_for(this, what) };
        // SAFETY: the user's callback, with what it was inserted with.
        if unsafe { invalidate(this, range, seq.get()) } { Answer::Done } else { Answer::Refused }
    }

    unsafe fn finish(_: NonNull<Interval>, _: &Invalidation) {}
}

impl IntervalOps for TwoPasses {
    unsafe fn invalidate(interval: NonNull<Interval>, what: &Invalidation, seq: Sequence) -> Answer {
        let this = around(interval);
        // SAFETY: the interval lies in a structure of C, and is inserted.
        let ops = unsafe { (*this).ops };
        // SAFETY: checked by the insert; the user keeps the table.
        let Some(start) = (unsafe { (*ops).invalidate_start }) else { return Answer::Done };
        // SAFETY: as above; this invalidation hits it.
        let range = unsafe { range_for(this, what) };
        let mut finish: *mut mmu_interval_notifier_finish = ptr::null_mut();
        // SAFETY: the user's callback, with what it was inserted with.
        if !unsafe { start(this, range, seq.get(), &mut finish) } {
            return Answer::Refused;
        }
        if finish.is_null() {
            return Answer::Done;
        }
        // SAFETY: the driver's memory, which it gives until the second pass.
        unsafe { (*finish).notifier = this };
        // SAFETY: the range of the start that calls; see above.
        unsafe { second_pass::push(range, finish) };
        Answer::Begun
    }

    unsafe fn finish(interval: NonNull<Interval>, what: &Invalidation) {
        let this = around(interval);
        // SAFETY: as promised by the caller: the first pass has begun it.
        let ops = unsafe { (*this).ops };
        // SAFETY: as above.
        let range = unsafe { range_for(this, what) };
        // SAFETY: the range of the start that calls.
        let finish = unsafe { second_pass::take(range, this) };
        // SAFETY: checked by the insert; the user keeps the table.
        if let (Some(callback), false) = (unsafe { (*ops).invalidate_finish }, finish.is_null()) {
            // SAFETY: the user's callback, with what its first pass gave.
            unsafe { callback(finish) };
        }
    }
}

/// Says whether the structure holds an interval that was inserted.
///
/// # Safety
/// It is memory of a structure of C.
unsafe fn is_in(this: *mut mmu_interval_notifier) -> bool {
    // SAFETY: as promised by the caller; C may not have written the word, which volatile keeps from mattering.
    (unsafe { mmu_interval_notifier::mark(this).read_volatile() }) == mark_of(this.cast())
}

fn interval_of(this: *mut mmu_interval_notifier) -> NonNull<Interval> {
    // SAFETY: the callers have seen that `this` is not NULL, and the field lies behind its start.
    unsafe { NonNull::new_unchecked(mmu_interval_notifier::interval(this)) }
}

/// Who has the map lock.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lock {
    /// The caller.
    Held,
    /// Nobody: it is taken if it is needed.
    Free,
}

/// What an insert needs.
struct Request {
    this: *mut mmu_interval_notifier,
    mm: *mut mm_struct,
    start: c_ulong,
    length: c_ulong,
    ops: *const mmu_interval_notifier_ops,
}

impl Request {
    /// # Safety
    /// - The structure is memory of the caller, who keeps it where it is until the remove.
    /// - The mm is NULL or has a holder; the table is NULL or stays as long as the subscription.
    unsafe fn insert(&self, name: &'static str, lock: Lock) -> Result<(), Errno> {
        // CONTRACT C3.3: looked at first.
        let range = Range::from_len(self.start, self.length).map_err(|_| Errno(-EOVERFLOW))?;
        // SAFETY: as promised by the caller.
        let mm = unsafe { mm_of(self.mm, name) }.ok_or(BAD_ARGUMENT)?;
        // SAFETY: as promised by the caller.
        let ops = unsafe { self.ops.as_ref() };
        let complete = |ops: &&mmu_interval_notifier_ops| match ops.invalidate_start {
            Some(_) => ops.invalidate_finish.is_some(),
            None => ops.invalidate.is_some(),
        };
        let Some(ops) = ops.filter(|ops| !self.this.is_null() && complete(ops)) else {
            misuse(name, "the subscription, its ops, and invalidate (or start and finish) must not be NULL");
            return Err(BAD_ARGUMENT);
        };
        // SAFETY: as promised by the caller.
        if unsafe { is_in(self.this) } {
            misuse(name, "one that is in a space must be removed before it is inserted again");
            return Err(BAD_ARGUMENT);
        }
        self.prepare(ops);
        let result = self.enter(name, mm, range, lock);
        if result.is_err() {
            // SAFETY: it is not inserted, so nobody else uses it.
            unsafe { mmu_interval_notifier::mark(self.this).write(0) };
            // SAFETY: as above.
            unsafe { mmu_interval_notifier::mm(self.this).write(ptr::null_mut()) };
            // SAFETY: as above.
            unsafe { mmu_interval_notifier::invalidate_seq(self.this).write(NONE.into()) };
        }
        result
    }

    /// Writes what the library uses, and the core does not write.
    fn prepare(&self, ops: &mmu_interval_notifier_ops) {
        let this = self.this;
        // SAFETY: the caller's memory, which is in no space.
        unsafe { mmu_interval_notifier::ops(this).write(self.ops) };
        // SAFETY: as above.
        unsafe { mmu_interval_notifier::mm(this).write(self.mm) };
        let interval = match ops.invalidate {
            Some(invalidate) if ops.invalidate_start.is_none() => {
                Interval::with_direct(&ONE_PASS, direct(invalidate))
            }
            _ => Interval::with_own_sequence(&TWO_PASSES),
        };
        // SAFETY: as above.
        unsafe { interval_of(this).write(interval) };
        // SAFETY: as above; the interval is there now.
        unsafe { mmu_interval_notifier::mark(this).write(mark_of(this.cast())) };
    }

    fn enter(&self, name: &'static str, mm: &mm_struct, range: Range, lock: Lock) -> Result<(), Errno> {
        let (interval, space) = (interval_of(self.this), mm.space());
        let locked = |guard: &MapLockGuard<'_>| -> Result<(), InsertErrorKind> {
            // SAFETY: `insert`'s caller keeps the structure where it is; it was prepared.
            unsafe { Interval::insert_locked(interval, space, guard, range, Options::new()) }
        };
        match lock {
            Lock::Held => mm.change(&*mm.held_lock(name)?, locked)?,
            // By the core's word, which stays: that of the structure may be taken back by a registration that fails.
            Lock::Free if mm.space().has_notifiers() => {
                // SAFETY: as above.
                unsafe { Interval::insert(interval, space, range, Options::new()) }?;
            }
            Lock::Free => mm.change(&mm.lock(), locked)?,
        }
        Ok(())
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn mmu_interval_notifier_insert(
    this: *mut mmu_interval_notifier,
    mm: *mut mm_struct,
    start: c_ulong,
    length: c_ulong,
    ops: *const mmu_interval_notifier_ops,
) -> c_int {
    const NAME: &str = "mmu_interval_notifier_insert";
    let request = Request { this, mm, start, length, ops };
    // SAFETY: as the caller owes.
    call!(NAME, || answer(unsafe { request.insert(NAME, Lock::Free) }))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn mmu_interval_notifier_insert_locked(
    this: *mut mmu_interval_notifier,
    mm: *mut mm_struct,
    start: c_ulong,
    length: c_ulong,
    ops: *const mmu_interval_notifier_ops,
) -> c_int {
    const NAME: &str = "mmu_interval_notifier_insert_locked";
    let request = Request { this, mm, start, length, ops };
    // SAFETY: as the caller owes.
    call!(NAME, || answer(unsafe { request.insert(NAME, Lock::Held) }))
}

/// The interval in the structure; none, diagnosed, if it is not inserted.
///
/// # Safety
/// It is NULL, or memory of a structure of C.
unsafe fn inserted(this: *mut mmu_interval_notifier, name: &'static str) -> Option<NonNull<Interval>> {
    // SAFETY: as promised by the caller.
    if !this.is_null() && unsafe { is_in(this) } {
        return Some(interval_of(this));
    }
    misuse(name, "the subscription is in no space: insert it first, remove it once");
    None
}

#[unsafe(no_mangle)]
unsafe extern "C" fn mmu_interval_notifier_remove(this: *mut mmu_interval_notifier) {
    const NAME: &str = "mmu_interval_notifier_remove";
    call!(NAME, || {
        // SAFETY: the caller's subscription.
        let Some(interval) = (unsafe { inserted(this, NAME) }) else { return };
        // CONTRACT C3.7: diagnosed; the second pass is not made.
        if second_pass::forget(this) {
            misuse(NAME, "a subscription that stands between its two passes must not be removed");
        }
        // SAFETY: it was inserted; that it is not its own callback is the caller's part, and diagnosed.
        unsafe { Interval::remove(interval) };
        // SAFETY: the memory is the caller's, who is here; the word is read without a lock, as a hint.
        unsafe { &*mmu_interval_notifier::invalidate_seq(this) }.store(NONE, Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { mmu_interval_notifier::mark(this).write(0) };
    });
}

#[unsafe(no_mangle)]
unsafe extern "C" fn mmu_interval_read_begin(this: *mut mmu_interval_notifier) -> c_ulong {
    const NAME: &str = "mmu_interval_read_begin";
    call!(NAME, || {
        // SAFETY: the caller's subscription.
        let interval = unsafe { inserted(this, NAME) };
        // SAFETY: it is inserted, and its user does not remove it meanwhile.
        let token = interval.and_then(|interval| unsafe { interval.as_ref() }.read_begin());
        // No sequence is 0 once inserted, so what was read is thrown away.
        token.map_or(0, Sequence::get)
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn mmu_interval_set_seq(this: *mut mmu_interval_notifier, seq: c_ulong) {
    const NAME: &str = "mmu_interval_set_seq";
    call!(NAME, || {
        // SAFETY: the caller's subscription.
        let Some(interval) = (unsafe { inserted(this, NAME) }) else { return };
        // SAFETY: it is inserted, and this is its callback.
        unsafe { interval.as_ref() }.set_sequence(seq);
    });
}
