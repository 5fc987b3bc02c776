//! Commits that are open: the front has been read, sections are read when they are asked for.

use super::Repository;
use super::columns::RowReader;
use super::commit::{CommitReader, FRONT, Section, front_length};
use super::journal::JournalName;
use crate::error::{Error, Result};
use bytes::Bytes;
use std::collections::HashSet;
use std::sync::Arc;

/// How much of a commit is read at first: most heads, and the columns of small commits, are in it.
const FIRST_READ: u64 = 64 << 10;

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
            self.recipes(repository, number).await?;
        }
        Ok(())
    }

    /// Recipe block `number` (of the recipe blocks).
    pub(crate) async fn recipes(&mut self, repository: &Repository, number: usize) -> Result<Bytes> {
        let found = self.fetched.reader.blocks(Section::Recipes).nth(number);
        let (block, range) = found.ok_or_else(|| Error::damaged("a commit has fewer recipes than its rows say"))?;
        self.fetched.block(repository, block, range).await
    }
}

/// A commit of which the front has been read.
#[derive(Debug)]
pub(crate) struct Fetched {
    key: String,
    pub(crate) reader: CommitReader,
    front: Bytes,
}

impl Fetched {
    pub(crate) async fn open(repository: &Repository, name: JournalName, sequence: u64, length: u64) -> Result<Self> {
        let key = name.commit(sequence);
        let store = repository.store();
        if length < FRONT as u64 {
            return Err(Error::damaged(format!("commit {sequence} is too short")));
        }
        let mut front = store.read(&key, Some(0..length.min(FIRST_READ))).await?;
        let needed = front_length(&front)? as u64;
        if needed > length {
            return Err(Error::damaged(format!("commit {sequence} is too short")));
        }
        if needed > front.len() as u64 {
            front = store.read(&key, Some(0..needed)).await?;
        }
        let reader = CommitReader::new(&key, repository.secrets(), &front)?;
        if reader.head.sequence != sequence || reader.length() != length {
            return Err(Error::damaged(format!("commit {sequence} has another number or length than it should")));
        }
        Ok(Self { key, reader, front })
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

    async fn block(&self, repository: &Repository, number: usize, range: std::ops::Range<u64>) -> Result<Bytes> {
        if let Some(sealed) = self.front.get(range.start as usize..range.end as usize) {
            return self.reader.open(number, sealed);
        }
        let sealed = repository.store().read(&self.key, Some(range)).await?;
        self.reader.open(number, &sealed)
    }
}

/// The journal's number of a commit's source.
pub(super) fn number(numbers: &[u32], local: u32) -> Result<u32> {
    let number = numbers.get(local as usize).copied();
    number.ok_or_else(|| Error::damaged("a row names a source that its commit does not have"))
}
