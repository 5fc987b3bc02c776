//! In the inline mode a whole transfer is deterministic: the same source, seed and clock give the same objects, octet for octet.
#![cfg(all(feature = "testing", feature = "organisation"))]

use bytes::Bytes;
use futures::TryStreamExt;
use futures::executor::block_on;
use mailrail::organisation::Organisation;
use mailrail::repository::Seams;
use mailrail::store::{MemoryStore, Store};
use mailrail::testing::{ManualClock, SeededRandomness};
use mailrail::transfer::Outcome;
use mailrail::{Engine, Key, Protection, Repository, Resources};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

type Objects = BTreeMap<String, Bytes>;

/// The outcomes, the ledger and all objects of a run.
fn run(protection: &Protection, seed: u64) -> (Vec<Outcome>, String, Objects) {
    let organisation = Organisation::new(3).mailboxes(5).bytes(24 << 20).build();
    let store = Arc::new(MemoryStore::new());
    block_on(async {
        let mut seams = Seams::default();
        seams.clock = Arc::new(ManualClock::new(Duration::from_secs(1_700_000_000)));
        seams.randomness = Arc::new(SeededRandomness::new(seed));
        let shared: Arc<dyn Store> = store.clone();
        let repository = Repository::open_or_create_with(shared, protection.clone(), seams).await.unwrap();
        let resources = Resources::inline(64 << 20).unwrap();
        let engine = Engine::builder(repository).resources(resources).build().unwrap();
        let mut transfer = engine.transfer(organisation);
        let mut outcomes = Vec::new();
        while let Some(outcome) = transfer.next().await {
            outcomes.push(outcome);
        }
        let ledger = format!("{:?}", transfer.finish().await.unwrap().ledger);
        let listed: Vec<_> = store.list("").try_collect().await.unwrap();
        let mut objects = Objects::new();
        for object in listed {
            let octets = store.read(&object.key, None).await.unwrap();
            objects.insert(object.key, octets);
        }
        (outcomes, ledger, objects)
    })
}

#[test]
fn two_runs_give_the_same_outcomes_ledger_and_objects() {
    for protection in [Protection::None, Protection::Key(Key::new([9; 32]))] {
        let (one, two) = (run(&protection, 1), run(&protection, 1));
        assert!(one.0 == two.0, "outcomes differ");
        assert_eq!(one.1, two.1);
        assert!(one.2 == two.2, "objects differ");
        assert!(one.2.len() > 8 && !one.0.is_empty());
    }
}

#[test]
fn with_another_seed_the_ledger_is_the_same_and_no_sealed_object_is() {
    let protection = Protection::Key(Key::new([9; 32]));
    let (one, two) = (run(&protection, 1), run(&protection, 2));
    assert_eq!(one.0.len(), two.0.len());
    let both: Vec<&Bytes> = one.2.values().filter(|octets| two.2.values().any(|other| other == *octets)).collect();
    assert!(both.is_empty(), "{} objects are the same under two keys' worth of salts", both.len());
}
