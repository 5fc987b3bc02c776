//! Transfers: from a source into a repository.
//!
//! A transfer is one future, driven by whoever polls it. It spawns nothing: work that computes or blocks goes to the executor as jobs that never
//! wait, and everything that waits is here. Intake finds what must be read; lanes read it; gatherers make commits of it.
//! docs/decisions/0001-foundation.md has the reasons, and why the budget cannot deadlock.

mod append;
mod commit;
mod dedup;
mod effort;
mod gather;
mod intake;
mod known;
mod lane;
mod pieces;
mod registration;
mod schedule;
mod settle;
mod shares;
mod state;
mod trust;
mod walk;

use crate::budget::Permit;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::ledger::{Grade, Ledger};
use crate::message::{Identity, MailboxName};
use crate::pack::{FinishedPack, PackId, Packers, Row};
use crate::repository::{CompressedBlock, JournalHead, Repository, RunId};
use crate::resources::Resources;
use crate::settings::Settings;
use crate::source::{Kind, Reason, Source, SourceId};
use crate::store::{Cost, Usage};
pub use append::Appender;
use bytes::Bytes;
use commit::Committed;
use dedup::Dedup;
use effort::Effort;
use futures::future::{AbortHandle, BoxFuture};
use futures::stream::FuturesUnordered;
use futures::{FutureExt, Stream, StreamExt};
use intake::{BATCH, Intake, Lister, Receiving, Taken};
use lane::{Lane, LaneContext, Output, Step};
use registration::Registration;
pub use shares::Shares;
use shares::Times;
use state::{BatchPermit, BatchPermits, Gatherers, Lanes, PackMemory, Packs, Work};
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use walk::{Walked, Walks};

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
    /// The run, as its record in the repository is named.
    pub run: Option<RunId>,
    /// What the ledger amounts to.
    pub grade: Grade,
    /// Whether the run was stopped before its end.
    pub stopped: bool,
    /// Whether it was stopped because more messages were quarantined than [`Settings::quarantined_max`] allows.
    pub quarantine_exceeded: bool,
    /// The most octets that the budget permitted at once.
    pub peak_budget_bytes: u64,
    /// What was asked of the store meanwhile, by all who share its [governor](crate::store::Governor); nothing if it has none.
    pub requests: Usage,
    /// What that costs by the governor's price list.
    pub cost: Option<Cost>,
    /// What the time went by for.
    pub time: Shares,
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
    /// Ends the wait for something to be appended.
    waiting: Option<AbortHandle>,
    phase: Phase,
    intake: Option<Intake>,
    /// Something more may come.
    is_taking: bool,
    /// All mailboxes of the source are listed.
    is_listed: bool,
    walks: Walks,
    /// The mailbox that messages are appended to, until no more come.
    inbox: Option<usize>,
    /// Nothing more is waiting to be appended: what was appended is to be committed.
    is_paused: bool,
    batches: BatchPermits,
    work: VecDeque<Work>,
    lanes: Lanes,
    gatherers: Gatherers,
    next_mailbox: usize,
    packs: Packs,
    /// Commits being written.
    commits: usize,
    times: Times,
    /// What was asked of the store before.
    asked_before: Usage,
    ledger: Ledger,
    started: u64,
    heads: BTreeMap<usize, JournalHead>,
    /// Octets of the names in `heads`.
    heads_octets: usize,
    outcomes: VecDeque<Outcome>,
    with_outcomes: bool,
    failure: Option<Error>,
    /// More messages are in quarantine than the settings allow: the run is over.
    is_quarantine_exceeded: bool,
    run: Option<RunId>,
}

/// What the tasks of a transfer share.
#[derive(Clone)]
struct Shared {
    repository: Repository,
    resources: Resources,
    settings: Settings,
    context: Arc<LaneContext>,
    registration: Arc<Registration>,
    /// Octets of the budget that a lane takes, and its pack.
    working_set: u64,
    pack_permit: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing was appended that is not committed: waiting for more, without memory.
    Dormant,
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

/// What a task ended with.
enum Event {
    /// The memory for the first lane, its pack, and a batch.
    Begun(Permit, Permit, Permit),
    BatchPermit(Permit),
    Taken(Intake, Result<Taken>, Option<BatchPermit>),
    Walked {
        mailbox: usize,
        walked: Result<Walked>,
        permit: BatchPermit,
    },
    StoppedWaiting,
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
        memory: PackMemory,
        /// The latest sweep that is known to spare it; `None` if it is lost.
        epoch: Option<u64>,
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
    /// A record of where journals end is written, of this length.
    Noted(u64),
    Recorded(RunId, u64),
}

impl Transfer {
    pub(crate) fn new(
        repository: Repository,
        resources: Resources,
        settings: Settings,
        source: Arc<dyn Source>,
    ) -> Self {
        let identity = (source.id(), source.kind());
        let registration = Arc::new(Registration::new(repository.clone(), &resources));
        let lister = Lister::new(Arc::clone(&registration), resources.clone(), source);
        let intake = Intake::Source(Box::new(lister));
        let mut transfer = Self::with(repository, registration, resources, settings, intake, identity);
        transfer.wake_up();
        transfer
    }

    /// A transfer of what is appended to one mailbox.
    pub(crate) fn appending(
        repository: Repository,
        resources: Resources,
        settings: Settings,
        mailbox: MailboxName,
        source: (SourceId, Kind),
    ) -> (Appender, Self) {
        let (appender, inbox) = Appender::new(mailbox, source.0, source.1.clone());
        let registration = Arc::new(Registration::new(repository.clone(), &resources));
        registration.want([inbox.mailbox.clone()]);
        let receiving = Receiving::new((repository.clone(), Arc::clone(&registration)), resources.clone(), inbox);
        let intake = Intake::Inbox(Box::new(receiving));
        let mut transfer = Self::with(repository, registration, resources, settings, intake, source);
        transfer.with_outcomes = false;
        transfer.phase = Phase::Dormant;
        (appender, transfer)
    }

    fn with(
        repository: Repository,
        registration: Arc<Registration>,
        resources: Resources,
        settings: Settings,
        intake: Intake,
        source: (SourceId, Kind),
    ) -> Self {
        let pack_target = pack_target(&resources, &settings);
        let domain = repository.domain().clone();
        let dedup = Dedup::new(Arc::clone(resources.index()), repository.id());
        let effort = Effort::new(settings.compression);
        let (packers, heals) = (Packers::new(resources.index().acquisitions()), AtomicBool::new(false));
        let context = LaneContext { domain, dedup, effort, packers, pack_target, heals };
        let started = repository.now();
        let pack_permit = Lane::pack_octets(&settings, pack_target);
        let context = Arc::new(context);
        let working_set = Lane::working_set(&settings);
        let asked_before = repository.usage();
        let shared = Shared { repository, resources, settings, context, registration, working_set, pack_permit };
        Self {
            shared,
            source,
            tasks: FuturesUnordered::new(),
            shutdown: None,
            waiting: None,
            phase: Phase::Starting,
            intake: Some(intake),
            is_taking: true,
            is_listed: false,
            walks: Walks::default(),
            inbox: None,
            is_paused: false,
            batches: BatchPermits::default(),
            work: VecDeque::new(),
            lanes: Lanes::default(),
            gatherers: Gatherers::default(),
            next_mailbox: 0,
            packs: Packs::default(),
            commits: 0,
            times: Times::default(),
            asked_before,
            ledger: Ledger::default(),
            started,
            heads: BTreeMap::new(),
            heads_octets: 0,
            outcomes: VecDeque::new(),
            with_outcomes: true,
            failure: None,
            is_quarantine_exceeded: false,
            run: None,
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
            self.stop_waiting();
        }
        self.finish().await
    }

    fn report(&self) -> Result<Report> {
        self.ledger.verify()?;
        let requests = self.shared.repository.usage().since(&self.asked_before);
        Ok(Report {
            schema: 1,
            run: self.run,
            grade: self.ledger.grade(),
            quarantine_exceeded: self.is_quarantine_exceeded,
            ledger: self.ledger.clone(),
            stopped: self.ledger.messages.pending > 0 || self.is_taking,
            peak_budget_bytes: self.shared.resources.budget().peak(),
            requests,
            cost: self.shared.repository.cost(&requests),
            time: self.times.shares(),
        })
    }
}

impl Stream for Transfer {
    type Item = Outcome;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Outcome>> {
        if let Some(outcome) = self.outcomes.pop_front() {
            return Poll::Ready(Some(outcome));
        }
        self.time_for_work();
        let polled = self.go_on(cx);
        self.time_for_others();
        polled
    }
}

impl Transfer {
    /// Does what can be done, until there is an outcome.
    fn go_on(&mut self, cx: &mut Context<'_>) -> Poll<Option<Outcome>> {
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
                if matches!(self.phase, Phase::Dormant | Phase::Running | Phase::Starting) {
                    self.phase = Phase::Stopping;
                    self.stop_waiting();
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

/// A pack of at least so many octets is finished.
fn pack_target(resources: &Resources, settings: &Settings) -> usize {
    let eighth = usize::try_from(resources.budget().octets() / 8).unwrap_or(usize::MAX);
    settings.pack_bytes_max.min(eighth)
}

/// The octets of the budget without which no transfer begins: those of one lane, its pack and a batch.
pub(crate) fn memory_needed(resources: &Resources, settings: &Settings) -> u64 {
    Lane::working_set(settings) + Lane::pack_octets(settings, pack_target(resources, settings)) + BATCH
}

impl Shared {
    /// Waits for the memory of one lane, its pack and a batch, all at once, so that no two transfers hold a part each.
    async fn begin(self) -> Result<Event> {
        let has_bad_packs = self.registration.begin(&self.context.dedup).await?;
        self.context.heals.store(has_bad_packs && self.settings.reread, Ordering::Relaxed);
        let budget = self.resources.budget();
        let mut all = budget.acquire(memory_needed(&self.resources, &self.settings)).await;
        let pack = all.split(self.pack_permit);
        let batch = all.split(BATCH);
        Ok(Event::Begun(all, pack, batch))
    }
}
