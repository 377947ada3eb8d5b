//! What several test programs share: a subscriber that writes down what it hears, as a callback may.

#![allow(dead_code, unreachable_pub, reason = "each program uses its part")]
#![expect(
    unsafe_code,
    clippy::undocumented_unsafe_blocks,
    clippy::multiple_unsafe_ops_per_block,
    reason = "system calls on memory of their own"
)]

use std::ptr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use mmu_monitor::{Choice, Monitor};
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
    residence(address).is_some()
}

/// Whether a page that is mapped is in memory.
pub fn is_resident(address: u64) -> bool {
    residence(address).is_some_and(|state| state & 1 == 1)
}

fn residence(address: u64) -> Option<u8> {
    let mut state = [0_u8; 1];
    let page = (address as usize & !(PAGE - 1)) as *mut libc::c_void;
    (unsafe { libc::mincore(page, PAGE, state.as_mut_ptr()) } == 0).then_some(state[0])
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

/// Ends the process, loudly, if the test that holds this takes minutes: a deadlock is a failed test.
pub struct Watchdog(std::sync::mpsc::Sender<()>);

impl Watchdog {
    pub fn new(what: &'static str) -> Watchdog {
        let (sender, receiver) = std::sync::mpsc::channel::<()>();
        std::thread::spawn(move || {
            let waited = receiver.recv_timeout(std::time::Duration::from_secs(120));
            if waited == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                eprintln!("{what}: nothing moves since two minutes");
                std::process::abort();
            }
        });
        Watchdog(sender)
    }
}

/// Forks, and gives what the child's exit says; the child runs `body` and nothing else.
pub fn in_child(body: impl FnOnce() -> i32) -> i32 {
    let child = unsafe { libc::fork() };
    if child == 0 {
        let code = body();
        unsafe { libc::_exit(code) };
    }
    let mut status = 0;
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    status
}

/// A source that a test has for itself.
pub struct Armed {
    pub monitor: Monitor,
    _watchdog: Watchdog,
    _alone: MutexGuard<'static, ()>,
}

impl Armed {
    /// Arms it for the test `what`; says so where it does not work.
    pub fn with(source: &'static str, what: &'static str) -> Option<Armed> {
        static ALONE: Mutex<()> = Mutex::new(());
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        match Monitor::start_with(&Choice::Named(vec![source])) {
            Ok(monitor) => {
                // What the test before this one unmapped may be told of late.
                settle(monitor);
                Some(Armed { monitor, _watchdog: Watchdog::new(what), _alone: alone })
            }
            Err(reason) => {
                println!("{what}: skipped: {reason}");
                None
            }
        }
    }
}

/// Waits until all that was changed was told of.
pub fn settle(monitor: Monitor) {
    while monitor.is_pending() {
        std::thread::yield_now();
    }
}

pub fn unmap(start: *mut u8, pages: usize) {
    assert_eq!(unsafe { libc::munmap(start.cast(), pages * PAGE) }, 0);
}

/// Asks the sources that need it to look after `range`, which is given back.
pub fn watched(range: Range) -> Range {
    Monitor::get().unwrap().watch(range).unwrap();
    range
}

/// Makes a system call by an instruction of this program, past the C library.
#[cfg(target_arch = "x86_64")]
pub fn direct(number: i64, [first, second, third, fourth, fifth, sixth]: [usize; 6]) -> isize {
    let result;
    unsafe {
        std::arch::asm!("syscall", inlateout("rax") number as isize => result, in("rdi") first, in("rsi") second,
            in("rdx") third, in("r10") fourth, in("r8") fifth, in("r9") sixth, lateout("rcx") _, lateout("r11") _,
            options(nostack));
    }
    result
}

/// Lets the kernel refuse a system call to this process, as a container does, with that error.
#[cfg(target_arch = "x86_64")]
pub fn forbid(number: i64, error: i32) {
    let step =
        |code: u32, skip: u8, value: u32| libc::sock_filter { code: code as u16, jt: 0, jf: skip, k: value };
    let mut filter = [
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, number as u32),
        step(libc::BPF_RET, 0, libc::SECCOMP_RET_ERRNO | error as u32),
        step(libc::BPF_RET, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }, 0);
    let mode = libc::SECCOMP_MODE_FILTER;
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program, 0, 0) }, 0);
}
