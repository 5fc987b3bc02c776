//! mbox: a folder is a file, its messages one behind the other.

mod delivery;
mod file;
mod from_line;
#[cfg(test)]
mod tests;

use super::files::{
    Once, folder_label, note_companion, note_extensions, note_renamed, owner, unholdable, unknown_folder,
};
use super::system::{self, doing};
use super::tree::{Claim, Directory, Tree};
use super::{Delivery, MailboxSink, Note, Sink, names};
use crate::error::{Error, ErrorKind, Result};
use crate::message::{Envelope, Folder, InternalDate, MailboxName};
use crate::source::Kind;
use crate::source::mbox::{LineEnding, Traits};
use bytes::Bytes;
use delivery::MboxDelivery;
use file::{Appender, Tail};
use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

/// The most files that a mailbox keeps open while nothing is delivered to them.
const IDLE_FILES_MAX: usize = 64;

/// mbox files, one for each folder: the mirror of [`source::Mbox`](crate::source).
///
/// What came from an mbox comes back octet for octet: From_ lines, messages and what separates them, and the file's modification time.
/// From a source of another kind:
/// - a folder becomes a file in the mailbox's directory; names below names are joined by `%2F`; the root becomes `INBOX`;
/// - a message gets a From_ line (`MAILER-DAEMON`, the internal date in UTC, 1970-01-01 if it has none) and a blank line behind. Lines that begin
///   with `From ` or `>From ` are quoted as mboxrd has it, and a message that does not end with a line ending gets one: both are reported;
/// - flags cannot be held without changing the message, so they are left out and reported, likewise keywords, names of messages and parts
///   of a second.
///
/// **Existing files** are never overwritten. What is there is compared with what is restored: as far as it is the same it counts as
/// delivered, and what is missing is appended, so an interrupted restore can be run again. Where it differs, the message fails with kind
/// [`Exists`](crate::ErrorKind::Exists); octets behind the last message are left, and make [`finish`](MailboxSink::finish) fail with the same
/// kind. Symbolic links below the target are not followed. Directories are created for their owner only (0700), files likewise (0600), as
/// far as the umask lets them. Times of directories are not set.
///
/// **Durability.** Messages are appended to the file in place; a message given up is cut off again. After a crash of the process a file may end
/// inside a message; the next run completes it. When the mailbox is finished, its directory is synced but not the files;
/// [`durable`](Self::durable) syncs these as well, once each.
///
/// Memory: 32 octets for each mailbox and folder of the run, at most about 64 KiB for each file that is open: 64 in a mailbox and those being
/// delivered to.
#[derive(Clone, Debug)]
pub struct Mbox {
    tree: Arc<Tree>,
    is_durable: bool,
}

impl Mbox {
    /// mbox files under `directory`, which is created when the first mailbox is.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { tree: Arc::new(Tree::new(directory.into())), is_durable: false }
    }

    /// Whether each file is synced when its mailbox is finished. Off by default: it costs a disk flush for each folder.
    #[must_use]
    pub fn durable(mut self, is_durable: bool) -> Self {
        self.is_durable = is_durable;
        self
    }
}

impl Sink for Mbox {
    fn kind(&self) -> Kind {
        Kind::Mbox
    }

    fn is_ordered(&self) -> bool {
        true
    }

    fn mailbox(&self, name: &MailboxName, notes: &mut Vec<Note>) -> Result<Box<dyn MailboxSink>> {
        let components = names::components(name.as_bytes());
        let directory = self.tree.claim(Claim::Mailbox, &owner(name, b""), &[], components, |_, _| false)?;
        note_renamed(name.as_bytes(), &names::joined(&directory.components), notes);
        Ok(Box::new(Mailbox {
            tree: Arc::clone(&self.tree),
            name: name.clone(),
            directory,
            is_durable: self.is_durable,
            folders: RwLock::default(),
            idle: Arc::default(),
        }))
    }
}

struct Mailbox {
    tree: Arc<Tree>,
    name: MailboxName,
    directory: Directory,
    is_durable: bool,
    folders: RwLock<HashMap<Bytes, Arc<MboxFolder>>>,
    idle: Arc<Idle>,
}

/// A folder's file.
#[derive(Debug)]
struct MboxFolder {
    raw: Bytes,
    label: Arc<str>,
    path: PathBuf,
    /// Octets that the file had before this run.
    existing: u64,
    line_ending: &'static [u8],
    zone: Once,
    absence: Once,
    state: Mutex<State>,
}

/// How far a folder's file is.
#[derive(Debug, Default)]
struct State {
    /// Where the last committed message ends.
    end: u64,
    tail: Tail,
    is_busy: bool,
    /// A message that was given up could not be cut off: nothing more can come behind it.
    is_broken: bool,
    modified: Option<InternalDate>,
}

impl MailboxSink for Mailbox {
    fn folder(&self, folder: &Folder, origin: &Kind, notes: &mut Vec<Note>) -> Result<()> {
        let state = match self.known(&folder.path.raw) {
            Some(state) => state,
            None => self.create(folder, origin, notes)?,
        };
        if *origin == Kind::Mbox && folder.modified.is_some() {
            state.state.lock().unwrap_or_else(PoisonError::into_inner).modified = folder.modified;
        }
        folder.companions.iter().for_each(|companion| note_companion(&companion.name, &state.label, notes));
        Ok(())
    }

    fn deliver(
        &self,
        envelope: &Envelope,
        origin: &Kind,
        _position: u64,
        _length: u64,
        notes: &mut Vec<Note>,
    ) -> Result<Box<dyn Delivery>> {
        let folder = self.known(&envelope.folder).ok_or_else(|| unknown_folder(&envelope.folder))?;
        note_extensions(envelope, &folder.label, notes);
        Ok(Box::new(MboxDelivery::begin(folder, Arc::clone(&self.idle), envelope, *origin == Kind::Mbox, notes)?))
    }

    fn finish(&self) -> Result<()> {
        self.idle.close();
        let folders: Vec<Arc<MboxFolder>> =
            self.folders.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        let mut result = Ok(());
        for folder in folders {
            // Every file gets its time, whatever is wrong with another.
            let finished = folder.finish(self.is_durable);
            result = result.and(finished);
        }
        result?;
        self.tree.sync([&*self.directory.path])
    }
}

impl Mailbox {
    fn known(&self, raw: &[u8]) -> Option<Arc<MboxFolder>> {
        self.folders.read().unwrap_or_else(PoisonError::into_inner).get(raw).cloned()
    }

    fn create(&self, folder: &Folder, origin: &Kind, notes: &mut Vec<Note>) -> Result<Arc<MboxFolder>> {
        let label = folder_label(&self.name, folder);
        let raw = &folder.path.raw;
        let (asked, wanted) = if *origin == Kind::Mbox {
            (raw.to_vec(), names::component(raw).into_owned())
        } else {
            self.note_losses(folder, &label, notes);
            let asked = folder.path.names.join("/").into_bytes();
            let wanted = file_name(&folder.path.names, raw);
            // The root has no name to lose.
            (if asked.is_empty() && raw.is_empty() { wanted.clone() } else { asked }, wanted)
        };
        let (path, name, existing) = self.tree.claim_file(&owner(&self.name, raw), &self.directory, wanted)?;
        note_renamed(&asked, &name, notes);
        let state = Arc::new(MboxFolder {
            raw: raw.clone(),
            label,
            path,
            existing,
            line_ending: line_ending(folder, origin),
            zone: Once::default(),
            absence: Once::default(),
            state: Mutex::default(),
        });
        let mut folders = self.folders.write().unwrap_or_else(PoisonError::into_inner);
        Ok(Arc::clone(folders.entry(raw.clone()).or_insert(state)))
    }

    fn note_losses(&self, folder: &Folder, label: &str, notes: &mut Vec<Note>) {
        notes.push(unholdable("names of messages and parts of a second of internal dates", label));
        if folder.modified.is_some() {
            notes.push(unholdable("modification time of the folder's file", label));
        }
    }
}

impl MboxFolder {
    fn finish(&self, is_durable: bool) -> Result<()> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.is_broken {
            return Err(Error::new(ErrorKind::Unavailable, format!("'{}' ends inside a message", self.path.display())));
        }
        if state.end < self.existing {
            return Err(Error::new(
                ErrorKind::Exists,
                format!(
                    "'{}' was there already and holds more than was restored; it was left as it is",
                    self.path.display()
                ),
            ));
        }
        let time = state.modified.and_then(system::system_time);
        if !is_durable && time.is_none() {
            return Ok(());
        }
        let failed = |error| doing("finishing", &self.path, error);
        let file = File::open(&self.path).map_err(failed)?;
        if let Some(time) = time {
            file.set_modified(time).map_err(failed)?;
        }
        if is_durable { file.sync_all().map_err(failed) } else { Ok(()) }
    }
}

/// Open files to which nothing is being delivered, the one used last at the end.
#[derive(Debug, Default)]
struct Idle(Mutex<VecDeque<(Bytes, Appender)>>);

impl Idle {
    fn take(&self, raw: &[u8]) -> Option<Appender> {
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // What was used last is most likely wanted next.
        let at = idle.iter().rposition(|(folder, _)| folder == raw)?;
        idle.remove(at).map(|(_, file)| file)
    }

    fn give(&self, raw: Bytes, file: Appender) {
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        idle.push_back((raw, file));
        if idle.len() > IDLE_FILES_MAX {
            idle.pop_front();
        }
    }

    fn close(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// How the file's lines end. LF for a folder that came from elsewhere.
fn line_ending(folder: &Folder, origin: &Kind) -> &'static [u8] {
    let traits = Traits::parse(&folder.traits).filter(|_| *origin == Kind::Mbox).unwrap_or_default();
    match traits.line_ending {
        LineEnding::CrLf => b"\r\n",
        LineEnding::Cr => b"\r",
        _ => b"\n",
    }
}

/// The file for a folder that came from elsewhere. Names are joined by `%2F`; what would be ambiguous gets a made name.
fn file_name(folder: &[String], raw: &[u8]) -> Vec<u8> {
    if folder.is_empty() && raw.is_empty() {
        return b"INBOX".to_vec();
    }
    let joined = folder.join("%2F").into_bytes();
    let is_ambiguous = folder.is_empty() || folder.iter().any(|name| name.is_empty() || name.contains("%2F"));
    if is_ambiguous || !names::is_harmless(&joined) {
        return names::made(&[&joined[..], b"\0", raw].concat(), 0);
    }
    joined
}
