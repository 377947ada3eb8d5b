//! What must hold of this very code before others jump into it: it stays, and its thread-locals allocate nothing.
//!
//! In an executable both do. A shared library must say
//! [`keep_thread_locals_near!`](mmu_notifier::keep_thread_locals_near), and is kept from being unloaded here.

#![expect(unsafe_code, reason = "questions to the dynamic linker")]

use std::string::String;

/// Makes sure of both.
///
/// # Errors
/// This is a shared library that asks the dynamic linker for its thread-locals.
#[cfg(not(target_feature = "crt-static"))]
pub(crate) fn check() -> Result<(), String> {
    // SAFETY: the kernel's table never changes.
    let program = unsafe { libc::getauxval(libc::AT_PHDR) } as usize;
    let library = object_of(check as *const () as usize);
    if library.is_none()
        || library.map(|info| info.dli_fbase) == object_of(program).map(|info| info.dli_fbase)
    {
        return Ok(());
    }
    if asks_linker() {
        return Err(String::from(
            "this shared library asks the dynamic linker for its thread-locals, which may allocate in the middle of \
             `free`: say `mmu_notifier::keep_thread_locals_near!()` in it, or link the monitor into the program",
        ));
    }
    library.into_iter().for_each(stay);
    Ok(())
}

#[cfg(target_feature = "crt-static")]
pub(crate) fn check() -> Result<(), String> {
    Ok(())
}

/// The object that an address lies in.
#[cfg(not(target_feature = "crt-static"))]
fn object_of(address: usize) -> Option<libc::Dl_info> {
    // SAFETY: all zero is a valid `Dl_info`.
    let mut info: libc::Dl_info = unsafe { core::mem::zeroed() };
    // SAFETY: the linker fills it in, or says that it knows nothing of the address.
    let known = unsafe { libc::dladdr(address as *const _, &raw mut info) } != 0;
    known.then_some(info)
}

/// Says whether the question for thread-locals goes to the dynamic linker.
#[cfg(not(target_feature = "crt-static"))]
fn asks_linker() -> bool {
    unsafe extern "C" {
        fn __tls_get_addr(question: *const usize) -> *mut u8;
    }
    // SAFETY: the name ends with a zero.
    let linkers = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"__tls_get_addr".as_ptr()) };
    core::ptr::eq(__tls_get_addr as *const (), linkers.cast())
}

/// Keeps an object from being unloaded.
#[cfg(not(target_feature = "crt-static"))]
fn stay(object: libc::Dl_info) {
    if !object.dli_fname.is_null() {
        // SAFETY: the linker's own name; nothing is loaded anew.
        unsafe { libc::dlopen(object.dli_fname, libc::RTLD_NOW | libc::RTLD_NOLOAD | libc::RTLD_NODELETE) };
    }
}
