//! Properties: any mail comes back as it was, and a transfer gets on whenever the store does, however little memory there is.
#![cfg(feature = "testing")]

mod common;

use bytes::Bytes;
use common::{Driven, World, base64, message, noise, with_attachment};
use futures::executor::block_on;
use mailrail::message::{Envelope, Evidence, Flags, Identity, InternalDate, MailboxName, SystemFlags};
use mailrail::runtime::{Executor, Job};
use mailrail::source::{Kind, Memory, SourceId};
use mailrail::store::{MemoryStore, Store};
use mailrail::testing::{self, ManualClock, StallHandle, StalledStore};
use mailrail::transfer::Report;
use mailrail::{Engine, Key, Protection, Repository, Resources, Result, Settings};
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// A message and everything about it.
#[derive(Clone, Debug)]
struct Mail {
    mailbox: Vec<u8>,
    folder: Vec<u8>,
    envelope: Envelope,
    octets: Vec<u8>,
}

/// Parts of messages: text of any kind, base64 regular and not, delimiters in right and wrong places.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        vec(any::<u8>(), 0..200),
        "[ -~]{0,80}\r?\n".prop_map(String::into_bytes),
        Just(b"\n--b\nContent-Transfer-Encoding: base64\n\n".to_vec()),
        Just(b"\r\n--b\r\nContent-Type: message/rfc822\r\n\r\n".to_vec()),
        Just(b"\n--b--\n".to_vec()),
        Just(b"Content-Type: multipart/mixed; boundary=b\n\n".to_vec()),
        (0..6_u64, 0..40_000_usize).prop_map(|(seed, length)| base64(&noise(seed, length))),
        (0..6_u64, 0..9_000_usize, any::<u8>()).prop_map(|(seed, length, at)| {
            let mut lines = base64(&noise(seed, length));
            let at = usize::from(at) * 37 % lines.len().max(1);
            lines.splice(at.min(lines.len())..at.min(lines.len()), *b"=\r\n");
            lines
        }),
        (0..6_u64, 30_000..60_000_usize).prop_map(|(seed, length)| message(seed, length)),
    ]
}

fn mail() -> impl Strategy<Value = Mail> {
    let name = || prop_oneof![Just(vec![]), Just(b"INBOX".to_vec()), vec(any::<u8>(), 1..12)];
    let date = (any::<i32>(), 0..1_000_000_000_u32, proptest::option::of(-900..900_i16));
    let flags = (0..64_u8, vec("[a-z$]{1,6}", 0..3));
    (name(), name(), vec(piece(), 0..8), proptest::option::of(date), flags, vec(any::<u8>(), 0..9), any::<bool>())
        .prop_map(|(mailbox, folder, pieces, date, (system, keywords), place, has_evidence)| {
            let octets = pieces.concat();
            let mut envelope = Envelope::new(Bytes::from(folder.clone()), Identity::Content);
            envelope.flags = Flags::new(SystemFlags::from_bits(system), keywords);
            envelope.internal_date = date.map(|(seconds, nanos, zone_minutes)| InternalDate {
                seconds: seconds.into(),
                nanos,
                zone_minutes,
            });
            envelope.before = Bytes::copy_from_slice(&place);
            envelope.after = Bytes::copy_from_slice(&place[..place.len() / 2]);
            envelope.place = place.into();
            if has_evidence {
                envelope.evidence = Evidence(Bytes::copy_from_slice(blake3::hash(&octets).as_bytes()));
            }
            Mail { mailbox, folder, envelope, octets }
        })
}

/// All that a message is, by where it is.
type Seen = BTreeMap<(Vec<u8>, Vec<u8>, Vec<u8>), (Vec<u8>, Envelope)>;

fn fill(mails: &[Mail]) -> (Memory, Seen) {
    let memory = Memory::new(SourceId::new([3; 16]));
    let mut seen = Seen::new();
    for (number, mail) in mails.iter().enumerate() {
        let mut envelope = mail.envelope.clone();
        let name = format!("{number}").into_bytes();
        envelope.identity = Identity::Named(Bytes::from(name.clone()));
        seen.insert((mail.mailbox.clone(), mail.folder.clone(), name), (mail.octets.clone(), envelope.clone()));
        memory.message(&MailboxName::new(mail.mailbox.clone()), envelope, mail.octets.clone());
    }
    (memory, seen)
}

fn restored(engine: &Engine) -> Seen {
    let sink = testing::sink::Memory::new(Kind::Other("memory".into()));
    let report = block_on(engine.restore(sink.clone()).finish()).unwrap();
    assert!(report.is_complete(), "{report:?}");
    let mut seen = Seen::new();
    for (mailbox, contents) in sink.mailboxes() {
        assert!(contents.is_finished);
        for message in contents.messages {
            let Identity::Named(name) = &message.envelope.identity else { panic!("a message lost its name") };
            let key = (mailbox.as_bytes().to_vec(), message.envelope.folder.to_vec(), name.to_vec());
            assert_eq!(message.length, message.octets.len() as u64);
            assert!(seen.insert(key, (message.octets, message.envelope)).is_none(), "a message came twice");
        }
    }
    seen
}

fn there_and_back(mails: &[Mail], resources: &Resources, settings: Settings, protection: Protection) {
    let (memory, seen) = fill(mails);
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let repository = block_on(Repository::open_or_create(Arc::clone(&store), protection.clone())).unwrap();
    let engine = Engine::builder(repository).resources(resources.clone()).settings(settings).build().unwrap();
    let report = block_on(engine.transfer(memory.clone()).finish()).unwrap();
    assert_eq!(report.ledger.messages.stored, seen.len() as u64);
    assert!(restored(&engine) == seen);
    // Once more: nothing is stored again, whatever must be read.
    let again = block_on(engine.transfer(memory.clone()).finish()).unwrap().ledger;
    assert_eq!((again.messages.stored, again.messages.unchanged), (0, seen.len() as u64));
    // Another process finds the same, whole and sound.
    let repository = block_on(Repository::open(store, protection)).unwrap();
    let engine = Engine::builder(repository).resources(resources.clone()).build().unwrap();
    assert!(restored(&engine) == seen);
    let check = block_on(engine.check().read_data(true).finish()).unwrap();
    assert!(check.is_sound() && check.rebuilt == seen.len() as u64, "{check:?}");
    let compared = block_on(engine.compare(memory).finish()).unwrap();
    assert!(compared.is_same() && compared.same == seen.len() as u64, "{compared:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_mail_comes_back_as_it_was_in_the_inline_mode(mails in vec(mail(), 0..20), is_sealed in any::<bool>()) {
        let resources = Resources::inline(Resources::MEMORY_BYTES_MIN).unwrap();
        let protection = if is_sealed { Protection::Key(Key::new([5; 32])) } else { Protection::None };
        there_and_back(&mails, &resources, Settings::default(), protection);
    }

    #[test]
    fn any_mail_comes_back_as_it_was_with_threads_and_other_cuts(
        mails in vec(mail(), 0..20), piece in 1..100_000_usize, commit in 1..30_u32, block in 4096..70_000_usize,
    ) {
        let resources = Resources::with(64 << 20, 3).unwrap();
        let mut settings = Settings::default();
        (settings.pack_bytes_max, settings.commit_messages_max) = (1 << 20, commit);
        (settings.cuts.piece_max, settings.recipe_block_bytes) = (piece.max(1000), block);
        there_and_back(&mails, &resources, settings, Protection::None);
    }

}

proptest! {
    // Each case moves some hundred MB.
    #![proptest_config(ProptestConfig { cases: 8, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn transfers_that_share_the_smallest_budget_get_on_whenever_the_store_does(
        seed in any::<u64>(), transfers in 1..5_usize, uploads in 1..9_usize,
    ) {
        little_memory(seed, transfers, &Resources::inline(Resources::MEMORY_BYTES_MIN).unwrap().uploads(uploads));
    }

    #[test]
    fn transfers_that_share_more_memory_get_on_whenever_the_store_does(seed in any::<u64>(), transfers in 2..6_usize) {
        little_memory(seed, transfers, &Resources::with_executor(96 << 20, Arc::new(ManyLanes)).unwrap());
    }
}

/// Works on the thread that polls, as if it were several: a transfer gets as many lanes.
#[derive(Debug)]
struct ManyLanes;

impl Executor for ManyLanes {
    fn execute(&self, job: Job) {
        job();
    }

    fn parallelism(&self) -> usize {
        4
    }
}

/// A transfer over a store whose writes are let through one by one.
struct Stalled {
    gate: StallHandle,
    engine: Engine,
    transfer: Driven<Result<Report>>,
    messages: u64,
}

fn little_memory(seed: u64, transfers: usize, resources: &Resources) {
    let clock = ManualClock::new(Duration::from_secs(1_000_000_000));
    let mut all: Vec<Stalled> = (0..transfers as u64)
        .map(|number| {
            let objects = MemoryStore::new();
            block_on(Repository::open_or_create(Arc::new(objects.clone()), Protection::None)).unwrap();
            let (store, gate) = StalledStore::new(Arc::new(objects));
            let mut settings = Settings::default();
            if common::random(seed, number).is_multiple_of(2) {
                (settings.pack_bytes_max, settings.commit_messages_max) = (1 << 20, 3);
            }
            let engine = common::engine(Arc::new(store), &clock, resources.clone(), settings, number);
            let (memory, messages) = much_mail(seed ^ number);
            let transfer = Driven::new(engine.transfer(memory).finish());
            Stalled { gate, engine, transfer, messages }
        })
        .collect();
    for turn in 0..1_000_000_u64 {
        if let Some(stalled) = all.iter_mut().find(|stalled| !stalled.transfer.is_done() && stalled.transfer.is_woken())
        {
            if let Some(report) = stalled.transfer.poll() {
                let ledger = report.unwrap().ledger;
                assert_eq!(ledger.messages.stored, stalled.messages);
                assert!(ledger.is_complete());
            }
            continue;
        }
        if all.iter().all(|stalled| stalled.transfer.is_done()) {
            break;
        }
        // None gets on by itself: somebody must be waiting for the store.
        let writing: Vec<&Stalled> = all.iter().filter(|stalled| stalled.gate.waiting() > 0).collect();
        assert!(!writing.is_empty(), "nobody gets on, and nobody waits for the store: {resources:?}");
        writing[common::random(seed, turn) as usize % writing.len()].gate.release(1);
    }
    assert!(all.iter().all(|stalled| stalled.transfer.is_done()));
    assert!(resources.budget().peak() <= resources.budget().octets());
    for stalled in all {
        stalled.gate.release_all();
        let check = block_on(stalled.engine.check().read_data(true).finish()).unwrap();
        assert!(check.is_sound() && check.messages == stalled.messages, "{check:?}");
    }
}

/// Giant messages among small ones, in several mailboxes.
fn much_mail(seed: u64) -> (Memory, u64) {
    let memory = Memory::new(SourceId::new([4; 16]));
    let messages = 20 + common::random(seed, 0) % 20;
    for number in 0..messages {
        let draw = common::random(seed, number + 1);
        let octets = match draw % 12 {
            0 => with_attachment(number, draw, 6 << 20),
            1 => message(draw, 1 << 20),
            2..5 => with_attachment(number, draw % 8, 200_000),
            _ => message(draw, 900),
        };
        memory.put(&MailboxName::new(format!("mailbox {}", draw >> 8 & 3)), "INBOX", number.to_string(), octets);
    }
    (memory, messages)
}

#[test]
fn a_restore_beside_transfers_in_the_smallest_budget_comes_to_its_end() {
    let world = World::with(Resources::inline(Resources::MEMORY_BYTES_MIN).unwrap(), Settings::default(), |memory| {
        Arc::new(memory)
    });
    let (memory, messages) = much_mail(1);
    assert_eq!(world.push(memory.clone()).messages.stored, messages);
    let sink = testing::sink::Memory::new(Kind::Other("memory".into()));
    let engine = &world.engine;
    let (restored, pushed, checked) = block_on(async {
        futures::join!(
            engine.restore(sink.clone()).finish(),
            engine.transfer(much_mail(2).0).finish(),
            engine.check().read_data(true).finish()
        )
    });
    assert_eq!(restored.unwrap().failed, 0);
    pushed.unwrap();
    assert!(checked.unwrap().is_sound());
}
