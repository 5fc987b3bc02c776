//! The dedup index in memory, in rows a second: a million rows, more than any cache holds, asked in another order than they came.
#![allow(missing_docs)]

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use mailrail::bench::Index;
use mailrail::digest::{Digest, Domain};
use std::hint::black_box;
use std::time::Duration;

const ROWS: u32 = 1 << 20;
/// Blobs in a pack.
const PACK: usize = 1 << 10;
/// What one iteration looks up.
const ASKED: usize = 1 << 16;

fn digests(from: u32) -> Vec<Digest> {
    let domain = Domain::new([7; 32]);
    (from..from + ROWS).map(|number| domain.digest(&number.to_le_bytes())).collect()
}

/// Room for twice as many rows: of a shard's two generations only the young one is filled.
fn empty() -> Index {
    Index::new(ROWS as usize * Index::ROW_OCTETS * 5 / 2)
}

fn fill(index: &Index, digests: &[Digest]) {
    for (number, digests) in digests.chunks(PACK).enumerate() {
        index.insert(number as u32, digests);
    }
}

fn insert(criterion: &mut Criterion) {
    let digests = digests(0);
    let mut group = criterion.benchmark_group("index/insert");
    group.throughput(Throughput::Elements(ROWS.into()));
    group.bench_function("a million rows", |bencher| {
        bencher.iter_batched_ref(empty, |index| fill(index, &digests), BatchSize::PerIteration);
    });
    group.finish();
}

fn look_up(criterion: &mut Criterion) {
    let (present, absent) = (digests(0), digests(ROWS));
    let index = empty();
    fill(&index, &present);
    let mut group = criterion.benchmark_group("index/look up");
    group.throughput(Throughput::Elements(ASKED as u64));
    for (name, digests, is_present) in [("present", &present, true), ("absent", &absent, false)] {
        // A step that shares no factor with the number of rows visits all of them, each far from the one before it.
        let asked: Vec<Digest> = (0..ASKED).map(|number| digests[number * 641_003 % ROWS as usize]).collect();
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let remembered = asked.iter().filter(|digest| index.remembers(black_box(digest))).count();
                assert_eq!(remembered, if is_present { ASKED } else { 0 });
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(3)).sample_size(20);
    targets = insert, look_up
}
criterion_main!(benches);
