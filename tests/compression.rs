//! How hard content is compressed: as hard as the store leaves time for, unless a level is told; and whatever it is, the mail comes back.
#![cfg(all(feature = "testing", feature = "organisation"))]

mod common;

use common::{Driven, World, engine, numbers};
use futures::executor::block_on;
use mailrail::ledger::Ledger;
use mailrail::organisation::Organisation;
use mailrail::testing::{StallHandle, StalledStore};
use mailrail::{Compression, Engine, ErrorKind, Protection, Repository, Resources, Settings};
use std::cell::OnceCell;
use std::sync::Arc;

/// Pushes an organisation into many small packs. A slow store does one write whenever nothing else can be done; a fast one does all at once.
fn push(compression: Compression, is_slow: bool) -> Ledger {
    let mut settings = Settings::default();
    (settings.compression, settings.pack_bytes_max) = (compression, 64 << 10);
    let handle: OnceCell<StallHandle> = OnceCell::new();
    let world = World::with(Resources::inline(64 << 20).unwrap(), settings, |memory| {
        let (store, stall) = StalledStore::new(Arc::new(memory));
        // The repository itself is made at once.
        if is_slow {
            stall.release(2)
        } else {
            stall.release_all()
        }
        let _ = handle.set(stall);
        Arc::new(store)
    });
    let organisation = Organisation::new(3).mailboxes(3).bytes(16 << 20).build();
    let mut driven = Driven::new(world.engine.transfer(organisation).finish());
    let report = loop {
        if let Some(report) = driven.poll() {
            break report.unwrap();
        }
        handle.get().unwrap().release(1);
    };
    handle.get().unwrap().release_all();
    let reader =
        engine(Arc::clone(&world.store), &world.clock, Resources::inline(64 << 20).unwrap(), Settings::default(), 2);
    let check = block_on(reader.check().read_data(true).finish()).unwrap();
    assert!(check.is_sound(), "{check:#?}");
    report.ledger
}

#[test]
fn what_waits_for_the_store_is_compressed_harder_unless_a_level_is_told() {
    let (fast, slow) = (push(Compression::Adaptive, false), push(Compression::Adaptive, true));
    assert_eq!(numbers(&fast), numbers(&slow));
    assert!(slow.bytes.compressed < fast.bytes.compressed, "{} and {}", slow.bytes.compressed, fast.bytes.compressed);
    let [fast, slow, harder] = [(2, false), (2, true), (9, false)]
        .map(|(level, is_slow)| push(Compression::Level(level), is_slow).bytes.compressed);
    assert_eq!(fast, slow);
    assert!(harder < fast, "{harder} and {fast}");
}

#[test]
fn a_level_whose_memory_does_not_fit_in_the_budget_is_refused_before_any_work() {
    let build = |memory: u64| {
        let mut settings = Settings::default();
        settings.compression = Compression::Level(19);
        let store = Arc::new(mailrail::store::MemoryStore::new());
        let repository = block_on(Repository::open_or_create(store, Protection::None)).unwrap();
        Engine::builder(repository).resources(Resources::inline(memory).unwrap()).settings(settings).build()
    };
    let error = build(128 << 20).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("MiB"), "{error}");
    assert!(build(256 << 20).is_ok());
}
