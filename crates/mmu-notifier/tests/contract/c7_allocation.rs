//! C7.4: what allocates nothing, counted by an allocator of this test program.
#![expect(unsafe_code, reason = "an allocator that counts is an unsafe impl")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use mmu_notifier::interval::{Answer, Sequence};
use mmu_notifier::{AddressSpace, Invalidation, Range, interval, list, synchronize};

use super::harness::{background, range, within};

struct Counting;

thread_local! {
    static ALLOCATED: Cell<u64> = const { Cell::new(0) };
    static FREED: Cell<u64> = const { Cell::new(0) };
    static FAILS_AFTER: Cell<u64> = const { Cell::new(u64::MAX) };
    static FAILS_ABOVE: Cell<usize> = const { Cell::new(usize::MAX) };
}

#[global_allocator]
static COUNTING: Counting = Counting;

// SAFETY: every call goes to the system's allocator as it came; counting touches no memory of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.set(ALLOCATED.get() + 1);
        if ALLOCATED.get() > FAILS_AFTER.get() || layout.size() > FAILS_ABOVE.get() {
            return std::ptr::null_mut();
        }
        // SAFETY: the caller owes the same to us as we do here.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        FREED.set(FREED.get() + 1);
        // SAFETY: the pointer came from `alloc` above, with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Runs `call` and gives how often it allocated and freed on this thread.
fn counted(call: impl FnOnce()) -> (u64, u64) {
    let before = (ALLOCATED.get(), FREED.get());
    call();
    (ALLOCATED.get() - before.0, FREED.get() - before.1)
}

/// Runs `call` on a machine that has memory for so many more allocations of this thread, and no more.
pub(super) fn failing_from<R>(allowed: u64, call: impl FnOnce() -> R) -> R {
    FAILS_AFTER.set(ALLOCATED.get() + allowed);
    let result = call();
    FAILS_AFTER.set(u64::MAX);
    result
}

/// Runs `call` on a machine that has memory for allocations of this thread of so many bytes at the most.
pub(super) fn failing_above<R>(bytes: usize, call: impl FnOnce() -> R) -> R {
    let before = FAILS_ABOVE.replace(bytes);
    let result = call();
    FAILS_ABOVE.set(before);
    result
}

/// Answers without allocating.
struct Silent(Answer);

impl interval::Notifier for Silent {
    fn invalidate(&self, invalidation: &Invalidation, _: Sequence) -> Answer {
        if self.0 == Answer::Refused && invalidation.is_blockable() { Answer::Done } else { self.0 }
    }
}

impl list::Notifier for Silent {
    fn invalidate_range_start(&self, what: &Invalidation) -> Result<(), list::WouldBlock> {
        if self.0 == Answer::Refused && !what.is_blockable() { Err(list::WouldBlock) } else { Ok(()) }
    }
}

#[test]
fn c7_4_start_end_read_and_remove_allocate_nothing() {
    within(|| {
        let space = AddressSpace::new();
        let answer = |page: u64| if page % 2 == 0 { Answer::Begun } else { Answer::Done };
        let mut subs: Vec<_> = (0..300u64)
            .map(|page| {
                space.insert(range(page << 12, (page + 2) << 12), Silent(answer(page))).expect("an insert")
            })
            .collect();
        let _listed: Vec<_> =
            (0..20).map(|_| space.register(Silent(Answer::Done)).expect("a registration")).collect();
        let _refusing = space.insert(range(1 << 40, 1 << 41), Silent(Answer::Refused)).expect("an insert");
        // A new thread each time: the first start in a space is held to the same.
        for round in 0..4 {
            let user = space.clone();
            let sub = subs.remove(17);
            let counts = background(move || {
                let whole = counted(|| user.invalidate_start(Range::ALL).end());
                let nested = counted(|| {
                    let outer = user.invalidate_start(range(1, 2));
                    let inner = user.invalidate_start(Range::ALL);
                    let third = user.invalidate_start(range(5, 6));
                    outer.end();
                    third.end();
                    inner.end();
                });
                let refused = counted(|| drop(user.try_invalidate_start(range(1 << 40, 1 << 41))));
                let read = counted(|| {
                    let token = sub.read_begin();
                    sub.read_retry(token);
                    sub.check_retry(token);
                });
                let remove = counted(|| sub.remove());
                [whole.0, nested.0, refused.0, read.0, remove.0]
            })
            .join();
            assert_eq!(counts, [0; 5], "round {round}: start, nested, refused, read, remove");
        }
    });
}

#[test]
fn c7_4_a_read_begin_that_sleeps_allocates_nothing() {
    within(|| {
        let space = AddressSpace::new();
        let sub = space.insert(range(1, 2), Silent(Answer::Done)).expect("an insert");
        let active = space.invalidate_start(range(1, 2));
        let reader = background(move || {
            counted(|| {
                sub.read_begin();
            })
        });
        reader.assert_waits("it is busy");
        active.end();
        assert_eq!(reader.join().0, 0);
    });
}

#[test]
fn c7_4_where_drops_are_deferred_start_and_end_free_nothing() {
    within(|| {
        let space = AddressSpace::builder().defer_drops().build().expect("a space");
        let _listed = space.register(Silent(Answer::Done)).expect("a registration");
        for _ in 0..50 {
            let shared = space.get(1, |_| Ok::<_, ()>(Silent(Answer::Done))).expect("a shared notifier");
            let sub = space.insert(range(1, 2), Silent(Answer::Done)).expect("an insert");
            let active = space.invalidate_start(range(1, 2));
            let left = counted(|| {
                shared.put();
                sub.detach();
            });
            assert_eq!(left, (0, 0), "put and detach leave it to who may sleep");
            assert_eq!(counted(|| active.end()), (0, 0));
            assert_eq!(counted(|| space.invalidate_start(range(1, 2)).end()), (0, 0));
        }
        synchronize();
    });
}
