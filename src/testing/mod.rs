//! Test doubles for embedders and for mailrail's own tests.

pub mod sink;
