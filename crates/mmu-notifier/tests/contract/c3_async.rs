//! C3.4: the `async` form of read_begin, polled by hand.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use mmu_notifier::AddressSpace;

use super::harness::{Recorder, range, wait_until, within};
use super::probe::insert;

#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Count {
    fn woken(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

#[test]
fn c3_4_the_async_form_is_ready_at_once_if_not_busy() {
    within(|| {
        let space = AddressSpace::new();
        let (sub, _) = insert(&space, "S", range(0x1000, 0x2000), &Recorder::new());
        let mut read = pin!(sub.read_begin_async());
        let polled = read.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(polled, Poll::Ready(token) if !sub.read_retry(token)));
    });
}

#[test]
fn c3_4_the_async_form_is_woken_by_the_end() {
    within(|| {
        let space = AddressSpace::new();
        let (sub, _) = insert(&space, "S", range(0x1000, 0x2000), &Recorder::new());
        let (first, last) = (Arc::new(Count::default()), Arc::new(Count::default()));
        let active = space.invalidate_start(range(0x1000, 0x2000));
        let mut read = pin!(sub.read_begin_async());
        let (early, late) = (Waker::from(first.clone()), Waker::from(last.clone()));
        assert!(read.as_mut().poll(&mut Context::from_waker(&early)).is_pending());
        // The waker of the last poll counts.
        assert!(read.as_mut().poll(&mut Context::from_waker(&late)).is_pending());
        assert_eq!(last.woken(), 0);
        active.end();
        wait_until("the waker", || last.woken() > 0);
        let polled = read.as_mut().poll(&mut Context::from_waker(&late));
        assert!(matches!(polled, Poll::Ready(token) if !sub.read_retry(token)));
    });
}

#[test]
fn c3_4_the_async_form_sleeps_on_if_another_hits_it_meanwhile() {
    within(|| {
        let space = AddressSpace::new();
        let (sub, _) = insert(&space, "S", range(0x1000, 0x2000), &Recorder::new());
        let count = Arc::new(Count::default());
        let waker = Waker::from(count.clone());
        let mut context = Context::from_waker(&waker);
        let first = space.invalidate_start(range(0x1000, 0x2000));
        let mut read = pin!(sub.read_begin_async());
        assert!(read.as_mut().poll(&mut context).is_pending());
        let second = space.invalidate_start(range(0x1000, 0x2000));
        first.end();
        assert!(read.as_mut().poll(&mut context).is_pending());
        let before = count.woken();
        second.end();
        wait_until("the waker", || count.woken() > before);
        assert!(read.as_mut().poll(&mut context).is_ready());
    });
}

#[test]
fn c3_4_a_dropped_future_is_forgotten() {
    within(|| {
        let space = AddressSpace::new();
        let (sub, _) = insert(&space, "S", range(0x1000, 0x2000), &Recorder::new());
        let count = Arc::new(Count::default());
        let active = space.invalidate_start(range(0x1000, 0x2000));
        let waker = Waker::from(count.clone());
        for _ in 0..100 {
            let mut read = Box::pin(sub.read_begin_async());
            assert!(read.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        }
        drop(waker);
        assert_eq!(Arc::strong_count(&count), 1, "it keeps no waker");
        active.end();
        assert_eq!(count.woken(), 0);
        drop(sub);
    });
}

#[test]
fn c3_4_futures_are_dropped_in_any_order() {
    within(|| {
        let space = AddressSpace::new();
        let (sub, _) = insert(&space, "S", range(0x1000, 0x2000), &Recorder::new());
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let active = space.invalidate_start(range(0x1000, 0x2000));
            let mut reads: [_; 4] = core::array::from_fn(|_| {
                let count = Arc::new(Count::default());
                let mut read = Box::pin(sub.read_begin_async());
                let waker = Waker::from(count.clone());
                assert!(read.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
                (Some(read), count)
            });
            order.into_iter().for_each(|at| reads[at].0 = None);
            active.end();
            let woken = reads.each_ref().map(|(_, count)| count.woken());
            assert_eq!(woken, [0, 0, 0, 1], "those that are left, once");
        }
    });
}

#[test]
fn c3_4_a_waker_may_use_the_space() {
    within(|| {
        struct Uses(AddressSpace, AtomicUsize);
        impl Wake for Uses {
            fn wake(self: Arc<Self>) {
                // Wakers run outside every lock of the library.
                drop(insert(&self.0, "W", range(0x1000, 0x2000), &Recorder::new()));
                self.0.invalidate_start(range(0x8000, 0x9000)).end();
                self.1.fetch_add(1, Ordering::SeqCst);
            }
        }
        let space = AddressSpace::new();
        let (sub, _) = insert(&space, "S", range(0x1000, 0x2000), &Recorder::new());
        let uses = Arc::new(Uses(space.clone(), AtomicUsize::new(0)));
        let active = space.invalidate_start(range(0x1000, 0x2000));
        let mut read = pin!(sub.read_begin_async());
        let waker = Waker::from(uses.clone());
        assert!(read.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        active.end();
        wait_until("the waker", || uses.1.load(Ordering::SeqCst) > 0);
        assert!(read.as_mut().poll(&mut Context::from_waker(&waker)).is_ready());
    });
}
