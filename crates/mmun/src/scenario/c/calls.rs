//! The exported calls of the C library, which is loaded when the program runs.
//!
//! It is loaded rather than linked, as its name is the core's: one program cannot link both. And so the steps are made
//! on the library as it is installed, too.

#![expect(unsafe_code, reason = "loads a library of C")]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use libloading::{Error, Library, library_filename};

use super::abi::{
    mm_struct, mmu_interval_notifier, mmu_interval_notifier_ops, mmu_notifier, mmu_notifier_ops,
    mmu_notifier_range, pte_t,
};

/// Makes the table of the calls and what fills it in.
macro_rules! calls {
    ($($name:ident: fn($($of:ty),*) $(-> $gives:ty)?;)*) => {
        /// The calls, each with the type that the header declares.
        pub(super) struct Calls {
            $(pub(super) $name: unsafe extern "C" fn($($of),*) $(-> $gives)?,)*
        }

        impl Calls {
            /// Looks each call up.
            ///
            /// # Safety
            /// The library is of the version that the types here are written after.
            unsafe fn of(library: &Library) -> Result<Calls, Error> {
                // SAFETY: as promised by the caller.
                Ok(Calls { $($name: *unsafe { library.get(stringify!($name).as_bytes()) }?,)* })
            }
        }
    };
}

type Hook = unsafe extern "C" fn(*const c_char, *mut c_void);

calls! {
    mm_alloc: fn() -> *mut mm_struct;
    mmget_not_zero: fn(*mut mm_struct) -> bool;
    mmput: fn(*mut mm_struct);
    mmgrab: fn(*mut mm_struct);
    mmdrop: fn(*mut mm_struct);
    mmap_write_lock: fn(*mut mm_struct);
    mmap_write_unlock: fn(*mut mm_struct);
    mmu_notifier_register: fn(*mut mmu_notifier, *mut mm_struct) -> c_int;
    mmu_notifier_unregister: fn(*mut mmu_notifier, *mut mm_struct);
    mmu_notifier_get_locked: fn(*const mmu_notifier_ops, *mut mm_struct) -> *mut mmu_notifier;
    mmu_notifier_put: fn(*mut mmu_notifier);
    mmu_notifier_synchronize: fn();
    mmu_interval_notifier_insert:
        fn(*mut mmu_interval_notifier, *mut mm_struct, u64, u64, *const mmu_interval_notifier_ops) -> c_int;
    mmu_interval_notifier_remove: fn(*mut mmu_interval_notifier);
    mmu_interval_read_begin: fn(*mut mmu_interval_notifier) -> u64;
    mmu_interval_set_seq: fn(*mut mmu_interval_notifier, u64);
    __mmu_notifier_invalidate_range_start: fn(*mut mmu_notifier_range) -> c_int;
    __mmu_notifier_invalidate_range_end: fn(*mut mmu_notifier_range, bool);
    __mmu_notifier_invalidate_range: fn(*mut mm_struct, u64, u64);
    __mmu_notifier_clear_flush_young: fn(*mut mm_struct, u64, u64) -> c_int;
    __mmu_notifier_clear_young: fn(*mut mm_struct, u64, u64) -> c_int;
    __mmu_notifier_test_young: fn(*mut mm_struct, u64) -> c_int;
    __mmu_notifier_change_pte: fn(*mut mm_struct, u64, pte_t);
    mmun_set_report_hook: fn(Option<Hook>, *mut c_void);
    mmun_report_to_stderr: fn(*const c_char, *mut c_void);
}

static CALLS: OnceLock<Calls> = OnceLock::new();

/// Gives the calls of the library, which [`load`] has loaded.
pub(super) fn calls() -> &'static Calls {
    CALLS.get().expect("the library is loaded before the first step")
}

/// Loads the library of this path; without one that beside this program, or else the one that is installed.
///
/// # Errors
/// What is wrong, and what to do.
pub(super) fn load(named: Option<&Path>) -> Result<(), String> {
    let path = named.map_or_else(where_it_is, Path::to_path_buf);
    let failed = |what: String| {
        format!(
            "--via c: {what}\n`cargo build -p mmu-notifier-c` builds it beside mmun; --library names another one"
        )
    };
    // SAFETY: loading runs nothing but what the standard library sets up.
    let library = unsafe { Library::new(&path) }.map_err(|error| failed(error.to_string()))?;
    same_version(&library).map_err(|what| failed(format!("{}: {what}", path.display())))?;
    // SAFETY: the version is this program's, and with it the header.
    let calls = unsafe { Calls::of(&library) }.map_err(|error| failed(error.to_string()))?;
    // It stays: threads and callbacks are in it.
    mem::forget(library);
    // SAFETY: a hook of the library's own.
    unsafe { (calls.mmun_set_report_hook)(Some(calls.mmun_report_to_stderr), std::ptr::null_mut()) };
    // The second of two that load at once is of no use, and no harm.
    let _ = CALLS.set(calls);
    Ok(())
}

/// Waits for the frees begun by put.
pub(super) fn synchronize() {
    // SAFETY: it asks for nothing.
    unsafe { (calls().mmu_notifier_synchronize)() };
}

fn where_it_is() -> PathBuf {
    let file = library_filename("mmu_notifier");
    let beside = std::env::current_exe().map(|program| program.with_file_name(&file));
    // A name without a folder leaves it to the loader, which looks where installed libraries are.
    beside.ok().filter(|path| path.exists()).unwrap_or_else(|| file.into())
}

/// Checks that the library is of this program's version: the types here are that version's.
fn same_version(library: &Library) -> Result<(), String> {
    // SAFETY: the type has been the same since the first version.
    let version = unsafe { library.get::<unsafe extern "C" fn() -> *const c_char>(b"mmun_version") };
    let version = version.map_err(|error| format!("not the C interface: {error}"))?;
    // SAFETY: it asks for nothing.
    let text = unsafe { version() };
    // SAFETY: it gives a string that stays.
    let text = unsafe { CStr::from_ptr(text) }.to_string_lossy();
    if text == env!("CARGO_PKG_VERSION") {
        return Ok(());
    }
    Err(format!("is version {text}, and mmun is {}", env!("CARGO_PKG_VERSION")))
}
