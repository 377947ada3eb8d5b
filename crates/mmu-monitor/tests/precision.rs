//! What is told is what happens: any part of a watched range is heard, and nothing that leaves it alone is.

#![expect(unsafe_code, clippy::undocumented_unsafe_blocks, reason = "system calls on memory of their own")]
#![cfg(all(target_os = "linux", target_arch = "x86_64", target_env = "gnu"))]

mod support;

use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use mmu_monitor::Monitor;
use mmu_notifier::interval::{Answer, Subscription};
use mmu_notifier::{Event, Invalidation};
use support::{PAGE, anonymous, range};

fn monitor() -> Option<Monitor> {
    Monitor::start_with(&"hooks".parse().unwrap()).map_err(|reason| println!("skipped: {reason}")).ok()
}

/// Pages that are watched, with the events that were heard.
struct Watched {
    start: *mut u8,
    heard: Arc<Heard>,
    _subscription: Box<dyn std::any::Any>,
}

#[derive(Default)]
struct Heard {
    count: AtomicUsize,
    last: Mutex<Option<Event>>,
}

impl Watched {
    fn new(monitor: Monitor, pages: usize) -> Watched {
        Self::at(monitor, anonymous(pages), pages)
    }

    fn at(monitor: Monitor, start: *mut u8, pages: usize) -> Watched {
        let heard = Arc::new(Heard::default());
        let noted = heard.clone();
        let told = move |what: &Invalidation| {
            noted.count.fetch_add(1, Ordering::Relaxed);
            *noted.last.lock().unwrap() = Some(what.event());
            Answer::Done
        };
        let subscription: Subscription<_> = monitor.space().insert(range(start, pages * PAGE), told).unwrap();
        Watched { start, heard, _subscription: Box::new(subscription) }
    }

    fn page(&self, number: usize) -> *mut libc::c_void {
        self.start.wrapping_add(number * PAGE).cast()
    }

    /// How often something was heard while `f` ran.
    fn hits(&self, f: impl FnOnce()) -> usize {
        let before = self.heard.count.load(Ordering::Relaxed);
        f();
        self.heard.count.load(Ordering::Relaxed) - before
    }

    fn last(&self) -> Option<Event> {
        *self.heard.last.lock().unwrap()
    }
}

#[test]
fn head_middle_and_tail_are_heard_and_what_lies_beside_is_not() {
    let Some(monitor) = monitor() else { return };
    let whole = anonymous(8);
    let watched = Watched::at(monitor, whole.wrapping_add(PAGE), 6);
    let unmap = |number: usize| {
        assert_eq!(unsafe { libc::munmap(whole.wrapping_add(number * PAGE).cast(), PAGE) }, 0);
    };
    assert_eq!(watched.hits(|| unmap(0)), 0);
    assert_eq!(watched.hits(|| unmap(7)), 0);
    for number in [1, 3, 6] {
        assert_eq!(watched.hits(|| unmap(number)), 1, "page {number}");
    }
    assert_eq!(watched.last(), Some(Event::Unmap));
}

#[test]
fn what_takes_nothing_away_is_silent() {
    let Some(monitor) = monitor() else { return };
    let watched = Watched::new(monitor, 4);
    let harmless =
        [libc::MADV_NORMAL, libc::MADV_WILLNEED, libc::MADV_HUGEPAGE, libc::MADV_NOHUGEPAGE, libc::MADV_COLD];
    let silent = watched.hits(|| {
        for advice in harmless {
            unsafe { libc::madvise(watched.page(0), 4 * PAGE, advice) };
        }
        unsafe { libc::mlock(watched.page(0), PAGE) };
        unsafe { libc::munlock(watched.page(0), PAGE) };
        // A hint where something lies already, and a plain mapping.
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let other = unsafe { libc::mmap(watched.page(0), PAGE, libc::PROT_READ, flags, -1, 0) };
        assert_ne!(other, watched.page(0));
        let kept = flags | libc::MAP_FIXED_NOREPLACE;
        let refused = unsafe { libc::mmap(watched.page(0), PAGE, libc::PROT_READ, kept, -1, 0) };
        assert_eq!(refused, libc::MAP_FAILED);
        // The heap grows.
        assert_ne!(unsafe { libc::sbrk(PAGE as isize) } as isize, -1);
    });
    assert_eq!(silent, 0);
}

#[test]
fn a_change_of_protection_says_so() {
    let Some(monitor) = monitor() else { return };
    let watched = Watched::new(monitor, 2);
    for protection in [libc::PROT_READ, libc::PROT_READ | libc::PROT_WRITE, libc::PROT_READ] {
        let hits = watched.hits(|| {
            assert_eq!(unsafe { libc::mprotect(watched.page(1), PAGE, protection) }, 0);
        });
        assert_eq!((hits, watched.last()), (1, Some(Event::ProtectionVma)));
    }
}

#[test]
fn a_segment_that_stays_attached_elsewhere_is_left_alone() {
    let Some(monitor) = monitor() else { return };
    let segment = unsafe { libc::shmget(libc::IPC_PRIVATE, 2 * PAGE, 0o600) };
    if segment == -1 {
        return println!("skipped: no System V shared memory here");
    }
    let [one, other] = [(), ()].map(|()| unsafe { libc::shmat(segment, ptr::null(), 0) });
    unsafe { libc::shmctl(segment, libc::IPC_RMID, ptr::null_mut()) };
    let (one, other) = (Watched::at(monitor, one.cast(), 2), Watched::at(monitor, other.cast(), 2));
    let mut hit = 0;
    let beside = other.hits(|| {
        hit = one.hits(|| assert_eq!(unsafe { libc::shmdt(one.page(0)) }, 0));
    });
    assert_eq!((hit, beside), (1, 0));
    assert_eq!(other.hits(|| assert_eq!(unsafe { libc::shmdt(other.page(0)) }, 0)), 1);
}

#[test]
fn pages_that_move_leave_and_arrive() {
    let Some(monitor) = monitor() else { return };
    let (from, to) = (Watched::new(monitor, 2), Watched::new(monitor, 2));
    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
    let mut left = 0;
    let arrived = to.hits(|| {
        left = from.hits(|| {
            let place = unsafe { libc::mremap(from.page(0), 2 * PAGE, 2 * PAGE, flags, to.page(0)) };
            assert_eq!(place, to.page(0));
        });
    });
    assert_eq!((left, arrived), (1, 1));
}

#[test]
fn what_a_library_unmaps_that_came_later_is_heard() {
    let Some(monitor) = monitor() else { return };
    // Whatever library: all of them reach the kernel by the C library's one place.
    let function = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"munmap".as_ptr()) };
    if function.is_null() {
        return println!("skipped: a static executable loads nothing");
    }
    let munmap: extern "C" fn(*mut libc::c_void, usize) -> libc::c_int =
        unsafe { std::mem::transmute(function) };
    let watched = Watched::new(monitor, 1);
    assert_eq!(watched.hits(|| assert_eq!(munmap(watched.page(0), PAGE), 0)), 1);
}

#[test]
fn a_storm_of_small_events_is_heard_one_by_one() {
    const EVENTS: usize = 20_000;
    let Some(monitor) = monitor() else { return };
    let watched = Watched::new(monitor, 64);
    let hits = watched.hits(|| {
        for event in 0..EVENTS {
            unsafe { libc::madvise(watched.page(event % 64), PAGE, libc::MADV_DONTNEED) };
        }
    });
    assert_eq!(hits, EVENTS);
}
