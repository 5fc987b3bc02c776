//! Whole transfers in memory: the first push of an organisation, pushes after it, restores; and very many small messages.
//!
//! Octets are those of the mail in the source, so a push that finds little new shows more of them than memory could move.
#![allow(missing_docs)]

use bytes::Bytes;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use futures::StreamExt;
use futures::executor::block_on;
use mailrail::sink::DryRun;
use mailrail::source::{Mbox, Source};
use mailrail::store::{MemoryStore, Store};
use mailrail::{Engine, Key, Protection, Repository, Resources};
use std::hint::black_box;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

#[path = "support/mail.rs"]
mod mail;

/// About how many octets the organisation has.
const ORGANISATION: u64 = 64 << 20;
/// Messages in the mbox, of 1 KiB each.
const SMALL: u64 = 20_000;
const MEMORY: u64 = 256 << 20;

/// How the work is done: on the thread that polls, or on two others.
#[derive(Clone, Copy)]
enum Threads {
    Inline,
    Two,
}

impl Threads {
    const ALL: [(&str, Self); 2] = [("inline", Self::Inline), ("2 threads", Self::Two)];

    fn resources(self) -> Resources {
        match self {
            Self::Inline => Resources::inline(MEMORY),
            Self::Two => Resources::with(MEMORY, 2),
        }
        .expect("resources")
    }
}

fn protections() -> [(&'static str, Protection); 2] {
    [("sealed", Protection::Key(Key::new([7; 32]))), ("unsealed", Protection::None)]
}

/// An engine for what is in `store`, as a new process would open it.
fn engine(store: MemoryStore, protection: &Protection, threads: Threads) -> Engine {
    let repository = block_on(Repository::open_or_create(Arc::new(store), protection.clone())).expect("a repository");
    Engine::builder(repository).resources(threads.resources()).build().expect("an engine")
}

fn push(engine: &Engine, source: &Arc<dyn Source>) -> u64 {
    let report = block_on(engine.transfer(Arc::clone(source)).finish()).expect("a push");
    assert!(report.ledger.is_complete());
    report.ledger.bytes.written
}

/// A store with the same objects, whose octets are shared.
fn copy(store: &MemoryStore) -> MemoryStore {
    let copy = MemoryStore::new();
    block_on(async {
        let mut listing = store.list("");
        while let Some(object) = listing.next().await {
            let key = object.expect("a listing").key;
            let octets: Bytes = store.read(&key, None).await.expect("an object");
            copy.put(&key, octets.into()).await.expect("a copy");
        }
    });
    copy
}

fn first_push(criterion: &mut Criterion) {
    let organisation = mail::organisation(ORGANISATION);
    let source: Arc<dyn Source> = Arc::new(organisation.source.clone());
    let mut group = criterion.benchmark_group("transfer/push organisation");
    group.throughput(Throughput::Bytes(organisation.octets));
    for (protected, protection) in protections() {
        for (threads, how) in Threads::ALL {
            group.bench_function(BenchmarkId::new(protected, threads), |bencher| {
                bencher.iter_batched_ref(
                    || engine(MemoryStore::new(), &protection, how),
                    |engine| black_box(push(engine, &source)),
                    BatchSize::PerIteration,
                );
            });
        }
    }
    group.finish();
}

/// Pushes by a new process into a repository that has the organisation.
fn second_push(criterion: &mut Criterion) {
    let organisation = mail::organisation(ORGANISATION);
    let source: Arc<dyn Source> = Arc::new(organisation.source.clone());
    let (_, protection) = &protections()[0];
    let store = MemoryStore::new();
    push(&engine(store.clone(), protection, Threads::Two), &source);
    let mut group = criterion.benchmark_group("transfer/push again");
    group.throughput(Throughput::Bytes(organisation.octets));
    for name in ["nothing new", "1 in 100 new"] {
        if name != "nothing new" {
            mail::another_day(&organisation);
        }
        group.bench_function(BenchmarkId::new("sealed, 2 threads", name), |bencher| {
            bencher.iter_batched_ref(
                || engine(copy(&store), protection, Threads::Two),
                |engine| black_box(push(engine, &source)),
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

fn restore(criterion: &mut Criterion) {
    let organisation = mail::organisation(ORGANISATION);
    let source: Arc<dyn Source> = Arc::new(organisation.source);
    let mut group = criterion.benchmark_group("transfer/restore organisation");
    group.throughput(Throughput::Bytes(organisation.octets));
    for (protected, protection) in protections() {
        let store = MemoryStore::new();
        push(&engine(store.clone(), &protection, Threads::Two), &source);
        for (threads, how) in Threads::ALL {
            let engine = engine(store.clone(), &protection, how);
            group.bench_function(BenchmarkId::new(protected, threads), |bencher| {
                bencher.iter(|| {
                    let report = block_on(engine.restore(DryRun::new()).finish()).expect("a restore");
                    assert_eq!((report.bytes, report.failed), (organisation.octets, 0));
                });
            });
        }
    }
    group.finish();
}

/// What a message costs whatever its length: an mbox of messages of 1 KiB.
fn small_messages(criterion: &mut Criterion) {
    let file = mbox();
    let octets = file.as_file().metadata().expect("a length").len();
    let source: Arc<dyn Source> = Arc::new(Mbox::open(file.path()).expect("an mbox"));
    let (_, protection) = &protections()[0];
    let mut group = criterion.benchmark_group("transfer/mbox of 1 KiB messages");
    group.throughput(Throughput::Bytes(octets));
    for (threads, how) in Threads::ALL {
        group.bench_function(BenchmarkId::new("push sealed", threads), |bencher| {
            bencher.iter_batched_ref(
                || engine(MemoryStore::new(), protection, how),
                |engine| black_box(push(engine, &source)),
                BatchSize::PerIteration,
            );
        });
        let store = MemoryStore::new();
        let engine = engine(store, protection, how);
        push(&engine, &source);
        group.bench_function(BenchmarkId::new("restore sealed", threads), |bencher| {
            bencher.iter(|| {
                let report = block_on(engine.restore(DryRun::new()).finish()).expect("a restore");
                assert_eq!((report.restored, report.failed), (SMALL, 0));
            });
        });
    }
    group.finish();
}

fn mbox() -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    for number in 0..SMALL {
        file.write_all(b"From sender@example.org Mon Jan  1 00:00:00 2024\n").expect("space");
        file.write_all(&mail::text(number, 1 << 10)).expect("space");
        file.write_all(b"\n").expect("space");
    }
    file
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(4)).sample_size(10);
    targets = first_push, second_push, restore, small_messages
}
criterion_main!(benches);
