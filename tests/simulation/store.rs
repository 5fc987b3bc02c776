//! The simulated store: what lies between processes and their objects. Operations take time, overtake one another, get lost and go wrong as
//! the seed decides; a process can be struck down at any of them.

use crate::coverage::{Coverage, Event};
use crate::files::{Machine, ROOT};
use crate::objects::{Answer, Backend, Call, Conditions, Objects, Reply};
use crate::random::Random;
use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt};
use futures::stream::{self, BoxStream, StreamExt};
use mailrail::runtime::Inline;
use mailrail::store::{Created, FileStore, Listed, Payload, Store};
use mailrail::testing::{ManualClock, SeededRandomness};
use mailrail::{Error, ErrorKind, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// When the simulation begins, by its own clock: long after the messages' dates.
const BEGIN: Duration = Duration::from_secs(1_700_000_000);

/// What goes wrong with a process's operations, each so often of a thousand.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weather {
    /// How many faults there may be in all.
    pub faults: u64,
    pub answer_lost: u64,
    pub late: u64,
    pub throttled: u64,
    pub transient: u64,
    pub short: u64,
    pub flipped: u64,
    /// Not a fault: an answer that takes very long.
    pub slow: u64,
}

/// Where a process is struck down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Intake,
    Pack,
    Commit,
    Segment,
    Record,
    Idle,
    Restore,
}

/// How a process is struck down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// The process is gone; what it had under way in a network may still come through.
    Kill,
    /// All processes are gone, and with a machine's power what was not synced.
    Power,
    /// The process lives, but the future is dropped.
    Drop,
    /// The transfer is told to stop in good order.
    Stop,
}

/// When in an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    Before,
    After,
    /// After so many steps of a file store's write.
    Inside(u64),
}

/// A blow that is to come.
#[derive(Clone, Copy, Debug)]
pub struct Blow {
    pub process: usize,
    pub phase: Phase,
    /// How many operations of the phase pass unharmed.
    pub skip: u64,
    pub point: Point,
    pub manner: Manner,
}

/// What the processes share. Clones are the same network.
#[derive(Clone)]
pub struct Network(Arc<Mutex<State>>);

struct State {
    random: Random,
    clock: ManualClock,
    /// Microseconds since the beginning.
    now: u64,
    sequence: u64,
    due: BTreeMap<(u64, u64), Due>,
    operations: BTreeMap<u64, Operation>,
    processes: Vec<Process>,
    backend: Backend,
    coverage: Coverage,
    log: Option<Vec<String>>,
    blow: Option<Blow>,
    struck: Option<Blow>,
    /// The process being ended, and how.
    ending: Option<Manner>,
    /// Whether writes of those who are gone may come through.
    is_late_possible: bool,
    /// Generations of the source whose commits came late since this was last asked for.
    late_commits: Vec<usize>,
    tampered: u64,
}

struct Process {
    store: Option<FileStore>,
    weather: Weather,
    /// The generation of the source that it moves.
    generation: usize,
    is_restore: bool,
    /// Its operations are done at once.
    is_direct: bool,
    /// How many of its reads were tampered with, and how many operations failed.
    faults: u64,
}

#[derive(Clone, Copy)]
enum Due {
    Effect(u64),
    /// The second half of a create that is not atomic.
    Write(u64),
    Answer(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Normal,
    AnswerLost,
    Late,
    Throttled,
    Transient,
    Short,
    Flipped,
}

struct Operation {
    process: usize,
    call: Call,
    fate: Fate,
    reply: Option<Reply>,
    is_effective: bool,
    is_answered: bool,
    /// Nobody waits for it any more, or was told that it failed.
    is_abandoned: bool,
    /// When it takes effect, if that is still to come.
    due: Option<(u64, u64)>,
    waker: Option<Waker>,
}

impl Network {
    pub fn new(seed: u64, backend: Backend, is_late_possible: bool, with_log: bool) -> Self {
        let state = State {
            random: Random::new(seed),
            clock: ManualClock::new(BEGIN),
            now: 0,
            sequence: 0,
            due: BTreeMap::new(),
            operations: BTreeMap::new(),
            processes: Vec::new(),
            backend,
            coverage: Coverage::default(),
            log: with_log.then(Vec::new),
            blow: None,
            struck: None,
            ending: None,
            is_late_possible,
            late_commits: Vec::new(),
            tampered: 0,
        };
        Self(Arc::new(Mutex::new(state)))
    }

    /// Another process; gives its number and its store.
    pub fn process(&self, generation: usize, weather: Weather, is_restore: bool) -> (usize, Arc<dyn Store>) {
        let mut state = self.state();
        let number = state.processes.len();
        let store = match &state.backend {
            Backend::Objects(_) => None,
            Backend::Files(machine) => {
                let files = Arc::new(machine.clone());
                let randomness = SeededRandomness::new(number as u64);
                Some(FileStore::with(ROOT, files, Arc::new(Inline), &randomness).expect("a file store"))
            }
        };
        state.processes.push(Process { store, weather, generation, is_restore, is_direct: false, faults: 0 });
        (number, Arc::new(Client { network: self.clone(), process: number }))
    }

    /// A process whose operations are done at once, without faults.
    pub fn direct(&self, generation: usize) -> (usize, Arc<dyn Store>) {
        let (number, store) = self.process(generation, Weather::default(), false);
        self.state().processes[number].is_direct = true;
        (number, store)
    }

    pub fn clock(&self) -> ManualClock {
        self.state().clock.clone()
    }

    /// How many faults a process had.
    pub fn faults(&self, process: usize) -> u64 {
        self.state().processes[process].faults
    }

    pub fn strike(&self, blow: Option<Blow>) {
        (self.state().blow, self.state().struck) = (blow, None);
    }

    /// The blow that has just fallen.
    pub fn struck(&self) -> Option<Blow> {
        self.state().struck.take()
    }

    /// Ends processes: what they have under way is lost, or comes through, as `manner` says.
    pub fn ending(&self, manner: Manner, end: impl FnOnce()) {
        self.state().ending = Some(manner);
        end();
        let mut state = self.state();
        state.ending = None;
        if manner == Manner::Power {
            if let Backend::Files(machine) = &state.backend {
                // A machine without power does nothing later.
                machine.fail_power();
                state.due.clear();
                state.operations.clear();
            }
        }
    }

    /// Does what is due next. False if nothing is.
    pub fn step(&self) -> bool {
        self.state().step()
    }

    /// Does everything that is still due.
    pub fn drain(&self) {
        while self.step() {}
    }

    /// Waits for a while in which a process does nothing.
    pub fn idle(&self, process: usize) -> impl Future<Output = ()> + Send + use<> {
        Request::new(self, process, Call::Idle).map(drop)
    }

    pub fn count(&self, event: Event) {
        self.state().coverage.count(event);
    }

    /// How many reads were tampered with.
    pub fn tampered(&self) -> u64 {
        self.state().tampered
    }

    /// The generations of commits that came late since this was last asked for.
    pub fn late_commits(&self) -> Vec<usize> {
        std::mem::take(&mut self.state().late_commits)
    }

    pub fn log(&self, line: impl FnOnce() -> String) {
        let mut state = self.state();
        let now = state.now;
        if let Some(log) = &mut state.log {
            log.push(format!("{now:>9} {}", line()));
        }
    }

    /// Takes what was counted and noted.
    pub fn finish(&self) -> (Coverage, Vec<String>) {
        let mut state = self.state();
        let mut coverage = std::mem::take(&mut state.coverage);
        if let Backend::Files(machine) = &state.backend {
            coverage.join(&machine.take_coverage());
        }
        (coverage, state.log.take().unwrap_or_default())
    }

    /// The keys of all objects that begin with `prefix`.
    pub fn keys(&self, prefix: &str) -> BTreeSet<String> {
        let (process, _) = self.direct(0);
        let Ok(Answer::Listed(listed)) = self.state().apply(process, &Call::List(prefix.to_owned())) else {
            return BTreeSet::new();
        };
        listed.into_iter().map(|listed| listed.key).collect()
    }

    pub fn has(&self, key: &str) -> bool {
        let (process, _) = self.direct(0);
        matches!(self.state().apply(process, &Call::Length(key.to_owned())), Ok(Answer::Length(Some(_))))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("the network")
    }
}

impl State {
    fn submit(&mut self, process: usize, call: Call) -> u64 {
        self.sequence += 1;
        let id = self.sequence;
        let fate = self.fate(process, &call);
        let effect = self.latency(process);
        self.note(|| {
            format!("p{process} {call}{}", if fate == Fate::Normal { String::new() } else { format!(" ({fate:?})") })
        });
        let mut operation = Operation {
            process,
            call,
            fate,
            reply: None,
            is_effective: false,
            is_answered: false,
            is_abandoned: false,
            due: None,
            waker: None,
        };
        let late = self.random.between(1_000, 100_000);
        match fate {
            Fate::Throttled | Fate::Transient => {
                (operation.reply, operation.is_effective) = (Some(Err(failure(fate))), true);
                self.after(effect, Due::Answer(id));
            }
            Fate::Late => {
                operation.reply = Some(Err(failure(fate)));
                self.after(effect, Due::Answer(id));
                operation.due = Some(self.after(effect + late, Due::Effect(id)));
            }
            _ => operation.due = Some(self.after(effect, Due::Effect(id))),
        }
        self.operations.insert(id, operation);
        id
    }

    fn fate(&mut self, process: usize, call: &Call) -> Fate {
        let weather = self.processes[process].weather;
        if weather.faults == 0 || matches!(call, Call::Idle) {
            return Fate::Normal;
        }
        let (is_write, is_read) = (call.is_write(), matches!(call, Call::Read(..)));
        let late = if self.is_late_possible { weather.late } else { 0 };
        let fates = [
            (Fate::AnswerLost, weather.answer_lost, is_write, Event::AnswerLost),
            (Fate::Late, late, is_write, Event::Transient),
            (Fate::Throttled, weather.throttled, true, Event::Throttled),
            (Fate::Transient, weather.transient, true, Event::Transient),
            (Fate::Short, weather.short, is_read, Event::ShortRead),
            (Fate::Flipped, weather.flipped, is_read, Event::FlippedBit),
        ];
        for (fate, per_mille, is_possible, event) in fates {
            if is_possible && per_mille > 0 && self.random.per_mille(per_mille) {
                self.coverage.count(event);
                self.processes[process].weather.faults -= 1;
                self.processes[process].faults += 1;
                self.tampered += u64::from(is_read);
                return fate;
            }
        }
        Fate::Normal
    }

    fn latency(&mut self, process: usize) -> u64 {
        let slow = self.processes[process].weather.slow;
        if slow > 0 && self.random.per_mille(slow) {
            self.coverage.count(Event::Slow);
            return self.random.between(10_000, 50_000);
        }
        self.random.between(50, 1_000)
    }

    fn after(&mut self, delay: u64, due: Due) -> (u64, u64) {
        self.sequence += 1;
        let at = (self.now + delay, self.sequence);
        self.due.insert(at, due);
        at
    }

    fn step(&mut self) -> bool {
        let Some(((at, _), due)) = self.due.pop_first() else { return false };
        self.now = self.now.max(at);
        self.clock.set(BEGIN + Duration::from_micros(self.now));
        match due {
            Due::Effect(id) => self.effect(id),
            Due::Write(id) => self.write(id),
            Due::Answer(id) => self.answer(id),
        }
        true
    }

    fn effect(&mut self, id: u64) {
        let Some(operation) = self.operations.get(&id) else { return };
        let (process, fate, is_abandoned) = (operation.process, operation.fate, operation.is_abandoned);
        let call = operation.call.clone();
        let blow = if is_abandoned || fate == Fate::Late { None } else { self.falls(process, &call) };
        self.struck = self.struck.or(blow);
        if let Some(blow) = blow.filter(|blow| blow.manner != Manner::Stop) {
            self.note(|| format!("p{process} is struck at {call}: {blow:?}"));
            match blow.point {
                Point::Before => return,
                Point::Inside(steps) if call.is_write() => self.die_inside(process, &call, steps),
                _ => drop(self.apply(process, &call)),
            }
            if let Some(operation) = self.operations.get_mut(&id) {
                operation.is_effective = true;
            }
            return;
        }
        if let (Call::Create(key, _), Backend::Objects(objects)) = (&call, &self.backend)
            && objects.conditions == Conditions::Raced
            && !objects.has(key)
        {
            let gap = self.random.between(50, 3_000);
            self.after(gap, Due::Write(id));
            return;
        }
        let reply = self.apply(process, &call);
        self.took_effect(id, reply);
    }

    /// The second half of a create that is not atomic.
    fn write(&mut self, id: u64) {
        let Some(operation) = self.operations.get(&id) else { return };
        let call = operation.call.clone();
        if let (Backend::Objects(objects), Call::Create(key, octets)) = (&mut self.backend, &call) {
            if objects.put(key, octets) {
                self.coverage.count(Event::RaceBothWon);
            }
        }
        self.took_effect(id, Ok(Answer::Created(Created::New)));
    }

    fn took_effect(&mut self, id: u64, reply: Reply) {
        let Some(operation) = self.operations.get(&id) else { return };
        let (process, fate, is_abandoned) = (operation.process, operation.fate, operation.is_abandoned);
        if is_abandoned || fate == Fate::Late {
            let call = operation.call.clone();
            self.came_late(process, &call, &reply);
        }
        let gone = self.operations.get(&id).is_some_and(|operation| operation.is_abandoned);
        if gone {
            self.operations.remove(&id);
            return;
        }
        if fate == Fate::Late {
            // Who waits is told of a failure, or was told already.
            if let Some(operation) = self.operations.get_mut(&id) {
                operation.is_effective = true;
            }
            return;
        }
        let reply = self.tamper(fate, reply);
        let delay = self.latency(process);
        if let Some(operation) = self.operations.get_mut(&id) {
            (operation.reply, operation.is_effective) = (Some(reply), true);
        }
        self.after(delay, Due::Answer(id));
    }

    fn came_late(&mut self, process: usize, call: &Call, reply: &Reply) {
        self.note(|| format!("p{process} late: {call}"));
        if !call.is_write() || reply.is_err() {
            return;
        }
        self.coverage.count(Event::LateWrite);
        if call.is_commit() {
            self.coverage.count(Event::LateCommit);
            if matches!(reply, Ok(Answer::Created(Created::New))) {
                self.late_commits.push(self.processes[process].generation);
            }
        }
    }

    fn tamper(&mut self, fate: Fate, reply: Reply) -> Reply {
        match (fate, reply) {
            (Fate::AnswerLost, _) => Err(failure(fate)),
            (Fate::Short, Ok(Answer::Octets(octets))) => {
                let length = self.random.below(octets.len() as u64) as usize;
                Ok(Answer::Octets(octets.slice(..length)))
            }
            (Fate::Flipped, Ok(Answer::Octets(octets))) if !octets.is_empty() => {
                let mut flipped = octets.to_vec();
                let bit = self.random.below(flipped.len() as u64 * 8) as usize;
                flipped[bit / 8] ^= 1 << (bit % 8);
                Ok(Answer::Octets(flipped.into()))
            }
            (_, reply) => reply,
        }
    }

    fn answer(&mut self, id: u64) {
        let Some(operation) = self.operations.get(&id) else { return };
        let process = operation.process;
        let overtaken = self.operations.range(..id).any(|(_, older)| {
            older.process == process && !older.is_answered && !older.is_abandoned && !matches!(older.call, Call::Idle)
        });
        if overtaken {
            self.coverage.count(Event::Reordered);
        }
        if let Some(operation) = self.operations.get_mut(&id) {
            operation.is_answered = true;
            if let Some(waker) = operation.waker.take() {
                waker.wake();
            }
        }
    }

    /// Whether the blow falls now.
    fn falls(&mut self, process: usize, call: &Call) -> Option<Blow> {
        let is_restore = self.processes[process].is_restore;
        let blow = self.blow.as_mut().filter(|blow| blow.process == process)?;
        if blow.phase != phase(call, is_restore) {
            return None;
        }
        if blow.skip > 0 {
            blow.skip -= 1;
            return None;
        }
        self.blow.take()
    }

    fn die_inside(&mut self, process: usize, call: &Call, steps: u64) {
        let Backend::Files(machine) = &self.backend else { return drop(self.apply(process, call)) };
        let machine = machine.clone();
        machine.kill_after(steps);
        drop(self.apply(process, call));
        if machine.reap() {
            self.coverage.count(Event::KillInWrite);
        }
    }

    /// Does what is asked for, at once.
    fn apply(&mut self, process: usize, call: &Call) -> Reply {
        let reply = match (&mut self.backend, &self.processes[process].store) {
            (_, _) if matches!(call, Call::Idle) => Ok(Answer::Done),
            (Backend::Objects(objects), _) => {
                let overwritten = objects.overwritten;
                let reply = objects.apply(call);
                self.coverage.add(Event::Overwritten, objects.overwritten - overwritten);
                reply
            }
            (Backend::Files(_), Some(store)) => in_files(store, call),
            (Backend::Files(_), None) => Err(Error::new(ErrorKind::Internal, "a process without a file store")),
        };
        if call.is_commit() && matches!(reply, Ok(Answer::Created(Created::Exists))) {
            self.coverage.count(Event::Taken);
        }
        if let Err(error) = &reply {
            if error.kind() != ErrorKind::NotFound {
                self.processes[process].faults += 1;
            }
            self.note(|| format!("p{process} {call}: {error}"));
        }
        reply
    }

    /// Nobody waits for the operation any more.
    fn abandon(&mut self, id: u64) {
        let Some(operation) = self.operations.get_mut(&id) else { return };
        operation.is_abandoned = true;
        operation.waker = None;
        let is_over = operation.is_effective || !operation.call.is_write();
        let is_on_disk = matches!(self.backend, Backend::Files(_));
        // Whoever is killed does nothing more on its disk; in a network its request may be under way.
        let is_lost = match self.ending {
            Some(Manner::Power | Manner::Kill) if is_on_disk => true,
            _ => self.random.per_mille(300),
        };
        if is_over || is_lost {
            self.operations.remove(&id);
            return;
        }
        if !self.is_late_possible {
            let operation = self.operations.remove(&id);
            if let Some(operation) = operation {
                drop(self.apply(operation.process, &operation.call));
            }
            return;
        }
        let late = self.random.between(50, 100_000);
        let due = self.after(late, Due::Effect(id));
        if let Some(before) = self.operations.get_mut(&id).and_then(|operation| operation.due.replace(due)) {
            self.due.remove(&before);
        }
    }

    fn note(&mut self, line: impl FnOnce() -> String) {
        let now = self.now;
        if let Some(log) = &mut self.log {
            log.push(format!("{now:>9} {}", line()));
        }
    }
}

fn phase(call: &Call, is_restore: bool) -> Phase {
    match call {
        Call::Idle => Phase::Idle,
        _ if is_restore => Phase::Restore,
        Call::Put(key, _) if key.starts_with("packs/") => Phase::Pack,
        Call::Put(key, _) if key.starts_with("index/") => Phase::Segment,
        Call::Put(key, _) if key.starts_with("runs/") => Phase::Record,
        Call::Create(key, _) if key.starts_with("mailboxes/") => Phase::Commit,
        _ => Phase::Intake,
    }
}

fn failure(fate: Fate) -> Error {
    match fate {
        Fate::Throttled => Error::new(ErrorKind::Throttled, "the store asks for fewer requests"),
        _ => Error::new(ErrorKind::Unavailable, format!("a fault of the simulation: {fate:?}")),
    }
}

/// Does what is asked for in a file store, whose operations block and so are done at once.
fn in_files(store: &FileStore, call: &Call) -> Reply {
    fn now<T>(future: BoxFuture<'_, Result<T>>) -> Result<T> {
        let pending = || Error::new(ErrorKind::Internal, "a file store's operation waits");
        future.now_or_never().ok_or_else(pending)?
    }
    match call {
        Call::Put(key, octets) => now(store.put(key, octets.clone().into())).map(|()| Answer::Done),
        Call::Create(key, octets) => now(store.create(key, octets.clone().into())).map(Answer::Created),
        Call::Read(key, range) => now(store.read(key, range.clone())).map(Answer::Octets),
        Call::Length(key) => now(store.length(key)).map(Answer::Length),
        Call::List(prefix) => {
            let listed = store.list(prefix).collect::<Vec<_>>().map(|listed| listed.into_iter().collect());
            now(listed.boxed()).map(Answer::Listed)
        }
        Call::Delete(key) => now(store.delete(key)).map(|()| Answer::Done),
        Call::Idle => Ok(Answer::Done),
    }
}

/// A process's way to its objects.
struct Client {
    network: Network,
    process: usize,
}

impl Client {
    fn ask(&self, call: Call) -> Request {
        Request::new(&self.network, self.process, call)
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({})", self.process)
    }
}

impl Store for Client {
    fn put<'a>(&'a self, key: &'a str, payload: Payload) -> BoxFuture<'a, Result<()>> {
        async move { self.ask(Call::Put(key.to_owned(), join(&payload))).await.map(drop) }.boxed()
    }

    fn create<'a>(&'a self, key: &'a str, payload: Payload) -> BoxFuture<'a, Result<Created>> {
        async move {
            match self.ask(Call::Create(key.to_owned(), join(&payload))).await? {
                Answer::Created(created) => Ok(created),
                other => Err(mistaken(&other)),
            }
        }
        .boxed()
    }

    fn read<'a>(&'a self, key: &'a str, range: Option<Range<u64>>) -> BoxFuture<'a, Result<Bytes>> {
        async move {
            match self.ask(Call::Read(key.to_owned(), range)).await? {
                Answer::Octets(octets) => Ok(octets),
                other => Err(mistaken(&other)),
            }
        }
        .boxed()
    }

    fn length<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<u64>>> {
        async move {
            match self.ask(Call::Length(key.to_owned())).await? {
                Answer::Length(length) => Ok(length),
                other => Err(mistaken(&other)),
            }
        }
        .boxed()
    }

    fn list<'a>(&'a self, prefix: &'a str) -> BoxStream<'a, Result<Listed>> {
        let listed = async move {
            match self.ask(Call::List(prefix.to_owned())).await {
                Ok(Answer::Listed(listed)) => listed.into_iter().map(Ok).collect(),
                Ok(other) => vec![Err(mistaken(&other))],
                Err(error) => vec![Err(error)],
            }
        };
        listed.map(stream::iter).flatten_stream().boxed()
    }

    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<()>> {
        async move { self.ask(Call::Delete(key.to_owned())).await.map(drop) }.boxed()
    }
}

fn mistaken(answer: &Answer) -> Error {
    Error::new(ErrorKind::Internal, format!("an answer to something else: {answer:?}"))
}

/// A payload as the store keeps it: one piece, no longer than it must be.
fn join(payload: &Payload) -> Bytes {
    let mut joined = Vec::with_capacity(payload.len() as usize);
    payload.pieces().iter().for_each(|piece| joined.extend_from_slice(piece));
    joined.into()
}

/// An operation under way, from the first poll on.
struct Request {
    network: Network,
    process: usize,
    call: Option<Call>,
    id: Option<u64>,
}

impl Request {
    fn new(network: &Network, process: usize, call: Call) -> Self {
        Self { network: network.clone(), process, call: Some(call), id: None }
    }
}

impl Future for Request {
    type Output = Reply;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Reply> {
        let network = self.network.clone();
        let mut state = network.state();
        if let Some(call) = self.call.take() {
            if state.processes[self.process].is_direct {
                return Poll::Ready(state.apply(self.process, &call));
            }
            self.id = Some(state.submit(self.process, call));
        }
        let Some(id) = self.id else { return Poll::Pending };
        let Some(operation) = state.operations.get_mut(&id) else { return Poll::Pending };
        if !operation.is_answered {
            operation.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        self.id = None;
        let reply = operation.reply.take();
        if operation.is_effective {
            state.operations.remove(&id);
        } else {
            // It will take effect all the same.
            operation.is_abandoned = true;
        }
        let missing = || Err(Error::new(ErrorKind::Internal, "an answer without a reply"));
        Poll::Ready(reply.unwrap_or_else(missing))
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.network.state().abandon(id);
        }
    }
}

/// A backend of objects, with these conditional writes.
pub fn objects(conditions: Conditions) -> Backend {
    Backend::Objects(Objects::new(conditions))
}

/// A backend of files.
pub fn files(machine: &Machine) -> Backend {
    Backend::Files(machine.clone())
}
