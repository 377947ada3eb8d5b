//! Forks (clause C7.3) in the middle of things, in a process of its own: what the forking thread has begun goes
//! on in the child, what others had begun is over, and nothing is freed under who uses it.

#![cfg(unix)]
#![expect(unsafe_code, reason = "fork, and waiting for the child")]

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use mmu_notifier::interval::{Answer, Notifier, Sequence, Subscription};
use mmu_notifier::mirror::{FaultError, Mirror};
use mmu_notifier::{ActiveInvalidation, AddressSpace, Invalidation, Range};

// SAFETY: the signatures are those of POSIX on systems with an int of 32 bits.
unsafe extern "C" {
    fn fork() -> i32;
    fn waitpid(pid: i32, status: *mut i32, options: i32) -> i32;
    fn kill(pid: i32, signal: i32) -> i32;
    fn _exit(status: i32) -> !;
}

/// One fork at a time: what another test's thread is in the middle of, the child would find half done.
static ALONE: Mutex<()> = Mutex::new(());

/// Forks; the child runs `child` with what the parent's thread has, and must come back soon.
fn in_child(child: impl FnOnce()) {
    // SAFETY: the child uses only this thread, and leaves without a word.
    let pid = unsafe { fork() };
    if pid == 0 {
        // Printing a panic takes locks that other threads may have held.
        std::panic::set_hook(Box::new(|_| {}));
        let good = catch_unwind(AssertUnwindSafe(child)).is_ok();
        // SAFETY: it never returns.
        unsafe { _exit(i32::from(!good)) };
    }
    assert!(pid > 0, "no fork");
    wait_for(pid);
}

fn wait_for(pid: i32) {
    let mut status = 0;
    for _ in 0..1_000 {
        // SAFETY: status is a live i32; 1 is WNOHANG.
        if unsafe { waitpid(pid, &raw mut status, 1) } == pid {
            return assert_eq!(status, 0, "the child failed");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    // SAFETY: the child is ours and was not waited for yet; 9 is SIGKILL.
    unsafe { kill(pid, 9) };
    panic!("the child hangs");
}

fn range(start: u64, end: u64) -> Range {
    Range::new(start, end).unwrap()
}

/// Counts its drop.
struct Drops(Arc<AtomicU32>);

impl Drop for Drops {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn what_was_detached_in_a_callback_that_forked_was_freed_in_the_child_under_that_callback() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (space, drops) = (AddressSpace::new(), Arc::new(AtomicU32::new(0)));
    let slot = Arc::new(Mutex::new(None::<Subscription<Arc<dyn Notifier>>>));
    let (own, held, user) = (slot.clone(), Drops(drops.clone()), space.downgrade());
    let callback = move |_: &Invalidation| {
        own.lock().unwrap().take().unwrap().detach();
        in_child(|| {
            let other = user.insert(range(8, 9), |_: &Invalidation| Answer::Done).unwrap();
            assert_eq!(held.0.load(Ordering::Relaxed), 0, "this callback still runs");
            other.detach();
        });
        Answer::Done
    };
    let notifier: Arc<dyn Notifier> = Arc::new(Callback(callback));
    *slot.lock().unwrap() = Some(space.insert(range(0, 4), notifier).unwrap());
    space.invalidate(range(0, 1), || {});
    assert_eq!(drops.load(Ordering::Relaxed), 1);
}

struct Callback<F>(F);

impl<F: Fn(&Invalidation) -> Answer + Send + Sync + 'static> Notifier for Callback<F> {
    fn invalidate(&self, what: &Invalidation, _: Sequence) -> Answer {
        (self.0)(what)
    }
}

#[test]
fn a_future_that_hung_at_a_fork_could_not_be_dropped_in_the_child() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let space = AddressSpace::new();
    let watch = space.insert(range(0, 4), |_: &Invalidation| Answer::Done).unwrap();
    let mut context = Context::from_waker(Waker::noop());
    let mine = space.invalidate_start_owned(range(0, 1));
    let mut both = pin!(watch.read_begin_async());
    assert!(both.as_mut().poll(&mut context).is_pending());
    let mut mine = Some(mine);
    in_child(|| {
        assert!(both.as_mut().poll(&mut context).is_pending(), "this thread's invalidation goes on");
        drop(mine.take());
        assert!(matches!(both.as_mut().poll(&mut context), Poll::Ready(_)));
    });
    let user = space.downgrade();
    let other = std::thread::spawn(move || user.invalidate_start_owned(range(1, 2))).join().unwrap();
    let mut future = Some(Box::pin(watch.read_begin_async()));
    assert!(future.as_mut().unwrap().as_mut().poll(&mut context).is_pending());
    in_child(|| drop(future.take()));
    drop((future, other));
    drop(mine.take());
    assert!(matches!(both.as_mut().poll(&mut context), Poll::Ready(_)));
}

/// Forks under an invalidation; the child gets its guard, the space, and whether the range is busy.
fn in_child_under_an_invalidation(
    child: impl FnOnce(&mut Option<ActiveInvalidation<'_>>, &AddressSpace, &dyn Fn() -> bool),
) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let space = AddressSpace::new();
    let watch = space.insert(range(0, 1), |_: &Invalidation| Answer::Done).unwrap();
    space.invalidate(range(0, 1), || {});
    let mut active = Some(space.invalidate_start(range(0, 1)));
    in_child(|| child(&mut active, &space, &|| watch.try_read_begin().is_none()));
}

#[test]
fn a_fork_in_a_fork_ended_the_invalidation_of_the_thread_that_forked() {
    in_child_under_an_invalidation(|active, _, is_busy| {
        assert!(is_busy(), "in the child");
        in_child(|| {
            assert!(is_busy(), "in the child of the child");
            drop(active.take());
            assert!(!is_busy());
        });
        assert!(is_busy(), "the grandchild's end is its own");
        drop(active.take());
        assert!(!is_busy());
    });
}

#[test]
#[cfg_attr(mmu_notifier_tsan, ignore = "its children start no threads")]
fn what_a_thread_of_a_child_began_was_taken_for_what_went_on_over_the_fork() {
    in_child_under_an_invalidation(|active, space, is_busy| {
        let user = space.downgrade();
        let other = std::thread::spawn(move || user.invalidate_start_owned(range(0, 1))).join().unwrap();
        drop(active.take());
        assert!(is_busy(), "that of the other thread goes on");
        in_child(|| assert!(!is_busy(), "and is over where that thread is not"));
        drop(other);
        assert!(!is_busy());
    });
}

#[test]
fn a_callback_of_the_crowd_that_forked_left_minus_one_in_the_child() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let space = AddressSpace::new();
    let forked = Arc::new(AtomicI32::new(-1));
    let pid = forked.clone();
    let watch = space
        .insert(range(0, 4), move |_: &Invalidation| {
            // SAFETY: the child goes on with this thread alone, and leaves below.
            pid.store(unsafe { fork() }, Ordering::Relaxed);
            Answer::Done
        })
        .unwrap();
    let crowd: Vec<_> = (0..100).map(|_| space.invalidate_start(range(8, 9))).collect();
    space.invalidate(range(0, 1), || {});
    let pid = forked.load(Ordering::Relaxed);
    if pid == 0 {
        let good = catch_unwind(AssertUnwindSafe(|| {
            drop(crowd);
            assert_eq!(space.stats().active, 0);
            watch.remove();
        }));
        // SAFETY: it never returns.
        unsafe { _exit(i32::from(good.is_err())) };
    }
    wait_for(pid);
}

fn bring(mirror: &Mirror<Option<u64>>, value: u64) -> Result<(), FaultError<()>> {
    mirror.fault(|_| Ok(value), |table, value| *table = Some(value))
}

#[test]
fn c6_1_c7_3_a_table_in_use_by_a_thread_that_is_not_here_is_lost() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let space = AddressSpace::new();
    let range = range(0, 1);
    let [lost, kept, own] = [(); 3].map(|()| Mirror::new(&space, range, None).unwrap());
    bring(&kept, 1).unwrap();
    let (locked, is_locked) = mpsc::channel();
    let (done, is_done) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        let lost = &lost;
        let thread = scope.spawn(move || {
            lost.with(|_| {
                locked.send(()).unwrap();
                let _ = is_done.recv();
            });
        });
        is_locked.recv().unwrap();
        own.with_mut(|table| {
            *table = Some(3);
            in_child(|| {
                assert_eq!(bring(lost, 1), Err(FaultError::Lost));
                assert!(lost.hold(range, |table| *table).is_none());
                assert!(catch_unwind(AssertUnwindSafe(|| lost.with(|_| ()))).is_err());
                assert_eq!(kept.with(|table| *table), Some(1));
            });
        });
        in_child(|| {
            // Nobody waits for the lost one, and the others go on.
            space.invalidate(range, || ());
            space.try_invalidate(range, || ()).unwrap();
            assert!(kept.with(|table| *table).is_none() && own.with(|table| *table).is_none());
            bring(&kept, 2).unwrap();
        });
        drop(done);
        thread.join().unwrap();
    });
    assert_eq!(bring(&lost, 1), Ok(()), "nothing is lost in the parent");
}

#[test]
fn c6_2_c7_3_uses_from_before_a_fork_hold_up_nobody() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let space = AddressSpace::new();
    let range = range(0, 1);
    let mirror = Mirror::new(&space, range, None).unwrap();
    bring(&mirror, 1).unwrap();
    let in_use = mirror.hold(range, |table| *table).unwrap();
    in_child(|| {
        space.invalidate(range, || ());
        bring(&mirror, 2).unwrap();
        let new = mirror.hold(range, |table| *table).unwrap();
        drop(in_use);
        assert!(space.try_invalidate(range, || ()).is_err());
        drop(new);
        space.try_invalidate(range, || ()).unwrap();
    });
}

/// Goes on in a child of a child of a child; each parent waits.
fn go_on_in_child(pid: i32, depth: usize) -> bool {
    if pid == 0 {
        return true;
    }
    if depth == 0 {
        wait_for(pid);
        return false;
    }
    let good = catch_unwind(AssertUnwindSafe(|| wait_for(pid))).is_ok();
    // SAFETY: it never returns.
    unsafe { _exit(i32::from(!good)) };
}

fn forks_within(fork_in: impl Fn(&AddressSpace, &Arc<AtomicI32>)) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let space = AddressSpace::new();
    let pid = Arc::new(AtomicI32::new(-1));
    let (own, armed) = (pid.clone(), Arc::new(AtomicU32::new(0)));
    let forks = armed.clone();
    let _hit = space
        .insert(range(8, 9), move |_: &Invalidation| {
            if forks.load(Ordering::Relaxed) == 1 {
                // SAFETY: the child goes on with this thread alone.
                own.store(unsafe { fork() }, Ordering::Relaxed);
            }
            Answer::Done
        })
        .unwrap();
    let watch = space.insert(range(0, 1), |_: &Invalidation| Answer::Done).unwrap();
    space.invalidate(range(8, 9), || {});
    armed.store(1, Ordering::Relaxed);
    for depth in 0..40 {
        // From the second on the thread has a hazard at hand.
        space.invalidate(range(32, 33), || {});
        fork_in(&space, &pid);
        if !go_on_in_child(pid.load(Ordering::Relaxed), depth) {
            return;
        }
    }
    armed.store(0, Ordering::Relaxed);
    let good = catch_unwind(AssertUnwindSafe(|| {
        assert_eq!(space.stats().active, 0);
        let active = space.invalidate_start(range(16, 17));
        assert!(watch.try_read_begin().is_some(), "it does not overlap");
        drop(active);
    }));
    // SAFETY: it never returns.
    unsafe { _exit(i32::from(good.is_err())) };
}

#[test]
fn an_end_in_the_child_of_a_fork_in_the_change_kept_the_hazard() {
    forks_within(|space, pid| {
        // SAFETY: the child goes on with this thread alone.
        space.invalidate(range(32, 33), || pid.store(unsafe { fork() }, Ordering::Relaxed));
    });
}

#[test]
fn an_end_in_the_child_of_a_fork_in_a_callback_kept_the_hazard() {
    forks_within(|space, _| space.invalidate(range(8, 9), || ()));
}

#[test]
fn an_end_by_a_guard_in_the_child_of_a_fork_is_right() {
    forks_within(|space, _| space.invalidate_start(range(8, 9)).end());
}

struct Forks(Arc<AtomicI32>);

impl mmu_notifier::list::Notifier for Forks {
    fn release(&self) {
        // SAFETY: the child goes on with this thread alone.
        self.0.store(unsafe { fork() }, Ordering::Relaxed);
    }
}

#[test]
fn an_end_in_the_child_of_a_fork_in_an_exit_that_was_left_to_its_start_is_quiet() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let space = AddressSpace::new();
    let (holder, pid) = (space.downgrade(), Arc::new(AtomicI32::new(-1)));
    let _list = holder.register(Forks(pid.clone())).unwrap();
    let user = Arc::new(Mutex::new(Some(space)));
    let _last = holder
        .insert(range(0, 4), move |_: &Invalidation| {
            let last = user.lock().unwrap().take();
            drop(last);
            Answer::Done
        })
        .unwrap();
    let crowd: Vec<_> = (0..100).map(|_| holder.invalidate_start(range(8, 9))).collect();
    let before = mmu_notifier::diagnostics::findings();
    holder.invalidate(range(0, 1), || {});
    let found = mmu_notifier::diagnostics::findings() - before;
    let pid = pid.load(Ordering::Relaxed);
    if pid == 0 {
        // SAFETY: it never returns.
        unsafe { _exit(found as i32) };
    }
    assert_eq!(found, 0);
    wait_for(pid);
    drop(crowd);
}
