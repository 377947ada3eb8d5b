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
    ready: Cell<*const Hung>,
    /// Not 0 if anything is ready.
    has_ready: AtomicU32,
    leaves_work: bool,
}

// SAFETY: `ready` is used under the lock only.
unsafe impl Sync for Hooks {}
// SAFETY: as above; the nodes may be finished by any thread.
unsafe impl Send for Hooks {}

/// Nodes to finish once the lock is open, in order.
struct Finished {
    first: *const Hung,
    last: *const Hung,
}

impl Hooks {
    /// Makes the hooks of a space; `leaves_work`: ready nodes that may be left are left.
    pub(crate) fn new(leaves_work: bool) -> Self {
        Hooks {
            lock: SpinLock::new(),
            ready: Cell::new(ptr::null()),
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
        space: u64,
        node: NonNull<Hung>,
        wanted: Wanted,
        (finish, when): (Finish, When),
    ) {
        let mut finished = Finished::new();
        let lock = self.lock.lock();
        // SAFETY: the caller keeps the node alive.
        let hung = unsafe { node.as_ref() };
        hung.finish.set(Some(finish));
        hung.when.set(when);
        let scan = Scan::new(book, space, wanted);
        let block = scan.advance(book);
        self.settle(&lock, book, node, scan, block, &mut finished);
        drop(lock);
        finished.finish();
    }

    /// Takes a node down. False if it has been finished, or is about to be.
    pub(crate) fn cancel(&self, node: &Hung) -> bool {
        let _lock = self.lock.lock();
        // SAFETY: the post is that of a hazard of the book, which the caller keeps alive with these hooks.
        let Some(post) = (unsafe { node.at.get().as_ref() }) else { return self.take_back(node) };
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
        let mut finished = Finished::new();
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
                self.settle(&lock, book, node, scan, block, &mut finished);
            }
        }
        drop(lock);
        finished.finish();
    }

    /// Says whether anything was left ready.
    pub(crate) fn has_ready(&self) -> bool {
        self.has_ready.load(Ordering::Relaxed) != 0
    }

    /// Finishes what was left ready. Called by calls that may sleep, and at the end of the space.
    pub(crate) fn finish_ready(&self) {
        if !self.has_ready() {
            return;
        }
        let mut finished = Finished::new();
        {
            let _lock = self.lock.lock();
            self.has_ready.store(0, Ordering::Relaxed);
            let mut at = self.ready.replace(ptr::null());
            while let Some(node) = NonNull::new(at.cast_mut()) {
                // SAFETY: ready nodes are alive and linked under the lock, which is held.
                at = unsafe { node.as_ref() }.next.get();
                finished.add_first(node);
            }
        }
        finished.finish();
    }

    /// Keeps a ready node for the next call that may sleep. Under the lock.
    fn leave(&self, node: NonNull<Hung>) {
        // SAFETY: a ready node is alive until it is finished.
        unsafe { node.as_ref() }.next.set(self.ready.replace(node.as_ptr()));
        self.has_ready.store(1, Ordering::Relaxed);
    }

    /// Takes a node out of those that were left. Under the lock.
    fn take_back(&self, node: &Hung) -> bool {
        let mut link = &self.ready;
        // SAFETY: ready nodes are alive and linked under the lock, which is held.
        while let Some(ready) = unsafe { link.get().as_ref() } {
            if ptr::eq(ready, node) {
                link.set(ready.next.get());
                return true;
            }
            link = &ready.next;
        }
        false
    }

    /// In the child of a fork, which holds the lock: hangs every node up again, as only this thread's calls are
    /// left to wait for; what nothing blocks any more is left.
    pub(crate) fn hang_again(&self, book: &Book) {
        let mut nodes = Finished::new();
        for post in book.posts() {
            let mut at = post.first.replace(ptr::null());
            while let Some(node) = NonNull::new(at.cast_mut()) {
                // SAFETY: nodes at one post are alive and linked under the lock, which is held.
                let hung = unsafe { node.as_ref() };
                at = hung.next.get();
                hung.at.set(ptr::null());
                nodes.add(node);
            }
            post.bell.forget_waiters();
        }
        let mut at = nodes.first;
        while let Some(node) = NonNull::new(at.cast_mut()) {
            // SAFETY: they were alive above, and nothing was finished since.
            let hung = unsafe { node.as_ref() };
            at = hung.next.get();
            // SAFETY: the scan of a node is used under the lock, which is held.
            let taken = unsafe { &mut *hung.scan.get() }.take();
            if !taken.is_some_and(|(scan, block)| hang_at(book, node, scan, Some(block))) {
                self.leave(node);
            }
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
        finished: &mut Finished,
    ) {
        if hang_at(book, node, scan, block) {
            return;
        }
        // SAFETY: the node is alive until it is finished or cancelled.
        let hung = unsafe { node.as_ref() };
        if self.leaves_work && hung.when.get() == When::MayBeLeft {
            self.leave(node);
        } else {
            finished.add(node);
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

impl Finished {
    fn new() -> Self {
        Finished { first: ptr::null(), last: ptr::null() }
    }

    fn add(&mut self, node: NonNull<Hung>) {
        // SAFETY: a ready node is alive until it is finished.
        unsafe { node.as_ref() }.next.set(ptr::null());
        // SAFETY: `last` was added and is not finished yet.
        match unsafe { self.last.as_ref() } {
            Some(last) => last.next.set(node.as_ptr()),
            None => self.first = node.as_ptr(),
        }
        self.last = node.as_ptr();
    }

    fn add_first(&mut self, node: NonNull<Hung>) {
        // SAFETY: a ready node is alive until it is finished.
        unsafe { node.as_ref() }.next.set(self.first);
        if self.first.is_null() {
            self.last = node.as_ptr();
        }
        self.first = node.as_ptr();
    }

    /// Finishes them all; a panic goes on after the rest.
    fn finish(self) {
        let mut at = self.first;
        let mut first_panic = None;
        while let Some(node) = NonNull::new(at.cast_mut()) {
            // SAFETY: the node is alive until its finish, and is read before.
            let hung = unsafe { node.as_ref() };
            at = hung.next.get();
            let Some(finish) = hung.finish.take() else { continue };
            // SAFETY: the node is in no list, and `hang` was promised that this may be called.
            let result = crate::platform::catch(|| unsafe { finish(node) });
            first_panic = first_panic.or(result.err());
        }
        if let Some(payload) = first_panic {
            crate::platform::resume(payload);
        }
    }
}
