//! Whole objects under their names in a store: of any octets, sealed or not, and of any values.

use super::{pack, pack_changed};
use crate::digest::Digest;
use crate::error::Result;
use crate::ledger::{Incomplete, Ledger};
use crate::message::MailboxName;
use crate::pack::{PackId, Row};
use crate::repository::fuzzing::{Choices, blob, commit, commit_changed};
use crate::repository::{
    Active, Approval, BadMark, Ended, Journal, JournalHead, JournalName, Mark, Move, Moves, Repository, RunId,
    RunRecord, Seams, SegmentId, create_mark, create_run_record, create_verdict, latest_sweep, mark_bad, read_mark,
    read_moves, read_run_record, read_verdict, run_key, segment_rows, write_moves, write_segment,
};
use crate::seal::{Key, ObjectKind, Protection, SALT};
use crate::store::{Listed, MemoryStore, Retries, Store};
use crate::testing::{ManualClock, SeededRandomness};
use futures::{FutureExt, TryStreamExt};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

const TOKEN: [u8; 8] = [1; 8];
const OLD: PackId = PackId::new([5; 32]);
const MAILBOX: &[u8] = b"m";

/// Any octets as each kind of object, in a repository with and in one without a key: as they are; behind the right magic; sealed by somebody who has the
/// key; and sealed, with an octet changed afterwards, which must be noticed. The first two octets choose kind and seal.
pub fn objects(input: &[u8]) {
    let Some((&[kind, how], octets)) = input.split_first_chunk::<2>() else { return };
    match kind % 12 {
        0 => return pack(octets),
        1 => return commit(octets),
        _ => {}
    }
    for protection in protections() {
        let store = MemoryStore::new();
        let repository = open(&store, &protection).expect("a new repository");
        let (seal, key) = place(kind % 12);
        let object = match (how % 4, seal) {
            (0, _) | (_, None) => octets.to_vec(),
            (1, Some(kind)) => [&kind.magic()[..], octets].concat(),
            (_, Some(kind)) => repository.seal_object(kind, &key, octets).expect("a sealed object"),
        };
        let is_changed = how % 4 == 3 && seal.is_some();
        let object = if is_changed { changed(object, how) } else { object };
        done(store.put(&key, object.into())).expect("a store in memory");
        let is_read = read(&repository, &store, &protection, kind % 12, &key).is_ok();
        assert!(!(is_read && is_changed), "a changed octet went unnoticed");
    }
}

/// Any values as each kind of object: what is written reads back as it was.
pub fn round_trip(input: &[u8]) {
    let Some((&kind, octets)) = input.split_first() else { return };
    match kind % 8 {
        0 => return commit_changed(octets),
        1 => return pack_changed(octets),
        _ => {}
    }
    for protection in protections() {
        let repository = open(&MemoryStore::new(), &protection).expect("a new repository");
        let mut choices = Choices::new(octets);
        let came_back = match kind % 8 {
            2 => segment(&repository, &mut choices),
            3 => moves(&repository, &mut choices),
            4 => run(&repository, &mut choices),
            5 => sweep(&repository, &mut choices),
            6 => approval(&repository, &mut choices),
            _ => mark(&repository, &mut choices),
        };
        came_back.expect("what was written reads");
    }
}

fn changed(mut object: Vec<u8>, how: u8) -> Vec<u8> {
    let at = usize::from(how >> 2) * 7919 % object.len();
    object[at] ^= 1 + (how >> 5);
    object
}

fn protections() -> [Protection; 2] {
    [Protection::None, Protection::Key(Key::new([5; 32]))]
}

/// A repository that is the same in every run.
fn open(store: &MemoryStore, protection: &Protection) -> Result<Repository> {
    let seams = Seams {
        clock: Arc::new(ManualClock::new(Duration::from_secs(1))),
        randomness: Arc::new(SeededRandomness::new(7)),
        retries: Retries::none(),
        ..Seams::default()
    };
    done(Repository::open_or_create_with(Arc::new(store.clone()), protection.clone(), seams))
}

/// Nothing in memory waits.
fn done<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("a store in memory does not wait")
}

/// How an object of this kind is sealed, and where it lies.
fn place(kind: u8) -> (Option<ObjectKind>, String) {
    match kind {
        2 => (None, "config".into()),
        3 => (None, "config.copy".into()),
        4 => (None, format!("keys/{}", "ab".repeat(8))),
        5 => (Some(ObjectKind::Segment), format!("index/{}", "ab".repeat(16))),
        6 => (Some(ObjectKind::Run), run_key(&TOKEN, 0)),
        7 => (Some(ObjectKind::Sweep), format!("sweeps/{:016x}", 1)),
        8 => (Some(ObjectKind::Sweep), format!("sweeps/{:016x}-verdict", 1)),
        9 => (Some(ObjectKind::Approval), format!("approvals/{}", RunId::new(TOKEN, 0))),
        10 => (Some(ObjectKind::Bad), format!("bad/{OLD}")),
        _ => (Some(ObjectKind::Moves), format!("moves/05/{OLD}-{}", "ab".repeat(8))),
    }
}

/// Reads it in all the ways in which it is read.
fn read(repository: &Repository, store: &MemoryStore, protection: &Protection, kind: u8, key: &str) -> Result<()> {
    let octets = done(store.read(key, None))?;
    let listed = Listed { key: key.to_owned(), length: octets.len() as u64 };
    match kind {
        2 | 3 => open(store, protection).map(drop),
        4 => {
            let _ = done(repository.keys().list());
            open(store, protection).map(drop)
        }
        5 => match done(segment_rows(repository, &listed))? {
            Some(_) => Ok(()),
            None => Err(crate::error::Error::damaged("a segment does not read")),
        },
        6 => done(read_run_record(repository, &TOKEN, 0)).map(drop),
        7 => {
            done(latest_sweep(repository))?;
            done(read_mark(repository, 1)).map(drop)
        }
        8 => done(read_verdict(repository, 1)).map(drop),
        9 => done(Approval::read(repository, RunId::new(TOKEN, 0))).map(drop),
        10 => BadMark::open(repository, key, &octets).map(drop),
        _ => {
            done(read_moves(repository, OLD))?;
            done(crate::repository::open_moves(repository, &listed)).map(drop)
        }
    }?;
    let name = JournalName::new(repository, &MailboxName::new(MAILBOX));
    done(name.last(repository))?;
    done(Journal::load(repository, &MailboxName::new(MAILBOX), None)).map(drop)
}

fn rows(choices: &mut Choices<'_>) -> Vec<Row> {
    (0..choices.octet() % 8).map(|_| blob(choices)).collect()
}

fn segment(repository: &Repository, choices: &mut Choices<'_>) -> Result<()> {
    let mut written = rows(choices);
    let replaces: Vec<SegmentId> = (0..choices.octet() % 3).map(|_| [choices.octet(); 16]).collect();
    done(write_segment(repository, &mut written, &replaces))?;
    let listed: Vec<Listed> = done(repository.store().list("index/").try_collect())?;
    assert_eq!(done(segment_rows(repository, &listed[0]))?, Some(written));
    Ok(())
}

fn moves(repository: &Repository, choices: &mut Choices<'_>) -> Result<()> {
    let written: Vec<Move> = rows(choices).into_iter().map(|to| Move { offset: choices.number() as u64, to }).collect();
    done(write_moves(repository, OLD, &written))?;
    let mut expected = Moves::default();
    expected.add(written);
    assert_eq!(done(read_moves(repository, OLD))?, expected);
    Ok(())
}

fn run(repository: &Repository, choices: &mut Choices<'_>) -> Result<()> {
    let (started, written) = (choices.number() as u64, choices.number() as u64);
    let mailboxes: Vec<MailboxName> =
        (0..choices.octet() % 4).map(|_| MailboxName::new(choices.short().to_vec())).collect();
    let record = match choices.octet() % 5 {
        0 => RunRecord::Active(Active { started, written, mailboxes }),
        1 => RunRecord::Fence { written, epoch: written >> 2 },
        2 => RunRecord::Lost { written },
        kind => {
            let mut ledger = Ledger::default();
            (ledger.messages.seen, ledger.messages.stored) = (choices.number() as u64, choices.number() as u64);
            (ledger.bytes.read, ledger.objects) = (choices.number() as u64, choices.number() as u64);
            ledger.incomplete =
                (0..choices.octet() % 3).map(|_| Incomplete { name: choices.text(), reason: choices.text() }).collect();
            let head = |mailbox| JournalHead {
                mailbox,
                sequence: choices.number() as u64 >> 2,
                digest: Digest::new([choices.octet(); 32]),
            };
            let ended = Ended { started, written, ledger, heads: mailboxes.into_iter().map(head).collect() };
            if kind == 3 { RunRecord::Ended(Box::new(ended)) } else { RunRecord::Noted(Box::new(ended)) }
        }
    };
    done(create_run_record(repository, &TOKEN, 0, &record))?;
    assert_eq!(done(read_run_record(repository, &TOKEN, 0))?, Some(record));
    Ok(())
}

fn sweep(repository: &Repository, choices: &mut Choices<'_>) -> Result<()> {
    let mut packs =
        || -> Vec<PackId> { (0..choices.octet() % 8).map(|_| PackId::new([choices.octet(); 32])).collect() };
    let (packs, moved) = (packs(), packs());
    let journals = (0..choices.octet() % 8)
        .map(|_| (JournalName::of([choices.octet(); 16]), choices.number() as u64 >> 2))
        .collect::<BTreeMap<_, _>>();
    let mark = Mark { packs, moved, journals: journals.into_iter().collect() };
    done(create_mark(repository, 1, &mark))?;
    done(create_verdict(repository, 1, mark.clone()))?;
    assert_eq!(done(read_mark(repository, 1))?, mark);
    assert_eq!(done(read_verdict(repository, 1))?, Some(mark));
    Ok(())
}

fn approval(repository: &Repository, choices: &mut Choices<'_>) -> Result<()> {
    let why = format!("because {}", choices.text());
    let written = done(Approval::write(repository, RunId::new(TOKEN, 0), &why))?;
    assert_eq!(done(Approval::read(repository, RunId::new(TOKEN, 0)))?, Some(written));
    Ok(())
}

fn mark(repository: &Repository, choices: &mut Choices<'_>) -> Result<()> {
    let reason = choices.text();
    done(mark_bad(repository, OLD, &reason))?;
    let key = format!("bad/{OLD}");
    let octets = done(repository.store().read(&key, None))?;
    assert_eq!(BadMark::open(repository, &key, &octets)?.reason, reason);
    assert!(octets.len() > SALT);
    Ok(())
}
