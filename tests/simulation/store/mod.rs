//! The simulated store: what lies between processes and their objects. Operations take time, overtake one another, get lost and go wrong as
//! the seed decides; a process can be struck down at any of them.
mod client;
mod events;
mod phases;

use crate::coverage::{Coverage, Event};
use crate::files::{Machine, ROOT};
use crate::objects::{Answer, Backend, Call, Conditions, Objects, Reply};
use crate::random::Random;
use client::{Client, Request};
use futures::future::FutureExt;
use mailrail::runtime::Inline;
use mailrail::store::{FileStore, Store};
use mailrail::testing::{ManualClock, SeededRandomness};
use phases::Stage;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Waker;
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
    /// Not a fault: the operation of this number is one before which the process sleeps.
    pub stall: Option<u64>,
}

/// What a process does, which tells its phases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Write,
    Read,
    Forget,
    Sweep,
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
    Forget,
    Look,
    Rewrite,
    Mark,
    Fence,
    ReadAgain,
    Verdict,
    Delete,
    Done,
    Tidy,
}

impl Phase {
    pub fn is_of_sweep(self) -> bool {
        use Phase::{Delete, Done, Fence, Look, Mark, ReadAgain, Rewrite, Tidy, Verdict};
        matches!(self, Look | Rewrite | Mark | Fence | ReadAgain | Verdict | Delete | Done | Tidy)
    }
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
    /// Microseconds by which the clock is ahead of that.
    ahead: u64,
    /// At most one for each process.
    blows: Vec<Blow>,
    struck: VecDeque<Blow>,
    /// The process being ended, and how.
    ending: Option<Manner>,
    /// Whether writes of those who are gone may come through.
    is_late_possible: bool,
    /// Generations of the source whose commits came late since this was last asked for.
    late_commits: Vec<usize>,
    /// Whether anything in a journal came late since this was last asked for.
    is_journal_late: bool,
    /// The forgetting checkpoints that may have taken effect since this was last asked for.
    forgot: Vec<Forgot>,
    /// When each process last committed to each journal, as a number in the order of what happens.
    committed: BTreeMap<(usize, String), u64>,
    /// How many commits by writers each journal got.
    commits: BTreeMap<String, u64>,
    tampered: u64,
}

/// A forgetting checkpoint that took effect, or may have.
#[derive(Clone, Debug)]
pub struct Forgot {
    pub process: usize,
    pub journal: String,
    /// When, as a number in the order of what happens.
    pub at: u64,
}

struct Process {
    store: Option<FileStore>,
    weather: Weather,
    /// The generation of the source that it moves.
    generation: usize,
    part: Part,
    /// How far its sweep is.
    stage: Stage,
    /// How many operations it began.
    operations: u64,
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
    phase: Option<Phase>,
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
            ahead: 0,
            blows: Vec::new(),
            struck: VecDeque::new(),
            ending: None,
            is_late_possible,
            late_commits: Vec::new(),
            is_journal_late: false,
            forgot: Vec::new(),
            committed: BTreeMap::new(),
            commits: BTreeMap::new(),
            tampered: 0,
        };
        Self(Arc::new(Mutex::new(state)))
    }

    /// Another process; gives its number and its store.
    pub fn process(&self, generation: usize, weather: Weather, part: Part) -> (usize, Arc<dyn Store>) {
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
        let (stage, operations) = (Stage::default(), 0);
        state.processes.push(Process {
            store,
            weather,
            generation,
            part,
            stage,
            operations,
            is_direct: false,
            faults: 0,
        });
        (number, Arc::new(Client { network: self.clone(), process: number }))
    }

    /// A process whose operations are done at once, without faults.
    pub fn direct(&self, generation: usize, part: Part) -> (usize, Arc<dyn Store>) {
        let (number, store) = self.process(generation, Weather::default(), part);
        self.state().processes[number].is_direct = true;
        (number, store)
    }

    /// The time, in nanoseconds since 1970.
    pub fn time(&self) -> u64 {
        let state = self.state();
        (BEGIN + Duration::from_micros(state.now + state.ahead)).as_nanos() as u64
    }

    pub fn clock(&self) -> ManualClock {
        self.state().clock.clone()
    }

    /// How many faults a process had.
    pub fn faults(&self, process: usize) -> u64 {
        self.state().processes[process].faults
    }

    /// The blows that are to come.
    pub fn strike(&self, blows: Vec<Blow>) {
        let mut state = self.state();
        state.struck.clear();
        state.blows = blows;
    }

    /// A blow that has just fallen.
    pub fn struck(&self) -> Option<Blow> {
        self.state().struck.pop_front()
    }

    /// Ends processes: what they have under way is lost, or comes through, as `manner` says.
    pub fn ending(&self, manner: Manner, end: impl FnOnce()) {
        self.state().ending = Some(manner);
        end();
        let mut state = self.state();
        state.ending = None;
        if manner == Manner::Power
            && let Backend::Files(machine) = &state.backend
        {
            // A machine without power does nothing later.
            machine.fail_power();
            state.due.clear();
            state.operations.clear();
        }
    }

    /// Does what is due next. False if nothing is.
    pub fn step(&self) -> bool {
        self.state().step()
    }

    /// Waits for a while in which a process does nothing.
    pub fn idle(&self, process: usize) -> impl Future<Output = ()> + Send + use<> {
        Request::new(self, process, Call::Idle).map(drop)
    }

    /// Waits for so many microseconds.
    pub fn sleep(&self, process: usize, time: u64) -> impl Future<Output = ()> + Send + use<> {
        Request::new(self, process, Call::Sleep(time)).map(drop)
    }

    /// A process begins a sweep.
    pub fn begin_sweep(&self, process: usize) {
        self.state().processes[process].stage = Stage::default();
    }

    /// An hour goes by in which nothing happens. Gives the time in the middle of it, in nanoseconds since 1970.
    pub fn rest(&self) -> u64 {
        const HOUR: u64 = 3_600_000_000;
        let mut state = self.state();
        let middle = BEGIN + Duration::from_micros(state.now + state.ahead + HOUR / 2);
        state.ahead += HOUR;
        state.show_time();
        middle.as_nanos() as u64
    }

    pub fn count(&self, event: Event) {
        self.state().coverage.count(event);
    }

    pub fn add(&self, event: Event, times: u64) {
        self.state().coverage.add(event, times);
    }

    /// How many reads were tampered with.
    pub fn tampered(&self) -> u64 {
        self.state().tampered
    }

    /// The generations of commits that came late since this was last asked for.
    pub fn late_commits(&self) -> Vec<usize> {
        std::mem::take(&mut self.state().late_commits)
    }

    /// Whether anything in a journal came late since this was last asked for.
    pub fn is_journal_late(&self) -> bool {
        std::mem::take(&mut self.state().is_journal_late)
    }

    /// The forgetting checkpoints that may have taken effect since this was last asked for.
    pub fn forgot(&self) -> Vec<Forgot> {
        std::mem::take(&mut self.state().forgot)
    }

    /// When a process last committed to a journal.
    pub fn committed(&self, process: usize, journal: &str) -> Option<u64> {
        self.state().committed.get(&(process, journal.to_owned())).copied()
    }

    /// How many commits with mail each journal got, also those that are deleted by now.
    pub fn commits(&self) -> Vec<u64> {
        self.state().commits.values().copied().collect()
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
        let (process, _) = self.direct(0, Part::Read);
        let Ok(Answer::Listed(listed)) = self.state().apply(process, &Call::List(prefix.to_owned())) else {
            return BTreeSet::new();
        };
        listed.into_iter().map(|listed| listed.key).collect()
    }

    pub fn has(&self, key: &str) -> bool {
        let (process, _) = self.direct(0, Part::Read);
        matches!(self.state().apply(process, &Call::Length(key.to_owned())), Ok(Answer::Length(Some(_))))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("the network")
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
