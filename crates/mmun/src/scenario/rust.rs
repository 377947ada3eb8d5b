//! The Rust interface: each call as a Rust program makes it.

use std::convert::Infallible;
use std::sync::Arc;

use mmu_notifier::interval::{self, Answer, InsertErrorKind, ReadToken, Sequence};
use mmu_notifier::list::{self, GetError, RegisterErrorKind, WouldBlock};
use mmu_notifier::{Address, AddressSpace, AddressSpaceRef, Invalidation, Pte, Range};
use mmu_notifier::{OwnedActiveInvalidation, StartError};

use super::library::Library;
use super::subscriber::Subscriber;
use super::verb::{Blocking, Callback, Question};

/// The Rust interface.
pub(super) struct Rust;

impl Library for Rust {
    type User = AddressSpace;
    type Space = AddressSpaceRef;
    type Interval = interval::Subscription<Interval>;
    type Token = ReadToken;
    type List = list::Registration<List>;
    type Shared = list::Shared<Shared>;
    type Active = OwnedActiveInvalidation;

    fn space() -> AddressSpace {
        AddressSpace::new()
    }

    fn holder(user: &AddressSpace) -> AddressSpaceRef {
        user.downgrade()
    }

    fn user(space: &AddressSpaceRef) -> Result<AddressSpace, &'static str> {
        space.upgrade().ok_or("gone")
    }

    fn leave(user: AddressSpace) {
        drop(user);
    }

    fn has(space: &AddressSpaceRef) -> bool {
        space.has_notifiers()
    }

    fn insert(
        space: &AddressSpaceRef,
        start: Address,
        length: u64,
        subscriber: Arc<Subscriber>,
    ) -> Result<Self::Interval, &'static str> {
        // CONTRACT C3.3: the overflow is looked at before the users.
        let range = Range::from_len(start, length).map_err(|_| "overflow")?;
        space.insert(range, Interval(subscriber)).map_err(|error| match error.cause {
            InsertErrorKind::Gone => "gone",
            InsertErrorKind::OutOfMemory => "out of memory",
            _ => "failed",
        })
    }

    fn remove(interval: Self::Interval) {
        interval.remove();
    }

    fn read(interval: &Self::Interval) -> ReadToken {
        interval.read_begin()
    }

    fn retry(interval: &Self::Interval, token: ReadToken) -> bool {
        interval.read_retry(token)
    }

    fn register(space: &AddressSpaceRef, subscriber: Arc<Subscriber>) -> Result<Self::List, &'static str> {
        space.register(List(subscriber)).map_err(|error| match error.cause {
            RegisterErrorKind::Gone => "gone",
            RegisterErrorKind::OutOfMemory => "out of memory",
            _ => "failed",
        })
    }

    fn unregister(list: Self::List) {
        list.unregister();
    }

    fn get(
        space: &AddressSpaceRef,
        key: u64,
        make: Arc<Subscriber>,
    ) -> Result<(Self::Shared, Arc<Subscriber>), &'static str> {
        let shared = space.get(key, |_| Ok::<_, Infallible>(Shared(make))).map_err(|error| match error {
            GetError::Gone => "gone",
            GetError::OutOfMemory => "out of memory",
            _ => "failed",
        })?;
        let subscriber = Arc::clone(&shared.0);
        Ok((shared, subscriber))
    }

    fn put(shared: Self::Shared) {
        shared.put();
    }

    fn sleep(_space: &AddressSpaceRef) {
        // The library frees on its own.
    }

    fn synchronize() {
        mmu_notifier::synchronize();
    }

    fn start(
        space: &AddressSpaceRef,
        what: Invalidation,
        may: Blocking,
    ) -> Result<OwnedActiveInvalidation, &'static str> {
        match may {
            Blocking::May => Ok(space.invalidate_start_owned(what)),
            Blocking::MayNot => space.try_invalidate_start_owned(what).map_err(|error| match error {
                StartError::WouldBlock => "refused",
                _ => "failed",
            }),
        }
    }

    fn end(active: OwnedActiveInvalidation) {
        active.end();
    }

    fn ask(space: &AddressSpaceRef, question: Question) -> bool {
        match question {
            Question::FlushAndClear(range) => space.clear_flush_young(range),
            Question::Clear(range) => space.clear_young(range),
            Question::Test(address) => space.test_young(address),
        }
    }

    fn change_pte(space: &AddressSpaceRef, address: Address, pte: Pte) {
        space.change_pte(address, pte);
    }

    fn invalidate(space: &AddressSpaceRef, range: Range) {
        space.invalidate_range(range);
    }
}

/// An interval subscriber.
pub(super) struct Interval(Arc<Subscriber>);

impl interval::Notifier for Interval {
    fn invalidate(&self, invalidation: &Invalidation, _seq: Sequence) -> Answer {
        self.0.invalidate(invalidation.event(), blocking(invalidation))
    }

    fn finish(&self, invalidation: &Invalidation) {
        self.0.finish(invalidation.event());
    }
}

/// A list subscriber.
pub(super) struct List(Arc<Subscriber>);

impl list::Notifier for List {
    fn release(&self) {
        self.0.call(Callback::Release);
    }

    fn invalidate_range_start(&self, invalidation: &Invalidation) -> Result<(), WouldBlock> {
        if self.0.start(blocking(invalidation)) { Ok(()) } else { Err(WouldBlock) }
    }

    fn invalidate_range_end(&self, _invalidation: &Invalidation) {
        self.0.call(Callback::End);
    }

    fn invalidate_range(&self, _range: Range) {
        self.0.call(Callback::Invalidate);
    }

    fn clear_flush_young(&self, _range: Range) -> bool {
        self.0.young()
    }

    fn clear_young(&self, _range: Range) -> bool {
        self.0.young()
    }

    fn test_young(&self, _address: Address) -> bool {
        self.0.young()
    }

    fn change_pte(&self, _address: Address, _pte: Pte) {
        self.0.call(Callback::ChangePte);
    }
}

/// A shared list subscriber; its drop is the free.
pub(super) struct Shared(Arc<Subscriber>);

impl list::Notifier for Shared {
    fn release(&self) {
        self.0.call(Callback::Release);
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.0.free();
    }
}

fn blocking(invalidation: &Invalidation) -> Blocking {
    if invalidation.is_blockable() { Blocking::May } else { Blocking::MayNot }
}
