//! Does a store keep what writers rely on? Found out by trying.

use super::{Created, Payload, Retries, RetryingStore, Store};
use crate::error::{ErrorKind, Result};
use crate::runtime::{Randomness, SystemRandomness, SystemTimer};
use bytes::Bytes;
use futures::future::{BoxFuture, join_all, try_join_all};
use futures::{FutureExt, TryStreamExt};
use std::fmt;
use std::sync::Arc;

/// How many races there are, all at once, and how many race for one key. More racers find no more than more races do, and where each who loses waits for a second
/// they wait for each other: SeaweedFS takes 13 s for 8 races of 32 and 6 s for these.
const RACES: usize = 16;
const RACERS: usize = 8;

/// Octets of a probe's objects: enough for two writes of one object to be mixed up.
const OBJECT: usize = 16 << 10;

/// Who writes to a repository.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "one or any number")]
pub enum Writers {
    /// Any number at once, in any number of processes: the store must create an object for one of them only.
    #[default]
    Any,
    /// One process at a time, which its user vouches for. Nothing protects the repository if that is not so: two that write at once may each overwrite
    /// the other's commits, and what those held is lost, though it was told to be stored.
    One,
}

/// What a [`probe`] found. It is evidence and no proof: what did not fail may fail some day.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Findings {
    /// What is wrong with creating objects only if there are none, in words. Nothing, for a store that any number may write to.
    pub creating: Vec<String>,
    /// What is wrong beside that, in words: an object that is not there after it was written, not in a listing, or not read as it was written.
    pub reading: Vec<String>,
}

impl Findings {
    /// Whether these may write to the store.
    #[must_use]
    pub fn is_fit_for(&self, writers: Writers) -> bool {
        self.reading.is_empty() && (writers == Writers::One || self.creating.is_empty())
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_fit_for(Writers::Any) {
            return f.write_str("it keeps what writers rely on");
        }
        let all: Vec<&str> = self.creating.iter().chain(&self.reading).map(String::as_str).collect();
        f.write_str(&all.join("; "))
    }
}

/// Tries whether a store keeps what writers rely on: one of several that create the same object at once, or one after the other, is told that it is theirs, and it stays
/// that one's; what was written is read, whole and in ranges, and listed.
///
/// It writes some twenty objects of 16 KiB under `probe/<random>/`, in about 200 requests, and deletes them. What fails for now is tried again.
///
/// # Errors
/// What the store reports. Then nothing is known.
///
/// # Cancel safety
/// Dropping the future leaves objects under `probe/`, which nobody reads.
pub fn probe(store: Arc<dyn Store>) -> BoxFuture<'static, Result<Findings>> {
    async move {
        let mut random = [0; 16];
        SystemRandomness.fill(&mut random)?;
        let (seed, token) = random.split_at(8);
        let number = |octets: &[u8]| octets.iter().fold(0_u64, |number, octet| number << 8 | u64::from(*octet));
        let store = RetryingStore::new(store, Retries::default(), Arc::new(SystemTimer), number(seed));
        let probe = Probe { store, base: format!("probe/{:016x}/", number(token)) };
        let found = probe.find().await;
        // What cannot be deleted harms nobody, and what was found matters more.
        let _ = probe.tidy().await;
        found
    }
    .boxed()
}

struct Probe {
    store: RetryingStore,
    /// What all keys begin with, ending with a `/`.
    base: String,
}

impl Probe {
    async fn find(&self) -> Result<Findings> {
        let mut findings = Findings::default();
        self.sequence(&mut findings).await?;
        // All at once: there are stores on which each who loses waits for a second.
        for found in try_join_all((0..RACES).map(|race| self.race(race))).await? {
            findings.creating.extend(found.creating);
            findings.reading.extend(found.reading);
        }
        self.ranges(&mut findings).await?;
        self.listing(&mut findings).await?;
        findings.creating.dedup();
        findings.reading.dedup();
        Ok(findings)
    }

    /// One creates, then another.
    async fn sequence(&self, findings: &mut Findings) -> Result<()> {
        let key = self.key("sequence");
        // Whether it is told to be new does not matter: a create that was tried again may find its own object.
        self.store.create(&key, octets(1)).await?;
        match self.read(&key).await? {
            None => findings.reading.push("an object is not there after it was created".into()),
            Some(read) if read != octets(1).pieces().concat() => {
                findings.reading.push("an object is not read as it was created".into());
            }
            Some(_) => {}
        }
        let other = self.store.create(&key, octets(2)).await?;
        if self.read(&key).await?.is_some_and(|read| read == octets(2).pieces().concat()) {
            findings.creating.push("creating an object that is there overwrites it".into());
        } else if other == Created::New {
            findings.creating.push("creating an object that is there is answered as if it were new".into());
        }
        Ok(())
    }

    /// Many create at once.
    async fn race(&self, race: usize) -> Result<Findings> {
        let mut findings = Findings::default();
        let key = self.key(&format!("race-{race}"));
        let created = join_all((0..RACERS).map(|racer| self.store.create(&key, octets(racer)))).await;
        let created = created.into_iter().collect::<Result<Vec<Created>>>()?;
        let winners: Vec<usize> = (0..RACERS).filter(|racer| created[*racer] == Created::New).collect();
        if winners.len() > 1 {
            findings.creating.push(format!(
                "of {RACERS} that create the same object at once {} are told that it is theirs",
                winners.len()
            ));
            return Ok(findings);
        }
        let Some(read) = self.read(&key).await? else {
            findings.reading.push("an object is not there after it was created".into());
            return Ok(findings);
        };
        let is_of = |racer: usize| read == octets(racer).pieces().concat();
        // Nobody is told so if the answer to whom it is was lost.
        let is_right = match winners.first() {
            Some(winner) => is_of(*winner),
            None => (0..RACERS).any(is_of),
        };
        if !is_right {
            findings.creating.push("an object that was created is overwritten by who came too late".into());
        }
        Ok(findings)
    }

    async fn ranges(&self, findings: &mut Findings) -> Result<()> {
        let key = self.key("put");
        self.store.put(&key, octets(3)).await?;
        let whole = octets(3).pieces().concat();
        let length = OBJECT as u64;
        for range in [0..1, 100..200, length - 7..length, length - 7..length + 7, length..length + 7] {
            let wanted = &whole[cut(range.start)..cut(range.end)];
            match self.store.read(&key, Some(range.clone())).await {
                Ok(read) if read == wanted => {}
                Ok(_) => {
                    findings.reading.push(format!("the octets {range:?} of {length} are not read as they were written"))
                }
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    findings.reading.push("an object is not there after it was written".into());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// All that was written by now.
    async fn listing(&self, findings: &mut Findings) -> Result<()> {
        let listed: Vec<_> = self.store.list(&self.base).try_collect().await?;
        let races = (0..RACES).map(|race| format!("race-{race}"));
        for name in races.chain(["sequence".to_owned(), "put".to_owned()]) {
            let key = self.key(&name);
            if !listed.iter().any(|listed| listed.key == key && listed.length == OBJECT as u64) {
                findings.reading.push("an object is not listed after it was written".into());
                return Ok(());
            }
        }
        Ok(())
    }

    async fn tidy(&self) -> Result<()> {
        let listed: Vec<_> = self.store.list(&self.base).try_collect().await?;
        try_join_all(listed.iter().map(|listed| self.store.delete(&listed.key))).await.map(drop)
    }

    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.base)
    }

    async fn read(&self, key: &str) -> Result<Option<Bytes>> {
        match self.store.read(key, None).await {
            Ok(octets) => Ok(Some(octets)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// The object of one writer, unlike any other's in every octet.
fn octets(writer: usize) -> Payload {
    Payload::from(vec![writer as u8; OBJECT])
}

/// An end of a range in an object of ours.
fn cut(end: u64) -> usize {
    usize::try_from(end).map_or(OBJECT, |end| end.min(OBJECT))
}

#[cfg(test)]
mod tests;
