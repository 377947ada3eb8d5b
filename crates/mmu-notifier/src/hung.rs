//! Hung nodes: waiting without a thread.
//!
//! Who may not sleep (detach, put, a future) leaves a node behind. It scans as a sleeping thread would, hangs at
//! the post of the first hazard that blocks, and whoever rings there moves it on to the next. When nothing
//! blocks any more it is *ready*: what it stands for is done, outside every lock.
//!
//! # Protocol
//! The links of a node belong to the [`Hooks`] lock of its space. A node enters the bell before it looks whether
//! its block holds, so a change is never missed (see [`Bell`]). A ring looks at the same hazard afresh. What blocks
//! there then is the call that did, or (where a guard ended on another thread) one that came behind it: a detour,
//! which its own ring ends. Ready nodes either are finished by who rang, or stay with the [`Hooks`] until a call that may sleep comes by: where a
//! space is made so (clause C7.4), an end frees nothing.
//!
//! # Two sizes
//! What hangs in lists is a [`Link`], one word. That of an interval is *short*: its record has no more room for
//! hanging, and all else follows from the record. Every other one is the first field of a [`Hung`], which says
//! what it waits for, and can be cancelled.
//!
//! Nodes are passed on as the raw pointers that they were given as: they lead to what the node is part of, which
//! a reference to the node alone would not.
//!
//! # Invariants
//! - A node is in one place: nowhere, at one post, among the ready ones, or with who finishes it.
//! - A node is not moved or freed before it was finished or cancelled.
//! - A link that is not short is the first field of a [`Hung`]; one that is, that of an interval's node.

#![expect(unsafe_code, reason = "nodes are linked through raw pointers")]

mod link;

use core::cell::Cell;
use core::ptr::{self, NonNull};

pub(crate) use link::Link;
use link::Queue;

use crate::hazard::Book;
use crate::interval;
use crate::platform::{self, Bell, keep_first};
use crate::scan::{Own, Scan, Wanted};
use crate::sync::{AtomicU32, Ordering, SpinGuard, SpinLock};

/// What is done with a node that is ready; it may free the node.
///
/// # Safety
/// The pointer is that of the node that the function was given with, and nobody else uses it any more.
pub(crate) type Finish = unsafe fn(NonNull<Hung>);

/// When a ready node is finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    /// At once, by who rang.
    AtOnce,
    /// By the next call that may sleep, if the space leaves such work to it; else at once.
    MayBeLeft,
}

/// One that waits without a thread.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Hung {
    link: Link,
    /// The one before it at its post.
    previous: Cell<*const Link>,
    /// The post that it hangs at.
    at: Cell<*const Post>,
    how: Cell<Option<How>>,
}

/// What a node waits for, and what is done then.
type How = (Wanted, Finish, When);

/// A place to wait: a bell, and the nodes that hang there.
#[derive(Debug)]
pub(crate) struct Post {
    pub(crate) bell: Bell,
    /// Under the lock of the hooks.
    first: Cell<*const Link>,
}

// SAFETY: `first` is used under the lock of the hooks of the space only.
unsafe impl Sync for Post {}
// SAFETY: as above; the nodes that it leads to may be finished by any thread.
unsafe impl Send for Post {}

impl Post {
    pub(crate) fn new() -> Self {
        Post { bell: Bell::new(), first: Cell::new(ptr::null()) }
    }
}

impl Hung {
    /// A node that hangs nowhere.
    pub(crate) fn new() -> Self {
        Hung {
            link: Link::long(),
            previous: Cell::new(ptr::null()),
            at: Cell::new(ptr::null()),
            how: Cell::new(None),
        }
    }

    fn how(&self) -> How {
        self.how.get().expect("a node is hung up with what it waits for")
    }
}

/// All hung nodes of a space: their lock, and those that are ready and were left.
#[derive(Debug)]
pub(crate) struct Hooks {
    lock: SpinLock,
    /// Those to finish at once; they can still be cancelled until their turn comes.
    due: Queue,
    ready: Queue,
    /// Not 0 if anything is ready.
    has_ready: AtomicU32,
    leaves_work: bool,
}

// SAFETY: the queues are used under the lock only.
unsafe impl Sync for Hooks {}
// SAFETY: as above; the nodes may be finished by any thread.
unsafe impl Send for Hooks {}

impl Hooks {
    /// Makes the hooks of a space; `leaves_work`: ready nodes that may be left are left.
    pub(crate) fn new(leaves_work: bool) -> Self {
        Hooks {
            lock: SpinLock::new(),
            due: Queue::new(),
            ready: Queue::new(),
            has_ready: AtomicU32::new(0),
            leaves_work,
        }
    }

    /// Hangs `node` up until nothing wanted blocks; finishes it at once if nothing does.
    ///
    /// # Safety
    /// - The node stays where it is, and nobody else uses it, until it was finished or cancelled.
    /// - `finish` may be called with it, on any thread that uses this space.
    /// - The caller has passed a full fence since the change that makes it wait.
    pub(crate) unsafe fn hang(
        &self,
        book: &Book,
        node: NonNull<Hung>,
        wanted: Wanted,
        (finish, when): (Finish, When),
    ) {
        // SAFETY: the caller keeps the node alive.
        unsafe { node.as_ref() }.how.set(Some((wanted, finish, when)));
        self.hang_link(book, node.cast());
    }

    /// Hangs the node of an interval up until nobody is calling it any more; then it is freed, with all that it
    /// leads to, at once or by the next call that may sleep.
    ///
    /// # Safety
    /// - The node is out of the index and withdrawn, and the caller has passed a full fence since.
    /// - Nobody uses it any more but the starts that are waited for.
    pub(crate) unsafe fn hang_interval(&self, book: &Book, node: NonNull<interval::Node>) {
        // SAFETY: as promised by the caller.
        let link = unsafe { interval::Node::hang(node) };
        self.hang_link(book, link);
    }

    fn hang_link(&self, book: &Book, node: NonNull<Link>) {
        let lock = self.lock.lock();
        self.settle(&lock, book, node, &Scan::new(book, wanted_by(node)));
        drop(lock);
        self.finish(&self.due);
    }

    /// Takes a node down. False if it has been finished, or is being finished.
    pub(crate) fn cancel(&self, node: &Hung) -> bool {
        let _lock = self.lock.lock();
        // SAFETY: the post is that of a hazard of the book, which the caller keeps alive with these hooks.
        let Some(post) = (unsafe { node.at.get().as_ref() }) else {
            return self.due.take_out(&node.link) || self.ready.take_out(&node.link);
        };
        let (next, previous) = (node.link.next(), node.previous.get());
        // SAFETY: nodes at one post are alive and linked under the lock, which is held.
        match unsafe { previous.as_ref() } {
            Some(previous) => previous.set_next(next),
            None => post.first.set(next),
        }
        if let Some(next) = NonNull::new(next.cast_mut()).and_then(long) {
            next.previous.set(previous);
        }
        node.at.set(ptr::null());
        post.bell.leave();
        true
    }

    /// Wakes all who sleep at `post` and moves the nodes on that hang there.
    ///
    /// # Context
    /// Does not sleep. Finishes nodes, so none of the library's locks may be held.
    #[cold]
    pub(crate) fn ring(&self, book: &Book, post: &Post) {
        post.bell.ring();
        let lock = self.lock.lock();
        let mut at = post.first.replace(ptr::null());
        while let Some(node) = NonNull::new(at.cast_mut()) {
            at = take_from_post(node);
            post.bell.leave();
            self.settle(&lock, book, node, &Scan::again(book, post, wanted_by(node)));
        }
        drop(lock);
        self.finish(&self.due);
    }

    /// Says whether anything was left ready.
    #[inline]
    pub(crate) fn has_ready(&self) -> bool {
        self.has_ready.load(Ordering::Relaxed) != 0
    }

    /// Finishes what was left ready. Called by calls that may sleep, and at the end of the space.
    #[inline]
    pub(crate) fn finish_ready(&self) {
        if self.has_ready() {
            self.finish(&self.ready);
        }
    }

    /// Finishes what is queued, one by one, outside the lock; a panic goes on after the rest. What a node does may
    /// cancel those behind it. The caller holds the space.
    #[cold]
    fn finish(&self, queue: &Queue) {
        let mut first_panic = None;
        while let Some(node) = self.take_next(queue) {
            // SAFETY: the node is in no list, and who hung it up has promised that it may be finished.
            let result = platform::catch(|| unsafe { finish(node) });
            keep_first(&mut first_panic, result.err());
        }
        if let Some(payload) = first_panic {
            platform::resume(payload);
        }
    }

    fn take_next(&self, queue: &Queue) -> Option<NonNull<Link>> {
        let _lock = self.lock.lock();
        let node = queue.pop();
        self.has_ready.store(u32::from(!self.ready.is_empty()), Ordering::Relaxed);
        node
    }

    /// Keeps a ready node for the next call that may sleep. Under the lock.
    fn leave(&self, node: NonNull<Link>) {
        self.ready.push(node);
        self.has_ready.store(1, Ordering::Relaxed);
    }

    /// In the child of a fork, which holds the lock: hangs every node up again, as only this thread's calls are
    /// left to wait for; what nothing blocks any more is left.
    pub(crate) fn hang_again(&self, book: &Book) {
        let nodes = Queue::new();
        for post in book.posts() {
            let mut at = post.first.replace(ptr::null());
            while let Some(node) = NonNull::new(at.cast_mut()) {
                at = take_from_post(node);
                nodes.push(node);
            }
            post.bell.forget_waiters();
        }
        while let Some(node) = nodes.pop() {
            if !hang_at(book, node, &Scan::new(book, wanted_by(node))) {
                self.leave(node);
            }
        }
        // The threads that were about to finish these are not here.
        while let Some(node) = self.due.pop() {
            self.leave(node);
        }
    }

    /// Keeps nodes where they are around a fork.
    pub(crate) fn lock_for_fork(&self) {
        self.lock.lock_for_fork();
    }

    /// Opens what [`lock_for_fork`](Self::lock_for_fork) took.
    pub(crate) fn unlock_after_fork(&self) {
        self.lock.unlock_after_fork();
    }

    /// Hangs a node at the next block that holds; with none it is ready.
    fn settle(&self, _lock: &SpinGuard<'_>, book: &Book, node: NonNull<Link>, scan: &Scan) {
        if hang_at(book, node, scan) {
            return;
        }
        let may_be_left = long(node).is_none_or(|hung| hung.how().2 == When::MayBeLeft);
        if self.leaves_work && may_be_left {
            self.leave(node);
        } else {
            self.due.push(node);
        }
    }
}

/// The whole node, unless its link is short.
fn long<'n>(node: NonNull<Link>) -> Option<&'n Hung> {
    // SAFETY: the nodes that this file passes on are alive until they are finished or cancelled.
    let short = unsafe { node.as_ref() }.is_short();
    // SAFETY: by the invariant it is the first field of a hung node, and its pointer leads to all of that.
    (!short).then(|| unsafe { node.cast().as_ref() })
}

/// What a node waits for.
fn wanted_by(node: NonNull<Link>) -> Wanted {
    match long(node) {
        Some(hung) => hung.how().0,
        None => {
            let node = interval::Node::of_link(node);
            // SAFETY: the nodes that this file passes on are alive until they are finished or cancelled.
            Wanted::Called { bounds: unsafe { node.as_ref() }.bounds(), own: Own::Awaited }
        }
    }
}

/// Finishes a ready node.
///
/// # Safety
/// The node is in no list any more.
unsafe fn finish(node: NonNull<Link>) {
    match long(node) {
        Some(hung) => {
            let (_, finish, _) = hung.how();
            // SAFETY: who hung it up has promised that this may be called with it.
            unsafe { finish(node.cast()) };
        }
        // SAFETY: nobody is calling it any more, and who hung it up has promised that nobody else uses it.
        None => unsafe { interval::Node::free(interval::Node::of_link(node)) },
    }
}

/// Takes note that a node hangs at no post any more; gives the next one there.
fn take_from_post(node: NonNull<Link>) -> *const Link {
    if let Some(hung) = long(node) {
        hung.at.set(ptr::null());
    }
    // SAFETY: nodes at one post are alive and linked under the lock, which is held.
    unsafe { node.as_ref() }.next()
}

/// Hangs a node at the first block that holds, under the lock; false if none does.
fn hang_at(book: &Book, node: NonNull<Link>, scan: &Scan) -> bool {
    while let Some(blocked) = scan.advance(book) {
        let post = scan.post(book, blocked);
        post.bell.enter();
        if scan.holds(book, blocked) {
            link(post, node);
            return true;
        }
        post.bell.leave();
    }
    false
}

/// Puts a node at the head of those at `post`, under the lock.
fn link(post: &Post, node: NonNull<Link>) {
    let first = post.first.replace(node.as_ptr());
    // SAFETY: the node is alive until it is finished or cancelled.
    unsafe { node.as_ref() }.set_next(first);
    if let Some(hung) = long(node) {
        hung.at.set(post);
        hung.previous.set(ptr::null());
    }
    if let Some(first) = NonNull::new(first.cast_mut()).and_then(long) {
        first.previous.set(node.as_ptr());
    }
}
