//! The operations of a sequence, and how they are drawn.
//!
//! Whatever an operation works on is named by a number that counts, modulo their number, among those that are
//! there: any sequence is a valid one, so that proptest can shrink it freely.

use mmu_notifier::{Event, Owner, Range};
use proptest::prelude::*;

/// How many address spaces a sequence uses.
pub const SPACES: usize = 2;

/// What a subscriber answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// It accepts.
    Accepts,
    /// It refuses whenever it may not block.
    Refuses,
    /// It answers that it has begun (interval subscribers only).
    Begins,
}

/// What a start says of its invalidation.
#[derive(Clone, Copy, Debug)]
pub struct Start {
    /// The space.
    pub space: usize,
    /// The range.
    pub range: Range,
    /// The event.
    pub event: Event,
    /// The owner, if any.
    pub owner: Option<Owner>,
    /// Whether callbacks may block.
    pub blockable: bool,
}

/// One call of a sequence.
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "each is the library's call of that name")]
pub enum Operation {
    Insert { space: usize, range: Range, owner: Option<Owner>, manner: Manner },
    Remove { sub: usize, detach: bool },
    Register { space: usize, manner: Manner },
    Unregister { listed: usize },
    RegisterNobody { space: usize },
    Get { space: usize, key: u64 },
    Put { shared: usize },
    Synchronize,
    Start(Start),
    End { active: usize, only: bool },
    Read { sub: usize },
    Retry { token: usize },
    InvalidateRange { space: usize, range: Range },
    Young { space: usize, range: Range, question: Question },
    ChangePte { space: usize, address: u64, pte: u64 },
    HasNotifiers { space: usize },
    TakeUser { space: usize },
    DropUser { space: usize },
}

/// The three young calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the library's call of that name")]
pub enum Question {
    ClearFlushYoung,
    ClearYoung,
    TestYoung,
}

/// Draws a range: small ones that overlap densely, start alike and touch; the top; everything.
pub fn ranges() -> impl Strategy<Value = Range> {
    let small =
        (0..10u64, 1..6u64).prop_map(|(start, length)| Range::from_len(start, length).expect("small"));
    let top = (0..4u64, 0..4u64).prop_map(|(below, shorter)| {
        let start = u64::MAX - below;
        Range::from_first_last(start, (u64::MAX - shorter).max(start)).expect("at the top")
    });
    prop_oneof![12 => small, 3 => top, 1 => Just(Range::ALL), 1 => (0..10u64).prop_map(Range::to_top)]
}

fn owners() -> impl Strategy<Value = Option<Owner>> {
    prop_oneof![3 => Just(None), 1 => Just(Owner::new(1)), 1 => Just(Owner::new(2))]
}

fn events() -> impl Strategy<Value = Event> {
    prop_oneof![Just(Event::Unmap), Just(Event::Clear), Just(Event::Migrate), Just(Event::Other(9))]
}

fn starts() -> impl Strategy<Value = Operation> {
    (0..SPACES, ranges(), events(), owners(), any::<bool>()).prop_map(
        |(space, range, event, owner, blockable)| {
            Operation::Start(Start { space, range, event, owner, blockable })
        },
    )
}

fn subscriptions() -> impl Strategy<Value = Operation> {
    let any_manner =
        prop_oneof![4 => Just(Manner::Accepts), 1 => Just(Manner::Refuses), 2 => Just(Manner::Begins)];
    let listed = prop_oneof![3 => Just(Manner::Accepts), 1 => Just(Manner::Refuses)];
    prop_oneof![
        8 => (0..SPACES, ranges(), owners(), any_manner)
            .prop_map(|(space, range, owner, manner)| Operation::Insert { space, range, owner, manner }),
        4 => (any::<usize>(), any::<bool>()).prop_map(|(sub, detach)| Operation::Remove { sub, detach }),
        3 => (0..SPACES, listed).prop_map(|(space, manner)| Operation::Register { space, manner }),
        2 => any::<usize>().prop_map(|listed| Operation::Unregister { listed }),
        1 => (0..SPACES).prop_map(|space| Operation::RegisterNobody { space }),
        3 => (0..SPACES, 0..2u64).prop_map(|(space, key)| Operation::Get { space, key }),
        3 => any::<usize>().prop_map(|shared| Operation::Put { shared }),
        1 => Just(Operation::Synchronize),
    ]
}

fn questions() -> impl Strategy<Value = Operation> {
    let question =
        prop_oneof![Just(Question::ClearFlushYoung), Just(Question::ClearYoung), Just(Question::TestYoung)];
    prop_oneof![
        2 => (0..SPACES, ranges()).prop_map(|(space, range)| Operation::InvalidateRange { space, range }),
        3 => (0..SPACES, ranges(), question)
            .prop_map(|(space, range, question)| Operation::Young { space, range, question }),
        1 => (0..SPACES, any::<u64>(), any::<u64>())
            .prop_map(|(space, address, pte)| Operation::ChangePte { space, address, pte }),
        1 => (0..SPACES).prop_map(|space| Operation::HasNotifiers { space }),
        2 => (0..SPACES).prop_map(|space| Operation::TakeUser { space }),
        2 => (0..SPACES).prop_map(|space| Operation::DropUser { space }),
    ]
}

/// Draws one operation.
pub fn operations() -> impl Strategy<Value = Operation> {
    prop_oneof![
        8 => subscriptions(),
        6 => starts(),
        5 => (any::<usize>(), any::<bool>()).prop_map(|(active, only)| Operation::End { active, only }),
        4 => any::<usize>().prop_map(|sub| Operation::Read { sub }),
        4 => any::<usize>().prop_map(|token| Operation::Retry { token }),
        3 => questions(),
    ]
}

/// Draws a sequence of up to `length` operations.
pub fn sequences(length: usize) -> impl Strategy<Value = Vec<Operation>> {
    proptest::collection::vec(operations(), 1..length)
}
