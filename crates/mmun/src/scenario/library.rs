//! The calls of a scenario, whichever interface of the library carries them.
//!
//! The steps are the same for each interface, and so is what their [`Subscriber`]s print; an interface
//! brings its handles and the calls on them. An error is the word that the step prints as its result.

use std::sync::Arc;

use mmu_notifier::{Address, Invalidation, Pte, Range};

use super::subscriber::Subscriber;
use super::verb::{Blocking, Question};

/// An interface of the library.
pub(super) trait Library: 'static {
    /// A user of an address space.
    type User: Send;
    /// A holder of an address space.
    type Space: Clone + Send;
    /// An interval subscription.
    type Interval: Send + Sync;
    /// What a reader of an interval subscription got.
    type Token: Copy + Send;
    /// A list subscription.
    type List: Send;
    /// A reference to a shared list subscription.
    type Shared: Send;
    /// An invalidation that has started and not ended.
    type Active: Send;

    /// Makes an address space with one user.
    fn space() -> Self::User;
    /// Takes a holder of the space that `user` uses.
    fn holder(user: &Self::User) -> Self::Space;
    /// Takes one more user.
    fn user(space: &Self::Space) -> Result<Self::User, &'static str>;
    /// Drops a user.
    fn leave(user: Self::User);
    /// Says whether the space has notifiers.
    fn has(space: &Self::Space) -> bool;

    /// Inserts an interval subscription to `length` bytes from `start`.
    fn insert(
        space: &Self::Space,
        start: Address,
        length: u64,
        subscriber: Arc<Subscriber>,
    ) -> Result<Self::Interval, &'static str>;
    /// Removes it.
    fn remove(interval: Self::Interval);
    /// Begins to read.
    fn read(interval: &Self::Interval) -> Self::Token;
    /// Says whether the reader must start over.
    fn retry(interval: &Self::Interval, token: Self::Token) -> bool;

    /// Registers a list subscription.
    fn register(space: &Self::Space, subscriber: Arc<Subscriber>) -> Result<Self::List, &'static str>;
    /// Unregisters it.
    fn unregister(list: Self::List);
    /// Takes the shared list subscription of `key`, which is `make` if it is made now; gives the one that
    /// it is, too.
    fn get(
        space: &Self::Space,
        key: u64,
        make: Arc<Subscriber>,
    ) -> Result<(Self::Shared, Arc<Subscriber>), &'static str>;
    /// Gives the reference back.
    fn put(shared: Self::Shared);
    /// Makes a call on the space that may sleep: where puts leave their frees to such calls, those that can run have
    /// run behind it.
    fn sleep(space: &Self::Space);
    /// Waits for the frees begun by put.
    fn synchronize();

    /// Starts an invalidation.
    fn start(space: &Self::Space, what: Invalidation, may: Blocking) -> Result<Self::Active, &'static str>;
    /// Ends it.
    fn end(active: Self::Active);
    /// Asks every list subscription about accesses.
    fn ask(space: &Self::Space, question: Question) -> bool;
    /// Says that a page table entry changes.
    fn change_pte(space: &Self::Space, address: Address, pte: Pte);
    /// Invalidates for who shares the page table.
    fn invalidate(space: &Self::Space, range: Range);
}
