//! What several test programs share: a subscriber that writes down what it hears, as a callback may.

#![allow(dead_code, unreachable_pub, reason = "each program uses its part")]
#![allow(
    unsafe_code,
    clippy::undocumented_unsafe_blocks,
    clippy::multiple_unsafe_ops_per_block,
    reason = "system calls on memory of their own"
)]

use std::ptr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use mmu_notifier::list::{Notifier, WouldBlock};
use mmu_notifier::{Event, Invalidation, Range};

pub const PAGE: usize = 4096;

/// Set for a test that runs itself again, in a process of its own.
pub const CHILD: &str = "MMU_MONITOR_TEST_CHILD";

pub fn is_child() -> bool {
    std::env::var_os(CHILD).is_some()
}

/// What was heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    pub is_start: bool,
    pub first: u64,
    pub last: u64,
    pub event: Event,
    pub thread: u64,
    /// Whether the first page was mapped at that moment.
    pub mapped: bool,
}

impl Heard {
    pub fn overlaps(&self, range: Range) -> bool {
        self.first <= range.last().get() && range.start().get() <= self.last
    }

    pub fn covers(&self, range: Range) -> bool {
        self.first <= range.start().get() && range.last().get() <= self.last
    }
}

const ROOM: usize = 1 << 16;

/// Writes down starts and ends of the process in a fixed place: allocates nothing, locks nothing.
pub struct Recorder {
    next: AtomicUsize,
    entries: Box<[[AtomicU64; 4]]>,
}

impl Recorder {
    pub fn new() -> Recorder {
        let entry = || [const { AtomicU64::new(0) }; 4];
        Recorder { next: AtomicUsize::new(0), entries: (0..ROOM).map(|_| entry()).collect() }
    }

    fn note(&self, is_start: bool, what: &Invalidation) {
        let place = self.next.fetch_add(1, Ordering::Relaxed);
        let Some(entry) = self.entries.get(place) else { return };
        let (first, last) = (what.range().start().get(), what.range().last().get());
        let event = match what.event() {
            Event::Unmap => 1,
            Event::Clear => 2,
            Event::ProtectionVma => 3,
            Event::ProtectionPage => 4,
            _ => 0,
        };
        let flags = u64::from(is_start) | event << 8 | u64::from(is_mapped(first)) << 1;
        entry[1].store(first, Ordering::Relaxed);
        entry[2].store(last, Ordering::Relaxed);
        entry[3].store(thread(), Ordering::Relaxed);
        // Whoever sees it sees the rest.
        entry[0].store(flags | 1 << 63, Ordering::Release);
    }

    /// Forgets all.
    pub fn clear(&self) {
        self.entries.iter().for_each(|entry| entry[0].store(0, Ordering::Relaxed));
        self.next.store(0, Ordering::Relaxed);
    }

    /// All that was heard since, in order.
    pub fn heard(&self) -> Vec<Heard> {
        let count = self.next.load(Ordering::Acquire).min(ROOM);
        self.entries[..count].iter().filter_map(read).collect()
    }

    /// Whether a start that covers `range` was heard, before the change if it unmaps, and its end behind it.
    pub fn has_bracket(&self, range: Range) -> bool {
        let heard = self.heard();
        heard.iter().enumerate().any(|(index, start)| {
            let is_its_end = |end: &&Heard| {
                !end.is_start && (end.first, end.last, end.thread) == (start.first, start.last, start.thread)
            };
            start.is_start && start.covers(range) && heard[index + 1..].iter().any(|end| is_its_end(&end))
        })
    }
}

fn read(entry: &[AtomicU64; 4]) -> Option<Heard> {
    let flags = entry[0].load(Ordering::Acquire);
    let [first, last, thread] = [1, 2, 3].map(|word: usize| entry[word].load(Ordering::Relaxed));
    let event = match flags >> 8 & 0xff {
        1 => Event::Unmap,
        2 => Event::Clear,
        3 => Event::ProtectionVma,
        4 => Event::ProtectionPage,
        _ => Event::Release,
    };
    let heard = Heard { is_start: flags & 1 == 1, first, last, event, thread, mapped: flags & 2 != 0 };
    (flags >> 63 == 1).then_some(heard)
}

/// A subscriber that lends its recorder.
pub struct Ear(pub &'static Recorder);

impl Notifier for Ear {
    fn invalidate_range_start(&self, what: &Invalidation) -> Result<(), WouldBlock> {
        self.0.note(true, what);
        Ok(())
    }

    fn invalidate_range_end(&self, what: &Invalidation) {
        self.0.note(false, what);
    }
}

fn thread() -> u64 {
    unsafe { libc::gettid() as u64 }
}

/// Whether a page is mapped; writes no `errno` that anybody looks at.
pub fn is_mapped(address: u64) -> bool {
    let mut state = [0_u8; 1];
    let page = (address as usize & !(PAGE - 1)) as *mut libc::c_void;
    unsafe { libc::mincore(page, PAGE, state.as_mut_ptr()) == 0 }
}

/// New private memory, each page touched.
pub fn anonymous(pages: usize) -> *mut u8 {
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    let place = unsafe { libc::mmap(ptr::null_mut(), pages * PAGE, protection, flags, -1, 0) };
    assert_ne!(place, libc::MAP_FAILED);
    for page in 0..pages {
        unsafe { place.cast::<u8>().add(page * PAGE).write(1) };
    }
    place.cast()
}

pub fn range(start: *const u8, length: usize) -> Range {
    Range::from_len(start, length as u64).expect("a range of memory")
}
