//! The enumeration of a source's mailboxes: several at once.

use super::commit::Tail;
use super::intake::{BATCH, Found, Listed, Opened, Paid, SHOWN_MAX, folders_of, open};
use super::registration::Registration;
use super::state::BatchPermit;
use super::{Event, Phase, Transfer};
use crate::error::{Error, ErrorKind, Result};
use crate::message::MailboxName;
use crate::repository::Repository;
use crate::resources::Resources;
use crate::runtime;
use crate::source::{Batch, MailboxSource, SourceId};
use bytes::Bytes;
use futures::FutureExt;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// The most mailboxes that are enumerated at once: enough to wait for a store far away, and for what workers find at the same time.
const OPEN_MAX: usize = 16;

/// With this many mailboxes under way their commits are closed, and the packs that these wait for, however little is in them: each takes memory, and a name in every record
/// of where this writer may commit.
const UNDER_WAY_MAX: usize = 4096;

/// The mailboxes that are enumerated, by number.
#[derive(Default)]
pub(super) struct Walks {
    /// Mailboxes that were listed and not begun yet.
    pub(super) listed: VecDeque<Listed>,
    /// Those with more to enumerate.
    idle: BTreeMap<usize, Walk>,
    /// Those that must be opened when no other is: it is not known yet whether there is anything in them.
    crowded: BTreeMap<usize, Walk>,
    running: usize,
}

/// One mailbox's enumeration.
pub(super) struct Walk {
    name: Arc<MailboxName>,
    source: Box<dyn MailboxSource>,
    /// `None` until it is opened.
    known: Option<Paid>,
    is_complete: bool,
}

/// What a step of a mailbox's enumeration brought.
pub(super) enum Walked {
    Found {
        /// It was the first.
        opened: Option<Box<Opened>>,
        found: Box<Found>,
        rest: Option<Box<Walk>>,
    },
    /// Too much is known of it to open it beside others.
    Crowded(Box<Walk>),
    /// It could not be opened.
    Unopened(Arc<MailboxName>, Error),
}

/// What it needs to enumerate a mailbox.
struct Step {
    repository: Repository,
    registration: Arc<Registration>,
    resources: Resources,
    source: SourceId,
    reread: bool,
    is_only: bool,
}

impl Walks {
    /// Whether any mailbox is being enumerated.
    pub(super) fn are_running(&self) -> bool {
        self.running > 0
    }

    /// Whether nothing is left to enumerate of what was listed.
    pub(super) fn is_empty(&self) -> bool {
        self.open() == 0 && self.listed.is_empty()
    }

    /// Forgets those that are not running.
    pub(super) fn abandon(&mut self) {
        *self = Self { running: self.running, ..Self::default() };
    }

    fn open(&self) -> usize {
        self.idle.len() + self.crowded.len() + self.running
    }
}

impl Transfer {
    /// Begins as many steps as there is memory for and as are wanted.
    pub(super) fn schedule_walks(&mut self) {
        self.list_ahead();
        while self.wants_step() {
            let Some(permit) = self.memory_for_step() else { return };
            match self.next_walk() {
                Some((mailbox, walk, is_only)) => self.run_walk(mailbox, walk, is_only, permit),
                None => return self.batches.give_back(permit),
            }
        }
    }

    /// Lists more mailboxes before those that are listed are all begun.
    fn list_ahead(&mut self) {
        if self.walks.listed.len() <= OPEN_MAX
            && let Some(intake) = self.intake.take()
        {
            let list = async move {
                let (intake, listed) = intake.step().await;
                Ok(Event::Taken(intake, listed, None))
            };
            self.tasks.push(list.boxed());
        }
    }

    /// Whether another step should begin: there is something to do for it, and lanes will soon have nothing to read.
    fn wants_step(&mut self) -> bool {
        let Walks { idle, crowded, listed, running } = &self.walks;
        let may_open = listed.front().is_some() && crowded.is_empty() && self.walks.open() < self.walks_max();
        let may_open_only = !crowded.is_empty() && idle.is_empty() && *running == 0;
        let is_crowd = self.gatherers.len() >= UNDER_WAY_MAX;
        if is_crowd && (may_open || may_open_only) {
            self.flush();
        }
        let Walks { idle, running, .. } = &self.walks;
        let is_any = !idle.is_empty() || (!is_crowd && (may_open || may_open_only));
        let lanes = self.lanes.count();
        is_any && self.work.len() <= if *running == 0 { lanes } else { 2 * lanes }
    }

    /// How many mailboxes are enumerated at once: an eighth of the memory is for what is found.
    fn walks_max(&self) -> usize {
        let in_memory = self.shared.resources.budget().octets() / 8 / BATCH;
        usize::try_from(in_memory).unwrap_or(OPEN_MAX).clamp(1, OPEN_MAX)
    }

    /// The memory of a step's batch. If there is none, one step is waited for; more than one is begun only if it is there.
    fn memory_for_step(&mut self) -> Option<BatchPermit> {
        if self.walks.running == 0 {
            return self.batch_permit();
        }
        let permit = self.shared.resources.budget().try_acquire(BATCH)?;
        Some(BatchPermit { permit, is_own: false })
    }

    /// What goes on next: the mailbox that was begun first, or a new one. And whether it is the only one.
    fn next_walk(&mut self) -> Option<(usize, Walk, bool)> {
        if let Some((mailbox, walk)) = self.walks.idle.pop_first() {
            return Some((mailbox, walk, false));
        }
        if self.walks.running == 0
            && let Some((mailbox, walk)) = self.walks.crowded.pop_first()
        {
            return Some((mailbox, walk, true));
        }
        let is_only = self.walks.open() == 0;
        while let Some(listed) = self.walks.listed.pop_front() {
            match Walk::of(listed) {
                Ok(walk) => {
                    self.next_mailbox += 1;
                    return Some((self.next_mailbox - 1, walk, is_only));
                }
                Err((name, error)) => self.ledger.miss(name, &error),
            }
        }
        // None of them could be listed.
        self.list_ahead();
        self.end_if_enumerated();
        None
    }

    fn run_walk(&mut self, mailbox: usize, walk: Walk, is_only: bool, permit: BatchPermit) {
        self.walks.running += 1;
        let (repository, resources) = (self.shared.repository.clone(), self.shared.resources.clone());
        let registration = Arc::clone(&self.shared.registration);
        let (source, reread) = (self.source.0, self.shared.settings.reread);
        let step = Step { repository, registration, resources, source, reread, is_only };
        let step = async move {
            let walked = walk.step(step).await;
            Ok(Event::Walked { mailbox, walked, permit })
        };
        self.tasks.push(step.boxed());
    }

    /// Takes in what a step brought.
    pub(super) fn walked(&mut self, mailbox: usize, walked: Result<Walked>, permit: BatchPermit) {
        self.walks.running -= 1;
        match walked {
            Ok(Walked::Found { opened, found, rest }) => {
                if let Some(opened) = opened {
                    self.open_mailbox(mailbox, *opened);
                }
                self.take_batch(mailbox, *found, Some(permit));
                self.walks.idle.extend(rest.map(|walk| (mailbox, *walk)));
            }
            Ok(Walked::Crowded(walk)) => {
                self.batches.give_back(permit);
                self.walks.crowded.insert(mailbox, *walk);
            }
            Ok(Walked::Unopened(name, error)) => {
                self.batches.give_back(permit);
                self.ledger.miss(name.to_string(), &error);
            }
            Err(error) => {
                self.batches.give_back(permit);
                self.fail(error);
            }
        }
        self.end_if_enumerated();
    }

    /// Takes in what was listed.
    pub(super) fn take_listed(&mut self, listed: Vec<Listed>) {
        self.walks.listed.extend(listed);
        self.end_if_enumerated();
    }

    /// Once all that there is was listed and enumerated, nothing more is taken.
    fn end_if_enumerated(&mut self) {
        if self.is_listed && self.walks.is_empty() && matches!(self.phase, Phase::Running | Phase::Starting) {
            self.is_taking = false;
        }
    }

    /// Mailboxes that are being enumerated will not be enumerated to their end.
    pub(super) fn end_walks(&mut self) {
        let Walks { idle, crowded, listed, .. } = &mut self.walks;
        crowded.clear();
        listed.clear();
        for mailbox in std::mem::take(idle).into_keys() {
            self.end_mailbox(mailbox);
        }
    }
}

impl Walk {
    /// The enumeration of a mailbox, or which one could not be listed, and why.
    fn of(listed: Listed) -> std::result::Result<Self, (String, Error)> {
        let source = listed.map_err(|error| ("a mailbox".to_owned(), error))?;
        let name = source.name().as_bytes();
        if name.len() > MailboxName::OCTETS_MAX {
            let shown = MailboxName::new(&name[..SHOWN_MAX]);
            let error = Error::new(ErrorKind::Limit, "the name of a mailbox is longer than the limit");
            return Err((shown.to_string(), error));
        }
        Ok(Self { name: Arc::new(source.name().clone()), source, known: None, is_complete: true })
    }

    /// Takes the next step: opens the mailbox if it is not open, and enumerates some of it.
    async fn step(mut self, step: Step) -> Result<Walked> {
        let mut opened = None;
        let mut known = match self.known.take() {
            Some(known) => known,
            None => match step.open(&self.name).await {
                Ok(Some((mailbox, known))) => {
                    opened = Some(Box::new(mailbox));
                    known
                }
                Ok(None) => return Ok(Walked::Crowded(Box::new(self))),
                // A journal that is damaged concerns its mailbox; a store that fails concerns all.
                Err(error) if matches!(error.kind(), ErrorKind::Damaged | ErrorKind::Unsupported) => {
                    return Ok(Walked::Unopened(self.name, error));
                }
                Err(error) => return Err(error),
            },
        };
        let fill = move || {
            let found = self.fill(&mut known);
            self.known = Some(known);
            (self, found)
        };
        let (walk, found) = runtime::run(&**step.resources.executor(), fill).await?;
        let rest = found.end.is_none().then(|| Box::new(walk));
        Ok(Walked::Found { opened, found: Box::new(found), rest })
    }

    /// Enumerates some of the mailbox. Blocks.
    fn fill(&mut self, (known, _): &mut Paid) -> Found {
        let mut batch = Batch::new(BATCH as usize);
        let more = self.source.fill(known, &mut batch);
        let mut found = Found { weight: batch.weight() as u64, ..Found::default() };
        let is_at_end = match more {
            Ok(more) => !more,
            Err(error) => {
                found.failed.push((Bytes::copy_from_slice(self.name.as_bytes()), error));
                true
            }
        };
        batch.into_entries().into_iter().for_each(|entry| found.take(entry, known));
        self.is_complete &= found.failed.is_empty();
        if is_at_end {
            found.conclude(known, self.is_complete);
        }
        found
    }
}

impl Step {
    async fn open(&self, name: &Arc<MailboxName>) -> Result<Option<(Opened, Paid)>> {
        let epoch = self.registration.epoch();
        let opened = open(&self.repository, &self.resources, name, (self.source, self.reread), self.is_only).await?;
        Ok(opened.map(|(journal, known)| {
            let (name, folders) = (Arc::clone(name), folders_of(&journal, self.source));
            (Opened { name, tail: Tail::of(&journal, epoch), folders }, known)
        }))
    }
}
