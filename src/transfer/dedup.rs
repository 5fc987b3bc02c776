//! Which blobs are stored, or about to be: the index, and before it the blobs of this transfer's packs that are not durable yet.

use crate::digest::Digest;
use crate::index::{Index, RepositoryId};
use crate::pack::{Location, Row};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

const SHARDS: usize = 16;

/// Finds blobs, and lets exactly one worker store each new one.
#[derive(Debug)]
pub(super) struct Dedup {
    index: Arc<Index>,
    /// Whose blobs these are.
    repository: RepositoryId,
    /// The latest sweep that the writer knows of: packs that it may have condemned give no hits.
    epoch: AtomicU64,
    open: [Shard; SHARDS],
}

/// Blobs in packs that are not durable yet; `None` while a worker asks the index or compresses.
#[derive(Debug, Default)]
struct Shard {
    blobs: Mutex<HashMap<Digest, Option<Location>>>,
    settled: Condvar,
}

/// What is known of a blob.
pub(super) enum Found<'a> {
    /// It is stored, or in a pack that will be.
    Stored(Location),
    /// It is new, and the caller's to store.
    New(Claim<'a>),
}

/// The right to store a blob. Dropped unused, the blob is anybody's again.
pub(super) struct Claim<'a> {
    shard: &'a Shard,
    digest: Digest,
}

impl Dedup {
    pub(super) fn new(index: Arc<Index>, repository: RepositoryId) -> Self {
        Self { index, repository, epoch: AtomicU64::new(0), open: std::array::from_fn(|_| Shard::default()) }
    }

    /// Finds the blob, or claims it. If another worker is just asking for it or compressing it, waits for that: it runs on another thread and waits for
    /// nothing but a disk.
    pub(super) fn find_or_claim(&self, digest: &Digest, content: u32) -> Found<'_> {
        let claim = match self.claim(digest) {
            Found::New(claim) => claim,
            stored => return stored,
        };
        // The index may read a disk, so no lock is held. Whoever meets the blob meanwhile waits for this claim only, and asks for itself if it is given back.
        match self.index.look_up(digest, content, self.epoch.load(Ordering::Relaxed)) {
            Some(location) => Found::Stored(location),
            None => Found::New(claim),
        }
    }

    /// Claims the blob, if it is in no pack of this transfer that is not durable yet.
    fn claim(&self, digest: &Digest) -> Found<'_> {
        let shard = self.shard(digest);
        let mut blobs = lock(&shard.blobs);
        loop {
            match blobs.get(digest) {
                Some(Some(location)) => return Found::Stored(*location),
                Some(None) => blobs = shard.settled.wait(blobs).unwrap_or_else(PoisonError::into_inner),
                None => break,
            }
        }
        blobs.insert(*digest, None);
        Found::New(Claim { shard, digest: *digest })
    }

    /// Moves the rows of a pack that is durable now into the index.
    pub(super) fn publish(&self, rows: &[Row], epoch: u64) {
        // First in the index, then gone from here: nobody finds it in neither.
        self.index.insert(&self.repository, rows, epoch);
        self.forget(rows);
    }

    /// Forgets where these blobs are, if they are in no durable pack: whoever meets them stores them again.
    pub(super) fn forget(&self, rows: &[Row]) {
        for row in rows {
            let mut blobs = lock(&self.shard(&row.digest).blobs);
            if blobs.get(&row.digest) == Some(&Some(row.at)) {
                blobs.remove(&row.digest);
            }
        }
    }

    /// The writer knows of this sweep.
    pub(super) fn raise_epoch(&self, epoch: u64) {
        self.epoch.fetch_max(epoch, Ordering::Relaxed);
    }

    fn shard(&self, digest: &Digest) -> &Shard {
        &self.open[usize::from(digest.as_bytes()[31]) % SHARDS]
    }
}

impl Claim<'_> {
    /// Tells where the blob is.
    pub(super) fn settle(self, location: Location) {
        lock(&self.shard.blobs).insert(self.digest, Some(location));
        // `drop` wakes who waits.
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut blobs = lock(&self.shard.blobs);
        if blobs.get(&self.digest) == Some(&None) {
            blobs.remove(&self.digest);
        }
        drop(blobs);
        self.shard.settled.notify_all();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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

    #[test]
    fn of_many_workers_that_meet_a_new_blob_at_once_one_stores_it() {
        let dedup = dedup();
        let digest = Domain::new([0; 32]).digest(b"content");
        let at = Location { pack: PackId::new([1; 32]), offset: 40, stored: 9, content: 7, frame: 0 };
        let stored = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| match dedup.find_or_claim(&digest, 7) {
                    Found::Stored(found) => assert_eq!(found, at),
                    Found::New(claim) => {
                        stored.fetch_add(1, Ordering::Relaxed);
                        claim.settle(at);
                    }
                });
            }
        });
        assert_eq!(stored.load(Ordering::Relaxed), 1);
        dedup.publish(&[Row { digest, at }], 0);
        assert!(matches!(dedup.find_or_claim(&digest, 7), Found::Stored(found) if found == at));
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
                        assert!(matches!(dedup.find_or_claim(&digest, 7), Found::Stored(found) if found == at));
                    }
                });
            }
        });
        assert!(dedup.open.iter().all(|shard| lock(&shard.blobs).is_empty()));
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
                        match dedup.find_or_claim(&digest, 7) {
                            Found::Stored(found) => assert_eq!(found, at),
                            Found::New(claim) => {
                                stored[number].fetch_add(1, Ordering::Relaxed);
                                claim.settle(at);
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
            let blobs = &seen.get().unwrap().shard(&digest).blobs;
            assert_eq!(blobs.try_lock().expect("a lock is held").get(&digest), Some(&None));
            times.fetch_add(1, Ordering::Relaxed);
        });
        let dedup = Arc::new(Dedup::new(Arc::new(index), [1; 16]));
        cell.set(Arc::clone(&dedup)).unwrap();
        let at = Location { pack: PackId::new([1; 32]), offset: 40, stored: 9, content: 7, frame: 0 };
        let Found::New(claim) = dedup.find_or_claim(&digest, 7) else { panic!("it is new") };
        claim.settle(at);
        assert!(matches!(dedup.find_or_claim(&digest, 7), Found::Stored(found) if found == at));
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        dedup.publish(&[Row { digest, at }], 0);
        for times in 2..5 {
            assert!(matches!(dedup.find_or_claim(&digest, 7), Found::Stored(found) if found == at));
            assert_eq!(asked.load(Ordering::Relaxed), times);
        }
    }

    #[test]
    fn a_claim_dropped_unused_is_anybodys_again() {
        let dedup = dedup();
        let digest = Domain::new([0; 32]).digest(b"content");
        drop(dedup.find_or_claim(&digest, 7));
        assert!(matches!(dedup.find_or_claim(&digest, 7), Found::New(_)));
    }
}
