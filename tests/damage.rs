//! Damage of every kind, to every kind of object: it is noticed, it is named, and what it does not touch comes back.
#![cfg(feature = "testing")]

use bytes::Bytes;
use futures::TryStreamExt;
use futures::executor::block_on;
use mailrail::message::{Identity, MailboxName};
use mailrail::repository::SlotKind;
use mailrail::source::{self, Kind, SourceId};
use mailrail::store::{MemoryStore, Store};
use mailrail::testing::sink;
use mailrail::{Engine, ErrorKind, Key, Protection, Repository, Resources, Settings};
use std::collections::BTreeMap;
use std::sync::Arc;

type Messages = BTreeMap<(MailboxName, Bytes), Vec<u8>>;

const DAMAGES: [&str; 5] = ["missing", "empty", "cut", "flipped in front", "flipped behind"];

/// A store with three mailboxes in it, pushed in two runs, and what should come back.
fn world(protection: &Protection) -> (MemoryStore, Messages) {
    let (store, source, mut expected) =
        (MemoryStore::new(), source::Memory::new(SourceId::new([1; 16])), Messages::new());
    for run in 0..2_u8 {
        for mailbox in 0..3_u8 {
            for number in 0..4_u8 {
                let name = Bytes::from(format!("{run}.{number}"));
                let octets = message(run * 4 + number, mailbox);
                source.put(&MailboxName::new([b'a' + mailbox]), "INBOX", name.clone(), octets.clone());
                expected.insert((MailboxName::new([b'a' + mailbox]), name), octets);
            }
        }
        block_on(async {
            let engine = engine(&store, protection).await.unwrap();
            assert!(engine.transfer(source.clone()).finish().await.unwrap().ledger.is_complete());
        });
    }
    (store, expected)
}

/// A message whose long text, which becomes a blob, is shared by all mailboxes.
fn message(number: u8, mailbox: u8) -> Vec<u8> {
    let mut octets = format!("Subject: {number} in {mailbox}\n\n").into_bytes();
    octets.extend((0..60_000_u32).map(|at| b' ' + (at.wrapping_mul(2_654_435_761) >> 24) as u8 % 64 + number % 2));
    octets
}

async fn engine(store: &MemoryStore, protection: &Protection) -> mailrail::Result<Engine> {
    let repository = Repository::open_or_create(Arc::new(store.clone()), protection.clone()).await?;
    let resources = Resources::inline(Resources::MEMORY_BYTES_MIN)?;
    Engine::builder(repository).resources(resources).settings(Settings::default()).build()
}

fn keys(store: &MemoryStore) -> Vec<String> {
    let listed: Vec<_> = block_on(store.list("").try_collect()).unwrap();
    listed.into_iter().map(|object| object.key).collect()
}

/// A copy of the store with one object damaged.
fn damaged(store: &MemoryStore, key: &str, how: &str) -> MemoryStore {
    let (copy, keys) = (MemoryStore::new(), keys(store));
    block_on(async {
        for other in keys {
            let octets = store.read(&other, None).await.unwrap();
            let mut octets = octets.to_vec();
            if other == key {
                match how {
                    "missing" => continue,
                    "empty" => octets.clear(),
                    "cut" => octets.truncate(octets.len() - 7),
                    "flipped in front" => octets[9] ^= 1,
                    _ => *octets.last_mut().unwrap() ^= 1,
                }
            }
            copy.put(&other, octets.into()).await.unwrap();
        }
    });
    copy
}

#[test]
fn whatever_is_damaged_check_names_it_and_restore_gives_all_that_it_does_not_touch() {
    for protection in [Protection::None, Protection::Key(Key::new([5; 32]))] {
        let (store, expected) = world(&protection);
        let sound =
            block_on(async { engine(&store, &protection).await.unwrap().check().read_data(true).finish().await });
        let sound = sound.unwrap();
        assert!(sound.is_sound() && sound.rebuilt == 24, "{sound:?}");
        for key in keys(&store) {
            for how in DAMAGES {
                let what = format!("{key} {how}");
                one(&damaged(&store, &key, how), &protection, &expected, &key, &what);
            }
        }
    }
}

/// One damaged repository.
fn one(store: &MemoryStore, protection: &Protection, expected: &Messages, key: &str, what: &str) {
    if key == "config" || key.starts_with("keys/") {
        match block_on(Repository::open(Arc::new(store.clone()), protection.clone())) {
            // What a key slot says of itself is damaged; what it wraps is not.
            Ok(repository) => {
                let slots = block_on(repository.keys().list()).expect(what);
                assert!(key != "config" && slots[0].kind == SlotKind::Unreadable, "{what}: {slots:?}");
            }
            Err(error) => assert!(
                matches!(
                    error.kind(),
                    ErrorKind::Damaged | ErrorKind::NotFound | ErrorKind::Key | ErrorKind::Unsupported
                ),
                "{what}: {error:?}"
            ),
        }
        return;
    }
    block_on(async {
        let engine = engine(store, protection).await.unwrap();
        let check = engine.check().read_data(true).finish().await;
        let sink = sink::Memory::new(Kind::Eml);
        let restored = engine.restore(sink.clone()).finish().await;
        let is_last = is_undetectable_end(key, what);
        if let Ok(check) = &check {
            assert!(!check.is_sound() || is_last, "{what}: not noticed");
            let names_it = check.damaged.iter().any(|damage| same_object(&damage.object, key));
            assert!(names_it || is_last, "{what}: not named in {:?}", check.damaged);
        }
        let report = restored.unwrap_or_else(|error| panic!("{what}: {error:?}"));
        let mut found = 0;
        for (mailbox, delivered) in sink.mailboxes() {
            for message in delivered.messages {
                let Identity::Named(name) = message.envelope.identity else { panic!("{what}: unnamed") };
                assert_eq!(expected.get(&(mailbox.clone(), name)), Some(&message.octets), "{what}");
                found += 1;
            }
        }
        assert!(
            found == expected.len() || report.failed > 0 || is_last,
            "{what}: {found} came back, and nothing is said"
        );
        if key.starts_with("index/") || key.starts_with("runs/") {
            assert_eq!(found, expected.len(), "{what}");
        }
        if key.starts_with("mailboxes/") {
            assert!(found >= 16, "{what}: other mailboxes were touched, {found} came back");
        }
    });
}

/// Derived objects that are missing are not missed; a last commit that is missing shows only by the run record, and that is named in its place.
fn is_undetectable_end(key: &str, what: &str) -> bool {
    what.ends_with("missing")
        && (key.starts_with("index/") || key.starts_with("runs/") || key.starts_with("mailboxes/"))
}

/// Whether the damage named is of this object, or of the journal that it belongs to.
fn same_object(named: &str, key: &str) -> bool {
    named == key
        || (key.starts_with("mailboxes/")
            && named.rsplit_once('/').map(|(journal, _)| journal) == key.rsplit_once('/').map(|(journal, _)| journal))
}
