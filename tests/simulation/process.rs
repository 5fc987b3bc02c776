//! What a process does: pushes, appends, restores, checks. Each is a future that tells in a record what came of it, as it comes.

use crate::mail;
use crate::model::{APPENDED, Key, Told};
use crate::store::Network;
use bytes::Bytes;
use futures::channel::oneshot;
use futures::future;
use mailrail::check::CheckReport;
use mailrail::ledger::Ledger;
use mailrail::message::{Envelope, Identity, MailboxName};
use mailrail::repository::Seams;
use mailrail::restore::RestoreReport;
use mailrail::source::{Kind, Source};
use mailrail::store::Store;
use mailrail::sweep::SweepReport;
use mailrail::testing::{SeededRandomness, sink};
use mailrail::transfer::{Outcome, Settled};
use mailrail::{Compression, Engine, ErrorKind, Protection, Repository, Resources, Result, Settings};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

/// The budget of every process, in octets.
const MEMORY: u64 = 64 << 20;

/// What a process has to work with.
#[derive(Clone)]
pub struct Context {
    pub network: Network,
    pub number: usize,
    pub store: Arc<dyn Store>,
    pub protection: Protection,
    pub seed: u64,
    /// How many messages fill a commit.
    pub commit_messages: u32,
    /// There was no repository when it began.
    pub is_first: bool,
    /// It does nothing for so many microseconds at first.
    pub delay: u64,
}

/// What came of a process so far.
#[derive(Debug, Default)]
pub struct Record {
    /// What was told and not looked at yet.
    pub told: Vec<Told>,
    /// The account of each of its transfers, as it was last seen.
    pub ledgers: Vec<Ledger>,
    /// Whether each of its transfers ended in good order with everything done.
    pub complete: Vec<bool>,
    pub restored: Option<Restored>,
    pub checked: Option<CheckReport>,
    /// What sweeps did, that was not looked at yet.
    pub swept: Vec<SweepReport>,
    /// How it ended, if it did.
    pub ended: Option<Result<()>>,
}

/// What is to be forgotten.
#[derive(Clone, Copy, Debug)]
pub enum Which {
    Mailbox(usize),
    /// Of all mailboxes what was there before this time.
    Before(u64),
}

pub type Records = Rc<RefCell<Record>>;

#[derive(Debug)]
pub struct Restored {
    pub mailboxes: BTreeMap<MailboxName, sink::Mailbox>,
    pub report: RestoreReport,
}

/// Resolves when the process is to stop in good order.
pub type Stop = oneshot::Receiver<()>;

/// Settings with which twenty messages make several packs and commits.
fn settings(commit_messages: u32) -> Settings {
    let mut settings = Settings::default();
    (settings.pack_bytes_max, settings.commit_messages_max) = (16 << 10, commit_messages);
    (settings.recipe_block_bytes, settings.compression) = (4 << 10, Compression::Level(1));
    settings
}

impl Context {
    pub async fn engine(&self) -> Result<Engine> {
        let seams = self.seams();
        let store = Arc::clone(&self.store);
        let repository = Repository::open_or_create_with(store, self.protection.clone(), seams).await?;
        let resources = Resources::inline(MEMORY)?;
        Engine::builder(repository).resources(resources).settings(settings(self.commit_messages)).build()
    }

    /// The same over a repository that is there; `None` if there is none and there was none when the process began.
    async fn reader(&self) -> Result<Option<Engine>> {
        let store = Arc::clone(&self.store);
        let repository = match Repository::open_with(store, self.protection.clone(), self.seams()).await {
            Err(error) if error.kind() == ErrorKind::NotFound && self.is_first => return Ok(None),
            opened => opened?,
        };
        let resources = Resources::inline(MEMORY)?;
        Engine::builder(repository).resources(resources).settings(settings(self.commit_messages)).build().map(Some)
    }

    fn seams(&self) -> Seams {
        let mut seams = Seams::default();
        (seams.clock, seams.timer) = (Arc::new(self.network.clock()), Arc::new(self.network.clock()));
        seams.executor = Arc::new(mailrail::runtime::Inline);
        seams.randomness = Arc::new(SeededRandomness::new(self.seed << 8 ^ self.number as u64));
        seams
    }

    async fn begin(&self) {
        self.sleep(self.delay).await;
    }

    async fn sleep(&self, time: u64) {
        if time > 0 {
            self.network.sleep(self.number, time).await;
        }
    }

    async fn idle(&self) {
        self.network.idle(self.number).await;
    }
}

/// Moves sources, all at once, in one engine; the first of them once more after so many microseconds, if it is said.
pub async fn push(context: Context, sources: Vec<Arc<dyn Source>>, again: Option<u64>, record: Records, stop: Stop) {
    let ended = async {
        context.begin().await;
        let engine = context.engine().await?;
        context.idle().await;
        let stop = future::FutureExt::shared(async move {
            if stop.await.is_err() {
                future::pending::<()>().await;
            }
        });
        let first = sources.first().cloned();
        let begin = |source: Arc<dyn Source>| {
            let number = record.borrow().ledgers.len();
            record.borrow_mut().ledgers.push(Ledger::default());
            record.borrow_mut().complete.push(false);
            transfer(&engine, source, number, &record, stop.clone())
        };
        let ended = future::join_all(sources.into_iter().map(begin)).await;
        context.idle().await;
        ended.into_iter().collect::<Result<()>>()?;
        if let (Some(again), Some(source)) = (again, first) {
            context.sleep(again).await;
            begin(source).await?;
        }
        Ok(())
    };
    let ended = ended.await;
    record.borrow_mut().ended = Some(ended);
}

async fn transfer(
    engine: &Engine,
    source: Arc<dyn Source>,
    number: usize,
    record: &Records,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<()> {
    let mut transfer = engine.transfer(source).shutdown_on(stop);
    while let Some(outcome) = transfer.next().await {
        let mut record = record.borrow_mut();
        record.told.extend(told(&outcome));
        record.ledgers[number] = transfer.ledger().clone();
    }
    record.borrow_mut().ledgers[number] = transfer.ledger().clone();
    let report = transfer.finish().await?;
    let mut record = record.borrow_mut();
    record.complete[number] = !report.stopped && report.ledger.is_complete();
    record.ledgers[number] = report.ledger;
    Ok(())
}

fn told(outcome: &Outcome) -> Option<Told> {
    let mailbox = (0..mail::MAILBOXES.len()).find(|number| mail::mailbox(*number) == *outcome.mailbox)?;
    let Identity::Named(name) = &outcome.identity else { return None };
    let key = (mailbox, String::from_utf8_lossy(name).into_owned());
    match outcome.settled {
        Settled::Stored { .. } => Some(Told::Stored(key)),
        Settled::Unchanged { .. } => Some(Told::Unchanged(key)),
        Settled::Quarantined { .. } => Some(Told::Quarantined(key)),
        _ => None,
    }
}

/// Appends messages that were not acknowledged yet, a few at a time, with pauses in which nothing is under way.
pub async fn append(context: Context, mailbox: usize, messages: Vec<(Key, Envelope, Bytes)>, record: Records) {
    let ended = async {
        context.begin().await;
        let engine = context.engine().await?;
        record.borrow_mut().ledgers.push(Ledger::default());
        record.borrow_mut().complete.push(false);
        let (appender, transfer) = engine.append_to(mail::mailbox(mailbox), mail::source_id(APPENDED));
        let appends = async {
            for group in messages.chunks(2) {
                let appends = group.iter().map(|(key, envelope, octets)| {
                    let (appender, record) = (&appender, &record);
                    async move {
                        let Identity::Named(name) = envelope.identity.clone() else { return Ok(()) };
                        if appender.has(envelope.folder.clone(), name).await? {
                            record.borrow_mut().told.push(Told::Unchanged(key.clone()));
                            return Ok(());
                        }
                        match appender.append(envelope.clone(), octets.clone()).await? {
                            Settled::Stored { .. } => record.borrow_mut().told.push(Told::Stored(key.clone())),
                            _ => record.borrow_mut().told.push(Told::Unchanged(key.clone())),
                        }
                        Ok(())
                    }
                });
                let appended: Result<Vec<()>> = future::join_all(appends).await.into_iter().collect();
                appended?;
                context.idle().await;
            }
            drop(appender);
            Ok::<_, mailrail::Error>(())
        };
        let (appended, finished) = future::join(appends, transfer.finish()).await;
        let report = finished?;
        record.borrow_mut().ledgers[0] = report.ledger;
        appended
    };
    let ended = ended.await;
    record.borrow_mut().ended = Some(ended);
}

/// Restores everything.
pub async fn restore(context: Context, record: Records) {
    let ended = async {
        context.begin().await;
        let Some(engine) = context.reader().await? else { return Ok(()) };
        let sink = sink::Memory::new(Kind::Other("memory".into()));
        let report = engine.restore(sink.clone()).finish().await?;
        record.borrow_mut().restored = Some(Restored { mailboxes: sink.mailboxes(), report });
        Ok(())
    };
    let ended = ended.await;
    record.borrow_mut().ended = Some(ended);
}

/// Checks everything.
pub async fn check(context: Context, read_data: bool, record: Records) {
    let ended = async {
        context.begin().await;
        let Some(engine) = context.reader().await? else { return Ok(()) };
        let report = engine.check().read_data(read_data).finish().await?;
        record.borrow_mut().checked = Some(report);
        Ok(())
    };
    let ended = ended.await;
    record.borrow_mut().ended = Some(ended);
}

/// Forgets.
pub async fn forget(context: Context, which: Which, record: Records) {
    let ended = async {
        context.begin().await;
        let Some(engine) = context.reader().await? else { return Ok(()) };
        forget_in(&engine, which).await
    };
    let ended = ended.await;
    record.borrow_mut().ended = Some(ended);
}

pub async fn forget_in(engine: &Engine, which: Which) -> Result<()> {
    let forgotten = match which {
        Which::Mailbox(number) => engine.forget().mailboxes([mail::mailbox(number)]).finish().await,
        Which::Before(time) => engine.forget().all_mailboxes().before(time).finish().await,
    };
    match forgotten {
        // Nothing was pushed into it yet.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        forgotten => forgotten.map(drop),
    }
}

/// What sweeps leave.
#[derive(Clone, Copy, Debug)]
pub struct Thoroughness {
    pub runs_kept: Option<usize>,
    pub needed_percent_min: u64,
}

impl Default for Thoroughness {
    fn default() -> Self {
        Self { runs_kept: None, needed_percent_min: 50 }
    }
}

/// Sweeps so many times, one after the other.
pub async fn sweep(context: Context, sweeps: u64, thoroughness: Thoroughness, record: Records) {
    let ended = async {
        context.begin().await;
        let Some(engine) = context.reader().await? else { return Ok(()) };
        for _ in 0..sweeps {
            context.network.begin_sweep(context.number);
            let report = sweep_in(&engine, thoroughness).await?;
            record.borrow_mut().swept.push(report);
        }
        Ok(())
    };
    let ended = ended.await;
    record.borrow_mut().ended = Some(ended);
}

pub async fn sweep_in(engine: &Engine, thoroughness: Thoroughness) -> Result<SweepReport> {
    let sweep = engine.sweep().needed_percent_min(thoroughness.needed_percent_min);
    let sweep = match thoroughness.runs_kept {
        Some(runs) => sweep.runs_kept(runs),
        None => sweep,
    };
    sweep.finish().await
}
