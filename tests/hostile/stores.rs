//! Stores that give garbage: random octets, too few, too many, another object's; listings of nonsense, listings without an end.

use crate::common;
use crate::forge::{copy, get, keys};
use bytes::Bytes;
use futures::executor::block_on;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream, StreamExt};
use futures::{FutureExt, TryStreamExt};
use mailrail::message::MailboxName;
use mailrail::repository::Seams;
use mailrail::runtime::Clock;
use mailrail::source::{self, Kind, SourceId};
use mailrail::store::{Created, Listed, MemoryStore, Payload, Retries, Store};
use mailrail::testing::{ManualClock, sink};
use mailrail::{Engine, ErrorKind, Key, Protection, Repository, Resources, Result};
use std::ops::Range;
use std::sync::Arc;

/// The most memory that this process ever had, in octets.
pub(crate) fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

pub(crate) async fn engine(store: &Arc<dyn Store>) -> Result<Engine> {
    protected(store, Protection::None).await
}

async fn protected(store: &Arc<dyn Store>, protection: Protection) -> Result<Engine> {
    let clock = ManualClock::new(common::SystemClockAhead.now());
    let mut seams = Seams::default();
    (seams.clock, seams.timer) = (Arc::new(clock.clone()), Arc::new(clock));
    seams.retries = Retries::none();
    let repository = Repository::open_or_create_with(Arc::clone(store), protection, seams).await?;
    Engine::builder(repository).resources(Resources::inline(Resources::MEMORY_BYTES_MIN)?).build()
}

/// How a store lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lie {
    /// Reads give random octets, of the right length.
    Random,
    /// Reads give nothing.
    Nothing,
    /// Reads give half.
    Half,
    /// Reads give more than was asked for.
    More,
    /// Reads give another object of the same kind, or of another one.
    Another,
    /// Lengths are 2^63.
    Huge,
    /// Lengths are 0.
    Zero,
    /// Listings have no end.
    Circle,
    /// Listings are of names from elsewhere, and names that climb.
    Foreign,
    /// Listings have every object a thousand times.
    Repeated,
    /// Listings have nothing.
    Empty,
    /// Whatever is created is there already.
    Exists,
}

const LIES: [Lie; 12] = [
    Lie::Random,
    Lie::Nothing,
    Lie::Half,
    Lie::More,
    Lie::Another,
    Lie::Huge,
    Lie::Zero,
    Lie::Circle,
    Lie::Foreign,
    Lie::Repeated,
    Lie::Empty,
    Lie::Exists,
];

/// Lies about all objects below a prefix.
#[derive(Debug)]
struct Liar {
    truth: MemoryStore,
    lie: Lie,
    below: &'static str,
}

impl Liar {
    fn lies(&self, lie: Lie, key: &str) -> bool {
        self.lie == lie && key.starts_with(self.below)
    }

    fn told(&self, key: &str, octets: Bytes) -> Bytes {
        match self.lie {
            _ if !key.starts_with(self.below) => octets,
            Lie::Random => common::noise(octets.len() as u64, octets.len()).into(),
            Lie::Nothing => Bytes::new(),
            Lie::Half => octets.slice(..octets.len() / 2),
            Lie::More => [&octets[..], &[0; 5000]].concat().into(),
            Lie::Another => {
                let other = keys(&self.truth).into_iter().rfind(|other| other != key && !other.starts_with("config"));
                let other = other.map(|other| get(&self.truth, &other)).unwrap_or_default();
                other.iter().copied().cycle().take(octets.len()).collect::<Vec<u8>>().into()
            }
            _ => octets,
        }
    }

    fn listed(&self, prefix: &str, length: u64) -> u64 {
        match self.lie {
            Lie::Huge if prefix.starts_with(self.below) => 1 << 63,
            Lie::Zero if prefix.starts_with(self.below) => 0,
            _ => length,
        }
    }
}

impl Store for Liar {
    fn put<'a>(&'a self, key: &'a str, payload: Payload) -> BoxFuture<'a, Result<()>> {
        self.truth.put(key, payload)
    }

    fn create<'a>(&'a self, key: &'a str, payload: Payload) -> BoxFuture<'a, Result<Created>> {
        if self.lies(Lie::Exists, key) {
            return futures::future::ready(Ok(Created::Exists)).boxed();
        }
        self.truth.create(key, payload)
    }

    fn read<'a>(&'a self, key: &'a str, range: Option<Range<u64>>) -> BoxFuture<'a, Result<Bytes>> {
        self.truth.read(key, range).map(move |read| read.map(|octets| self.told(key, octets))).boxed()
    }

    fn length<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<u64>>> {
        self.truth
            .length(key)
            .map(move |length| length.map(|length| length.map(|length| self.listed(key, length))))
            .boxed()
    }

    fn list<'a>(&'a self, prefix: &'a str) -> BoxStream<'a, Result<Listed>> {
        let is_concerned = prefix.starts_with(self.below) || self.below.starts_with(prefix);
        let truth = self.truth.list(prefix).map_ok(move |listed| {
            let length = self.listed(&listed.key, listed.length);
            Listed { length, ..listed }
        });
        match self.lie {
            _ if !is_concerned => truth.boxed(),
            Lie::Circle => {
                let all: Vec<Listed> = truth.try_collect().now_or_never().unwrap().unwrap();
                let nothing = Listed { key: format!("{prefix}nothing"), length: 9 };
                let all = if all.is_empty() { vec![nothing] } else { all };
                stream::iter((0..).map(move |at: usize| Ok(all[at % all.len()].clone()))).boxed()
            }
            Lie::Foreign => {
                let names = [
                    "",
                    "/",
                    "..",
                    "../config",
                    "x",
                    "0",
                    "ffffffffffffffff",
                    "ffffffffffffffff-done",
                    "a/b/c/d",
                    "\0",
                    "é",
                    "-",
                ];
                let (hex, pack) = ("f".repeat(32), "f".repeat(64));
                let more = [
                    format!("ff/{hex}"),
                    format!("ff/{pack}"),
                    format!("ff/{pack}-ffffffffffffffff"),
                    pack,
                    format!("ff/{hex}/ffffffffffffffff"),
                    hex.clone(),
                    format!("{hex}/{}", &hex[..16]),
                ];
                let names: Vec<String> = names.into_iter().map(str::to_owned).chain(more).collect();
                let foreign = names.into_iter().flat_map(move |name| [format!("{prefix}{name}"), name]);
                stream::iter(foreign.map(|key| Ok(Listed { key, length: 77 }))).chain(truth).boxed()
            }
            Lie::Repeated => truth
                .map_ok(|listed| stream::iter([listed.clone(), listed.clone(), listed].map(Ok)))
                .try_flatten()
                .boxed(),
            Lie::Empty => stream::empty().boxed(),
            _ => truth.boxed(),
        }
    }

    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<()>> {
        self.truth.delete(key)
    }
}

fn mail() -> source::Memory {
    let source = source::Memory::new(SourceId::new([1; 16]));
    for number in 0..6 {
        let mailbox = MailboxName::new([b'a' + number as u8 % 2]);
        source.put(&mailbox, "INBOX", format!("{number}"), common::with_attachment(number, number, 20_000));
    }
    source
}

/// Whatever a store answers, in each of the places where a repository looks: everything ends, in what was stored, in a report of what is lost, or in an error.
#[test]
fn a_store_that_answers_garbage_gets_an_error_or_a_report_and_never_wrong_mail() {
    for protection in [Protection::None, Protection::Key(Key::new([5; 32]))] {
        let truth = MemoryStore::new();
        let expected: Vec<Vec<u8>> = block_on(async {
            let engine = protected(&(Arc::new(truth.clone()) as Arc<dyn Store>), protection.clone()).await.unwrap();
            assert!(engine.transfer(mail()).finish().await.unwrap().ledger.is_complete());
            let sink = sink::Memory::new(Kind::Eml);
            engine.restore(sink.clone()).finish().await.unwrap();
            octets(&sink)
        });
        assert_eq!(expected.len(), 6);
        for lie in LIES {
            for below in ["", "config", "keys/", "packs/", "mailboxes/", "index/", "runs/", "sweeps/", "bad/", "moves/"]
            {
                let what = format!("{lie:?} below '{below}'");
                let liar: Arc<dyn Store> = Arc::new(Liar { truth: copy(&truth), lie, below });
                let engine = match block_on(protected(&liar, protection.clone())) {
                    Ok(engine) => engine,
                    Err(error) => {
                        let kinds = [
                            ErrorKind::Damaged,
                            ErrorKind::Key,
                            ErrorKind::Limit,
                            ErrorKind::Unsupported,
                            ErrorKind::NotFound,
                            ErrorKind::Internal,
                        ];
                        assert!(kinds.contains(&error.kind()), "{what}: {error:?}");
                        continue;
                    }
                };
                block_on(everything(&engine, &expected, &what));
            }
        }
    }
}

async fn everything(engine: &Engine, expected: &[Vec<u8>], what: &str) {
    for is_recovery in [false, true] {
        let sink = sink::Memory::new(Kind::Eml);
        let _ = match is_recovery {
            false => engine.restore(sink.clone()).finish().await.map(drop),
            true => engine.recover(sink.clone()).finish().await.map(drop),
        };
        assert!(octets(&sink).iter().all(|octets| expected.contains(octets)), "{what}: not what was stored");
    }
    let _ = (engine.repository().mailboxes().await, engine.repository().keys().list().await);
    let _ = (engine.messages(&MailboxName::new("a"), None).await, engine.statistics().await, engine.runs().await);
    let _ = engine.check().read_data(true).finish().await;
    let _ = engine.transfer(mail()).finish().await;
    let _ = engine.repair().finish().await;
    let _ = engine.forget().finish().await;
    let _ = engine.sweep().finish().await;
}

fn octets(sink: &sink::Memory) -> Vec<Vec<u8>> {
    sink.mailboxes().into_values().flat_map(|mailbox| mailbox.messages).map(|message| message.octets).collect()
}

#[test]
fn a_listing_without_an_end_is_an_error() {
    let truth = MemoryStore::new();
    block_on(async {
        let engine = engine(&(Arc::new(truth.clone()) as Arc<dyn Store>)).await.unwrap();
        engine.transfer(mail()).finish().await.unwrap();
    });
    let liar: Arc<dyn Store> = Arc::new(Liar { truth, lie: Lie::Circle, below: "mailboxes/" });
    block_on(async {
        let engine = engine(&liar).await.unwrap();
        let error = engine.restore(sink::Memory::new(Kind::Eml)).finish().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged, "{error:?}");
        assert!(error.to_string().contains("goes round in circles"), "{error}");
    });
}
