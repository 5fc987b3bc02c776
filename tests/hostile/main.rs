//! Hostile input: mail, names, stores and tables made to break what reads them. Each ends in an exact restore, a row of quarantine, or a clear error;
//! never in a panic, never in a hang, and within the budget. What bounds each is in docs/limits.md.
//!
//! Bombs are 64 MiB here. In full (GiBs, in about an hour, and with a table of peaks):
//!
//! `MAILRAIL_HOSTILE=full cargo test --release --all-features --test hostile -- --nocapture --test-threads 1`
#![cfg(feature = "testing")]

#[path = "../common/mod.rs"]
mod common;

mod bombs;
mod forge;
mod mail;
mod names;
mod stores;
mod tables;

/// Whether bombs are as large as they are meant to be.
fn is_full() -> bool {
    std::env::var("MAILRAIL_HOSTILE").is_ok_and(|size| size == "full")
}

/// How large a bomb is, in octets.
fn bomb_octets() -> u64 {
    if is_full() { 1 << 30 } else { 64 << 20 }
}
