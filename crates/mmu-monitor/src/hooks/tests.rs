//! Sites as no C library of today has them: among vector registers, across two lines of the cache.

#![expect(unsafe_code, reason = "machine code")]

use core::arch::global_asm;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::boxed::Box;
use std::string::ToString;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use std::vec::Vec;

use mmu_notifier::interval::Answer;
use mmu_notifier::{Invalidation, Range};

use super::install::Patched;
use super::object::{self, Kind, Object};
use super::site::{Site, Which};
use super::text;
use crate::process;

const PAGE: usize = 4096;

// madvise(rdi, 4096, MADV_DONTNEED), with xmm0, ymm3 and xmm15 held across the call and their sum in rax.
global_asm!(
    ".pushsection .text.mmu_monitor_tests, \"ax\", @progbits",
    ".p2align 6",
    ".globl mmu_monitor_test_among_vectors",
    "mmu_monitor_test_among_vectors:",
    "mov esi, 4096",
    "mov edx, 4",
    "mov eax, 11",
    "movq xmm0, rax",
    "mov eax, 22",
    "movq xmm15, rax",
    "mov eax, 33",
    "movq xmm3, rax",
    ".globl mmu_monitor_test_among_vectors_site",
    "mmu_monitor_test_among_vectors_site:",
    "mov eax, 28",
    "syscall",
    "movq rcx, xmm0",
    "add rax, rcx",
    "movq rcx, xmm15",
    "add rax, rcx",
    "movq rcx, xmm3",
    "add rax, rcx",
    "ret",
    // The same without vectors; the first instruction of the site begins three bytes before a line.
    ".p2align 6",
    ".skip 47, 0x90",
    ".globl mmu_monitor_test_across_lines",
    "mmu_monitor_test_across_lines:",
    "mov esi, 4096",
    "mov edx, 4",
    ".skip 4, 0x90",
    ".globl mmu_monitor_test_across_lines_site",
    "mmu_monitor_test_across_lines_site:",
    "mov eax, 28",
    "syscall",
    "ret",
    ".popsection",
);

unsafe extern "C" {
    fn mmu_monitor_test_among_vectors(page: usize) -> i64;
    fn mmu_monitor_test_among_vectors_site();
    fn mmu_monitor_test_across_lines(page: usize) -> i64;
    fn mmu_monitor_test_across_lines_site();
}

/// Patching is for one at a time.
static ONE: Mutex<()> = Mutex::new(());

/// This program as an object, with one site.
fn patched(site: unsafe extern "C" fn(), has_vectors: bool) -> Patched {
    let address = site as *const () as usize;
    let text = address & !(PAGE - 1)..(address + 2 * PAGE) & !(PAGE - 1);
    let object = Object {
        kind: Kind::Static,
        name: "this test".to_string(),
        whole: text.clone(),
        table: text.start..text.start,
        text,
    };
    let which = Which::Number(libc::SYS_madvise as usize);
    let site = Site { address, which, old: text::bytes(address), has_vectors };
    Patched::with(object, Vec::from([site])).unwrap()
}

fn page() -> usize {
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping.
    unsafe { libc::mmap(core::ptr::null_mut(), PAGE, protection, flags, -1, 0) as usize }
}

fn counted(page: usize) -> (Arc<AtomicUsize>, impl Drop) {
    let space = process::make().unwrap();
    let starts = Arc::new(AtomicUsize::new(0));
    let counter = starts.clone();
    let heard = move |_: &Invalidation| {
        counter.fetch_add(1, Ordering::Relaxed);
        // Whatever vector registers a callback uses.
        core::hint::black_box((1..64).map(|number| f64::from(number).sqrt() * 3.0).sum::<f64>());
        Answer::Done
    };
    let subscription = space.insert(Range::from_len(page, PAGE as u64).unwrap(), heard).unwrap();
    (starts, subscription)
}

#[test]
fn vector_registers_live_across_a_site() {
    let _one = ONE.lock().unwrap();
    let page = page();
    let (starts, _subscription) = counted(page);
    let patched = patched(mmu_monitor_test_among_vectors_site, true);
    text::write_all(patched.object(), &patched.jumps()).unwrap();
    // SAFETY: the page is this test's.
    let sum = unsafe { mmu_monitor_test_among_vectors(page) };
    text::write_all(patched.object(), &patched.restored()).unwrap();
    assert_eq!((sum, starts.load(Ordering::Relaxed)), (66, 1));
}

#[test]
fn a_site_across_two_lines_is_exchanged_under_load() {
    let _one = ONE.lock().unwrap();
    let page = page();
    let (starts, _subscription) = counted(page);
    let patched = patched(mmu_monitor_test_across_lines_site, false);
    assert!(patched.jumps().iter().all(|write| write.address % 64 > 59), "it does lie across two lines");
    let stop: &'static AtomicBool = Box::leak(Box::new(AtomicBool::new(false)));
    let worker = || {
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                // SAFETY: the page is this test's.
                assert_eq!(unsafe { mmu_monitor_test_across_lines(page) }, 0);
            }
        })
    };
    let workers = [worker(), worker()];
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(1) {
        text::write_all(patched.object(), &patched.jumps()).unwrap();
        let before = starts.load(Ordering::Relaxed);
        // SAFETY: as above.
        assert_eq!(unsafe { mmu_monitor_test_across_lines(page) }, 0);
        assert!(starts.load(Ordering::Relaxed) > before, "patched means heard");
        text::write_all(patched.object(), &patched.restored()).unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    workers.into_iter().for_each(|worker| worker.join().unwrap());
}

#[test]
fn the_sites_of_this_machines_library_are_found() {
    let objects = object::find();
    assert!(objects.iter().any(|object| object.kind != Kind::Linker), "{objects:?}");
    for object in &objects {
        let sites = super::site::find(object).unwrap();
        assert!(sites.iter().all(|site| object.text.contains(&site.address)));
        assert!(!sites.is_empty());
    }
}
