//! What the journals of a repository need: which blobs of which packs, and which commits.

use crate::budget::Permit;
use crate::error::{Error, ErrorKind, Result};
use crate::pack::{Location, PackId, ROWS_MAX, Row};
use crate::repository::{
    HOPS_MAX, Journal, JournalName, MOVES, Move, OpenCommit, Patience, Repository, Section, decode_blobs, moved_pack,
    open_moves,
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
    /// The packs that had moves before any journal was read. Of these it is known which blobs are needed, and so which moves.
    moved: HashSet<PackId>,
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
    /// Of packs that had moves: where these frames begin.
    offsets: HashSet<u64>,
    /// Octets of these frames.
    pub(super) octets: u64,
    /// Over how many moves some of it came here.
    pub(super) hops: u8,
    /// Commits point at it, and not only moves.
    is_pointed_at: bool,
}

/// What a pack takes in memory besides a bit for each of its blobs.
const PACK_OCTETS: u64 = 160;
/// What the offset of a blob takes.
const OFFSET_OCTETS: u64 = 16;
/// Memory is asked for in steps of this many octets.
const STEP: u64 = 1 << 20;

impl Scan {
    pub(super) fn new(repository: Repository, resources: Resources) -> Self {
        let (packs, read, moved, forgotten) = (HashMap::new(), HashMap::new(), HashSet::new(), Vec::new());
        Self { repository, resources, packs, read, moved, forgotten, octets: 0, permit: None }
    }

    /// Reads what was not read yet: all journals at first, later what was committed since.
    ///
    /// # Errors
    /// Damage of any journal: what cannot be read may need anything.
    pub(super) async fn advance(&mut self) -> Result<()> {
        if self.read.is_empty() {
            self.list_moves().await?;
        }
        for (name, end) in self.repository.journal_ends().await? {
            match self.read.get(&name).copied() {
                Some(next) if next > end => {}
                next => self.patiently(name, next).await?,
            }
        }
        self.moves().await
    }

    /// The packs that had moves when this began.
    pub(super) fn moved(&self) -> impl Iterator<Item = &PackId> {
        self.moved.iter()
    }

    async fn list_moves(&mut self) -> Result<()> {
        let store = Arc::clone(self.repository.store());
        let mut listing = store.list(MOVES);
        while let Some(object) = listing.try_next().await? {
            if let Some(pack) = moved_pack(&object.key)
                && self.moved.insert(pack)
            {
                self.pay(OFFSET_OCTETS * 2)?;
            }
        }
        Ok(())
    }

    /// What needed packs hold is needed wherever it is, too: readers look there where a pack is missing or damaged.
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
                let Some(pack) = moved_pack(&object.key).filter(|pack| self.packs.contains_key(pack)) else { continue };
                match open_moves(&self.repository, &object).await {
                    Ok(moves) => is_more |= self.follow(pack, moves)?,
                    // A repair dropped it since it was listed, because it did not open.
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    /// Takes in where blobs of a needed pack are; true if more is needed than before.
    fn follow(&mut self, pack: PackId, moves: Vec<Move>) -> Result<bool> {
        let is_known = self.moved.contains(&pack);
        let mut is_more = false;
        for Move { offset, to } in moves {
            let Some(needed) = self.packs.get(&pack) else { continue };
            if is_known && !needed.offsets.contains(&offset) {
                continue;
            }
            let hops = needed.hops.saturating_add(1).min(HOPS_MAX);
            is_more |= self.need(&to)?;
            let target = self.packs.entry(to.at.pack).or_default();
            is_more |= target.hops < hops;
            target.hops = target.hops.max(hops);
        }
        Ok(is_more)
    }

    /// The packs that commits point at.
    pub(super) fn pointed_at(&self) -> impl Iterator<Item = &PackId> {
        self.packs.iter().filter(|(_, needed)| needed.is_pointed_at).map(|(pack, _)| pack)
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
        let mut patience = Patience::default();
        loop {
            let read = match next {
                Some(next) => self.since(name, next).await,
                None => self.journal(name).await,
            };
            match read {
                Err(error) if error.is_loss() => patience.bear(&self.repository, name, error).await?,
                read => return read,
            }
            next = None;
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
                self.point_at(&row)?;
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
            let mut commit = OpenCommit::open(&self.repository, name, sequence, Some(length)).await?;
            for block in commit.section(&self.repository, Section::Blobs).await? {
                for row in decode_blobs(&block)? {
                    self.point_at(&row)?;
                }
            }
            expected += 1;
        }
        self.read.insert(name, expected);
        Ok(())
    }

    /// Takes in that a commit points at a blob.
    fn point_at(&mut self, row: &Row) -> Result<()> {
        self.need(row)?;
        self.packs.entry(row.at.pack).or_default().is_pointed_at = true;
        Ok(())
    }

    /// Takes in that a blob is needed; true if it was not before.
    fn need(&mut self, Row { at, .. }: &Row) -> Result<bool> {
        if !self.packs.contains_key(&at.pack) {
            self.pay(PACK_OCTETS)?;
        }
        let has_moves = self.moved.contains(&at.pack);
        let needed = self.packs.entry(at.pack).or_default();
        let before = needed.frames.len();
        let is_new = needed.need(at);
        let mut grown = (needed.frames.len() - before) as u64 * 8;
        if has_moves && needed.offsets.insert(at.offset) {
            grown += OFFSET_OCTETS;
        }
        self.pay(grown)?;
        Ok(is_new)
    }
}

impl Needed {
    /// Whether a blob is needed.
    pub(super) fn has(&self, at: &Location) -> bool {
        let (word, bit) = place(at);
        self.frames.get(word).is_some_and(|frames| frames & bit != 0)
    }

    /// Where the needed blobs begin, of a pack that had moves when this began.
    pub(super) fn offsets(&self) -> impl Iterator<Item = &u64> {
        self.offsets.iter()
    }

    /// Whether that is known.
    pub(super) fn offsets_known(&self) -> bool {
        self.offsets.len() as u64 >= self.frames()
    }

    /// How many blobs are needed.
    pub(super) fn frames(&self) -> u64 {
        self.frames.iter().map(|frames| u64::from(frames.count_ones())).sum()
    }

    fn need(&mut self, at: &Location) -> bool {
        let (word, bit) = place(at);
        if self.frames.len() <= word {
            self.frames.resize(word + 1, 0);
        }
        let is_new = self.frames[word] & bit == 0;
        if is_new {
            self.frames[word] |= bit;
            self.octets += u64::from(at.stored);
        }
        is_new
    }
}

/// The word and the bit in it that stand for a frame.
fn place(at: &Location) -> (usize, u64) {
    // No pack has more frames; a row that says so is damage that a check finds, and is no reason to take so much memory.
    ((at.frame as usize / 64).min(ROWS_MAX / 64), 1 << (at.frame % 64))
}
