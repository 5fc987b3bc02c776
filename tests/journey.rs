//! The journey of a mailbox: into a repository, and back.

use futures::executor::block_on;
use mailrail::organisation::Organisation;
use mailrail::store::MemoryStore;
use mailrail::{Engine, Protection, Repository, Resources};
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
