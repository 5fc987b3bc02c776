//! A store that counts.

use super::Operation;
use crate::error::Result;
use crate::store::{Created, Listed, Payload, Store};
use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt};
use futures::stream::{BoxStream, StreamExt};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Hands everything to another store, and counts operations and octets by operation and class of object.
///
/// The class of an object is the first name of its key: `packs` of `packs/0f/12`, `config` of `config`. The class of a listing is that of its
/// prefix. Clones share the counts.
#[derive(Clone, Debug)]
pub struct CountingStore {
    inner: Arc<dyn Store>,
    counts: Arc<Mutex<BTreeMap<(Operation, String), Count>>>,
}

/// How much was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Count {
    /// Operations begun, whatever came of them.
    pub operations: u64,
    /// Octets given to `put` and `create`, or got from `read`; for `list` the number of objects listed.
    pub octets: u64,
}

impl CountingStore {
    /// Counts what is done to `inner`.
    #[must_use]
    pub fn new(inner: Arc<dyn Store>) -> Self {
        Self { inner, counts: Arc::default() }
    }

    /// What was done with `operation` to objects of `class`.
    #[must_use]
    pub fn count(&self, operation: Operation, class: &str) -> Count {
        self.counts().get(&(operation, class.to_owned())).copied().unwrap_or_default()
    }

    /// What was done with `operation` to objects of all classes.
    #[must_use]
    pub fn total(&self, operation: Operation) -> Count {
        let mut total = Count::default();
        for (_, count) in self.counts().iter().filter(|((counted, _), _)| *counted == operation) {
            total.operations += count.operations;
            total.octets += count.octets;
        }
        total
    }

    /// Begins to count anew.
    pub fn reset(&self) {
        self.counts().clear();
    }

    fn add(&self, operation: Operation, key: &str, operations: u64, octets: u64) {
        let class = key.split('/').next().unwrap_or_default();
        let mut counts = self.counts();
        let count = counts.entry((operation, class.to_owned())).or_default();
        count.operations += operations;
        count.octets += octets;
    }

    fn counts(&self) -> MutexGuard<'_, BTreeMap<(Operation, String), Count>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[deny(clippy::missing_trait_methods)]
impl Store for CountingStore {
    fn put<'a>(&'a self, key: &'a str, payload: Payload) -> BoxFuture<'a, Result<()>> {
        async move {
            self.add(Operation::Put, key, 1, payload.len());
            self.inner.put(key, payload).await
        }
        .boxed()
    }

    fn create<'a>(&'a self, key: &'a str, payload: Payload) -> BoxFuture<'a, Result<Created>> {
        async move {
            self.add(Operation::Create, key, 1, payload.len());
            self.inner.create(key, payload).await
        }
        .boxed()
    }

    fn read<'a>(&'a self, key: &'a str, range: Option<Range<u64>>) -> BoxFuture<'a, Result<Bytes>> {
        async move {
            self.add(Operation::Read, key, 1, 0);
            let octets = self.inner.read(key, range).await?;
            self.add(Operation::Read, key, 0, octets.len() as u64);
            Ok(octets)
        }
        .boxed()
    }

    fn length<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<u64>>> {
        async move {
            self.add(Operation::Length, key, 1, 0);
            self.inner.length(key).await
        }
        .boxed()
    }

    fn list<'a>(&'a self, prefix: &'a str) -> BoxStream<'a, Result<Listed>> {
        self.add(Operation::List, prefix, 1, 0);
        let count = move |listed: &Result<Listed>| self.add(Operation::List, prefix, 0, listed.is_ok().into());
        self.inner.list(prefix).inspect(count).boxed()
    }

    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<()>> {
        async move {
            self.add(Operation::Delete, key, 1, 0);
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
    fn operations_and_octets_are_counted_by_class() {
        let store = CountingStore::new(Arc::new(MemoryStore::new()));
        store.put("packs/a", Payload::from(vec![0; 10])).now_or_never().unwrap().unwrap();
        store.put("packs/b", Payload::from(vec![0; 5])).now_or_never().unwrap().unwrap();
        store.create("config", Payload::from(vec![0; 3])).now_or_never().unwrap().unwrap();
        store.read("packs/a", Some(2..4)).now_or_never().unwrap().unwrap();
        assert!(store.read("packs/none", None).now_or_never().unwrap().is_err());
        assert_eq!(store.list("packs/").count().now_or_never().unwrap(), 2);
        assert_eq!(store.count(Operation::Put, "packs"), Count { operations: 2, octets: 15 });
        assert_eq!(store.count(Operation::Create, "config"), Count { operations: 1, octets: 3 });
        assert_eq!(store.total(Operation::Read), Count { operations: 2, octets: 2 });
        assert_eq!(store.count(Operation::List, "packs"), Count { operations: 1, octets: 2 });
        store.reset();
        assert_eq!(store.total(Operation::Put), Count::default());
    }
}
