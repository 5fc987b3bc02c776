//! What Maildir and eml have in common: each message is a file of its own.

use super::Note;
use super::from_lines::FromLines;
use super::names::{self, Taken};
use super::system;
use super::temporary::{Placed, Temporary};
use super::{Delivery, MailboxName};
use crate::error::{Error, ErrorKind, Result};
use crate::message::{Envelope, Folder};
use crate::source::Kind;
use crate::source::mbox::{LineEnding, Traits, Variant};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

/// A directory that messages are put into.
#[derive(Debug)]
pub(super) struct Spot {
    pub(super) directory: PathBuf,
    pub(super) taken: Taken,
    is_touched: AtomicBool,
}

impl Spot {
    pub(super) fn new(directory: PathBuf) -> Self {
        Self { directory, taken: Taken::default(), is_touched: AtomicBool::new(false) }
    }

    pub(super) fn touch(&self) {
        self.is_touched.store(true, Ordering::Release);
    }

    /// The directory, if entries came since the last time that this was asked.
    pub(super) fn take_touched(&self) -> Option<&Path> {
        self.is_touched.swap(false, Ordering::AcqRel).then_some(&*self.directory)
    }
}

/// Something that is said once for a folder and not for each message.
#[derive(Debug, Default)]
pub(super) struct Once(AtomicBool);

impl Once {
    pub(super) fn is_first(&self) -> bool {
        !self.0.swap(true, Ordering::Relaxed)
    }
}

/// What was said already about a folder's dates.
#[derive(Debug, Default)]
pub(super) struct Dates {
    zone: Once,
    absence: Once,
}

impl Dates {
    /// The modification time for a message's file: its internal date, or 1970-01-01 if it has none. Never the time of the restore.
    pub(super) fn of(&self, envelope: &Envelope, folder: &str, notes: &mut Vec<Note>) -> SystemTime {
        let Some(date) = envelope.internal_date else {
            if self.absence.is_first() {
                notes.push(unholdable("absence of an internal date", folder));
            }
            return SystemTime::UNIX_EPOCH;
        };
        if date.zone_minutes.is_some() && self.zone.is_first() {
            notes.push(unholdable("time zone of internal dates", folder));
        }
        system::system_time(date).unwrap_or_else(|| {
            notes.push(unholdable("internal date", &message_label(folder, envelope)));
            SystemTime::UNIX_EPOCH
        })
    }
}

/// What is put where, once its octets have come.
pub(super) struct Parcel {
    pub(super) spot: Arc<Spot>,
    pub(super) name: Vec<u8>,
    pub(super) time: SystemTime,
    /// The folder, for people.
    pub(super) folder: Arc<str>,
    pub(super) is_durable: bool,
    /// Set if the message's quoted `From ` lines are unquoted: the octet that ends a line.
    pub(super) unquoted: Option<u8>,
}

/// A message on its way into a file of its own.
pub(super) struct FileDelivery {
    file: Temporary,
    parcel: Parcel,
    unquoting: Option<(FromLines, Vec<u8>)>,
}

impl FileDelivery {
    pub(super) fn new(file: Temporary, parcel: Parcel) -> Self {
        let unquoting = parcel.unquoted.map(|newline| (FromLines::unquoting(newline), Vec::new()));
        Self { file, parcel, unquoting }
    }
}

impl Delivery for FileDelivery {
    fn write(&mut self, octets: &[u8]) -> Result<()> {
        let Some((lines, buffer)) = &mut self.unquoting else { return self.file.write(octets) };
        buffer.clear();
        lines.push(octets, buffer);
        self.file.write(buffer)
    }

    fn commit(mut self: Box<Self>, notes: &mut Vec<Note>) -> Result<()> {
        let Parcel { spot, name, time, folder, is_durable, .. } = &self.parcel;
        if let Some((lines, buffer)) = &mut self.unquoting {
            buffer.clear();
            lines.finish(buffer);
            self.file.write(buffer)?;
            if lines.changed() > 0 {
                notes.push(Note::Transformed { how: "mboxrd unquoting", of: format!("{folder}/{}", lossy(name)) });
            }
        }
        // From here on an entry may be there, whatever is said of it.
        spot.touch();
        let mut path = spot.directory.join(names::native(name));
        let mut placed = self.file.place(&path, Some(*time), *is_durable)?;
        if placed == Placed::Directory {
            let other = names::made(name, 0);
            notes.push(Note::Renamed { from: format!("{folder}/{}", lossy(name)), to: lossy(&other) });
            path = spot.directory.join(names::native(&other));
            placed = self.file.place(&path, Some(*time), *is_durable)?;
        }
        if !matches!(placed, Placed::New | Placed::Same) {
            return Err(different(&path));
        }
        if !system::has_time(&path, *time)? {
            notes.push(unholdable("internal date", &format!("{folder}/{}", lossy(name))));
        }
        Ok(())
    }
}

fn different(path: &Path) -> Error {
    let message = format!("'{}' is there already and is not this message; it was left as it is", path.display());
    Error::new(ErrorKind::Exists, message)
}

/// What is lost of a folder that came from another kind of source, where each message is a file of its own.
pub(super) fn note_losses(folder: &Folder, origin: &Kind, label: &str, notes: &mut Vec<Note>) {
    if *origin == Kind::Mbox {
        notes.push(unholdable("From_ lines and separators", label));
    }
    if folder.modified.is_some() {
        notes.push(unholdable("modification time of the folder's file", label));
    }
}

/// What ends a line in a folder whose messages are quoted as mboxrd has it; `None` for all others. What other variants quote cannot be told
/// from what was so before, so it stays.
pub(super) fn mboxrd_newline(folder: &Folder, origin: &Kind) -> Option<u8> {
    let traits = Traits::parse(&folder.traits).filter(|_| *origin == Kind::Mbox)?;
    let is_mboxrd = traits.variant == Some(Variant::Mboxrd);
    is_mboxrd.then_some(if traits.line_ending == LineEnding::Cr { b'\r' } else { b'\n' })
}

/// A companion file that is not put there.
pub(super) fn note_companion(name: &[u8], label: &str, notes: &mut Vec<Note>) {
    notes.push(unholdable("companion file", &format!("{label}/{}", lossy(name))));
}

pub(super) fn note_renamed(from: &[u8], to: &[u8], notes: &mut Vec<Note>) {
    if from != to {
        notes.push(Note::Renamed { from: lossy(from), to: lossy(to) });
    }
}

pub(super) fn note_extensions(envelope: &Envelope, folder: &str, notes: &mut Vec<Note>) {
    if !envelope.extensions.is_empty() {
        notes.push(unholdable("labels and other extensions", &message_label(folder, envelope)));
    }
}

pub(super) fn unholdable(what: &'static str, of: &str) -> Note {
    Note::Unholdable { what, of: of.to_owned() }
}

/// A message, for people.
pub(super) fn message_label(folder: &str, envelope: &Envelope) -> String {
    match &envelope.identity {
        crate::message::Identity::Named(name) => format!("{folder}/{}", lossy(name)),
        crate::message::Identity::Content => format!("a message in {folder}"),
    }
}

/// A folder, for people.
pub(super) fn folder_label(mailbox: &MailboxName, folder: &Folder) -> Arc<str> {
    let raw = lossy(&folder.path.raw);
    match (mailbox.as_bytes().is_empty(), raw.is_empty()) {
        (true, true) => ".".into(),
        (true, false) => raw.into(),
        (false, true) => mailbox.to_string().into(),
        (false, false) => format!("{mailbox}/{raw}").into(),
    }
}

/// What identifies a folder in a run: the mailbox's name, its length in front, and the folder's raw octets.
pub(super) fn owner(mailbox: &MailboxName, folder: &[u8]) -> Vec<u8> {
    let name = mailbox.as_bytes();
    [&(name.len() as u64).to_le_bytes()[..], name, folder].concat()
}

pub(super) fn unknown_folder(raw: &[u8]) -> Error {
    Error::invalid(format!("a message for the folder '{}', which was not announced", lossy(raw)))
}

pub(super) fn lossy(octets: &[u8]) -> String {
    String::from_utf8_lossy(octets).into_owned()
}
