//! The reader's side of a subscription: tokens, and the ways to wait for one.
//!
//! The future of [`Subscription::read_begin_async`] hangs at the post of what it waits for; who ends that wakes
//! it outside every lock. A future that is dropped is taken down first, or waits out the few instructions in
//! which it is being woken.

use core::cell::UnsafeCell;
use core::future::Future;
use core::marker::PhantomPinned;
use core::pin::Pin;
use core::ptr::NonNull;
use core::task::{Context, Poll, Waker};
use core::time::Duration;

use super::{Notifier, Sequence, Subscription};
use crate::address::Range;
use crate::diagnostics;
use crate::hung::{Hung, When};
use crate::platform;
use crate::scan::Wanted;
use crate::sync::{AtomicU32, Ordering};

/// The proof that a subscription was not busy: what was read from the primary MMU since may be committed as
/// long as [`read_retry`](Subscription::read_retry) does not say otherwise. It belongs to its subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReadToken(Sequence);

impl ReadToken {
    /// The sequence in it, as a word that compiled code may compare with
    /// [`Subscription::sequence`].
    pub const fn sequence(self) -> Sequence {
        self.0
    }
}

impl<N: Notifier> Subscription<N> {
    /// Waits until no invalidation is active that overlaps the range, and returns a token of that moment.
    /// What the primary MMU wrote before the end of each is visible afterwards.
    ///
    /// # Context
    /// May sleep. Not in a callback, nor under an invalidation of this thread, that makes it busy.
    #[inline]
    pub fn read_begin(&self) -> ReadToken {
        // The node alone tells in most cases; what the checks look for is where the space is.
        if let (false, Some(token)) = (diagnostics::ENABLED, self.node().settled_sequence()) {
            return ReadToken(token);
        }
        self.read_begin_looking()
    }

    #[cold]
    fn read_begin_looking(&self) -> ReadToken {
        let subscriptions = self.subscriptions();
        diagnostics::read_begin(subscriptions, self.node());
        let token =
            self.settled_behind_checks().or_else(|| self.node().read_begin_looking(subscriptions, None));
        ReadToken(token.expect("without a deadline the wait ends with a token"))
    }

    /// The sequence if it is settled, where checks came first: who did not have to wait without them does not with them.
    #[inline]
    fn settled_behind_checks(&self) -> Option<Sequence> {
        if diagnostics::ENABLED { self.node().settled_sequence() } else { None }
    }

    /// Returns a token if the subscription is not busy now.
    ///
    /// # Context
    /// Does not sleep.
    #[inline]
    pub fn try_read_begin(&self) -> Option<ReadToken> {
        let settled = self.node().settled_sequence();
        settled.or_else(|| self.node().try_read_begin(self.subscriptions())).map(ReadToken)
    }

    /// Waits as [`read_begin`](Self::read_begin), for so long at the most. Without a clock (see
    /// [`platform`]) it does not wait.
    ///
    /// # Context
    /// May sleep.
    pub fn read_begin_timeout(&self, timeout: Duration) -> Option<ReadToken> {
        let Some(deadline) = platform::deadline(timeout) else { return self.try_read_begin() };
        let subscriptions = self.subscriptions();
        diagnostics::read_begin(subscriptions, self.node());
        self.node().read_begin(subscriptions, Some(deadline)).map(ReadToken)
    }

    /// Waits as [`read_begin`](Self::read_begin), without a thread. The future may be dropped at any time.
    #[inline]
    pub fn read_begin_async(&self) -> ReadBegin<'_, N> {
        let waiter = Waiter {
            hung: Hung::new(),
            state: AtomicU32::new(IDLE),
            waker: UnsafeCell::new(None),
            _pinned: PhantomPinned,
        };
        ReadBegin { subscription: self, waiter }
    }

    /// Says whether any invalidation hit the subscription since the token was taken: then start over.
    ///
    /// # Context
    /// Under the subscriber's lock, the one that its invalidate callback takes. Does not sleep.
    #[inline]
    pub fn read_retry(&self, token: ReadToken) -> bool {
        self.node().sequence() != token.0
    }

    /// The same without the lock: a hint. If it says true the token is stale; if it says false it may be.
    #[inline]
    pub fn check_retry(&self, token: ReadToken) -> bool {
        self.read_retry(token)
    }

    /// Waits until no invalidation is active that overlaps `part` of the range. The token is one for what is
    /// read and committed of that part.
    #[inline]
    pub(crate) fn read_begin_part(&self, part: Range, deadline: Option<u64>) -> Option<ReadToken> {
        // As in `read_begin`.
        if let (false, Some(token)) = (diagnostics::ENABLED, self.node().settled_sequence()) {
            return Some(ReadToken(token));
        }
        self.read_begin_part_looking(part, deadline)
    }

    #[cold]
    fn read_begin_part_looking(&self, part: Range, deadline: Option<u64>) -> Option<ReadToken> {
        let (subscriptions, node) = (self.subscriptions(), self.node());
        let whole = part == self.range();
        if whole {
            diagnostics::read_begin(subscriptions, node);
        } else {
            diagnostics::may_sleep(subscriptions, "read_begin", node.label());
        }
        let token = self.settled_behind_checks().or_else(|| {
            if whole {
                node.read_begin_looking(subscriptions, deadline)
            } else {
                node.read_begin_part(subscriptions, part, deadline)
            }
        });
        token.map(ReadToken)
    }

    /// Says whether no invalidation of a part of the range is active; the owner's own do not count.
    #[inline]
    pub(crate) fn is_quiet(&self, part: Range) -> bool {
        self.try_read_begin().is_some() || self.node().is_quiet(self.subscriptions(), part)
    }

    /// The sequence of the last hit.
    #[inline]
    pub fn sequence(&self) -> Sequence {
        self.node().sequence()
    }
}

/// The waiter hangs nowhere.
const IDLE: u32 = 0;
/// It was hung up, and nobody has called it since.
const HUNG: u32 = 1;

/// What a future leaves at a post.
///
/// # Invariants
/// `hung` is the first field. While `state` is HUNG, `waker` belongs to who finishes the node.
#[derive(Debug)]
#[repr(C)]
struct Waiter {
    hung: Hung,
    state: AtomicU32,
    waker: UnsafeCell<Option<Waker>>,
    _pinned: PhantomPinned,
}

/// The future of [`Subscription::read_begin_async`].
#[derive(Debug)]
#[must_use = "a future does nothing unless it is polled"]
pub struct ReadBegin<'a, N: Notifier> {
    subscription: &'a Subscription<N>,
    waiter: Waiter,
}

// SAFETY: the waiter is handed from thread to thread by the lock of the hooks and by `state`.
unsafe impl<N: Notifier> Send for ReadBegin<'_, N> {}

impl<N: Notifier> ReadBegin<'_, N> {
    /// Takes the waiter down, or waits until it has been called.
    #[inline]
    fn take_down(&self) {
        // ORDERING: acquire pairs with the release in `wake`.
        if self.waiter.state.load(Ordering::Acquire) == HUNG {
            self.take_down_hung();
        }
    }

    #[cold]
    fn take_down_hung(&self) {
        let hooks = &self.subscription.subscriptions().hooks;
        if !hooks.cancel(&self.waiter.hung) {
            let mut turns = 0;
            // Whoever took it is about to call it: a few instructions, or a switch of threads.
            // ORDERING: acquire pairs with the release in `wake`.
            while self.waiter.state.load(Ordering::Acquire) == HUNG {
                // In the child of a fork it may be among those that were left ready.
                hooks.finish_ready();
                platform::relax(&mut turns);
            }
        }
        self.waiter.state.store(IDLE, Ordering::Relaxed);
    }

    /// Leaves the waiter with the first invalidation that it has to wait for.
    #[cold]
    fn hang(self: Pin<&Self>, context: &Context<'_>) -> Poll<ReadToken> {
        let (subscriptions, node) = (self.subscription.subscriptions(), self.subscription.node());
        // SAFETY: the state is IDLE: nobody else uses the waker.
        unsafe { *self.waiter.waker.get() = Some(context.waker().clone()) };
        self.waiter.state.store(HUNG, Ordering::Relaxed);
        crate::sync::full_fence();
        let wanted = Wanted::Quiet { bounds: node.bounds(), owner: node.owner() };
        let how = (wake as crate::hung::Finish, When::AtOnce);
        // The hung node is the first field; made of a reference to it alone, the pointer would not lead back to
        // the waiter.
        let hung = NonNull::from(&self.waiter).cast::<Hung>();
        // SAFETY: the future is pinned, and its drop takes the node down before it goes; F was passed above. If
        // nothing blocks any more the node is finished at once: the waker is woken, and it is polled again.
        unsafe { subscriptions.hooks.hang(&subscriptions.book, hung, wanted, how) };
        Poll::Pending
    }
}

/// # Safety
/// The node is that of a `Waiter` whose state is HUNG, and in no list.
unsafe fn wake(hung: NonNull<Hung>) {
    // SAFETY: the node is the first field of its waiter, which stays until the state is IDLE.
    let waiter = unsafe { hung.cast::<Waiter>().as_ref() };
    // SAFETY: while the state is HUNG the waker belongs to who finishes the node.
    let waker = unsafe { &mut *waiter.waker.get() }.take();
    // ORDERING: release; from here on the future may be gone.
    waiter.state.store(IDLE, Ordering::Release);
    if let Some(waker) = waker {
        waker.wake();
    }
}

impl<N: Notifier> Future for ReadBegin<'_, N> {
    type Output = ReadToken;

    #[inline]
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<ReadToken> {
        let this = self.as_ref();
        this.take_down();
        match this.subscription.try_read_begin() {
            Some(token) => Poll::Ready(token),
            None => this.hang(context),
        }
    }
}

impl<N: Notifier> Drop for ReadBegin<'_, N> {
    #[inline]
    fn drop(&mut self) {
        self.take_down();
    }
}
