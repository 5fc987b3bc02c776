//! A store in memory.

use super::key::{check_key, check_prefix, check_range};
use super::{Created, Listed, Payload, Store};
use crate::error::{Error, ErrorKind, Result};
use bytes::{Bytes, BytesMut};
use futures::future::{self, BoxFuture, FutureExt};
use futures::stream::{self, BoxStream, StreamExt};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A store in memory: for tests, and for small things that need not outlive the process. Clones share their objects.
///
/// Every operation takes effect, whole, when its future is first polled, and is done then: there is nothing to wait for.
/// Objects are listed in the order of their keys.
#[derive(Clone, Default)]
pub struct MemoryStore {
    objects: Arc<Mutex<BTreeMap<String, Bytes>>>,
}

impl MemoryStore {
    /// A store without objects.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn objects(&self) -> MutexGuard<'_, BTreeMap<String, Bytes>> {
        // Every change to the map is one call of its own, so a panic elsewhere cannot have left it half changed.
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, key: &str, range: Option<Range<u64>>) -> Result<Bytes> {
        check_key(key)?;
        let object = self.objects().get(key).cloned();
        let object = object.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("there is no object '{key}'")))?;
        let Some(range) = range else { return Ok(object) };
        check_range(&range)?;
        // Neither end is above the length, which is a `usize`.
        let cut = |end: u64| end.min(object.len() as u64) as usize;
        Ok(object.slice(cut(range.start)..cut(range.end)))
    }

    fn list_now(&self, prefix: &str) -> Result<Vec<Listed>> {
        check_prefix(prefix)?;
        let objects = self.objects();
        let from = objects.range(prefix.to_owned()..).take_while(|(key, _)| key.starts_with(prefix));
        Ok(from.map(|(key, object)| Listed { key: key.clone(), length: object.len() as u64 }).collect())
    }
}

impl Store for MemoryStore {
    fn put<'a>(&'a self, key: &'a str, payload: Payload) -> BoxFuture<'a, Result<()>> {
        future::lazy(move |_| {
            check_key(key)?;
            self.objects().insert(key.to_owned(), join(&payload));
            Ok(())
        })
        .boxed()
    }

    fn create<'a>(&'a self, key: &'a str, payload: Payload) -> BoxFuture<'a, Result<Created>> {
        future::lazy(move |_| {
            check_key(key)?;
            let object = join(&payload);
            let mut objects = self.objects();
            if objects.contains_key(key) {
                return Ok(Created::Exists);
            }
            objects.insert(key.to_owned(), object);
            Ok(Created::New)
        })
        .boxed()
    }

    fn read<'a>(&'a self, key: &'a str, range: Option<Range<u64>>) -> BoxFuture<'a, Result<Bytes>> {
        future::lazy(move |_| self.find(key, range)).boxed()
    }

    fn length<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<u64>>> {
        future::lazy(move |_| {
            check_key(key)?;
            Ok(self.objects().get(key).map(|object| object.len() as u64))
        })
        .boxed()
    }

    fn list<'a>(&'a self, prefix: &'a str) -> BoxStream<'a, Result<Listed>> {
        let listed = future::lazy(move |_| match self.list_now(prefix) {
            Ok(listed) => listed.into_iter().map(Ok).collect(),
            Err(error) => vec![Err(error)],
        });
        listed.map(stream::iter).flatten_stream().boxed()
    }

    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<()>> {
        future::lazy(move |_| {
            check_key(key)?;
            self.objects().remove(key);
            Ok(())
        })
        .boxed()
    }
}

/// The number of objects and of their octets; the objects themselves would flood a log.
impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let objects = self.objects();
        let octets: usize = objects.values().map(Bytes::len).sum();
        f.debug_struct("MemoryStore").field("objects", &objects.len()).field("octets", &octets).finish()
    }
}

/// The pieces in one buffer; a single piece is shared, not copied.
fn join(payload: &Payload) -> Bytes {
    if let [piece] = payload.pieces() {
        return piece.clone();
    }
    let mut joined = BytesMut::new();
    for piece in payload.pieces() {
        joined.extend_from_slice(piece);
    }
    joined.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_share_their_objects() {
        let store = MemoryStore::new();
        let clone = store.clone();
        store.put("a", Payload::from(b"octets".to_vec())).now_or_never().unwrap().unwrap();
        assert_eq!(clone.read("a", Some(1..3)).now_or_never().unwrap().unwrap(), "ct");
    }

    #[test]
    fn what_is_no_key_is_refused_by_every_operation() {
        let store = MemoryStore::new();
        let kinds = [
            store.put("../a", Payload::default()).now_or_never().unwrap().unwrap_err().kind(),
            store.create("/a", Payload::default()).now_or_never().unwrap().unwrap_err().kind(),
            store.read("A", None).now_or_never().unwrap().unwrap_err().kind(),
            store.length("").now_or_never().unwrap().unwrap_err().kind(),
            store.list("a").next().now_or_never().unwrap().unwrap().unwrap_err().kind(),
            store.delete(".").now_or_never().unwrap().unwrap_err().kind(),
        ];
        assert_eq!(kinds, [ErrorKind::Invalid; 6]);
    }
}
