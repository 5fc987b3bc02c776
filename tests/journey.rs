//! The journey of a mailbox: into a repository, and back.
#![cfg(feature = "organisation")]

use bytes::Bytes;
use futures::TryStreamExt;
use futures::executor::block_on;
use futures::future::join;
use mailrail::message::{Envelope, Identity, MailboxName};
use mailrail::organisation::Organisation;
use mailrail::source::SourceId;
use mailrail::store::MemoryStore;
use mailrail::transfer::Settled;
use mailrail::{Engine, Key, Protection, Repository, Resources, sink, source};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

#[test]
fn an_organisation_is_stored_and_a_second_run_finds_nothing_new() {
    let organisation = Organisation::new(1).mailboxes(4).bytes(20 << 20).build();
    let store = Arc::new(MemoryStore::new());
    block_on(async {
        let repository = Repository::open_or_create(store, Protection::None).await.unwrap();
        let engine = Engine::builder(repository).resources(Resources::inline(64 << 20).unwrap()).build().unwrap();
        let report = engine.transfer(organisation.clone()).finish().await.unwrap();
        println!("{report:#?}");
        assert_eq!(report.ledger.messages.stored, organisation.message_count());
        assert!(report.ledger.is_complete());
        let second = engine.transfer(organisation.clone()).finish().await.unwrap();
        println!("{second:#?}");
        assert_eq!(second.ledger.messages.unchanged, organisation.message_count());
        assert_eq!(second.ledger.bytes.read, 0);
    });
}

#[test]
fn a_tree_of_maildirs_comes_back_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let (from, to) = (directory.path().join("from"), directory.path().join("to"));
    Organisation::new(2).mailboxes(3).bytes(10 << 20).build().write_maildirs(&from).unwrap();
    let store = Arc::new(MemoryStore::new());
    block_on(async {
        let protection = Protection::Key(Key::new([7; 32]));
        let repository = Repository::open_or_create(store, protection).await.unwrap();
        let engine = Engine::builder(repository).resources(Resources::with(64 << 20, 2).unwrap()).build().unwrap();
        let report = engine.transfer(source::Maildir::open(&from).unwrap()).finish().await.unwrap();
        assert!(report.ledger.is_complete(), "{report:?}");
        let restored = engine.restore(sink::Maildir::new(&to)).finish().await.unwrap();
        assert!(restored.is_complete(), "{restored:?}");
        assert_eq!(restored.restored, report.ledger.messages.stored);
        let second = engine.transfer(source::Maildir::open(&from).unwrap()).finish().await.unwrap();
        assert_eq!((second.ledger.messages.stored, second.ledger.bytes.read), (0, 0));
    });
    same_trees(&from, &to);
}

#[test]
fn what_is_appended_is_durable_when_the_append_resolves_and_can_be_read_alone() {
    let store = Arc::new(MemoryStore::new());
    block_on(async {
        let repository = Repository::open_or_create(store, Protection::None).await.unwrap();
        let engine = Engine::builder(repository).resources(Resources::inline(64 << 20).unwrap()).build().unwrap();
        let name = MailboxName::new("anna");
        let attachment = vec![b'x'; 100_000];
        let messages = [b"Subject: one\n\nfirst\n".to_vec(), with_attachment(&attachment)];
        let (appender, transfer) = engine.append_to(name.clone(), SourceId::new([1; 16]));
        let appends = async {
            assert!(!appender.has("", "one").await.unwrap());
            for (number, octets) in messages.iter().enumerate() {
                let envelope = Envelope::new("", Identity::Named(Bytes::from(number.to_string())));
                let settled = appender.append(envelope, octets.clone()).await.unwrap();
                assert!(matches!(settled, Settled::Stored { length, .. } if length == octets.len() as u64));
                // Whoever opens the mailbox now sees it.
                assert_eq!(engine.messages(&name, None).await.unwrap().messages.len(), number + 1);
            }
            drop(appender);
        };
        let ((), report) = join(appends, transfer.finish()).await;
        assert_eq!(report.unwrap().ledger.messages.stored, 2);
        for (ordinal, octets) in messages.iter().enumerate() {
            let read = engine.read(&name, ordinal as u64).await.unwrap().try_collect::<Vec<_>>().await.unwrap();
            assert_eq!(read.concat(), *octets);
        }
        let parts = engine.parts(&name, 1).await.unwrap();
        assert_eq!(parts[1].name.as_deref(), Some("x.bin"));
        let content = engine.read_part(&name, 1, 1).await.unwrap().try_collect::<Vec<_>>().await.unwrap();
        assert_eq!(content.concat(), attachment);
        let (appender, transfer) = engine.append_to(name.clone(), SourceId::new([1; 16]));
        let question = async {
            let has = appender.has("", "1").await.unwrap();
            drop(appender);
            has
        };
        assert!(join(question, transfer.finish()).await.0);
        assert_eq!(engine.statistics().await.unwrap().messages, 2);
    });
}

fn with_attachment(content: &[u8]) -> Vec<u8> {
    let mut octets = b"MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n--b\n\ntext\n--b\n".to_vec();
    octets.extend_from_slice(
        b"Content-Type: application/octet-stream; name=x.bin\nContent-Transfer-Encoding: base64\n\n",
    );
    let encoded = base64_simd::STANDARD.encode_to_string(content);
    for line in encoded.as_bytes().chunks(76) {
        octets.extend_from_slice(line);
        octets.push(b'\n');
    }
    octets.extend_from_slice(b"--b--\n");
    octets
}

fn same_trees(a: &Path, b: &Path) {
    let diff = Command::new("diff").arg("-r").arg(a).arg(b).output().unwrap();
    assert!(diff.status.success(), "{}", String::from_utf8_lossy(&diff.stdout));
}
