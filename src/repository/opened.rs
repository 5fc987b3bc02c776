//! Commits that are open: the front has been read, sections are read when they are asked for.

use super::Repository;
use super::columns::RowReader;
use super::commit::{CommitReader, FRONT, Head, Section, front_length};
use super::journal::JournalName;
use crate::error::{Error, ErrorKind, Result};
use crate::message::MailboxName;
use crate::store::read_exact;
use bytes::Bytes;
use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

/// How much of a commit is read at first: all of most commits that are written night after night, and of others the head and the sections that make the state. A request
/// to an object store takes as long as some MiB of transfer, and very many journals are read one after the other, so this is a compromise.
const FIRST_READ: u64 = 64 << 10;
/// How much is read for a head alone.
const HEAD_READ: u64 = 4 << 10;
/// Octets between two sections that are read along rather than asked for apart.
const GAP_MAX: u64 = 64 << 10;
/// Octets of sections that are read at once, unless one is longer.
const AT_ONCE: u64 = 32 << 20;
/// Octets of recipes that are read at once where all of them are wanted.
const RECIPES_AT_ONCE: u64 = 1 << 20;

/// A commit opened for its messages.
#[derive(Debug)]
pub(crate) struct Contents {
    fetched: Fetched,
    /// The journal's numbers of the commit's sources.
    numbers: Vec<u32>,
    /// Messages of the journal that are forgotten.
    forgotten: Arc<HashSet<u64>>,
}

impl Contents {
    pub(super) fn new(fetched: Fetched, numbers: Vec<u32>, forgotten: Arc<HashSet<u64>>) -> Self {
        Self { fetched, numbers, forgotten }
    }

    /// A commit by itself: its sources have no numbers in a journal.
    pub(super) fn of(fetched: Fetched, forgotten: Arc<HashSet<u64>>) -> Self {
        Self::new(fetched, Vec::new(), forgotten)
    }

    /// Whether a message is forgotten.
    pub(crate) fn is_forgotten(&self, ordinal: u64) -> bool {
        self.forgotten.contains(&ordinal)
    }

    /// The blobs of messages that are not forgotten.
    pub(crate) async fn needed_blobs(&mut self, repository: &Repository) -> Result<Vec<crate::pack::Row>> {
        let blobs = self.blobs(repository).await?;
        let head = &self.fetched.reader.head;
        let mut ordinals = head.first_ordinal..head.first_ordinal.saturating_add(u64::from(head.rows));
        if self.forgotten.is_empty() || blobs.is_empty() || !ordinals.any(|ordinal| self.forgotten.contains(&ordinal)) {
            return Ok(blobs);
        }
        let mut needed = vec![false; blobs.len()];
        for row in self.rows(repository).await?.into_iter().flatten() {
            let row = row?;
            if !self.forgotten.contains(&row.ordinal) {
                for piece in row.pieces {
                    if let Some(needed) = needed.get_mut(piece as usize) {
                        *needed = true;
                    }
                }
            }
        }
        Ok(blobs.into_iter().zip(needed).filter_map(|(row, needed)| needed.then_some(row)).collect())
    }

    /// The rows as the commit stored them; their sources are the commit's own: [`source`](Self::source) tells the journal's.
    pub(crate) async fn rows(&mut self, repository: &Repository) -> Result<Vec<RowReader>> {
        let blocks = self.fetched.section(repository, Section::Messages).await?;
        blocks.into_iter().map(|block| self.fetched.reader.messages(block)).collect()
    }

    /// The journal's number of one of the commit's sources.
    pub(crate) fn source(&self, local: u32) -> Result<u32> {
        number(&self.numbers, local)
    }

    /// The blob table.
    pub(crate) async fn blobs(&mut self, repository: &Repository) -> Result<Vec<crate::pack::Row>> {
        match self.fetched.section(repository, Section::Blobs).await?.pop() {
            Some(block) => super::decode_blobs(&block),
            None => Ok(Vec::new()),
        }
    }

    /// The decompressed lengths of the recipe blocks, in order.
    pub(crate) fn recipe_lengths(&self) -> Vec<u32> {
        let blocks = &self.fetched.reader.head.blocks;
        blocks.iter().filter(|block| block.section == Section::Recipes).map(|block| block.raw).collect()
    }

    /// Opens every recipe block.
    pub(crate) async fn verify_recipes(&mut self, repository: &Repository) -> Result<()> {
        for number in 0..self.recipe_lengths().len() {
            self.recipes_in_order(repository, number).await?;
        }
        Ok(())
    }

    /// Recipe block `number` (of the recipe blocks).
    pub(crate) async fn recipes(&mut self, repository: &Repository, number: usize) -> Result<Bytes> {
        let found = self.fetched.reader.blocks(Section::Recipes).nth(number);
        let (block, range) = found.ok_or_else(|| Error::damaged("a commit has fewer recipes than its rows say"))?;
        self.fetched.block(repository, block, range).await
    }

    /// As [`recipes`](Self::recipes), for who is going to want the blocks behind it, too: several are read at once.
    pub(crate) async fn recipes_in_order(&mut self, repository: &Repository, number: usize) -> Result<Bytes> {
        let blocks = self.fetched.reader.blocks(Section::Recipes).skip(number).map(|(_, range)| range).collect();
        self.fetched.load_in_order(repository, blocks).await?;
        self.recipes(repository, number).await
    }

    /// Reads at once what [`rows`](Self::rows) and [`blobs`](Self::blobs) open.
    pub(crate) async fn load(&mut self, repository: &Repository) -> Result<()> {
        self.fetched.load(repository, &[Section::Messages, Section::Blobs]).await
    }

    /// Octets of the commit that are in memory as they were read.
    pub(crate) fn octets_held(&self) -> u64 {
        (self.fetched.front.len() + self.fetched.ahead.1.len()) as u64
    }

    /// A commit by itself, of which no journal was read, and the ordinal of its first message.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if there is no such commit.
    pub(crate) async fn by_itself(
        repository: &Repository,
        mailbox: &MailboxName,
        sequence: u64,
    ) -> Result<(Self, u64)> {
        let name = JournalName::new(repository, mailbox);
        let fetched = Fetched::open(repository, name, sequence, None).await.map_err(|error| match error.kind() {
            ErrorKind::NotFound => Error::new(error.kind(), format!("there is no commit {sequence} of '{mailbox}'")),
            _ => error,
        })?;
        let head = &fetched.reader.head;
        if head.mailbox != *mailbox {
            return Err(Error::damaged("a commit is not of the mailbox whose journal it is in"));
        }
        let (first_ordinal, sources) = (head.first_ordinal, head.sources.len());
        Ok((Self::new(fetched, (0..sources as u32).collect(), Arc::default()), first_ordinal))
    }

    /// Octets read of the commit so far.
    pub(crate) fn octets_read(&self) -> u64 {
        self.fetched.octets
    }
}

/// A commit of which the front has been read.
#[derive(Debug)]
pub(crate) struct Fetched {
    key: String,
    pub(crate) reader: CommitReader,
    front: Bytes,
    /// What was read last for several sections at once, and where it begins.
    ahead: (u64, Bytes),
    /// Octets read of it so far.
    octets: u64,
}

impl Fetched {
    /// Opens a commit, of which a listing may have told the length. If it is short, this reads all of it.
    pub(crate) async fn open(
        repository: &Repository,
        name: JournalName,
        sequence: u64,
        length: Option<u64>,
    ) -> Result<Self> {
        Self::open_with(repository, (name, sequence), length, FIRST_READ).await
    }

    /// The head of a commit, for whoever wants nothing else of it.
    pub(crate) async fn head(
        repository: &Repository,
        name: JournalName,
        sequence: u64,
        length: Option<u64>,
    ) -> Result<Head> {
        let fetched = Self::open_with(repository, (name, sequence), length, HEAD_READ).await;
        fetched.map(|fetched| fetched.reader.head)
    }

    async fn open_with(
        repository: &Repository,
        (name, sequence): (JournalName, u64),
        listed: Option<u64>,
        first_read: u64,
    ) -> Result<Self> {
        let key = name.commit(sequence);
        let store = &**repository.store();
        let mut front = match listed {
            Some(length) => read_exact(store, &key, 0..length.min(first_read)).await?,
            None => store.read(&key, Some(0..first_read)).await?,
        };
        // What is shorter than was asked for is all there is.
        let length = listed.or_else(|| Some(front.len() as u64).filter(|length| *length < first_read));
        let too_short = || Error::damaged(format!("commit {sequence} is too short"));
        if front.len() < FRONT {
            return Err(too_short());
        }
        let needed = front_length(&front)? as u64;
        if length.is_some_and(|length| needed > length) {
            return Err(too_short());
        }
        if needed > front.len() as u64 {
            let rest = read_exact(store, &key, front.len() as u64..needed).await?;
            front = [front, rest].concat().into();
        }
        let reader = CommitReader::new(&key, repository.secrets(), &front)?;
        if reader.head.sequence != sequence || length.is_some_and(|length| reader.length() != length) {
            return Err(Error::damaged(format!("commit {sequence} has another number or length than it should")));
        }
        let octets = front.len() as u64;
        Ok(Self { key, reader, front, ahead: (0, Bytes::new()), octets })
    }

    /// Keeps no more in memory than the front.
    pub(super) fn keep_front(&mut self) {
        self.ahead = (0, Bytes::new());
    }

    /// Reads these sections in as few requests as may be, as far as they lie near one another, and keeps what was read until the next such call. They are opened when
    /// they are asked for.
    pub(crate) async fn load(&mut self, repository: &Repository, sections: &[Section]) -> Result<()> {
        let mut wanted: Vec<Range<u64>> =
            sections.iter().flat_map(|section| self.reader.blocks(*section)).map(|(_, range)| range).collect();
        wanted.sort_unstable_by_key(|range| range.start);
        self.load_first_of(repository, wanted, AT_ONCE).await
    }

    /// Reads the first of these blocks, unless it is in memory, and some of those behind it.
    async fn load_in_order(&mut self, repository: &Repository, blocks: Vec<Range<u64>>) -> Result<()> {
        match blocks.first() {
            Some(first) if self.held(first).is_none() => self.load_first_of(repository, blocks, RECIPES_AT_ONCE).await,
            _ => Ok(()),
        }
    }

    /// Reads the first of these ranges that are not in memory, and those near behind it, up to so many octets.
    async fn load_first_of(&mut self, repository: &Repository, wanted: Vec<Range<u64>>, at_once: u64) -> Result<()> {
        let missing = wanted.into_iter().filter(|range| self.held(range).is_none());
        let first = missing.reduce(|all, next| {
            let is_near = next.start <= all.end.saturating_add(GAP_MAX) && next.end - all.start <= at_once;
            if is_near { all.start..next.end } else { all }
        });
        if let Some(range) = first {
            self.ahead = (range.start, self.read(repository, range).await?);
        }
        Ok(())
    }

    /// The blocks of a section, opened.
    pub(crate) async fn section(&mut self, repository: &Repository, section: Section) -> Result<Vec<Bytes>> {
        let blocks: Vec<_> = self.reader.blocks(section).collect();
        let mut opened = Vec::with_capacity(blocks.len());
        for (number, range) in blocks {
            opened.push(self.block(repository, number, range).await?);
        }
        Ok(opened)
    }

    async fn block(&mut self, repository: &Repository, number: usize, range: Range<u64>) -> Result<Bytes> {
        let sealed = match self.held(&range) {
            Some(sealed) => sealed,
            None => self.read(repository, range).await?,
        };
        self.reader.open(number, &sealed)
    }

    /// What is in memory already.
    fn held(&self, range: &Range<u64>) -> Option<Bytes> {
        let (start, ahead) = &self.ahead;
        [(0, &self.front), (*start, ahead)].into_iter().find_map(|(start, octets)| {
            let (from, to) = (range.start.checked_sub(start)?, range.end.checked_sub(start)?);
            (to <= octets.len() as u64).then(|| octets.slice(from as usize..to as usize))
        })
    }

    /// Reads a range; what of it is in the front is not read again.
    async fn read(&mut self, repository: &Repository, range: Range<u64>) -> Result<Bytes> {
        let front = self.front.get(usize::try_from(range.start).unwrap_or(usize::MAX)..).unwrap_or_default();
        let rest = range.start + front.len() as u64..range.end;
        self.octets += rest.end - rest.start;
        let rest = read_exact(&**repository.store(), &self.key, rest).await?;
        Ok(if front.is_empty() { rest } else { [front, &rest].concat().into() })
    }
}

/// The journal's number of a commit's source.
pub(super) fn number(numbers: &[u32], local: u32) -> Result<u32> {
    let number = numbers.get(local as usize).copied();
    number.ok_or_else(|| Error::damaged("a row names a source that its commit does not have"))
}
