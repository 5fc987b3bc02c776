//! Which messages are delivered, in which order, in windows that fit the budget.

use crate::error::{Error, ErrorKind, Result};
use crate::pack::{Location, Row};
use crate::repository::{CommitRef, Contents, Journal, LostCommit, MessageRow, Repository};
use bytes::Bytes;
use std::collections::VecDeque;

/// The most messages in a window.
const MESSAGES_MAX: usize = 1024;

/// A message with all that is needed to rebuild it.
#[derive(Debug)]
pub(crate) struct Planned {
    pub(crate) row: MessageRow,
    pub(crate) recipe: Result<Bytes>,
    pub(crate) pieces: Vec<Location>,
}

/// Which messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Those that are there.
    Living,
    /// Those that are gone, too.
    All,
    /// Those that are there and in quarantine: what could be read of them.
    Quarantined,
}

/// Reads a mailbox's messages in windows, in the order of its journal, or folder by folder in the folders' order.
pub(crate) struct Planner {
    repository: Repository,
    journal: Journal,
    window_octets: u64,
    scope: Scope,
    /// What is still to be read: a commit, and which of its rows (all, if not told).
    todo: VecDeque<(usize, Option<Vec<u32>>)>,
    open: Option<Open>,
    /// A message that did not fit the window before.
    held: Option<Planned>,
    /// Commits that could not be read.
    lost: Vec<LostCommit>,
}

/// A commit being read.
struct Open {
    contents: Contents,
    rows: VecDeque<Entry>,
    blobs: Vec<Row>,
    recipes: Recipes,
}

/// A row and where its recipe is in the commit's recipes.
struct Entry {
    now: MessageRow,
    /// As the commit stored it: where its recipe is, how long that is, and its pieces.
    recipe_at: u64,
    recipe_length: u32,
    pieces: Vec<u32>,
}

/// The recipe blocks of a commit, one open at a time.
struct Recipes {
    /// Where each block begins, and where the last ends.
    starts: Vec<u64>,
    current: Option<(usize, Bytes)>,
}

impl Planner {
    /// A planner for this journal. `is_ordered`: each folder's messages follow one another in the folder's order.
    pub(crate) async fn new(
        repository: Repository,
        journal: Journal,
        is_ordered: bool,
        window_octets: u64,
        scope: Scope,
    ) -> Result<Self> {
        let mut planner = Self {
            repository,
            journal,
            window_octets,
            scope,
            todo: VecDeque::new(),
            open: None,
            held: None,
            lost: Vec::new(),
        };
        if is_ordered {
            planner.order().await?;
        } else {
            let commits = planner.journal.commits.iter().enumerate();
            let is_wanted = |commit: &CommitRef| {
                !commit.forgotten && (scope == Scope::All || planner.journal.may_have_living(commit))
            };
            let living = commits.filter(|(_, commit)| is_wanted(commit));
            planner.todo = living.map(|(number, _)| (number, None)).collect();
        }
        Ok(planner)
    }

    /// One living message.
    pub(crate) async fn one(repository: &Repository, journal: &Journal, ordinal: u64) -> Result<Planned> {
        let absent = || Error::new(ErrorKind::NotFound, format!("the mailbox has no message {ordinal}"));
        let number = journal.commits.partition_point(|commit| commit.first_ordinal <= ordinal);
        // A commit without rows has the same first ordinal as the next one with rows.
        let commit = journal.commits[..number].iter().rposition(|commit| commit.rows > 0).ok_or_else(absent)?;
        let row = ordinal - journal.commits[commit].first_ordinal;
        let wanted = [u32::try_from(row).map_err(|_| absent())?];
        let mut open = Open::new(repository, journal, commit, Some(&wanted), Scope::Living).await?;
        let entry = open.rows.pop_front().ok_or_else(absent)?;
        open.plan(repository, entry).await
    }

    /// The commits whose messages could not be planned, since this was last asked.
    pub(crate) fn take_lost(&mut self) -> Vec<LostCommit> {
        std::mem::take(&mut self.lost)
    }

    /// The next messages: together at most a window's octets, but at least one. Empty at the end.
    pub(crate) async fn window(&mut self) -> Result<Vec<Planned>> {
        let mut window = Vec::new();
        let mut octets = 0;
        while window.len() < MESSAGES_MAX {
            let Some(planned) = self.message().await? else { break };
            let length = planned.row.length;
            if !window.is_empty() && length.saturating_add(octets) > self.window_octets {
                self.held = Some(planned);
                break;
            }
            octets += length;
            window.push(planned);
        }
        Ok(window)
    }

    async fn message(&mut self) -> Result<Option<Planned>> {
        if let Some(held) = self.held.take() {
            return Ok(Some(held));
        }
        loop {
            if let Some(open) = &mut self.open
                && let Some(entry) = open.rows.pop_front()
            {
                return open.plan(&self.repository, entry).await.map(Some);
            }
            self.open = None;
            let Some((commit, rows)) = self.todo.pop_front() else { return Ok(None) };
            match Open::new(&self.repository, &self.journal, commit, rows.as_deref(), self.scope).await {
                Ok(open) => self.open = Some(open),
                Err(error) => self.lose(commit, error)?,
            }
        }
    }

    /// Damage of one commit leaves the others; what else goes wrong ends it all.
    fn lose(&mut self, commit: usize, error: Error) -> Result<()> {
        if error.kind() != ErrorKind::Damaged {
            return Err(error);
        }
        let lost = LostCommit::of(&self.journal.commits[commit], error);
        if self.lost.iter().all(|known| known.sequence != lost.sequence) {
            self.lost.push(lost);
        }
        Ok(())
    }

    /// Plans the rows of every commit by folder and position: 24 octets a message.
    async fn order(&mut self) -> Result<()> {
        let mut order: Vec<(u32, u64, u32, u32)> = Vec::new();
        let folders: Vec<Bytes> = self.journal.folders.keys().cloned().collect();
        for number in 0..self.journal.commits.len() {
            let planned = order.len();
            if let Err(error) = self.order_of(number, &folders, &mut order).await {
                order.truncate(planned);
                self.lose(number, error)?;
            }
        }
        order.sort_unstable();
        for (_, _, commit, row) in order {
            match self.todo.back_mut() {
                Some((last, Some(rows))) if *last == commit as usize => rows.push(row),
                _ => self.todo.push_back((commit as usize, Some(vec![row]))),
            }
        }
        Ok(())
    }
}

impl Planner {
    async fn order_of(&self, number: usize, folders: &[Bytes], order: &mut Vec<(u32, u64, u32, u32)>) -> Result<()> {
        let commit = &self.journal.commits[number];
        if !self.journal.may_have_living(commit) {
            return Ok(());
        }
        let mut contents = self.journal.contents(&self.repository, commit).await?;
        let rows = contents.rows(&self.repository).await?;
        for (row, stored) in rows.into_iter().flatten().enumerate() {
            if let Some(now) = self.journal.now(stored?) {
                // A folder that is in no record comes behind all others.
                let folder = folders.binary_search(&now.envelope.folder).unwrap_or(folders.len());
                order.push((folder as u32, now.position, number as u32, row as u32));
            }
        }
        Ok(())
    }
}

impl Open {
    /// Opens a commit; `wanted` are the numbers of the rows to be delivered, in order.
    async fn new(
        repository: &Repository,
        journal: &Journal,
        number: usize,
        wanted: Option<&[u32]>,
        scope: Scope,
    ) -> Result<Self> {
        let commit = &journal.commits[number];
        let mut contents = journal.contents(repository, commit).await?;
        contents.load(repository).await?;
        let mut rows = Vec::new();
        let mut recipe_at = 0;
        for stored in contents.rows(repository).await?.into_iter().flatten() {
            let mut stored = stored?;
            stored.source = contents.source(stored.source)?;
            recipe_at += u64::from(stored.recipe.skip);
            let at = recipe_at;
            recipe_at += u64::from(stored.recipe.length);
            let (pieces, recipe_length) = (std::mem::take(&mut stored.pieces), stored.recipe.length);
            let gone = (scope == Scope::All && !journal.is_forgotten(stored.ordinal)).then(|| stored.clone());
            let row = journal.now(stored).or(gone);
            let row = row.filter(|row| scope != Scope::Quarantined || row.quarantine.is_some());
            rows.push(row.map(|now| Entry { now, recipe_at: at, recipe_length, pieces }));
        }
        let rows: VecDeque<Entry> = match wanted {
            None => rows.into_iter().flatten().collect(),
            Some(wanted) => {
                wanted.iter().filter_map(|row| rows.get_mut(*row as usize).and_then(Option::take)).collect()
            }
        };
        let blobs = contents.blobs(repository).await?;
        let mut starts = vec![0];
        let mut end = 0;
        starts.extend(contents.recipe_lengths().into_iter().map(|length| {
            end += u64::from(length);
            end
        }));
        Ok(Self { contents, rows, blobs, recipes: Recipes { starts, current: None } })
    }

    async fn plan(&mut self, repository: &Repository, entry: Entry) -> Result<Planned> {
        let Entry { now, recipe_at, recipe_length, pieces } = entry;
        let recipe = self.recipe(repository, recipe_at, recipe_length).await;
        let pieces = pieces.iter().map(|piece| self.blobs.get(*piece as usize).map(|row| row.at));
        let pieces: Option<Vec<Location>> = pieces.collect();
        let recipe = match &pieces {
            Some(_) => recipe,
            None => Err(Error::damaged("a message names a blob that its commit's table does not have")),
        };
        Ok(Planned { row: now, recipe, pieces: pieces.unwrap_or_default() })
    }

    async fn recipe(&mut self, repository: &Repository, at: u64, length: u32) -> Result<Bytes> {
        let number = self.recipes.starts.partition_point(|start| *start <= at).saturating_sub(1);
        let number = number.min(self.recipes.starts.len().saturating_sub(2));
        if self.recipes.current.as_ref().is_none_or(|(current, _)| *current != number) {
            self.recipes.current = Some((number, self.contents.recipes_in_order(repository, number).await?));
        }
        let start = self.recipes.starts[number];
        let block = self.recipes.current.as_ref().map(|(_, block)| block);
        let (from, to) = ((at - start) as usize, (at - start) as usize + length as usize);
        let found = block.filter(|block| to <= block.len()).map(|block| block.slice(from..to));
        found.ok_or_else(|| Error::damaged("a recipe lies outside of its block"))
    }
}

impl std::fmt::Debug for Planner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Planner").field("mailbox", &self.journal.mailbox).field("todo", &self.todo.len()).finish()
    }
}
