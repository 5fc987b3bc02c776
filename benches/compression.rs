//! Compression and decompression by kind of content, with the choice to store what does not get smaller as it is.
#![allow(missing_docs)]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use mailrail::bench::{Compressor, decompress};
use std::hint::black_box;
use std::time::Duration;

#[path = "support/contents.rs"]
mod contents;

/// A block of recipes is this long, and large pieces are not much longer.
const LENGTH: usize = 1 << 20;

/// 3 is the default.
const LEVELS: [i32; 4] = [1, 3, 6, 9];

fn kinds() -> [(&'static str, Vec<u8>); 4] {
    [
        ("text", contents::text(LENGTH)),
        ("html", contents::html(LENGTH)),
        ("office", contents::office(LENGTH)),
        ("incompressible", contents::incompressible(LENGTH)),
    ]
}

fn compress(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("compression/compress");
    group.throughput(Throughput::Bytes(LENGTH as u64));
    for (kind, content) in kinds() {
        for level in LEVELS {
            let mut compressor = Compressor::new(level).expect("a compressor");
            group.bench_function(BenchmarkId::new(kind, level), |bencher| {
                bencher.iter(|| black_box(compressor.compress(black_box(&content)).expect("it compresses").len()));
            });
        }
    }
    // Small blobs: what a call costs.
    let content = contents::text(8 << 10);
    group.throughput(Throughput::Bytes(content.len() as u64));
    let mut compressor = Compressor::new(3).expect("a compressor");
    group.bench_function(BenchmarkId::new("text of 8 KiB", 3), |bencher| {
        bencher.iter(|| black_box(compressor.compress(black_box(&content)).expect("it compresses").len()));
    });
    group.finish();
}

fn undo(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("compression/decompress");
    group.throughput(Throughput::Bytes(LENGTH as u64));
    for (kind, content) in kinds() {
        let mut compressor = Compressor::new(3).expect("a compressor");
        let frame = compressor.compress(&content).expect("it compresses").to_vec();
        println!("compression/{kind}: level 3 leaves {:.1} %", 100.0 * frame.len() as f64 / LENGTH as f64);
        group.bench_function(BenchmarkId::from_parameter(kind), |bencher| {
            bencher.iter(|| black_box(decompress(black_box(&frame), LENGTH).expect("it decompresses")));
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(2)).sample_size(20);
    targets = compress, undo
}
criterion_main!(benches);
