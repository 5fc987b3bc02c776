//! Checkpoints: a commit that carries the state of all small commits before it, so that a thousand of them need not be read.

use super::Repository;
use super::columns::{Columns, MessageRow, RecipeRange, RowReader};
use super::commit::{BlobTable, CommitRef, Draft, FolderRecord, SourceRecord};
use super::journal::Journal;
use crate::digest::Domain;
use crate::error::Result;
use crate::message::{Envelope, Evidence, Identity};
use crate::source::SourceId;
use bytes::Bytes;
use std::collections::{BTreeMap, HashMap};

/// What a checkpoint carries.
#[derive(Debug)]
pub(crate) struct Checkpoint {
    commits: Vec<CommitRef>,
    sources: Vec<SourceRecord>,
    folders: BTreeMap<Bytes, FolderRecord>,
    rows: BTreeMap<u64, MessageRow>,
    gone: Vec<u64>,
}

impl Checkpoint {
    /// How many commits there are since the last checkpoint before another is due.
    pub(crate) const COMMITS_MIN: u64 = 32;
    /// A commit of more messages is not carried: to read it is no waste.
    const CARRIED_MESSAGES_MAX: u32 = 4096;
    /// All in all no more messages than this are carried.
    const MESSAGES_MAX: u64 = 1 << 16;
    /// With more messages than this that are not as their commits say, no checkpoint is made: it would be longer than what it saves.
    const UPDATES_MAX: usize = 1 << 18;

    /// The state of a journal, if it can be carried. Reads the commits that are to be carried, and no others.
    pub(crate) async fn of(journal: &Journal, repository: &Repository) -> Result<Option<Self>> {
        if journal.updated().count() > Self::UPDATES_MAX || journal.gone().len() > Self::UPDATES_MAX * 8 {
            return Ok(None);
        }
        let mut commits = journal.commits.clone();
        let mut carried = 0;
        for commit in commits.iter_mut().rev() {
            let rows = u64::from(commit.rows);
            commit.inlined = commit.rows <= Self::CARRIED_MESSAGES_MAX && carried + rows <= Self::MESSAGES_MAX;
            carried += if commit.inlined { rows } else { 0 };
        }
        let is_carried = |ordinal: u64| {
            let found = commits.partition_point(|commit| commit.first_ordinal <= ordinal).checked_sub(1);
            found.is_some_and(|at| commits[at].inlined)
        };
        let mut rows: BTreeMap<u64, MessageRow> = journal.updated().map(|row| (row.ordinal, row.clone())).collect();
        for (commit, _) in journal.commits.iter().zip(&commits).filter(|(_, now)| now.inlined) {
            let mut carry = |row: MessageRow| {
                rows.insert(row.ordinal, row);
                Ok(())
            };
            journal.living_of(repository, commit, &mut carry).await?;
        }
        let mut gone: Vec<u64> = journal.gone().iter().copied().filter(|ordinal| !is_carried(*ordinal)).collect();
        // Of a commit that the last checkpoint carried and this one does not, what is gone was told only by its absence.
        for (before, now) in journal.commits.iter().zip(&commits).filter(|(before, now)| before.inlined && !now.inlined)
        {
            debug_assert_eq!(before.sequence, now.sequence);
            let ordinals = now.first_ordinal..now.first_ordinal + u64::from(now.rows);
            gone.extend(ordinals.filter(|ordinal| !rows.contains_key(ordinal)));
        }
        gone.sort_unstable();
        gone.dedup();
        let folders = journal.folders.clone();
        Ok(Some(Self { commits, sources: journal.sources.clone(), folders, rows, gone }))
    }

    /// Makes `draft` a checkpoint: it carries this state with its own changes made to it. Gives these changes, for [`Draft::carry_no_more`].
    pub(crate) fn carry(mut self, draft: &mut Draft) -> Result<Changes> {
        let changes =
            Changes { folders: draft.folders.clone(), updates: draft.updates.clone(), gone: draft.gone.clone() };
        let own_rows: Vec<MessageRow> = RowReader::new(draft.updates.encode().into(), 0)?.collect::<Result<_>>()?;
        let numbers: Vec<u32> = self.sources.iter().map(|source| draft.source(source.id, &source.kind)).collect();
        let numbered = |source: u32| numbers.get(source as usize).copied().unwrap_or_default();
        self.rows.values_mut().for_each(|row| row.source = numbered(row.source));
        self.folders.values_mut().for_each(|record| record.source = numbered(record.source));
        for mut row in own_rows {
            if let Some(stored) = self.rows.get(&row.ordinal) {
                row.complete_from(stored);
            }
            self.rows.insert(row.ordinal, row);
        }
        for ordinal in &draft.gone {
            self.rows.remove(ordinal);
        }
        for record in std::mem::take(&mut draft.folders) {
            if record.gone {
                self.folders.remove(&record.folder.path.raw);
            } else {
                self.folders.insert(record.folder.path.raw.clone(), record);
            }
        }
        draft.updates = Columns::default();
        for row in self.rows.values_mut() {
            // Recipe and pieces are the business of the commit that stored the message.
            (row.recipe, row.pieces) = (RecipeRange::default(), Vec::new());
            draft.updates.push(row);
        }
        draft.folders = self.folders.into_values().collect();
        draft.gone.extend(self.gone);
        draft.commits = self.commits;
        Ok(changes)
    }
}

/// What a commit tells of earlier ones if it is no checkpoint.
#[derive(Debug)]
pub(crate) struct Changes {
    folders: Vec<FolderRecord>,
    updates: Columns,
    gone: Vec<u64>,
}

/// The messages that other writers committed to a mailbox since this one read its journal: by what makes them the same, their ordinals and
/// what else is known of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Others {
    /// By what makes two messages the same: the ordinal, and what else is known of it.
    placed: HashMap<[u8; 16], (u64, [u8; 16])>,
    /// Ordinals by source, folder and name.
    named: HashMap<[u8; 16], u64>,
}

impl Others {
    /// Takes in the messages of the journal from ordinal `since` on, and those that are no longer as they were stored: they may have been moved.
    /// All of them if `is_anew`: what was known of others is forgotten.
    pub(crate) async fn add(
        &mut self,
        repository: &Repository,
        journal: &Journal,
        since: u64,
        is_anew: bool,
    ) -> Result<()> {
        journal
            .living(repository, |row| {
                let source = journal.sources.get(row.source as usize).filter(|_| row.quarantine.is_none());
                let is_meant = is_anew || row.ordinal >= since || journal.is_updated(row.ordinal);
                if let Some(source) = source.filter(|_| is_meant) {
                    let domain = repository.domain();
                    self.placed.insert(placement(domain, source.id, &row), (row.ordinal, state(domain, &row.envelope)));
                    if row.ordinal >= since {
                        self.named.extend(name_of(domain, source.id, &row).map(|name| (name, row.ordinal)));
                    }
                }
                Ok(())
            })
            .await
    }
}

impl Draft {
    /// The draft is no checkpoint any more.
    pub(crate) fn carry_no_more(&mut self, Changes { folders, updates, gone }: Changes) {
        (self.folders, self.updates, self.gone) = (folders, updates, gone);
        self.commits.clear();
    }

    /// Drops what others have committed already, and what cannot be said of a mailbox to which others write; gives how many messages that are.
    /// What they have committed otherwise (with other flags, say) is told anew.
    pub(crate) fn yield_to(&mut self, domain: &Domain, others: &Others) -> Result<u64> {
        // Evidence says that all messages of a container up to its end are stored, and no more: others may have seen it when it was shorter, or longer.
        self.folders.iter_mut().for_each(|record| record.folder.evidence = Evidence::NONE);
        self.yield_updates(domain, others)?;
        let mut kept = Columns::default();
        let (mut covered, mut skip) = (0, 0);
        for row in RowReader::new(self.messages.encode().into(), 0)? {
            let mut row = row?;
            let source = self.sources.get(row.source as usize).filter(|_| row.quarantine.is_none());
            let theirs = source.and_then(|source| others.placed.get(&placement(domain, source.id, &row)));
            if let Some((ordinal, theirs)) = theirs {
                covered += 1;
                skip += row.recipe.skip + row.recipe.length;
                if state(domain, &row.envelope) != *theirs {
                    (row.ordinal, row.position, row.digest, row.length) = (*ordinal, 0, MessageRow::AS_STORED, 0);
                    (row.recipe, row.pieces) = (RecipeRange::default(), Vec::new());
                    self.updates.push(&row);
                }
                continue;
            }
            row.ordinal = u64::from(kept.rows());
            row.recipe.skip += std::mem::take(&mut skip);
            kept.push(&row);
        }
        if kept.rows() == 0 {
            self.recipes.clear();
            self.blobs = BlobTable::default();
        }
        self.messages = kept;
        Ok(covered)
    }

    /// A message that was moved to where another has stored it meanwhile is gone: it would be there twice.
    fn yield_updates(&mut self, domain: &Domain, others: &Others) -> Result<()> {
        let mut kept = Columns::default();
        for row in RowReader::new(self.updates.encode().into(), 0)? {
            let row = row?;
            let source = self.sources.get(row.source as usize);
            let name = source.and_then(|source| name_of(domain, source.id, &row));
            match name.and_then(|name| others.named.get(&name)) {
                Some(theirs) if *theirs != row.ordinal => self.gone.push(row.ordinal),
                _ => kept.push(&row),
            }
        }
        self.updates = kept;
        Ok(())
    }
}

/// What names a message of a source in its folder.
fn name_of(domain: &Domain, source: SourceId, row: &MessageRow) -> Option<[u8; 16]> {
    let Identity::Named(_) = row.envelope.identity else { return None };
    // Octets play no part.
    let row = MessageRow { digest: MessageRow::AS_STORED, ..row.clone() };
    Some(placement(domain, source, &row))
}

/// What makes two messages of two writers the same: source, folder, name or position, octets.
fn placement(domain: &Domain, source: SourceId, row: &MessageRow) -> [u8; 16] {
    let mut hasher = domain.hasher();
    hasher.update(source.as_bytes());
    hasher.update(row.digest.as_bytes());
    hasher.update(&(row.envelope.folder.len() as u64).to_le_bytes());
    hasher.update(&row.envelope.folder);
    match &row.envelope.identity {
        Identity::Named(name) => hasher.update(name),
        Identity::Content => hasher.update(&row.position.to_le_bytes()),
    };
    let mut placement = [0; 16];
    placement.copy_from_slice(&hasher.finish().as_bytes()[..16]);
    placement
}

/// What is known of a message besides its octets, its folder and what names it.
fn state(domain: &Domain, envelope: &Envelope) -> [u8; 16] {
    let Envelope { folder: _, identity: _, evidence, flags, internal_date, place, before, after, extensions } =
        envelope;
    let mut hasher = domain.hasher();
    let mut put = |octets: &[u8]| {
        hasher.update(&(octets.len() as u64).to_le_bytes());
        hasher.update(octets);
    };
    [&evidence.0, place, before, after].into_iter().for_each(|octets| put(octets));
    put(&[flags.system.bits()]);
    put(&(flags.keywords().len() as u64).to_le_bytes());
    flags.keywords().iter().for_each(|keyword| put(keyword.as_bytes()));
    if let Some(date) = internal_date {
        put(&date.seconds.to_le_bytes());
        put(&date.nanos.to_le_bytes());
        put(&date.zone_minutes.map_or([0; 4], |minutes| (i32::from(minutes) + (1 << 16)).to_le_bytes()));
    }
    for (name, value) in extensions {
        put(name.as_bytes());
        put(value);
    }
    let mut state = [0; 16];
    state.copy_from_slice(&hasher.finish().as_bytes()[..16]);
    state
}
