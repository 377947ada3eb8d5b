//! MMU notifiers the kernel's way, in plain Rust with std: what this project is measured against.
//!
//! Written from the remarks on kernels in `docs/contract.md`, and as good as a careful C programmer would have it:
//! nodes stand in their owner's memory, nothing is allocated or counted on a path that is measured, and the only
//! indirect call is the callback. It differs from this project's library in what kernels do differently:
//!
//! - *One sequence and one count a space.* Whoever waits for one active invalidation waits for all: readers, and
//!   removes beside a hit, go on when the last one ends ([`interval`]).
//! - *Inserts and removes are put off* while an invalidation that hit something is active; the last end does them.
//! - *One test-and-set spinlock a space* for starts, ends, readers, inserts and removes; one queue for sleepers.
//! - *One sleepable-RCU domain a process* for the list side: an unregister waits for the callbacks of other spaces,
//!   too ([`list`]).
//!
//! Where the kernel of 2020 can crash or hang by mistake this does not, at no cost that shows: a remove waits until
//! its node is out of the tree, and a refusal of the list ends the interval side. What the kernel leaves to its
//! callers stays with them: nobody registers a list notifier while an invalidation is active (it would hear an end
//! without a start), and `release` may run twice where exit and unregister race. The young calls, `change_pte` and
//! `invalidate_range` are left out, and what subscribers need stands in the space from the beginning.
//!
//! # Example
//!
//! ```
//! use kernel_like::interval::{Answer, Interval, Invalidation, Notifier, Sequence};
//! use kernel_like::Space;
//!
//! struct Device;
//!
//! impl Notifier for Device {
//!     fn invalidate(interval: &Interval<Self>, _what: &Invalidation, seq: Sequence) -> Answer {
//!         interval.set_seq(seq);
//!         Answer::Done
//!     }
//! }
//!
//! let space = Space::new();
//! let device = space.insert(0x4000..0x8000, Interval::boxed(Device)).ok().unwrap();
//! let token = device.read_begin();
//! space.invalidate_start(0x5000..0x6000).end();
//! assert!(device.read_retry(token));
//! ```

pub mod interval;
mod intervals;
mod invalidation;
pub mod list;
mod member;
mod node;
mod queue;
mod space;
mod spin;
mod srcu;
mod tree;

pub use invalidation::{Answer, Gone, Invalidation, Refused};
pub use space::{Active, Space, synchronize};
