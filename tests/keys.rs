//! Keys: what opens a repository and what does not, how they come and go, and what a store can do about it.
#![cfg(all(feature = "testing", feature = "passphrase"))]

use bytes::Bytes;
use futures::executor::block_on;
use futures::future::{BoxFuture, FutureExt};
use futures::stream::{BoxStream, StreamExt, TryStreamExt};
use mailrail::message::MailboxName;
use mailrail::repository::{Keys, Seams, SlotId, SlotKind};
use mailrail::runtime::{Executor, Inline, Job};
use mailrail::source::{Memory, SourceId};
use mailrail::store::{Created, Listed, MemoryStore, Payload, Store};
use mailrail::testing::{CountingStore, Fault, FaultyStore, ManualClock, Operation, Plan};
use mailrail::{Engine, Error, ErrorKind, Key, Passphrase, PassphraseCost, Protection, Repository, Resources, Result};
use std::ops::Range;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// Where a slot has the parameters of Argon2id, and where its note begins: docs/format.md, "Config and key slots".
const COST: Range<usize> = 57..69;
const NOTE_OF_KEY: usize = 57 + 80;
const NOTE_OF_PASSPHRASE: usize = 69 + 80;

fn key(number: u8) -> Protection {
    Protection::Key(Key::new([number; 32]))
}

/// A passphrase that costs as little as may be.
fn passphrase(text: &str) -> Protection {
    let cost = PassphraseCost::new(PassphraseCost::MEMORY_KIB_MIN, 1, 1).unwrap();
    Protection::Passphrase(Passphrase::new(text).unwrap().with_cost(cost))
}

fn create(store: &impl StoreClone, protection: Protection) -> Repository {
    block_on(Repository::open_or_create(store.arc(), protection)).unwrap()
}

fn open(store: &impl StoreClone, protection: Protection) -> Result<Repository> {
    block_on(Repository::open(store.arc(), protection))
}

fn refused(store: &impl StoreClone, protection: Protection) -> Error {
    let error = open(store, protection).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Key, "{error:?}");
    error
}

trait StoreClone {
    fn arc(&self) -> Arc<dyn Store>;
}

impl<S: Store + Clone> StoreClone for S {
    fn arc(&self) -> Arc<dyn Store> {
        Arc::new(self.clone())
    }
}

fn slots(store: &MemoryStore) -> Vec<String> {
    let listed: Vec<Listed> = block_on(store.list("keys/").try_collect()).unwrap();
    listed.into_iter().map(|listed| listed.key).collect()
}

fn read(store: &MemoryStore, object: &str) -> Vec<u8> {
    block_on(store.read(object, None)).unwrap().to_vec()
}

fn put(store: &MemoryStore, object: &str, octets: impl Into<Vec<u8>>) {
    block_on(store.put(object, octets.into().into())).unwrap();
}

// Opening.

#[test]
fn a_passphrase_opens_its_repository_and_another_one_does_not() {
    let store = MemoryStore::new();
    let created = create(&store, passphrase("correct horse"));
    assert_eq!(open(&store, passphrase("correct horse")).unwrap().id(), created.id());
    // What it costs is said by the slot, not by who opens it.
    let dear = Passphrase::new("correct horse").unwrap();
    assert!(open(&store, Protection::Passphrase(dear)).is_ok());
    for wrong in ["correct horse ", "Correct horse", "x"] {
        assert_eq!(refused(&store, passphrase(wrong)).to_string(), "the passphrase does not open this repository");
    }
    assert!(refused(&store, key(1)).to_string().contains("no key file"));
    assert!(refused(&store, Protection::None).to_string().contains("is encrypted"));
    let open_to_all = MemoryStore::new();
    create(&open_to_all, Protection::None);
    refused(&open_to_all, passphrase("correct horse"));
}

#[test]
fn a_slot_that_is_truncated_or_flipped_opens_nothing_and_what_it_says_of_itself_is_not_believed() {
    for (protection, note) in [(key(1), NOTE_OF_KEY), (passphrase("a"), NOTE_OF_PASSPHRASE)] {
        let store = MemoryStore::new();
        create(&store, protection.clone());
        let object = slots(&store).remove(0);
        let whole = read(&store, &object);
        for length in 0..whole.len() {
            put(&store, &object, &whole[..length]);
            match length < note {
                true => drop(refused(&store, protection.clone())),
                false => is_unreadable(&open(&store, protection.clone()).unwrap().keys()),
            }
        }
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 1 << (at % 8);
            put(&store, &object, flipped);
            match at < note {
                true => drop(refused(&store, protection.clone())),
                false => is_unreadable(&open(&store, protection.clone()).unwrap().keys()),
            }
        }
        put(&store, &object, [&whole[..], b"more"].concat());
        is_unreadable(&open(&store, protection.clone()).unwrap().keys());
        put(&store, &object, whole);
        let slot = block_on(open(&store, protection).unwrap().keys().list()).unwrap().remove(0);
        assert!(slot.kind != SlotKind::Unreadable && slot.in_use);
    }
}

fn is_unreadable(keys: &Keys) {
    let slots = block_on(keys.list()).unwrap();
    assert_eq!((slots[0].kind, slots[0].label.as_str(), slots[0].created), (SlotKind::Unreadable, "", 0));
}

#[test]
fn slots_cannot_be_swapped_between_names_or_repositories() {
    let (one, two) = (MemoryStore::new(), MemoryStore::new());
    let keys = create(&one, key(1)).keys();
    block_on(keys.add(key(2), "second")).unwrap();
    create(&two, key(1));
    let [first, second]: [String; 2] = slots(&one).try_into().unwrap();
    let (octets, others) = (read(&one, &first), read(&one, &second));
    put(&one, &first, others.clone());
    put(&one, &second, octets.clone());
    refused(&one, key(1));
    refused(&one, key(2));
    // And with the other repository's id written into them.
    let id = open(&two, key(1)).unwrap().id();
    for object in slots(&two) {
        for octets in [&octets, &others] {
            let mut forged = octets.clone();
            put(&two, &object, forged.clone());
            refused(&two, key(1));
            forged[40..56].copy_from_slice(&id);
            put(&two, &object, forged);
            refused(&two, key(1));
        }
    }
    // A slot may not say of itself that it is of the other kind.
    let mut forged = octets;
    forged[56] = 2;
    put(&one, &first, forged);
    refused(&one, key(1));
}

/// Counts jobs: the keys that are made of passphrases.
#[derive(Clone, Debug, Default)]
struct Counted(Arc<AtomicUsize>);

impl Executor for Counted {
    fn execute(&self, job: Job) {
        self.0.fetch_add(1, Ordering::Relaxed);
        Inline.execute(job);
    }

    fn parallelism(&self) -> usize {
        1
    }
}

fn attempts(store: &MemoryStore, protection: Protection) -> (Result<Repository>, usize) {
    let counted = Counted::default();
    let mut seams = Seams::default();
    seams.executor = Arc::new(counted.clone());
    let opened = block_on(Repository::open_with(store.arc(), protection, seams));
    (opened, counted.0.load(Ordering::Relaxed))
}

#[test]
fn parameters_beyond_the_limits_are_not_tried() {
    let store = MemoryStore::new();
    create(&store, passphrase("a"));
    let object = slots(&store).remove(0);
    let whole = read(&store, &object);
    for cost in [
        [u32::MAX, 1, 1],
        [u32::MAX, u32::MAX, u32::MAX],
        [PassphraseCost::MEMORY_KIB_MAX + 1, 1, 1],
        [8 << 10, 129, 1],
        [8 << 10, u32::MAX, 1],
        [8 << 10, 1, 17],
        [8 << 10, 1, 0],
        [8 << 10, 0, 1],
        [0, 1, 1],
    ] {
        let mut altered = whole.clone();
        altered[COST].copy_from_slice(&cost.map(u32::to_le_bytes).concat());
        put(&store, &object, altered);
        let (opened, attempts) = attempts(&store, passphrase("a"));
        let error = opened.unwrap_err();
        assert_eq!((error.kind(), attempts), (ErrorKind::Key, 0), "{cost:?}");
        assert!(error.to_string().contains("more than is allowed"), "{error}");
    }
    // Within the limits, altered ones make another key, which opens nothing.
    for cost in [[(8 << 10) + 1, 1, 1_u32], [8 << 10, 2, 1], [8 << 10, 1, 2]] {
        let mut altered = whole.clone();
        altered[COST].copy_from_slice(&cost.map(u32::to_le_bytes).concat());
        put(&store, &object, altered);
        let (opened, attempts) = attempts(&store, passphrase("a"));
        assert_eq!((opened.unwrap_err().kind(), attempts), (ErrorKind::Key, 1), "{cost:?}");
    }
}

#[test]
fn a_store_full_of_slots_costs_no_more_than_the_limits() {
    let memory = MemoryStore::new();
    create(&memory, passphrase("a"));
    let octets = read(&memory, &slots(&memory)[0]);
    for number in 0..1000_u64 {
        put(&memory, &format!("keys/{number:016x}"), octets.clone());
        put(&memory, &format!("keys/f{number:015x}"), vec![0; 1 << 20]);
    }
    let (opened, tried) = attempts(&memory, passphrase("b"));
    assert_eq!((opened.unwrap_err().kind(), tried), (ErrorKind::Key, Keys::PASSPHRASES_MAX));
    // A key file never pays for passphrases.
    assert_eq!(attempts(&memory, key(1)).1, 0);
    let counting = CountingStore::new(memory.arc());
    refused(&counting, key(1));
    let reads = counting.count(Operation::Read, "keys");
    assert!(reads.operations <= 256 && reads.octets <= 256 << 10, "{reads:?}");
    // Slots of other repositories are not tried either.
    let other = MemoryStore::new();
    create(&other, key(1));
    put(&other, "keys/0123456789abcdef", octets);
    assert_eq!(attempts(&other, passphrase("a")).1, 0);
    // A config without end is not read.
    put(&other, "config", vec![b'M'; 1 << 20]);
    put(&other, "config.copy", vec![b'M'; 1 << 20]);
    assert_eq!(open(&other, key(1)).unwrap_err().kind(), ErrorKind::Damaged);
}

// Coming and going.

#[test]
fn keys_are_added_listed_rotated_and_removed_and_nothing_else_is_written() {
    let memory = MemoryStore::new();
    let store = CountingStore::new(memory.arc());
    let clock = ManualClock::new(Duration::from_secs(1_800_000_000));
    let mut seams = Seams::default();
    seams.clock = Arc::new(clock.clone());
    let repository = block_on(Repository::open_or_create_with(store.arc(), key(1), seams.clone())).unwrap();
    let source = Memory::new(SourceId::new([1; 16]));
    source.put(&MailboxName::new("anna"), "INBOX", "1", "Subject: one\n\nOne\n");
    let engine = Engine::builder(repository.clone()).resources(Resources::inline(64 << 20).unwrap()).build().unwrap();
    assert!(block_on(engine.transfer(source).finish()).unwrap().ledger.is_complete());
    store.reset();

    let keys = repository.keys();
    clock.advance(Duration::from_secs(5));
    let second = block_on(keys.add(passphrase("two"), "Anna's, in the safe")).unwrap();
    let listed = block_on(keys.list()).unwrap();
    assert_eq!(listed.len(), 2);
    let of = |id: SlotId| listed.iter().find(|slot| slot.id == id).unwrap();
    let first = listed.iter().find(|slot| slot.in_use).unwrap().id;
    assert_eq!((of(first).kind, of(first).created), (SlotKind::Key, 1_800_000_000_000_000_000));
    assert_eq!((of(second).kind, of(second).label.as_str()), (SlotKind::Passphrase, "Anna's, in the safe"));
    assert_eq!((of(second).created, of(second).in_use), (1_800_000_005_000_000_000, false));
    assert_eq!(second.to_string().parse::<SlotId>().unwrap(), second);

    // The second one, once it is used, takes its own place by another.
    let by_second = block_on(Repository::open_with(store.arc(), passphrase("two"), seams)).unwrap();
    let third = block_on(by_second.keys().rotate(passphrase("three"), "")).unwrap();
    assert!(block_on(by_second.keys().list()).unwrap().iter().any(|slot| slot.id == third && slot.in_use));
    refused(&memory, passphrase("two"));
    assert!(open(&memory, passphrase("three")).is_ok() && open(&memory, key(1)).is_ok());
    block_on(by_second.keys().remove(first)).unwrap();
    refused(&memory, key(1));
    assert_eq!(block_on(by_second.keys().remove(first)).unwrap_err().kind(), ErrorKind::NotFound);

    // All of it under `keys/`, and nothing is left there but the one slot.
    for operation in [Operation::Put, Operation::Create, Operation::Delete] {
        assert_eq!(store.total(operation), store.count(operation, "keys"), "{operation:?}");
    }
    assert_eq!(slots(&memory), [format!("keys/{third}")]);
    // Who has the repository open goes on, and the next one finds the mail.
    assert_eq!(block_on(engine.messages(&MailboxName::new("anna"), None)).unwrap().messages.len(), 1);
    let reopened = open(&memory, passphrase("three")).unwrap();
    let engine = Engine::builder(reopened).resources(Resources::inline(64 << 20).unwrap()).build().unwrap();
    assert!(block_on(engine.check().read_data(true).finish()).unwrap().is_sound());
}

#[test]
fn neither_the_last_key_nor_by_accident_the_one_in_use_is_removed() {
    let memory = MemoryStore::new();
    let repository = create(&memory, key(1));
    let keys = repository.keys();
    let own = block_on(keys.list()).unwrap()[0].id;
    let in_use = block_on(keys.remove(own)).unwrap_err();
    assert!(in_use.kind() == ErrorKind::Invalid && in_use.to_string().contains("in use"), "{in_use}");
    let last = block_on(keys.remove_even_in_use(own)).unwrap_err();
    assert!(last.kind() == ErrorKind::Invalid && last.to_string().contains("the last key"), "{last}");
    assert_eq!(slots(&memory).len(), 1, "a mark was left");
    // A slot that cannot be read, or is being removed, is no other key.
    let second = block_on(keys.add(key(2), "")).unwrap();
    let object = format!("keys/{second}");
    let whole = read(&memory, &object);
    let mut flipped = whole.clone();
    flipped[100] ^= 1;
    put(&memory, &object, flipped);
    assert!(block_on(keys.remove_even_in_use(own)).unwrap_err().to_string().contains("the last key"));
    put(&memory, &object, whole);
    put(&memory, &format!("{object}.0000000000000001"), []);
    assert!(block_on(keys.remove_even_in_use(own)).unwrap_err().to_string().contains("the last key"));
    // That removal can be ended, and takes its marks with it.
    block_on(keys.remove(second)).unwrap();
    assert_eq!(slots(&memory), [format!("keys/{own}")]);
    block_on(keys.add(key(3), "")).unwrap();
    block_on(keys.remove_even_in_use(own)).unwrap();
    refused(&memory, key(1));
    assert!(open(&memory, key(3)).is_ok());
}

/// Makes everybody wait a turn before every operation.
#[derive(Clone, Debug)]
struct Turns(MemoryStore);

async fn turn() {
    let mut waited = false;
    futures::future::poll_fn(|_| if std::mem::replace(&mut waited, true) { Poll::Ready(()) } else { Poll::Pending })
        .await;
}

impl Store for Turns {
    fn put<'a>(&'a self, key: &'a str, payload: Payload) -> BoxFuture<'a, Result<()>> {
        turn().then(|()| self.0.put(key, payload)).boxed()
    }

    fn create<'a>(&'a self, key: &'a str, payload: Payload) -> BoxFuture<'a, Result<Created>> {
        turn().then(|()| self.0.create(key, payload)).boxed()
    }

    fn read<'a>(&'a self, key: &'a str, range: Option<Range<u64>>) -> BoxFuture<'a, Result<Bytes>> {
        turn().then(|()| self.0.read(key, range)).boxed()
    }

    fn length<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<u64>>> {
        turn().then(|()| self.0.length(key)).boxed()
    }

    fn list<'a>(&'a self, prefix: &'a str) -> BoxStream<'a, Result<Listed>> {
        turn().map(move |()| self.0.list(prefix)).flatten_stream().boxed()
    }

    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<()>> {
        turn().then(|()| self.0.delete(key)).boxed()
    }
}

#[test]
fn whoever_removes_keys_at_once_one_stays() {
    let mut outcomes = [0; 4];
    for seed in 0..3000_u64 {
        let memory = MemoryStore::new();
        let keys = create(&memory, key(1)).keys();
        block_on(keys.add(key(2), "")).unwrap();
        let ids: Vec<SlotId> = block_on(keys.list()).unwrap().iter().map(|slot| slot.id).collect();
        let [one, two] = [1, 2].map(|number| {
            let mut seams = Seams::default();
            seams.executor = Arc::new(Inline);
            // Opened before anything is removed, and slow from then on.
            (number, seams)
        });
        let slow = Turns(memory.clone());
        let open = |(number, seams): (u8, Seams)| {
            driven(Repository::open_with(slow.arc(), key(number), seams)).unwrap().keys()
        };
        let (one, two) = (open(one), open(two));
        // Three of them: two remove the first, one the second.
        let removals = [(&one, ids[0]), (&two, ids[1]), (&two, ids[0])];
        let mut futures: Vec<_> =
            removals.map(|(keys, id)| keys.remove_even_in_use(id).boxed()).into_iter().map(Some).collect();
        let mut removed = 0;
        let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        while futures.iter().any(Option::is_some) {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let at = (random % 3) as usize;
            if let Some(future) = &mut futures[at]
                && let Poll::Ready(result) = future.poll_unpin(&mut Context::from_waker(Waker::noop()))
            {
                futures[at] = None;
                removed += usize::from(result.is_ok());
            }
        }
        let left = slots(&memory).iter().filter(|object| object.len() == "keys/".len() + 16).count();
        assert!(left >= 1, "seed {seed}: all keys are gone");
        assert!(removed == 0 || left == 1, "seed {seed}");
        outcomes[removed] += 1;
    }
    assert!(outcomes[0] > 0 && outcomes[1] > 0 && outcomes[2] > 0, "not all was tried: {outcomes:?}");
}

/// Polls a future that waits for nothing but its turn.
fn driven<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return output;
        }
    }
}

#[test]
fn a_rotation_that_fails_anywhere_leaves_a_key_that_opens() {
    for operation in [Operation::Create, Operation::Put, Operation::Delete, Operation::Read, Operation::List] {
        for fault in [Fault::Before(ErrorKind::Unavailable), Fault::After(ErrorKind::Unavailable)] {
            for skip in 0.. {
                let memory = MemoryStore::new();
                create(&memory, key(1));
                let faulty = FaultyStore::new(memory.arc());
                let repository = open(&faulty, key(1)).unwrap();
                faulty.plan(Plan::new(operation, fault).below("keys/").skipping(skip));
                let rotated = block_on(repository.keys().rotate(passphrase("new"), ""));
                let [old, new] = [key(1), passphrase("new")].map(|protection| open(&memory, protection).is_ok());
                assert!(old || new, "{operation:?} {fault:?} {skip}");
                match rotated {
                    Ok(_) => assert!(new && !old, "{operation:?} {fault:?} {skip}"),
                    Err(_) => assert!(faulty.struck() > 0),
                }
                if faulty.struck() == 0 {
                    assert!(skip > 0, "{operation:?} never happens");
                    break;
                }
            }
        }
    }
}

#[test]
fn there_are_not_too_many_keys_and_not_too_long_labels() {
    let memory = MemoryStore::new();
    let keys = create(&memory, passphrase("0")).keys();
    for number in 1..Keys::PASSPHRASES_MAX {
        block_on(keys.add(passphrase(&number.to_string()), "")).unwrap();
    }
    assert_eq!(block_on(keys.add(passphrase("more"), "")).unwrap_err().kind(), ErrorKind::Limit);
    for number in Keys::PASSPHRASES_MAX..Keys::SLOTS_MAX {
        block_on(keys.add(key(number as u8), &"l".repeat(Keys::LABEL_OCTETS_MAX))).unwrap();
    }
    assert_eq!(block_on(keys.add(key(200), "")).unwrap_err().kind(), ErrorKind::Limit);
    assert_eq!(block_on(keys.list()).unwrap().len(), Keys::SLOTS_MAX);
    let too_long = block_on(keys.add(key(200), &"l".repeat(Keys::LABEL_OCTETS_MAX + 1)));
    assert_eq!(too_long.unwrap_err().kind(), ErrorKind::Invalid);
    assert!(open(&memory, passphrase("15")).is_ok() && open(&memory, key(63)).is_ok());
}

#[test]
fn a_repository_without_encryption_has_no_keys_and_none_is_no_key() {
    let memory = MemoryStore::new();
    let keys = create(&memory, Protection::None).keys();
    let id: SlotId = "0123456789abcdef".parse().unwrap();
    let kinds = [
        block_on(keys.list()).map(drop),
        block_on(keys.add(key(1), "")).map(drop),
        block_on(keys.remove(id)),
        block_on(keys.rotate(key(1), "")).map(drop),
        block_on(create(&MemoryStore::new(), key(1)).keys().add(Protection::None, "")).map(drop),
        "0123456789ABCDEF".parse::<SlotId>().map(drop),
    ];
    for refused in kinds {
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Invalid);
    }
    assert_eq!(slots(&memory), [""; 0]);
}

#[test]
fn a_label_and_its_time_are_sealed() {
    let memory = MemoryStore::new();
    let keys = create(&memory, key(1)).keys();
    let id = block_on(keys.add(key(2), "a label that tells")).unwrap();
    let octets = read(&memory, &format!("keys/{id}"));
    assert!(!octets.windows(7).any(|window| window == b"a label"));
}

/// The memory of Argon2id is gone when a repository is open. In a process of its own, because other tests use memory too.
#[cfg(target_os = "linux")]
#[test]
fn the_memory_of_a_passphrase_is_freed_before_a_repository_is_open() {
    const CHILD: &str = "MAILRAIL_KEYS_CHILD";
    if std::env::var_os(CHILD).is_some() {
        let store = MemoryStore::new();
        let dear = || Protection::Passphrase(Passphrase::new("dear").unwrap());
        create(&store, dear());
        let repository = open(&store, dear()).unwrap();
        println!("peak {} now {} {repository:?}", memory("VmHWM:"), memory("VmRSS:"));
        return;
    }
    let name = "the_memory_of_a_passphrase_is_freed_before_a_repository_is_open";
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let after = |word: &str| -> u64 {
        let mut words = text.split_whitespace().skip_while(|found| *found != word);
        words.nth(1).and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{text}"))
    };
    let (peak, now) = (after("peak"), after("now"));
    assert!((64 << 10..96 << 10).contains(&peak), "{peak} KiB");
    assert!(now < 32 << 10, "{now} KiB are still there");
}

/// KiB, as the kernel tells.
#[cfg(target_os = "linux")]
fn memory(what: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(what)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
