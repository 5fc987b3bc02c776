//! A store that tries again. All of a repository's operations go through one.

use super::{Created, Listed, Payload, Store};
use crate::error::{Error, Result, Retry};
use crate::runtime::Timer;
use backon::{ExponentialBuilder, Retryable};
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt, TryStreamExt};
use std::future::IntoFuture;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How often, and after which pauses, an operation that a store could not do for now is tried again.
///
/// Only what [`Retry`] says is worth it. Pauses double, each with up to as much again added at random, so that many clients do not come back
/// at once; a store that says when to come back is believed, up to [`pause_max`](Self::pause_max).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Retries {
    /// How often an operation is tried again. 9 by default: with the other defaults, about one to two minutes.
    pub times: usize,
    /// The first pause. 100 ms by default.
    pub pause_min: Duration,
    /// The longest pause, and the longest that a store may ask for. 30 s by default.
    pub pause_max: Duration,
}

impl Default for Retries {
    fn default() -> Self {
        Self { times: 9, pause_min: Duration::from_millis(100), pause_max: Duration::from_secs(30) }
    }
}

impl Retries {
    /// Nothing is tried again.
    #[must_use]
    pub fn none() -> Self {
        Self { times: 0, ..Self::default() }
    }

    fn backoff(&self, seed: u64) -> ExponentialBuilder {
        ExponentialBuilder::new()
            .with_min_delay(self.pause_min)
            .with_max_delay(self.pause_max)
            .with_max_times(self.times)
            .with_jitter()
            .with_jitter_seed(seed)
    }

    /// The pause after an error, if there is to be one.
    fn pause(&self, error: &Error, planned: Option<Duration>) -> Option<Duration> {
        match error.retry() {
            Retry::After(asked) => planned.map(|planned| planned.max(asked).min(self.pause_max)),
            _ => planned,
        }
    }
}

/// Hands everything to another store, again and again where that is worth it. A [`Repository`](crate::Repository) puts one in front of its store by itself.
///
/// A *create* that is tried again may find its own object, as the contract of [`Store::create`] says. A listing is begun anew only if it failed before its first object.
#[derive(Debug)]
pub struct RetryingStore {
    inner: Arc<dyn Store>,
    retries: Retries,
    timer: Arc<dyn Timer>,
    /// What the random pauses of the next operation come from.
    seed: AtomicU64,
}

impl RetryingStore {
    /// Tries `inner` again as `retries` say. `seed` gives the random part of pauses: it should be random, and may be known to anybody.
    #[must_use]
    pub fn new(inner: Arc<dyn Store>, retries: Retries, timer: Arc<dyn Timer>, seed: u64) -> Self {
        Self { inner, retries, timer, seed: AtomicU64::new(seed) }
    }

    fn persist<'a, T: Send + 'a>(
        &'a self,
        operation: impl FnMut() -> BoxFuture<'a, Result<T>> + Send + 'a,
    ) -> BoxFuture<'a, Result<T>> {
        let seed = self.seed.fetch_add(1, Ordering::Relaxed);
        let timer = Arc::clone(&self.timer);
        operation
            .retry(self.retries.backoff(seed))
            .sleep(move |time| timer.sleep(time))
            .when(|error: &Error| error.retry() != Retry::Never)
            .adjust(|error: &Error, planned| self.retries.pause(error, planned))
            .into_future()
            .boxed()
    }
}

#[deny(clippy::missing_trait_methods)]
impl Store for RetryingStore {
    fn put<'a>(&'a self, key: &'a str, payload: Payload) -> BoxFuture<'a, Result<()>> {
        self.persist(move || self.inner.put(key, payload.clone()))
    }

    fn create<'a>(&'a self, key: &'a str, payload: Payload) -> BoxFuture<'a, Result<Created>> {
        self.persist(move || self.inner.create(key, payload.clone()))
    }

    fn read<'a>(&'a self, key: &'a str, range: Option<Range<u64>>) -> BoxFuture<'a, Result<Bytes>> {
        self.persist(move || self.inner.read(key, range.clone()))
    }

    fn length<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<u64>>> {
        self.persist(move || self.inner.length(key))
    }

    fn list<'a>(&'a self, prefix: &'a str) -> BoxStream<'a, Result<Listed>> {
        let begun = self.persist(move || {
            let mut listing = self.inner.list(prefix);
            async move {
                let first = listing.try_next().await?;
                Ok(stream::iter(first.map(Ok)).chain(listing))
            }
            .boxed()
        });
        stream::once(begun).try_flatten().boxed()
    }

    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<()>> {
        self.persist(move || self.inner.delete(key))
    }
}
