//! The objects of this process whose system calls are patched: the C library, the dynamic linker, and a static
//! executable, which holds both.

#![expect(unsafe_code, reason = "the dynamic linker's list of objects")]

use core::ffi::{CStr, c_int, c_void};
use core::ops::Range;
use std::string::{String, ToString};
use std::vec::Vec;

/// What an object is to the patching.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Library,
    Linker,
    /// An executable without a dynamic linker.
    Static,
}

/// An object that is mapped.
#[derive(Debug)]
pub(crate) struct Object {
    pub(crate) kind: Kind,
    pub(crate) name: String,
    /// Where its code lies.
    pub(crate) text: Range<usize>,
    /// Where all of it lies, holes included.
    pub(crate) whole: Range<usize>,
    /// Where the table of its functions lies (the segment `.eh_frame_hdr`), and the end of what is mapped behind it.
    pub(crate) table: Range<usize>,
}

impl Object {
    /// The bytes of its code, as they are now.
    pub(crate) fn code(&self) -> &'static [u8] {
        // SAFETY: the loader mapped it readable, and these objects are never unloaded.
        unsafe { core::slice::from_raw_parts(self.text.start as *const u8, self.text.len()) }
    }

    /// The bytes from the table of functions to the end of its mapping.
    pub(crate) fn table(&self) -> &'static [u8] {
        // SAFETY: as above.
        unsafe { core::slice::from_raw_parts(self.table.start as *const u8, self.table.len()) }
    }
}

/// Finds the objects to patch.
pub(crate) fn find() -> Vec<Object> {
    let mut found = Vec::new();
    // SAFETY: the callback takes what it is given here, for the time of the call.
    unsafe { libc::dl_iterate_phdr(Some(look_at), (&raw mut found).cast()) };
    found
}

unsafe extern "C" fn look_at(info: *mut libc::dl_phdr_info, _size: usize, found: *mut c_void) -> c_int {
    // SAFETY: the linker lends a valid one.
    let info = unsafe { &*info };
    // SAFETY: it is the vector of `find`, which nobody else uses meanwhile.
    let found = unsafe { &mut *found.cast::<Vec<Object>>() };
    if let Some(object) = read(info, found.is_empty()) {
        found.push(object);
    }
    0
}

fn read(info: &libc::dl_phdr_info, may_be_first: bool) -> Option<Object> {
    // SAFETY: the linker lends that many headers.
    let headers = unsafe { core::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()) };
    // SAFETY: the name ends with a zero.
    let path = unsafe { CStr::from_ptr(info.dlpi_name) }.to_string_lossy();
    let file = path.rsplit('/').next().unwrap_or_default();
    let kind = match file {
        // The executable, which comes first, has no name here.
        "" if may_be_first && !headers.iter().any(|header| header.p_type == libc::PT_INTERP) => Kind::Static,
        _ if file.starts_with("libc.so.") || file.starts_with("libc-2.") => Kind::Library,
        _ if file.starts_with("ld-linux") || file.starts_with("ld-2.") => Kind::Linker,
        _ => return None,
    };
    let place = |header: &libc::Elf64_Phdr| {
        let start = (info.dlpi_addr + header.p_vaddr) as usize;
        start..start + header.p_memsz as usize
    };
    let loaded = || headers.iter().filter(|header| header.p_type == libc::PT_LOAD);
    let text = place(loaded().find(|header| header.p_flags & libc::PF_X != 0)?);
    let table = place(headers.iter().find(|header| header.p_type == libc::PT_GNU_EH_FRAME)?);
    let around = loaded().map(place).find(|segment| segment.contains(&table.start))?;
    let whole = loaded().map(place).reduce(|all, part| all.start.min(part.start)..all.end.max(part.end))?;
    let name = if file.is_empty() { "the executable".to_string() } else { file.to_string() };
    // In a static executable of another C library there is no glibc to know.
    Some(Object { kind, name, text, whole, table: table.start..around.end })
}
