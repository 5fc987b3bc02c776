//! The names in a directory, sorted, in as little memory as they need: a million messages are a million names.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// What a name in a directory stands for. Symbolic links stand for themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileKind {
    File,
    Directory,
    /// A symbolic link, a socket, a pipe, a device.
    Other,
}

/// The names in a directory: their octets in one piece, and 8 octets for each.
#[derive(Debug, Default)]
pub(super) struct Listing {
    octets: Vec<u8>,
    names: Vec<Name>,
}

#[derive(Clone, Copy, Debug)]
struct Name {
    start: u32,
    length: u16,
    kind: FileKind,
}

impl Listing {
    /// The names in the directory `path`, sorted by their octets.
    pub(super) fn read(path: &Path) -> io::Result<Self> {
        Self::read_sorted(path, |name| name)
    }

    /// The names in the directory `path`, sorted by the part of the name that `key` gives, then by all of it.
    pub(super) fn read_sorted(path: &Path, key: fn(&[u8]) -> &[u8]) -> io::Result<Self> {
        let mut listing = Self::default();
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let kind = match entry.file_type() {
                Ok(kind) if kind.is_file() => FileKind::File,
                Ok(kind) if kind.is_dir() => FileKind::Directory,
                Ok(_) => FileKind::Other,
                // Gone between being listed and being looked at.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            listing.push(entry.file_name().as_bytes(), kind)?;
        }
        listing.sort(key);
        Ok(listing)
    }

    fn push(&mut self, name: &[u8], kind: FileKind) -> io::Result<()> {
        let (Ok(start), Ok(length)) = (u32::try_from(self.octets.len()), u16::try_from(name.len())) else {
            return Err(io::Error::other("the names in one directory take more than 4 GiB"));
        };
        self.octets.extend_from_slice(name);
        self.names.push(Name { start, length, kind });
        Ok(())
    }

    fn sort(&mut self, key: fn(&[u8]) -> &[u8]) {
        let octets = &self.octets;
        self.names.sort_unstable_by(|a, b| {
            let (a, b) = (octets_of(octets, *a), octets_of(octets, *b));
            key(a).cmp(key(b)).then_with(|| a.cmp(b))
        });
    }

    /// Adds those names of `other` whose key is not among these.
    pub(super) fn absorb(&mut self, other: &Self, key: fn(&[u8]) -> &[u8]) -> io::Result<()> {
        let missing: Vec<Name> = (other.names.iter().copied())
            .filter(|name| self.find(key(octets_of(&other.octets, *name)), key).is_none())
            .collect();
        for name in &missing {
            self.push(octets_of(&other.octets, *name), name.kind)?;
        }
        self.sort(key);
        Ok(())
    }

    /// The first name whose key is `wanted`, in a listing sorted by `key`.
    pub(super) fn find(&self, wanted: &[u8], key: fn(&[u8]) -> &[u8]) -> Option<&[u8]> {
        let at = self.names.partition_point(|name| key(octets_of(&self.octets, *name)) < wanted);
        let name = self.names.get(at).map(|name| octets_of(&self.octets, *name))?;
        (key(name) == wanted).then_some(name)
    }

    /// How many names.
    pub(super) fn len(&self) -> usize {
        self.names.len()
    }

    /// The name at `index`.
    pub(super) fn get(&self, index: usize) -> Option<(&[u8], FileKind)> {
        self.names.get(index).map(|name| (octets_of(&self.octets, *name), name.kind))
    }

    /// All names, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&[u8], FileKind)> {
        self.names.iter().map(|name| (octets_of(&self.octets, *name), name.kind))
    }
}

fn octets_of(octets: &[u8], name: Name) -> &[u8] {
    let start = name.start as usize;
    octets.get(start..start + usize::from(name.length)).unwrap_or_default()
}

/// A name as part of a path.
pub(super) fn as_path(name: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(name))
}

/// A path's octets.
pub(super) fn octets_of_path(path: &Path) -> &[u8] {
    path.as_os_str().as_bytes()
}

/// The path `parent/name` in octets; only `name` if `parent` is empty.
pub(super) fn joined(parent: &[u8], name: &[u8]) -> Vec<u8> {
    let mut path = Vec::with_capacity(parent.len() + 1 + name.len());
    path.extend_from_slice(parent);
    if !parent.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    fn up_to_colon(name: &[u8]) -> &[u8] {
        name.split(|&octet| octet == b':').next().unwrap_or(name)
    }

    #[test]
    fn names_are_octets_and_sorted() {
        let directory = tempfile::tempdir().unwrap();
        for name in [&b"b"[..], b"a\xff", b"a"] {
            fs::write(directory.path().join(as_path(name)), b"").unwrap();
        }
        fs::create_dir(directory.path().join("c")).unwrap();
        std::os::unix::fs::symlink("nowhere", directory.path().join("d")).unwrap();
        let listing = Listing::read(directory.path()).unwrap();
        let names: Vec<_> = listing.iter().collect();
        assert_eq!(names[..3].iter().map(|name| name.0).collect::<Vec<_>>(), [&b"a"[..], b"a\xff", b"b"]);
        assert_eq!(names[3..], [(&b"c"[..], FileKind::Directory), (b"d", FileKind::Other)]);
        assert_eq!(listing.get(0), Some((&b"a"[..], FileKind::File)));
        assert_eq!(listing.get(5), None);
    }

    #[test]
    fn absorbing_adds_only_what_is_missing_and_keeps_the_order() {
        let mut listing = Listing::default();
        let mut other = Listing::default();
        for name in [&b"a:2,S"[..], b"c"] {
            listing.push(name, FileKind::File).unwrap();
        }
        for name in [&b"a"[..], b"b:2,"] {
            other.push(name, FileKind::File).unwrap();
        }
        listing.absorb(&other, up_to_colon).unwrap();
        assert_eq!(listing.iter().map(|name| name.0).collect::<Vec<_>>(), [&b"a:2,S"[..], b"b:2,", b"c"]);
        assert_eq!(listing.find(b"b", up_to_colon), Some(&b"b:2,"[..]));
        assert_eq!(listing.find(b"d", up_to_colon), None);
        assert_eq!(listing.len(), 3);
    }
}
