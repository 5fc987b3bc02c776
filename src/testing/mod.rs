//! Test doubles for embedders and for this crate's own tests, and conformance suites for what they implement.

pub mod source;
