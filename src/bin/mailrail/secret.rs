//! Keys: files of exactly 32 raw octets, and passphrases from files or the environment.

use crate::failure::Failure;
use crate::values::octets;
use mailrail::{Key, Passphrase, Protection};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use zeroize::Zeroizing;

/// The octets of a key file.
pub(crate) const LENGTH: usize = 32;

/// What to do without a key.
pub(crate) const ADVICE: &str = "give --password-file FILE, --key-file FILE, or --no-encryption to store mail unencrypted; \
    make a key with: head -c 32 /dev/urandom > mail.key";

/// The key that one of these files holds; `None` if no file is named.
pub(crate) fn of_files(key_file: Option<&Path>, password_file: Option<&Path>) -> Result<Option<Protection>, Failure> {
    match (key_file, password_file) {
        (Some(path), _) => Ok(Some(Protection::Key(read(path)?))),
        (None, Some(path)) => Ok(Some(Protection::Passphrase(read_password(path)?))),
        (None, None) => Ok(None),
    }
}

/// The passphrase in a variable of the environment.
pub(crate) fn of_environment(value: OsString) -> Result<Protection, Failure> {
    Ok(Protection::Passphrase(Passphrase::new(octets(value))?))
}

/// Reads a key file, and warns if others may read it too.
pub(crate) fn read(path: &Path) -> Result<Key, Failure> {
    let mut octets = Zeroizing::new(Vec::with_capacity(LENGTH + 1));
    let opened = File::open(path).and_then(|file| {
        warn_if_shared(path, &file)?;
        // One octet more tells a file that is too long.
        file.take(LENGTH as u64 + 1).read_to_end(&mut octets)
    });
    opened.map_err(|source| Failure::of(format!("reading the key file '{}'", path.display()), &source))?;
    if octets.len() == LENGTH {
        return Ok(Key::from_file_octets(&octets)?);
    }
    let has = if octets.len() > LENGTH { "more".into() } else { octets.len().to_string() };
    Err(Failure::new(format!("the key file '{}' must hold exactly {LENGTH} raw octets, and has {has}", path.display()))
        .advise("make a key with: head -c 32 /dev/urandom > mail.key"))
}

/// Reads the first line of a password file, without its line end, and warns if others may read it too.
fn read_password(path: &Path) -> Result<Passphrase, Failure> {
    const OCTETS_MAX: usize = Passphrase::OCTETS_MAX;
    // Never grown, so that no copy of it stays behind.
    let mut octets = Zeroizing::new(Vec::with_capacity(OCTETS_MAX + 4));
    let opened = File::open(path).and_then(|file| {
        warn_if_shared(path, &file)?;
        file.take(OCTETS_MAX as u64 + 3).read_to_end(&mut octets)
    });
    opened.map_err(|source| Failure::of(format!("reading the password file '{}'", path.display()), &source))?;
    let line = octets.split(|octet| *octet == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    Passphrase::new(line).map_err(|error| Failure::of(format!("the password file '{}'", path.display()), &error))
}

#[cfg(unix)]
fn warn_if_shared(path: &Path, file: &File) -> io::Result<()> {
    use crate::terminal::printable;
    use std::os::unix::fs::PermissionsExt;
    let metadata = file.metadata()?;
    if metadata.is_file() && metadata.permissions().mode() & 0o077 != 0 {
        let path = printable(&path.display().to_string());
        eprintln!(
            "warning: '{path}' holds a key and is open to others than its owner; close it with: chmod 600 '{path}'"
        );
    }
    Ok(())
}

#[cfg(not(unix))]
fn warn_if_shared(_: &Path, _: &File) -> io::Result<()> {
    Ok(())
}
