//! Mirrors in the child of a fork, and a model of the lock.

#[cfg(all(feature = "std", target_os = "linux", not(any(loom, shuttle))))]
mod forked {
    #![expect(unsafe_code, reason = "fork, alarm, waitpid and _exit")]

    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::mpsc;
    use std::thread;

    use crate::mirror::{FaultError, Mirror};
    use crate::{AddressSpace, Range};

    /// Runs `check` in a forked child; says whether it returned true, within 20 seconds.
    fn in_child(check: impl FnOnce() -> bool) -> bool {
        // SAFETY: the child runs `check` and leaves with _exit.
        let child = unsafe { libc::fork() };
        assert!(child >= 0, "fork failed");
        if child == 0 {
            // SAFETY: alarm takes no pointers.
            unsafe { libc::alarm(20) };
            let right = catch_unwind(AssertUnwindSafe(check)).unwrap_or(false);
            // SAFETY: nothing of the parent's is run at the exit.
            unsafe { libc::_exit(i32::from(!right)) };
        }
        let mut status = 0;
        // SAFETY: status is a live int.
        let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
        waited == child && libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0
    }

    fn bring(mirror: &Mirror<Option<u64>>, value: u64) -> Result<(), FaultError<()>> {
        mirror.fault(|_| Ok(value), |table, value| *table = Some(value))
    }

    #[test]
    fn c6_1_c7_3_a_table_in_use_by_a_thread_that_is_not_here_is_lost() {
        let space = AddressSpace::new();
        let range = Range::from_len(0u64, 1).unwrap();
        let [lost, kept, own] = [(); 3].map(|()| Mirror::new(&space, range, None).unwrap());
        bring(&kept, 1).unwrap();
        let (mut locked, done) = (mpsc::channel(), mpsc::channel::<()>());
        thread::scope(|scope| {
            let lost = &lost;
            let thread = scope.spawn(move || {
                lost.with(|_| {
                    locked.0.send(()).unwrap();
                    let _ = done.1.recv();
                });
            });
            locked.1.recv().unwrap();
            locked.1 = mpsc::channel().1;
            let right = own.with_mut(|table| {
                *table = Some(3);
                in_child(|| {
                    bring(lost, 1) == Err(FaultError::Lost)
                        && lost.hold(range, |table| *table).is_none()
                        && catch_unwind(AssertUnwindSafe(|| lost.with(|_| ()))).is_err()
                        && kept.with(|table| *table) == Some(1)
                })
            });
            assert!(right);
            let right = in_child(|| {
                // Nobody waits for the lost one, and the others go on.
                space.invalidate(range, || ());
                space.try_invalidate(range, || ()).is_ok()
                    && kept.with(|table| *table).is_none()
                    && own.with(|table| *table).is_none()
                    && bring(&kept, 2).is_ok()
            });
            assert!(right);
            drop(done.0);
            thread.join().unwrap();
        });
        assert_eq!(bring(&lost, 1), Ok(()), "nothing is lost in the parent");
    }

    #[test]
    fn c6_2_c7_3_uses_from_before_a_fork_hold_up_nobody() {
        let space = AddressSpace::new();
        let range = Range::from_len(0u64, 1).unwrap();
        let mirror = Mirror::new(&space, range, None).unwrap();
        bring(&mirror, 1).unwrap();
        let in_use = mirror.hold(range, |table| *table).unwrap();
        let right = in_child(|| {
            space.invalidate(range, || ());
            bring(&mirror, 2).unwrap();
            let new = mirror.hold(range, |table| *table).unwrap();
            drop(in_use);
            let refused = space.try_invalidate(range, || ()).is_err();
            drop(new);
            refused && space.try_invalidate(range, || ()).is_ok()
        });
        assert!(right);
    }
}

#[cfg(loom)]
mod model {
    use std::sync::Arc;

    use loom::thread;

    use crate::mirror::lock::Lock;

    /// An ordinary taker and one that goes first, while the lock is held: both get it, one after the other.
    #[test]
    fn whoever_waits_for_the_lock_gets_it() {
        loom::model(|| {
            let lock = Arc::new(Lock::new(0));
            let held = lock.try_lock().ok().unwrap();
            let threads = [0, 1].map(|first| {
                let lock = Arc::clone(&lock);
                thread::spawn(move || {
                    let guard = if first == 1 { lock.lock_first() } else { lock.lock(None) };
                    *guard.ok().unwrap() += 1;
                })
            });
            drop(held);
            threads.into_iter().for_each(|thread| thread.join().unwrap());
            assert_eq!(*lock.try_lock().ok().unwrap(), 2);
        });
    }
}
