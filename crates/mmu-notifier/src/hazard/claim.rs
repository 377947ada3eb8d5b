//! The right to one hazard, and what its holder does there, in the order of the protocol.

use core::panic::Location;
use core::ptr;

use super::{ACTIVE, CALLING, CROWD_ID, Crowd, GENERATION_ONE, GENERATIONS, Hazard, ID_SHIFT, PHASE};
use crate::hung::Post;
use crate::platform::with_context;
use crate::sync::{Ordering, publish};

/// The right to one hazard, or to be one of the crowd.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Claim<'b> {
    /// A record of its own.
    One(&'b Hazard),
    /// One more of many.
    Crowd(&'b Crowd),
}

impl<'b> Claim<'b> {
    /// Publishes an invalidation in phase calling, without pin or fence: the caller passes a full fence before
    /// it searches.
    #[inline]
    pub(crate) fn announce(self, bounds: (u64, u64), owner: u64) -> u64 {
        match self {
            Claim::One(hazard) => {
                // What an earlier search left.
                hazard.pin.store(0, Ordering::Release);
                hazard.describe(bounds, owner);
                let identity = hazard.next_identity();
                hazard.word.store(identity, Ordering::Release);
                identity
            }
            Claim::Crowd(crowd) => {
                crowd.open.fetch_add(1, Ordering::Relaxed);
                crowd.calling.fetch_add(1, Ordering::Relaxed);
                crowd.starts.fetch_add(1, Ordering::Relaxed);
                let generation = crowd.generation.fetch_add(GENERATION_ONE, Ordering::Relaxed);
                (CROWD_ID << ID_SHIFT) | (generation & GENERATIONS) | CALLING
            }
        }
    }

    /// Pins another search of the same start.
    pub(crate) fn pin(self, epoch: u64) {
        if let Claim::One(hazard) = self {
            // ORDERING: pin, F, search; against unlink, F, look at the pins. Release: this overwrites the 0 of the
            // unpin before, and `Book::lowest_pin` (acquire) may read it in its place: the loads of that search
            // come before.
            publish(&hazard.pin, epoch);
        }
    }

    /// Ends a search.
    #[inline]
    pub(crate) fn unpin(self) {
        if let Claim::One(hazard) = self {
            // ORDERING: release, for `Book::lowest_pin`: no load of the search comes after it.
            hazard.pin.store(0, Ordering::Release);
        }
    }

    /// Turns phase calling into active. Returns the post if somebody may have to hear of it.
    #[inline]
    pub(crate) fn activate(self, identity: u64) -> Option<&'b Post> {
        match self {
            Claim::One(hazard) => hazard.word.store(identity | ACTIVE, Ordering::Release),
            Claim::Crowd(crowd) => _ = crowd.calling.fetch_sub(1, Ordering::Release),
        }
        self.heard()
    }

    /// Says whether `identity` is published here in phase active: whether there is something to end.
    #[inline]
    pub(crate) fn is_active(self, identity: u64) -> bool {
        match self {
            Claim::One(hazard) => hazard.word.load(Ordering::Relaxed) == identity | ACTIVE,
            Claim::Crowd(crowd) => crowd.open.load(Ordering::Relaxed) != 0,
        }
    }

    /// Stores phase idle after phase active.
    #[inline]
    pub(crate) fn retire(self, identity: u64) -> Option<&'b Post> {
        match self {
            // ORDERING: release; who sees it idle (acquire) sees what the primary MMU wrote before the end.
            Claim::One(hazard) => hazard.word.store(identity & !PHASE, Ordering::Release),
            Claim::Crowd(crowd) => _ = crowd.open.fetch_sub(1, Ordering::Release),
        }
        self.heard()
    }

    /// Stores phase idle straight after phase calling, for a start that failed.
    pub(crate) fn abandon(self, identity: u64) -> Option<&'b Post> {
        if let Claim::Crowd(crowd) = self {
            crowd.calling.fetch_sub(1, Ordering::Release);
        }
        self.retire(identity)
    }

    /// Marks a read section of the list. What orders it against the loads of the walk is the list's
    /// [`Grace`](crate::list::grace::Grace).
    #[inline]
    pub(crate) fn enter_section(self, stamp: u64) {
        match self {
            // ORDERING: release: a grace period may read this in place of the 0 of the section before, and takes that
            // for over: what its callbacks did comes before the free.
            Claim::One(hazard) => hazard.section.store(stamp << 1 | 1, Ordering::Release),
            Claim::Crowd(crowd) => _ = crowd.sections.fetch_add(1, Ordering::Relaxed),
        }
    }

    /// Counts one more fenced section under this stamp; returns how many there were, up to a bound. Only who holds
    /// the claim counts.
    pub(crate) fn count_section(self, stamp: u64) -> u64 {
        const MOST: u64 = (1 << 16) - 1;
        let Claim::One(hazard) = self else { return 0 };
        let (before, this) = (hazard.fenced.load(Ordering::Relaxed), stamp << 16);
        let count = if before & !MOST == this { (before & MOST) + 1 } else { 1 };
        hazard.fenced.store(this | count.min(MOST), Ordering::Relaxed);
        count
    }

    /// Leaves the section. Returns the post if somebody may have to hear of it.
    #[inline]
    pub(crate) fn leave_section(self) -> Option<&'b Post> {
        match self {
            // ORDERING: release, so that what the walk did is over for who sees it left (acquire).
            Claim::One(hazard) => hazard.section.store(0, Ordering::Release),
            Claim::Crowd(crowd) => _ = crowd.sections.fetch_sub(1, Ordering::Release),
        }
        self.heard()
    }

    /// Keeps the claim also behind the end of what is published there, until it is given back.
    #[inline]
    pub(crate) fn keep(self) {
        if let Claim::One(hazard) = self {
            // ORDERING: before the idle word (release) of the end; see `Hazard::is_free`.
            hazard.taken.store(1, Ordering::Relaxed);
        }
    }

    /// Says whether the claim goes beyond the end of what is published; for its holder, before that end.
    #[inline]
    pub(crate) fn is_kept(self) -> bool {
        matches!(self, Claim::One(hazard) if hazard.taken.load(Ordering::Relaxed) != 0)
    }

    /// Gives the claim back; nothing of it may be used afterwards.
    #[inline]
    pub(crate) fn give_back(self) {
        if self.is_kept() {
            self.give_back_kept();
        }
    }

    /// Gives a claim back that is kept.
    #[inline]
    pub(crate) fn give_back_kept(self) {
        if let Claim::One(hazard) = self {
            // ORDERING: release; the next claim of it (acquire) comes after all that was stored under this one.
            hazard.taken.store(0, Ordering::Release);
        }
    }

    /// Notes where the start was called, or that its guard may be on any thread.
    pub(crate) fn set_origin(self, origin: Option<&'static Location<'static>>) {
        if let Claim::One(hazard) = self {
            let origin = origin.map_or(ptr::null(), ptr::from_ref).cast_mut();
            hazard.origin.store(origin, Ordering::Relaxed);
            let thread = with_context(|context| context.map_or(ptr::null(), ptr::from_ref));
            hazard.thread.store(thread.cast_mut(), Ordering::Relaxed);
        }
    }

    /// Adds to the statistics of this space.
    pub(crate) fn count(self, hits: u64) {
        if let Claim::One(hazard) = self {
            Hazard::count(&hazard.hits, hits);
        }
    }

    /// The hazard, or null in the crowd.
    #[inline]
    pub(crate) fn as_ptr(self) -> *const Hazard {
        match self {
            Claim::One(hazard) => hazard,
            Claim::Crowd(_) => ptr::null(),
        }
    }

    #[inline(always)]
    fn heard(self) -> Option<&'b Post> {
        let post = match self {
            Claim::One(hazard) => &hazard.post,
            Claim::Crowd(crowd) => &crowd.post,
        };
        post.bell.is_heard().then_some(post)
    }
}
