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
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// What a batch of messages may weigh, in octets.
pub(super) const BATCH: u64 = 4 << 20;

/// How much of a name that is too long is told, in octets.
const SHOWN_MAX: usize = 256;

/// How many mailboxes are listed ahead of the one that is read.
const AHEAD_MAX: usize = 64;

/// Where messages come from: a source that is enumerated, or an inbox that they are appended to.
pub(super) enum Intake {
    Source(Box<Enumeration>),
    Inbox(Box<Receiving>),
}

/// The enumeration of a source.
pub(super) struct Enumeration {
    repository: Repository,
    registration: Arc<Registration>,
    resources: Resources,
    source: Arc<dyn Source>,
    reread: bool,
    mailboxes: Option<MailboxIter>,
    /// Mailboxes that were listed and not opened yet.
    ahead: VecDeque<Result<Box<dyn MailboxSource>>>,
    /// How many are listed next: few at first, so that the first one is not kept waiting.
    look_ahead: usize,
    current: Option<Current>,
}

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

/// The mailbox being enumerated.
struct Current {
    name: Arc<MailboxName>,
    source: Box<dyn MailboxSource>,
    known: KnownMailbox,
    /// Pays for what is known.
    _permit: Option<Permit>,
    is_complete: bool,
}

/// What a step of the enumeration brought.
pub(super) enum Taken {
    /// A mailbox begins.
    Mailbox(Box<Opened>),
    /// Some of the current mailbox.
    Batch(Box<Found>),
    /// A mailbox could not be opened: its name, where that much is known.
    Unopened(Option<Arc<MailboxName>>, Error),
    /// No more messages are waiting: what is gathered should be committed.
    Pause,
    /// A message is waiting to be taken.
    Ready,
    /// All mailboxes are enumerated.
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
            Self::Source(enumeration) => {
                let (enumeration, taken) = enumeration.step().await;
                (Self::Source(Box::new(enumeration)), taken)
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
        let (journal, known) = open(repository, resources, &self.inbox.mailbox, source, false).await?;
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

impl Enumeration {
    pub(super) fn new(
        (repository, registration): (Repository, Arc<Registration>),
        resources: Resources,
        source: Arc<dyn Source>,
        reread: bool,
    ) -> Self {
        let ahead = VecDeque::new();
        Self {
            repository,
            registration,
            resources,
            source,
            reread,
            mailboxes: None,
            ahead,
            look_ahead: 4,
            current: None,
        }
    }

    /// Takes the next step.
    pub(super) async fn step(mut self) -> (Self, Result<Taken>) {
        let taken = match self.current.take() {
            Some(current) => self.batch(current).await,
            None => self.mailbox().await,
        };
        (self, taken)
    }

    async fn mailbox(&mut self) -> Result<Taken> {
        if self.ahead.is_empty() {
            self.list().await?;
        }
        match self.ahead.pop_front() {
            None => Ok(Taken::End),
            Some(Err(error)) => Ok(Taken::Unopened(None, error)),
            Some(Ok(mailbox)) if mailbox.name().as_bytes().len() > MailboxName::OCTETS_MAX => {
                let shown = MailboxName::new(&mailbox.name().as_bytes()[..SHOWN_MAX]);
                let error = Error::new(ErrorKind::Limit, "the name of a mailbox is longer than the limit");
                Ok(Taken::Unopened(Some(Arc::new(shown)), error))
            }
            Some(Ok(mailbox)) => {
                let name = Arc::new(mailbox.name().clone());
                match self.open(Arc::clone(&name), mailbox).await {
                    // A journal that is damaged concerns its mailbox; a store that fails concerns all.
                    Err(error) if matches!(error.kind(), ErrorKind::Damaged | ErrorKind::Unsupported) => {
                        Ok(Taken::Unopened(Some(name), error))
                    }
                    opened => opened.map(Taken::Mailbox),
                }
            }
        }
    }

    /// Lists some mailboxes ahead, so that one record declares many of them.
    async fn list(&mut self) -> Result<()> {
        let (mailboxes, source, count) = (self.mailboxes.take(), Arc::clone(&self.source), self.look_ahead);
        self.look_ahead = (count * 2).min(AHEAD_MAX);
        let listed = runtime::run(&**self.resources.executor(), move || {
            let mut mailboxes = mailboxes.map_or_else(|| source.mailboxes(), Ok)?;
            let mut ahead = VecDeque::new();
            while ahead.len() < count {
                let Some(next) = mailboxes.next() else { break };
                ahead.push_back(next);
            }
            Ok::<_, Error>((mailboxes, ahead))
        });
        let (mailboxes, ahead) = listed.await??;
        let names = ahead.iter().flatten().map(|mailbox| mailbox.name());
        self.registration.want(names.filter(|name| name.as_bytes().len() <= MailboxName::OCTETS_MAX).cloned());
        (self.mailboxes, self.ahead) = (Some(mailboxes), ahead);
        Ok(())
    }

    async fn open(&mut self, name: Arc<MailboxName>, source: Box<dyn MailboxSource>) -> Result<Box<Opened>> {
        let epoch = self.registration.epoch();
        let Self { repository, resources, .. } = &*self;
        let opened = open(repository, resources, &name, self.source.id(), self.reread).await?;
        let (journal, (known, permit)) = opened;
        let folders = folders_of(&journal, self.source.id());
        self.current = Some(Current { name: Arc::clone(&name), source, known, _permit: permit, is_complete: true });
        Ok(Box::new(Opened { name, tail: Tail::of(&journal, epoch), folders }))
    }

    async fn batch(&mut self, mut current: Current) -> Result<Taken> {
        let filled = runtime::run(&**self.resources.executor(), move || {
            let mut batch = Batch::new(BATCH as usize);
            let more = current.source.fill(&mut current.known, &mut batch);
            let mut found = Found { weight: batch.weight() as u64, ..Found::default() };
            let is_at_end = match more {
                Ok(more) => !more,
                Err(error) => {
                    found.failed.push((Bytes::copy_from_slice(current.name.as_bytes()), error));
                    true
                }
            };
            batch.into_entries().into_iter().for_each(|entry| found.take(entry, &mut current.known));
            current.is_complete &= found.failed.is_empty();
            if is_at_end {
                found.conclude(&mut current);
            }
            (current, found)
        });
        let (current, found) = filled.await?;
        if found.end.is_none() {
            self.current = Some(current);
        }
        Ok(Taken::Batch(Box::new(found)))
    }
}

/// The journal's folders of a source.
fn folders_of(journal: &Journal, source: SourceId) -> BTreeMap<Bytes, Folder> {
    let records = journal.folders.values().filter(|record| is_from(source, &journal.sources, record.source));
    records.map(|record| (record.folder.path.raw.clone(), record.folder.clone())).collect()
}

/// A mailbox's journal, and what it knows of a source's messages.
async fn open(
    repository: &Repository,
    resources: &Resources,
    mailbox: &MailboxName,
    source: SourceId,
    reread: bool,
) -> Result<(Journal, (KnownMailbox, Option<Permit>))> {
    let name = JournalName::new(repository, mailbox);
    let read = || async move {
        let mut journal = Journal::load(repository, mailbox, None).await?;
        let known = know(repository, resources, &journal, source, reread).await?;
        journal.drop_newest();
        Ok((journal, known))
    };
    Journal::patiently(repository, name, read).await
}

/// Gathers what the journal knows of a source's messages.
async fn know(
    repository: &Repository,
    resources: &Resources,
    journal: &Journal,
    source: SourceId,
    reread: bool,
) -> Result<(KnownMailbox, Option<Permit>)> {
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
    // Not waited for: two transfers that each wait for this while holding their lanes would wait for ever.
    let permit = resources.budget().try_acquire(known.len() as u64 * KnownMailbox::MESSAGE_OCTETS);
    Ok((known, permit))
}

impl Found {
    fn take(&mut self, entry: Entry, known: &mut KnownMailbox) {
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

    fn conclude(&mut self, current: &mut Current) {
        let mut settled = Vec::new();
        let is_complete = current.is_complete;
        current.known.judge_deferred(is_complete, |envelope, verdict| settled.push((envelope.clone(), verdict)));
        for (envelope, verdict) in settled {
            self.settle(envelope.folder.clone(), envelope.identity.clone(), envelope, verdict);
        }
        let (gone, stored) = current.known.unseen();
        self.end = Some(End { gone, stored, is_complete });
    }
}
