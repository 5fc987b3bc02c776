//! A store in a directory of a file system.

mod disk;
mod walk;

use super::files::{Files, SystemFiles};
use super::{Created, Listed, Payload, Store};
use crate::error::{Error, ErrorKind, Result};
use crate::runtime::{self, Executor, Inline, Job, Randomness, SystemRandomness};
use bytes::Bytes;
use disk::Disk;
use futures::future::{BoxFuture, FutureExt};
use futures::stream::BoxStream;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf, absolute};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;

/// A store in a directory of a file system. Clones share the directory and what is known of it.
///
/// # Layout
/// An object is a file whose path below the directory is its key. So no key can be the beginning of another (`a` and `a/b`): the
/// write that comes second is [`Invalid`](ErrorKind::Invalid). Directories are made as they are needed and are never
/// removed. What else is in the directory, under names that no key can have, is left alone and is not listed; nor are symbolic links.
///
/// # Durability
/// An object is written to a temporary file in `.tmp`, synced, given its name, and then the directory that holds the name is synced,
/// as are the directories above that had to be made. Only then does the write resolve. A write that is cut off anywhere leaves
/// no object, or a whole one, and at most a file in `.tmp`, which [`remove_temporaries`](Self::remove_temporaries) removes.
///
/// Others may see an object a moment before its name is durable. [`Created::Exists`] is answered only when it is, and a listing that
/// shows it makes it so.
///
/// After a failed sync nobody knows what the operating system still holds, and a second sync may succeed without having written
/// anything. A file that failed to sync is thrown away. A directory that failed to sync takes no further writes until
/// the store is opened again: each is [`Unavailable`](ErrorKind::Unavailable) and not worth a retry. A file system that cannot sync
/// directories at all is [`Unsupported`](ErrorKind::Unsupported).
///
/// # Any number of writers
/// Processes may share the directory. [`create`](Store::create) needs a file system with hard links, on which the whole directory
/// lies: elsewhere it is [`Unsupported`](ErrorKind::Unsupported). (Nothing else that every platform offers gives a name to
/// a finished file only if the name is free.)
///
/// # Errors
/// [`Full`](ErrorKind::Full) if no space or quota is left, [`Denied`](ErrorKind::Denied) if the file system is read-only or refuses
/// access, [`Invalid`](ErrorKind::Invalid) for what is not a [key](super::check_key).
#[derive(Clone)]
pub struct FileStore {
    disk: Arc<Disk>,
    executor: Arc<dyn Executor>,
}

impl FileStore {
    /// The store in the directory `path`.
    ///
    /// Its operations block on the disk. Polled inside of a tokio runtime they do so on that runtime's threads for blocking work,
    /// elsewhere on the thread that polls.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if there is no directory `path`.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let store = Self::on_this_system(path.as_ref())?;
        store.disk.require_root()?;
        Ok(store)
    }

    /// The store in the directory `path`, which is made, durably, if it does not exist, as are those above it.
    ///
    /// # Errors
    /// If it cannot be made, or is not a directory.
    pub fn open_or_create(path: impl AsRef<Path>) -> Result<Self> {
        let store = Self::on_this_system(path.as_ref())?;
        store.disk.create_root()?;
        store.disk.require_root()?;
        Ok(store)
    }

    /// The store in the directory `root` of these files, whose operations run on `executor`. Touches no file. With
    /// [`Inline`] and deterministic files and randomness all is deterministic.
    ///
    /// # Errors
    /// If `randomness`, from which temporary files get their names, fails.
    pub fn with(
        root: impl Into<PathBuf>,
        files: Arc<dyn Files>,
        executor: Arc<dyn Executor>,
        randomness: &dyn Randomness,
    ) -> Result<Self> {
        let mut token = [0; 8];
        randomness.fill(&mut token)?;
        let disk = Disk::new(root.into(), files, u64::from_be_bytes(token));
        Ok(Self { disk: Arc::new(disk), executor })
    }

    /// Removes the temporary files that writers left behind which were killed: those last written to longer than `older_than` ago.
    /// Tells how many.
    ///
    /// Nothing is ever lost by it. A writer that still works on a file taken from it gets an error and leaves no
    /// object; so `older_than` should be longer than any write takes: a day is plenty. The age is measured by
    /// the clock that stamps the files, not by this machine's.
    ///
    /// # Errors
    /// Whatever the file system reports.
    ///
    /// # Cancel safety
    /// Dropping the future does not stop the removal.
    pub async fn remove_temporaries(&self, older_than: Duration) -> Result<u64> {
        self.run(move |disk| disk.remove_temporaries(older_than)).await
    }

    fn on_this_system(path: &Path) -> Result<Self> {
        // A later change of the process's directory must not move the store.
        let root = absolute(path).map_err(|error| {
            Error::new(ErrorKind::Invalid, format!("'{}' is not a path", path.display())).because(error)
        })?;
        Self::with(root, Arc::new(SystemFiles), Arc::new(RuntimeOfCaller), &SystemRandomness)
    }

    async fn run<T: Send + 'static>(&self, work: impl FnOnce(&Disk) -> Result<T> + Send + 'static) -> Result<T> {
        let disk = Arc::clone(&self.disk);
        runtime::run(&*self.executor, move || work(&disk)).await?
    }
}

impl Store for FileStore {
    fn put<'a>(&'a self, key: &'a str, payload: Payload) -> BoxFuture<'a, Result<()>> {
        let key = key.to_owned();
        self.run(move |disk| disk.put(&key, &payload)).boxed()
    }

    fn create<'a>(&'a self, key: &'a str, payload: Payload) -> BoxFuture<'a, Result<Created>> {
        let key = key.to_owned();
        self.run(move |disk| disk.create(&key, &payload)).boxed()
    }

    fn read<'a>(&'a self, key: &'a str, range: Option<Range<u64>>) -> BoxFuture<'a, Result<Bytes>> {
        let key = key.to_owned();
        self.run(move |disk| disk.read(&key, range)).boxed()
    }

    fn length<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<u64>>> {
        let key = key.to_owned();
        self.run(move |disk| disk.length(&key)).boxed()
    }

    /// Each directory's objects in the order of their names. Holds the names of one directory per level at a time.
    fn list<'a>(&'a self, prefix: &'a str) -> BoxStream<'a, Result<Listed>> {
        walk::list(self, prefix)
    }

    /// Durable when it resolves.
    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<()>> {
        let key = key.to_owned();
        self.run(move |disk| disk.delete(&key)).boxed()
    }
}

impl fmt::Debug for FileStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileStore").field("root", &self.disk.root()).finish_non_exhaustive()
    }
}

/// Runs jobs on the threads for blocking work of the runtime that the caller is in; without one, at once.
#[derive(Debug)]
struct RuntimeOfCaller;

impl Executor for RuntimeOfCaller {
    fn execute(&self, job: Job) {
        match Handle::try_current() {
            // A runtime that is being shut down drops jobs that it has not begun; whoever waits for them is being dropped as well.
            Ok(runtime) => drop(runtime.spawn_blocking(job)),
            Err(_) => Inline.execute(job),
        }
    }

    fn parallelism(&self) -> usize {
        /// What tokio starts unless told otherwise.
        const THREADS_FOR_BLOCKING: usize = 512;
        if Handle::try_current().is_ok() { THREADS_FOR_BLOCKING } else { 1 }
    }
}

#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod tests;
