//! Scans: looking through a space's hazards for what somebody has to wait for.
//!
//! # Protocol
//! Who scans has first made its change (withdrawn, linked, read the sequence) and passed a full fence. Each
//! hazard is then looked at once, in the order of the book. One that blocks is waited for, as the call that
//! it was at that look: by its identity or its section. A call that begins behind the look either sees the
//! change, or is none of the scan's business. Hazards that enter the book later stand before its head of that
//! time, and the same holds for them.
//!
//! The crowd comes last. It has no identities: it is waited for until nobody of the kind is in it.

#![expect(unsafe_code, reason = "the position in the book is a raw pointer, so that it can be kept")]

use core::cell::Cell;
use core::ptr;

use crate::frame::{is_own, own_in_crowd};
use crate::hazard::{Book, CALLING, Hazard, PHASE};
use crate::hung::Post;
use crate::subscriptions::Subscriptions;
use crate::sync::acquire_fence;

/// What a scan waits for the end of.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wanted {
    /// Invalidations that overlap a range and are not this owner's (0: everybody's), until their end.
    Quiet { bounds: (u64, u64), owner: u64 },
    /// Starts that overlap a range and call intervals, until they are through with that.
    Called { bounds: (u64, u64), own: Own },
    /// Walks of the list that began before the grace period `stamp` was over.
    Walked { stamp: u64, own: Own },
}

/// Whether the calling thread's own calls are waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Own {
    /// They are not: the caller is one of them.
    Skipped,
    /// They are: another one does the waiting.
    Awaited,
}

/// A place in the book, and what is looked for from there on.
#[derive(Debug)]
pub(crate) struct Scan {
    at: Cell<*const Hazard>,
    crowd_left: Cell<bool>,
    wanted: Wanted,
}

/// What a scan came to and has to wait for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Block {
    /// A hazard, as the call that its word or section tells.
    Hazard(*const Hazard, u64),
    /// The crowd, until at most so many of this thread's own are left.
    Crowd(u32),
}

impl Scan {
    /// Begins at the head of the book.
    ///
    /// # Context
    /// The caller has passed a full fence since its change.
    #[inline]
    pub(crate) fn new(book: &Book, wanted: Wanted) -> Self {
        Scan { at: Cell::new(book.first()), crowd_left: Cell::new(true), wanted }
    }

    /// Begins at the hazard of `post`, behind a ring there, or at the crowd.
    pub(crate) fn again(book: &Book, post: &Post, wanted: Wanted) -> Self {
        let at = book.iter().find(|hazard| ptr::eq(&raw const hazard.post, post));
        Scan { at: Cell::new(at.map_or(ptr::null(), ptr::from_ref)), crowd_left: Cell::new(true), wanted }
    }

    /// Begins at the head of the book, and goes on to the first that blocks; none if nothing does. Then the position is
    /// never in memory.
    ///
    /// # Context
    /// As [`new`](Self::new).
    #[inline(always)]
    pub(crate) fn at_first_block(book: &Book, wanted: Wanted) -> Option<Scan> {
        let scan = |at| Scan { at: Cell::new(at), crowd_left: Cell::new(true), wanted };
        let mut at = book.first();
        // SAFETY: the position is a hazard of the book, which the caller keeps alive.
        while let Some(hazard) = unsafe { at.as_ref() } {
            if scan(at).blocks(book, hazard).is_some() {
                return Some(scan(at));
            }
            at = hazard.next();
        }
        scan(at).holds_crowd(book, 0).then(|| scan(at))
    }

    /// Waits for everything that blocks.
    ///
    /// # Context
    /// As [`new`](Self::new) and [`wait`](Self::wait).
    #[inline(always)]
    pub(crate) fn wait_for_all(subscriptions: &Subscriptions, wanted: Wanted) {
        if let Some(scan) = Scan::at_first_block(&subscriptions.book, wanted) {
            scan.wait_long(subscriptions);
        }
    }

    #[cold]
    fn wait_long(self, subscriptions: &Subscriptions) {
        self.wait(subscriptions, None);
    }

    /// Goes on to the next that blocks; none: there is nothing to wait for any more.
    #[inline(always)]
    pub(crate) fn advance(&self, book: &Book) -> Option<Block> {
        // SAFETY: the position is a hazard of the book, which the caller keeps alive.
        while let Some(hazard) = unsafe { self.at.get().as_ref() } {
            self.at.set(hazard.next());
            if let Some(seen) = self.blocks(book, hazard) {
                return Some(Block::Hazard(hazard, seen));
            }
        }
        // Hardly ever is there a crowd.
        if self.crowd_left.replace(false) && self.holds_crowd(book, 0) {
            return self.crowd_block(book);
        }
        None
    }

    #[cold]
    fn crowd_block(&self, book: &Book) -> Option<Block> {
        let own = self.own_of_crowd(book);
        self.holds_crowd(book, own).then_some(Block::Crowd(own))
    }

    /// Says whether the block is still there.
    pub(crate) fn holds(&self, book: &Book, block: Block) -> bool {
        match block {
            Block::Hazard(hazard, seen) => {
                // SAFETY: blocks name hazards of the book, which the caller keeps alive.
                let hazard = unsafe { &*hazard };
                match self.wanted {
                    Wanted::Quiet { .. } => {
                        hazard.word() & !PHASE | CALLING == seen && hazard.word() & PHASE != 0
                    }
                    Wanted::Called { .. } => hazard.word() == seen,
                    Wanted::Walked { stamp, .. } => is_walking(hazard.section(), stamp),
                }
            }
            Block::Crowd(own) => self.holds_crowd(book, own),
        }
    }

    /// Says whether there are more in the crowd than so many.
    #[inline]
    fn holds_crowd(&self, book: &Book, own: u32) -> bool {
        match self.wanted {
            Wanted::Quiet { .. } => book.crowd.open() > own,
            Wanted::Called { .. } => book.crowd.calling() > own,
            Wanted::Walked { .. } => book.crowd.sections() > own,
        }
    }

    /// Where to wait for the end of a block.
    pub(crate) fn post<'b>(&self, book: &'b Book, block: Block) -> &'b Post {
        match block {
            // SAFETY: blocks name hazards of the book, which live as long as it.
            Block::Hazard(hazard, _) => unsafe { &(*hazard).post },
            Block::Crowd(_) => &book.crowd.post,
        }
    }

    /// Waits for everything that blocks; false if the deadline came first.
    ///
    /// # Context
    /// May sleep.
    #[inline]
    pub(crate) fn wait(&self, subscriptions: &Subscriptions, deadline: Option<u64>) -> bool {
        while let Some(block) = self.advance(&subscriptions.book) {
            if !self.wait_for(subscriptions, block, deadline) {
                return false;
            }
        }
        true
    }

    /// Waits for one block; false if the deadline came first.
    #[cold]
    fn wait_for(&self, subscriptions: &Subscriptions, block: Block, deadline: Option<u64>) -> bool {
        let book = &subscriptions.book;
        subscriptions.count_wait();
        self.post(book, block).bell.wait_until(deadline, || !self.holds(book, block))
    }

    /// Identity or section of a hazard that blocks.
    #[inline(always)]
    fn blocks(&self, book: &Book, hazard: &Hazard) -> Option<u64> {
        match self.wanted {
            Wanted::Quiet { bounds, owner } => {
                let word = hazard.word();
                let blocks = word & PHASE != 0
                    && overlap(hazard.bounds(), bounds)
                    && (owner == 0 || hazard.owner() != owner);
                self.look_again(hazard, blocks).then_some(word & !PHASE | CALLING)
            }
            Wanted::Called { bounds, own } => {
                let word = hazard.word();
                let blocks =
                    word & PHASE == CALLING && overlap(hazard.bounds(), bounds) && !skips(book, own, hazard);
                self.look_again(hazard, blocks).then_some(word)
            }
            Wanted::Walked { stamp, own } => {
                let section = hazard.section();
                (is_walking(section, stamp) && !skips(book, own, hazard)).then_some(section)
            }
        }
    }

    /// Settles a verdict on a word and a range that were read one after the other.
    ///
    /// The range may be that of a later call. Then the call of the word is over: if the later range overlaps,
    /// the block does not hold; if it does not, this look makes what that call did before its end visible.
    fn look_again(&self, hazard: &Hazard, blocks: bool) -> bool {
        if !blocks {
            // ORDERING: pairs with the release fence in `Hazard::describe`: a range that was stored after an
            // end, then the word of that end or a later one.
            acquire_fence();
            hazard.word();
        }
        blocks
    }

    fn own_of_crowd(&self, book: &Book) -> u32 {
        let (calling, walking) = own_in_crowd(book.id());
        match self.wanted {
            Wanted::Called { own: Own::Skipped, .. } => calling,
            Wanted::Walked { own: Own::Skipped, .. } => walking,
            _ => 0,
        }
    }
}

/// Says whether certainly no walk is under way that began before the grace period `stamp` was over, none of the own thread's
/// either. It looks at a few hazards at the most.
#[inline(always)]
pub(crate) fn nobody_walks(book: &Book, stamp: u64) -> bool {
    const FEW: usize = 8;
    // Few first: once there are more, it looks for nothing.
    book.iter().nth(FEW).is_none()
        && book.iter().all(|hazard| !is_walking(hazard.section(), stamp))
        && book.crowd.sections() == 0
}

fn skips(book: &Book, own: Own, hazard: &Hazard) -> bool {
    own == Own::Skipped && is_own(book.id(), hazard)
}

fn overlap(a: (u64, u64), b: (u64, u64)) -> bool {
    a.0 <= b.1 && b.0 <= a.1
}

/// Says whether a section is one that began before the grace period `stamp` was over.
fn is_walking(section: u64, stamp: u64) -> bool {
    section & 1 == 1 && section >> 1 <= stamp
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn nobody_walks_where_all_were_looked_at_and_none_is_in_a_section() {
        // SAFETY: it stays here.
        let book = unsafe { Book::new(1) };
        assert!(book.refill(0));
        assert!(nobody_walks(&book, 1));
        let claim = book.claim(None);
        claim.enter_section(2);
        assert!(nobody_walks(&book, 1), "it began behind the grace period");
        assert!(!nobody_walks(&book, 2));
        _ = claim.leave_section();
        assert!(nobody_walks(&book, 2));
        let _more = [(); 8].map(|()| book.claim(None));
        assert!(!nobody_walks(&book, 2), "there are more than it looks at");
    }
}
