//! The journey of a mailbox: into a repository, and back.

use futures::executor::block_on;
use mailrail::organisation::Organisation;
use mailrail::store::MemoryStore;
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

fn same_trees(a: &Path, b: &Path) {
    let diff = Command::new("diff").arg("-r").arg(a).arg(b).output().unwrap();
    assert!(diff.status.success(), "{}", String::from_utf8_lossy(&diff.stdout));
}
