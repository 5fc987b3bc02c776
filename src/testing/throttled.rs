//! A store that asks for fewer requests.

use crate::error::{Error, ErrorKind, Result, Retry};
use crate::store::{Created, Listed, Payload, Store};
use bytes::Bytes;
use futures::future::{self, BoxFuture, FutureExt};
use futures::stream::{self, BoxStream, StreamExt};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Refuses the first of every so many operations as [`Throttled`](ErrorKind::Throttled), without effect, and hands the others to another store.
#[derive(Debug)]
pub struct ThrottledStore {
    inner: Arc<dyn Store>,
    every: u64,
    wait: Duration,
    asked: AtomicU64,
}

impl ThrottledStore {
    /// Refuses operations number 1, `every` + 1, 2 * `every` + 1 and so on, and asks to wait for `wait`. With one (or zero) for `every` it
    /// refuses all, so two is the least with which anybody gets on.
    #[must_use]
    pub fn new(inner: Arc<dyn Store>, every: u64, wait: Duration) -> Self {
        Self { inner, every: every.max(1), wait, asked: AtomicU64::new(0) }
    }

    /// How many operations were refused so far.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.asked.load(Ordering::Relaxed).div_ceil(self.every)
    }

    async fn admit(&self) -> Result<()> {
        if !self.asked.fetch_add(1, Ordering::Relaxed).is_multiple_of(self.every) {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Throttled, "the store asks for fewer requests").retry_as(Retry::After(self.wait)))
    }
}

#[deny(clippy::missing_trait_methods)]
impl Store for ThrottledStore {
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
        async move {
            self.admit().await?;
            self.inner.read(key, range).await
        }
        .boxed()
    }

    fn length<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<u64>>> {
        async move {
            self.admit().await?;
            self.inner.length(key).await
        }
        .boxed()
    }

    fn list<'a>(&'a self, prefix: &'a str) -> BoxStream<'a, Result<Listed>> {
        let listed = self.admit().map(move |admitted| match admitted {
            Ok(()) => self.inner.list(prefix),
            Err(error) => stream::once(future::ready(Err(error))).boxed(),
        });
        listed.flatten_stream().boxed()
    }

    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<()>> {
        async move {
            self.admit().await?;
            self.inner.delete(key).await
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MemoryStore;

    #[test]
    fn every_second_operation_is_refused_and_has_no_effect() {
        let wait = Duration::from_secs(3);
        let store = ThrottledStore::new(Arc::new(MemoryStore::new()), 2, wait);
        let refusal = store.put("a", Payload::default()).now_or_never().unwrap().unwrap_err();
        assert_eq!((refusal.kind(), refusal.retry()), (ErrorKind::Throttled, Retry::After(wait)));
        assert_eq!(store.length("a").now_or_never().unwrap().unwrap(), None);
        assert_eq!(store.refused(), 1);
        assert!(store.list("").next().now_or_never().unwrap().unwrap().is_err());
        assert!(store.put("a", Payload::default()).now_or_never().unwrap().is_ok());
        assert_eq!(store.refused(), 2);
    }
}
