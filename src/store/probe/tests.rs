use super::*;
use crate::store::{Listed, MemoryStore, ProbedStore, Probes, Store};
use crate::testing::{CountingStore, Fault, FaultyStore, Operation, Plan};
use futures::executor::block_on;
use futures::stream::{BoxStream, StreamExt};
use std::sync::atomic::{AtomicUsize, Ordering};

/// What a store does that is not fit for something.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fails {
    /// A create overwrites.
    Overwrites,
    /// A create overwrites, and tells that the object was there.
    OverwritesAndTells,
    /// The first few of racers win, though those that come later do not.
    RacersWin,
    /// An object is there only when it was asked for once.
    ReadsLate,
    ListsLate,
    IgnoresRanges,
}

#[derive(Debug)]
struct Failing {
    inner: MemoryStore,
    fails: Fails,
    asked: AtomicUsize,
}

impl Failing {
    fn new(fails: Fails) -> Arc<Self> {
        Arc::new(Self { inner: MemoryStore::new(), fails, asked: AtomicUsize::new(0) })
    }
}

impl Store for Failing {
    fn put<'a>(&'a self, key: &'a str, payload: Payload) -> BoxFuture<'a, Result<()>> {
        self.inner.put(key, payload)
    }

    fn create<'a>(&'a self, key: &'a str, payload: Payload) -> BoxFuture<'a, Result<Created>> {
        async move {
            let is_there = self.inner.length(key).await?.is_some();
            match self.fails {
                Fails::Overwrites => self.inner.put(key, payload).await.map(|()| Created::New),
                Fails::OverwritesAndTells => {
                    self.inner.put(key, payload).await?;
                    Ok(if is_there { Created::Exists } else { Created::New })
                }
                Fails::RacersWin if !is_there => {
                    // Looks, and writes a moment later.
                    if self.asked.fetch_add(1, Ordering::Relaxed) % 8 < 2 {
                        tokio::task::yield_now().await;
                        return self.inner.put(key, payload).await.map(|()| Created::New);
                    }
                    self.inner.create(key, payload).await
                }
                _ => self.inner.create(key, payload).await,
            }
        }
        .boxed()
    }

    fn read<'a>(&'a self, key: &'a str, range: Option<std::ops::Range<u64>>) -> BoxFuture<'a, Result<Bytes>> {
        match self.fails {
            Fails::ReadsLate => self.inner.read("probe/nothing", range),
            Fails::IgnoresRanges => self.inner.read(key, range.map(|range| range.start..range.start + 1)),
            _ => self.inner.read(key, range),
        }
    }

    fn length<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<u64>>> {
        self.inner.length(key)
    }

    fn list<'a>(&'a self, prefix: &'a str) -> BoxStream<'a, Result<Listed>> {
        let late = usize::from(self.fails == Fails::ListsLate);
        self.inner.list(prefix).skip(late).boxed()
    }

    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<()>> {
        self.inner.delete(key)
    }
}

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work)
}

#[test]
fn a_store_that_keeps_what_writers_rely_on_is_found_to_and_nothing_is_left_in_it() {
    let memory = MemoryStore::new();
    let findings = run(probe(Arc::new(memory.clone()))).unwrap();
    assert_eq!(findings, Findings::default());
    assert!(findings.is_fit_for(Writers::Any));
    assert!(block_on(memory.list("").next()).is_none());
}

#[test]
fn what_fails_is_found_and_who_may_write_all_the_same() {
    for (fails, said, one_may) in [
        (Fails::Overwrites, "creating an object that is there overwrites it", true),
        (Fails::OverwritesAndTells, "creating an object that is there overwrites it", true),
        (Fails::RacersWin, "of 8 that create the same object at once", true),
        (Fails::ReadsLate, "an object is not there after it was created", false),
        (Fails::ListsLate, "an object is not listed after it was written", false),
        (Fails::IgnoresRanges, "are not read as they were written", false),
    ] {
        let findings = run(probe(Failing::new(fails))).unwrap();
        assert!(findings.to_string().contains(said), "{fails:?}: {findings}");
        let fit = [findings.is_fit_for(Writers::Any), findings.is_fit_for(Writers::One)];
        assert_eq!(fit, [false, one_may], "{fails:?}");
    }
}

#[test]
fn lost_answers_are_no_findings() {
    let faulty = FaultyStore::new(Arc::new(MemoryStore::new()));
    faulty.plan(Plan::new(Operation::Create, Fault::After(ErrorKind::Unavailable)));
    assert!(run(probe(Arc::new(faulty))).unwrap().is_fit_for(Writers::Any));
}

#[test]
fn a_store_is_probed_before_its_first_write_and_once_for_all_that_share_it() {
    let counted = Arc::new(CountingStore::new(Arc::new(MemoryStore::new())));
    let probes = Probes::new();
    let probed = || ProbedStore::new(counted.clone(), "it", Writers::Any, probes.clone());
    let creates = || counted.total(Operation::Create).operations;
    run(async {
        assert_eq!(probed().length("a").await.unwrap(), None);
        assert_eq!(creates(), 0, "reading needs no probe");
        probed().put("a", Payload::from(vec![1])).await.unwrap();
        let once = creates();
        assert!(once > 0);
        probed().put("b", Payload::from(vec![1])).await.unwrap();
        assert_eq!(creates(), once);
        ProbedStore::new(counted.clone(), "another", Writers::Any, probes.clone()).delete("b").await.unwrap();
        assert_eq!(creates(), 2 * once);
    });
}

#[test]
fn a_store_that_is_not_fit_is_not_written_to_and_the_error_says_what_to_do() {
    let failing = Failing::new(Fails::Overwrites);
    let probed = |writers| ProbedStore::new(failing.clone(), "s3://it", writers, Probes::new());
    run(async {
        let refused = probed(Writers::Any).put("a", Payload::from(vec![1])).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Unsupported);
        let text = refused.to_string();
        assert!(text.contains("s3://it") && text.contains("overwrites") && text.contains("--single-writer"), "{text}");
        assert!(failing.inner.list("").next().await.is_none());
        probed(Writers::One).put("a", Payload::from(vec![1])).await.unwrap();
        let late = ProbedStore::new(Failing::new(Fails::ReadsLate), "it", Writers::One, Probes::new());
        assert!(!late.delete("a").await.unwrap_err().to_string().contains("--single-writer"));
    });
}
