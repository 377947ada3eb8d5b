//! What goes wrong and can be seen: each finding names the call, the subscriber and the rule (clause C9).
//!
//! What may cost something on a hot path is looked for in debug builds, and with the feature `diagnostics`;
//! the rest always. As with the kernel's WARN_ON the program goes on where it safely can. The library prints
//! nothing: a [hook](set_hook) may log, or panic.

#![expect(unsafe_code, reason = "a function pointer in an atomic")]

use core::fmt;
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use crate::frame::Kind;
use crate::interval::Node;
use crate::scan::{Own, Scan, Wanted};
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
            Rule::MapLockInCallback => {
                "a callback must not take the map lock: its holder may be invalidating"
            }
            Rule::NotLocked => "a locked call needs the guard of the map lock of the same space",
            Rule::StartAfterExit => "nothing is left to invalidate after the exit",
            Rule::InsertedTwice => "one that is in a space must be removed before it is inserted again",
            Rule::NotInserted => "one that is in no space cannot be used: insert it first, remove it once",
            Rule::FreedInserted => "one that is in a space must be removed before its memory goes",
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
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.call)?;
        if let Some(subscriber) = self.subscriber {
            write!(f, " ({subscriber})")?;
        }
        write!(f, ": {}", self.rule.text())
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
    FINDINGS.fetch_add(1, Ordering::Relaxed);
    let hook = HOOK.load(Ordering::Acquire);
    if !hook.is_null() {
        // SAFETY: only `set_hook` stores here, and it stores a `Hook`.
        let hook = unsafe { core::mem::transmute::<*mut (), Hook>(hook) };
        hook(&Report { rule, call, subscriber });
    }
}

/// Checks a call that may sleep.
#[inline]
pub(crate) fn may_sleep(subscriptions: &Subscriptions, call: &'static str, subscriber: Option<&'static str>) {
    if ENABLED && matches!(subscriptions.innermost(), Some(Kind::IntervalsNonblock | Kind::WalkNonblock)) {
        report(Rule::SleepInNonblockable, call, subscriber);
    }
}

/// Checks a call that may wait for a walk or an invalidation of its own thread.
pub(crate) fn would_wait_in_walk(
    subscriptions: &Subscriptions,
    call: &'static str,
    subscriber: Option<&'static str>,
) {
    if ENABLED && subscriptions.innermost().is_some() {
        report(Rule::WaitInCallback, call, subscriber);
    }
}

/// Checks a remove of memory that its caller may free, within a call of its own thread that may have it in hand.
pub(crate) fn removed_in_own_call(subscriptions: &Subscriptions, node: &Node) {
    let wanted = Wanted::Called { bounds: node.bounds(), own: Own::Awaited };
    if Scan::new(&subscriptions.book, subscriptions.id, wanted).advance(&subscriptions.book).is_some() {
        report(Rule::WaitInCallback, "remove", node.label());
    }
}

/// Checks a call that takes the map lock.
pub(crate) fn map_lock(subscriptions: Option<&Subscriptions>, call: &'static str) {
    if ENABLED && subscriptions.is_some_and(|subscriptions| subscriptions.innermost().is_some()) {
        report(Rule::MapLockInCallback, call, None);
    }
}
