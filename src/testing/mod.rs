//! Test doubles for embedders and for this crate's own tests, and conformance suites for what they implement.
//!
//! The doubles are deterministic: none of them sleeps, reads a clock or draws randomness. The feature `conformance` brings the suites alone, `testing` both.

pub mod conformance;
#[cfg(any(test, feature = "testing"))]
mod counting;
#[cfg(any(test, feature = "testing"))]
mod faulty;
#[cfg(any(test, feature = "testing"))]
mod seams;
#[cfg(any(test, feature = "testing"))]
#[cfg_attr(docsrs, doc(cfg(feature = "testing")))]
pub mod sink;
#[cfg(any(test, feature = "testing"))]
mod slow;
#[cfg(any(test, feature = "testing"))]
#[cfg_attr(docsrs, doc(cfg(feature = "testing")))]
pub mod source;
#[cfg(any(test, feature = "testing"))]
mod stalled;
#[cfg(any(test, feature = "testing"))]
mod throttled;
#[cfg(any(test, feature = "testing"))]
mod time;

pub use conformance::store_conformance;
#[cfg(any(test, feature = "testing"))]
#[cfg_attr(docsrs, doc(cfg(feature = "testing")))]
pub use counting::{Count, CountingStore};
#[cfg(any(test, feature = "testing"))]
#[cfg_attr(docsrs, doc(cfg(feature = "testing")))]
pub use faulty::{Fault, FaultyStore, Plan};
#[cfg(any(test, feature = "testing"))]
#[cfg_attr(docsrs, doc(cfg(feature = "testing")))]
pub use seams::{ManualClock, SeededRandomness};
#[cfg(any(test, feature = "testing"))]
#[cfg_attr(docsrs, doc(cfg(feature = "testing")))]
pub use slow::SlowStore;
#[cfg(any(test, feature = "testing"))]
#[cfg_attr(docsrs, doc(cfg(feature = "testing")))]
pub use stalled::{StallHandle, StalledStore};
#[cfg(any(test, feature = "testing"))]
#[cfg_attr(docsrs, doc(cfg(feature = "testing")))]
pub use throttled::ThrottledStore;
#[cfg(any(test, feature = "testing"))]
#[cfg_attr(docsrs, doc(cfg(feature = "testing")))]
pub use time::VirtualTime;

/// The operations of a [`Store`](crate::store::Store).
#[cfg(any(test, feature = "testing"))]
#[cfg_attr(docsrs, doc(cfg(feature = "testing")))]
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
