//! A store that takes its time.

use crate::error::Result;
use crate::runtime::Timer;
use crate::store::{Created, Listed, Payload, Store};
use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt};
use futures::stream::{BoxStream, StreamExt};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// Hands everything to another store after so much time by a timer: with [`VirtualTime`](super::VirtualTime) that takes none.
#[derive(Debug)]
pub struct SlowStore {
    inner: Arc<dyn Store>,
    timer: Arc<dyn Timer>,
    latency: Duration,
}

impl SlowStore {
    /// Every operation takes `latency` before it has any effect.
    #[must_use]
    pub fn new(inner: Arc<dyn Store>, timer: Arc<dyn Timer>, latency: Duration) -> Self {
        Self { inner, timer, latency }
    }

    async fn wait(&self) {
        self.timer.sleep(self.latency).await;
    }
}

#[deny(clippy::missing_trait_methods)]
impl Store for SlowStore {
    fn put<'a>(&'a self, key: &'a str, payload: Payload) -> BoxFuture<'a, Result<()>> {
        self.wait().then(move |()| self.inner.put(key, payload)).boxed()
    }

    fn create<'a>(&'a self, key: &'a str, payload: Payload) -> BoxFuture<'a, Result<Created>> {
        self.wait().then(move |()| self.inner.create(key, payload)).boxed()
    }

    fn read<'a>(&'a self, key: &'a str, range: Option<Range<u64>>) -> BoxFuture<'a, Result<Bytes>> {
        self.wait().then(move |()| self.inner.read(key, range)).boxed()
    }

    fn length<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<u64>>> {
        self.wait().then(move |()| self.inner.length(key)).boxed()
    }

    fn list<'a>(&'a self, prefix: &'a str) -> BoxStream<'a, Result<Listed>> {
        self.wait().map(move |()| self.inner.list(prefix)).flatten_stream().boxed()
    }

    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<()>> {
        self.wait().then(move |()| self.inner.delete(key)).boxed()
    }
}
