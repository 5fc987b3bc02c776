//! A tree of files, each one message.

use super::file::{FileBody, Stat, canonical_directory, failed};
use super::listing::{FileKind, Listing, as_path, joined, octets_of_path};
use super::{Batch, Body, Entry, Exclusion, Kind, Known, MailboxIter, MailboxSource, Message, Source, SourceId};
use crate::error::Result;
use crate::message::{Envelope, Folder, FolderPath, Identity, MailboxName};
use crate::runtime::{Clock, SystemClock};
use bytes::Bytes;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A tree of files, each one message, whatever its octets and its name.
///
/// The directories at the top are the mailboxes, the directories in them the folders. Files at the top are in a mailbox with an
/// empty name, which is there only if they are. A message is named by its file name; its internal date is the file's modification time.
/// A file counts as unchanged while its size, times and inode are; what was written in the last 2 s is read again next time.
/// Symbolic links and the like are counted as excluded, never followed.
#[derive(Clone, Debug)]
pub struct Eml {
    root: PathBuf,
    id: SourceId,
    clock: Arc<dyn Clock>,
}

impl Eml {
    /// The tree under `directory`.
    ///
    /// # Errors
    /// If there is no such directory, or it may not be looked at.
    pub fn open(directory: impl AsRef<Path>) -> Result<Self> {
        let root = canonical_directory(directory.as_ref())?;
        let id = SourceId::of("eml", octets_of_path(&root));
        Ok(Self { root, id, clock: Arc::new(SystemClock) })
    }

    /// The same tree under another id than that of its path: for mail that moved.
    #[must_use]
    pub fn with_id(mut self, id: SourceId) -> Self {
        self.id = id;
        self
    }

    /// The same tree, looked at by another clock.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }
}

impl Source for Eml {
    fn id(&self) -> SourceId {
        self.id
    }

    fn kind(&self) -> Kind {
        Kind::Eml
    }

    fn mailboxes(&self) -> Result<MailboxIter> {
        let top = Listing::read(&self.root).map_err(|source| failed("listing", &self.root, source))?;
        let has_files = top.iter().any(|(_, kind)| kind != FileKind::Directory);
        Ok(Box::new(Mailboxes { root: self.root.clone(), clock: Arc::clone(&self.clock), top, has_files, next: 0 }))
    }
}

/// The mailbox of the files at the top, if there are any, then the directories at the top.
struct Mailboxes {
    root: PathBuf,
    clock: Arc<dyn Clock>,
    top: Listing,
    has_files: bool,
    next: usize,
}

impl Iterator for Mailboxes {
    type Item = Result<Box<dyn MailboxSource>>;

    fn next(&mut self) -> Option<Self::Item> {
        if std::mem::take(&mut self.has_files) {
            return Some(Ok(Box::new(Tree::new(b"", self.root.clone(), false, Arc::clone(&self.clock)))));
        }
        loop {
            let (name, kind) = self.top.get(self.next)?;
            self.next += 1;
            if kind == FileKind::Directory {
                let path = self.root.join(as_path(name));
                return Some(Ok(Box::new(Tree::new(name, path, true, Arc::clone(&self.clock)))));
            }
        }
    }
}

/// One mailbox: a directory, with or without those below it.
struct Tree {
    name: MailboxName,
    root: PathBuf,
    is_deep: bool,
    clock: Arc<dyn Clock>,
    /// Directories that wait for their turn, the next one last; relative to `root`.
    waiting: Vec<Bytes>,
    current: Option<Directory>,
}

/// A directory whose names are being gone through.
struct Directory {
    folder: Bytes,
    path: PathBuf,
    listing: Listing,
    next: usize,
}

impl Tree {
    fn new(name: &[u8], root: PathBuf, is_deep: bool, clock: Arc<dyn Clock>) -> Self {
        Self { name: MailboxName::new(name), root, is_deep, clock, waiting: vec![Bytes::new()], current: None }
    }

    /// The next entry, `None` at the end.
    fn next(&mut self) -> Option<Entry> {
        loop {
            match self.current.as_mut().map(|directory| directory.next_message(&*self.clock)) {
                Some(Some(entry)) => return Some(entry),
                Some(None) => self.current = None,
                None => {
                    let folder = self.waiting.pop()?;
                    return Some(self.enter(folder));
                }
            }
        }
    }

    /// Begins with a directory; those in it wait.
    fn enter(&mut self, folder: Bytes) -> Entry {
        let path = self.root.join(as_path(&folder));
        let listing = match Listing::read(&path) {
            Ok(listing) => listing,
            Err(error) => return Entry::Failed { error: failed("listing", &path, error), name: folder },
        };
        if self.is_deep {
            let below = listing.iter().filter(|(_, kind)| *kind == FileKind::Directory);
            let at = self.waiting.len();
            self.waiting.extend(below.map(|(name, _)| Bytes::from(joined(&folder, name))));
            if let Some(below) = self.waiting.get_mut(at..) {
                below.reverse();
            }
        }
        self.current = Some(Directory { folder: folder.clone(), path, listing, next: 0 });
        Entry::Folder(Folder::new(FolderPath { names: names(&folder), raw: folder }))
    }
}

impl Directory {
    /// The next file of the directory itself, `None` at the end.
    fn next_message(&mut self, clock: &dyn Clock) -> Option<Entry> {
        loop {
            let (name, kind) = self.listing.get(self.next)?;
            self.next += 1;
            let relative = || Bytes::from(joined(&self.folder, name));
            match kind {
                FileKind::Directory => {}
                FileKind::Other => return Some(Entry::Excluded { name: relative(), reason: Exclusion::NotAFile }),
                FileKind::File => {
                    let path = self.path.join(as_path(name));
                    match fs::symlink_metadata(&path) {
                        Ok(metadata) if metadata.is_file() => {
                            return Some(self.message(name, path, Stat::of(&metadata), clock));
                        }
                        Ok(_) => return Some(Entry::Excluded { name: relative(), reason: Exclusion::NotAFile }),
                        // Deleted since the directory was listed: not in the mailbox any more.
                        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                        Err(error) => {
                            return Some(Entry::Failed { name: relative(), error: failed("looking at", &path, error) });
                        }
                    }
                }
            }
        }
    }

    fn message(&self, name: &[u8], path: PathBuf, stat: Stat, clock: &dyn Clock) -> Entry {
        let mut envelope = Envelope::new(self.folder.clone(), Identity::Named(Bytes::copy_from_slice(name)));
        envelope.evidence = stat.evidence(clock.now());
        envelope.internal_date = Some(stat.internal_date());
        let body = Body::Open { length: stat.size, open: Box::new(FileBody::new(path, stat)) };
        Entry::Message(Message { envelope, body })
    }
}

impl MailboxSource for Tree {
    fn name(&self) -> &MailboxName {
        &self.name
    }

    fn fill(&mut self, _known: &mut dyn Known, batch: &mut Batch) -> Result<bool> {
        while !batch.is_full() {
            match self.next() {
                Some(entry) => batch.push(entry),
                None => return Ok(false),
            }
        }
        Ok(true)
    }
}

/// The names of a path, for people.
fn names(path: &[u8]) -> Vec<String> {
    let names = path.split(|&octet| octet == b'/').filter(|name| !name.is_empty());
    names.map(|name| String::from_utf8_lossy(name).into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::super::drained::{drain, folders, lines, messages, read};
    use super::super::{Finished, Reason};
    use super::*;
    use crate::message::Evidence;
    use std::os::unix::fs::symlink;
    use std::time::{Duration, UNIX_EPOCH};
    use tempfile::TempDir;

    #[derive(Debug)]
    struct At(Duration);

    impl Clock for At {
        fn now(&self) -> Duration {
            self.0
        }
    }

    fn tree(files: &[(&str, &[u8])]) -> TempDir {
        let directory = tempfile::tempdir().unwrap();
        for (name, octets) in files {
            let path = directory.path().join(name);
            if name.ends_with('/') {
                fs::create_dir_all(path).unwrap();
            } else {
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, octets).unwrap();
            }
        }
        directory
    }

    #[test]
    fn directories_at_the_top_are_mailboxes_and_those_below_folders() {
        let directory = tree(&[
            ("alice/2.eml", b"x"),
            ("alice/1", b""),
            ("alice/A/B/3", b"y"),
            ("alice/A.x/", b""),
            ("bob/", b""),
            ("loose", b"z"),
        ]);
        let mailboxes = drain(&Eml::open(directory.path()).unwrap());
        let all: Vec<_> = mailboxes.iter().map(|(name, entries)| (name.as_str(), lines(entries))).collect();
        let expected = [
            ("", vec!["folder ", "message |loose"]),
            (
                "alice",
                vec![
                    "folder ",
                    "message |1",
                    "message |2.eml",
                    "folder A",
                    "folder A/B",
                    "message A/B|3",
                    "folder A.x",
                ],
            ),
            ("bob", vec!["folder "]),
        ];
        for (found, expected) in all.iter().zip(expected) {
            assert_eq!(found.0, expected.0);
            assert_eq!(found.1, expected.1);
        }
        assert_eq!(all.len(), 3);
        assert_eq!(folders(&mailboxes[1].1)[2].path.names, ["A", "B"]);
    }

    #[test]
    fn there_is_no_mailbox_without_a_name_unless_something_is_in_it() {
        let directory = tree(&[("alice/1", b"x")]);
        let names: Vec<_> = drain(&Eml::open(directory.path()).unwrap()).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["alice"]);
        assert!(drain(&Eml::open(directory.path().join("alice")).unwrap()).len() == 1);
        assert!(Eml::open(directory.path().join("alice/1")).is_err());
    }

    #[test]
    fn links_and_sockets_are_counted_and_never_followed() {
        let directory = tree(&[("a/1", b"x"), ("elsewhere/2", b"y")]);
        symlink("../elsewhere", directory.path().join("a/link")).unwrap();
        symlink("1", directory.path().join("a/same")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(directory.path().join("a/socket")).unwrap();
        symlink("a", directory.path().join("top")).unwrap();
        let mailboxes = drain(&Eml::open(directory.path()).unwrap());
        assert_eq!(lines(&mailboxes[0].1), ["folder ", "excluded top NotAFile"]);
        assert_eq!(
            lines(&mailboxes[1].1),
            ["folder ", "message |1", "excluded link NotAFile", "excluded same NotAFile", "excluded socket NotAFile"]
        );
    }

    #[test]
    fn pitfall_1_and_2_octets_come_as_they_are() {
        for octets in [&b""[..], b"\n", b"no end", b"a\r\nb\nc\rd\0\xff", b"From x\n\n"] {
            let directory = tree(&[("a/1", octets)]);
            let message = messages(drain(&Eml::open(directory.path()).unwrap()).remove(0).1).remove(0);
            assert_eq!(read(message.body).unwrap().0, octets);
        }
    }

    #[test]
    fn evidence_holds_while_nothing_changed_and_only_when_the_file_is_settled() {
        let directory = tree(&[("a/1", b"x")]);
        let path = directory.path().join("a/1");
        let written = fs::metadata(&path).unwrap().modified().unwrap().duration_since(UNIX_EPOCH).unwrap();
        let evidence_at = |now: Duration| {
            let source = Eml::open(directory.path()).unwrap().with_clock(Arc::new(At(now)));
            messages(drain(&source).remove(0).1).remove(0).envelope.evidence
        };
        let later = written + Duration::from_secs(60);
        assert_eq!(evidence_at(written + Duration::from_secs(1)), Evidence::NONE);
        assert_eq!(evidence_at(Duration::from_secs(1)), Evidence::NONE);
        let settled = evidence_at(later);
        assert_ne!(settled, Evidence::NONE);
        assert_eq!(evidence_at(later + Duration::from_secs(1)), settled);
        // Another file of the same size and times in its place.
        fs::write(directory.path().join("a/2"), b"y").unwrap();
        fs::rename(directory.path().join("a/2"), &path).unwrap();
        assert_ne!(evidence_at(later), settled);
    }

    #[test]
    fn pitfall_26_the_internal_date_is_the_modification_time() {
        let directory = tree(&[("a/1", b"x")]);
        let file = fs::File::options().write(true).open(directory.path().join("a/1")).unwrap();
        file.set_modified(UNIX_EPOCH + Duration::new(946_684_800, 5)).unwrap();
        let message = messages(drain(&Eml::open(directory.path()).unwrap()).remove(0).1).remove(0);
        let date = message.envelope.internal_date.unwrap();
        assert_eq!((date.seconds, date.nanos, date.zone_minutes), (946_684_800, 5, None));
    }

    #[test]
    fn a_file_that_changed_after_enumeration_is_not_taken_for_the_enumerated_one() {
        let directory = tree(&[("a/1", b"one"), ("a/2", b"two"), ("a/3", b"three"), ("a/4", b"four")]);
        let at = |name: &str| directory.path().join("a").join(name);
        let found = messages(drain(&Eml::open(directory.path()).unwrap()).remove(0).1);
        fs::write(at("1"), b"one and more").unwrap();
        fs::write(at("2"), b"t").unwrap();
        fs::remove_file(at("3")).unwrap();
        let results: Vec<_> = found.into_iter().map(|message| read(message.body)).collect();
        let reasons: Vec<_> = results.iter().map(|result| result.as_ref().err().map(|error| error.reason)).collect();
        assert_eq!(reasons, [Some(Reason::Changed), Some(Reason::Short), Some(Reason::Vanished), None]);
        assert!(matches!(results[3], Ok((_, Finished::AsEnumerated))));
    }
}
