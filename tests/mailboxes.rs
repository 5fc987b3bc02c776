//! Many mailboxes, and large ones, enumerated at once.
#![cfg(feature = "testing")]

mod common;

use common::{numbers, push};
use futures::executor::block_on;
use mailrail::message::{Envelope, Evidence, Identity, MailboxName};
use mailrail::source::{Memory, SourceId};
use mailrail::store::MemoryStore;
use mailrail::{Engine, Protection, Repository, Resources};
use std::sync::Arc;

fn add(source: &Memory, mailbox: usize, messages: usize) {
    let mailbox = MailboxName::new(format!("m{mailbox:06}"));
    for number in 0..messages {
        let mut envelope = Envelope::new("INBOX", Identity::Named(format!("{number}").into()));
        envelope.evidence = Evidence(b"as it was".as_slice().into());
        source.message(&mailbox, envelope, format!("Subject: {number}\r\n\r\nof {mailbox}\r\n"));
    }
}

fn engine(resources: Resources) -> Engine {
    let repository = block_on(Repository::open_or_create(Arc::new(MemoryStore::new()), Protection::None)).unwrap();
    Engine::builder(repository).resources(resources).build().unwrap()
}

#[test]
fn more_mailboxes_than_may_be_under_way_at_once_are_all_stored_and_found_again() {
    let source = Memory::new(SourceId::new([1; 16]));
    (0..5000).for_each(|mailbox| add(&source, mailbox, 2));
    for resources in [Resources::inline(32 << 20).unwrap(), Resources::with(256 << 20, 2).unwrap()] {
        let engine = engine(resources);
        assert_eq!(numbers(&push(&engine, source.clone()))[..3], [10_000, 10_000, 0]);
        let again = push(&engine, source.clone());
        assert_eq!(numbers(&again)[..3], [10_000, 0, 10_000]);
        assert_eq!(again.mailboxes, 5000);
    }
}

#[test]
fn large_mailboxes_between_short_ones_are_opened_one_after_the_other_and_found_unchanged() {
    // More is known of each of the large ones than may be opened beside others.
    const LARGE: usize = 20_000;
    let source = Memory::new(SourceId::new([1; 16]));
    (0..24).for_each(|mailbox| add(&source, mailbox, if mailbox % 8 == 3 { LARGE } else { 5 }));
    let all = 3 * LARGE as u64 + 21 * 5;
    for resources in [Resources::inline(32 << 20).unwrap(), Resources::with(256 << 20, 2).unwrap()] {
        let engine = engine(resources);
        assert_eq!(numbers(&push(&engine, source.clone()))[..3], [all, all, 0]);
        let again = push(&engine, source.clone());
        assert_eq!(numbers(&again)[..3], [all, 0, all]);
        assert_eq!((again.mailboxes, again.changes.gone), (24, 0));
    }
}
