//! C7.3: a child process uses the spaces of its parent, whose other threads it does not have.
//!
//! A program of its own, so that no thread of another test stands under a lock at the moment of the fork.
#![cfg(unix)]

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use mmu_notifier::interval::Answer;
use mmu_notifier::{AddressSpace, Invalidation, Range, list, synchronize};
use testkit::run::watched;
use testkit::threads::{Elsewhere, fork_beside, in_child};

/// One fork at a time: the threads of another test would not be where that test wants them.
static ALONE: Mutex<()> = Mutex::new(());

#[test]
fn c7_3_a_child_uses_the_space_while_the_parent_is_between_start_and_end() {
    watched("fork", |_| fork_beside(Elsewhere::BetweenStartAndEnd));
}

#[test]
fn c7_3_a_child_uses_the_space_while_the_parent_is_in_an_interval_callback() {
    watched("fork", |_| fork_beside(Elsewhere::InIntervalCallback));
}

#[test]
fn c7_3_a_child_uses_the_space_while_the_parent_is_in_a_list_callback() {
    watched("fork", |_| fork_beside(Elsewhere::InListCallback));
}

/// A shared notifier whose drop takes its time.
struct Slow(Arc<[AtomicBool; 2]>);

impl list::Notifier for Slow {}

impl Drop for Slow {
    fn drop(&mut self) {
        self.0[0].store(true, Ordering::SeqCst);
        while !self.0[1].load(Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

#[test]
fn c7_3_c4_4_synchronize_in_a_child_does_not_wait_for_a_free_that_runs_in_the_parent() {
    watched("fork", |_| {
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let space = AddressSpace::new();
        let state = Arc::new([const { AtomicBool::new(false) }; 2]);
        let slow = space.get::<Slow, ()>(1, |_| Ok(Slow(state.clone()))).expect("the space has a user");
        let other = thread::spawn(move || slow.put());
        while !state[0].load(Ordering::SeqCst) {
            thread::yield_now();
        }
        let status = in_child(|| {
            synchronize();
            true
        });
        state[1].store(true, Ordering::SeqCst);
        other.join().expect("the other thread of the parent");
        synchronize();
        assert_eq!(status, Some(0));
    });
}

#[test]
fn c7_3_c3_4_a_future_that_waited_in_the_parent_is_ready_in_the_child_and_can_be_dropped() {
    watched("fork", |_| {
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let space = AddressSpace::new();
        let watch = space.insert(Range::ALL, |_: &Invalidation| Answer::Done).expect("the space has a user");
        let user = space.clone();
        let (begun, go_on) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (tell, told) = (begun.clone(), go_on.clone());
        let other = thread::spawn(move || {
            let active = user.invalidate_start(Range::ALL);
            tell.store(true, Ordering::SeqCst);
            while !told.load(Ordering::SeqCst) {
                thread::sleep(Duration::from_millis(1));
            }
            active.end();
        });
        while !begun.load(Ordering::SeqCst) {
            thread::yield_now();
        }
        let mut context = Context::from_waker(Waker::noop());
        let status = {
            let mut polled = pin!(watch.read_begin_async());
            let mut dropped = Some(Box::pin(watch.read_begin_async()));
            assert!(polled.as_mut().poll(&mut context).is_pending());
            let other = dropped.as_mut().expect("it was just made");
            assert!(other.as_mut().poll(&mut context).is_pending());
            let status = in_child(|| {
                dropped = None;
                matches!(polled.as_mut().poll(&mut context), Poll::Ready(_))
            });
            go_on.store(true, Ordering::SeqCst);
            status
        };
        other.join().expect("the other thread of the parent");
        assert_eq!(status, Some(0));
        assert!(watch.try_read_begin().is_some());
    });
}
