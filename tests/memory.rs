//! Memory is bounded: whatever comes, the peak of a process stays below the budget and 64 MiB for code, stacks, allocator and runtime.
//!
//! Each case runs in a process of its own (this binary again), because the peak of a process never falls; push and restore are measured apart.
//! Sizes are smaller without optimisation.
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

const BUDGET: u64 = 64 << 20;
const BEYOND: u64 = 64 << 20;
const IS_FULL_SIZE: bool = !cfg!(debug_assertions);
const ROLE: &str = "MAILRAIL_MEMORY_ROLE";
const PLACE: &str = "MAILRAIL_MEMORY_PLACE";

#[test]
fn a_giant_message_is_never_in_memory() {
    measure("giant");
}

#[test]
fn many_short_messages_in_one_mailbox_do_not_add_up() {
    measure("mbox");
}

#[test]
fn many_mailboxes_do_not_add_up() {
    measure("mailboxes");
}

/// Runs a case in processes of its own.
fn measure(case: &str) {
    let place = tempfile::tempdir().unwrap();
    prepare(case, place.path());
    for step in ["push", "again", "restore"] {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--nocapture"])
            .env(ROLE, format!("{case} {step}"))
            .env(PLACE, place.path())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{case} {step}: {text}\n{}", String::from_utf8_lossy(&output.stderr));
        let peak = text.lines().find_map(|line| line.split_once("peak ")?.1.parse::<u64>().ok()).unwrap();
        println!("{case} {step}: {:.1} MiB at most", peak as f64 / 1048576.0);
        assert!(peak < BUDGET + BEYOND, "{case} {step}: {} MiB at most", peak >> 20);
    }
    check(case, place.path());
}

/// Does nothing unless it is the process of a case.
#[test]
fn child() {
    let (Ok(role), Ok(place)) = (std::env::var(ROLE), std::env::var(PLACE)) else { return };
    let (case, step) = role.split_once(' ').unwrap();
    let place = PathBuf::from(place);
    block_on(async {
        let store = Arc::new(FileStore::open_or_create(place.join("store")).unwrap());
        let repository = Repository::open_or_create(store, Protection::None).await.unwrap();
        let engine = Engine::builder(repository).resources(Resources::with(BUDGET, 2).unwrap()).build().unwrap();
        match step {
            "restore" => restore(case, &engine, &place).await,
            _ => {
                let report = engine.transfer_shared(source_of(case, &place)).finish().await.unwrap();
                assert!(report.ledger.is_complete(), "{report:?}");
                assert_eq!(report.ledger.messages.stored, if step == "push" { messages(case) } else { 0 });
                assert!(report.peak_budget_bytes <= BUDGET);
            }
        }
    });
    println!("peak {}", peak());
}

fn messages(case: &str) -> u64 {
    match (case, IS_FULL_SIZE) {
        ("giant", _) => 1,
        ("mbox", true) => 200_000,
        ("mbox", false) => 20_000,
        (_, true) => 2_000 * 20,
        (_, false) => 200 * 20,
    }
}

fn source_of(case: &str, place: &Path) -> Arc<dyn Source> {
    match case {
        "giant" => {
            Arc::new(Generated { mailboxes: 1, messages: 1, octets: if IS_FULL_SIZE { 512 << 20 } else { 64 << 20 } })
        }
        "mbox" => {
            Arc::new(source::Mbox::open(place.join("source")).unwrap().with_clock(Arc::new(common::SystemClockAhead)))
        }
        _ => Arc::new(Generated { mailboxes: messages(case) / 20, messages: 20, octets: 6 << 10 }),
    }
}

async fn restore(case: &str, engine: &Engine, place: &Path) {
    let target = place.join("target");
    let restore = match case {
        "mbox" => engine.restore(sink::Mbox::new(target).durable(false)),
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

/// Mail that is made as it is read: messages with an attachment of random octets in base64.
#[derive(Clone, Copy, Debug)]
struct Generated {
    mailboxes: u64,
    messages: u64,
    /// The length of an attachment, decoded.
    octets: u64,
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
            let head = format!(
                "Subject: message {}\nMIME-Version: 1.0\nContent-Type: application/octet-stream\nContent-Transfer-Encoding: base64\n\n",
                self.next
            );
            let lines = self.mail.octets / 57;
            let length = head.len() as u64 + lines * 77;
            let seed = self.mailbox << 32 | self.next;
            let open = Box::new(GeneratedBody {
                seed,
                head: head.into_bytes(),
                lines,
                block: Vec::new(),
                at: 0,
                left: length,
            });
            batch.push(Entry::Message(Message { envelope, body: Body::Open { length, open } }));
            self.next += 1;
        }
        Ok(self.next < self.mail.messages)
    }
}

struct GeneratedBody {
    seed: u64,
    head: Vec<u8>,
    lines: u64,
    block: Vec<u8>,
    at: usize,
    left: u64,
}

/// Lines made at once.
const LINES: u64 = 1024;

impl OpenBody for GeneratedBody {
    fn open(mut self: Box<Self>) -> Result<Box<dyn ReadBody>, Unreadable> {
        self.block = std::mem::take(&mut self.head);
        Ok(self)
    }
}

impl ReadBody for GeneratedBody {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Unreadable> {
        if self.at == self.block.len() && self.lines > 0 {
            let lines = self.lines.min(LINES);
            self.block.clear();
            for line in noise(self.seed ^ self.lines << 40, lines as usize * 57).chunks(57) {
                self.block.extend_from_slice(base64_simd::STANDARD.encode_to_string(line).as_bytes());
                self.block.push(b'\n');
            }
            (self.lines, self.at) = (self.lines - lines, 0);
        }
        let length = buffer.len().min(self.block.len() - self.at);
        buffer[..length].copy_from_slice(&self.block[self.at..self.at + length]);
        self.at += length;
        self.left -= length as u64;
        Ok(length)
    }

    fn finish(&mut self, _length: u64) -> Result<Finished, Unreadable> {
        assert_eq!(self.left, 0);
        Ok(Finished::AsEnumerated)
    }
}
