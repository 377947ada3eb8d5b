//! A kernel of one CPU in miniature: it proves that the library links, and works, where there is no operating
//! system.
//!
//! [`program`] is the kernel: a page table and a TLB that watches it. `heap` is the allocator and `machine` the
//! [platform](mmu_notifier::platform) that such a kernel brings. On a machine with an operating system
//! the same program runs from an ordinary `main`; with `--cfg embedded_platform` also the heap and the platform,
//! if no other crate of the build asks for the library's feature `std`.

#![cfg_attr(target_os = "none", no_std, no_main)]

extern crate alloc;

#[cfg(any(target_os = "none", embedded_platform))]
mod heap;
mod lock;
#[cfg(any(target_os = "none", embedded_platform))]
mod machine;
mod program;

/// What a kernel does before anything else. Elsewhere the library finds the threads by itself.
#[cfg(any(target_os = "none", embedded_platform))]
fn start_up() {
    machine::install();
}

#[cfg(not(any(target_os = "none", embedded_platform)))]
fn start_up() {}

#[cfg(not(target_os = "none"))]
fn main() {
    start_up();
    println!("{}", program::run());
}

/// Where a boot loader jumps to, with a stack.
#[cfg(target_os = "none")]
#[expect(unsafe_code, reason = "the symbol that linkers look for")]
// SAFETY: no_mangle: nothing else in the program is called `_start`.
#[unsafe(no_mangle)]
extern "C" fn _start() -> ! {
    start_up();
    machine::halt(Ok(program::run()))
}

#[cfg(target_os = "none")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    machine::halt(Err(machine::Failed))
}
