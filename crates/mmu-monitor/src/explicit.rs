//! The source that is always there: the program says what it changes.
//!
//! Three ways: wrappers of the calls, under the calls' own names; [`external`] for who owns other hooks, or changes
//! mappings in ways that no source knows (a hole punched into a mapped file); and [`Allocator`] for memory that an
//! allocator gives back behind its user's back.
//!
//! What goes past these is not seen. With another source on top a change is told of twice, which costs time alone.

#![expect(unsafe_code, reason = "system calls")]

use core::alloc::{GlobalAlloc, Layout};
use core::ffi::c_void;
use core::fmt;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, Ordering};
use std::io;
use std::string::ToString;

use mmu_notifier::{ActiveInvalidation, Invalidation, Range};

use crate::call::Call;
use crate::follower::{self, Followed};
use crate::operation::{Operation, Origin, When};
use crate::process;
use crate::source::{Source, SourceError};

/// The source `explicit`.
#[derive(Debug)]
pub struct Explicit {
    armed: AtomicBool,
}

/// The source of this process.
pub static EXPLICIT: Explicit = Explicit { armed: AtomicBool::new(false) };

impl Source for Explicit {
    fn name(&self) -> &'static str {
        "explicit"
    }

    fn coverage(&self, operation: Operation, origin: Origin) -> When {
        match (operation, origin) {
            (Operation::Fork | Operation::Exit, Origin::Function) => When::BeforeAndEnd,
            // By `external`.
            (Operation::File, Origin::Wrapper) => When::BeforeAndEnd,
            (operation, Origin::Wrapper) if operation.is_call() => When::BeforeAndEnd,
            _ => When::Missed,
        }
    }

    fn arm(&self) -> Result<(), SourceError> {
        crate::fork::arm().map_err(|error| SourceError::new(self.name(), error.to_string()))?;
        self.armed.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn is_armed(&self) -> bool {
        self.armed.load(Ordering::Relaxed)
    }

    fn disarm(&self) {
        self.armed.store(false, Ordering::Relaxed);
    }
}

/// Makes a change that the caller knows of, between a start and an end.
///
/// # Context
/// Sleeps only in callbacks and in `change`; allocates nothing.
pub fn external<R>(what: impl Into<Invalidation>, change: impl FnOnce() -> R) -> R {
    match process::space() {
        Some(space) => process::around(space, &what.into(), change),
        None => change(),
    }
}

/// A change that has begun; dropping it is the end.
pub struct Begun {
    // Ended first: it began last.
    followed: Option<Followed>,
    _active: ActiveInvalidation<'static>,
}

impl Begun {
    /// Begins a change in the place of the caller, for who cannot use a closure. False, and nothing is begun, if there is
    /// no monitor.
    ///
    /// # Safety
    /// - `place` is valid for writes, and what is written does not move before it is dropped, by the thread that began.
    pub unsafe fn begin(place: NonNull<Begun>, what: impl Into<Invalidation>) -> bool {
        let Some(space) = process::space() else { return false };
        let what = what.into();
        // SAFETY: as promised by the caller.
        unsafe { place.write(Begun { followed: None, _active: space.invalidate_start(what) }) };
        // SAFETY: just written, and nobody else knows it.
        follower::start(&what, unsafe { &mut (*place.as_ptr()).followed });
        true
    }
}

impl fmt::Debug for Begun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Begun").finish_non_exhaustive()
    }
}

fn call(number: libc::c_long, arguments: [usize; 6]) -> io::Result<usize> {
    let call = Call { number: number as usize, arguments };
    // SAFETY: each caller below is unsafe, with the same duty.
    let result = unsafe { process::make_call(&call) };
    // INVARIANT: the kernel's errors lie between -4095 and -1.
    if (-4095..0).contains(&result) {
        Err(io::Error::from_raw_os_error(-result as i32))
    } else {
        Ok(result as usize)
    }
}

/// munmap of `length` bytes from `start` on.
///
/// # Errors
/// Those of the call.
///
/// # Safety
/// - Nobody uses that memory any more.
pub unsafe fn munmap(start: *mut c_void, length: usize) -> io::Result<()> {
    call(libc::SYS_munmap, [start as usize, length, 0, 0, 0, 0]).map(drop)
}

/// mmap, with whatever flags.
///
/// # Errors
/// Those of the call.
///
/// # Safety
/// - With `MAP_FIXED`: nobody uses what is replaced.
pub unsafe fn mmap(
    start: *mut c_void,
    length: usize,
    protection: i32,
    flags: i32,
    file: i32,
    offset: i64,
) -> io::Result<*mut c_void> {
    let words = [start as usize, length, protection as usize, flags as usize, file as usize, offset as usize];
    call(libc::SYS_mmap, words).map(|place| place as *mut c_void)
}

/// mremap of `old_length` bytes at `old` to `length` bytes; `new` counts with `MREMAP_FIXED`.
///
/// # Errors
/// Those of the call.
///
/// # Safety
/// - Nobody uses what is moved, cut off or replaced.
pub unsafe fn mremap(
    old: *mut c_void,
    old_length: usize,
    length: usize,
    flags: i32,
    new: *mut c_void,
) -> io::Result<*mut c_void> {
    let words = [old as usize, old_length, length, flags as usize, new as usize, 0];
    call(libc::SYS_mremap, words).map(|place| place as *mut c_void)
}

/// mprotect of `length` bytes from `start` on.
///
/// # Errors
/// Those of the call.
///
/// # Safety
/// - Nobody uses that memory in a way that `protection` forbids.
pub unsafe fn mprotect(start: *mut c_void, length: usize, protection: i32) -> io::Result<()> {
    call(libc::SYS_mprotect, [start as usize, length, protection as usize, 0, 0, 0]).map(drop)
}

/// madvise of `length` bytes from `start` on.
///
/// # Errors
/// Those of the call.
///
/// # Safety
/// - Nobody counts on what the advice drops.
pub unsafe fn madvise(start: *mut c_void, length: usize, advice: i32) -> io::Result<()> {
    call(libc::SYS_madvise, [start as usize, length, advice as usize, 0, 0, 0]).map(drop)
}

/// shmdt of the segment at `start`.
///
/// # Errors
/// Those of the call.
///
/// # Safety
/// - Nobody uses that memory any more.
pub unsafe fn shmdt(start: *const c_void) -> io::Result<()> {
    call(libc::SYS_shmdt, [start as usize, 0, 0, 0, 0, 0]).map(drop)
}

/// An allocator whose memory counts as gone from the moment that it is given back.
///
/// Who frees memory through it tells of its range first: a cache drops what it has of the memory before the allocator
/// may unmap it, discard it, or give it to somebody else. Changes of the mappings by the allocator itself are thus
/// preceded by those of all that lay there.
///
/// ```
/// use std::alloc::System;
///
/// #[global_allocator]
/// static ALLOCATOR: mmu_monitor::explicit::Allocator<System> = mmu_monitor::explicit::Allocator(System);
/// # fn main() { drop(vec![1, 2, 3]); }
/// ```
#[derive(Debug, Default)]
pub struct Allocator<A>(pub A);

// SAFETY: each call is the inner allocator's, which keeps the trait's promises.
unsafe impl<A: GlobalAlloc> GlobalAlloc for Allocator<A> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's duties are the same.
        unsafe { self.0.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's duties are the same.
        unsafe { self.0.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's duties are the same.
        announced(memory, layout, || unsafe { self.0.dealloc(memory, layout) });
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's duties are the same.
        announced(memory, layout, || unsafe { self.0.realloc(memory, layout, size) })
    }
}

fn announced<R>(memory: *mut u8, layout: Layout, change: impl FnOnce() -> R) -> R {
    match (process::space(), Range::from_len(memory, layout.size() as u64)) {
        (Some(space), Ok(range)) => process::around(space, &range.into(), change),
        _ => change(),
    }
}
