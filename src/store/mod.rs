//! Object stores: flat keys, whole objects, create-if-absent.

mod file;
pub mod files;
mod governed;
mod governor;
mod key;
mod memory;
#[cfg(feature = "object-store")]
#[cfg_attr(docsrs, doc(cfg(feature = "object-store")))]
pub mod object_store_0_14;
mod probe;
mod probed;
mod retrying;
mod url;

pub use file::FileStore;
pub use governed::GovernedStore;
pub use governor::{Cost, Governor, GovernorSettings, Multipart, Prices, RequestKind, Usage, Waiting};
pub use key::{check_key, check_prefix};
pub use memory::MemoryStore;
pub use probe::{Findings, Writers, probe};
pub use probed::{ProbedStore, Probes};
pub use retrying::{Retries, RetryingStore};
pub use url::{StoreOptions, StoreUrl};

use crate::error::{Error, Result};
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use std::fmt;
use std::ops::Range;

/// An object store. Small on purpose, dyn-compatible; held as `Arc<dyn Store>`.
///
/// Keys are `/`-separated names of `[a-z0-9.-]` with a letter or digit in front; objects are written whole and never change.
/// No default methods: a wrapper that forgets one does not compile.
///
/// # Cancel safety
/// Dropping a write's future leaves the object either absent or whole, now or a little later.
pub trait Store: fmt::Debug + Send + Sync + 'static {
    /// Writes an object under a key that nobody else writes. Durable when it resolves. Writing the same octets again is legal.
    ///
    /// # Errors
    /// Whatever the store reports. After an error the object may be absent, or whole.
    fn put<'a>(&'a self, key: &'a str, payload: Payload) -> BoxFuture<'a, Result<()>>;

    /// Writes an object only if there is none under this key: of any number of racing writers one gets [`Created::New`].
    /// Durable when it resolves.
    ///
    /// # Errors
    /// Whatever the store reports. After an error the object may be absent, or whole: read it back to know.
    fn create<'a>(&'a self, key: &'a str, payload: Payload) -> BoxFuture<'a, Result<Created>>;

    /// Reads an object: all of it, or those octets of `range` that it has. A range that ends behind the object's end gives the octets up to there; one that
    /// begins at the end or behind it gives none, as an empty one does, and is no error. So nobody needs to ask for a length first. Who needs every octet of a
    /// range counts what came.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) if there is no such object, whatever the range.
    fn read<'a>(&'a self, key: &'a str, range: Option<Range<u64>>) -> BoxFuture<'a, Result<Bytes>>;

    /// The length of an object in octets, `None` if there is no such object.
    ///
    /// # Errors
    /// Whatever the store reports.
    fn length<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<u64>>>;

    /// The objects whose keys begin with `prefix` (a whole number of names: empty, or ending with `/`), in no promised order.
    /// What is listed is durable, whoever wrote it: writers build on what they find.
    fn list<'a>(&'a self, prefix: &'a str) -> BoxStream<'a, Result<Listed>>;

    /// Deletes an object; one that is not there counts as deleted.
    ///
    /// # Errors
    /// Whatever the store reports.
    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<()>>;
}

/// Reads exactly these octets of an object.
///
/// # Errors
/// [`Damaged`](crate::ErrorKind::Damaged) if there are not as many; what the store reports.
pub(crate) async fn read_exact(store: &dyn Store, key: &str, range: Range<u64>) -> Result<Bytes> {
    let octets = store.read(key, Some(range.clone())).await?;
    if octets.len() as u64 == range.end.saturating_sub(range.start) {
        return Ok(octets);
    }
    Err(Error::damaged(format!("'{key}' is too short to have the octets {}..{}", range.start, range.end)))
}

/// Reads the whole of an object that can have no more than `octets_max`, which is also what is read at most, and one octet.
///
/// # Errors
/// [`Damaged`](crate::ErrorKind::Damaged) if it is longer; what the store reports.
pub(crate) async fn read_bounded(store: &dyn Store, key: &str, octets_max: u64) -> Result<Bytes> {
    let octets = store.read(key, Some(0..octets_max.saturating_add(1))).await?;
    if octets.len() as u64 <= octets_max {
        return Ok(octets);
    }
    Err(Error::damaged(format!("'{key}' is longer than it can be")))
}

/// The octets of an object in pieces, never joined in memory for writing.
#[derive(Clone, Debug, Default)]
pub struct Payload {
    pieces: Vec<Bytes>,
}

impl Payload {
    /// These pieces, in order.
    #[must_use]
    pub fn new(pieces: Vec<Bytes>) -> Self {
        Self { pieces }
    }

    /// The pieces.
    #[must_use]
    pub fn pieces(&self) -> &[Bytes] {
        &self.pieces
    }

    /// The sum of their lengths, in octets.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.len() as u64).sum()
    }

    /// Whether there is no octet in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pieces.iter().all(Bytes::is_empty)
    }
}

impl From<Vec<u8>> for Payload {
    fn from(octets: Vec<u8>) -> Self {
        Self { pieces: vec![octets.into()] }
    }
}

impl From<Bytes> for Payload {
    fn from(octets: Bytes) -> Self {
        Self { pieces: vec![octets] }
    }
}

/// What became of a create-if-absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "it is there or it was not")]
pub enum Created {
    /// The object is new, and is ours.
    New,
    /// There is an object under this key already; nothing was written. It may still be ours, from a try whose answer was lost.
    Exists,
}

/// An object in a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs, reason = "implementors of Store build it")]
pub struct Listed {
    /// Its key.
    pub key: String,
    /// Its length in octets.
    pub length: u64,
}
