//! What every implementor of a trait of this crate has to hold, as a suite to run in its own tests.

use crate::error::{Error, ErrorKind, Result as StoreResult};
use crate::runtime::{Randomness, SystemRandomness};
use crate::store::{Created, Listed, Payload, Store};
use bytes::Bytes;
use futures::future::{FutureExt, join_all};
use futures::stream::{self, StreamExt, TryStreamExt};
use std::collections::BTreeMap;

/// More than a page of any object store's listing, which is 1,000 objects.
const MANY_OBJECTS: usize = 1010;

/// More pieces than any operating system writes at once, which is 1,024.
const MANY_PIECES: usize = 2500;

/// How many writers race for one key, and how often.
const RACERS: u8 = 16;
const RACES: usize = 8;

/// How many writes of the many objects are under way at once.
const CONCURRENCY: usize = 16;

/// Checks that `store` holds the contract of [`Store`].
///
/// It writes about 1,100 objects with 12 MB in all under `conformance/<random>/`, leaves other objects alone, and deletes its own at the end,
/// also when a check failed. The races are between futures of one task: a store that runs them one after the other must be raced
/// from several processes as well. It cannot tell whether what was written is durable.
///
/// # Errors
/// What the store does wrong, in words: which check, what was expected, and what came instead.
///
/// # Cancel safety
/// Dropping the future leaves objects behind.
pub async fn store_conformance(store: &dyn Store) -> Result<(), String> {
    let suite = Suite { store, base: base()? };
    let checked = suite.check().await;
    let deleted = suite.delete_all().await;
    checked.and(deleted)
}

/// A check's outcome: what is wrong.
type Outcome = Result<(), String>;

struct Suite<'a> {
    store: &'a dyn Store,
    /// What all keys begin with, ending with a `/`.
    base: String,
}

impl Suite<'_> {
    async fn check(&self) -> Outcome {
        self.absent().await.map_err(|wrong| format!("an absent object: {wrong}"))?;
        self.put().await.map_err(|wrong| format!("put: {wrong}"))?;
        self.create().await.map_err(|wrong| format!("create: {wrong}"))?;
        self.ranges().await.map_err(|wrong| format!("ranges: {wrong}"))?;
        self.empty().await.map_err(|wrong| format!("an empty object: {wrong}"))?;
        self.pieces().await.map_err(|wrong| format!("a payload in pieces: {wrong}"))?;
        self.dropped().await.map_err(|wrong| format!("a write whose future is dropped: {wrong}"))?;
        self.boundaries().await.map_err(|wrong| format!("listing by prefix: {wrong}"))?;
        self.many().await.map_err(|wrong| format!("listing many objects: {wrong}"))?;
        self.delete().await.map_err(|wrong| format!("delete: {wrong}"))?;
        self.races().await.map_err(|wrong| format!("racing creates: {wrong}"))
    }

    async fn absent(&self) -> Outcome {
        let key = self.key("absent/a");
        for range in [None, Some(0..1), Some(0..0), Some(7..u64::MAX)] {
            let read = self.store.read(&key, range.clone()).await;
            expect_error(&format!("reading {range:?} of it"), read, ErrorKind::NotFound)?;
        }
        expect("its length", self.store.length(&key).await, None)?;
        expect("deleting it", self.store.delete(&key).await, ())?;
        self.expect_listed("absent/", &[]).await
    }

    async fn put(&self) -> Outcome {
        let key = self.key("put/a");
        for _ in 0..2 {
            expect("writing the same octets", self.store.put(&key, payload(b"octets")).await, ())?;
            self.expect_object(&key, b"octets").await?;
        }
        self.expect_listed("put/", &[("put/a", 6)]).await
    }

    async fn create(&self) -> Outcome {
        let key = self.key("create/a");
        expect("the first", self.store.create(&key, payload(b"first")).await, Created::New)?;
        for octets in [&b"another"[..], b"first", b""] {
            expect("a later one", self.store.create(&key, payload(octets)).await, Created::Exists)?;
            self.expect_object(&key, b"first").await?;
        }
        let key = self.key("create/put");
        expect("put", self.store.put(&key, payload(b"put")).await, ())?;
        expect("after a put", self.store.create(&key, payload(b"created")).await, Created::Exists)?;
        self.expect_object(&key, b"put").await
    }

    async fn ranges(&self) -> Outcome {
        let key = self.key("ranges/a");
        let octets: Vec<u8> = (0..=255).cycle().take(100_000).collect();
        expect("put", self.store.put(&key, payload(&octets)).await, ())?;
        let inside = [0..100_000, 0..1, 1..2, 99_999..100_000, 65_535..65_537, 0..0, 5..5, 100_000..100_000];
        let across = [0..100_001, 0..u64::MAX, 99_999..100_001, 65_535..u64::MAX];
        let behind = [100_000..100_001, 100_000..u64::MAX, 200_000..200_001, 200_000..200_000, u64::MAX - 1..u64::MAX];
        for range in inside.into_iter().chain(across).chain(behind) {
            let cut = |end: u64| usize::try_from(end).map_or(octets.len(), |end| end.min(octets.len()));
            let wanted = &octets[cut(range.start)..cut(range.end)];
            let read = self.store.read(&key, Some(range.clone())).await;
            expect_octets(&format!("the octets {range:?} of 100000"), read, wanted)?;
        }
        Ok(())
    }

    async fn empty(&self) -> Outcome {
        let pieces = [vec![], vec![Bytes::new()], vec![Bytes::new(), Bytes::new()]];
        for (number, pieces) in pieces.into_iter().enumerate() {
            let (put, created) =
                (self.key(&format!("empty/{number}/put")), self.key(&format!("empty/{number}/created")));
            expect("put", self.store.put(&put, Payload::new(pieces.clone())).await, ())?;
            self.expect_object(&put, b"").await?;
            expect("create", self.store.create(&created, Payload::new(pieces)).await, Created::New)?;
            self.expect_object(&created, b"").await?;
            expect("create again", self.store.create(&created, payload(b"octets")).await, Created::Exists)?;
            self.expect_object(&created, b"").await?;
            expect_octets("the octets 0..9 of it", self.store.read(&put, Some(0..9)).await, b"")?;
        }
        self.expect_listed("empty/0/", &[("empty/0/put", 0), ("empty/0/created", 0)]).await
    }

    async fn pieces(&self) -> Outcome {
        // Lengths from 0 to 4,095, in no order.
        let piece = |number: usize| Bytes::from(vec![(number % 251) as u8; number * 2_654_435_761 % 4096]);
        let pieces: Vec<Bytes> = (0..MANY_PIECES).map(piece).chain([Bytes::new()]).collect();
        let whole = pieces.concat();
        let (put, created) = (self.key("pieces/put"), self.key("pieces/created"));
        expect("put", self.store.put(&put, Payload::new(pieces.clone())).await, ())?;
        self.expect_object(&put, &whole).await?;
        expect("create", self.store.create(&created, Payload::new(pieces)).await, Created::New)?;
        self.expect_object(&created, &whole).await
    }

    async fn boundaries(&self) -> Outcome {
        let names = ["list/a/x", "list/a/y/z", "list/a-b/x", "list/a.b/x", "list/ab/x", "list/b"];
        for name in names {
            expect("put", self.store.put(&self.key(name), payload(name.as_bytes())).await, ())?;
        }
        let all: Vec<_> = names.iter().map(|name| (*name, name.len() as u64)).collect();
        self.expect_listed("list/", &all).await?;
        self.expect_listed("list/a/", &[("list/a/x", 8), ("list/a/y/z", 10)]).await?;
        self.expect_listed("list/a/y/", &[("list/a/y/z", 10)]).await?;
        self.expect_listed("list/a-b/", &[("list/a-b/x", 10)]).await?;
        // The object `list/b` is not below itself.
        self.expect_listed("list/b/", &[]).await?;
        self.expect_listed("list/c/", &[]).await?;
        let everything = self.listed("").await?;
        let missing = names.iter().find(|name| !everything.contains_key(&self.key(name)));
        missing.map_or(Ok(()), |name| Err(format!("'{name}' is not in the listing of everything")))
    }

    async fn many(&self) -> Outcome {
        let names: Vec<_> = (0..MANY_OBJECTS).map(|number| format!("many/{:02}/{number}", number % 3)).collect();
        let writes = names.iter().map(|name| async { self.store.put(&self.key(name), payload(b"1")).await });
        let written: StoreResult<Vec<()>> = stream::iter(writes).buffer_unordered(CONCURRENCY).try_collect().await;
        expect("put", written.map(drop), ())?;
        let names: Vec<_> = names.iter().map(|name| (name.as_str(), 1)).collect();
        self.expect_listed("many/", &names).await
    }

    async fn delete(&self) -> Outcome {
        let (key, neighbour) = (self.key("delete/a"), self.key("delete/a-b"));
        expect("put", self.store.put(&key, payload(b"octets")).await, ())?;
        expect("put", self.store.put(&neighbour, payload(b"other")).await, ())?;
        for time in ["the first time", "the second time"] {
            expect(time, self.store.delete(&key).await, ())?;
            expect("the length afterwards", self.store.length(&key).await, None)?;
            expect_error("reading afterwards", self.store.read(&key, None).await, ErrorKind::NotFound)?;
            self.expect_listed("delete/", &[("delete/a-b", 5)]).await?;
        }
        expect("create afterwards", self.store.create(&key, payload(b"new")).await, Created::New)?;
        self.expect_object(&key, b"new").await
    }

    async fn dropped(&self) -> Outcome {
        let key = self.key("dropped/a");
        let octets = vec![7; 200_000];
        // Polled once, or not at all.
        let _ = self.store.put(&key, payload(&octets)).now_or_never();
        drop(self.store.put(&key, payload(&octets)));
        match self.store.read(&key, None).await {
            Ok(read) => expect_octets("reading it", Ok(read), &octets)?,
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(format!("reading it: {}", in_words(&error))),
        }
        expect("writing it again", self.store.put(&key, payload(&octets)).await, ())?;
        self.expect_object(&key, &octets).await
    }

    async fn races(&self) -> Outcome {
        for race in 0..RACES {
            let key = self.key(&format!("races/{race}"));
            let octets = |racer: u8| vec![racer; 1000 + usize::from(racer)];
            let racers = (0..RACERS).map(|racer| self.store.create(&key, Payload::from(octets(racer))));
            let mut winners = Vec::new();
            for (racer, created) in (0..RACERS).zip(join_all(racers).await) {
                match created {
                    Ok(Created::New) => winners.push(racer),
                    Ok(Created::Exists) => {}
                    Err(error) => return Err(in_words(&error)),
                }
            }
            let [winner] = winners[..] else {
                return Err(format!(
                    "of {RACERS} racers {} were told that the object is theirs, not one",
                    winners.len()
                ));
            };
            self.expect_object(&key, &octets(winner)).await.map_err(|wrong| format!("the winner's object: {wrong}"))?;
        }
        Ok(())
    }

    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.base)
    }

    async fn expect_object(&self, key: &str, octets: &[u8]) -> Outcome {
        expect_octets("reading it", self.store.read(key, None).await, octets)?;
        expect("its length", self.store.length(key).await, Some(octets.len() as u64))
    }

    /// Expects exactly these objects, with these lengths, below a prefix.
    async fn expect_listed(&self, prefix: &str, names: &[(&str, u64)]) -> Outcome {
        let expected: BTreeMap<_, _> = names.iter().map(|(name, length)| (self.key(name), *length)).collect();
        let listed = self.listed(&self.key(prefix)).await?;
        if listed == expected {
            return Ok(());
        }
        let missing = expected.iter().find(|(key, length)| listed.get(*key) != Some(*length));
        let surplus = listed.iter().find(|(key, length)| expected.get(*key) != Some(*length));
        Err(format!(
            "listing '{prefix}' gives {} objects instead of {}: missing {missing:?}, too many {surplus:?}",
            listed.len(),
            expected.len()
        ))
    }

    async fn listed(&self, prefix: &str) -> Result<BTreeMap<String, u64>, String> {
        let listed: StoreResult<Vec<Listed>> = self.store.list(prefix).try_collect().await;
        let mut objects = BTreeMap::new();
        for Listed { key, length } in listed.map_err(|error| format!("listing '{prefix}': {}", in_words(&error)))? {
            if let Some((key, _)) = objects.insert(key.clone(), length).map(|length| (key, length)) {
                return Err(format!("listing '{prefix}' gives '{key}' twice"));
            }
        }
        Ok(objects)
    }

    async fn delete_all(&self) -> Outcome {
        let keys: Vec<_> = self.listed(&self.base).await?.into_keys().collect();
        let deletions = keys.iter().map(|key| self.store.delete(key));
        let deleted: StoreResult<Vec<()>> = stream::iter(deletions).buffer_unordered(CONCURRENCY).try_collect().await;
        expect("deleting the suite's objects", deleted.map(drop), ())?;
        let left = self.listed(&self.base).await?.len();
        if left == 0 { Ok(()) } else { Err(format!("{left} objects are still listed after they were deleted")) }
    }
}

fn base() -> Result<String, String> {
    let mut octets = [0; 8];
    SystemRandomness.fill(&mut octets).map_err(|error| in_words(&error))?;
    Ok(format!("conformance/{:016x}/", u64::from_be_bytes(octets)))
}

fn payload(octets: &[u8]) -> Payload {
    Payload::from(octets.to_vec())
}

fn expect<T: PartialEq + std::fmt::Debug>(what: &str, result: StoreResult<T>, expected: T) -> Outcome {
    match result {
        Ok(value) if value == expected => Ok(()),
        Ok(value) => Err(format!("{what}: {value:?} instead of {expected:?}")),
        Err(error) => Err(format!("{what}: {}", in_words(&error))),
    }
}

fn expect_octets(what: &str, result: StoreResult<Bytes>, expected: &[u8]) -> Outcome {
    match result {
        Ok(octets) if octets == expected => Ok(()),
        Ok(octets) if octets.len() == expected.len() => Err(format!("{what}: other octets than were written")),
        Ok(octets) => Err(format!("{what}: {} octets instead of {}", octets.len(), expected.len())),
        Err(error) => Err(format!("{what}: {}", in_words(&error))),
    }
}

fn expect_error(what: &str, result: StoreResult<Bytes>, kind: ErrorKind) -> Outcome {
    match result {
        Err(error) if error.kind() == kind => Ok(()),
        Err(error) => Err(format!("{what}: {} instead of an error of the kind {kind:?}", in_words(&error))),
        Ok(octets) => Err(format!("{what}: {} octets instead of an error of the kind {kind:?}", octets.len())),
    }
}

fn in_words(error: &Error) -> String {
    format!("the error {error:?}")
}

#[cfg(test)]
mod tests;
