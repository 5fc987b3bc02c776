//! Taking messages apart and putting them together again.
#![allow(missing_docs)]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use mailrail::mime::Limits;
use mailrail::mime::base64::{Encoder, LineEnding, Shape};
use mailrail::recipe::{Cuts, Dissector, Need, Rebuilder, Recipe};
use std::hint::black_box;
use std::time::Duration;

fn octets(length: usize) -> Vec<u8> {
    (0..length as u64).map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

fn message(text: usize, attachment: usize) -> Vec<u8> {
    let mut message =
        b"From: someone@example.org\r\nSubject: a message like many others\r\nReceived: by example.org\r\n".repeat(20);
    message.extend(b"Content-Type: multipart/mixed; boundary=\"the-boundary\"\r\n\r\n--the-boundary\r\n\r\n");
    message.extend(b"a line of text that is no longer than they are, with an end\r\n".iter().cycle().take(text));
    if attachment > 0 {
        message.extend(b"\r\n--the-boundary\r\nContent-Type: image/png\r\nContent-Transfer-Encoding: base64\r\n\r\n");
        let mut encoder = Encoder::new(Shape::new(Some(76), LineEnding::CrLf));
        encoder.push(&octets(attachment), &mut message);
        encoder.finish(&mut message);
    }
    message.extend(b"\r\n--the-boundary--\r\n");
    message
}

fn messages() -> [(&'static str, Vec<u8>); 5] {
    [
        ("text of 5 KB", message(5_000, 0)),
        ("text of 5 KB and attachment of 3 KB", message(5_000, 3_000)),
        ("text of 5 KB and attachment of 50 KB", message(5_000, 50_000)),
        ("attachment of 6 MiB", message(1_000, 6 << 20)),
        ("text of 6 MiB", message(6 << 20, 0)),
    ]
}

fn dissect(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("recipe/dissect");
    for (name, message) in messages() {
        group.throughput(Throughput::Bytes(message.len() as u64));
        group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
            let mut dissector = Dissector::new(Cuts::default(), Limits::default());
            let mut recipe = Vec::new();
            bencher.iter(|| {
                recipe.clear();
                for slice in message.chunks(256 << 10) {
                    dissector.push(slice, &mut |piece| {
                        black_box(piece);
                    });
                }
                black_box(dissector.finish(
                    &mut |piece| {
                        black_box(piece);
                    },
                    &mut recipe,
                ));
            });
        });
    }
    group.finish();
}

fn rebuild(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("recipe/rebuild");
    // Text goes through as it is, whatever its length: nothing is done with it that could be measured.
    for (name, message) in messages().into_iter().filter(|(name, _)| !name.starts_with("text of 6 MiB")) {
        let mut dissector = Dissector::new(Cuts::default(), Limits::default());
        let (mut recipe, mut pieces) = (Vec::new(), Vec::new());
        dissector.push(&message, &mut |piece| pieces.push(piece.to_vec()));
        dissector.finish(&mut |piece| pieces.push(piece.to_vec()), &mut recipe);
        group.throughput(Throughput::Bytes(message.len() as u64));
        group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
            bencher.iter(|| {
                let mut rebuilder = Rebuilder::new(Recipe::decode(&recipe).expect("our own recipe decodes"));
                let mut out = |octets: &[u8]| {
                    black_box(octets);
                    Ok(())
                };
                let mut pieces = pieces.iter();
                while let Need::Piece(_) = rebuilder.advance(&mut out).expect("our own recipe rebuilds") {
                    let piece = pieces.next().expect("no piece is missing");
                    rebuilder.piece(piece, &mut out).expect("our own pieces fit");
                }
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2)).sample_size(30);
    targets = dissect, rebuild
}
criterion_main!(benches);
