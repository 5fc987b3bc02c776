//! Forgetting and sweeping: what nobody needs goes, what anybody needs stays, whoever writes, sleeps, wakes or dies meanwhile.
#![cfg(feature = "testing")]

#[path = "../common/mod.rs"]
mod common;

mod asleep;
mod forgetting;
mod moves;
mod processes;
mod repairs;
mod scene;
mod world;
