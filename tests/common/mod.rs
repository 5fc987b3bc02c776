//! What the journeys share: an engine over a store in memory, trees of files and what is in them, messages to fill them with.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of it")]

use futures::executor::block_on;
use mailrail::ledger::Ledger;
use mailrail::message::{Identity, MailboxName};
use mailrail::repository::Seams;
use mailrail::restore::RestoreReport;
use mailrail::runtime::Clock;
use mailrail::sink::Sink;
use mailrail::source::{Batch, Kind, Known, MailboxIter, MailboxSource, Source, SourceId};
use mailrail::store::{MemoryStore, Store};
use mailrail::testing::{self, ManualClock, SeededRandomness};
use mailrail::{Engine, Protection, Repository, Resources, Result, Settings};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A repository in memory, with a clock that stands still until it is moved.
pub struct World {
    pub memory: MemoryStore,
    pub store: Arc<dyn Store>,
    pub clock: ManualClock,
    pub engine: Engine,
}

impl World {
    /// The inline mode: one thread, the same order every time.
    pub fn inline() -> Self {
        Self::with(Resources::inline(64 << 20).unwrap(), Settings::default(), |memory| Arc::new(memory))
    }

    pub fn with(resources: Resources, settings: Settings, wrap: impl FnOnce(MemoryStore) -> Arc<dyn Store>) -> Self {
        let memory = MemoryStore::new();
        let store = wrap(memory.clone());
        // Far ahead of the files that the tests write, so that their times prove something.
        let clock = ManualClock::new(SystemClockAhead.now());
        let engine = engine(Arc::clone(&store), &clock, resources, settings, 1);
        Self { memory, store, clock, engine }
    }

    /// Another process over the same store: nothing is shared but the objects.
    pub fn another(&self, resources: Resources, settings: Settings, seed: u64) -> Engine {
        engine(Arc::clone(&self.store), &self.clock, resources, settings, seed)
    }

    pub fn now(&self) -> u64 {
        self.clock.now().as_nanos() as u64
    }

    pub fn push(&self, source: impl Source) -> Ledger {
        push(&self.engine, source)
    }

    pub fn restore(&self, sink: impl Sink) -> RestoreReport {
        let report = block_on(self.engine.restore(sink).finish()).unwrap();
        assert!(report.is_complete(), "{report:#?}");
        report
    }
}

pub fn engine(
    store: Arc<dyn Store>,
    clock: &ManualClock,
    resources: Resources,
    settings: Settings,
    seed: u64,
) -> Engine {
    let mut seams = Seams::default();
    (seams.clock, seams.timer) = (Arc::new(clock.clone()), Arc::new(clock.clone()));
    seams.randomness = Arc::new(SeededRandomness::new(seed));
    let repository = block_on(Repository::open_or_create_with(store, Protection::None, seams)).unwrap();
    Engine::builder(repository).resources(resources).settings(settings).build().unwrap()
}

pub fn push(engine: &Engine, source: impl Source) -> Ledger {
    let report = block_on(engine.transfer(source).finish()).unwrap();
    report.ledger.verify().unwrap();
    report.ledger
}

/// An hour ahead of the system's clock.
#[derive(Debug)]
pub struct SystemClockAhead;

impl Clock for SystemClockAhead {
    #[allow(clippy::disallowed_methods, reason = "it is a clock")]
    fn now(&self) -> Duration {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + Duration::from_secs(3600)
    }
}

/// The numbers of a ledger that tests name: seen, stored, unchanged; flags, moved, gone; octets read.
pub fn numbers(ledger: &Ledger) -> [u64; 7] {
    let (messages, changes) = (&ledger.messages, &ledger.changes);
    [messages.seen, messages.stored, messages.unchanged, changes.flags, changes.moved, changes.gone, ledger.bytes.read]
}

/// What is under a directory: `None` for a directory, octets and modification time (nanoseconds since 1970) for a file.
pub type Tree = BTreeMap<PathBuf, Option<(Vec<u8>, u128)>>;

pub fn tree(root: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut waiting = vec![root.to_owned()];
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().to_owned();
            let metadata = fs::symlink_metadata(&path).unwrap();
            if metadata.is_dir() {
                tree.insert(name, None);
                waiting.push(path);
            } else {
                let modified = metadata.modified().unwrap().duration_since(UNIX_EPOCH).unwrap().as_nanos();
                tree.insert(name, Some((fs::read(&path).unwrap(), modified)));
            }
        }
    }
    tree
}

/// Panics with the names of what differs.
pub fn assert_same(expected: &Tree, found: &Tree, what: &str) {
    let mut differences = Vec::new();
    for (name, node) in expected {
        match found.get(name) {
            None => differences.push(format!("missing: {}", name.display())),
            Some(other) if other != node => {
                let describe = |node: &Option<(Vec<u8>, u128)>| match node {
                    None => "a directory".to_owned(),
                    Some((octets, modified)) => format!("{} octets of {modified}", octets.len()),
                };
                differences.push(format!("{}: {} became {}", name.display(), describe(node), describe(other)));
            }
            Some(_) => {}
        }
    }
    let extra = found.keys().filter(|name| !expected.contains_key(*name));
    differences.extend(extra.map(|name| format!("extra: {}", name.display())));
    assert!(differences.is_empty(), "{what}:\n{}", differences.join("\n"));
}

/// Writes a file, with directories above it as needed, and gives it a time of its own, long ago.
pub fn write(path: &Path, octets: &[u8], seconds: u64) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, octets).unwrap();
    set_time(path, seconds);
}

pub fn set_time(path: &Path, seconds: u64) {
    let time = UNIX_EPOCH + Duration::new(1_600_000_000 + seconds, 123_456_789);
    File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
}

/// A message of about `length` octets that is like no other of another number.
pub fn message(number: u64, length: usize) -> Vec<u8> {
    let mut octets = format!(
        "From: sender{number}@example.org\nTo: someone@example.org\nSubject: message {number}\nStatus: O \nMessage-ID: <{number}@example.org>\n\n"
    )
    .into_bytes();
    let mut line = 0;
    while octets.len() < length {
        octets.extend_from_slice(format!("line {line} of message {number}, {:x}\n", random(number, line)).as_bytes());
        line += 1;
    }
    octets
}

/// A message with an attachment of `length` random octets in base64; equal for equal `content`.
pub fn with_attachment(number: u64, content: u64, length: usize) -> Vec<u8> {
    let mut octets = format!(
        "Subject: attachment {number}\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=\"b\"\n\n--b\nContent-Type: text/plain\n\nsee {number}\n--b\nContent-Type: application/octet-stream\nContent-Transfer-Encoding: base64\n\n"
    )
    .into_bytes();
    octets.extend_from_slice(&base64(&noise(content, length)));
    octets.extend_from_slice(b"--b--\n");
    octets
}

/// An mbox file of these messages, each of which ends with a line ending.
pub fn mbox(messages: &[Vec<u8>]) -> Vec<u8> {
    let mut octets = Vec::new();
    for message in messages {
        octets.extend_from_slice(b"From sender@example.org Mon Jan  2 03:04:05 2023\n");
        octets.extend_from_slice(message);
        octets.push(b'\n');
    }
    octets
}

pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut octets = vec![0; length];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.finalize_xof().fill(&mut octets);
    octets
}

/// Lines of 76 columns.
pub fn base64(octets: &[u8]) -> Vec<u8> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = Vec::with_capacity(octets.len() / 57 * 77 + 80);
    for line in octets.chunks(57) {
        for group in line.chunks(3) {
            let value =
                group.iter().fold(0_u32, |value, octet| value << 8 | u32::from(*octet)) << (8 * (3 - group.len()));
            for at in 0..4 {
                let digit = ALPHABET[(value >> (18 - 6 * at)) as usize & 63];
                out.push(if at > group.len() { b'=' } else { digit });
            }
        }
        out.push(b'\n');
    }
    out
}

pub fn random(a: u64, b: u64) -> u64 {
    let mut value = a.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ b.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value ^= value >> 31;
    value = value.wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ value >> 29
}

/// Gives at most so many entries at a time, so that few messages make many batches, and so many commits.
#[derive(Debug)]
pub struct Drip(pub Arc<dyn Source>, pub usize);

impl Source for Drip {
    fn id(&self) -> SourceId {
        self.0.id()
    }

    fn kind(&self) -> Kind {
        self.0.kind()
    }

    fn mailboxes(&self) -> Result<MailboxIter> {
        let entries = self.1;
        Ok(Box::new(self.0.mailboxes()?.map(move |mailbox| {
            let inner = mailbox?;
            Ok(Box::new(DrippingMailbox { inner, entries }) as Box<dyn MailboxSource>)
        })))
    }
}

struct DrippingMailbox {
    inner: Box<dyn MailboxSource>,
    entries: usize,
}

impl MailboxSource for DrippingMailbox {
    fn name(&self) -> &MailboxName {
        self.inner.name()
    }

    fn fill(&mut self, known: &mut dyn Known, batch: &mut Batch) -> Result<bool> {
        for _ in 0..self.entries {
            let mut one = Batch::new(1);
            let more = self.inner.fill(known, &mut one)?;
            one.into_entries().into_iter().for_each(|entry| batch.push(entry));
            if !more {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// A future that is polled by hand, so that a test says who goes on when.
pub struct Driven<T> {
    future: Option<Pin<Box<dyn Future<Output = T>>>>,
    is_woken: Arc<Woken>,
}

/// Whether somebody said that a future can get on.
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl<T> Driven<T> {
    pub fn new(future: impl Future<Output = T> + 'static) -> Self {
        Self { future: Some(Box::pin(future)), is_woken: Arc::new(Woken(AtomicBool::new(true))) }
    }

    /// Polls it until it waits for something outside of itself; its output if it is done.
    pub fn poll(&mut self) -> Option<T> {
        loop {
            let output = self.poll_once();
            if output.is_some() || !self.is_woken() {
                return output;
            }
        }
    }

    /// Polls it once, even if it could get on at once; its output if it is done.
    pub fn poll_once(&mut self) -> Option<T> {
        let waker = Waker::from(Arc::clone(&self.is_woken));
        let future = self.future.as_mut().expect("it is done already");
        self.is_woken.0.store(false, Ordering::SeqCst);
        let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) else { return None };
        self.future = None;
        Some(output)
    }

    /// Whether it can get on since it was last polled.
    pub fn is_woken(&self) -> bool {
        self.is_woken.0.load(Ordering::SeqCst)
    }

    pub fn is_done(&self) -> bool {
        self.future.is_none()
    }
}

/// All messages that a restore delivers, by mailbox, folder and name; one that comes twice is a failure.
pub type Delivered = BTreeMap<(String, String, String), Vec<u8>>;

pub fn delivered(engine: &Engine) -> (Delivered, RestoreReport) {
    let sink = testing::sink::Memory::new(Kind::Other("memory".into()));
    let report = block_on(engine.restore(sink.clone()).finish()).unwrap();
    let mut all = Delivered::new();
    for (mailbox, contents) in sink.mailboxes() {
        for message in contents.messages {
            let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
            let name = match &message.envelope.identity {
                Identity::Named(name) => text(name),
                _ => format!("at {}", message.position),
            };
            let key = (mailbox.to_string(), text(&message.envelope.folder), name);
            assert_eq!(all.insert(key.clone(), message.octets), None, "{key:?} came twice");
        }
    }
    (all, report)
}
