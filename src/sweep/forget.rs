//! Forgetting: a promise about the future. What is forgotten goes with the next sweep.

use crate::error::{Error, ErrorKind, Result};
use crate::ledger::Incomplete;
use crate::message::MailboxName;
use crate::repository::{
    CommitRef, Contest, Draft, Journal, JournalName, Place, Repository, carry, create_commit, only_named,
};
use futures::FutureExt;
use futures::future::BoxFuture;
use std::collections::HashSet;

/// A forgetting to be. Nothing happens until [`finish`](Self::finish).
///
/// Say which mailboxes, and either nothing more: then they are forgotten as a whole; or [`before`](Self::before) which time.
#[derive(Debug)]
pub struct Forget {
    repository: Repository,
    which: Which,
    before: Option<u64>,
}

#[derive(Debug)]
enum Which {
    Untold,
    All,
    These(Vec<MailboxName>),
}

/// What was forgotten.
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ForgetReport {
    /// The version of this report's shape.
    pub schema: u32,
    /// Mailboxes of which something was forgotten.
    pub mailboxes: u64,
    /// Mailboxes of which there was nothing to forget.
    pub untouched: u64,
    /// Messages that nobody can ask for any more.
    pub messages: u64,
    /// Of [all mailboxes](Forget::all_mailboxes), those of which nothing was forgotten because their journals are damaged.
    pub incomplete: Vec<Incomplete>,
}

impl Forget {
    pub(crate) fn new(repository: Repository) -> Self {
        Self { repository, which: Which::Untold, before: None }
    }

    /// These mailboxes.
    #[must_use]
    pub fn mailboxes(mut self, names: impl IntoIterator<Item = MailboxName>) -> Self {
        self.which = Which::These(names.into_iter().collect());
        self
    }

    /// All mailboxes.
    #[must_use]
    pub fn all_mailboxes(mut self) -> Self {
        self.which = Which::All;
        self
    }

    /// Not the mailboxes, but what they held before this time (nanoseconds since 1970) and no longer held then: messages that were gone, and
    /// the states themselves. What was there at that time, and whatever came later, can be asked for as before.
    #[must_use]
    pub fn before(mut self, nanoseconds: u64) -> Self {
        self.before = Some(nanoseconds);
        self
    }

    /// Forgets. Messages that a transfer pushes into a mailbox meanwhile may be forgotten with it, or stay.
    ///
    /// # Cancel safety
    /// Dropping the future leaves each mailbox as it was, or forgotten.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid) if it is not said which mailboxes; [`NotFound`](ErrorKind::NotFound) for one that is not there, before any is
    /// forgotten; damage of the journal of a mailbox that was named; [`Limit`](ErrorKind::Limit) for a mailbox of which more has changed than a checkpoint carries; what the store reports.
    pub fn finish(self) -> BoxFuture<'static, Result<ForgetReport>> {
        self.forget().boxed()
    }

    async fn forget(self) -> Result<ForgetReport> {
        let there = self.repository.find_mailboxes().await?;
        let mut report = ForgetReport { schema: 1, ..ForgetReport::default() };
        let is_all = matches!(self.which, Which::All);
        let names = match &self.which {
            Which::Untold => return Err(Error::invalid("say which mailboxes are to be forgotten")),
            Which::All => {
                let unreadable = there.unreadable.iter();
                report.incomplete.extend(unreadable.map(|one| Incomplete::new(one.name().to_string(), &one.error)));
                there.names
            }
            Which::These(names) => {
                if let Some(name) = names.iter().find(|name| !there.contains(&self.repository, name)) {
                    return Err(Error::new(ErrorKind::NotFound, format!("there is no mailbox '{name}'")));
                }
                names.clone()
            }
        };
        for name in names {
            match self.mailbox(&name).await {
                Ok(Some(messages)) => {
                    report.mailboxes += 1;
                    report.messages += messages;
                }
                Ok(None) => report.untouched += 1,
                // Of all, one that is damaged keeps no other from being forgotten.
                Err(error) if is_all && error.is_loss() => {
                    report.incomplete.push(Incomplete::new(name.to_string(), &error));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(report)
    }

    /// Forgets what is to be forgotten of a mailbox, and gives how many messages that are; `None` if there is nothing.
    async fn mailbox(&self, name: &MailboxName) -> Result<Option<u64>> {
        let (mut placed, mut contest) = (None, Contest::default());
        loop {
            // The present tells where the checkpoint goes; the past is what it carries.
            let journal = JournalName::new(&self.repository, name);
            let read = || async move {
                let now = Journal::load_all(&self.repository, name, None).await?;
                let checkpoint = if now.head().is_some() { self.checkpoint(&now).await? } else { None };
                Ok((now, checkpoint))
            };
            // Others may forget and sweep meanwhile.
            let (now, checkpoint) = Journal::patiently(&self.repository, journal, read).await?;
            let Some(head) = now.head().copied() else { return Ok(None) };
            // A sweep may have freed an older place, and the checkpoint gone there: then it is not in the journal.
            if let Some((sequence, messages)) = placed
                && now.forgotten >= Some(sequence)
            {
                return Ok(Some(messages));
            }
            let Some((draft, messages)) = checkpoint else { return Ok(None) };
            let place = Place {
                mailbox: name.clone(),
                sequence: head.sequence + 1,
                previous: Some(head.digest),
                writer: self.repository.new_token()?,
                time: self.repository.now().max(head.time + 1),
                first_ordinal: now.next_ordinal,
                checkpoint: None,
                forgotten: Some(head.sequence + 1),
                epoch: now.epoch,
                is_void: self.before.is_none(),
            };
            if create_commit(&self.repository, now.name, &draft, &place).await? {
                placed = Some((place.sequence, messages));
            } else {
                contest.lose(place.sequence)?;
            }
        }
    }

    /// A checkpoint of what is not to be forgotten, and how many messages it forgets; `None` if that is nothing.
    async fn checkpoint(&self, now: &Journal) -> Result<Option<(Draft, u64)>> {
        let Some(before) = self.before else {
            if now.is_void {
                return Ok(None);
            }
            let messages: u64 = now.commits.iter().map(|commit| u64::from(commit.rows)).sum();
            let head = now.head().copied().into_iter();
            let last = head.map(|head| CommitRef { first_ordinal: now.next_ordinal, ..only_named(head) });
            let draft = Draft { commits: last.collect(), ..Draft::default() };
            return Ok(Some((draft, messages - now.forgotten_messages().count() as u64)));
        };
        let past = Journal::load_all(&self.repository, &now.mailbox, Some(before)).await?;
        match past.head() {
            Some(last) if !now.is_forgotten_until(last.sequence) => {
                carry(&self.repository, &past, *last, &HashSet::new()).await.map(Some)
            }
            _ => Ok(None),
        }
    }
}
