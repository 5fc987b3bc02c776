//! Reading blobs: ranges of packs, coalesced, several at once, what many want once; and where a pack fails, wherever else its blobs are.

use super::detour::{Detours, Finds, PLACES_MAX};
use super::frames::{Flights, Found, Frames, Place, place};
use crate::budget::Budget;
use crate::error::{Error, Result};
use crate::pack::{Location, PackId, PackReader};
use crate::repository::{Moves, Repository, read_moves};
use crate::runtime::{self, Executor};
use crate::store::read_exact;
use bytes::Bytes;
use futures::{StreamExt, stream};
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The longest range asked for at once, unless one blob is longer.
const RANGE_MAX: u64 = 8 << 20;
/// Ranges read at once by one caller.
const READS_MAX: usize = 8;
/// The same if the store is governed, which decides how many of them are on their way. All that is read is paid for before.
const GOVERNED_READS_MAX: usize = 64;
/// Packs whose keys are remembered.
const READERS_MAX: usize = 1024;

/// What is read along between two blobs rather than asked for apart.
#[derive(Clone, Copy, Debug)]
struct Gaps {
    /// A gap up to this long always.
    small: u64,
    /// A longer one up to this.
    long: u64,
    /// As long as all that is read along is no more than this part of what is wanted.
    part: u64,
}

impl Gaps {
    /// For much mail: few octets are read that nobody wants.
    const NARROW: Self = Self { small: 4 << 10, long: 128 << 10, part: 8 };
    /// For one message: few requests. Reading a MiB takes as long as a request.
    const WIDE: Self = Self { small: 1 << 20, long: 1 << 20, part: 1 };
}

/// Reads blobs of a repository.
#[derive(Clone, Debug)]
pub(crate) struct Fetcher {
    repository: Repository,
    gaps: Gaps,
    frames: Frames,
    readers: Arc<Mutex<HashMap<PackId, Arc<PackReader>>>>,
    detours: Arc<Mutex<Detours>>,
}

/// Blobs that were read, still sealed.
#[derive(Debug, Default)]
pub(crate) struct Fetched {
    frames: HashMap<Place, Bytes>,
    readers: HashMap<PackId, Arc<PackReader>>,
    /// Blobs that were read from another place than the one asked for.
    detours: HashMap<(PackId, u64), Location>,
    /// Frames that could not be read, and why.
    failed: HashMap<Place, String>,
    /// Octets read.
    pub(crate) octets: u64,
}

impl Fetcher {
    /// A fetcher for much mail.
    pub(crate) fn new(repository: Repository) -> Self {
        let (frames, readers, detours) = (Frames::default(), Arc::default(), Arc::default());
        Self { repository, gaps: Gaps::NARROW, frames, readers, detours }
    }

    /// A fetcher for one message.
    pub(crate) fn for_one(repository: Repository) -> Self {
        Self { gaps: Gaps::WIDE, ..Self::new(repository) }
    }

    /// Keeps frames that may be wanted again, in up to so many octets of the budget, as far as they are free now.
    pub(crate) fn keep_frames(&self, budget: &Budget, octets: u64) {
        self.frames.reserve(budget, octets);
    }

    /// Gives back the memory of frames that are kept: somebody waits for it who cannot do without.
    pub(crate) fn give_back_frames(&self) {
        self.frames.give_back();
    }

    /// Reads the blobs at these places, in any order and repeated at will. What cannot be read is told by [`Fetched::blob`].
    ///
    /// # Cancel safety
    /// Dropping the future leaves what it did not read to others.
    pub(crate) async fn fetch(&self, places: impl IntoIterator<Item = Location>) -> Fetched {
        let mut fetched = Fetched::default();
        let places = self.lock_detours().lead(places, &mut fetched.detours);
        // What lies about its length is not read.
        let mut wanted: HashSet<Place> = places.iter().filter(|at| at.is_possible()).map(place).collect();
        for (pack, ..) in &wanted {
            if let Entry::Vacant(entry) = fetched.readers.entry(*pack)
                && let Ok(reader) = self.reader(*pack)
            {
                entry.insert(reader);
            }
        }
        while !wanted.is_empty() {
            wanted = self.fetch_once(wanted, &mut fetched).await;
        }
        fetched
    }

    /// Takes in these frames, and gives those that others were to read and did not.
    async fn fetch_once(&self, wanted: HashSet<Place>, fetched: &mut Fetched) -> HashSet<Place> {
        let mut flights = Flights::new(&self.frames);
        let (mut ours, mut coming) = (Vec::new(), Vec::new());
        for (place, found) in self.frames.find(wanted, &mut flights) {
            match found {
                Found::Held(octets) => drop(fetched.frames.insert(place, octets)),
                Found::Coming(flight) => coming.push((place, flight)),
                Found::Ours => ours.push(place),
            }
        }
        let reads = stream::iter(coalesce(ours, self.gaps)).map(|(pack, range, places)| async move {
            let read = read_exact(&**self.repository.store(), &pack.key(), range.clone()).await;
            (range, places, read)
        });
        let is_governed = self.repository.governor().is_some();
        let mut reads = reads.buffer_unordered(if is_governed { GOVERNED_READS_MAX } else { READS_MAX });
        while let Some((range, places, read)) = reads.next().await {
            match read {
                Ok(octets) => {
                    fetched.octets += octets.len() as u64;
                    for place in places {
                        let from = (place.1 - range.start) as usize;
                        // A copy, since a part would keep all of the range in memory.
                        let frame = octets.get(from..from + place.2 as usize).unwrap_or_default();
                        let frame = Bytes::copy_from_slice(frame);
                        flights.land(place, &frame);
                        fetched.frames.insert(place, frame);
                    }
                }
                Err(error) => {
                    let reason = crate::ledger::describe(&error);
                    fetched.failed.extend(places.into_iter().map(|place| (place, reason.clone())));
                }
            }
        }
        // Only now are others waited for: they may wait for what was just read.
        drop(flights);
        let mut left = HashSet::new();
        for (place, flight) in coming {
            match flight.land().await {
                Some(octets) => drop(fetched.frames.insert(place, octets)),
                None => drop(left.insert(place)),
            }
        }
        left
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

    /// Whether the blob that belongs `at` a place is worth fetching again, having failed to read from `failed`: from there once more if it was not read for this alone, and else
    /// if it is known to be yet elsewhere. If so, it is fetched from there from now on.
    pub(crate) async fn is_elsewhere(&self, at: Location, failed: Location) -> bool {
        if self.frames.distrust(&place(&failed)) {
            return true;
        }
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

    fn reader(&self, pack: PackId) -> Result<Arc<PackReader>> {
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reader) = readers.get(&pack) {
            return Ok(Arc::clone(reader));
        }
        let reader = Arc::new(PackReader::new(pack, self.repository.secrets())?);
        if readers.len() >= READERS_MAX {
            readers.clear();
        }
        readers.insert(pack, Arc::clone(&reader));
        Ok(reader)
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
            let reason = self.failed.get(&place(at)).map_or("it was not read", String::as_str);
            Error::damaged(format!("pack {}, at {}..{end}: {reason}", at.pack, at.offset))
        };
        let reader = self.readers.get(&at.pack).ok_or_else(missing)?;
        let mut frame = self.frames.get(&place(at)).ok_or_else(missing)?.to_vec();
        reader
            .blob(at, &mut frame)
            .map_err(|error| Error::damaged(format!("pack {}, at {}..{end}", at.pack, at.offset)).because(error))
    }
}

/// The ranges to read for these frames, and the frames in each: in order, overlapping and near ones joined.
fn coalesce(mut wanted: Vec<Place>, gaps: Gaps) -> Vec<(PackId, Range<u64>, Vec<Place>)> {
    wanted.sort_unstable();
    let mut ranges: Vec<(PackId, Range<u64>, Vec<Place>)> = Vec::new();
    let mut along = 0;
    for place in wanted {
        let (pack, start, length) = place;
        let end = start.saturating_add(u64::from(length));
        if let Some((_, joined, places)) = ranges.last_mut().filter(|(last, ..)| *last == pack) {
            let gap = start.saturating_sub(joined.end);
            let read = end.max(joined.end) - joined.start;
            let is_cheap = gap <= gaps.small || gap <= gaps.long && along + gap <= (read - along - gap) / gaps.part;
            if is_cheap && (end <= joined.end || read <= RANGE_MAX) {
                along += gap;
                joined.end = end.max(joined.end);
                places.push(place);
                continue;
            }
        }
        along = 0;
        ranges.push((pack, start..end, vec![place]));
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(pack: u8, offset: u64, stored: u32) -> Place {
        (PackId::new([pack; 32]), offset, stored)
    }

    fn ranges(places: impl IntoIterator<Item = Place>, gaps: Gaps) -> Vec<(PackId, Range<u64>)> {
        let coalesced = coalesce(places.into_iter().collect(), gaps).into_iter();
        coalesced
            .map(|(pack, range, places)| {
                assert!(
                    places.iter().all(|at| at.0 == pack && range.start <= at.1 && at.1 + u64::from(at.2) <= range.end)
                );
                (pack, range)
            })
            .collect()
    }

    #[test]
    fn near_places_are_read_as_one_and_far_ones_apart() {
        let places = [at(1, 100, 50), at(1, 40, 60), at(1, 40, 60), at(1, 10_000_000, 5), at(2, 40, 5)];
        let one = PackId::new([1; 32]);
        let expected = [(one, 40..150), (one, 10_000_000..10_000_005), (PackId::new([2; 32]), 40..45)];
        assert_eq!(ranges(places, Gaps::NARROW), expected);
    }

    #[test]
    fn what_is_read_along_is_little_of_what_is_wanted_but_for_one_message() {
        let places = (0..100).map(|number| at(1, number * 50_000, 10_000));
        assert_eq!(ranges(places.clone(), Gaps::NARROW).len(), 100);
        assert_eq!(ranges(places, Gaps::WIDE).len(), 1);
        let places = (0..50).map(|number| at(1, number * 110_000, 100_000));
        let read: u64 = ranges(places, Gaps::NARROW).iter().map(|(_, range)| range.end - range.start).sum();
        assert!((5_100_000..=5_000_000 / 8 * 9).contains(&read), "{read}");
    }

    #[test]
    fn a_range_does_not_grow_without_end() {
        let places = (0..100).map(|number| at(1, number << 20, 1 << 20));
        let ranges = ranges(places, Gaps::NARROW);
        assert!(ranges.iter().all(|(_, range)| range.end - range.start <= RANGE_MAX));
        assert_eq!(ranges.len(), 13);
    }
}
