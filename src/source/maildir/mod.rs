//! Maildir: a message is a file in `cur` or `new`, its flags are in the file's name.

mod body;
mod layout;
mod names;
mod scan;

use super::file::{canonical_directory, failed};
use super::listing::{FileKind, Listing, as_path, joined, octets_of_path};
use super::{Kind, MailboxIter, MailboxSource, Source, SourceId};
use crate::error::{Error, Result};
use scan::Scan;
use std::path::{Path, PathBuf};

/// All Maildirs under a directory.
///
/// Every Maildir that is not a folder of another is a mailbox, named by its path relative to the directory; the directory itself, if it
/// is a Maildir, is the mailbox with the empty name. A message is named by the unique part of its file name, which the format lets nobody
/// use again, so that name and size show that it is unchanged. Its internal date is the file's modification time.
///
/// `subscriptions`, `courierimapsubscribed`, `dovecot-keywords`, `dovecot-acl` and `maildirfolder` are carried along with their folder. What
/// is in `tmp`, indexes, caches and hidden files are counted as excluded. Symbolic links are never followed: in a mailbox they
/// count as excluded, and one that leads to a whole Maildir is an error of its own in the list of mailboxes.
/// Files that lie outside of all Maildirs are not looked at.
#[derive(Clone, Debug)]
pub struct Maildir {
    root: PathBuf,
    layout: Layout,
    id: SourceId,
}

/// How folders below a mailbox's root are laid out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Layout {
    /// Found out for each mailbox; one to which both readings fit is refused.
    #[default]
    Detect,
    /// Maildir++: `.A.B` beside the root's `cur` is the folder B in the folder A. Maildirs without a dot in front are mailboxes of their own.
    MaildirPlusPlus,
    /// `A/B` below the root is the folder B in the folder A (Dovecot's `LAYOUT=fs`).
    Nested,
}

impl Maildir {
    /// The Maildirs under `directory`, with the layout of folders [detected](Layout::Detect).
    ///
    /// # Errors
    /// If there is no such directory, or it may not be looked at.
    pub fn open(directory: impl AsRef<Path>) -> Result<Self> {
        let root = canonical_directory(directory.as_ref())?;
        let id = SourceId::of("maildir", octets_of_path(&root));
        Ok(Self { root, layout: Layout::default(), id })
    }

    /// The same Maildirs with this layout of folders.
    #[must_use]
    pub fn layout(mut self, layout: Layout) -> Self {
        self.layout = layout;
        self
    }

    /// The same Maildirs under another id than that of their path: for mail that moved.
    #[must_use]
    pub fn with_id(mut self, id: SourceId) -> Self {
        self.id = id;
        self
    }
}

impl Source for Maildir {
    fn id(&self) -> SourceId {
        self.id
    }

    fn kind(&self) -> Kind {
        Kind::Maildir
    }

    fn mailboxes(&self) -> Result<MailboxIter> {
        // The root is read once here, so that a source that cannot be read at all is an error of the call.
        Listing::read(&self.root).map_err(|source| failed("listing", &self.root, source))?;
        Ok(Box::new(Walk { root: self.root.clone(), layout: self.layout, waiting: vec![Vec::new()] }))
    }
}

/// Goes through a tree and stops at every Maildir.
struct Walk {
    root: PathBuf,
    layout: Layout,
    /// Directories to look at, relative to the root, the next one last.
    waiting: Vec<Vec<u8>>,
}

impl Iterator for Walk {
    type Item = Result<Box<dyn MailboxSource>>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let name = self.waiting.pop()?;
            let path = self.root.join(as_path(&name));
            if layout::is_symlink(&path) {
                if layout::is_maildir(&path).unwrap_or(false) {
                    return Some(Err(Error::invalid(format!(
                        "'{}' is a symbolic link to a Maildir and was not followed: make its target a source",
                        path.display()
                    ))));
                }
                continue;
            }
            match layout::is_directory(&path).and_then(|is| Ok((is, is && layout::is_maildir(&path)?))) {
                Ok((false, _)) => continue,
                Ok((true, true)) => return Some(self.mailbox(&name, path)),
                Ok((true, false)) => {}
                Err(error) => return Some(Err(failed("looking into", &path, error))),
            }
            if let Err(error) = self.descend(&name, &path, false) {
                return Some(Err(error));
            }
        }
    }
}

impl Walk {
    fn mailbox(&mut self, name: &[u8], path: PathBuf) -> Result<Box<dyn MailboxSource>> {
        let (tree, layout) = layout::folders(&path, self.layout)?;
        if layout == Layout::MaildirPlusPlus {
            self.descend(name, &path, true)?;
        }
        Ok(Box::new(Scan::new(name, path, tree, layout)))
    }

    /// Lets the directories in `path` wait for their turn, those of a Maildir and its folders excepted.
    fn descend(&mut self, name: &[u8], path: &Path, is_maildir: bool) -> Result<()> {
        let listing = Listing::read(path).map_err(|source| failed("listing", path, source))?;
        let inner = listing.iter().filter(|(inner, kind)| {
            // What else is in a Maildir is the business of its own enumeration.
            let is_elsewhere =
                *kind == FileKind::Directory && !layout::holds_messages(inner) && !inner.starts_with(b".");
            is_elsewhere || !is_maildir && *kind != FileKind::File
        });
        let at = self.waiting.len();
        self.waiting.extend(inner.map(|(inner, _)| joined(name, inner)));
        if let Some(waiting) = self.waiting.get_mut(at..) {
            waiting.reverse();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
