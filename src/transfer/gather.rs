//! Gathering what belongs to one mailbox into commits.

use super::append::Ticket;
use super::known::{Differs, KnownMessage};
use super::lane::Read;
use super::state::BatchPermit;
use super::{Outcome, Settled};
use crate::ledger::Changes;
use crate::message::{Envelope, Evidence, Folder, Identity, MailboxName};
use crate::pack::PackId;
use crate::repository::{CompressedBlock, Draft, FolderRecord, MessageRow, RecipeRange};
use crate::settings::Settings;
use crate::source::{Kind, Reason, SourceId};
use bytes::Bytes;
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;

/// With this many blobs in its table a commit is closed, so that the table stays well below what readers take.
const BLOBS_MAX: usize = 1 << 18;
/// What a folder weighs besides its octets.
const FOLDER_OCTETS: usize = 64;

/// A mailbox that is being transferred.
#[derive(Debug)]
pub(super) struct Gatherer {
    pub(super) mailbox: Arc<MailboxName>,
    source: (SourceId, Kind),
    /// The journal's folders of this source, as last committed or about to be.
    folders: BTreeMap<Bytes, Folder>,
    folders_seen: HashSet<Bytes>,
    /// Folders whose evidence is told only once everything in them is.
    folders_last: Vec<Folder>,
    /// Folders in which a message is quarantined: they must be read again.
    folders_unproven: HashSet<Bytes>,
    /// The commit being filled.
    pub(super) open: Builder,
    /// Commits that are full, oldest first.
    pub(super) closed: VecDeque<Builder>,
    pub(super) is_committing: bool,
    /// Batches that are still read.
    pub(super) outstanding: usize,
    end: Option<End>,
    /// Messages that were enumerated will not be read.
    is_cut_short: bool,
    is_concluded: bool,
}

/// What the end of a mailbox's enumeration tells.
#[derive(Debug, Default)]
pub(super) struct End {
    /// The messages that were not seen.
    pub(super) gone: Vec<u64>,
    /// How many of them had been stored in full.
    pub(super) stored: u64,
    /// Everything there is was seen.
    pub(super) is_complete: bool,
}

/// A commit being filled.
#[derive(Debug, Default)]
pub(super) struct Builder {
    pub(super) serial: u64,
    pub(super) draft: Draft,
    pub(super) permits: Vec<BatchPermit>,
    /// Recipes that are not compressed yet.
    recipes: Vec<u8>,
    /// Recipe blocks being compressed.
    pub(super) compressing: usize,
    compressed_octets: usize,
    /// What the draft's folders weigh.
    folders_weight: usize,
    /// Packs that must be durable first.
    pub(super) waits_for: HashSet<PackId>,
    pub(super) stored: u64,
    /// Messages read again and found to be what was stored.
    pub(super) unchanged: u64,
    pub(super) quarantined: Vec<Reason>,
    pub(super) changes: Changes,
    /// Which of the draft's gone messages are those that the enumeration did not see, and how many of them had been stored in full.
    unseen: (std::ops::Range<usize>, u64),
    pub(super) outcomes: Vec<Outcome>,
    /// Who waits for messages of this commit, and what they will be told.
    pub(super) tickets: Vec<(Ticket, Settled)>,
    /// Places in the draft of folders whose evidence was withdrawn.
    withdrawn: BTreeMap<Bytes, usize>,
}

/// Recipes to be compressed.
#[derive(Debug)]
pub(super) struct RecipeBlock {
    pub(super) serial: u64,
    pub(super) slot: usize,
    pub(super) recipes: Vec<u8>,
}

impl Gatherer {
    pub(super) fn new(mailbox: Arc<MailboxName>, source: (SourceId, Kind), folders: BTreeMap<Bytes, Folder>) -> Self {
        Self {
            mailbox,
            source,
            folders,
            folders_seen: HashSet::new(),
            folders_last: Vec::new(),
            folders_unproven: HashSet::new(),
            open: Builder::default(),
            closed: VecDeque::new(),
            is_committing: false,
            outstanding: 0,
            end: None,
            is_cut_short: false,
            is_concluded: false,
        }
    }

    /// Takes in a folder that the source named.
    ///
    /// A container's evidence says that everything in it is stored: it must not be committed before that is so.
    pub(super) fn folder(&mut self, folder: Folder) {
        self.folders_seen.insert(folder.path.raw.clone());
        if !folder.evidence.is_none() {
            self.folders_last.push(folder);
            return;
        }
        // What is recorded of a folder that is just being read again stands until it has been read.
        let is_new = self.folders.get(&folder.path.raw).is_none_or(|known| {
            let mut known = known.clone();
            known.evidence = Evidence::NONE;
            let is_container = folder.modified.is_some();
            known != folder && !is_container
        });
        if is_new {
            self.record_folder(folder, false);
        }
    }

    fn record_folder(&mut self, folder: Folder, gone: bool) {
        let source = self.open.draft.source(self.source.0, &self.source.1);
        self.folders.insert(folder.path.raw.clone(), folder.clone());
        self.open.folders_weight += folder.weight() + FOLDER_OCTETS;
        self.open.draft.folders.push(FolderRecord { folder, source, gone });
    }

    /// A container's recorded evidence goes with the messages that were stored under it: once others are, a run that is cut off before the new
    /// evidence is told would let the next one take them for those, and store them again.
    fn withdraw_evidence(&mut self, raw: &Bytes) {
        let Some(known) = self.folders.get(raw).filter(|known| !known.evidence.is_none()) else { return };
        let mut folder = known.clone();
        folder.evidence = Evidence::NONE;
        self.open.withdrawn.insert(raw.clone(), self.open.draft.folders.len());
        self.record_folder(folder, false);
    }

    /// Records a folder with the evidence told at its end; a withdrawal in the same commit is not needed then.
    fn record_evidence(&mut self, folder: Folder) {
        let withdrawn = self.open.withdrawn.remove(&folder.path.raw);
        match withdrawn.and_then(|at| self.open.draft.folders.get_mut(at)) {
            Some(record) => {
                self.folders.insert(folder.path.raw.clone(), folder.clone());
                record.folder = folder;
            }
            None => self.record_folder(folder, false),
        }
    }

    /// Takes in a message whose octets are stored and whose envelope is another now.
    pub(super) fn update(&mut self, ordinal: u64, position: u64, envelope: Envelope, moved: bool) {
        if moved {
            self.open.changes.moved += 1;
        } else {
            self.open.changes.flags += 1;
        }
        self.push_update(ordinal, position, envelope);
    }

    fn push_update(&mut self, ordinal: u64, position: u64, envelope: Envelope) {
        let source = self.open.draft.source(self.source.0, &self.source.1);
        let row = MessageRow {
            ordinal,
            position,
            source,
            envelope,
            digest: MessageRow::AS_STORED,
            length: 0,
            quarantine: None,
            recipe: RecipeRange::default(),
            pieces: Vec::new(),
        };
        self.open.draft.updates.push(&row);
    }

    /// Takes in messages that were read, and gives what is to be compressed.
    pub(super) fn messages(
        &mut self,
        messages: Vec<Read>,
        recipes: &[u8],
        open_packs: &HashSet<PackId>,
        settings: &Settings,
        with_outcomes: bool,
    ) -> Vec<RecipeBlock> {
        let mut blocks = Vec::new();
        let mut rest = recipes;
        for mut message in messages {
            let reason = message.quarantine.as_ref().map(|unreadable| unreadable.reason);
            let settled = match (&message.recipe, &reason) {
                (_, Some(reason)) => Settled::Quarantined { reason: *reason },
                (None, None) => Settled::Unchanged { messages: 1 },
                (Some(_), None) => Settled::Stored { digest: message.digest, length: message.length },
            };
            if let Some(ticket) = message.ticket.take() {
                self.open.tickets.push((ticket, settled.clone()));
            }
            if with_outcomes {
                self.open.outcomes.push(Outcome {
                    mailbox: Arc::clone(&self.mailbox),
                    folder: message.envelope.folder.clone(),
                    identity: message.envelope.identity.clone(),
                    settled,
                });
            }
            if let Some(reason) = reason {
                self.folders_unproven.insert(message.envelope.folder.clone());
                self.open.quarantined.push(reason);
            }
            let Some(length) = message.recipe else {
                self.known_again(message, reason);
                continue;
            };
            let (recipe, behind) = rest.split_at(length);
            rest = behind;
            self.open.stored += u64::from(reason.is_none());
            if let Some(known) = message.known.take() {
                // What was stored in full stays until something else is.
                let is_replaced = reason.is_none() || !known.is_stored();
                self.open.draft.gone.extend(is_replaced.then_some(known.ordinal));
                self.open.draft.gone.extend(known.attempts);
            }
            blocks.extend(self.push_recipe(recipe, settings));
            self.push_row(message, reason, open_packs);
        }
        blocks
    }

    /// A message that was read again and has the octets that the journal has.
    fn known_again(&mut self, message: Read, reason: Option<Reason>) {
        if reason.is_some() {
            return;
        }
        self.open.unchanged += 1;
        let known = message.known.map(|mut known| {
            self.open.draft.gone.append(&mut known.attempts);
            known
        });
        match known.filter(KnownMessage::is_stored) {
            Some(KnownMessage { ordinal, differs: Differs::InState, .. }) => {
                self.update(ordinal, 0, message.envelope, false);
            }
            Some(KnownMessage { ordinal, differs: Differs::InEvidence, .. }) => {
                self.push_update(ordinal, 0, message.envelope);
            }
            Some(KnownMessage { differs: Differs::No, .. }) | None => {}
        }
    }

    fn push_row(&mut self, message: Read, quarantine: Option<Reason>, open_packs: &HashSet<PackId>) {
        self.withdraw_evidence(&message.envelope.folder);
        let draft = &mut self.open.draft;
        let pieces = message.pieces.into_iter().map(|row| {
            if open_packs.contains(&row.at.pack) {
                self.open.waits_for.insert(row.at.pack);
            }
            draft.blobs.number(row)
        });
        let pieces = pieces.collect();
        let source = draft.source(self.source.0, &self.source.1);
        let row = MessageRow {
            ordinal: u64::from(draft.messages.rows()),
            position: message.position,
            source,
            envelope: message.envelope,
            digest: message.digest,
            length: message.length,
            quarantine,
            recipe: RecipeRange { skip: 0, length: message.recipe.unwrap_or_default() as u32 },
            pieces,
        };
        draft.messages.push(&row);
    }

    /// Appends a recipe; a block of them is compressed as a whole, and no recipe lies in two blocks.
    fn push_recipe(&mut self, recipe: &[u8], settings: &Settings) -> Option<RecipeBlock> {
        let is_full = self.open.recipes.len() + recipe.len() > settings.recipe_block_bytes;
        let block = if is_full { self.open.take_recipes() } else { None };
        self.open.recipes.extend_from_slice(recipe);
        block
    }

    /// Whether the open commit is as large as it may be.
    pub(super) fn is_full(&self, settings: &Settings) -> bool {
        let Builder { draft, recipes, compressed_octets, folders_weight, .. } = &self.open;
        let rows = draft.messages.rows() + draft.updates.rows();
        rows >= settings.commit_messages_max
            || compressed_octets + recipes.len() / 2 >= settings.commit_bytes_max
            || draft.messages.octets() + draft.updates.octets() + folders_weight >= settings.commit_bytes_max
            || draft.blobs.len() >= BLOBS_MAX
    }

    /// Keeps the memory of a batch that was read to its end with the commit that holds the last of it; gives it back if that is committed already.
    pub(super) fn keep(&mut self, permit: BatchPermit) -> Option<BatchPermit> {
        let is_open = !self.open.draft.is_empty() || !self.open.is_settled();
        let builder = if is_open { Some(&mut self.open) } else { self.closed.back_mut() };
        match builder {
            Some(builder) => {
                builder.permits.push(permit);
                None
            }
            None => Some(permit),
        }
    }

    /// Closes the open commit, if there is anything in it, and gives what is left to be compressed of it.
    pub(super) fn close(&mut self) -> Option<RecipeBlock> {
        if self.open.draft.is_empty() && self.open.is_settled() {
            return None;
        }
        let block = self.open.take_recipes();
        let next = Builder { serial: self.open.serial + 1, ..Builder::default() };
        self.closed.push_back(std::mem::replace(&mut self.open, next));
        block
    }

    /// The builder that a compressed block belongs to.
    pub(super) fn compressed(&mut self, serial: u64, slot: usize, block: CompressedBlock) {
        let closed = self.closed.iter_mut();
        if let Some(builder) = closed.chain([&mut self.open]).find(|builder| builder.serial == serial) {
            builder.compressing -= 1;
            builder.compressed_octets += block.octets.len();
            builder.draft.recipes[slot] = block;
        }
    }

    /// A pack is durable; gives whether a commit waited for it.
    pub(super) fn durable(&mut self, pack: &PackId) -> bool {
        let mut waited = false;
        for builder in self.closed.iter_mut().chain([&mut self.open]) {
            waited |= builder.waits_for.remove(pack);
        }
        waited
    }

    /// The enumeration ended.
    pub(super) fn end(&mut self, end: End) {
        self.end = Some(end);
    }

    /// Whether the enumeration ended and everything was read; then [`conclude`](Self::conclude) is due.
    pub(super) fn can_conclude(&self) -> bool {
        self.end.is_some() && self.outstanding == 0
    }

    /// Takes in what could only be told at the end: what is gone, and the evidence of containers. True if the enumeration was complete.
    pub(super) fn conclude(&mut self) -> bool {
        let Some(mut end) = self.end.take() else { return false };
        self.is_concluded = true;
        if self.is_cut_short {
            end = End::default();
            self.folders_last.clear();
        }
        for mut folder in std::mem::take(&mut self.folders_last) {
            if self.folders_unproven.contains(&folder.path.raw) {
                folder.evidence = Evidence::NONE;
            }
            if self.folders.get(&folder.path.raw) != Some(&folder) {
                self.record_evidence(folder);
            }
        }
        if end.is_complete {
            self.open.changes.gone += end.stored;
            let first = self.open.draft.gone.len();
            self.open.draft.gone.extend(end.gone);
            self.open.unseen = (first..self.open.draft.gone.len(), end.stored);
            let gone: Vec<Folder> =
                self.folders.values().filter(|folder| !self.folders_seen.contains(&folder.path.raw)).cloned().collect();
            gone.into_iter().for_each(|folder| self.record_folder(folder, true));
            self.open.draft.complete = true;
        }
        end.is_complete
    }

    /// Messages that were enumerated will not be read: whatever the enumeration still tells, no container of this mailbox is proven, and
    /// nothing is known to be gone.
    pub(super) fn cut_short(&mut self) {
        self.is_cut_short = true;
    }

    /// The folders that the source has, as far as it told.
    pub(super) fn folders_there(&self) -> Vec<Folder> {
        self.folders.values().filter(|folder| self.folders_seen.contains(&folder.path.raw)).cloned().collect()
    }

    /// Messages that were read will not be committed: no container of this mailbox is proven, and nothing is known to be gone. The folders that were to be
    /// named with them are named by the next commit.
    pub(super) fn lose(&mut self, folders: Vec<FolderRecord>) {
        self.cut_short();
        for builder in self.closed.iter_mut().chain([&mut self.open]) {
            let (unseen, stored) = std::mem::take(&mut builder.unseen);
            builder.draft.gone.drain(unseen);
            builder.changes.gone -= stored;
            builder.draft.folders.retain(|record| !record.gone);
            builder.draft.folders.iter_mut().for_each(|record| record.folder.evidence = Evidence::NONE);
            builder.draft.complete = false;
        }
        // If no commit follows, they wait for the next run with their messages.
        let open = (!self.is_concluded).then_some(&mut self.open);
        let Some(next) = self.closed.front_mut().or(open) else { return };
        for FolderRecord { mut folder, gone, .. } in folders {
            let is_named = next.draft.folders.iter().any(|record| record.folder.path.raw == folder.path.raw);
            if !gone && !is_named {
                folder.evidence = Evidence::NONE;
                let source = next.draft.source(self.source.0, &self.source.1);
                next.draft.folders.insert(0, FolderRecord { folder, source, gone });
            }
        }
    }

    /// Whether everything that it was given is committed.
    pub(super) fn is_idle(&self) -> bool {
        self.outstanding == 0
            && !self.is_committing
            && self.closed.is_empty()
            && self.open.draft.is_empty()
            && self.open.is_settled()
    }

    /// Whether nothing of this mailbox is open or under way.
    pub(super) fn is_finished(&self) -> bool {
        self.is_concluded && self.is_idle()
    }
}

impl Builder {
    /// Whether no message waits for this commit.
    fn is_settled(&self) -> bool {
        self.stored == 0 && self.unchanged == 0 && self.quarantined.is_empty() && self.outcomes.is_empty()
    }

    fn take_recipes(&mut self) -> Option<RecipeBlock> {
        if self.recipes.is_empty() {
            return None;
        }
        let slot = self.draft.recipes.len();
        self.draft.recipes.push(CompressedBlock::default());
        self.compressing += 1;
        Some(RecipeBlock { serial: self.serial, slot, recipes: std::mem::take(&mut self.recipes) })
    }

    /// Whether it can be committed.
    pub(super) fn is_ready(&self) -> bool {
        (self.waits_for.is_empty() || cfg!(planted = "commit_before_pack")) && self.compressing == 0
    }
}

impl Outcome {
    /// An outcome for messages that were not read.
    pub(super) fn unchanged(mailbox: &Arc<MailboxName>, folder: Bytes, identity: Identity, messages: u64) -> Self {
        Self { mailbox: Arc::clone(mailbox), folder, identity, settled: Settled::Unchanged { messages } }
    }
}
