//! Reading journals that are damaged: each commit on its own, as much of it as can be read.

use super::Repository;
use super::columns::MessageRow;
use super::commit::{CommitRef, FolderRecord, Head, Section, decode_commits};
use super::journal::{Base, Journal, JournalHead, JournalName, listed};
use super::opened::{Contents, Fetched};
use super::run::Heads;
use crate::error::{Error, ErrorKind, Result};
use crate::message::{Folder, FolderPath, MailboxName};
use std::collections::{BTreeSet, HashSet};
use std::ops::Range;
use std::sync::Arc;
use std::vec;

/// A commit, or a part of one, that cannot be read.
#[derive(Debug)]
pub(crate) struct LostCommit {
    pub(crate) sequence: u64,
    /// The ordinals of the messages that are lost with it. Empty if only changes to other messages are lost, or if it is not known.
    pub(crate) ordinals: Range<u64>,
    pub(crate) error: Error,
}

impl LostCommit {
    /// A commit whose messages cannot be read.
    pub(crate) fn of(commit: &CommitRef, error: Error) -> Self {
        let ordinals = commit.first_ordinal..commit.first_ordinal.saturating_add(u64::from(commit.rows));
        Self { sequence: commit.sequence, ordinals, error }
    }

    /// How many messages are lost with it.
    pub(crate) fn messages(&self) -> u64 {
        self.ordinals.end.saturating_sub(self.ordinals.start)
    }
}

impl Journal {
    /// As [`load`](Self::load), but a commit that is damaged or missing takes nothing else with it: what it changed is not applied, and it is told.
    /// The state begins with the newest checkpoint that reads.
    pub(crate) async fn salvage(
        repository: &Repository,
        mailbox: &MailboxName,
        at: Option<u64>,
    ) -> Result<(Self, Vec<LostCommit>)> {
        let name = JournalName::new(repository, mailbox);
        let listed = listed(repository, name).await?;
        let mut lost = Vec::new();
        let (mut journal, first) = begin(repository, name, mailbox, &listed, at, &mut lost).await?;
        let mut expected = first;
        for (sequence, length) in listed.into_iter().filter(|(sequence, _)| *sequence >= first) {
            if sequence > expected {
                let error = Error::damaged(format!("commits {expected} to {} are missing", sequence - 1));
                lost.push(LostCommit { sequence: expected, ordinals: 0..0, error });
            }
            expected = sequence + 1;
            match Fetched::open(repository, name, sequence, Some(length)).await {
                Ok(fetched) if at.is_some_and(|at| fetched.reader.head.time > at) => break,
                Ok(fetched) => journal.apply_readable(repository, fetched, &mut lost).await?,
                Err(error) => lost.push(LostCommit { sequence, ordinals: 0..0, error: damage(error)? }),
            }
        }
        journal.number(&mut lost);
        journal.adopt_folders(repository).await?;
        Ok((journal, lost))
    }

    /// Applies the sections that can be read.
    async fn apply_readable(
        &mut self,
        repository: &Repository,
        mut fetched: Fetched,
        lost: &mut Vec<LostCommit>,
    ) -> Result<()> {
        let head = &fetched.reader.head;
        let sequence = head.sequence;
        if head.is_forgetting() {
            // The state that it carries is an older one, and is known where it is met.
            self.append(&fetched);
            return Ok(());
        }
        let numbers = self.adopt_sources(&head.sources.clone());
        let results = [
            self.apply_folders(repository, &mut fetched, &numbers).await,
            self.apply_updates(repository, &mut fetched, &numbers).await,
            self.apply_gone(repository, &mut fetched).await,
        ];
        for error in results.into_iter().filter_map(Result::err) {
            lost.push(LostCommit { sequence, ordinals: 0..0, error: damage(error)? });
        }
        self.append(&fetched);
        Ok(())
    }

    /// Folders whose records are lost, but not the messages in them, are known by their raw names.
    async fn adopt_folders(&mut self, repository: &Repository) -> Result<()> {
        let mut raw_names = BTreeSet::new();
        for commit in &self.commits {
            let mut each = |row: MessageRow| {
                raw_names.insert(row.envelope.folder);
                Ok(())
            };
            // Who reads the messages will see that they do not read.
            self.living_of(repository, commit, &mut each).await.or_else(|error| damage(error).map(drop))?;
        }
        for raw in raw_names {
            let names = if raw.is_empty() { Vec::new() } else { vec![String::from_utf8_lossy(&raw).into_owned()] };
            let folder = Folder::new(FolderPath { names, raw: raw.clone() });
            self.folders.entry(raw).or_insert(FolderRecord { folder, source: u32::MAX, gone: false });
        }
        Ok(())
    }

    /// Which ordinals a commit had that cannot be read at all, is told by those around it.
    fn number(&self, lost: &mut [LostCommit]) {
        let mut told = 0;
        for lost in lost {
            let behind = self.commits.partition_point(|commit| commit.sequence < lost.sequence);
            let is_readable = self.commits.get(behind).is_some_and(|commit| commit.sequence == lost.sequence);
            let Some(next) = self.commits.get(behind).filter(|_| !is_readable) else { continue };
            let before = behind.checked_sub(1).map(|before| self.commits[before]);
            let start = before.map_or(0, |before| before.first_ordinal + u64::from(before.rows)).max(told);
            lost.ordinals = start..next.first_ordinal.max(start);
            told = lost.ordinals.end;
        }
    }
}

/// The state that the journal begins with, and the sequence of the first commit to be applied to it. That of the newest checkpoint that reads; if none does,
/// what the latest forgetting checkpoint carries; or nothing. What is missing in front of a forgetting checkpoint's base is forgotten, and no damage.
async fn begin(
    repository: &Repository,
    name: JournalName,
    mailbox: &MailboxName,
    listed: &[(u64, u64)],
    at: Option<u64>,
    lost: &mut Vec<LostCommit>,
) -> Result<(Journal, u64)> {
    let mut journal = Journal::empty(name, mailbox.clone());
    let mut first = 0;
    let mut forgotten = None;
    if let Some(head) = newest(repository, name, listed).await? {
        (journal.forgotten, journal.epoch) = (head.forgotten, head.epoch);
        journal.is_void = head.is_void && listed.last().is_some_and(|(last, _)| *last == head.sequence);
        forgotten = head.forgotten;
    }
    if let Some(sequence) = forgotten {
        let length = listed.binary_search_by_key(&sequence, |(sequence, _)| *sequence).map(|place| listed[place].1);
        let base = match length {
            Ok(length) => Base::open(repository, name, sequence, Some(length)).await,
            Err(_) => Err(Error::damaged(format!("commit {sequence}, which forgets what was before, is missing"))),
        };
        match base {
            Ok(base) => {
                at.map_or(Ok(()), |at| base.allow(at))?;
                first = base.next();
                if let Err(error) = journal.restore(repository, base).await {
                    lost.push(LostCommit { sequence, ordinals: 0..0, error: damage(error)? });
                }
            }
            // It is told where it is met; so are the gaps that it made.
            Err(error) => drop(damage(error)?),
        }
    }
    match from_checkpoint(repository, name, mailbox, listed, at, forgotten).await? {
        None => Ok((journal, first)),
        Some((mut state, next)) => {
            (state.forgotten, state.epoch, state.is_void) = (journal.forgotten, journal.epoch, journal.is_void);
            (state.forgotten_until, state.forgotten_messages) = (journal.forgotten_until, journal.forgotten_messages);
            Ok((state, next))
        }
    }
}

/// The head of the newest commit that reads.
async fn newest(repository: &Repository, name: JournalName, listed: &[(u64, u64)]) -> Result<Option<Head>> {
    for (sequence, length) in listed.iter().rev() {
        match Fetched::head(repository, name, *sequence, Some(*length)).await {
            Ok(head) => return Ok(Some(head)),
            Err(error) => drop(damage(error)?),
        }
    }
    Ok(None)
}

/// The state of the newest checkpoint that reads and is behind the latest forgetting one, and the sequence of the commit behind it.
async fn from_checkpoint(
    repository: &Repository,
    name: JournalName,
    mailbox: &MailboxName,
    listed: &[(u64, u64)],
    at: Option<u64>,
    forgotten: Option<u64>,
) -> Result<Option<(Journal, u64)>> {
    let mut below = u64::MAX;
    for &(sequence, _) in listed.iter().rev() {
        // Behind a checkpoint that does not read, the next one is before it.
        if sequence >= below {
            continue;
        }
        let head = match open(repository, name, listed, sequence).await {
            Ok(fetched) => fetched.reader.head,
            Err(error) => {
                damage(error)?;
                continue;
            }
        };
        if at.is_some_and(|at| head.time > at) {
            continue;
        }
        let behind = head.checkpoint.filter(|checkpoint| forgotten.is_none_or(|forgotten| forgotten < *checkpoint));
        let Some(checkpoint) = behind else { break };
        below = checkpoint;
        let mut journal = Journal::empty(name, mailbox.clone());
        let loaded = async {
            let mut fetched = open(repository, name, listed, checkpoint).await?;
            for block in fetched.section(repository, Section::Commits).await? {
                journal.commits.extend(decode_commits(&block)?);
            }
            journal.checkpoint = Some(checkpoint);
            journal.apply(repository, &mut fetched, false).await
        };
        match loaded.await {
            Ok(()) => return Ok(Some((journal, checkpoint + 1))),
            Err(error) => drop(damage(error)?),
        }
    }
    Ok(None)
}

async fn open(repository: &Repository, name: JournalName, listed: &[(u64, u64)], sequence: u64) -> Result<Fetched> {
    let place = listed.binary_search_by_key(&sequence, |(sequence, _)| *sequence);
    let place = place.map_err(|_| Error::damaged(format!("commit {sequence} is missing")))?;
    Fetched::open(repository, name, sequence, Some(listed[place].1)).await
}

/// Opens every commit of every journal, also of those that are damaged, one after the other. What cannot be read is passed over, and what is forgotten.
#[derive(Debug)]
pub(crate) struct AllCommits {
    repository: Repository,
    journals: vec::IntoIter<JournalName>,
    current: Option<JournalCommits>,
}

/// A journal being read.
#[derive(Debug)]
struct JournalCommits {
    name: JournalName,
    mailbox: MailboxName,
    /// The commits that are left: sequence and length.
    left: vec::IntoIter<(u64, u64)>,
    /// The messages of them that are forgotten.
    forgotten: Arc<HashSet<u64>>,
}

impl JournalCommits {
    async fn of(repository: &Repository, name: JournalName, mailbox: MailboxName) -> Result<Self> {
        let mut listed = listed(repository, name).await?;
        let mut forgotten = HashSet::new();
        if let Some(sequence) = newest(repository, name, &listed).await?.and_then(|head| head.forgotten)
            && let Ok(place) = listed.binary_search_by_key(&sequence, |(sequence, _)| *sequence)
        {
            let kept =
                async { Base::open(repository, name, sequence, Some(listed[place].1)).await?.kept(repository).await };
            match kept.await {
                Ok((kept, messages)) => {
                    listed.retain(|(sequence, _)| kept.contains(*sequence));
                    forgotten = messages;
                }
                // Then what was forgotten cannot be told from what was not.
                Err(error) => drop(damage(error)?),
            }
        }
        Ok(Self { name, mailbox, left: listed.into_iter(), forgotten: Arc::new(forgotten) })
    }
}

impl AllCommits {
    pub(crate) async fn of(repository: &Repository) -> Result<Self> {
        let journals = repository.journals().await?.into_iter();
        Ok(Self { repository: repository.clone(), journals, current: None })
    }

    /// The next commit, and whose it is.
    pub(crate) async fn next(&mut self) -> Result<Option<(MailboxName, Contents)>> {
        loop {
            if let Some(JournalCommits { name, mailbox, left, forgotten }) = &mut self.current
                && let Some((sequence, length)) = left.next()
            {
                match Fetched::open(&self.repository, *name, sequence, Some(length)).await {
                    Ok(fetched) => return Ok(Some((mailbox.clone(), Contents::of(fetched, Arc::clone(forgotten))))),
                    Err(error) => drop(damage(error)?),
                }
                continue;
            }
            let Some(name) = self.journals.next() else { return Ok(None) };
            self.current = match name.mailbox(&self.repository).await {
                Ok(mailbox) => Some(JournalCommits::of(&self.repository, name, mailbox).await?),
                Err(error) => damage(error).map(|_| None)?,
            };
        }
    }
}

/// Whether a journal has, as it stands now, the commit with which a run left it: what was read of the journal may be older than the run's record.
///
/// # Errors
/// If the journal does not read.
pub(crate) async fn is_there_now(repository: &Repository, head: &JournalHead) -> Result<bool> {
    let journal = Journal::load_all(repository, &head.mailbox, None).await?;
    Ok(Heads::of(&journal).agree(head))
}

/// What was read; nothing, if that is lost. What else goes wrong is passed on: what the store does not give now is not nothing.
pub(crate) fn unless_lost<T: Default>(read: Result<T>) -> Result<T> {
    match read {
        Err(error) if error.is_loss() => Ok(T::default()),
        read => read,
    }
}

/// Damage is what this is made for; what else goes wrong ends it.
fn damage(error: Error) -> Result<Error> {
    match error.kind() {
        ErrorKind::Damaged | ErrorKind::NotFound | ErrorKind::Unsupported => Ok(error),
        _ => Err(error),
    }
}
