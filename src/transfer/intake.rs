//! Intake: asks the source what there is, and tells what of it must be read.

use super::Settled;
use super::append::{Appended, Inbox, Next};
use super::commit::Tail;
use super::gather::End;
use super::known::{KnownMailbox, Verdict, is_from};
use super::lane::Item;
use super::registration::Registration;
use crate::budget::Permit;
use crate::error::{Error, ErrorKind, Result};
use crate::message::{Envelope, Folder, Identity, MailboxName};
use crate::repository::{Journal, JournalName, Repository};
use crate::resources::Resources;
use crate::runtime;
use crate::source::{Batch, Entry, Exclusion, MailboxIter, MailboxSource, Source, SourceId};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a batch of messages may weigh, in octets.
pub(super) const BATCH: u64 = 4 << 20;

/// How much of a name that is too long is told, in octets.
pub(super) const SHOWN_MAX: usize = 256;

/// How many mailboxes are listed at once.
const LISTED_MAX: usize = 128;

/// A mailbox of which this much is known, in octets, is opened beside others whether there is memory for it or not: it is less than the batch that is paid for.
const BESIDE_MIN: u64 = 128 << 10;

/// A mailbox of which more is known, in octets, is not opened beside others: reading its journal takes memory, too.
const BESIDE_MAX: u64 = 1 << 20;

/// Where messages come from: a source that is listed, or an inbox that they are appended to.
pub(super) enum Intake {
    Source(Box<Lister>),
    Inbox(Box<Receiving>),
}

/// The list of a source's mailboxes.
pub(super) struct Lister {
    registration: Arc<Registration>,
    resources: Resources,
    source: Arc<dyn Source>,
    mailboxes: Option<MailboxIter>,
    /// How many are listed next: few at first, so that the first one is not kept waiting.
    count: usize,
}

/// A mailbox that was listed, or why one could not be.
pub(super) type Listed = Result<Box<dyn MailboxSource>>;

/// The receiving of appended messages.
pub(super) struct Receiving {
    repository: Repository,
    registration: Arc<Registration>,
    resources: Resources,
    inbox: Inbox,
    known: Option<(KnownMailbox, Option<Permit>)>,
    /// A message that was waited for.
    held: Option<Box<Appended>>,
    is_ended: bool,
}

/// What a step brought.
pub(super) enum Taken {
    /// The next mailboxes; none at the end.
    Listed(Vec<Listed>),
    /// The inbox's mailbox begins.
    Mailbox(Box<Opened>),
    /// Some messages for it.
    Batch(Box<Found>),
    /// No more messages are waiting: what is gathered should be committed.
    Pause,
    /// A message is waiting to be taken.
    Ready,
    /// Nothing comes any more.
    End,
}

/// A mailbox that begins.
pub(super) struct Opened {
    pub(super) name: Arc<MailboxName>,
    pub(super) tail: Tail,
    /// The journal's folders of this source.
    pub(super) folders: BTreeMap<Bytes, Folder>,
}

/// What is new in a mailbox, and what is not.
#[derive(Default)]
pub(super) struct Found {
    pub(super) seen: u64,
    pub(super) folders: Vec<Folder>,
    pub(super) items: Vec<Item>,
    pub(super) updates: Vec<Update>,
    /// Messages that are what the journal has: folder, identity, how many.
    pub(super) unchanged: Vec<(Bytes, Identity, u64)>,
    pub(super) excluded: Vec<Exclusion>,
    /// What could not be enumerated.
    pub(super) failed: Vec<(Bytes, Error)>,
    /// The mailbox was enumerated to its end: what was not seen, and whether that means that it is gone.
    pub(super) end: Option<End>,
    /// What all this weighs, in octets.
    pub(super) weight: u64,
}

/// A message of which all is known but the envelope.
pub(super) struct Update {
    pub(super) ordinal: u64,
    pub(super) position: u64,
    pub(super) envelope: Envelope,
    pub(super) moved: bool,
}

impl Intake {
    /// Waits until there is something to take; a source always has something.
    pub(super) async fn wait(self) -> (Self, Result<Taken>) {
        match self {
            Self::Source(_) => (self, Ok(Taken::Ready)),
            Self::Inbox(mut receiving) => {
                let taken = receiving.wait().await;
                (Self::Inbox(receiving), taken)
            }
        }
    }

    /// Takes the next step.
    pub(super) async fn step(self) -> (Self, Result<Taken>) {
        match self {
            Self::Source(mut lister) => {
                let taken = lister.list().await;
                (Self::Source(lister), taken)
            }
            Self::Inbox(mut receiving) => {
                let taken = receiving.step().await;
                (Self::Inbox(receiving), taken)
            }
        }
    }
}

impl Receiving {
    pub(super) fn new(
        (repository, registration): (Repository, Arc<Registration>),
        resources: Resources,
        inbox: Inbox,
    ) -> Self {
        Self { repository, registration, resources, inbox, known: None, held: None, is_ended: false }
    }

    async fn open(&mut self) -> Result<Taken> {
        let epoch = self.registration.epoch();
        let source = self.inbox.source.0;
        let Self { repository, resources, .. } = &*self;
        let opened = open(repository, resources, &self.inbox.mailbox, (source, false), true).await?;
        let (journal, known) =
            opened.ok_or_else(|| Error::internal("a mailbox waits for others, of which there are none"))?;
        self.known = Some(known);
        let name = Arc::new(self.inbox.mailbox.clone());
        let folders = folders_of(&journal, source);
        Ok(Taken::Mailbox(Box::new(Opened { name, tail: Tail::of(&journal, epoch), folders })))
    }

    /// Waits until there is something to take, and answers questions meanwhile. Needs no memory.
    async fn wait(&mut self) -> Result<Taken> {
        let Some((known, _)) = &mut self.known else { return self.open().await };
        if self.is_ended {
            return Ok(Taken::End);
        }
        if self.held.is_none() {
            match self.inbox.next(known, true).await {
                Next::Appended(appended) => self.held = Some(appended),
                Next::Nothing | Next::End => return Ok(self.end(Found::default())),
            }
        }
        Ok(Taken::Ready)
    }

    /// Takes what is waiting.
    async fn step(&mut self) -> Result<Taken> {
        let Some((known, _)) = &mut self.known else { return self.open().await };
        if self.is_ended {
            return Ok(Taken::End);
        }
        let mut found = Found::default();
        if let Some(held) = self.held.take() {
            found.append(*held, known);
        }
        while found.weight < BATCH && found.items.len() < Batch::ENTRIES_MAX {
            match self.inbox.next(known, false).await {
                Next::Appended(appended) => found.append(*appended, known),
                Next::Nothing if found.seen == 0 => return Ok(Taken::Pause),
                Next::Nothing => break,
                Next::End => return Ok(self.end(found)),
            }
        }
        Ok(Taken::Batch(Box::new(found)))
    }

    /// An inbox never tells what is gone.
    fn end(&mut self, mut found: Found) -> Taken {
        self.is_ended = true;
        found.end = Some(End::default());
        Taken::Batch(Box::new(found))
    }
}

impl Lister {
    pub(super) fn new(registration: Arc<Registration>, resources: Resources, source: Arc<dyn Source>) -> Self {
        Self { registration, resources, source, mailboxes: None, count: 4 }
    }

    /// Lists some mailboxes, so that one record declares many of them.
    async fn list(&mut self) -> Result<Taken> {
        let (mailboxes, source, count) = (self.mailboxes.take(), Arc::clone(&self.source), self.count);
        self.count = (count * 2).min(LISTED_MAX);
        let listed = runtime::run(&**self.resources.executor(), move || {
            let mut mailboxes = mailboxes.map_or_else(|| source.mailboxes(), Ok)?;
            let listed: Vec<Listed> = mailboxes.by_ref().take(count).collect();
            Ok::<_, Error>((mailboxes, listed))
        });
        let (mailboxes, listed) = listed.await??;
        let names = listed.iter().flatten().map(|mailbox| mailbox.name());
        self.registration.want(names.filter(|name| name.as_bytes().len() <= MailboxName::OCTETS_MAX).cloned());
        self.mailboxes = Some(mailboxes);
        Ok(Taken::Listed(listed))
    }
}

/// The journal's folders of a source.
pub(super) fn folders_of(journal: &Journal, source: SourceId) -> BTreeMap<Bytes, Folder> {
    let records = journal.folders.values().filter(|record| is_from(source, &journal.sources, record.source));
    records.map(|record| (record.folder.path.raw.clone(), record.folder.clone())).collect()
}

/// What a journal knows of a source's messages, and what pays for it.
pub(super) type Paid = (KnownMailbox, Option<Permit>);

/// A mailbox's journal, and what it knows of a source's messages (all of which are to be read again, if that is said). `None` if that is too much beside what
/// other mailboxes take: then it must be opened when it is the only one.
pub(super) async fn open(
    repository: &Repository,
    resources: &Resources,
    mailbox: &MailboxName,
    of: (SourceId, bool),
    is_only: bool,
) -> Result<Option<(Journal, Paid)>> {
    let name = JournalName::new(repository, mailbox);
    let read = || async move {
        let mut journal = Journal::load(repository, mailbox, None).await?;
        let known = know(repository, resources, &journal, of, is_only).await?;
        journal.drop_newest();
        Ok(known.map(|known| (journal, known)))
    };
    Journal::patiently(repository, name, read).await
}

/// Gathers what the journal knows of a source's messages.
async fn know(
    repository: &Repository,
    resources: &Resources,
    journal: &Journal,
    (source, reread): (SourceId, bool),
    is_only: bool,
) -> Result<Option<Paid>> {
    let rows: u64 =
        journal.commits.iter().filter(|commit| !commit.forgotten).map(|commit| u64::from(commit.rows)).sum();
    let octets = rows * KnownMailbox::MESSAGE_OCTETS;
    // Not waited for: two transfers that each wait for this while holding their lanes would wait for ever.
    let mut permit = resources.budget().try_acquire(octets);
    if !is_only && octets > BESIDE_MIN && (permit.is_none() || octets > BESIDE_MAX) {
        return Ok(None);
    }
    let mut known = KnownMailbox::new(repository.domain().clone(), reread);
    for record in journal.folders.values().filter(|record| is_from(source, &journal.sources, record.source)) {
        known.add_folder(&record.folder);
    }
    journal
        .living(repository, |row| {
            if is_from(source, &journal.sources, row.source) {
                known.add(&row);
            } else {
                known.add_others(&row);
            }
            Ok(())
        })
        .await?;
    known.sort();
    permit.iter_mut().for_each(|permit| permit.shrink(known.len() as u64 * KnownMailbox::MESSAGE_OCTETS));
    Ok(Some((known, permit)))
}

impl Found {
    pub(super) fn take(&mut self, entry: Entry, known: &mut KnownMailbox) {
        match entry {
            Entry::Folder(folder) if folder.weight() > Folder::OCTETS_MAX => self.refuse(&folder.path.raw, "a folder"),
            Entry::Folder(folder) => self.folders.push(folder),
            Entry::Message(message) if message.envelope.weight() > Envelope::OCTETS_MAX => {
                let name = match &message.envelope.identity {
                    Identity::Named(name) => name,
                    Identity::Content => &message.envelope.folder,
                };
                self.refuse(name, "what is known of a message besides its octets");
            }
            Entry::Message(message) => {
                self.seen += 1;
                let (folder, identity) = (message.envelope.folder.clone(), message.envelope.identity.clone());
                let envelope = message.envelope.clone();
                match known.judge(message) {
                    Verdict::Later => {}
                    verdict => self.settle(folder, identity, envelope, verdict),
                }
            }
            Entry::Unchanged { folder, messages } => {
                self.seen += messages;
                known.keep_container(&folder, messages);
                self.unchanged.push((folder, Identity::Content, messages));
            }
            Entry::Matched { folder } => {
                self.seen += 1;
                self.unchanged.push((folder, Identity::Content, 1));
            }
            Entry::Excluded { reason, .. } => {
                self.seen += 1;
                self.excluded.push(reason);
            }
            Entry::Failed { name, error } => self.failed.push((name, error)),
        }
    }

    /// Something is longer than any reader takes: it cannot be stored, and is told.
    fn refuse(&mut self, name: &Bytes, what: &str) {
        let shown = name.slice(..name.len().min(SHOWN_MAX));
        self.failed.push((shown, Error::new(ErrorKind::Limit, format!("{what} is longer than the limit"))));
    }

    fn settle(&mut self, folder: Bytes, identity: Identity, envelope: Envelope, verdict: Verdict) {
        match verdict {
            Verdict::Unchanged => self.unchanged.push((folder, identity, 1)),
            Verdict::Changed { ordinal, position, moved } => {
                self.updates.push(Update { ordinal, position, envelope, moved });
                self.unchanged.push((folder, identity, 1));
            }
            Verdict::Read(item) => self.items.push(*item),
            Verdict::Later => {}
        }
    }

    /// Takes in a message that was appended.
    fn append(&mut self, appended: Appended, known: &mut KnownMailbox) {
        let Appended { message, ticket } = appended;
        let entry = Entry::Message(message);
        self.weight += entry.weight() as u64;
        let (items, deferred) = (self.items.len(), self.unchanged.len());
        self.take(entry, known);
        // Nothing tells that it is no longer where it was.
        known.judge_deferred(false, |envelope, verdict| {
            self.settle(envelope.folder.clone(), envelope.identity.clone(), envelope.clone(), verdict);
        });
        match self.items.get_mut(items) {
            Some(item) => item.ticket = Some(ticket),
            // Nothing is to be read: it is told at once. Whoever waited may have gone.
            None => drop(ticket.send(Ok(Settled::Unchanged { messages: (self.unchanged.len() - deferred) as u64 }))),
        }
    }

    /// Takes in what could only be told at the end of the mailbox.
    pub(super) fn conclude(&mut self, known: &mut KnownMailbox, is_complete: bool) {
        let mut settled = Vec::new();
        known.judge_deferred(is_complete, |envelope, verdict| settled.push((envelope.clone(), verdict)));
        for (envelope, verdict) in settled {
            self.settle(envelope.folder.clone(), envelope.identity.clone(), envelope, verdict);
        }
        let (gone, stored) = known.unseen();
        self.end = Some(End { gone, stored, is_complete });
    }
}
