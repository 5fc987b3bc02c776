//! What the sources that read files share: the state of a file as the system tells it, and bodies that are whole files.

use super::{Finished, OpenBody, ReadBody, Reason, Unreadable};
use crate::error::{Error, Result};
use crate::message::{Evidence, Flags, InternalDate};
use crate::wire::{Decoder, Encode};
use bytes::Bytes;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A file written less than this long before it was looked at can be written again without its times showing it: clocks of
/// file systems tick as slowly as every 2 s.
const RACY: Duration = Duration::from_secs(2);

/// What the system says of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) device: u64,
    pub(super) inode: u64,
    /// In octets.
    pub(super) size: u64,
    /// Seconds since 1970 and nanoseconds.
    pub(super) modified: (i64, u32),
    /// Seconds since 1970 and nanoseconds.
    pub(super) changed: (i64, u32),
}

impl Stat {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.len(),
            modified: (metadata.mtime(), nanos(metadata.mtime_nsec())),
            changed: (metadata.ctime(), nanos(metadata.ctime_nsec())),
        }
    }

    /// When the octets were last written.
    pub(super) fn internal_date(&self) -> InternalDate {
        InternalDate { seconds: self.modified.0, nanos: self.modified.1, zone_minutes: None }
    }

    /// Whether the file may change once more without its times showing it: written shortly before `now`, or after it.
    pub(super) fn is_racy(&self, now: Duration) -> bool {
        let settled = now.saturating_sub(RACY);
        let settled = (i64::try_from(settled.as_secs()).unwrap_or(i64::MAX), settled.subsec_nanos());
        self.modified > settled || self.changed > settled
    }

    /// All of it as evidence, or none if it proves nothing at `now`.
    pub(super) fn evidence(&self, now: Duration) -> Evidence {
        if self.is_racy(now) {
            return Evidence::NONE;
        }
        let mut octets = Vec::with_capacity(48);
        self.encode(&mut octets);
        Evidence(octets.into())
    }

    /// Appends all of it in the encoding of [`crate::wire`].
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.number(self.size);
        for (seconds, nanos) in [self.modified, self.changed] {
            out.signed(seconds);
            out.number(u64::from(nanos));
        }
        out.number(self.inode);
        out.number(self.device);
    }

    /// Reads what [`encode`](Self::encode) wrote.
    pub(super) fn decode(decoder: &mut Decoder<'_>) -> Result<Self> {
        let size = decoder.number()?;
        let mut time = || {
            let seconds = decoder.signed()?;
            let nanos = u32::try_from(decoder.number()?).map_err(|_| Error::damaged("more nanoseconds than fit"))?;
            Ok::<_, Error>((seconds, nanos))
        };
        let (modified, changed) = (time()?, time()?);
        Ok(Self { size, modified, changed, inode: decoder.number()?, device: decoder.number()? })
    }
}

fn nanos(nanos: i64) -> u32 {
    u32::try_from(nanos).unwrap_or(0)
}

/// Says that something could not be read, with the reason that the system's error amounts to.
pub(super) fn unreadable(doing: &str, path: &Path, source: io::Error) -> Unreadable {
    let reason = match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::StaleNetworkFileHandle => {
            Reason::Vanished
        }
        io::ErrorKind::PermissionDenied => Reason::Denied,
        _ => Reason::ReadFailed,
    };
    Unreadable { reason, error: failed(doing, path, source) }
}

/// Opens a regular file for reading, and nothing else: since it was listed, a pipe, which would never end, or a link to anywhere may have
/// taken its place.
pub(super) fn open_file(path: &Path) -> io::Result<File> {
    let file = File::options().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no longer a file"));
    }
    Ok(file)
}

/// The canonical path of a directory that is to be a source.
pub(super) fn canonical_directory(path: &Path) -> Result<PathBuf> {
    let root = fs::canonicalize(path).map_err(|source| failed("opening", path, source))?;
    let metadata = fs::metadata(&root).map_err(|source| failed("opening", path, source))?;
    if !metadata.is_dir() {
        return Err(Error::invalid(format!("'{}' is not a directory", path.display())));
    }
    Ok(root)
}

/// The system's error about `path`.
pub(super) fn failed(doing: &str, path: &Path, source: io::Error) -> Error {
    Error::io(format!("{doing} '{}'", path.display()), source)
}

/// A body that is a whole file, and that must still be in the state in which it was enumerated when it has been read.
#[derive(Debug)]
pub(super) struct FileBody {
    path: PathBuf,
    enumerated: Stat,
}

impl FileBody {
    pub(super) fn new(path: PathBuf, enumerated: Stat) -> Self {
        Self { path, enumerated }
    }
}

impl OpenBody for FileBody {
    fn open(self: Box<Self>) -> Result<Box<dyn ReadBody>, Unreadable> {
        let file = open_file(&self.path).map_err(|source| unreadable("opening", &self.path, source))?;
        Ok(Box::new(ReadFile::new(file, self.path, self.enumerated)))
    }
}

/// Reads a file from its start, and compares its state with an expected one at the end.
#[derive(Debug)]
pub(super) struct ReadFile {
    file: File,
    path: PathBuf,
    expected: Stat,
    /// Whether a change of the inode alone (a rename, new rights) says nothing about the octets.
    inode_may_change: bool,
    left: u64,
    moved: Option<(Flags, Bytes)>,
}

impl ReadFile {
    /// A file that must be in the state `expected` when it has been read, down to the inode's change time.
    pub(super) fn new(file: File, path: PathBuf, expected: Stat) -> Self {
        Self { file, path, expected, inode_may_change: false, left: expected.size, moved: None }
    }

    /// A file whose octets must be `size` long and not written to from now on; it may be renamed meanwhile.
    pub(super) fn renamable(file: File, path: PathBuf, size: u64) -> Result<Self, Unreadable> {
        let metadata = file.metadata().map_err(|source| unreadable("looking at", &path, source))?;
        let expected = Stat { size, ..Stat::of(&metadata) };
        Ok(Self { file, path, expected, inode_may_change: true, left: size, moved: None })
    }

    /// The same, found under another name than the enumerated one.
    pub(super) fn moved(mut self, flags: Flags, place: Bytes) -> Self {
        self.moved = Some((flags, place));
        self
    }

    fn is_as_expected(&self, mut stat: Stat) -> bool {
        if self.inode_may_change {
            stat.changed = self.expected.changed;
        }
        stat == self.expected
    }
}

impl ReadBody for ReadFile {
    /// Reads no further than the enumerated size: what a file grew by meanwhile shows in [`finish`](Self::finish).
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Unreadable> {
        let wanted = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        // At the end the system is not asked for nothing.
        let Some(buffer @ [_, ..]) = buffer.get_mut(..wanted) else { return Ok(0) };
        let read = retried(|| self.file.read(buffer)).map_err(|source| unreadable("reading", &self.path, source))?;
        self.left = self.left.saturating_sub(read as u64);
        Ok(read)
    }

    fn finish(&mut self, length: u64) -> Result<Finished, Unreadable> {
        check_length(length, self.expected.size, &self.path)?;
        let metadata = self.file.metadata().map_err(|source| unreadable("looking at", &self.path, source))?;
        if !self.is_as_expected(Stat::of(&metadata)) {
            return Err(changed(&self.path));
        }
        Ok(match self.moved.take() {
            Some((flags, place)) => Finished::Moved { flags, place },
            None => Finished::AsEnumerated,
        })
    }
}

/// Refuses a body that ended before the length it was enumerated with.
pub(super) fn check_length(length: u64, expected: u64, path: &Path) -> Result<(), Unreadable> {
    if length >= expected {
        return Ok(());
    }
    let message = format!("'{}' ended after {length} of {expected} octets", path.display());
    Err(Unreadable { reason: Reason::Short, error: Error::new(crate::ErrorKind::Unavailable, message) })
}

/// Says that a file changed since it was enumerated.
pub(super) fn changed(path: &Path) -> Unreadable {
    let message = format!("'{}' changed while it was read", path.display());
    Unreadable { reason: Reason::Changed, error: Error::new(crate::ErrorKind::Unavailable, message) }
}

/// Repeats a call that a signal interrupted.
pub(super) fn retried<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn stat(path: &Path) -> Stat {
        Stat::of(&fs::symlink_metadata(path).unwrap())
    }

    fn read_all(body: &mut dyn ReadBody) -> Result<Vec<u8>, Unreadable> {
        let mut octets = Vec::new();
        let mut buffer = [0; 7];
        loop {
            match body.read(&mut buffer)? {
                0 => return Ok(octets),
                read => octets.extend_from_slice(&buffer[..read]),
            }
        }
    }

    fn open(path: &Path, enumerated: Stat) -> Result<Box<dyn ReadBody>, Unreadable> {
        Box::new(FileBody::new(path.to_owned(), enumerated)).open()
    }

    #[test]
    fn a_pipe_or_a_link_that_took_a_files_place_is_not_read_and_nobody_waits_for_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("1.eml");
        fs::write(&path, b"Subject: x\n\n").unwrap();
        let enumerated = stat(&path);
        fs::remove_file(&path).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        assert!(open(&path, enumerated).is_err());
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", &path).unwrap();
        assert!(open(&path, enumerated).is_err());
    }

    #[test]
    fn a_file_in_its_enumerated_state_is_read_in_full() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        fs::write(&path, b"Subject: x\n\nbody\0\xff without an end").unwrap();
        let mut body = open(&path, stat(&path)).unwrap();
        let octets = read_all(&mut *body).unwrap();
        assert_eq!(octets, fs::read(&path).unwrap());
        assert!(matches!(body.finish(octets.len() as u64), Ok(Finished::AsEnumerated)));
    }

    #[test]
    fn a_file_that_grew_is_changed_and_one_that_shrank_is_short() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        fs::write(&path, b"0123456789").unwrap();
        let before = stat(&path);
        File::options().append(true).open(&path).unwrap().write_all(b"more").unwrap();
        let mut body = open(&path, before).unwrap();
        assert_eq!(read_all(&mut *body).unwrap(), b"0123456789");
        assert_eq!(body.finish(10).unwrap_err().reason, Reason::Changed);

        fs::write(&path, b"0123").unwrap();
        let mut body = open(&path, before).unwrap();
        assert_eq!(read_all(&mut *body).unwrap(), b"0123");
        assert_eq!(body.finish(4).unwrap_err().reason, Reason::Short);
    }

    #[test]
    fn a_file_rewritten_with_the_same_length_is_changed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        fs::write(&path, b"0123456789").unwrap();
        let mut body = open(&path, stat(&path)).unwrap();
        let octets = read_all(&mut *body).unwrap();
        // A time set by hand, because the clock may not have ticked since the file was made.
        let file = File::options().write(true).open(&path).unwrap();
        file.set_modified(std::time::UNIX_EPOCH).unwrap();
        assert_eq!(body.finish(octets.len() as u64).unwrap_err().reason, Reason::Changed);
    }

    #[test]
    fn a_file_that_is_gone_has_vanished() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        fs::write(&path, b"x").unwrap();
        let before = stat(&path);
        fs::remove_file(&path).unwrap();
        assert_eq!(open(&path, before).err().unwrap().reason, Reason::Vanished);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn an_io_error_while_reading_is_a_failed_read() {
        // Page 0 of a process is never mapped, so reading it gives EIO.
        let path = Path::new("/proc/self/mem");
        let mut body = open(path, Stat { size: 100, ..stat(path) }).unwrap();
        assert_eq!(read_all(&mut *body).unwrap_err().reason, Reason::ReadFailed);
    }

    #[test]
    fn the_systems_refusal_is_denied() {
        let refused = unreadable("opening", Path::new("a"), io::Error::from(io::ErrorKind::PermissionDenied));
        assert_eq!(refused.reason, Reason::Denied);
        assert_eq!(refused.error.kind(), crate::ErrorKind::Denied);
    }

    #[test]
    fn what_was_written_just_now_or_in_the_future_proves_nothing() {
        let settled = Stat { device: 1, inode: 2, size: 3, modified: (1000, 5), changed: (1000, 5) };
        let now = Duration::new(1002, 5);
        assert!(!settled.evidence(now).is_none());
        assert!(settled.evidence(Duration::new(1002, 4)).is_none());
        assert!(Stat { changed: (1000, 6), ..settled }.evidence(now).is_none());
        assert!(Stat { modified: (5000, 0), ..settled }.evidence(now).is_none());
        assert_ne!(settled.evidence(now), Stat { inode: 9, ..settled }.evidence(now));
    }
}
