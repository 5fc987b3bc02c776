//! A tree of files, each one message.

#[cfg(test)]
mod tests;

use crate::error::{ErrorKind, Result};
use crate::message::{Companion, Envelope, Flags, Folder, Identity, MailboxName};
use crate::sink::files::{
    Dates, FileDelivery, Parcel, Spot, folder_label, mboxrd_newline, message_label, note_companion, note_extensions,
    note_losses, note_renamed, owner, unholdable, unknown_folder,
};
use crate::sink::temporary::{Placed, Temporary};
use crate::sink::tree::{Claim, Directory, Tree};
use crate::sink::{Delivery, MailboxSink, Note, Sink, names, system};
use crate::source::Kind;
use bytes::Bytes;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

/// The directory in a mailbox that holds what is not delivered yet; it goes when the mailbox is finished or dropped.
pub(super) const TEMPORARY: &[u8] = b".mailrail-tmp";

/// A tree of files, each one message: the mirror of [`source::Eml`](crate::source).
///
/// A mailbox is a directory at the top, a folder a directory in it. A message keeps its file name; from a source of another kind it is
/// named after its name there, or its position in the folder, with `.eml` behind. The internal date becomes the file's modification time, to
/// the nanosecond; without one it is 1970-01-01, never the time of the restore. Flags and keywords cannot be held. Times of directories are
/// not set.
///
/// **Existing files** are never overwritten. A file of the same name and octets counts as delivered, so an interrupted restore can be run
/// again; one of other octets fails that message with kind [`Exists`](crate::ErrorKind::Exists). Symbolic links below the target are not
/// followed. Directories are created for their owner only (0700), files likewise (0600), as far as the umask lets them.
///
/// **Durability.** A message appears under its name only when it is whole. When the mailbox is finished, the directories are synced but not the
/// files: after a crash of the *system*, files written in the last moments may be there with fewer octets. [`durable`](Self::durable) syncs
/// each file before it gets its name.
///
/// Memory: 32 octets for each mailbox and folder of the run, about 64 KiB for each message on its way.
#[derive(Clone, Debug)]
pub struct Eml {
    tree: Arc<Tree>,
    is_durable: bool,
}

impl Eml {
    /// A tree under `directory`, which is created when the first mailbox is.
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

impl Sink for Eml {
    fn kind(&self) -> Kind {
        Kind::Eml
    }

    fn is_ordered(&self) -> bool {
        false
    }

    fn mailbox(&self, name: &MailboxName, notes: &mut Vec<Note>) -> Result<Box<dyn MailboxSink>> {
        // A mailbox is one directory at the top: a path of several would be read as a folder of another mailbox.
        let components = match name.as_bytes() {
            b"" => Vec::new(),
            TEMPORARY => vec![names::made(TEMPORARY, 0)],
            name => vec![names::component(name).into_owned()],
        };
        let directory = self.tree.claim(Claim::Mailbox, &owner(name, b""), &[], components, |_, _| false)?;
        note_renamed(name.as_bytes(), &names::joined(&directory.components), notes);
        Ok(Box::new(Mailbox {
            tree: Arc::clone(&self.tree),
            name: name.clone(),
            temporary: directory.path.join(names::native(TEMPORARY)),
            directory,
            is_durable: self.is_durable,
            is_prepared: AtomicBool::new(false),
            folders: RwLock::default(),
        }))
    }
}

struct Mailbox {
    tree: Arc<Tree>,
    name: MailboxName,
    directory: Directory,
    temporary: PathBuf,
    is_durable: bool,
    /// Whether the directory of temporary files was created.
    is_prepared: AtomicBool,
    folders: RwLock<HashMap<Bytes, Arc<EmlFolder>>>,
}

struct EmlFolder {
    label: Arc<str>,
    spot: Arc<Spot>,
    dates: Dates,
    /// Set if its messages are unquoted, because they come from an mboxrd file: the octet that ends a line.
    unquoted: Option<u8>,
}

impl MailboxSink for Mailbox {
    fn folder(&self, folder: &Folder, origin: &Kind, notes: &mut Vec<Note>) -> Result<()> {
        let label = folder_label(&self.name, folder);
        let known = self.known(&folder.path.raw);
        let state = match known {
            Some(state) => state,
            None => self.create(folder, origin, label, notes)?,
        };
        for companion in &folder.companions {
            if *origin != Kind::Eml || !self.put(&state, companion)? {
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
        let wanted = match &envelope.identity {
            Identity::Named(name) if *origin == Kind::Eml => name.to_vec(),
            Identity::Named(name) => [name, &b".eml"[..]].concat(),
            Identity::Content => format!("{position:010}.eml").into_bytes(),
        };
        let name = folder.spot.taken.name(&wanted, &wanted);
        note_renamed(&wanted, &name, notes);
        if envelope.flags != Flags::default() && *origin != Kind::Eml {
            notes.push(unholdable("flags", &message_label(&folder.label, envelope)));
        }
        note_extensions(envelope, &folder.label, notes);
        let parcel = Parcel {
            spot: Arc::clone(&folder.spot),
            name,
            time: folder.dates.of(envelope, &folder.label, notes),
            folder: Arc::clone(&folder.label),
            is_durable: self.is_durable,
            unquoted: folder.unquoted.filter(|_| *origin == Kind::Mbox),
        };
        Ok(Box::new(FileDelivery::new(self.temporary_file(length)?, parcel)))
    }

    fn finish(&self) -> Result<()> {
        self.remove_temporary();
        let folders: Vec<Arc<EmlFolder>> =
            self.folders.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        let touched = folders.iter().filter_map(|folder| folder.spot.take_touched());
        self.tree.sync(touched.chain([&*self.directory.path]))
    }
}

impl Mailbox {
    fn known(&self, raw: &[u8]) -> Option<Arc<EmlFolder>> {
        self.folders.read().unwrap_or_else(PoisonError::into_inner).get(raw).cloned()
    }

    fn create(&self, folder: &Folder, origin: &Kind, label: Arc<str>, notes: &mut Vec<Note>) -> Result<Arc<EmlFolder>> {
        let (base, raw) = (&self.directory.components, &folder.path.raw);
        let wanted = wanted_path(folder, origin);
        let below = harmless_path(&wanted, raw);
        let directory = self.tree.claim(Claim::Folder, &owner(&self.name, raw), base, below, |_, _| false)?;
        let got = directory.components.get(base.len()..).unwrap_or_default();
        note_renamed(&names::joined(&wanted), &names::joined(got), notes);
        if *origin != Kind::Eml {
            note_losses(folder, origin, &label, notes);
        }
        let spot = Arc::new(Spot::new(directory.path));
        // The folder's own entry in the directory above it is synced with its messages.
        spot.touch();
        let unquoted = mboxrd_newline(folder, origin);
        let state = Arc::new(EmlFolder { label, spot, dates: Dates::default(), unquoted });
        let mut folders = self.folders.write().unwrap_or_else(PoisonError::into_inner);
        Ok(Arc::clone(folders.entry(folder.path.raw.clone()).or_insert(state)))
    }

    /// Whether a companion file is there now.
    fn put(&self, folder: &EmlFolder, companion: &Companion) -> Result<bool> {
        let name = names::component(&companion.name);
        let time = companion.modified.and_then(system::system_time);
        self.ensure_temporary()?;
        let target = folder.spot.directory.join(names::native(&name));
        let placed = self.tree.put(&self.temporary, &target, &companion.octets, time, self.is_durable)?;
        folder.spot.touch();
        Ok(matches!(placed, Placed::New | Placed::Same) && *name == companion.name)
    }

    fn temporary_file(&self, length: u64) -> Result<Temporary> {
        if !self.is_prepared.load(Ordering::Acquire) {
            self.ensure_temporary()?;
            self.is_prepared.store(true, Ordering::Release);
        }
        match self.tree.temporary(&self.temporary, length) {
            // Another process finished the same mailbox and took the directory away.
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.ensure_temporary()?;
                self.tree.temporary(&self.temporary, length)
            }
            result => result,
        }
    }

    fn ensure_temporary(&self) -> Result<()> {
        system::create_directory(&self.temporary)?.ok_or_else(|| system::in_the_way(&self.temporary, "is no directory"))
    }

    /// Takes the directory of temporary files away, unless another process has files in it.
    fn remove_temporary(&self) {
        _ = std::fs::remove_dir(&self.temporary);
    }
}

impl Drop for Mailbox {
    fn drop(&mut self) {
        self.remove_temporary();
    }
}

/// The names of a folder's directories as they would be, were all names harmless.
fn wanted_path(folder: &Folder, origin: &Kind) -> Vec<Vec<u8>> {
    let path = &folder.path;
    if *origin != Kind::Eml && !path.names.is_empty() {
        return path.names.iter().map(|name| name.clone().into_bytes()).collect();
    }
    if path.raw.is_empty() {
        return Vec::new();
    }
    path.raw.split(|octet| *octet == b'/').map(<[u8]>::to_vec).collect()
}

fn harmless_path(wanted: &[Vec<u8>], raw: &[u8]) -> Vec<Vec<u8>> {
    let components: Vec<Vec<u8>> = wanted
        .iter()
        .map(|name| if name == TEMPORARY { names::made(name, 0) } else { names::component(name).into_owned() })
        .collect();
    if names::path_length(&components) > names::PATH_OCTETS_MAX { vec![names::made(raw, 0)] } else { components }
}
