//! Which ranges each call invalidates.

#![expect(unsafe_code, reason = "shared memory of a test's own")]

use core::ptr;
use std::vec::Vec;

use super::*;

const M: usize = 1 << 20;
/// What the figures below are made for.
const PAGE: usize = 4096;

fn call(number: i64, arguments: &[usize]) -> Effect {
    let mut words = [0; 6];
    words[..arguments.len()].copy_from_slice(arguments);
    Call { number: number as usize, arguments: words }.effect()
}

/// The ranges as first byte and first byte behind.
fn ranges(effect: Effect) -> Vec<(usize, usize)> {
    let bounds = |change: Change| {
        let (first, last) = (change.range.start().get() as usize, change.range.last().get() as usize);
        (first, last.wrapping_add(1))
    };
    match effect {
        Effect::Nothing => Vec::new(),
        Effect::One(one) => Vec::from([bounds(one)]),
        Effect::Two(first, second) => Vec::from([bounds(first), bounds(second)]),
    }
}

#[test]
fn ranges_are_whole_pages() {
    assert_eq!(ranges(call(libc::SYS_munmap, &[0x10_0000, 1])), [(0x10_0000, 0x10_1000)]);
    assert_eq!(ranges(call(libc::SYS_munmap, &[0x10_0000, 4097])), [(0x10_0000, 0x10_2000)]);
    assert_eq!(ranges(call(libc::SYS_munmap, &[0x10_0fff, 2])), [(0x10_0000, 0x10_2000)]);
    assert_eq!(call(libc::SYS_munmap, &[0x10_0000, 0]), Effect::Nothing);
}

#[test]
fn what_wraps_ends_at_the_top() {
    assert_eq!(ranges(call(libc::SYS_munmap, &[0x10_0000, usize::MAX])), [(0x10_0000, 0)]);
    assert_eq!(ranges(call(libc::SYS_mprotect, &[usize::MAX - 5, usize::MAX, 0])), [(usize::MAX - 4095, 0)]);
}

#[test]
fn mmap_replaces_only_if_it_is_told_to() {
    let map = |flags: i32| call(libc::SYS_mmap, &[0x20_1000, 0x1001, 0, flags as usize, usize::MAX, 0]);
    let anonymous = libc::MAP_ANONYMOUS | libc::MAP_PRIVATE;
    assert_eq!(map(anonymous), Effect::Nothing);
    assert_eq!(map(anonymous | libc::MAP_FIXED | libc::MAP_FIXED_NOREPLACE), Effect::Nothing);
    assert_eq!(map(anonymous | libc::MAP_FIXED_NOREPLACE), Effect::Nothing);
    assert_eq!(ranges(map(anonymous | libc::MAP_FIXED)), [(0x20_1000, 0x20_3000)]);
}

#[test]
fn huge_pages_are_whole_too() {
    let flags = libc::MAP_ANONYMOUS | libc::MAP_PRIVATE | libc::MAP_FIXED | libc::MAP_HUGETLB;
    let map = call(libc::SYS_mmap, &[2 * M, 1, 0, flags as usize, usize::MAX, 0]);
    assert_eq!(ranges(map), [(2 * M, 4 * M)]);
    // A move goes by huge pages if it is of huge pages, which nobody knows here.
    let moves = (libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED) as usize;
    let remap = call(libc::SYS_mremap, &[4 * M, 4096, 4096, moves, 1 << 30]);
    assert_eq!(ranges(remap), [(4 * M, 6 * M), (1 << 30, 2 << 30)]);
}

#[test]
fn mremap_leaves_shrinks_and_replaces() {
    let remap = |old: usize, new: usize, flags: i32| {
        ranges(call(libc::SYS_mremap, &[0x1000, old, new, flags as usize, 0x9000]))
    };
    let (may_move, fixed) = (libc::MREMAP_MAYMOVE, libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED);
    assert_eq!(remap(0x2000, 0x4000, 0), [], "it grows where it is, or not at all");
    assert_eq!(remap(0x2000, 0x4000, may_move), [(0x1000, 0x3000)]);
    assert_eq!(remap(0x4000, 0x1001, 0), [(0x3000, 0x5000)]);
    assert_eq!(remap(0x4000, 0x1001, may_move), [(0x3000, 0x5000)], "it stays where it is");
    assert_eq!(remap(0x2000, 0x2000, may_move), []);
    assert_eq!(remap(0x2000, 0x1000, fixed), [(0x1000, 0x3000), (0x9000, 0xa000)]);
    assert_eq!(remap(0x2000, 0x2000, may_move | libc::MREMAP_DONTUNMAP), [(0x1000, 0x3000)]);
}

#[test]
fn only_advice_that_takes_pages_counts() {
    let advise = |advice: i32| call(libc::SYS_madvise, &[0x1000, 0x1000, advice as usize]);
    for advice in [libc::MADV_DONTNEED, libc::MADV_FREE, libc::MADV_PAGEOUT, 24, 102] {
        assert_eq!(ranges(advise(advice)), [(0x1000, 0x2000)], "{advice}");
    }
    for advice in [libc::MADV_NORMAL, libc::MADV_WILLNEED, libc::MADV_HUGEPAGE, libc::MADV_COLD, 103] {
        assert_eq!(advise(advice), Effect::Nothing, "{advice}");
    }
}

#[test]
fn an_array_of_advice_is_one_range() {
    let part = |start: usize, length: usize| libc::iovec { iov_base: start as *mut _, iov_len: length };
    let parts: Vec<_> = (0..40).map(|number| part(0x100_0000 - number * 0x2000, 0x1000)).collect();
    let advise = |array: *const libc::iovec, count: usize| {
        call(libc::SYS_process_madvise, &[3, array as usize, count, libc::MADV_DONTNEED as usize])
    };
    if ranges(advise(parts.as_ptr(), 40)) == [(0, 0)] {
        return std::println!("skipped: this process may not read its own memory by process_vm_readv");
    }
    assert_eq!(ranges(advise(parts.as_ptr(), 40)), [(0x100_0000 - 39 * 0x2000, 0x100_1000)]);
    assert_eq!(advise(parts.as_ptr(), 0), Effect::Nothing);
    assert_eq!(ranges(advise(ptr::null(), 3)), [(0, 0)], "whatever the kernel finds there");
    assert_eq!(ranges(advise([part(0, 0), part(0x5000, 1)].as_ptr(), 2)), [(0, 0x6000)]);
}

#[test]
fn protection_that_grows_goes_to_the_edge() {
    let protect = |flags: i32| ranges(call(libc::SYS_mprotect, &[0x5000, 0x1000, flags as usize]));
    assert_eq!(protect(libc::PROT_READ), [(0x5000, 0x6000)]);
    assert_eq!(protect(libc::PROT_READ | libc::PROT_GROWSDOWN), [(0, 0x6000)]);
    assert_eq!(protect(libc::PROT_READ | libc::PROT_GROWSUP), [(0x5000, 0)]);
}

#[test]
fn the_break_counts_when_it_goes_down() {
    assert_eq!(call(libc::SYS_brk, &[0]), Effect::Nothing);
    // Other threads of this program may move it meanwhile.
    loop {
        let now = kernel::current_break();
        let end = now.next_multiple_of(PAGE);
        let stays = call(libc::SYS_brk, &[now]);
        let grows = call(libc::SYS_brk, &[now + 0x10_0000]);
        let shrinks = call(libc::SYS_brk, &[end - 2 * PAGE - 1]);
        if kernel::current_break() == now {
            assert_eq!((stays, grows), (Effect::Nothing, Effect::Nothing));
            return assert_eq!(ranges(shrinks), [(end - 2 * PAGE, end)]);
        }
    }
}

#[test]
fn all_pieces_of_a_segment_are_detached() {
    // SAFETY: a new segment, gone when it is attached nowhere.
    let segment = unsafe { libc::shmget(libc::IPC_PRIVATE, 3 * PAGE, 0o600) };
    if segment == -1 {
        return std::println!("skipped: no System V shared memory here");
    }
    // SAFETY: wherever there is room, twice.
    let [start, other] = [(), ()].map(|()| unsafe { libc::shmat(segment, ptr::null(), 0) });
    // SAFETY: as above.
    unsafe { libc::shmctl(segment, libc::IPC_RMID, ptr::null_mut()) };
    // SAFETY: nobody uses the middle page.
    unsafe { libc::munmap(start.wrapping_byte_add(PAGE), PAGE) };
    let whole = (start as usize, start as usize + 3 * PAGE);
    assert_eq!(ranges(call(libc::SYS_shmdt, &[start as usize])), [whole]);
    for place in [start, other] {
        // SAFETY: nobody uses it.
        unsafe { libc::shmdt(place) };
    }
}

#[test]
fn what_is_attached_nowhere_reaches_to_the_top() {
    assert_eq!(ranges(call(libc::SYS_shmdt, &[0x10_0000])), [(0x10_0000, 0)]);
}

fn advice(advice: c_int, length: usize) -> Effect {
    let arguments = [0x10000, length, advice as usize, 0, 0, 0];
    Call { number: libc::SYS_madvise as usize, arguments }.effect()
}

#[test]
fn what_a_hole_in_a_file_takes_away_lies_anywhere() {
    let whole = Effect::One(Change { range: Range::ALL, event: Event::Clear });
    assert_eq!(advice(libc::MADV_REMOVE, PAGE), whole);
    assert_eq!(advice(libc::MADV_COLLAPSE, PAGE), whole);
    assert_eq!(advice(libc::MADV_DONTNEED, PAGE), Effect::of(Event::Clear, 0x10000, PAGE));
    assert_eq!(advice(libc::MADV_REMOVE, 0), Effect::Nothing);
    assert_eq!(advice(libc::MADV_WILLNEED, PAGE), Effect::Nothing);
}
