//! Subscriptions to a range (clause C3): the core's `Interval` in the private part of C's structure.
//!
//! `invalidate_seq` has what the core's sequence has, so that a reader's check is one load in the header. It is
//! [`NONE`] outside of a space; the first sequence goes in only if no callback has set one meanwhile.

#![expect(unsafe_code, reason = "structures of C")]

use std::ffi::{c_int, c_ulong};
use std::mem::offset_of;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU64, Ordering};

use notifier::interval::{Answer, InsertErrorKind, Options, Sequence};
use notifier::intrusive::{Interval, IntervalCallbacks};
use notifier::{Invalidation, MapLockGuard, Range};

use crate::call::{call, mark_of};
use crate::errno::{BAD_ARGUMENT, EOVERFLOW, Errno, answer};
use crate::mm::{mm_of, mm_struct};
use crate::range;
use crate::report::misuse;
use crate::second_pass;
use crate::types::{mmu_interval_notifier, mmu_interval_notifier_finish, mmu_interval_notifier_ops};

/// No sequence: every token differs from it.
const NONE: u64 = u64::MAX;

static CALLBACKS: IntervalCallbacks = IntervalCallbacks { invalidate, finish };

/// The structure around an interval.
fn around(interval: NonNull<Interval>) -> *mut mmu_interval_notifier {
    interval.as_ptr().wrapping_byte_sub(offset_of!(mmu_interval_notifier, interval)).cast()
}

/// # Safety
/// The interval lies in a structure of C, and is inserted.
unsafe fn invalidate(interval: NonNull<Interval>, what: &Invalidation, seq: Sequence) -> Answer {
    let this = around(interval);
    // SAFETY: as promised by the caller.
    let ops = unsafe { (*this).ops };
    // SAFETY: as promised by the caller.
    let mm = unsafe { (*this).mm };
    let range = range::of_callback(what, mm);
    // SAFETY: checked by the insert; the user keeps the table.
    let ops = unsafe { &*ops };
    let Some(start) = ops.invalidate_start else {
        let Some(invalidate) = ops.invalidate else { return Answer::Done };
        // SAFETY: the user's callback, with what it was inserted with.
        let accepted = unsafe { invalidate(this, range, seq.get()) };
        return if accepted { Answer::Done } else { Answer::Refused };
    };
    let mut finish: *mut mmu_interval_notifier_finish = ptr::null_mut();
    // SAFETY: as above.
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

/// # Safety
/// As for [`invalidate`], which answered "begun".
unsafe fn finish(interval: NonNull<Interval>, what: &Invalidation) {
    let this = around(interval);
    // SAFETY: as promised by the caller.
    let ops = unsafe { (*this).ops };
    // SAFETY: as promised by the caller.
    let mm = unsafe { (*this).mm };
    // SAFETY: the range of the start that calls.
    let finish = unsafe { second_pass::take(range::of_callback(what, mm), this) };
    // SAFETY: checked by the insert; the user keeps the table.
    if let (Some(callback), false) = (unsafe { &*ops }.invalidate_finish, finish.is_null()) {
        // SAFETY: the user's callback, with what its first pass gave.
        unsafe { callback(finish) };
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
        let complete = |ops: &mmu_interval_notifier_ops| match ops.invalidate_start {
            Some(_) => ops.invalidate_finish.is_some(),
            None => ops.invalidate.is_some(),
        };
        if self.this.is_null() || !ops.is_some_and(complete) {
            misuse(name, "the subscription, its ops, and invalidate (or start and finish) must not be NULL");
            return Err(BAD_ARGUMENT);
        }
        // SAFETY: as promised by the caller.
        if unsafe { is_in(self.this) } {
            misuse(name, "one that is in a space must be removed before it is inserted again");
            return Err(BAD_ARGUMENT);
        }
        self.prepare(range);
        let result = self.enter(name, mm, range, lock);
        let this = self.this;
        match result {
            Ok(()) => {
                // SAFETY: it is inserted.
                let first = unsafe { interval_of(this).as_ref() }.sequence().map_or(NONE, Sequence::get);
                // SAFETY: as above.
                let seq = unsafe { &*mmu_interval_notifier::invalidate_seq(this) };
                let _ = seq.compare_exchange(NONE, first, Ordering::Relaxed, Ordering::Relaxed);
            }
            Err(_) => {
                // SAFETY: it is not inserted, so nobody else uses it.
                unsafe { mmu_interval_notifier::mark(this).write(0) };
                // SAFETY: as above.
                unsafe { mmu_interval_notifier::mm(this).write(ptr::null_mut()) };
            }
        }
        result
    }

    /// Writes all of the structure that the library uses.
    fn prepare(&self, range: Range) {
        let this = self.this;
        // SAFETY: the caller's memory, which is in no space.
        unsafe { mmu_interval_notifier::start(this).write(range.start().get()) };
        // SAFETY: as above.
        unsafe { mmu_interval_notifier::last(this).write(range.last().get()) };
        // SAFETY: as above.
        unsafe { mmu_interval_notifier::ops(this).write(self.ops) };
        // SAFETY: as above.
        unsafe { mmu_interval_notifier::mm(this).write(self.mm) };
        // SAFETY: as above.
        unsafe { mmu_interval_notifier::invalidate_seq(this).write(AtomicU64::new(NONE)) };
        // SAFETY: as above.
        unsafe { interval_of(this).write(Interval::with_own_sequence(&CALLBACKS)) };
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
    call(NAME, || answer(unsafe { request.insert(NAME, Lock::Free) }))
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
    call(NAME, || answer(unsafe { request.insert(NAME, Lock::Held) }))
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
    call(NAME, || {
        // SAFETY: the caller's subscription.
        let Some(interval) = (unsafe { inserted(this, NAME) }) else { return };
        // CONTRACT C3.7: diagnosed; the second pass is not made.
        if second_pass::forget(this) {
            misuse(NAME, "a subscription that stands between its two passes must not be removed");
        }
        // SAFETY: it was inserted; that it is not its own callback is the caller's part, and diagnosed.
        unsafe { Interval::remove(interval) };
        // SAFETY: the memory is the caller's, who is here.
        unsafe { &*mmu_interval_notifier::invalidate_seq(this) }.store(NONE, Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { mmu_interval_notifier::mark(this).write(0) };
    });
}

#[unsafe(no_mangle)]
unsafe extern "C" fn mmu_interval_read_begin(this: *mut mmu_interval_notifier) -> c_ulong {
    const NAME: &str = "mmu_interval_read_begin";
    call(NAME, || {
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
    call(NAME, || {
        // SAFETY: the caller's subscription.
        let Some(interval) = (unsafe { inserted(this, NAME) }) else { return };
        // SAFETY: it is inserted, and this is its callback.
        unsafe { interval.as_ref() }.set_sequence(seq);
        // ORDERING: release; who reads it (acquire, in the header) sees what the callback did before.
        // SAFETY: as above.
        unsafe { &*mmu_interval_notifier::invalidate_seq(this) }.store(seq, Ordering::Release);
    });
}
