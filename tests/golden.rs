//! Golden repositories: what this version of the format wrote once reads forever.
//!
//! Under `tests/golden` are two repositories with an object of every kind, one sealed and one not, and the list of what a restore must deliver from
//! each. A version that reads them no more needs a new version of the format. Only to add to them, they are written anew:
//!
//! `MAILRAIL_WRITE_GOLDEN=1 cargo test --all-features --test golden`
#![cfg(all(feature = "testing", feature = "passphrase"))]

mod common;

use bytes::Bytes;
use common::{Driven, delivered, mbox, message, with_attachment};
use futures::TryStreamExt;
use futures::executor::block_on;
use mailrail::message::{
    Companion, Envelope, Evidence, Flags, Folder, FolderPath, Identity, InternalDate, MailboxName, SystemFlags,
};
use mailrail::repository::Seams;
use mailrail::source::{Kind, Mbox, Memory, SourceId};
use mailrail::store::{FileStore, Listed, MemoryStore, Store};
use mailrail::testing::source::{Fault, Scripted};
use mailrail::testing::{ManualClock, SeededRandomness, StalledStore};
use mailrail::{Engine, Key, Passphrase, PassphraseCost, Protection, Repository, Resources, Settings};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

const SOURCE: SourceId = SourceId::new([9; 16]);
const KEY: [u8; 32] = [42; 32];
const PASSPHRASE: &str = "an older one";
/// Of every kind of object there is one.
const KINDS: [&str; 11] =
    ["config", "config.copy", "keys", "packs", "mailboxes", "index", "runs", "bad", "moves", "sweeps", "approvals"];

#[test]
fn an_open_repository_of_old_reads_as_ever() {
    reads("open", Protection::None);
}

#[test]
fn a_sealed_repository_of_old_reads_as_ever_with_key_and_passphrase() {
    reads("sealed", Protection::Key(Key::new(KEY)));
    reads("sealed", passphrase());
}

#[test]
fn every_kind_of_object_is_in_them() {
    let all = KINDS.map(str::to_owned).into_iter().collect::<BTreeSet<String>>();
    let kinds = |name: &str| -> BTreeSet<String> {
        let objects: Vec<Listed> = block_on(load(name).list("").try_collect()).unwrap();
        objects.iter().map(|object| object.key.split('/').next().unwrap_or_default().to_owned()).collect()
    };
    assert_eq!(kinds("sealed"), all);
    let open: BTreeSet<String> = all.into_iter().filter(|kind| kind != "keys").collect();
    assert_eq!(kinds("open"), open);
}

/// Reads a golden repository, all of it, and goes on with it.
fn reads(name: &str, protection: Protection) {
    if std::env::var_os("MAILRAIL_WRITE_GOLDEN").is_some() {
        write(name);
    }
    let store = load(name);
    let expected = fs::read_to_string(golden(&format!("{name}.txt"))).unwrap();
    let clock = ManualClock::new(Duration::from_secs(1_900_000_000));
    let engine = engine(Arc::new(store), &protection, &clock, 99);
    assert_eq!(manifest(&engine), expected, "{name}: what a restore delivers");
    let check = block_on(engine.check().read_data(true).finish()).unwrap();
    assert!(check.is_sound() && check.healed == 1 && check.moved > 0, "{name}: {check:#?}");
    let runs = block_on(engine.runs()).unwrap();
    assert!(runs.iter().any(|run| run.approval.is_some()), "{name}: no run is approved");
    // Only what was in quarantine is new.
    let next = block_on(engine.transfer(last_state()).finish()).unwrap().ledger;
    assert_eq!((next.messages.stored, next.messages.quarantined), (1, 0), "{name}: {next:#?}");
    // It is no museum: it is written to, forgotten from, swept and repaired.
    let more = Memory::new(SOURCE);
    more.put(&MailboxName::new("new"), "INBOX", "1", with_attachment(1, 1, 20_000));
    assert!(block_on(engine.transfer(more).finish()).unwrap().ledger.bytes.duplicate > 0, "{name}: the index is read");
    assert!(block_on(engine.repair().finish()).unwrap().is_whole());
    block_on(engine.forget().mailboxes([MailboxName::new("alice")]).finish()).unwrap();
    block_on(engine.sweep().finish()).unwrap();
    assert!(block_on(engine.check().read_data(true).finish()).unwrap().is_sound());
}

/// One line for each message, quarantined ones too: everything that is kept of it.
fn manifest(engine: &Engine) -> String {
    let (messages, report) = delivered(engine);
    assert_eq!(report.failed, 0, "{report:#?}");
    let mut out = String::new();
    for ((mailbox, folder, name), octets) in &messages {
        writeln!(out, "{mailbox}\t{folder}\t{name}\t{}\t{}", octets.len(), blake3::hash(octets)).unwrap();
    }
    for mailbox in block_on(engine.repository().mailboxes()).unwrap() {
        for message in block_on(engine.messages(&mailbox, None)).unwrap().messages {
            let date = message.internal_date.map(|date| (date.seconds, date.nanos, date.zone_minutes));
            let flags = (message.flags.system.bits(), message.flags.keywords().join(" "));
            let quarantined = message.quarantine.is_some();
            writeln!(out, "{mailbox}\t{}\t{flags:?}\t{date:?}\t{quarantined}", message.ordinal).unwrap();
        }
    }
    out
}

fn passphrase() -> Protection {
    let cost = PassphraseCost::new(PassphraseCost::MEMORY_KIB_MIN, 1, 1).unwrap();
    Protection::Passphrase(Passphrase::new(PASSPHRASE).unwrap().with_cost(cost))
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// A copy in memory.
fn load(name: &str) -> MemoryStore {
    let (copy, store) = (MemoryStore::new(), FileStore::open(golden(name)).unwrap());
    copy_all(&store, &copy);
    copy
}

fn copy_all(from: &dyn Store, to: &dyn Store) {
    let objects: Vec<Listed> = block_on(from.list("").try_collect()).unwrap();
    for object in objects {
        let octets = block_on(from.read(&object.key, None)).unwrap();
        block_on(to.put(&object.key, octets.into())).unwrap();
    }
}

fn engine(store: Arc<dyn Store>, protection: &Protection, clock: &ManualClock, seed: u64) -> Engine {
    let mut seams = Seams::default();
    (seams.clock, seams.timer) = (Arc::new(clock.clone()), Arc::new(clock.clone()));
    seams.randomness = Arc::new(SeededRandomness::new(seed));
    let repository = block_on(Repository::open_or_create_with(store, protection.clone(), seams)).unwrap();
    let mut settings = Settings::default();
    settings.reread = seed == REREADS;
    Engine::builder(repository).resources(Resources::inline(64 << 20).unwrap()).settings(settings).build().unwrap()
}

/// The seed of the process that reads everything again.
const REREADS: u64 = 7;

/// Writes a golden repository.
fn write(name: &str) {
    let protection = if name == "open" { Protection::None } else { Protection::Key(Key::new(KEY)) };
    let (store, clock) = (MemoryStore::new(), ManualClock::new(Duration::from_secs(1_800_000_000)));
    let process = |seed: u64| {
        clock.advance(Duration::from_secs(60));
        engine(Arc::new(store.clone()), &protection, &clock, seed)
    };
    let (alice, bob) = (MailboxName::new("alice"), MailboxName::new("bob"));
    // A message that cannot be read, in a run that is approved all the same.
    let engine = process(1);
    block_on(engine.transfer(failing(first_state())).finish()).unwrap();
    let run = block_on(engine.runs()).unwrap().pop().unwrap();
    block_on(engine.approve(run.id, "the disk was replaced")).unwrap();
    if name == "sealed" {
        block_on(engine.repository().keys().add(passphrase(), "for people")).unwrap();
    }
    // So many commits that one is a checkpoint.
    let source = first_state();
    for number in 0..36_u64 {
        source.put(&alice, "Archive", number.to_string(), message(number, 200));
        block_on(process(2).transfer(failing(source.clone())).finish()).unwrap();
    }
    // Messages that have no names, from a file.
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("carol");
    common::write(&path, &mbox(&[message(601, 500), message(602, 500), message(601, 500)]), 1_700_000_000);
    block_on(process(2).transfer(Mbox::open(&path).unwrap().with_id(SOURCE)).finish()).unwrap();
    // A mailbox that is forgotten, with content that others have; a writer that dies, and is fenced.
    let passing = Memory::new(SOURCE);
    for content in 1..6 {
        passing.put(
            &MailboxName::new("passing"),
            "INBOX",
            content.to_string(),
            with_attachment(content, content, 17_000),
        );
    }
    let engine = process(3);
    block_on(engine.transfer(passing).finish()).unwrap();
    block_on(process(4).transfer(failing(last_state())).finish()).unwrap();
    dies(&store, &protection, &clock);
    block_on(engine.forget().mailboxes([MailboxName::new("passing")]).finish()).unwrap();
    block_on(process(5).sweep().finish()).unwrap();
    // A pack is damaged, found, and healed.
    let pack = keys(&store, "packs/").into_iter().max_by_key(|(_, length)| *length).unwrap().0;
    let mut octets = block_on(store.read(&pack, None)).unwrap().to_vec();
    let middle = octets.len() / 2;
    octets[middle] ^= 1;
    block_on(store.put(&pack, octets.into())).unwrap();
    block_on(process(6).check().read_data(true).mark_bad(true).finish()).unwrap();
    block_on(process(REREADS).transfer(failing(last_state())).finish()).unwrap();
    assert!(block_on(process(8).repair().finish()).unwrap().is_whole());
    let before = clock_time(&clock);
    block_on(process(9).forget().mailboxes([bob]).before(before).finish()).unwrap();
    let _ = fs::remove_dir_all(golden(name));
    copy_all(&store, &FileStore::open_or_create(golden(name)).unwrap());
    fs::write(golden(&format!("{name}.txt")), manifest(&process(10))).unwrap();
}

/// A writer that is gone when it has written a pack.
fn dies(store: &MemoryStore, protection: &Protection, clock: &ManualClock) {
    let (stalled, handle) = StalledStore::new(Arc::new(store.clone()));
    let engine = engine(Arc::new(stalled), protection, clock, 21);
    let source = Memory::new(SOURCE);
    source.put(&MailboxName::new("bob"), "INBOX", "late", with_attachment(77, 77, 17_000));
    let packs = keys(store, "packs/").len();
    let mut transfer = Driven::new(async move { engine.transfer(source).finish().await });
    while keys(store, "packs/").len() == packs {
        assert!(transfer.poll().is_none());
        handle.release(1);
    }
}

fn keys(store: &MemoryStore, prefix: &str) -> Vec<(String, u64)> {
    let listed: Vec<Listed> = block_on(store.list(prefix).try_collect()).unwrap();
    listed.into_iter().map(|object| (object.key, object.length)).collect()
}

fn clock_time(clock: &ManualClock) -> u64 {
    use mailrail::runtime::Clock as _;
    clock.now().as_nanos() as u64
}

fn named(name: &str) -> Identity {
    Identity::Named(Bytes::copy_from_slice(name.as_bytes()))
}

/// Two mailboxes: folders with companions, flags, keywords, dates, octets around messages, extensions.
fn first_state() -> Memory {
    let source = Memory::new(SOURCE).with_kind(Kind::Other("golden".into()));
    let (alice, bob) = (MailboxName::new("alice"), MailboxName::new("bob"));
    let mut folder =
        Folder::new(FolderPath { names: vec!["Größe".into(), "2026".into()], raw: "Gr&APYA3w-e.2026".into() });
    folder.evidence = Evidence("v1".into());
    folder.modified = Some(date(1_700_000_000));
    folder.traits = "rd".into();
    folder.companions =
        vec![Companion { name: "subscriptions".into(), octets: "INBOX\n".into(), modified: Some(date(7)) }];
    source.folder(&alice, folder);
    let mut rich = Envelope::new("Gr&APYA3w-e.2026", named("rich"));
    rich.evidence = Evidence("1-2-3".into());
    rich.flags = Flags::new(SystemFlags::SEEN.with(SystemFlags::FLAGGED), ["$Label1".to_owned(), "späť".to_owned()]);
    rich.internal_date = Some(date(1_650_000_000));
    (rich.place, rich.before, rich.after) = ("cur:2,FS".into(), "From a@b Thu Jan  1\n".into(), "\n".into());
    rich.extensions = vec![("tag".to_owned(), Bytes::from_static(&[0, 255, 10]))];
    source.message(&alice, rich, with_attachment(500, 1, 20_000));
    source.put(&alice, "INBOX", "empty", "");
    source.put(&alice, "INBOX", "odd", &b"no header, no end of line, a NUL \0 and \xff"[..]);
    for number in 1..6_u64 {
        source.put(&bob, "INBOX", number.to_string(), with_attachment(number, number % 3, 20_000));
    }
    source
}

/// A message of bob's never reads to its end.
fn failing(source: Memory) -> Scripted {
    let failing = Scripted::new(source);
    failing.message(&MailboxName::new("bob"), "INBOX", named("5"), Fault::ReadFailed { at: 5000 });
    failing
}

/// What alice and bob have in the end: something came, something went, something changed.
fn last_state() -> Memory {
    let source = first_state();
    let (alice, bob) = (MailboxName::new("alice"), MailboxName::new("bob"));
    for number in 0..36_u64 {
        source.put(&alice, "Archive", number.to_string(), message(number, 200));
    }
    source.remove(&bob, b"INBOX", &named("1"));
    source.remove(&alice, b"Archive", &named("3"));
    let mut changed = Envelope::new("INBOX", named("2"));
    changed.flags = Flags::new(SystemFlags::DELETED, ["later".to_owned()]);
    source.remove(&bob, b"INBOX", &named("2"));
    source.message(&bob, changed, with_attachment(2, 2, 20_000));
    source.put(&bob, "INBOX", "9", with_attachment(9, 3, 17_000));
    source
}

fn date(seconds: i64) -> InternalDate {
    InternalDate { seconds, nanos: 123_456_789, zone_minutes: Some(-90) }
}
