//! Tables, footers and headers that lie: by a store that nobody protects, or a writer that has the key.

use crate::forge::{Commit, Forge, Section, copy, get, keys, number, payload, put, take, trailer, zstd_bomb};
use crate::stores::{engine, peak};
use crate::{common, is_full};
use futures::executor::block_on;
use mailrail::message::{Envelope, Flags, Folder, FolderPath, Identity, MailboxName, SystemFlags};
use mailrail::source::{self, Kind, SourceId};
use mailrail::store::{MemoryStore, Store};
use mailrail::testing::sink;
use mailrail::{ErrorKind, Result};
use std::collections::BTreeSet;
use std::process::Command;
use std::sync::Arc;

/// A repository with every kind of object in it, and what was stored.
struct World {
    store: MemoryStore,
    source: source::Memory,
    messages: BTreeSet<Vec<u8>>,
}

impl World {
    fn new() -> Self {
        let (store, source) = (MemoryStore::new(), source::Memory::new(SourceId::new([1; 16])));
        let mailbox = MailboxName::new("m");
        let mut world = Self { store, source, messages: BTreeSet::new() };
        let folder = Folder::new(FolderPath { names: vec!["in".into(), "box".into()], raw: "in/box".into() });
        world.source.folder(&mailbox, folder);
        for run in 0..3_u64 {
            for message in 0..3_u64 {
                let mut envelope = Envelope::new("in/box", Identity::Named(format!("{run}.{message}").into()));
                envelope.flags = Flags::new(SystemFlags::SEEN, ["a".to_owned(), format!("b{message}")]);
                envelope.extensions = vec![("label".into(), "x".into())];
                let octets = common::with_attachment(run, message, 20_000);
                world.source.message(&mailbox, envelope, octets.clone());
                world.messages.insert(octets);
            }
            world.source.remove(&mailbox, b"in/box", &Identity::Named("0.0".into()));
            block_on(async {
                let engine = engine(&world.store_of()).await.unwrap();
                assert!(engine.transfer(world.source.clone()).finish().await.unwrap().ledger.is_complete());
            });
        }
        world.heal();
        world
    }

    fn store_of(&self) -> Arc<dyn Store> {
        Arc::new(self.store.clone())
    }

    /// Damages a pack and lets it heal, which leaves a mark and moves; and sweeps, which leaves its records.
    fn heal(&self) {
        let pack = self.first("packs/");
        let mut octets = get(&self.store, &pack);
        let middle = octets.len() / 2;
        octets[middle] ^= 1;
        put(&self.store, &pack, octets);
        block_on(async {
            let engine = engine(&self.store_of()).await.unwrap();
            engine.check().read_data(true).mark_bad(true).finish().await.unwrap();
        });
        let mut settings = mailrail::Settings::default();
        settings.reread = true;
        block_on(async {
            let engine = engine(&self.store_of()).await.unwrap();
            let again = mailrail::Engine::builder(engine.repository().clone()).settings(settings).build().unwrap();
            again.transfer(self.source.clone()).finish().await.unwrap();
            assert!(engine.repair().finish().await.unwrap().is_whole());
        });
    }

    /// The first commit with messages in it.
    fn commit(&self) -> (String, Commit) {
        let keys = keys(&self.store).into_iter().filter(|key| key.starts_with("mailboxes/"));
        let mut commits = keys.map(|key| (key.clone(), Commit::open(&get(&self.store, &key))));
        commits.find(|(_, commit)| commit.sections.iter().any(|section| section.kind == 7)).unwrap()
    }

    fn first(&self, prefix: &str) -> String {
        keys(&self.store).into_iter().find(|key| key.starts_with(prefix)).unwrap_or_else(|| panic!("no {prefix}"))
    }

    /// Does everything that is done with a repository: nothing panics, and whatever comes back is what was stored.
    fn exercise(&self, store: &MemoryStore, what: &str, is_thorough: bool) {
        block_on(async {
            let Ok(engine) = engine(&(Arc::new(store.clone()) as Arc<dyn Store>)).await else { return };
            for is_recovery in [false, true] {
                let sink = sink::Memory::new(Kind::Eml);
                let report = match is_recovery {
                    false => engine.restore(sink.clone()).finish().await.map(|report| (report.restored, report.failed)),
                    true => engine.recover(sink.clone()).finish().await.map(|report| (report.restored, report.failed)),
                };
                let delivered: Vec<Vec<u8>> =
                    sink.mailboxes().into_values().flat_map(|mailbox| mailbox.messages).map(|one| one.octets).collect();
                assert!(delivered.iter().all(|octets| self.messages.contains(octets)), "{what}: not what was stored");
                if let Ok((restored, _)) = report {
                    assert_eq!(restored, delivered.len() as u64, "{what}");
                }
            }
            let _ = engine.messages(&MailboxName::new("m"), None).await;
            let _ = (engine.statistics().await, engine.runs().await, engine.repository().mailboxes().await);
            let _ = engine.check().read_data(true).finish().await;
            if is_thorough {
                let _ = engine.transfer(self.source.clone()).finish().await;
                let _ = engine.repair().finish().await;
                let _ = engine.sweep().finish().await;
                let _ = engine.check().finish().await;
            }
        });
    }

    fn forged(&self, key: &str, octets: Vec<u8>) -> MemoryStore {
        let store = copy(&self.store);
        put(&store, key, octets);
        store
    }
}

/// What stands in the place of an octet: any length, count, offset or number may be in it.
fn lies() -> Vec<Vec<u8>> {
    let mut lies = vec![vec![0], vec![0x7f], vec![0xff], vec![0x81, 0x01]];
    for lie in [1 << 24, 1 << 32, 1 << 62, (1 << 63) + 1, u64::MAX] {
        let mut encoded = Vec::new();
        number(lie, &mut encoded);
        lies.push(encoded);
    }
    lies
}

/// The octets with each lie at each of the first places, one at a time.
fn lying(octets: &[u8], mut each: impl FnMut(usize, usize, Vec<u8>)) {
    let places = if is_full() { 400 } else { 90 };
    for at in 0..octets.len().min(places) {
        for (which, lie) in lies().iter().enumerate() {
            // In the default run every place meets a few of them, and every one of them many places.
            if is_full() || (at + which) % 3 == 0 {
                each(at, which, [&octets[..at], lie, &octets[at + 1..]].concat());
            }
        }
    }
}

#[test]
fn a_lie_anywhere_in_a_small_object_is_an_error_or_harmless() {
    let world = World::new();
    let forge = Forge::of(&world.store);
    let run = world.first("runs/");
    let approval = format!("approvals/{}-{}", &run[5..21], 0);
    let swept = [&[1, 1][..], &[3; 16], &[1], &[4; 16], &[2]].concat();
    let mut objects: Vec<(&str, String, Vec<u8>)> =
        [("MRINDX", "index/"), ("MRRUNS", "runs/"), ("MRBADP", "bad/"), ("MRMOVE", "moves/")]
            .into_iter()
            .map(|(kind, prefix)| (kind, world.first(prefix)))
            .map(|(kind, key)| (kind, key.clone(), payload(&get(&world.store, &key)).to_vec()))
            .collect();
    objects.push(("MRSWEP", format!("sweeps/{:016x}", 1), swept.clone()));
    objects.push(("MRSWEP", format!("sweeps/{:016x}-verdict", 1), swept));
    objects.push(("MRAPPR", approval, [&[1, 5, 3][..], b"why"].concat()));
    for (kind, key, sound) in objects {
        assert_eq!(payload(&forge.small(kind, &key, &sound)), sound);
        lying(&sound, |at, which, payload| {
            let store = world.forged(&key, forge.small(kind, &key, &payload));
            world.exercise(&store, &format!("{key} at {at}: lie {which}"), at % 5 == 0);
        });
    }
}

#[test]
fn a_lie_anywhere_in_a_commits_head_or_sections_is_an_error_or_harmless() {
    let world = World::new();
    let forge = Forge::of(&world.store);
    let commits: Vec<String> = keys(&world.store).into_iter().filter(|key| key.starts_with("mailboxes/")).collect();
    let commits = commits.iter().map(|key| (key, Commit::open(&get(&world.store, key))));
    for (key, commit) in commits.filter(|(_, commit)| commit.sections.iter().any(|section| section.kind == 7)).take(2) {
        let head = commit.head(&forge);
        world.exercise(&world.forged(key, forge.commit(key, &commit)), "a sound forgery", true);
        lying(&head, |at, which, head| {
            let store = world.forged(key, forge.commit_of(key, &head, &commit));
            world.exercise(&store, &format!("{key}, head at {at}: lie {which}"), at % 5 == 0);
        });
        for number in 0..commit.sections.len() {
            let section = &commit.sections[number];
            lying(&section.content(), |at, which, content| {
                let mut forged = commit.clone();
                forged.sections[number] = Section::of(section.kind, &content);
                let store = world.forged(key, forge.commit(key, &forged));
                let what = format!("{key}, section {} at {at}: lie {which}", section.kind);
                world.exercise(&store, &what, at % 11 == 0);
            });
        }
    }
}

#[test]
fn a_lie_anywhere_in_a_packs_footer_or_trailer_is_an_error_or_harmless() {
    let world = World::new();
    let forge = Forge::of(&world.store);
    let key = keys(&world.store).into_iter().rfind(|key| key.starts_with("packs/")).unwrap();
    let pack = get(&world.store, &key);
    let end = pack.len() - 24;
    let offset = u64::from_le_bytes(pack[end..end + 8].try_into().unwrap()) as usize;
    let footer = pack[offset..end - 16].to_vec();
    let mut frames = Vec::new();
    let mut at = 40;
    while at < offset {
        let length = u32::from_le_bytes(pack[at..at + 4].try_into().unwrap()) as usize;
        frames.push(pack[at + 4..at + 4 + length - 16].to_vec());
        at += 4 + length;
    }
    lying(&footer, |at, which, footer| {
        let store = world.forged(&key, forge.pack(&key, &frames, &footer, trailer));
        world.exercise(&store, &format!("footer at {at}: lie {which}"), at % 5 == 0);
    });
    for lie in [0, 1, 39, 40, 1 << 24, u64::from(u32::MAX), 1 << 40, u64::MAX - 23, u64::MAX] {
        type Trailer = dyn Fn(u64, u32, u32) -> Vec<u8>;
        let trailers: [Box<Trailer>; 4] = [
            Box::new(move |_, length, count| trailer(lie, length, count)),
            Box::new(move |offset, _, count| trailer(offset, lie as u32, count)),
            Box::new(move |offset, length, _| trailer(offset, length, lie as u32)),
            Box::new(move |_, _, _| trailer(lie, lie as u32, lie as u32)),
        ];
        for (which, trailer) in trailers.iter().enumerate() {
            let store = world.forged(&key, forge.pack(&key, &frames, &footer, trailer));
            world.exercise(&store, &format!("trailer {which}: {lie}"), true);
        }
    }
}

#[test]
fn an_object_under_a_number_that_cannot_be_ends_in_an_error_at_once() {
    let world = World::new();
    let commit = world.first("mailboxes/");
    let run = world.first("runs/");
    for number in [u64::MAX, u64::MAX - 1, 1 << 63, (1 << 62) + 1, 1 << 62, 1 << 40] {
        for (prefix, key) in [(39 + 5, &commit), (22, &run)] {
            let forged = format!("{}{number:016x}", &key[..prefix.min(key.len() - 16)]);
            world.exercise(&world.forged(&forged, get(&world.store, key)), &forged, true);
        }
        for what in ["", "-verdict", "-done"] {
            let forged = format!("sweeps/{number:016x}{what}");
            let octets = Forge::of(&world.store).small("MRSWEP", &forged, &[1, 0, 0]);
            world.exercise(&world.forged(&forged, octets), &forged, true);
        }
    }
}

const ROLE: &str = "MAILRAIL_HOSTILE_TABLE";
/// What a section of 64 MiB may take with everything that is made of it, beside the budget of 64 MiB.
const BEYOND: u64 = 576 << 20;

/// Sections as large as they may be, and larger, of entries as small as they can be; frames that inflate to GiBs.
#[cfg(target_os = "linux")]
#[test]
fn bombs_in_tables_and_frames_end_in_an_error_and_take_no_more_memory_than_their_limits_allow() {
    for bomb in table_bombs() {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "tables::child", "--nocapture"])
            .env(ROLE, bomb)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{bomb}: {text}\n{}", String::from_utf8_lossy(&output.stderr));
        let peak = text.lines().find_map(|line| line.split_once("peak ")?.1.parse::<u64>().ok()).unwrap();
        if is_full() {
            println!("| {bomb} | {:.1} MiB |", peak as f64 / 1_048_576.0);
        }
        assert!(peak < (64 << 20) + BEYOND, "{bomb}: {} MiB", peak >> 20);
    }
}

fn table_bombs() -> Vec<&'static str> {
    vec![
        "1 zeros",
        "2 zeros",
        "3 zeros",
        "4 zeros",
        "5 zeros",
        "6 zeros",
        "7 zeros",
        "1 folders",
        "1 names",
        "1 companions",
        "2 keywords",
        "2 sets",
        "2 folders",
        "2 rows",
        "2 shared keywords",
        "2 extensions",
        "2 pieces",
        "4 gone",
        "5 blobs",
        "2 inflates",
        "7 inflates",
        "2 inflates untold",
        "7 stored",
        "2 stored",
        "pack inflates",
        "pack inflates untold",
        "pack stored",
        "index rows",
        "runs mailboxes",
        "sweeps packs",
    ]
}

/// Does nothing unless it is the process of a bomb.
#[test]
fn child() {
    let Ok(bomb) = std::env::var(ROLE) else { return };
    let world = World::new();
    let forge = Forge::of(&world.store);
    let before = peak();
    let store = plant(&world, &forge, &bomb);
    world.exercise(&store, &bomb, false);
    let failed = block_on(refused(&store));
    assert!(failed || bomb.starts_with("index"), "{bomb}: nothing was noticed");
    println!("before {before}");
    println!("peak {}", peak());
}

/// Whether a check or a restore says that something is wrong.
async fn refused(store: &MemoryStore) -> bool {
    let engine = engine(&(Arc::new(store.clone()) as Arc<dyn Store>)).await.unwrap();
    let is_sound = |result: Result<bool>| result.is_ok_and(|is_sound| is_sound);
    let check = engine.check().read_data(true).finish().await.map(|report| report.is_sound());
    let restore = engine.restore(sink::Memory::new(Kind::Eml)).finish().await;
    if let Err(error) = &restore {
        assert!(matches!(error.kind(), ErrorKind::Damaged | ErrorKind::Limit | ErrorKind::Unsupported), "{error:?}");
    }
    let swept = engine.sweep().finish().await.map(|_| true);
    !is_sound(check) || !is_sound(restore.map(|report| report.is_complete())) || !is_sound(swept)
}

const SECTION: usize = 64 << 20;

/// A store with this bomb in it.
fn plant(world: &World, forge: &Forge, bomb: &str) -> MemoryStore {
    let (place, what) = bomb.split_once(' ').unwrap();
    let octets = if is_full() { 4 << 30 } else { 256 << 20 };
    let Ok(kind) = place.parse::<u8>() else { return plant_elsewhere(world, forge, place, what, octets) };
    let (key, mut commit) = world.commit();
    let mut section = match what {
        "inflates" | "inflates untold" => {
            let payload = zstd_bomb(octets, what == "inflates");
            Section { kind, content: SECTION as u64, payload, stored: None }
        }
        "stored" => {
            let mut section = commit.section(kind).unwrap().clone();
            section.stored = Some(u64::from(u32::MAX));
            section
        }
        _ => Section::of(kind, &bomb_content(kind, what)),
    };
    if what.starts_with("inflates") {
        section.content = 1000;
    }
    if kind == 2 && !what.starts_with("inflates") && what != "stored" && what != "zeros" {
        commit.claim_messages(take(&mut &section.content()[..]));
    }
    commit.sections.retain(|section| section.kind != kind);
    commit.sections.push(section);
    world.forged(&key, forge.commit(&key, &commit))
}

fn plant_elsewhere(world: &World, forge: &Forge, place: &str, what: &str, octets: u64) -> MemoryStore {
    let many = |count: u64, each: &[u8]| {
        let mut payload = Vec::new();
        number(count, &mut payload);
        payload.extend(each.repeat(count as usize));
        payload
    };
    match place {
        "index" => {
            let (key, rows) = (world.first("index/"), 1_000_000);
            let table =
                [&[0, 1][..], &[5; 16], &many(rows, &[0, 40, 50, 50, 0]), &vec![1; 32 * rows as usize]].concat();
            world.forged(&key, forge.small("MRINDX", &key, &table))
        }
        "runs" => {
            let key = keys(&world.store).into_iter().rfind(|key| key.starts_with("runs/")).unwrap();
            let payload = [&[1, 0, 1, 1][..], &many(SECTION as u64, &[0])].concat();
            world.forged(&key, forge.small("MRRUNS", &key, &payload))
        }
        "sweeps" => {
            let key = format!("sweeps/{:016x}", 1);
            let payload = [&[1][..], &many(SECTION as u64 / 20, &[9; 16]), &[0]].concat();
            world.forged(&key, forge.small("MRSWEP", &key, &payload))
        }
        _ => plant_in_a_pack(world, forge, what, octets),
    }
}

/// All messages of the first commit point at a frame that is a bomb.
fn plant_in_a_pack(world: &World, forge: &Forge, what: &str, octets: u64) -> MemoryStore {
    let (key, mut commit) = world.commit();
    let id = [0xee; 16];
    let pack = format!("packs/ee/{}", "ee".repeat(16));
    let frame = zstd_bomb(octets, what == "inflates");
    let length = (frame.len() + 20) as u64;
    let digest = forge.digest(b"no content");
    let content: u64 = if what == "stored" { 100 } else { 16 << 20 };
    let mut footer = digest.to_vec();
    number(length, &mut footer);
    number(content, &mut footer);
    let blobs = commit.section(5).unwrap();
    let mut rows = Vec::new();
    let count = 3;
    number(1, &mut rows);
    rows.extend_from_slice(&id);
    number(count, &mut rows);
    for _ in 0..count {
        let stored = if what == "stored" { u64::from(u32::MAX) } else { length };
        [0, 40, stored, content, 0].into_iter().for_each(|value| number(value, &mut rows));
    }
    (0..count).for_each(|_| rows.extend_from_slice(&digest));
    *blobs = Section::of(5, &rows);
    let store = world.forged(&key, forge.commit(&key, &commit));
    put(&store, &pack, forge.pack(&pack, &[frame], &footer, trailer));
    store
}

/// The content of a section of at most 64 MiB.
fn bomb_content(kind: u8, what: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let many = |out: &mut Vec<u8>, count: usize, each: &[u8]| {
        number(count as u64, out);
        out.extend(each.repeat(count));
    };
    match what {
        "zeros" => return vec![0; SECTION],
        "gone" => many(&mut out, SECTION - 8, &[2]),
        "blobs" => {
            many(&mut out, 1, &[7; 16]);
            many(&mut out, SECTION / 40, &[0, 40, 50, 50, 0]);
            out.resize(out.len() + SECTION / 40 * 32, 1);
        }
        // A folder of nothing: raw, names, source, gone, evidence, traits, date, companions.
        "folders" if kind == 1 => many(&mut out, SECTION / 8 - 2, &[0; 8]),
        "names" => {
            out.extend_from_slice(&[1, 0]);
            number(SECTION as u64 - 100, &mut out);
            out.resize(SECTION - 80, 0);
        }
        "companions" => {
            out.extend_from_slice(&[1, 0, 0, 0, 0, 0, 0, 0]);
            number(SECTION as u64 / 3 - 100, &mut out);
            out.resize(SECTION, 0);
        }
        "keywords" => {
            out.extend_from_slice(&[3, 1, 0, 1]);
            number(SECTION as u64 - 100, &mut out);
            out.resize(SECTION, 0);
        }
        "sets" => {
            out.extend_from_slice(&[3, 1, 0]);
            many(&mut out, SECTION - 100, &[0]);
        }
        "folders" => {
            out.push(3);
            many(&mut out, SECTION - 100, &[0]);
        }
        _ => return rows_of(what),
    }
    out
}

/// Columns of rows that are all alike.
fn rows_of(what: &str) -> Vec<u8> {
    let keywords: u64 = if what == "shared keywords" { 1_000_000 } else { 0 };
    let (extensions, pieces) = match what {
        "extensions" => (SECTION as u64 / 3, 0),
        "pieces" => (0, SECTION as u64 - 1000),
        _ => (0, 0),
    };
    let rows: usize = match what {
        "rows" => 1 << 19,
        "shared keywords" => 500_000,
        _ => 1,
    };
    let mut out = Vec::new();
    number(rows as u64, &mut out);
    out.extend_from_slice(&[1, 0, 1]);
    number(keywords, &mut out);
    (0..keywords).for_each(|word| {
        out.extend([3, (word >> 12) as u8 & 63 | 64, (word >> 6) as u8 & 63 | 64, word as u8 & 63 | 64])
    });
    for column in 1..=18 {
        let mut value = Vec::new();
        match column {
            13 => {
                number(extensions, &mut value);
                value.resize(value.len() + 2 * extensions as usize, 0);
            }
            14 => value = vec![1; 32],
            17 => value = vec![0, 0],
            18 => {
                number(pieces, &mut value);
                value.resize(value.len() + pieces as usize, 1);
            }
            _ => value.push(0),
        }
        number((value.len() * rows) as u64, &mut out);
        (0..rows).for_each(|_| out.extend_from_slice(&value));
    }
    out
}
