//! A store that is probed before it is written to.

use super::probe::{Findings, Writers, probe};
use super::{Created, Listed, Payload, Store};
use crate::error::{Error, ErrorKind, Result};
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::OnceCell;

/// What probes found, by the name of the store: who shares it (clones do) probes each store once.
#[derive(Clone, Default)]
pub struct Probes(Arc<Mutex<BTreeMap<String, Arc<OnceCell<Findings>>>>>);

impl Probes {
    /// Nothing was found yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn of(&self, name: &str) -> Arc<OnceCell<Findings>> {
        let mut probes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(probes.entry(name.to_owned()).or_default())
    }
}

impl fmt::Debug for Probes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let probes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        f.debug_map().entries(probes.iter().map(|(name, found)| (name, found.get()))).finish()
    }
}

/// Hands everything to another store, which is [probed](probe) before the first write, and refuses writes if it does not keep what the writers rely on.
/// Reading needs no probe.
///
/// The stores of [`StoreUrl`](super::StoreUrl)s in buckets are in one; [`FileStore`](super::FileStore) and [`MemoryStore`](super::MemoryStore) are known to keep it.
///
/// # Errors
/// [`Unsupported`](ErrorKind::Unsupported) for a write if the store was found not to be fit for it; of the first write also what the probe met.
#[derive(Clone, Debug)]
pub struct ProbedStore {
    inner: Arc<dyn Store>,
    name: String,
    writers: Writers,
    probes: Probes,
}

impl ProbedStore {
    /// `inner`, to be written to by these. It is probed once for all that share `probes` and give it the same `name`.
    #[must_use]
    pub fn new(inner: Arc<dyn Store>, name: impl Into<String>, writers: Writers, probes: Probes) -> Self {
        Self { inner, name: name.into(), writers, probes }
    }

    /// What the probe found. The first to ask, or to write, waits for it.
    ///
    /// # Errors
    /// What the store reports. Then nothing is known, and the next to ask probes again.
    ///
    /// # Cancel safety
    /// As that of [`probe`].
    pub async fn findings(&self) -> Result<Findings> {
        let cell = self.probes.of(&self.name);
        cell.get_or_try_init(|| probe(Arc::clone(&self.inner))).await.cloned()
    }

    async fn admit(&self) -> Result<()> {
        let findings = self.findings().await?;
        if findings.is_fit_for(self.writers) {
            return Ok(());
        }
        let advice = match findings.is_fit_for(Writers::One) {
            true => {
                "use another store, or vouch that no two processes ever write to the repository at once (--single-writer, Writers::One)"
            }
            false => "use another store",
        };
        let name = &self.name;
        Err(Error::new(ErrorKind::Unsupported, format!("'{name}' is no store to write to: {findings}; {advice}")))
    }
}

#[deny(clippy::missing_trait_methods)]
impl Store for ProbedStore {
    fn put<'a>(&'a self, key: &'a str, payload: Payload) -> BoxFuture<'a, Result<()>> {
        async move {
            self.admit().await?;
            self.inner.put(key, payload).await
        }
        .boxed()
    }

    fn create<'a>(&'a self, key: &'a str, payload: Payload) -> BoxFuture<'a, Result<Created>> {
        async move {
            self.admit().await?;
            self.inner.create(key, payload).await
        }
        .boxed()
    }

    fn read<'a>(&'a self, key: &'a str, range: Option<Range<u64>>) -> BoxFuture<'a, Result<Bytes>> {
        self.inner.read(key, range)
    }

    fn length<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<u64>>> {
        self.inner.length(key)
    }

    fn list<'a>(&'a self, prefix: &'a str) -> BoxStream<'a, Result<Listed>> {
        self.inner.list(prefix)
    }

    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<()>> {
        async move {
            self.admit().await?;
            self.inner.delete(key).await
        }
        .boxed()
    }
}
