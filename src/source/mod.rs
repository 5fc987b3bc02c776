//! Where messages come from.
//!
//! A source is blocking and runs on a worker: [`Source::mailboxes`] lists mailboxes, each [`MailboxSource`] is read once, in
//! order, as a series of [`Entry`]s. Enumeration reads no message bodies where the kind of source allows that; bodies are opened later,
//! perhaps on other workers and in another order.

#[cfg(test)]
mod drained;
mod eml;
mod file;
mod listing;
mod maildir;
pub mod mbox;
mod memory;

pub use eml::Eml;
pub use maildir::{Layout, Maildir};
pub use mbox::Mbox;
pub use memory::Memory;

use crate::digest::{Digest, Domain, Hasher};
use crate::error::{Error, Result};
use crate::message::{Envelope, Evidence, Flags, Folder, MailboxName};
use bytes::Bytes;
use std::fmt;
use std::sync::Arc;

/// Where messages come from. Dyn-compatible; mailrail holds it as `Arc<dyn Source>`.
pub trait Source: fmt::Debug + Send + Sync + 'static {
    /// Which messages may be marked gone when they are no longer found: only those that came from a source of the same id.
    fn id(&self) -> SourceId;

    /// The kind of source. Restoring to a sink of the same kind reproduces names and places exactly.
    fn kind(&self) -> Kind;

    /// The mailboxes, each once, in an order that stays the same while nothing changes. Called on a worker; may block.
    ///
    /// An `Err` item is a mailbox that could not be opened: it is reported, marks the enumeration incomplete, and does not end it.
    ///
    /// # Errors
    /// If no mailbox at all can be listed.
    fn mailboxes(&self) -> Result<MailboxIter>;
}

/// A source that is shared is one, too.
impl<S: Source + ?Sized> Source for Arc<S> {
    fn id(&self) -> SourceId {
        (**self).id()
    }

    fn kind(&self) -> Kind {
        (**self).kind()
    }

    fn mailboxes(&self) -> Result<MailboxIter> {
        (**self).mailboxes()
    }
}

/// The mailboxes of a source.
pub type MailboxIter = Box<dyn Iterator<Item = Result<Box<dyn MailboxSource>>> + Send>;

/// One mailbox being enumerated.
pub trait MailboxSource: Send {
    /// The mailbox's name, unique inside its source.
    fn name(&self) -> &MailboxName;

    /// Appends the next entries to `batch`, in the source's order, until the batch [is full](Batch::is_full) or the mailbox ends.
    /// Called on a worker; may block. A folder's [`Entry::Folder`] comes before any entry that names the folder.
    ///
    /// What goes wrong with single entries is an entry ([`Entry::Failed`]), not an `Err`.
    ///
    /// Returns whether there may be more.
    ///
    /// # Errors
    /// If the enumeration cannot go on. The mailbox then counts as incompletely enumerated: nothing in it is marked gone.
    fn fill(&mut self, known: &mut dyn Known, batch: &mut Batch) -> Result<bool>;
}

/// What the repository knows of a mailbox from earlier runs, for sources that can skip whole containers.
pub trait Known: Send {
    /// The evidence recorded when the container `folder` (raw octets) was last read to its end, and how many living messages came of it.
    /// `None` if it is new, if it came from another source, or if nothing is to be trusted.
    fn container(&self, folder: &[u8]) -> Option<KnownContainer>;

    /// A hasher for message octets, for [`matches`](Self::matches).
    fn hasher(&self) -> Hasher;

    /// Whether, in the container `envelope.folder`, a known message after the one matched last has this digest and the same container
    /// octets (`envelope.before`, `envelope.after`); if so it is taken as matched, and the source sends [`Entry::Matched`] for it.
    ///
    /// For containers that changed and are read again: the source asks for every message of the container, in order, and in the same order
    /// sends [`Entry::Matched`] or the message.
    fn matches(&mut self, envelope: &Envelope, digest: &Digest) -> bool;
}

/// A container as an earlier run left it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KnownContainer {
    /// What the source gave as [`Folder::evidence`].
    pub evidence: Evidence,
    /// Living messages in it.
    pub messages: u64,
}

impl KnownContainer {
    /// A container of this evidence and this many living messages.
    #[must_use]
    pub fn new(evidence: Evidence, messages: u64) -> Self {
        Self { evidence, messages }
    }
}

/// Knows nothing, as before the first run: a source tells everything that it has.
#[derive(Clone, Debug)]
pub struct KnowNothing(Domain);

impl KnowNothing {
    /// Gives hashers of this domain.
    #[must_use]
    pub fn new(domain: Domain) -> Self {
        Self(domain)
    }
}

impl Known for KnowNothing {
    fn container(&self, _folder: &[u8]) -> Option<KnownContainer> {
        None
    }

    fn hasher(&self) -> Hasher {
        self.0.hasher()
    }

    fn matches(&mut self, _envelope: &Envelope, _digest: &Digest) -> bool {
        false
    }
}

/// Entries on their way from a source to the workers, bounded in number and octets.
#[derive(Debug, Default)]
pub struct Batch {
    entries: Vec<Entry>,
    octets: usize,
    octets_max: usize,
}

impl Batch {
    /// The most entries in a batch. What is longer than a few KiB fills one by its weight before.
    pub const ENTRIES_MAX: usize = 1024;

    /// An empty batch that is full when its entries weigh `octets_max` ([`Entry::weight`]).
    #[must_use]
    pub fn new(octets_max: usize) -> Self {
        Self { entries: Vec::new(), octets: 0, octets_max }
    }

    /// Adds an entry. A batch that is full still takes entries: a source asks [`is_full`](Self::is_full) after each.
    pub fn push(&mut self, entry: Entry) {
        self.octets += entry.weight();
        self.entries.push(entry);
    }

    /// Whether the source should stop here.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.octets >= self.octets_max || self.entries.len() >= Self::ENTRIES_MAX
    }

    /// The sum of its entries' weights, in octets.
    #[must_use]
    pub fn weight(&self) -> usize {
        self.octets
    }

    /// The entries so far.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Takes the entries out.
    #[must_use]
    pub fn into_entries(self) -> Vec<Entry> {
        self.entries
    }
}

/// One thing that a source found.
#[derive(Debug)]
#[non_exhaustive]
pub enum Entry {
    /// A folder. Sent again at the container's end with its evidence, if the evidence is known only then.
    Folder(Folder),
    /// A message.
    Message(Message),
    /// A container whose messages are all as an earlier run left them (or: the first `messages` of them, if it only grew).
    /// They are counted as seen and unchanged, and not enumerated.
    Unchanged {
        /// The raw octets of the container's folder.
        folder: Bytes,
        /// How many messages.
        messages: u64,
    },
    /// A message matched by [`Known::matches`].
    Matched {
        /// The raw octets of the container's folder.
        folder: Bytes,
    },
    /// Something that is no message, or must not be taken for one. Counted, never stored.
    Excluded {
        /// What it is called, for people.
        name: Bytes,
        /// Why it is no message.
        reason: Exclusion,
    },
    /// Something that may be messages and could not be looked at (an unreadable folder, say): the enumeration is incomplete.
    Failed {
        /// What it is called, for people.
        name: Bytes,
        /// What went wrong.
        error: Error,
    },
}

impl Entry {
    /// What the entry weighs against a batch's limit: an estimate of what it holds in memory and leaves in a commit, in octets.
    #[must_use]
    pub fn weight(&self) -> usize {
        const OVERHEAD: usize = 512;
        const LITERAL_MAX: u64 = 1 << 20;
        match self {
            Self::Message(message) => {
                // An ordinary envelope is in the overhead.
                let overhead = OVERHEAD.max(message.envelope.weight());
                match &message.body {
                    Body::Octets(octets) => overhead + octets.len(),
                    Body::Open { length, .. } => overhead + (*length).min(LITERAL_MAX) as usize,
                }
            }
            Self::Folder(folder) => OVERHEAD + folder.weight() + folder.companions.len() * OVERHEAD,
            _ => OVERHEAD,
        }
    }
}

/// A message that a source found.
#[derive(Debug)]
#[allow(clippy::exhaustive_structs, reason = "implementors of Source build it")]
pub struct Message {
    /// Everything known of it besides its octets.
    pub envelope: Envelope,
    /// Its octets, or the way to them.
    pub body: Body,
}

/// A message's octets, or the way to them.
#[allow(clippy::exhaustive_enums, reason = "implementors of Source build it")]
pub enum Body {
    /// The octets themselves, read already. At most about 1 MiB: larger bodies are opened.
    Octets(Bytes),
    /// To be opened and read on a worker.
    Open {
        /// How many octets the source expects.
        length: u64,
        /// Opens the body.
        open: Box<dyn OpenBody>,
    },
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Octets(octets) => write!(f, "Octets({})", octets.len()),
            Self::Open { length, .. } => write!(f, "Open({length})"),
        }
    }
}

/// Opens a body, once.
pub trait OpenBody: Send {
    /// Opens it. Called on a worker; may block.
    ///
    /// # Errors
    /// [`Unreadable`], with the reason for which the message is quarantined.
    fn open(self: Box<Self>) -> Result<Box<dyn ReadBody>, Unreadable>;
}

/// Reads a body from its first octet to its last.
pub trait ReadBody: Send {
    /// Reads some octets into `buffer`, which is not empty; 0 is the end. Called on a worker; may block.
    ///
    /// # Errors
    /// [`Unreadable`]; what was read until then is kept with the quarantined message.
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Unreadable>;

    /// Called at the end, after `length` octets: the last chance to see that the message changed while it was read.
    /// Gives what became of the envelope if the source can only tell now (a Maildir file renamed meanwhile).
    ///
    /// # Errors
    /// [`Unreadable`] if what was read is not one state of the message.
    fn finish(&mut self, length: u64) -> Result<Finished, Unreadable>;
}

/// What a source says of a message when it has been read to its end.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum Finished {
    /// The envelope stands.
    #[default]
    AsEnumerated,
    /// The message was renamed meanwhile: these replace the envelope's flags and place.
    Moved {
        /// The new flags.
        flags: Flags,
        /// The new place.
        place: Bytes,
    },
}

/// Why a message could not be read in full.
#[derive(Debug)]
#[allow(clippy::exhaustive_structs, reason = "implementors of Source build it")]
pub struct Unreadable {
    /// The class of reason, for the ledger.
    pub reason: Reason,
    /// The detail, for people.
    pub error: Error,
}

/// Why a message is in quarantine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Reason {
    /// The source failed while it was read (an I/O error).
    ReadFailed,
    /// The source refuses to show it.
    Denied,
    /// It was there when enumerated and is no longer.
    Vanished,
    /// It changed while it was read, more than once.
    Changed,
    /// Fewer octets came than the source had promised.
    Short,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ReadFailed => "read failed",
            Self::Denied => "denied",
            Self::Vanished => "vanished",
            Self::Changed => "changed",
            Self::Short => "short",
        })
    }
}

/// Why something in a source's tree is no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Exclusion {
    /// Not delivered yet: in Maildir's `tmp`.
    Temporary,
    /// Belongs to the mail software (an index, a cache, a lock), not to the mail.
    Foreign,
    /// No regular file: a symbolic link, a socket, a device.
    NotAFile,
    /// Not in the source's format.
    NotMail,
    /// Longer than what is carried along.
    TooLong,
}

impl fmt::Display for Exclusion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Temporary => "temporary",
            Self::Foreign => "foreign",
            Self::NotAFile => "not a file",
            Self::NotMail => "not mail",
            Self::TooLong => "too long",
        })
    }
}

/// The kinds of source and sink that mailrail knows, or another's own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// Maildir, with Maildir++ or nested folders.
    Maildir,
    /// mbox files.
    Mbox,
    /// A tree of files, each one message.
    Eml,
    /// Anything else, by name.
    Other(String),
}

/// A stable name for one source, so that what vanished from it can be told from what it never had.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SourceId([u8; 16]);

impl SourceId {
    /// An id of these octets. Give the same for the same mail on every run.
    #[must_use]
    pub const fn new(octets: [u8; 16]) -> Self {
        Self(octets)
    }

    /// The id for a source of `kind` at `place` (a canonical path, a server and an account).
    #[must_use]
    pub fn of(kind: &str, place: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("mailrail 2026 source id");
        hasher.update(&(kind.len() as u64).to_le_bytes()).update(kind.as_bytes()).update(place);
        let mut octets = [0; 16];
        octets.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        Self(octets)
    }

    /// The octets.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Debug for SourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().take(4).try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}
