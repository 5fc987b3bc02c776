//! The file layer: every call that the [file store](super::FileStore) makes to the operating system.
//!
//! It can be replaced, so that a simulation can lose what was not synced: a file's content is durable after [`NewFile::sync`], the
//! names in a directory after [`Files::sync_directory`] of that directory, and nothing else makes anything durable.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, IoSlice, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

/// Files and directories. All calls block. Errors are the operating system's.
pub trait Files: fmt::Debug + Send + Sync + 'static {
    /// Makes a file that must not exist yet, open for writing.
    ///
    /// # Errors
    /// [`AlreadyExists`](io::ErrorKind::AlreadyExists) if there is one; whatever the operating system reports.
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn NewFile>>;

    /// Gives the file `from` the name `to` instead, in one step; a file that had that name loses it.
    ///
    /// # Errors
    /// Whatever the operating system reports.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Gives the file `from` the further name `to`, in one step.
    ///
    /// # Errors
    /// [`AlreadyExists`](io::ErrorKind::AlreadyExists) if that name is taken; whatever the operating system reports.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Takes away a name of a file.
    ///
    /// # Errors
    /// Whatever the operating system reports.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes a directory in one that exists.
    ///
    /// # Errors
    /// [`AlreadyExists`](io::ErrorKind::AlreadyExists) if the name is taken; whatever the operating system reports.
    fn create_directory(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a directory durable: those that it has, and the absence of those that it has no longer.
    ///
    /// # Errors
    /// Whatever the operating system reports. Nothing is known then of the names changed since the last sync.
    fn sync_directory(&self, path: &Path) -> io::Result<()>;

    /// The content of a file, or that of its octets in `range` which it has.
    ///
    /// # Errors
    /// Whatever the operating system reports.
    fn read(&self, path: &Path, range: Option<Range<u64>>) -> io::Result<Vec<u8>>;

    /// What there is to know of a file or directory without opening it.
    ///
    /// # Errors
    /// Whatever the operating system reports.
    fn metadata(&self, path: &Path) -> io::Result<Metadata>;

    /// What is in a directory, in any order, without `.` and `..`, and without names that are not UTF-8.
    ///
    /// # Errors
    /// Whatever the operating system reports.
    fn list(&self, path: &Path) -> io::Result<Vec<Entry>>;
}

/// A file that is being written. It is closed when dropped.
pub trait NewFile: fmt::Debug + Send {
    /// Appends octets of these pieces, in order, and tells how many; at least one unless there is none.
    ///
    /// # Errors
    /// Whatever the operating system reports.
    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize>;

    /// Makes the content durable. It says nothing of the file's name.
    ///
    /// # Errors
    /// Whatever the operating system reports. The content is lost then: a second call may succeed without having written it.
    fn sync(&mut self) -> io::Result<()>;
}

/// What a name in a directory stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "implementors of Files build it, and nothing else holds objects")]
pub enum Kind {
    /// A file.
    File,
    /// A directory.
    Directory,
    /// Anything else: a device, a pipe, in a directory's listing also a symbolic link.
    Other,
}

/// What there is to know of a file or directory without opening it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs, reason = "implementors of Files build it")]
pub struct Metadata {
    /// What it is.
    pub kind: Kind,
    /// The length of a file in octets.
    pub length: u64,
    /// When it was last written, since 1970-01-01T00:00:00Z, by the clock of the file system.
    pub modified: Duration,
}

/// A name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs, reason = "implementors of Files build it")]
pub struct Entry {
    /// The name, without the directory's.
    pub name: String,
    /// What it stands for.
    pub metadata: Metadata,
}

/// The operating system's files.
///
/// Elsewhere than on Unix a directory cannot be synced with the standard library, and is not: there, whether a name outlives a power
/// failure rests with the file system's journal.
#[derive(Clone, Copy, Debug, Default)]
#[allow(clippy::exhaustive_structs, reason = "there is nothing to it")]
pub struct SystemFiles;

impl Files for SystemFiles {
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn NewFile>> {
        Ok(Box::new(File::create_new(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn create_directory(&self, path: &Path) -> io::Result<()> {
        fs::create_dir(path)
    }

    #[cfg(unix)]
    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    #[cfg(not(unix))]
    fn sync_directory(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn read(&self, path: &Path, range: Option<Range<u64>>) -> io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        let range = range.unwrap_or(0..length);
        // Room for no more than the file has, however far a damaged row points; nor can a file be positioned anywhere.
        let room = range.end.min(length).saturating_sub(range.start);
        if room > 0 && range.start > 0 {
            file.seek(SeekFrom::Start(range.start))?;
        }
        let mut octets = Vec::with_capacity(usize::try_from(room).map_err(|_| io::ErrorKind::FileTooLarge)?);
        file.take(room).read_to_end(&mut octets)?;
        Ok(octets)
    }

    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        fs::metadata(path).map(|metadata| known(&metadata))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            match entry.metadata() {
                Ok(metadata) => entries.push(Entry { name, metadata: known(&metadata) }),
                // Deleted since its name was read.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(entries)
    }
}

impl NewFile for File {
    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        Write::write_vectored(self, pieces)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_all()
    }
}

fn known(metadata: &fs::Metadata) -> Metadata {
    let kind = match metadata.file_type() {
        kind if kind.is_file() => Kind::File,
        kind if kind.is_dir() => Kind::Directory,
        _ => Kind::Other,
    };
    // A file system without such a time makes every file very old; one before 1970 is as old.
    let modified = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    Metadata { kind, length: metadata.len(), modified: modified.unwrap_or_default() }
}
