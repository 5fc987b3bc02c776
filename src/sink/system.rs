//! What sinks ask of the operating system, one call each, with errors that name the path.

use crate::error::{Error, ErrorKind, Result};
use crate::message::InternalDate;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// Seconds from 1970 beyond which no file system keeps a time; some give errors.
const SECONDS_MAX: u64 = 1 << 40;

/// Creates one directory, which only its owner can enter. `None` if a file is in its place.
pub(super) fn create_directory(path: &Path) -> Result<Option<()>> {
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    match builder.create(path) {
        Ok(()) => Ok(Some(())),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let found = fs::symlink_metadata(path).map_err(|error| doing("looking at", path, error))?;
            if found.is_symlink() {
                return Err(in_the_way(path, "is a symbolic link, which is not followed"));
            }
            Ok(found.is_dir().then_some(()))
        }
        Err(error) => Err(doing("creating", path, error)),
    }
}

/// Creates an empty file or finds one, and gives how long it is. `None` if a directory is in its place.
pub(super) fn create_file(path: &Path) -> Result<Option<u64>> {
    match private_file().create_new(true).open(path) {
        Ok(_) => return Ok(Some(0)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(doing("creating", path, error)),
    }
    match look(path)? {
        Some(found) if found.is_file() => Ok(Some(found.len())),
        Some(found) if found.is_dir() => Ok(None),
        _ => Err(in_the_way(path, "is a symbolic link or something else that is no file")),
    }
}

/// Options for writing to files that only their owner can read.
pub(super) fn private_file() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// Makes the entries of a directory durable.
pub(super) fn sync_directory(path: &Path) -> Result<()> {
    // Elsewhere than on Unix a directory cannot be opened as a file; its entries are durable when the system says so.
    if cfg!(unix) {
        File::open(path).and_then(|file| file.sync_all()).map_err(|error| doing("syncing", path, error))
    } else {
        Ok(())
    }
}

/// What is at `path`, a symbolic link not followed; `None` if nothing is.
pub(super) fn look(path: &Path) -> Result<Option<Metadata>> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => Ok(Some(metadata)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(doing("looking at", path, error)),
    }
}

/// The time as the system has it; `None` if it cannot have it.
pub(super) fn system_time(date: InternalDate) -> Option<SystemTime> {
    let whole = Duration::from_secs(Some(date.seconds.unsigned_abs()).filter(|seconds| *seconds <= SECONDS_MAX)?);
    let second = if date.seconds < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(whole)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(whole)
    };
    second?.checked_add(Duration::from_nanos(u64::from(date.nanos)))
}

/// Whether the file got this time. Asked of the file only for times that some file systems move to the nearest they can keep: before 1970,
/// and after 2037.
pub(super) fn has_time(path: &Path, time: SystemTime) -> Result<bool> {
    let usual = Duration::from_secs(1 << 31);
    if time.duration_since(SystemTime::UNIX_EPOCH).is_ok_and(|since| since < usual) {
        return Ok(true);
    }
    Ok(look(path)?.is_some_and(|found| found.modified().ok() == Some(time)))
}

/// The system's error about `path`.
pub(super) fn doing(what: &'static str, path: &Path, error: io::Error) -> Error {
    Error::io(format!("{what} '{}'", path.display()), error)
}

/// Something else is at `path` than what must be there.
pub(super) fn in_the_way(path: &Path, what: &'static str) -> Error {
    Error::new(ErrorKind::Exists, format!("'{}' in the target {what}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_before_1970_keep_their_nanoseconds() {
        let date = InternalDate { seconds: -2, nanos: 5, zone_minutes: None };
        let time = system_time(date).unwrap();
        assert_eq!(SystemTime::UNIX_EPOCH.duration_since(time).unwrap(), Duration::from_nanos(1_999_999_995));
        assert_eq!(system_time(InternalDate { seconds: i64::MIN, nanos: 0, zone_minutes: None }), None);
    }
}
