//! The enumeration of the mbox files of one directory.

use super::super::file::{Stat, failed, open_file};
use super::super::listing::{FileKind, Listing, as_path, octets_of_path};
use super::super::{Batch, Body, Entry, Exclusion, Known, MailboxSource, Message, Reason};
use super::container::{Container, Positioned, RangeBody, not_read, read_full, tail_digest};
use super::split::{Failure, Limits, Octets, Piece, Rules, Splitter};
use super::{Traits, Variant};
use crate::error::{Error, ErrorKind, Result};
use crate::message::{Envelope, Evidence, Folder, FolderPath, Identity, MailboxName};
use crate::runtime::Clock;
use bytes::Bytes;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What the caller decided.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) variant: Option<Variant>,
    pub(super) clock: Arc<dyn Clock>,
}

impl Settings {
    fn rules(&self) -> Rules {
        Rules { declared: self.variant, limits: Limits::default() }
    }
}

/// One mailbox: the files of a directory, or a single file.
pub(super) struct Files {
    name: MailboxName,
    directory: PathBuf,
    names: Names,
    settings: Settings,
    current: Option<FileScan>,
}

enum Names {
    Listed { listing: Listing, next: usize },
    Single(Option<Vec<u8>>),
}

impl Files {
    pub(super) fn new(name: &[u8], directory: PathBuf, listing: Listing, settings: Settings) -> Self {
        let names = Names::Listed { listing, next: 0 };
        Self { name: MailboxName::new(name), directory, names, settings, current: None }
    }

    pub(super) fn single(path: PathBuf, settings: Settings) -> Result<Self> {
        let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(Error::invalid(format!("'{}' has no name", path.display())));
        };
        let names = Names::Single(Some(octets_of_path(Path::new(name)).to_vec()));
        Ok(Self { name: MailboxName::default(), directory: directory.to_owned(), names, settings, current: None })
    }

    fn next(&mut self, known: &mut dyn Known, batch: &mut Batch) -> bool {
        if let Some(current) = &mut self.current {
            if !current.next(known, batch) {
                self.current = None;
            }
            return true;
        }
        let (name, kind, is_declared) = match &mut self.names {
            Names::Single(name) => match name.take() {
                Some(name) => (name, FileKind::File, true),
                None => return false,
            },
            Names::Listed { listing, next } => {
                let Some((name, kind)) = listing.get(*next) else { return false };
                *next += 1;
                (name.to_vec(), kind, false)
            }
        };
        match kind {
            FileKind::Directory => {}
            FileKind::Other => batch.push(Entry::Excluded { name: name.into(), reason: Exclusion::NotAFile }),
            FileKind::File => self.enter(name.into(), is_declared, known, batch),
        }
        true
    }

    fn enter(&mut self, name: Bytes, is_declared: bool, known: &mut dyn Known, batch: &mut Batch) {
        let path = self.directory.join(as_path(&name));
        match open(&path, is_declared) {
            Ok(Opened::Mbox(file, stat)) => {
                let scan = FileScan { path, name, file, stat, settings: self.settings.clone(), state: State::Ended };
                self.current = Some(scan.begin(known, batch));
            }
            Ok(Opened::Other(reason)) => batch.push(Entry::Excluded { name, reason }),
            Err(error) if !is_declared && error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => batch.push(Entry::Failed { name, error: failed("opening", &path, error) }),
        }
    }
}

impl MailboxSource for Files {
    fn name(&self) -> &MailboxName {
        &self.name
    }

    fn fill(&mut self, known: &mut dyn Known, batch: &mut Batch) -> Result<bool> {
        while !batch.is_full() {
            if !self.next(known, batch) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

enum Opened {
    Mbox(Arc<dyn Positioned>, Stat),
    Other(Exclusion),
}

/// Opens a file. One that was only found in a directory must begin as an mbox does, or be empty.
fn open(path: &Path, is_declared: bool) -> io::Result<Opened> {
    let file = open_file(path)?;
    let metadata = file.metadata()?;
    let mut first = [0; 5];
    let (length, error) = read_full(&file, &mut first, 0);
    if let Some(error) = error {
        return Err(error);
    }
    if !is_declared && length > 0 && first != *b"From " {
        return Ok(Opened::Other(Exclusion::NotMail));
    }
    Ok(Opened::Mbox(Arc::new(file), Stat::of(&metadata)))
}

/// One file being read.
pub(super) struct FileScan {
    pub(super) path: PathBuf,
    pub(super) name: Bytes,
    pub(super) file: Arc<dyn Positioned>,
    /// The file's state when reading it began.
    pub(super) stat: Stat,
    pub(super) settings: Settings,
    pub(super) state: State,
}

pub(super) enum State {
    Reading { splitter: Box<Splitter>, is_racy: bool },
    Ended,
}

impl FileScan {
    /// Finds out what of the file must be read.
    pub(super) fn begin(mut self, known: &dyn Known, batch: &mut Batch) -> Self {
        batch.push(Entry::Folder(self.folder(Evidence::NONE, None)));
        let declared = self.settings.variant;
        let container = known.container(&self.name);
        let old = container.as_ref().and_then(|container| Container::of(&container.evidence).ok());
        if let (Some(container), Some(old)) = (&container, old) {
            let unchanged = Entry::Unchanged { folder: self.name.clone(), messages: container.messages };
            if old.is_unchanged(&self.stat, declared) {
                batch.push(unchanged);
                batch.push(Entry::Folder(self.folder(old.evidence(), Some(self.traits(&old)))));
                return self;
            }
            if let Some(splitter) = self.continued(&old) {
                batch.push(unchanged);
                self.read(splitter);
                return self;
            }
        }
        let hasher = container.as_ref().map(|_| known.hasher());
        let splitter = Splitter::new(Arc::clone(&self.file), self.stat.size, self.settings.rules(), hasher);
        self.read(splitter);
        self
    }

    /// A splitter for what is new, if the file only grew.
    fn continued(&self, old: &Container) -> Option<Splitter> {
        if !old.only_grew(&*self.file, &self.stat, self.settings.variant) {
            return None;
        }
        let state = (old.line_ending, old.seen);
        Splitter::resume(Arc::clone(&self.file), old.stat.size, self.stat.size, self.settings.rules(), state)
    }

    fn read(&mut self, splitter: Splitter) {
        // What is written from now on shows in the times, unless the clock of the file system has not ticked since the last writing.
        let is_racy = self.stat.is_racy(self.settings.clock.now());
        self.state = State::Reading { splitter: Box::new(splitter), is_racy };
    }

    /// Appends the next entry; `false` if there is none.
    pub(super) fn next(&mut self, known: &mut dyn Known, batch: &mut Batch) -> bool {
        let State::Reading { splitter, .. } = &mut self.state else { return false };
        match splitter.next() {
            Some(piece) => {
                let entry = self.entry(piece, known);
                batch.push(entry);
                true
            }
            None => {
                batch.push(self.finish());
                false
            }
        }
    }

    fn entry(&self, piece: Piece, known: &mut dyn Known) -> Entry {
        let mut envelope = Envelope::new(self.name.clone(), Identity::Content);
        envelope.flags = piece.head.flags;
        envelope.internal_date = piece.date;
        envelope.before = piece.before;
        envelope.after = piece.after;
        let is_whole = !matches!(piece.octets, Octets::Cut { .. });
        if is_whole && piece.digest.is_some_and(|digest| known.matches(&envelope, &digest)) {
            return Entry::Matched { folder: self.name.clone() };
        }
        let body = match piece.octets {
            Octets::Inline(octets) => Body::Octets(octets),
            Octets::Range { start, length } => self.range(start, length, None),
            Octets::Cut { start, length } => self.range(start, length, Some(Reason::ReadFailed)),
        };
        Entry::Message(Message { envelope, body })
    }

    fn range(&self, start: u64, length: u64, cut: Option<Reason>) -> Body {
        let (file, path) = (Arc::clone(&self.file), self.path.clone());
        Body::Open { length, open: Box::new(RangeBody { file, path, stat: self.stat, start, length, cut }) }
    }

    /// The last entry of the file: its folder, now with evidence, or why it is not known to be read in full.
    fn finish(&mut self) -> Entry {
        let State::Reading { mut splitter, is_racy, .. } = std::mem::replace(&mut self.state, State::Ended) else {
            return Entry::Folder(self.folder(Evidence::NONE, None));
        };
        let container = Container {
            stat: self.stat,
            is_racy,
            is_terminated: splitter.is_terminated(),
            declared: self.settings.variant,
            line_ending: splitter.line_ending(),
            seen: splitter.seen(),
            tail: splitter.tail(),
        };
        match splitter.failure() {
            Some(Failure::Failed(error)) => self.failed(not_read(&self.path, error)),
            Some(Failure::Truncated) => self.failed(self.changed()),
            None if self.is_consistent(&container) => {
                Entry::Folder(self.folder(container.evidence(), Some(self.traits(&container))))
            }
            None => self.failed(self.changed()),
        }
    }

    /// Whether what was read is one state of the file: it did not change meanwhile, or only grew.
    fn is_consistent(&self, read: &Container) -> bool {
        self.file.stat().is_ok_and(|now| {
            let only_grew = || {
                now.size >= self.stat.size
                    && tail_digest(&*self.file, self.stat.size).is_ok_and(|tail| tail == read.tail)
            };
            now == self.stat || only_grew()
        })
    }

    fn failed(&self, error: Error) -> Entry {
        Entry::Failed { name: self.name.clone(), error }
    }

    fn changed(&self) -> Error {
        Error::new(ErrorKind::Unavailable, format!("'{}' changed while it was read", self.path.display()))
    }

    fn traits(&self, container: &Container) -> Traits {
        Traits::new(self.settings.variant.or_else(|| container.seen.variant()), container.line_ending)
    }

    fn folder(&self, evidence: Evidence, traits: Option<Traits>) -> Folder {
        let name = String::from_utf8_lossy(&self.name).into_owned();
        let mut folder = Folder::new(FolderPath { names: vec![name], raw: self.name.clone() });
        folder.evidence = evidence;
        folder.modified = Some(self.stat.internal_date());
        folder.traits = traits.map(|traits| traits.to_string().into()).unwrap_or_default();
        folder
    }
}
