//! The dedup index on disk, through whole engines: what one process stored the next one finds, whatever became of the directory, and nothing stale.
#![cfg(all(feature = "testing", feature = "disk-index"))]

mod common;

use common::{World, delivered, push, with_attachment};
use futures::TryStreamExt;
use futures::executor::block_on;
use mailrail::message::MailboxName;
use mailrail::source::{Memory, SourceId};
use mailrail::store::MemoryStore;
use mailrail::{Engine, ErrorKind, Resources, Settings};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;

const MEMORY: u64 = 64 << 20;
const INDEX: u64 = 8 << 20;
/// Long enough for the lasting index.
const LENGTH: usize = 50_000;

fn resources(directory: &Path) -> Resources {
    Resources::with(MEMORY, 2).unwrap().index_in(directory, INDEX).unwrap()
}

/// Messages to a mailbox, each with an attachment of its own of those that are told.
fn mail(mailbox: &str, contents: std::ops::Range<u64>) -> Memory {
    let source = Memory::new(SourceId::new([mailbox.as_bytes()[0]; 16]));
    for content in contents {
        let octets = with_attachment(content + 1000 * u64::from(mailbox.as_bytes()[0]), content, LENGTH);
        source.put(&MailboxName::new(mailbox), "INBOX", format!("{content}"), octets);
    }
    source
}

struct Place {
    world: World,
    directory: TempDir,
    processes: u64,
}

impl Place {
    /// A repository into which another process has pushed a mailbox with forty attachments, without an index on disk.
    fn new() -> Self {
        let world = World::inline();
        let directory = tempfile::tempdir().unwrap();
        push(&world.engine, mail("anna", 0..40));
        Self { world, directory, processes: 1 }
    }

    /// Another process, with the index on disk.
    fn process(&mut self) -> Engine {
        self.processes += 1;
        self.world.another(resources(self.directory.path()), Settings::default(), self.processes)
    }

    /// How many attachments a process pushes that the repository has already.
    fn push(&mut self, mailbox: &str, contents: std::ops::Range<u64>) -> u64 {
        let engine = self.process();
        let ledger = push(&engine, mail(mailbox, contents));
        ledger.bytes.duplicate / LENGTH as u64
    }

    /// Everything comes back, each once.
    fn check(&self, messages: usize) {
        let (delivered, report) = delivered(&self.world.engine);
        assert!(report.is_complete(), "{report:#?}");
        assert_eq!(delivered.len(), messages);
        let check = block_on(self.world.engine.check().read_data(true).finish()).unwrap();
        assert!(check.is_sound(), "{check:#?}");
    }
}

#[test]
fn what_one_process_stored_the_next_one_finds() {
    let mut place = Place::new();
    assert_eq!(place.push("bert", 0..60), 40);
    // The rows that the last process wrote, and those that it published.
    assert_eq!(place.push("cora", 0..70), 60);
    place.check(170);
}

#[test]
fn a_directory_that_is_lost_emptied_or_damaged_is_made_anew() {
    let mut place = Place::new();
    assert_eq!(place.push("bert", 0..40), 40);
    fs::remove_dir_all(place.directory.path()).unwrap();
    assert_eq!(place.push("cora", 0..40), 40);
    for entry in fs::read_dir(place.directory.path()).unwrap() {
        let path = entry.unwrap().path();
        let octets = fs::read(&path).unwrap();
        fs::write(&path, &octets[..octets.len() / 2]).unwrap();
    }
    assert_eq!(place.push("dora", 0..40), 40);
    for entry in fs::read_dir(place.directory.path()).unwrap() {
        let path = entry.unwrap().path();
        let mut octets = fs::read(&path).unwrap();
        octets.iter_mut().step_by(64).for_each(|octet| *octet ^= 4);
        fs::write(&path, octets).unwrap();
    }
    assert_eq!(place.push("emil", 0..40), 40);
    place.check(200);
}

#[test]
fn what_others_stored_meanwhile_is_taken_in() {
    let mut place = Place::new();
    assert_eq!(place.push("bert", 0..40), 40);
    // A process that has no index on disk.
    let other = place.world.another(Resources::inline(MEMORY).unwrap(), Settings::default(), 99);
    push(&other, mail("cora", 40..80));
    assert_eq!(place.push("dora", 0..90), 80);
    place.check(210);
}

#[test]
fn segments_are_read_once() {
    let mut place = Place::new();
    place.push("bert", 0..40);
    place.push("cora", 0..40);
    let segments = block_on(place.world.store.list("index/").try_collect::<Vec<_>>()).unwrap();
    assert!(!segments.is_empty());
    // If it read them, it would not know what they had.
    for segment in segments {
        block_on(place.world.store.delete(&segment.key)).unwrap();
    }
    assert_eq!(place.push("dora", 0..40), 40);
    place.check(160);
}

#[test]
fn what_a_sweep_deleted_is_no_hit_for_a_directory_that_remembers_it() {
    let mut place = Place::new();
    assert_eq!(place.push("bert", 0..40), 40);
    let engine = &place.world.engine;
    block_on(engine.forget().all_mailboxes().finish()).unwrap();
    let swept = block_on(engine.sweep().finish()).unwrap();
    assert!(swept.deleted_packs.objects > 0, "{swept:?}");
    assert_eq!(place.push("cora", 0..40), 0, "nothing is there any more");
    assert_eq!(place.push("dora", 0..40), 40);
    place.check(80);
}

#[test]
fn a_sweep_while_a_process_lives_makes_no_stale_hit() {
    let mut place = Place::new();
    let engine = place.process();
    assert_eq!(push(&engine, mail("bert", 0..40)).bytes.duplicate, 40 * LENGTH as u64);
    block_on(place.world.engine.forget().all_mailboxes().finish()).unwrap();
    block_on(place.world.engine.sweep().finish()).unwrap();
    assert_eq!(push(&engine, mail("cora", 0..40)).bytes.duplicate, 0);
    assert_eq!(push(&engine, mail("dora", 0..40)).bytes.duplicate, 40 * LENGTH as u64);
    drop(engine);
    place.check(80);
}

#[test]
fn two_repositories_share_a_directory() {
    let mut place = Place::new();
    let shared = resources(place.directory.path());
    let first = place.world.another(shared.clone(), Settings::default(), 7);
    // Another repository: other ids, and digests keyed apart.
    let other = common::engine(Arc::new(MemoryStore::new()), &place.world.clock, shared, Settings::default(), 8);
    assert_eq!(push(&other, mail("bert", 0..40)).bytes.duplicate, 0);
    assert_eq!(push(&first, mail("bert", 0..40)).bytes.duplicate, 40 * LENGTH as u64);
    assert_eq!(push(&other, mail("cora", 0..40)).bytes.duplicate, 40 * LENGTH as u64);
    let (delivered, report) = delivered(&other);
    assert!(report.is_complete() && delivered.len() == 80, "{report:#?}");
    drop((first, other));
    assert_eq!(place.push("cora", 0..40), 40);
    place.check(120);
}

#[test]
fn a_directory_in_use_and_a_budget_that_is_too_small_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let first = resources(directory.path());
    let second = Resources::with(MEMORY, 1).unwrap().index_in(directory.path(), INDEX).unwrap_err();
    assert_eq!(second.kind(), ErrorKind::Unavailable);
    let extent = first.index_extent().unwrap();
    assert_eq!((extent.rows, extent.dropped), (0, 0));
    drop(first);
    drop(resources(directory.path()));
    for (memory, index) in [(MEMORY, INDEX - 1), (MEMORY, MEMORY / 2), (32 << 20, INDEX), (40 << 20, INDEX)] {
        let refused = Resources::with(memory, 1).unwrap().index_in(directory.path(), index).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Invalid, "{memory} {index}");
    }
}

#[test]
fn the_smallest_budget_beside_an_index_is_enough_to_push() {
    let directory = tempfile::tempdir().unwrap();
    let world = World::inline();
    // The index has as much as it may have.
    for memory in [43_u64 << 20, MEMORY, 1 << 30] {
        let most = (memory - (32 << 20)) / 16 * 13;
        let resources = Resources::with(memory, 2).unwrap().index_in(directory.path(), most).unwrap();
        let engine = world.another(resources, Settings::default(), memory);
        let name = format!("m{memory}");
        assert_eq!(push(&engine, mail(&name, 0..40)).messages.stored, 40);
    }
}
