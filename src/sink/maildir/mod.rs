//! Maildir: a message is a file in `cur` or `new`, its flags are in the file's name.

mod keywords;
mod names;
#[cfg(test)]
mod tests;

use super::files::{
    Dates, FileDelivery, Parcel, Spot, folder_label, lossy, mboxrd_newline, message_label, note_companion,
    note_extensions, note_losses, note_renamed, owner, unholdable, unknown_folder,
};
use super::names as harmless;
use super::system;
use super::temporary::Placed;
use super::tree::{Claim, Directory, Tree};
use super::{Delivery, MailboxSink, Note, Sink};
use crate::error::Result;
use crate::message::{Companion, Envelope, Folder, Identity, MailboxName};
use crate::source::Kind;
use bytes::Bytes;
use keywords::Keywords;
use names::Place;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

/// Maildirs under a directory, one for each mailbox: the mirror of [`source::Maildir`](crate::source).
///
/// What came from a Maildir gets its directories, file names, info parts, modification times (to the nanosecond) and companion files back.
/// From a source of another kind:
/// - folders become Maildir++ directories in modified UTF-7, `INBOX` in any case and the root become the mailbox itself. `.` and `/` in a name
///   are encoded too, which is reported as a new name;
/// - messages get unique names made of their internal date and of their name at the source or their position in the folder: the same on
///   every run. All go to `cur`;
/// - flags become letters, keywords letters that `dovecot-keywords` explains: 26 for each folder, more are reported;
/// - the internal date becomes the modification time; without one it is 1970-01-01, never the time of the restore;
/// - messages of an mboxrd file are unquoted.
///
/// **Existing files** are never overwritten. A file of the same name and octets counts as delivered, so an interrupted restore can be run
/// again; one of other octets fails that message with kind [`Exists`](crate::ErrorKind::Exists). A message whose flags were changed since has another
/// file name and comes a second time. Where the target's `dovecot-keywords` has other meanings, letters are exchanged.
/// Symbolic links below the target are not followed. Directories are created for their owner only (0700), files likewise (0600), as far
/// as the umask lets them. Times of directories are not set.
///
/// **Durability.** A message is written in `tmp` and appears in its place only when it is whole. When the mailbox is finished, the directories
/// are synced but not the files: after a crash of the *system*, files written in the last moments may be there with fewer octets.
/// [`durable`](Self::durable) syncs each file before it gets its name.
///
/// Memory: 32 octets for each mailbox and folder of the run, about 64 KiB for each message on its way.
#[derive(Clone, Debug)]
pub struct Maildir {
    tree: Arc<Tree>,
    is_durable: bool,
}

impl Maildir {
    /// Maildirs under `directory`, which is created when the first mailbox is.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { tree: Arc::new(Tree::new(directory.into())), is_durable: false }
    }

    /// Whether each file is synced before it gets its name. Off by default: it costs a disk flush for each message.
    #[must_use]
    pub fn durable(mut self, is_durable: bool) -> Self {
        self.is_durable = is_durable;
        self
    }
}

impl Sink for Maildir {
    fn kind(&self) -> Kind {
        Kind::Maildir
    }

    fn is_ordered(&self) -> bool {
        false
    }

    fn mailbox(&self, name: &MailboxName, notes: &mut Vec<Note>) -> Result<Box<dyn MailboxSink>> {
        let components = harmless::components(name.as_bytes());
        let directory = self.tree.claim(Claim::Mailbox, &owner(name, b""), &[], components, holds_anothers_messages)?;
        note_renamed(name.as_bytes(), &harmless::joined(&directory.components), notes);
        Ok(Box::new(Mailbox {
            tree: Arc::clone(&self.tree),
            name: name.clone(),
            directory,
            is_durable: self.is_durable,
            folders: RwLock::default(),
        }))
    }
}

struct Mailbox {
    tree: Arc<Tree>,
    name: MailboxName,
    directory: Directory,
    is_durable: bool,
    folders: RwLock<HashMap<Bytes, Arc<MaildirFolder>>>,
}

struct MaildirFolder {
    label: Arc<str>,
    directory: PathBuf,
    temporary: PathBuf,
    cur: Arc<Spot>,
    new: Arc<Spot>,
    dates: Dates,
    /// Its lock is held while the file of keywords is written, which happens once for each new keyword.
    keywords: Mutex<Keywords>,
    /// Set if its messages are unquoted, because they come from an mboxrd file: the octet that ends a line.
    unquoted: Option<u8>,
}

impl MailboxSink for Mailbox {
    fn folder(&self, folder: &Folder, origin: &Kind, notes: &mut Vec<Note>) -> Result<()> {
        let state = match self.known(&folder.path.raw) {
            Some(state) => state,
            None => self.create(folder, origin, notes)?,
        };
        for companion in &folder.companions {
            if *origin != Kind::Maildir || !self.put(&state, companion)? {
                note_companion(&companion.name, &state.label, notes);
            }
        }
        Ok(())
    }

    fn deliver(
        &self,
        envelope: &Envelope,
        origin: &Kind,
        position: u64,
        length: u64,
        notes: &mut Vec<Note>,
    ) -> Result<Box<dyn Delivery>> {
        let folder = self.known(&envelope.folder).ok_or_else(|| unknown_folder(&envelope.folder))?;
        let place = self.place(&folder, envelope, origin, notes)?;
        let identity = match &envelope.identity {
            Identity::Named(name) if *origin == Kind::Maildir => name.to_vec(),
            _ => names::unique(envelope, origin, position),
        };
        let wanted = names::of_unique(&identity, &place);
        let spot = if place.is_new { &folder.new } else { &folder.cur };
        let name = spot.taken.name_unless(&wanted.input, &wanted.name, wanted.is_ambiguous);
        if wanted.is_renamed || name != wanted.name {
            notes.push(Note::Renamed { from: message_label(&folder.label, envelope), to: lossy(&name) });
        }
        note_extensions(envelope, &folder.label, notes);
        let parcel = Parcel {
            spot: Arc::clone(spot),
            name,
            time: folder.dates.of(envelope, &folder.label, notes),
            folder: Arc::clone(&folder.label),
            is_durable: self.is_durable,
            unquoted: folder.unquoted.filter(|_| *origin == Kind::Mbox),
        };
        Ok(Box::new(FileDelivery::new(self.tree.temporary(&folder.temporary, length)?, parcel)))
    }

    fn finish(&self) -> Result<()> {
        let folders: Vec<Arc<MaildirFolder>> =
            self.folders.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        let touched = folders.iter().flat_map(|folder| [folder.cur.take_touched(), folder.new.take_touched()]);
        let own = folders.iter().map(|folder| &*folder.directory).chain([&*self.directory.path]);
        self.tree.sync(touched.flatten().chain(own))
    }
}

impl Mailbox {
    fn known(&self, raw: &[u8]) -> Option<Arc<MaildirFolder>> {
        self.folders.read().unwrap_or_else(PoisonError::into_inner).get(raw).cloned()
    }

    fn create(&self, folder: &Folder, origin: &Kind, notes: &mut Vec<Note>) -> Result<Arc<MaildirFolder>> {
        let label = folder_label(&self.name, folder);
        let base = &self.directory.components;
        let owner = owner(&self.name, &folder.path.raw);
        let directory = self.tree.claim(Claim::Folder, &owner, base, components_of(folder, origin), holds_mailboxes)?;
        let got = harmless::joined(directory.components.get(base.len()..).unwrap_or_default());
        self.note_folder(folder, origin, &got, &label, notes);
        for name in ["cur", "new", "tmp"] {
            let path = directory.path.join(name);
            system::create_directory(&path)?.ok_or_else(|| system::in_the_way(&path, "is no directory"))?;
        }
        let state = Arc::new(MaildirFolder {
            label,
            temporary: directory.path.join("tmp"),
            cur: Arc::new(Spot::new(directory.path.join("cur"))),
            new: Arc::new(Spot::new(directory.path.join("new"))),
            dates: Dates::default(),
            keywords: Mutex::new(Keywords::load(&directory.path)?),
            unquoted: mboxrd_newline(folder, origin),
            directory: directory.path,
        });
        let mut folders = self.folders.write().unwrap_or_else(PoisonError::into_inner);
        Ok(Arc::clone(folders.entry(folder.path.raw.clone()).or_insert(state)))
    }

    fn note_folder(&self, folder: &Folder, origin: &Kind, got: &[u8], label: &str, notes: &mut Vec<Note>) {
        if *origin == Kind::Maildir {
            return note_renamed(&folder.path.raw, got, notes);
        }
        if names::directory_of(&folder.path).as_deref() != Some(got) || !names::is_plain(&folder.path) {
            notes.push(Note::Renamed { from: folder.path.names.join("/"), to: lossy(got) });
        }
        if *origin != Kind::Mbox {
            notes.push(unholdable("names of messages", label));
        }
        note_losses(folder, origin, label, notes);
    }

    /// Whether a companion file is there now.
    fn put(&self, folder: &MaildirFolder, companion: &Companion) -> Result<bool> {
        let name = harmless::component(&companion.name);
        let time = companion.modified.and_then(system::system_time);
        let target = folder.directory.join(harmless::native(&name));
        let placed = self.tree.put(&folder.temporary, &target, &companion.octets, time, self.is_durable)?;
        if *companion.name == *keywords::FILE {
            let mut words = folder.keywords.lock().unwrap_or_else(PoisonError::into_inner);
            match placed {
                Placed::New => *words = Keywords::load(&folder.directory)?,
                Placed::Same => {}
                Placed::Differs | Placed::Directory => words.adopt(&companion.octets, &self.tree, self.is_durable)?,
            }
        }
        Ok(matches!(placed, Placed::New | Placed::Same) && *name == companion.name)
    }

    /// Where the message goes, and with which info part.
    fn place(
        &self,
        folder: &MaildirFolder,
        envelope: &Envelope,
        origin: &Kind,
        notes: &mut Vec<Note>,
    ) -> Result<Place> {
        let known = if *origin == Kind::Maildir { Place::of_source(&envelope.place) } else { None };
        let mut words = folder.keywords.lock().unwrap_or_else(PoisonError::into_inner);
        let known = match known {
            Some(place) if !words.is_foreign() => return Ok(place),
            known => known,
        };
        let (letters, without) = words.letters(envelope.flags.keywords(), &self.tree, self.is_durable)?;
        for keyword in without {
            let message = message_label(&folder.label, envelope);
            notes.push(unholdable("keyword", &format!("{message}: {keyword}")));
        }
        Ok(known.map_or_else(|| Place::of_flags(envelope.flags.system, &letters), |place| place.with_letters(&letters)))
    }
}

/// The directories of a folder below its mailbox.
fn components_of(folder: &Folder, origin: &Kind) -> Vec<Vec<u8>> {
    if *origin != Kind::Maildir {
        return match names::directory_of(&folder.path) {
            Some(directory) if directory.is_empty() => Vec::new(),
            Some(directory) => vec![directory],
            None => {
                let input = [folder.path.names.join("/").as_bytes(), b"\0", &folder.path.raw].concat();
                vec![[&b"."[..], &harmless::made(&input, 0)].concat()]
            }
        };
    }
    let mut components = harmless::components(&folder.path.raw);
    for name in &mut components {
        if names::holds_messages(name) {
            *name = harmless::made(name, 0);
        }
    }
    components
}

/// Whether a mailbox would lie where a folder's messages are.
fn holds_anothers_messages(tree: &Tree, path: &Path) -> bool {
    let name = path.file_name().map(std::ffi::OsStr::as_encoded_bytes).unwrap_or_default();
    let parent = path.parent().filter(|_| path != tree.root());
    names::holds_messages(name) && parent.is_some_and(|parent| tree.is_claimed(Claim::Folder, parent))
}

/// Whether a folder's messages would lie where a mailbox is.
fn holds_mailboxes(tree: &Tree, path: &Path) -> bool {
    ["cur", "new", "tmp"].iter().any(|name| tree.is_claimed(Claim::Mailbox, &path.join(name)))
}
