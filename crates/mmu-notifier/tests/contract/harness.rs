//! Waits that have an end, threads that can be watched, gates and records.
//!
//! [`within`] is the watchdog around a whole test. [`Background`] is a call on another thread of which a
//! test can say that it still waits; that is looked for in the kernel's view of the thread where there is
//! one, and by a short pause elsewhere. No limit here is a claim about speed.

use std::panic::{Location, resume_unwind};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use mmu_notifier::Range;

/// The time after which a wait counts as a deadlock.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// Runs `test` on a thread of its own and fails, naming the test, if it is not over within [`LIMIT`].
#[track_caller]
pub(crate) fn within<R: Send + 'static>(test: impl FnOnce() -> R + Send + 'static) -> R {
    let place = Location::caller();
    let name = thread::current().name().unwrap_or("a test").to_owned();
    let (done, finished) = channel();
    let run = move || {
        let result = test();
        let _ = done.send(());
        result
    };
    let thread = thread::Builder::new().name(name.clone()).spawn(run).expect("a thread for the test");
    if finished.recv_timeout(2 * LIMIT) == Err(RecvTimeoutError::Timeout) {
        panic!("{name} at {place} hangs: somebody sleeps for ever");
    }
    thread.join().unwrap_or_else(|panic| resume_unwind(panic))
}

/// Polls `ready` until it says yes; fails, naming `what`, if it never does.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut ready: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !ready() {
        assert!(begin.elapsed() < LIMIT, "waited in vain: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Locks, whatever panicked under the lock before: tests panic on purpose.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes the range `start..end`.
pub(crate) fn range(start: u64, end: u64) -> Range {
    Range::new(start, end).expect("a range of a test")
}

/// A call that runs on a thread of its own.
pub(crate) struct Background<T> {
    thread: JoinHandle<T>,
    done: Receiver<()>,
    stat: Option<String>,
}

/// Starts `call` on a new thread.
pub(crate) fn background<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> Background<T> {
    let (tell, told) = channel();
    let (finish, done) = channel();
    let thread = thread::spawn(move || {
        let link = std::fs::read_link("/proc/thread-self").ok();
        let _ = tell.send(link.map(|path| format!("/proc/{}/stat", path.display())));
        // Dropped by a panic of the call too: both ends count as finished.
        let _finish = finish;
        call()
    });
    let stat = told.recv().expect("the thread has begun");
    Background { thread, done, stat }
}

impl<T> Background<T> {
    /// Waits until the call has finished or sleeps (or is busy for so long that it must be waiting).
    pub(crate) fn settle(&self) {
        let begin = Instant::now();
        let mut asleep = 0;
        while !self.thread.is_finished() && asleep < 25 && begin.elapsed() < Duration::from_secs(1) {
            thread::sleep(Duration::from_millis(2));
            asleep = if self.is_asleep() { asleep + 1 } else { 0 };
        }
    }

    fn is_asleep(&self) -> bool {
        let Some(stat) = self.stat.as_ref().and_then(|path| std::fs::read_to_string(path).ok()) else {
            return true;
        };
        stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('S'))
    }

    /// Asserts that the call has not finished, after it had time to.
    #[track_caller]
    pub(crate) fn assert_waits(&self, why: &str) {
        self.settle();
        assert!(!self.thread.is_finished(), "the call returned at once: {why}");
    }

    /// Waits for the call, which must finish, and gives what it gave.
    #[track_caller]
    pub(crate) fn join(self) -> T {
        self.outcome().unwrap_or_else(|panic| resume_unwind(panic))
    }

    /// Waits for the call, which must finish or panic.
    #[track_caller]
    pub(crate) fn outcome(self) -> thread::Result<T> {
        let ended = self.done.recv_timeout(LIMIT);
        assert_ne!(ended, Err(RecvTimeoutError::Timeout), "the call never returned");
        self.thread.join()
    }
}

/// A door that callbacks pass: held, they block in it.
#[derive(Default)]
pub(crate) struct Gate {
    state: Mutex<Door>,
    changed: Condvar,
}

#[derive(Default)]
struct Door {
    held: bool,
    inside: usize,
}

impl Gate {
    /// From now on whoever comes blocks.
    pub(crate) fn hold(&self) {
        lock(&self.state).held = true;
    }

    /// Lets go who blocks, and holds no more.
    pub(crate) fn open(&self) {
        lock(&self.state).held = false;
        self.changed.notify_all();
    }

    /// Goes through; blocks while the gate is held.
    pub(crate) fn pass(&self) {
        let mut door = lock(&self.state);
        door.inside += 1;
        self.changed.notify_all();
        let closed = |door: &mut Door| door.held;
        let (mut door, late) =
            self.changed.wait_timeout_while(door, LIMIT, closed).unwrap_or_else(PoisonError::into_inner);
        door.inside -= 1;
        drop(door);
        assert!(!late.timed_out(), "a gate was never opened");
    }

    /// Waits until `count` threads stand in the gate.
    #[track_caller]
    pub(crate) fn wait_inside(&self, count: usize) {
        wait_until("callbacks that come to the gate", || lock(&self.state).inside >= count);
    }
}

/// A record of what happened, in order.
#[derive(Clone, Default)]
pub(crate) struct Recorder(Arc<Mutex<Vec<String>>>);

impl Recorder {
    /// Makes an empty record.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Adds an event.
    pub(crate) fn note(&self, event: impl Into<String>) {
        lock(&self.0).push(event.into());
    }

    /// Gives the events since the last call of this.
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut *lock(&self.0))
    }

    /// Asserts that these events, and no others, happened since the last look.
    #[track_caller]
    pub(crate) fn expect(&self, events: &[&str]) {
        assert_eq!(self.take(), events);
    }
}
