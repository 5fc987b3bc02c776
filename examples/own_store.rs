//! A store of one's own: one that keeps every object in two other stores, and proves itself with the conformance suite.
//!
//! Run it with `cargo run --example own_store --features testing`.

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt};
use futures::stream::BoxStream;
use mailrail::store::{Created, FileStore, Listed, MemoryStore, Payload, Store};
use mailrail::testing::{Fault, FaultyStore, Operation, Plan, store_conformance};
use mailrail::{Error, ErrorKind, Result};
use std::ops::Range;
use std::sync::Arc;

/// Keeps every object in two stores.
///
/// The first one is the one that counts: it decides who creates an object, and it is what a listing shows. The second one
/// never has an object that the first one has not had. A write resolves when both have it.
#[derive(Debug)]
struct Mirror {
    first: Arc<dyn Store>,
    second: Arc<dyn Store>,
}

impl Store for Mirror {
    // Payloads are cheap to clone: their pieces are shared, not copied.
    fn put<'a>(&'a self, key: &'a str, payload: Payload) -> BoxFuture<'a, Result<()>> {
        async move {
            self.first.put(key, payload.clone()).await?;
            self.second.put(key, payload).await
        }
        .boxed()
    }

    // Two conditional writes would not do: of two racers, each might win in one of the stores. So the second store is only ever given
    // what the first one has, and it does not matter who gives it, or how often.
    fn create<'a>(&'a self, key: &'a str, payload: Payload) -> BoxFuture<'a, Result<Created>> {
        async move {
            let created = self.first.create(key, payload.clone()).await?;
            match created {
                Created::New => self.second.put(key, payload).await?,
                // Whoever is told that an object exists builds on it, and its writer may have been killed between the two stores.
                Created::Exists => self.copy(key).await?,
            }
            Ok(created)
        }
        .boxed()
    }

    // An object that the first store has lost, or cannot give just now, is read from the second. What is not the store's fault, such as
    // a key that is none, would fail there as well.
    fn read<'a>(&'a self, key: &'a str, range: Option<Range<u64>>) -> BoxFuture<'a, Result<Bytes>> {
        async move {
            match self.first.read(key, range.clone()).await {
                Err(error) => self.second.read(key, range).await.map_err(|_| error),
                octets => octets,
            }
        }
        .boxed()
    }

    fn length<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<u64>>> {
        async move {
            match self.first.length(key).await? {
                None => self.second.length(key).await,
                length => Ok(length),
            }
        }
        .boxed()
    }

    fn list<'a>(&'a self, prefix: &'a str) -> BoxStream<'a, Result<Listed>> {
        self.first.list(prefix)
    }

    // The second store first: otherwise a deletion that is cut off in between would leave an object that can be read and is not listed.
    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<()>> {
        async move {
            self.second.delete(key).await?;
            self.first.delete(key).await
        }
        .boxed()
    }
}

impl Mirror {
    /// Gives the second store what the first one has.
    async fn copy(&self, key: &str) -> Result<()> {
        let octets = self.first.read(key, None).await?;
        if self.second.length(key).await? == Some(octets.len() as u64) {
            return Ok(());
        }
        self.second.put(key, octets.into()).await
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = tempfile::tempdir()?;
    let first = FaultyStore::new(Arc::new(MemoryStore::new()));
    let mirror = Mirror { first: Arc::new(first.clone()), second: Arc::new(FileStore::open(directory.path())?) };

    store_conformance(&mirror).await?;
    println!("The mirror holds the contract of a store.");

    mirror.put("packs/0f/1", Bytes::from_static(b"octets").into()).await?;
    first.plan(Plan::new(Operation::Read, Fault::Before(ErrorKind::Unavailable)).forever());
    let octets = mirror.read("packs/0f/1", None).await?;
    if octets != "octets" {
        return Err(Error::new(ErrorKind::Damaged, "the second store gave other octets").into());
    }
    println!("With its first store down, the mirror reads from the second.");
    Ok(())
}
