//! The fence of the list without its heavy barrier: who finds the mode fenced behind a change relies on the fence
//! of every section that it does not see, also while somebody turns the mode back to quick.
//!
//! Light barriers are nothing here. What a heavy barrier does to a thread that took the quick way before cannot be
//! shown by a model; the head of `list/grace` argues it. A break shows as a section that neither is seen nor sees
//! the change.

use std::sync::Arc;

use loom::sync::atomic::{AtomicU64, Ordering::Relaxed};
use loom::thread;

use super::{book, check};
use crate::hazard::Book;
use crate::list::grace::Grace;
use crate::platform::{be_number, without_light_barriers};
use crate::sync::full_fence;

struct Shared {
    grace: Grace,
    book: Book,
    change: AtomicU64,
}

/// A change, and a section that begins beside it; a third thread may turn the mode back.
fn model(turns_back: bool) {
    let book = book();
    assert!(book.refill(0));
    let shared = Arc::new(Shared { grace: Grace::new(), book, change: AtomicU64::new(0) });
    let walker = shared.clone();
    let walk = thread::spawn(move || {
        be_number(1);
        walker.grace.enter(crate::platform::with_context(|context| walker.book.claim(context)));
        walker.change.load(Relaxed)
    });
    let third = turns_back.then(|| {
        let shared = shared.clone();
        thread::spawn(move || shared.grace.leave())
    });
    shared.change.store(1, Relaxed);
    full_fence();
    let relies = shared.grace.is_fenced();
    let seen = shared.book.iter().any(|hazard| hazard.section() != 0);
    let saw = walk.join().unwrap();
    assert!(!relies || seen || saw == 1, "a walk was missed that misses the change");
    third.into_iter().for_each(|third| third.join().unwrap());
}

#[test]
fn a_fenced_section_is_seen_or_sees_the_change() {
    without_light_barriers(|| check(4, || model(false)));
}

#[test]
fn who_sees_the_mode_quick_sees_what_relied_on_fenced() {
    without_light_barriers(|| check(4, || model(true)));
}
