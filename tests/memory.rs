//! Memory is bounded: whatever comes, the peak of a process stays below the budget and 64 MiB for code, stacks, allocator and runtime.
//!
//! Each step of each case runs in a process of its own (this binary again), because the peak of a process, which the kernel keeps, never falls.
//! Sizes are small here. In full, at budgets of 64 and 256 MiB, it takes about an hour and 20 GB of disk, and prints a table:
//!
//! `MAILRAIL_MEMORY=full cargo test --release --all-features --test memory -- --nocapture --test-threads 1`
#![cfg(all(feature = "testing", target_os = "linux"))]

mod common;

use common::noise;
use futures::executor::block_on;
use mailrail::message::{Envelope, Evidence, Folder, FolderPath, Identity, MailboxName};
use mailrail::source::{
    Batch, Body, Entry, Finished, Kind, Known, MailboxIter, MailboxSource, Message, OpenBody, ReadBody, Source,
    SourceId, Unreadable,
};
use mailrail::store::FileStore;
use mailrail::{Engine, Protection, Repository, Resources, Result, sink, source};
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

const BEYOND: u64 = 64 << 20;
const STEPS: [&str; 5] = ["push", "again", "restore", "check", "compare"];
const ROLE: &str = "MAILRAIL_MEMORY_ROLE";
const PLACE: &str = "MAILRAIL_MEMORY_PLACE";

fn is_full() -> bool {
    std::env::var("MAILRAIL_MEMORY").is_ok_and(|size| size == "full")
}

#[test]
fn a_giant_attachment_is_never_in_memory() {
    measure("giant");
}

#[test]
fn a_giant_text_is_never_in_memory() {
    measure("text");
}

#[test]
fn many_parts_of_one_message_do_not_add_up() {
    measure("parts");
}

#[test]
fn many_short_messages_in_one_mailbox_do_not_add_up() {
    measure("mbox");
}

#[test]
fn many_mailboxes_do_not_add_up() {
    measure("mailboxes");
}

#[test]
fn many_known_messages_stay_within_the_budget() {
    measure("known");
}

/// Runs a case in processes of its own.
fn measure(case: &str) {
    for budget in if is_full() { &[64_u64, 256][..] } else { &[64] } {
        let place = tempfile::tempdir().unwrap();
        prepare(case, place.path());
        for step in STEPS {
            let peak = measure_step(case, step, *budget, place.path());
            println!("| {case} | {step} | {budget} MiB | {:.1} MiB |", peak as f64 / 1_048_576.0);
            assert!(peak < (budget << 20) + BEYOND, "{case} {step} at {budget} MiB: {} MiB at most", peak >> 20);
        }
        check(case, place.path());
    }
}

/// The peak of one step, in octets.
fn measure_step(case: &str, step: &str, budget: u64, place: &Path) -> u64 {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture"])
        .env(ROLE, format!("{case} {step} {budget}"))
        .env(PLACE, place)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{case} {step}: {text}\n{}", String::from_utf8_lossy(&output.stderr));
    text.lines().find_map(|line| line.split_once("peak ")?.1.parse::<u64>().ok()).unwrap()
}

/// Does nothing unless it is the process of a step.
#[test]
fn child() {
    let (Ok(role), Ok(place)) = (std::env::var(ROLE), std::env::var(PLACE)) else { return };
    let [case, step, budget]: [&str; 3] = role.split(' ').collect::<Vec<_>>().try_into().unwrap();
    let (place, budget) = (PathBuf::from(place), budget.parse::<u64>().unwrap() << 20);
    block_on(async {
        let store = Arc::new(FileStore::open_or_create(place.join("store")).unwrap());
        let repository = Repository::open_or_create(store, Protection::None).await.unwrap();
        let engine = Engine::builder(repository).resources(Resources::with(budget, 2).unwrap()).build().unwrap();
        run(case, step, &engine, &place).await;
        assert!(engine.resources().budget().peak() <= budget);
    });
    println!("peak {}", peak());
}

async fn run(case: &str, step: &str, engine: &Engine, place: &Path) {
    match step {
        "restore" => restore(case, engine, place).await,
        "check" => {
            let report = engine.check().read_data(true).finish().await.unwrap();
            assert!(report.is_sound() && report.rebuilt == messages(case), "{report:?}");
        }
        "compare" => {
            let report = engine.compare(source_of(case, place)).finish().await.unwrap();
            assert!(report.is_same() && report.same == messages(case), "{report:?}");
        }
        _ => {
            let report = engine.transfer(source_of(case, place)).finish().await.unwrap();
            assert!(report.ledger.is_complete(), "{report:?}");
            assert_eq!(report.ledger.messages.stored, if step == "push" { messages(case) } else { 0 });
        }
    }
}

fn messages(case: &str) -> u64 {
    match (case, is_full()) {
        ("giant" | "text" | "parts", _) => 1,
        ("mbox" | "known", true) => 1_000_000,
        ("mbox" | "known", false) => 30_000,
        (_, true) => 10_000 * 5,
        (_, false) => 300 * 5,
    }
}

fn source_of(case: &str, place: &Path) -> Arc<dyn Source> {
    let giant: u64 = if is_full() { 4 << 30 } else { 96 << 20 };
    let one = Generated { mailboxes: 1, messages: 1, parts: 1, octets: giant, is_text: false };
    match case {
        "giant" => Arc::new(one),
        "text" => Arc::new(Generated { is_text: true, ..one }),
        "parts" => Arc::new(Generated { parts: if is_full() { 100_000 } else { 20_000 }, octets: 5 << 10, ..one }),
        "mbox" => {
            Arc::new(source::Mbox::open(place.join("source")).unwrap().with_clock(Arc::new(common::SystemClockAhead)))
        }
        "known" => Arc::new(Generated { messages: messages(case), octets: 57, ..one }),
        _ => Arc::new(Generated { mailboxes: messages(case) / 5, messages: 5, octets: 6 << 10, ..one }),
    }
}

async fn restore(case: &str, engine: &Engine, place: &Path) {
    let target = place.join("target");
    let restore = match case {
        "mbox" => engine.restore(sink::Mbox::new(target).durable(false)),
        // Disk is spared: what is delivered is verified all the same.
        _ if is_full() => engine.restore(sink::DryRun::new()),
        _ => engine.restore(sink::Eml::new(target).durable(false)),
    };
    let report = restore.finish().await.unwrap();
    assert!(report.failed == 0 && report.restored == messages(case), "{report:?}");
}

fn prepare(case: &str, place: &Path) {
    if case != "mbox" {
        return;
    }
    let path = place.join("source/alice/inbox");
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut file = BufWriter::new(File::create(&path).unwrap());
    for number in 0..messages(case) {
        file.write_all(b"From sender@example.org Mon Jan  2 03:04:05 2023\n").unwrap();
        file.write_all(&common::message(number, 1024)).unwrap();
        file.write_all(b"\n").unwrap();
    }
    file.flush().unwrap();
    drop(file);
    common::set_time(&path, 1);
}

fn check(case: &str, place: &Path) {
    if case == "mbox" {
        let same = |name: &str| fs::read(place.join(name).join("alice/inbox")).unwrap();
        assert!(same("source") == same("target"));
    }
}

/// The most memory that this process ever had, in octets.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// Mail that is made as it is read: messages with parts of random octets in base64, or of text.
#[derive(Clone, Copy, Debug)]
struct Generated {
    mailboxes: u64,
    messages: u64,
    /// Parts of a message.
    parts: u64,
    /// The length of a part, decoded.
    octets: u64,
    is_text: bool,
}

impl Source for Generated {
    fn id(&self) -> SourceId {
        SourceId::new([9; 16])
    }

    fn kind(&self) -> Kind {
        Kind::Other("generated".into())
    }

    fn mailboxes(&self) -> Result<MailboxIter> {
        let mail = *self;
        Ok(Box::new((0..self.mailboxes).map(move |mailbox| {
            let name = MailboxName::new(format!("mailbox {mailbox:05}"));
            Ok(Box::new(GeneratedMailbox { mail, mailbox, name, next: 0 }) as Box<dyn MailboxSource>)
        })))
    }
}

struct GeneratedMailbox {
    mail: Generated,
    mailbox: u64,
    name: MailboxName,
    next: u64,
}

impl MailboxSource for GeneratedMailbox {
    fn name(&self) -> &MailboxName {
        &self.name
    }

    fn fill(&mut self, _known: &mut dyn Known, batch: &mut Batch) -> Result<bool> {
        if self.next == 0 {
            batch.push(Entry::Folder(Folder::new(FolderPath { names: vec!["inbox".into()], raw: "inbox".into() })));
        }
        while self.next < self.mail.messages && !batch.is_full() {
            let mut envelope = Envelope::new("inbox", Identity::Named(format!("{}.eml", self.next).into()));
            envelope.evidence = Evidence("settled".into());
            let body = GeneratedBody::new(self.mail, self.mailbox << 32 | self.next);
            let length = body.length();
            batch.push(Entry::Message(Message { envelope, body: Body::Open { length, open: Box::new(body) } }));
            self.next += 1;
        }
        Ok(self.next < self.mail.messages)
    }
}

struct GeneratedBody {
    mail: Generated,
    seed: u64,
    /// The parts and the lines of the current part that are still to come.
    parts: u64,
    lines: u64,
    block: Vec<u8>,
    at: usize,
    given: u64,
}

/// Lines made at once.
const LINES: u64 = 1024;
/// Octets in a line, decoded; encoded there are 76 and the line end.
const LINE: u64 = 57;

impl GeneratedBody {
    fn new(mail: Generated, seed: u64) -> Self {
        Self { mail, seed, parts: mail.parts, lines: 0, block: Vec::new(), at: 0, given: 0 }
    }

    fn head(&self) -> Vec<u8> {
        let of = if self.mail.parts > 1 { "multipart/mixed; boundary=b" } else { "application/octet-stream" };
        let encoding = match (self.mail.parts, self.mail.is_text) {
            (1, false) => "Content-Transfer-Encoding: base64\n",
            _ => "",
        };
        format!("Subject: message {:012}\nMIME-Version: 1.0\nContent-Type: {of}\n{encoding}\n", self.seed).into_bytes()
    }

    fn part_head(&self) -> &'static [u8] {
        let head: &[u8] = b"--b\nContent-Type: image/png\nContent-Transfer-Encoding: base64\n\n";
        if self.mail.parts > 1 { head } else { b"" }
    }

    fn length(&self) -> u64 {
        let part = self.part_head().len() as u64 + self.mail.octets / LINE * 77;
        self.head().len() as u64 + self.mail.parts * part
    }

    fn fill(&mut self) {
        self.block.clear();
        self.at = 0;
        if self.lines == 0 {
            if self.parts == 0 {
                return;
            }
            (self.parts, self.lines) = (self.parts - 1, self.mail.octets / LINE);
            self.block.extend_from_slice(self.part_head());
        }
        let lines = self.lines.min(LINES);
        let noise = noise(self.seed ^ self.lines << 40 ^ self.parts << 16, (lines * LINE) as usize);
        for line in noise.chunks(LINE as usize) {
            let encoded = base64_simd::STANDARD.encode_to_string(line);
            // What is text has a letter that base64 has not, and is half of one kind.
            let text = format!("{}!{:>37}", &encoded[..38], "the same again and again");
            self.block.extend_from_slice(if self.mail.is_text { text.as_bytes() } else { encoded.as_bytes() });
            self.block.push(b'\n');
        }
        self.lines -= lines;
    }
}

impl OpenBody for GeneratedBody {
    fn open(mut self: Box<Self>) -> Result<Box<dyn ReadBody>, Unreadable> {
        self.block = self.head();
        Ok(self)
    }
}

impl ReadBody for GeneratedBody {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Unreadable> {
        if self.at == self.block.len() {
            self.fill();
        }
        let length = buffer.len().min(self.block.len() - self.at);
        buffer[..length].copy_from_slice(&self.block[self.at..self.at + length]);
        self.at += length;
        self.given += length as u64;
        Ok(length)
    }

    fn finish(&mut self, length: u64) -> Result<Finished, Unreadable> {
        assert_eq!((self.given, length), (self.length(), self.length()));
        Ok(Finished::AsEnumerated)
    }
}
