//! The protocol of a start and its end by hand: all that it looks at and says in a space with one subscription, in one
//! loop. What a library takes more is that it is called, and that it allows for everything else.

use std::cell::Cell;
use std::hint::black_box;
use std::process::abort;
use std::ptr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::least;
use crate::count;
use crate::random::Random;

/// Entries of the page.
const ENTRIES: usize = 4;

/// What a thread knows of the space that it used last, and the innermost of its calls.
struct Known {
    space: Cell<u64>,
    slot: Cell<Option<&'static Slot>>,
    frame: Cell<*const Frame>,
}

thread_local! {
    static KNOWN: Known =
        const { Known { space: Cell::new(0), slot: Cell::new(None), frame: Cell::new(ptr::null()) } };
}

/// Where a start says what it does.
#[derive(Default)]
#[repr(align(128))]
struct Slot {
    word: AtomicU64,
    first: AtomicU64,
    last: AtomicU64,
    owner: AtomicU64,
    pin: AtomicU64,
    taken: AtomicU32,
    waiters: AtomicU32,
    hits: AtomicU64,
}

/// What starts look at in a space: who is there, up to which number, and whether a list hears them.
#[repr(align(64))]
struct Space {
    id: u64,
    page: Cell<Option<&'static Page>>,
    order: AtomicU64,
    epoch: AtomicU64,
    list: AtomicU64,
}

#[repr(align(64))]
struct Page {
    live: AtomicU32,
    level: AtomicU32,
    first: [AtomicU64; ENTRIES],
    last: [AtomicU64; ENTRIES],
    node: [Cell<Option<&'static Node>>; ENTRIES],
}

struct Node {
    order: AtomicU64,
    tags: AtomicU32,
    call: Cell<fn(&What) -> bool>,
    seq: AtomicU64,
}

/// What a callback is told.
#[expect(dead_code, reason = "callbacks of this loop only count")]
struct What {
    bounds: (u64, u64),
    owner: u64,
    details: u64,
}

/// What a call within a callback finds.
#[expect(dead_code, reason = "callbacks of this loop make no calls")]
struct Frame {
    space: u64,
    what: *const What,
    outer: *const Frame,
    hit: *const Node,
    exit_due: Cell<bool>,
}

#[inline(never)]
fn called(what: &What) -> bool {
    black_box(what);
    count::hit();
    true
}

/// Leaves the loop where there is more to do than by hand.
fn only_if(holds: bool) {
    if !holds {
        abort();
    }
}

fn space() -> &'static Space {
    let node = Node {
        order: AtomicU64::new(1),
        tags: AtomicU32::new(0),
        call: Cell::new(called),
        seq: AtomicU64::new(0),
    };
    let node: &Node = Box::leak(Box::new(node));
    let page = Page {
        live: AtomicU32::new(1),
        level: AtomicU32::new(0),
        first: [0, u64::MAX, u64::MAX, u64::MAX].map(AtomicU64::new),
        last: [0x1fff, 0, 0, 0].map(AtomicU64::new),
        node: [Some(node), None, None, None].map(Cell::new),
    };
    Box::leak(Box::new(Space {
        id: 7,
        page: Cell::new(Some(Box::leak(Box::new(page)))),
        order: AtomicU64::new(1),
        epoch: AtomicU64::new(1),
        list: AtomicU64::new(0),
    }))
}

/// What a turn takes that begins `at` so many bytes from the subscription, of two pages.
pub(super) fn start_and_end(at: u64) -> f64 {
    let space = black_box(space());
    let slot: &Slot = Box::leak(Box::default());
    KNOWN.with(|known| {
        known.space.set(space.id);
        known.slot.set(Some(slot));
        let (mut random, bound) = (Random::new(), black_box(1));
        least(|| turn(known, space, random.below(bound) * 0x4000 + at))
    })
}

#[inline(always)]
fn turn(known: &Known, space: &Space, first: u64) {
    let last = first + 0xfff;
    let Some(slot) = known.slot.get().filter(|_| known.space.get() == space.id) else { abort() };
    let identity = slot.word.load(Ordering::Acquire) + 5;
    only_if(identity & 3 == 1 && slot.taken.load(Ordering::Acquire) == 0 && space.page.get().is_some());
    slot.first.store(first, Ordering::Relaxed);
    slot.last.store(last, Ordering::Relaxed);
    slot.owner.store(0, Ordering::Relaxed);
    slot.pin.store(space.epoch.load(Ordering::Acquire), Ordering::Relaxed);
    slot.word.swap(identity, Ordering::SeqCst);
    let limit = space.order.load(Ordering::Acquire);
    let Some(page) = space.page.get().filter(|page| page.level.load(Ordering::Relaxed) == 0) else { abort() };
    let overlaps = |at: &usize| {
        let (from, to) = (page.first[*at].load(Ordering::Relaxed), page.last[*at].load(Ordering::Relaxed));
        from <= last && to >= first
    };
    let hits = (0..ENTRIES).fold(0, |hits, at| hits | u32::from(overlaps(&at)) << at);
    match hits & page.live.load(Ordering::Acquire) {
        0 => {}
        hits => {
            hit(known, space, (slot, identity), &page.node[hits.trailing_zeros() as usize % ENTRIES], limit)
        }
    }
    only_if(space.list.load(Ordering::Acquire) == 0);
    slot.word.store(identity | 3, Ordering::Release);
    only_if(slot.waiters.load(Ordering::Relaxed) == 0);
    only_if(space.list.load(Ordering::Acquire) == 0 && slot.taken.load(Ordering::Relaxed) == 0);
    slot.word.store(identity & !3, Ordering::Release);
    only_if(slot.waiters.load(Ordering::Relaxed) == 0);
}

#[inline(always)]
fn hit(
    known: &Known,
    space: &Space,
    (slot, identity): (&Slot, u64),
    node: &Cell<Option<&'static Node>>,
    limit: u64,
) {
    let Some(node) = node.get() else { abort() };
    slot.pin.store(0, Ordering::Release);
    let bounds = (slot.first.load(Ordering::Relaxed), slot.last.load(Ordering::Relaxed));
    let what = What { bounds, owner: 0, details: 1 };
    let outer = known.frame.get();
    let frame = Frame { space: space.id, what: &what, outer, hit: node, exit_due: Cell::new(false) };
    known.frame.set(&frame);
    only_if(node.order.load(Ordering::Relaxed) <= limit && node.tags.load(Ordering::Acquire) == 0);
    node.seq.store(identity, Ordering::Release);
    only_if((node.call.get())(&what));
    slot.hits.store(slot.hits.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    only_if(!frame.exit_due.get());
    known.frame.set(frame.outer);
}
