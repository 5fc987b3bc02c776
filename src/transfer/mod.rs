//! Transfers: from a source into a repository.
//!
//! A transfer is one future, driven by whoever polls it. It spawns nothing: work that computes or blocks goes to the executor as jobs that never
//! wait, and everything that waits is here. Intake finds what must be read; lanes read it; gatherers make commits of it.
//! docs/decisions/0001-foundation.md has the reasons, and why the budget cannot deadlock.

mod append;
mod commit;
mod dedup;
mod gather;
mod intake;
mod known;
mod lane;

use crate::budget::{Budget, Permit};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::index::{Index, RamIndex};
use crate::ledger::{Incomplete, Ledger};
use crate::message::{Identity, MailboxName};
use crate::pack::{FinishedPack, PackId, Packer, Row};
use crate::repository::{
    CompressedBlock, JournalHead, Repository, RunRecord, RunWriter, SEGMENT_CONTENT_MIN, SEGMENT_ROWS_MAX,
    read_segments, write_segment,
};
use crate::resources::Resources;
use crate::runtime;
use crate::settings::Settings;
use crate::source::{Kind, Reason, Source, SourceId};
use crate::store::Payload;
pub use append::Appender;
use bytes::Bytes;
use commit::{Committed, Tail};
use dedup::Dedup;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, Stream, StreamExt};
use gather::{Gatherer, RecipeBlock};
use intake::{BATCH, Enumeration, Found, Intake, Opened, Receiving, Taken};
use lane::{Item, Lane, LaneContext, Output, PACK_SLACK, Step};
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// What became of one message, or of a container's unchanged messages.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Outcome {
    /// The mailbox.
    pub mailbox: Arc<MailboxName>,
    /// The raw octets of its folder.
    pub folder: Bytes,
    /// What names it in its folder.
    pub identity: Identity,
    /// What became of it.
    pub settled: Settled,
}

/// What became of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Settled {
    /// It is durable and committed.
    Stored {
        /// The digest of its octets.
        digest: Digest,
        /// How many octets it has.
        length: u64,
    },
    /// It was stored already.
    Unchanged {
        /// How many messages: more than one for a container that was not enumerated.
        messages: u64,
    },
    /// It could not be read in full. What could be read is kept, and the next run tries again.
    Quarantined {
        /// Why.
        reason: Reason,
    },
}

/// A run's account, at its end.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Report {
    /// The version of this report's shape.
    pub schema: u32,
    /// What became of everything.
    #[cfg_attr(feature = "serde", serde(flatten))]
    pub ledger: Ledger,
    /// Whether the run was stopped before its end.
    pub stopped: bool,
    /// The most octets that the budget permitted at once.
    pub peak_budget_bytes: u64,
}

/// A transfer under way: a stream of outcomes, which ends when everything is done. [`finish`](Self::finish) gives the account.
///
/// Outcomes of messages that were stored come when they are durable and committed.
///
/// # Cancellation
/// - [`shutdown_on`](Self::shutdown_on): no new message is begun, what has begun is committed, the account is written.
/// - [`abort`](Self::abort): no further commit is begun; writes in flight are awaited.
/// - Dropping it: immediate. Work on a worker runs to the end of its turn and is forgotten; what was committed stays.
pub struct Transfer {
    shared: Shared,
    source: (SourceId, Kind),
    tasks: FuturesUnordered<BoxFuture<'static, Result<Event>>>,
    shutdown: Option<BoxFuture<'static, ()>>,
    phase: Phase,
    intake: Option<Intake>,
    /// Intake is not at its end: either it waits for a permit or it works.
    is_taking: bool,
    enumerating: Option<usize>,
    /// Nothing more is waiting to be appended: what was appended is to be committed.
    is_paused: bool,
    batches: BatchPermits,
    work: VecDeque<Work>,
    lanes: Lanes,
    gatherers: BTreeMap<usize, (Gatherer, Option<Tail>)>,
    next_mailbox: usize,
    packs: Packs,
    ledger: Ledger,
    started: u64,
    heads: BTreeMap<usize, JournalHead>,
    outcomes: VecDeque<Outcome>,
    with_outcomes: bool,
    failure: Option<Error>,
}

/// What the tasks of a transfer share.
#[derive(Clone)]
struct Shared {
    repository: Repository,
    resources: Resources,
    settings: Settings,
    context: Arc<LaneContext>,
    pack_permit: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Waiting for the first lane's memory.
    Starting,
    Running,
    /// No new message is begun.
    Stopping,
    /// No new commit is begun.
    Aborting,
    /// The last objects are being written.
    Closing,
    Done,
}

/// The lanes, by what they do.
#[derive(Default)]
struct Lanes {
    idle: VecDeque<Box<Lane>>,
    /// Have a pack finished and no memory for the next.
    parked: VecDeque<Box<Lane>>,
    running: usize,
    /// The mailboxes of the batches that parked lanes are in the midst of.
    parked_for: Vec<usize>,
}

/// The packs that are not durable yet, and what came of those that are.
#[derive(Default)]
struct Packs {
    open: HashSet<PackId>,
    uploading: usize,
    /// Waiting for their turn to be uploaded.
    finished: VecDeque<(FinishedPack, Permit)>,
    /// Rows of durable packs that are in no index segment yet.
    rows: Vec<Row>,
}

/// The memory of batches: one's worth is the transfer's own, so that it always gets on.
#[derive(Default)]
struct BatchPermits {
    own: Option<Permit>,
    granted: Option<Permit>,
    is_waiting: bool,
}

/// The memory of one batch, which travels with it until its messages are committed.
#[derive(Debug)]
struct BatchPermit {
    permit: Permit,
    /// It is the transfer's own, and comes back whole.
    is_own: bool,
}

/// A batch to be read.
struct Work {
    mailbox: usize,
    items: Vec<Item>,
    permit: BatchPermit,
}

/// What a task ended with.
enum Event {
    /// The memory for the first lane, its pack, and a batch.
    Begun(Permit, Permit, Permit),
    BatchPermit(Permit),
    Taken(Intake, Result<Taken>, BatchPermit),
    Lane {
        lane: Box<Lane>,
        mailbox: usize,
        outcome: Result<(Step, Output)>,
    },
    Sealed {
        lane: Box<Lane>,
        pack: Result<Option<FinishedPack>>,
    },
    Uploaded {
        pack: PackId,
        rows: Vec<Row>,
        length: u64,
        permit: Permit,
    },
    Compressed {
        mailbox: usize,
        serial: u64,
        slot: usize,
        block: CompressedBlock,
    },
    Committed {
        mailbox: usize,
        committed: Committed,
    },
    SegmentWritten(u64),
    Recorded(u64),
}

impl Transfer {
    pub(crate) fn new(
        repository: Repository,
        resources: Resources,
        settings: Settings,
        index: Arc<dyn Index>,
        source: Arc<dyn Source>,
    ) -> Self {
        let identity = (source.id(), source.kind());
        let enumeration = Enumeration::new(repository.clone(), resources.clone(), source, settings.reread);
        Self::with(repository, resources, settings, index, Intake::Source(Box::new(enumeration)), identity)
    }

    /// A transfer of what is appended to one mailbox.
    pub(crate) fn appending(
        repository: Repository,
        resources: Resources,
        settings: Settings,
        index: Arc<dyn Index>,
        mailbox: MailboxName,
        source: (SourceId, Kind),
    ) -> (Appender, Self) {
        let (appender, inbox) = Appender::new(mailbox, source.0, source.1.clone());
        let receiving = Receiving::new(repository.clone(), resources.clone(), inbox);
        let intake = Intake::Inbox(Box::new(receiving));
        let mut transfer = Self::with(repository, resources, settings, index, intake, source);
        transfer.with_outcomes = false;
        (appender, transfer)
    }

    fn with(
        repository: Repository,
        resources: Resources,
        settings: Settings,
        index: Arc<dyn Index>,
        intake: Intake,
        source: (SourceId, Kind),
    ) -> Self {
        let eighth = usize::try_from(resources.budget().octets() / 8).unwrap_or(usize::MAX);
        let pack_target = settings.pack_bytes_max.min(eighth);
        let context = LaneContext { domain: repository.domain().clone(), dedup: Dedup::new(index), pack_target };
        let started = repository.now();
        let pack_permit = (pack_target + PACK_SLACK) as u64;
        let shared = Shared { repository, resources, settings, context: Arc::new(context), pack_permit };
        let tasks = FuturesUnordered::new();
        tasks.push(shared.clone().begin().boxed());
        Self {
            shared,
            source,
            tasks,
            shutdown: None,
            phase: Phase::Starting,
            intake: Some(intake),
            is_taking: true,
            enumerating: None,
            is_paused: false,
            batches: BatchPermits::default(),
            work: VecDeque::new(),
            lanes: Lanes::default(),
            gatherers: BTreeMap::new(),
            next_mailbox: 0,
            packs: Packs::default(),
            ledger: Ledger::default(),
            started,
            heads: BTreeMap::new(),
            outcomes: VecDeque::new(),
            with_outcomes: true,
            failure: None,
        }
    }

    /// Ends the transfer in good order when `signal` resolves: no new message is begun, what has begun is committed.
    #[must_use]
    pub fn shutdown_on(mut self, signal: impl Future<Output = ()> + Send + 'static) -> Self {
        self.shutdown = Some(signal.boxed());
        self
    }

    /// The next outcome; `None` when all is done, or failed: then [`finish`](Self::finish) tells.
    ///
    /// # Cancel safety
    /// Cancel safe: nothing is lost if the future is dropped.
    pub async fn next(&mut self) -> Option<Outcome> {
        StreamExt::next(self).await
    }

    /// The account so far.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Drives the transfer to its end and gives the account. Outcomes not taken are dropped.
    ///
    /// # Cancel safety
    /// As dropping the transfer.
    ///
    /// # Errors
    /// The first failure that concerned more than one message. What was committed before it stays.
    pub async fn finish(mut self) -> Result<Report> {
        self.with_outcomes = false;
        self.outcomes.clear();
        while self.next().await.is_some() {}
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        self.report()
    }

    /// Ends the transfer without beginning another commit; writes in flight are awaited.
    ///
    /// # Cancel safety
    /// As dropping the transfer.
    ///
    /// # Errors
    /// As [`finish`](Self::finish).
    pub async fn abort(mut self) -> Result<Report> {
        if !matches!(self.phase, Phase::Closing | Phase::Done) {
            self.phase = Phase::Aborting;
        }
        self.finish().await
    }

    fn report(&self) -> Result<Report> {
        self.ledger.verify()?;
        Ok(Report {
            schema: 1,
            ledger: self.ledger.clone(),
            stopped: self.ledger.messages.pending > 0 || self.is_taking,
            peak_budget_bytes: self.shared.resources.budget().peak(),
        })
    }

    /// Begins everything that can be begun.
    fn schedule(&mut self) {
        match self.phase {
            Phase::Starting | Phase::Closing | Phase::Done => return,
            Phase::Running | Phase::Stopping => {}
            Phase::Aborting => {
                self.abandon();
                return self.close_if_quiet();
            }
        }
        if self.phase == Phase::Stopping {
            self.stop_intake();
        }
        self.schedule_intake();
        if self.is_paused {
            self.flush();
        }
        self.schedule_lanes();
        self.schedule_commits();
        self.schedule_uploads();
        self.close_if_quiet();
    }

    fn schedule_intake(&mut self) {
        let wanted = self.is_taking && self.intake.is_some() && self.work.len() <= self.lanes.count();
        if !wanted {
            return;
        }
        let budget = self.shared.resources.budget();
        if let Some(permit) = self.batches.take(budget) {
            let Some(intake) = self.intake.take() else { return };
            let step = async move {
                let (intake, taken) = intake.step().await;
                Ok(Event::Taken(intake, taken, permit))
            };
            return self.tasks.push(step.boxed());
        }
        if !std::mem::replace(&mut self.batches.is_waiting, true) {
            let budget = budget.clone();
            self.tasks.push(async move { Ok(Event::BatchPermit(budget.acquire(BATCH).await)) }.boxed());
        }
        // Memory is short: whatever can be made durable gives some back.
        self.flush();
    }

    /// Closes all open commits and packs.
    fn flush(&mut self) {
        let mut blocks = Vec::new();
        for (mailbox, (gatherer, _)) in &mut self.gatherers {
            blocks.extend(gatherer.close().map(|block| (*mailbox, block)));
        }
        blocks.into_iter().for_each(|(mailbox, block)| self.compress(mailbox, block));
        self.seal_idle_packs();
    }

    fn schedule_lanes(&mut self) {
        self.take_more_lanes();
        while let Some(work) = self.work.pop_front() {
            match self.lanes.idle.pop_back() {
                Some(mut lane) => {
                    lane.give(work.items, work.permit);
                    self.run_lane(lane, work.mailbox);
                }
                None => {
                    self.work.push_front(work);
                    break;
                }
            }
        }
        let takes_no_more = !self.is_taking || self.phase == Phase::Stopping;
        let nothing_comes = self.intake.is_none() && self.enumerating.is_none() && takes_no_more;
        if nothing_comes && self.work.is_empty() && self.lanes.running == 0 && self.lanes.parked.is_empty() {
            self.seal_idle_packs();
        }
    }

    /// Takes memory for another lane if there is work for it and nobody waits for memory.
    fn take_more_lanes(&mut self) {
        let lanes_max = self.shared.resources.executor().parallelism();
        if self.work.len() <= self.lanes.idle.len() || self.lanes.count() >= lanes_max {
            return;
        }
        let budget = self.shared.resources.budget();
        // Three quarters of the budget are for lanes; the rest is for batches, and what they leave in commits.
        let per_lane = Lane::WORKING_SET + self.shared.pack_permit;
        if (self.lanes.count() as u64 + 1) * per_lane > budget.octets() / 4 * 3 {
            return;
        }
        let Some(working_set) = budget.try_acquire(Lane::WORKING_SET) else { return };
        let Some(pack) = budget.try_acquire(self.shared.pack_permit) else { return };
        self.add_lane(working_set, pack);
    }

    fn add_lane(&mut self, working_set: Permit, pack: Permit) {
        match Lane::new(working_set, pack, &self.shared.settings, &self.shared.context.domain) {
            Ok(lane) => self.lanes.idle.push_back(Box::new(lane)),
            Err(error) => self.fail(error),
        }
    }

    fn run_lane(&mut self, mut lane: Box<Lane>, mailbox: usize) {
        if lane.pack.is_none() {
            match self.shared.repository.new_pack(self.shared.pack_permit as usize) {
                Ok(pack) => {
                    self.packs.open.insert(pack.id());
                    lane.pack = Some(pack);
                }
                Err(error) => return self.fail(error),
            }
        }
        self.lanes.running += 1;
        let (executor, context) = (Arc::clone(self.shared.resources.executor()), Arc::clone(&self.shared.context));
        let turn = async move {
            let (lane, outcome) = runtime::run(&*executor, move || {
                let outcome = lane.advance(&context);
                (lane, outcome)
            })
            .await?;
            Ok(Event::Lane { lane, mailbox, outcome })
        };
        self.tasks.push(turn.boxed());
    }

    /// Finishes the packs of lanes that have nothing to do.
    fn seal_idle_packs(&mut self) {
        let (open, empty): (VecDeque<_>, VecDeque<_>) = std::mem::take(&mut self.lanes.idle)
            .into_iter()
            .partition(|lane| lane.pack.as_ref().is_some_and(|pack| !pack.rows().is_empty()));
        self.lanes.idle = empty;
        for mut lane in open {
            self.lanes.running += 1;
            let executor = Arc::clone(self.shared.resources.executor());
            let seal = async move {
                let (lane, pack) = runtime::run(&*executor, move || {
                    let pack = lane.finish_pack();
                    (lane, pack)
                })
                .await?;
                Ok(Event::Sealed { lane, pack })
            };
            self.tasks.push(seal.boxed());
        }
    }

    fn schedule_uploads(&mut self) {
        while self.packs.uploading < self.shared.resources.uploads_max() {
            let Some((pack, permit)) = self.packs.finished.pop_front() else { return };
            self.packs.uploading += 1;
            let repository = self.shared.repository.clone();
            let upload = async move {
                let FinishedPack { id, octets, rows } = pack;
                let length = octets.len() as u64;
                repository.store().put(&id.key(), Payload::from(octets)).await?;
                Ok(Event::Uploaded { pack: id, rows, length, permit })
            };
            self.tasks.push(upload.boxed());
        }
    }

    fn schedule_commits(&mut self) {
        let mailboxes: Vec<usize> = self.gatherers.keys().copied().collect();
        for mailbox in mailboxes {
            self.schedule_mailbox(mailbox);
        }
    }

    /// Concludes, closes and commits what is due of one mailbox.
    fn schedule_mailbox(&mut self, mailbox: usize) {
        let Some((gatherer, tail)) = self.gatherers.get_mut(&mailbox) else { return };
        let mut block = None;
        if gatherer.can_conclude() {
            if gatherer.conclude() {
                self.ledger.mailboxes += 1;
            }
            block = gatherer.close();
        } else if gatherer.is_full(&self.shared.settings) {
            block = gatherer.close();
        }
        if !gatherer.is_committing && gatherer.closed.front().is_some_and(gather::Builder::is_ready) {
            if let (Some(tail), Some(builder)) = (tail.take(), gatherer.closed.front_mut()) {
                gatherer.is_committing = true;
                let draft = std::mem::take(&mut builder.draft);
                let Shared { repository, resources, settings, .. } = self.shared.clone();
                let level = settings.compression_level;
                let commit = async move {
                    let executor = Arc::clone(resources.executor());
                    let committed = commit::commit(repository, executor, tail, draft, level).await?;
                    Ok(Event::Committed { mailbox, committed })
                };
                self.tasks.push(commit.boxed());
            }
        } else if gatherer.is_finished() {
            let finished = self.gatherers.remove(&mailbox);
            let permits = finished.into_iter().flat_map(|(gatherer, _)| gatherer.open.permits);
            permits.for_each(|permit| self.batches.give_back(permit));
        }
        if let Some(block) = block {
            self.compress(mailbox, block);
        }
    }

    fn compress(&mut self, mailbox: usize, block: RecipeBlock) {
        let executor = Arc::clone(self.shared.resources.executor());
        let level = self.shared.settings.compression_level;
        let RecipeBlock { serial, slot, recipes } = block;
        let compress = async move {
            let raw = recipes.len() as u32;
            let octets = runtime::run(&*executor, move || {
                let mut octets = Vec::new();
                Packer::new(level)?.compress(&recipes, &mut octets)?;
                octets.shrink_to_fit();
                Ok::<_, Error>(octets)
            });
            let block = CompressedBlock { octets: octets.await??, raw };
            Ok(Event::Compressed { mailbox, serial, slot, block })
        };
        self.tasks.push(compress.boxed());
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Begun(working_set, pack, batch) => {
                self.batches.own = Some(batch);
                self.add_lane(working_set, pack);
                if self.phase == Phase::Starting {
                    self.phase = Phase::Running;
                }
            }
            Event::BatchPermit(permit) => {
                self.batches.is_waiting = false;
                self.batches.granted = Some(permit);
            }
            Event::Taken(intake, taken, permit) => self.take(intake, taken, permit),
            Event::Lane { lane, mailbox, outcome } => self.lane_came_back(lane, mailbox, outcome),
            Event::Sealed { lane, pack } => {
                self.lanes.running -= 1;
                match pack {
                    Ok(pack) => self.pack_finished(lane, pack, None),
                    Err(error) => self.fail(error),
                }
            }
            Event::Uploaded { pack, rows, length, permit } => self.pack_is_durable(pack, rows, length, permit),
            Event::Compressed { mailbox, serial, slot, block } => {
                if let Some((gatherer, _)) = self.gatherers.get_mut(&mailbox) {
                    gatherer.compressed(serial, slot, block);
                }
            }
            Event::Committed { mailbox, committed } => self.committed(mailbox, committed),
            Event::SegmentWritten(length) => self.wrote(length),
            Event::Recorded(length) => {
                self.wrote(length);
                self.phase = Phase::Done;
            }
        }
    }

    fn take(&mut self, intake: Intake, taken: Result<Taken>, permit: BatchPermit) {
        match taken {
            Ok(Taken::Mailbox(opened)) => self.open_mailbox(*opened),
            Ok(Taken::Batch(found)) => {
                self.intake = Some(intake);
                self.is_paused = false;
                return self.take_batch(*found, permit);
            }
            Ok(Taken::Unopened(error)) => {
                let name = "a mailbox".to_owned();
                self.ledger.incomplete.push(Incomplete::new(name, &error));
            }
            Ok(Taken::Pause) => self.is_paused = true,
            Ok(Taken::End) => {
                self.is_taking = false;
                return self.batches.give_back(permit);
            }
            Err(error) => {
                self.batches.give_back(permit);
                return self.fail(error);
            }
        }
        self.intake = Some(intake);
        self.batches.give_back(permit);
    }

    fn open_mailbox(&mut self, opened: Opened) {
        let Opened { name, tail, folders } = opened;
        let gatherer = Gatherer::new(name, self.source.clone(), folders);
        self.enumerating = Some(self.next_mailbox);
        self.gatherers.insert(self.next_mailbox, (gatherer, Some(tail)));
        self.next_mailbox += 1;
    }

    fn take_batch(&mut self, found: Found, mut permit: BatchPermit) {
        let Some(mailbox) = self.enumerating else { return };
        let Some((gatherer, _)) = self.gatherers.get_mut(&mailbox) else { return };
        let Found { seen, folders, items, updates, unchanged, excluded, failed, end, weight } = found;
        self.ledger.see(seen);
        excluded.into_iter().for_each(|reason| self.ledger.exclude(reason));
        for (name, error) in failed {
            let name = String::from_utf8_lossy(&name).into_owned();
            self.ledger.incomplete.push(Incomplete::new(name, &error));
        }
        for (folder, identity, messages) in unchanged {
            self.ledger.keep(messages);
            if self.with_outcomes {
                self.outcomes.push_back(Outcome::unchanged(&gatherer.mailbox, folder, identity, messages));
            }
        }
        folders.into_iter().for_each(|folder| gatherer.folder(folder));
        for update in updates {
            gatherer.update(update.ordinal, update.position, update.envelope, update.moved);
        }
        if let Some(end) = end {
            gatherer.end(end);
            self.enumerating = None;
        }
        // What is kept until the commit is at most what the batch weighed.
        permit.shrink(weight);
        if !items.is_empty() {
            gatherer.outstanding += 1;
            self.work.push_back(Work { mailbox, items, permit });
        } else if gatherer.open.draft.is_empty() {
            self.batches.give_back(permit);
        } else {
            gatherer.open.permits.push(permit);
        }
    }

    fn lane_came_back(&mut self, mut lane: Box<Lane>, mailbox: usize, outcome: Result<(Step, Output)>) {
        self.lanes.running -= 1;
        let (step, output) = match outcome {
            Ok(done) => done,
            Err(error) => return self.fail(error),
        };
        let Output { messages, recipes, octets, pack } = output;
        self.ledger.bytes.read += octets.read;
        self.ledger.bytes.content += octets.content;
        self.ledger.bytes.duplicate += octets.duplicate;
        self.ledger.bytes.compressed += octets.compressed;
        let mut blocks = Vec::new();
        if let Some((gatherer, _)) = self.gatherers.get_mut(&mailbox) {
            let Shared { settings, .. } = &self.shared;
            blocks = gatherer.messages(messages, &recipes, &self.packs.open, settings, self.with_outcomes);
            if step == Step::Done {
                gatherer.outstanding -= 1;
                gatherer.open.permits.extend(lane.batch_permit.take());
            }
        }
        blocks.into_iter().for_each(|block| self.compress(mailbox, block));
        match step {
            // Nothing that it reads will be committed.
            _ if self.phase == Phase::Aborting => {}
            Step::Again => self.run_lane(lane, mailbox),
            Step::PackFull => self.pack_finished(lane, pack, Some(mailbox)),
            Step::Done => self.lanes.idle.push_back(lane),
        }
    }

    /// Hands a finished pack on, and lets the lane go on if there is memory for its next pack.
    fn pack_finished(&mut self, mut lane: Box<Lane>, pack: Option<FinishedPack>, mailbox: Option<usize>) {
        if let (Some(pack), Some(mut permit)) = (pack, lane.pack_permit.take()) {
            // A lane's own memory comes back to it whole; memory beyond that is given back as soon as it can be.
            let spare = self.shared.resources.budget().try_acquire(self.shared.pack_permit);
            if spare.is_some() {
                permit.shrink(pack.octets.capacity() as u64);
                lane.pack_permit = spare;
            }
            self.packs.finished.push_back((pack, permit));
        }
        match (lane.pack_permit.is_some(), mailbox) {
            (true, Some(mailbox)) => self.run_lane(lane, mailbox),
            (true, None) => self.lanes.idle.push_back(lane),
            (false, mailbox) => {
                self.lanes.parked.push_back(lane);
                self.lanes.parked_for.push(mailbox.unwrap_or(usize::MAX));
            }
        }
    }

    fn pack_is_durable(&mut self, pack: PackId, rows: Vec<Row>, length: u64, permit: Permit) {
        self.packs.uploading -= 1;
        self.packs.open.remove(&pack);
        self.wrote(length);
        self.shared.context.dedup.publish(&rows);
        let lasting = rows.into_iter().filter(|row| row.at.content >= SEGMENT_CONTENT_MIN);
        self.packs.rows.extend(lasting);
        self.gatherers.values_mut().for_each(|(gatherer, _)| gatherer.durable(&pack));
        if let (Some(mut lane), Some(mailbox)) = (self.lanes.parked.pop_back(), self.lanes.parked_for.pop()) {
            // A parked lane's own permit is one that travelled whole.
            lane.pack_permit = Some(permit);
            if mailbox == usize::MAX {
                self.lanes.idle.push_back(lane);
            } else {
                self.run_lane(lane, mailbox);
            }
        }
        if self.packs.rows.len() >= SEGMENT_ROWS_MAX {
            let rows: Vec<Row> = self.packs.rows.drain(..SEGMENT_ROWS_MAX).collect();
            self.write_segment(rows);
        }
    }

    fn write_segment(&mut self, mut rows: Vec<Row>) {
        let repository = self.shared.repository.clone();
        let write = async move { Ok(Event::SegmentWritten(write_segment(&repository, &mut rows).await?)) };
        self.tasks.push(write.boxed());
    }

    fn committed(&mut self, mailbox: usize, committed: Committed) {
        let Committed { tail, length, covered } = committed;
        if length > 0 {
            self.wrote(length);
        }
        let Some((gatherer, slot)) = self.gatherers.get_mut(&mailbox) else { return };
        gatherer.is_committing = false;
        if let Some((sequence, digest)) = tail.head() {
            let mailbox_name = (*gatherer.mailbox).clone();
            self.heads.insert(mailbox, JournalHead { mailbox: mailbox_name, sequence, digest });
        }
        *slot = Some(tail);
        let Some(builder) = gatherer.closed.pop_front() else { return };
        let stored = builder.stored - covered.min(builder.stored);
        self.ledger.store(stored);
        self.ledger.keep(builder.unchanged + (builder.stored - stored));
        builder.quarantined.into_iter().for_each(|reason| self.ledger.quarantine(reason));
        self.ledger.changes.flags += builder.changes.flags;
        self.ledger.changes.moved += builder.changes.moved;
        self.ledger.changes.gone += builder.changes.gone;
        if self.with_outcomes {
            self.outcomes.extend(builder.outcomes);
        }
        for (ticket, settled) in builder.tickets {
            // Whoever waited may have gone.
            let _ = ticket.send(settled);
        }
        builder.permits.into_iter().for_each(|permit| self.batches.give_back(permit));
    }

    fn wrote(&mut self, length: u64) {
        self.ledger.objects += 1;
        self.ledger.bytes.written += length;
    }

    /// Forgets everything that has not begun.
    fn stop_intake(&mut self) {
        // Work not begun stays pending; its mailbox is not concluded, for it was not seen to its end.
        for Work { mailbox, permit, .. } in std::mem::take(&mut self.work) {
            self.batches.give_back(permit);
            if let Some((gatherer, _)) = self.gatherers.get_mut(&mailbox) {
                gatherer.outstanding -= 1;
                gatherer.cut_short();
            }
        }
        if self.intake.take().is_some()
            && let Some(mailbox) = self.enumerating.take()
            && let Some((gatherer, _)) = self.gatherers.get_mut(&mailbox)
        {
            gatherer.end(gather::End::default());
        }
    }

    /// Forgets everything that is not in flight.
    fn abandon(&mut self) {
        self.work.clear();
        self.intake = None;
        self.enumerating = None;
        self.gatherers.retain(|_, (gatherer, _)| gatherer.is_committing);
        self.packs.finished.clear();
        self.lanes.parked.clear();
        self.lanes.idle.clear();
    }

    /// Gives back all memory: who is over must not keep others waiting, even if it is not dropped yet.
    fn release(&mut self) {
        self.tasks.clear();
        self.intake = None;
        self.work.clear();
        self.gatherers.clear();
        self.packs.finished.clear();
        (self.lanes, self.batches) = (Lanes::default(), BatchPermits::default());
    }

    fn fail(&mut self, error: Error) {
        if self.failure.is_none() {
            self.failure = Some(error);
        }
        self.phase = Phase::Aborting;
    }

    /// When nothing is under way any more, writes the last objects.
    fn close_if_quiet(&mut self) {
        let is_quiet = self.tasks.len() == usize::from(self.batches.is_waiting)
            && self.gatherers.is_empty()
            && self.work.is_empty()
            && self.packs.finished.is_empty()
            && (self.intake.is_none() || self.phase == Phase::Aborting);
        if !is_quiet {
            return;
        }
        if self.failure.is_some() {
            self.phase = Phase::Done;
            return;
        }
        if let Err(error) = self.ledger.verify() {
            self.failure = Some(error);
            self.phase = Phase::Done;
            return;
        }
        if !self.packs.rows.is_empty() {
            let rows = std::mem::take(&mut self.packs.rows);
            return self.write_segment(rows);
        }
        self.phase = Phase::Closing;
        let repository = self.shared.repository.clone();
        let record = RunRecord {
            started: self.started,
            written: repository.now(),
            ended: true,
            ledger: self.ledger.clone(),
            heads: std::mem::take(&mut self.heads).into_values().collect(),
        };
        let write = async move { Ok(Event::Recorded(RunWriter::new(repository).write(&record).await?)) };
        self.tasks.push(write.boxed());
    }
}

impl Stream for Transfer {
    type Item = Outcome;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Outcome>> {
        loop {
            if let Some(outcome) = self.outcomes.pop_front() {
                return Poll::Ready(Some(outcome));
            }
            if self.phase == Phase::Done {
                self.release();
                return Poll::Ready(None);
            }
            if self.shutdown.as_mut().is_some_and(|signal| signal.poll_unpin(cx).is_ready()) {
                self.shutdown = None;
                if matches!(self.phase, Phase::Running | Phase::Starting) {
                    self.phase = Phase::Stopping;
                }
            }
            self.schedule();
            if self.phase == Phase::Done {
                continue;
            }
            match self.tasks.poll_next_unpin(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(event))) => self.handle(event),
                Poll::Ready(Some(Err(error))) => self.fail(error),
                Poll::Ready(None) => {
                    let error = Error::internal("a transfer has nothing to do and is not done");
                    self.failure.get_or_insert(error);
                    self.phase = Phase::Done;
                }
            }
        }
    }
}

impl fmt::Debug for Transfer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transfer").field("phase", &self.phase).field("ledger", &self.ledger).finish()
    }
}

impl Shared {
    /// Waits for the memory of one lane, its pack and a batch, all at once, so that no two transfers hold a part each.
    async fn begin(self) -> Result<Event> {
        load_index(&self.repository, self.resources.index()).await?;
        let budget = self.resources.budget();
        let mut all = budget.acquire(Lane::WORKING_SET + self.pack_permit + BATCH).await;
        let pack = all.split(self.pack_permit);
        let batch = all.split(BATCH);
        Ok(Event::Begun(all, pack, batch))
    }
}

/// Fills the index from the repository's segments, with the rows of packs that are seen to exist.
async fn load_index(repository: &Repository, index: &RamIndex) -> Result<()> {
    if repository.claim_index_load() {
        let packs = repository.packs().await?;
        read_segments(repository, &packs, |rows| index.insert(rows)).await?;
    }
    Ok(())
}

impl Lanes {
    fn count(&self) -> usize {
        self.idle.len() + self.parked.len() + self.running
    }
}

impl BatchPermits {
    /// Memory for a batch, if there is any now. What the transfer has of its own is taken last.
    fn take(&mut self, budget: &Budget) -> Option<BatchPermit> {
        let shared = self.granted.take().or_else(|| budget.try_acquire(BATCH));
        let shared = shared.map(|permit| BatchPermit { permit, is_own: false });
        shared.or_else(|| Some(BatchPermit { permit: self.own.take()?, is_own: true }))
    }

    /// A batch's memory is free.
    fn give_back(&mut self, permit: BatchPermit) {
        if permit.is_own {
            self.own = Some(permit.permit);
        }
    }
}

impl BatchPermit {
    /// Gives back what exceeds `octets`.
    fn shrink(&mut self, octets: u64) {
        if !self.is_own {
            self.permit.shrink(octets);
        }
    }
}
