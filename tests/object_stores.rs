//! Real servers: the contract of a store, and the journey of a sealed organisation. `tests/servers/servers.py install DIR NAME...` installs them,
//! `MAILRAIL_SERVERS=DIR` has them used; what is not there is skipped, and said to be.
#![cfg(all(
    feature = "azure",
    feature = "conformance",
    feature = "organisation",
    feature = "report-json",
    feature = "s3",
    feature = "testing"
))]

#[allow(dead_code, reason = "tests/fire uses more of it")]
#[path = "servers/mod.rs"]
mod servers;

use futures::TryStreamExt;
use mailrail::organisation::Organisation;
use mailrail::runtime::SystemTimer;
use mailrail::store::{Retries, RetryingStore, Store, StoreOptions, StoreUrl, Writers};
use mailrail::testing::store_conformance;
use mailrail::{Engine, ErrorKind, Key, Protection, Repository, Resources, Settings, sink, source};
use servers::{Server, same_trees};
use std::sync::Arc;
use tokio::runtime::Runtime;

/// Options of a server, with no findings of before.
fn options(server: &Server) -> StoreOptions {
    server.options().iter().fold(StoreOptions::new(), |options, (name, value)| options.option(name, value))
}

/// The store below a prefix. Must be called inside of a runtime.
fn open(server: &Server, prefix: &str, options: StoreOptions) -> Arc<dyn Store> {
    let url: StoreUrl = format!("{}/{prefix}", server.url()).parse().unwrap();
    url.open(&options).unwrap()
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// A well-behaved server holds the contract and brings an organisation back.
fn is_well_behaved(name: &str) {
    let Some(server) = &Server::start(name) else { return };
    let runtime = runtime();
    runtime.block_on(async {
        // As a repository has it: what fails for now is tried again.
        let store = open(server, "Mail of 2026/b_c", options(server));
        let store = RetryingStore::new(store, Retries::default(), Arc::new(SystemTimer), 1);
        store_conformance(&store).await.unwrap();
        larger_objects_go_in_parts(server).await;
        journey(server).await;
    });
}

/// A server that does not keep what writers rely on is refused, and nothing is written to it, unless it is vouched that there is one writer.
fn is_refused(name: &str) {
    let Some(server) = &Server::start(name) else { return };
    let protection = || Protection::Key(Key::new([7; 32]));
    runtime().block_on(async {
        for time in 0..10 {
            let prefix = time.to_string();
            let store = open(server, &prefix, options(server));
            let refused = Repository::open_or_create(store, protection()).await.unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Unsupported, "{refused:?}");
            assert!(refused.to_string().contains("--single-writer"), "{refused}");
            let left = open(server, &prefix, options(server)).list("").try_collect::<Vec<_>>().await.unwrap();
            assert!(left.is_empty(), "{left:?}");
        }
        let one = options(server).writers(Writers::One);
        Repository::open_or_create(open(server, "one", one), protection()).await.unwrap();
    });
}

async fn larger_objects_go_in_parts(server: &Server) {
    let options = options(server).option("multipart_above", "5242880").option("part_bytes", "5242880");
    let store = open(server, "parts", options);
    for length in [5 << 20, (5 << 20) + 1, (16 << 20) + 7] {
        let octets: Vec<u8> = (0..length).map(|at: u32| (at % 251) as u8).collect();
        store.put("object", octets.clone().into()).await.unwrap();
        assert!(store.read("object", None).await.unwrap() == octets, "{length}");
        let range = 5_242_870..5_242_890;
        let part = store.read("object", Some(range.start as u64..range.end as u64)).await.unwrap();
        assert!(part == octets[range.start..range.end.min(octets.len())], "{length}");
    }
    store.delete("object").await.unwrap();
}

/// Push, check, restore, push again, forget, sweep.
async fn journey(server: &Server) {
    let directory = tempfile::tempdir().unwrap();
    let (from, to, left) = (directory.path().join("from"), directory.path().join("to"), directory.path().join("left"));
    Organisation::new(5).mailboxes(3).bytes(40 << 20).build().write_maildirs(&from).unwrap();
    // Small parts, so that packs go in several.
    let options = options(server).option("multipart_above", "5242880").option("part_bytes", "5242880");
    let store = open(server, "journey", options);
    let protection = || Protection::Key(Key::new([7; 32]));
    let repository = Repository::open_or_create(Arc::clone(&store), protection()).await.unwrap();
    let engine = engine(repository);
    let mail = || source::Maildir::open(&from).unwrap();

    let pushed = engine.transfer(mail()).finish().await.unwrap();
    assert!(pushed.ledger.is_complete() && pushed.ledger.messages.stored > 0, "{pushed:#?}");
    let checked = engine.check().read_data(true).finish().await.unwrap();
    assert!(checked.is_sound(), "{checked:#?}");
    let restored = engine.restore(sink::Maildir::new(&to)).finish().await.unwrap();
    assert!(restored.is_complete() && restored.restored == pushed.ledger.messages.stored, "{restored:#?}");
    same_trees(&from, &to);

    // Another process.
    let engine = self::engine(Repository::open(store, protection()).await.unwrap());
    let second = engine.transfer(mail()).finish().await.unwrap();
    assert_eq!((second.ledger.messages.stored, second.ledger.bytes.read), (0, 0), "{second:#?}");

    let mailboxes = engine.repository().mailboxes().await.unwrap();
    let [kept, forgotten @ ..] = &mailboxes[..] else { panic!("there are mailboxes") };
    engine.forget().mailboxes(forgotten.to_vec()).finish().await.unwrap();
    let swept = engine.sweep().finish().await.unwrap();
    assert!(swept.bytes_freed() > 0, "{swept:#?}");
    let checked = engine.check().read_data(true).finish().await.unwrap();
    assert!(checked.is_sound(), "{checked:#?}");
    let restored = engine.restore(sink::Maildir::new(&left)).finish().await.unwrap();
    assert!(restored.is_complete() && restored.restored > 0, "{restored:#?}");
    assert!(engine.repository().mailboxes().await.unwrap().iter().eq([kept]));
    let restored = std::fs::read_dir(&left).unwrap().map(|entry| entry.unwrap().file_name());
    for name in restored {
        same_trees(&from.join(&name), &left.join(&name));
    }
}

fn engine(repository: Repository) -> Engine {
    let resources = Resources::with(64 << 20, 2).unwrap();
    Engine::builder(repository).resources(resources).settings(Settings::default()).build().unwrap()
}

#[test]
fn azurite_is_well_behaved() {
    is_well_behaved("azurite");
}

#[test]
fn seaweedfs_is_well_behaved() {
    is_well_behaved("seaweedfs");
}

#[test]
fn moto_is_well_behaved() {
    is_well_behaved("moto");
}

#[test]
fn s3s_fs_is_refused() {
    is_refused("s3s-fs");
}

/// It takes minutes to build, so that it is hardly ever there.
#[test]
fn garage_is_refused() {
    is_refused("garage");
}
