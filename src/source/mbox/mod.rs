//! mbox: many messages in one file, each behind a From_ line (RFC 4155).
//!
//! A message's octets are those of the file, with nothing unquoted; the From_ line in front and the blank line behind are kept with it as
//! container octets. So the file is, octet for octet, what its messages and their container octets are when put together in order.
//!
//! [`Folder::traits`](crate::message::Folder::traits) of a folder that is an mbox file is the text of [`Traits`]: the variant and the line
//! ending, as in `mboxrd;lf`.

mod boundary;
mod container;
mod from_line;
mod head;
mod scan;
mod split;
#[cfg(any(test, fuzzing))]
mod whole;

use super::file::failed;
use super::listing::{FileKind, Listing, as_path, joined, octets_of_path};
use super::{Kind, MailboxIter, MailboxSource, Source, SourceId};
use crate::error::{Error, Result};
use crate::runtime::{Clock, SystemClock};
use scan::{Files, Settings};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[cfg(any(test, fuzzing))]
pub use whole::split_all;

/// An mbox file, or all of those in a tree.
///
/// Each file is a folder of the mailbox that its directory is, named by the directory's path. In a tree, files that are not empty and do not
/// begin with `From ` are counted as excluded; symbolic links are never followed. A file given by itself is taken whatever it
/// is, as a folder of the mailbox with the empty name.
///
/// A message begins at a line `From `, sender, plausible date: after a blank line, or anywhere if sender, weekday and full year are there
/// and a header field follows. Where a Content-Length (mboxcl, mboxcl2) leads exactly to such a line or to the end of the file,
/// it is believed. Whatever is believed, no octet is lost: it is a question only of which message an octet belongs to.
///
/// Flags come from `Status`, `X-Status`, `X-Keywords`, `X-Mozilla-Status` and `X-Mozilla-Keys`, the internal date from the From_ line; where that
/// names no zone, it is taken for UTC.
///
/// A file that is unchanged is not read again, and of one that only grew, only what is new is read: if it is the same file (inode), the last
/// 64 KiB of the old part are the same, and these ended with a blank line. A program that changes an earlier part of the file in place *and* makes
/// it longer between two runs is thus seen only when the file is next changed in another way.
#[derive(Clone, Debug)]
pub struct Mbox {
    root: PathBuf,
    is_single: bool,
    settings: Settings,
    id: SourceId,
}

/// How `From ` at the start of a line in a message is kept apart from a From_ line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Variant {
    /// `>` is put in front of `From `, and `>From ` stays as it is: cannot be undone with certainty.
    Mboxo,
    /// `>` is put in front of `From ` after any number of `>`.
    Mboxrd,
    /// As mboxo, and Content-Length says where the message ends.
    Mboxcl,
    /// Nothing is quoted: Content-Length alone says where the message ends.
    Mboxcl2,
}

/// How lines end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LineEnding {
    /// LF, alone.
    #[default]
    Lf,
    /// CR LF.
    CrLf,
    /// CR, alone (before Mac OS X).
    Cr,
}

/// What the source says of a folder that is an mbox file, in [`Folder::traits`](crate::message::Folder::traits).
///
/// As text: the variant's name, or `mbox` where nothing in the file tells (then nothing in it is quoted), a semicolon, and `lf`, `crlf` or `cr`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Traits {
    /// The variant as declared, or as the file shows it.
    pub variant: Option<Variant>,
    /// The ending of the file's first line.
    pub line_ending: LineEnding,
}

const VARIANTS: [(&str, Option<Variant>); 5] = [
    ("mbox", None),
    ("mboxo", Some(Variant::Mboxo)),
    ("mboxrd", Some(Variant::Mboxrd)),
    ("mboxcl", Some(Variant::Mboxcl)),
    ("mboxcl2", Some(Variant::Mboxcl2)),
];

const LINE_ENDINGS: [(&str, LineEnding); 3] =
    [("lf", LineEnding::Lf), ("crlf", LineEnding::CrLf), ("cr", LineEnding::Cr)];

impl Traits {
    /// This variant and line ending.
    #[must_use]
    pub const fn new(variant: Option<Variant>, line_ending: LineEnding) -> Self {
        Self { variant, line_ending }
    }

    /// Reads what [`Display`](fmt::Display) writes; `None` if it is something else.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let (variant, line_ending) = std::str::from_utf8(text).ok()?.split_once(';')?;
        let (_, variant) = VARIANTS.iter().find(|(name, _)| *name == variant)?;
        let (_, line_ending) = LINE_ENDINGS.iter().find(|(name, _)| *name == line_ending)?;
        Some(Self::new(*variant, *line_ending))
    }
}

impl fmt::Display for Traits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let variant = VARIANTS.iter().find(|(_, variant)| *variant == self.variant).map_or("mbox", |(name, _)| name);
        let ending = LINE_ENDINGS.iter().find(|(_, ending)| *ending == self.line_ending).map_or("lf", |(name, _)| name);
        write!(f, "{variant};{ending}")
    }
}

impl Mbox {
    /// The mbox file at `path`, or the tree of them.
    ///
    /// # Errors
    /// If there is neither, or it may not be looked at.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let root = fs::canonicalize(path).map_err(|source| failed("opening", path, source))?;
        let metadata = fs::metadata(&root).map_err(|source| failed("opening", path, source))?;
        if !metadata.is_dir() && !metadata.is_file() {
            return Err(Error::invalid(format!("'{}' is neither a file nor a directory", path.display())));
        }
        let id = SourceId::of("mbox", octets_of_path(&root));
        let settings = Settings { variant: None, clock: Arc::new(SystemClock) };
        Ok(Self { root, is_single: metadata.is_file(), settings, id })
    }

    /// The same files, declared to be of this variant. Content-Length is then believed only where the variant has it.
    #[must_use]
    pub fn variant(mut self, variant: Variant) -> Self {
        self.settings.variant = Some(variant);
        self
    }

    /// The same files under another id than that of their path: for mail that moved.
    #[must_use]
    pub fn with_id(mut self, id: SourceId) -> Self {
        self.id = id;
        self
    }

    /// The same files, looked at by another clock.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.settings.clock = clock;
        self
    }
}

impl Source for Mbox {
    fn id(&self) -> SourceId {
        self.id
    }

    fn kind(&self) -> Kind {
        Kind::Mbox
    }

    fn mailboxes(&self) -> Result<MailboxIter> {
        if self.is_single {
            let files = Files::single(self.root.clone(), self.settings.clone())?;
            return Ok(Box::new(std::iter::once(Ok(Box::new(files) as Box<dyn MailboxSource>))));
        }
        Listing::read(&self.root).map_err(|source| failed("listing", &self.root, source))?;
        let waiting = vec![Vec::new()];
        Ok(Box::new(Walk { root: self.root.clone(), settings: self.settings.clone(), waiting }))
    }
}

/// Goes through a tree and makes a mailbox of every directory that has anything but directories in it, or nothing at all.
struct Walk {
    root: PathBuf,
    settings: Settings,
    /// Directories to look at, relative to the root, the next one last.
    waiting: Vec<Vec<u8>>,
}

impl Iterator for Walk {
    type Item = Result<Box<dyn MailboxSource>>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let name = self.waiting.pop()?;
            let path = self.root.join(as_path(&name));
            let listing = match Listing::read(&path) {
                Ok(listing) => listing,
                Err(error) => return Some(Err(failed("listing", &path, error))),
            };
            let at = self.waiting.len();
            let directories = listing.iter().filter(|(_, kind)| *kind == FileKind::Directory);
            self.waiting.extend(directories.map(|(inner, _)| joined(&name, inner)));
            let directories = self.waiting.len() - at;
            if let Some(waiting) = self.waiting.get_mut(at..) {
                waiting.reverse();
            }
            let is_mailbox = listing.len() > directories || listing.len() == 0 && !name.is_empty();
            if is_mailbox {
                return Some(Ok(Box::new(Files::new(&name, path, listing, self.settings.clone()))));
            }
        }
    }
}

#[cfg(test)]
mod tests;
