//! What goes wrong and can be seen: each finding names the call, the subscriber and the rule (clause C9).
//!
//! What may cost something on a hot path is looked for in debug builds, and with the feature `diagnostics`;
//! the rest always. As with the kernel's WARN_ON the program goes on where it safely can. The library prints
//! nothing: a [hook](set_hook) may log, or panic.

#![expect(unsafe_code, reason = "a function pointer in an atomic")]

use core::fmt;
use core::panic::Location;
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use crate::address::Range;
use crate::frame::{self, Sleep};
use crate::hazard::{ACTIVE, Hazard, PHASE};
use crate::interval::Node;
use crate::platform::{self, Context, with_context};
use crate::subscriptions::Subscriptions;

/// Whether the checks that cost something are made.
pub const ENABLED: bool = cfg!(any(debug_assertions, feature = "diagnostics"));

/// A rule that a call broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Rule {
    /// A callback refused although it may sleep; it is taken as accepted.
    RefusedBlockable,
    /// An end has no start, or had its end before; it does nothing.
    EndWithoutStart,
    /// A call that may sleep, within a callback that may not.
    SleepInNonblockable,
    /// A call that may have to wait for a callback of its own thread.
    WaitInCallback,
    /// A reader that would wait for an invalidation that its own thread has not ended.
    WaitForOwnInvalidation,
    /// A start within a callback, of a range that overlaps the one that the callback is called for.
    StartInOwnRange,
    /// The map lock taken within a callback, whose invalidation its holder may be making.
    MapLockInCallback,
    /// A `_locked` call with the guard of another space's map lock.
    NotLocked,
    /// A start after the last user has gone and the exit is over.
    StartAfterExit,
    /// An interval or a listener was given to a space that is in one already.
    InsertedTwice,
    /// A call on an interval or a listener that is in no space: never inserted, or removed already.
    NotInserted,
    /// The memory of an interval or a listener went while it was in a space.
    FreedInserted,
    /// A mirror's lock taken by the thread that has it: in one of the mirror's closures, or by an invalidation
    /// that such a closure started.
    LockedTwice,
    /// A call that may wait for an invalidation, under the lock of a mirror that this may have to wait for.
    WaitUnderLock,
    /// An invalidation that waits for a use that its own thread began. If another thread is to end that, it
    /// may be [owned](crate::mirror::InUse::into_owned).
    WaitForOwnUse,
    /// A fault without a timeout while a use of the same mirror is in flight that its thread began: an
    /// invalidation that waits for the use may be one that the fault waits for.
    FaultInUse,
    /// The last holder went while an invalidation was active: a guard was forgotten.
    GuardLeaked,
}

impl Rule {
    const fn text(self) -> &'static str {
        match self {
            Rule::RefusedBlockable => "a callback may refuse only where the invalidation is not blockable",
            Rule::EndWithoutStart => "an end must match a start that succeeded and has not ended",
            Rule::SleepInNonblockable => "a callback of a non-blockable invalidation must not sleep",
            Rule::WaitInCallback => "a callback must not wait for itself",
            Rule::WaitForOwnInvalidation => {
                "a reader must not wait for its own thread: end the invalidation first"
            }
            Rule::StartInOwnRange => {
                "a callback may invalidate other ranges only, or it may have to wait for itself"
            }
            Rule::MapLockInCallback => {
                "a callback must not take the map lock: its holder may be invalidating"
            }
            Rule::NotLocked => "a locked call needs the guard of the map lock of the same space",
            Rule::StartAfterExit => "nothing is left to invalidate after the exit",
            Rule::InsertedTwice => "one that is in a space must be removed before it is inserted again",
            Rule::NotInserted => "one that is in no space cannot be used: insert it first, remove it once",
            Rule::FreedInserted => "one that is in a space must be removed before its memory goes",
            Rule::LockedTwice => "a mirror's lock must not be taken by the thread that has it",
            Rule::WaitUnderLock => {
                "under a mirror's lock nobody must wait for invalidations, which may wait for the lock"
            }
            Rule::WaitForOwnUse => {
                "an invalidation must not wait for a use that its own thread has in flight"
            }
            Rule::FaultInUse => {
                "a fault beside a use of the same thread needs a timeout, or may wait for ever"
            }
            Rule::GuardLeaked => "an invalidation guard must not be forgotten",
        }
    }
}

/// A finding.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Report {
    /// What was broken.
    pub rule: Rule,
    /// The call that broke it, by its name.
    pub call: &'static str,
    /// The label of the subscriber, if it has one and the finding is about one.
    pub subscriber: Option<&'static str>,
    /// Where the invalidation that it is about was started, if that is known.
    pub origin: Option<&'static Location<'static>>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.call)?;
        if let Some(subscriber) = self.subscriber {
            write!(f, " ({subscriber})")?;
        }
        write!(f, ": {}", self.rule.text())?;
        match self.origin {
            Some(origin) => write!(f, " (started at {origin})"),
            None => Ok(()),
        }
    }
}

/// What is called with each finding, in the thread that made it, with none of the library's locks held. It may
/// be called where nothing may sleep; if it panics, the panic goes on out of the call.
pub type Hook = fn(&Report);

static HOOK: AtomicPtr<()> = AtomicPtr::new(core::ptr::null_mut());
static FINDINGS: AtomicU64 = AtomicU64::new(0);

/// Sets what is called with each finding, in place of what was set before.
pub fn set_hook(hook: Hook) {
    HOOK.store(hook as *mut (), Ordering::Release);
}

/// How many findings there were so far, in all spaces.
pub fn findings() -> u64 {
    FINDINGS.load(Ordering::Relaxed)
}

#[cold]
pub(crate) fn report(rule: Rule, call: &'static str, subscriber: Option<&'static str>) {
    report_with(Report { rule, call, subscriber, origin: None });
}

#[cold]
fn report_with(report: Report) {
    FINDINGS.fetch_add(1, Ordering::Relaxed);
    let hook = HOOK.load(Ordering::Acquire);
    if !hook.is_null() {
        // SAFETY: only `set_hook` stores here, and it stores a `Hook`.
        let hook = unsafe { core::mem::transmute::<*mut (), Hook>(hook) };
        hook(&report);
    }
}

/// The type of the notifier whose callback runs in this thread, the innermost one. Known where [`ENABLED`] says so, and
/// not of those whose memory is their user's own.
pub fn calling() -> Option<&'static str> {
    with_context(|context| context.and_then(Context::calling))
}

/// Runs a callback of a notifier of type `N`, and lets [`calling`] know.
#[inline]
pub(crate) fn call<N, R>(callback: impl FnOnce() -> R) -> R {
    /// Notes again what was noted before, also when a panic passes.
    struct Outer(Option<&'static str>);

    impl Drop for Outer {
        fn drop(&mut self) {
            with_context(|context| context.into_iter().for_each(|context| context.set_calling(self.0)));
        }
    }

    if !ENABLED {
        return callback();
    }
    let _outer = Outer(calling());
    let name = core::any::type_name::<N>();
    with_context(|context| context.into_iter().for_each(|context| context.set_calling(Some(name))));
    callback()
}

/// Checks a call that may sleep.
#[inline]
pub(crate) fn may_sleep(subscriptions: &Subscriptions, call: &'static str, subscriber: Option<&'static str>) {
    if ENABLED && subscriptions.innermost() == Some(Sleep::Forbidden) {
        report(Rule::SleepInNonblockable, call, subscriber);
    }
    not_under_lock(subscriptions, call, subscriber);
}

/// Checks a call that may wait for an invalidation, or for who makes one: not under a mirror's lock.
#[inline]
fn not_under_lock(subscriptions: &Subscriptions, call: &'static str, subscriber: Option<&'static str>) {
    if ENABLED && platform::locked() == subscriptions.id {
        report(Rule::WaitUnderLock, call, subscriber);
    }
}

/// Checks a read_begin, which may sleep, and must not wait for a guard of its own thread.
#[inline]
pub(crate) fn read_begin(subscriptions: &Subscriptions, node: &Node) {
    if ENABLED {
        may_sleep(subscriptions, "read_begin", node.label());
        let origin = with_context(|context| {
            let own = |hazard: &&Hazard| {
                context.is_some_and(|context| hazard.was_started_by(context)) && node.is_busy_for(hazard)
            };
            subscriptions.book.iter().filter(own).find_map(Hazard::origin)
        });
        if let Some(origin) = origin {
            let (rule, call) = (Rule::WaitForOwnInvalidation, "read_begin");
            report_with(Report { rule, call, subscriber: node.label(), origin: Some(origin) });
        }
    }
}

/// Checks a synchronize, which may wait for the walk that its thread is in.
pub(crate) fn synchronize() {
    if ENABLED && with_context(|context| context.is_some_and(|context| !context.frames().is_null())) {
        report(Rule::WaitInCallback, "synchronize", None);
    }
}

/// Checks a start.
#[inline]
pub(crate) fn start(subscriptions: &Subscriptions, range: Range) {
    if !ENABLED {
        return;
    }
    if subscriptions.has_exited() {
        report(Rule::StartAfterExit, "invalidate_start", None);
    }
    // CONTRACT C3.9
    if frame::is_calling_in(subscriptions.id, range) {
        report(Rule::StartInOwnRange, "invalidate_start", None);
    }
}

/// Reports each guard that is still there when the last holder goes (clause C7.1).
pub(crate) fn leaked_guards(subscriptions: &Subscriptions) {
    let (rule, call) = (Rule::GuardLeaked, "drop of the last holder");
    for hazard in subscriptions.book.iter().filter(|hazard| hazard.word() & PHASE == ACTIVE) {
        report_with(Report { rule, call, subscriber: subscriptions.label, origin: hazard.origin() });
    }
}

/// Checks a remove of memory that its caller may free; says whether a call of its own thread needs it yet.
pub(crate) fn removed_in_own_call(subscriptions: &Subscriptions, node: &Node) -> bool {
    let is_needed = frame::give_back(subscriptions.id, node);
    if is_needed {
        // CONTRACT C3.7
        report(Rule::WaitInCallback, "remove", node.label());
    }
    is_needed
}

/// Checks a call that takes the map lock.
#[inline]
pub(crate) fn map_lock(subscriptions: Option<&Subscriptions>, call: &'static str) {
    if ENABLED && subscriptions.is_some_and(|subscriptions| subscriptions.innermost().is_some()) {
        report(Rule::MapLockInCallback, call, None);
    }
    if let Some(subscriptions) = subscriptions {
        not_under_lock(subscriptions, call, None);
    }
}
