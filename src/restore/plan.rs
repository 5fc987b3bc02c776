//! Which messages are delivered, in which order, in windows that fit the budget.

use crate::budget::Permit;
use crate::error::{Error, ErrorKind, Result};
use crate::message::MailboxName;
use crate::pack::{Location, Row};
use crate::repository::{CommitRef, Contents, Journal, LostCommit, MessageRow, Repository};
use bytes::Bytes;
use std::collections::VecDeque;

/// The most messages in a window.
const MESSAGES_MAX: usize = 1024;
/// About what a row's names, flags and such take.
const ROW_OCTETS: usize = 256;

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
    /// Commits that are being read, with their numbers; the last one is that of the next messages.
    opened: VecDeque<(usize, Open)>,
    /// For commits that are come back to.
    memory: Option<Permit>,
    /// A message that did not fit the window before.
    held: Option<Planned>,
    /// Commits that could not be read.
    lost: Vec<LostCommit>,
    /// Octets read of commits that are no longer open, since this was last asked.
    octets: u64,
}

/// A commit being read.
struct Open {
    contents: Contents,
    /// What has not been planned yet.
    rows: Vec<Option<Entry>>,
    /// The rows that are planned next.
    turn: VecDeque<u32>,
    blobs: Vec<Row>,
    recipes: Recipes,
    /// Octets read of it that were told.
    told: u64,
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
    /// The blocks behind are wanted, too.
    are_all_wanted: bool,
}

impl Planner {
    /// A planner for this journal. `is_ordered`: each folder's messages follow one another in the folder's order, and commits are come back to: `memory` is for those.
    pub(crate) async fn new(
        repository: Repository,
        journal: Journal,
        is_ordered: bool,
        window_octets: u64,
        scope: Scope,
        memory: Option<Permit>,
    ) -> Result<Self> {
        let mut planner = Self {
            repository,
            journal,
            window_octets,
            scope,
            todo: VecDeque::new(),
            opened: VecDeque::new(),
            memory,
            held: None,
            lost: Vec::new(),
            octets: 0,
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
        let commit = journal.commit_of(ordinal).ok_or_else(absent)?;
        let contents = journal.contents(repository, commit).await?;
        let now = |row| Ok(journal.now(row));
        Open::new(repository, contents, now).await?.one(repository, ordinal - commit.first_ordinal, absent).await
    }

    /// One message as the commit of this sequence stored it, whatever became of it since; its source has no number. No journal is read.
    pub(crate) async fn one_stored(
        repository: &Repository,
        mailbox: &MailboxName,
        sequence: u64,
        ordinal: u64,
    ) -> Result<Planned> {
        let absent = || {
            let message = format!("commit {sequence} of '{mailbox}' has no message {ordinal}");
            Error::new(ErrorKind::NotFound, message)
        };
        let (contents, first_ordinal) = Contents::by_itself(repository, mailbox, sequence).await?;
        let row = ordinal.checked_sub(first_ordinal).ok_or_else(absent)?;
        let as_stored = |row| Ok(Some(row));
        Open::new(repository, contents, as_stored).await?.one(repository, row, absent).await
    }

    /// The commits whose messages could not be planned, since this was last asked.
    pub(crate) fn take_lost(&mut self) -> Vec<LostCommit> {
        std::mem::take(&mut self.lost)
    }

    /// Octets read of commits since this was last asked.
    pub(crate) fn take_octets(&mut self) -> u64 {
        let open: u64 = self.opened.iter_mut().map(|(_, open)| open.take_octets()).sum();
        std::mem::take(&mut self.octets) + open
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
            if let Some((_, open)) = self.opened.back_mut()
                && let Some(entry) = open.next()
            {
                return open.plan(&self.repository, entry).await.map(Some);
            }
            let Some((commit, rows)) = self.todo.pop_front() else {
                while self.close_oldest() {}
                return Ok(None);
            };
            if let Err(error) = self.turn_to(commit, rows).await {
                self.lose(commit, error)?;
            }
        }
    }

    /// Opens a commit, unless it is open still, to plan these rows of it next.
    async fn turn_to(&mut self, commit: usize, rows: Option<Vec<u32>>) -> Result<()> {
        let open = match self.opened.iter().position(|(number, _)| *number == commit) {
            Some(place) => self.opened.remove(place).map(|(_, open)| open),
            None => None,
        };
        let mut open = match open {
            Some(open) => open,
            None => {
                self.make_room();
                let contents = self.journal.contents(&self.repository, &self.journal.commits[commit]).await?;
                let (journal, scope) = (&self.journal, self.scope);
                let now = |row: MessageRow| {
                    let gone = (scope == Scope::All && !journal.is_forgotten(row.ordinal)).then(|| row.clone());
                    let row = journal.now(row).or(gone);
                    Ok(row.filter(|row| scope != Scope::Quarantined || row.quarantine.is_some()))
                };
                let mut open = Open::new(&self.repository, contents, now).await?;
                open.recipes.are_all_wanted = true;
                open
            }
        };
        open.turn = rows.map_or_else(|| (0..open.rows.len() as u32).collect(), VecDeque::from);
        self.opened.push_back((commit, open));
        Ok(())
    }

    /// Leaves open no more commits than there is memory for beside the next one.
    fn make_room(&mut self) {
        let room = self.memory.as_ref().map_or(0, Permit::octets);
        while self.opened.iter().map(|(_, open)| open.octets()).sum::<u64>() > room {
            self.close_oldest();
        }
    }

    fn close_oldest(&mut self) -> bool {
        let closed = self.opened.pop_front();
        self.octets += closed.as_ref().map_or(0, |(_, open)| open.contents.octets_read() - open.told);
        closed.is_some()
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
    async fn order_of(
        &mut self,
        number: usize,
        folders: &[Bytes],
        order: &mut Vec<(u32, u64, u32, u32)>,
    ) -> Result<()> {
        let commit = &self.journal.commits[number];
        if !self.journal.may_have_living(commit) {
            return Ok(());
        }
        let mut contents = self.journal.contents(&self.repository, commit).await?;
        let rows = contents.rows(&self.repository).await?;
        self.octets += contents.octets_read();
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
    /// Opens a commit; `now` tells what became of a row, `None` if it is not wanted.
    async fn new(
        repository: &Repository,
        mut contents: Contents,
        mut now: impl FnMut(MessageRow) -> Result<Option<MessageRow>>,
    ) -> Result<Self> {
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
            rows.push(now(stored)?.map(|now| Entry { now, recipe_at: at, recipe_length, pieces }));
        }
        let blobs = contents.blobs(repository).await?;
        let mut starts = vec![0];
        let mut end = 0;
        starts.extend(contents.recipe_lengths().into_iter().map(|length| {
            end += u64::from(length);
            end
        }));
        let recipes = Recipes { starts, current: None, are_all_wanted: false };
        Ok(Self { contents, rows, turn: VecDeque::new(), blobs, recipes, told: 0 })
    }

    /// One message alone.
    async fn one(mut self, repository: &Repository, row: u64, absent: impl Fn() -> Error) -> Result<Planned> {
        let row = usize::try_from(row).ok().and_then(|row| self.rows.get_mut(row));
        let entry = row.and_then(Option::take).ok_or_else(absent)?;
        self.plan(repository, entry).await
    }

    /// The next row that is planned, if it is wanted.
    fn next(&mut self) -> Option<Entry> {
        let Self { turn, rows, .. } = self;
        std::iter::from_fn(|| turn.pop_front()).find_map(|row| rows.get_mut(row as usize).and_then(Option::take))
    }

    /// About what it takes in memory.
    fn octets(&self) -> u64 {
        let pieces: usize = self.rows.iter().flatten().map(|entry| entry.pieces.len() * 4 + ROW_OCTETS).sum();
        let rows = self.rows.len() * size_of::<Option<Entry>>() + pieces;
        let blobs = self.blobs.len() * size_of::<Row>();
        let recipes = self.recipes.current.as_ref().map_or(0, |(_, block)| block.len());
        (rows + blobs + recipes) as u64 + self.contents.octets_held()
    }

    fn take_octets(&mut self) -> u64 {
        let read = self.contents.octets_read();
        read - std::mem::replace(&mut self.told, read)
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
            let block = match self.recipes.are_all_wanted {
                true => self.contents.recipes_in_order(repository, number).await?,
                false => self.contents.recipes(repository, number).await?,
            };
            self.recipes.current = Some((number, block));
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
