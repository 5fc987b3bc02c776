//! The adapter to the crate `object_store`, version 0.14: Amazon S3, Azure Blob Storage, Google Cloud Storage, and whatever else implements that crate's trait.
//!
//! The module is named after the version: a later one gets a module of its own, and nothing else of this crate's API moves.

mod body;
mod errors;
#[cfg(any(feature = "s3", feature = "azure", feature = "gcs"))]
mod http;
mod multipart;
mod pages;
#[cfg(any(feature = "s3", feature = "azure", feature = "gcs"))]
mod part_retries;
#[cfg(any(feature = "s3", feature = "azure", feature = "gcs"))]
mod refusal;

#[cfg(any(feature = "s3", feature = "azure", feature = "gcs"))]
#[cfg_attr(docsrs, doc(cfg(any(feature = "s3", feature = "azure", feature = "gcs"))))]
pub use http::{Connector, no_retries};
pub use multipart::Multipart;

use super::key::{check_key, check_prefix, check_range};
use super::{Created, Listed, Payload, Retries, Store};
use crate::error::{Error, ErrorKind, Result};
use crate::runtime::SystemTimer;
use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt};
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use object_store::list::PaginatedListStore;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode};
use pages::Pages;
use std::fmt;
use std::future::ready;
use std::ops::Range;
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

/// The most objects of a listing that are held at once: a page of any object store.
const LISTED_AT_ONCE: usize = 1000;

/// A range that begins behind this can have no octets: no object is as long. Some servers read a number that is much larger as none at all.
const OFFSETS_END: u64 = 1 << 48;

/// A [`Store`] below a prefix of an [`object_store::ObjectStore`]. Clones share it.
///
/// # Runtime
/// What speaks HTTP needs a tokio runtime with its drivers enabled. Operations run there as tasks: on the runtime that the adapter was made in, or was
/// [given](Self::on); the future of an operation may then be polled anywhere. Without either they run where they are polled, which is enough for stores that
/// need no runtime, and with [`Connector`] an error, not a panic, for those that do.
///
/// # Retries
/// A [`Repository`](crate::Repository) tries again by itself, and so should nothing below it: give the store that you configure
/// [`no_retries`], and [`Connector`], by which this adapter learns what a server said (`Retry-After`, codes) and notices a connection that stalls.
/// Without them it works, and knows less.
///
/// # Errors
/// [`Throttled`](ErrorKind::Throttled) if the store asks for fewer requests, [`Denied`](ErrorKind::Denied) if it refuses access, [`Full`](ErrorKind::Full) if a quota is used up,
/// [`Unsupported`](ErrorKind::Unsupported) if it lacks what is needed, [`Unavailable`](ErrorKind::Unavailable) for what may pass,
/// [`Invalid`](ErrorKind::Invalid) for what is not a [key](super::check_key), or a request that the store does not understand.
///
/// # Cancel safety
/// Dropping the future of a write cancels its request: the object is absent, or whole, now or a little later. Parts of a larger object are given up then, which takes a request:
/// a process that is killed leaves them, and a lifecycle rule of the bucket should remove unfinished multipart uploads after some days.
#[derive(Clone)]
pub struct ObjectStore014 {
    inner: Arc<dyn ObjectStore>,
    root: Path,
    runtime: Option<Handle>,
    multipart: Multipart,
    pages: Option<Pages>,
}

impl ObjectStore014 {
    /// The store below `prefix` (which may be empty) of `inner`. If this is called inside of a tokio runtime, operations run there.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid) if `prefix` is no path of that crate: an empty name between two `/`, `.`, `..`, or control characters.
    pub fn new(inner: Arc<dyn ObjectStore>, prefix: &str) -> Result<Self> {
        let root = Path::parse(prefix)
            .map_err(|error| Error::invalid(format!("'{}' is not a prefix", prefix.escape_debug())).because(error))?;
        Ok(Self { inner, root, runtime: Handle::try_current().ok(), multipart: Multipart::default(), pages: None })
    }

    /// The same, whose operations run on this tokio runtime.
    #[must_use]
    pub fn on(self, runtime: Handle) -> Self {
        Self { runtime: Some(runtime), ..self }
    }

    /// The same, which uploads larger objects like this.
    #[must_use]
    pub fn multipart(self, multipart: Multipart) -> Self {
        Self { multipart, ..self }
    }

    /// The same, which lists page by page through `store`, which is the store itself: a later page that fails is tried again by itself. Without it a listing
    /// of many pages is begun anew for each that fails, as far as that can be done, or fails.
    #[must_use]
    pub fn paged(self, store: Arc<dyn PaginatedListStore>) -> Self {
        Self { pages: Some(Pages { store, timer: Arc::new(SystemTimer) }), ..self }
    }

    fn path(&self, key: &str) -> Result<Path> {
        check_key(key)?;
        self.below(key)
    }

    /// The path of these names below the root.
    fn below(&self, names: &str) -> Result<Path> {
        let joined = match self.root.as_ref() {
            "" => names.to_owned(),
            root => format!("{root}/{names}"),
        };
        Path::parse(joined).map_err(|error| Error::invalid(format!("'{names}' is not a path")).because(error))
    }

    /// Runs work where requests run. Dropping the future cancels it.
    async fn run<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> Result<T> {
        let Some(runtime) = self.runtime.clone().or_else(|| Handle::try_current().ok()) else {
            return Ok(work.await);
        };
        let mut task = CancelledOnDrop(runtime.spawn(work));
        (&mut task.0).await.map_err(|error| {
            let why = match error.is_panic() {
                true => "a request to the store panicked: does the tokio runtime have its drivers enabled?",
                false => "the tokio runtime that requests run on was shut down",
            };
            Error::new(ErrorKind::Unsupported, why).because(error)
        })
    }

    async fn length_at(&self, key: &str) -> Result<Option<u64>> {
        let (path, inner) = (self.path(key)?, Arc::clone(&self.inner));
        match self.run(async move { inner.head(&path).await }).await? {
            Ok(object) => Ok(Some(object.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(errors::told(&format!("asking for the length of '{key}'"), error)),
        }
    }

    async fn length_of(&self, key: &str) -> Result<u64> {
        let absent = || Error::new(ErrorKind::NotFound, format!("there is no object '{key}'"));
        self.length_at(key).await?.ok_or_else(absent)
    }

    /// The object, or the octets of a range of at least one octet that begins where an object can have some.
    async fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Result<Bytes, object_store::Error>> {
        let (path, inner) = (self.path(key)?, Arc::clone(&self.inner));
        let range = range.map(|range| match range.end {
            ..=OFFSETS_END => GetRange::Bounded(range),
            _ => GetRange::Offset(range.start),
        });
        let options = GetOptions { range, ..GetOptions::default() };
        let got = self.run(async move {
            let got = inner.get_opts(&path, options).await?;
            let promised = got.range.end.saturating_sub(got.range.start);
            Ok((got.bytes().await?, promised))
        });
        match got.await? {
            Ok((octets, promised)) if octets.len() as u64 == promised => Ok(Ok(octets)),
            Ok((octets, promised)) => {
                let cut = format!("of '{key}' the store promised {promised} octets and gave {}", octets.len());
                Err(Error::new(ErrorKind::Unavailable, cut))
            }
            Err(error) => Ok(Err(error)),
        }
    }

    async fn read_range(&self, key: &str, range: Range<u64>) -> Result<Bytes> {
        check_range(&range)?;
        if range.is_empty() || range.start >= OFFSETS_END {
            return self.length_of(key).await.map(|_| Bytes::new());
        }
        match self.get(key, Some(range.clone())).await? {
            Ok(octets) => Ok(octets),
            // To begin at an object's end or behind it is an error to HTTP and to that crate, told in as many ways as there are stores.
            Err(error) if errors::may_be_behind_the_end(&error) && self.length_of(key).await? <= range.start => {
                Ok(Bytes::new())
            }
            Err(error) => Err(errors::told(&format!("reading '{key}'"), error)),
        }
    }

    async fn put_whole(&self, key: &str, payload: Payload, mode: PutMode) -> Result<Result<(), object_store::Error>> {
        let (path, inner) = (self.path(key)?, Arc::clone(&self.inner));
        let put = self.run(async move { inner.put_opts(&path, body::whole(&payload), mode.into()).await });
        Ok(put.await?.map(drop))
    }

    async fn put_in_parts(&self, key: &str, payload: Payload) -> Result<Result<(), object_store::Error>> {
        let (path, inner, multipart) = (self.path(key)?, Arc::clone(&self.inner), self.multipart);
        self.run(async move { multipart.put(&*inner, &path, &payload).await }).await
    }

    fn listed<'a>(&'a self, prefix: &'a str) -> Result<BoxStream<'a, Result<Listed>>> {
        check_prefix(prefix)?;
        let below = match prefix.strip_suffix('/') {
            Some(names) => self.below(names)?,
            None => self.root.clone(),
        };
        let pages = match &self.pages {
            Some(pages) => {
                // Names that begin like the last one are not below it.
                let names = if below.as_ref().is_empty() { String::new() } else { format!("{below}/") };
                self.each_where_requests_run(pages.clone().list(names, Retries::default()).boxed())
            }
            None => {
                let objects = self.inner.list(Some(&below)).ready_chunks(LISTED_AT_ONCE);
                let told = move |page: Vec<object_store::Result<ObjectMeta>>| {
                    let page: object_store::Result<Vec<ObjectMeta>> = page.into_iter().collect();
                    page.map_err(|error| errors::told(&format!("listing '{below}'"), error))
                };
                self.each_where_requests_run(objects.map(told).boxed())
            }
        };
        let objects = pages.map_ok(|page| stream::iter(page).map(Ok)).try_flatten();
        // Who chains it to another may ask on behind its end.
        Ok(objects.try_filter_map(move |object| ready(Ok(self.found(&object, prefix)))).fuse().boxed())
    }

    /// The items of a stream, each made where requests run.
    fn each_where_requests_run<'a, T: Send + 'static>(
        &'a self,
        items: BoxStream<'static, Result<T>>,
    ) -> BoxStream<'a, Result<T>> {
        let items = stream::unfold(Some(items), move |items| async move {
            let mut items = items?;
            match self.run(async move { items.next().await.map(|item| (item, items)) }).await {
                Ok(next) => next.map(|(item, items)| (item, Some(items))),
                Err(error) => Some((Err(error), None)),
            }
        });
        items.boxed()
    }

    /// What a listing says of one object.
    fn found(&self, object: &ObjectMeta, prefix: &str) -> Option<Listed> {
        let key = self.key_of(&object.location).filter(|key| key.starts_with(prefix))?;
        Some(Listed { key, length: object.size })
    }

    /// The key of an object. What has a name that is no key is nobody's.
    fn key_of(&self, location: &Path) -> Option<String> {
        let location = location.as_ref();
        let key = match self.root.as_ref() {
            "" => location,
            root => location.strip_prefix(root)?.strip_prefix('/')?,
        };
        check_key(key).is_ok().then(|| key.to_owned())
    }
}

impl Store for ObjectStore014 {
    fn put<'a>(&'a self, key: &'a str, payload: Payload) -> BoxFuture<'a, Result<()>> {
        async move {
            let put = match self.multipart.is_for(&payload) {
                true => self.put_in_parts(key, payload).await?,
                false => self.put_whole(key, payload, PutMode::Overwrite).await?,
            };
            put.map_err(|error| errors::told(&format!("writing '{key}'"), error))
        }
        .boxed()
    }

    /// One request, however long the object is: no store can be asked to complete an upload in parts only if there is no object yet.
    /// Amazon S3 and Google take 5 GiB in one request, Azure about as much.
    fn create<'a>(&'a self, key: &'a str, payload: Payload) -> BoxFuture<'a, Result<Created>> {
        async move {
            match self.put_whole(key, payload, PutMode::Create).await? {
                Ok(()) => Ok(Created::New),
                Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {
                    Ok(Created::Exists)
                }
                Err(error) => Err(errors::told(&format!("creating '{key}'"), error)),
            }
        }
        .boxed()
    }

    fn read<'a>(&'a self, key: &'a str, range: Option<Range<u64>>) -> BoxFuture<'a, Result<Bytes>> {
        async move {
            match range {
                Some(range) => self.read_range(key, range).await,
                None => self.get(key, None).await?.map_err(|error| errors::told(&format!("reading '{key}'"), error)),
            }
        }
        .boxed()
    }

    fn length<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<u64>>> {
        self.length_at(key).boxed()
    }

    fn list<'a>(&'a self, prefix: &'a str) -> BoxStream<'a, Result<Listed>> {
        self.listed(prefix).unwrap_or_else(|error| stream::iter([Err(error)]).boxed())
    }

    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<()>> {
        async move {
            let (path, inner) = (self.path(key)?, Arc::clone(&self.inner));
            match self.run(async move { inner.delete(&path).await }).await? {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
                Err(error) => Err(errors::told(&format!("deleting '{key}'"), error)),
            }
        }
        .boxed()
    }
}

impl fmt::Debug for ObjectStore014 {
    /// The store's own `Debug` may show credentials; its `Display` says which it is.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let store = format_args!("{}", self.inner);
        f.debug_struct("ObjectStore014")
            .field("store", &store)
            .field("prefix", &self.root.as_ref())
            .finish_non_exhaustive()
    }
}

struct CancelledOnDrop<T>(JoinHandle<T>);

impl<T> Drop for CancelledOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests;
