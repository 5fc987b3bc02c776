//! Workers do not meet at locks: how often those that they share are taken, for how much mail.
#![cfg(all(feature = "testing", feature = "organisation"))]

use futures::executor::block_on;
use mailrail::organisation::Organisation;
use mailrail::source::{Maildir, Mbox, Source};
use mailrail::store::MemoryStore;
use mailrail::transfer::Report;
use mailrail::{Engine, Protection, Repository, Resources};
use std::fmt::Write;
use std::fs;
use std::sync::Arc;

/// So much mail pays for one acquisition, in octets.
const OCTETS: u64 = 64 << 10;

/// What a run takes however little there is: to begin, to end, and for two workers' packs.
const FOR_A_RUN: u64 = 100;

fn push(source: impl Source) -> (Report, u64) {
    let resources = Resources::with(256 << 20, 2).unwrap();
    let repository = block_on(Repository::open_or_create(Arc::new(MemoryStore::new()), Protection::None)).unwrap();
    let engine = Engine::builder(repository).resources(resources.clone()).build().unwrap();
    let before = resources.lock_acquisitions();
    let report = block_on(engine.transfer(source).finish()).unwrap();
    (report, resources.lock_acquisitions() - before)
}

#[test]
fn for_64_kib_of_mail_shared_locks_are_taken_at_most_once() {
    let place = tempfile::tempdir().unwrap();
    let organisation = Organisation::new(5).mailboxes(2).bytes(100 << 20).build();
    organisation.write_maildirs(place.path()).unwrap();
    let (report, acquisitions) = push(Maildir::open(place.path()).unwrap());
    let octets = report.ledger.bytes.read;
    println!("{acquisitions} acquisitions for {octets} octets: one for {}", octets / acquisitions);
    assert!(octets > 90 << 20, "{octets}");
    assert!(acquisitions <= octets / OCTETS + FOR_A_RUN, "{acquisitions} acquisitions for {octets} octets");
}

#[test]
fn a_mailbox_however_short_takes_shared_locks_a_few_times() {
    /// To be named in a record, opened, read, and committed.
    const FOR_A_MAILBOX: u64 = 40;
    let place = tempfile::tempdir().unwrap();
    let organisation = Organisation::new(5).mailboxes(200).bytes(20 << 20).build();
    organisation.write_maildirs(place.path()).unwrap();
    let (report, acquisitions) = push(Maildir::open(place.path()).unwrap());
    let (octets, mailboxes) = (report.ledger.bytes.read, report.ledger.mailboxes);
    println!("{acquisitions} acquisitions for {octets} octets in {mailboxes} mailboxes");
    let most = octets / OCTETS + mailboxes * FOR_A_MAILBOX + FOR_A_RUN;
    assert!(mailboxes == 200 && acquisitions <= most, "{acquisitions} acquisitions, at most {most}");
}

#[test]
fn short_messages_take_no_shared_lock_each() {
    let place = tempfile::tempdir().unwrap();
    let mut mail = String::new();
    for number in 0..50_000 {
        let text = "x".repeat(900);
        writeln!(mail, "From a@example.org Mon Jan  5 10:00:00 2026\nSubject: {number}\n\n{text}\n").unwrap();
    }
    let path = place.path().join("mail.mbox");
    fs::write(&path, mail).unwrap();
    let (report, acquisitions) = push(Mbox::open(path).unwrap());
    let octets = report.ledger.bytes.read;
    println!("{acquisitions} acquisitions for 50,000 messages: one for {} octets", octets / acquisitions);
    assert_eq!(report.ledger.messages.stored, 50_000);
    assert!(acquisitions <= octets / OCTETS + FOR_A_RUN, "{acquisitions} acquisitions for {octets} octets");
}
