//! What is known of a message besides its octets: folder, flags, dates, identity, evidence.

use bytes::Bytes;
use std::fmt;
use std::sync::Arc;

/// What a name, a keyword or the like weighs besides its octets.
const ITEM_OCTETS: usize = 32;

/// The name of a mailbox: one account's mail. Octets, because sources name mailboxes by paths, which need not be UTF-8.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MailboxName(Vec<u8>);

impl MailboxName {
    /// The longest name of a mailbox that a transfer takes, in octets. A mailbox with a longer one is told among what could not be enumerated.
    pub const OCTETS_MAX: usize = 64 << 10;

    /// A mailbox name of these octets; an empty name is legal (the mailbox at the root of a tree).
    pub fn new(octets: impl Into<Vec<u8>>) -> Self {
        Self(octets.into())
    }

    /// The octets as the source gave them.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Shows the name for people: what is not UTF-8 is replaced, so two names can look alike. Not for comparing.
impl fmt::Display for MailboxName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        String::from_utf8_lossy(&self.0).fmt(f)
    }
}

/// A folder inside a mailbox: a path of names, decoded, and the raw octets by which the source knows it.
///
/// `raw` is the identity: two folders of a mailbox are the same exactly if their raw octets are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[allow(clippy::exhaustive_structs, reason = "implementors of Source build it")]
pub struct FolderPath {
    /// The names from the mailbox's root downward, decoded for people and for other kinds of sink (RFC 3501 5.1.3 for Maildir++).
    pub names: Vec<String>,
    /// The source's own octets: a path relative to the mailbox's root, empty for the root itself.
    pub raw: Bytes,
}

impl FolderPath {
    /// The path whose raw octets are its names in UTF-8, with a `/` between them.
    #[must_use]
    pub fn of_raw(raw: Bytes) -> Self {
        let names = raw.split(|&octet| octet == b'/').filter(|name| !name.is_empty());
        Self { names: names.map(|name| String::from_utf8_lossy(name).into_owned()).collect(), raw }
    }
}

/// The attributes a message can carry on any server (RFC 3501 2.3.2), and Maildir's "passed".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SystemFlags(u8);

impl SystemFlags {
    /// `\Seen`, Maildir `S`.
    pub const SEEN: Self = Self(1);
    /// `\Answered`, Maildir `R`.
    pub const ANSWERED: Self = Self(2);
    /// `\Flagged`, Maildir `F`.
    pub const FLAGGED: Self = Self(4);
    /// `\Deleted`, Maildir `T`.
    pub const DELETED: Self = Self(8);
    /// `\Draft`, Maildir `D`.
    pub const DRAFT: Self = Self(16);
    /// `$Forwarded` (RFC 5550 2.8), Maildir `P`.
    pub const PASSED: Self = Self(32);

    /// All of `self` and of `other`.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of `other` are set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The flags as bits, in the order of the constants (docs/format.md).
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// The flags of these bits; bits without a meaning are kept.
    #[must_use]
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits)
    }
}

/// A message's flags: the system flags and the keywords (RFC 3501 2.3.2), sorted and without repeats.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flags {
    /// The system flags.
    pub system: SystemFlags,
    /// Shared: many messages have the same ones.
    keywords: Arc<[String]>,
}

impl Flags {
    /// These system flags and keywords.
    pub fn new(system: SystemFlags, keywords: impl IntoIterator<Item = String>) -> Self {
        let mut keywords: Vec<String> = keywords.into_iter().collect();
        keywords.sort_unstable();
        keywords.dedup();
        Self { system, keywords: keywords.into() }
    }

    /// The same keywords with other system flags. Nothing is copied.
    #[must_use]
    pub fn with_system(&self, system: SystemFlags) -> Self {
        Self { system, keywords: Arc::clone(&self.keywords) }
    }

    /// The keywords, sorted.
    #[must_use]
    pub fn keywords(&self) -> &[String] {
        &self.keywords
    }
}

impl From<SystemFlags> for Flags {
    fn from(system: SystemFlags) -> Self {
        Self { system, ..Self::default() }
    }
}

/// When the message arrived (RFC 3501 2.3.3): seconds since 1970 in UTC, nanoseconds, and the zone where the source has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(clippy::exhaustive_structs, reason = "a point in time has no more to it")]
pub struct InternalDate {
    /// Seconds since 1970-01-01T00:00:00Z; negative before.
    pub seconds: i64,
    /// Nanoseconds within the second, below 10^9.
    pub nanos: u32,
    /// Minutes east of UTC, where the source keeps a zone.
    pub zone_minutes: Option<i16>,
}

/// What names a message inside its folder, in the words of its source (Maildir: the unique name; eml: the file name).
///
/// Not all sources have names: a message in an mbox is known by its octets alone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Identity {
    /// A name that the source keeps for this message as long as the message is in this folder.
    Named(Bytes),
    /// The source has no names; the message is recognised by its digest and its place in the folder's order. Such a source asks
    /// [`Known::matches`](crate::source::Known::matches) of each message and lists only those that do not match: what it lists is stored anew.
    Content,
}

/// What the source can see of a message or container without reading bodies, and which changes when the octets do.
///
/// Opaque to the engine, which only compares. Empty evidence proves nothing: the message is always read again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[allow(clippy::exhaustive_structs, reason = "it is octets and nothing else")]
pub struct Evidence(pub Bytes);

impl Evidence {
    /// Evidence that never proves a message unchanged.
    pub const NONE: Self = Self(Bytes::new());

    /// Whether equality with this evidence proves anything.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.0.is_empty()
    }
}

/// Everything that is kept of a message besides its octets.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Envelope {
    /// The raw octets of the folder that the message is in ([`FolderPath::raw`]).
    pub folder: Bytes,
    /// What names the message in its folder.
    pub identity: Identity,
    /// What shows, without reading it, that the message is unchanged.
    pub evidence: Evidence,
    /// Flags and keywords.
    pub flags: Flags,
    /// When the message arrived, where the source knows.
    pub internal_date: Option<InternalDate>,
    /// Where in the folder the source keeps it, in the source's own words, for restoring to the same kind:
    /// Maildir: `cur` or `new`, and the info part of the file name (`cur:2,S`); others: empty.
    pub place: Bytes,
    /// Octets of the container in front of the message that are not the message's (mbox: the From_ line with its line ending).
    pub before: Bytes,
    /// Octets of the container behind the message that are not the message's (mbox: the separating blank line).
    pub after: Bytes,
    /// Open extensions: labels, embedder's tags, marks like `synthesised`. Sorted by name when stored.
    pub extensions: Vec<(String, Bytes)>,
}

impl Envelope {
    /// The most that an envelope may weigh ([`weight`](Self::weight)), in octets. A message with a heavier one is not stored: a source's is told
    /// among what could not be enumerated, so that nothing counts as gone; an appended one is refused.
    pub const OCTETS_MAX: usize = 1 << 20;

    /// What the envelope weighs: its octets, and 32 for each keyword and extension.
    #[must_use]
    pub fn weight(&self) -> usize {
        let Self { folder, identity, evidence, flags, place, before, after, extensions, internal_date: _ } = self;
        let name = match identity {
            Identity::Named(name) => name.len(),
            Identity::Content => 0,
        };
        let keywords = flags.keywords().iter().map(|keyword| keyword.len() + ITEM_OCTETS).sum::<usize>();
        let extensions = extensions.iter().map(|(name, value)| name.len() + value.len() + ITEM_OCTETS).sum::<usize>();
        folder.len() + name + evidence.0.len() + keywords + place.len() + before.len() + after.len() + extensions
    }

    /// An envelope for a message in the folder of these raw octets; everything else is empty, and to be set.
    pub fn new(folder: impl Into<Bytes>, identity: Identity) -> Self {
        Self {
            folder: folder.into(),
            identity,
            evidence: Evidence::NONE,
            flags: Flags::default(),
            internal_date: None,
            place: Bytes::new(),
            before: Bytes::new(),
            after: Bytes::new(),
            extensions: Vec::new(),
        }
    }
}

/// A folder of a mailbox as a source reports it and a sink creates it, whether or not messages are in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Folder {
    /// Its names and raw octets.
    pub path: FolderPath,
    /// For a folder that is a container of its messages (an mbox file): what shows that it is unchanged.
    pub evidence: Evidence,
    /// For a folder that is a file: its modification time.
    pub modified: Option<InternalDate>,
    /// The source's own words about it (mbox: variant and line ending; see `source::mbox`), for restoring.
    pub traits: Bytes,
    /// Small files that belong to the folder and are no messages (`subscriptions`, `dovecot-keywords`), carried along.
    pub companions: Vec<Companion>,
}

impl Folder {
    /// The most that a folder may weigh ([`weight`](Self::weight)), in octets. A heavier one is not stored: it is told among what could not be
    /// enumerated.
    pub const OCTETS_MAX: usize = 8 << 20;

    /// What the folder weighs: its octets and those of its companions, and 32 for each name of its path and each companion.
    #[must_use]
    pub fn weight(&self) -> usize {
        let Self { path: FolderPath { names, raw }, evidence, traits, companions, modified: _ } = self;
        let names = names.iter().map(|name| name.len() + ITEM_OCTETS).sum::<usize>();
        let companion = |file: &Companion| file.name.len() + file.octets.len() + ITEM_OCTETS;
        raw.len() + names + evidence.0.len() + traits.len() + companions.iter().map(companion).sum::<usize>()
    }

    /// A folder of this path, nothing else known of it.
    #[must_use]
    pub fn new(path: FolderPath) -> Self {
        Self { path, ..Self::default() }
    }
}

/// A file that is carried along with a folder: at most [`Companion::OCTETS_MAX`] long.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs, reason = "a file is a name, octets and a time")]
pub struct Companion {
    /// The file's name inside the folder.
    pub name: Bytes,
    /// The file's octets.
    pub octets: Bytes,
    /// Its modification time.
    pub modified: Option<InternalDate>,
}

impl Companion {
    /// The longest companion file that is carried along; longer ones count as excluded.
    pub const OCTETS_MAX: usize = 1 << 20;
}
