//! Digests, by length: BLAKE3 needs 16 KiB at once to show what it can do.
#![allow(missing_docs)]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use mailrail::digest::Domain;
use std::hint::black_box;
use std::time::Duration;

#[path = "support/contents.rs"]
mod contents;

const LENGTHS: [(&str, usize); 5] =
    [("1 KiB", 1 << 10), ("4 KiB", 4 << 10), ("16 KiB", 16 << 10), ("256 KiB", 256 << 10), ("4 MiB", 4 << 20)];

/// At once, as pieces are hashed.
fn whole(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("hashing/whole");
    let domain = Domain::new([7; 32]);
    for (name, length) in LENGTHS {
        let octets = contents::incompressible(length);
        group.throughput(Throughput::Bytes(length as u64));
        group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
            bencher.iter(|| domain.digest(black_box(&octets)));
        });
    }
    group.finish();
}

/// In chunks of 256 KiB, as messages are hashed.
fn chunked(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("hashing/chunked");
    let mut hasher = Domain::new([7; 32]).hasher();
    for (name, length) in LENGTHS {
        let octets = contents::incompressible(length);
        group.throughput(Throughput::Bytes(length as u64));
        group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
            bencher.iter(|| {
                hasher.reset();
                for chunk in black_box(&octets).chunks(256 << 10) {
                    hasher.update(chunk);
                }
                hasher.finish()
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(1)).sample_size(30);
    targets = whole, chunked
}
criterion_main!(benches);
