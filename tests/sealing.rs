//! Attacks on the sealing: no nonce repeats whatever happens, nothing of the mail is seen, nothing links two repositories.
#![cfg(feature = "testing")]

mod common;

use bytes::Bytes;
use common::{Drip, Driven, base64, message, with_attachment};
use futures::executor::block_on;
use futures::future::{BoxFuture, FutureExt};
use futures::stream::BoxStream;
use futures::{TryStreamExt, future};
use mailrail::message::MailboxName;
use mailrail::repository::Seams;
use mailrail::runtime::Randomness;
use mailrail::source::{self, Memory, Source, SourceId};
use mailrail::store::{Created, Listed, MemoryStore, Payload, Store};
use mailrail::testing::{Fault, FaultyStore, ManualClock, Operation, Plan};
use mailrail::{Engine, ErrorKind, Key, Protection, Repository, Resources, Result, Settings, sink};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::Range;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

/// Keeps all that is sent to a store, whatever becomes of it, and makes everybody wait a turn for every operation.
#[derive(Clone, Debug)]
struct Recorder {
    inner: Arc<dyn Store>,
    sent: Arc<Mutex<Vec<(String, Bytes)>>>,
}

impl Recorder {
    fn new(inner: impl Store) -> Self {
        Self { inner: Arc::new(inner), sent: Arc::default() }
    }

    /// Over another store, but into the same record.
    fn over(&self, inner: impl Store) -> Self {
        Self { inner: Arc::new(inner), sent: Arc::clone(&self.sent) }
    }

    fn record(&self, key: &str, payload: &Payload) {
        self.sent.lock().unwrap().push((key.to_owned(), payload.pieces().concat().into()));
    }

    fn sent(&self) -> Vec<(String, Bytes)> {
        self.sent.lock().unwrap().clone()
    }
}

impl Store for Recorder {
    fn put<'a>(&'a self, key: &'a str, payload: Payload) -> BoxFuture<'a, Result<()>> {
        self.record(key, &payload);
        Turn::default().then(|()| self.inner.put(key, payload)).boxed()
    }

    fn create<'a>(&'a self, key: &'a str, payload: Payload) -> BoxFuture<'a, Result<Created>> {
        self.record(key, &payload);
        Turn::default().then(|()| self.inner.create(key, payload)).boxed()
    }

    fn read<'a>(&'a self, key: &'a str, range: Option<Range<u64>>) -> BoxFuture<'a, Result<Bytes>> {
        Turn::default().then(|()| self.inner.read(key, range)).boxed()
    }

    fn length<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<u64>>> {
        Turn::default().then(|()| self.inner.length(key)).boxed()
    }

    fn list<'a>(&'a self, prefix: &'a str) -> BoxStream<'a, Result<Listed>> {
        self.inner.list(prefix)
    }

    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<()>> {
        self.inner.delete(key)
    }
}

/// Waits for one turn of everybody else.
#[derive(Default)]
struct Turn(bool);

impl Future for Turn {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if std::mem::replace(&mut self.0, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

/// That no two different things were sealed under one key: an object's key is made of its name and its salt, so of a salt there must be one name
/// and one content, however often it was sent. Gives the number of different objects.
fn assert_no_nonce_repeats(sent: &[(String, Bytes)]) -> usize {
    let mut objects: BTreeMap<&[u8], (&str, &Bytes)> = BTreeMap::new();
    for (name, octets) in sent.iter().filter(|(name, _)| name != "config") {
        let salt = &octets[8..40];
        if let Some(other) = objects.insert(salt, (name, octets)) {
            assert!(other == (name, octets), "{name} and {} have one salt", other.0);
        }
    }
    objects.len()
}

fn protection() -> Protection {
    Protection::Key(Key::new([7; 32]))
}

fn mail(messages: u64) -> Memory {
    let memory = Memory::new(SourceId::new([1; 16]));
    for number in 0..messages {
        let octets = if number % 2 == 0 { message(number, 700) } else { with_attachment(number, number % 5, 30_000) };
        memory.put(
            &MailboxName::new(if number % 3 == 0 { "bob" } else { "alice" }),
            "INBOX",
            number.to_string(),
            octets,
        );
    }
    memory
}

/// An engine that makes many small commits, as a process of its own.
async fn engine(store: impl Store, protection: Protection, seams: Seams) -> Result<Engine> {
    let repository = Repository::open_or_create_with(Arc::new(store), protection, seams).await?;
    let mut settings = Settings::default();
    (settings.commit_messages_max, settings.pack_bytes_max) = (3, 1 << 20);
    Engine::builder(repository).resources(Resources::inline(64 << 20)?).settings(settings).build()
}

async fn push(store: impl Store, seams: Seams) -> Result<()> {
    push_mail(store, seams, 14).await
}

async fn push_mail(store: impl Store, seams: Seams, messages: u64) -> Result<()> {
    let engine = engine(store, protection(), seams).await?;
    engine.transfer(Drip(Arc::new(mail(messages)), 2)).finish().await.map(drop)
}

/// Frames are opened with their places for nonces, so that all of this opens shows that no object used a number twice.
fn is_sound(store: &MemoryStore) {
    let engine = block_on(engine(store.clone(), protection(), Seams::default())).unwrap();
    let check = block_on(engine.check().read_data(true).finish()).unwrap();
    assert!(check.is_sound() && check.messages >= 14, "{check:#?}");
}

// Nonces.

#[test]
fn no_nonce_repeats_however_writes_fail() {
    for (operation, below) in [
        (Operation::Create, "config"),
        (Operation::Create, "keys/"),
        (Operation::Create, "mailboxes/"),
        (Operation::Put, "packs/"),
        (Operation::Put, "index/"),
        (Operation::Create, "runs/"),
    ] {
        for fault in [Fault::Before(ErrorKind::Unavailable), Fault::After(ErrorKind::Unavailable), Fault::Repeated] {
            for times in [1, 3] {
                fails_everywhere(operation, below, fault, times);
            }
        }
    }
}

fn fails_everywhere(operation: Operation, below: &str, fault: Fault, times: u64) {
    for skip in 0.. {
        let memory = MemoryStore::new();
        let faulty = FaultyStore::new(Arc::new(memory.clone()));
        let recorder = Recorder::new(faulty.clone());
        faulty.plan(Plan::new(operation, fault).below(below).skipping(skip).times(times));
        // It fails or not; others go on where it ended.
        let _ = block_on(push(recorder.clone(), Seams::default()));
        let struck = faulty.struck();
        faulty.heal();
        block_on(push(recorder.clone(), Seams::default())).unwrap();
        assert!(assert_no_nonce_repeats(&recorder.sent()) > 5);
        is_sound(&memory);
        if struck == 0 {
            assert!(skip > 0, "{operation:?} below {below} never happens");
            return;
        }
    }
}

#[test]
fn no_nonce_repeats_however_a_run_is_killed() {
    for operation in [Operation::Create, Operation::Put] {
        for skip in 0.. {
            let memory = MemoryStore::new();
            let faulty = FaultyStore::new(Arc::new(memory.clone()));
            let recorder = Recorder::new(faulty.clone());
            faulty.plan(Plan::new(operation, Fault::Unanswered).skipping(skip));
            let mut run = Driven::new(push(recorder.clone(), Seams::default()));
            let is_over = run.poll().is_some();
            drop(run);
            block_on(push(recorder.over(memory.clone()), Seams::default())).unwrap();
            assert_no_nonce_repeats(&recorder.sent());
            is_sound(&memory);
            if is_over {
                assert!(skip > 2);
                break;
            }
        }
    }
}

#[test]
fn no_nonce_repeats_when_writers_race_for_the_same_commit() {
    let memory = MemoryStore::new();
    let recorder = Recorder::new(memory.clone());
    let pushed = (0..4).map(|_| push(recorder.clone(), Seams::default()));
    for pushed in block_on(future::join_all(pushed)) {
        pushed.unwrap();
    }
    let sent = recorder.sent();
    assert_no_nonce_repeats(&sent);
    let mut contested: BTreeMap<&str, BTreeSet<&Bytes>> = BTreeMap::new();
    sent.iter().filter(|(name, _)| name.starts_with("mailboxes/")).for_each(|(name, octets)| {
        contested.entry(name).or_default().insert(octets);
    });
    assert!(contested.values().any(|commits| commits.len() > 1), "nobody raced");
    // All created a repository with a key slot of their own; who lost took theirs away.
    let creations = sent.iter().filter(|(name, _)| name == "config").count();
    assert!(creations > 1, "nobody raced to create it");
    assert_eq!(block_on(memory.list("keys/").try_collect::<Vec<_>>()).unwrap().len(), 1);
    is_sound(&memory);
}

/// Gives the same octets for ever.
#[derive(Debug)]
struct Stuck;

impl Randomness for Stuck {
    fn fill(&self, octets: &mut [u8]) -> Result<()> {
        octets.fill(7);
        Ok(())
    }
}

#[test]
fn no_nonce_repeats_in_a_process_whose_randomness_and_clock_stand_still() {
    let clock = ManualClock::new(std::time::Duration::from_secs(1_700_000_000));
    let memory = MemoryStore::new();
    let recorder = Recorder::new(memory.clone());
    for process in 0..3 {
        let mut seams = Seams::default();
        (seams.clock, seams.randomness) = (Arc::new(clock.clone()), Arc::new(Stuck));
        block_on(push_mail(recorder.clone(), seams, 14 + 8 * process)).unwrap();
        assert_no_nonce_repeats(&recorder.sent());
        // Of two processes, time alone tells one from the other.
        clock.advance(std::time::Duration::from_nanos(1 + process));
    }
    is_sound(&memory);
}

// Two repositories.

#[test]
fn two_repositories_of_the_same_mail_and_key_have_nothing_in_common() {
    for protection in [protection(), Protection::None] {
        let [one, two] = [(); 2].map(|()| {
            let memory = MemoryStore::new();
            block_on(async {
                let engine = engine(memory.clone(), protection.clone(), Seams::default()).await.unwrap();
                engine.transfer(mail(14)).finish().await.unwrap();
            });
            objects(&memory)
        });
        let names = |objects: &BTreeMap<String, Bytes>| -> BTreeSet<String> {
            let names = objects.keys().flat_map(|key| key.split('/'));
            names.filter(|name| name.len() >= 32).map(str::to_owned).collect()
        };
        assert!(names(&one).len() > 3 && names(&one).is_disjoint(&names(&two)));
        if let Protection::None = protection {
            continue;
        }
        let windows = |objects: &BTreeMap<String, Bytes>| -> BTreeSet<[u8; 8]> {
            let hidden = objects.iter().map(|(key, octets)| hidden(key, octets));
            hidden
                .flat_map(|octets| octets.windows(8).map(|window| window.try_into().unwrap()).collect::<Vec<_>>())
                .collect()
        };
        let (one, two) = (windows(&one), windows(&two));
        assert!(one.len() > 100_000);
        assert!(one.is_disjoint(&two), "eight octets are the same");
    }
}

/// What is random or sealed of an object: without magic and lengths.
fn hidden<'a>(key: &str, octets: &'a Bytes) -> &'a [u8] {
    match key.split('/').next().unwrap() {
        "config" => &octets[8..24],
        // Frames of packs have their lengths in front; four octets are no window.
        "packs" => &octets[8..octets.len() - 24],
        "keys" => &octets[8..40],
        _ => &octets[8..],
    }
}

fn objects(store: &MemoryStore) -> BTreeMap<String, Bytes> {
    block_on(async {
        let listed: Vec<_> = store.list("").try_collect().await.unwrap();
        let mut objects = BTreeMap::new();
        for Listed { key, .. } in listed {
            let octets = store.read(&key, None).await.unwrap();
            objects.insert(key, octets);
        }
        objects
    })
}

// What can be seen.

/// In subject, body, attachment and the attachment's name.
const CONTENT: &str = "quetzal-7Rk-content";
/// In the names of mailbox, folder and file, and of a keyword.
const NAME: &str = "quetzal-9Wd-name";

#[test]
fn nothing_of_the_mail_is_found_in_a_sealed_repository() {
    let directory = tempfile::tempdir().unwrap();
    write_marked_maildir(directory.path());
    for (protection, is_sealed) in [(protection(), true), (Protection::None, false)] {
        let memory = MemoryStore::new();
        let engine = block_on(engine(memory.clone(), protection, Seams::default())).unwrap();
        let source = source::Maildir::open(directory.path()).unwrap();
        assert_eq!(source.mailboxes().unwrap().count(), 1);
        assert_eq!(block_on(engine.transfer(source).finish()).unwrap().ledger.messages.stored, 2);
        for marker in [CONTENT, NAME] {
            let mut found = BTreeSet::new();
            for (key, octets) in objects(&memory) {
                if shows(key.as_bytes(), marker) || shows(&octets, marker) {
                    found.insert(key.split('/').next().unwrap().to_owned());
                }
            }
            // The search must be able to find, or finding nothing says nothing.
            let expected: &[&str] = match (is_sealed, marker) {
                (true, _) => &[],
                (false, CONTENT) => &["mailboxes", "packs"],
                (false, _) => &["mailboxes", "runs"],
            };
            assert_eq!(found.iter().map(String::as_str).collect::<Vec<_>>(), expected, "{marker}");
        }
    }
}

/// Whether octets show a text: as it is, in base64 at any place, or in anything zstd in them.
fn shows(octets: &[u8], text: &str) -> bool {
    let has = |octets: &[u8], needle: &[u8]| octets.windows(needle.len()).any(|window| window == needle);
    let plain = |octets: &[u8]| {
        let encoded = (0..3).map(|shift| {
            let text = [&b"   "[..shift], text.as_bytes()].concat();
            let encoded = base64(&text);
            // The first and the last group depend on what is around.
            encoded[4..encoded.len() - 6].to_vec()
        });
        has(octets, text.as_bytes()) || encoded.into_iter().any(|needle| has(octets, &needle))
    };
    const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
    let starts = octets.windows(4).enumerate().filter(|(_, window)| *window == ZSTD);
    plain(octets) || starts.into_iter().any(|(at, _)| plain(&inflated(&octets[at..])))
}

/// What comes out of a zstd frame that begins here, as far as it comes.
fn inflated(octets: &[u8]) -> Vec<u8> {
    use std::io::Read;
    let mut out = Vec::new();
    if let Ok(decoder) = zstd::Decoder::new(octets) {
        let _ = decoder.single_frame().take(1 << 22).read_to_end(&mut out);
    }
    out
}

fn write_marked_maildir(root: &std::path::Path) {
    let mailbox = root.join(format!("{NAME}-mailbox"));
    let folder = mailbox.join(format!(".{NAME}-folder"));
    for directory in ["cur", "new", "tmp"] {
        fs::create_dir_all(mailbox.join(directory)).unwrap();
        fs::create_dir_all(folder.join(directory)).unwrap();
    }
    fs::write(folder.join("maildirfolder"), "").unwrap();
    fs::write(folder.join("dovecot-keywords"), format!("0 {NAME}-keyword\n")).unwrap();
    fs::write(mailbox.join(format!("cur/1.{NAME}.host:2,S")), format!("Subject: {CONTENT}\n\n{CONTENT}\n")).unwrap();
    let long = format!("{CONTENT} and so on\n").repeat(20_000);
    let attached = String::from_utf8(base64(long.as_bytes())).unwrap();
    let message = format!(
        "Subject: two\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n--b\n\n{long}\n--b\n\
         Content-Type: application/octet-stream; name=\"{CONTENT}.bin\"\nContent-Transfer-Encoding: base64\n\n{attached}--b--\n"
    );
    fs::write(folder.join(format!("cur/2.{NAME}.host:2,Sa")), message).unwrap();
}

#[test]
fn neither_reports_nor_errors_show_mail_or_keys() {
    let directory = tempfile::tempdir().unwrap();
    write_marked_maildir(directory.path());
    let memory = MemoryStore::new();
    let mut said = String::new();
    let key = Protection::Key(Key::new(*b"quetzal-7Rk-content is the key!!"));
    let first = block_on(engine(memory.clone(), key.clone(), Seams::default())).unwrap();
    said +=
        &format!("{:?}", block_on(first.transfer(source::Maildir::open(directory.path()).unwrap()).finish()).unwrap());
    said += &format!(
        "{key:?} {first:?} {:?} {:?}",
        first.repository(),
        block_on(first.repository().keys().list()).unwrap()
    );
    // Every object damaged in turn, and everything tried with what is left.
    for (key_of_object, octets) in objects(&memory) {
        let damaged = MemoryStore::new();
        for (key, octets) in objects(&memory) {
            block_on(damaged.put(&key, octets.into())).unwrap();
        }
        let mut flipped = octets.to_vec();
        let middle = flipped.len() / 2;
        flipped[middle] ^= 1;
        block_on(damaged.put(&key_of_object, flipped.into())).unwrap();
        match block_on(engine(damaged.clone(), key.clone(), Seams::default())) {
            Err(error) => said += &everything(&error),
            Ok(engine) => {
                let check = block_on(engine.check().read_data(true).finish()).map(|report| format!("{report:?}"));
                let restored =
                    block_on(engine.restore(sink::DryRun::new()).finish()).map(|report| format!("{report:?}"));
                for told in [check, restored] {
                    said += &told.unwrap_or_else(|error| everything(&error));
                }
            }
        }
    }
    assert!(said.len() > 2_000, "{said}");
    assert!(!said.contains("quetzal-7Rk"), "{said}");
    // Names are in reports, for the owner to know what is touched, and in nothing else.
    assert!(said.contains(NAME));
    let wrong = block_on(engine(memory, protection(), Seams::default())).unwrap_err();
    assert_eq!(wrong.kind(), ErrorKind::Key);
    assert!(!everything(&wrong).contains("quetzal"));
}

/// All that an error says, in any form.
fn everything(error: &mailrail::Error) -> String {
    let mut text = format!("{error} {error:?}");
    let mut cause = std::error::Error::source(error);
    while let Some(source) = cause {
        text += &format!(" {source} {source:?}");
        cause = source.source();
    }
    text
}
