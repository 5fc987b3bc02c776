//! The world of one seed: processes that are polled as the seed decides, what they share, and the model that they are held to.

use crate::common::Driven;
use crate::coverage::Event;
use crate::history::{self, History};
use crate::mail;
use crate::model::{Delivered, Key, Model, Told};
use crate::process::{self, Context, Record, Records, Restored, Thoroughness, Which};
use crate::random::Random;
use crate::store::{Blow, Forgot, Manner, Network, Part, Phase, Weather};
use futures::channel::oneshot;
use futures::future::FutureExt;
use mailrail::check::CheckReport;
use mailrail::ledger::{Ledger, describe};
use mailrail::restore::Failure;
use mailrail::source::{Reason, Source};
use mailrail::sweep::SweepReport;
use mailrail::testing::source::{Fault, Scripted};
use mailrail::{Engine, Error, ErrorKind, Protection};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

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
    /// What goes wrong with messages for as long as it is there.
    pub lasting: BTreeMap<Key, Fault>,
    pub history: History,
    running: Vec<Running>,
    /// What runs said they had stored.
    claimed: u64,
    /// The accounts of runs that ended in good order.
    accounts: Vec<Ledger>,
    /// How many commits came late.
    late: u64,
    /// Which mailbox a process forgets.
    forgetting: BTreeMap<usize, usize>,
    /// How often anything was forgotten.
    forgot: u64,
    /// What was stored may be forgotten since it was last looked at.
    is_claim_void: bool,
    /// Whether anybody has swept.
    is_swept: bool,
    /// How many messages may have a row for what could be read of them.
    faulted: u64,
    /// Whether sweeps may delete records of runs.
    are_records_deleted: bool,
}

/// How a process begins.
#[derive(Clone, Copy, Debug, Default)]
pub struct Start {
    pub weather: Weather,
    /// After so many microseconds.
    pub delay: u64,
}

/// What a pushing process does.
#[derive(Clone, Copy, Debug)]
pub struct Push {
    /// How many transfers go on at once.
    pub transfers: usize,
    /// It moves the source once more after so many microseconds.
    pub again: Option<u64>,
    /// Something may go wrong with the source.
    pub is_failing: bool,
}

struct Running {
    number: usize,
    generation: usize,
    role: Role,
    driven: Option<Driven<()>>,
    record: Records,
    stop: Option<oneshot::Sender<()>>,
    /// How many commits had come late when it began.
    late: u64,
    /// What had been acknowledged when a restore began.
    model: Option<Box<Model>>,
    /// Mailboxes that were forgotten while it ran, perhaps, and when that was last.
    forgotten: BTreeMap<usize, Forgot>,
    /// Others write to the same mailboxes.
    is_contested: bool,
    /// The same, where it is not known which mailboxes.
    is_anything_forgotten: bool,
    /// Which messages it may not be able to read.
    scripted: BTreeSet<Key>,
    /// The source may fail as a whole.
    is_failing: bool,
    /// Several transfers go on in it at once.
    is_shared: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Push,
    Append,
    Restore,
    Check,
    Forget,
    Sweep,
}

/// What came of a round.
#[derive(Clone, Copy, Debug, Default)]
pub struct Round {
    /// Everything ended in good order.
    pub is_undisturbed: bool,
    /// All its runs said that they were complete.
    pub is_complete: bool,
    /// What its runs said they had stored.
    pub stored: u64,
    /// How many messages its runs said that they could not read.
    pub quarantined: u64,
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
            lasting: BTreeMap::new(),
            history: History::default(),
            running: Vec::new(),
            claimed: 0,
            accounts: Vec::new(),
            late: 0,
            forgetting: BTreeMap::new(),
            forgot: 0,
            is_claim_void: false,
            is_swept: false,
            faulted: 0,
            are_records_deleted: false,
        }
    }

    fn context(&self, number: usize, store: Arc<dyn mailrail::store::Store>) -> Context {
        let (network, protection) = (self.network.clone(), self.protection.clone());
        let is_first = !network.has("config");
        let (seed, commit_messages) = (self.seed, self.commit_messages);
        Context { network, number, store, protection, seed, commit_messages, is_first, delay: 0 }
    }

    /// Another process.
    fn begin(&self, part: Part, start: Start) -> Context {
        let (number, store) = self.network.process(self.model.generation, start.weather, part);
        Context { delay: start.delay, ..self.context(number, store) }
    }

    /// A process that moves the enumerated source as it is now.
    pub fn push(&mut self, start: Start, push: Push) -> usize {
        let Push { transfers, again, is_failing } = push;
        let context = self.begin(Part::Write, start);
        let scripted = if is_failing { self.script() } else { BTreeSet::new() };
        let sources: Vec<Arc<dyn Source>> =
            (0..transfers).map(|_| mail::dripping(self.scripted(is_failing), self.random.between(1, 3))).collect();
        let (stop, signal) = oneshot::channel();
        let (number, record) = (context.number, Records::default());
        let future = process::push(context, sources, again, Rc::clone(&record), signal);
        let running = self.start(number, Role::Push, future, record);
        (running.stop, running.scripted) = (Some(stop), scripted);
        (running.is_failing, running.is_shared) = (is_failing, transfers > 1);
        number
    }

    /// Draws what goes wrong with messages; those with which something goes wrong already keep that. Gives which messages these are.
    fn script(&mut self) -> BTreeSet<Key> {
        // Whoever is in another folder with other octets, and cannot be read there, is nowhere.
        let keys: Vec<Key> = self.model.pulled().into_iter().filter(|key| self.model.is_at_rest(key)).collect();
        self.lasting.retain(|key, _| keys.contains(key));
        self.network.add(Event::Lasting, self.lasting.len() as u64);
        for _ in 0..self.random.between(1, 3) {
            if keys.is_empty() {
                break;
            }
            let key = self.random.pick(&keys).clone();
            let octets = self.model.version(&key).map_or(0, |version| version.octets.len() as u64);
            let (fault, event) = mail::fault(octets, &mut self.random);
            self.network.count(event);
            self.lasting.insert(key, fault);
        }
        self.faulted += 4 * self.lasting.len() as u64;
        let scripted = self.lasting.keys().cloned().collect();
        // Some are well again for the next run.
        let random = &mut self.random;
        self.lasting.retain(|_, _| random.per_mille(600));
        scripted
    }

    /// The source as it is now, with what goes wrong.
    fn scripted(&mut self, is_failing: bool) -> Scripted {
        let source = Scripted::new(self.model.source(self.mailboxes));
        if !is_failing {
            return source;
        }
        for (key, fault) in &self.lasting {
            let Some(version) = self.model.version(key) else { continue };
            let identity = version.envelope(&key.1).identity;
            source.message(&mail::mailbox(key.0), version.folder, identity, fault.clone());
        }
        if self.random.per_mille(350) {
            self.network.count(Event::Unlisted);
            mail::fail_listing(&source, self.mailboxes, &mut self.random);
        }
        source
    }

    /// A process that appends to a mailbox what was not acknowledged yet.
    pub fn append(&mut self, mailbox: usize, start: Start) -> usize {
        let context = self.begin(Part::Write, start);
        let messages = self.model.unacknowledged(mailbox);
        let messages = messages.into_iter().filter_map(|key| {
            let version = self.model.version(&key)?;
            let (envelope, octets) = (version.envelope(&key.1), version.octets.clone());
            Some((key, envelope, octets))
        });
        let messages = messages.collect();
        let (number, record) = (context.number, Records::default());
        let future = process::append(context, mailbox, messages, Rc::clone(&record));
        self.start(number, Role::Append, future, record);
        number
    }

    /// A process that restores everything.
    pub fn restore(&mut self, start: Start) -> usize {
        let context = self.begin(Part::Read, start);
        let (number, record) = (context.number, Records::default());
        let future = process::restore(context, Rc::clone(&record));
        let model = Box::new(self.model.clone());
        self.start(number, Role::Restore, future, record).model = Some(model);
        number
    }

    /// A process that checks everything.
    pub fn check(&mut self, start: Start) -> usize {
        let context = self.begin(Part::Read, start);
        let read_data = self.random.per_mille(300);
        let (number, record) = (context.number, Records::default());
        let future = process::check(context, read_data, Rc::clone(&record));
        self.start(number, Role::Check, future, record);
        number
    }

    /// A process that forgets.
    pub fn forget(&mut self, which: Which, start: Start) -> usize {
        let context = self.begin(Part::Forget, start);
        self.forgets(context.number, which);
        let (number, record) = (context.number, Records::default());
        let future = process::forget(context, which, Rc::clone(&record));
        self.start(number, Role::Forget, future, record);
        number
    }

    /// A process that sweeps so many times.
    pub fn sweep(&mut self, sweeps: u64, start: Start) -> usize {
        let context = self.begin(Part::Sweep, start);
        self.is_swept = true;
        let thoroughness =
            Thoroughness { runs_kept: self.draw_runs_kept(), needed_percent_min: *self.random.pick(&[50, 90, 100]) };
        let (number, record) = (context.number, Records::default());
        let future = process::sweep(context, sweeps, thoroughness, Rc::clone(&record));
        self.start(number, Role::Sweep, future, record);
        number
    }

    /// How many runs a sweep keeps the records of, if not a thousand.
    fn draw_runs_kept(&mut self) -> Option<usize> {
        let runs = self.random.per_mille(150).then(|| self.random.below(4) as usize)?;
        // What is deleted is not compared with what runs said.
        self.accounts.clear();
        self.are_records_deleted = true;
        Some(runs)
    }

    fn forgets(&mut self, process: usize, which: Which) {
        match which {
            Which::Mailbox(mailbox) => drop(self.forgetting.insert(process, mailbox)),
            Which::Before(time) => (0..self.mailboxes).for_each(|mailbox| self.history.forget(mailbox, time)),
        }
    }

    fn start(
        &mut self,
        number: usize,
        role: Role,
        future: impl Future<Output = ()> + 'static,
        record: Records,
    ) -> &mut Running {
        let (late, generation) = (self.late, self.model.generation);
        self.network.log(|| format!("p{number} begins: {role:?} of generation {generation}"));
        self.running.push(Running {
            number,
            generation,
            role,
            driven: Some(Driven::new(future)),
            record,
            stop: None,
            late,
            model: None,
            forgotten: BTreeMap::new(),
            is_contested: false,
            is_anything_forgotten: false,
            scripted: BTreeSet::new(),
            is_failing: false,
            is_shared: false,
        });
        let at = self.running.len() - 1;
        &mut self.running[at]
    }

    /// Lets the processes run until all have ended or were ended.
    pub fn run(&mut self) -> Result<Round, String> {
        for _ in 0..STEPS_MAX {
            let ready: Vec<usize> = (0..self.running.len()).filter(|at| self.running[*at].is_ready()).collect();
            if !ready.is_empty() {
                let at = *self.random.pick(&ready);
                self.poll(at)?;
            } else if self.running.iter().all(|running| running.driven.is_none()) {
                return self.conclude();
            } else if !self.network.step() {
                return Err(format!(
                    "{} wait for nothing",
                    self.running.iter().filter(|running| running.driven.is_some()).count()
                ));
            }
            self.take_forgotten();
            self.take_late();
            self.take_blows();
        }
        Err("there is no end of it".to_owned())
    }

    fn poll(&mut self, at: usize) -> Result<(), String> {
        let running = &mut self.running[at];
        let Some(driven) = &mut running.driven else { return Ok(()) };
        if driven.poll_once().is_some() {
            running.driven = None;
        }
        let told = std::mem::take(&mut running.record.borrow_mut().told);
        let swept = std::mem::take(&mut running.record.borrow_mut().swept);
        let running = &self.running[at];
        for told in told {
            self.network.log(|| format!("told {told:?}"));
            if matches!(&told, Told::Quarantined(key) if !running.scripted.contains(key)) {
                return Err(format!("{told:?}, and nothing is wrong with it"));
            }
            if matches!(told, Told::Quarantined(_)) {
                self.network.count(Event::Quarantined);
            }
            let is_forgotten = running.may_be_forgotten(&told, &self.network);
            self.model.told(running.generation, &told, is_forgotten)?;
        }
        swept.iter().for_each(|report| self.count_sweep(report));
        let running = &self.running[at];
        if running.driven.is_none() && running.role == Role::Push && running.is_complete() && running.late == self.late
        {
            let forgotten = running.forgotten.keys().copied().collect();
            self.model.complete(running.generation, &forgotten);
        }
        Ok(())
    }

    fn count_sweep(&self, report: &SweepReport) {
        self.network.log(|| format!("swept: {report:?}"));
        self.network.add(Event::Resumed, report.resumed);
        self.network.add(Event::Pardoned, report.pardoned);
        self.network.add(Event::FencedWriter, report.fenced_writers);
        self.network.add(Event::FencedJournal, report.fenced_journals);
        self.network.add(Event::Rewritten, report.written_packs.objects);
        self.network.add(Event::MovedDeleted, report.moved_packs.objects);
        self.network.add(Event::Spared, report.spared.objects);
        self.network.add(Event::RecordsDeleted, report.deleted_records.objects);
    }

    /// Takes in what was forgotten just now.
    fn take_forgotten(&mut self) {
        for forgot in self.network.forgot() {
            (self.forgot, self.is_claim_void) = (self.forgot + 1, true);
            let Some(mailbox) = self.forgetting.get(&forgot.process).copied() else {
                self.network.count(Event::ForgottenBefore);
                self.running.iter_mut().for_each(|running| running.is_anything_forgotten = true);
                continue;
            };
            self.network.count(Event::Forgotten);
            self.network.log(|| format!("mailbox {mailbox} is forgotten"));
            self.model.forget(mailbox);
            self.history.forget(mailbox, self.network.time());
            let is_writer = |running: &&Running| matches!(running.role, Role::Push | Role::Append);
            let is_contested = self.running.iter().filter(is_writer).count() > 1;
            for running in &mut self.running {
                running.is_contested = is_contested;
                if let Some(model) = &mut running.model {
                    model.forget(mailbox);
                }
                running.forgotten.insert(mailbox, forgot.clone());
            }
        }
    }

    fn take_late(&mut self) {
        if self.network.is_journal_late() {
            self.history.clear();
        }
        for generation in self.network.late_commits() {
            self.late += 1;
            self.model.came_late(generation);
        }
    }

    fn take_blows(&mut self) {
        while let Some(blow) = self.network.struck() {
            self.take_blow(blow);
        }
    }

    fn take_blow(&mut self, blow: Blow) {
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
            Phase::Forget => Event::CrashForget,
            Phase::Look => Event::CrashLook,
            Phase::Rewrite => Event::CrashRewrite,
            Phase::Mark => Event::CrashMark,
            Phase::Fence => Event::CrashFence,
            Phase::ReadAgain => Event::CrashReadAgain,
            Phase::Verdict => Event::CrashVerdict,
            Phase::Delete => Event::CrashDelete,
            Phase::Done => Event::CrashDone,
            Phase::Tidy => Event::CrashTidy,
        });
        let running = self.running.iter_mut();
        let ended = running.filter(|running| blow.manner == Manner::Power || running.number == blow.process);
        let driven: Vec<_> = ended.filter_map(|running| running.driven.take()).collect();
        self.network.ending(blow.manner, || drop(driven));
    }

    /// What is to be said of processes that have ended.
    fn conclude(&mut self) -> Result<Round, String> {
        let mut round = Round { is_undisturbed: true, is_complete: true, ..Round::default() };
        let running = std::mem::take(&mut self.running);
        let is_beside_sweep = running.iter().any(|running| running.role == Role::Sweep);
        for running in running {
            let is_reader = matches!(running.role, Role::Restore | Role::Check);
            if is_reader && (running.is_anything_forgotten || !running.forgotten.is_empty()) {
                self.network.count(Event::ForgottenBeside);
            }
            let faults = self.network.faults(running.number);
            let Record { ledgers, ended, restored, checked, complete, .. } = &*running.record.borrow();
            let is_disturbed = !matches!(ended, Some(Ok(())));
            round.is_undisturbed &= !is_disturbed;
            self.network.log(|| format!("p{} ended: {ended:?}", running.number));
            if let Some(Err(error)) = ended {
                // What was swept must be appended again.
                let is_refused =
                    running.role == Role::Append && self.is_swept && error.kind() == ErrorKind::Unavailable;
                judge(error, faults, self.is_lawless || running.is_failing || is_refused)?;
            }
            for (ledger, is_complete) in ledgers.iter().zip(complete) {
                ledger.verify().map_err(|error| describe(&error))?;
                if ledger.bytes.duplicate > 0 {
                    self.network.count(Event::Hit);
                }
                if ledger.incomplete.iter().any(|incomplete| incomplete.reason.contains("gone or damaged")) {
                    self.network.count(Event::WantedAgain);
                }
                round.is_complete &= *is_complete;
                round.stored += ledger.messages.stored;
                round.quarantined += ledger.messages.quarantined;
                verify_reasons(ledger, &running)?;
                let is_all = ledger.messages.stored + ledger.messages.unchanged == ledger.messages.seen;
                if *is_complete && !is_all {
                    return Err(format!("a run that says it is complete is not: {ledger:?}"));
                }
                if !is_disturbed && !self.are_records_deleted {
                    self.accounts.push(ledger.clone());
                }
            }
            if let (Some(Restored { mailboxes, report }), Some(model)) = (restored, &running.model) {
                let is_excused = |failure: &Failure| running.is_excused(&failure.mailbox);
                let are_excused = report.failures.iter().all(is_excused);
                if is_beside_sweep {
                    self.network.count(Event::RestoreBeside);
                }
                if report.failed > 0 && faults == 0 && !self.is_lawless && !are_excused {
                    return Err(format!("a restore failed without a fault: {:?}", report.failures));
                }
                let mut model = (**model).clone();
                if self.late > running.late || report.failed > 0 {
                    // A commit of an older generation came meanwhile. Or the restore says that one did not read: what it changed may be as it was before.
                    model.came_late(0);
                }
                model.verify(mailboxes, report.failed == 0 && faults == 0)?;
            }
            let Some(report) = checked else { continue };
            if is_beside_sweep {
                self.network.count(Event::RestoreBeside);
            }
            let is_excused = running.is_anything_forgotten || !running.forgotten.is_empty();
            if faults == 0 && !report.is_sound() && !self.is_lawless && !is_excused {
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
        let (number, store) = self.network.direct(self.model.generation, Part::Read);
        let context = self.context(number, store);
        now(context.engine()).map(Some)
    }

    /// Looks at what is there after a round: restored, it is what was acknowledged; checked, it is sound; no account lies.
    pub fn inspect(&mut self, read_data: bool) -> Result<(CheckReport, Delivered), String> {
        let Some(engine) = self.engine()? else {
            self.model.verify(&Delivered::new(), true)?;
            return Ok((CheckReport::default(), Delivered::new()));
        };
        let restored = restored(&engine, None)?;
        if restored.report.failed > 0 {
            return Err(format!("a restore failed: {:?}", restored.report.failures));
        }
        self.model.verify(&restored.mailboxes, true)?;
        let check = now(engine.check().read_data(read_data).finish())?;
        if !check.is_sound() {
            return Err(format!("a check finds damage: {:?} {:?}", check.damaged, check.touched));
        }
        if std::mem::take(&mut self.is_claim_void) {
            self.claimed = self.claimed.min(check.messages);
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
        let (number, store) = self.network.direct(self.model.generation, Part::Write);
        let context = self.context(number, store);
        let source = mail::dripping(self.model.source(self.mailboxes), u64::from(self.commit_messages));
        let ledger = now(async { context.engine().await?.transfer(source).finish().await })?.ledger;
        ledger.verify().map_err(|error| describe(&error))?;
        self.claimed += ledger.messages.stored;
        self.model.complete(self.model.generation, &BTreeSet::new());
        Ok(ledger)
    }

    /// Forgets without faults and at once.
    pub fn forget_directly(&mut self, which: Which) -> Result<(), String> {
        if !self.network.has("config") {
            return Ok(());
        }
        let (number, store) = self.network.direct(self.model.generation, Part::Forget);
        self.forgets(number, which);
        let context = self.context(number, store);
        now(async { process::forget_in(&context.engine().await?, which).await })?;
        self.take_forgotten();
        Ok(())
    }

    /// Sweeps without faults and at once.
    pub fn sweep_directly(&mut self) -> Result<SweepReport, String> {
        self.is_swept = true;
        let (number, store) = self.network.direct(self.model.generation, Part::Sweep);
        let context = self.context(number, store);
        let report = now(async { process::sweep_in(&context.engine().await?, Thoroughness::default()).await })?;
        self.count_sweep(&report);
        Ok(report)
    }

    /// Asks for the past as it was at one of the times that are remembered.
    pub fn look_back(&mut self) -> Result<(), String> {
        let times = self.history.times();
        if times.is_empty() {
            return Ok(());
        }
        let time = *self.random.pick(&times);
        let Some(engine) = self.engine()? else { return Ok(()) };
        let restored = restored(&engine, Some(time))?;
        let event = self.history.verify(&self.model, time, &restored)?;
        self.network.count(event);
        Ok(())
    }

    /// Everything that may still come late comes.
    pub fn drain(&mut self) {
        while self.network.step() {
            self.take_forgotten();
            self.take_late();
        }
    }

    /// How often anything was forgotten so far.
    pub fn forgot(&self) -> u64 {
        self.forgot
    }

    /// How many rows there may be in the end for messages that could not be read.
    pub fn faulted(&self) -> u64 {
        self.faulted
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
        self.driven.as_ref().is_some_and(Driven::is_woken)
    }

    fn is_complete(&self) -> bool {
        let record = self.record.borrow();
        matches!(record.ended, Some(Ok(()))) && record.complete.iter().all(|complete| *complete)
    }

    /// Whether what it tells may be of a time before the mailbox was forgotten.
    fn may_be_forgotten(&self, told: &Told, network: &Network) -> bool {
        let Some(forgot) = self.forgotten.get(&told.key().0) else { return false };
        // A transfer commits to a mailbox one after the other, and tells of each before the next. But it takes for stored what another has
        // stored meanwhile, and that may be forgotten by the time that it is told.
        let is_later = network.committed(self.number, &forgot.journal).is_some_and(|at| at > forgot.at);
        self.is_shared || self.is_contested || !is_later || !matches!(told, Told::Stored(_))
    }

    /// Whether a restore may fail in this mailbox, because something of it was forgotten, and then swept.
    fn is_excused(&self, mailbox: &str) -> bool {
        self.is_anything_forgotten || self.forgotten.keys().any(|number| history::is_of(mailbox, *number))
    }
}

/// Restores everything, without faults and at once.
pub fn restored(engine: &Engine, at: Option<u64>) -> Result<Restored, String> {
    let sink = mailrail::testing::sink::Memory::new(mailrail::source::Kind::Other("memory".into()));
    let restore = engine.restore(sink.clone());
    let restore = match at {
        Some(time) => restore.at(time),
        None => restore,
    };
    let report = now(restore.finish())?;
    Ok(Restored { mailboxes: sink.mailboxes(), report })
}

/// The result of something that waits for nothing.
pub fn now<T>(future: impl Future<Output = mailrail::Result<T>>) -> Result<T, String> {
    let result = future.now_or_never().ok_or("something waits that has nothing to wait for")?;
    result.map_err(|error| format!("without a fault: {}", describe(&error)))
}

/// Messages are in quarantine for a reason that the source has.
fn verify_reasons(ledger: &Ledger, running: &Running) -> Result<(), String> {
    let legal = [Reason::ReadFailed, Reason::Denied, Reason::Vanished, Reason::Changed, Reason::Short];
    let Ledger { messages, .. } = ledger;
    let is_legal = messages.quarantined <= running.scripted.len() as u64
        && messages.reasons.keys().all(|reason| legal.contains(reason));
    if is_legal { Ok(()) } else { Err(format!("a ledger has more in quarantine than is wrong: {ledger:?}")) }
}

/// Whether a process may have failed so.
fn judge(error: &Error, faults: u64, is_lawless: bool) -> Result<(), String> {
    let is_legal = match error.kind() {
        ErrorKind::Internal => false,
        _ => faults > 0 || is_lawless,
    };
    if is_legal { Ok(()) } else { Err(format!("a process with {faults} faults failed: {error:?}")) }
}
