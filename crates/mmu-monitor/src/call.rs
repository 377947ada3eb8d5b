//! A memory system call, and what it will do: which ranges of addresses it invalidates, and why.
//!
//! What a call will do is read from its arguments alone where they say it. Ranges are rounded as the kernel rounds
//! them: the start down, the end up to whole pages; where the kernel may go by huge pages, to whole huge pages.
//! Where only the kernel knows (`brk`, `shmdt`, an array of ranges), it is asked first. Where it does not say, the
//! range is wider than what changes, never narrower.
//!
//! Nothing here allocates or fails: a call that the kernel will refuse has an effect that is announced in vain, or
//! none.

use core::ffi::c_int;
use mmu_notifier::{Event, Range};

use crate::kernel::{self, Words};

/// The sizes of huge pages that a mapping may consist of.
const HUGE: [usize; 2] = [1 << 30, 1 << 21];

/// A system call: its number and its six arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Call {
    pub(crate) number: usize,
    pub(crate) arguments: Words,
}

/// One range that a call invalidates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) range: Range,
    pub(crate) event: Event,
}

/// What a call invalidates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Nothing.
    Nothing,
    /// One range.
    One(Change),
    /// Two ranges: the place that is left, and the one that is replaced.
    Two(Change, Change),
}

impl Effect {
    fn of(event: Event, start: usize, length: usize) -> Effect {
        pages(start, length, kernel::page())
            .map_or(Effect::Nothing, |range| Effect::One(Change { range, event }))
    }

    fn and(self, other: Effect) -> Effect {
        match (self, other) {
            (Effect::One(first), Effect::One(second)) => Effect::Two(first, second),
            (Effect::Nothing, one) | (one, _) => one,
        }
    }
}

/// The numbers of the calls that may have an effect.
#[cfg(target_arch = "x86_64")]
pub(crate) const NUMBERS: [usize; 11] = [
    libc::SYS_munmap as usize,
    libc::SYS_mmap as usize,
    libc::SYS_mprotect as usize,
    libc::SYS_mremap as usize,
    libc::SYS_madvise as usize,
    libc::SYS_brk as usize,
    libc::SYS_shmat as usize,
    libc::SYS_shmdt as usize,
    libc::SYS_remap_file_pages as usize,
    libc::SYS_pkey_mprotect as usize,
    libc::SYS_process_madvise as usize,
];

impl Call {
    /// Says what the call will invalidate.
    pub(crate) fn effect(&self) -> Effect {
        let [first, second, third, fourth, fifth, _] = self.arguments;
        match self.number as i64 {
            libc::SYS_munmap => Effect::of(Event::Unmap, first, second),
            libc::SYS_mmap => map(first, second, fourth, fifth),
            libc::SYS_mremap => remap(first, second, third, fourth, fifth),
            libc::SYS_mprotect | libc::SYS_pkey_mprotect => protect(first, second, third),
            libc::SYS_madvise => advise(first, second, third),
            libc::SYS_process_madvise => advise_array(second, third, fourth),
            libc::SYS_brk => lower_break(first),
            libc::SYS_shmdt => detach(first),
            libc::SYS_shmat => attach(first, second, third),
            libc::SYS_remap_file_pages => Effect::of(Event::Unmap, first, second),
            _ => Effect::Nothing,
        }
    }
}

/// The whole units of `unit` bytes that `start..start + length` touches; none if it is empty.
fn pages(start: usize, length: usize, unit: usize) -> Option<Range> {
    let last = start.saturating_add(length.checked_sub(1)?);
    // INVARIANT: rounding moves the first byte down and the last up.
    Range::from_first_last(start & !(unit - 1), last | (unit - 1)).ok()
}

fn round_up(address: usize) -> usize {
    let page = kernel::page();
    address.saturating_add(page - 1) & !(page - 1)
}

/// As [`pages`], by the huge pages that a mapping at `start` may consist of.
fn huge_pages(start: usize, length: usize) -> Option<Range> {
    let unit = HUGE.into_iter().find(|unit| start % *unit == 0).unwrap_or_else(kernel::page);
    pages(start, length, unit)
}

fn unmapped(range: Option<Range>) -> Effect {
    range.map_or(Effect::Nothing, |range| Effect::One(Change { range, event: Event::Unmap }))
}

fn map(start: usize, length: usize, flags: usize, file: usize) -> Effect {
    const REPLACES: usize = libc::MAP_FIXED as usize;
    const KEEPS: usize = libc::MAP_FIXED_NOREPLACE as usize;
    if flags & REPLACES == 0 || flags & KEEPS == KEEPS {
        return Effect::Nothing;
    }
    // Huge pages: by flag, or because the file consists of them. It is asked only where it makes a difference, since the
    // answer may come from far away.
    let makes_difference = start % HUGE[1] == 0 && length % HUGE[1] != 0;
    let is_huge = flags & libc::MAP_HUGETLB as usize != 0
        || (makes_difference
            && flags & libc::MAP_ANONYMOUS as usize == 0
            && kernel::may_have_huge_pages(file as c_int));
    unmapped(if is_huge { huge_pages(start, length) } else { pages(start, length, kernel::page()) })
}

fn remap(old: usize, old_length: usize, length: usize, flags: usize, new: usize) -> Effect {
    let has = |flag: c_int| flags & flag as usize != 0;
    let lands = has(libc::MREMAP_FIXED);
    let whole = huge_pages(old, old_length);
    let source = if lands || has(libc::MREMAP_DONTUNMAP) || (has(libc::MREMAP_MAYMOVE) && length > old_length)
    {
        whole
    } else {
        // What a shrink cuts off, from the page behind the last one that stays.
        let cut = round_up(old.saturating_add(length));
        whole.and_then(|whole| Range::from_first_last(cut, whole.last()).ok())
    };
    unmapped(source).and(unmapped(if lands { huge_pages(new, length) } else { None }))
}

fn protect(start: usize, length: usize, protection: usize) -> Effect {
    const DOWN: usize = libc::PROT_GROWSDOWN as usize;
    const UP: usize = libc::PROT_GROWSUP as usize;
    // The kernel goes on to the edge of the mapping.
    let bottom = if protection & DOWN == 0 { start } else { 0 };
    let length = if protection & UP == 0 { length.saturating_add(start - bottom) } else { usize::MAX };
    Effect::of(Event::ProtectionVma, bottom, length)
}

/// What advice takes away, if it does.
fn event_of(advice: usize) -> Option<Event> {
    const SOFT_OFFLINE: c_int = 101;
    const GUARD_INSTALL: c_int = 102;
    match advice as c_int {
        libc::MADV_DONTNEED
        | libc::MADV_DONTNEED_LOCKED
        | libc::MADV_FREE
        | libc::MADV_REMOVE
        | libc::MADV_PAGEOUT
        | libc::MADV_COLLAPSE
        | libc::MADV_UNMERGEABLE
        | libc::MADV_HWPOISON
        | SOFT_OFFLINE
        | GUARD_INSTALL => Some(Event::Clear),
        _ => None,
    }
}

/// Advice that changes a file, or moves its pages: they may be mapped at other addresses too, by now or in a moment.
fn goes_by_file(advice: usize) -> bool {
    matches!(advice as c_int, libc::MADV_REMOVE | libc::MADV_COLLAPSE)
}

fn advise(start: usize, length: usize, advice: usize) -> Effect {
    let Some(event) = event_of(advice) else { return Effect::Nothing };
    match Effect::of(event, start, length) {
        Effect::One(named) if goes_by_file(advice) => Effect::One(Change { range: Range::ALL, ..named }),
        effect => effect,
    }
}

/// One range around all those of an array of `iovec`.
fn advise_array(array: usize, count: usize, advice: usize) -> Effect {
    if event_of(advice).is_none() {
        return Effect::Nothing;
    }
    match kernel::hull(array, count) {
        Some((start, end)) => advise(start, end - start, advice),
        None => Effect::Nothing,
    }
}

fn lower_break(end: usize) -> Effect {
    // What only asks, and what is refused: the kernel keeps the break above the program.
    if end == 0 {
        return Effect::Nothing;
    }
    // The break's own page stays.
    let end = round_up(end);
    Effect::of(Event::Unmap, end, kernel::current_break().saturating_sub(end))
}

fn detach(start: usize) -> Effect {
    match kernel::attached_end(start) {
        Some(end) => Effect::of(Event::Unmap, start, end - start),
        // Wherever it ends.
        None => Effect::of(Event::Unmap, start, usize::MAX),
    }
}

fn attach(identifier: usize, start: usize, flags: usize) -> Effect {
    const REMAP: usize = libc::SHM_REMAP as usize;
    const ROUND: usize = libc::SHM_RND as usize;
    if flags & REMAP == 0 || start == 0 {
        return Effect::Nothing;
    }
    let start = if flags & ROUND == 0 { start } else { start & !(kernel::page() - 1) };
    let length = kernel::segment_size(identifier as c_int).unwrap_or(usize::MAX);
    unmapped(huge_pages(start, length))
}

#[cfg(test)]
mod tests;
