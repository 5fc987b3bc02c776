//! The worst input that is known against ordinary mail: taking a message apart (framer, dissector, recipe), in octets per second. docs/limits.md says how they
//! compare.
//!
//! With `MAILRAIL_ONCE=<name>` one input is taken apart once and nothing is measured, for a counter of instructions:
//! `MAILRAIL_ONCE=ordinary valgrind --tool=callgrind --toggle-collect='*take_apart*' target/release/deps/hostile-*`

#[allow(dead_code, reason = "a part of it is used")]
#[path = "../tests/hostile/bombs.rs"]
mod bombs;
#[path = "../tests/common/mod.rs"]
mod common;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group};
use mailrail::mime::Limits;
use mailrail::recipe::{Cuts, Dissector};
use std::hint::black_box;
use std::time::Duration;

/// What a reader hands over at a time.
const CHUNK: usize = 256 << 10;
/// How long the inputs are, in octets.
const OCTETS: usize = 1 << 20;

/// Every input by name: ordinary mail, and everything that is made to be slow.
fn inputs() -> Vec<(String, Vec<u8>)> {
    let mut inputs = vec![("ordinary".to_owned(), ordinary())];
    for bomb in bombs::bombs(OCTETS as u64) {
        inputs.push((bomb.name.to_owned(), bomb.prefix(OCTETS)));
    }
    inputs
}

/// List mail, replies and attachments, as most of a mailbox is: about half of the octets are base64.
fn ordinary() -> Vec<u8> {
    let mut mail = Vec::new();
    let boundary = "----=_Part_1234_5678.90";
    for number in 0.. {
        mail.extend(format!("--{boundary}\r\nContent-Type: message/rfc822\r\n\r\n").bytes());
        mail.extend(common::message(number, 3000));
        mail.extend(common::with_attachment(number, number, if number % 8 == 0 { 20_000 } else { 400 }));
        if mail.len() > OCTETS {
            break;
        }
    }
    mail.truncate(OCTETS);
    let head = format!("MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=\"{boundary}\"\r\n\r\n");
    [head.as_bytes(), &mail].concat()
}

#[inline(never)]
fn take_apart(dissector: &mut Dissector, message: &[u8], recipe: &mut Vec<u8>) -> usize {
    recipe.clear();
    let mut octets = 0;
    let mut pieces = |piece: &[u8]| octets += black_box(piece).len();
    for chunk in message.chunks(CHUNK) {
        dissector.push(chunk, &mut pieces);
    }
    dissector.finish(&mut pieces, recipe);
    octets + recipe.len()
}

fn hostile(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("hostile");
    for (name, message) in &inputs() {
        group.throughput(Throughput::Bytes(message.len() as u64));
        let (mut dissector, mut recipe) = (Dissector::new(Cuts::default(), Limits::default()), Vec::new());
        group.bench_with_input(BenchmarkId::from_parameter(name), message, |bencher, message| {
            bencher.iter(|| take_apart(&mut dissector, message, &mut recipe));
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_secs(1)).sample_size(10);
    targets = hostile
}

fn main() {
    let Ok(once) = std::env::var("MAILRAIL_ONCE") else {
        benches();
        return Criterion::default().configure_from_args().final_summary();
    };
    for (name, message) in inputs() {
        if name == once || once == "list" {
            println!("{name}: {} octets", message.len());
        }
        if name == once {
            take_apart(&mut Dissector::new(Cuts::default(), Limits::default()), &message, &mut Vec::new());
        }
    }
}
