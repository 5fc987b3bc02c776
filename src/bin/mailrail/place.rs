//! Where mail is: `maildir:DIR`, `mbox:PATH`, `eml:DIR`; and where repositories are.

use mailrail::sink::{self, Sink};
use mailrail::source::{self, Source};
use mailrail::store::StoreUrl;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf, absolute};
use std::sync::Arc;

/// Where mail is, or is to be.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    format: Format,
    path: PathBuf,
}

#[derive(Clone, Copy, Debug)]
enum Format {
    Maildir,
    Mbox,
    Eml,
}

const FORMATS: [(&str, Format); 3] = [("maildir", Format::Maildir), ("mbox", Format::Mbox), ("eml", Format::Eml)];

impl Place {
    /// Reads `maildir:DIR` and the like.
    pub(crate) fn parse(text: OsString) -> Result<Self, String> {
        for (name, format) in FORMATS {
            if let Some(path) = behind(&text, &format!("{name}:")).filter(|path| !path.is_empty()) {
                return Ok(Self { format, path: path.into() });
            }
        }
        Err("give maildir:DIR, mbox:PATH or eml:DIR".into())
    }

    pub(crate) fn maildir(path: PathBuf) -> Self {
        Self { format: Format::Maildir, path }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The source there.
    pub(crate) fn source(&self) -> mailrail::Result<Arc<dyn Source>> {
        Ok(match self.format {
            Format::Maildir => Arc::new(source::Maildir::open(&self.path)?),
            Format::Mbox => Arc::new(source::Mbox::open(&self.path)?),
            Format::Eml => Arc::new(source::Eml::open(&self.path)?),
        })
    }

    /// A sink there.
    pub(crate) fn sink(&self) -> Arc<dyn Sink> {
        match self.format {
            Format::Maildir => Arc::new(sink::Maildir::new(&self.path)),
            Format::Mbox => Arc::new(sink::Mbox::new(&self.path)),
            Format::Eml => Arc::new(sink::Eml::new(&self.path)),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.format {
            Format::Maildir => "maildir",
            Format::Mbox => "mbox",
            Format::Eml => "eml",
        };
        write!(f, "{name}:{}", self.path.display())
    }
}

/// Reads where a repository is: a directory, or the URL of a store. A path need not be Unicode.
pub(crate) fn repository(text: OsString) -> mailrail::Result<StoreUrl> {
    match text.into_string() {
        Ok(text) => text.parse(),
        Err(path) => Ok(PathBuf::from(path).into()),
    }
}

/// Whether `inner` is `outer` or lies in it, whether or not they exist yet.
pub(crate) fn is_inside(inner: &Path, outer: &Path) -> bool {
    resolved(inner).starts_with(resolved(outer))
}

/// The path without symbolic links, as far as it exists.
fn resolved(path: &Path) -> PathBuf {
    let path = absolute(path).unwrap_or_else(|_| path.into());
    let known = path.ancestors().find_map(|ancestor| Some((ancestor, ancestor.canonicalize().ok()?)));
    known.map_or_else(
        || path.clone(),
        |(ancestor, real)| real.join(path.strip_prefix(ancestor).unwrap_or_else(|_| Path::new(""))),
    )
}

#[cfg(unix)]
fn behind<'a>(text: &'a OsStr, prefix: &str) -> Option<&'a OsStr> {
    use std::os::unix::ffi::OsStrExt;
    text.as_bytes().strip_prefix(prefix.as_bytes()).map(OsStr::from_bytes)
}

#[cfg(not(unix))]
fn behind<'a>(text: &'a OsStr, prefix: &str) -> Option<&'a OsStr> {
    text.to_str()?.strip_prefix(prefix).map(OsStr::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_needs_its_prefix_and_a_path() {
        let place = Place::parse("mbox:/var/mail/a:b".into()).unwrap();
        assert_eq!((place.path(), place.to_string().as_str()), (Path::new("/var/mail/a:b"), "mbox:/var/mail/a:b"));
        for text in ["", "/var/mail", "maildir:", "imap:x", "Maildir:x"] {
            assert!(Place::parse(text.into()).is_err(), "{text}");
        }
    }

    #[test]
    fn what_lies_inside_is_seen_through_dots_and_before_it_exists() {
        let here = std::env::temp_dir();
        assert!(is_inside(&here.join("a/b"), &here));
        assert!(is_inside(&here, &here.join("../").join(here.file_name().unwrap())));
        assert!(!is_inside(&here, &here.join("a")));
        assert!(!is_inside(&here.join("ab"), &here.join("a")));
    }
}
