//! What fuzz targets need of the repository's insides.

use super::columns::{Columns, MessageRow, RecipeRange, RowReader};
use super::commit::{
    CommitReader, CommitRef, CompressedBlock, Draft, FRONT, FolderRecord, Place, Section, decode_blobs, decode_commits,
    decode_folders, decode_gone, encode, front_length,
};
use super::{BadMark, CONFIG_CHECK, Config, Repository, RunRecord, moves, segment};
use crate::digest::{Digest, Domain};
use crate::error::Result;
use crate::message::{
    Companion, Envelope, Evidence, Flags, Folder, FolderPath, Identity, InternalDate, MailboxName, SystemFlags,
};
use crate::pack::{Location, PackId, Packer, Row};
use crate::seal::{ObjectKind, Protection, SALT, Seal, Secrets};
use crate::source::{Kind, Reason, SourceId};
use crate::store::MemoryStore;
use crate::wire::Decoder;
use bytes::Bytes;
use futures::FutureExt;
use std::sync::{Arc, OnceLock};

const KEY: &str = "mailboxes/00/00000000000000000000000000000000/0000000000000001";

/// Reads octets as a commit: as they are, and as the head of a commit that somebody who has the key has forged.
pub(crate) fn commit(octets: &[u8]) {
    for secrets in secrets() {
        read(&secrets, octets);
        let seal = Seal::new(&secrets, ObjectKind::Commit, KEY, &[6; SALT]).expect("a seal");
        let mut forged = ObjectKind::Commit.magic().to_vec();
        forged.extend_from_slice(&[6; SALT]);
        forged.extend_from_slice(&(octets.len() as u32 + 16).to_le_bytes());
        forged.extend_from_slice(octets);
        seal.seal(0, &mut forged, FRONT).expect("a sealed head");
        read(&secrets, &forged);
    }
}

/// A commit of rows, folders and blobs that the octets choose reads back as it was; with one octet changed, it does not read.
pub(crate) fn commit_changed(octets: &[u8]) {
    let mut choices = Choices::new(octets);
    let secrets = choices.one_of(&secrets()).clone();
    let (draft, rows, blobs) = draft(&mut choices);
    let place = Place {
        mailbox: MailboxName::new(choices.short()),
        sequence: 1,
        previous: Some(Digest::new([1; 32])),
        writer: [2; 8],
        time: choices.number() as u64,
        first_ordinal: 7,
        checkpoint: None,
        forgotten: None,
        epoch: 0,
        is_void: false,
    };
    let mut packer = Packer::new(1).expect("a packer");
    let encoded = encode(&draft, &place, KEY, &secrets, [6; SALT], &mut packer).expect("a commit");
    let sound = read(&secrets, &encoded.octets).expect("a sound commit is refused");
    assert_eq!(sound, Content { rows, folders: draft.folders, gone: draft.gone, blobs });
    let mut changed = encoded.octets;
    let at = choices.number() % changed.len();
    changed[at] ^= choices.octet().max(1);
    assert!(read(&secrets, &changed).is_none(), "a changed octet at {at} went unnoticed");
}

/// Reads octets as message columns; what reads is written and read again.
pub(crate) fn columns(octets: &[u8]) {
    let read = |block: Vec<u8>| RowReader::new(block.into(), 0)?.collect::<Result<Vec<MessageRow>>>();
    let Ok(rows) = read(octets.to_vec()) else { return };
    let mut columns = Columns::default();
    rows.iter().for_each(|row| columns.push(row));
    assert_eq!(read(columns.encode()).expect("our own columns read"), rows);
}

/// Reads octets as a config, and as one whose check is right.
pub(crate) fn config(octets: &[u8]) {
    let _ = Config::decode(octets);
    let mut checked = octets.to_vec();
    checked.extend_from_slice(&blake3::hash(octets).as_bytes()[..CONFIG_CHECK]);
    if let Ok(config) = Config::decode(&checked) {
        assert_eq!(config.encode(), checked);
    }
}

/// Reads octets as each of the other tables: folders, gone messages, blobs, commits, index segments, run records, marks, moves, key slots.
pub(crate) fn tables(octets: &[u8]) {
    let _ = decode_folders(&Bytes::copy_from_slice(octets));
    let _ = decode_gone(octets);
    let _ = decode_blobs(octets);
    let _ = decode_commits(octets);
    let _ = segment::decode(octets);
    secrets().iter().for_each(|secrets| super::slots::read_any(octets, secrets));
    let _ = moves::decode(octets);
    if let Ok(mark) = BadMark::decode(octets) {
        assert_eq!(BadMark::decode(&mark.encode()).expect("our own mark reads"), mark);
    }
    let repository = repository();
    let run = repository.seal_object(ObjectKind::Run, "runs/a/0", octets).expect("a sealed record");
    let _ = RunRecord::open(repository, "runs/a/0", &run);
    let _ = RunRecord::open(repository, "runs/a/0", octets);
}

/// Everything of a commit that is told by its sections.
#[derive(Debug, PartialEq)]
struct Content {
    rows: Vec<MessageRow>,
    folders: Vec<FolderRecord>,
    gone: Vec<u64>,
    blobs: Vec<Row>,
}

/// A whole commit; `None` if anything of it is refused.
fn read(secrets: &Secrets, octets: &[u8]) -> Option<Content> {
    let front = octets.get(..front_length(octets).ok()?)?;
    let reader = CommitReader::new(KEY, secrets, front).ok()?;
    let mut content = Content { rows: Vec::new(), folders: Vec::new(), gone: Vec::new(), blobs: Vec::new() };
    if reader.length() != octets.len() as u64 {
        return None;
    }
    for section in Section::ALL {
        for (number, range) in reader.blocks(section) {
            let block = reader.open(number, octets.get(range.start as usize..range.end as usize)?).ok()?;
            match section {
                Section::Messages => {
                    content.rows.extend(reader.messages(block).ok()?.collect::<Result<Vec<_>>>().ok()?)
                }
                Section::Updates => drop(RowReader::new(block, 0).ok()?.collect::<Result<Vec<_>>>().ok()?),
                Section::Folders => content.folders.extend(decode_folders(&block).ok()?),
                Section::Gone => content.gone.extend(decode_gone(&block).ok()?),
                Section::Blobs => content.blobs.extend(decode_blobs(&block).ok()?),
                Section::Commits => drop(decode_commits(&block).ok()?),
                Section::Recipes => {}
            }
        }
    }
    Some(content)
}

/// A draft, and its messages and blobs as they must read.
fn draft(choices: &mut Choices<'_>) -> (Draft, Vec<MessageRow>, Vec<Row>) {
    let mut draft = Draft::default();
    let mut rows = Vec::new();
    let source = draft.source(SourceId::new([4; 16]), &Kind::Other("fuzz".into()));
    for ordinal in 0..u64::from(choices.octet() % 8) {
        let row = row(choices, ordinal, source);
        draft.messages.push(&row);
        rows.push(MessageRow { ordinal: ordinal + 7, ..row });
    }
    for ordinal in 0..u64::from(choices.octet() % 3) {
        draft.updates.push(&row(choices, ordinal, source));
    }
    draft.folders = (0..choices.octet() % 3).map(|_| folder(choices, source)).collect();
    draft.gone = (0..choices.octet() % 3).map(|_| choices.number() as u64).collect();
    let mut blobs = Vec::new();
    for _ in 0..choices.octet() % 4 {
        let blob = blob(choices);
        if draft.blobs.number(blob) as usize == blobs.len() {
            blobs.push(blob);
        }
    }
    for _ in 0..choices.octet() % 3 {
        let (mut octets, raw) = (Vec::new(), choices.blob());
        Packer::new(1).and_then(|mut packer| packer.compress(&raw, &mut octets)).expect("a block");
        draft.recipes.push(CompressedBlock { octets, raw: raw.len() as u32 });
    }
    if choices.octet().is_multiple_of(4) {
        let digest = Digest::new([choices.octet(); 32]);
        draft.commits = vec![CommitRef {
            sequence: 0,
            digest,
            time: 1,
            first_ordinal: 0,
            rows: 7,
            inlined: true,
            forgotten: false,
        }];
    }
    (draft, rows, blobs)
}

fn row(choices: &mut Choices<'_>, ordinal: u64, source: u32) -> MessageRow {
    let name = choices.short();
    let identity = if name.is_empty() { Identity::Content } else { Identity::Named(name) };
    let mut envelope = Envelope::new(choices.short(), identity);
    envelope.evidence = Evidence(choices.short());
    let keywords = (0..choices.octet() % 3).map(|_| choices.text());
    let keywords: Vec<String> = keywords.collect();
    envelope.flags = Flags::new(SystemFlags::from_bits(choices.octet()), keywords);
    envelope.internal_date = choices.date(true);
    (envelope.place, envelope.before, envelope.after) = (choices.short(), choices.short(), choices.short());
    envelope.extensions = (0..choices.octet() % 2).map(|_| (choices.text(), choices.short())).collect();
    let reasons = [None, Some(Reason::ReadFailed), Some(Reason::Denied), Some(Reason::Short)];
    MessageRow {
        ordinal,
        position: choices.number() as u64,
        source,
        envelope,
        digest: Digest::new([choices.octet(); 32]),
        length: choices.number() as u64,
        quarantine: *choices.one_of(&reasons),
        recipe: RecipeRange { skip: choices.octet().into(), length: choices.octet().into() },
        pieces: (0..choices.octet() % 4).map(|_| choices.number() as u32).collect(),
    }
}

fn folder(choices: &mut Choices<'_>, source: u32) -> FolderRecord {
    let names = (0..choices.octet() % 3).map(|_| choices.text()).collect();
    let mut folder = Folder::new(FolderPath { names, raw: choices.short() });
    (folder.evidence, folder.traits) = (Evidence(choices.short()), choices.short());
    folder.modified = choices.date(false);
    let companion = |choices: &mut Choices<'_>| Companion {
        name: choices.short(),
        octets: choices.short(),
        modified: choices.date(false),
    };
    folder.companions = (0..choices.octet() % 2).map(|_| companion(choices)).collect();
    FolderRecord { folder, source, gone: choices.octet().is_multiple_of(2) }
}

pub(crate) fn blob(choices: &mut Choices<'_>) -> Row {
    let at = Location {
        pack: PackId::new([choices.octet() % 2; 32]),
        offset: choices.number() as u64,
        stored: choices.number() as u32,
        content: choices.number() as u32,
        frame: choices.number() as u32,
    };
    Row { digest: Digest::new([choices.octet(); 32]), at }
}

fn secrets() -> [Secrets; 2] {
    [None, Some([9; 32])].map(|master| Secrets { domain: Domain::new([3; 32]), master })
}

fn repository() -> &'static Repository {
    static REPOSITORY: OnceLock<Repository> = OnceLock::new();
    REPOSITORY.get_or_init(|| {
        let opened = Repository::open_or_create(Arc::new(MemoryStore::new()), Protection::None).now_or_never();
        opened.expect("a memory store does not wait").expect("a new repository")
    })
}

/// Choices made by the octets of an input; zeros when they have run out.
#[derive(Debug)]
pub(crate) struct Choices<'a>(Decoder<'a>);

impl<'a> Choices<'a> {
    pub(crate) fn new(octets: &'a [u8]) -> Self {
        Self(Decoder::new(octets))
    }

    pub(crate) fn rest(&self) -> &'a [u8] {
        self.0.rest()
    }

    pub(crate) fn octet(&mut self) -> u8 {
        self.0.byte().unwrap_or_default()
    }

    pub(crate) fn number(&mut self) -> usize {
        (self.0.number().unwrap_or_default() >> 1) as usize
    }

    pub(crate) fn one_of<'b, T>(&mut self, these: &'b [T]) -> &'b T {
        &these[usize::from(self.octet()) % these.len()]
    }

    /// Up to 15 octets.
    pub(crate) fn short(&mut self) -> Bytes {
        let length = usize::from(self.octet() % 16).min(self.rest().len());
        Bytes::copy_from_slice(self.0.take(length).unwrap_or_default())
    }

    /// Up to 255 octets, repeated up to 255 times, so that there is something to compress.
    pub(crate) fn blob(&mut self) -> Vec<u8> {
        let times = usize::from(self.octet());
        let length = usize::from(self.octet()).min(self.rest().len());
        self.0.take(length).unwrap_or_default().repeat(times)
    }

    pub(crate) fn text(&mut self) -> String {
        String::from_utf8_lossy(&self.short()).into_owned()
    }

    fn date(&mut self, zoned: bool) -> Option<InternalDate> {
        let form = self.octet() % 3;
        (form > 0).then(|| InternalDate {
            seconds: self.0.signed().unwrap_or_default(),
            nanos: (self.number() % 1_000_000_000) as u32,
            zone_minutes: (zoned && form == 2).then(|| i16::from(self.octet())),
        })
    }
}
