//! A store whose requests are governed.

use super::governor::{Governor, Request, RequestKind, Slot};
use super::{Created, Listed, Payload, Store};
use crate::error::Result;
use bytes::Bytes;
use futures::future::{BoxFuture, Either, FutureExt, select};
use futures::stream::{BoxStream, StreamExt};
use std::ops::Range;
use std::pin::{Pin, pin};
use std::sync::Arc;

/// How many objects a page of a listing has: price lists count pages.
const PAGE: u64 = 1000;

/// Hands everything to another store when its [`Governor`] lets it. A [`Repository`](crate::Repository) puts one below its
/// [`RetryingStore`](super::RetryingStore) if it is [given a governor](crate::repository::Seams::governor), so that every try counts.
///
/// # Cancel safety
/// As the store's: a request that is dropped gives back its place at once.
#[derive(Debug)]
pub struct GovernedStore {
    inner: Arc<dyn Store>,
    governor: Governor,
}

impl GovernedStore {
    /// Governs what is asked of `inner`.
    #[must_use]
    pub fn new(inner: Arc<dyn Store>, governor: Governor) -> Self {
        Self { inner, governor }
    }

    /// Makes a request that gives octets, or none.
    async fn make<T>(
        &self,
        request: Request,
        work: impl Future<Output = Result<T>>,
        octets: impl FnOnce(&T) -> u64,
    ) -> Result<T> {
        let slot = self.governor.admit(request).await;
        ended(slot, work.await, octets)
    }

    /// Reads, and once more if that takes long: the first answer that is one counts.
    async fn read_patiently(&self, key: &str, range: Option<Range<u64>>) -> Result<Bytes> {
        let asked = range.as_ref().map_or(u64::MAX, |range| range.end.saturating_sub(range.start));
        let request = Request::read(asked);
        let slot = self.governor.admit(request).await;
        let first = self.inner.read(key, range.clone());
        let first = match select(first, pin!(self.governor.patience(asked))).await {
            Either::Left((read, _)) => return ended(slot, read, length),
            Either::Right(((), first)) => first,
        };
        let Some(other_slot) = self.governor.hedge(request) else { return ended(slot, first.await, length) };
        let second = self.inner.read(key, range);
        let (read, slot, other, other_slot) = match select(first, second).await {
            Either::Left((read, second)) => (read, slot, second, other_slot),
            Either::Right((read, first)) => (read, other_slot, first, slot),
        };
        match ended(slot, read, length) {
            Ok(octets) => Ok(octets),
            Err(_) => ended(other_slot, other.await, length),
        }
    }

    async fn write<T>(&self, octets: u64, work: impl Future<Output = Result<T>>) -> Result<T> {
        match self.governor.write(octets) {
            Some(request) => self.make(request, work, |_| 0).await,
            None => work.await,
        }
    }
}

fn length(octets: &Bytes) -> u64 {
    octets.len() as u64
}

/// What came of a request, told to the governor.
fn ended<T>(slot: Slot, done: Result<T>, octets: impl FnOnce(&T) -> u64) -> Result<T> {
    match &done {
        Ok(given) => slot.end(None, octets(given)),
        Err(error) => slot.end(Some(error), 0),
    }
    done
}

#[deny(clippy::missing_trait_methods)]
impl Store for GovernedStore {
    fn put<'a>(&'a self, key: &'a str, payload: Payload) -> BoxFuture<'a, Result<()>> {
        async move { self.write(payload.len(), self.inner.put(key, payload)).await }.boxed()
    }

    fn create<'a>(&'a self, key: &'a str, payload: Payload) -> BoxFuture<'a, Result<Created>> {
        async move { self.write(payload.len(), self.inner.create(key, payload)).await }.boxed()
    }

    fn read<'a>(&'a self, key: &'a str, range: Option<Range<u64>>) -> BoxFuture<'a, Result<Bytes>> {
        self.read_patiently(key, range).boxed()
    }

    fn length<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<u64>>> {
        self.make(Request::new(RequestKind::Length, 0), self.inner.length(key), |_| 0).boxed()
    }

    /// A listing is in flight until its first object: it may be read slowly.
    fn list<'a>(&'a self, prefix: &'a str) -> BoxStream<'a, Result<Listed>> {
        let begun = async move {
            let slot = self.governor.admit(Request::new(RequestKind::List, 0)).await;
            let mut listing = self.inner.list(prefix).peekable();
            let first = Pin::new(&mut listing).peek().await;
            slot.end(first.and_then(|first| first.as_ref().err()), 0);
            let mut listed = 0_u64;
            listing.inspect(move |_| {
                listed += 1;
                if listed > PAGE && listed % PAGE == 1 {
                    self.governor.count(RequestKind::List);
                }
            })
        };
        begun.flatten_stream().boxed()
    }

    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<()>> {
        self.make(Request::new(RequestKind::Delete, 0), self.inner.delete(key), |()| 0).boxed()
    }
}
