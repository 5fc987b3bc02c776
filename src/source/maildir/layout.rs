//! Which directories are Maildirs, and which of them are folders of which.

use super::super::file::failed;
use super::super::listing::{FileKind, Listing, as_path, joined};
use super::Layout;
use crate::error::{Error, Result};
use std::fs;
use std::io;
use std::path::Path;

/// The directories of a mailbox, as paths relative to its root, and what could not be looked at.
#[derive(Debug, Default)]
pub(super) struct Tree {
    /// Sorted, the root (empty) first.
    pub(super) directories: Vec<Directory>,
    pub(super) failures: Vec<(Vec<u8>, Error)>,
}

/// One directory of a mailbox.
#[derive(Debug)]
pub(super) struct Directory {
    pub(super) raw: Vec<u8>,
    /// Whether it is a folder, or only has folders below it.
    pub(super) is_folder: bool,
}

/// Whether `path` is a Maildir: two of `cur`, `new` and `tmp` are there (tools that drop empty directories take the third away),
/// or `cur` alone where it is not itself a Maildir of that name.
///
/// # Errors
/// If that cannot be told, because it may not be looked into, say: then it may be one.
pub(super) fn is_maildir(path: &Path) -> io::Result<bool> {
    let present = |name: &str| is_directory(&path.join(name));
    let cur = present("cur")?;
    let count = usize::from(cur) + usize::from(present("new")?) + usize::from(present("tmp")?);
    Ok(count >= 2 || cur && !is_maildir(&path.join("cur"))?)
}

/// Whether `path` is a symbolic link.
pub(super) fn is_symlink(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_symlink())
}

/// Whether `path` is a directory, and no link to one.
///
/// # Errors
/// If it cannot be looked at although it may be there.
pub(super) fn is_directory(path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => Ok(metadata.is_dir()),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether a directory's name is one of those that hold a Maildir's messages.
pub(super) fn holds_messages(name: &[u8]) -> bool {
    matches!(name, b"cur" | b"new" | b"tmp")
}

/// The folders of the mailbox at `root`, and the layout by which they were found.
///
/// # Errors
/// [`Invalid`](crate::ErrorKind::Invalid) if the layout is to be detected and both readings fit.
pub(super) fn folders(root: &Path, layout: Layout) -> Result<(Tree, Layout)> {
    let listing = Listing::read(root).map_err(|source| failed("listing", root, source))?;
    let mut dotted = Tree::default();
    let mut plain = Tree::default();
    for (name, _) in listing.iter().filter(|(_, kind)| *kind == FileKind::Directory) {
        if holds_messages(name) {
            continue;
        }
        if name.starts_with(b".") {
            let path = root.join(as_path(name));
            match is_maildir(&path) {
                Ok(true) => dotted.directories.push(Directory { raw: name.to_vec(), is_folder: true }),
                Ok(false) => {}
                Err(error) => dotted.failures.push((name.to_vec(), failed("looking into", &path, error))),
            }
        } else if layout != Layout::MaildirPlusPlus {
            below(root, name.to_vec(), &mut plain);
        }
    }
    let (layout, found) = match layout {
        Layout::MaildirPlusPlus => (layout, dotted),
        Layout::Nested => (layout, both(dotted, plain)),
        Layout::Detect => detect(root, dotted, plain)?,
    };
    Ok((with_root(found), layout))
}

fn detect(root: &Path, mut dotted: Tree, mut plain: Tree) -> Result<(Layout, Tree)> {
    let mut failures = std::mem::take(&mut dotted.failures);
    failures.append(&mut plain.failures);
    let example = |tree: &Tree| {
        let folder = tree.directories.iter().find(|directory| directory.is_folder);
        folder.map(|folder| String::from_utf8_lossy(&folder.raw).into_owned())
    };
    match (example(&dotted), example(&plain)) {
        (Some(dot), Some(nested)) => Err(Error::invalid(format!(
            "the layout of '{}' is ambiguous: by its directory '{dot}' it is Maildir++, by its directory '{nested}' its folders are \
             nested; declare one of the two layouts",
            root.display()
        ))),
        (None, Some(_)) => Ok((Layout::Nested, Tree { failures, ..plain })),
        (_, None) => Ok((Layout::MaildirPlusPlus, Tree { failures, ..dotted })),
    }
}

fn both(mut dotted: Tree, mut plain: Tree) -> Tree {
    dotted.directories.append(&mut plain.directories);
    dotted.failures.append(&mut plain.failures);
    dotted
}

fn with_root(mut tree: Tree) -> Tree {
    tree.directories.push(Directory { raw: Vec::new(), is_folder: true });
    tree.directories.sort_unstable_by(|a, b| a.raw.cmp(&b.raw));
    tree
}

/// Adds the directory `raw` and those below it, as far as they are Maildirs or have Maildirs below them.
fn below(root: &Path, raw: Vec<u8>, tree: &mut Tree) {
    // Directories are visited before those below them, and kept only if one of them is a folder.
    let mut waiting = vec![raw];
    let mut visited = Vec::new();
    while let Some(raw) = waiting.pop() {
        let path = root.join(as_path(&raw));
        let is_folder = match is_maildir(&path) {
            Ok(is_folder) => is_folder,
            Err(error) => {
                tree.failures.push((raw, failed("looking into", &path, error)));
                continue;
            }
        };
        match Listing::read(&path) {
            Ok(listing) => {
                let directories = listing.iter().filter(|(_, kind)| *kind == FileKind::Directory);
                let inner = directories.filter(|(name, _)| !(is_folder && holds_messages(name)));
                waiting.extend(inner.map(|(name, _)| joined(&raw, name)));
            }
            Err(error) => tree.failures.push((raw.clone(), failed("listing", &path, error))),
        }
        visited.push(Directory { raw, is_folder });
    }
    let mut folders: Vec<Vec<u8>> =
        (visited.iter().filter(|directory| directory.is_folder)).map(|directory| joined(&directory.raw, b"")).collect();
    folders.sort_unstable();
    let leads_to_folder = |raw: &[u8]| {
        let prefix = joined(raw, b"");
        let at = folders.partition_point(|folder| *folder < prefix);
        folders.get(at).is_some_and(|folder| folder.starts_with(&prefix))
    };
    visited.retain(|directory| leads_to_folder(&directory.raw));
    tree.directories.append(&mut visited);
}

/// Whether the directory `raw` is a Maildir or has one somewhere below it, or may have one where it cannot be looked into.
pub(super) fn leads_to_maildir(root: &Path, raw: &[u8]) -> bool {
    let mut tree = Tree::default();
    below(root, raw.to_vec(), &mut tree);
    !tree.directories.is_empty() || !tree.failures.is_empty()
}
