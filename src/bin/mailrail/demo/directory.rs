//! Where the demonstration works.

use crate::failure::Failure;
use crate::secret::LENGTH;
use mailrail::Key;
use mailrail::runtime::{Randomness, SystemRandomness};
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::{env, process};

/// A directory of the demonstration's own; removed with everything in it when dropped, if it is temporary.
#[derive(Debug)]
pub(super) struct Workplace {
    path: PathBuf,
    is_temporary: bool,
}

impl Workplace {
    /// A directory that somebody wants to look at afterwards: absent, or empty.
    pub(super) fn given(path: PathBuf) -> Result<Self, Failure> {
        let made = fs::create_dir_all(&path).and_then(|()| Ok(fs::read_dir(&path)?.next().transpose()?.is_none()));
        match made {
            Ok(true) => Ok(Self { path, is_temporary: false }),
            Ok(false) => Err(Failure::new(format!("'{}' is not empty; give a new directory", path.display()))),
            Err(source) => Err(Failure::of(format!("making '{}'", path.display()), &source)),
        }
    }

    /// A temporary directory that only its owner can look into.
    pub(super) fn temporary() -> Result<Self, Failure> {
        let mut random = [0; 8];
        SystemRandomness.fill(&mut random)?;
        let name = format!("mailrail-demo-{}-{:016x}", process::id(), u64::from_be_bytes(random));
        let path = env::temp_dir().join(name);
        create_private(&path).map_err(|source| Failure::of(format!("making '{}'", path.display()), &source))?;
        Ok(Self { path, is_temporary: true })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn is_temporary(&self) -> bool {
        self.is_temporary
    }
}

impl Drop for Workplace {
    fn drop(&mut self) {
        if self.is_temporary
            && let Err(error) = fs::remove_dir_all(&self.path)
        {
            eprintln!("warning: '{}' could not be removed: {error}", self.path.display());
        }
    }
}

/// Makes a key file that only its owner can read, and gives the key.
pub(super) fn make_key(path: &Path) -> Result<Key, Failure> {
    let mut octets = [0; LENGTH];
    SystemRandomness.fill(&mut octets)?;
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    private(&mut options);
    let written = options.open(path).and_then(|mut file| file.write_all(&octets));
    written.map_err(|source| Failure::of(format!("writing '{}'", path.display()), &source))?;
    Ok(Key::new(octets))
}

#[cfg(unix)]
fn create_private(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().mode(0o700).create(path)
}

#[cfg(not(unix))]
fn create_private(path: &Path) -> io::Result<()> {
    fs::create_dir(path)
}

#[cfg(unix)]
fn private(options: &mut OpenOptions) {
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
}

#[cfg(not(unix))]
fn private(_: &mut OpenOptions) {}
