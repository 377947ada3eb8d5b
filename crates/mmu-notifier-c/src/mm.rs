//! Address spaces: a structure in front of the core's, which is freed with it.
//!
//! `notifier_subscriptions` says no as long as nobody can have registered. It is set under the map lock *before* the
//! core is asked to register the first one, and taken back if that fails: a start that still sees no began before.

#![expect(unsafe_code, reason = "structures of C")]

use std::alloc::{Layout, alloc, dealloc};
use std::cell::UnsafeCell;
use std::ffi::{c_int, c_void};
use std::mem::{ManuallyDrop, MaybeUninit, offset_of};
use std::num::NonZeroI32;
use std::ptr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use notifier::{
    AddressSpace, AddressSpaceRef, LockAllError, MapLockGuard, MapLockSharedGuard, PrimaryMmu, diagnostics,
};

use crate::call::call;
use crate::errno::{BAD_ARGUMENT, Errno};
use crate::range::mark_of_space;
use crate::report::misuse;
use crate::types::mmu_notifier_range;

/// What `mmun_set_lock_all` was given.
#[derive(Clone, Copy)]
pub(crate) struct LockAll {
    pub(crate) take: unsafe extern "C" fn(*mut mm_struct, *mut c_void) -> c_int,
    pub(crate) drop: unsafe extern "C" fn(*mut mm_struct, *mut c_void),
    pub(crate) data: *mut c_void,
}

// SAFETY: the data is only passed on.
unsafe impl Send for LockAll {}

const LAYOUT: Layout = Layout::new::<mm_struct>();

const ALIVE: u64 = 0x6d6d_5f61_6c69_7665;
const DEAD: u64 = 0x6b6b_6b6b_6b6b_6b6b;

/// An address space as C sees it.
///
/// # Invariants
/// `user` is a handle without a count of its own: whoever calls has one.
#[repr(C)]
#[allow(non_camel_case_types, reason = "a name of C")]
pub(crate) struct mm_struct {
    subscriptions: AtomicPtr<c_void>,
    state: AtomicU64,
    user: MaybeUninit<ManuallyDrop<AddressSpace>>,
    /// The mark of a range that is started in this space.
    pub(crate) started: u64,
    pub(crate) lock_all: Mutex<Option<LockAll>>,
    /// What callbacks of the exit get.
    pub(crate) exit: UnsafeCell<MaybeUninit<mmu_notifier_range>>,
}

/// Frees the structure with the core's space, which owns this; and takes all locks of the primary MMU.
struct Front(*mut mm_struct);

// SAFETY: the structure is meant to be shared between threads.
unsafe impl Send for Front {}
// SAFETY: as above.
unsafe impl Sync for Front {}

impl Front {
    fn hooks(&self) -> Option<LockAll> {
        // SAFETY: the structure is freed by the drop of this.
        let mm = unsafe { &*self.0 };
        *mm.lock_all.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl PrimaryMmu for Front {
    fn lock_all(&self) -> Result<(), LockAllError> {
        let Some(LockAll { take, data, .. }) = self.hooks() else { return Ok(()) };
        // SAFETY: the user promises that the hook may be called so.
        match NonZeroI32::new(unsafe { take(self.0, data) }) {
            None => Ok(()),
            Some(error) => Err(LockAllError(error)),
        }
    }

    fn unlock_all(&self) {
        if let Some(LockAll { drop, data, .. }) = self.hooks() {
            // SAFETY: the user promises that the hook may be called so.
            unsafe { drop(self.0, data) };
        }
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        // SAFETY: made by `mm_alloc`; with the core's space nobody knows it any more.
        unsafe { ptr::drop_in_place(self.0) };
        // What uses it all the same stops at the first look, as long as nobody else has the memory.
        // SAFETY: nothing is alive in it.
        unsafe { self.0.wrapping_byte_add(offset_of!(mm_struct, state)).cast::<u64>().write_volatile(DEAD) };
        let words = if diagnostics::ENABLED { LAYOUT.size() / 8 } else { 0 };
        for word in 0..words {
            // SAFETY: as above; it consists of words.
            unsafe { self.0.cast::<u64>().wrapping_add(word).write_volatile(DEAD) };
        }
        // SAFETY: `mm_alloc` allocated it with this layout.
        unsafe { dealloc(self.0.cast(), LAYOUT) };
    }
}

impl mm_struct {
    pub(crate) fn space(&self) -> &AddressSpaceRef {
        self.user()
    }

    fn user(&self) -> &AddressSpace {
        // SAFETY: written by `mm_alloc` before anybody else knew the structure.
        unsafe { self.user.assume_init_ref() }
    }

    /// Runs `change` under the map lock, which may make the first subscriber.
    pub(crate) fn change<E>(
        &self,
        lock: &MapLockGuard<'_>,
        change: impl FnOnce(&MapLockGuard<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        // ORDERING: set before the core publishes; its own loads order everything else.
        let some = ptr::from_ref(self).cast_mut().cast();
        self.subscriptions.store(some, Ordering::Relaxed);
        let result = change(lock);
        if result.is_err() && !self.space().has_notifiers() {
            self.subscriptions.store(ptr::null_mut(), Ordering::Relaxed);
        }
        result
    }

    /// The guard of the map lock for a `_locked` call; an error, diagnosed, if nobody holds it.
    pub(crate) fn held_lock(&self, name: &'static str) -> Result<ManuallyDrop<MapLockGuard<'_>>, Errno> {
        // SAFETY: the caller holds it, as the name of the call says; this guard is not dropped.
        let guard = unsafe { MapLockGuard::of_held(self.space()) };
        let guard = guard.ok_or_else(|| misuse(name, "the map lock must be held for writing"));
        guard.map(ManuallyDrop::new).map_err(|()| BAD_ARGUMENT)
    }

    /// Takes the map lock, with what was left to calls that may sleep done before.
    pub(crate) fn lock(&self) -> MapLockGuard<'_> {
        self.space().drop_deferred();
        self.space().map_lock()
    }
}

/// The structure behind a pointer from C; none, diagnosed, if it is NULL.
///
/// # Safety
/// It is NULL, or was made by `mm_alloc` and has a holder.
pub(crate) unsafe fn mm_of<'m>(mm: *const mm_struct, name: &'static str) -> Option<&'m mm_struct> {
    // SAFETY: as promised by the caller.
    let Some(mm) = (unsafe { mm.as_ref() }) else {
        misuse(name, "the mm must not be NULL");
        return None;
    };
    if mm.state.load(Ordering::Relaxed) != ALIVE {
        end_for_dead(name);
    }
    Some(mm)
}

#[cold]
#[inline(never)]
fn end_for_dead(name: &'static str) -> ! {
    eprintln!("mmu_notifier: {name}: the mm is freed, or was not made by mm_alloc");
    std::process::abort();
}

#[unsafe(no_mangle)]
extern "C" fn mm_alloc() -> *mut mm_struct {
    static SERIALS: AtomicU64 = AtomicU64::new(1);
    call!("mm_alloc", || {
        // SAFETY: the structure has a size.
        let mm: *mut mm_struct = unsafe { alloc(LAYOUT) }.cast();
        if mm.is_null() {
            return mm;
        }
        let front = mm_struct {
            subscriptions: AtomicPtr::new(ptr::null_mut()),
            state: AtomicU64::new(ALIVE),
            user: MaybeUninit::uninit(),
            started: mark_of_space(SERIALS.fetch_add(1, Ordering::Relaxed)),
            lock_all: Mutex::new(None),
            exit: UnsafeCell::new(MaybeUninit::zeroed()),
        };
        // SAFETY: memory for one.
        unsafe { mm.write(front) };
        // CONTRACT C4.3: in C free never runs inside put.
        let Ok(user) = AddressSpace::builder().primary(Front(mm)).defer_drops().build() else {
            // The builder has dropped the front, and that the structure.
            return ptr::null_mut();
        };
        // SAFETY: nobody else knows the structure yet.
        unsafe { (*mm).user.write(ManuallyDrop::new(user)) };
        // SAFETY: as above.
        let exit = unsafe { (*mm).exit.get_mut() };
        crate::range::write_exit(exit, mm);
        mm
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn mmget(mm: *mut mm_struct) {
    call!("mmget", || {
        // SAFETY: the caller has a user.
        let Some(mm) = (unsafe { mm_of(mm, "mmget") }) else { return };
        if !mm.space().has_users() {
            return misuse("mmget", "the mm has no users any more: mmget_not_zero says so");
        }
        core::mem::forget(mm.user().clone());
    });
}

#[unsafe(no_mangle)]
unsafe extern "C" fn mmget_not_zero(mm: *mut mm_struct) -> bool {
    call!("mmget_not_zero", || {
        // SAFETY: the caller is a holder.
        let mm = unsafe { mm_of(mm, "mmget_not_zero") };
        mm.and_then(|mm| mm.space().upgrade()).map(core::mem::forget).is_some()
    })
}

/// Takes the caller's user; none, diagnosed, if there is none.
///
/// # Safety
/// The caller is a user, and gives that up.
unsafe fn take_user(mm: *mut mm_struct, name: &'static str) -> Option<AddressSpace> {
    // SAFETY: the caller is a user.
    let mm = unsafe { mm_of(mm, name) }?;
    if !mm.space().has_users() {
        misuse(name, "one put more than there were gets");
        return None;
    }
    // SAFETY: the handle has no count of its own; the copy takes the caller's.
    Some(unsafe { ptr::read(mm.user()) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn mmput(mm: *mut mm_struct) {
    // SAFETY: the caller gives its user up.
    call!("mmput", || drop(unsafe { take_user(mm, "mmput") }));
}

#[unsafe(no_mangle)]
unsafe extern "C" fn mmput_async(mm: *mut mm_struct) {
    call!("mmput_async", || {
        // SAFETY: the caller gives its user up.
        let Some(user) = (unsafe { take_user(mm, "mmput_async") }) else { return };
        // Without a thread the closure, and with it the user, is dropped here.
        let _ = std::thread::Builder::new().name("mmput_async".into()).spawn(move || drop(user));
    });
}

#[unsafe(no_mangle)]
unsafe extern "C" fn mmgrab(mm: *mut mm_struct) {
    call!("mmgrab", || {
        // SAFETY: the caller is a holder.
        if let Some(mm) = unsafe { mm_of(mm, "mmgrab") } {
            core::mem::forget(mm.space().clone());
        }
    });
}

#[unsafe(no_mangle)]
unsafe extern "C" fn mmdrop(mm: *mut mm_struct) {
    call!("mmdrop", || {
        // SAFETY: the caller is a holder, and gives that up.
        let Some(mm) = (unsafe { mm_of(mm, "mmdrop") }) else { return };
        // SAFETY: the handle has no count of its own; the copy takes the caller's.
        drop(unsafe { ptr::read(mm.space()) });
    });
}

#[unsafe(no_mangle)]
unsafe extern "C" fn mmap_write_lock(mm: *mut mm_struct) {
    call!("mmap_write_lock", || {
        // SAFETY: the caller is a holder.
        if let Some(mm) = unsafe { mm_of(mm, "mmap_write_lock") } {
            core::mem::forget(mm.lock());
        }
    });
}

#[unsafe(no_mangle)]
unsafe extern "C" fn mmap_write_unlock(mm: *mut mm_struct) {
    call!("mmap_write_unlock", || {
        // SAFETY: the caller is a holder.
        let Some(mm) = (unsafe { mm_of(mm, "mmap_write_unlock") }) else { return };
        // SAFETY: the caller holds the lock, and this guard is the one that opens it.
        if unsafe { MapLockGuard::of_held(mm.space()) }.is_none() {
            misuse("mmap_write_unlock", "the map lock is not held for writing");
        }
    });
}

#[unsafe(no_mangle)]
unsafe extern "C" fn mmap_read_lock(mm: *mut mm_struct) {
    call!("mmap_read_lock", || {
        // SAFETY: the caller is a holder.
        if let Some(mm) = unsafe { mm_of(mm, "mmap_read_lock") } {
            core::mem::forget(mm.space().map_lock_shared());
        }
    });
}

#[unsafe(no_mangle)]
unsafe extern "C" fn mmap_read_unlock(mm: *mut mm_struct) {
    call!("mmap_read_unlock", || {
        // SAFETY: the caller is a holder.
        let Some(mm) = (unsafe { mm_of(mm, "mmap_read_unlock") }) else { return };
        // SAFETY: the caller holds the lock, and this guard is the one that lets go.
        if unsafe { MapLockSharedGuard::of_held(mm.space()) }.is_none() {
            misuse("mmap_read_unlock", "the map lock is not held for reading");
        }
    });
}

#[unsafe(no_mangle)]
unsafe extern "C" fn __mmu_notifier_release(mm: *mut mm_struct) {
    call!("__mmu_notifier_release", || {
        // SAFETY: the caller is a holder.
        if let Some(mm) = unsafe { mm_of(mm, "__mmu_notifier_release") } {
            mm.space().release();
        }
    });
}

/// The memory goes with the last holder; here is only looked whether it could.
#[unsafe(no_mangle)]
unsafe extern "C" fn __mmu_notifier_subscriptions_destroy(mm: *mut mm_struct) {
    call!("__mmu_notifier_subscriptions_destroy", || {
        // SAFETY: the caller is a holder.
        let Some(mm) = (unsafe { mm_of(mm, "__mmu_notifier_subscriptions_destroy") }) else { return };
        let stats = mm.space().stats();
        if stats.list + stats.intervals != 0 {
            misuse("__mmu_notifier_subscriptions_destroy", "there are subscribers still");
        }
    });
}
