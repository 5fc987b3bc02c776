//! Comparing two trees of files, octet for octet.

use crate::failure::Failure;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File, FileType};
use std::io::{self, Read};
use std::path::Path;

/// The most differences that are named.
const NAMED_MAX: usize = 1_000;
const CHUNK: u64 = 64 << 10;

/// What comparing found.
#[derive(Debug, Default)]
pub(super) struct Trees {
    /// Files that are the same in both.
    pub(super) files: u64,
    /// What is not, for people.
    pub(super) differences: Vec<String>,
}

/// Compares names, octets, and modification times of files.
pub(super) fn compare(a: &Path, b: &Path) -> Result<Trees, Failure> {
    let mut trees = Trees::default();
    directories(a, b, &mut trees)?;
    Ok(trees)
}

fn directories(a: &Path, b: &Path, trees: &mut Trees) -> Result<(), Failure> {
    let (in_a, mut in_b) = (listing(a)?, listing(b)?);
    for (name, kind) in in_a {
        let (a, b) = (a.join(&name), b.join(&name));
        match in_b.remove(&name) {
            Some(other) if kind.is_dir() && other.is_dir() => directories(&a, &b, trees)?,
            Some(other) if kind.is_file() && other.is_file() => files(&a, &b, trees)?,
            Some(_) => trees.differ(&b, "is of another kind"),
            None => trees.differ(&b, "is missing"),
        }
    }
    for name in in_b.into_keys() {
        trees.differ(&b.join(name), "is too many");
    }
    Ok(())
}

fn listing(directory: &Path) -> Result<BTreeMap<OsString, FileType>, Failure> {
    let list = || {
        fs::read_dir(directory)?
            .map(|entry| entry.and_then(|entry| Ok((entry.file_name(), entry.file_type()?))))
            .collect()
    };
    let listing: io::Result<_> = list();
    listing.map_err(|source| Failure::of(format!("listing '{}'", directory.display()), &source))
}

fn files(a: &Path, b: &Path, trees: &mut Trees) -> Result<(), Failure> {
    let compared = || {
        let (mut a, mut b) = (File::open(a)?, File::open(b)?);
        let is_same_time = a.metadata()?.modified()? == b.metadata()?.modified()?;
        Ok((is_same(&mut a, &mut b)?, is_same_time))
    };
    let compared: io::Result<(bool, bool)> = compared();
    match compared
        .map_err(|source| Failure::of(format!("comparing '{}' with '{}'", a.display(), b.display()), &source))?
    {
        (true, true) => trees.files += 1,
        (true, false) => trees.differ(b, "has another modification time"),
        (false, _) => trees.differ(b, "has other octets"),
    }
    Ok(())
}

fn is_same(a: &mut File, b: &mut File) -> io::Result<bool> {
    let (mut of_a, mut of_b) = (Vec::new(), Vec::new());
    loop {
        of_a.clear();
        of_b.clear();
        a.take(CHUNK).read_to_end(&mut of_a)?;
        b.take(CHUNK).read_to_end(&mut of_b)?;
        if of_a != of_b {
            return Ok(false);
        }
        if of_a.is_empty() {
            return Ok(true);
        }
    }
}

impl Trees {
    fn differ(&mut self, path: &Path, what: &str) {
        if self.differences.len() < NAMED_MAX {
            self.differences.push(format!("'{}' {what}", path.display()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_difference_between_two_trees_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let (a, b) = (directory.path().join("a"), directory.path().join("b"));
        for tree in [&a, &b] {
            fs::create_dir_all(tree.join("d")).unwrap();
            for name in ["same", "octets", "longer", "time", "d/missing", "kind"] {
                fs::write(tree.join(name), vec![7; 100_000]).unwrap();
                let time = std::time::SystemTime::UNIX_EPOCH;
                File::options().write(true).open(tree.join(name)).unwrap().set_modified(time).unwrap();
            }
        }
        assert_eq!(compare(&a, &b).unwrap().files, 6);
        let mut octets = vec![7; 100_000];
        octets[99_999] = 8;
        fs::write(b.join("octets"), octets).unwrap();
        fs::write(b.join("longer"), vec![7; 100_001]).unwrap();
        File::options().write(true).open(b.join("time")).unwrap().set_modified(std::time::SystemTime::now()).unwrap();
        fs::remove_file(b.join("d/missing")).unwrap();
        fs::remove_file(b.join("kind")).unwrap();
        fs::create_dir(b.join("kind")).unwrap();
        fs::write(b.join("d/more"), "").unwrap();
        let trees = compare(&a, &b).unwrap();
        assert_eq!((trees.files, trees.differences.len()), (1, 6), "{trees:?}");
    }
}
