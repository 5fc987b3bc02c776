//! A store whose writes wait to be released.

use crate::error::Result;
use crate::store::{Created, Listed, Payload, Store};
use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt};
use futures::stream::BoxStream;
use std::ops::Range;
use std::sync::Arc;
use tokio::sync::{Semaphore, watch};

/// Hands everything to another store, but begins a write (`put`, `create`) only when its [handle](StallHandle) releases it. For tests of
/// what goes on, and what must not, while nothing gets written.
#[derive(Debug)]
pub struct StalledStore {
    inner: Arc<dyn Store>,
    gate: Arc<Gate>,
}

/// Releases the writes of a [`StalledStore`]. Clones release the same.
#[derive(Clone, Debug)]
pub struct StallHandle {
    gate: Arc<Gate>,
}

#[derive(Debug)]
struct Gate {
    /// One permit for each write that may begin; closed when all may.
    permits: Semaphore,
    /// How many writes wait.
    waiting: watch::Sender<usize>,
}

impl StalledStore {
    /// Stalls the writes to `inner`.
    #[must_use]
    pub fn new(inner: Arc<dyn Store>) -> (Self, StallHandle) {
        let gate = Arc::new(Gate { permits: Semaphore::new(0), waiting: watch::Sender::new(0) });
        (Self { inner, gate: Arc::clone(&gate) }, StallHandle { gate })
    }
}

impl StallHandle {
    /// Lets as many writes begin, in the order in which they came; future ones, if fewer wait.
    pub fn release(&self, writes: usize) {
        self.gate.permits.add_permits(writes);
    }

    /// Lets every write begin from now on.
    pub fn release_all(&self) {
        self.gate.permits.close();
    }

    /// How many writes wait now.
    #[must_use]
    pub fn waiting(&self) -> usize {
        *self.gate.waiting.borrow()
    }

    /// Resolves when at least as many writes wait.
    ///
    /// # Cancel safety
    /// Nothing happens if the future is dropped.
    pub async fn reached(&self, writes: usize) {
        // The gate holds the sender, so it cannot be gone.
        let _ = self.gate.waiting.subscribe().wait_for(|waiting| *waiting >= writes).await;
    }
}

impl Gate {
    async fn pass(&self) {
        let _waiting = Waiting::new(&self.waiting);
        // An error says that the gate is open for good.
        if let Ok(permit) = self.permits.acquire().await {
            permit.forget();
        }
    }
}

/// A write that waits. One whose future is dropped waits no more.
struct Waiting<'a>(&'a watch::Sender<usize>);

impl<'a> Waiting<'a> {
    fn new(count: &'a watch::Sender<usize>) -> Self {
        count.send_modify(|waiting| *waiting += 1);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|waiting| *waiting -= 1);
    }
}

#[deny(clippy::missing_trait_methods)]
impl Store for StalledStore {
    fn put<'a>(&'a self, key: &'a str, payload: Payload) -> BoxFuture<'a, Result<()>> {
        async move {
            self.gate.pass().await;
            self.inner.put(key, payload).await
        }
        .boxed()
    }

    fn create<'a>(&'a self, key: &'a str, payload: Payload) -> BoxFuture<'a, Result<Created>> {
        async move {
            self.gate.pass().await;
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
        self.inner.delete(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MemoryStore;
    use futures::poll;

    #[test]
    fn writes_begin_one_by_one_as_they_are_released() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (store, handle) = StalledStore::new(Arc::new(MemoryStore::new()));
            let mut first = store.put("a", Payload::default());
            let mut second = store.create("b", Payload::default());
            assert!(poll!(&mut first).is_pending());
            assert!(poll!(&mut second).is_pending());
            handle.reached(2).await;
            handle.release(1);
            assert!(poll!(&mut second).is_pending());
            first.await.unwrap();
            assert_eq!(handle.waiting(), 1);
            assert_eq!(store.length("a").await.unwrap(), Some(0));
            assert_eq!(store.length("b").await.unwrap(), None);
            drop(second);
            assert_eq!(handle.waiting(), 0);
            handle.release_all();
            store.put("c", Payload::default()).await.unwrap();
        });
    }
}
