//! Stubs: a page of code near an object, one stub a site.
//!
//! The page is born with its content, from a file in memory, and mapped read-only and executable: it is never writable.
//! It stays for the life of the process, since a thread may always be inside.
//!
//! A stub does what the replaced instruction did, puts the address behind the site into r11 (which the system call
//! would have overwritten), and jumps to the entry.

#![expect(unsafe_code, reason = "mappings of code")]

use core::ops::Range;
use std::format;
use std::string::String;
use std::vec::Vec;

use super::entry;
use super::object::Object;
use super::site::{SITE, Site, Which};
use crate::kernel::system_call;

/// The length of a stub, in bytes: the replaced instruction, lea, jmp, and padding.
const STUB: usize = 24;
const PAGE: usize = 4096;
/// A jump reaches 2 GiB in both directions; less, so that each site of the object reaches each stub.
const REACH: usize = (1 << 31) - (1 << 24);

/// The stubs of one object.
#[derive(Debug)]
pub(super) struct Stubs {
    start: usize,
}

impl Stubs {
    /// Makes the stubs of `sites`, which all lie in `object`.
    ///
    /// # Errors
    /// There is no place nearby, or the kernel refuses.
    pub(super) fn make(object: &Object, sites: &[Site]) -> Result<Stubs, String> {
        let length = (sites.len() * STUB + size_of_val(&entry::table())).next_multiple_of(PAGE);
        let file = File::make(length).map_err(|error| format!("no file for stubs: {error}"))?;
        for start in gaps(&object.whole, length) {
            if !sites.iter().all(|site| reaches(site.address, start, length)) {
                continue;
            }
            file.write(&code(start, sites)).map_err(|error| format!("no stubs: {error}"))?;
            if file.map(start, length) {
                return Ok(Stubs { start });
            }
        }
        Err(format!("{}: no free page within 2 GiB of it for stubs", object.name))
    }

    /// The address of the stub of the site with that index.
    pub(super) fn of(&self, index: usize) -> usize {
        self.start + index * STUB
    }
}

fn reaches(site: usize, start: usize, length: usize) -> bool {
    site.abs_diff(start).max(site.abs_diff(start + length)) < REACH
}

/// The code of all stubs, for a page that will lie at `start`, with the addresses of the entries behind it.
fn code(start: usize, sites: &[Site]) -> Vec<u8> {
    let table = start + sites.len() * STUB;
    let mut code = Vec::new();
    for site in sites {
        let entry = table + entry::index(site) * size_of::<usize>();
        let place = start + code.len();
        code.extend(site.old);
        // lea distance(%rip), %r11
        code.extend([0x4c, 0x8d, 0x1d]);
        code.extend(distance(start + code.len() + 4, site.address + SITE));
        // jmp *distance(%rip)
        code.extend([0xff, 0x25]);
        code.extend(distance(start + code.len() + 4, entry));
        // int3 up to the next one
        code.resize(place - start + STUB, 0xcc);
    }
    code.extend(entry::table().into_iter().flat_map(usize::to_le_bytes));
    code
}

/// How far it is from one address to another, for an instruction.
pub(super) fn distance(from: usize, to: usize) -> [u8; 4] {
    // The page was chosen so that it fits.
    (to.wrapping_sub(from) as i32).to_le_bytes()
}

/// Starts of free places, the nearest first.
fn gaps(object: &Range<usize>, length: usize) -> Vec<usize> {
    let mut starts = Vec::new();
    let mut end = PAGE * 16;
    crate::maps::for_each(|mapping| {
        if mapping.start >= end + length {
            // Both edges of the hole, less a page for who grows into it.
            starts.extend([end + PAGE, mapping.start.saturating_sub(length + PAGE)]);
        }
        end = end.max(mapping.end);
    });
    starts.retain(|&start| start.abs_diff(object.start) < REACH);
    starts.sort_by_key(|start| start.abs_diff(object.start));
    starts
}

/// A file in memory, closed when dropped.
struct File(usize);

impl File {
    fn make(length: usize) -> std::io::Result<File> {
        // Since Linux 6.3 a file says whether it may be executed; before, the flag is unknown.
        const EXEC: usize = 0x10;
        let name = c"mmu-monitor stubs";
        let make = |flags: usize| {
            let words = [name.as_ptr() as usize, flags | libc::MFD_CLOEXEC as usize, 0, 0, 0, 0];
            // SAFETY: the name ends with a zero.
            checked(unsafe { system_call(libc::SYS_memfd_create as usize, words) })
        };
        let file = File(make(EXEC).or_else(|_| make(0))?);
        // SAFETY: it is this value's own file.
        checked(unsafe { system_call(libc::SYS_ftruncate as usize, [file.0, length, 0, 0, 0, 0]) })?;
        Ok(file)
    }

    fn write(&self, code: &[u8]) -> std::io::Result<()> {
        let words = [self.0, code.as_ptr() as usize, code.len(), 0, 0, 0];
        // SAFETY: the kernel reads the slice.
        let written = checked(unsafe { system_call(libc::SYS_pwrite64 as usize, words) })?;
        if written == code.len() { Ok(()) } else { Err(std::io::ErrorKind::WriteZero.into()) }
    }

    /// Maps it at `start`, unless something lies there or the kernel refuses.
    fn map(&self, start: usize, length: usize) -> bool {
        let flags = (libc::MAP_PRIVATE | libc::MAP_FIXED_NOREPLACE) as usize;
        let words = [start, length, (libc::PROT_READ | libc::PROT_EXEC) as usize, flags, self.0, 0];
        // SAFETY: it replaces nothing.
        let place = unsafe { system_call(libc::SYS_mmap as usize, words) };
        if place > 0 && place as usize != start {
            // An old kernel took the address for a hint.
            // SAFETY: just mapped, and nobody knows of it.
            unsafe { system_call(libc::SYS_munmap as usize, [place as usize, length, 0, 0, 0, 0]) };
        }
        place as usize == start
    }
}

impl Drop for File {
    fn drop(&mut self) {
        // SAFETY: it is this value's own.
        unsafe { system_call(libc::SYS_close as usize, [self.0, 0, 0, 0, 0, 0]) };
    }
}

pub(super) fn checked(result: isize) -> std::io::Result<usize> {
    usize::try_from(result).map_err(|_| std::io::Error::from_raw_os_error(-result as i32))
}

impl Site {
    /// Says which entry its stub jumps to.
    pub(super) fn is_any(&self) -> bool {
        self.which == Which::Any
    }
}
