//! Giving up commits that cannot be read: a checkpoint carries on what can.

use super::Repairing;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::message::MailboxName;
use crate::repository::{
    CommitRef, Contest, Draft, Journal, JournalName, LostCommit, Place, carry, create_commit, latest_sweep,
    named_journals,
};
use crate::restore::Failure;
use std::collections::HashSet;

/// How many messages a commit may have had that nobody can read. Their ordinals are not given again.
const ORDINALS: u64 = 1 << 20;

/// What can be read of a journal.
struct Readable {
    journal: Journal,
    /// Commits and parts of commits that cannot be read.
    losses: Vec<LostCommit>,
    /// Messages whose commits read, but not their recipes.
    lost: HashSet<u64>,
}

impl Repairing {
    /// Carries on what can be read of journals of which something cannot.
    pub(super) async fn give_up(&mut self) -> Result<()> {
        // Without a name no commit can be written: those that are unnamed are told as lost, and stay.
        for (name, mailbox) in named_journals(&self.repository).await?.named {
            let losses = self.carry_on(name, &mailbox).await?;
            self.report.given_up += u64::from(!losses.is_empty());
            for lost in losses {
                self.report.lose(Failure::of_commit(&mailbox, &lost), lost.messages());
            }
        }
        Ok(())
    }

    /// Ends a journal with a checkpoint of what can be read of it, and gives what cannot.
    async fn carry_on(&self, name: JournalName, mailbox: &MailboxName) -> Result<Vec<LostCommit>> {
        let mut contest = Contest::default();
        loop {
            // This order: what others commit while it is read takes the checkpoint's place.
            let last = name.sequences(&self.repository).await?.last().map(|(sequence, _)| *sequence);
            let Readable { journal, losses, lost } = self.readable(mailbox).await?;
            let (Some(last), false) = (last, losses.is_empty()) else { return Ok(losses) };
            let (draft, place) = self.checkpoint(journal, last, &lost).await?;
            if create_commit(&self.repository, name, &draft, &place).await? {
                return Ok(losses);
            }
            // Another, who saw no damage, has committed meanwhile.
            contest.lose(place.sequence)?;
        }
    }

    /// Reads all of a journal, and leaves out the commits that do not read.
    async fn readable(&self, mailbox: &MailboxName) -> Result<Readable> {
        let mut failure = None;
        let (mut journal, mut losses) = match Journal::load_all(&self.repository, mailbox, None).await {
            Err(error) if error.is_loss() => {
                failure = Some(error);
                Journal::salvage(&self.repository, mailbox, None).await?
            }
            journal => (journal?, Vec::new()),
        };
        let (mut lost, mut unreadable) = (HashSet::new(), HashSet::new());
        for commit in journal.commits.iter().filter(|commit| !commit.forgotten && commit.rows > 0) {
            match self.unreadable_of(&journal, commit).await {
                Ok(messages) if messages.is_empty() => {}
                Ok(messages) => {
                    losses.extend(messages.iter().map(|ordinal| LostCommit {
                        sequence: commit.sequence,
                        ordinals: *ordinal..ordinal + 1,
                        error: Error::damaged("the recipe cannot be read"),
                    }));
                    lost.extend(messages);
                }
                Err(error) if error.is_loss() => {
                    unreadable.insert(commit.sequence);
                    if !losses.iter().any(|lost| lost.sequence == commit.sequence) {
                        losses.push(LostCommit::of(commit, error));
                    }
                }
                Err(error) => return Err(error),
            }
        }
        if let Some(error) = failure.filter(|_| losses.is_empty()) {
            // Of a commit that a checkpoint stands on nothing is lost.
            losses.push(LostCommit { sequence: 0, ordinals: 0..0, error });
        }
        journal.commits.retain(|commit| !unreadable.contains(&commit.sequence));
        Ok(Readable { journal, losses, lost })
    }

    /// The messages of a commit whose recipes do not read.
    async fn unreadable_of(&self, journal: &Journal, commit: &CommitRef) -> Result<Vec<u64>> {
        let mut contents = journal.contents(&self.repository, commit).await?;
        contents.blobs(&self.repository).await?;
        let rows = contents.rows(&self.repository).await?.into_iter().flatten().collect::<Result<Vec<_>>>()?;
        let (mut broken, mut end) = (Vec::new(), 0);
        for (number, length) in contents.recipe_lengths().into_iter().enumerate() {
            let begin = end;
            end += u64::from(length);
            match contents.recipes(&self.repository, number).await {
                Err(error) if error.is_loss() => broken.push(begin..end),
                recipes => drop(recipes?),
            }
        }
        let mut at = 0;
        let recipe_of = |row: crate::repository::MessageRow| {
            let begin = at + u64::from(row.recipe.skip);
            at = begin + u64::from(row.recipe.length);
            (row.ordinal, begin..at)
        };
        let is_broken = |recipe: &std::ops::Range<u64>| {
            broken.iter().any(|block| recipe.start < block.end && block.start < recipe.end)
        };
        let recipes = rows.into_iter().map(recipe_of);
        Ok(recipes.filter(|(_, recipe)| is_broken(recipe)).map(|(ordinal, _)| ordinal).collect())
    }

    /// The checkpoint that goes behind the last commit, whether that reads or not.
    async fn checkpoint(&self, mut journal: Journal, last: u64, lost: &HashSet<u64>) -> Result<(Draft, Place)> {
        let head = journal.head().copied();
        let is_read = head.is_some_and(|head| head.sequence == last);
        if !is_read {
            journal.next_ordinal += ORDINALS;
        }
        // Folders that are known by their messages alone: the next push tells whose they are.
        let sources = journal.sources.len() as u32;
        journal.folders.retain(|_, _| sources > 0);
        journal.folders.values_mut().for_each(|folder| folder.source = folder.source.min(sources - 1));
        let time = head.map_or(0, |head| head.time);
        let base = head.filter(|_| is_read).unwrap_or(CommitRef {
            sequence: last,
            digest: Digest::new([0; 32]),
            time,
            first_ordinal: journal.next_ordinal,
            rows: 0,
            inlined: false,
            forgotten: true,
        });
        let (draft, _) = carry(&self.repository, &journal, base, lost).await?;
        let latest = latest_sweep(&self.repository).await?;
        let done = latest.epoch - u64::from(latest.is_open);
        let place = Place {
            mailbox: journal.mailbox.clone(),
            sequence: last + 1,
            previous: Some(base.digest),
            writer: self.repository.new_token()?,
            time: self.repository.now().max(time + 1),
            first_ordinal: journal.next_ordinal,
            checkpoint: None,
            forgotten: Some(last + 1),
            // It may stand behind a fence that does not read.
            epoch: journal.epoch.max(done),
            is_void: draft.commits.iter().all(|commit| commit.forgotten) && journal.folders.is_empty(),
        };
        Ok((draft, place))
    }
}
