//! Repairing marks and run records, and naming what is lost of journals.

use super::{Repairing, is_damage};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::message::MailboxName;
use crate::repository::{
    BAD, BadMark, Journal, JournalHead, LostCommit, RunRecord, RunWriter, mark_bad, marked, unmark_bad,
};
use crate::restore::Failure;
use futures::TryStreamExt;
use std::collections::BTreeMap;

/// The commits of journals that can be read, by sequence.
type Commits = BTreeMap<MailboxName, BTreeMap<u64, Digest>>;

impl Repairing {
    /// Writes marks and run records anew that do not open, and names what is lost of journals.
    pub(super) async fn records(&mut self) -> Result<()> {
        self.marks().await?;
        let commits = self.journals().await?;
        self.runs(&commits).await
    }

    async fn marks(&mut self) -> Result<()> {
        let store = self.repository.store();
        let mut keys = Vec::new();
        let mut listing = store.list(BAD);
        while let Some(object) = listing.try_next().await? {
            keys.push(object.key);
        }
        drop(listing);
        for key in keys {
            let Some(pack) = marked(&key) else { continue };
            let octets = store.read(&key, None).await;
            match octets.and_then(|octets| BadMark::open(&self.repository, &key, &octets)) {
                Err(error) if is_damage(&error) => {
                    // For a moment the pack is unmarked: a writer may trust it then, and be told by the next check.
                    unmark_bad(&self.repository, pack).await?;
                    mark_bad(&self.repository, pack, "the mark itself was damaged").await?;
                    self.report.replaced.push(key);
                }
                opened => drop(opened?),
            }
        }
        Ok(())
    }

    /// Reads all journals, and names what of them cannot be read.
    async fn journals(&mut self) -> Result<Commits> {
        let mut commits = Commits::new();
        for name in self.repository.journals().await? {
            let mailbox = match name.mailbox(&self.repository).await {
                Ok(mailbox) => mailbox,
                Err(error) if is_damage(&error) => {
                    self.report.lose_journal(&MailboxName::new(name.commit(0)), &error);
                    continue;
                }
                Err(error) => return Err(error),
            };
            let (journal, failure) = match Journal::load_all(&self.repository, &mailbox).await {
                Ok(journal) => (journal, None),
                Err(error) if is_damage(&error) => {
                    let (journal, lost) = Journal::salvage(&self.repository, &mailbox, None).await?;
                    for lost in &lost {
                        self.report.lose(Failure::of_commit(&mailbox, lost), lost.messages());
                    }
                    (journal, lost.is_empty().then_some(error))
                }
                Err(error) => return Err(error),
            };
            let is_named = self.commits(&journal).await?;
            if let Some(error) = failure.filter(|_| !is_named) {
                self.report.lose_journal(&mailbox, &error);
            }
            let digests = journal.commits.iter().map(|commit| (commit.sequence, commit.digest)).collect();
            commits.insert(mailbox, digests);
        }
        Ok(commits)
    }

    /// Names the commits whose messages do not read; true if there are any.
    async fn commits(&mut self, journal: &Journal) -> Result<bool> {
        let mut is_any = false;
        for commit in &journal.commits {
            let read = async {
                let mut contents = journal.contents(&self.repository, commit).await?;
                for row in contents.rows(&self.repository).await?.into_iter().flatten() {
                    row?;
                }
                contents.blobs(&self.repository).await?;
                contents.verify_recipes(&self.repository).await
            };
            match read.await {
                Err(error) if is_damage(&error) => {
                    let lost = LostCommit::of(commit, error);
                    self.report.lose(Failure::of_commit(&journal.mailbox, &lost), lost.messages());
                    is_any = true;
                }
                read => read?,
            }
        }
        Ok(is_any)
    }

    /// Sees to it that run records open, that none names a commit that is not there (it has been said once), and that every journal's end is named by one.
    async fn runs(&mut self, commits: &Commits) -> Result<()> {
        let store = self.repository.store();
        let mut keys = Vec::new();
        let mut listing = store.list("runs/");
        while let Some(object) = listing.try_next().await? {
            keys.push(object.key);
        }
        drop(listing);
        let mut unnamed = commits.clone();
        let mut replaced = Vec::new();
        let writer = RunWriter::new(self.repository.clone());
        for key in keys {
            let octets = store.read(&key, None).await;
            let mut record = match octets.and_then(|octets| RunRecord::open(&self.repository, &key, &octets)) {
                Ok(record) => record,
                Err(error) if is_damage(&error) => {
                    replaced.push(key);
                    continue;
                }
                Err(error) => return Err(error),
            };
            let is_there = |head: &JournalHead| {
                commits.get(&head.mailbox).and_then(|digests| digests.get(&head.sequence)) == Some(&head.digest)
            };
            let (there, absent): (Vec<_>, Vec<_>) = record.heads.into_iter().partition(is_there);
            for head in &there {
                unnamed.entry(head.mailbox.clone()).and_modify(|digests| digests.retain(|at, _| *at > head.sequence));
            }
            record.heads = there;
            for head in &absent {
                let what = format!("commit {}, which a run recorded, is missing or another", head.sequence);
                self.report.lose_journal(&head.mailbox, &Error::damaged(what));
            }
            if !absent.is_empty() && record.ended {
                writer.write(&record).await?;
                self.report.records_written += 1;
                replaced.push(key);
            }
        }
        let is_named = unnamed.values().all(BTreeMap::is_empty);
        if !is_named || !replaced.is_empty() {
            let now = self.repository.now();
            let head = |(mailbox, digests): (&MailboxName, &BTreeMap<u64, Digest>)| {
                let (sequence, digest) = digests.last_key_value()?;
                Some(JournalHead { mailbox: mailbox.clone(), sequence: *sequence, digest: *digest })
            };
            // It is no run, so it has not ended: it only says where journals end.
            let record = RunRecord {
                started: now,
                written: now,
                ended: false,
                ledger: crate::ledger::Ledger::default(),
                heads: commits.iter().filter_map(head).collect(),
            };
            writer.write(&record).await?;
            self.report.records_written += 1;
        }
        for key in replaced {
            store.delete(&key).await?;
            self.report.replaced.push(key);
        }
        Ok(())
    }
}
