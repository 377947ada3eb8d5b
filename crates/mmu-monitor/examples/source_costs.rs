//! What the sources `dispatch` and `userfaultfd` cost, beside the same without them.
//!
//! ```sh
//! cargo run --release -p mmu-monitor --example source_costs
//! ```

#![expect(unsafe_code, reason = "the calls that are measured")]

use std::time::{Duration, Instant};

use mmu_monitor::dispatch::{self, DISPATCH};
use mmu_monitor::userfaultfd::USERFAULTFD;
use mmu_monitor::{Monitor, Source};
use mmu_notifier::Range;

const PAGE: usize = 4096;

/// The best of many short rounds: others use the machine as well.
fn timed<R>(name: &str, call: impl Fn() -> R) {
    const CALLS: u32 = 500;
    let round = |_| {
        let begun = Instant::now();
        (0..CALLS).for_each(|_| drop(call()));
        begun.elapsed() / CALLS
    };
    let best: Duration = (0..300).map(round).min().unwrap();
    println!("{name:44} {best:>10.1?}");
}

fn map() -> *mut libc::c_void {
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping.
    let place = unsafe { libc::mmap(std::ptr::null_mut(), PAGE, protection, flags, -1, 0) };
    assert_ne!(place, libc::MAP_FAILED);
    // SAFETY: just mapped.
    unsafe { place.cast::<u8>().write(1) };
    place
}

fn watched() -> *mut libc::c_void {
    let place = map();
    USERFAULTFD.watch(Range::from_len(place.cast_const(), PAGE as u64).unwrap()).unwrap();
    place
}

fn settle(monitor: Monitor) {
    while monitor.is_pending() {
        std::thread::yield_now();
    }
}

/// Discards a page that nobody uses.
fn discard(page: *mut libc::c_void) {
    // SAFETY: the page is this program's own, and what is in it counts for nothing.
    unsafe { libc::madvise(page, PAGE, libc::MADV_DONTNEED) };
}

fn unmap(page: *mut libc::c_void) {
    // SAFETY: each page is unmapped by who mapped it, once.
    unsafe { libc::munmap(page, PAGE) };
}

/// getppid, or madvise of a page that nobody uses, by an instruction of this program.
#[cfg(target_arch = "x86_64")]
fn direct(number: i64, first: usize, second: usize, third: usize) -> isize {
    let result;
    // SAFETY: the kernel writes rax, rcx and r11; neither call does more than the functions above.
    unsafe {
        std::arch::asm!("syscall", inlateout("rax") number as isize => result, in("rdi") first, in("rsi") second,
            in("rdx") third, lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    result
}

#[cfg(target_arch = "x86_64")]
fn direct_calls(state: &str, page: *mut libc::c_void) {
    let say = |what: &str| format!("{what}, {state}");
    let advice = libc::MADV_DONTNEED as usize;
    // SAFETY: it only asks.
    timed(&say("getppid by the C library"), || unsafe { libc::syscall(libc::SYS_getppid) });
    timed(&say("getppid directly"), || direct(libc::SYS_getppid, 0, 0, 0));
    timed(&say("madvise directly"), || direct(libc::SYS_madvise, page as usize, PAGE, advice));
}

#[cfg(not(target_arch = "x86_64"))]
fn direct_calls(_state: &str, _page: *mut libc::c_void) {}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let monitor = Monitor::start_with(&"explicit".parse()?)?;
    let page = map();
    direct_calls("not armed", page);
    match DISPATCH.arm() {
        Ok(()) => direct_calls("armed", page),
        Err(reason) => println!("{reason}"),
    }
    dispatch::disarm_thread();
    timed("map, touch, unmap", || unmap(map()));
    timed("madvise", || discard(page));
    USERFAULTFD.arm()?;
    timed("map, touch, watch, unmap", || unmap(watched()));
    let page = watched();
    timed("madvise, watched", || discard(page));
    settle(monitor);
    timed("is_pending", || monitor.is_pending());
    Ok(())
}
