//! What a check knows of packs: which there are, which of them fail, and whether what is needed of those is elsewhere.

use crate::error::{Error, Result};
use crate::pack::{Location, PackId};
use crate::repository::{Repository, read_moves};
use std::collections::{BTreeMap, HashMap, HashSet};

/// Offsets of broken frames that are remembered of one pack; with more, all of its frames count as broken.
const BROKEN_MAX: usize = 4096;
/// Offsets of moved blobs that are remembered (about 20 octets each); then all are forgotten, and read again where they are needed.
const MOVED_MAX: usize = 1 << 20;
/// Damages of one pack that are told.
const ERRORS_MAX: usize = 100;

/// The packs in a store, and what is asked of them.
#[derive(Default)]
pub(super) struct Packs {
    pub(super) lengths: HashMap<PackId, u64>,
    pub(super) wanted: HashSet<PackId>,
    /// Those that were not listed and were looked for.
    pub(super) missing: HashSet<PackId>,
    /// Those that were marked as bad before.
    pub(super) marked: HashSet<PackId>,
    /// Of packs that fail: the offsets of blobs that are elsewhere, too.
    moved: HashMap<PackId, HashSet<u64>>,
    /// How many offsets that are.
    moved_offsets: usize,
    pub(super) failing: BTreeMap<PackId, Failing>,
}

/// A pack that is damaged, too short, or missing.
#[derive(Debug, Default)]
pub(super) struct Failing {
    pub(super) errors: Vec<Error>,
    /// Where the frames begin that do not open.
    broken: HashSet<u64>,
    /// Any frame may be broken.
    is_broken: bool,
    /// Something that a commit points at can be read nowhere, as far as is known.
    pub(super) is_lost: bool,
}

/// What a pack is of which something does not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It was marked before; everything that is needed of it is elsewhere, too.
    Healed,
    /// It is gone, and everything that is needed of it is elsewhere: a sweep wrote that anew.
    Moved,
    Damaged,
}

impl Packs {
    /// Nothing is known yet but which packs are marked.
    pub(super) fn new(marked: HashSet<PackId>) -> Self {
        Self { marked, ..Self::default() }
    }

    /// What fails is known in full now: moves are judged anew.
    pub(super) fn forget_moves(&mut self) {
        self.moved.clear();
        self.moved_offsets = 0;
    }

    /// What is wrong with this place, as far as the listing of packs tells.
    pub(super) fn lack(&self, at: &Location) -> Option<&'static str> {
        match self.lengths.get(&at.pack) {
            None => Some("the pack is missing"),
            Some(length) if *length < at.end() => Some("the pack is too short"),
            Some(_) => None,
        }
    }

    /// Whether the blob of this place is elsewhere, too, in a pack that is there.
    pub(super) async fn is_moved(&mut self, repository: &Repository, at: &Location) -> Result<bool> {
        if !self.moved.contains_key(&at.pack) {
            let moves = read_moves(repository, at.pack).await?;
            for row in moves.places.values().flatten() {
                // A sweep may have written it since packs were listed.
                if !self.lengths.contains_key(&row.at.pack) && self.missing.insert(row.at.pack) {
                    let length = repository.store().length(&row.at.pack.key()).await?;
                    self.lengths.extend(length.map(|length| (row.at.pack, length)));
                }
            }
            let is_there = |at: &Location| self.lack(at).is_none() && !self.is_broken(at);
            let places = moves.places.into_iter();
            let found =
                places.filter_map(|(offset, rows)| Some((offset, rows.iter().find(|row| is_there(&row.at))?.at.pack)));
            let found: Vec<(u64, PackId)> = found.collect();
            let moved: HashSet<u64> = found.iter().map(|(offset, _)| *offset).collect();
            self.wanted.extend(found.into_iter().map(|(_, pack)| pack));
            self.moved_offsets += moved.len();
            if self.moved_offsets > MOVED_MAX {
                self.moved_offsets = moved.len();
                self.moved.clear();
            }
            self.moved.insert(at.pack, moved);
        }
        Ok(self.moved.get(&at.pack).is_some_and(|moved| moved.contains(&at.offset)))
    }

    /// Something is wrong with a pack: with a frame of it, or with all of it.
    pub(super) fn fail(&mut self, pack: PackId, offset: Option<u64>, error: Error) {
        let failing = self.failing.entry(pack).or_default();
        match offset {
            Some(offset) if failing.broken.len() < BROKEN_MAX => drop(failing.broken.insert(offset)),
            _ => failing.is_broken = true,
        }
        if failing.errors.len() < ERRORS_MAX {
            failing.errors.push(error);
        }
    }

    /// Takes in that a commit points at a place; what cannot be read there nor elsewhere is lost.
    pub(super) async fn need(&mut self, repository: &Repository, at: &Location) -> Result<()> {
        if self.is_broken(at)
            && !self.is_moved(repository, at).await?
            && let Some(failing) = self.failing.get_mut(&at.pack)
        {
            failing.is_lost = true;
        }
        Ok(())
    }

    fn is_broken(&self, at: &Location) -> bool {
        let failing = self.failing.get(&at.pack);
        failing.is_some_and(|failing| failing.is_broken || failing.broken.contains(&at.offset))
    }

    /// What nobody can tell who reads no data: whether all of a pack that was found damaged once is elsewhere by now.
    pub(super) fn untold(&self) -> Option<String> {
        let is_untold = |pack: &&PackId| self.wanted.contains(*pack) && !self.failing.contains_key(*pack);
        match self.marked.iter().filter(is_untold).count() {
            0 => None,
            packs => {
                Some(format!("{packs} packs were found damaged before: whether they are healed, only their data tells"))
            }
        }
    }

    /// What a failing pack is.
    pub(super) fn standing(&self, pack: PackId, failing: &Failing) -> Standing {
        match (failing.is_lost, self.marked.contains(&pack), self.lengths.contains_key(&pack)) {
            (false, true, _) => Standing::Healed,
            (false, false, false) => Standing::Moved,
            _ => Standing::Damaged,
        }
    }
}

impl Failing {
    /// Whether the pack is damaged for good, and not just out of reach.
    pub(super) fn is_damage(&self) -> bool {
        self.errors.iter().all(Error::is_loss)
    }
}
