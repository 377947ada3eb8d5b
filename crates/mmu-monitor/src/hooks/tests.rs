//! Sites of all kinds: among vector registers, and across two blocks, with and without a pad.

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
    // The same without vectors; the first instruction of the site begins three bytes before a block.
    ".p2align 6",
    ".skip 47, 0x90",
    ".globl mmu_monitor_test_across_blocks",
    "mmu_monitor_test_across_blocks:",
    "mov esi, 4096",
    "mov edx, 4",
    ".skip 4, 0x90",
    ".globl mmu_monitor_test_across_blocks_site",
    "mmu_monitor_test_across_blocks_site:",
    "mov eax, 28",
    "syscall",
    "ret",
    ".globl mmu_monitor_test_across_blocks_pad",
    "mmu_monitor_test_across_blocks_pad:",
    ".skip 8, 0x90",
    ".popsection",
);

unsafe extern "C" {
    fn mmu_monitor_test_among_vectors(page: usize) -> i64;
    fn mmu_monitor_test_among_vectors_site();
    fn mmu_monitor_test_across_blocks(page: usize) -> i64;
    fn mmu_monitor_test_across_blocks_site();
    fn mmu_monitor_test_across_blocks_pad();
}

/// Patching is for one at a time.
static ONE: Mutex<()> = Mutex::new(());

/// This program as an object, with one site.
fn patched(site: unsafe extern "C" fn(), has_vectors: bool, pad: Option<unsafe extern "C" fn()>) -> Patched {
    let address = site as *const () as usize;
    let text = address & !(PAGE - 1)..(address + 2 * PAGE) & !(PAGE - 1);
    let object = Object {
        kind: Kind::Static,
        name: "this test".to_string(),
        whole: text.clone(),
        table: text.start..text.start,
        text,
    };
    let pad = pad.map(|pad| pad as *const () as usize);
    let which = Which::Number(libc::SYS_madvise as usize);
    let site = Site { address, which, old: text::bytes(address), has_vectors, pad };
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
    let patched = patched(mmu_monitor_test_among_vectors_site, true, None);
    patched.put().unwrap();
    // SAFETY: the page is this test's.
    let sum = unsafe { mmu_monitor_test_among_vectors(page) };
    patched.take_back().unwrap();
    assert_eq!((sum, starts.load(Ordering::Relaxed)), (66, 1));
}

#[test]
fn a_site_across_two_blocks_is_exchanged_by_a_pad() {
    exchange_under_load(Some(mmu_monitor_test_across_blocks_pad));
}

#[test]
fn a_site_across_two_blocks_is_exchanged_by_steps() {
    exchange_under_load(None);
}

fn exchange_under_load(pad: Option<unsafe extern "C" fn()>) {
    let _one = ONE.lock().unwrap();
    let page = page();
    let (starts, _subscription) = counted(page);
    let patched = patched(mmu_monitor_test_across_blocks_site, false, pad);
    let site = mmu_monitor_test_across_blocks_site as *const () as usize;
    assert!(!text::is_one_step(site, 5) && text::is_one_step(site, 2));
    let stop: &'static AtomicBool = Box::leak(Box::new(AtomicBool::new(false)));
    let worker = || {
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                // SAFETY: the page is this test's.
                assert_eq!(unsafe { mmu_monitor_test_across_blocks(page) }, 0);
            }
        })
    };
    let workers = [worker(), worker()];
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(1) {
        patched.put().unwrap();
        let before = starts.load(Ordering::Relaxed);
        // SAFETY: as above.
        assert_eq!(unsafe { mmu_monitor_test_across_blocks(page) }, 0);
        assert!(starts.load(Ordering::Relaxed) > before, "patched means heard");
        patched.take_back().unwrap();
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
