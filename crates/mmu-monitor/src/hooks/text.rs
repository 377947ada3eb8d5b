//! Writing to text that other threads execute.
//!
//! A jump takes the place of the first instruction of a site, or of its first two bytes. In a process of one thread nobody
//! can be there: it is written through `/proc/self/mem`, which writes to private copies of pages whatever their
//! protection, also where the process may not make memory writable and executable. Where other threads run the pages are
//! made writable for the time, and
//! - if the bytes lie within one block of those that processors fetch at once, one locked instruction exchanges eight
//!   bytes around them: another thread fetches the old instruction or the new one;
//! - if the first two do, they become a short jump to unused bytes behind the function (a *pad*), which hold the long
//!   one: whoever has fetched the two old bytes finds the rest of the old instruction behind them;
//! - else in three steps, with the processors synchronised after each: a breakpoint over the first byte, the rest behind
//!   it, the first byte. Who meets the breakpoint is sent to the stub by a handler of SIGTRAP.
//!
//! All processors that run this process are told of the new code in the end (membarrier).

#![expect(unsafe_code, reason = "stores into code")]

use core::ops::Range;
use core::sync::atomic::{AtomicUsize, Ordering, fence};
use std::format;
use std::string::String;
use std::sync::Once;

use super::object::Object;
use super::site::PATCH;
use super::stub::checked;
use crate::kernel::system_call;

/// What processors fetch at once, aligned, in bytes: they do so by 16 or 32, though what their makers promise of code that
/// others change is an aligned quadword.
const FETCHED: usize = 16;
/// The length of a short jump.
pub(super) const SHORT: usize = 2;
const PAGE: usize = 4096;

/// Bytes to be written, and where a thread that meets the breakpoint goes on.
#[derive(Clone, Debug)]
pub(super) struct Write {
    pub(super) address: usize,
    bytes: [u8; PATCH],
    length: usize,
    detour: usize,
}

impl Write {
    pub(super) fn new(address: usize, bytes: &[u8], detour: usize) -> Self {
        let mut held = [0; PATCH];
        held[..bytes.len()].copy_from_slice(bytes);
        Write { address, bytes: held, length: bytes.len(), detour }
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    /// Says whether it stands there.
    pub(super) fn is_there(&self) -> bool {
        bytes(self.address).starts_with(self.bytes())
    }
}

/// Says whether so many bytes can be exchanged in one step.
pub(super) fn is_one_step(address: usize, length: usize) -> bool {
    address % FETCHED + length <= FETCHED
}

/// Writes all of `pads`, where nobody is, and then all of `writes`; they lie in `object`.
///
/// # Errors
/// The kernel lets nobody write there; then nothing was written.
pub(super) fn write_all(object: &Object, pads: &[Write], writes: &[Write]) -> Result<(), String> {
    let all = || pads.iter().chain(writes);
    if is_alone() && write_through_file(all()) {
        return Ok(());
    }
    let pages = pages(all());
    protect(&pages, libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC).map_err(|error| {
        let _ = protect(&pages, libc::PROT_READ | libc::PROT_EXEC);
        let name = &object.name;
        format!(
            "{name}: its text cannot be made writable ({error}); a process that forbids that (systemd's \
             MemoryDenyWriteExecute) can start the monitor before its first thread"
        )
    })?;
    for pad in pads {
        pad.bytes().iter().enumerate().for_each(|(offset, byte)| store(pad.address + offset, *byte));
    }
    synchronize();
    writes.iter().for_each(exchange);
    // It was readable and executable before, so this is not refused.
    let _ = protect(&pages, libc::PROT_READ | libc::PROT_EXEC);
    synchronize();
    Ok(())
}

/// Says whether this process has one thread.
fn is_alone() -> bool {
    std::fs::read_dir("/proc/self/task").is_ok_and(|tasks| tasks.count() == 1)
}

/// Writes in a process of one thread; false if that is not possible, and nothing was written.
fn write_through_file<'w>(mut writes: impl Iterator<Item = &'w Write>) -> bool {
    use std::os::unix::fs::FileExt;
    let Ok(file) = std::fs::OpenOptions::new().write(true).open("/proc/self/mem") else { return false };
    // If the first is refused, all are.
    writes.all(|write| file.write_all_at(write.bytes(), write.address as u64).is_ok())
}

/// The pages around all writes, without gaps: their text is one mapping.
fn pages<'w>(writes: impl Iterator<Item = &'w Write>) -> Range<usize> {
    let (first, last) = writes.fold((usize::MAX, 0), |(first, last), write| {
        (first.min(write.address), last.max(write.address + write.length))
    });
    first & !(PAGE - 1)..last.next_multiple_of(PAGE)
}

fn protect(pages: &Range<usize>, protection: libc::c_int) -> std::io::Result<()> {
    let words = [pages.start, pages.len(), protection as usize, 0, 0, 0];
    // SAFETY: the text stays readable and executable throughout.
    checked(unsafe { system_call(libc::SYS_mprotect as usize, words) }).map(drop)
}

fn exchange(write: &Write) {
    if !is_one_step(write.address, write.length) {
        return exchange_by_steps(write);
    }
    // Eight bytes of the same block that hold them.
    let start = write.address - (write.address % FETCHED).saturating_sub(FETCHED - 8);
    let mut bytes = [0; 8];
    // SAFETY: the pages are writable and readable now, and nobody else writes them.
    unsafe { core::ptr::copy_nonoverlapping(start as *const u8, bytes.as_mut_ptr(), 8) };
    let offset = write.address - start;
    bytes[offset..offset + write.length].copy_from_slice(write.bytes());
    // SAFETY: the pages are writable now; the eight bytes lie in one block.
    unsafe { exchange_eight(start, u64::from_le_bytes(bytes)) };
}

/// Stores eight bytes at once; the address need not be aligned.
///
/// # Safety
/// - They lie in one block of memory that may be written.
unsafe fn exchange_eight(address: usize, bytes: u64) {
    // SAFETY: the caller's promise. A locked instruction within a line is one step for everybody.
    unsafe { core::arch::asm!("xchg [{}], {}", in(reg) address, inout(reg) bytes => _, options(nostack)) };
}

const INT3: u8 = 0xcc;

/// The site under exchange and its detour, for who meets the breakpoint.
static BREAKPOINT: AtomicUsize = AtomicUsize::new(0);
static DETOUR: AtomicUsize = AtomicUsize::new(0);
/// The handler of SIGTRAP that was there before.
static BEFORE: AtomicUsize = AtomicUsize::new(libc::SIG_DFL);

fn exchange_by_steps(write: &Write) {
    static HANDLER: Once = Once::new();
    HANDLER.call_once(handle_traps);
    BREAKPOINT.store(0, Ordering::Relaxed);
    // ORDERING: pairs with the fence in `detour_of`: who sees the new detour sees that the old breakpoint is over.
    fence(Ordering::Release);
    DETOUR.store(write.detour, Ordering::Relaxed);
    // ORDERING: pairs with the Acquire in `detour_of`: who sees the breakpoint sees its detour or a later one.
    BREAKPOINT.store(write.address, Ordering::Release);
    store(write.address, INT3);
    synchronize();
    let behind = write.bytes().iter().enumerate().skip(1);
    behind.for_each(|(offset, byte)| store(write.address + offset, *byte));
    synchronize();
    store(write.address, write.bytes[0]);
    synchronize();
}

/// Stores a byte of code.
fn store(address: usize, byte: u8) {
    // SAFETY: whoever calls has made the page writable; a byte is one step for everybody.
    unsafe { core::ptr::write_volatile(address as *mut u8, byte) };
}

/// Where a thread that met the breakpoint at `met` goes on, while that is under exchange.
fn detour_of(met: usize) -> Option<usize> {
    let is_there = |order| BREAKPOINT.load(order) == met;
    if !is_there(Ordering::Acquire) {
        return None;
    }
    let detour = DETOUR.load(Ordering::Relaxed);
    // ORDERING: pairs with the fence in `exchange_by_steps`.
    fence(Ordering::Acquire);
    is_there(Ordering::Relaxed).then_some(detour)
}

/// Installs the handler of SIGTRAP. It stays: a thread may have met a breakpoint and not be told of it yet.
fn handle_traps() {
    // SAFETY: all zero is a valid `sigaction`.
    let mut new: libc::sigaction = unsafe { core::mem::zeroed() };
    // SAFETY: as above.
    let mut old: libc::sigaction = unsafe { core::mem::zeroed() };
    new.sa_sigaction = meet as *const () as usize;
    new.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: both are places of this function.
    unsafe { libc::sigaction(libc::SIGTRAP, &raw const new, &raw mut old) };
    BEFORE.store(old.sa_sigaction, Ordering::Relaxed);
}

unsafe extern "C" fn meet(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut core::ffi::c_void) {
    /// What the kernel says of a breakpoint, and of nothing that another process can send.
    const FROM_KERNEL: libc::c_int = 0x80;
    // SAFETY: the kernel lends what it says of the signal.
    let is_breakpoint = unsafe { (*info).si_code } == FROM_KERNEL;
    // SAFETY: and the context of the thread.
    let registers = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
    let counter = &mut registers[libc::REG_RIP as usize];
    let met = *counter as usize - 1;
    if let (true, Some(detour)) = (is_breakpoint, detour_of(met)) {
        *counter = detour as i64;
    } else if is_breakpoint && bytes(met)[0] != INT3 {
        // One of an earlier exchange: by now the whole instruction is there.
        *counter = met as i64;
    } else {
        // Somebody else's, for whoever handled them before.
        // SAFETY: it was installed as a handler; the rest are the arguments of this one.
        unsafe { crate::signal::hand_on(BEFORE.load(Ordering::Relaxed), signal, info, context) };
    }
}

/// Makes all processors that run this process fetch its code anew.
fn synchronize() {
    const REGISTER: usize = 1 << 6;
    const SYNC_CORE: usize = 1 << 5;
    for command in [REGISTER, SYNC_CORE] {
        // SAFETY: it changes nothing that can be seen. A kernel that cannot has processors that see stores anyway.
        unsafe { system_call(libc::SYS_membarrier as usize, [command, 0, 0, 0, 0, 0]) };
    }
}

/// The jump from a site to a stub.
pub(super) fn jump(from: usize, to: usize) -> [u8; PATCH] {
    let [a, b, c, d] = super::stub::distance(from + PATCH, to);
    [0xe9, a, b, c, d]
}

/// The short jump from a site to a pad, which lies near.
pub(super) fn short_jump(from: usize, to: usize) -> [u8; SHORT] {
    [0xeb, to.wrapping_sub(from + SHORT) as u8]
}

/// Says whether a short jump reaches.
pub(super) fn is_near(from: usize, to: usize) -> bool {
    i8::try_from(to.wrapping_sub(from + SHORT) as isize).is_ok()
}

/// Reads what stands at a site now.
pub(super) fn bytes(address: usize) -> [u8; PATCH] {
    // SAFETY: the site lies in text, which is readable.
    unsafe { core::ptr::read_volatile(address as *const [u8; PATCH]) }
}
