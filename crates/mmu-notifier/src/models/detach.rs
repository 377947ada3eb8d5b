//! Waiting without a thread: the node of a detach hangs at a start that is calling, that of a future at an
//! invalidation that is active; *link; F; look* against *phase; light barrier; look for waiters*.
//!
//! A break shows as a subscriber that is never dropped, or while it is called, or as a future that is never
//! woken (a deadlock), or as one that is woken after it was dropped.

use core::future::Future;
use core::pin::pin;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};
use core::task::{Context, Poll, Waker};
use std::sync::Arc;
use std::task::Wake;

use loom::sync::atomic::{AtomicU64, Ordering};
use loom::thread;

use super::{Probe, Watch, check, range, space};
use crate::Invalidation;
use crate::interval::Answer;
use crate::platform::{Bell, be_number};

#[test]
fn what_is_detached_is_dropped_once_and_after_the_last_callback() {
    check(5, || {
        let space = Arc::new(space());
        let watch = Watch::new();
        let device = space.insert(range(0, 1), Probe(watch.clone())).unwrap();
        let invalidator = space.clone();
        let thread = thread::spawn(move || {
            be_number(1);
            invalidator.invalidate(range(0, 0), || ());
        });
        device.detach();
        thread.join().unwrap();
        assert_eq!(watch.drops(), 1);
    });
}

/// It hangs at one start after the other.
#[test]
fn what_is_detached_waits_for_two_starts() {
    check(2, || {
        let space = Arc::new(space());
        let watch = Watch::new();
        let device = space.insert(range(0, 1), Probe(watch.clone())).unwrap();
        let threads = [1, 2].map(|number| {
            let invalidator = space.clone();
            thread::spawn(move || {
                be_number(number);
                invalidator.invalidate(range(0, 0), || ());
            })
        });
        device.detach();
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(watch.drops(), 1);
    });
}

/// Wakes one thread of a model.
struct Call {
    woken: AtomicU64,
    bell: Bell,
    over: AtomicU32,
}

impl Call {
    fn new() -> Arc<Call> {
        Arc::new(Call { woken: AtomicU64::new(0), bell: Bell::new(), over: AtomicU32::new(0) })
    }
}

impl Wake for Call {
    fn wake(self: Arc<Self>) {
        assert_eq!(self.over.load(Relaxed), 0, "woken after the future was dropped");
        // A swap: loom does not order a store against the swap that takes it back.
        self.woken.swap(1, Ordering::Release);
        if self.bell.is_heard() {
            self.bell.ring();
        }
    }
}

#[test]
fn a_future_is_woken_by_the_end() {
    check(4, || {
        let space = Arc::new(space());
        let page = Arc::new(AtomicU64::new(0));
        let device = space.insert(range(0, 1), |_: &Invalidation| Answer::Done).unwrap();
        let (invalidator, written) = (space.clone(), page.clone());
        let thread = thread::spawn(move || {
            be_number(1);
            invalidator.invalidate(range(0, 0), || written.store(1, Ordering::Relaxed));
        });
        let call = Call::new();
        let waker = Waker::from(call.clone());
        let token = {
            let mut future = pin!(device.read_begin_async());
            loop {
                if let Poll::Ready(token) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
                    break token;
                }
                call.bell.wait_until(None, || call.woken.swap(0, Ordering::Acquire) == 1);
            }
        };
        let value = page.load(Ordering::Relaxed);
        thread.join().unwrap();
        assert!(device.read_retry(token) || value == 1);
        drop(device);
    });
}

#[test]
fn a_future_that_is_dropped_is_not_woken_afterwards() {
    check(6, || {
        let space = Arc::new(space());
        let device = space.insert(range(0, 1), |_: &Invalidation| Answer::Done).unwrap();
        let active = space.invalidate_start_owned(range(0, 0));
        let thread = thread::spawn(move || active.end());
        let call = Call::new();
        let waker = Waker::from(call.clone());
        {
            let mut future = pin!(device.read_begin_async());
            let _ = future.as_mut().poll(&mut Context::from_waker(&waker));
        }
        // The waker itself may be used for a moment longer, by who took it; not the future.
        drop(waker);
        thread.join().unwrap();
        assert_eq!(Arc::strong_count(&call), 1, "a waker is left behind");
        drop(device);
    });
}

/// The drop takes the future down from an invalidation that goes on.
#[test]
fn the_drop_of_a_future_does_not_wait_for_the_end() {
    check(1, || {
        let space = Arc::new(space());
        let device = space.insert(range(0, 1), |_: &Invalidation| Answer::Done).unwrap();
        let active = space.invalidate_start_owned(range(0, 0));
        let call = Call::new();
        {
            let waker = Waker::from(call.clone());
            let mut future = pin!(device.read_begin_async());
            assert!(future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        }
        active.end();
        assert_eq!(Arc::strong_count(&call), 1, "a waker is left behind");
        drop(device);
    });
}
