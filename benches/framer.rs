//! The framer's speed on the shapes of mail that matter, in octets of mail per second.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use mailrail::mime::{Event, Framer};

/// What a reader hands over at a time.
const CHUNK: usize = 256 * 1024;

fn framer(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("framer");
    let shapes = [
        ("10 KB of headers, 2 KB of text", header_heavy()),
        ("1 MiB base64 attachment", attachment(1 << 20)),
        ("1 MiB quoted-printable with hyphens", hyphens(1 << 20)),
        ("nested multipart, 9 small parts", nested()),
        ("nested 60 deep, a line of hyphens in every other one", deep()),
    ];
    for (name, message) in &shapes {
        group.throughput(Throughput::Bytes(message.len() as u64));
        let mut framer = Framer::default();
        group.bench_with_input(BenchmarkId::from_parameter(name), message, |bencher, message| {
            bencher.iter(|| frame(&mut framer, message));
        });
    }
    group.finish();
}

/// Frames one message, and looks at every event.
fn frame(framer: &mut Framer, message: &[u8]) -> usize {
    let mut octets = 0;
    let mut out = |event: Event<'_>| {
        if let Event::Body(slice) = black_box(event) {
            octets += slice.len();
        }
    };
    for chunk in message.chunks(CHUNK) {
        framer.push(chunk, &mut out);
    }
    let _ = framer.finish(&mut out);
    octets
}

fn header_heavy() -> Vec<u8> {
    let mut message = String::new();
    while message.len() < 10 * 1024 {
        message += "Received: from mx1.example.org (mx1.example.org [192.0.2.1])\r\n\tby mx2.example.org (Postfix) with ESMTPS id 4Xk1\r\n\
                    \tfor <someone@example.org>; Mon, 1 Jan 2024 00:00:00 +0000 (UTC)\r\nX-Spam-Status: No, score=-1.0 required=5.0\r\n";
    }
    message += "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n";
    message += &"A line of text, as people write them to one another.\r\n".repeat(40);
    message.into_bytes()
}

fn attachment(length: usize) -> Vec<u8> {
    let line = "TWFuIGlzIGRpc3Rpbmd1aXNoZWQsIG5vdCBvbmx5IGJ5IGhpcyByZWFzb24sIGJ1dCBieSB0aGlz\r\n";
    let body = line.repeat(length / line.len());
    multipart(
        "outer",
        &[text("hello"), format!("Content-Type: image/png\r\nContent-Transfer-Encoding: base64\r\n\r\n{body}")],
    )
    .into_bytes()
}

/// Text with what looks like a delimiter in every second line.
fn hyphens(length: usize) -> Vec<u8> {
    let lines =
        "-- \r\na line of text that is ordinary in every way\r\n--=_not_the_one\r\n----------------------------\r\n";
    let body = lines.repeat(length / lines.len());
    let part = format!("Content-Type: text/plain\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n{body}");
    multipart("=_the_one", &[part]).into_bytes()
}

fn nested() -> Vec<u8> {
    let inner = |boundary: &str| multipart(boundary, &[text("one"), text("two"), text("three")]);
    multipart("outer", &[inner("first"), inner("second"), inner("third")]).into_bytes()
}

fn deep() -> Vec<u8> {
    let mut message = text("the innermost");
    for level in 0..60 {
        message = multipart(
            &format!("boundary-{level}"),
            &["Content-Type: text/plain\r\n\r\n--\r\n-- \r\n--x\r\n".to_owned(), message],
        );
    }
    message.into_bytes()
}

fn text(text: &str) -> String {
    format!("Content-Type: text/plain; charset=us-ascii\r\nContent-Transfer-Encoding: 7bit\r\n\r\n{text}\r\n")
}

fn multipart(boundary: &str, parts: &[String]) -> String {
    let mut message =
        format!("MIME-Version: 1.0\r\nContent-Type: multipart/mixed;\r\n\tboundary=\"{boundary}\"\r\n\r\n");
    for part in parts {
        message += &format!("--{boundary}\r\n{part}\r\n");
    }
    message + "--" + boundary + "--\r\n"
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2)).sample_size(30);
    targets = framer
}
criterion_main!(benches);
