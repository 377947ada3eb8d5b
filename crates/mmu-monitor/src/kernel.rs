//! What is asked of the kernel on the path of an invalidation: raw system calls, small buffers on the stack.
//!
//! Nothing here goes through the C library's functions: they may be what is being watched, they write `errno`, and
//! some allocate. Nothing allocates, sleeps (but for the kernel's own locks) or panics.

#![expect(unsafe_code, reason = "system calls")]

use core::ffi::c_int;
use core::ptr;
#[cfg(target_arch = "x86_64")]
use core::sync::atomic::{AtomicUsize, Ordering};

/// The six arguments of a system call.
pub(crate) type Words = [usize; 6];

/// The address of a `syscall` and a `ret` of the C library, by which this crate makes its own calls; 0 while it makes them
/// by itself. Where instructions outside the C library are trapped (`dispatch`), its own must not be.
#[cfg(target_arch = "x86_64")]
pub(crate) static GATE: AtomicUsize = AtomicUsize::new(0);

/// Makes a system call; a negative result down to -4095 is an error's number.
///
/// # Safety
/// - Whatever the call of that number owes its caller.
#[cfg(target_arch = "x86_64")]
#[inline]
pub(crate) unsafe fn system_call(number: usize, arguments: Words) -> isize {
    match GATE.load(Ordering::Relaxed) {
        // SAFETY: the caller's promise.
        0 => unsafe { system_call_here(number, arguments) },
        // SAFETY: the caller's promise.
        gate => unsafe { system_call_by(gate, number, arguments) },
    }
}

/// The same, by an instruction of this crate.
///
/// # Safety
/// - As above.
#[cfg(target_arch = "x86_64")]
#[inline]
pub(crate) unsafe fn system_call_here(number: usize, arguments: Words) -> isize {
    let result;
    let [first, second, third, fourth, fifth, sixth] = arguments;
    // SAFETY: the kernel writes rax, rcx and r11, and the memory that the caller answers for.
    unsafe {
        core::arch::asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") first,
            in("rsi") second,
            in("rdx") third,
            in("r10") fourth,
            in("r8") fifth,
            in("r9") sixth,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result
}

/// The same, by the instruction at `gate`.
///
/// # Safety
/// - As above, and a `ret` stands behind the instruction.
#[cfg(target_arch = "x86_64")]
unsafe fn system_call_by(gate: usize, number: usize, arguments: Words) -> isize {
    let result;
    let [first, second, third, fourth, fifth, sixth] = arguments;
    // SAFETY: as above; the call and its return leave the stack as it was.
    unsafe {
        core::arch::asm!(
            "call rcx",
            inlateout("rax") number as isize => result,
            in("rdi") first,
            in("rsi") second,
            in("rdx") third,
            in("r10") fourth,
            in("r8") fifth,
            in("r9") sixth,
            inlateout("rcx") gate => _,
            lateout("r11") _,
        );
    }
    result
}

/// As above.
///
/// # Safety
/// - As above.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) unsafe fn system_call(number: usize, arguments: Words) -> isize {
    let [first, second, third, fourth, fifth, sixth] = arguments;
    // SAFETY: the caller answers for the call.
    let result = unsafe { libc::syscall(number as _, first, second, third, fourth, fifth, sixth) };
    // SAFETY: the C library's own place of this thread.
    if result == -1 { -(unsafe { *libc::__errno_location() } as isize) } else { result as isize }
}

/// Makes a call that only reads or that writes nothing but what `arguments` lend it.
fn ask(number: libc::c_long, arguments: Words) -> Option<usize> {
    // SAFETY: each caller below passes numbers, or pointers to places of its own with their true size.
    let result = unsafe { system_call(number as usize, arguments) };
    usize::try_from(result).ok()
}

/// The size of a page, in bytes; a power of two.
#[cfg(target_arch = "x86_64")]
pub(crate) const fn page() -> usize {
    4096
}

/// As above; the kernel put it beside the program's arguments.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn page() -> usize {
    // SAFETY: it looks into a table that never changes.
    let size = unsafe { libc::getauxval(libc::AT_PAGESZ) } as usize;
    if size.is_power_of_two() { size } else { 4096 }
}

/// The end of the heap.
pub(crate) fn current_break() -> usize {
    ask(libc::SYS_brk, [0; 6]).unwrap_or(0)
}

/// Says whether a file consists of huge pages, or may: who is not answered has to take it for one.
pub(crate) fn may_have_huge_pages(file: c_int) -> bool {
    const HUGETLBFS: i64 = 0x9584_58f6;
    // SAFETY: all zero is a valid `statfs`.
    let mut answer: libc::statfs = unsafe { core::mem::zeroed() };
    let words = [file as usize, &raw mut answer as usize, 0, 0, 0, 0];
    // SAFETY: the kernel writes the answer.
    match unsafe { system_call(libc::SYS_fstatfs as usize, words) } {
        0 => answer.f_type == HUGETLBFS,
        // The call that it is for will be refused.
        error => error != -(libc::EBADF as isize),
    }
}

/// The size of a segment of System V shared memory, in bytes.
#[cfg(not(target_arch = "s390x"))]
pub(crate) fn segment_size(identifier: c_int) -> Option<usize> {
    // SAFETY: all zero is a valid `shmid_ds`.
    let mut answer: libc::shmid_ds = unsafe { core::mem::zeroed() };
    let place = &raw mut answer as usize;
    ask(libc::SYS_shmctl, [identifier as usize, libc::IPC_STAT as usize, place, 0, 0, 0])?;
    Some(answer.shm_segsz)
}

/// The lowest start and the highest end of an array of `iovec`; none if it is empty. Where nobody can look: everything.
pub(crate) fn hull(array: usize, count: usize) -> Option<(usize, usize)> {
    const AT_ONCE: usize = 16;
    /// The kernel refuses more.
    const MOST: usize = 1024;
    let (mut lowest, mut highest) = (usize::MAX, 0);
    let mut done = 0;
    while done < count.min(MOST) {
        let mut parts = [libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 }; AT_ONCE];
        let wanted = (count - done).min(AT_ONCE);
        match read_own(array.checked_add(done * size_of::<libc::iovec>())?, &mut parts[..wanted]) {
            Reading::Done => {}
            // What cannot be read this way may be there for the kernel.
            Reading::NotThere | Reading::Refused => return Some((0, usize::MAX)),
        }
        for part in &parts[..wanted] {
            let start = part.iov_base as usize;
            (lowest, highest) = (lowest.min(start), highest.max(start.saturating_add(part.iov_len)));
        }
        done += wanted;
    }
    (lowest < highest).then_some((lowest, highest))
}

/// Types that any bytes are a value of.
pub(crate) trait Plain {}

impl Plain for libc::iovec {}
impl Plain for u64 {}

pub(crate) enum Reading {
    Done,
    /// The memory is not mapped: the call that it is for will be refused.
    NotThere,
    /// The kernel, or a filter, does not allow to look.
    Refused,
}

/// Reads memory of this process that may not be there.
pub(crate) fn read_own<T: Plain>(from: usize, into: &mut [T]) -> Reading {
    let length = size_of_val(into);
    let local = libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: length };
    let remote = libc::iovec { iov_base: from as *mut _, iov_len: length };
    let Some(process) = ask(libc::SYS_getpid, [0; 6]) else { return Reading::Refused };
    let words = [process, &raw const local as usize, 1, &raw const remote as usize, 1, 0];
    // SAFETY: the kernel writes at most `length` bytes to `into`, or says that it cannot.
    match unsafe { system_call(libc::SYS_process_vm_readv as usize, words) } {
        read if read == length as isize => Reading::Done,
        // What was read of it in part ends where the memory does.
        read if read >= 0 || read == -(libc::EFAULT as isize) => Reading::NotThere,
        _ => Reading::Refused,
    }
}

/// The end of what shmdt of `start` takes away: all pieces of the segment that is attached there.
pub(crate) fn attached_end(start: usize) -> Option<usize> {
    let (mut segment, mut end) = (None, None);
    crate::maps::for_each(|mapping| {
        let is_piece = mapping.is_segment && mapping.start.checked_sub(start) == Some(mapping.offset);
        let file = (mapping.device, mapping.inode);
        if is_piece && *segment.get_or_insert(file) == file {
            end = Some(mapping.end);
        }
    })?;
    end
}
