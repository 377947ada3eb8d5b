//! Hung nodes: waiting without a thread.
//!
//! Who may not sleep (detach, put, a future) leaves a [`Hung`] node behind. It scans as a sleeping thread
//! would, hangs at the post of the first hazard that blocks, and whoever rings there moves it on to the next.
//! When nothing blocks any more it is *ready*: what it stands for is done, outside every lock.
//!
//! # Protocol
//! The links and positions of a node belong to the [`Hooks`] lock of its space. A node enters the bell before
//! it looks whether its block holds, so a change is never missed (see [`Bell`]). Ready nodes either are
//! finished by who rang, or stay with the [`Hooks`] until a call that may sleep comes by: where a space is
//! made so (clause C7.4), an end frees nothing.
//!
//! Nodes are passed on as the raw pointers that [`Hooks::hang`] was given: they lead to what the node is part
//! of, which a reference to the node alone would not.
//!
//! # Invariants
//! - A node is in one place: nowhere, at one post, among the ready ones, or with who finishes it.
//! - A node is not moved or freed before it was finished or cancelled.

#![expect(unsafe_code, reason = "nodes are linked through raw pointers")]

use core::cell::{Cell, UnsafeCell};
use core::ptr::{self, NonNull};

use crate::hazard::Book;
use crate::platform::Bell;
use crate::scan::{Block, Scan, Wanted};
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
pub(crate) struct Hung {
    next: Cell<*const Hung>,
    previous: Cell<*const Hung>,
    at: Cell<*const Post>,
    scan: UnsafeCell<Option<(Scan, Block)>>,
    finish: Cell<Option<Finish>>,
    when: Cell<When>,
}

/// A place to wait: a bell, and the nodes that hang there.
#[derive(Debug)]
pub(crate) struct Post {
    pub(crate) bell: Bell,
    /// Under the lock of the hooks.
    first: Cell<*const Hung>,
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
            next: Cell::new(ptr::null()),
            previous: Cell::new(ptr::null()),
            at: Cell::new(ptr::null()),
            scan: UnsafeCell::new(None),
            finish: Cell::new(None),
            when: Cell::new(When::AtOnce),
        }
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

/// Nodes in order, linked by `next`; used under the lock of the hooks.
#[derive(Debug)]
struct Queue {
    first: Cell<*const Hung>,
    last: Cell<*const Hung>,
}

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
        let lock = self.lock.lock();
        // SAFETY: the caller keeps the node alive.
        let hung = unsafe { node.as_ref() };
        hung.finish.set(Some(finish));
        hung.when.set(when);
        let scan = Scan::new(book, wanted);
        let block = scan.advance(book);
        self.settle(&lock, book, node, scan, block);
        drop(lock);
        self.finish(&self.due);
    }

    /// Takes a node down. False if it has been finished, or is being finished.
    pub(crate) fn cancel(&self, node: &Hung) -> bool {
        let _lock = self.lock.lock();
        // SAFETY: the post is that of a hazard of the book, which the caller keeps alive with these hooks.
        let Some(post) = (unsafe { node.at.get().as_ref() }) else {
            return self.due.take_out(node) || self.ready.take_out(node);
        };
        let (next, previous) = (node.next.get(), node.previous.get());
        // SAFETY: nodes at one post are alive and linked under the lock, which is held.
        match unsafe { previous.as_ref() } {
            Some(previous) => previous.next.set(next),
            None => post.first.set(next),
        }
        // SAFETY: as above.
        if let Some(next) = unsafe { next.as_ref() } {
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
            // SAFETY: nodes at one post are alive and linked under the lock, which is held.
            let hung = unsafe { node.as_ref() };
            at = hung.next.get();
            hung.at.set(ptr::null());
            post.bell.leave();
            // SAFETY: the scan of a node is used under the lock, which is held.
            let taken = unsafe { &mut *hung.scan.get() }.take();
            if let Some((scan, block)) = taken {
                let block = if scan.holds(book, block) { Some(block) } else { scan.advance(book) };
                self.settle(&lock, book, node, scan, block);
            }
        }
        drop(lock);
        self.finish(&self.due);
    }

    /// Says whether anything was left ready.
    pub(crate) fn has_ready(&self) -> bool {
        self.has_ready.load(Ordering::Relaxed) != 0
    }

    /// Finishes what was left ready. Called by calls that may sleep, and at the end of the space.
    pub(crate) fn finish_ready(&self) {
        if self.has_ready() {
            self.finish(&self.ready);
        }
    }

    /// Finishes what is queued, one by one, outside the lock; a panic goes on after the rest. What a node does may
    /// cancel those behind it. The caller holds the space.
    fn finish(&self, queue: &Queue) {
        let mut first_panic = None;
        while let Some((node, finish)) = self.take_next(queue) {
            // SAFETY: the node is in no list, and `hang` was promised that this may be called.
            let result = crate::platform::catch(|| unsafe { finish(node) });
            first_panic = first_panic.or(result.err());
        }
        if let Some(payload) = first_panic {
            crate::platform::resume(payload);
        }
    }

    fn take_next(&self, queue: &Queue) -> Option<(NonNull<Hung>, Finish)> {
        let _lock = self.lock.lock();
        let node = queue.pop();
        self.has_ready.store(u32::from(!self.ready.is_empty()), Ordering::Relaxed);
        let node = node?;
        // SAFETY: a queued node is alive until it is finished or cancelled.
        let finish = unsafe { node.as_ref() }.finish.take();
        Some((node, finish.expect("a node is hung up with its finish")))
    }

    /// Keeps a ready node for the next call that may sleep. Under the lock.
    fn leave(&self, node: NonNull<Hung>) {
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
                // SAFETY: nodes at one post are alive and linked under the lock, which is held.
                let hung = unsafe { node.as_ref() };
                at = hung.next.get();
                hung.at.set(ptr::null());
                nodes.push(node);
            }
            post.bell.forget_waiters();
        }
        while let Some(node) = nodes.pop() {
            // SAFETY: they were alive above, and nothing was finished since.
            let hung = unsafe { node.as_ref() };
            // SAFETY: the scan of a node is used under the lock, which is held.
            let taken = unsafe { &mut *hung.scan.get() }.take();
            if !taken.is_some_and(|(scan, block)| hang_at(book, node, scan, Some(block))) {
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

    /// Hangs a node at its block, or at the next one that holds; with none it is ready.
    fn settle(
        &self,
        _lock: &SpinGuard<'_>,
        book: &Book,
        node: NonNull<Hung>,
        scan: Scan,
        block: Option<Block>,
    ) {
        if hang_at(book, node, scan, block) {
            return;
        }
        // SAFETY: the node is alive until it is finished or cancelled.
        let hung = unsafe { node.as_ref() };
        if self.leaves_work && hung.when.get() == When::MayBeLeft {
            self.leave(node);
        } else {
            self.due.push(node);
        }
    }
}

/// Hangs a node at the first block that holds, under the lock; false if none does.
fn hang_at(book: &Book, node: NonNull<Hung>, scan: Scan, mut block: Option<Block>) -> bool {
    // SAFETY: the node is alive until it is finished or cancelled.
    let hung = unsafe { node.as_ref() };
    while let Some(blocked) = block {
        let post = scan.post(book, blocked);
        post.bell.enter();
        if scan.holds(book, blocked) {
            // SAFETY: the scan of a node is used under the lock, which is held.
            unsafe { *hung.scan.get() = Some((scan, blocked)) };
            link(post, node);
            return true;
        }
        post.bell.leave();
        block = scan.advance(book);
    }
    false
}

/// Puts a node at the head of those at `post`, under the lock.
fn link(post: &Post, node: NonNull<Hung>) {
    let first = post.first.replace(node.as_ptr());
    // SAFETY: the node is alive until it is finished or cancelled.
    let hung = unsafe { node.as_ref() };
    hung.at.set(post);
    hung.previous.set(ptr::null());
    hung.next.set(first);
    // SAFETY: nodes at one post are alive and linked under the lock, which is held.
    if let Some(first) = unsafe { first.as_ref() } {
        first.previous.set(node.as_ptr());
    }
}

impl Queue {
    fn new() -> Self {
        Queue { first: Cell::new(ptr::null()), last: Cell::new(ptr::null()) }
    }

    fn is_empty(&self) -> bool {
        self.first.get().is_null()
    }

    /// Adds a node that is alive until it is finished or cancelled.
    fn push(&self, node: NonNull<Hung>) {
        // SAFETY: as the caller promises.
        unsafe { node.as_ref() }.next.set(ptr::null());
        // SAFETY: queued nodes are alive.
        match unsafe { self.last.replace(node.as_ptr()).as_ref() } {
            Some(last) => last.next.set(node.as_ptr()),
            None => self.first.set(node.as_ptr()),
        }
    }

    fn pop(&self) -> Option<NonNull<Hung>> {
        let node = NonNull::new(self.first.get().cast_mut())?;
        // SAFETY: queued nodes are alive.
        self.first.set(unsafe { node.as_ref() }.next.get());
        if self.first.get().is_null() {
            self.last.set(ptr::null());
        }
        Some(node)
    }

    /// Takes a node out, wherever it stands; false if it is not here.
    fn take_out(&self, node: &Hung) -> bool {
        let (mut link, mut before) = (&self.first, ptr::null());
        // SAFETY: queued nodes are alive.
        while let Some(queued) = unsafe { link.get().as_ref() } {
            if ptr::eq(queued, node) {
                link.set(queued.next.get());
                if ptr::eq(self.last.get(), node) {
                    self.last.set(before);
                }
                return true;
            }
            before = link.get();
            link = &queued.next;
        }
        false
    }
}
