//! Which blobs are stored, or about to be: the index, and before it the blobs of this transfer's packs that are not durable yet.
//!
//! Blobs are asked for, settled and published many at once: each is one acquisition of the lock that workers share, however many blobs it is for.

use crate::digest::Digest;
use crate::index::{Index, RepositoryId};
use crate::lock::{Guard, Lock, assert_none_is_held};
use crate::pack::{Location, Row};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar};

/// Finds blobs, and lets exactly one worker store each new one.
#[derive(Debug)]
pub(super) struct Dedup {
    index: Arc<Index>,
    /// Whose blobs these are.
    repository: RepositoryId,
    /// The latest sweep that the writer knows of: packs that it may have condemned give no hits.
    epoch: AtomicU64,
    /// Blobs in packs that are not durable yet.
    open: Lock<Open>,
    /// Claims were settled or given back.
    settled: Condvar,
}

/// Where blobs are; `None` while a worker asks the index or compresses.
type Open = HashMap<Digest, Option<Location>>;

/// What is known of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// It is stored, or in a pack that will be.
    Stored(Location),
    /// It is new, and the caller's to store.
    New,
    /// Somebody else may be about to store it, or the caller asked for it twice: it is to be asked for again, when the caller's own claims are settled.
    Claimed,
}

/// The right to store blobs. Those not settled when it is dropped are anybody's again.
#[must_use]
pub(super) struct Claims<'a> {
    dedup: &'a Dedup,
    digests: Vec<Digest>,
}

impl Dedup {
    pub(super) fn new(index: Arc<Index>, repository: RepositoryId) -> Self {
        let open = Lock::new(Open::new(), index.acquisitions());
        Self { index, repository, epoch: AtomicU64::new(0), open, settled: Condvar::new() }
    }

    /// Finds blobs, each told with its content's length, or claims them. Waits for nothing but the index.
    pub(super) fn find_or_claim(&self, blobs: &[(Digest, u32)]) -> (Vec<Found>, Claims<'_>) {
        let mut open = self.open.lock();
        let found = blobs.iter().map(|(digest, _)| claim(&mut open, digest)).collect();
        drop(open);
        self.ask_index(blobs, found)
    }

    /// As [`find_or_claim`](Self::find_or_claim) for one blob, which nobody else has claimed any more when this ends. Whoever has runs on another thread, and waits for nothing but a
    /// disk. The caller must hold no claim: two that wait for each other's would wait for ever.
    pub(super) fn wait_for(&self, digest: &Digest, content: u32) -> (Found, Claims<'_>) {
        let mut open = self.open.lock();
        let found = loop {
            match claim(&mut open, digest) {
                Found::Claimed => open = open.wait(&self.settled),
                found => break found,
            }
        };
        drop(open);
        let (found, claims) = self.ask_index(&[(*digest, content)], vec![found]);
        (found[0], claims)
    }

    /// Asks the index for what was claimed. It may read a disk, so no lock is held. Whoever meets the blobs meanwhile waits for these claims only, and asks for itself if they
    /// are given back.
    fn ask_index(&self, blobs: &[(Digest, u32)], mut found: Vec<Found>) -> (Vec<Found>, Claims<'_>) {
        let of_claimed = |(blob, found): (&(Digest, u32), &Found)| (*found == Found::New).then_some(*blob);
        let claimed: Vec<_> = blobs.iter().zip(&found).filter_map(of_claimed).collect();
        let claims = Claims { dedup: self, digests: claimed.iter().map(|(digest, _)| *digest).collect() };
        if !claimed.is_empty() {
            assert_none_is_held();
            let located = self.index.look_up(&claimed, self.epoch.load(Ordering::Relaxed));
            let claimed = found.iter_mut().filter(|found| **found == Found::New);
            for (found, at) in claimed.zip(located) {
                *found = at.map_or(Found::New, Found::Stored);
            }
        }
        (found, claims)
    }

    /// Moves the rows of a pack that is durable now into the index.
    pub(super) fn publish(&self, rows: &[Row], epoch: u64) {
        // First in the index, then gone from here: nobody finds it in neither.
        self.index.insert(&self.repository, rows, epoch);
        self.forget(rows);
    }

    /// Forgets where these blobs are, if they are in no durable pack: whoever meets them stores them again.
    pub(super) fn forget(&self, rows: &[Row]) {
        let mut open = self.open.lock();
        for row in rows {
            if open.get(&row.digest) == Some(&Some(row.at)) {
                open.remove(&row.digest);
            }
        }
    }

    /// The writer knows of this sweep.
    pub(super) fn raise_epoch(&self, epoch: u64) {
        self.epoch.fetch_max(epoch, Ordering::Relaxed);
    }
}

/// Claims the blob, if it is in no pack of this transfer that is not durable yet.
fn claim(open: &mut Guard<'_, Open>, digest: &Digest) -> Found {
    match open.entry(*digest) {
        Entry::Occupied(entry) => entry.get().map_or(Found::Claimed, Found::Stored),
        Entry::Vacant(entry) => {
            entry.insert(None);
            Found::New
        }
    }
}

impl Claims<'_> {
    /// Tells where those blobs are that were stored, and gives the other ones back.
    pub(super) fn settle(mut self, stored: &[Row]) {
        self.end(stored);
    }

    fn end(&mut self, stored: &[Row]) {
        if self.digests.is_empty() {
            return;
        }
        let mut open = self.dedup.open.lock();
        open.extend(stored.iter().map(|row| (row.digest, Some(row.at))));
        for digest in self.digests.drain(..) {
            if open.get(&digest) == Some(&None) {
                open.remove(&digest);
            }
        }
        drop(open);
        self.dedup.settled.notify_all();
    }
}

impl Drop for Claims<'_> {
    fn drop(&mut self) {
        self.end(&[]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Domain;
    use crate::pack::PackId;
    use std::sync::OnceLock;
    use std::sync::atomic::AtomicUsize;

    fn dedup() -> Dedup {
        Dedup::new(Arc::new(Index::in_memory(1 << 16)), [1; 16])
    }

    /// Finds one blob, or stores it there, as a worker does.
    fn store(dedup: &Dedup, digest: Digest, at: Location) -> Found {
        let (found, claims) = dedup.wait_for(&digest, at.content);
        let stored = [Row { digest, at }];
        claims.settle(if found == Found::New { &stored } else { &[] });
        found
    }

    #[test]
    fn of_many_workers_that_meet_a_new_blob_at_once_one_stores_it() {
        let dedup = dedup();
        let digest = Domain::new([0; 32]).digest(b"content");
        let at = Location { pack: PackId::new([1; 32]), offset: 40, stored: 9, content: 7, frame: 0 };
        let stored = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| match store(&dedup, digest, at) {
                    Found::Stored(found) => assert_eq!(found, at),
                    _ => drop(stored.fetch_add(1, Ordering::Relaxed)),
                });
            }
        });
        assert_eq!(stored.load(Ordering::Relaxed), 1);
        dedup.publish(&[Row { digest, at }], 0);
        assert_eq!(dedup.wait_for(&digest, 7).0, Found::Stored(at));
    }

    #[test]
    fn of_many_workers_that_meet_a_blob_which_the_index_knows_each_finds_it_and_none_keeps_a_claim() {
        let dedup = dedup();
        let digest = Domain::new([0; 32]).digest(b"content");
        let at = Location { pack: PackId::new([1; 32]), offset: 40, stored: 9, content: 7, frame: 0 };
        dedup.publish(&[Row { digest, at }], 0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        assert_eq!(dedup.wait_for(&digest, 7).0, Found::Stored(at));
                    }
                });
            }
        });
        assert!(dedup.open.lock().is_empty());
    }

    #[test]
    fn while_blobs_are_found_claimed_and_published_each_is_stored_by_one() {
        let dedup = dedup();
        let stored: Vec<AtomicUsize> = (0..64).map(|_| AtomicUsize::new(0)).collect();
        std::thread::scope(|scope| {
            for worker in 0..8_usize {
                let (dedup, stored) = (&dedup, &stored);
                scope.spawn(move || {
                    for turn in 0..640 {
                        let number = (turn * 7 + worker * 11) % 64;
                        let digest = Domain::new([0; 32]).digest(&number.to_le_bytes());
                        let at = Location {
                            pack: PackId::new([1; 32]),
                            offset: number as u64,
                            stored: 9,
                            content: 7,
                            frame: 0,
                        };
                        match store(dedup, digest, at) {
                            Found::Stored(found) => assert_eq!(found, at),
                            _ => {
                                stored[number].fetch_add(1, Ordering::Relaxed);
                                dedup.publish(&[Row { digest, at }], 0);
                            }
                        }
                    }
                });
            }
        });
        assert!(stored.iter().all(|times| times.load(Ordering::Relaxed) == 1), "{stored:?}");
    }

    #[test]
    fn while_the_index_is_asked_the_blob_is_claimed_and_no_lock_is_held() {
        let digest = Domain::new([0; 32]).digest(b"content");
        let (cell, asked) = (Arc::new(OnceLock::<Arc<Dedup>>::new()), Arc::new(AtomicUsize::new(0)));
        let (seen, times) = (Arc::clone(&cell), Arc::clone(&asked));
        let index = Index::asked(move || {
            let open = &seen.get().unwrap().open;
            assert!(!open.is_held(), "a lock is held");
            assert_eq!(open.lock().get(&digest), Some(&None));
            times.fetch_add(1, Ordering::Relaxed);
        });
        let dedup = Arc::new(Dedup::new(Arc::new(index), [1; 16]));
        cell.set(Arc::clone(&dedup)).unwrap();
        let at = Location { pack: PackId::new([1; 32]), offset: 40, stored: 9, content: 7, frame: 0 };
        assert_eq!(store(&dedup, digest, at), Found::New);
        assert_eq!(dedup.wait_for(&digest, 7).0, Found::Stored(at));
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        dedup.publish(&[Row { digest, at }], 0);
        for times in 2..5 {
            assert_eq!(dedup.wait_for(&digest, 7).0, Found::Stored(at));
            assert_eq!(asked.load(Ordering::Relaxed), times);
        }
    }

    #[test]
    fn a_claim_dropped_unused_is_anybodys_again() {
        let dedup = dedup();
        let digest = Domain::new([0; 32]).digest(b"content");
        assert_eq!(dedup.find_or_claim(&[(digest, 7)]).0, [Found::New]);
        assert_eq!(dedup.find_or_claim(&[(digest, 7)]).0, [Found::New]);
    }

    #[test]
    fn of_blobs_asked_for_together_each_is_claimed_once_and_what_another_has_is_told() {
        let dedup = dedup();
        let [one, two, three] = [1_u8, 2, 3].map(|number| (Domain::new([0; 32]).digest(&[number]), 7));
        let (found, first) = dedup.find_or_claim(&[one, two, one]);
        assert_eq!(found, [Found::New, Found::New, Found::Claimed]);
        let (found, second) = dedup.find_or_claim(&[two, three]);
        assert_eq!(found, [Found::Claimed, Found::New]);
        let at = Location { pack: PackId::new([1; 32]), offset: 40, stored: 9, content: 7, frame: 0 };
        // The second of them was not stored after all.
        first.settle(&[Row { digest: one.0, at }]);
        assert_eq!(dedup.find_or_claim(&[one]).0, [Found::Stored(at)]);
        let (found, third) = dedup.wait_for(&two.0, 7);
        assert_eq!(found, Found::New);
        drop((second, third));
        assert_eq!(dedup.open.lock().len(), 1);
    }

    #[test]
    fn however_many_blobs_are_stored_together_locks_are_taken_a_few_times() {
        let dedup = dedup();
        let blob = |number: u64| (Domain::new([0; 32]).digest(&number.to_le_bytes()), 7);
        let at = |offset| Location { pack: PackId::new([1; 32]), offset, stored: 9, content: 7, frame: 0 };
        let blobs: Vec<_> = (0..1000).map(blob).collect();
        let rows: Vec<_> = blobs.iter().zip(0..).map(|((digest, _), n)| Row { digest: *digest, at: at(n) }).collect();
        let before = dedup.index.acquisitions().count();
        let (found, claims) = dedup.find_or_claim(&blobs);
        claims.settle(&rows);
        // Claimed, asked for, settled.
        assert_eq!(dedup.index.acquisitions().count() - before, 3);
        dedup.publish(&rows, 0);
        // Packs, rows, and what is open.
        assert_eq!(dedup.index.acquisitions().count() - before, 6);
        assert!(found.iter().all(|found| *found == Found::New));
    }
}
