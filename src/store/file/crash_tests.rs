//! The power fails after every single step of a write, and what is left is looked at.

use super::*;
use crate::store::files::{Entry, Kind, Metadata, NewFile};
use futures::stream::TryStreamExt;
use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::sync::{Mutex, MutexGuard};

const OCTETS: &[u8] = b"the octets of the object";

/// Files in memory that know what is durable, and whose power can fail.
#[derive(Clone, Debug)]
struct Machine {
    state: Arc<Mutex<State>>,
}

#[derive(Clone, Debug)]
struct State {
    /// The files, by number: what was written, and how much of it is durable (nothing, or all at the last sync).
    files: Vec<(Vec<u8>, usize)>,
    /// What every name stands for, as programs see it.
    seen: BTreeMap<PathBuf, Name>,
    /// The same as of the last sync of each directory.
    durable: BTreeMap<PathBuf, Name>,
    /// How many steps are left until the power fails.
    steps: usize,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Name {
    File(usize),
    Directory,
}

/// What a file system keeps of names that were not synced: it may do either.
#[derive(Clone, Copy, Debug)]
enum Unsynced {
    Lost,
    Kept,
}

impl Machine {
    fn new() -> Self {
        let root = BTreeMap::from([(PathBuf::from("/store"), Name::Directory)]);
        let state = State { files: Vec::new(), seen: root.clone(), durable: root, steps: usize::MAX };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// The state, for a step that changes something: an error once the power has failed.
    fn step(&self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.state();
        if state.steps == 0 {
            return Err(io::Error::other("the power has failed"));
        }
        state.steps -= 1;
        Ok(state)
    }

    fn fail_after(&self, steps: usize) {
        self.state().steps = steps;
    }

    /// The machine as it starts again.
    fn restarted(&self, unsynced: Unsynced) -> Self {
        let mut state = self.state().clone();
        if let Unsynced::Lost = unsynced {
            state.seen = state.durable.clone();
        }
        // A name whose directory is lost leads nowhere.
        let all = state.seen.clone();
        let reached = |path: &PathBuf| {
            path.ancestors().skip(1).filter(|above| above.starts_with("/store")).all(|above| all.contains_key(above))
        };
        state.seen.retain(|path, _| reached(path));
        state.durable = state.seen.clone();
        for (content, synced) in &mut state.files {
            content.truncate(*synced);
        }
        state.steps = usize::MAX;
        Self { state: Arc::new(Mutex::new(state)) }
    }

    fn store(&self) -> FileStore {
        FileStore::with("/store", Arc::new(self.clone()), Arc::new(Inline), &SystemRandomness).unwrap()
    }
}

impl State {
    fn name(&self, path: &Path) -> io::Result<Name> {
        self.seen.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn add(&mut self, path: &Path, name: Name) -> io::Result<()> {
        self.name(path.parent().unwrap())?;
        self.seen.insert(path.to_owned(), name);
        Ok(())
    }

    fn require_free(&self, path: &Path) -> io::Result<()> {
        if self.seen.contains_key(path) { Err(io::ErrorKind::AlreadyExists.into()) } else { Ok(()) }
    }

    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        let (kind, length) = match self.name(path)? {
            Name::File(number) => (Kind::File, self.files[number].0.len() as u64),
            Name::Directory => (Kind::Directory, 0),
        };
        Ok(Metadata { kind, length, modified: Duration::ZERO })
    }
}

impl Files for Machine {
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn NewFile>> {
        let mut state = self.step()?;
        state.require_free(path)?;
        let number = state.files.len();
        state.add(path, Name::File(number))?;
        state.files.push((Vec::new(), 0));
        Ok(Box::new(Writing { machine: self.clone(), number }))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.step()?;
        let name = state.name(from)?;
        state.add(to, name)?;
        state.seen.remove(from);
        Ok(())
    }
    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.step()?;
        state.require_free(to)?;
        let name = state.name(from)?;
        state.add(to, name)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.step()?;
        state.name(path)?;
        state.seen.remove(path);
        Ok(())
    }
    fn create_directory(&self, path: &Path) -> io::Result<()> {
        let mut state = self.step()?;
        state.require_free(path)?;
        state.add(path, Name::Directory)
    }
    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        let mut state = self.step()?;
        let inside = |(name, _): &(&PathBuf, &Name)| name.parent() == Some(path);
        let now: Vec<_> = state.seen.iter().filter(inside).map(|(path, name)| (path.clone(), *name)).collect();
        state.durable.retain(|name, _| name.parent() != Some(path));
        state.durable.extend(now);
        Ok(())
    }
    fn read(&self, path: &Path, range: Option<Range<u64>>) -> io::Result<Vec<u8>> {
        assert_eq!(range, None);
        let state = self.state();
        match state.name(path)? {
            Name::File(number) => Ok(state.files[number].0.clone()),
            Name::Directory => Err(io::ErrorKind::IsADirectory.into()),
        }
    }
    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        self.state().metadata(path)
    }
    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        let state = self.state();
        state.name(path)?;
        let inside = state.seen.keys().filter(|name| name.parent() == Some(path));
        let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
        inside.map(|path| Ok(Entry { name: name(path), metadata: state.metadata(path)? })).collect()
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
        state.files[self.number].0.extend_from_slice(&pieces[0]);
        Ok(pieces[0].len())
    }
    fn sync(&mut self) -> io::Result<()> {
        let mut state = self.machine.step()?;
        let (content, synced) = &mut state.files[self.number];
        *synced = content.len();
        Ok(())
    }
}

fn now<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().unwrap()
}

fn payload() -> Payload {
    Payload::new(OCTETS.chunks(5).map(Bytes::from_static).collect())
}

/// Lets the power fail after every number of steps that `write` can be cut off at, and looks at what each kind of file system keeps.
/// Gives the number of steps that the whole write takes.
fn cut_off_everywhere(before: &Machine, key: &str, write: impl Fn(&FileStore) -> Result<()>) -> usize {
    for steps in 0.. {
        let machine = before.restarted(Unsynced::Kept);
        machine.fail_after(steps);
        let written = write(&machine.store());
        for unsynced in [Unsynced::Lost, Unsynced::Kept] {
            let machine = machine.restarted(unsynced);
            let at = format!("{key} cut off after {steps} steps, {unsynced:?}");
            let listed: Vec<_> = now(machine.store().list("").try_collect()).unwrap();
            for Listed { key, .. } in &listed {
                assert_eq!(now(machine.store().read(key, None)).unwrap(), OCTETS, "{at}: a torn object");
            }
            if written.is_ok() {
                assert!(listed.iter().any(|listed| listed.key == key), "{at}: lost though it was durable");
            }
            write(&machine.store()).unwrap();
            assert_eq!(now(machine.store().read(key, None)).unwrap(), OCTETS, "{at}: the next try");
        }
        if machine.state().steps > 0 {
            return steps - 1;
        }
    }
    unreachable!()
}

#[test]
fn a_write_cut_off_anywhere_leaves_no_object_or_a_whole_one_and_none_that_resolved_is_lost() {
    for key in ["config", "packs/0f/a"] {
        let put = cut_off_everywhere(&Machine::new(), key, |store| now(store.put(key, payload())));
        let create = cut_off_everywhere(&Machine::new(), key, |store| now(store.create(key, payload())).map(drop));
        assert!(put >= 8 && create > put, "{put} {create}");
    }
}

#[test]
fn an_object_that_exists_is_there_after_the_power_fails() {
    let machine = Machine::new();
    let complete = cut_off_everywhere(&machine, "a", |store| now(store.create("a", payload())).map(drop));
    // A writer is killed after the link: before the directory is synced, and the temporary file removed.
    machine.fail_after(complete - 2);
    assert!(now(machine.store().create("a", payload())).is_err());
    machine.fail_after(usize::MAX);
    assert_eq!(now(machine.store().create("a", payload())).unwrap(), Created::Exists);
    assert_eq!(now(machine.restarted(Unsynced::Lost).store().read("a", None)).unwrap(), OCTETS);
}

#[test]
fn an_object_that_was_listed_is_there_after_the_power_fails() {
    for key in ["a", "packs/0f/a"] {
        let machine = Machine::new();
        let complete = cut_off_everywhere(&machine, key, |store| now(store.create(key, payload())).map(drop));
        // A writer is killed after the link: before the directory is synced, and the temporary file removed.
        machine.fail_after(complete - 2);
        assert!(now(machine.store().create(key, payload())).is_err());
        machine.fail_after(usize::MAX);
        let listed: Vec<_> = now(machine.store().list("").try_collect()).unwrap();
        assert_eq!(listed.len(), 1);
        assert_eq!(now(machine.restarted(Unsynced::Lost).store().read(key, None)).unwrap(), OCTETS);
    }
}

#[test]
fn a_directory_made_by_a_writer_that_was_killed_is_made_durable_by_the_next() {
    let machine = Machine::new();
    machine.create_directory(Path::new("/store/packs")).unwrap();
    now(machine.store().put("packs/a", payload())).unwrap();
    assert_eq!(now(machine.restarted(Unsynced::Lost).store().read("packs/a", None)).unwrap(), OCTETS);
}

#[test]
fn a_deletion_that_resolved_is_not_undone() {
    let machine = Machine::new();
    now(machine.store().put("a", payload())).unwrap();
    now(machine.store().delete("a")).unwrap();
    assert_eq!(now(machine.restarted(Unsynced::Lost).store().length("a")).unwrap(), None);
}
