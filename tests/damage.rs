//! Damage of every kind, to every kind of object: it is noticed, it is named, what it does not touch comes back, and what can heal does.
#![cfg(feature = "testing")]

use bytes::Bytes;
use futures::TryStreamExt;
use futures::executor::block_on;
use futures::future::{BoxFuture, Either, FutureExt, TryFutureExt, join, join_all, select};
use futures::stream::BoxStream;
use mailrail::check::CheckReport;
use mailrail::message::{Envelope, Folder, FolderPath, Identity, MailboxName};
use mailrail::repair::RepairReport;
use mailrail::repository::{Seams, SlotKind};
use mailrail::restore::RestoreReport;
use mailrail::source::{self, Kind, SourceId};
use mailrail::store::{Created, Listed, MemoryStore, Payload, Store};
use mailrail::testing::{self, Fault, FaultyStore, ManualClock, Operation, Plan, sink};
use mailrail::transfer::Settled;
use mailrail::{Engine, ErrorKind, Key, Protection, Repository, Resources, Settings};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::future::poll_fn;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::task::Poll;

type Messages = BTreeMap<(MailboxName, Bytes), Vec<u8>>;

const DAMAGES: [&str; 7] =
    ["missing", "empty", "cut", "flipped in front", "flipped within", "flipped behind", "swapped"];

/// A store with three mailboxes in it, pushed in two runs, their source, and what should come back.
struct World {
    store: MemoryStore,
    source: source::Memory,
    expected: Messages,
    protection: Protection,
}

impl World {
    fn new(protection: &Protection) -> Self {
        let source = source::Memory::new(SourceId::new([1; 16]));
        let mut world = Self::of_empty_folders(source, protection, 3);
        for run in 0..2_u8 {
            for mailbox in 0..3_u8 {
                for number in 0..4_u8 {
                    world.put(mailbox, format!("{run}.{number}"), message(run * 4 + number, mailbox));
                }
            }
            push(&world.store, &world.protection, &world.source, false);
        }
        world
    }

    /// Mailboxes with one commit each, of an empty folder.
    fn of_empty_folders(source: source::Memory, protection: &Protection, mailboxes: u8) -> Self {
        let (store, protection) = (MemoryStore::new(), protection.clone());
        for mailbox in 0..mailboxes {
            source.folder(&MailboxName::new([b'a' + mailbox]), Folder::new(FolderPath::of_raw("INBOX".into())));
        }
        push(&store, &protection, &source, false);
        Self { store, source, expected: Messages::new(), protection }
    }

    /// One mailbox of so many commits that one of them is a checkpoint.
    fn long(protection: &Protection) -> Self {
        let source = source::Memory::new(SourceId::new([1; 16]));
        let mut world = Self::of_empty_folders(source, protection, 1);
        for run in 0..36_u8 {
            world.put(0, run.to_string(), format!("Subject: {run}\n\nshort\n").into_bytes());
            push(&world.store, &world.protection, &world.source, false);
        }
        world
    }

    /// The same, with a mailbox more that has one commit alone, of one message: appended by a run that ended, or by one that died.
    fn single(protection: &Protection, is_ended: bool) -> (Self, String) {
        let mut world = Self::new(protection);
        let before = world.keys();
        append(&world.store, protection, is_ended).unwrap();
        world.expected.insert((single(), "one".into()), message(60, 60));
        let commits = world.keys().into_iter().filter(|key| kind(key) == "mailboxes/" && !before.contains(key));
        let commits: Vec<String> = commits.collect();
        assert_eq!(commits.len(), 1, "{commits:?}");
        (world, commits[0].clone())
    }

    fn put(&mut self, mailbox: u8, name: String, octets: Vec<u8>) {
        let (mailbox, name) = (MailboxName::new([b'a' + mailbox]), Bytes::from(name));
        self.source.put(&mailbox, "INBOX", name.clone(), octets.clone());
        self.expected.insert((mailbox, name), octets);
    }

    fn keys(&self) -> Vec<String> {
        keys(&self.store)
    }

    fn first(&self, prefix: &str) -> String {
        self.keys().into_iter().find(|key| key.starts_with(prefix)).unwrap()
    }

    /// A copy of the store with one object damaged.
    fn damaged(&self, key: &str, how: &str) -> MemoryStore {
        let (copy, keys) = (MemoryStore::new(), self.keys());
        let swapped = if how == "swapped" { self.another(key) } else { Vec::new() };
        block_on(async {
            for other in keys {
                let mut octets = self.store.read(&other, None).await.unwrap().to_vec();
                if other == key {
                    let middle = octets.len() / 2;
                    match how {
                        "missing" => continue,
                        "empty" => octets.clear(),
                        "cut" => octets.truncate(octets.len() - 7),
                        "flipped in front" => octets[9] ^= 1,
                        "flipped within" => octets[middle] ^= 1,
                        "swapped" => octets = swapped.clone(),
                        _ => *octets.last_mut().unwrap() ^= 1,
                    }
                }
                copy.put(&other, octets.into()).await.unwrap();
            }
        });
        copy
    }

    /// The octets of another object of the same kind: of the same repository if it has one, of another repository if not.
    fn another(&self, key: &str) -> Vec<u8> {
        let kind = kind(key);
        let is_twin = matches!(kind, "config" | "config.copy");
        let own = self.keys().into_iter().rev().find(|other| other.starts_with(kind) && other != key && !is_twin);
        let (store, other) = match own {
            Some(other) => (self.store.clone(), other),
            None => {
                let is_swept = matches!(kind, "sweeps/" | "approvals/");
                let other = if is_swept { Self::swept(&self.protection) } else { Self::healed(&self.protection) };
                let key = other.first(kind);
                (other.store, key)
            }
        };
        block_on(store.read(&other, None)).unwrap().to_vec()
    }

    /// The same, after a pack was damaged and healed: with marks and moves in it.
    fn healed(protection: &Protection) -> Self {
        let mut world = Self::new(protection);
        world.store = world.damaged(&world.first("packs/"), "flipped within");
        world.check(&world.store, true);
        push(&world.store, &world.protection, &world.source, true);
        let repaired = world.repair(&world.store);
        assert!(repaired.is_whole() && repaired.blobs_found > 0, "{repaired:?}");
        world
    }

    /// The same, after a mailbox more was pushed, of which a message failed, which was approved; then it was forgotten, and swept.
    fn swept(protection: &Protection) -> Self {
        let world = Self::new(protection);
        let (old, mailbox) = (source::Memory::new(SourceId::new([4; 16])), MailboxName::new("old"));
        old.put(&mailbox, "INBOX", "1", message(40, 40));
        old.put(&mailbox, "INBOX", "2", message(41, 41));
        let failing = testing::source::Scripted::new(old);
        failing.message(&mailbox, "INBOX", Identity::Named("2".into()), testing::source::Fault::ReadFailed { at: 900 });
        block_on(async {
            let engine = world.engine(&world.store).await.unwrap();
            engine.transfer(failing).finish().await.unwrap();
            let runs = engine.runs().await.unwrap();
            let run = runs.iter().find(|run| run.ledger.grade().needs_approval()).unwrap();
            engine.approve(run.id, "the source is gone").await.unwrap();
            engine.forget().mailboxes([mailbox]).finish().await.unwrap();
            assert_eq!(engine.sweep().finish().await.unwrap().deleted_packs.objects, 1);
        });
        world
    }

    async fn engine(&self, store: &MemoryStore) -> mailrail::Result<Engine> {
        engine(store, &self.protection, false).await
    }

    fn check(&self, store: &MemoryStore, mark_bad: bool) -> CheckReport {
        block_on(async {
            let engine = self.engine(store).await.unwrap();
            engine.check().read_data(true).mark_bad(mark_bad).finish().await.unwrap()
        })
    }

    fn repair(&self, store: &MemoryStore) -> RepairReport {
        block_on(async { self.engine(store).await.unwrap().repair().finish().await.unwrap() })
    }

    /// Restores, and gives how many messages came back: each of them is the one that was stored.
    fn restore(&self, store: &MemoryStore, what: &str) -> (usize, RestoreReport) {
        let sink = sink::Memory::new(Kind::Eml);
        let restore = async { self.engine(store).await.unwrap().restore(sink.clone()).finish().await };
        let report = block_on(restore).unwrap_or_else(|error| panic!("{what}: {error:?}"));
        (self.came_back(&sink, what), report)
    }

    fn recover(&self, store: &MemoryStore, what: &str) -> usize {
        let sink = sink::Memory::new(Kind::Eml);
        let recover = async { self.engine(store).await.unwrap().recover(sink.clone()).finish().await };
        block_on(recover).unwrap_or_else(|error| panic!("{what}: {error:?}"));
        self.came_back(&sink, what)
    }

    fn came_back(&self, sink: &sink::Memory, what: &str) -> usize {
        let mut found = 0;
        for (mailbox, delivered) in sink.mailboxes() {
            for message in delivered.messages {
                let Identity::Named(name) = message.envelope.identity else { panic!("{what}: unnamed") };
                assert_eq!(self.expected.get(&(mailbox.clone(), name)), Some(&message.octets), "{what}");
                found += 1;
            }
        }
        found
    }
}

fn single() -> MailboxName {
    MailboxName::new("single")
}

/// Appends a message to the mailbox `single`, in a run that ends, or is dropped once that is stored.
fn append(store: &MemoryStore, protection: &Protection, is_ended: bool) -> Result<(), String> {
    block_on(async {
        let engine = engine(store, protection, false).await.unwrap();
        let (appender, transfer) = engine.append_to(single(), SourceId::new([7; 16]));
        let appending = async {
            let envelope = Envelope::new("", Identity::Named("one".into()));
            let settled = appender.append(envelope, message(60, 60)).await;
            drop(appender);
            settled
        };
        let (settled, transfer) = if is_ended {
            let (settled, report) = join(appending, transfer.finish()).await;
            report.map_err(|error| format!("{error:?}"))?;
            (settled, None)
        } else {
            match select(Box::pin(appending), Box::pin(transfer.finish())).await {
                Either::Left((settled, transfer)) => (settled, Some(transfer)),
                Either::Right((report, _)) => panic!("{report:?}"),
            }
        };
        drop(transfer);
        match settled {
            Ok(Settled::Stored { .. }) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
}

/// A message whose long text becomes a blob, which all mailboxes share.
fn message(number: u8, mailbox: u8) -> Vec<u8> {
    let mut octets = format!("Subject: {number} in {mailbox}\n\n").into_bytes();
    let mut random = u32::from(number) + 1;
    octets.extend((0..40_000).map(|_| {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        b' ' + (random >> 24) as u8 % 64
    }));
    octets
}

async fn engine(store: &MemoryStore, protection: &Protection, reread: bool) -> mailrail::Result<Engine> {
    let repository = Repository::open_or_create(Arc::new(store.clone()), protection.clone()).await?;
    let resources = Resources::inline(Resources::MEMORY_BYTES_MIN)?;
    let mut settings = Settings::default();
    settings.reread = reread;
    Engine::builder(repository).resources(resources).settings(settings).build()
}

/// Pushes with an engine of its own, and tells whether the source was read to its end.
fn push(store: &MemoryStore, protection: &Protection, source: &source::Memory, reread: bool) -> bool {
    block_on(async {
        let engine = engine(store, protection, reread).await.unwrap();
        engine.transfer(source.clone()).finish().await.unwrap().ledger.is_complete()
    })
}

fn keys(store: &MemoryStore) -> Vec<String> {
    let listed: Vec<_> = block_on(store.list("").try_collect()).unwrap();
    let mut keys: Vec<String> = listed.into_iter().map(|object| object.key).collect();
    keys.sort_unstable();
    keys
}

/// What all objects of a kind begin with.
fn kind(key: &str) -> &str {
    key.find('/').map_or(key, |slash| &key[..=slash])
}

fn protections() -> [Protection; 2] {
    [Protection::None, Protection::Key(Key::new([5; 32]))]
}

#[test]
fn whatever_is_damaged_check_names_it_and_restore_gives_all_that_it_does_not_touch() {
    for protection in protections() {
        let world = World::new(&protection);
        let sound = world.check(&world.store, false);
        assert!(sound.is_sound() && sound.rebuilt == 24 && sound.notes.is_empty(), "{sound:?}");
        for key in world.keys() {
            for how in DAMAGES {
                one(&world, &world.damaged(&key, how), &key, how);
            }
        }
    }
}

/// One damaged repository.
fn one(world: &World, store: &MemoryStore, key: &str, how: &str) {
    let what = format!("{key} {how}");
    if key.starts_with("keys/")
        && let Ok(engine) = block_on(world.engine(store))
    {
        let check = world.check(store, false);
        assert!(check.is_sound() && check.notes[0].contains(key), "{what}: {check:?}");
        // What a key slot says of itself is damaged; what it wraps is not.
        let slots = block_on(engine.repository().keys().list()).expect(&what);
        assert_eq!(slots[0].kind, SlotKind::Unreadable, "{what}");
        return;
    }
    if key.starts_with("keys/") || (key == "config" && how == "swapped") {
        return assert_locked(world, store, &what);
    }
    let check = world.check(store, false);
    let is_silent = is_undetectable(key, how);
    assert!(!check.is_sound() || is_silent, "{what}: not noticed");
    let names_it = check.damaged.iter().any(|damage| same_object(&damage.object, key));
    assert!(names_it || is_silent, "{what}: not named in {:?}", check.damaged);
    let (found, report) = world.restore(store, &what);
    let all = world.expected.len();
    // How many messages the last commit had is known to nobody.
    let is_last = key.starts_with("mailboxes/") && key.ends_with('2');
    let is_told = report.failed as usize >= if is_last { 1 } else { all - found };
    assert!(is_told || is_silent, "{what}: {found} came back, and {} are said to be lost", report.failed);
    let found_min = match kind(key) {
        // A commit has four messages, a pack four blobs that each mailbox needs.
        "mailboxes/" => all - 4,
        "packs/" | "moves/" => all - 12,
        _ => all,
    };
    assert!(found >= found_min, "{what}: {found} came back");
    let named = report.failures.iter().all(|failure| {
        let is_message = !failure.mailbox.is_empty() && (!failure.message.is_empty() || !failure.is_damage);
        is_message && (kind(key) != "packs/" || failure.reason.contains(&key[9..]))
    });
    assert!(named, "{what}: {:?}", report.failures);
    // What a restore misses for want of moves, a recovery finds by itself.
    let recovered = if kind(key) == "moves/" { all } else { found };
    assert_eq!(world.recover(store, &what), recovered, "{what}");
}

/// Without slots nothing opens, nor with another repository's config: that is said, and nothing is made of it.
fn assert_locked(world: &World, store: &MemoryStore, what: &str) {
    match block_on(world.engine(store)) {
        Err(error) => assert!(
            matches!(error.kind(), ErrorKind::Damaged | ErrorKind::NotFound | ErrorKind::Key | ErrorKind::Unsupported),
            "{what}: {error:?}"
        ),
        Ok(engine) => {
            // Nothing is made of it, and nothing is done to it.
            let objects = keys(store);
            assert!(world.check(store, true).marked == 0, "{what}");
            let repaired = block_on(engine.repair().finish());
            assert_eq!(repaired.map(|_| ()).map_err(|error| error.kind()), Err(ErrorKind::Damaged), "{what}");
            assert_eq!(keys(store), objects, "{what}");
            let (found, report) = world.restore(store, what);
            assert!(found == 0 && report.failed > 0 && !world.check(store, false).is_sound(), "{what}");
        }
    }
}

/// Derived objects that are missing are not missed; a last commit that is missing shows only by the run record, and that is named in its place. A config's
/// copy that is missing is a note.
fn is_undetectable(key: &str, how: &str) -> bool {
    let is_derived = matches!(kind(key), "index/" | "runs/" | "mailboxes/" | "config.copy" | "bad/" | "moves/");
    how == "missing" && (is_derived || is_of_sweeps(kind(key)))
}

/// Whether the damage named is of this object, or of the journal that it belongs to.
fn same_object(named: &str, key: &str) -> bool {
    named == key
        || (key.starts_with("mailboxes/")
            && named.rsplit_once('/').map(|(journal, _)| journal) == key.rsplit_once('/').map(|(journal, _)| journal))
}

#[test]
fn every_damage_but_that_of_commits_and_slots_heals_once_the_mail_is_pushed_again() {
    for protection in protections() {
        let world = World::new(&protection);
        for key in world.keys() {
            if matches!(kind(&key), "mailboxes/" | "keys/") {
                continue;
            }
            for how in DAMAGES {
                if key == "config" && how == "swapped" {
                    continue;
                }
                let (store, what) = (world.damaged(&key, how), format!("{key} {how}"));
                heal(&world, &store, &what);
            }
        }
    }
}

/// Checks, pushes again, repairs: then everything is there, and nothing is wrong any more.
fn heal(world: &World, store: &MemoryStore, what: &str) {
    let before = world.check(store, true);
    assert!(push(store, &world.protection, &world.source, true), "{what}");
    let repaired = world.repair(store);
    assert!(repaired.is_whole(), "{what}: {repaired:?}");
    let after = world.check(store, true);
    assert!(after.is_sound() && after.notes.is_empty(), "{what}: {after:#?}");
    let has_bad_pack = before.healed > 0 || before.damaged.iter().any(|damage| kind(&damage.object) == "packs/");
    assert_eq!(after.healed > 0, has_bad_pack, "{what}: {before:?} {after:?}");
    let (found, report) = world.restore(store, what);
    assert!(found == world.expected.len() && report.is_complete(), "{what}: {report:?}");
    let again = world.repair(store);
    let did_nothing = again.packs_written == 0 && again.blobs_found == 0 && again.segments_written == 0;
    assert!(did_nothing && again.replaced.is_empty() && again.is_whole(), "{what}: {again:?}");
}

#[test]
fn marks_and_moves_that_are_damaged_heal_too() {
    for protection in protections() {
        let world = World::healed(&protection);
        assert!(world.check(&world.store, false).is_sound());
        for key in world.keys().into_iter().filter(|key| matches!(kind(key), "bad/" | "moves/")) {
            for how in DAMAGES {
                let (store, what) = (world.damaged(&key, how), format!("{key} {how}"));
                one(&world, &store, &key, how);
                heal(&world, &store, &what);
            }
        }
    }
}

#[test]
fn records_of_sweeps_and_approvals_that_are_damaged_heal_too() {
    for protection in protections() {
        let world = World::swept(&protection);
        assert!(world.check(&world.store, false).is_sound());
        let keys: Vec<String> = world.keys().into_iter().filter(|key| is_of_sweeps(kind(key))).collect();
        assert_eq!(keys.len(), 4, "{keys:?}");
        for key in keys {
            for how in DAMAGES {
                let (store, what) = (world.damaged(&key, how), format!("{key} {how}"));
                one(&world, &store, &key, how);
                heal(&world, &store, &what);
                // And it can be swept on.
                let swept = block_on(async { world.engine(&store).await.unwrap().sweep().finish().await });
                assert!(swept.is_ok(), "{what}: {swept:?}");
                assert!(world.check(&store, false).is_sound(), "{what}");
            }
        }
    }
}

fn is_of_sweeps(kind: &str) -> bool {
    matches!(kind, "sweeps/" | "approvals/")
}

#[test]
fn a_sweep_that_is_open_when_its_records_are_damaged_deletes_nothing_that_is_needed_and_comes_to_its_end() {
    for protection in protections() {
        let world = World::swept(&protection);
        let done = world.keys().into_iter().find(|key| key.ends_with("-done")).unwrap();
        block_on(world.store.delete(&done)).unwrap();
        let verdict = done.replace("-done", "-verdict");
        for has_verdict in [true, false] {
            if !has_verdict {
                block_on(world.store.delete(&verdict)).unwrap();
            }
            let keys: Vec<String> = world.keys().into_iter().filter(|key| kind(key) == "sweeps/").collect();
            assert_eq!(keys.len(), 1 + usize::from(has_verdict));
            for key in keys {
                for how in DAMAGES.into_iter().filter(|how| *how != "swapped") {
                    let (store, what) = (world.damaged(&key, how), format!("{key} {how}, verdict {has_verdict}"));
                    assert!(world.repair(&store).is_whole(), "{what}");
                    let swept = block_on(async { world.engine(&store).await.unwrap().sweep().finish().await });
                    assert!(swept.is_ok(), "{what}: {swept:?}");
                    assert!(push(&store, &world.protection, &world.source, false), "{what}");
                    let check = world.check(&store, false);
                    assert!(check.is_sound(), "{what}: {check:#?}");
                    assert_eq!(world.restore(&store, &what).0, 24, "{what}");
                }
            }
        }
    }
}

#[test]
fn single_messages_and_parts_read_from_where_their_blobs_were_moved() {
    for protection in protections() {
        let world = World::healed(&protection);
        block_on(async {
            let engine = world.engine(&world.store).await.unwrap();
            for ((mailbox, name), octets) in &world.expected {
                let listing = engine.messages(mailbox, None).await.unwrap();
                let found = listing.messages.iter().find(|message| message.identity == Identity::Named(name.clone()));
                let ordinal = found.unwrap().ordinal;
                let read: Vec<Bytes> = engine.read(mailbox, ordinal).await.unwrap().try_collect().await.unwrap();
                assert_eq!(&read.concat(), octets);
                let part: Vec<Bytes> =
                    engine.read_part(mailbox, ordinal, 0).await.unwrap().try_collect().await.unwrap();
                assert!(part.concat().len() >= 40_000 && octets.ends_with(&part.concat()));
            }
        });
    }
}

#[test]
fn of_a_long_journal_no_damaged_commit_takes_another_with_it() {
    for protection in protections() {
        let world = World::long(&protection);
        let commits: Vec<String> = world.keys().into_iter().filter(|key| kind(key) == "mailboxes/").collect();
        assert_eq!(commits.len(), 37);
        // The folder's; the first message's; one in front of the checkpoint, the checkpoint, one behind it, the last.
        for number in [0, 1, 31, 32, 33, 36] {
            for how in DAMAGES {
                let what = format!("commit {number} {how}");
                let store = world.damaged(&commits[number], how);
                let (found, report) = world.restore(&store, &what);
                // Of a checkpoint it may be the state that is damaged, which is elsewhere too.
                assert!(found == 36 || (found == 35 && number != 0), "{what}: {found}");
                let is_told = report.failed > 0 && !report.failures.is_empty();
                let is_silent = number == 0 || (number == 36 && how == "missing");
                assert!(is_told || is_silent, "{what}: {report:?}");
                assert!(!world.check(&store, false).is_sound(), "{what}");
                assert_eq!(world.recover(&store, &what), found, "{what}");
                assert!(!world.repair(&store).is_whole(), "{what}");
            }
        }
    }
}

#[test]
fn a_journal_goes_on_without_commits_that_are_given_up_and_the_next_push_brings_back_what_they_held() {
    for protection in protections() {
        let (world, long) = (World::new(&protection), World::long(&protection));
        let all = |world: &World| -> Vec<String> {
            world.keys().into_iter().filter(|key| kind(key) == "mailboxes/").collect()
        };
        let (short_keys, long_keys) = (all(&world), all(&long));
        let of_short = short_keys.iter().map(|key| (&world, key, 24));
        let of_long = [0, 1, 31, 32, 33, 36].into_iter().map(|number| (&long, &long_keys[number], 36));
        for (world, key, messages) in of_short.chain(of_long) {
            for how in DAMAGES {
                let (store, what) = (world.damaged(key, how), format!("{key} {how}"));
                let (readable, _) = world.restore(&store, &what);
                let is_sound = world.check(&store, false).is_sound();
                let give_up =
                    || block_on(async { world.engine(&store).await.unwrap().repair().give_up(true).finish().await });
                let given_up = give_up().unwrap();
                // A last commit that is missing shows by a run record alone: there is nothing to give up.
                let is_missing_last = how == "missing" && given_up.given_up == 0;
                assert!(is_missing_last || given_up.given_up == 1, "{what}: {given_up:?}");
                assert!(is_sound || !given_up.is_whole(), "{what}: nothing is said of what is lost");
                assert_eq!(world.restore(&store, &what).0, readable, "{what}");
                let again = give_up().unwrap();
                assert!(again.is_whole() && again.given_up == 0, "{what}: {again:?}");
                assert!(push(&store, &world.protection, &world.source, false), "{what}");
                let check = world.check(&store, false);
                assert!(check.is_sound(), "{what}: {check:#?}");
                let (found, report) = world.restore(&store, &what);
                assert!(found == messages && report.is_complete(), "{what}: {found} {report:?}");
                let swept = block_on(async { world.engine(&store).await.unwrap().sweep().finish().await }).unwrap();
                assert!(is_missing_last || swept.deleted_commits.objects > 0 || how == "missing", "{what}: {swept:?}");
                assert_eq!(world.restore(&store, &what).0, messages, "{what}");
                assert!(world.check(&store, false).is_sound(), "{what}");
            }
        }
    }
}

#[test]
fn a_mailbox_whose_only_commit_is_damaged_is_told_by_name_keeps_no_other_from_anything_and_goes_on_once_it_is_given_up()
{
    for (protection, is_ended) in protections().into_iter().zip([true, false]) {
        let (world, key) = World::single(&protection, is_ended);
        // One record alone says whose it is: that of the end, or the first one.
        for key in world
            .keys()
            .into_iter()
            .filter(|key| is_ended && kind(key) == "runs/" && key.ends_with("-0000000000000000"))
        {
            block_on(world.store.delete(&key)).unwrap();
        }
        // What is flipped further behind leaves the head, and so the name.
        for how in ["empty", "cut", "flipped in front", "swapped"] {
            let (store, what) = (world.damaged(&key, how), format!("{key} {how}"));
            let (found, restored) = world.restore(&store, &what);
            assert!(found == 24 && restored.failures[0].mailbox == "single", "{what}: {restored:?}");
            // However often it is repaired, it is told by its name.
            for _ in 0..2 {
                let repaired = world.repair(&store);
                assert!(repaired.lost.iter().any(|lost| lost.mailbox == "single"), "{what}: {repaired:?}");
            }
            others_go_on(&world, &store, &what);
            let engine = block_on(world.engine(&store)).unwrap();
            let given_up = block_on(engine.repair().give_up(true).finish()).unwrap();
            assert!(given_up.given_up == 1 && !given_up.is_whole(), "{what}: {given_up:?}");
            assert!(world.repair(&store).is_whole(), "{what}");
            assert_eq!(block_on(engine.repository().mailboxes()).unwrap().len(), 2, "{what}: a and single are gone");
            append(&store, &protection, true).expect(&what);
            assert!(push(&store, &protection, &world.source, false), "{what}");
            assert!(block_on(engine.sweep().finish()).unwrap().deleted_commits.objects > 0, "{what}");
            let (found, restored) = world.restore(&store, &what);
            assert!(found == 25 && restored.is_complete(), "{what}: {restored:?}");
            let check = world.check(&store, false);
            assert!(check.is_sound(), "{what}: {check:#?}");
        }
    }
}

/// With the mailbox `single` damaged everything can be done to the others, and is told as incomplete where all are asked for. Forgets mailbox `a`.
fn others_go_on(world: &World, store: &MemoryStore, what: &str) {
    block_on(async {
        let engine = world.engine(store).await.unwrap();
        assert_eq!(engine.repository().mailboxes().await.unwrap_err().kind(), ErrorKind::Damaged, "{what}");
        let found = engine.repository().find_mailboxes().await.unwrap();
        assert!(found.names.len() == 3 && found.unreadable[0].mailbox == Some(single()), "{what}: {found:?}");
        let statistics = engine.statistics().await.unwrap();
        assert_eq!((statistics.mailboxes, statistics.messages), (4, 24), "{what}");
        assert_eq!(statistics.incomplete[0].name, "single", "{what}");
        let compared = engine.compare(world.source.clone()).finish().await.unwrap();
        assert!(compared.same == 24 && compared.incomplete[0].name == "single", "{what}: {compared:?}");
        assert_eq!(engine.sweep().finish().await.unwrap_err().kind(), ErrorKind::Damaged, "{what}");
        let this = engine.forget().mailboxes([single()]).finish().await;
        assert_eq!(this.unwrap_err().kind(), ErrorKind::Damaged, "{what}");
        let nobody = engine.forget().mailboxes([MailboxName::new("nobody")]).finish().await;
        assert_eq!(nobody.unwrap_err().kind(), ErrorKind::NotFound, "{what}");
        let forgotten = engine.forget().mailboxes([MailboxName::new("a")]).finish().await.unwrap();
        assert_eq!((forgotten.mailboxes, forgotten.incomplete.len()), (1, 0), "{what}");
        let all = engine.forget().all_mailboxes().before(1).finish().await.unwrap();
        assert!(all.untouched == 2 && all.incomplete[0].name == "single", "{what}: {all:?}");
    });
    assert!(append(store, &world.protection, true).is_err(), "{what}");
}

#[test]
fn a_repository_of_one_mailbox_of_one_commit_that_is_damaged_can_be_repaired_if_a_run_record_says_whose_it_is() {
    for protection in protections() {
        let store = MemoryStore::new();
        append(&store, &protection, true).unwrap();
        let key = keys(&store).into_iter().find(|key| kind(key) == "mailboxes/").unwrap();
        block_on(store.put(&key, vec![7; 99].into())).unwrap();
        let engine = block_on(engine(&store, &protection, false)).unwrap();
        assert!(!block_on(engine.repair().finish()).unwrap().is_whole());
        assert_eq!(block_on(engine.repair().give_up(true).finish()).unwrap().given_up, 1);
        append(&store, &protection, true).unwrap();
        assert_eq!(block_on(engine.statistics()).unwrap().messages, 1);
        // With nothing that opens nobody can know whose the damage is.
        for key in keys(&store).into_iter().filter(|key| matches!(kind(key), "mailboxes/" | "runs/")) {
            block_on(store.put(&key, vec![7; 99].into())).unwrap();
        }
        assert_eq!(block_on(engine.repair().give_up(true).finish()).unwrap_err().kind(), ErrorKind::Damaged);
    }
}

#[test]
fn a_journal_that_nobody_knows_the_mailbox_of_is_told_by_its_key_and_stays() {
    let (world, key) = World::single(&Protection::None, true);
    let store = world.damaged(&key, "cut");
    for key in world.keys().into_iter().filter(|key| kind(key) == "runs/") {
        block_on(store.delete(&key)).unwrap();
    }
    let engine = block_on(world.engine(&store)).unwrap();
    let repaired = block_on(engine.repair().give_up(true).finish()).unwrap();
    assert!(repaired.given_up == 0 && repaired.lost[0].mailbox == key, "{repaired:?}");
    let found = block_on(engine.repository().find_mailboxes()).unwrap();
    assert!(found.unreadable[0].mailbox.is_none() && key.starts_with(&found.unreadable[0].journal), "{found:?}");
}

/// A store that fails as planned, and an engine on it that waits for nothing.
fn failing(store: &MemoryStore, protection: &Protection) -> (FaultyStore, Engine) {
    let faulty = FaultyStore::new(Arc::new(store.clone()));
    let mut seams = Seams::default();
    seams.timer = Arc::new(ManualClock::default());
    let repository = Repository::open_with(Arc::new(faulty.clone()), protection.clone(), seams);
    let resources = Resources::inline(Resources::MEMORY_BYTES_MIN).unwrap();
    let engine = Engine::builder(block_on(repository).unwrap()).resources(resources).build().unwrap();
    (faulty, engine)
}

#[test]
fn a_repair_beside_a_run_that_ends_takes_nothing_that_the_run_wrote_for_lost() {
    let world = World::new(&Protection::None);
    let commits: Vec<String> = world.keys().into_iter().filter(|key| kind(key) == "mailboxes/").collect();
    let (journal, _) = commits[0].rsplit_once('/').unwrap();
    let last = commits.iter().filter(|key| key.starts_with(journal)).count() - 1;
    let records = |store: &MemoryStore| -> Vec<(String, Bytes)> {
        let runs = keys(store).into_iter().filter(|key| kind(key) == "runs/");
        runs.map(|key| (key.clone(), block_on(store.read(&key, None)).unwrap())).collect()
    };
    for skip in 0.. {
        let (faulty, engine) = failing(&world.store, &world.protection);
        // The journal is listed just before the run commits; what it recorded is read after that.
        let listing = Plan::new(Operation::List, Fault::Omitted(last)).below(format!("{journal}/"));
        faulty.plan(listing.skipping(skip));
        let before = records(&world.store);
        let repaired = block_on(engine.repair().finish()).unwrap();
        assert!(repaired.is_whole() && repaired.replaced.is_empty(), "{skip}: {repaired:?}");
        let after = records(&world.store);
        assert!(before.iter().all(|record| after.contains(record)), "{skip}");
        if faulty.struck() == 0 {
            return assert!(skip > 2, "a repair reads each journal more than once");
        }
    }
}

#[test]
fn what_a_store_does_not_give_of_commits_is_an_error_of_a_repair_and_hides_no_damage_from_a_check() {
    let mut world = World::new(&Protection::None);
    let before = world.keys();
    // A commit of which the front alone is not all, and that alone needs a pack.
    for number in 0..200 {
        // Long names, so that the blob table is behind what is read at first.
        let name = String::from_utf8(message(number, 9)[20..720].to_vec()).unwrap();
        world.put(3, name, b"Subject: short\n\n".to_vec());
    }
    world.put(3, "long".into(), message(250, 0));
    push(&world.store, &world.protection, &world.source, false);
    let pack = world.keys().into_iter().find(|key| kind(key) == "packs/" && !before.contains(key)).unwrap();
    let unread = |skip| Plan::new(Operation::Read, Fault::Before(ErrorKind::Denied)).below("mailboxes/").skipping(skip);
    for skip in 0.. {
        let (faulty, engine) = failing(&world.damaged(&pack, "missing"), &world.protection);
        faulty.plan(unread(skip));
        let repaired = block_on(engine.repair().finish());
        if faulty.struck() == 0 {
            assert!(skip > 20 && repaired.unwrap().blobs_lost == 1, "{skip}");
            break;
        }
        assert_eq!(repaired.unwrap_err().kind(), ErrorKind::Denied, "{skip}");
    }
    let store = world.damaged(&pack, "flipped within");
    assert_eq!(world.check(&store, true).marked, 1);
    for skip in 0.. {
        let (faulty, engine) = failing(&store, &world.protection);
        faulty.plan(unread(skip));
        let check = block_on(engine.check().read_data(true).finish());
        if faulty.struck() == 0 {
            return assert!(skip > 20, "{skip}");
        }
        let names = |kinds: [&str; 2]| {
            let check = check.as_ref().unwrap();
            check.damaged.iter().any(|damage| kinds.iter().any(|kind| damage.object.starts_with(kind)))
        };
        let is_told = check.as_ref().is_err_and(|error| error.kind() == ErrorKind::Denied);
        assert!(is_told || names([&pack, "mailboxes/"]), "{skip}: {check:?}");
    }
}

#[test]
fn a_pack_that_the_store_does_not_give_is_passed_over_named_and_found_elsewhere() {
    for protection in protections() {
        let world = World::new(&protection);
        let pack = world.first("packs/");
        for has_copy in [true, false] {
            let store = world.damaged("", "");
            if has_copy {
                // Another process, which finds no hits: the segments are gone.
                for key in keys(&store).into_iter().filter(|key| kind(key) == "index/") {
                    block_on(store.delete(&key)).unwrap();
                }
                let copy = source::Memory::new(SourceId::new([2; 16]));
                for ((_, name), octets) in &world.expected {
                    copy.put(&MailboxName::new("copy"), "INBOX", name.clone(), octets.clone());
                }
                assert!(push(&store, &protection, &copy, false));
            }
            let messages = if has_copy { 24 + 8 } else { 12 };
            let (faulty, engine) = failing(&store, &protection);
            // Not its end: that is read all the same.
            for skip in [0, 1] {
                faulty.heal();
                let unreadable = Plan::new(Operation::Read, Fault::Before(ErrorKind::Unavailable));
                faulty.plan(unreadable.below(&pack).skipping(skip).forever());
                let recovered = block_on(engine.recover(sink::Memory::new(Kind::Eml)).finish()).unwrap();
                assert_eq!(recovered.restored, messages, "{has_copy} {skip}: {recovered:?}");
            }
            let objects = keys(&store);
            let repaired = block_on(engine.repair().read_data(true).finish()).unwrap();
            assert!(!repaired.is_whole() && repaired.unreadable[0].starts_with(&pack), "{repaired:?}");
            assert_eq!((repaired.packs_bad, repaired.blobs_lost, repaired.messages_lost), (0, 0, 0), "{repaired:?}");
            assert_eq!(repaired.blobs_found, if has_copy { 4 } else { 0 }, "{repaired:?}");
            let is_marked = keys(&store).iter().any(|key| kind(key) == "bad/");
            assert!(!is_marked && objects.iter().all(|key| keys(&store).contains(key)));
            let restored = block_on(engine.restore(sink::Memory::new(Kind::Eml)).finish()).unwrap();
            assert_eq!(restored.restored, messages, "{restored:?}");
            faulty.heal();
            let again = block_on(engine.repair().read_data(true).finish()).unwrap();
            assert!(again.is_whole(), "{again:?}");
        }
    }
}

/// A store whose every operation lets others take their turn.
#[derive(Debug)]
struct Turns(MemoryStore);

impl Store for Turns {
    fn put<'a>(&'a self, key: &'a str, payload: Payload) -> BoxFuture<'a, mailrail::Result<()>> {
        async move { (turn().await, self.0.put(key, payload).await).1 }.boxed()
    }

    fn create<'a>(&'a self, key: &'a str, payload: Payload) -> BoxFuture<'a, mailrail::Result<Created>> {
        async move { (turn().await, self.0.create(key, payload).await).1 }.boxed()
    }

    fn read<'a>(&'a self, key: &'a str, range: Option<Range<u64>>) -> BoxFuture<'a, mailrail::Result<Bytes>> {
        async move { (turn().await, self.0.read(key, range).await).1 }.boxed()
    }

    fn length<'a>(&'a self, key: &'a str) -> BoxFuture<'a, mailrail::Result<Option<u64>>> {
        async move { (turn().await, self.0.length(key).await).1 }.boxed()
    }

    fn list<'a>(&'a self, prefix: &'a str) -> BoxStream<'a, mailrail::Result<Listed>> {
        self.0.list(prefix)
    }

    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, mailrail::Result<()>> {
        async move { (turn().await, self.0.delete(key).await).1 }.boxed()
    }
}

/// Is not ready when it is asked for the first time.
async fn turn() {
    let mut is_first = true;
    poll_fn(|context| {
        context.waker().wake_by_ref();
        if std::mem::take(&mut is_first) { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
}

#[test]
fn repairs_recoveries_and_restores_at_once_in_the_smallest_budget_come_to_their_end() {
    let world = World::new(&Protection::None);
    let store = world.damaged(&world.first("packs/"), "cut");
    let resources = Resources::inline(Resources::MEMORY_BYTES_MIN).unwrap();
    let repository = block_on(Repository::open(Arc::new(Turns(store)), Protection::None)).unwrap();
    let engine = Engine::builder(repository).resources(resources.clone()).build().unwrap();
    let recover = || engine.recover(sink::Memory::new(Kind::Eml)).finish().map_ok(|report| report.restored).boxed();
    let repair = || engine.repair().read_data(true).finish().map_ok(|_| 24).boxed();
    let restore = || engine.restore(sink::Memory::new(Kind::Eml)).finish().map_ok(|report| report.restored).boxed();
    let flows = vec![recover(), repair(), restore(), recover(), restore(), repair()];
    let mut all = join_all(flows);
    // By turns, and not for ever.
    let all = (0..10_000).find_map(|_| (&mut all).now_or_never()).expect("they wait for each other");
    assert!(all.iter().all(|restored| restored.as_ref().is_ok_and(|restored| *restored == 24)), "{all:?}");
    assert!(resources.budget().used() <= Resources::MEMORY_BYTES_MIN / 16 && resources.budget().waiting() == 0);
}

#[test]
fn with_everything_gone_that_packs_and_journals_can_do_without_all_messages_are_recovered() {
    let world = World::new(&Protection::None);
    let (store, objects) = (world.store.clone(), world.keys());
    block_on(async {
        for key in objects {
            if matches!(kind(&key), "index/" | "runs/" | "config") {
                store.delete(&key).await.unwrap();
            }
        }
    });
    assert_eq!(world.recover(&store, "recover"), 24);
    assert!(world.repair(&store).is_whole());
    let check = world.check(&store, false);
    assert!(check.is_sound() && check.derived >= 2, "{check:?}");
    assert!(keys(&store).iter().any(|key| key.starts_with("index/")));
}

#[test]
fn what_a_damaged_pack_held_is_recovered_from_a_copy_without_a_write() {
    let world = World::new(&Protection::None);
    let store = world.damaged(&world.first("packs/"), "flipped within");
    let (before, _) = world.restore(&store, "before");
    assert!(before < 24);
    // Another process, which has not heard of the damage, finds no hits: the segments are gone.
    let objects = keys(&store);
    block_on(async {
        for key in objects.into_iter().filter(|key| kind(key) == "index/") {
            store.delete(&key).await.unwrap();
        }
    });
    let copy = source::Memory::new(SourceId::new([2; 16]));
    for ((_, name), octets) in &world.expected {
        copy.put(&MailboxName::new("copy"), "INBOX", name.clone(), octets.clone());
    }
    assert!(push(&store, &world.protection, &copy, false));
    let objects = keys(&store);
    let sink = sink::Memory::new(Kind::Eml);
    let report = block_on(async { world.engine(&store).await.unwrap().recover(sink.clone()).finish().await }).unwrap();
    assert_eq!(report.failed, 0, "{report:?}");
    assert_eq!(keys(&store), objects);
}

#[test]
fn a_pack_that_vanished_behind_the_index_is_pointed_at_by_no_commit() {
    let world = World::new(&Protection::None);
    let pack = world.first("packs/");
    block_on(async {
        // The index is loaded while the pack is there; then it goes.
        let engine = world.engine(&world.store).await.unwrap();
        let first = source::Memory::new(SourceId::new([2; 16]));
        first.put(&MailboxName::new("x"), "INBOX", "0", "Subject: nothing\n\n");
        engine.transfer(first).finish().await.unwrap();
        world.store.delete(&pack).await.unwrap();
        let copy = source::Memory::new(SourceId::new([3; 16]));
        for ((_, name), octets) in &world.expected {
            copy.put(&MailboxName::new("copy"), "INBOX", name.clone(), octets.clone());
        }
        let report = engine.transfer(copy.clone()).finish().await.unwrap();
        assert_eq!((report.ledger.messages.pending, report.ledger.incomplete.len()), (8, 1), "{report:?}");
        // What is not there gives no hits any more, so the same engine can go on.
        assert!(engine.transfer(copy).finish().await.unwrap().ledger.is_complete());
        let sink = sink::Memory::new(Kind::Eml);
        let report = engine.restore(sink).mailboxes([MailboxName::new("copy")]).finish().await.unwrap();
        assert_eq!((report.restored, report.failed), (8, 0), "{report:?}");
    });
}

#[test]
fn checks_repairs_and_recoveries_can_be_moved_to_another_thread() {
    fn movable<T: Send>(_: T) {}
    let world = World::new(&Protection::None);
    let engine = block_on(world.engine(&world.store)).unwrap();
    movable(engine.check().finish());
    movable(engine.repair().finish());
    movable(engine.recover(sink::Memory::new(Kind::Eml)).finish());
    movable(engine.restore(sink::Memory::new(Kind::Eml)).finish());
}

#[test]
fn the_table_of_damages_in_the_documentation_is_what_happens() {
    let mut table = String::from(
        "| object | damage | restored | said by restore | said by check | after repair | after push and repair |\n",
    );
    table.push_str("|---|---|---|---|---|---|---|\n");
    let key = Protection::Key(Key::new([5; 32]));
    let (world, healed, swept) = (World::new(&key), World::healed(&key), World::swept(&key));
    let (single, only) = World::single(&key, true);
    for (name, world, prefix) in [
        ("config", &world, "config"),
        ("copy of the config", &world, "config.copy"),
        ("key slot (the only one)", &world, "keys/"),
        ("pack", &world, "packs/"),
        ("commit of a folder", &world, "mailboxes/"),
        ("commit of messages", &world, "mailboxes/"),
        ("index segment", &world, "index/"),
        ("the only commit of a mailbox", &single, &only),
        ("run record", &world, "runs/"),
        ("mark", &healed, "bad/"),
        ("moves", &healed, "moves/"),
        ("mark of a sweep", &swept, "sweeps/0000000000000001"),
        ("verdict of a sweep", &swept, "sweeps/0000000000000001-verdict"),
        ("end of a sweep", &swept, "sweeps/0000000000000001-done"),
        ("approval", &swept, "approvals/"),
    ] {
        let mut key = world.first(prefix);
        if name == "commit of messages" {
            key.replace_range(key.len() - 1.., "1");
        }
        for how in DAMAGES {
            let cells = row(world, &key, how);
            let _ = writeln!(table, "| {name} | {how} | {} |", cells.join(" | "));
        }
    }
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reliability-damage.md");
    let text = std::fs::read_to_string(&page).unwrap();
    let (head, rest) = text.split_once("<!-- table -->\n").unwrap();
    let (found, tail) = rest.split_once("<!-- end of table -->").unwrap();
    if std::env::var_os("MAILRAIL_WRITE_TABLE").is_some() {
        let text = format!("{head}<!-- table -->\n{table}<!-- end of table -->{tail}");
        return std::fs::write(&page, text).unwrap();
    }
    assert_eq!(found, table, "write it anew with MAILRAIL_WRITE_TABLE=1");
}

/// What became of a damaged object.
fn row(world: &World, key: &str, how: &str) -> Vec<String> {
    let (store, all) = (world.damaged(key, how), world.expected.len());
    if let Err(error) = block_on(world.engine(&store)) {
        let none = || "-".to_owned();
        return vec![format!("0 of {all}"), format!("refused: {:?}", error.kind()), none(), none(), none()];
    }
    let (found, report) = world.restore(&store, key);
    let said = |failed: u64| if failed == 0 { "nothing".to_owned() } else { format!("{failed} failed, by name") };
    let check = world.check(&store, true);
    let names = match (check.damages, check.notes.len()) {
        (0, 0) => "nothing".to_owned(),
        (0, _) => "a note".to_owned(),
        _ if check.messages_touched == 0 => "named".to_owned(),
        _ => format!("named, {} messages touched", check.messages_touched),
    };
    let after = |repaired: RepairReport| {
        let (found, _) = world.restore(&store, key);
        let sound = if world.check(&store, true).is_sound() { "sound" } else { "not sound" };
        let lost = if repaired.is_whole() { "" } else { ", says what is lost" };
        format!("{found} of {all}, {sound}{lost}")
    };
    let repaired = after(world.repair(&store));
    push(&store, &world.protection, &world.source, true);
    let pushed = after(world.repair(&store));
    vec![format!("{found} of {all}"), said(report.failed), names, repaired, pushed]
}
