//! Checking a repository: that everything its journals name exists, and on request that every octet is what was written.

use crate::error::{Error, ErrorKind, Result};
use crate::ledger::describe;
use crate::message::MailboxName;
use crate::pack::{PackId, PackReader};
use crate::repository::{Journal, JournalHead, JournalName, Repository, RunRecord, check_segment};
use crate::resources::Resources;
use crate::restore::{Failure, Restore};
use crate::runtime;
use crate::sink::DryRun;
use futures::{StreamExt, TryStreamExt, stream};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
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
    /// Packs that no commit points at: of runs that were cut off. They cost space, nothing else.
    pub orphans: u64,
    /// Blobs that commits point at.
    pub blobs: u64,
    /// Index segments and run records that were read.
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

/// The packs in a store, and what is asked of them.
#[derive(Default)]
struct Packs {
    lengths: HashMap<PackId, u64>,
    wanted: HashSet<PackId>,
    /// Those that were not listed and were looked for.
    missing: HashSet<PackId>,
}

impl Check {
    pub(crate) fn new(repository: Repository, resources: Resources) -> Self {
        Self { repository, resources, read_data: false }
    }

    /// Reads every pack, verifies every blob in it, and rebuilds every message.
    #[must_use]
    pub fn read_data(mut self, read_data: bool) -> Self {
        self.read_data = read_data;
        self
    }

    /// Checks.
    ///
    /// # Cancel safety
    /// Nothing is written.
    ///
    /// # Errors
    /// What the store reports of listings. Damage is in the report.
    pub async fn finish(self) -> Result<CheckReport> {
        let mut report = CheckReport { schema: 1, ..CheckReport::default() };
        let mut packs = Packs::default();
        let mut listing = self.repository.store().list("packs/");
        while let Some(object) = listing.try_next().await? {
            match PackId::from_key(&object.key) {
                Some(pack) => drop(packs.lengths.insert(pack, object.length)),
                None => report.damage(object.key, &Error::damaged("this is no pack's name")),
            }
        }
        let mut heads = BTreeMap::new();
        for name in self.repository.journals().await? {
            self.journal(name, &mut packs, &mut heads, &mut report).await;
        }
        report.packs = packs.lengths.len() as u64;
        report.orphans = packs.lengths.keys().filter(|pack| !packs.wanted.contains(pack)).count() as u64;
        self.runs(&heads, &mut report).await?;
        self.segments(&mut report).await?;
        if self.read_data {
            self.data(&packs, &mut report).await?;
        }
        report.damaged.sort_unstable();
        report.damaged.dedup();
        report.touched.sort_by(|a, b| (&a.mailbox, &a.folder, &a.message).cmp(&(&b.mailbox, &b.folder, &b.message)));
        Ok(report)
    }

    async fn journal(
        &self,
        name: JournalName,
        packs: &mut Packs,
        heads: &mut BTreeMap<MailboxName, Vec<crate::digest::Digest>>,
        report: &mut CheckReport,
    ) {
        report.mailboxes += 1;
        let loaded = async {
            let mailbox = name.mailbox(&self.repository).await?;
            Journal::load_all(&self.repository, &mailbox).await
        };
        let journal = match loaded.await {
            Ok(journal) => journal,
            Err(error) => return report.damage(name.commit(0), &error),
        };
        heads.insert(journal.mailbox.clone(), journal.commits.iter().map(|commit| commit.digest).collect());
        for commit in &journal.commits {
            report.commits += 1;
            if let Err(error) = self.commit(&journal, commit, packs, report).await {
                report.damage(journal.name.commit(commit.sequence), &error);
                report.touch_commit(&journal, commit, &error);
            }
        }
    }

    /// Checks that what a commit names exists.
    async fn commit(
        &self,
        journal: &Journal,
        commit: &crate::repository::CommitRef,
        packs: &mut Packs,
        report: &mut CheckReport,
    ) -> Result<()> {
        let mut contents = journal.contents(&self.repository, commit).await?;
        let blobs = contents.blobs(&self.repository).await?;
        report.blobs += blobs.len() as u64;
        for row in &blobs {
            packs.wanted.insert(row.at.pack);
            self.look_again(row.at.pack, packs).await?;
        }
        let mut lost = BTreeMap::new();
        for (number, row) in blobs.iter().enumerate() {
            let end = row.at.offset.saturating_add(u64::from(row.at.stored));
            let reason = match packs.lengths.get(&row.at.pack) {
                None => "the pack is missing",
                Some(length) if *length < end => "the pack is too short",
                Some(_) => continue,
            };
            lost.insert(number as u32, (row.at.pack, reason));
        }
        for (pack, reason) in lost.values().copied().collect::<BTreeSet<_>>() {
            report.damage(pack.key(), &Error::damaged(reason));
        }
        for row in contents.rows(&self.repository).await?.into_iter().flatten() {
            let row = row?;
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

    /// Checks that run records open, and that no journal is shorter or other than a run left it.
    async fn runs(
        &self,
        heads: &BTreeMap<MailboxName, Vec<crate::digest::Digest>>,
        report: &mut CheckReport,
    ) -> Result<()> {
        let mut listing = self.repository.store().list("runs/");
        while let Some(object) = listing.try_next().await? {
            let octets = self.repository.store().read(&object.key, None).await;
            match octets.and_then(|octets| RunRecord::open(&self.repository, &object.key, &octets)) {
                Err(error) => report.damage(object.key, &error),
                Ok(record) => {
                    report.derived += 1;
                    for head in record.heads {
                        let digests = heads.get(&head.mailbox);
                        let is_read =
                            digests.and_then(|digests| digests.get(head.sequence as usize)) == Some(&head.digest);
                        if !is_read && !self.is_there_now(&head).await {
                            let error = Error::damaged(format!(
                                "commit {}, which a run recorded, is missing or another",
                                head.sequence
                            ));
                            report.damage(
                                JournalName::new(&self.repository, &head.mailbox).commit(head.sequence),
                                &error,
                            );
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether a journal that was read before the run recorded its end has the commit by now.
    async fn is_there_now(&self, head: &JournalHead) -> bool {
        let journal = Journal::load_all(&self.repository, &head.mailbox).await;
        journal.is_ok_and(|journal| {
            let commit = journal.commits.get(head.sequence as usize);
            commit.is_some_and(|commit| commit.digest == head.digest)
        })
    }

    async fn segments(&self, report: &mut CheckReport) -> Result<()> {
        let mut listing = self.repository.store().list("index/");
        while let Some(object) = listing.try_next().await? {
            match check_segment(&self.repository, &object).await {
                Ok(()) => report.derived += 1,
                Err(error) => report.damage(object.key, &error),
            }
        }
        Ok(())
    }

    /// Reads every pack, and rebuilds every message.
    async fn data(&self, packs: &Packs, report: &mut CheckReport) -> Result<()> {
        let mut ids: Vec<(PackId, u64)> = packs.lengths.iter().map(|(pack, length)| (*pack, *length)).collect();
        ids.sort_unstable();
        let reads = stream::iter(ids).map(|(pack, length)| self.pack(pack, length));
        let mut reads = reads.buffer_unordered(self.resources.executor().parallelism());
        while let Some((pack, length, damages)) = reads.next().await {
            report.bytes_read += length;
            damages.iter().for_each(|error| report.damage(pack.key(), error));
        }
        let rebuild = Restore::new(self.repository.clone(), self.resources.clone(), Arc::new(DryRun::new()));
        let rebuilt = rebuild.everything().finish().await?;
        report.rebuilt = rebuilt.restored;
        report.bytes_read += rebuilt.bytes_read;
        for failure in rebuilt.failures {
            report.touch(failure);
        }
        Ok(())
    }

    async fn pack(&self, pack: PackId, length: u64) -> (PackId, u64, Vec<Error>) {
        let _permit = self.resources.budget().acquire(length).await;
        let octets = match self.repository.store().read(&pack.key(), None).await {
            Ok(octets) => octets,
            Err(error) => return (pack, 0, vec![error]),
        };
        let (secrets, domain) = (self.repository.secrets().clone(), self.repository.domain().clone());
        let verified = runtime::run(&**self.resources.executor(), move || {
            let mut damages = Vec::new();
            // The store's octets are ours alone here, so opening them in place copies nothing.
            let mut octets = octets.try_into_mut().unwrap_or_else(|shared| shared.as_ref().into());
            let whole = PackReader::new(pack, &secrets, &octets).and_then(|reader| {
                reader.verify(&mut octets, &domain, |row, outcome| {
                    let at = || format!("the blob at {}..{}", row.at.offset, row.at.offset + u64::from(row.at.stored));
                    damages.extend(outcome.err().map(|error| Error::damaged(at()).because(error)));
                })
            });
            damages.extend(whole.err());
            damages
        });
        (pack, length, verified.await.unwrap_or_else(|error| vec![error]))
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
        self.messages_touched += 1;
        if self.touched.len() < NAMED_MAX {
            self.touched.push(failure);
        }
    }

    /// The messages of a commit that cannot be read have no names any more, only ordinals.
    fn touch_commit(&mut self, journal: &Journal, commit: &crate::repository::CommitRef, error: &Error) {
        if error.kind() != ErrorKind::Damaged || commit.rows == 0 {
            return;
        }
        let mut failure = Failure::of(&journal.mailbox, None, error);
        failure.message =
            format!("messages {} to {}", commit.first_ordinal, commit.first_ordinal + u64::from(commit.rows) - 1);
        self.messages_touched += u64::from(commit.rows) - 1;
        self.touch(failure);
    }
}

fn hash(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}
