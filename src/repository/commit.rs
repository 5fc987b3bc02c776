//! Commits: the objects of a mailbox's journal. One is built in memory and put once (docs/format.md, "Commits").

use super::columns::{Columns, RowReader};
use super::kinds;
use crate::digest::{Digest, Domain};
use crate::error::{Error, ErrorKind, Result};
use crate::message::{Companion, Evidence, Folder, FolderPath, InternalDate, MailboxName};
use crate::pack::{Location, PackId, Packer, Row, decompress, stored_max};
use crate::seal::{ObjectKind, SALT, Seal, Secrets, TAG};
use crate::source::{Kind, SourceId};
use crate::wire::{Decoder, Encode};
use bytes::Bytes;
use std::collections::{BTreeMap, HashMap};

/// The most octets that a block may hold decompressed. Blocks written by others are held to it.
pub(crate) const BLOCK_MAX: usize = 64 << 20;
/// The most octets of a sealed head.
pub(crate) const HEAD_MAX: usize = 16 << 20;
/// The most new messages in a commit: twice what settings allow, since a batch may come on top.
pub(crate) const MESSAGES_MAX: u64 = 1 << 19;
/// The most folders in a commit's section, and the most names and companions that all of them have.
pub(crate) const FOLDERS_MAX: usize = 1 << 20;
/// The most blobs in a commit's table.
pub(crate) const BLOBS_MAX: usize = 1 << 20;
/// The most messages that a commit tells to be gone.
pub(crate) const GONE_MAX: usize = 1 << 24;
/// Octets in front of the sealed head: magic, salt, the head's length.
pub(crate) const FRONT: usize = 8 + SALT + 4;

/// A source as a commit's rows name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SourceRecord {
    pub(crate) id: SourceId,
    pub(crate) kind: Kind,
}

/// A folder in a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FolderRecord {
    pub(crate) folder: Folder,
    /// Which of the commit's sources it came from.
    pub(crate) source: u32,
    /// The source no longer has it.
    pub(crate) gone: bool,
}

/// What a commit says of itself; the digest of its octets is the commit's digest, and it holds the digests of all blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) mailbox: MailboxName,
    pub(crate) sequence: u64,
    /// The digest of the commit before.
    pub(crate) previous: Option<Digest>,
    pub(crate) writer: [u8; 8],
    /// Nanoseconds since 1970: at least one more than the commit before.
    pub(crate) time: u64,
    /// The ordinal of the first row.
    pub(crate) first_ordinal: u64,
    pub(crate) rows: u32,
    /// The sequence of the latest checkpoint up to this commit.
    pub(crate) checkpoint: Option<u64>,
    /// Whether a complete enumeration of the mailbox ended with this commit.
    pub(crate) complete: bool,
    /// The sequence of the latest forgetting checkpoint up to this commit.
    pub(crate) forgotten: Option<u64>,
    /// The epoch of the latest fence up to this commit; 0 if there is none.
    pub(crate) epoch: u64,
    /// There is nothing in the mailbox, and whatever there was is forgotten.
    pub(crate) is_void: bool,
    pub(crate) sources: Vec<SourceRecord>,
    pub(crate) blocks: Vec<Block>,
}

/// A block of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    pub(crate) section: Section,
    /// Sealed length in the object.
    pub(crate) stored: u32,
    /// Length when opened and decompressed.
    pub(crate) raw: u32,
    /// The first 16 octets of the digest of the compressed block.
    pub(crate) digest: [u8; 16],
}

/// What a block holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub(crate) enum Section {
    /// Folders that are new, changed or gone.
    Folders = 1,
    /// New messages.
    Messages = 2,
    /// Messages of earlier commits as they are now.
    Updates = 3,
    /// Ordinals of messages that are no longer there.
    Gone = 4,
    /// The blob table.
    Blobs = 5,
    /// The commits that a checkpoint stands on.
    Commits = 6,
    /// Recipes.
    Recipes = 7,
}

impl Section {
    pub(super) const ALL: [Self; 7] =
        [Self::Folders, Self::Messages, Self::Updates, Self::Gone, Self::Blobs, Self::Commits, Self::Recipes];
}

/// A commit as an older checkpoint or a listing knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CommitRef {
    pub(crate) sequence: u64,
    pub(crate) digest: Digest,
    pub(crate) time: u64,
    pub(crate) first_ordinal: u64,
    pub(crate) rows: u32,
    /// The living rows of this commit are among the checkpoint's updates, so that it need not be read to know the state.
    pub(crate) inlined: bool,
    /// Nothing of it is needed any more: it may have been deleted, and is named only because the next commit follows it.
    pub(crate) forgotten: bool,
}

impl Head {
    /// Whether the commit is a forgetting checkpoint.
    pub(crate) fn is_forgetting(&self) -> bool {
        self.forgotten == Some(self.sequence)
    }
}

/// Everything of a commit but its place in the journal.
#[derive(Debug, Default)]
pub(crate) struct Draft {
    pub(crate) sources: Vec<SourceRecord>,
    pub(crate) folders: Vec<FolderRecord>,
    /// New messages; ordinals count from 0.
    pub(crate) messages: Columns,
    /// Messages of earlier commits; ordinals as they are.
    pub(crate) updates: Columns,
    pub(crate) gone: Vec<u64>,
    pub(crate) blobs: BlobTable,
    /// Recipe blocks, compressed.
    pub(crate) recipes: Vec<CompressedBlock>,
    /// For a checkpoint.
    pub(crate) commits: Vec<CommitRef>,
    pub(crate) complete: bool,
}

impl Draft {
    /// Whether there is nothing to commit.
    pub(crate) fn is_empty(&self) -> bool {
        self.folders.is_empty() && self.messages.rows() == 0 && self.updates.rows() == 0 && self.gone.is_empty()
    }

    /// The number of `source` in this commit.
    pub(crate) fn source(&mut self, id: SourceId, kind: &Kind) -> u32 {
        let number = self.sources.iter().position(|source| source.id == id);
        number.unwrap_or_else(|| {
            self.sources.push(SourceRecord { id, kind: kind.clone() });
            self.sources.len() - 1
        }) as u32
    }
}

/// A block, compressed and not yet sealed.
#[derive(Clone, Debug, Default)]
pub(crate) struct CompressedBlock {
    pub(crate) octets: Vec<u8>,
    pub(crate) raw: u32,
}

/// The blobs that a commit's recipes need, each once.
#[derive(Debug, Default)]
pub(crate) struct BlobTable {
    rows: Vec<Row>,
    numbers: HashMap<Digest, u32>,
}

impl BlobTable {
    /// The number of this blob in the table.
    pub(crate) fn number(&mut self, row: Row) -> u32 {
        *self.numbers.entry(row.digest).or_insert_with(|| {
            self.rows.push(row);
            self.rows.len() as u32 - 1
        })
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// The packs that it names, and up to where each is pointed into.
    pub(crate) fn packs(&self) -> BTreeMap<PackId, u64> {
        let mut packs = BTreeMap::new();
        for row in &self.rows {
            let end: &mut u64 = packs.entry(row.at.pack).or_default();
            *end = row.at.end().max(*end);
        }
        packs
    }
}

/// Where a commit goes in its journal.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) mailbox: MailboxName,
    pub(crate) sequence: u64,
    pub(crate) previous: Option<Digest>,
    pub(crate) writer: [u8; 8],
    pub(crate) time: u64,
    pub(crate) first_ordinal: u64,
    pub(crate) checkpoint: Option<u64>,
    pub(crate) forgotten: Option<u64>,
    pub(crate) epoch: u64,
    pub(crate) is_void: bool,
}

/// A commit ready to be put.
#[derive(Debug)]
pub(crate) struct EncodedCommit {
    pub(crate) octets: Vec<u8>,
    pub(crate) digest: Digest,
}

/// Encodes and seals a draft for its place.
pub(crate) fn encode(
    draft: &Draft,
    place: &Place,
    key: &str,
    secrets: &Secrets,
    salt: [u8; SALT],
    packer: &mut Packer,
) -> Result<EncodedCommit> {
    let mut blocks = Vec::new();
    // What makes the state comes first, and what messages are read from behind it, so that either is read at once.
    let mut add = |section, raw: Vec<u8>, packer: &mut Packer| -> Result<()> {
        if raw.len() > BLOCK_MAX {
            return Err(too_much());
        }
        let mut octets = Vec::new();
        packer.compress(&raw, &mut octets)?;
        blocks.push((section, CompressedBlock { octets, raw: raw.len() as u32 }));
        Ok(())
    };
    if !draft.folders.is_empty() {
        add(Section::Folders, encode_folders(&draft.folders), packer)?;
    }
    if draft.updates.rows() > 0 {
        add(Section::Updates, draft.updates.encode(), packer)?;
    }
    if !draft.gone.is_empty() {
        add(Section::Gone, encode_gone(&draft.gone), packer)?;
    }
    if !draft.commits.is_empty() {
        add(Section::Commits, encode_commits(&draft.commits), packer)?;
    }
    if draft.messages.rows() > 0 {
        add(Section::Messages, draft.messages.encode(), packer)?;
    }
    if !draft.blobs.rows.is_empty() {
        let mut table = Vec::new();
        encode_blobs(&draft.blobs.rows, &mut table);
        add(Section::Blobs, table, packer)?;
    }
    let head = head(draft, place, &blocks, &secrets.domain);
    let plain = encode_head(&head);
    let tables =
        [(draft.folders.len(), FOLDERS_MAX), (draft.gone.len(), GONE_MAX), (draft.blobs.rows.len(), BLOBS_MAX)];
    if plain.len() + TAG > HEAD_MAX || tables.iter().any(|(entries, max)| entries > max) {
        // Nobody could read it.
        return Err(too_much());
    }
    let digest = secrets.domain.digest(&plain);
    let seal = Seal::new(secrets, ObjectKind::Commit, key, &salt)?;
    let length = head.blocks.iter().map(|block| block.stored as usize).sum::<usize>() + plain.len() + FRONT + TAG;
    let mut octets = Vec::with_capacity(length);
    octets.extend_from_slice(&ObjectKind::Commit.magic());
    octets.extend_from_slice(&salt);
    octets.extend_from_slice(&((plain.len() + TAG) as u32).to_le_bytes());
    octets.extend_from_slice(&plain);
    seal.seal(0, &mut octets, FRONT)?;
    let recipes = draft.recipes.iter();
    for (number, block) in blocks.iter().map(|(_, block)| block).chain(recipes).enumerate() {
        let from = octets.len();
        octets.extend_from_slice(&block.octets);
        seal.seal(number as u64 + 1, &mut octets, from)?;
    }
    Ok(EncodedCommit { octets, digest })
}

fn too_much() -> Error {
    Error::new(ErrorKind::Limit, "a commit would hold more than any reader takes")
}

fn head(draft: &Draft, place: &Place, blocks: &[(Section, CompressedBlock)], domain: &Domain) -> Head {
    let recipes = draft.recipes.iter().map(|block| (Section::Recipes, block));
    let blocks = blocks.iter().map(|(section, block)| (*section, block)).chain(recipes);
    let blocks = blocks.map(|(section, block)| Block {
        section,
        stored: (block.octets.len() + TAG) as u32,
        raw: block.raw,
        digest: short_digest(domain, &block.octets),
    });
    let Place { mailbox, sequence, previous, writer, time, first_ordinal, checkpoint, forgotten, epoch, is_void } =
        place.clone();
    Head {
        mailbox,
        sequence,
        previous,
        writer,
        time,
        first_ordinal,
        rows: draft.messages.rows(),
        // A forgetting checkpoint is none of the others: it may stand on an older state.
        checkpoint: if draft.commits.is_empty() || forgotten == Some(sequence) { checkpoint } else { Some(sequence) },
        complete: draft.complete,
        forgotten,
        epoch,
        is_void,
        sources: draft.sources.clone(),
        blocks: blocks.collect(),
    }
}

fn short_digest(domain: &Domain, octets: &[u8]) -> [u8; 16] {
    let mut short = [0; 16];
    short.copy_from_slice(&domain.digest(octets).as_bytes()[..16]);
    short
}

fn encode_head(head: &Head) -> Vec<u8> {
    let mut out = Vec::new();
    out.octets(head.mailbox.as_bytes());
    out.number(head.sequence);
    out.octets(head.previous.as_ref().map_or(&[], |digest| digest.as_bytes().as_slice()));
    out.extend_from_slice(&head.writer);
    out.number(head.time);
    out.number(head.first_ordinal);
    out.number(u64::from(head.rows));
    out.number(head.checkpoint.map_or(0, |sequence| sequence + 1));
    out.push(u8::from(head.complete));
    out.number(head.forgotten.map_or(0, |sequence| sequence + 1));
    out.number(head.epoch);
    out.push(u8::from(head.is_void));
    out.number(head.sources.len() as u64);
    for source in &head.sources {
        out.extend_from_slice(source.id.as_bytes());
        kinds::encode(&source.kind, &mut out);
    }
    out.number(head.blocks.len() as u64);
    for block in &head.blocks {
        out.push(block.section as u8);
        out.number(u64::from(block.stored));
        out.number(u64::from(block.raw));
        out.extend_from_slice(&block.digest);
    }
    out
}

fn decode_head(octets: &[u8]) -> Result<Head> {
    let mut decoder = Decoder::new(octets);
    let mailbox = MailboxName::new(decoder.octets()?);
    let sequence = decoder.counter()?;
    let previous = match decoder.octets()? {
        [] => None,
        digest => Some(Digest::new(digest.try_into().map_err(|_| Error::damaged("a digest has another length"))?)),
    };
    let writer = decoder.array()?;
    let time = decoder.counter()?;
    let first_ordinal = decoder.counter()?;
    let rows = decoder.number_up_to(MESSAGES_MAX)? as u32;
    let checkpoint = decoder.counter()?.checked_sub(1);
    let complete = decoder.byte()? != 0;
    let forgotten = decoder.counter()?.checked_sub(1);
    let epoch = decoder.counter()?;
    let is_void = decoder.byte()? != 0;
    let sources = (0..decoder.count(17)?)
        .map(|_| Ok(SourceRecord { id: SourceId::new(decoder.array()?), kind: kinds::decode(&mut decoder)? }))
        .collect::<Result<_>>()?;
    let blocks = (0..decoder.count(19)?).map(|_| decode_block(&mut decoder)).collect::<Result<_>>()?;
    decoder.end()?;
    Ok(Head {
        mailbox,
        sequence,
        previous,
        writer,
        time,
        first_ordinal,
        rows,
        checkpoint,
        complete,
        forgotten,
        epoch,
        is_void,
        sources,
        blocks,
    })
}

fn decode_block(decoder: &mut Decoder<'_>) -> Result<Block> {
    let code = decoder.byte()?;
    let section = Section::ALL.into_iter().find(|section| *section as u8 == code);
    let section =
        section.ok_or_else(|| Error::new(ErrorKind::Unsupported, "a commit has a section of an unknown kind"))?;
    let stored = decoder.number_up_to(u64::from(u32::MAX))? as u32;
    let raw = decoder.number_up_to(BLOCK_MAX as u64)? as u32;
    if stored as usize > stored_max(raw as usize) {
        return Err(Error::damaged("a section of a commit is longer than its content can make it"));
    }
    Ok(Block { section, stored, raw, digest: decoder.array()? })
}

/// A commit whose head has been read.
#[derive(Debug)]
pub(crate) struct CommitReader {
    pub(crate) head: Head,
    pub(crate) digest: Digest,
    domain: Domain,
    seal: Seal,
    /// Where the first block begins in the object.
    body: u64,
}

/// How long the front of a commit with its head is, given at least its first [`FRONT`] octets.
pub(crate) fn front_length(front: &[u8]) -> Result<usize> {
    let mut decoder = Decoder::new(front);
    if decoder.array::<8>()? != ObjectKind::Commit.magic() {
        return Err(Error::damaged("this is no commit of a known version"));
    }
    decoder.take(SALT)?;
    let head = u32::from_le_bytes(decoder.array()?) as usize;
    if head > HEAD_MAX { Err(Error::damaged("a commit's head is too long")) } else { Ok(FRONT + head) }
}

impl CommitReader {
    /// Opens the front of the commit under `key`: at least as much as [`front_length`] says.
    pub(crate) fn new(key: &str, secrets: &Secrets, front: &[u8]) -> Result<Self> {
        let length = front_length(front)?;
        let mut decoder = Decoder::new(front);
        decoder.take(8)?;
        let salt = decoder.array::<SALT>()?;
        decoder.take(4)?;
        let mut sealed = decoder.take(length - FRONT)?.to_vec();
        let seal = Seal::new(secrets, ObjectKind::Commit, key, &salt)?;
        let plain = seal.open(0, &mut sealed)?;
        let head = decode_head(plain)?;
        let digest = secrets.domain.digest(plain);
        Ok(Self { head, digest, domain: secrets.domain.clone(), seal, body: length as u64 })
    }

    /// The commit's length in octets.
    pub(crate) fn length(&self) -> u64 {
        self.body + self.head.blocks.iter().map(|block| u64::from(block.stored)).sum::<u64>()
    }

    /// The numbers and places in the object of the blocks of a section.
    pub(crate) fn blocks(&self, section: Section) -> impl Iterator<Item = (usize, std::ops::Range<u64>)> + '_ {
        let mut end = self.body;
        self.head.blocks.iter().enumerate().filter_map(move |(number, block)| {
            let start = end;
            end += u64::from(block.stored);
            (block.section == section).then_some((number, start..end))
        })
    }

    /// Opens block `number` from its sealed octets.
    pub(crate) fn open(&self, number: usize, sealed: &[u8]) -> Result<Bytes> {
        let block = self.head.blocks.get(number).ok_or_else(|| Error::internal("there is no such block"))?;
        let mut sealed = sealed.to_vec();
        let compressed = self.seal.open(number as u64 + 1, &mut sealed)?;
        if short_digest(&self.domain, compressed) != block.digest {
            return Err(Error::damaged("a block is not the one that its commit names"));
        }
        decompress(compressed, block.raw as usize).map(Bytes::from)
    }

    /// The rows of a block of messages.
    pub(crate) fn messages(&self, block: Bytes) -> Result<RowReader> {
        let rows = RowReader::new(block, self.head.first_ordinal)?;
        if rows.rows_left() != self.head.rows {
            return Err(Error::damaged("a commit has not as many messages as its head says"));
        }
        Ok(rows)
    }

    /// The commit as others refer to it.
    pub(crate) fn reference(&self) -> CommitRef {
        let Head { sequence, time, first_ordinal, rows, .. } = self.head;
        CommitRef { sequence, digest: self.digest, time, first_ordinal, rows, inlined: false, forgotten: false }
    }
}

fn encode_folders(folders: &[FolderRecord]) -> Vec<u8> {
    let mut out = Vec::new();
    out.number(folders.len() as u64);
    for FolderRecord { folder, source, gone } in folders {
        out.octets(&folder.path.raw);
        out.number(folder.path.names.len() as u64);
        folder.path.names.iter().for_each(|name| out.octets(name.as_bytes()));
        out.number(u64::from(*source));
        out.push(u8::from(*gone));
        out.octets(&folder.evidence.0);
        out.octets(&folder.traits);
        encode_date(folder.modified, &mut out);
        out.number(folder.companions.len() as u64);
        for companion in &folder.companions {
            out.octets(&companion.name);
            out.octets(&companion.octets);
            encode_date(companion.modified, &mut out);
        }
    }
    out
}

/// The folders of a block.
pub(crate) fn decode_folders(block: &Bytes) -> Result<Vec<FolderRecord>> {
    let mut decoder = Decoder::new(block);
    let octets = |decoder: &mut Decoder<'_>| decoder.octets().map(Bytes::copy_from_slice);
    // Each name and companion takes more memory than octets.
    let mut left = FOLDERS_MAX;
    let mut items = |decoder: &mut Decoder<'_>, octets_min| {
        let count = decoder.count_up_to(octets_min, left)?;
        left -= count;
        Ok::<_, Error>(0..count)
    };
    let folders = (0..decoder.count_up_to(8, FOLDERS_MAX)?)
        .map(|_| {
            let raw = octets(&mut decoder)?;
            let names = items(&mut decoder, 1)?.map(|_| decoder.text().map(str::to_owned)).collect::<Result<_>>()?;
            let source = decoder.number_up_to(u64::from(u32::MAX))? as u32;
            let gone = decoder.byte()? != 0;
            let mut folder = Folder::new(FolderPath { names, raw });
            folder.evidence = Evidence(octets(&mut decoder)?);
            folder.traits = octets(&mut decoder)?;
            folder.modified = decode_date(&mut decoder)?;
            folder.companions = items(&mut decoder, 3)?
                .map(|_| {
                    let (name, octets) = (octets(&mut decoder)?, octets(&mut decoder)?);
                    Ok(Companion { name, octets, modified: decode_date(&mut decoder)? })
                })
                .collect::<Result<_>>()?;
            Ok(FolderRecord { folder, source, gone })
        })
        .collect::<Result<_>>()?;
    decoder.end()?;
    Ok(folders)
}

fn encode_date(date: Option<InternalDate>, out: &mut Vec<u8>) {
    match date {
        None => out.push(0),
        Some(date) => {
            out.push(1);
            out.signed(date.seconds);
            out.number(u64::from(date.nanos));
        }
    }
}

fn decode_date(decoder: &mut Decoder<'_>) -> Result<Option<InternalDate>> {
    if decoder.byte()? == 0 {
        return Ok(None);
    }
    let seconds = decoder.signed()?;
    Ok(Some(InternalDate { seconds, nanos: decoder.number_up_to(999_999_999)? as u32, zone_minutes: None }))
}

fn encode_gone(gone: &[u64]) -> Vec<u8> {
    let mut out = Vec::new();
    out.number(gone.len() as u64);
    let mut last = 0_u64;
    for ordinal in gone {
        out.signed(ordinal.wrapping_sub(last) as i64);
        last = *ordinal;
    }
    out
}

/// The ordinals of a block of gone messages.
pub(crate) fn decode_gone(block: &[u8]) -> Result<Vec<u64>> {
    let mut decoder = Decoder::new(block);
    let mut last = 0_u64;
    let gone = (0..decoder.count_up_to(1, GONE_MAX)?)
        .map(|_| {
            last = last.wrapping_add(decoder.signed()? as u64);
            Ok(last)
        })
        .collect::<Result<_>>()?;
    decoder.end()?;
    Ok(gone)
}

/// A table of blobs.
pub(super) fn encode_blobs(rows: &[Row], out: &mut Vec<u8>) {
    let mut packs: Vec<PackId> = Vec::new();
    let mut numbers = HashMap::new();
    for row in rows {
        numbers.entry(row.at.pack).or_insert_with(|| {
            packs.push(row.at.pack);
            packs.len() as u64 - 1
        });
    }
    out.number(packs.len() as u64);
    packs.iter().for_each(|pack| out.extend_from_slice(pack.as_bytes()));
    out.number(rows.len() as u64);
    for row in rows {
        out.number(numbers[&row.at.pack]);
        out.number(row.at.offset);
        out.number(u64::from(row.at.stored));
        out.number(u64::from(row.at.content));
        out.number(u64::from(row.at.frame));
    }
    rows.iter().for_each(|row| out.extend_from_slice(row.digest.as_bytes()));
}

/// The blob table of a block.
pub(crate) fn decode_blobs(block: &[u8]) -> Result<Vec<Row>> {
    decode_table(block, BLOBS_MAX)
}

/// A table of at most so many blobs.
pub(super) fn decode_table(block: &[u8], rows_max: usize) -> Result<Vec<Row>> {
    let mut decoder = Decoder::new(block);
    let packs: Vec<PackId> =
        (0..decoder.count(PackId::OCTETS)?).map(|_| decoder.array().map(PackId::new)).collect::<Result<_>>()?;
    let up_to_u32 = u64::from(u32::MAX);
    let mut rows = (0..decoder.count_up_to(37, rows_max)?)
        .map(|_| {
            let pack = packs.get(decoder.number()? as usize).copied();
            let at = Location {
                pack: pack.ok_or_else(|| Error::damaged("a blob table names a pack that it does not have"))?,
                offset: decoder.number_up_to(u64::MAX >> 1)?,
                stored: decoder.number_up_to(up_to_u32)? as u32,
                content: decoder.number_up_to(up_to_u32)? as u32,
                frame: decoder.number_up_to(up_to_u32)? as u32,
            };
            Ok(Row { digest: Digest::new([0; 32]), at })
        })
        .collect::<Result<Vec<Row>>>()?;
    for row in &mut rows {
        row.digest = Digest::new(decoder.array()?);
    }
    decoder.end()?;
    Ok(rows)
}

fn encode_commits(commits: &[CommitRef]) -> Vec<u8> {
    let mut out = Vec::new();
    out.number(commits.len() as u64);
    for commit in commits {
        out.number(commit.sequence);
        out.extend_from_slice(commit.digest.as_bytes());
        out.number(commit.time);
        out.number(commit.first_ordinal);
        out.number(u64::from(commit.rows));
        out.push(u8::from(commit.inlined) | u8::from(commit.forgotten) << 1);
    }
    out
}

/// The commits that a checkpoint stands on.
pub(crate) fn decode_commits(block: &[u8]) -> Result<Vec<CommitRef>> {
    let mut decoder = Decoder::new(block);
    let commits = (0..decoder.count(37)?)
        .map(|_| {
            let (sequence, digest) = (decoder.counter()?, Digest::new(decoder.array()?));
            let (time, first_ordinal) = (decoder.counter()?, decoder.counter()?);
            let rows = decoder.number_up_to(u64::from(u32::MAX))? as u32;
            let bits = decoder.byte()?;
            let (inlined, forgotten) = (bits & 1 != 0, bits & 2 != 0);
            Ok(CommitRef { sequence, digest, time, first_ordinal, rows, inlined, forgotten })
        })
        .collect::<Result<_>>()?;
    decoder.end()?;
    Ok(commits)
}
