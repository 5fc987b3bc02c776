//! The directory of an index: its lock, its files, and the manifest that says which of them count.
//!
//! The manifest is replaced by a rename when what it names is durable. What it does not name is of a process that died, and goes. A manifest that
//! does not verify is as good as none: everything is made anew from segments.

use super::disk::SHARDS;
use super::run::CheckKey;
use super::{RepositoryId, SegmentId};
use crate::error::{Error, ErrorKind, Result};
use crate::runtime::{Randomness, SystemRandomness};
use crate::wire::{Decoder, Encode};
use std::collections::{BTreeMap, HashSet};
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

const MANIFEST: &str = "mailrail-index";
const MANIFEST_NEW: &str = "mailrail-index.new";
const LOCK: &str = "mailrail-index.lock";
const MAGIC: &[u8; 8] = b"MRLIDX\x01\x00";
const CHECK: usize = 32;

/// A directory that is this process's as long as it is held.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    check_key: CheckKey,
    /// Whoever has the lock writes.
    _lock: File,
}

/// Which files count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Manifest {
    /// The number of the next run. None is given twice.
    pub(super) next: u64,
    /// Of each shard its runs, the newest first: number and level.
    pub(super) shards: [Vec<(u64, u8)>; SHARDS],
    /// The segments whose rows are all in these runs.
    pub(super) segments: BTreeMap<RepositoryId, HashSet<SegmentId>>,
}

impl Directory {
    /// Takes the directory, and creates it if there is none. An empty manifest comes of one that is lost or damaged.
    ///
    /// # Errors
    /// If another process has it, or the operating system refuses.
    pub(super) fn open(path: &Path) -> Result<(Self, Manifest)> {
        let failed = |source| Error::io(format!("opening the index in '{}'", path.display()), source);
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
        let lock = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path.join(LOCK));
        let lock = lock.map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let message =
                    format!("the index in '{}' is in use: each process needs a directory of its own", path.display());
                return Err(Error::new(ErrorKind::Unavailable, message));
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        let found = fs::read(path.join(MANIFEST)).ok().and_then(|octets| decode(&octets));
        let (check_key, manifest) = match found {
            Some(found) => found,
            None => {
                let mut check_key = [0; 32];
                SystemRandomness.fill(&mut check_key)?;
                (check_key, Manifest::default())
            }
        };
        let directory = Self { path: path.to_owned(), check_key, _lock: lock };
        directory.remove_others(&manifest).map_err(failed)?;
        // Whether it can be written is known from the beginning.
        directory.save(&manifest).map_err(failed)?;
        Ok((directory, manifest))
    }

    pub(super) fn check_key(&self) -> &CheckKey {
        &self.check_key
    }

    pub(super) fn rows_path(&self, number: u64) -> PathBuf {
        self.path.join(format!("mailrail-{number:016x}.rows"))
    }

    pub(super) fn filter_path(&self, number: u64) -> PathBuf {
        self.path.join(format!("mailrail-{number:016x}.filter"))
    }

    /// Puts this manifest in the place of the one before. All files that it names must be durable but for their names.
    pub(super) fn save(&self, manifest: &Manifest) -> io::Result<()> {
        // The names of new files are durable before anything says that they are there.
        self.sync()?;
        let path = self.path.join(MANIFEST_NEW);
        let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&path)?;
        file.write_all(&encode(&self.check_key, manifest))?;
        file.sync_all()?;
        fs::rename(path, self.path.join(MANIFEST))?;
        self.sync()
    }

    /// Removes the files of a run that no manifest names any more. What stays goes with the next opening.
    pub(super) fn remove(&self, number: u64) {
        let _ = fs::remove_file(self.rows_path(number));
        let _ = fs::remove_file(self.filter_path(number));
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }

    /// Removes runs that the manifest does not name. Files that have no name of ours stay.
    fn remove_others(&self, manifest: &Manifest) -> io::Result<()> {
        let named: HashSet<u64> = manifest.shards.iter().flatten().map(|(number, _)| *number).collect();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let is_left = entry.file_name().to_str().is_some_and(|name| match run_number(name) {
                Some(number) => !named.contains(&number),
                None => name == MANIFEST_NEW,
            });
            if is_left {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}

/// The run whose file has this name.
fn run_number(name: &str) -> Option<u64> {
    let number = name.strip_prefix("mailrail-")?;
    let number = number.strip_suffix(".rows").or_else(|| number.strip_suffix(".filter"))?;
    let is_ours = number.len() == 16 && number.bytes().all(|octet| matches!(octet, b'0'..=b'9' | b'a'..=b'f'));
    is_ours.then(|| u64::from_str_radix(number, 16).ok()).flatten()
}

fn encode(check_key: &CheckKey, manifest: &Manifest) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.extend_from_slice(check_key);
    out.number(manifest.next);
    for runs in &manifest.shards {
        out.number(runs.len() as u64);
        for (number, level) in runs {
            out.number(*number);
            out.push(*level);
        }
    }
    out.number(manifest.segments.len() as u64);
    for (repository, segments) in &manifest.segments {
        out.extend_from_slice(repository);
        out.number(segments.len() as u64);
        segments.iter().for_each(|segment| out.extend_from_slice(segment));
    }
    let check = blake3::hash(&out);
    out.extend_from_slice(check.as_bytes());
    out
}

fn decode(octets: &[u8]) -> Option<(CheckKey, Manifest)> {
    let (told, check) = octets.split_last_chunk::<CHECK>()?;
    if blake3::hash(told) != *check {
        return None;
    }
    let mut decoder = Decoder::new(told);
    if decoder.array::<8>().ok()? != *MAGIC {
        return None;
    }
    let check_key = decoder.array().ok()?;
    let mut manifest = Manifest { next: decoder.counter().ok()?, ..Manifest::default() };
    for runs in &mut manifest.shards {
        for _ in 0..decoder.count(2).ok()? {
            let number = decoder.number_up_to(manifest.next.checked_sub(1)?).ok()?;
            runs.push((number, decoder.byte().ok()?));
        }
    }
    for _ in 0..decoder.count(17).ok()? {
        let repository = decoder.array().ok()?;
        let segments = manifest.segments.entry(repository).or_default();
        for _ in 0..decoder.count(16).ok()? {
            segments.insert(decoder.array().ok()?);
        }
    }
    decoder.end().ok()?;
    Some((check_key, manifest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        let mut manifest = Manifest { next: 500, ..Manifest::default() };
        manifest.shards[0] = vec![(499, 0), (3, 2)];
        manifest.shards[SHARDS - 1] = vec![(300, 1)];
        manifest.segments.insert([1; 16], HashSet::from([[2; 16], [3; 16]]));
        manifest
    }

    #[test]
    fn a_manifest_comes_back_and_one_of_other_octets_is_none() {
        let octets = encode(&[9; 32], &manifest());
        assert_eq!(decode(&octets), Some(([9; 32], manifest())));
        for at in 0..octets.len() {
            let mut flipped = octets.clone();
            flipped[at] ^= 1;
            assert_eq!(decode(&flipped), None, "octet {at}");
            assert_eq!(decode(&octets[..at]), None, "cut at {at}");
        }
    }

    #[test]
    fn a_directory_has_one_owner_and_keeps_what_is_not_ours() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("new/index");
        let (directory, found) = Directory::open(&path).unwrap();
        assert_eq!(found, Manifest::default());
        let refused = Directory::open(&path).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Unavailable);
        assert!(refused.to_string().contains("in use"), "{refused}");
        directory.save(&manifest()).unwrap();
        let names = ["mailrail-0000000000000003.rows", "mailrail-0000000000000003.filter"];
        let left = ["mailrail-0000000000000004.rows", "mailrail-0000000000000004.filter", "mailrail-index.new"];
        let theirs = ["notes", "mailrail-3.rows", "mailrail-000000000000000G.rows", "x.filter"];
        for name in names.iter().chain(&left).chain(&theirs) {
            fs::write(path.join(name), "octets").unwrap();
        }
        drop(directory);
        let (_directory, found) = Directory::open(&path).unwrap();
        assert_eq!(found, manifest());
        assert!(names.iter().chain(&theirs).all(|name| path.join(name).exists()));
        assert!(left.iter().all(|name| !path.join(name).exists()));
    }
}
