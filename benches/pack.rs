//! Writing packs and reading them back: copying, compressing and sealing together. Octets are those of the content.
#![allow(missing_docs)]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use mailrail::bench::Packs;
use mailrail::digest::{Digest, Domain};
use std::hint::black_box;
use std::time::Duration;

#[path = "support/contents.rs"]
mod contents;

/// Content of one pack.
const PACK: usize = 16 << 20;

/// Blobs of one length that are a pack together. Their content is incompressible, so that packing is measured and not zstd.
fn blobs(length: usize) -> Vec<(Digest, Vec<u8>)> {
    let domain = Domain::new([3; 32]);
    let octets = contents::incompressible(PACK);
    octets.chunks(length).map(|blob| (domain.digest(blob), blob.to_vec())).collect()
}

fn cases() -> impl Iterator<Item = (String, bool, Vec<(Digest, Vec<u8>)>)> {
    [("16 KiB", 16 << 10), ("1 MiB", 1 << 20)].into_iter().flat_map(|(name, length)| {
        [("sealed", true), ("unsealed", false)]
            .map(|(protection, is_sealed)| (format!("blobs of {name}, {protection}"), is_sealed, blobs(length)))
    })
}

fn write(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pack/write");
    group.throughput(Throughput::Bytes(PACK as u64));
    for (name, is_sealed, blobs) in cases() {
        let mut packs = Packs::new(is_sealed).expect("a compressor");
        group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
            bencher.iter_with_large_drop(|| packs.write(black_box(&blobs), PACK + (1 << 20)).expect("it packs"));
        });
    }
    group.finish();
}

fn read(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pack/read");
    group.throughput(Throughput::Bytes(PACK as u64));
    for (name, is_sealed, blobs) in cases() {
        let mut packs = Packs::new(is_sealed).expect("a compressor");
        let pack = packs.write(&blobs, PACK + (1 << 20)).expect("it packs");
        group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
            bencher.iter(|| assert_eq!(packs.read(black_box(&pack)).expect("it opens"), PACK as u64));
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2)).sample_size(20);
    targets = write, read
}
criterion_main!(benches);
