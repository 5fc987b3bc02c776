//! Finding and reading messages that other programs may rename at any time.

use super::super::file::{ReadFile, failed, open_file, unreadable};
use super::super::listing::{Listing, as_path};
use super::super::{OpenBody, ReadBody, Reason, Unreadable};
use super::names::{self, Keywords};
use crate::error::Result;
use std::fs::{self, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

/// Listings are repeated this often at most if the directory changes while it is listed.
const LISTINGS_MAX: usize = 4;

/// One folder's directory, shared by its enumeration and by the bodies that come of it.
#[derive(Debug)]
pub(super) struct FolderDirectory {
    pub(super) path: PathBuf,
    pub(super) keywords: Keywords,
    /// The newest listing, made when a message was not found under its enumerated name.
    again: Mutex<Option<Messages>>,
}

/// The names in `new` and `cur`, sorted by unique name.
#[derive(Debug, Default)]
pub(super) struct Messages {
    pub(super) cur: Listing,
    pub(super) new: Listing,
    times: Times,
}

/// The modification times of `cur` and `new`; `None` where they are not there.
type Times = [Option<SystemTime>; 2];

/// A file's name, and whether it is in `new` or `cur`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Location {
    pub(super) directory: &'static str,
    pub(super) name: Vec<u8>,
}

impl FolderDirectory {
    pub(super) fn new(path: PathBuf, keywords: Keywords) -> Self {
        Self { path, keywords, again: Mutex::new(None) }
    }

    pub(super) fn path_of(&self, location: &Location) -> PathBuf {
        self.path.join(location.directory).join(as_path(&location.name))
    }

    /// Where the message of this unique name is now: flags change a file's name, and a message that was seen moves from `new` to `cur`.
    /// `None` if it is in neither.
    pub(super) fn find(&self, unique: &[u8]) -> io::Result<Option<(Location, Metadata)>> {
        let mut again = self.again.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..LISTINGS_MAX {
            let known = again.as_ref().and_then(|messages| messages.find(unique));
            if let Some(location) = known {
                match fs::symlink_metadata(self.path_of(&location)) {
                    Ok(metadata) => return Ok(Some((location, metadata))),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            } else if again.as_ref().is_some_and(|messages| messages.times == times(&self.path)) {
                return Ok(None);
            }
            *again = Some(Messages::list(&self.path)?.0);
        }
        Ok(None)
    }
}

impl Messages {
    /// Lists `new` and then `cur`, so that a message that moves from one to the other is seen; and lists again what changed meanwhile,
    /// because a directory may leave out or repeat a file that is renamed while it is listed.
    ///
    /// With it come the directories that could not be listed.
    pub(super) fn list(path: &Path) -> io::Result<(Self, Vec<(&'static str, io::Error)>)> {
        let mut found = Self::default();
        let mut failures = Vec::new();
        for _ in 0..LISTINGS_MAX {
            let before = times(path);
            failures.clear();
            let new = listed(path, "new", &mut failures);
            let cur = listed(path, "cur", &mut failures);
            let earlier = std::mem::replace(&mut found, Self { cur, new, times: before });
            found.cur.absorb(&earlier.cur, names::unique)?;
            found.new.absorb(&earlier.new, names::unique)?;
            if times(path) == before {
                break;
            }
        }
        Ok((found, failures))
    }

    fn find(&self, unique: &[u8]) -> Option<Location> {
        let found = |directory, listing: &Listing| {
            let name = listing.find(unique, names::unique)?.to_vec();
            Some(Location { directory, name })
        };
        found("cur", &self.cur).or_else(|| found("new", &self.new))
    }
}

fn listed(path: &Path, name: &'static str, failures: &mut Vec<(&'static str, io::Error)>) -> Listing {
    match Listing::read_sorted(&path.join(name), names::unique) {
        Ok(listing) => listing,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Listing::default(),
        Err(error) => {
            failures.push((name, error));
            Listing::default()
        }
    }
}

fn times(path: &Path) -> Times {
    ["cur", "new"].map(|name| fs::symlink_metadata(path.join(name)).and_then(|metadata| metadata.modified()).ok())
}

/// A message's file, to be opened under its enumerated name or the one that it has by then.
#[derive(Debug)]
pub(super) struct MaildirBody {
    pub(super) folder: Arc<FolderDirectory>,
    pub(super) location: Location,
    /// As enumerated, in octets.
    pub(super) size: u64,
}

impl OpenBody for MaildirBody {
    fn open(self: Box<Self>) -> Result<Box<dyn ReadBody>, Unreadable> {
        let path = self.folder.path_of(&self.location);
        match open_file(&path) {
            Ok(file) => Ok(Box::new(ReadFile::renamable(file, path, self.size)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.open_renamed(),
            Err(error) => Err(unreadable("opening", &path, error)),
        }
    }
}

impl MaildirBody {
    fn open_renamed(&self) -> Result<Box<dyn ReadBody>, Unreadable> {
        let unique = names::unique(&self.location.name);
        for _ in 0..LISTINGS_MAX {
            let found = self.folder.find(unique).map_err(|source| self.not_listed(source))?;
            let Some((location, _)) = found else { break };
            let path = self.folder.path_of(&location);
            match open_file(&path) {
                Ok(file) => {
                    let flags = names::flags(&location.name, &self.folder.keywords);
                    let place = names::place(location.directory, &location.name);
                    return Ok(Box::new(ReadFile::renamable(file, path, self.size)?.moved(flags, place)));
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(unreadable("opening", &path, error)),
            }
        }
        let path = self.folder.path_of(&self.location);
        Err(unreadable("opening", &path, io::Error::from(io::ErrorKind::NotFound)))
    }

    fn not_listed(&self, source: io::Error) -> Unreadable {
        Unreadable { reason: Reason::ReadFailed, error: failed("listing", &self.folder.path, source) }
    }
}
