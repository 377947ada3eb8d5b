//! The C interface: each call as a driver of C makes it, with its subscriptions embedded in structures of its own and
//! its callbacks in tables.
//!
//! | file | has |
//! |---|---|
//! | `abi` | the structures of the header |
//! | `calls` | what the library exports, loaded when the program runs |
//! | `inline` | what the header has inline |
//! | `mm`, `interval`, `list` | the things of a scenario |
//!
//! C can express every verb.

mod abi;
mod calls;
mod inline;
mod interval;
mod list;
mod mm;

use std::path::Path;
use std::sync::Arc;

use mmu_notifier::{Address, Invalidation, Pte, Range};

use super::library::Library;
use super::subscriber::Subscriber;
use super::verb::{Blocking, Question};

/// The C interface, once it is loaded.
pub(super) struct C;

const EAGAIN: i32 = -11;
const ENOMEM: i32 = -12;
const EINVAL: i32 = -22;
const EOVERFLOW: i32 = -75;

/// What a pointer that is an error can be, negated (`MAX_ERRNO`).
const LAST_ERROR: usize = 4095;

impl C {
    /// Loads the library of this path; without one that beside this program, or else the one that is installed.
    ///
    /// # Errors
    /// What is wrong, and what to do.
    pub(super) fn load(library: Option<&Path>) -> Result<(), String> {
        calls::load(library)
    }
}

/// The word for a negative errno.
fn word(error: i32) -> &'static str {
    match error {
        EOVERFLOW => "overflow",
        // The arguments are right, so it is that there are no users any more.
        EINVAL => "gone",
        ENOMEM => "out of memory",
        EAGAIN => "refused",
        _ => "failed",
    }
}

impl Library for C {
    type User = mm::User;
    type Space = mm::Holder;
    type Interval = interval::Interval;
    type Token = u64;
    type List = list::List;
    type Shared = list::Shared;
    type Active = mm::Active;

    fn space() -> mm::User {
        mm::User::of_new_mm()
    }

    fn holder(user: &mm::User) -> mm::Holder {
        user.holder()
    }

    fn user(space: &mm::Holder) -> Result<mm::User, &'static str> {
        space.user().ok_or("gone")
    }

    fn leave(user: mm::User) {
        drop(user);
    }

    fn has(space: &mm::Holder) -> bool {
        space.has_notifiers()
    }

    fn insert(
        space: &mm::Holder,
        start: Address,
        length: u64,
        subscriber: Arc<Subscriber>,
    ) -> Result<Self::Interval, &'static str> {
        interval::Interval::insert(space, start, length, subscriber).map_err(word)
    }

    fn remove(interval: Self::Interval) {
        drop(interval);
    }

    fn read(interval: &Self::Interval) -> u64 {
        interval.read_begin()
    }

    fn retry(interval: &Self::Interval, token: u64) -> bool {
        interval.read_retry(token)
    }

    fn register(space: &mm::Holder, subscriber: Arc<Subscriber>) -> Result<Self::List, &'static str> {
        list::List::register(space, subscriber).map_err(word)
    }

    fn unregister(list: Self::List) {
        drop(list);
    }

    fn get(
        space: &mm::Holder,
        key: u64,
        make: Arc<Subscriber>,
    ) -> Result<(Self::Shared, Arc<Subscriber>), &'static str> {
        let shared = list::Shared::get(space, key, make).map_err(word)?;
        let subscriber = shared.subscriber();
        Ok((shared, subscriber))
    }

    fn put(shared: Self::Shared) {
        drop(shared);
    }

    fn sleep(space: &mm::Holder) {
        space.take_the_map_lock();
    }

    fn synchronize() {
        calls::synchronize();
    }

    fn start(space: &mm::Holder, what: Invalidation, may: Blocking) -> Result<mm::Active, &'static str> {
        mm::Active::start(space, what, may).map_err(word)
    }

    fn end(active: mm::Active) {
        drop(active);
    }

    fn ask(space: &mm::Holder, question: Question) -> bool {
        space.ask(question)
    }

    fn change_pte(space: &mm::Holder, address: Address, pte: Pte) {
        space.change_pte(address, pte);
    }

    fn invalidate(space: &mm::Holder, range: Range) {
        space.invalidate(range);
    }
}
