//! A subscriber of a scenario: prints what it hears, answers as the script says, and waits where it is held.
//!
//! Its own lock is what a real subscriber guards its table with: the interval callback takes it for a
//! moment, `retry` is called under it. A held callback waits without it, so that `retry` never waits.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use mmu_notifier::Event;
use mmu_notifier::interval::Answer;

use super::gate::Gate;
use super::journal::{self, Journal};
use super::lock::locked;
use super::verb::{Blocking, Callback, Reply, Temper};

/// A subscriber, known by its name for good.
pub(super) struct Subscriber {
    name: String,
    space: String,
    nature: Nature,
    journal: Arc<Journal>,
    gate: Gate,
    /// Whether its young callbacks say yes.
    accessed: AtomicBool,
    lock: Mutex<()>,
    /// Callbacks that run now.
    running: AtomicUsize,
    /// Names of a shared one that are not put.
    references: AtomicUsize,
    free: Mutex<Free>,
}

/// What kind of subscriber it is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Nature {
    /// An interval subscription.
    Interval(Temper),
    /// A list subscription with these callbacks.
    List(Vec<Callback>),
}

/// What is known of the free of a shared subscriber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Free {
    Due,
    Done,
    /// It ran when it must not, or not when it had to.
    Wrong(&'static str),
}

impl Subscriber {
    /// Makes the subscriber `name` of `space`.
    pub(super) fn new(name: &str, space: &str, nature: Nature, journal: Arc<Journal>) -> Arc<Subscriber> {
        Arc::new(Subscriber {
            name: name.to_string(),
            space: space.to_string(),
            nature,
            journal,
            gate: Gate::default(),
            accessed: AtomicBool::new(false),
            lock: Mutex::new(()),
            running: AtomicUsize::new(0),
            references: AtomicUsize::new(0),
            free: Mutex::new(Free::Due),
        })
    }

    /// Takes the subscriber's own lock.
    pub(super) fn lock(&self) -> MutexGuard<'_, ()> {
        locked(&self.lock)
    }

    /// Where its callbacks wait while it is held.
    pub(super) fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Says what its young callbacks answer from now on.
    pub(super) fn set_reply(&self, reply: Reply) {
        // ORDERING: the steps of a run are ordered by the hand-over between their threads.
        self.accessed.store(reply == Reply::Yes, Ordering::Relaxed);
    }

    /// The interval callback, or its first pass.
    pub(super) fn invalidate(&self, event: Event, may: Blocking) -> Answer {
        drop(self.lock());
        let (refused, answer) = match (&self.nature, may) {
            (Nature::Interval(Temper::Refuses), Blocking::MayNot) => (" refuses", Answer::Refused),
            (Nature::Interval(Temper::TwoPass), _) => ("", Answer::Begun),
            _ => ("", Answer::Done),
        };
        self.run(format_args!("invalidate {}{refused}", self.cause(event)));
        answer
    }

    /// Says whether its interval callback has a second pass.
    pub(super) fn has_finish(&self) -> bool {
        self.nature == Nature::Interval(Temper::TwoPass)
    }

    /// The second pass of the interval callback.
    pub(super) fn finish(&self, event: Event) {
        self.run(format_args!("finish {}", self.cause(event)));
    }

    /// The start callback of a list subscription; says whether it accepts.
    pub(super) fn start(&self, may: Blocking) -> bool {
        let refuses = self.has(Callback::Refuses);
        let accepts = !refuses || may == Blocking::May;
        if refuses || self.has(Callback::Start) {
            let refused = if accepts { "" } else { " refuses" };
            self.run(format_args!("start {}{refused}", journal::invalidation()));
        }
        accepts
    }

    /// Each of the three young callbacks.
    pub(super) fn young(&self) -> bool {
        self.call(Callback::Young);
        // ORDERING: as in `set_reply`; the answer counts that holds when the callback returns.
        self.has(Callback::Young) && self.accessed.load(Ordering::Relaxed)
    }

    /// A callback of a list subscription that only hears, if it has it.
    pub(super) fn call(&self, callback: Callback) {
        if !self.has(callback) {
            return;
        }
        match callback {
            Callback::End => self.run(format_args!("end {}", journal::invalidation())),
            Callback::Release => self.run(format_args!("release")),
            Callback::Young => self.run(format_args!("young")),
            Callback::ChangePte => self.run(format_args!("change_pte")),
            Callback::Invalidate => self.run(format_args!("invalidate")),
            // These answer: `start` is called for them.
            Callback::Start | Callback::Refuses => {}
        }
    }

    fn has(&self, callback: Callback) -> bool {
        matches!(&self.nature, Nature::List(callbacks) if callbacks.contains(&callback))
    }

    /// Names what an interval callback is called for: the exit is an invalidation without a step of its own.
    fn cause(&self, event: Event) -> String {
        if event == Event::Release { format!("exit-{}", self.space) } else { journal::invalidation() }
    }

    fn run(&self, text: fmt::Arguments<'_>) {
        let _running = Running::new(&self.running);
        self.journal.note(format!("{} {text}", self.name));
        self.gate.pass();
    }
}

/// The life of a shared subscriber.
impl Subscriber {
    /// Counts a name that `get` gave to it.
    pub(super) fn add_reference(&self) {
        // ORDERING: gets and puts are ordered by the steps of the run, as all calls are.
        self.references.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a name off and says whether it was the last one.
    pub(super) fn drop_reference(&self) -> bool {
        // ORDERING: as in `add_reference`.
        self.references.fetch_sub(1, Ordering::Relaxed) == 1
    }

    /// The free callback.
    pub(super) fn free(&self) {
        // ORDERING: both are looked at to find a library at fault; one that frees in time has synchronized
        // with the puts and with the callbacks.
        let referenced = self.references.load(Ordering::Relaxed) > 0;
        let running = self.running.load(Ordering::Relaxed) > 0;
        let mut free = locked(&self.free);
        *free = match *free {
            Free::Due if referenced => Free::Wrong("freed before its last put"),
            Free::Due if running => Free::Wrong("freed while a callback of it runs"),
            Free::Due => Free::Done,
            Free::Done => Free::Wrong("freed twice"),
            wrong @ Free::Wrong(_) => wrong,
        };
    }

    /// Notes that the free must be done by now.
    pub(super) fn must_be_free(&self) {
        let mut free = locked(&self.free);
        if *free == Free::Due {
            *free = Free::Wrong("not freed when synchronize returned");
        }
    }

    /// What is printed of its free: nothing if it has not run.
    pub(super) fn freed(&self) -> Option<String> {
        match *locked(&self.free) {
            Free::Due => None,
            Free::Done => Some(format!("{} free", self.name)),
            Free::Wrong(how) => Some(format!("{} free: {how}", self.name)),
        }
    }
}

/// Counts a callback while it runs, also if it panics.
struct Running<'a>(&'a AtomicUsize);

impl<'a> Running<'a> {
    fn new(running: &'a AtomicUsize) -> Self {
        // ORDERING: see `Subscriber::free`.
        running.fetch_add(1, Ordering::Relaxed);
        Running(running)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        // ORDERING: release, so that a free that the library orders behind this callback sees it over.
        self.0.fetch_sub(1, Ordering::Release);
    }
}
