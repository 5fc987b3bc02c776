//! What the journals of a repository need: which blobs of which packs, and which commits.

use crate::budget::Permit;
use crate::error::{Error, ErrorKind, Result};
use crate::pack::{Location, PackId, Row};
use crate::repository::{
    Journal, JournalName, MOVES, OpenCommit, Repository, Section, decode_blobs, moved_pack, open_moves,
};
use crate::resources::Resources;
use futures::TryStreamExt;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// What is needed of every pack that is needed, in a bit for each blob and about [`PACK_OCTETS`] octets for each pack.
#[derive(Debug)]
pub(super) struct Scan {
    repository: Repository,
    resources: Resources,
    packs: HashMap<PackId, Needed>,
    /// The first commit of each journal that was not read yet.
    read: HashMap<JournalName, u64>,
    /// The keys of moves whose targets are needed.
    moves: HashSet<String>,
    /// Journals with their latest forgetting checkpoint.
    pub(super) forgotten: Vec<(JournalName, u64)>,
    /// Octets taken, and what pays for them.
    octets: u64,
    permit: Option<Permit>,
}

/// What is needed of a pack.
#[derive(Debug, Default)]
pub(super) struct Needed {
    /// By the frames' numbers.
    frames: Vec<u64>,
    /// Octets of these frames.
    pub(super) octets: u64,
}

/// What a pack takes in memory besides a bit for each of its blobs.
const PACK_OCTETS: u64 = 96;
/// What the key of moves takes.
const MOVES_OCTETS: u64 = 128;
/// Memory is asked for in steps of this many octets.
const STEP: u64 = 1 << 20;

impl Scan {
    pub(super) fn new(repository: Repository, resources: Resources) -> Self {
        let (packs, read, moves, forgotten) = (HashMap::new(), HashMap::new(), HashSet::new(), Vec::new());
        Self { repository, resources, packs, read, moves, forgotten, octets: 0, permit: None }
    }

    /// Reads what was not read yet: all journals at first, later what was committed since.
    ///
    /// # Errors
    /// Damage of any journal: what cannot be read may need anything.
    pub(super) async fn advance(&mut self) -> Result<()> {
        for (name, end) in self.repository.journal_ends().await? {
            match self.read.get(&name).copied() {
                Some(next) if next > end => {}
                next => self.patiently(name, next).await?,
            }
        }
        self.moves().await
    }

    /// What needed packs hold is needed wherever it is, too: readers look there where a pack is damaged.
    ///
    /// # Errors
    /// Damage of moves of a needed pack: they may lead anywhere.
    async fn moves(&mut self) -> Result<()> {
        let store = Arc::clone(self.repository.store());
        // A place may itself be in a pack that has moves.
        let mut is_more = true;
        while is_more {
            is_more = false;
            let mut listing = store.list(MOVES);
            while let Some(object) = listing.try_next().await? {
                let is_needed = moved_pack(&object.key).is_some_and(|pack| self.packs.contains_key(&pack));
                if !is_needed || self.moves.contains(&object.key) {
                    continue;
                }
                let rows = match open_moves(&self.repository, &object).await {
                    // A repair dropped it since it was listed, because it did not open.
                    Err(error) if error.kind() == ErrorKind::NotFound => continue,
                    rows => rows?,
                };
                self.pay(MOVES_OCTETS)?;
                rows.iter().try_for_each(|row| self.need(row))?;
                self.moves.insert(object.key);
                is_more = true;
            }
        }
        Ok(())
    }

    /// What is needed of a pack, if anything is.
    pub(super) fn needed(&self, pack: &PackId) -> Option<&Needed> {
        self.packs.get(pack)
    }

    /// Pays for so many octets more.
    pub(super) fn pay(&mut self, octets: u64) -> Result<()> {
        self.octets += octets;
        while self.permit.as_ref().map_or(0, Permit::octets) < self.octets {
            let more = self.resources.budget().try_acquire(STEP).ok_or_else(|| {
                let what = "the sweep needs more memory than the budget has to tell what is needed of each pack";
                Error::new(ErrorKind::Limit, what)
            })?;
            match &mut self.permit {
                Some(permit) => permit.merge(more),
                none @ None => *none = Some(more),
            }
        }
        Ok(())
    }

    /// Reads a journal, from `next` on if it was read until there; anew if another sweep has deleted some of it since it was listed. What was taken for
    /// needed until then stays so, which does no harm.
    async fn patiently(&mut self, name: JournalName, mut next: Option<u64>) -> Result<()> {
        let mut seen = None;
        loop {
            let read = match next {
                Some(next) => self.since(name, next).await,
                None => self.journal(name).await,
            };
            match read {
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Damaged) => {
                    let listed = name.sequences(&self.repository).await?;
                    if seen.as_ref() == Some(&listed) {
                        return Err(error);
                    }
                    (seen, next) = (Some(listed), None);
                }
                read => return read,
            }
        }
    }

    async fn journal(&mut self, name: JournalName) -> Result<()> {
        let Some(head) = name.last(&self.repository).await? else { return Ok(()) };
        let head = head.reader.head;
        self.pay(PACK_OCTETS)?;
        let Some(forgotten) = head.forgotten else {
            self.read.insert(name, 0);
            return self.since(name, 0).await;
        };
        let journal = Journal::load_all(&self.repository, &head.mailbox, None).await?;
        for commit in &journal.commits {
            for row in journal.needed_blobs(&self.repository, commit).await? {
                self.need(&row)?;
            }
        }
        self.forgotten.retain(|(known, _)| *known != name);
        self.forgotten.push((name, forgotten));
        self.read.insert(name, journal.head().map_or(0, |head| head.sequence + 1));
        Ok(())
    }

    /// Takes in the commits from this sequence on, with all that they point at.
    async fn since(&mut self, name: JournalName, next: u64) -> Result<()> {
        let listed = name.sequences(&self.repository).await?;
        let mut expected = next;
        for (sequence, length) in listed.into_iter().filter(|(sequence, _)| *sequence >= next) {
            if sequence != expected {
                return Err(Error::damaged(format!("commit {expected} of a journal is missing")));
            }
            let mut commit = OpenCommit::open(&self.repository, name, sequence, length).await?;
            for block in commit.section(&self.repository, Section::Blobs).await? {
                for row in decode_blobs(&block)? {
                    self.need(&row)?;
                }
            }
            expected += 1;
        }
        self.read.insert(name, expected);
        Ok(())
    }

    fn need(&mut self, Row { at, .. }: &Row) -> Result<()> {
        if !self.packs.contains_key(&at.pack) {
            self.pay(PACK_OCTETS)?;
        }
        let needed = self.packs.entry(at.pack).or_default();
        let before = needed.frames.len();
        needed.need(at);
        let grown = (needed.frames.len() - before) as u64 * 8;
        self.pay(grown)
    }
}

impl Needed {
    fn need(&mut self, at: &Location) {
        let (word, bit) = (at.frame as usize / 64, 1_u64 << (at.frame % 64));
        // No pack has more frames; a row that says so is damage that a check finds, and is no reason to take so much memory.
        let word = word.min(crate::pack::ROWS_MAX / 64);
        if self.frames.len() <= word {
            self.frames.resize(word + 1, 0);
        }
        if self.frames[word] & bit == 0 {
            self.frames[word] |= bit;
            self.octets += u64::from(at.stored);
        }
    }
}
