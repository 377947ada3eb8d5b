//! Grace periods: when every walk is over that may know what was taken off the list.
//!
//! # Protocol
//! A walk is a *section* of its hazard: `section` = 2 × stamp + 1; light barrier; look at the mode, and unless it
//! is **quick** pass F; then load the list. It ends with `section` = 0.
//!
//! Who changes the list, under its lock, passes the *fence of the list* behind its change: F; and unless the mode is
//! **fenced**: mode = arming, heavy barrier, mode = fenced. Who takes something off takes a new stamp with that F, under
//! the same lock; its grace period then waits for each section of the old stamp or an older one. So who finds the mode fenced
//! may look for those while it has the lock still (`list/array/removal`).
//!
//! - A section that saw the mode quick saw it before the heavy barrier reached its thread, and stored `section`
//!   before that: whoever scans behind the barrier sees it, or its end.
//! - Any other one passed F behind its store: either the scan sees it, or it sees the change.
//! - One that carries the new stamp or a later one loaded it behind the change: whoever takes a stamp has the lock that
//!   the one before it had.
//!
//! A release of a single node is a section as well: the exit waits for it, and so does every other grace period, or the
//! release sees what came before that. It loads nothing of the list, so it only *marks* itself; it passes F with the claim
//! of the release.
//!
//! So walks cost no fence where the list does not change, and no change costs a system call where changes come
//! often.
//!
//! *Back to quick*: a hazard that was in many sections under one stamp turns fenced into leaving; F; then
//! leaving into quick. Who relied on fenced read it before it turned into leaving, behind a change and an F of
//! its own. That F precedes the one between the two steps, so whoever sees quick (acquire) sees the change too.
//!
//! Where heavy barriers reach nobody the mode stays fenced. Where they did until a sandbox took them away, a list that is
//! quick is armed once more: then who arms sleeps until every section that saw it quick can be seen.
//!
//! The mode carries a generation that each arming renews: none can finish another one's. In the child of a fork a
//! mode that a thread left half-way stays so: sections pass F, and the next who changes the list arms anew.

use core::fmt;

use crate::hazard::Claim;
use crate::platform::{has_barriers, heavy_barrier, light_barrier, settle};
use crate::sync::{AtomicU64, Ordering, SpinGuard, full_fence, publish};

const STATE: u64 = 3;
const QUICK: u64 = 0;
const ARMING: u64 = 1;
const FENCED: u64 = 2;
const LEAVING: u64 = 3;
const GENERATION: u64 = 4;

/// How many sections of one hazard without a change turn the mode back.
const MANY: u64 = if cfg!(any(loom, shuttle)) { 2 } else { 1024 };

/// The stamps of a list's grace periods, and what its walks pass.
pub(crate) struct Grace {
    stamp: AtomicU64,
    mode: AtomicU64,
}

impl fmt::Debug for Grace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (stamp, mode) = (self.stamp.load(Ordering::Relaxed), self.mode.load(Ordering::Relaxed));
        f.debug_struct("Grace").field("stamp", &stamp).field("state", &(mode & STATE)).finish()
    }
}

impl Grace {
    pub(crate) fn new() -> Self {
        // Fenced: nobody has walked, so the first who registers need not reach anybody.
        Grace { stamp: AtomicU64::new(1), mode: AtomicU64::new(FENCED) }
    }

    /// Enters a section; what is loaded of the list from here on stays readable until it is left.
    #[inline]
    pub(crate) fn enter(&self, claim: Claim<'_>) {
        let stamp = self.mark(claim);
        if !self.is_quick() {
            full_fence();
            self.count(claim, stamp);
        }
    }

    /// Stores the section; returns its stamp. Who loads nothing of the list in it need not go on as [`enter`](Self::enter)
    /// does.
    #[inline]
    pub(super) fn mark(&self, claim: Claim<'_>) -> u64 {
        // ORDERING: acquire pairs with `advance`: who carries a new stamp sees what was changed before it.
        let stamp = self.stamp.load(Ordering::Acquire);
        claim.enter_section(stamp);
        stamp
    }

    /// Orders what this thread did before against what it loads of the list next, as a section would.
    #[inline]
    pub(super) fn look(&self) {
        if !self.is_quick() {
            full_fence();
        }
    }

    #[inline]
    fn is_quick(&self) -> bool {
        // ORDERING: light barrier against the heavy one in `arm`: section, then mode. Acquire pairs with `leave`.
        light_barrier();
        self.mode.load(Ordering::Acquire) & STATE == QUICK
    }

    /// Opens the lock of the list behind a change, and passes the fence of the list.
    #[inline]
    pub(super) fn open(&self, lock: SpinGuard<'_>) {
        lock.open_fenced();
        self.reach_all();
    }

    /// Opens the lock behind a change whose stamp was [ended](Self::advance), which was F.
    #[inline]
    pub(super) fn open_advanced(&self, lock: SpinGuard<'_>) {
        drop(lock);
        self.reach_all();
    }

    /// The fence of the list, behind a change of it.
    pub(super) fn fence(&self) {
        full_fence();
        self.reach_all();
    }

    /// Makes sure that every section passes F before it loads the list; behind a change and F.
    #[inline]
    fn reach_all(&self) {
        if !self.is_fenced() {
            self.arm();
        }
    }

    /// Says whether every section that does not show yet passes F before it loads the list; behind a change and F.
    #[inline]
    pub(crate) fn is_fenced(&self) -> bool {
        // ORDERING: acquire pairs with the release in `arm`: its heavy barrier is over.
        self.mode.load(Ordering::Acquire) & STATE == FENCED
    }

    /// Ends the stamp, behind a change under the lock of the list, and passes F; returns it: sections of it or an older one
    /// are to be waited for, behind the fence of the list.
    #[inline]
    pub(super) fn advance(&self, _lock: &SpinGuard<'_>) -> u64 {
        let stamp = self.stamp.load(Ordering::Relaxed);
        // ORDERING: release, for the acquire in `mark`; the changes before it were made under the same lock. And change, F,
        // sections; against section, F, list.
        publish(&self.stamp, stamp + 1);
        stamp
    }

    #[cold]
    fn arm(&self) {
        let mut mode = self.mode.load(Ordering::Acquire);
        let mine = loop {
            if mode & STATE == FENCED {
                return;
            }
            let mine = ((mode & !STATE) + GENERATION) | ARMING;
            match self.mode.compare_exchange(mode, mine, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => break mine,
                Err(now) => mode = now,
            }
        };
        // ORDERING: mode, heavy barrier; against section, light barrier, mode.
        if !heavy_barrier() {
            settle();
        }
        let fenced = (mine & !STATE) | FENCED;
        let _ = self.mode.compare_exchange(mine, fenced, Ordering::AcqRel, Ordering::Relaxed);
    }

    /// Counts a section that had to pass F, and turns the mode back after many under one stamp.
    #[cold]
    fn count(&self, claim: Claim<'_>, stamp: u64) {
        if claim.count_section(stamp) >= MANY {
            self.leave();
        }
    }

    pub(crate) fn leave(&self) {
        let mode = self.mode.load(Ordering::Relaxed);
        if mode & STATE != FENCED || !has_barriers() {
            return;
        }
        let (leaving, quick) = ((mode & !STATE) | LEAVING, (mode & !STATE) | QUICK);
        if self.mode.compare_exchange(mode, leaving, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            // ORDERING: leaving, F, quick (release); against change, F, mode of who relies on fenced.
            full_fence();
            let _ = self.mode.compare_exchange(leaving, quick, Ordering::Release, Ordering::Relaxed);
        }
    }
}
