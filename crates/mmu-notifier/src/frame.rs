//! Frames: which calls of a space the running thread is in, from the innermost out.
//!
//! A call that may run callbacks puts a [`Frame`] on its own stack and links it into the thread's
//! [`Context`]. So a call that is made within a callback knows whose callback it is in: a remove does not
//! wait for its own thread, the last user's exit waits for the outermost call (clause C8.3), and what would
//! deadlock is diagnosed (clause C9). Only the own thread looks at its frames.

#![expect(unsafe_code, reason = "frames are linked on the stack")]

use core::cell::Cell;
use core::mem::MaybeUninit;
use core::ptr::{self, NonNull};
use core::slice;

use crate::address::Range;
use crate::hazard::{Claim, Hazard};
use crate::interval::Node;
use crate::platform::{Context, with_context};
use crate::start::Part;

/// What a call is doing while it calls back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
enum Kind {
    /// A start that calls intervals.
    Intervals,
    /// A walk of the list.
    Walk,
}

/// Whether callbacks may sleep, as far as the library knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sleep {
    Allowed,
    /// In a start that is not blockable.
    Forbidden,
}

/// One call under way. What is known beforehand stands together, so that one store makes it.
///
/// # Invariants
/// From `parts` on there are `count`, which stay as long as the frame is linked. `section` is written if it is a walk's.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Frame {
    /// The id of the space.
    space: u64,
    /// The hazard of its walk of the list; null in the crowd.
    section: Cell<MaybeUninit<*const Hazard>>,
    /// The ranges of a start.
    parts: *const Part,
    count: u32,
    kind: Cell<Kind>,
    exit_due: Cell<bool>,
    /// Whether an interval waits for its second pass.
    has_begun: Cell<bool>,
    outer: Cell<*const Frame>,
    /// The interval whose callback runs, or ran last, until all passes are made; null once memory was given back that
    /// this call may have found.
    hit: Cell<*const Node>,
    /// Start and order of the interval that was hit then.
    reached: Cell<MaybeUninit<(u64, u64)>>,
}

impl Frame {
    /// That of a start in the space `id` that calls intervals. The caller keeps the parts as long as it is linked.
    #[inline(always)]
    pub(crate) fn of_intervals(id: u64, parts: &[Part]) -> Self {
        Frame {
            space: id,
            section: Cell::new(MaybeUninit::uninit()),
            parts: parts.as_ptr(),
            // Of more than fit here, which no memory holds, the first ones.
            count: parts.len() as u32,
            kind: Cell::new(Kind::Intervals),
            outer: Cell::new(ptr::null()),
            exit_due: Cell::new(false),
            hit: Cell::new(ptr::null()),
            reached: Cell::new(MaybeUninit::uninit()),
            has_begun: Cell::new(false),
        }
    }

    /// That of a walk of the list; the parts are those of a start, as in [`of_intervals`](Self::of_intervals).
    #[inline(always)]
    pub(crate) fn of_walk(id: u64, parts: &[Part], section: Claim<'_>) -> Self {
        let frame = Frame::of_intervals(id, parts);
        frame.walk(section);
        frame
    }

    /// Says that the call goes on with a walk of the list, in this section.
    #[inline(always)]
    pub(crate) fn walk(&self, section: Claim<'_>) {
        self.section.set(MaybeUninit::new(section.as_ptr()));
        self.kind.set(Kind::Walk);
    }

    /// Makes this the innermost call of the thread, until the link is dropped.
    ///
    /// The caller does not forget the link: the thread's context leads to the frame as long as it is there.
    #[inline(always)]
    pub(crate) fn link<'f>(&'f self, context: Option<&'f Context>) -> Link<'f> {
        if let Some(context) = context {
            self.outer.set(context.frames());
            context.set_frames(self);
        }
        Link { context, frame: self }
    }

    /// Says whether an exit of the space was left to this call.
    #[inline]
    pub(crate) fn is_exit_due(&self) -> bool {
        self.exit_due.get()
    }

    /// Notes whose callback is called next.
    #[inline(always)]
    pub(crate) fn set_hit(&self, node: NonNull<Node>) {
        self.hit.set(node.as_ptr());
    }

    /// Notes that an interval waits for its second pass.
    pub(crate) fn set_begun(&self) {
        self.has_begun.set(true);
    }

    /// Start and order of the interval that was hit last, if memory was given back in its callback that this call may have
    /// found.
    #[inline(always)]
    pub(crate) fn reached(&self) -> Option<(u64, u64)> {
        // SAFETY: it is written before the hit is taken away.
        self.hit.get().is_null().then(|| unsafe { self.reached.get().assume_init() })
    }

    /// Notes that all passes are made: no interval is needed any more.
    pub(crate) fn end_passes(&self) {
        self.hit.set(ptr::null());
        self.has_begun.set(false);
    }

    /// Takes note that memory is given back which this call may have found.
    fn give_back(&self) {
        // SAFETY: until its passes are made, the start that hit it is in phase calling (I6); and this thread did not give
        // it back before: then it would be null.
        if let Some(hit) = unsafe { self.hit.get().as_ref() } {
            self.reached.set(MaybeUninit::new((hit.bounds().0, hit.order())));
            self.hit.set(ptr::null());
        }
    }

    fn calls_intervals(&self) -> bool {
        self.kind.get() == Kind::Intervals
    }

    /// Says whether what it calls may sleep: all of its ranges are blockable, if it is a start.
    fn sleep(&self) -> Sleep {
        let blockable = self.parts().iter().all(|part| part.invalidation.is_blockable());
        if blockable { Sleep::Allowed } else { Sleep::Forbidden }
    }

    fn overlaps(&self, range: Range) -> bool {
        self.parts().iter().any(|part| part.invalidation.range().overlaps(range))
    }

    /// Says whether the call is in a callback of `node`, or may have its second pass before it.
    fn needs(&self, node: &Node) -> bool {
        let (first, last) = node.bounds();
        let range = Range::from_bounds(first, last);
        ptr::eq(self.hit.get(), node) || self.has_begun.get() && self.overlaps(range)
    }

    fn parts(&self) -> &[Part] {
        // SAFETY: by the invariant; who asks has found the frame linked.
        unsafe { slice::from_raw_parts(self.parts, self.count as usize) }
    }

    /// The hazard of its walk, if it is one; null in the crowd.
    fn section(&self) -> Option<*const Hazard> {
        let walks = self.kind.get() == Kind::Walk;
        // SAFETY: by the invariant.
        walks.then(|| unsafe { self.section.get().assume_init() })
    }

    fn holds(&self, hazard: &Hazard) -> bool {
        self.section().is_some_and(|section| ptr::eq(section, hazard))
            || self.parts().iter().any(|part| part.is_at(hazard))
    }
}

/// Takes the innermost frame off when it is dropped, also when a panic passes.
#[must_use]
pub(crate) struct Link<'f> {
    context: Option<&'f Context>,
    frame: &'f Frame,
}

impl Drop for Link<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        if let Some(context) = self.context {
            context.set_frames(self.frame.outer.get());
        }
    }
}

/// Goes through the frames of this thread in the space `id`, innermost first, until `f` is content.
fn find_frame<R>(id: u64, mut f: impl FnMut(&Frame) -> Option<R>) -> Option<R> {
    with_context(|context| {
        let mut at = context?.frames();
        // SAFETY: linked frames are alive: each is unlinked before its call returns, on this thread.
        while let Some(frame) = unsafe { at.as_ref() } {
            if let Some(found) = (frame.space == id).then(|| f(frame)).flatten() {
                return Some(found);
            }
            at = frame.outer.get();
        }
        None
    })
}

/// Says whether this thread holds `hazard` in a call of the space `id` that calls back.
pub(crate) fn is_own(id: u64, hazard: &Hazard) -> bool {
    find_frame(id, |frame| frame.holds(hazard).then_some(())).is_some()
}

/// How many calls of this thread stand in the crowd of the space `id`: those that call intervals, and walks.
pub(crate) fn own_in_crowd(id: u64) -> (u32, u32) {
    let (mut calling, mut walking) = (0, 0);
    find_frame(id, |frame| -> Option<()> {
        match frame.section() {
            None => calling += frame.parts().iter().filter(|part| part.is_in_crowd()).count() as u32,
            Some(section) => walking += u32::from(section.is_null()),
        }
        None
    });
    (calling, walking)
}

/// How many invalidations of the crowd of the space `id` the calls of this thread have begun and not ended yet.
pub(crate) fn own_open_in_crowd(id: u64) -> u32 {
    let mut open = 0;
    find_frame(id, |frame| -> Option<()> {
        open += frame.parts().iter().filter(|part| part.is_in_crowd()).count() as u32;
        None
    });
    open
}

/// Says whether this thread's innermost call of the space may sleep, if it is in one.
#[inline]
pub(crate) fn innermost(id: u64) -> Option<Sleep> {
    let is_in_none = with_context(|context| context.is_none_or(|context| context.frames().is_null()));
    if is_in_none { None } else { innermost_of(id) }
}

#[cold]
fn innermost_of(id: u64) -> Option<Sleep> {
    find_frame(id, |frame| Some(frame.sleep()))
}

/// Says whether this thread is in a callback of an interval for something that overlaps `range`.
pub(crate) fn is_calling_in(id: u64, range: Range) -> bool {
    find_frame(id, |frame| (frame.calls_intervals() && frame.overlaps(range)).then_some(())).is_some()
}

/// Tells the calls of this thread in the space `id` that `node`, which they may have found, is its user's memory again.
/// Says whether one of them needs it yet: its callback runs, or a second pass may be due.
pub(crate) fn give_back(id: u64, node: &Node) -> bool {
    let mut is_needed = false;
    find_frame(id, |frame| -> Option<()> {
        is_needed |= frame.needs(node);
        frame.give_back();
        None
    });
    is_needed
}

/// Leaves the exit of the space `id` to the outermost call of this thread in it; false if it is in none.
pub(crate) fn leave_exit(id: u64) -> bool {
    let mut outermost: *const Frame = ptr::null();
    find_frame(id, |frame| -> Option<()> {
        outermost = frame;
        None
    });
    // SAFETY: as in find_frame; the frame belongs to a call of this thread that goes on.
    unsafe { outermost.as_ref() }.map(|frame| frame.exit_due.set(true)).is_some()
}
