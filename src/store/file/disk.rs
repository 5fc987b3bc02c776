//! What a file store does on the disk. Everything here blocks.

use crate::error::{Error, ErrorKind, Result, Retry};
use crate::store::files::{Files, Kind, NewFile};
use crate::store::key::{check_key, check_range, is_name};
use crate::store::{Created, Listed, Payload};
use bytes::Bytes;
use std::collections::HashSet;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The directory of files that are being written. No key has such a name in it.
const TEMPORARIES: &str = ".tmp";

/// How often a taken name of a temporary file is passed over before giving up: it only happens after a fork, or by accident.
const TRIES_FOR_A_NAME: u32 = 1000;

/// How many directories are known to be durable: what is forgotten is synced again. A store may have one for each of millions of mailboxes.
pub(super) const MADE_MAX: usize = 4096;

/// A directory with objects in it, and what is known of it.
#[derive(Debug)]
pub(super) struct Disk {
    root: PathBuf,
    files: Arc<dyn Files>,
    /// Tells this store's temporary files from those of other processes and machines.
    token: u64,
    /// The number of the next temporary file.
    next: AtomicU64,
    directories: Mutex<Directories>,
}

#[derive(Debug, Default)]
struct Directories {
    /// Those whose own names are durable.
    made: HashSet<PathBuf>,
    /// Those that failed to sync: what their next sync says cannot be believed.
    failed: HashSet<PathBuf>,
}

impl Directories {
    fn remember(&mut self, made: &Path) {
        if self.made.len() >= MADE_MAX {
            self.made.clear();
        }
        self.made.insert(made.to_owned());
    }
}

/// What a name in a directory leads to.
#[derive(Debug)]
pub(super) enum Found {
    /// An object.
    Object(Listed),
    /// More names: below this prefix.
    Directory(String),
}

impl Disk {
    pub(super) fn new(root: PathBuf, files: Arc<dyn Files>, token: u64) -> Self {
        Self { root, files, token, next: AtomicU64::new(0), directories: Mutex::default() }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Fails unless the root is a directory.
    pub(super) fn require_root(&self) -> Result<()> {
        let root = self.root.display();
        match self.files.metadata(&self.root) {
            Ok(metadata) if metadata.kind == Kind::Directory => Ok(()),
            Ok(_) => Err(Error::invalid(format!("'{root}' is not a directory"))),
            Err(error) => Err(Error::io(format!("opening the store in '{root}'"), error)),
        }
    }

    /// Makes the root and the directories above it, where there are none.
    pub(super) fn create_root(&self) -> Result<()> {
        let doing = |error| Error::io(format!("making the directory '{}'", self.root.display()), error);
        let mut missing = Vec::new();
        for directory in self.root.ancestors() {
            match self.files.metadata(directory) {
                Ok(_) => break,
                Err(error) if error.kind() == io::ErrorKind::NotFound => missing.push(directory),
                Err(error) => return Err(doing(error)),
            }
        }
        while let Some(directory) = missing.pop() {
            self.make_directory(directory).map_err(doing)?;
            self.sync_parent(directory)?;
        }
        Ok(())
    }

    pub(super) fn put(&self, key: &str, payload: &Payload) -> Result<()> {
        let target = self.path(key)?;
        let temporary = self.write(key, payload)?;
        self.make_directories_above(&target)?;
        temporary.rename(&target).map_err(|error| self.naming_failed(key, &target, error))?;
        self.sync_parent(&target)
    }

    pub(super) fn create(&self, key: &str, payload: &Payload) -> Result<Created> {
        let target = self.path(key)?;
        let temporary = self.write(key, payload)?;
        self.make_directories_above(&target)?;
        match self.files.link(&temporary.path, &target) {
            Ok(()) => {
                self.sync_parent(&target)?;
                Ok(Created::New)
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.require_object(key, &target)?;
                // The winner may not have come to this yet, and whoever is told that the object exists builds on it.
                self.sync_parent(&target)?;
                Ok(Created::Exists)
            }
            Err(error) if links_are_unsupported(&error) => {
                let message = format!(
                    "the file system of '{}' has no hard links, which create-if-absent needs",
                    self.root.display()
                );
                Err(Error::new(ErrorKind::Unsupported, message).because(error))
            }
            Err(error) => Err(self.naming_failed(key, &target, error)),
        }
    }

    pub(super) fn read(&self, key: &str, range: Option<Range<u64>>) -> Result<Bytes> {
        let path = self.path(key)?;
        if let Some(range) = &range {
            check_range(range)?;
        }
        let octets = self.files.read(&path, range).map_err(|error| reading_failed(key, error))?;
        Ok(octets.into())
    }

    pub(super) fn length(&self, key: &str) -> Result<Option<u64>> {
        match self.files.metadata(&self.path(key)?) {
            Ok(metadata) => Ok((metadata.kind == Kind::File).then_some(metadata.length)),
            Err(error) if is_absence(&error) => self.require_root().map(|()| None),
            Err(error) => Err(Error::io(format!("looking for '{key}'"), error)),
        }
    }

    pub(super) fn delete(&self, key: &str) -> Result<()> {
        let path = self.path(key)?;
        match self.files.remove(&path) {
            Ok(()) => self.sync_parent(&path),
            // A directory is no object, and systems differ in how they refuse to remove it so.
            Err(error) if is_absence(&error) || self.length(key)?.is_none() => Ok(()),
            Err(error) => Err(Error::io(format!("deleting '{key}'"), error)),
        }
    }

    /// What is directly below `prefix`, by name, last first. Nothing if there is no such directory.
    pub(super) fn list(&self, prefix: &str) -> Result<Vec<Found>> {
        let entries = match self.files.list(&self.root.join(prefix)) {
            Ok(entries) => entries,
            // A store that is gone altogether must not look like one without objects.
            Err(error) if is_absence(&error) => return self.require_root().map(|()| Vec::new()),
            Err(error) => return Err(Error::io(format!("listing '{prefix}'"), error)),
        };
        let mut entries: Vec<_> = entries.into_iter().filter(|entry| is_name(&entry.name)).collect();
        if entries.iter().any(|entry| entry.metadata.kind == Kind::File) {
            self.settle(&self.root.join(prefix))?;
        }
        entries.sort_unstable_by(|a, b| b.name.cmp(&a.name));
        let found = entries.into_iter().filter_map(|entry| match entry.metadata.kind {
            Kind::File => {
                Some(Found::Object(Listed { key: format!("{prefix}{}", entry.name), length: entry.metadata.length }))
            }
            Kind::Directory => Some(Found::Directory(format!("{prefix}{}/", entry.name))),
            Kind::Other => None,
        });
        Ok(found.collect())
    }

    /// Makes the names that were listed durable: whoever gave them may have been killed before it came to this, and who lists builds on
    /// them. Where nothing can be written nothing needs to be.
    fn settle(&self, directory: &Path) -> Result<()> {
        match self.sync_directory(directory) {
            Err(error) if matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::Denied) => Ok(()),
            synced => synced,
        }
    }

    pub(super) fn remove_temporaries(&self, older_than: Duration) -> Result<u64> {
        let directory = self.root.join(TEMPORARIES);
        let failed = |error| Error::io("removing old temporary files", error);
        // A file made now shows what time it is where the files are stamped.
        let (mark, _) = self.create_temporary().map_err(failed)?;
        let now = self.files.metadata(&mark.path).map_err(failed)?.modified;
        let mut removed = 0;
        for entry in self.files.list(&directory).map_err(failed)? {
            let age = now.saturating_sub(entry.metadata.modified);
            if entry.metadata.kind != Kind::File || age <= older_than {
                continue;
            }
            match self.files.remove(&directory.join(&entry.name)) {
                Ok(()) => removed += 1,
                // Its writer, or somebody else who cleans up, came first.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(removed)
    }

    fn path(&self, key: &str) -> Result<PathBuf> {
        check_key(key)?;
        Ok(self.root.join(key))
    }

    /// Writes a durable file that has no key yet.
    fn write(&self, key: &str, payload: &Payload) -> Result<Temporary<'_>> {
        let failed = |error| writing_failed(key, error);
        let (temporary, mut file) = self.create_temporary().map_err(failed)?;
        write_all(&mut *file, payload).map_err(failed)?;
        // If this fails the file is dropped, and removed: what a second sync says would mean nothing.
        #[cfg(not(planted = "no_fsync"))]
        file.sync().map_err(failed)?;
        Ok(temporary)
    }

    fn create_temporary(&self) -> io::Result<(Temporary<'_>, Box<dyn NewFile>)> {
        let directory = self.root.join(TEMPORARIES);
        for _ in 0..TRIES_FOR_A_NAME {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let path = directory.join(format!("{:016x}-{number}", self.token));
            match self.files.create_new(&path) {
                Ok(file) => return Ok((Temporary { path, files: &*self.files }, file)),
                // Nothing in there needs to be durable, so neither does the directory itself.
                Err(error) if error.kind() == io::ErrorKind::NotFound => self.make_directory(&directory)?,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::other("no name is left for a temporary file"))
    }

    /// Makes the directories between the root and `target`, and their names durable.
    fn make_directories_above(&self, target: &Path) -> Result<()> {
        let between = |directory: &&Path| *directory != self.root && directory.starts_with(&self.root);
        let mut unknown: Vec<&Path> = Vec::new();
        for directory in target.ancestors().skip(1).take_while(between) {
            if self.directories().made.contains(directory) {
                break;
            }
            unknown.push(directory);
        }
        while let Some(directory) = unknown.pop() {
            self.make_directory(directory).map_err(|error| {
                let doing = format!("making the directory '{}'", directory.display());
                absence_is_unavailable(doing, error)
            })?;
            // Also if there was one: its maker may have been killed before it came to this.
            self.sync_parent(directory)?;
            self.directories().remember(directory);
        }
        Ok(())
    }

    /// Makes a directory unless the name is taken.
    fn make_directory(&self, directory: &Path) -> io::Result<()> {
        match self.files.create_directory(directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => Ok(()),
        }
    }

    /// Makes the name of `path` durable.
    fn sync_parent(&self, path: &Path) -> Result<()> {
        // Only the root of a file system has no parent, and nothing was done to its name.
        path.parent().map_or(Ok(()), |parent| self.sync_directory(parent))
    }

    /// Makes the names in a directory durable.
    fn sync_directory(&self, directory: &Path) -> Result<()> {
        let doing = || format!("syncing the directory '{}'", directory.display());
        if self.directories().failed.contains(directory) {
            let message = format!("{} failed before: the store must be opened again", doing());
            return Err(Error::new(ErrorKind::Unavailable, message).retry_as(Retry::Never));
        }
        self.files.sync_directory(directory).map_err(|error| {
            self.directories().failed.insert(directory.to_owned());
            match error.kind() {
                // Some network and user-space file systems cannot sync directories at all.
                io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported => {
                    Error::new(ErrorKind::Unsupported, doing()).because(error)
                }
                _ => Error::io(doing(), error).retry_as(Retry::Never),
            }
        })
    }

    fn require_object(&self, key: &str, target: &Path) -> Result<()> {
        match self.files.metadata(target) {
            Ok(metadata) if metadata.kind == Kind::File => Ok(()),
            Ok(_) => Err(Error::invalid(format!("'{key}' cannot be an object: there are objects below it"))),
            Err(error) => Err(writing_failed(key, error)),
        }
    }

    /// The error of a file that did not get its name.
    fn naming_failed(&self, key: &str, target: &Path, error: io::Error) -> Error {
        if error.kind() == io::ErrorKind::NotFound {
            // A directory was taken away beneath us, it seems: the next try makes it again.
            let mut directories = self.directories();
            for directory in target.ancestors() {
                directories.made.remove(directory);
            }
        }
        writing_failed(key, error)
    }

    fn directories(&self) -> MutexGuard<'_, Directories> {
        // Every change to the sets is one call of its own, so a panic elsewhere cannot have left them half changed.
        self.directories.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A file without a key, removed when dropped.
#[derive(Debug)]
struct Temporary<'a> {
    path: PathBuf,
    files: &'a dyn Files,
}

impl Temporary<'_> {
    fn rename(mut self, target: &Path) -> io::Result<()> {
        self.files.rename(&self.path, target)?;
        // It is not under its old name any more, and there is nothing to remove.
        self.path = PathBuf::new();
        Ok(())
    }
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        if !self.path.as_os_str().is_empty() {
            // If this fails, the file stays until old temporaries are removed; the object is not concerned.
            let _ = self.files.remove(&self.path);
        }
    }
}

fn write_all(file: &mut dyn NewFile, payload: &Payload) -> io::Result<()> {
    // Without the empty ones, writing nothing at all can only mean that the file takes no more.
    let pieces = payload.pieces().iter().filter(|piece| !piece.is_empty());
    let mut slices: Vec<_> = pieces.map(|piece| IoSlice::new(piece)).collect();
    let mut left = slices.as_mut_slice();
    while !left.is_empty() {
        match file.write_vectored(left) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => IoSlice::advance_slices(&mut left, written),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn writing_failed(key: &str, error: io::Error) -> Error {
    absence_is_unavailable(format!("writing '{key}'"), error)
}

/// The error of a write. What it did not find is not the object, which is what `NotFound` would say.
fn absence_is_unavailable(doing: String, error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::NotFound => Error::new(ErrorKind::Unavailable, doing).because(error),
        io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory | io::ErrorKind::InvalidFilename => {
            Error::invalid(doing).because(error)
        }
        _ => Error::io(doing, error),
    }
}

fn reading_failed(key: &str, error: io::Error) -> Error {
    if is_absence(&error) {
        return Error::new(ErrorKind::NotFound, format!("there is no object '{key}'")).because(error);
    }
    Error::io(format!("reading '{key}'"), error)
}

/// Whether there is no such file: no such name, a file in place of a directory above it, or a directory in its own place.
fn is_absence(error: &io::Error) -> bool {
    use io::ErrorKind::{IsADirectory, NotADirectory, NotFound};
    matches!(error.kind(), NotFound | NotADirectory | IsADirectory)
}

fn links_are_unsupported(error: &io::Error) -> bool {
    // EPERM, as opposed to EACCES: the file system has no links. `ErrorKind` does not tell the two apart.
    const NOT_PERMITTED: i32 = 1;
    use io::ErrorKind::{CrossesDevices, TooManyLinks, Unsupported};
    matches!(error.kind(), CrossesDevices | TooManyLinks | Unsupported) || error.raw_os_error() == Some(NOT_PERMITTED)
}
