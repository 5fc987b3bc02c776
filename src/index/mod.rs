//! The dedup index: which blobs are stored, and where. A cache: losing rows costs space, never mail.
//!
//! A sweep may have condemned a pack since its rows were taken in. So each pack is believed to be there up to an *epoch*: the latest sweep of which it
//! is known that it spares the pack. Who knows of a later sweep gets no hits in it.
//!
//! Rows are kept in memory ([`ram`]), or with the feature `disk-index` on disk as well ([`disk`]).

#[cfg(feature = "disk-index")]
mod directory;
#[cfg(feature = "disk-index")]
mod disk;
#[cfg(feature = "disk-index")]
mod filter;
#[cfg(feature = "disk-index")]
mod keeper;
#[cfg(feature = "disk-index")]
mod merge;
mod packs;
mod ram;
#[cfg(feature = "disk-index")]
mod run;
#[cfg(all(test, feature = "disk-index"))]
mod tests;

use crate::digest::Digest;
#[cfg(feature = "disk-index")]
use crate::error::Result;
use crate::lock::Acquisitions;
use crate::pack::{Location, PackId, Row};
use packs::Packs;
use ram::RamRows;
use std::collections::{HashMap, HashSet};
use std::fmt;
#[cfg(feature = "disk-index")]
use std::path::Path;
use std::sync::Arc;
#[cfg(feature = "disk-index")]
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Octets of a digest that the index keeps. Keyed digests cannot be forced to collide by who does not know the key.
const KEY: usize = 16;

type Key = [u8; KEY];

/// Only blobs of at least this many octets enter what lasts, segments and disk: an eighth of the rows, nearly all of the savings.
pub(crate) const LASTING_MIN: u32 = 16 << 10;

/// Names a repository.
pub(crate) type RepositoryId = [u8; 16];

/// Names an index segment in its repository.
pub(crate) type SegmentId = [u8; 16];

/// Where stored blobs are, of all repositories of a process: their digests are keyed apart. Rows given to it are those of durable packs only.
pub(crate) struct Index {
    packs: Arc<Packs>,
    rows: Box<dyn Rows>,
    acquisitions: Acquisitions,
}

/// What a row says. Packs have numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slot {
    pack: u32,
    offset: u32,
    stored: u32,
    content: u32,
    frame: u32,
}

/// Keeps rows, and knows nothing of what they mean.
trait Rows: fmt::Debug + Send + Sync {
    /// The rows of these keys that are in memory for recent ones, hits or not. Waits for nothing.
    fn recent(&self, keys: &[Key]) -> Vec<Option<Slot>>;

    /// A row of this key that is elsewhere and is a hit; of several, the newest. May wait for a disk.
    fn find(&self, _: &Key, _: &dyn Fn(&Slot) -> bool) -> Option<Slot> {
        None
    }

    /// Remembers rows, and waits for nothing.
    fn put(&self, rows: &[(Key, Slot)]);

    /// Remembers rows; may wait until there is room.
    fn fill(&self, rows: &[(Key, Slot)]) {
        self.put(rows);
    }

    /// Whether [`fill`](Self::fill) may wait, and what it was filled with is remembered beyond this process.
    fn is_lasting(&self) -> bool {
        false
    }

    /// Whether the rows of this segment are not all here.
    fn wants(&self, _: &RepositoryId, _: &SegmentId) -> bool {
        true
    }

    /// All rows of this segment were given.
    fn has_taken(&self, _: &RepositoryId, _: &SegmentId) {}

    /// A repository has these segments, and no others any more.
    fn keep_segments(&self, _: &RepositoryId, _: &HashSet<SegmentId>) {}

    #[cfg(feature = "disk-index")]
    fn as_disk(&self) -> Option<&disk::DiskRows> {
        None
    }
}

impl Index {
    /// As [`counted`](Self::counted), with a count of its own.
    #[cfg(any(test, feature = "bench-internals"))]
    pub(crate) fn in_memory(octets: usize) -> Self {
        Self::counted(octets, &Acquisitions::default())
    }

    /// An index in memory that takes at most `octets` for rows, and forgets what was neither stored nor asked for the longest. What pack ids take (about
    /// 150 octets a pack) is not counted. How often its locks are taken is counted there.
    pub(crate) fn counted(octets: usize, acquisitions: &Acquisitions) -> Self {
        let packs = Arc::new(Packs::new(acquisitions));
        Self { packs, rows: Box::new(RamRows::new(octets, acquisitions)), acquisitions: acquisitions.clone() }
    }

    /// How often its locks were taken, and those of others that count there. (But not those of rows on disk, each of which belongs to an eighth of all.)
    pub(crate) fn acquisitions(&self) -> &Acquisitions {
        &self.acquisitions
    }

    /// The least octets of memory for an index on disk.
    #[cfg(feature = "disk-index")]
    pub(crate) const DISK_OCTETS_MIN: usize = disk::DiskRows::OCTETS_MIN;

    /// An index whose lasting rows are in files under `directory`. It takes at most `recent` octets of memory for recent rows and short blobs, and `octets` for
    /// everything else, pack ids included.
    ///
    /// # Errors
    /// If another process uses the directory, or it cannot be written. Files that are damaged are no error: they are made anew.
    #[cfg(feature = "disk-index")]
    pub(crate) fn on_disk(directory: &Path, recent: usize, octets: usize, acquisitions: &Acquisitions) -> Result<Self> {
        let acquisitions = acquisitions.clone();
        let packs = Arc::new(Packs::new(&acquisitions));
        let rows = disk::DiskRows::open(directory, Arc::clone(&packs), RamRows::new(recent, &acquisitions), octets)?;
        Ok(Self { packs, rows: Box::new(rows), acquisitions })
    }

    /// Where the blobs are of which the index remembers that, and whose packs are believed to be there up to `epoch`. Each is told with its content's length, which must
    /// agree. Reads a disk if the index is on one.
    pub(crate) fn look_up(&self, blobs: &[(Digest, u32)], epoch: u64) -> Vec<Option<Location>> {
        let keys: Vec<Key> = blobs.iter().map(|(digest, _)| key(digest)).collect();
        let mut slots = self.rows.recent(&keys);
        for (slot, (_, content)) in slots.iter_mut().zip(blobs) {
            slot.take_if(|slot| slot.content != *content);
        }
        let mut located = self.packs.locate(&slots, epoch);
        if self.rows.is_lasting() {
            let missing = located.iter_mut().zip(keys.iter().zip(blobs)).filter(|(at, _)| at.is_none());
            for (at, (key, (_, content))) in missing {
                let is_hit = |slot: &Slot| slot.content == *content && self.packs.is_hit(slot, epoch);
                *at = self.rows.find(key, &is_hit).and_then(|slot| self.packs.locate(&[Some(slot)], epoch)[0]);
            }
        }
        located
    }

    /// Remembers rows of packs of a repository that no sweep up to `epoch` condemns. Waits for nothing: if what keeps rows is behind, some are not remembered.
    pub(crate) fn insert(&self, repository: &RepositoryId, rows: &[Row], epoch: u64) {
        self.rows.put(&self.entries(repository, rows, epoch));
    }

    /// As [`insert`](Self::insert), of a segment, and may wait for a disk. `is_whole`: these are all rows of the segment that may ever be hits.
    pub(crate) fn fill(
        &self,
        repository: &RepositoryId,
        segment: Option<&SegmentId>,
        rows: &[Row],
        (epoch, is_whole): (u64, bool),
    ) {
        let entries = self.entries(repository, rows, epoch);
        self.rows.fill(&entries);
        if let Some(segment) = segment.filter(|_| is_whole && entries.len() == rows.len()) {
            self.rows.has_taken(repository, segment);
        }
    }

    /// Whether it remembers beyond this process, and [`fill`](Self::fill) may wait.
    pub(crate) fn is_lasting(&self) -> bool {
        self.rows.is_lasting()
    }

    /// Whether rows of this segment may be missing here.
    pub(crate) fn wants(&self, repository: &RepositoryId, segment: &SegmentId) -> bool {
        self.rows.wants(repository, segment)
    }

    /// The segments of a repository are these: what is remembered of others is not needed any more.
    pub(crate) fn keep_segments(&self, repository: &RepositoryId, listed: &HashSet<SegmentId>) {
        self.rows.keep_segments(repository, listed);
    }

    /// These packs of a repository (with their lengths) were seen to be there, and no sweep up to `epoch` condemns them. `is_all`: others that were known before are not there.
    pub(crate) fn believe(
        &self,
        repository: &RepositoryId,
        packs: &HashMap<PackId, u64>,
        (epoch, is_all): (u64, bool),
    ) {
        self.packs.believe(repository, packs, (epoch, is_all));
    }

    /// Whether no sweep up to `epoch` condemns this pack, as far as the index was told, and nobody found it damaged or gone.
    pub(crate) fn believes(&self, pack: &PackId, epoch: u64) -> bool {
        self.packs.believes(pack, epoch)
    }

    /// No row of this pack is a hit any more: it is damaged, or gone.
    pub(crate) fn refuse(&self, pack: PackId) {
        self.packs.refuse(pack);
    }

    /// Somebody looked and saw the pack.
    pub(crate) fn saw(&self, pack: PackId) {
        self.packs.saw(pack);
    }

    /// Whether the pack was seen to exist, and nothing bad has been heard of it since.
    pub(crate) fn is_seen(&self, pack: PackId) -> bool {
        self.packs.is_seen(pack)
    }

    /// What is on disk, if the index is.
    #[cfg(feature = "disk-index")]
    pub(crate) fn disk(&self) -> Option<&disk::DiskRows> {
        self.rows.as_disk()
    }

    /// What is kept of rows, without those whose pack is refused: they must not take the place of others.
    fn entries(&self, repository: &RepositoryId, rows: &[Row], epoch: u64) -> Vec<(Key, Slot)> {
        let packs = self.packs.numbers_unless_refused(repository, rows, epoch);
        let entry = |(row, pack): (&Row, Option<u32>)| {
            let offset = u32::try_from(row.at.offset).ok()?;
            let slot =
                Slot { pack: pack?, offset, stored: row.at.stored, content: row.at.content, frame: row.at.frame };
            Some((key(&row.digest), slot))
        };
        rows.iter().zip(packs).filter_map(entry).collect()
    }
}

impl fmt::Debug for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Index").field(&self.rows).finish()
    }
}

fn key(digest: &Digest) -> Key {
    let mut key = [0; KEY];
    key.copy_from_slice(&digest.as_bytes()[..KEY]);
    key
}

#[cfg(feature = "disk-index")]
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere leaves the tables whole: every change to them is one call.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
impl Index {
    /// An index in memory that calls `each` whenever it is asked for a row.
    pub(crate) fn asked(each: impl Fn() + Send + Sync + 'static) -> Self {
        let acquisitions = Acquisitions::default();
        let rows = Asked(RamRows::new(1 << 16, &acquisitions), Box::new(each));
        Self { packs: Arc::default(), rows: Box::new(rows), acquisitions }
    }
}

#[cfg(test)]
struct Asked(RamRows, Box<dyn Fn() + Send + Sync>);

#[cfg(test)]
impl Rows for Asked {
    fn recent(&self, keys: &[Key]) -> Vec<Option<Slot>> {
        self.1();
        self.0.recent(keys)
    }

    fn put(&self, rows: &[(Key, Slot)]) {
        self.0.put(rows);
    }
}

#[cfg(test)]
impl fmt::Debug for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod memory_tests {
    use super::*;
    use crate::digest::Domain;

    const REPOSITORY: RepositoryId = [1; 16];

    fn row(number: u32) -> Row {
        let digest = Domain::new([0; 32]).digest(&number.to_le_bytes());
        let pack = PackId::new([number as u8; 32]);
        Row { digest, at: Location { pack, offset: 40, stored: 10, content: number, frame: 0 } }
    }

    fn look_up(index: &Index, number: u32, content: u32, epoch: u64) -> Option<Location> {
        index.look_up(&[(row(number).digest, content)], epoch)[0]
    }

    #[test]
    fn a_blob_of_another_length_is_no_hit() {
        let index = Index::in_memory(1 << 20);
        index.insert(&REPOSITORY, &[row(7)], 0);
        assert_eq!(look_up(&index, 7, 7, 0), Some(row(7).at));
        assert_eq!(look_up(&index, 7, 8, 0), None);
        assert_eq!(look_up(&index, 8, 8, 0), None);
    }

    #[test]
    fn rows_of_a_refused_pack_are_no_hits_even_if_it_was_seen() {
        let index = Index::in_memory(1 << 20);
        let pack = row(7).at.pack;
        index.insert(&REPOSITORY, &[row(7), row(8)], 0);
        index.saw(pack);
        assert!(index.is_seen(pack) && !index.is_seen(row(8).at.pack));
        index.refuse(pack);
        index.insert(&REPOSITORY, &[row(7)], 0);
        index.saw(pack);
        assert!(!index.is_seen(pack));
        assert_eq!(look_up(&index, 7, 7, 0), None);
        assert_eq!(look_up(&index, 8, 8, 0), Some(row(8).at));
        assert!(!index.believes(&pack, 0) && index.believes(&row(8).at.pack, 0));
    }

    #[test]
    fn a_pack_that_a_later_sweep_may_have_condemned_gives_no_hits_until_it_was_looked_at() {
        let index = Index::in_memory(1 << 20);
        index.insert(&REPOSITORY, &[row(7), row(8)], 1);
        assert_eq!(look_up(&index, 7, 7, 1), Some(row(7).at));
        assert_eq!(look_up(&index, 7, 7, 2), None);
        index.believe(&REPOSITORY, &HashMap::from([(row(7).at.pack, 50)]), (2, true));
        assert_eq!(look_up(&index, 7, 7, 2), Some(row(7).at));
        assert!(index.believes(&row(7).at.pack, 2) && !index.believes(&row(8).at.pack, 2));
        // Who knows less may still tell of it, and believes no more than before.
        index.insert(&REPOSITORY, &[row(8)], 0);
        assert!(index.believes(&row(8).at.pack, 1) && !index.believes(&row(8).at.pack, 2));
    }

    #[test]
    fn a_row_beyond_the_end_of_its_pack_is_no_hit() {
        let index = Index::in_memory(1 << 20);
        index.insert(&REPOSITORY, &[row(7)], 0);
        index.believe(&REPOSITORY, &HashMap::from([(row(7).at.pack, 49)]), (0, true));
        assert_eq!(look_up(&index, 7, 7, 0), None);
    }
}
