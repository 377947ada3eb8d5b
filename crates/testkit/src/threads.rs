//! Threads that are gone: very many short ones, and all but one behind a fork.
#![cfg_attr(unix, expect(unsafe_code, reason = "fork, waitpid, kill and _exit are foreign calls"))]

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use mmu_notifier::interval::{Answer, Sequence};
use mmu_notifier::{AddressSpace, Invalidation, Range, interval, list};

use crate::run::{Run, number};

/// Counts its calls, and allocates nothing.
#[derive(Default)]
struct Tally(AtomicU64);

impl interval::Notifier for Tally {
    fn invalidate(&self, _: &Invalidation, _: Sequence) -> Answer {
        self.0.fetch_add(1, Ordering::Relaxed);
        Answer::Done
    }
}

impl list::Notifier for Tally {}

fn range(start: u64, end: u64) -> Range {
    Range::new(start, end).expect("a range of the run")
}

/// Has `STRESS_THREADS` (2,000) threads, a few at a time, invalidate once each and die.
///
/// # Panics
/// If one of their invalidations was lost, or is thought to be active still.
pub fn short_lived(run: Run) {
    const AT_ONCE: u64 = 8;
    let threads = number("STRESS_THREADS").unwrap_or(2000);
    let space = AddressSpace::new();
    let sub = space.insert(Range::ALL, Tally::default()).expect("the space has a user");
    let listed = space.register(Tally::default()).expect("the space has a user");
    let mut random = run.random(0);
    let mut started = 0;
    while started < threads {
        let batch = AT_ONCE.min(threads - started);
        thread::scope(|scope| {
            for _ in 0..batch {
                let (space, range) = (&space, random.range(1 << 20, 1..=64));
                scope.spawn(move || space.invalidate_start(range).end());
            }
        });
        started += batch;
    }
    assert_eq!(sub.0.load(Ordering::Relaxed), threads);
    assert!(sub.try_read_begin().is_some(), "an invalidation of a thread that is gone is left");
    listed.unregister();
    sub.remove();
}

/// Where the other thread stands at the moment of the fork.
#[cfg(unix)]
#[derive(Clone, Copy, Debug)]
pub enum Elsewhere {
    /// Between its start and its end.
    BetweenStartAndEnd,
    /// In an interval callback of its start.
    InIntervalCallback,
    /// In a list callback of its start.
    InListCallback,
}

#[cfg(unix)]
pub use forked::{fork_beside, in_child};

#[cfg(unix)]
mod forked {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Arc, Mutex};
    use std::thread;
    use std::time::Duration;

    use mmu_notifier::interval::{Answer, Sequence, Subscription};
    use mmu_notifier::list::{Registration, WouldBlock};
    use mmu_notifier::{AddressSpace, Invalidation, Range, interval, list, synchronize};

    use super::{Elsewhere, Tally, range};
    use crate::run::lock;

    /// A callback that does not return before it is told to.
    #[derive(Clone, Default)]
    struct Stuck {
        inside: Arc<AtomicBool>,
        go_on: Arc<AtomicBool>,
    }

    impl Stuck {
        fn stand(&self) {
            self.inside.store(true, Ordering::SeqCst);
            while !self.go_on.load(Ordering::SeqCst) {
                thread::sleep(Duration::from_millis(1));
            }
        }
    }

    impl interval::Notifier for Stuck {
        fn invalidate(&self, _: &Invalidation, _: Sequence) -> Answer {
            self.stand();
            Answer::Done
        }
    }

    impl list::Notifier for Stuck {
        fn invalidate_range_start(&self, _: &Invalidation) -> Result<(), WouldBlock> {
            self.stand();
            Ok(())
        }
    }

    /// What the process has when it forks; the child uses and gives back all of it.
    struct Belongings {
        space: AddressSpace,
        sub: Subscription<Tally>,
        listed: Registration<Tally>,
        stuck: (Option<Subscription<Stuck>>, Option<Registration<Stuck>>),
    }

    impl Belongings {
        fn new(elsewhere: Elsewhere, stuck: &Stuck) -> Belongings {
            let space = AddressSpace::new();
            let sub = space.insert(Range::ALL, Tally::default()).expect("the space has a user");
            let listed = space.register(Tally::default()).expect("the space has a user");
            let there = range(0x5000, 0x6000);
            let stuck = match elsewhere {
                Elsewhere::BetweenStartAndEnd => (None, None),
                Elsewhere::InIntervalCallback => (space.insert(there, stuck.clone()).ok(), None),
                Elsewhere::InListCallback => (None, space.register(stuck.clone()).ok()),
            };
            Belongings { space, sub, listed, stuck }
        }

        /// Does in the child what would hang if the other thread's doings counted here.
        fn use_up(self, stuck: &Stuck) -> bool {
            stuck.go_on.store(true, Ordering::SeqCst);
            let token = self.sub.read_begin();
            let before = self.sub.0.load(Ordering::Relaxed);
            self.space.invalidate_start(range(0x1000, 0x9000)).end();
            let hit = self.sub.0.load(Ordering::Relaxed) == before + 1 && self.sub.read_retry(token);
            let late = self.space.insert(range(0x1000, 0x9000), Tally::default()).expect("a user");
            let fresh = !late.read_retry(late.read_begin());
            late.remove();
            let shared = self.space.get(1, |_| Ok::<_, ()>(Tally::default()));
            let got = shared.map(|shared| shared.put()).is_ok();
            synchronize();
            drop(self.stuck);
            self.listed.unregister();
            self.sub.remove();
            drop(self.space);
            hit && fresh && got
        }
    }

    /// Forks while another thread stands `elsewhere`; the child uses the space, gives all back and exits.
    ///
    /// # Panics
    /// If the child hangs, fails or finds the space in another state than one thread would have left it.
    pub fn fork_beside(elsewhere: Elsewhere) {
        static ALONE: Mutex<()> = Mutex::new(());
        // One at a time: the other thread of another fork would not be behind this one.
        let _alone = lock(&ALONE);
        let stuck = Stuck::default();
        let mut ours = Some(Belongings::new(elsewhere, &stuck));
        let space = ours.as_ref().map(|ours| ours.space.clone()).expect("they were just made");
        let there = stuck.clone();
        let other = thread::spawn(move || {
            let active = space.invalidate_start(range(0x5000, 0x5001));
            there.stand();
            active.end();
        });
        while !stuck.inside.load(Ordering::SeqCst) {
            thread::yield_now();
        }
        // The child takes them; the parent's are still here.
        let status = in_child(|| ours.take().is_some_and(|ours| ours.use_up(&stuck)));
        let ours = ours.expect("only the child has taken them");
        stuck.go_on.store(true, Ordering::SeqCst);
        other.join().expect("the other thread of the parent");
        // The parent saw nothing of it.
        assert!(ours.sub.try_read_begin().is_some());
        ours.space.invalidate_start(range(0x5000, 0x5001)).end();
        match status {
            Some(0) => (),
            Some(1) => panic!("{elsewhere:?}: the child found the space in a wrong state"),
            Some(other) => panic!("{elsewhere:?}: the child ended with status {other}"),
            None => panic!("{elsewhere:?}: the child hangs"),
        }
    }

    /// Runs `f` in a child process; returns 0 if it said true, 1 if false, 2 if it panicked, none if it hung.
    ///
    /// # Panics
    /// If there is no child.
    pub fn in_child(f: impl FnOnce() -> bool) -> Option<i32> {
        // SAFETY: the child calls this library, the allocator (which glibc makes usable behind a fork) and
        // `_exit`; it takes no lock that another thread of this program may have held.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let status = match catch_unwind(AssertUnwindSafe(f)) {
                Ok(true) => 0,
                Ok(false) => 1,
                Err(_) => 2,
            };
            // SAFETY: it ends the child at once, with nothing of the parent's run twice.
            unsafe { libc::_exit(status) };
        }
        assert!(child > 0, "fork failed");
        wait_for(child)
    }

    /// Waits for the child; none if it had to be killed.
    fn wait_for(child: libc::pid_t) -> Option<i32> {
        let mut status = 0;
        for _ in 0..20_000 {
            // SAFETY: `status` is a live integer of the right type, and the child is ours.
            let ended = unsafe { libc::waitpid(child, &raw mut status, libc::WNOHANG) };
            if ended == child {
                let code = libc::WEXITSTATUS(status);
                return Some(if libc::WIFEXITED(status) { code } else { -1 });
            }
            thread::sleep(Duration::from_millis(1));
        }
        // SAFETY: the child has not been waited for, so the number is still its own.
        unsafe { libc::kill(child, libc::SIGKILL) };
        // SAFETY: as above; it ends now, so this returns.
        unsafe { libc::waitpid(child, &raw mut status, 0) };
        None
    }
}
