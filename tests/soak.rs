//! Push, restore, forget, sweep and check, over and over in one process: what it holds does not grow, and it gets no slower.
//!
//! A hundred rounds by default. For half an hour, with a plot:
//!
//! `MAILRAIL_SOAK_SECONDS=1800 MAILRAIL_SOAK_PLOT=docs/soak.svg cargo test --release --features testing --test soak -- --nocapture`
#![cfg(all(feature = "testing", target_os = "linux"))]

mod common;

use bytes::Bytes;
use common::{noise, with_attachment};
use futures::executor::block_on;
use mailrail::message::MailboxName;
use mailrail::sink;
use mailrail::source::{Memory, SourceId};
use mailrail::store::FileStore;
use mailrail::{Engine, Key, Protection, Repository, Resources};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Rounds, unless a time is told.
const ROUNDS: u64 = 100;
/// Mailboxes that live at any time; the oldest is forgotten when one more comes.
const MAILBOXES: u64 = 20;
const MESSAGES: u64 = 40;
/// Rounds from one sweep to the next.
const SWEEP_EVERY: u64 = 20;
const BUDGET: u64 = 64 << 20;
/// What the first part of a run, in which caches fill, may be exceeded by at the end.
const SLACK: u64 = 8 << 20;
/// The same in the few seconds of a run for which no time is told: by then two workers may not once have had all that the budget lets them have at the same time, which is up to 32 MiB more.
const SLACK_OF_SHORT_RUN: u64 = 40 << 20;

/// The messages of the mailboxes that live.
type Mail = BTreeMap<u64, Vec<Bytes>>;

/// What is seen from outside, at some time.
#[derive(Clone, Debug, Default)]
struct Sample {
    seconds: f64,
    resident: u64,
    files: u64,
    /// Directories of the repository, without those of two digits: there are 256 of each kind at most.
    directories: u64,
    threads: u64,
    /// Octets and objects of the repository.
    stored: u64,
    objects: u64,
    /// Milliseconds of each operation since the sample before.
    latencies: BTreeMap<&'static str, Vec<f64>>,
}

#[test]
fn a_process_that_goes_on_for_long_holds_no_more_and_gets_no_slower() {
    let told = std::env::var("MAILRAIL_SOAK_SECONDS").ok();
    let seconds = told.map(|seconds| seconds.parse::<u64>().expect("a number of seconds"));
    let place = tempfile::tempdir().unwrap();
    let samples = soak(place.path(), seconds);
    if let Ok(path) = std::env::var("MAILRAIL_SOAK_PLOT") {
        fs::write(path, plot(&samples)).unwrap();
    }
    print!("{}", table(&samples));
    let (early, late) = halves(&samples);
    let most = |samples: &[Sample], of: fn(&Sample) -> u64| samples.iter().map(of).max().unwrap_or_default();
    assert!(most(late, |s| s.directories) <= most(early, |s| s.directories) + 2, "directories stay");
    assert!(most(late, |s| s.files) <= most(early, |s| s.files) + 2, "files stay open");
    assert!(most(late, |s| s.threads) <= most(early, |s| s.threads), "threads stay");
    let (before, after) = (most(early, |s| s.resident), most(late, |s| s.resident));
    let slack = if seconds.is_some() { SLACK } else { SLACK_OF_SHORT_RUN };
    assert!(after <= before + slack, "resident memory grew from {before} to {after} octets");
    assert!(after <= BUDGET + (64 << 20), "{after} octets resident");
    let (before, after) = (most(early, |s| s.stored), most(late, |s| s.stored));
    assert!(after <= before + before / 4, "the repository grew from {before} to {after} octets");
}

/// Runs, and samples.
fn soak(place: &Path, seconds: Option<u64>) -> Vec<Sample> {
    let (store, started) = (place.join("store"), now());
    let repository = block_on(Repository::open_or_create(
        Arc::new(FileStore::open_or_create(&store).unwrap()),
        Protection::Key(Key::new([7; 32])),
    ));
    let resources = Resources::with(BUDGET, 2).unwrap();
    let engine = Engine::builder(repository.unwrap()).resources(resources).build().unwrap();
    let mut mail = Mail::new();
    let every = seconds.map_or(Duration::ZERO, |seconds| Duration::from_secs(seconds) / 60);
    let (mut samples, mut next, mut latencies) = (Vec::new(), every, BTreeMap::new());
    for round in 0.. {
        if seconds.map_or(round >= ROUNDS, |seconds| started.elapsed().as_secs() >= seconds) {
            break;
        }
        turn(&engine, &mut mail, round, &mut latencies);
        if started.elapsed() >= next && (seconds.is_some() || round % (ROUNDS / 20) == 0) {
            next += every;
            samples.push(sample(started, &store, std::mem::take(&mut latencies)));
        }
    }
    assert!(block_on(engine.check().read_data(true).finish()).unwrap().is_sound());
    samples
}

/// One round: a mailbox more, another changes, the oldest goes.
fn turn(engine: &Engine, mail: &mut Mail, round: u64, latencies: &mut BTreeMap<&'static str, Vec<f64>>) {
    let mut timed = |what: &'static str, since: Instant| {
        latencies.entry(what).or_default().push(since.elapsed().as_secs_f64() * 1000.0);
    };
    fill(mail, round, 0..MESSAGES);
    if let Some(older) = round.checked_sub(MAILBOXES / 2) {
        fill(mail, older, MESSAGES..MESSAGES + 4);
    }
    let source = source(mail);
    let since = now();
    let report = block_on(engine.transfer(source).finish()).unwrap();
    assert!(report.ledger.is_complete());
    timed("push", since);
    let since = now();
    let restored = block_on(engine.restore(sink::DryRun::new()).mailboxes([name(round)]).finish()).unwrap();
    assert_eq!((restored.restored, restored.failed), (MESSAGES, 0));
    timed("restore", since);
    if let Some(oldest) = round.checked_sub(MAILBOXES) {
        mail.remove(&oldest);
        let since = now();
        block_on(engine.forget().mailboxes([name(oldest)]).finish()).unwrap();
        timed("forget", since);
    }
    if round % SWEEP_EVERY == SWEEP_EVERY - 1 {
        let since = now();
        block_on(engine.sweep().runs_kept(10).finish()).unwrap();
        timed("sweep", since);
    }
}

/// A name comes again when its mailbox was forgotten.
fn name(mailbox: u64) -> MailboxName {
    MailboxName::new(format!("user {}", mailbox % (MAILBOXES + 10)))
}

/// Messages with content of their own, and some that other mailboxes have, too.
fn fill(mail: &mut Mail, mailbox: u64, numbers: std::ops::Range<u64>) {
    let messages = mail.entry(mailbox).or_default();
    for number in numbers {
        let content = if number % 3 == 0 { mailbox / 4 * 1000 + number } else { mailbox * 1_000_000 + number };
        let length = 4_000 + noise(content, 1)[0] as usize * 100;
        messages.push(with_attachment(mailbox * 1000 + number, content, length).into());
    }
}

fn source(mail: &Mail) -> Memory {
    let source = Memory::new(SourceId::new([1; 16]));
    for (mailbox, messages) in mail {
        for (number, octets) in messages.iter().enumerate() {
            source.put(&name(*mailbox), "INBOX", number.to_string(), octets.clone());
        }
    }
    source
}

fn sample(started: Instant, store: &Path, latencies: BTreeMap<&'static str, Vec<f64>>) -> Sample {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().next().unwrap().parse::<u64>().unwrap()
    };
    let tree = common::tree(store);
    Sample {
        seconds: started.elapsed().as_secs_f64(),
        resident: field("VmRSS:") * 1024,
        files: fs::read_dir("/proc/self/fd").unwrap().count() as u64,
        threads: field("Threads:"),
        directories: tree.iter().filter(|(name, file)| file.is_none() && !is_shard(name)).count() as u64,
        stored: tree.values().flatten().map(|(octets, _)| octets.len() as u64).sum(),
        objects: tree.values().flatten().count() as u64,
        latencies,
    }
}

fn is_shard(directory: &Path) -> bool {
    directory.file_name().is_some_and(|name| name.len() == 2)
}

/// The samples of the first half, without those of the first tenth; and of the second.
fn halves(samples: &[Sample]) -> (&[Sample], &[Sample]) {
    let samples = &samples[samples.len() / 10..];
    samples.split_at(samples.len() / 2)
}

/// Of which so many in a hundred are not greater.
fn percentile(values: &[f64], percent: usize) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() * percent / 100).or_else(|| sorted.last()).copied().unwrap_or_default()
}

const OPERATIONS: [&str; 4] = ["push", "restore", "forget", "sweep"];

fn table(samples: &[Sample]) -> String {
    let (early, late) = halves(samples);
    let mut out =
        String::from("| what | first half: p50, p90, p99 ms | second half | how many |\n|---|---|---|---:|\n");
    for what in OPERATIONS {
        let all = |samples: &[Sample]| -> Vec<f64> {
            samples.iter().flat_map(|sample| sample.latencies.get(what).cloned().unwrap_or_default()).collect()
        };
        let row = |values: &[f64]| [50, 90, 99].map(|percent| format!("{:.1}", percentile(values, percent))).join(", ");
        let (before, after) = (all(early), all(late));
        writeln!(out, "| {what} | {} | {} | {} |", row(&before), row(&after), before.len() + after.len()).unwrap();
    }
    let most = |samples: &[Sample]| {
        let most = |of: fn(&Sample) -> u64| samples.iter().map(of).max().unwrap_or_default();
        let mib = |octets: u64| octets as f64 / 1_048_576.0;
        format!(
            "{:.1} MiB resident, {} files, {} threads, {:.1} MiB stored in {} objects",
            mib(most(|s| s.resident)),
            most(|s| s.files),
            most(|s| s.threads),
            mib(most(|s| s.stored)),
            most(|s| s.objects)
        )
    };
    writeln!(out, "first half: {}\nsecond half: {}", most(early), most(late)).unwrap();
    out
}

/// A drawing: a panel for each thing that must stay flat.
fn plot(samples: &[Sample]) -> String {
    type Line = (&'static str, Box<dyn Fn(&Sample) -> f64>);
    let mib = |of: fn(&Sample) -> u64| -> Box<dyn Fn(&Sample) -> f64> { Box::new(move |s| of(s) as f64 / 1_048_576.0) };
    let number = |of: fn(&Sample) -> u64| -> Box<dyn Fn(&Sample) -> f64> { Box::new(move |s| of(s) as f64) };
    let latency = |what: &'static str, percent: usize| -> Box<dyn Fn(&Sample) -> f64> {
        Box::new(move |s| percentile(s.latencies.get(what).map_or(&[], Vec::as_slice), percent))
    };
    let panels: Vec<(&str, Vec<Line>)> = vec![
        ("resident, MiB", vec![("resident", mib(|s| s.resident))]),
        ("repository, MiB", vec![("stored", mib(|s| s.stored))]),
        ("open files; threads", vec![("files", number(|s| s.files)), ("threads", number(|s| s.threads))]),
        ("push, ms", vec![("p50", latency("push", 50)), ("p90", latency("push", 90)), ("p99", latency("push", 99))]),
        (
            "restore, ms",
            vec![("p50", latency("restore", 50)), ("p90", latency("restore", 90)), ("p99", latency("restore", 99))],
        ),
        ("sweep, ms", vec![("p50", latency("sweep", 50)), ("p90", latency("sweep", 90))]),
    ];
    let end = samples.last().map_or(1.0, |sample| sample.seconds);
    let height = panels.len() * 130 + 20;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 800 {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"800\" height=\"{height}\" fill=\"white\"/>\n"
    );
    for (place, (title, lines)) in panels.iter().enumerate() {
        let (top, base) = (place * 130 + 20, place * 130 + 120);
        let values = || lines.iter().flat_map(|(_, of)| samples.iter().map(of));
        let most = values().fold(0.0, f64::max).max(1.0);
        writeln!(out, "<text x=\"10\" y=\"{}\">{title}</text>", top - 4).unwrap();
        writeln!(out, "<text x=\"745\" y=\"{}\">{most:.0}</text><text x=\"745\" y=\"{base}\">0</text>", top + 10)
            .unwrap();
        writeln!(out, "<path d=\"M60 {top}V{base}H740\" fill=\"none\" stroke=\"#999\"/>").unwrap();
        for ((label, of), colour) in lines.iter().zip(["#1b6ca8", "#c46210", "#7a1fa2"]) {
            let point = |sample: &Sample| {
                let (x, y) = (60.0 + 680.0 * sample.seconds / end, base as f64 - 100.0 * of(sample) / most);
                format!("{x:.1},{y:.1}")
            };
            let points: Vec<String> = samples.iter().map(point).collect();
            let points = points.join(" ");
            writeln!(
                out,
                "<polyline points=\"{points}\" fill=\"none\" stroke=\"{colour}\"><title>{label}</title></polyline>"
            )
            .unwrap();
        }
        let legend = lines.iter().zip(["#1b6ca8", "#c46210", "#7a1fa2"]).enumerate();
        for (number, ((label, _), colour)) in legend {
            let x = 250 + number * 70;
            writeln!(out, "<text x=\"{x}\" y=\"{}\" fill=\"{colour}\">{label}</text>", top - 4).unwrap();
        }
    }
    writeln!(out, "<text x=\"60\" y=\"{}\">0 to {:.0} minutes</text>\n</svg>", height - 2, end / 60.0).unwrap();
    out
}

#[allow(clippy::disallowed_methods, reason = "it measures")]
fn now() -> Instant {
    Instant::now()
}
