use super::*;
use crate::error::Result;
use crate::runtime::{Inline, WorkerPool};
use crate::store::files::SystemFiles;
use crate::store::{FileStore, MemoryStore};
use crate::testing::{
    CountingStore, Fault, FaultyStore, Operation, Plan, SeededRandomness, StalledStore, ThrottledStore,
};
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

fn run(store: &dyn Store) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(store_conformance(store))
}

fn with_executor(directory: &tempfile::TempDir, executor: Arc<dyn crate::runtime::Executor>) -> FileStore {
    FileStore::with(directory.path(), Arc::new(SystemFiles), executor, &SeededRandomness::new(1)).unwrap()
}

#[test]
fn the_memory_store_conforms() {
    let store = MemoryStore::new();
    run(&store).unwrap();
    assert!(store.list("").next().now_or_never().unwrap().is_none(), "the suite leaves nothing behind");
}

#[test]
fn the_file_store_conforms_on_one_thread() {
    let directory = tempfile::tempdir().unwrap();
    store_conformance(&with_executor(&directory, Arc::new(Inline))).now_or_never().unwrap().unwrap();
}

#[test]
fn the_file_store_conforms_on_a_worker_pool() {
    let directory = tempfile::tempdir().unwrap();
    run(&with_executor(&directory, Arc::new(WorkerPool::new(8).unwrap()))).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_file_store_conforms_on_tokio() {
    let directory = tempfile::tempdir().unwrap();
    store_conformance(&FileStore::open(directory.path()).unwrap()).await.unwrap();
}

#[test]
fn the_wrappers_conform_when_nothing_is_planned() {
    let memory = || Arc::new(MemoryStore::new());
    run(&FaultyStore::new(memory())).unwrap();
    run(&CountingStore::new(memory())).unwrap();
    let (stalled, handle) = StalledStore::new(memory());
    handle.release_all();
    run(&stalled).unwrap();
    assert!(run(&ThrottledStore::new(memory(), 2, Duration::ZERO)).unwrap_err().contains("Throttled"));
}

#[test]
fn the_suite_finds_every_planned_fault() {
    let faults = [
        (Operation::Put, Fault::Before(ErrorKind::Unavailable)),
        (Operation::Create, Fault::After(ErrorKind::Unavailable)),
        (Operation::Create, Fault::Repeated),
        (Operation::Read, Fault::FlippedBit(0)),
        (Operation::Read, Fault::Short(1)),
        (Operation::Length, Fault::Before(ErrorKind::Unavailable)),
        (Operation::List, Fault::Omitted(0)),
        (Operation::List, Fault::Before(ErrorKind::Denied)),
        (Operation::Delete, Fault::After(ErrorKind::Unavailable)),
    ];
    for (operation, fault) in faults {
        let store = FaultyStore::new(Arc::new(MemoryStore::new()));
        store.plan(Plan::new(operation, fault).forever());
        assert!(run(&store).is_err(), "{operation:?} {fault:?}");
    }
}

/// What the store of an implementor who misread the contract does.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Misreading {
    CreateOverwrites,
    CreateLetsAllRacersWin,
    CreateComparesContent,
    RangeAcrossTheEndFails,
    RangeBehindTheEndFails,
    ListTakesAnyPrefix,
    ListEndsWithAPage,
    ListGivesTwice,
    EmptyIsAbsent,
    DeleteWantsAnObject,
    DeleteTakesTheNeighbour,
    PiecesBeyondTheLimitAreDropped,
}

#[derive(Debug)]
struct Misread {
    inner: MemoryStore,
    misreading: Misreading,
}

impl Misread {
    fn has(&self, misreading: Misreading) -> bool {
        self.misreading == misreading
    }
}

impl Store for Misread {
    fn put<'a>(&'a self, key: &'a str, payload: Payload) -> BoxFuture<'a, Result<()>> {
        if self.has(Misreading::PiecesBeyondTheLimitAreDropped) {
            let pieces = payload.pieces().iter().take(1024).cloned().collect();
            return self.inner.put(key, Payload::new(pieces));
        }
        self.inner.put(key, payload)
    }

    fn create<'a>(&'a self, key: &'a str, payload: Payload) -> BoxFuture<'a, Result<Created>> {
        async move {
            if self.has(Misreading::CreateOverwrites) {
                let existed = self.inner.length(key).await?.is_some();
                self.inner.put(key, payload).await?;
                return Ok(if existed { Created::Exists } else { Created::New });
            }
            if self.has(Misreading::CreateLetsAllRacersWin) {
                // Looks first and writes then, as a server that checks its conditions without a lock.
                if self.inner.length(key).await?.is_some() {
                    return Ok(Created::Exists);
                }
                tokio::task::yield_now().await;
                return self.inner.put(key, payload).await.map(|()| Created::New);
            }
            if self.has(Misreading::CreateComparesContent) {
                let same = self.inner.read(key, None).await.is_ok_and(|octets| octets == payload.pieces().concat());
                let created = self.inner.create(key, payload).await?;
                return Ok(if same { Created::New } else { created });
            }
            self.inner.create(key, payload).await
        }
        .boxed()
    }

    fn read<'a>(&'a self, key: &'a str, range: Option<Range<u64>>) -> BoxFuture<'a, Result<Bytes>> {
        async move {
            let Some(range) = range else { return self.inner.read(key, None).await };
            let length = self.inner.length(key).await?.unwrap_or_default();
            let is_refused = match self.misreading {
                Misreading::RangeAcrossTheEndFails => range.end > length,
                // As HTTP has it: no octet of it is there, so it cannot be satisfied.
                Misreading::RangeBehindTheEndFails => range.start >= length && !range.is_empty(),
                _ => false,
            };
            if is_refused && self.inner.length(key).await?.is_some() {
                return Err(Error::damaged("there are no such octets"));
            }
            self.inner.read(key, Some(range)).await
        }
        .boxed()
    }

    fn length<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<u64>>> {
        async move {
            let length = self.inner.length(key).await?;
            Ok(length.filter(|length| *length > 0 || !self.has(Misreading::EmptyIsAbsent)))
        }
        .boxed()
    }

    fn list<'a>(&'a self, prefix: &'a str) -> BoxStream<'a, Result<Listed>> {
        let all = self.inner.list("").try_filter(move |listed| {
            let cut = if self.has(Misreading::ListTakesAnyPrefix) { prefix.trim_end_matches('/') } else { prefix };
            std::future::ready(listed.key.starts_with(cut))
        });
        match self.misreading {
            Misreading::ListEndsWithAPage => all.take(1000).boxed(),
            Misreading::ListGivesTwice => all
                .flat_map(|listed| {
                    let listed = listed.unwrap();
                    stream::iter([Ok(listed.clone()), Ok(listed)])
                })
                .boxed(),
            _ => all.boxed(),
        }
    }

    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<()>> {
        async move {
            if self.has(Misreading::DeleteWantsAnObject) && self.inner.length(key).await?.is_none() {
                return Err(Error::new(ErrorKind::NotFound, "there is no such object"));
            }
            if self.has(Misreading::DeleteTakesTheNeighbour) {
                let keys: Vec<_> = self.inner.list("").try_collect().await?;
                for Listed { key: other, .. } in keys.into_iter().filter(|listed| listed.key.starts_with(key)) {
                    self.inner.delete(&other).await?;
                }
            }
            self.inner.delete(key).await
        }
        .boxed()
    }
}

#[test]
fn the_suite_finds_every_misreading_of_the_contract() {
    for (misreading, said) in [
        (Misreading::CreateOverwrites, "create: reading it"),
        (Misreading::CreateLetsAllRacersWin, "racing creates: of 16 racers 16"),
        (Misreading::CreateComparesContent, "create: a later one"),
        (Misreading::RangeAcrossTheEndFails, "ranges: the octets 0..100001"),
        (Misreading::RangeBehindTheEndFails, "ranges: the octets 100000..100001"),
        (Misreading::ListTakesAnyPrefix, "listing by prefix: listing 'list/a/' gives 5"),
        (Misreading::ListEndsWithAPage, "listing many objects: "),
        (Misreading::ListGivesTwice, "twice"),
        (Misreading::EmptyIsAbsent, "an empty object: its length"),
        (Misreading::DeleteWantsAnObject, "an absent object: deleting it"),
        (Misreading::DeleteTakesTheNeighbour, "delete: listing"),
        (Misreading::PiecesBeyondTheLimitAreDropped, "a payload in pieces: reading it"),
    ] {
        let wrong = run(&Misread { inner: MemoryStore::new(), misreading }).unwrap_err();
        assert!(wrong.contains(said), "{misreading:?}: {wrong}");
    }
}
