//! Test doubles for embedders and for this crate's own tests, and conformance suites for what they implement.
//!
//! The doubles are deterministic: none of them sleeps, reads a clock or draws randomness.

pub mod conformance;
mod counting;
mod faulty;
mod seams;
pub mod sink;
mod slow;
pub mod source;
mod stalled;
mod throttled;
mod time;

pub use conformance::store_conformance;
pub use counting::{Count, CountingStore};
pub use faulty::{Fault, FaultyStore, Plan};
pub use seams::{ManualClock, SeededRandomness};
pub use slow::SlowStore;
pub use stalled::{StallHandle, StalledStore};
pub use throttled::ThrottledStore;
pub use time::VirtualTime;

/// The operations of a [`Store`](crate::store::Store).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(clippy::exhaustive_enums, reason = "as the trait that it mirrors")]
pub enum Operation {
    /// [`put`](crate::store::Store::put).
    Put,
    /// [`create`](crate::store::Store::create).
    Create,
    /// [`read`](crate::store::Store::read).
    Read,
    /// [`length`](crate::store::Store::length).
    Length,
    /// [`list`](crate::store::Store::list).
    List,
    /// [`delete`](crate::store::Store::delete).
    Delete,
}
