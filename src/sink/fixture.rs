//! What the tests of all sinks share: a target that can be looked at as a whole.

use super::{MailboxSink, Note, Sink};
use crate::error::Result;
use crate::message::{Envelope, Flags, Folder, FolderPath, Identity, InternalDate, MailboxName};
use crate::source::Kind;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

/// A directory with a target in it, so that what climbs out of the target is seen.
pub(super) struct Target {
    directory: tempfile::TempDir,
}

impl Target {
    pub(super) fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    pub(super) fn root(&self) -> PathBuf {
        self.directory.path().join("target")
    }

    pub(super) fn path(&self, relative: &str) -> PathBuf {
        self.root().join(relative)
    }

    /// All files by their path relative to the target, escaped if it is no UTF-8, with their octets; directories end with `/`.
    pub(super) fn tree(&self) -> BTreeMap<String, Vec<u8>> {
        let mut tree = BTreeMap::new();
        walk(&self.root(), &self.root(), &mut tree).unwrap();
        tree
    }

    pub(super) fn files(&self) -> Vec<String> {
        self.tree().into_keys().filter(|name| !name.ends_with('/')).collect()
    }

    pub(super) fn read(&self, relative: &str) -> Vec<u8> {
        fs::read(self.path(relative))
            .unwrap_or_else(|error| panic!("{relative}: {error}; there are {:?}", self.files()))
    }

    pub(super) fn modified(&self, relative: &str) -> std::time::SystemTime {
        fs::metadata(self.path(relative)).unwrap().modified().unwrap()
    }

    /// What is beside the target.
    pub(super) fn outside(&self) -> usize {
        fs::read_dir(self.directory.path())
            .unwrap()
            .filter(|entry| entry.as_ref().unwrap().file_name() != "target")
            .count()
    }
}

fn walk(root: &Path, path: &Path, tree: &mut BTreeMap<String, Vec<u8>>) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let path = entry.path();
        let name = path.strip_prefix(root).unwrap();
        let name =
            name.to_str().map_or_else(|| name.as_os_str().as_encoded_bytes().escape_ascii().to_string(), str::to_owned);
        if entry.file_type()?.is_dir() {
            tree.insert(format!("{name}/"), Vec::new());
            walk(root, &entry.path(), tree)?;
        } else {
            tree.insert(name, fs::read(entry.path())?);
        }
    }
    Ok(())
}

pub(super) fn date(seconds: i64, nanos: u32) -> InternalDate {
    InternalDate { seconds, nanos, zone_minutes: None }
}

pub(super) fn folder(names: &[&str], raw: &[u8]) -> Folder {
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    Folder::new(FolderPath { names, raw: Bytes::copy_from_slice(raw) })
}

pub(super) fn named(folder: &[u8], name: &[u8]) -> Envelope {
    let identity = Identity::Named(Bytes::copy_from_slice(name));
    let mut envelope = Envelope::new(Bytes::copy_from_slice(folder), identity);
    envelope.internal_date = Some(date(1_000_000_000, 123_456_789));
    envelope
}

pub(super) fn flagged(mut envelope: Envelope, flags: Flags) -> Envelope {
    envelope.flags = flags;
    envelope
}

pub(super) fn placed(mut envelope: Envelope, place: &[u8]) -> Envelope {
    envelope.place = Bytes::copy_from_slice(place);
    envelope
}

/// A message as an mbox source gives it.
pub(super) fn in_mbox(folder: &[u8], before: &[u8], after: &[u8]) -> Envelope {
    let mut envelope = Envelope::new(Bytes::copy_from_slice(folder), Identity::Content);
    envelope.before = Bytes::copy_from_slice(before);
    envelope.after = Bytes::copy_from_slice(after);
    envelope.internal_date = Some(date(1_000_000_000, 0));
    envelope
}

/// A mailbox being filled from one kind of source, with all its notes.
pub(super) struct Filling {
    pub(super) mailbox: Box<dyn MailboxSink>,
    pub(super) origin: Kind,
    pub(super) notes: Vec<Note>,
    position: u64,
}

impl Filling {
    pub(super) fn new(sink: &dyn Sink, name: &[u8], origin: Kind) -> Self {
        let mut notes = Vec::new();
        let mailbox = sink.mailbox(&MailboxName::new(name), &mut notes).unwrap();
        Self { mailbox, origin, notes, position: 0 }
    }

    pub(super) fn folder(&mut self, folder: &Folder) -> &mut Self {
        self.mailbox.folder(folder, &self.origin, &mut self.notes).unwrap();
        self
    }

    pub(super) fn try_message(&mut self, envelope: &Envelope, octets: &[u8]) -> Result<()> {
        self.position += 1;
        let length = octets.len() as u64;
        let mut delivery = self.mailbox.deliver(envelope, &self.origin, self.position, length, &mut self.notes)?;
        for octets in octets.chunks(7) {
            delivery.write(octets)?;
        }
        delivery.commit(&mut self.notes)
    }

    pub(super) fn message(&mut self, envelope: &Envelope, octets: &[u8]) -> &mut Self {
        self.try_message(envelope, octets).unwrap();
        self
    }

    /// Begins a message and gives it up.
    pub(super) fn abandon(&mut self, envelope: &Envelope, octets: &[u8]) -> &mut Self {
        let length = octets.len() as u64;
        let mut delivery = self.mailbox.deliver(envelope, &self.origin, 999, length, &mut self.notes).unwrap();
        delivery.write(octets).unwrap();
        self
    }

    pub(super) fn finish(&mut self) -> Vec<Note> {
        self.mailbox.finish().unwrap();
        std::mem::take(&mut self.notes)
    }
}

pub(super) fn is_renamed(notes: &[Note]) -> bool {
    notes.iter().any(|note| matches!(note, Note::Renamed { .. }))
}

pub(super) fn is_unholdable(notes: &[Note], wanted: &str) -> bool {
    notes.iter().any(|note| matches!(note, Note::Unholdable { what, .. } if *what == wanted))
}

pub(super) fn is_transformed(notes: &[Note], wanted: &str) -> bool {
    notes.iter().any(|note| matches!(note, Note::Transformed { how, .. } if *how == wanted))
}
