//! Each operation by each origin, source by source: what a source claims arrives, and the table of it is printed.
//!
//! A source is armed once a process, so each is tried in a process of its own, and in the end all together.

#![expect(
    unsafe_code,
    clippy::undocumented_unsafe_blocks,
    reason = "the calls that are tried, each on memory of its own"
)]
#![cfg(target_os = "linux")]

mod origins;
mod support;

use std::ffi::CString;
use std::path::Path;
use std::process::Command;
use std::ptr;

use mmu_monitor::{Choice, Monitor, Operation, Origin, SOURCES, When, explicit};
use mmu_notifier::Range;
use support::{Ear, PAGE, Recorder, anonymous, range, watched};

/// A way to make an operation happen; gives the range that must have been told of, or why it cannot be tried here.
struct Case {
    name: &'static str,
    operation: Operation,
    origin: Origin,
    make: fn() -> Result<Range, String>,
}

macro_rules! cases {
    ($($name:literal $operation:ident $origin:ident $make:expr;)*) => {
        [$(Case { name: $name, operation: Operation::$operation, origin: Origin::$origin, make: $make }),*]
    };
}

fn cases() -> Vec<Case> {
    cases! {
        "munmap()" Unmap Function || Ok(unmap(|page, length| unsafe { libc::munmap(page, length) }));
        "explicit::munmap" Unmap Wrapper || {
            Ok(unmap(|page, length| unsafe { explicit::munmap(page, length) }.map_or(-1, |()| 0)))
        };
        "syscall(SYS_munmap)" Unmap Function || {
            Ok(unmap(|page, length| unsafe { libc::syscall(libc::SYS_munmap, page, length) as i32 }))
        };
        "instruction: munmap" Unmap Direct origins::unmap;
        "instruction: mmap" MapFixed Direct origins::map_fixed;
        "instruction: mremap" Remap Direct origins::remap;
        "instruction: mprotect" Protect Direct origins::protect;
        "instruction: madvise" Discard Direct origins::discard;
        "instruction: PAGEOUT" Replace Direct origins::replace;
        "io_uring: madvise" Discard Elsewhere origins::discard_by_queue;
        "free of a large Vec" Unmap Inside free_large;
        "a thread's stack" Unmap Inside thread_stack;
        "dlclose" Unmap Inside unload;
        "mmap(MAP_FIXED)" MapFixed Function map_fixed;
        "dlopen over reserved" MapFixed Inside load;
        "mremap, moved" Remap Function remap_moved;
        "mremap, shrunk" Remap Function remap_shrunk;
        "mremap onto" Remap Function remap_onto;
        "realloc of a large Vec" Remap Inside realloc_large;
        "mprotect()" Protect Function protect;
        "madvise(DONTNEED)" Discard Function || advise(libc::MADV_DONTNEED);
        "madvise(FREE)" Discard Function || advise(libc::MADV_FREE);
        "explicit::madvise" Discard Wrapper advise_explicit;
        "malloc_trim" Discard Inside trim;
        "madvise(PAGEOUT)" Replace Function || advise(libc::MADV_PAGEOUT);
        "madvise(GUARD_INSTALL)" Replace Function || advise(102);
        "sbrk(-n)" Break Function shrink_break;
        "free at the top" Break Inside shrink_heap;
        "shmdt()" SharedMemory Function detach;
        "shmat(SHM_REMAP)" SharedMemory Function attach_over;
        "remap_file_pages()" RemapFilePages Function remap_file_pages;
        "fork()" Fork Function fork;
    }
    .into()
}

/// In a process of its own: the sources to try.
const ALONE: &str = "COVERAGE_OF";

#[test]
fn each_source_keeps_what_it_claims() {
    if let Ok(name) = std::env::var(ALONE) {
        return try_sources(&name);
    }
    let alone = SOURCES.map(|source| source.name().to_owned());
    for names in [&alone[..], &[alone.join(",")]].concat() {
        try_in_process(&names, None);
    }
}

#[test]
fn hooks_keep_it_with_other_allocators() {
    if let Ok(name) = std::env::var(ALONE) {
        return try_sources(&name);
    }
    const FOLDERS: [&str; 3] = ["/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib"];
    for name in ["libjemalloc.so.2", "libmimalloc.so.2", "libmimalloc.so.2.0"] {
        let found = FOLDERS.iter().map(|folder| Path::new(folder).join(name)).find(|path| path.exists());
        match found {
            Some(allocator) => try_in_process("hooks", Some(&allocator)),
            None => println!("skipped: no {name} here"),
        }
    }
}

/// Tries sources in a process of their own, with another allocator if there is one.
fn try_in_process(names: &str, allocator: Option<&Path>) {
    let mut child = Command::new(std::env::current_exe().unwrap());
    let this = std::thread::current().name().expect("a test's thread has its name").to_owned();
    child
        .args(["--exact", &this, "--nocapture", "--test-threads=1"])
        .env(ALONE, names)
        // Each free of a large block goes to the kernel, each at the top of the one arena lowers the break.
        .env("MALLOC_ARENA_MAX", "1")
        .env("GLIBC_TUNABLES", "glibc.malloc.mmap_threshold=131072:glibc.malloc.trim_threshold=131072");
    if let Some(allocator) = allocator {
        println!("with {}", allocator.display());
        child.env("LD_PRELOAD", allocator);
    }
    let child = child.output().unwrap();
    let text = String::from_utf8_lossy(&child.stdout);
    print!("{text}");
    assert!(child.status.success(), "{}\n{}", text, String::from_utf8_lossy(&child.stderr));
}

fn try_sources(name: &str) {
    let monitor = match Monitor::start_with(&name.parse::<Choice>().unwrap()) {
        Ok(monitor) => monitor,
        Err(reason) => return println!("skipped: {reason}"),
    };
    let recorder: &'static Recorder = Box::leak(Box::new(Recorder::new()));
    let registration = monitor.space().register(Ear(recorder)).unwrap();
    let mut wrong = Vec::new();
    println!("{name}\n{:24} {:20} {:10} {:8} heard", "call", "operation", "origin", "claimed");
    for case in cases() {
        let claimed = monitor.coverage(case.operation, case.origin);
        recorder.clear();
        let made = (case.make)();
        support::settle(monitor);
        let heard = match made {
            Ok(range) => if recorder.has_bracket(range) { "yes" } else { "-" }.to_owned(),
            Err(reason) => format!("not tried: {reason}"),
        };
        println!("{:24} {:20} {:10} {:8} {heard}", case.name, case.operation, case.origin, claimed);
        if claimed != When::Missed && heard == "-" {
            wrong.push((case.name, recorder.heard()));
        }
    }
    drop(registration);
    assert!(wrong.is_empty(), "claimed and not heard: {wrong:x?}");
}

type Page = *mut libc::c_void;

fn unmap(call: impl Fn(Page, usize) -> i32) -> Range {
    let start = anonymous(4);
    let whole = watched(range(start, 4 * PAGE));
    assert_eq!(call(start.cast(), 4 * PAGE), 0);
    whole
}

const LARGE: usize = 64 << 20;

fn free_large() -> Result<Range, String> {
    let memory = vec![1_u8; LARGE];
    let range = watched(range(memory.as_ptr(), LARGE));
    drop(memory);
    if support::is_mapped(range.start().get() + 2 * PAGE as u64) {
        Err("the allocator keeps it".into())
    } else {
        Ok(range)
    }
}

fn realloc_large() -> Result<Range, String> {
    let mut memory = vec![1_u8; LARGE];
    let old = watched(range(memory.as_ptr(), LARGE));
    memory.reserve_exact(2 * LARGE);
    Ok(old)
}

fn thread_stack() -> Result<Range, String> {
    // Larger than what the C library keeps for later.
    let stack = 128 << 20;
    let local = std::thread::Builder::new().stack_size(stack).spawn(|| {
        let local = 0_u8;
        watched(range(((&raw const local) as usize & !(PAGE - 1)) as *const u8, 1))
    });
    let page = local.unwrap().join().unwrap();
    // Joined is not yet freed: the next thread frees what is over.
    std::thread::spawn(|| ()).join().unwrap();
    Ok(page)
}

/// A library that nothing else needs.
fn library() -> Result<*mut libc::c_void, String> {
    for name in
        ["libutil.so.1", "libanl.so.1", "libBrokenLocale.so.1", "libnss_hesiod.so.2", "libthread_db.so.1"]
    {
        let name = CString::new(name).unwrap();
        let loaded = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOLOAD | libc::RTLD_LAZY) };
        if loaded.is_null() {
            let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW) };
            if !handle.is_null() {
                return Ok(handle);
            }
        }
    }
    Err("no library to load".into())
}

/// Where a loaded library lies: its link map begins with its base.
fn base(handle: *mut libc::c_void) -> *const u8 {
    unsafe { *handle.cast::<*const u8>() }
}

fn load() -> Result<Range, String> {
    if Monitor::get().unwrap().coverage(Operation::MapFixed, Origin::Inside) == When::After {
        return Err("the linker reserves and replaces in one: nobody can watch in between".into());
    }
    let handle = library()?;
    let place = range(base(handle).wrapping_add(PAGE), 1);
    unsafe { libc::dlclose(handle) };
    Ok(place)
}

fn unload() -> Result<Range, String> {
    let handle = library()?;
    let place = watched(range(base(handle), 1));
    unsafe { libc::dlclose(handle) };
    if support::is_mapped(place.start().get()) { Err("the library stays".into()) } else { Ok(place) }
}

fn map_fixed() -> Result<Range, String> {
    let start = anonymous(2);
    let whole = watched(range(start, 2 * PAGE));
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
    let place = unsafe { libc::mmap(start.cast(), 2 * PAGE, libc::PROT_READ, flags, -1, 0) };
    assert_eq!(place, start.cast());
    Ok(whole)
}

fn remap_moved() -> Result<Range, String> {
    let start = anonymous(3);
    let left = watched(range(start, PAGE));
    // What lies behind keeps it from growing in place.
    let place = unsafe { libc::mremap(start.cast(), PAGE, 64 * PAGE, libc::MREMAP_MAYMOVE) };
    assert_ne!(place, libc::MAP_FAILED);
    Ok(left)
}

fn remap_shrunk() -> Result<Range, String> {
    let start = anonymous(4);
    let cut = watched(range(start.wrapping_add(2 * PAGE), 2 * PAGE));
    let place = unsafe { libc::mremap(start.cast(), 4 * PAGE, PAGE + 1, 0) };
    assert_eq!(place, start.cast());
    Ok(cut)
}

fn remap_onto() -> Result<Range, String> {
    let (start, target) = (anonymous(1), anonymous(1));
    let replaced = watched(range(target, PAGE));
    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
    let place = unsafe { libc::mremap(start.cast(), PAGE, PAGE, flags, target) };
    assert_eq!(place, target.cast());
    Ok(replaced)
}

fn protect() -> Result<Range, String> {
    let start = anonymous(1);
    let page = watched(range(start, PAGE));
    assert_eq!(unsafe { libc::mprotect(start.cast(), PAGE, libc::PROT_READ) }, 0);
    Ok(page)
}

fn advise(advice: i32) -> Result<Range, String> {
    let start = anonymous(1);
    let page = watched(range(start, PAGE));
    match unsafe { libc::madvise(start.cast(), PAGE, advice) } {
        0 => Ok(page),
        _ => Err(std::io::Error::last_os_error().to_string()),
    }
}

fn advise_explicit() -> Result<Range, String> {
    let start = anonymous(1);
    unsafe { explicit::madvise(start.cast(), PAGE, libc::MADV_DONTNEED) }.unwrap();
    Ok(range(start, PAGE))
}

/// A block in the middle of the heap that is free: `malloc_trim` gives its pages back.
fn trim() -> Result<Range, String> {
    let size = 100_000;
    let blocks: Vec<*mut u8> = (0..20).map(|_| unsafe { libc::malloc(size).cast::<u8>() }).collect();
    blocks.iter().for_each(|block| unsafe { block.write_bytes(1, size) });
    let middle = blocks[10];
    let pages = (middle as usize + 2 * PAGE) & !(PAGE - 1);
    let page = watched(range(pages as *const u8, PAGE));
    unsafe { libc::free(middle.cast()) };
    unsafe { libc::malloc_trim(0) };
    let stays = support::is_resident(pages as u64);
    blocks.iter().filter(|block| **block != middle).for_each(|block| unsafe { libc::free(block.cast()) });
    if stays { Err("the allocator keeps it".into()) } else { Ok(page) }
}

fn shrink_break() -> Result<Range, String> {
    let size = 16 * PAGE as isize;
    let start = unsafe { libc::sbrk(size) };
    assert_ne!(start as isize, -1);
    let first = (start as usize).next_multiple_of(PAGE);
    let whole = watched(range(first as *const u8, size as usize - PAGE));
    assert_ne!(unsafe { libc::sbrk(-size) } as isize, -1);
    Ok(whole)
}

fn shrink_heap() -> Result<Range, String> {
    let before = unsafe { libc::sbrk(0) } as usize;
    let blocks: Vec<_> = (0..40).map(|_| unsafe { libc::malloc(100_000) }).collect();
    let top = unsafe { libc::sbrk(0) } as usize;
    let last = watched(range((top - PAGE) as *const u8, PAGE));
    blocks.iter().rev().for_each(|block| unsafe { libc::free(*block) });
    unsafe { libc::malloc_trim(0) };
    let after = unsafe { libc::sbrk(0) } as usize;
    if after < top { Ok(last) } else { Err(format!("the break stayed: {before:#x}, {top:#x}, {after:#x}")) }
}

fn segment() -> Result<i32, String> {
    match unsafe { libc::shmget(libc::IPC_PRIVATE, 3 * PAGE, 0o600) } {
        -1 => Err(std::io::Error::last_os_error().to_string()),
        segment => Ok(segment),
    }
}

fn detach() -> Result<Range, String> {
    let segment = segment()?;
    let place = unsafe { libc::shmat(segment, ptr::null(), 0) };
    // A second one beside it, which is none of the first's business.
    let other = unsafe { libc::shmat(segment, ptr::null(), 0) };
    unsafe { libc::shmctl(segment, libc::IPC_RMID, ptr::null_mut()) };
    assert_eq!(unsafe { libc::shmdt(place) }, 0);
    assert_eq!(unsafe { libc::shmdt(other) }, 0);
    Ok(range(place.cast(), 3 * PAGE))
}

fn attach_over() -> Result<Range, String> {
    let segment = segment()?;
    let start = anonymous(3);
    let flags = libc::SHM_REMAP | libc::SHM_RND;
    let place = unsafe { libc::shmat(segment, start.wrapping_add(5).cast(), flags) };
    unsafe { libc::shmctl(segment, libc::IPC_RMID, ptr::null_mut()) };
    assert_eq!(place, start.cast());
    assert_eq!(unsafe { libc::shmdt(place) }, 0);
    Ok(range(start, 3 * PAGE))
}

fn remap_file_pages() -> Result<Range, String> {
    let file = unsafe { libc::memfd_create(c"pages".as_ptr(), 0) };
    assert_eq!(unsafe { libc::ftruncate(file, 4 * PAGE as i64) }, 0);
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let start = unsafe { libc::mmap(ptr::null_mut(), 2 * PAGE, protection, libc::MAP_SHARED, file, 0) };
    let result = unsafe { libc::remap_file_pages(start, PAGE, 0, 2, 0) };
    unsafe { libc::close(file) };
    if result == 0 { Ok(range(start.cast(), PAGE)) } else { Err(std::io::Error::last_os_error().to_string()) }
}

fn fork() -> Result<Range, String> {
    match unsafe { libc::fork() } {
        0 => unsafe { libc::_exit(0) },
        child => assert_eq!(unsafe { libc::waitpid(child, ptr::null_mut(), 0) }, child),
    }
    Ok(Range::ALL)
}
