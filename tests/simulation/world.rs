//! The world of one seed: processes that are polled as the seed decides, what they share, and the model that they are held to.

use crate::coverage::Event;
use crate::mail;
use crate::model::{Key, Model};
use crate::process::{self, Context, Record, Records, Restored};
use crate::random::Random;
use crate::store::{Manner, Network, Phase, Weather};
use futures::channel::oneshot;
use futures::future::FutureExt;
use mailrail::check::CheckReport;
use mailrail::ledger::{Ledger, describe};
use mailrail::message::MailboxName;
use mailrail::source::Source;
use mailrail::{Engine, Error, ErrorKind, Protection};
use std::collections::BTreeMap;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context as TaskContext, Poll, Wake, Waker};

/// More polls and events than any round takes.
const STEPS_MAX: u64 = 100_000;

pub struct World {
    pub seed: u64,
    pub random: Random,
    pub network: Network,
    pub protection: Protection,
    pub model: Model,
    pub mailboxes: usize,
    /// Whether nothing that follows from conditional writes holds.
    pub is_lawless: bool,
    /// How many messages fill a commit.
    pub commit_messages: u32,
    running: Vec<Running>,
    /// What runs said they had stored.
    claimed: u64,
    /// The accounts of runs that ended in good order.
    accounts: Vec<Ledger>,
    /// How many commits came late.
    late: u64,
}

struct Running {
    number: usize,
    generation: usize,
    role: Role,
    future: Option<Pin<Box<dyn Future<Output = ()>>>>,
    is_woken: Arc<Woken>,
    record: Records,
    stop: Option<oneshot::Sender<()>>,
    /// How many commits had come late when it began.
    late: u64,
    /// What had been acknowledged when a restore began.
    model: Option<Box<Model>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Push,
    Append,
    Restore,
    Check,
}

/// What a restore delivered.
pub type Delivered = BTreeMap<MailboxName, mailrail::testing::sink::Mailbox>;

/// What came of a round.
#[derive(Clone, Copy, Debug, Default)]
pub struct Round {
    /// Everything ended in good order.
    pub is_undisturbed: bool,
    /// What its runs said they had stored.
    pub stored: u64,
}

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl World {
    pub fn new(seed: u64, random: Random, network: Network, protection: Protection, mailboxes: usize) -> Self {
        let model = Model::default();
        Self {
            seed,
            random,
            network,
            protection,
            model,
            mailboxes,
            is_lawless: false,
            commit_messages: 3,
            running: Vec::new(),
            claimed: 0,
            accounts: Vec::new(),
            late: 0,
        }
    }

    fn context(&self, number: usize, store: Arc<dyn mailrail::store::Store>) -> Context {
        let (network, protection) = (self.network.clone(), self.protection.clone());
        let is_first = !network.has("config");
        Context { network, number, store, protection, seed: self.seed, commit_messages: self.commit_messages, is_first }
    }

    /// A process that moves the enumerated source as it is now, so many times at once.
    pub fn push(&mut self, transfers: usize, weather: Weather) -> usize {
        let (number, store) = self.network.process(self.model.generation, weather, false);
        let sources: Vec<Arc<dyn Source>> = (0..transfers)
            .map(|_| mail::dripping(self.model.source(self.mailboxes), self.random.between(1, 3)))
            .collect();
        let (stop, signal) = oneshot::channel();
        let (context, record) = (self.context(number, store), Records::default());
        let future = process::push(context, sources, Rc::clone(&record), signal);
        self.start(number, Role::Push, future, record, Some(stop));
        number
    }

    /// A process that appends to a mailbox what was not acknowledged yet.
    pub fn append(&mut self, mailbox: usize, weather: Weather) -> usize {
        let (number, store) = self.network.process(self.model.generation, weather, false);
        let messages = self.model.unacknowledged(mailbox);
        let messages = messages.into_iter().filter_map(|key| {
            let version = self.model.version(&key)?;
            let (envelope, octets) = (version.envelope(&key.1), version.octets.clone());
            Some((key, envelope, octets))
        });
        let messages = messages.collect();
        let (context, record) = (self.context(number, store), Records::default());
        let future = process::append(context, mailbox, messages, Rc::clone(&record));
        self.start(number, Role::Append, future, record, None);
        number
    }

    /// A process that restores everything.
    pub fn restore(&mut self, weather: Weather) -> usize {
        let (number, store) = self.network.process(self.model.generation, weather, true);
        let (context, record) = (self.context(number, store), Records::default());
        let future = process::restore(context, Rc::clone(&record));
        self.start(number, Role::Restore, future, record, None);
        number
    }

    /// A process that checks everything.
    pub fn check(&mut self, weather: Weather) -> usize {
        let (number, store) = self.network.process(self.model.generation, weather, true);
        let read_data = self.random.per_mille(300);
        let (context, record) = (self.context(number, store), Records::default());
        let future = process::check(context, read_data, Rc::clone(&record));
        self.start(number, Role::Check, future, record, None);
        number
    }

    fn start(
        &mut self,
        number: usize,
        role: Role,
        future: impl Future<Output = ()> + 'static,
        record: Records,
        stop: Option<oneshot::Sender<()>>,
    ) {
        let (late, generation) = (self.late, self.model.generation);
        self.network.log(|| format!("p{number} begins: {role:?} of generation {generation}"));
        let model = (role == Role::Restore).then(|| Box::new(self.model.clone()));
        let is_woken = Arc::new(Woken(AtomicBool::new(true)));
        let future: Pin<Box<dyn Future<Output = ()>>> = Box::pin(future);
        self.running.push(Running {
            number,
            generation,
            role,
            future: Some(future),
            is_woken,
            record,
            stop,
            late,
            model,
        });
    }

    /// Lets the processes run until all have ended or were ended.
    pub fn run(&mut self) -> Result<Round, String> {
        for _ in 0..STEPS_MAX {
            let ready: Vec<usize> = (0..self.running.len()).filter(|at| self.running[*at].is_ready()).collect();
            if !ready.is_empty() {
                let at = *self.random.pick(&ready);
                self.poll(at)?;
            } else if self.running.iter().all(|running| running.future.is_none()) {
                return self.conclude();
            } else if !self.network.step() {
                return Err(format!(
                    "{} wait for nothing",
                    self.running.iter().filter(|running| running.future.is_some()).count()
                ));
            }
            self.take_late();
            self.take_blow();
        }
        Err("there is no end of it".to_owned())
    }

    fn poll(&mut self, at: usize) -> Result<(), String> {
        let running = &mut self.running[at];
        running.is_woken.0.store(false, Ordering::SeqCst);
        let Some(future) = &mut running.future else { return Ok(()) };
        let waker = Waker::from(Arc::clone(&running.is_woken));
        if let Poll::Ready(()) = future.as_mut().poll(&mut TaskContext::from_waker(&waker)) {
            running.future = None;
        }
        let told = std::mem::take(&mut running.record.borrow_mut().told);
        let generation = running.generation;
        for told in told {
            self.network.log(|| format!("told {told:?}"));
            self.model.told(generation, &told)?;
        }
        let running = &self.running[at];
        if running.future.is_none() && running.role == Role::Push && running.is_complete() && running.late == self.late
        {
            self.model.complete(generation);
        }
        Ok(())
    }

    fn take_late(&mut self) {
        for generation in self.network.late_commits() {
            self.late += 1;
            self.model.came_late(generation);
        }
    }

    fn take_blow(&mut self) {
        let Some(blow) = self.network.struck() else { return };
        self.network.count(match blow.manner {
            Manner::Kill => Event::Kill,
            Manner::Power => Event::Power,
            Manner::Drop => Event::Dropped,
            Manner::Stop => Event::Stopped,
        });
        if blow.manner == Manner::Stop {
            let stops = self.running.iter_mut().filter(|running| running.number == blow.process);
            stops.filter_map(|running| running.stop.take()).for_each(|stop| stop.send(()).unwrap_or_default());
            return;
        }
        self.network.count(match blow.phase {
            Phase::Intake => Event::CrashIntake,
            Phase::Pack => Event::CrashPack,
            Phase::Commit => Event::CrashCommit,
            Phase::Segment => Event::CrashSegment,
            Phase::Record => Event::CrashRecord,
            Phase::Idle => Event::CrashIdle,
            Phase::Restore => Event::CrashRestore,
        });
        let running = self.running.iter_mut();
        let ended = running.filter(|running| blow.manner == Manner::Power || running.number == blow.process);
        let futures: Vec<_> = ended.filter_map(|running| running.future.take()).collect();
        self.network.ending(blow.manner, || drop(futures));
    }

    /// What is to be said of processes that have ended.
    fn conclude(&mut self) -> Result<Round, String> {
        let mut round = Round { is_undisturbed: true, stored: 0 };
        for running in std::mem::take(&mut self.running) {
            let faults = self.network.faults(running.number);
            let Record { ledgers, ended, restored, checked, complete, .. } = &*running.record.borrow();
            let is_disturbed = !matches!(ended, Some(Ok(())));
            round.is_undisturbed &= !is_disturbed;
            self.network.log(|| format!("p{} ended: {ended:?}", running.number));
            if let Some(Err(error)) = ended {
                judge(error, faults, self.is_lawless)?;
            }
            for (ledger, is_complete) in ledgers.iter().zip(complete) {
                ledger.verify().map_err(|error| describe(&error))?;
                if ledger.bytes.duplicate > 0 {
                    self.network.count(Event::Hit);
                }
                round.stored += ledger.messages.stored;
                let is_all = ledger.messages.stored + ledger.messages.unchanged == ledger.messages.seen;
                if *is_complete && !is_all {
                    return Err(format!("a run that says it is complete is not: {ledger:?}"));
                }
                if !is_disturbed {
                    self.accounts.push(ledger.clone());
                }
            }
            if let (Some(Restored { mailboxes, report }), Some(model)) = (restored, &running.model) {
                if report.failed > 0 && faults == 0 && !self.is_lawless {
                    return Err(format!("a restore failed without a fault: {:?}", report.failures));
                }
                let mut model = (**model).clone();
                if self.late > running.late {
                    // A commit of an older generation came meanwhile.
                    model.came_late(0);
                }
                model.verify(mailboxes, report.failed == 0 && faults == 0)?;
            }
            if let Some(report) = checked
                && faults == 0
                && !report.is_sound()
                && !self.is_lawless
            {
                return Err(format!(
                    "a check beside other processes finds damage: {:?} {:?}",
                    report.damaged, report.touched
                ));
            }
        }
        self.claimed += round.stored;
        Ok(round)
    }

    /// Opens the repository, without faults and at once; `None` if there is none yet.
    pub fn engine(&mut self) -> Result<Option<Engine>, String> {
        if !self.network.has("config") {
            return Ok(None);
        }
        let (number, store) = self.network.direct(self.model.generation);
        let context = self.context(number, store);
        now(context.engine()).map(Some)
    }

    /// Looks at what is there after a round: restored, it is what was acknowledged; checked, it is sound; no account lies.
    pub fn inspect(&mut self, read_data: bool) -> Result<(CheckReport, Delivered), String> {
        let Some(engine) = self.engine()? else {
            self.model.verify(&Delivered::new(), true)?;
            return Ok((CheckReport::default(), Delivered::new()));
        };
        let restored = restored(&engine)?;
        if restored.report.failed > 0 {
            return Err(format!("a restore failed: {:?}", restored.report.failures));
        }
        self.model.verify(&restored.mailboxes, true)?;
        let check = now(engine.check().read_data(read_data).finish())?;
        if !check.is_sound() {
            return Err(format!("a check finds damage: {:?} {:?}", check.damaged, check.touched));
        }
        if self.claimed > check.messages {
            return Err(format!(
                "runs said that they stored {} messages, and there are {}",
                self.claimed, check.messages
            ));
        }
        self.look_at_runs(&engine)?;
        Ok((check, restored.mailboxes))
    }

    /// Each run that ended in good order has a record of just what it said.
    fn look_at_runs(&self, engine: &Engine) -> Result<(), String> {
        let mut runs = now(engine.runs())?;
        for run in &runs {
            run.ledger.verify().map_err(|error| describe(&error))?;
        }
        for account in &self.accounts {
            let found = runs
                .iter()
                .position(|run| (&run.ledger.messages, &run.ledger.changes) == (&account.messages, &account.changes));
            match found {
                Some(at) => drop(runs.swap_remove(at)),
                None => return Err(format!("the record of a run is missing, or another: {account:?}")),
            }
        }
        Ok(())
    }

    /// Moves the source as it is now, without faults and at once.
    pub fn push_directly(&mut self) -> Result<Ledger, String> {
        let (number, store) = self.network.direct(self.model.generation);
        let context = self.context(number, store);
        let source = mail::dripping(self.model.source(self.mailboxes), u64::from(self.commit_messages));
        let ledger = now(async { context.engine().await?.transfer_shared(source).finish().await })?.ledger;
        ledger.verify().map_err(|error| describe(&error))?;
        self.claimed += ledger.messages.stored;
        self.model.complete(self.model.generation);
        Ok(ledger)
    }

    /// Everything that may still come late comes.
    pub fn drain(&mut self) {
        self.network.drain();
        self.take_late();
    }

    /// How many commits came late so far.
    pub fn late(&self) -> u64 {
        self.late
    }

    /// The messages of the enumerated source.
    pub fn messages(&self) -> Vec<Key> {
        self.model.pulled()
    }
}

impl Running {
    fn is_ready(&self) -> bool {
        self.future.is_some() && self.is_woken.0.load(Ordering::SeqCst)
    }

    fn is_complete(&self) -> bool {
        let record = self.record.borrow();
        matches!(record.ended, Some(Ok(()))) && record.complete.iter().all(|complete| *complete)
    }
}

/// Restores everything, without faults and at once.
pub fn restored(engine: &Engine) -> Result<Restored, String> {
    let sink = mailrail::testing::sink::Memory::new(mailrail::source::Kind::Other("memory".into()));
    let report = now(engine.restore(sink.clone()).finish())?;
    Ok(Restored { mailboxes: sink.mailboxes(), report })
}

/// The result of something that waits for nothing.
pub fn now<T>(future: impl Future<Output = mailrail::Result<T>>) -> Result<T, String> {
    let result = future.now_or_never().ok_or("something waits that has nothing to wait for")?;
    result.map_err(|error| format!("without a fault: {}", describe(&error)))
}

/// Whether a process may have failed so.
fn judge(error: &Error, faults: u64, is_lawless: bool) -> Result<(), String> {
    let is_legal = match error.kind() {
        ErrorKind::Internal => false,
        _ => faults > 0 || is_lawless,
    };
    if is_legal { Ok(()) } else { Err(format!("a process with {faults} faults failed: {error:?}")) }
}
