//! What a call tells: its callbacks as lines, and its result; in the same words for the model and the library.

use mmu_notifier::{Owner, Range};

use crate::operation::Start;

/// The callbacks of a call, in order, and its result.
#[derive(Debug, PartialEq, Eq)]
pub struct Step {
    /// One line a callback.
    pub calls: Vec<String>,
    /// What the call returned.
    pub result: String,
}

/// Gives the line of a callback that hears of an invalidation.
pub fn line(name: &str, kind: &str, start: &Start) -> String {
    let owner = start.owner.map_or(0, Owner::get);
    format!("{name} {kind} {} {:?} owner {owner} blockable {}", start.range, start.event, start.blockable)
}

/// What the list subscriber `name` answers to a young call.
pub fn is_young(name: u64, range: Range) -> bool {
    (name ^ range.start().get()).count_ones() % 3 == 0
}
