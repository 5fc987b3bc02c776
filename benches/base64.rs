//! Exact base64: decoding (recognise, decode, encode back, compare) and encoding, for the layouts that mail has.
#![allow(missing_docs)]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use mailrail::mime::base64::{Decoder, Encoder, LineEnding, Shape};
use std::hint::black_box;
use std::time::Duration;

/// Decoded octets of the part: more than the second-level cache holds.
const PART: usize = 6 << 20;
/// Octets given at once, as a source would.
const SLICE: usize = 256 << 10;

fn shapes() -> impl Iterator<Item = (String, Shape)> {
    [Some(76), Some(72), Some(60), Some(61), None].into_iter().flat_map(|width| {
        [LineEnding::Lf, LineEnding::CrLf].into_iter().map(move |ending| {
            let width_name = width.map_or_else(|| "one line".to_owned(), |width| width.to_string());
            (format!("{width_name} {ending:?}"), Shape::new(width, ending))
        })
    })
}

fn decoded() -> Vec<u8> {
    (0..PART as u64).map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

fn encode(shape: Shape, decoded: &[u8]) -> Vec<u8> {
    let mut encoder = Encoder::new(shape);
    let mut encoded = Vec::new();
    encoder.push(decoded, &mut encoded);
    encoder.finish(&mut encoded);
    encoded
}

fn decode_exact(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("base64/decode exact");
    for (name, shape) in shapes() {
        let encoded = encode(shape, &decoded());
        group.throughput(Throughput::Bytes(encoded.len() as u64));
        group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
            let mut decoder = Decoder::new();
            let mut piece = Vec::with_capacity(PART);
            bencher.iter(|| {
                decoder.reset();
                piece.clear();
                for slice in encoded.chunks(SLICE) {
                    decoder.push(slice, &mut piece, usize::MAX);
                }
                assert_eq!(decoder.finish(&mut piece).encoded, encoded.len() as u64);
                black_box(&piece);
            });
        });
    }
    group.finish();
}

fn encode_shaped(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("base64/encode");
    let decoded = decoded();
    for (name, shape) in shapes() {
        group.throughput(Throughput::Bytes(encode(shape, &decoded).len() as u64));
        group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
            let mut encoder = Encoder::new(shape);
            let mut encoded = Vec::new();
            bencher.iter(|| {
                encoder.reset(shape);
                for chunk in decoded.chunks(48 << 10) {
                    encoded.clear();
                    encoder.push(chunk, &mut encoded);
                    black_box(&encoded);
                }
                encoder.finish(&mut encoded);
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(2)).sample_size(30);
    targets = decode_exact, encode_shaped
}
criterion_main!(benches);
