//! Measures; asserts little. `cargo test --release --test measuring -- --ignored --nocapture`.
#![cfg(feature = "testing")]

mod common;

use common::{World, message};
use futures::TryStreamExt;
use futures::executor::block_on;
use mailrail::message::MailboxName;
use mailrail::source::{Memory, SourceId};
use mailrail::store::Store;
use std::time::Instant;

#[test]
#[ignore = "it measures"]
fn many_small_mailboxes() {
    let memory = Memory::new(SourceId::new([1; 16]));
    for number in 0..40_000_u64 {
        let mailbox = MailboxName::new(format!("mailbox-{}", number % 2000));
        memory.put(&mailbox, "INBOX", number.to_string(), message(number, 900));
    }
    let world = World::inline();
    let started = Instant::now();
    let ledger = world.push(memory.clone());
    println!("first: {} objects, {:?}", ledger.objects, started.elapsed());
    let listed: Vec<_> = block_on(world.memory.list("").try_collect()).unwrap();
    println!("in the store: {} objects", listed.len());
    let started = Instant::now();
    let ledger = world.push(memory);
    println!("again: {} objects, {:?}", ledger.objects, started.elapsed());
}
