//! Directories and files under a target, written so that nothing climbs out, nothing is overwritten and nothing half done is seen.
//!
//! No symbolic link below the target is followed: every component of a directory is looked at before it is entered, and files are only ever
//! created new or, when they exist, compared. A hostile process that swaps directories in the target *while* mailrail writes is not held off:
//! that takes a target that only the restoring user can write to.

use super::names;
use super::system::{create_directory, create_file, doing, private_file, sync_directory};
use super::temporary::{Placed, Temporary};
use crate::error::{Error, ErrorKind, Result};
use std::collections::hash_map::RandomState;
use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

/// How many names are tried for a directory before something must be wrong.
const CLAIMS_MAX: u32 = 100;

/// The target of a sink, shared by its mailboxes.
#[derive(Debug)]
pub(super) struct Tree {
    root: PathBuf,
    /// Told apart from other processes' temporary files by a random number.
    token: u64,
    temporaries: AtomicU64,
    /// Which directory belongs to whom: 16 octets for each mailbox and each folder of the run.
    claims: Mutex<HashMap<u64, u64>>,
}

/// What a directory is claimed for. A mailbox and its own root folder may share one.
#[derive(Clone, Copy, Debug, Hash)]
pub(super) enum Claim {
    Mailbox,
    Folder,
}

/// What became of a directory that was to be created.
enum Created {
    /// It is there.
    Here(PathBuf),
    /// A file is in its place.
    Taken,
    /// A file is in the place of a directory above it.
    Blocked,
}

/// A directory that was created or found.
#[derive(Clone, Debug)]
pub(super) struct Directory {
    pub(super) path: PathBuf,
    /// Its path below the target.
    pub(super) components: Vec<Vec<u8>>,
}

impl Tree {
    pub(super) fn new(root: PathBuf) -> Self {
        let token = RandomState::new().build_hasher().finish();
        // An empty path joins well and cannot be opened.
        let root = if root.as_os_str().is_empty() { PathBuf::from(".") } else { root };
        Self { root, token, temporaries: AtomicU64::new(0), claims: Mutex::default() }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Creates the directory of the components `below` the directory `base`, or one of a made name in its stead if `owner` cannot have it: another
    /// owner has it (perhaps by a name that the file system takes for the same), a file is in its place, or `refuse` says so.
    pub(super) fn claim(
        &self,
        claim: Claim,
        owner: &[u8],
        base: &[Vec<u8>],
        mut below: Vec<Vec<u8>>,
        refuse: impl Fn(&Self, &Path) -> bool,
    ) -> Result<Directory> {
        let owner_hash = hash64(owner);
        for attempt in 0..CLAIMS_MAX {
            let components = [base, &below].concat();
            let created = self.create(&components)?;
            if let Created::Here(path) = &created
                && !refuse(self, path)
                && self.try_claim(claim, owner_hash, path)?
            {
                return Ok(Directory { path: path.clone(), components });
            }
            let name = names::made(owner, attempt);
            match below.last_mut() {
                // What is in the way above it may stay there.
                _ if matches!(created, Created::Blocked) => below = vec![name],
                Some(last) => *last = name,
                None => below.push(name),
            }
        }
        Err(Error::new(ErrorKind::Exists, format!("no free name for a directory in '{}'", self.root.display())))
    }

    /// Creates the file `wanted` in `directory`, empty, or finds it; or one of a made name if `owner` cannot have it.
    /// Gives its path, its name and how many octets are in it.
    pub(super) fn claim_file(
        &self,
        owner: &[u8],
        directory: &Directory,
        mut wanted: Vec<u8>,
    ) -> Result<(PathBuf, Vec<u8>, u64)> {
        let owner_hash = hash64(owner);
        for attempt in 0..CLAIMS_MAX {
            let path = directory.path.join(names::native(&wanted));
            if let Some(octets) = create_file(&path)?
                && self.try_claim(Claim::Folder, owner_hash, &path)?
            {
                return Ok((path, wanted, octets));
            }
            wanted = names::made(owner, attempt);
        }
        Err(Error::new(ErrorKind::Exists, format!("no free name for a file in '{}'", directory.path.display())))
    }

    /// Whether what is at `path` is the owner's from now on, or was already.
    fn try_claim(&self, claim: Claim, owner: u64, path: &Path) -> Result<bool> {
        let key = self.key(claim, path)?;
        let mut claims = self.claims.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(*claims.entry(key).or_insert(owner) == owner)
    }

    /// Whether somebody has this directory for that.
    pub(super) fn is_claimed(&self, claim: Claim, path: &Path) -> bool {
        let Ok(key) = self.key(claim, path) else { return false };
        self.claims.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&key)
    }

    /// Creates a directory and those above it.
    fn create(&self, components: &[Vec<u8>]) -> Result<Created> {
        // The target itself is the caller's choice, symbolic link or not.
        fs::create_dir_all(&self.root).map_err(|error| doing("creating", &self.root, error))?;
        let mut path = self.root.clone();
        for (at, component) in components.iter().enumerate() {
            path.push(names::native(component));
            if create_directory(&path)?.is_none() {
                return Ok(if at + 1 == components.len() { Created::Taken } else { Created::Blocked });
            }
        }
        Ok(Created::Here(path))
    }

    /// What tells a directory from every other, whatever path leads to it.
    #[cfg(unix)]
    fn key(&self, claim: Claim, path: &Path) -> Result<u64> {
        use std::os::unix::fs::MetadataExt;
        let metadata = fs::symlink_metadata(path).map_err(|error| doing("looking at", path, error))?;
        let mut octets = [0; 17];
        octets[..8].copy_from_slice(&metadata.dev().to_le_bytes());
        octets[8..16].copy_from_slice(&metadata.ino().to_le_bytes());
        octets[16] = claim as u8;
        Ok(hash64(&octets))
    }

    /// What tells a directory from every other, whatever path leads to it.
    #[cfg(not(unix))]
    fn key(&self, claim: Claim, path: &Path) -> Result<u64> {
        let path = path.canonicalize().map_err(|error| doing("looking at", path, error))?;
        Ok(hash64(format!("{claim:?}{}", path.display()).as_bytes()))
    }

    /// Creates a new temporary file in `directory`, to be read and written, for about `length` octets.
    pub(super) fn temporary(&self, directory: &Path, length: u64) -> Result<Temporary> {
        loop {
            let number = self.temporaries.fetch_add(1, Ordering::Relaxed);
            let path = directory.join(format!("{}.T{:016x}N{number}.mailrail", std::process::id(), self.token));
            match private_file().read(true).create_new(true).open(&path) {
                Ok(file) => return Ok(Temporary::new(path, file, length)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(doing("creating", &path, error)),
            }
        }
    }

    /// Makes the entries of these directories durable, and those of all directories that lead to them from the target downward, each once.
    pub(super) fn sync<'a>(&self, directories: impl IntoIterator<Item = &'a Path>) -> Result<()> {
        let mut all = BTreeSet::new();
        for directory in directories {
            let above = directory.ancestors().take_while(|path| path.starts_with(&self.root));
            // What is in the set came with everything above it.
            above.take_while(|path| all.insert(path.to_path_buf())).for_each(drop);
        }
        all.iter().try_for_each(|path| sync_directory(path))
    }

    /// Puts a small file of these octets into `directory`, by way of a temporary in `temporary`.
    pub(super) fn put(
        &self,
        temporary: &Path,
        target: &Path,
        octets: &[u8],
        time: Option<SystemTime>,
        is_durable: bool,
    ) -> Result<Placed> {
        let mut file = self.temporary(temporary, octets.len() as u64)?;
        file.write(octets)?;
        file.place(target, time, is_durable)
    }
}

fn hash64(octets: &[u8]) -> u64 {
    let hash = blake3::hash(octets);
    hash.as_bytes().iter().take(8).fold(0, |sum, octet| sum << 8 | u64::from(*octet))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target() -> (tempfile::TempDir, Tree) {
        let directory = tempfile::tempdir().unwrap();
        let tree = Tree::new(directory.path().join("target"));
        fs::create_dir(tree.root()).unwrap();
        (directory, tree)
    }

    fn placed(tree: &Tree, name: &str, octets: &[u8]) -> Placed {
        tree.put(tree.root(), &tree.root().join(name), octets, None, true).unwrap()
    }

    #[cfg(unix)]
    #[test]
    fn a_symbolic_link_planted_in_the_target_is_not_followed() {
        let (directory, tree) = target();
        let outside = directory.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("file"), b"one").unwrap();
        std::os::unix::fs::symlink(&outside, tree.root().join("link")).unwrap();
        std::os::unix::fs::symlink(outside.join("file"), tree.root().join("m")).unwrap();
        std::os::unix::fs::symlink(outside.join("new"), tree.root().join("n")).unwrap();
        for components in [vec![b"link".to_vec()], vec![b"link".to_vec(), b"a".to_vec()]] {
            let error = tree.claim(Claim::Folder, b"o", &[], components, |_, _| false).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Exists);
        }
        assert_eq!(placed(&tree, "m", b"one"), Placed::Differs);
        assert_eq!(placed(&tree, "n", b"one"), Placed::Differs);
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    }

    #[test]
    fn a_directory_belongs_to_its_first_owner_and_the_next_gets_another() {
        let (_directory, tree) = target();
        let claim =
            |owner: &[u8]| tree.claim(Claim::Folder, owner, &[], vec![b"a".to_vec()], |_, _| false).unwrap().path;
        let (first, second) = (claim(b"1"), claim(b"2"));
        assert_ne!(first, second);
        assert_eq!((claim(b"1"), claim(b"2")), (first, second), "and keeps it");
    }

    #[test]
    fn a_file_in_the_place_of_a_directory_stays_and_the_directory_gets_another_name() {
        let (_directory, tree) = target();
        fs::write(tree.root().join("a"), b"").unwrap();
        let directory = tree.claim(Claim::Folder, b"1", &[], vec![b"a".to_vec()], |_, _| false).unwrap();
        assert_ne!(directory.components, [b"a".to_vec()]);
    }

    #[test]
    fn directories_are_synced_with_all_that_lead_to_them_and_one_that_is_gone_is_an_error() {
        let (_directory, tree) = target();
        let path = tree.claim(Claim::Folder, b"o", &[], vec![b"a".to_vec(), b"b".to_vec()], |_, _| false).unwrap().path;
        tree.sync([&*path, tree.root()]).unwrap();
        fs::remove_dir(&path).unwrap();
        assert!(tree.sync([&*path]).is_err());
    }
}
