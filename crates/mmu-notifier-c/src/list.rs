//! Subscriptions to a whole space (clause C4): the core's `Listener` in the private part of C's structure.
//!
//! `hlist` says whether it is on the list, `users` how many have got it; both are for C to look at only.

#![expect(unsafe_code, reason = "structures of C")]

use std::ffi::{c_int, c_long};
use std::mem::{MaybeUninit, offset_of};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use notifier::intrusive::{Listener, ListenerCallbacks, ListenerOps, Question};
use notifier::list::WouldBlock;
use notifier::{Address, Invalidation, MapLockGuard, Pte, Range};

use crate::call::{call, mark_of};
use crate::errno::{BAD_ARGUMENT, EAGAIN, Errno, answer};
use crate::mm::{mm_of, mm_struct};
use crate::range::{self, end_of};
use crate::report::misuse;
use crate::types::{mmu_notifier, mmu_notifier_ops, mmu_notifier_range, pte_t};

/// Subscriptions of C, with `invalidate_range` in their table or, as most, without.
struct Listening<const FLUSHES: bool>;

static CALLBACKS: ListenerCallbacks = ListenerCallbacks::of::<Listening<false>>();
static CALLBACKS_THAT_FLUSH: ListenerCallbacks = ListenerCallbacks::of::<Listening<true>>();

/// The structure around a listener, with its table and its mm.
///
/// # Safety
/// The listener lies in a structure of C, and is registered.
unsafe fn around<'o>(
    listener: NonNull<Listener>,
) -> (*mut mmu_notifier, &'o mmu_notifier_ops, impl Fn() -> *mut mm_struct) {
    let this: *mut mmu_notifier =
        listener.as_ptr().wrapping_byte_sub(offset_of!(mmu_notifier, listener)).cast();
    // SAFETY: as promised by the caller.
    let ops = unsafe { (*this).ops };
    // SAFETY: as promised by the caller.
    let mm = move || unsafe { (*this).mm };
    // SAFETY: checked by the registration; the user keeps the table.
    (this, unsafe { &*ops }, mm)
}

impl<const FLUSHES: bool> ListenerOps for Listening<FLUSHES> {
    unsafe fn release(listener: NonNull<Listener>) {
        // SAFETY: as promised by the caller.
        let (this, ops, mm) = unsafe { around(listener) };
        if let Some(callback) = ops.release {
            // SAFETY: the user's callback.
            unsafe { callback(this, mm()) };
        }
        // SAFETY: it is alive until its unregister has returned.
        unsafe { set_hashed(this, false) };
    }

    unsafe fn invalidate_range_start(
        listener: NonNull<Listener>,
        what: &Invalidation,
    ) -> Result<(), WouldBlock> {
        // SAFETY: as promised by the caller.
        let (this, ops, _) = unsafe { around(listener) };
        let Some(callback) = ops.invalidate_range_start else { return Ok(()) };
        let range = range::of_start(what);
        // SAFETY: the user's callback.
        let result = unsafe { callback(this, range) };
        // SAFETY: the range of the start that calls, which runs on this thread.
        if result == 0 { Ok(()) } else { Err(unsafe { refused(range, result) }) }
    }

    unsafe fn invalidate_range_end(listener: NonNull<Listener>, what: &Invalidation) {
        // SAFETY: as promised by the caller.
        let (this, ops, _) = unsafe { around(listener) };
        if let Some(callback) = ops.invalidate_range_end {
            // SAFETY: the user's callback.
            unsafe { callback(this, range::of_start(what)) };
        }
    }

    unsafe fn invalidate_range(listener: NonNull<Listener>, range: Range) {
        if !FLUSHES {
            return;
        }
        // SAFETY: as promised by the caller.
        let (this, ops, mm) = unsafe { around(listener) };
        if let Some(callback) = ops.invalidate_range {
            // SAFETY: the user's callback.
            unsafe { callback(this, mm(), range.start().get(), end_of(range)) };
        }
    }

    unsafe fn young(listener: NonNull<Listener>, question: Question) -> bool {
        // SAFETY: as promised by the caller.
        let (this, ops, mm) = unsafe { around(listener) };
        let mm = mm();
        let (callback, range) = match question {
            Question::ClearFlush(range) => (ops.clear_flush_young, range),
            Question::Clear(range) => (ops.clear_young, range),
            Question::Test(address) => {
                // SAFETY: the user's callback.
                return ops
                    .test_young
                    .is_some_and(|callback| unsafe { callback(this, mm, address.get()) } != 0);
            }
        };
        let (first, last) = (range.start().get(), end_of(range));
        // SAFETY: the user's callback.
        callback.is_some_and(|callback| unsafe { callback(this, mm, first, last) } != 0)
    }

    unsafe fn change_pte(listener: NonNull<Listener>, address: Address, pte: Pte) {
        // SAFETY: as promised by the caller.
        let (this, ops, mm) = unsafe { around(listener) };
        if let Some(callback) = ops.change_pte {
            // SAFETY: the user's callback.
            unsafe { callback(this, mm(), address.get(), pte_t(pte.0)) };
        }
    }

    unsafe fn free(listener: NonNull<Listener>) {
        // SAFETY: as promised by the caller.
        let (this, ops, _) = unsafe { around(listener) };
        // SAFETY: the memory is the user's again, whom the callback tells.
        unsafe { mmu_notifier::mark(this).write(0) };
        if let Some(callback) = ops.free_notifier {
            // SAFETY: the user's callback.
            unsafe { callback(this) };
        }
    }
}

/// Notes what a list callback refused with.
///
/// # Safety
/// The range is that of a start under way on this thread.
#[cold]
#[inline(never)]
unsafe fn refused(range: *mut mmu_notifier_range, result: c_int) -> WouldBlock {
    if result != -EAGAIN {
        misuse("invalidate_range_start", "a callback must return 0 or -EAGAIN");
    }
    // SAFETY: as promised by the caller.
    unsafe { (*range).refusal = c_long::from(result) };
    WouldBlock
}

/// Says in `hlist` whether it is on the list.
///
/// # Safety
/// It is memory of a structure of C.
unsafe fn set_hashed(this: *mut mmu_notifier, hashed: bool) {
    // SAFETY: as promised by the caller.
    let next = unsafe { &raw mut (*this).hlist.next };
    // SAFETY: as promised by the caller.
    let pprev = unsafe { &raw mut (*this).hlist.pprev };
    // It leads to itself, so that what follows it stays within the structure.
    let value = if hashed { next } else { ptr::null_mut() };
    // SAFETY: as above; C may look at it meanwhile.
    unsafe { AtomicPtr::from_ptr(pprev) }.store(value, Ordering::Relaxed);
}

/// Says whether the structure holds a listener that was registered.
///
/// # Safety
/// It is memory of a structure of C.
unsafe fn is_in(this: *mut mmu_notifier) -> bool {
    // SAFETY: as promised by the caller; C may not have written the word, which volatile keeps from mattering.
    (unsafe { mmu_notifier::mark(this).read_volatile() }) == mark_of(this.cast())
}

fn listener_of(this: *mut mmu_notifier) -> NonNull<Listener> {
    // SAFETY: the callers have seen that `this` is not NULL, and the field lies behind its start.
    unsafe { NonNull::new_unchecked(mmu_notifier::listener(this)) }
}

/// Registers one, or nobody for NULL, under the map lock.
///
/// # Safety
/// The structure is memory of the caller, who keeps it where it is until it is unregistered or freed, and whose
/// `ops` is NULL or stays as long.
unsafe fn register(
    name: &'static str,
    this: *mut mmu_notifier,
    mm: &mm_struct,
    lock: &MapLockGuard<'_>,
) -> Result<(), Errno> {
    if this.is_null() {
        return Ok(mm.change(lock, |lock| mm.space().register_nobody_locked(lock))?);
    }
    // SAFETY: as promised by the caller.
    if unsafe { is_in(this) } {
        misuse(name, "one that is registered must be unregistered before it is registered again");
        return Err(BAD_ARGUMENT);
    }
    // SAFETY: as promised by the caller.
    let ops = unsafe { (*this).ops };
    if ops.is_null() {
        misuse(name, "ops must be set before");
        return Err(BAD_ARGUMENT);
    }
    // SAFETY: the caller's memory, which is in no space.
    let before = unsafe { mmu_notifier::mm(this).cast::<MaybeUninit<*mut mm_struct>>().read() };
    // SAFETY: as above.
    unsafe { mmu_notifier::mm(this).write(ptr::from_ref(mm).cast_mut()) };
    // SAFETY: as above.
    unsafe { mmu_notifier::users(this).write(AtomicU32::new(1)) };
    // SAFETY: not NULL; as promised by the caller.
    let flushes = unsafe { (*ops).invalidate_range }.is_some();
    let callbacks = if flushes { &CALLBACKS_THAT_FLUSH } else { &CALLBACKS };
    let listener = Listener::new(callbacks).with_key(ops.addr() as u64);
    // SAFETY: as above.
    unsafe { listener_of(this).write(listener) };
    // SAFETY: as above; the listener is there now.
    unsafe { mmu_notifier::mark(this).write(mark_of(this.cast())) };
    // SAFETY: as above.
    unsafe { set_hashed(this, true) };
    // SAFETY: as promised by the caller.
    let result = mm.change(lock, |lock| unsafe { Listener::register(listener_of(this), mm.space(), lock) });
    if result.is_err() {
        // SAFETY: it is not registered, so nobody else uses it.
        unsafe { set_hashed(this, false) };
        // SAFETY: as above.
        unsafe { mmu_notifier::mark(this).write(0) };
        // SAFETY: as above.
        unsafe { mmu_notifier::mm(this).cast::<MaybeUninit<*mut mm_struct>>().write(before) };
    }
    Ok(result?)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn mmu_notifier_register(this: *mut mmu_notifier, mm: *mut mm_struct) -> c_int {
    const NAME: &str = "mmu_notifier_register";
    call!(NAME, || {
        // SAFETY: the caller is a user.
        let Some(mm) = (unsafe { mm_of(mm, NAME) }) else { return BAD_ARGUMENT.0 };
        // SAFETY: as the caller owes.
        answer(unsafe { register(NAME, this, mm, &mm.lock()) })
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn __mmu_notifier_register(this: *mut mmu_notifier, mm: *mut mm_struct) -> c_int {
    const NAME: &str = "__mmu_notifier_register";
    call!(NAME, || {
        // SAFETY: the caller is a user.
        let Some(mm) = (unsafe { mm_of(mm, NAME) }) else { return BAD_ARGUMENT.0 };
        // SAFETY: as the caller owes.
        answer(mm.held_lock(NAME).and_then(|lock| unsafe { register(NAME, this, mm, &lock) }))
    })
}

/// The listener in the structure; none, diagnosed, if it is not registered.
///
/// # Safety
/// It is NULL, or memory of a structure of C.
unsafe fn registered(this: *mut mmu_notifier, name: &'static str) -> Option<NonNull<Listener>> {
    // SAFETY: as promised by the caller.
    if !this.is_null() && unsafe { is_in(this) } {
        return Some(listener_of(this));
    }
    misuse(name, "the subscription is on no list: register it first, unregister it once");
    None
}

#[unsafe(no_mangle)]
unsafe extern "C" fn mmu_notifier_unregister(this: *mut mmu_notifier, mm: *mut mm_struct) {
    const NAME: &str = "mmu_notifier_unregister";
    call!(NAME, || {
        // SAFETY: the caller's subscription.
        let Some(listener) = (unsafe { registered(this, NAME) }) else { return };
        // SAFETY: it is registered.
        if !ptr::eq(unsafe { (*this).mm }, mm) {
            misuse(NAME, "the mm is not the one that it was registered with, which is taken instead");
        }
        // SAFETY: it was registered; that it is no callback is the caller's part, and diagnosed.
        unsafe { Listener::unregister(listener) };
        // SAFETY: the memory is the caller's, who is here.
        unsafe { set_hashed(this, false) };
        // SAFETY: as above.
        unsafe { mmu_notifier::mark(this).write(0) };
    });
}

#[unsafe(no_mangle)]
unsafe extern "C" fn mmu_notifier_put(this: *mut mmu_notifier) {
    const NAME: &str = "mmu_notifier_put";
    call!(NAME, || {
        // SAFETY: the caller's subscription.
        let Some(listener) = (unsafe { registered(this, NAME) }) else { return };
        // SAFETY: it is alive until its free, which the last put begins.
        let users = &unsafe { &*this }.users;
        let one_less = |users: u32| users.checked_sub(1);
        if users.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less) == Ok(1) {
            // SAFETY: as above.
            unsafe { set_hashed(this, false) };
        }
        // SAFETY: it is registered; after the last put it is not touched.
        unsafe { Listener::put(listener) };
    });
}

#[unsafe(no_mangle)]
unsafe extern "C" fn mmu_notifier_get_locked(
    ops: *const mmu_notifier_ops,
    mm: *mut mm_struct,
) -> *mut mmu_notifier {
    const NAME: &str = "mmu_notifier_get_locked";
    call!(NAME, || {
        // SAFETY: the caller is a holder.
        let mm = unsafe { mm_of(mm, NAME) }.ok_or(BAD_ARGUMENT);
        // SAFETY: as the caller owes.
        mm.and_then(|mm| unsafe { get(NAME, ops, mm) }).unwrap_or_else(Errno::as_ptr)
    })
}

/// # Safety
/// The table is NULL or stays as long as the subscription.
unsafe fn get(
    name: &'static str,
    ops: *const mmu_notifier_ops,
    mm: &mm_struct,
) -> Result<*mut mmu_notifier, Errno> {
    let lock = mm.held_lock(name)?;
    // SAFETY: as promised by the caller.
    let table = unsafe { ops.as_ref() };
    let Some((alloc, free)) = table.and_then(|ops| ops.alloc_notifier.zip(ops.free_notifier)) else {
        misuse(name, "ops, alloc_notifier and free_notifier must not be NULL");
        return Err(BAD_ARGUMENT);
    };
    if let Some(listener) = Listener::find_key(mm.space(), &lock, ops.addr() as u64)? {
        // SAFETY: it is registered, and was found for this caller.
        let (this, ..) = unsafe { around(listener) };
        // SAFETY: as above.
        unsafe { &*mmu_notifier::users(this) }.fetch_add(1, Ordering::Relaxed);
        return Ok(this);
    }
    // SAFETY: the user's callback.
    let this = unsafe { alloc(ptr::from_ref(mm).cast_mut()) };
    if this.is_null() {
        misuse(name, "alloc_notifier must not return NULL");
        return Err(BAD_ARGUMENT);
    }
    // CONTRACT C4.3: alloc's own error is passed on.
    if this.addr() >= -4095_isize as usize {
        return Err(Errno(this.addr() as isize as c_int));
    }
    // SAFETY: memory that alloc made.
    unsafe { mmu_notifier::ops(this).write(ops) };
    // SAFETY: as above, and of no use to anybody else yet.
    let result = unsafe { register(name, this, mm, &lock) };
    if result.is_err() {
        // SAFETY: the user's callback, at once, for what is not registered.
        unsafe { free(this) };
    }
    result.map(|()| this)
}

#[unsafe(no_mangle)]
extern "C" fn mmu_notifier_synchronize() {
    call!("mmu_notifier_synchronize", notifier::synchronize);
}
