//! The simulated file layer: a machine whose files know what is durable, whose processes can be killed in the midst of a write, and whose
//! power can fail.
//!
//! After a power failure a file has what was synced of it; of what was not, a part may be there, or its length with nothing in it. Each
//! name in a directory that was added or taken away since that directory was synced is there or is not, each for itself.

use crate::coverage::{Coverage, Event};
use crate::random::Random;
use mailrail::store::files::{Entry, Files, Kind, Metadata, NewFile};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::path::{Component, Path};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// Where the store lies. The directory is there from the start.
pub const ROOT: &str = "/store";

/// A machine's files. Clones are the same machine.
#[derive(Clone, Debug)]
pub struct Machine(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    nodes: Vec<Node>,
    random: Random,
    coverage: Coverage,
    /// How many steps that change something are left to the process that is running; `None`: any number.
    steps: Option<u64>,
    /// The process that is running was killed.
    is_killed: bool,
    /// How often, of a thousand, a step fails by itself.
    failing: u64,
}

#[derive(Debug)]
enum Node {
    File { content: Vec<u8>, durable: usize },
    Directory { names: Names, durable: Names },
}

type Names = BTreeMap<String, usize>;

const TOP: usize = 0;

impl Machine {
    pub fn new(seed: u64) -> Self {
        let mut state = State {
            nodes: vec![Node::directory()],
            random: Random::new(seed),
            coverage: Coverage::default(),
            steps: None,
            is_killed: false,
            failing: 0,
        };
        state.nodes.push(Node::directory());
        if let Node::Directory { names, durable } = &mut state.nodes[TOP] {
            let root = ROOT.trim_start_matches('/').to_owned();
            names.insert(root.clone(), 1);
            durable.insert(root, 1);
        }
        Self(Arc::new(Mutex::new(state)))
    }

    /// The next process to run is killed after `steps` steps that change something.
    pub fn kill_after(&self, steps: u64) {
        (self.state().steps, self.state().is_killed) = (Some(steps), false);
    }

    /// Whether that has happened. The next process is another one.
    pub fn reap(&self) -> bool {
        let mut state = self.state();
        state.steps = None;
        std::mem::take(&mut state.is_killed)
    }

    /// Lets steps fail by themselves, so often of a thousand.
    pub fn failing(&self, per_mille: u64) {
        self.state().failing = per_mille;
    }

    /// Whether the store has an object of this name.
    pub fn has(&self, key: &str) -> bool {
        self.state().find(&Path::new(ROOT).join(key)).is_ok()
    }

    /// Takes what was counted since it was last asked for.
    pub fn take_coverage(&self) -> Coverage {
        std::mem::take(&mut self.state().coverage)
    }

    /// The power fails, and comes back.
    pub fn fail_power(&self) {
        let State { nodes, random, coverage, .. } = &mut *self.state();
        for node in nodes {
            match node {
                Node::File { content, durable } => lose_content(content, durable, random, coverage),
                Node::Directory { names, durable } => lose_names(names, durable, random, coverage),
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("the machine")
    }

    /// The state, for a step that changes something.
    fn step(&self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.state();
        if state.is_killed || state.steps == Some(0) {
            state.is_killed = true;
            return Err(io::Error::other("the process was killed"));
        }
        state.steps = state.steps.map(|steps| steps - 1);
        Ok(state)
    }
}

fn lose_content(content: &mut Vec<u8>, durable: &mut usize, random: &mut Random, coverage: &mut Coverage) {
    if *durable == content.len() {
        return;
    }
    match random.below(4) {
        0..2 => {
            coverage.count(Event::ContentLost);
            content.truncate(*durable);
        }
        2 => {
            coverage.count(Event::ContentTorn);
            let kept = random.between(*durable as u64, content.len() as u64 - 1);
            content.truncate(kept as usize);
        }
        _ => {
            coverage.count(Event::ContentTorn);
            content[*durable..].fill(0);
        }
    }
    *durable = content.len();
}

fn lose_names(names: &mut Names, durable: &mut Names, random: &mut Random, coverage: &mut Coverage) {
    let changed: BTreeSet<&String> = names.keys().chain(durable.keys()).collect();
    let changed: Vec<String> =
        changed.into_iter().filter(|name| names.get(*name) != durable.get(*name)).cloned().collect();
    for name in changed {
        if random.per_mille(500) {
            continue;
        }
        coverage.count(Event::NameLost);
        match durable.get(&name) {
            Some(node) => names.insert(name, *node),
            None => names.remove(&name),
        };
    }
    *durable = names.clone();
}

impl Node {
    fn directory() -> Self {
        Self::Directory { names: Names::new(), durable: Names::new() }
    }
}

impl State {
    fn find(&self, path: &Path) -> io::Result<usize> {
        let mut at = TOP;
        for component in path.components() {
            let Component::Normal(name) = component else { continue };
            at = match &self.nodes[at] {
                Node::Directory { names, .. } => *names.get(text(name)).ok_or(io::ErrorKind::NotFound)?,
                Node::File { .. } => return Err(io::ErrorKind::NotADirectory.into()),
            };
        }
        Ok(at)
    }

    fn names(&mut self, directory: usize) -> io::Result<&mut Names> {
        match &mut self.nodes[directory] {
            Node::Directory { names, .. } => Ok(names),
            Node::File { .. } => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    /// The names in the directory of `path`, and its own.
    fn above<'a>(&mut self, path: &'a Path) -> io::Result<(&mut Names, &'a str)> {
        let directory = self.find(path.parent().ok_or(io::ErrorKind::InvalidInput)?)?;
        let name = text(path.file_name().ok_or(io::ErrorKind::InvalidInput)?);
        Ok((self.names(directory)?, name))
    }

    fn add(&mut self, path: &Path, node: usize) -> io::Result<()> {
        let (names, name) = self.above(path)?;
        if names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        names.insert(name.to_owned(), node);
        Ok(())
    }

    fn take(&mut self, path: &Path) -> io::Result<usize> {
        let (names, name) = self.above(path)?;
        names.remove(name).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn metadata(&self, node: usize) -> Metadata {
        let (kind, length) = match &self.nodes[node] {
            Node::File { content, .. } => (Kind::File, content.len() as u64),
            Node::Directory { .. } => (Kind::Directory, 0),
        };
        Metadata { kind, length, modified: Duration::ZERO }
    }

    fn fails(&mut self, event: Event, weight: u64) -> bool {
        let fails = self.failing > 0 && self.random.per_mille(self.failing * weight);
        if fails {
            self.coverage.count(event);
        }
        fails
    }
}

fn text(name: &OsStr) -> &str {
    name.to_str().expect("names of the store are ASCII")
}

impl Files for Machine {
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn NewFile>> {
        let mut state = self.step()?;
        let number = state.nodes.len();
        state.add(path, number)?;
        state.nodes.push(Node::File { content: Vec::new(), durable: 0 });
        Ok(Box::new(Writing { machine: self.clone(), number }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.step()?;
        let node = state.take(from)?;
        let (names, name) = state.above(to)?;
        names.insert(name.to_owned(), node);
        Ok(())
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.step()?;
        let node = state.find(from)?;
        state.add(to, node)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.step()?.take(path).map(drop)
    }

    fn create_directory(&self, path: &Path) -> io::Result<()> {
        let mut state = self.step()?;
        let number = state.nodes.len();
        state.add(path, number)?;
        state.nodes.push(Node::directory());
        Ok(())
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        let mut state = self.step()?;
        let directory = state.find(path)?;
        if state.fails(Event::SyncFailed, 1) {
            return Err(io::Error::other("syncing a directory fails"));
        }
        if let Node::Directory { names, durable } = &mut state.nodes[directory] {
            durable.clone_from(names);
        }
        Ok(())
    }

    fn read(&self, path: &Path, range: Option<Range<u64>>) -> io::Result<Vec<u8>> {
        let state = self.state();
        let Node::File { content, .. } = &state.nodes[state.find(path)?] else {
            return Err(io::ErrorKind::IsADirectory.into());
        };
        let range = range.map_or(0..content.len(), |range| range.start as usize..range.end as usize);
        Ok(content[range.start.min(content.len())..range.end.min(content.len())].to_vec())
    }

    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        let state = self.state();
        Ok(state.metadata(state.find(path)?))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        let state = self.state();
        let Node::Directory { names, .. } = &state.nodes[state.find(path)?] else {
            return Err(io::ErrorKind::NotADirectory.into());
        };
        Ok(names.iter().map(|(name, node)| Entry { name: name.clone(), metadata: state.metadata(*node) }).collect())
    }
}

#[derive(Debug)]
struct Writing {
    machine: Machine,
    number: usize,
}

impl NewFile for Writing {
    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut state = self.machine.step()?;
        if state.fails(Event::DiskFull, 1) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let is_partial = state.fails(Event::PartialWrite, 2);
        let Node::File { content, .. } = &mut state.nodes[self.number] else { return Ok(0) };
        let before = content.len();
        for piece in pieces {
            let length = if is_partial { piece.len().div_ceil(2) } else { piece.len() };
            content.extend_from_slice(&piece[..length]);
            if length < piece.len() {
                break;
            }
        }
        Ok(content.len() - before)
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut state = self.machine.step()?;
        let fails = state.fails(Event::SyncFailed, 1);
        let Node::File { content, durable } = &mut state.nodes[self.number] else { return Ok(()) };
        if fails {
            // What could not be written is gone, and the next sync will know nothing of it.
            content.truncate(*durable);
            return Err(io::Error::other("syncing a file fails"));
        }
        *durable = content.len();
        Ok(())
    }
}
