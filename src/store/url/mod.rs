//! Stores by their URL.

#[cfg(feature = "azure")]
mod azure;
#[cfg(any(feature = "s3", feature = "azure", feature = "gcs"))]
mod cloud;
#[cfg(feature = "gcs")]
mod gcs;
mod options;
#[cfg(feature = "s3")]
mod profile;
#[cfg(feature = "s3")]
mod s3;

pub use options::StoreOptions;

#[cfg(any(feature = "s3", feature = "azure", feature = "gcs"))]
use super::object_store_0_14::ObjectStore014;
use super::{FileStore, Findings, GovernorSettings, MemoryStore, Prices, ProbedStore, Store, probe};
use crate::error::{Error, ErrorKind, Result};
#[cfg(any(feature = "s3", feature = "azure", feature = "gcs"))]
use object_store::{ObjectStore, list::PaginatedListStore};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

/// Where a store is: `s3://BUCKET/PREFIX`, `az://CONTAINER/PREFIX` (or `azure://`), `gs://BUCKET/PREFIX`, `file:///PATH`, `memory:`, or a plain path.
///
/// `s3`, `az` and `gs` need the features `s3`, `azure` and `gcs`: without them such an URL is one, and cannot be opened. No URL holds credentials; those are in the [`StoreOptions`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreUrl(Place);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Directory(PathBuf),
    Memory,
    Bucket { cloud: Cloud, bucket: String, prefix: String },
}

/// Who keeps the objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cloud {
    S3,
    Azure,
    Gcs,
}

const SCHEMES: [(&str, Cloud); 4] =
    [("s3", Cloud::S3), ("az", Cloud::Azure), ("azure", Cloud::Azure), ("gs", Cloud::Gcs)];

impl Cloud {
    const fn scheme(self) -> &'static str {
        match self {
            Self::S3 => "s3",
            Self::Azure => "az",
            Self::Gcs => "gs",
        }
    }
}

impl StoreUrl {
    /// The directory, if it is one.
    #[must_use]
    pub fn directory(&self) -> Option<&Path> {
        match &self.0 {
            Place::Directory(path) => Some(path),
            _ => None,
        }
    }

    /// Opens the store. A directory must exist; a bucket is not asked anything yet. `memory:` is a new, empty store each time.
    ///
    /// Requests to a bucket run on the tokio runtime in which this is called (`ObjectStore014`).
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported) if the URL needs a feature that is not compiled in, [`Invalid`](ErrorKind::Invalid) for an option that is none,
    /// [`NotFound`](ErrorKind::NotFound) if there is no such directory.
    pub fn open(&self, options: &StoreOptions) -> Result<Arc<dyn Store>> {
        match &self.0 {
            Place::Directory(path) => Ok(Arc::new(FileStore::open(path)?)),
            _ => self.open_or_create(options),
        }
    }

    /// Opens the store, and makes the directory if there is none. A bucket or container is never made.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_or_create(&self, options: &StoreOptions) -> Result<Arc<dyn Store>> {
        match &self.0 {
            Place::Directory(path) => Ok(Arc::new(FileStore::open_or_create(path)?)),
            Place::Memory => Ok(Arc::new(MemoryStore::new())),
            Place::Bucket { cloud, bucket, prefix } => Ok(Arc::new(open_bucket(*cloud, bucket, prefix, options)?)),
        }
    }

    /// How requests to the store should be [governed](super::Governor): by its cloud's list prices, and knowing what goes in parts. `None` for what is this computer's own.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid) for an option that is none.
    pub fn governing(&self, options: &StoreOptions) -> Result<Option<GovernorSettings>> {
        let Place::Bucket { cloud, .. } = &self.0 else { return Ok(None) };
        let prices = match cloud {
            Cloud::S3 => Prices::S3,
            Cloud::Azure => Prices::AZURE,
            Cloud::Gcs => Prices::GCS,
        };
        Ok(Some(GovernorSettings { prices, multipart: multipart(options)?, ..GovernorSettings::default() }))
    }

    /// [Probes](probe) the store, unless one opened with these options, or with clones of them, was probed before.
    ///
    /// # Errors
    /// As [`open`](Self::open), and what the store reports.
    ///
    /// # Cancel safety
    /// As that of [`probe`].
    pub async fn findings(&self, options: &StoreOptions) -> Result<Findings> {
        match &self.0 {
            Place::Bucket { cloud, bucket, prefix } => open_bucket(*cloud, bucket, prefix, options)?.findings().await,
            _ => probe(self.open(options)?).await,
        }
    }
}

#[cfg(not(any(feature = "s3", feature = "azure", feature = "gcs")))]
fn multipart(_: &StoreOptions) -> Result<Option<super::Multipart>> {
    Ok(None)
}

#[cfg(any(feature = "s3", feature = "azure", feature = "gcs"))]
fn multipart(options: &StoreOptions) -> Result<Option<super::Multipart>> {
    cloud::multipart(options).map(|multipart| Some(multipart.governed()))
}

#[cfg(not(any(feature = "s3", feature = "azure", feature = "gcs")))]
fn open_bucket(cloud: Cloud, _: &str, _: &str, _: &StoreOptions) -> Result<ProbedStore> {
    Err(missing(cloud))
}

#[cfg(any(feature = "s3", feature = "azure", feature = "gcs"))]
fn open_bucket(cloud: Cloud, bucket: &str, prefix: &str, options: &StoreOptions) -> Result<ProbedStore> {
    let store = in_bucket(cloud, bucket, prefix, options)?;
    // Two servers may have a bucket of this name.
    let endpoint = options.get("endpoint").map(|endpoint| format!(" at {endpoint}")).unwrap_or_default();
    Ok(options.probed(Arc::new(store), format!("{}://{bucket}{endpoint}", cloud.scheme())))
}

#[cfg(any(feature = "s3", feature = "azure", feature = "gcs"))]
fn in_bucket(cloud: Cloud, bucket: &str, prefix: &str, options: &StoreOptions) -> Result<ObjectStore014> {
    let store = match cloud {
        #[cfg(feature = "s3")]
        Cloud::S3 => adapted(s3::open(bucket, options)?, prefix)?,
        #[cfg(feature = "azure")]
        Cloud::Azure => adapted(azure::open(bucket, options)?, prefix)?,
        #[cfg(feature = "gcs")]
        Cloud::Gcs => adapted(gcs::open(bucket, options)?, prefix)?,
        #[allow(unreachable_patterns, reason = "reachable unless all three features are there")]
        _ => return Err(missing(cloud)),
    };
    Ok(store.multipart(cloud::multipart(options)?))
}

#[cfg(any(feature = "s3", feature = "azure", feature = "gcs"))]
fn adapted(store: impl ObjectStore + PaginatedListStore, prefix: &str) -> Result<ObjectStore014> {
    let store = Arc::new(store);
    Ok(ObjectStore014::new(store.clone(), prefix)?.paged(store))
}

#[allow(dead_code, reason = "used unless all three features are there")]
fn missing(cloud: Cloud) -> Error {
    let feature = match cloud {
        Cloud::S3 => "s3",
        Cloud::Azure => "azure",
        Cloud::Gcs => "gcs",
    };
    let scheme = cloud.scheme();
    Error::new(ErrorKind::Unsupported, format!("{scheme}:// needs mailrail built with the feature '{feature}'"))
}

impl From<PathBuf> for StoreUrl {
    fn from(path: PathBuf) -> Self {
        Self(Place::Directory(path))
    }
}

impl FromStr for StoreUrl {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if text.is_empty() {
            return Err(Error::invalid("give a directory, or the URL of a store"));
        }
        if text == "memory:" {
            return Ok(Self(Place::Memory));
        }
        let Some((scheme, rest)) = text.split_once(':').filter(|(scheme, rest)| is_scheme(scheme, rest)) else {
            return Ok(PathBuf::from(text).into());
        };
        let rest = rest.strip_prefix("//").ok_or_else(|| Error::invalid(format!("behind {scheme}: comes //")))?;
        if scheme == "file" {
            return of_file(rest);
        }
        let cloud = SCHEMES.iter().find(|(known, _)| *known == scheme).map(|(_, cloud)| *cloud);
        // The text may have a password in it, and is not repeated.
        let cloud =
            cloud.ok_or_else(|| Error::invalid(format!("stores have no URLs with '{}:'", scheme.escape_debug())))?;
        of_bucket(cloud, rest)
    }
}

/// Whether `scheme:rest` is meant as an URL, and not as a path with a colon in it.
fn is_scheme(scheme: &str, rest: &str) -> bool {
    rest.starts_with("//") || scheme == "file" || SCHEMES.iter().any(|(known, _)| *known == scheme)
}

/// RFC 8089.
fn of_file(rest: &str) -> Result<StoreUrl> {
    let path = rest.strip_prefix("localhost").unwrap_or(rest);
    let path = Some(path).filter(|path| path.starts_with('/')).and_then(percent_decoded);
    path.map(|path| PathBuf::from(path).into()).ok_or_else(|| Error::invalid("give file:// and an absolute path"))
}

fn of_bucket(cloud: Cloud, rest: &str) -> Result<StoreUrl> {
    let scheme = cloud.scheme();
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    if bucket.contains('@') || rest.contains(['?', '#']) {
        return Err(Error::invalid(format!(
            "behind {scheme}:// come a bucket and a prefix, and no credentials: those are in the environment, in profiles or in options"
        )));
    }
    let is_name = |octet: u8| octet.is_ascii_alphanumeric() || matches!(octet, b'.' | b'-' | b'_' | b'$');
    if bucket.is_empty() || !bucket.bytes().all(is_name) {
        return Err(Error::invalid(format!("give {scheme}://BUCKET/PREFIX")));
    }
    let prefix = prefix.trim_end_matches('/');
    let is_path = prefix.is_empty() || prefix.split('/').all(|name| !matches!(name, "" | "." | ".."));
    if !is_path || prefix.chars().any(char::is_control) {
        return Err(Error::invalid(format!("'{}' is not a prefix in a bucket", prefix.escape_debug())));
    }
    Ok(StoreUrl(Place::Bucket { cloud, bucket: bucket.to_owned(), prefix: prefix.to_owned() }))
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        rest = behind;
        if *first != b'%' {
            octets.push(*first);
            continue;
        }
        let (digits, behind) = rest.split_at_checked(2)?;
        let digits = std::str::from_utf8(digits).ok().filter(|digits| !digits.starts_with('+'))?;
        octets.push(u8::from_str_radix(digits, 16).ok()?);
        rest = behind;
    }
    String::from_utf8(octets).ok()
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Place::Directory(path) => path.display().fmt(f),
            Place::Memory => f.write_str("memory:"),
            Place::Bucket { cloud, bucket, prefix } => write!(f, "{}://{bucket}/{prefix}", cloud.scheme()),
        }
    }
}

#[cfg(test)]
mod tests;
