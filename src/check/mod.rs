//! Checking a repository: that everything its journals name exists, and on request that every octet is what was written.

mod packs;
mod records;

use crate::error::{Error, ErrorKind, Result};
use crate::ledger::describe;
use crate::message::MailboxName;
use crate::pack::{PackId, PackReader};
use crate::repository::{
    AllCommits, CONFIG_COPY, CommitRef, Heads, Journal, JournalName, LostCommit, Repository, bad_packs, check_config,
    mark_bad, unless_lost,
};
use crate::resources::Resources;
use crate::restore::{Failure, Restore};
use crate::runtime;
use crate::sink::DryRun;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use packs::{Packs, Standing};
use std::collections::{BTreeMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

/// The most damages and touched messages that a report names; beyond it counts.
const NAMED_MAX: usize = 10_000;

/// A check to be. Nothing happens until [`finish`](Self::finish).
#[derive(Debug)]
pub struct Check {
    repository: Repository,
    resources: Resources,
    read_data: bool,
    mark_bad: bool,
}

/// What a check found.
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct CheckReport {
    /// The version of this report's shape.
    pub schema: u32,
    /// Mailboxes whose journals were read.
    pub mailboxes: u64,
    /// Commits that were read.
    pub commits: u64,
    /// Messages in them, also those that are gone by now.
    pub messages: u64,
    /// Packs in the store.
    pub packs: u64,
    /// Packs that no commit points at: of runs that were cut off, or what only forgotten messages needed. They cost space, until a sweep.
    pub orphans: u64,
    /// Blobs that commits point at.
    pub blobs: u64,
    /// Packs marked as damaged of which everything that is needed is elsewhere, too: no damage any more.
    pub healed: u64,
    /// Packs that are gone because everything that is needed of them is elsewhere: sweeps wrote it anew.
    pub moved: u64,
    /// Packs that this check marked as bad.
    pub marked: u64,
    /// What is worth knowing and no damage, as text.
    pub notes: Vec<String>,
    /// Index segments, run records, records of sweeps, approvals, marks and moves that were read.
    pub derived: u64,
    /// Messages that were rebuilt and verified; 0 unless data was read.
    pub rebuilt: u64,
    /// Octets read of packs.
    pub bytes_read: u64,
    /// How many damages there are.
    pub damages: u64,
    /// What is damaged, up to 10,000 entries, sorted.
    pub damaged: Vec<Damage>,
    /// How many messages are touched by damage.
    pub messages_touched: u64,
    /// The messages touched, up to 10,000 entries, sorted.
    pub touched: Vec<Failure>,
    /// Hashes of what was reported, so that nothing counts twice.
    #[cfg_attr(feature = "serde", serde(skip))]
    reported: HashSet<u64>,
}

/// Something that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Damage {
    /// The object's key.
    pub object: String,
    /// What is wrong with it.
    pub what: String,
}

impl Check {
    pub(crate) fn new(repository: Repository, resources: Resources) -> Self {
        Self { repository, resources, read_data: false, mark_bad: false }
    }

    /// Reads every pack, verifies every blob in it, and rebuilds every message.
    #[must_use]
    pub fn read_data(mut self, read_data: bool) -> Self {
        self.read_data = read_data;
        self
    }

    /// Marks packs that are damaged or missing, so that nothing new points at them: the next push of the same mail stores their content again.
    /// A mark that cannot be written is a note in the report.
    #[must_use]
    pub fn mark_bad(mut self, mark_bad: bool) -> Self {
        self.mark_bad = mark_bad;
        self
    }

    /// Checks.
    ///
    /// # Cancel safety
    /// Nothing is written, but for [marks](Self::mark_bad); each is there or not.
    ///
    /// # Errors
    /// What the store reports of listings; where data is read and a pack fails, also of commits. Damage is in the report; so is what else the store does not give, with its reason, and is not
    /// [marked](Self::mark_bad).
    pub fn finish(self) -> BoxFuture<'static, Result<CheckReport>> {
        self.check().boxed()
    }

    async fn check(self) -> Result<CheckReport> {
        let mut report = CheckReport { schema: 1, ..CheckReport::default() };
        for (key, error) in check_config(&self.repository).await? {
            if key == CONFIG_COPY && error.kind() == ErrorKind::NotFound {
                report.notes.push("the config has no copy: repair makes one".to_owned());
            } else {
                report.damage(key.to_owned(), &error);
            }
        }
        let mut packs = Packs::new(bad_packs(&self.repository).await?);
        let mut listing = self.repository.store().list("packs/");
        while let Some(object) = listing.try_next().await? {
            match PackId::from_key(&object.key) {
                Some(pack) => drop(packs.lengths.insert(pack, object.length)),
                None => report.damage(object.key, &Error::damaged("this is no pack's name")),
            }
        }
        let mut heads = BTreeMap::new();
        for name in self.repository.journals().await? {
            self.journal(name, &mut packs, &mut heads, &mut report).await?;
        }
        report.packs = packs.lengths.len() as u64;
        self.records(&heads, &mut packs, &mut report).await?;
        if self.read_data {
            self.data(&mut packs, &mut report).await?;
        } else {
            report.notes.extend(packs.untold());
        }
        report.orphans = packs.lengths.keys().filter(|pack| !packs.wanted.contains(pack)).count() as u64;
        self.judge(&packs, &mut report).await;
        report.damaged.sort_unstable();
        report.touched.sort_unstable();
        Ok(report)
    }

    /// Checks a journal. Damage is in the report.
    async fn journal(
        &self,
        name: JournalName,
        packs: &mut Packs,
        heads: &mut BTreeMap<MailboxName, Heads>,
        report: &mut CheckReport,
    ) -> Result<()> {
        report.mailboxes += 1;
        let mailbox = match name.mailbox(&self.repository).await {
            Ok(mailbox) => mailbox,
            Err(error) => {
                report.damage(name.commit(0), &error);
                return Ok(());
            }
        };
        let (journal, lost) = match Journal::load_all(&self.repository, &mailbox, None).await {
            Ok(journal) => (journal, Vec::new()),
            Err(error) => {
                let before = report.damages;
                let (journal, lost) = Journal::salvage(&self.repository, &mailbox, None).await?;
                for lost in &lost {
                    report.damage(name.commit(lost.sequence), &lost.error);
                    report.touch_commit(&mailbox, lost);
                }
                // A damaged commit that a checkpoint stands on is named below, where its messages are looked at.
                if report.damages == before {
                    report.damage(name.commit(0), &error);
                }
                (journal, lost)
            }
        };
        heads.insert(mailbox, Heads::of(&journal));
        for commit in journal.commits.iter().filter(|commit| !commit.forgotten) {
            report.commits += 1;
            if let Err(error) = self.commit(&journal, commit, packs, report).await {
                let is_known = lost.iter().any(|lost| lost.sequence == commit.sequence);
                if !is_known {
                    report.damage(journal.name.commit(commit.sequence), &error);
                }
                // Where data is read, rebuilding tells which of its messages are touched.
                if !self.read_data {
                    report.touch_commit(&journal.mailbox, &LostCommit::of(commit, error));
                }
            }
        }
        Ok(())
    }

    /// Checks that what a commit names exists.
    async fn commit(
        &self,
        journal: &Journal,
        commit: &CommitRef,
        packs: &mut Packs,
        report: &mut CheckReport,
    ) -> Result<()> {
        let mut contents = journal.contents(&self.repository, commit).await?;
        let blobs = contents.blobs(&self.repository).await?;
        let rows = contents.rows(&self.repository).await?.into_iter().flatten();
        let mut rows = rows.collect::<Result<Vec<_>>>()?;
        // Blobs of forgotten messages alone may be gone.
        let had_forgotten = rows.iter().any(|row| journal.is_forgotten(row.ordinal));
        rows.retain(|row| !journal.is_forgotten(row.ordinal));
        let needed: HashSet<u32> = rows.iter().flat_map(|row| row.pieces.iter().copied()).collect();
        let is_needed = |number: usize| !had_forgotten || needed.contains(&(number as u32));
        report.blobs += blobs.len() as u64;
        for (_, row) in blobs.iter().enumerate().filter(|(number, _)| is_needed(*number)) {
            packs.wanted.insert(row.at.pack);
            self.look_again(row.at.pack, packs).await?;
        }
        let mut lost = BTreeMap::new();
        for (number, row) in blobs.iter().enumerate().filter(|(number, _)| is_needed(*number)) {
            let Some(reason) = packs.lack(&row.at) else { continue };
            if !packs.failing.contains_key(&row.at.pack) {
                packs.fail(row.at.pack, None, Error::damaged(reason));
            }
            packs.need(&self.repository, &row.at).await?;
            if !packs.is_moved(&self.repository, &row.at).await? {
                lost.insert(number as u32, (row.at.pack, reason));
            }
        }
        for row in rows {
            report.messages += 1;
            if let Some((pack, reason)) = row.pieces.iter().find_map(|piece| lost.get(piece)) {
                let error = Error::damaged(format!("pack {pack}: {reason}"));
                report.touch(Failure::of(&journal.mailbox, Some(&row.envelope), &error));
            }
            if row.pieces.iter().any(|piece| *piece as usize >= blobs.len()) {
                let error = Error::damaged("it names a blob that its commit's table does not have");
                report.touch(Failure::of(&journal.mailbox, Some(&row.envelope), &error));
            }
        }
        contents.verify_recipes(&self.repository).await
    }

    /// A pack that was not listed may have been written since, by a writer beside this check.
    async fn look_again(&self, pack: PackId, packs: &mut Packs) -> Result<()> {
        if !packs.lengths.contains_key(&pack) && packs.missing.insert(pack) {
            let length = self.repository.store().length(&pack.key()).await?;
            packs.lengths.extend(length.map(|length| (pack, length)));
        }
        Ok(())
    }

    /// Reads every pack, and rebuilds every message.
    async fn data(&self, packs: &mut Packs, report: &mut CheckReport) -> Result<()> {
        let mut ids: Vec<(PackId, u64)> = packs.lengths.iter().map(|(pack, length)| (*pack, *length)).collect();
        ids.sort_unstable();
        {
            let reads = stream::iter(ids).map(|(pack, length)| self.pack(pack, length));
            let mut reads = reads.buffer_unordered(self.resources.executor().parallelism());
            while let Some((pack, length, damages)) = reads.next().await {
                report.bytes_read += length;
                for (offset, error) in damages {
                    if error.kind() == ErrorKind::NotFound {
                        // A sweep may have deleted it since it was listed: nobody needs it, or what is needed is elsewhere.
                        packs.lengths.remove(&pack);
                        packs.missing.insert(pack);
                    }
                    if error.kind() != ErrorKind::NotFound || packs.wanted.contains(&pack) {
                        packs.fail(pack, offset, error);
                    }
                }
            }
        }
        packs.forget_moves();
        if !packs.failing.is_empty() {
            let mut commits = AllCommits::of(&self.repository).await?;
            while let Some((_, mut contents)) = commits.next().await? {
                // A table that does not read has been reported.
                for row in unless_lost(contents.needed_blobs(&self.repository).await)? {
                    packs.need(&self.repository, &row.at).await?;
                }
            }
        }
        let rebuild = Restore::new(self.repository.clone(), self.resources.clone(), Arc::new(DryRun::new()));
        let rebuilt = rebuild.everything().finish().await?;
        report.rebuilt = rebuilt.restored;
        report.bytes_read += rebuilt.bytes_read;
        let named: u64 = rebuilt.failures.iter().map(|failure| failure.messages).sum();
        report.messages_touched += rebuilt.failed.saturating_sub(named);
        rebuilt.failures.into_iter().for_each(|failure| report.touch(failure));
        Ok(())
    }

    /// Tells packs that are damaged from those that are healed, and marks them.
    async fn judge(&self, packs: &Packs, report: &mut CheckReport) {
        // With another repository's config everything looks damaged.
        let is_blind = report.mailboxes > 0 && report.commits == 0;
        if self.mark_bad && is_blind && !packs.failing.is_empty() {
            report.notes.push("no commit opens, so no pack is marked: is the config another repository's?".to_owned());
        }
        for (pack, failing) in &packs.failing {
            match packs.standing(*pack, failing) {
                Standing::Healed => report.healed += 1,
                Standing::Moved => {
                    report.moved += 1;
                    continue;
                }
                Standing::Damaged => failing.errors.iter().for_each(|error| report.damage(pack.key(), error)),
            }
            if !self.mark_bad || is_blind || packs.marked.contains(pack) || !failing.is_damage() {
                continue;
            }
            self.resources.index().refuse(*pack);
            let reason = failing.errors.first().map(describe).unwrap_or_default();
            match mark_bad(&self.repository, *pack, &reason).await {
                Ok(()) => report.marked += 1,
                Err(error) => report.notes.push(format!("pack {pack} is not marked: {}", describe(&error))),
            }
        }
    }

    /// Verifies a pack, and gives what is wrong: with a frame, by its offset, or with all of it.
    async fn pack(&self, pack: PackId, length: u64) -> (PackId, u64, Vec<(Option<u64>, Error)>) {
        // The whole budget is never to be had: the index has its share for good.
        let needed = length.min(self.resources.budget().octets() / 2);
        let _permit = self.resources.budget().acquire(needed).await;
        let octets = match self.repository.read_pack(pack, length).await {
            Ok(octets) => octets,
            Err(error) => return (pack, 0, vec![(None, error)]),
        };
        let (secrets, domain) = (self.repository.secrets().clone(), self.repository.domain().clone());
        let verified = runtime::run(&**self.resources.executor(), move || {
            let mut damages = Vec::new();
            // The store's octets are ours alone here, so opening them in place copies nothing.
            let mut octets = octets.try_into_mut().unwrap_or_else(|shared| shared.as_ref().into());
            let whole = PackReader::new(pack, &secrets).and_then(|reader| {
                reader.verify(&mut octets, &domain, |row, outcome| {
                    let at = || format!("the blob at {}..{}", row.at.offset, row.at.end());
                    let damage = outcome.err().map(|error| Error::damaged(at()).because(error));
                    damages.extend(damage.map(|error| (Some(row.at.offset), error)));
                })
            });
            damages.extend(whole.err().map(|error| (None, error)));
            damages
        });
        (pack, length, verified.await.unwrap_or_else(|error| vec![(None, error)]))
    }
}

impl CheckReport {
    /// Whether nothing is damaged.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.damages == 0 && self.messages_touched == 0
    }

    fn damage(&mut self, object: String, error: &Error) {
        let damage = Damage { object, what: describe(error) };
        if !self.reported.insert(hash(&(&damage.object, &damage.what))) {
            return;
        }
        self.damages += 1;
        if self.damaged.len() < NAMED_MAX {
            self.damaged.push(damage);
        }
    }

    fn touch(&mut self, failure: Failure) {
        if !self.reported.insert(hash(&(&failure.mailbox, &failure.folder, &failure.message))) {
            return;
        }
        self.messages_touched += failure.messages;
        if self.touched.len() < NAMED_MAX {
            self.touched.push(failure);
        }
    }

    /// The messages of a commit that cannot be read have no names any more, only ordinals.
    fn touch_commit(&mut self, mailbox: &MailboxName, lost: &LostCommit) {
        if lost.error.is_loss() && lost.messages() > 0 {
            self.touch(Failure::of_commit(mailbox, lost));
        }
    }
}

fn hash(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}
