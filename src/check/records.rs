//! Checking what is no mail: run records, sweeps, approvals, key slots, index segments, marks and moves.

use super::packs::Packs;
use super::{Check, CheckReport};
use crate::error::{Error, ErrorKind, Result};
use crate::message::MailboxName;
use crate::pack::PackId;
use crate::repository::{
    APPROVAL_OCTETS_MAX, APPROVALS, Approval, BAD, BAD_OCTETS_MAX, BadMark, Heads, INDEX, JournalHead, JournalName,
    MOVES, RUN_OCTETS_MAX, RUNS, RunRecord, SWEEP_OCTETS_MAX, SWEEPS, SlotKind, check_moves, check_segment,
    check_sweep, is_there_now, marked,
};
use futures::TryStreamExt;
use std::collections::{BTreeMap, HashSet};

impl Check {
    /// Checks everything that is no mail.
    pub(super) async fn records(
        &self,
        heads: &BTreeMap<MailboxName, Heads>,
        packs: &mut Packs,
        report: &mut CheckReport,
    ) -> Result<()> {
        self.slots(report).await?;
        self.runs(heads, report).await?;
        self.each((SWEEPS, SWEEP_OCTETS_MAX), report, |key, octets| check_sweep(&self.repository, key, octets)).await?;
        self.each((APPROVALS, APPROVAL_OCTETS_MAX), report, |key, octets| {
            Approval::open(&self.repository, key, octets).map(drop)
        })
        .await?;
        self.segments(report).await?;
        self.marks(report).await?;
        self.moves(packs, report).await
    }

    /// Checks that key slots say what they are for; only their own keys can tell whether they open.
    async fn slots(&self, report: &mut CheckReport) -> Result<()> {
        if self.repository.secrets().master.is_none() {
            return Ok(());
        }
        for slot in self.repository.keys().list().await? {
            if slot.kind == SlotKind::Unreadable {
                // Damaged, or left behind by two who created the repository at once: then it opens nothing, and never did.
                report
                    .notes
                    .push(format!("'{}' does not say what it is for: if it is damaged, add another", slot.id.object()));
            }
        }
        Ok(())
    }

    /// Checks objects one after the other. One that is gone since it was listed went with a sweep.
    async fn each(
        &self,
        (prefix, octets_max): (&str, u64),
        report: &mut CheckReport,
        check: impl Fn(&str, &[u8]) -> Result<()> + Send,
    ) -> Result<()> {
        let mut listing = self.repository.store().list(prefix);
        while let Some(object) = listing.try_next().await? {
            let octets = self.repository.read_small(&object.key, octets_max).await;
            match octets.and_then(|octets| check(&object.key, &octets)) {
                Ok(()) => report.derived += 1,
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => report.damage(object.key, &error),
            }
        }
        Ok(())
    }

    /// Checks that run records open, and that no journal is shorter or other than a run left it.
    async fn runs(&self, heads: &BTreeMap<MailboxName, Heads>, report: &mut CheckReport) -> Result<()> {
        let mut listing = self.repository.store().list(RUNS);
        while let Some(object) = listing.try_next().await? {
            let octets = self.repository.read_small(&object.key, RUN_OCTETS_MAX).await;
            match octets.and_then(|octets| RunRecord::open(&self.repository, &object.key, &octets)) {
                // A sweep deleted it since it was listed.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Ok(RunRecord::Active(_) | RunRecord::Fence { .. } | RunRecord::Lost { .. }) => report.derived += 1,
                Ok(RunRecord::Ended(record) | RunRecord::Noted(record)) => {
                    report.derived += 1;
                    for head in &record.heads {
                        self.head(head, heads, report).await;
                    }
                }
                Err(error) => report.damage(object.key, &error),
            }
        }
        Ok(())
    }

    /// Checks that the commit with which a run left a journal is still where it was.
    async fn head(&self, head: &JournalHead, heads: &BTreeMap<MailboxName, Heads>, report: &mut CheckReport) {
        let agrees = heads.get(&head.mailbox).is_some_and(|heads| heads.agree(head));
        // The journal may have been read before the run recorded its end.
        if !agrees && !is_there_now(&self.repository, head).await.is_ok_and(|is_there| is_there) {
            let what = format!("commit {}, which a run recorded, is missing or another", head.sequence);
            let journal = JournalName::new(&self.repository, &head.mailbox);
            report.damage(journal.commit(head.sequence), &Error::damaged(what));
        }
    }

    async fn segments(&self, report: &mut CheckReport) -> Result<()> {
        let mut listing = self.repository.store().list(INDEX);
        while let Some(object) = listing.try_next().await? {
            match check_segment(&self.repository, &object).await {
                Ok(()) => report.derived += 1,
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => report.damage(object.key, &error),
            }
        }
        Ok(())
    }

    /// Checks that marks open.
    async fn marks(&self, report: &mut CheckReport) -> Result<()> {
        let opens = |key: &str, octets: &[u8]| match marked(key) {
            Some(_) => BadMark::open(&self.repository, key, octets).map(drop),
            None => Err(Error::damaged("this is no mark's name")),
        };
        self.each((BAD, BAD_OCTETS_MAX), report, opens).await
    }

    /// Checks that moves open, and notes where they lead.
    async fn moves(&self, packs: &mut Packs, report: &mut CheckReport) -> Result<()> {
        let store = self.repository.store();
        let mut leads: HashSet<(PackId, PackId)> = HashSet::new();
        let mut listing = store.list(MOVES);
        while let Some(object) = listing.try_next().await? {
            match check_moves(&self.repository, &object).await {
                Ok((pack, moves)) => {
                    report.derived += 1;
                    leads.extend(moves.iter().map(|one| (pack, one.to.at.pack)));
                }
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => report.damage(object.key, &error),
            }
        }
        // What was moved may have been moved on.
        let mut is_more = true;
        while is_more {
            is_more = false;
            for (from, to) in &leads {
                is_more |= packs.wanted.contains(from) && packs.wanted.insert(*to);
            }
        }
        Ok(())
    }
}
