//! Whose journals there are: as their commits say; and of a journal of which no commit opens, as run records do.

use super::journal::JournalName;
use super::run::{Active, OCTETS_MAX, RUNS, RunRecord};
use super::{Ended, Repository};
use crate::error::{Error, ErrorKind, Result};
use crate::message::MailboxName;
use futures::TryStreamExt;
use std::collections::{BTreeMap, BTreeSet};

/// The mailboxes of a repository, as far as their journals open.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Mailboxes {
    /// Those that have a journal with anything in it, sorted by name.
    pub names: Vec<MailboxName>,
    /// Journals of which no commit opens: what is in them is not known, nor whether there is anything.
    pub unreadable: Vec<UnreadableJournal>,
}

/// A journal of which no commit opens.
#[derive(Debug)]
#[non_exhaustive]
pub struct UnreadableJournal {
    /// What the keys of its commits begin with.
    pub journal: String,
    /// Whose it is, if a run record says so.
    pub mailbox: Option<MailboxName>,
    /// Why it does not open.
    pub error: Error,
}

/// Journals, and whose they are.
#[derive(Debug, Default)]
pub(crate) struct NamedJournals {
    pub(crate) named: Vec<(JournalName, MailboxName)>,
    /// Neither a commit of theirs nor a run record says whose they are.
    pub(crate) unnamed: Vec<(JournalName, Error)>,
}

impl UnreadableJournal {
    /// What it goes by, for people: its mailbox's name, or the journal's if that is not known.
    #[must_use]
    pub fn name(&self) -> MailboxName {
        self.mailbox.clone().unwrap_or_else(|| MailboxName::new(self.journal.clone()))
    }

    /// Whether it is the journal of this mailbox, which can be told without knowing its name.
    pub(crate) fn is_of(&self, repository: &Repository, mailbox: &MailboxName) -> bool {
        self.journal == JournalName::new(repository, mailbox).prefix()
    }
}

impl Mailboxes {
    /// Whether there is a journal of this mailbox, readable or not.
    pub(crate) fn contains(&self, repository: &Repository, mailbox: &MailboxName) -> bool {
        self.names.binary_search(mailbox).is_ok() || self.unreadable.iter().any(|one| one.is_of(repository, mailbox))
    }
}

/// The mailboxes there are, where all journals open.
pub(super) async fn mailboxes(repository: &Repository) -> Result<Vec<MailboxName>> {
    let mut names = Vec::new();
    for journal in repository.journals().await? {
        names.extend(journal.living_mailbox(repository).await?);
    }
    names.sort_unstable();
    Ok(names)
}

/// The mailboxes there are. A journal that does not open keeps none from being listed.
pub(super) async fn find_mailboxes(repository: &Repository) -> Result<Mailboxes> {
    let (mut names, mut failed) = (Vec::new(), Vec::new());
    for journal in repository.journals().await? {
        match journal.living_mailbox(repository).await {
            Ok(name) => names.extend(name),
            Err(error) => failed.push((journal, error)),
        }
    }
    names.sort_unstable();
    let mut told = told_names(repository, failed.iter().map(|(journal, _)| *journal).collect()).await?;
    let unreadable = failed.into_iter().map(|(journal, error)| UnreadableJournal {
        journal: journal.prefix(),
        mailbox: told.remove(&journal),
        error,
    });
    Ok(Mailboxes { names, unreadable: unreadable.collect() })
}

/// All journals, and whose they are.
pub(crate) async fn named_journals(repository: &Repository) -> Result<NamedJournals> {
    let mut journals = NamedJournals::default();
    for journal in repository.journals().await? {
        match journal.mailbox(repository).await {
            Err(error) if error.is_loss() => journals.unnamed.push((journal, error)),
            mailbox => journals.named.push((journal, mailbox?)),
        }
    }
    let told = told_names(repository, journals.unnamed.iter().map(|(journal, _)| *journal).collect()).await?;
    journals.unnamed.retain(|(journal, _)| !told.contains_key(journal));
    journals.named.extend(told);
    Ok(journals)
}

/// Whose these journals are, as far as run records say it. A journal's name is a keyed digest of its mailbox's, so no record can lie about that.
pub(crate) async fn told_names(
    repository: &Repository,
    mut journals: BTreeSet<JournalName>,
) -> Result<BTreeMap<JournalName, MailboxName>> {
    let mut told = BTreeMap::new();
    if journals.is_empty() {
        return Ok(told);
    }
    let mut listing = repository.store().list(RUNS);
    while let Some(object) = listing.try_next().await? {
        let octets = repository.read_small(&object.key, OCTETS_MAX).await;
        let record = match octets.and_then(|octets| RunRecord::open(repository, &object.key, &octets)) {
            Err(error) if error.is_loss() || error.kind() == ErrorKind::Unsupported => continue,
            record => record?,
        };
        let names: Vec<MailboxName> = match record {
            RunRecord::Active(Active { mailboxes, .. }) => mailboxes,
            RunRecord::Ended(ended) | RunRecord::Noted(ended) => {
                let Ended { heads, .. } = *ended;
                heads.into_iter().map(|head| head.mailbox).collect()
            }
            RunRecord::Fence { .. } | RunRecord::Lost { .. } => Vec::new(),
        };
        for name in names {
            let journal = JournalName::new(repository, &name);
            if journals.remove(&journal) {
                told.insert(journal, name);
            }
        }
        if journals.is_empty() {
            break;
        }
    }
    Ok(told)
}
