//! Key files: exactly 32 raw octets.

use crate::failure::Failure;
use mailrail::Key;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// The octets of a key file.
pub(crate) const LENGTH: usize = 32;

/// What to do without a key.
pub(crate) const ADVICE: &str = "give --key-file FILE, or --no-encryption to store mail unencrypted; \
    make a key with: head -c 32 /dev/urandom > mail.key";

/// Reads a key file, and warns if others may read it too.
pub(crate) fn read(path: &Path) -> Result<Key, Failure> {
    let mut octets = Vec::with_capacity(LENGTH + 1);
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

#[cfg(unix)]
fn warn_if_shared(path: &Path, file: &File) -> io::Result<()> {
    use crate::terminal::printable;
    use std::os::unix::fs::PermissionsExt;
    let metadata = file.metadata()?;
    if metadata.is_file() && metadata.permissions().mode() & 0o077 != 0 {
        let path = printable(&path.display().to_string());
        eprintln!("warning: the key file '{path}' is open to others than its owner; close it with: chmod 600 '{path}'");
    }
    Ok(())
}

#[cfg(not(unix))]
fn warn_if_shared(_: &Path, _: &File) -> io::Result<()> {
    Ok(())
}
