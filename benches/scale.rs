//! What a repository of very many mailboxes asks for: objects, requests, octets, processor time and memory of every operation, measured on slices and
//! continued to the whole case (docs/scale.md). Memory is continued with the mailboxes alone: what messages take of it ends with the budget.
//!
//! Mail is metadata only: short messages, all different, whose text lies in their recipes. Each operation runs in a process of its own on repositories of
//! three sizes; two differ in mailboxes and two in messages, which gives what a mailbox and what a message costs.
#![allow(missing_docs)]

use bytes::Bytes;
use futures::executor::block_on;
use mailrail::message::{Envelope, Evidence, Folder, FolderPath, Identity, MailboxName};
use mailrail::sink::DryRun;
use mailrail::source::{Batch, Body, Entry, Kind, Known, MailboxIter, MailboxSource, Message, Source, SourceId};
use mailrail::store::{FileStore, Store};
use mailrail::testing::{CountingStore, Operation};
use mailrail::{Engine, Key, Protection, Repository, Resources};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::{env, fs};

/// How many mailboxes, and messages in each, the whole case has: 2.1 million, and 2 x 10^10 messages.
const WHOLE: Size = Size { mailboxes: 2_100_000, messages: 9_524 };
/// The slices that are measured. The second has more mailboxes than the first, and the third more messages in each.
const SLICES: [Size; 3] = [
    Size { mailboxes: 1_000, messages: 50 },
    Size { mailboxes: 4_000, messages: 50 },
    Size { mailboxes: 1_000, messages: 500 },
];
/// Messages that come to each mailbox in a night.
const NIGHTLY: u64 = 10;
const MEMORY: u64 = 256 << 20;

/// How much mail a repository has.
#[derive(Clone, Copy, Debug)]
struct Size {
    mailboxes: u64,
    /// In each.
    messages: u64,
}

/// What is done with a repository. In this order, each after the one before.
#[derive(Clone, Copy)]
enum Task {
    First,
    Open,
    List,
    Nightly,
    Unchanged,
    RestoreOne,
    Check,
    Sweep,
}

const TASKS: [(&str, Task); 8] = [
    ("first push", Task::First),
    ("open", Task::Open),
    ("list mailboxes", Task::List),
    ("nightly push", Task::Nightly),
    ("push of nothing new", Task::Unchanged),
    ("restore one mailbox", Task::RestoreOne),
    ("check", Task::Check),
    ("sweep", Task::Sweep),
];

/// What a task took. In this order in [`NAMES`].
type Costs = [f64; 7];
const MEMORY_COST: usize = 6;
const NAMES: [&str; 7] = ["reads", "writes", "lists and looks", "MB read", "MB written", "CPU s", "peak MB"];

fn main() {
    let arguments: Vec<String> = env::args().collect();
    if let [_, flag, task, directory, mailboxes, messages] = &arguments[..]
        && flag == "--slice"
    {
        let size = Size { mailboxes: number(mailboxes), messages: number(messages) };
        return slice(TASKS[number(task) as usize].1, Path::new(directory), size);
    }
    // Criterion's arguments are passed over: this is a table, not a timing.
    if arguments.iter().any(|argument| argument == "--test") {
        return;
    }
    table();
}

fn number(text: &str) -> u64 {
    text.parse().expect("a number")
}

/// Measures all slices and prints what they come to.
fn table() {
    let measured = SLICES.map(|size| {
        let directory =
            tempfile::tempdir_in(if Path::new("/dev/shm").is_dir() { "/dev/shm".into() } else { env::temp_dir() })
                .expect("a directory");
        let costs = TASKS.iter().enumerate().map(|(number, _)| run(number, directory.path(), size)).collect::<Vec<_>>();
        (costs, objects(directory.path()))
    });
    let [few, many, full] = &measured;
    for (slice, size) in measured.iter().zip(SLICES) {
        println!("\n{} mailboxes of {} messages, {} objects:\n", size.mailboxes, size.messages, slice.1);
        print_table(&slice.0);
    }
    let continued = (0..TASKS.len()).map(|task| {
        std::array::from_fn(|cost| match cost {
            // As if messages cost nothing.
            MEMORY_COST => {
                let memory = few.0[task][cost];
                continue_one(WHOLE, memory, many.0[task][cost], memory).max(memory)
            }
            _ if matches!(TASKS[task].1, Task::RestoreOne) => {
                continue_one(WHOLE, few.0[task][cost], many.0[task][cost], full.0[task][cost])
            }
            _ => continue_to(WHOLE, few.0[task][cost], many.0[task][cost], full.0[task][cost]),
        })
    });
    let objects = continue_to(WHOLE, few.1 as f64, many.1 as f64, full.1 as f64);
    println!("\n{} mailboxes of {} messages, {objects:.0} objects:\n", WHOLE.mailboxes, WHOLE.messages);
    print_table(&continued.collect::<Vec<Costs>>());
}

fn print_table(costs: &[Costs]) {
    println!("| | {} |", NAMES.join(" | "));
    println!("|---|{}", "---:|".repeat(NAMES.len()));
    for ((name, _), costs) in TASKS.iter().zip(costs) {
        let cells: Vec<String> = costs.iter().map(|cost| significant(*cost)).collect();
        println!("| {name} | {} |", cells.join(" | "));
    }
}

fn significant(value: f64) -> String {
    match value {
        value if value >= 1e6 => format!("{:.3} million", value / 1e6),
        value if value >= 100.0 => format!("{value:.0}"),
        value => format!("{value:.2}"),
    }
}

/// A cost is `a + b * mailboxes + c * mailboxes * messages`, which three slices determine.
fn continue_to(size: Size, few: f64, many: f64, full: f64) -> f64 {
    let [first, wide, deep] = SLICES;
    let of_message = (full - few) / (first.mailboxes * (deep.messages - first.messages)) as f64;
    let of_mailbox = (many - few) / (wide.mailboxes - first.mailboxes) as f64 - of_message * first.messages as f64;
    let at_all = few - (of_mailbox + of_message * first.messages as f64) * first.mailboxes as f64;
    let mailbox = of_mailbox + of_message * size.messages as f64;
    (at_all + mailbox * size.mailboxes as f64).max(0.0)
}

/// What is done with one mailbox costs `a + b * mailboxes + c * messages`.
fn continue_one(size: Size, few: f64, many: f64, full: f64) -> f64 {
    let [first, wide, deep] = SLICES;
    let of_message = (full - few) / (deep.messages - first.messages) as f64;
    let of_mailbox = (many - few) / (wide.mailboxes - first.mailboxes) as f64;
    let (mailboxes, messages) = (size.mailboxes - first.mailboxes, size.messages - first.messages);
    (few + of_mailbox * mailboxes as f64 + of_message * messages as f64).max(0.0)
}

/// Runs a task in a process of its own, so that the peak of its memory is its own.
fn run(task: usize, directory: &Path, size: Size) -> Costs {
    let arguments =
        [task.to_string(), directory.display().to_string(), size.mailboxes.to_string(), size.messages.to_string()];
    let output = Command::new(env::current_exe().expect("this program"))
        .arg("--slice")
        .args(arguments)
        .output()
        .expect("a slice");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("text");
    let costs: Vec<f64> = text.split_whitespace().map(|cost| cost.parse().expect("a cost")).collect();
    costs.try_into().expect("all costs")
}

fn objects(directory: &Path) -> u64 {
    let store = FileStore::open(directory).expect("a store");
    let listing = futures::StreamExt::count(store.list(""));
    block_on(listing) as u64
}

/// Does a task and prints what it took.
fn slice(task: Task, directory: &Path, size: Size) {
    let store = CountingStore::new(Arc::new(FileStore::open_or_create(directory).expect("a store")));
    let protection = Protection::Key(Key::new([7; 32]));
    block_on(async {
        let repository = Repository::open_or_create(Arc::new(store.clone()), protection).await.expect("a repository");
        let resources = Resources::with(MEMORY, 2).expect("resources");
        let engine = Engine::builder(repository).resources(resources).build().expect("an engine");
        if !matches!(task, Task::Open) {
            store.reset();
        }
        work(&engine, task, size).await;
    });
    let (reads, puts, creates) =
        (store.total(Operation::Read), store.total(Operation::Put), store.total(Operation::Create));
    let others =
        [Operation::List, Operation::Length, Operation::Delete].map(|operation| store.total(operation).operations);
    let writes = puts.operations + creates.operations;
    let (read, written) = (reads.octets as f64 / 1e6, (puts.octets + creates.octets) as f64 / 1e6);
    let others: u64 = others.iter().sum();
    println!("{} {writes} {others} {read} {written} {} {}", reads.operations, cpu_seconds(), peak_megabytes());
}

async fn work(engine: &Engine, task: Task, size: Size) {
    let crowd = |nights: u64| Crowd { size: Size { messages: size.messages + nights * NIGHTLY, ..size } };
    match task {
        Task::First => push(engine, crowd(0), size.mailboxes * size.messages).await,
        Task::Open => {}
        Task::List => {
            let names = engine.repository().mailboxes().await.expect("names");
            assert_eq!(names.len() as u64, size.mailboxes);
        }
        Task::Nightly => push(engine, crowd(1), size.mailboxes * NIGHTLY).await,
        Task::Unchanged => push(engine, crowd(1), 0).await,
        Task::RestoreOne => {
            let restore = engine.restore(DryRun::new()).mailboxes([name(size.mailboxes / 2)]);
            let report = restore.finish().await.expect("a restore");
            assert_eq!(report.restored, size.messages + NIGHTLY);
        }
        Task::Check => assert!(engine.check().finish().await.expect("a check").is_sound()),
        Task::Sweep => drop(engine.sweep().finish().await.expect("a sweep")),
    }
}

async fn push(engine: &Engine, crowd: Crowd, new: u64) {
    let report = engine.transfer(crowd).finish().await.expect("a push");
    assert!(report.ledger.is_complete());
    assert_eq!(report.ledger.messages.stored, new);
}

/// Of this process, by its own account to the kernel.
fn cpu_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    // User and system time, in hundredths of a second, are the 14th and 15th fields; two are cut off.
    fields.get(11..13).map_or(0.0, |times| times.iter().map(|time| time.parse().unwrap_or(0.0)).sum::<f64>() / 100.0)
}

fn peak_megabytes() -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|kib| kib.parse::<f64>().ok()).unwrap_or(0.0) * 1024.0 / 1e6
}

fn name(number: u64) -> MailboxName {
    MailboxName::new(format!("user{number:07}"))
}

/// Very many mailboxes that are made as they are looked at.
#[derive(Clone, Debug)]
struct Crowd {
    size: Size,
}

impl Source for Crowd {
    fn id(&self) -> SourceId {
        SourceId::new([9; 16])
    }

    fn kind(&self) -> Kind {
        Kind::Other("crowd".to_owned())
    }

    fn mailboxes(&self) -> mailrail::Result<MailboxIter> {
        let size = self.size;
        let mailboxes = (0..size.mailboxes).map(move |number| {
            let member = Member { number, name: name(number), next: 0, messages: size.messages, is_told: false };
            Ok(Box::new(member) as Box<dyn MailboxSource>)
        });
        Ok(Box::new(mailboxes))
    }
}

struct Member {
    number: u64,
    name: MailboxName,
    next: u64,
    messages: u64,
    is_told: bool,
}

impl MailboxSource for Member {
    fn name(&self) -> &MailboxName {
        &self.name
    }

    fn fill(&mut self, _: &mut dyn Known, batch: &mut Batch) -> mailrail::Result<bool> {
        while !batch.is_full() {
            if !self.is_told {
                self.is_told = true;
                let path = FolderPath { names: vec!["INBOX".to_owned()], raw: "INBOX".into() };
                batch.push(Entry::Folder(Folder::new(path)));
            } else if self.next < self.messages {
                batch.push(Entry::Message(self.message(self.next)));
                self.next += 1;
            } else {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl Member {
    fn message(&self, number: u64) -> Message {
        let mailbox = self.number;
        let text = format!(
            "From: Sender {number} <sender{number}@example.org>\r\nTo: user{mailbox:07}@example.com\r\nSubject: Message {number}\r\n\
             Message-ID: <{mailbox}.{number}@example.org>\r\nDate: Mon, 1 Jan 2024 10:00:00 +0000\r\n\r\nShort text {}.\r\n",
            mailbox * 1_000_003 + number
        );
        let mut envelope = Envelope::new("INBOX", Identity::Named(number.to_string().into()));
        envelope.evidence = Evidence(Bytes::from_static(b"1"));
        Message { envelope, body: Body::Octets(text.into()) }
    }
}
