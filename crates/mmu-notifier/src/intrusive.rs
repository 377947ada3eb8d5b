//! The layer below the owned one: subscriptions that live in their user's own memory.
//!
//! Nothing here is allocated per subscription beyond the index's own pages (and room for an owner or a label, if it has
//! any), and nothing is counted but the holder of the space. A kernel, or an interface to another language, embeds an [`Interval`] or a [`Listener`]
//! in a structure of its own and finds that structure from the pointer that its callbacks get. What the types of
//! [`interval`](crate::interval) and [`list`](crate::list) guarantee is owed by the caller here, and written
//! down call by call. What can be seen to be wrong (removed twice, never inserted) is diagnosed and harmless.

#![expect(unsafe_code, reason = "nodes are made in their user's memory")]

mod interval;
mod listener;
mod membership;
mod ops;
mod started;

#[cfg(test)]
mod tests;

pub use interval::Interval;
pub use listener::{Listener, ListenerCallbacks, ListenerOps, Question, Released};
pub use ops::{Direct, IntervalCallbacks, IntervalOps};
pub use started::{End, Started};
