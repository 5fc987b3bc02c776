//! Reading blobs: ranges of packs, coalesced, several at once; and where a pack fails, wherever else its blobs are.

use super::detour::{Detours, Finds, PLACES_MAX};
use crate::error::{Error, Result};
use crate::pack::{Location, PackId, PackReader};
use crate::repository::{Moves, Repository, read_moves};
use crate::runtime::{self, Executor};
use crate::store::read_exact;
use bytes::Bytes;
use futures::{StreamExt, stream};
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Octets between two blobs that are read along rather than asked for apart.
const GAP_MAX: u64 = 128 << 10;
/// The longest range asked for at once, unless one blob is longer.
const RANGE_MAX: u64 = 8 << 20;
/// Ranges read at once by one caller.
const READS_MAX: usize = 8;
/// Packs whose salts are remembered.
const READERS_MAX: usize = 1024;

/// Reads blobs of a repository.
#[derive(Clone, Debug)]
pub(crate) struct Fetcher {
    repository: Repository,
    readers: Arc<Mutex<HashMap<PackId, Arc<PackReader>>>>,
    detours: Arc<Mutex<Detours>>,
}

/// Blobs that were read, still sealed.
#[derive(Debug, Default)]
pub(crate) struct Fetched {
    ranges: HashMap<PackId, (Arc<PackReader>, BTreeMap<u64, Bytes>)>,
    /// Blobs that were read from another place than the one asked for.
    detours: HashMap<(PackId, u64), Location>,
    /// Packs and ranges that could not be read.
    failed: Vec<(PackId, Range<u64>, String)>,
    /// Octets read.
    pub(crate) octets: u64,
}

impl Fetcher {
    pub(crate) fn new(repository: Repository) -> Self {
        Self { repository, readers: Arc::default(), detours: Arc::default() }
    }

    /// Reads the blobs at these places, in any order and repeated at will. What cannot be read is told by [`Fetched::blob`].
    pub(crate) async fn fetch(&self, places: impl IntoIterator<Item = Location>) -> Fetched {
        let mut fetched = Fetched::default();
        let places = self.lock_detours().lead(places, &mut fetched.detours);
        // What lies about its length is not read.
        let ranges = coalesce(places.into_iter().filter(Location::is_possible));
        let reads = stream::iter(ranges).map(|(pack, range)| async move {
            let read = self.read(pack, range.clone()).await;
            (pack, range, read)
        });
        let mut reads = reads.buffer_unordered(READS_MAX);
        while let Some((pack, range, read)) = reads.next().await {
            match read {
                Ok((reader, octets)) => {
                    fetched.octets += octets.len() as u64;
                    let (_, ranges) = fetched.ranges.entry(pack).or_insert_with(|| (reader, BTreeMap::new()));
                    ranges.insert(range.start, octets);
                }
                Err(error) => fetched.failed.push((pack, range, crate::ledger::describe(&error))),
            }
        }
        fetched
    }

    /// The content of one blob, from wherever it reads.
    pub(crate) async fn blob(&self, at: Location, executor: &dyn Executor) -> Result<Vec<u8>> {
        let mut tries = 0;
        loop {
            let fetched = self.fetch([at]).await;
            let place = fetched.place(&at);
            let error = match runtime::run(executor, move || fetched.blob(&at)).await? {
                Ok(content) => return Ok(content),
                Err(error) => error,
            };
            tries += 1;
            if tries > PLACES_MAX || !self.is_elsewhere(at, place).await {
                return Err(error);
            }
        }
    }

    /// Whether the blob that belongs `at` a place is known to be yet elsewhere, having failed to read from `failed`. If so, it is fetched from there from now on.
    pub(crate) async fn is_elsewhere(&self, at: Location, failed: Location) -> bool {
        // The first one last: whatever is forgotten for want of room, its places are known then.
        for pack in [failed.pack, at.pack] {
            if !self.lock_detours().is_known(pack) {
                let moves = match read_moves(&self.repository, pack).await {
                    Ok(moves) => moves,
                    Err(_) if self.lock_detours().has_finds(pack) => Moves::default(),
                    // That nothing can be known of moves is no other damage: what failed is told.
                    Err(_) => return false,
                };
                self.lock_detours().learn_for(at, pack, &moves);
            }
        }
        self.lock_detours().turn(at, failed)
    }

    /// Takes in where blobs are that no moves tell of, for good.
    pub(crate) fn keep(&self, finds: Finds) {
        self.lock_detours().keep(finds);
    }

    fn lock_detours(&self) -> MutexGuard<'_, Detours> {
        // A panic elsewhere leaves the table whole: every change to it is one call.
        self.detours.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn read(&self, pack: PackId, range: Range<u64>) -> Result<(Arc<PackReader>, Bytes)> {
        let known = self.readers.lock().unwrap_or_else(PoisonError::into_inner).get(&pack).cloned();
        let reader = match known {
            Some(reader) => reader,
            None => {
                let reader = Arc::new(PackReader::new(pack, self.repository.secrets())?);
                let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
                if readers.len() >= READERS_MAX {
                    readers.clear();
                }
                readers.insert(pack, Arc::clone(&reader));
                reader
            }
        };
        Ok((reader, read_exact(&**self.repository.store(), &pack.key(), range).await?))
    }
}

impl Fetched {
    /// Where this blob was read from.
    pub(crate) fn place(&self, at: &Location) -> Location {
        self.detours.get(&(at.pack, at.offset)).copied().unwrap_or(*at)
    }

    /// The content of a blob that was asked for. For a worker: it decrypts and decompresses.
    pub(crate) fn blob(&self, at: &Location) -> Result<Vec<u8>> {
        let at = &self.place(at);
        let end = at.offset.saturating_add(u64::from(at.stored));
        if !at.is_possible() {
            let lie = "the table says that it is longer than its content can make it";
            return Err(Error::damaged(format!("pack {}, at {}..{end}: {lie}", at.pack, at.offset)));
        }
        let missing = || {
            let failed = self.failed.iter().find(|(pack, range, _)| *pack == at.pack && range.contains(&at.offset));
            let reason = failed.map_or("it was not read", |(_, _, reason)| reason);
            Error::damaged(format!("pack {}, at {}..{end}: {reason}", at.pack, at.offset))
        };
        let (reader, ranges) = self.ranges.get(&at.pack).ok_or_else(missing)?;
        let (start, octets) = ranges.range(..=at.offset).next_back().ok_or_else(missing)?;
        let (from, to) = ((at.offset - start) as usize, (end - start) as usize);
        let mut frame = octets.get(from..to).ok_or_else(missing)?.to_vec();
        reader
            .blob(at, &mut frame)
            .map_err(|error| Error::damaged(format!("pack {}, at {}..{end}", at.pack, at.offset)).because(error))
    }
}

/// The ranges to read for these places: in order, overlapping and near ones joined.
fn coalesce(places: impl IntoIterator<Item = Location>) -> Vec<(PackId, Range<u64>)> {
    let mut wanted: Vec<(PackId, Range<u64>)> =
        places.into_iter().map(|at| (at.pack, at.offset..at.offset.saturating_add(u64::from(at.stored)))).collect();
    wanted.sort_unstable_by_key(|(pack, range)| (*pack, range.start));
    let mut ranges: Vec<(PackId, Range<u64>)> = Vec::new();
    for (pack, range) in wanted {
        if let Some((last, joined)) = ranges.last_mut() {
            let is_near = *last == pack && range.start <= joined.end.saturating_add(GAP_MAX);
            if is_near && (range.end <= joined.end || range.end - joined.start <= RANGE_MAX) {
                joined.end = joined.end.max(range.end);
                continue;
            }
        }
        ranges.push((pack, range));
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(pack: u8, offset: u64, stored: u32) -> Location {
        Location { pack: PackId::new([pack; 32]), offset, stored, content: 1, frame: 0 }
    }

    #[test]
    fn near_places_are_read_as_one_and_far_ones_apart() {
        let places = [at(1, 100, 50), at(1, 40, 60), at(1, 40, 60), at(1, 10_000_000, 5), at(2, 40, 5)];
        let one = PackId::new([1; 32]);
        let expected = [(one, 40..150), (one, 10_000_000..10_000_005), (PackId::new([2; 32]), 40..45)];
        assert_eq!(coalesce(places), expected);
    }

    #[test]
    fn a_range_does_not_grow_without_end() {
        let places = (0..100).map(|number| at(1, number << 20, 1 << 20));
        let ranges = coalesce(places);
        assert!(ranges.iter().all(|(_, range)| range.end - range.start <= RANGE_MAX));
        assert_eq!(ranges.len(), 13);
    }
}
