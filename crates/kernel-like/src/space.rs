//! A space: the interval side, the list, and what its owner calls around a change.

use std::mem;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::interval::{Interval, Notifier, Subscription};
use crate::intervals::Intervals;
use crate::invalidation::{Gone, Invalidation, Refused};
use crate::list::{self, Entry, List, Registration, Shared};
use crate::srcu;

/// An address space as subscribers see it.
#[derive(Debug)]
pub struct Space {
    /// Set by the first insert or registration, for good.
    has_notifiers: AtomicBool,
    /// Set by the first insert, for good.
    has_intervals: AtomicBool,
    users: AtomicUsize,
    list: List,
    intervals: Intervals,
    /// Taken by who registers.
    map: Mutex<()>,
}

/// Waits until every list callback that runs, in any space, is done.
pub fn synchronize() {
    srcu::synchronize();
}

impl Space {
    /// Makes a space with one user. Its clones are holders, as each subscriber is.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            has_notifiers: AtomicBool::new(false),
            has_intervals: AtomicBool::new(false),
            users: AtomicUsize::new(1),
            list: List::default(),
            intervals: Intervals::default(),
            map: Mutex::default(),
        })
    }

    /// Says whether anybody subscribed, ever.
    #[inline]
    pub fn has_notifiers(&self) -> bool {
        // ORDERING: pairs with the stores in `insert` and `register`.
        self.has_notifiers.load(Ordering::Acquire)
    }

    /// Calls everybody who watches the range: intervals first, then the list. An end of 0 is the top; an empty range
    /// hits nobody.
    #[inline]
    pub fn invalidate_start(&self, range: Range<u64>) -> Active<'_> {
        let what = Invalidation::new(range);
        let owed = if self.has_notifiers() {
            self.start(&what).expect("a blockable start has no refusal")
        } else {
            Owed::Nothing
        };
        Active { space: self, what, owed }
    }

    /// The same for callbacks that must not sleep.
    ///
    /// # Errors
    /// One refused: nothing is active.
    #[inline]
    pub fn invalidate_start_nonblock(&self, range: Range<u64>) -> Result<Active<'_>, Refused> {
        let what = Invalidation::new(range).nonblock();
        let owed = if self.has_notifiers() { self.start(&what)? } else { Owed::Nothing };
        Ok(Active { space: self, what, owed })
    }

    /// Inserts an interval. With an invalidation active it is put off, and busy, until the last one ends.
    ///
    /// # Errors
    /// The space has no users.
    ///
    /// # Panics
    /// If the range is empty.
    #[inline]
    pub fn insert<C: Notifier>(
        self: &Arc<Self>,
        range: Range<u64>,
        interval: Box<Interval<C>>,
    ) -> Result<Subscription<C>, (Gone, Box<Interval<C>>)> {
        let range = Invalidation::new(range);
        match self.admit_interval(&range) {
            Ok(()) => Ok(Subscription::insert(self, &range, interval)),
            Err(gone) => Err((gone, interval)),
        }
    }

    /// Inserts an interval where it is, for whoever has them in an array or a larger record.
    ///
    /// # Safety
    /// - It is in no space.
    /// - It neither moves nor is freed nor borrowed exclusively before [`Interval::remove_in_place`].
    ///
    /// # Errors
    /// The space has no users.
    ///
    /// # Panics
    /// If the range is empty.
    #[inline]
    #[expect(unsafe_code, reason = "an interval in its user's memory")]
    pub unsafe fn insert_in_place<C: Notifier>(
        self: &Arc<Self>,
        range: Range<u64>,
        interval: &Interval<C>,
    ) -> Result<(), Gone> {
        let range = Invalidation::new(range);
        self.admit_interval(&range)?;
        // SAFETY: the caller's promise; the range is not empty.
        unsafe { interval.insert_in_place(self, &range) };
        Ok(())
    }

    /// Registers a list notifier, which is called first from now on. The caller lets no invalidation be active.
    ///
    /// # Errors
    /// The space has no users.
    pub fn register<N: list::Notifier>(
        self: &Arc<Self>,
        entry: Box<Entry<N>>,
    ) -> Result<Registration<N>, (Gone, Box<Entry<N>>)> {
        let _map = self.map_lock();
        match self.admit() {
            Ok(()) => Ok(Registration::link(self, entry)),
            Err(gone) => Err((gone, entry)),
        }
    }

    /// Finds the one shared notifier of this type, or makes and registers it. The caller lets no invalidation be
    /// active.
    ///
    /// # Errors
    /// The space has no users.
    pub fn get<N: list::Notifier>(self: &Arc<Self>, make: impl FnOnce() -> N) -> Result<Shared<N>, Gone> {
        let _map = self.map_lock();
        self.admit()?;
        Ok(Shared::get(self, make))
    }

    /// Takes the last user away: all intervals are invalidated, all of the list released and taken off.
    pub fn exit(&self) {
        // ORDERING: no subscriber's data hang on it; the exit excludes late ones by the owner's own locks.
        if self.users.swap(0, Ordering::Relaxed) == 0 || !self.has_notifiers() {
            return;
        }
        // ORDERING: pairs with the store in `admit_interval`.
        if self.has_intervals.load(Ordering::Acquire) {
            let all = Invalidation::of_all();
            drop(self.intervals.start(&all).expect("a blockable start has no refusal"));
        }
        self.list.exit();
    }

    /// Calls everybody; what began before a refusal or a panic is ended here.
    fn start(&self, what: &Invalidation) -> Result<Owed, Refused> {
        if what.is_empty() {
            return Ok(Owed::Nothing);
        }
        // ORDERING: pairs with the store in `admit_interval`.
        let begun =
            if self.has_intervals.load(Ordering::Acquire) { Some(self.intervals.start(what)?) } else { None };
        let has_list = !self.list.is_empty();
        if has_list {
            self.list.start(what)?;
        }
        let owed = Owed::of(begun.is_some(), has_list);
        // The end is owed by the `Active` from now on.
        mem::forget(begun);
        Ok(owed)
    }

    fn end(&self, what: &Invalidation, owed: Owed) {
        if matches!(owed, Owed::Intervals | Owed::Both) {
            self.intervals.end();
        }
        if matches!(owed, Owed::List | Owed::Both) {
            self.list.end(what);
        }
    }

    #[inline]
    pub(crate) fn intervals(&self) -> &Intervals {
        &self.intervals
    }

    #[inline]
    pub(crate) fn list(&self) -> &List {
        &self.list
    }

    fn admit_interval(&self, range: &Invalidation) -> Result<(), Gone> {
        assert!(!range.is_empty(), "an interval is not empty");
        self.admit()?;
        if !self.has_intervals.load(Ordering::Relaxed) {
            // ORDERING: pairs with the loads in `start` and `exit`.
            self.has_intervals.store(true, Ordering::Release);
        }
        Ok(())
    }

    fn admit(&self) -> Result<(), Gone> {
        // ORDERING: as in `exit`.
        if self.users.load(Ordering::Relaxed) == 0 {
            return Err(Gone);
        }
        if !self.has_notifiers.load(Ordering::Relaxed) {
            // ORDERING: pairs with the load in `has_notifiers`.
            self.has_notifiers.store(true, Ordering::Release);
        }
        Ok(())
    }

    fn map_lock(&self) -> MutexGuard<'_, ()> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Which sides are owed an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owed {
    Nothing,
    Intervals,
    List,
    Both,
}

impl Owed {
    fn of(intervals: bool, list: bool) -> Self {
        match (intervals, list) {
            (false, false) => Self::Nothing,
            (true, false) => Self::Intervals,
            (false, true) => Self::List,
            (true, true) => Self::Both,
        }
    }
}

/// An invalidation that started. Dropping it ends it; forgetting it costs liveness.
#[must_use = "dropping it ends it"]
#[derive(Debug)]
pub struct Active<'a> {
    space: &'a Space,
    what: Invalidation,
    owed: Owed,
}

impl Active<'_> {
    /// Ends it: readers go on, then the list hears it.
    #[inline]
    pub fn end(self) {}
}

impl Drop for Active<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.owed != Owed::Nothing {
            self.space.end(&self.what, self.owed);
        }
    }
}
