//! Repairing marks and run records, and naming what is lost of journals.

use super::Repairing;
use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result};
use crate::message::MailboxName;
use crate::repository::{
    APPROVAL_OCTETS_MAX, APPROVALS, Approval, BAD, BAD_OCTETS_MAX, BadMark, Heads, Journal, JournalHead, LostCommit,
    NamedJournals, RUN_OCTETS_MAX, RUNS, RunRecord, is_there_now, mark_bad_anew, marked, named_journals,
    replace_run_record,
};
use crate::restore::Failure;
use futures::TryStreamExt;
use std::collections::{BTreeMap, BTreeSet};

/// The commits of journals that can be read, by sequence.
type Commits = BTreeMap<MailboxName, Heads>;

impl Repairing {
    /// Writes marks and run records anew that do not open, names what is lost of journals, and ends the repair.
    pub(super) async fn records(&mut self) -> Result<()> {
        self.marks().await?;
        self.approvals().await?;
        let commits = self.journals().await?;
        let heads = self.runs(&commits).await?;
        self.close(heads).await
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
            let octets = self.repository.read_small(&key, BAD_OCTETS_MAX).await;
            match octets.and_then(|octets| BadMark::open(&self.repository, &key, &octets)) {
                // A sweep deleted it with its pack since it was listed.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) if error.is_loss() => {
                    mark_bad_anew(&self.repository, pack, "the mark itself was damaged").await?;
                    self.report.replaced.push(key);
                }
                opened => drop(opened?),
            }
        }
        Ok(())
    }

    /// Drops approvals that do not open: their runs are to be approved again.
    async fn approvals(&mut self) -> Result<()> {
        let store = self.repository.store();
        let mut damaged = Vec::new();
        let mut listing = store.list(APPROVALS);
        while let Some(object) = listing.try_next().await? {
            let octets = self.repository.read_small(&object.key, APPROVAL_OCTETS_MAX).await;
            match octets.and_then(|octets| Approval::open(&self.repository, &object.key, &octets)) {
                Err(error) if error.is_loss() => damaged.push(object.key),
                opened => drop(opened?),
            }
        }
        drop(listing);
        for key in damaged {
            store.delete(&key).await?;
            self.report.replaced.push(key);
        }
        Ok(())
    }

    /// Reads all journals, and names what of them cannot be read.
    async fn journals(&mut self) -> Result<Commits> {
        let mut commits = Commits::new();
        let NamedJournals { named, unnamed } = named_journals(&self.repository).await?;
        for (name, error) in unnamed {
            self.report.lose_journal(&MailboxName::new(name.commit(0)), &error);
        }
        for (_, mailbox) in named {
            let (journal, failure) = match Journal::load_all(&self.repository, &mailbox, None).await {
                Ok(journal) => (journal, None),
                Err(error) if error.is_loss() => {
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
            commits.insert(mailbox, Heads::of(&journal));
        }
        Ok(commits)
    }

    /// Names the commits whose messages do not read; true if there are any.
    async fn commits(&mut self, journal: &Journal) -> Result<bool> {
        let mut is_any = false;
        for commit in journal.commits.iter().filter(|commit| !commit.forgotten) {
            let read = async {
                let mut contents = journal.contents(&self.repository, commit).await?;
                for row in contents.rows(&self.repository).await?.into_iter().flatten() {
                    row?;
                }
                contents.blobs(&self.repository).await?;
                contents.verify_recipes(&self.repository).await
            };
            match read.await {
                Err(error) if error.is_loss() => {
                    let lost = LostCommit::of(commit, error);
                    self.report.lose(Failure::of_commit(&journal.mailbox, &lost), lost.messages());
                    is_any = true;
                }
                read => read?,
            }
        }
        Ok(is_any)
    }

    /// Sees to it that run records open, that none names a commit that a journal which reads does not have (it has been said once), and that every journal's end is named by one:
    /// gives the ends that a new record should name, if one should.
    ///
    /// No record is deleted, for then its number could be taken again: docs/decisions/0003-trust.md, "Forgetting and sweeping".
    async fn runs(&mut self, commits: &Commits) -> Result<Option<Vec<JournalHead>>> {
        let store = self.repository.store();
        let mut keys = Vec::new();
        let mut listing = store.list(RUNS);
        while let Some(object) = listing.try_next().await? {
            keys.push(object.key);
        }
        drop(listing);
        let mut unnamed: BTreeMap<&MailboxName, BTreeMap<u64, Digest>> =
            commits.iter().map(|(mailbox, heads)| (mailbox, heads.digests.clone())).collect();
        let (mut is_any_lost, mut unreadable) = (false, BTreeSet::new());
        for key in keys {
            let octets = match self.repository.read_small(&key, RUN_OCTETS_MAX).await {
                // A sweep deleted it since it was listed.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                octets => octets,
            };
            let mut record = match octets.and_then(|octets| RunRecord::open(&self.repository, &key, &octets)) {
                Ok(record) => record,
                Err(error) if error.is_loss() => {
                    let lost = RunRecord::Lost { written: self.repository.now() };
                    replace_run_record(&self.repository, &key, &lost).await?;
                    self.report.replaced.push(key);
                    is_any_lost = true;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let (RunRecord::Ended(ended) | RunRecord::Noted(ended)) = &mut record else { continue };
            let (mut there, mut absent) = (Vec::new(), Vec::new());
            for head in std::mem::take(&mut ended.heads) {
                let agrees = commits.get(&head.mailbox).is_some_and(|heads| heads.agree(&head));
                let is_kept = agrees || self.is_kept(&head, &mut unreadable).await?;
                if is_kept { there.push(head) } else { absent.push(head) }
            }
            for head in &there {
                if let Some(digests) = unnamed.get_mut(&head.mailbox) {
                    digests.retain(|at, _| *at > head.sequence);
                }
            }
            ended.heads = there;
            for head in &absent {
                let what = format!("commit {}, which a run recorded, is missing or another", head.sequence);
                self.report.lose_journal(&head.mailbox, &Error::damaged(what));
            }
            if !absent.is_empty() {
                replace_run_record(&self.repository, &key, &record).await?;
                self.report.records_written += 1;
                self.report.replaced.push(key);
            }
        }
        let is_named = unnamed.values().all(BTreeMap::is_empty);
        let head = |(mailbox, heads): (&MailboxName, &Heads)| {
            let (sequence, digest) = heads.digests.last_key_value()?;
            Some(JournalHead { mailbox: mailbox.clone(), sequence: *sequence, digest: *digest })
        };
        Ok((!is_named || is_any_lost).then(|| commits.iter().filter_map(head).collect()))
    }

    /// Whether a record goes on naming a commit that was not in its journal when that was read: because it is there by now; or because the journal does not
    /// read, and this may be the last to say whose it is.
    async fn is_kept(&self, head: &JournalHead, unreadable: &mut BTreeSet<MailboxName>) -> Result<bool> {
        if unreadable.contains(&head.mailbox) {
            return Ok(true);
        }
        match is_there_now(&self.repository, head).await {
            Err(error) if error.is_loss() => Ok(unreadable.insert(head.mailbox.clone())),
            is_there => is_there,
        }
    }
}
