//! The enumeration of one mailbox.

use super::super::file::{Stat, failed, open_file};
use super::super::listing::{FileKind, Listing, as_path, joined};
use super::super::{Batch, Body, Entry, Exclusion, Known, MailboxSource, Message};
use super::Layout;
use super::body::{FolderDirectory, Location, MaildirBody, Messages};
use super::layout::{self, Directory, Tree};
use super::names;
use crate::error::Result;
use crate::message::{Companion, Envelope, Evidence, Folder, FolderPath, Identity, MailboxName};
use crate::wire::Encode;
use bytes::Bytes;
use std::collections::{BTreeSet, VecDeque};
use std::fs::{self, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Files that are carried along with the folder that they are in.
const COMPANIONS: [&[u8]; 5] =
    [b"courierimapsubscribed", b"dovecot-acl", b"dovecot-keywords", b"maildirfolder", b"subscriptions"];

/// One mailbox: its folders, one after the other.
pub(super) struct Scan {
    name: MailboxName,
    root: Arc<Root>,
    waiting: VecDeque<Directory>,
    failures: VecDeque<Entry>,
    current: Option<FolderScan>,
}

/// What all folders of a mailbox share.
struct Root {
    path: PathBuf,
    layout: Layout,
    /// The raw octets of all its folders and of what leads to them.
    directories: BTreeSet<Vec<u8>>,
}

impl Scan {
    pub(super) fn new(name: &[u8], path: PathBuf, tree: Tree, layout: Layout) -> Self {
        let known = tree.directories.iter().map(|directory| &directory.raw);
        // What could not be looked into may be a folder, and is told as a failure: it is not foreign.
        let directories = known.chain(tree.failures.iter().map(|(raw, _)| raw)).cloned().collect();
        let failures = tree.failures.into_iter().map(|(name, error)| Entry::Failed { name: name.into(), error });
        Self {
            name: MailboxName::new(name),
            root: Arc::new(Root { path, layout, directories }),
            waiting: tree.directories.into(),
            failures: failures.collect(),
            current: None,
        }
    }

    fn next(&mut self) -> Option<Entry> {
        loop {
            if let Some(entry) = self.failures.pop_front() {
                return Some(entry);
            }
            match self.current.as_mut().map(FolderScan::next) {
                Some(Some(entry)) => return Some(entry),
                Some(None) => self.current = None,
                None => {
                    let directory = self.waiting.pop_front()?;
                    self.current = Some(FolderScan::new(Arc::clone(&self.root), directory));
                }
            }
        }
    }
}

impl MailboxSource for Scan {
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

/// One folder: first itself, then what is beside its messages, then its messages.
struct FolderScan {
    root: Arc<Root>,
    raw: Bytes,
    path: PathBuf,
    /// What was found before it could be handed out: few entries.
    ready: VecDeque<Entry>,
    beside: Step,
    temporary: Step,
    messages: Option<MessageScan>,
}

/// A listing being gone through.
#[derive(Default)]
struct Step {
    listing: Listing,
    next: usize,
}

impl Step {
    fn next(&mut self) -> Option<(&[u8], FileKind)> {
        let index = self.next;
        self.next += 1;
        self.listing.get(index)
    }
}

impl FolderScan {
    fn new(root: Arc<Root>, directory: Directory) -> Self {
        let path = root.path.join(as_path(&directory.raw));
        let raw = Bytes::from(directory.raw);
        let mut scan = Self {
            root,
            raw,
            path,
            ready: VecDeque::new(),
            beside: Step::default(),
            temporary: Step::default(),
            messages: None,
        };
        let path = scan.path.clone();
        scan.beside.listing = scan.list(&path, &scan.raw.clone());
        if directory.is_folder {
            scan.enter();
        }
        scan
    }

    /// Reads the names of the folder's messages, and the small files that belong to it.
    fn enter(&mut self) {
        let (mut folder, mut keywords) = (self.folder(), names::Keywords::default());
        folder.companions = self.companions();
        if let Some(file) = folder.companions.iter().find(|file| file.name == b"dovecot-keywords"[..]) {
            keywords = names::keywords(&file.octets);
        }
        self.ready.push_front(Entry::Folder(folder));
        self.temporary.listing = self.list(&self.path.join("tmp"), &joined(&self.raw, b"tmp"));
        match Messages::list(&self.path) {
            Ok((messages, failures)) => {
                for (name, error) in failures {
                    self.fail(joined(&self.raw, name.as_bytes()), "listing", &self.path.join(name), error);
                }
                let directory = Arc::new(FolderDirectory::new(self.path.clone(), keywords));
                self.messages = Some(MessageScan::new(self.raw.clone(), directory, messages));
            }
            Err(error) => self.fail(self.raw.to_vec(), "listing", &self.path.clone(), error),
        }
    }

    fn folder(&self) -> Folder {
        Folder::new(FolderPath { names: names::folder_names(&self.raw), raw: self.raw.clone() })
    }

    fn list(&mut self, path: &Path, name: &[u8]) -> Listing {
        match Listing::read(path) {
            Ok(listing) => listing,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Listing::default(),
            Err(error) => {
                self.fail(name.to_vec(), "listing", path, error);
                Listing::default()
            }
        }
    }

    fn fail(&mut self, name: Vec<u8>, doing: &str, path: &Path, error: io::Error) {
        self.ready.push_back(Entry::Failed { name: name.into(), error: failed(doing, path, error) });
    }

    fn companions(&mut self) -> Vec<Companion> {
        let mut companions = Vec::new();
        for name in COMPANIONS {
            if !self.beside.listing.iter().any(|entry| entry == (name, FileKind::File)) {
                continue;
            }
            let path = self.path.join(as_path(name));
            match companion(&path, name) {
                Ok(Some(companion)) => companions.push(companion),
                // Counted as excluded in its turn.
                Ok(None) => {}
                Err(error) => self.fail(joined(&self.raw, name), "reading", &path, error),
            }
        }
        companions
    }

    fn next(&mut self) -> Option<Entry> {
        if let Some(entry) = self.ready.pop_front() {
            return Some(entry);
        }
        while let Some((name, kind)) = self.beside.next() {
            let excluded = exclusion(&self.root, &self.raw, &self.path, name, kind);
            if let Some(reason) = excluded {
                return Some(Entry::Excluded { name: joined(&self.raw, name).into(), reason });
            }
        }
        if let Some((name, _)) = self.temporary.next() {
            let name = joined(&joined(&self.raw, b"tmp"), name);
            return Some(Entry::Excluded { name: name.into(), reason: Exclusion::Temporary });
        }
        self.messages.as_mut()?.next()
    }
}

/// Why something beside `cur` and `new` is no message; `None` if it is carried along, or enumerated elsewhere.
fn exclusion(root: &Root, folder: &[u8], path: &Path, name: &[u8], kind: FileKind) -> Option<Exclusion> {
    match kind {
        FileKind::Other => Some(Exclusion::NotAFile),
        FileKind::File if COMPANIONS.contains(&name) => {
            let metadata = fs::symlink_metadata(path.join(as_path(name))).ok()?;
            (metadata.len() > Companion::OCTETS_MAX as u64).then_some(Exclusion::TooLong)
        }
        FileKind::File => Some(Exclusion::Foreign),
        FileKind::Directory if layout::holds_messages(name) => None,
        FileKind::Directory => {
            let raw = joined(folder, name);
            let is_elsewhere = root.directories.contains(&raw)
                || root.layout == Layout::MaildirPlusPlus
                    && !name.starts_with(b".")
                    && layout::leads_to_maildir(&root.path, &raw);
            (!is_elsewhere).then_some(Exclusion::Foreign)
        }
    }
}

/// Reads a companion file; `None` if it is too long.
fn companion(path: &Path, name: &[u8]) -> io::Result<Option<Companion>> {
    let file = open_file(path)?;
    let stat = Stat::of(&file.metadata()?);
    let mut octets = Vec::new();
    file.take(Companion::OCTETS_MAX as u64 + 1).read_to_end(&mut octets)?;
    if octets.len() > Companion::OCTETS_MAX {
        return Ok(None);
    }
    let name = Bytes::copy_from_slice(name);
    Ok(Some(Companion { name, octets: octets.into(), modified: Some(stat.internal_date()) }))
}

/// The messages of one folder, those in `cur` first.
struct MessageScan {
    folder: Bytes,
    directory: Arc<FolderDirectory>,
    messages: Messages,
    next: usize,
    /// The unique name of the message handed out last, because a second file of that name cannot be known by it.
    last: Vec<u8>,
    /// Device and inode of the message handed out last.
    last_file: Option<(u64, u64)>,
}

impl MessageScan {
    fn new(folder: Bytes, directory: Arc<FolderDirectory>, messages: Messages) -> Self {
        Self { folder, directory, messages, next: 0, last: Vec::new(), last_file: None }
    }

    fn next(&mut self) -> Option<Entry> {
        loop {
            let (listed, kind) = self.step()?;
            let relative = || Bytes::from(joined(&joined(&self.folder, listed.directory.as_bytes()), &listed.name));
            if kind != FileKind::File {
                return Some(Entry::Excluded { name: relative(), reason: Exclusion::NotAFile });
            }
            // The format has readers ignore names that begin with a dot.
            if listed.name.starts_with(b".") {
                return Some(Entry::Excluded { name: relative(), reason: Exclusion::Foreign });
            }
            let first = self.first_of_the_same_name(&listed);
            let (location, metadata) = match self.locate(&listed, first.is_some()) {
                Ok(Some(found)) => found,
                // In neither directory any more: deleted since they were listed.
                Ok(None) => continue,
                Err(error) => {
                    let error = failed("looking at", &self.directory.path_of(&listed), error);
                    return Some(Entry::Failed { name: relative(), error });
                }
            };
            if !metadata.is_file() {
                return Some(Entry::Excluded { name: relative(), reason: Exclusion::NotAFile });
            }
            let stat = Stat::of(&metadata);
            let file = Some((stat.device, stat.inode));
            // One message that was renamed while the directories were listed, or is being moved from `new` to `cur`.
            if first == Some(file) {
                continue;
            }
            self.last.clear();
            self.last.extend_from_slice(names::unique(&listed.name));
            self.last_file = file;
            return Some(self.message(location, stat, first.is_some()));
        }
    }

    /// The file that a message has now.
    fn locate(&self, listed: &Location, is_second: bool) -> io::Result<Option<(Location, Metadata)>> {
        match fs::symlink_metadata(self.directory.path_of(listed)) {
            Ok(metadata) => Ok(Some((listed.clone(), metadata))),
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            // The message is the one that came before.
            Err(_) if is_second => Ok(None),
            Err(_) => self.directory.find(names::unique(&listed.name)),
        }
    }

    /// If a file of the same unique name came before: device and inode of that file, if it is still there.
    fn first_of_the_same_name(&self, listed: &Location) -> Option<Option<(u64, u64)>> {
        let unique = names::unique(&listed.name);
        if self.last == unique {
            return Some(self.last_file);
        }
        if listed.directory == "cur" {
            return None;
        }
        let name = self.messages.cur.find(unique, names::unique)?.to_vec();
        let path = self.directory.path_of(&Location { directory: "cur", name });
        let metadata = fs::symlink_metadata(path).ok();
        Some(metadata.map(|metadata| (metadata.dev(), metadata.ino())))
    }

    fn step(&mut self) -> Option<(Location, FileKind)> {
        let index = self.next;
        self.next += 1;
        let (directory, found) = match index.checked_sub(self.messages.cur.len()) {
            None => ("cur", self.messages.cur.get(index)),
            Some(index) => ("new", self.messages.new.get(index)),
        };
        let (name, kind) = found?;
        Some((Location { directory, name: name.to_vec() }, kind))
    }

    /// A message; one that shares its unique name with another is known by its whole name.
    fn message(&self, location: Location, stat: Stat, is_second: bool) -> Entry {
        let identity = match is_second {
            true => joined(location.directory.as_bytes(), &location.name),
            false => names::unique(&location.name).to_vec(),
        };
        let mut envelope = Envelope::new(self.folder.clone(), Identity::Named(identity.into()));
        let mut evidence = Vec::with_capacity(10);
        evidence.number(stat.size);
        envelope.evidence = Evidence(evidence.into());
        envelope.flags = names::flags(&location.name, &self.directory.keywords);
        envelope.internal_date = Some(stat.internal_date());
        envelope.place = names::place(location.directory, &location.name);
        let body = MaildirBody { folder: Arc::clone(&self.directory), location, size: stat.size };
        Entry::Message(Message { envelope, body: Body::Open { length: stat.size, open: Box::new(body) } })
    }
}
