//! Rows on disk: sorted runs, as many as memory has filters for.
//!
//! New rows go into tables in memory, one for each *shard*. A full table is frozen, and the [keeper](super::keeper), a thread of the index's own, writes it as a run; eight runs of a level become one of the
//! next. A look-up asks the tables, then the filters of the shard's runs, the newest first, and reads a page where one says that a row may be.
//! Nobody holds a lock while a file is read or written.
//!
//! Blobs that are too short for the lasting index, and rows that were hits lately, are in memory as they are without a disk.

use super::directory::Directory;
use super::keeper;
use super::packs::Packs;
use super::ram::{RamRows, Table, rows_in};
use super::run::Run;
use super::{Key, LASTING_MIN, RepositoryId, Rows, SegmentId, Slot, lock};
use crate::error::{Error, Result};
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

/// Shards: each has its own tables and runs, so that a merge is of an eighth of all rows at most.
pub(super) const SHARDS: usize = 8;
/// Frozen tables that may wait for the keeper, of all shards.
pub(super) const FROZEN_MAX: usize = 4;
/// Who may wait does so at this many, and leaves the others to who may not.
pub(super) const FROZEN_WAIT: usize = 2;
/// Runs of a shard that may wait to be merged before who may wait does.
const RUNS_WAIT: usize = 64;
/// The most that tables take.
const TABLES_MAX: usize = 32 << 20;
/// Octets for buffers of the keeper.
const SCRATCH: usize = 3 << 20;

/// Rows in files of one directory, behind tables in memory.
pub(crate) struct DiskRows {
    /// Short blobs, and what was a hit lately.
    recent: RamRows,
    shared: Arc<Shared>,
    keeper: Option<JoinHandle<()>>,
}

/// What there is of an index on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Rows in files, those counted twice that are in two.
    pub(crate) rows: u64,
    pub(crate) runs: usize,
    pub(crate) disk_octets: u64,
    /// Octets of memory for filters and packs.
    pub(crate) memory_octets: usize,
    /// Rows that were not remembered because the disk was behind or failed, or memory for filters was used up.
    pub(crate) dropped: u64,
}

/// What the keeper shares with all others.
pub(super) struct Shared {
    pub(super) directory: Directory,
    pub(super) packs: Arc<Packs>,
    pub(super) shards: [Mutex<Shard>; SHARDS],
    pub(super) work: Mutex<Work>,
    /// Wakes the keeper.
    pub(super) wake: Condvar,
    /// Wakes who waits for the keeper.
    pub(super) done: Condvar,
    pub(super) dropped: AtomicU64,
    /// Held by tests that stop the keeper.
    #[cfg(test)]
    pub(super) stall: Mutex<()>,
    /// The most rows in a table.
    rows_max: usize,
    /// The most octets for filters and what is known of packs.
    pub(super) filters_max: usize,
}

/// A shard's rows. The newest are in `young`, then in `frozen` from the back, then in `runs` from the front.
#[derive(Default)]
pub(super) struct Shard {
    pub(super) young: Table,
    pub(super) frozen: VecDeque<Arc<Table>>,
    pub(super) runs: Arc<Vec<Arc<Run>>>,
    /// How many tables were frozen, and how many of them are in runs.
    pub(super) begun: u64,
    pub(super) written: u64,
}

/// What there is to do. Its lock is taken behind a shard's, never the other way round.
#[derive(Default)]
pub(super) struct Work {
    /// Frozen tables, of all shards.
    pub(super) frozen: usize,
    /// A shard has too many runs.
    pub(super) is_behind: bool,
    /// A damaged run was found.
    pub(super) is_damaged: bool,
    /// The keeper is to write everything, and to end.
    pub(super) is_stopping: bool,
    /// Everything is to be written.
    pub(super) is_flushing: bool,
    pub(super) is_idle: bool,
    pub(super) is_ended: bool,
    /// The segments whose rows are here: in runs, or still in tables.
    pub(super) segments: Segments,
}

/// Segments by how much of them is on disk.
#[derive(Default)]
pub(super) struct Segments {
    pub(super) durable: BTreeMap<RepositoryId, HashSet<SegmentId>>,
    /// Those whose last rows are in tables, and how many tables of each shard must be written.
    pub(super) pending: Vec<(RepositoryId, SegmentId, [u64; SHARDS])>,
    /// Rows were lost: this process vouches for no segment any more.
    pub(super) is_lossy: bool,
    /// The durable ones changed since the manifest was written.
    pub(super) is_changed: bool,
}

impl DiskRows {
    /// The least octets of memory that make sense.
    pub(crate) const OCTETS_MIN: usize = 8 << 20;

    /// Opens the rows in this directory, or makes them anew.
    ///
    /// # Errors
    /// As [`Directory::open`], and if the operating system refuses a thread.
    pub(super) fn open(path: &Path, packs: Arc<Packs>, recent: RamRows, octets: usize) -> Result<Self> {
        let (directory, mut manifest) = Directory::open(path)?;
        let tables = (octets / 4).min(TABLES_MAX);
        let rows_max = rows_in(tables / (SHARDS + FROZEN_MAX));
        let filters_max = octets.saturating_sub(tables + SCRATCH);
        let mut lost = Vec::new();
        let mut shards: [Shard; SHARDS] = std::array::from_fn(|_| Shard::default());
        for (shard, named) in shards.iter_mut().zip(&manifest.shards) {
            let mut runs = Vec::with_capacity(named.len());
            for run in named {
                match Run::open(&directory, *run, &packs) {
                    Ok(run) => runs.push(Arc::new(run)),
                    Err(_) => lost.push(run.0),
                }
            }
            shard.runs = Arc::new(runs);
        }
        let mut segments = Segments { durable: std::mem::take(&mut manifest.segments), ..Segments::default() };
        if !lost.is_empty() {
            // Nobody knows of which segments the lost rows were.
            segments.durable.clear();
        }
        let shared = Arc::new(Shared {
            directory,
            packs,
            shards: shards.map(Mutex::new),
            work: Mutex::new(Work { segments, ..Work::default() }),
            wake: Condvar::new(),
            done: Condvar::new(),
            dropped: AtomicU64::new(0),
            #[cfg(test)]
            stall: Mutex::default(),
            rows_max,
            filters_max,
        });
        let kept = Arc::clone(&shared);
        let keeper = thread::Builder::new()
            .name("mailrail-index".to_owned())
            .spawn(move || keeper::keep(&kept, manifest.next, lost))
            .map_err(|source| Error::io("starting the index's thread", source))?;
        Ok(Self { recent, shared, keeper: Some(keeper) })
    }

    /// Waits until all that was given is in files, and nothing is left to merge.
    #[cfg_attr(not(any(test, feature = "bench-internals")), allow(dead_code, reason = "who embeds needs not wait"))]
    pub(crate) fn flush(&self) {
        let mut work = lock(&self.shared.work);
        (work.is_flushing, work.is_idle) = (true, false);
        self.shared.wake.notify_all();
        while !work.is_idle && !work.is_ended {
            work = self.shared.wait(work);
        }
    }

    /// As long as this is held the keeper does nothing, and nobody who puts rows waits for it.
    #[cfg(test)]
    pub(super) fn stalled(&self) -> MutexGuard<'_, ()> {
        lock(&self.shared.stall)
    }

    /// What there is.
    pub(crate) fn extent(&self) -> Extent {
        let mut extent = Extent { dropped: self.shared.dropped.load(Ordering::Relaxed), ..Extent::default() };
        for shard in &self.shared.shards {
            let runs = Arc::clone(&lock(shard).runs);
            extent.rows += runs.iter().map(|run| run.rows()).sum::<u64>();
            extent.runs += runs.len();
            extent.disk_octets += runs.iter().map(|run| run.disk_octets()).sum::<u64>();
        }
        extent.memory_octets = self.shared.octets();
        extent
    }

    /// Puts a row into its shard's table. False if there was no room, and nothing was waited for.
    fn try_put(&self, key: Key, slot: Slot, frozen_max: usize) -> bool {
        let mut shard = lock(self.shared.shard(&key));
        if shard.young.len() >= self.shared.rows_max && !shard.young.contains_key(&key) {
            let mut work = lock(&self.shared.work);
            if work.frozen >= frozen_max || (work.is_behind && frozen_max < FROZEN_MAX) {
                return false;
            }
            shard.freeze();
            work.frozen += 1;
            self.shared.wake.notify_all();
        }
        if shard.young.capacity() == 0 {
            shard.young.reserve(self.shared.rows_max);
        }
        shard.young.insert(key, slot);
        true
    }

    /// Puts a row into its shard's table, and waits until there is room.
    fn fill_in(&self, key: Key, slot: Slot) {
        while !self.try_put(key, slot, FROZEN_WAIT) {
            let mut work = lock(&self.shared.work);
            while (work.frozen >= FROZEN_WAIT || work.is_behind) && !work.is_ended {
                work = self.shared.wait(work);
            }
            if work.is_ended {
                self.shared.dropped.fetch_add(1, Ordering::Relaxed);
                return;
            }
        }
    }

    fn find_on_disk(&self, key: &Key, is_hit: &dyn Fn(&Slot) -> bool) -> Option<Slot> {
        let runs = {
            let shard = lock(self.shared.shard(key));
            let tables = std::iter::once(&shard.young).chain(shard.frozen.iter().rev().map(|table| &**table));
            if let Some(slot) = tables.filter_map(|table| table.get(key)).find(|slot| is_hit(slot)) {
                return Some(*slot);
            }
            // A table is in a run before it is gone from here.
            Arc::clone(&shard.runs)
        };
        for run in runs.iter().filter(|run| !run.is_damaged()) {
            match run.find(key, is_hit) {
                Ok(None) => {}
                Ok(Some(slot)) => {
                    self.recent.put(&[(*key, slot)]);
                    return Some(slot);
                }
                Err(_) => {
                    run.set_damaged();
                    lock(&self.shared.work).is_damaged = true;
                    self.shared.wake.notify_all();
                }
            }
        }
        None
    }
}

impl Rows for DiskRows {
    fn recent(&self, keys: &[Key]) -> Vec<Option<Slot>> {
        self.recent.recent(keys)
    }

    fn find(&self, key: &Key, is_hit: &dyn Fn(&Slot) -> bool) -> Option<Slot> {
        self.find_on_disk(key, is_hit)
    }

    fn put(&self, rows: &[(Key, Slot)]) {
        let is_dropped = |(key, slot): &&(Key, Slot)| !self.try_put(*key, *slot, FROZEN_MAX);
        let (short, lasting): (Vec<_>, Vec<_>) = rows.iter().partition(|(_, slot)| slot.content < LASTING_MIN);
        let dropped: Vec<_> = lasting.iter().filter(is_dropped).copied().collect();
        self.shared.dropped.fetch_add(dropped.len() as u64, Ordering::Relaxed);
        self.recent.put(&[short, dropped].concat());
    }

    fn fill(&self, rows: &[(Key, Slot)]) {
        let (short, lasting): (Vec<_>, Vec<_>) = rows.iter().partition(|(_, slot)| slot.content < LASTING_MIN);
        self.recent.put(&short);
        lasting.into_iter().for_each(|(key, slot)| self.fill_in(key, slot));
    }

    fn is_lasting(&self) -> bool {
        true
    }

    fn wants(&self, repository: &RepositoryId, segment: &SegmentId) -> bool {
        let work = lock(&self.shared.work);
        let Segments { durable, pending, .. } = &work.segments;
        let is_durable = durable.get(repository).is_some_and(|segments| segments.contains(segment));
        !is_durable && !pending.iter().any(|(of, one, _)| of == repository && one == segment)
    }

    fn has_taken(&self, repository: &RepositoryId, segment: &SegmentId) {
        let until = std::array::from_fn(|number| {
            let shard = lock(&self.shared.shards[number]);
            shard.begun + u64::from(!shard.young.is_empty())
        });
        let segments = &mut lock(&self.shared.work).segments;
        if !segments.is_lossy {
            segments.pending.push((*repository, *segment, until));
        }
    }

    fn keep_segments(&self, repository: &RepositoryId, listed: &HashSet<SegmentId>) {
        let mut work = lock(&self.shared.work);
        let Segments { durable, is_changed, .. } = &mut work.segments;
        if let Some(segments) = durable.get_mut(repository) {
            let before = segments.len();
            segments.retain(|segment| listed.contains(segment));
            *is_changed |= segments.len() < before;
        }
    }

    fn as_disk(&self) -> Option<&DiskRows> {
        Some(self)
    }
}

impl Drop for DiskRows {
    /// Waits until the keeper has written what is in memory, so that the next process need not read it from segments again.
    fn drop(&mut self) {
        lock(&self.shared.work).is_stopping = true;
        self.shared.wake.notify_all();
        if let Some(keeper) = self.keeper.take() {
            // It has printed its panic.
            let _ = keeper.join();
        }
    }
}

impl fmt::Debug for DiskRows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiskRows").field("directory", &self.shared.directory).field("extent", &self.extent()).finish()
    }
}

impl Shared {
    pub(super) fn shard(&self, key: &Key) -> &Mutex<Shard> {
        // An octet that neither hash tables nor filters look at: within a shard keys must be spread as evenly as in all.
        &self.shards[usize::from(key[7]) % SHARDS]
    }

    /// Waits for the keeper.
    fn wait<'a>(&self, work: MutexGuard<'a, Work>) -> MutexGuard<'a, Work> {
        self.done.wait(work).unwrap_or_else(PoisonError::into_inner)
    }

    /// Octets of memory for filters and packs, and for what a merge has beside them.
    pub(super) fn octets(&self) -> usize {
        let of_shard = |shard: &Mutex<Shard>| lock(shard).runs.iter().map(|run| run.octets()).sum::<usize>();
        let of_shards = self.shards.each_ref().map(of_shard);
        let merging = of_shards.iter().copied().max().unwrap_or_default();
        of_shards.iter().sum::<usize>() + merging + self.packs.octets() + lock(&self.work).segments.octets()
    }

    /// Whether a shard has more runs than who fills it should add to.
    pub(super) fn is_behind(&self) -> bool {
        self.shards.iter().any(|shard| lock(shard).runs.len() > RUNS_WAIT)
    }
}

impl Shard {
    /// Makes the young table one that only the keeper takes away.
    pub(super) fn freeze(&mut self) {
        self.frozen.push_back(Arc::new(std::mem::take(&mut self.young)));
        self.begun += 1;
    }
}

impl Segments {
    /// Octets of a segment that is remembered, in a set that has just grown.
    const SEGMENT_OCTETS: usize = 64;

    fn octets(&self) -> usize {
        (self.durable.values().map(HashSet::len).sum::<usize>() + self.pending.len()) * Self::SEGMENT_OCTETS
    }

    /// Takes for durable what is in runs now: so many tables of each shard are.
    pub(super) fn advance(&mut self, written: &[u64; SHARDS]) {
        let Self { durable, pending, is_changed, .. } = self;
        pending.retain(|(repository, segment, until)| {
            let is_written = until.iter().zip(written).all(|(until, written)| written >= until);
            if is_written {
                durable.entry(*repository).or_default().insert(*segment);
                *is_changed = true;
            }
            !is_written
        });
    }

    /// Rows were lost, and nobody knows of which segments: all are to be read again by the next process.
    pub(super) fn lose(&mut self) {
        self.durable.clear();
        self.pending.clear();
        (self.is_lossy, self.is_changed) = (true, true);
    }
}
