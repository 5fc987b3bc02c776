//! Files that get their names only when they are whole.

use super::system::{doing, in_the_way, look, private_file};
use crate::error::{Error, Result};
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

const BUFFER_OCTETS_MAX: usize = 64 << 10;

/// A file that is being written and has no name of its own yet. Dropped, it is removed.
#[derive(Debug)]
pub(super) struct Temporary {
    path: PathBuf,
    file: Option<BufWriter<File>>,
}

/// What became of a file at its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Placed {
    /// It is there now.
    New,
    /// A file of the same octets was there.
    Same,
    /// Another file is there, and stays.
    Differs,
    /// A directory is there.
    Directory,
}

impl Temporary {
    /// A temporary file that was just created at `path`, to be read and written, for about `length` octets.
    pub(super) fn new(path: PathBuf, file: File, length: u64) -> Self {
        let capacity = usize::try_from(length).map_or(BUFFER_OCTETS_MAX, |length| length.min(BUFFER_OCTETS_MAX));
        Self { path, file: Some(BufWriter::with_capacity(capacity, file)) }
    }

    pub(super) fn write(&mut self, octets: &[u8]) -> Result<()> {
        let file = self.file.as_mut().ok_or_else(|| Error::internal("a temporary file is written to after its end"))?;
        file.write_all(octets).map_err(|error| doing("writing", &self.path, error))
    }

    /// Gives the file its time and its name, unless something of that name is there. What is there is never changed, but for its time
    /// if it is the same file. The temporary is gone afterwards, unless the name was taken: then it can be placed elsewhere.
    pub(super) fn place(&mut self, target: &Path, time: Option<SystemTime>, is_durable: bool) -> Result<Placed> {
        let file = self.file.as_mut().ok_or_else(|| Error::internal("a temporary file is placed twice"))?;
        let failed = |error| doing("writing", &self.path, error);
        file.flush().map_err(failed)?;
        if let Some(time) = time {
            file.get_ref().set_modified(time).map_err(failed)?;
        }
        if is_durable {
            file.get_ref().sync_all().map_err(failed)?;
        }
        let placed = match fs::hard_link(&self.path, target) {
            Ok(()) => Placed::New,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => compare(file.get_mut(), target, time)?,
            // This file system has no hard links, or no more for this file.
            Err(_) => match rename_new(&self.path, target) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => compare(file.get_mut(), target, time)?,
                Err(error) => return Err(doing("renaming to", target, error)),
                Ok(()) => {
                    self.file = None;
                    return Ok(Placed::New);
                }
            },
        };
        if matches!(placed, Placed::New | Placed::Same) {
            self.file = None;
            fs::remove_file(&self.path).map_err(|error| doing("removing", &self.path, error))?;
        }
        Ok(placed)
    }

    /// Gives the file its name, in the place of what has it now: for files that are ours to rewrite.
    pub(super) fn replace(mut self, target: &Path, is_durable: bool) -> Result<()> {
        let file = self.file.as_mut().ok_or_else(|| Error::internal("a temporary file is placed twice"))?;
        let failed = |error| doing("writing", &self.path, error);
        file.flush().map_err(failed)?;
        if is_durable {
            file.get_ref().sync_all().map_err(failed)?;
        }
        fs::rename(&self.path, target).map_err(|error| doing("renaming to", target, error))?;
        self.file = None;
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Some(file) = self.file.take() {
            // What is in the buffer is not wanted any more.
            drop(file.into_parts());
            // Nobody can be told here; what stays is a temporary file that is known as one by its place.
            _ = fs::remove_file(&self.path);
        }
    }
}

/// Renames unless something has the name. An empty file holds the name until the rename, because a rename alone takes any name from anybody.
fn rename_new(path: &Path, target: &Path) -> io::Result<()> {
    drop(private_file().create_new(true).open(target)?);
    fs::rename(path, target).inspect_err(|_| _ = fs::remove_file(target))
}

/// Whether `target` holds what is in `file`. If so it also gets its time.
fn compare(file: &mut File, target: &Path, time: Option<SystemTime>) -> Result<Placed> {
    let failed = |error| doing("comparing with", target, error);
    let Some(found) = look(target)? else { return Err(in_the_way(target, "came and went")) };
    if found.is_dir() {
        return Ok(Placed::Directory);
    }
    if !found.is_file() || found.len() != file.metadata().map_err(failed)?.len() {
        return Ok(Placed::Differs);
    }
    let existing = File::open(target).map_err(failed)?;
    file.rewind().map_err(failed)?;
    if !is_equal(file, &existing).map_err(failed)? {
        return Ok(Placed::Differs);
    }
    if let Some(time) = time.filter(|time| found.modified().ok() != Some(*time)) {
        existing.set_modified(time).map_err(failed)?;
    }
    Ok(Placed::Same)
}

fn is_equal(a: &File, b: &File) -> io::Result<bool> {
    let mut buffers = [vec![0; BUFFER_OCTETS_MAX], vec![0; BUFFER_OCTETS_MAX]];
    let [of_a, of_b] = &mut buffers;
    loop {
        let (from_a, from_b) = (read_full(a, of_a)?, read_full(b, of_b)?);
        if of_a.get(..from_a) != of_b.get(..from_b) {
            return Ok(false);
        }
        if from_a == 0 {
            return Ok(true);
        }
    }
}

fn read_full(mut file: &File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read(rest) {
            Ok(0) => break,
            Ok(octets) => filled += octets,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::super::tree::Tree;
    use super::*;
    use std::time::Duration;

    fn target() -> (tempfile::TempDir, Tree) {
        let directory = tempfile::tempdir().unwrap();
        let tree = Tree::new(directory.path().to_owned());
        (directory, tree)
    }

    fn placed(tree: &Tree, name: &str, octets: &[u8]) -> Placed {
        tree.put(tree.root(), &tree.root().join(name), octets, None, true).unwrap()
    }

    fn entries(tree: &Tree) -> usize {
        fs::read_dir(tree.root()).unwrap().count()
    }

    #[test]
    fn a_file_dropped_before_it_is_placed_leaves_nothing_behind() {
        let (_directory, tree) = target();
        let mut file = tree.temporary(tree.root(), 10).unwrap();
        file.write(b"half a mess").unwrap();
        assert_eq!(entries(&tree), 1);
        drop(file);
        assert_eq!(entries(&tree), 0);
    }

    #[test]
    fn an_existing_file_is_compared_and_never_overwritten() {
        let (_directory, tree) = target();
        assert_eq!(placed(&tree, "m", b"one"), Placed::New);
        assert_eq!(placed(&tree, "m", b"one"), Placed::Same);
        assert_eq!(placed(&tree, "m", b"two"), Placed::Differs);
        assert_eq!(placed(&tree, "m", b"longer"), Placed::Differs);
        assert_eq!(fs::read(tree.root().join("m")).unwrap(), b"one");
        assert_eq!(entries(&tree), 1, "no temporary file stays behind");
    }

    #[test]
    fn a_file_found_the_same_gets_the_time_it_should_have() {
        let (_directory, tree) = target();
        let time = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_789);
        let path = tree.root().join("m");
        fs::write(&path, b"one").unwrap();
        tree.put(tree.root(), &path, b"one", Some(time), false).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), time);
    }

    #[test]
    fn without_hard_links_a_file_is_not_overwritten_either() {
        let (_directory, tree) = target();
        let [a, b, to] = ["a", "b", "to"].map(|name| tree.root().join(name));
        fs::write(&a, b"one").unwrap();
        fs::write(&b, b"two").unwrap();
        rename_new(&a, &to).unwrap();
        assert_eq!(rename_new(&b, &to).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&to).unwrap(), b"one");
        assert!(rename_new(&a, &tree.root().join("gone")).is_err());
        assert_eq!(entries(&tree), 2, "a name held for nothing is given back");
    }
}
