//! What engines share: a byte budget, workers, a number of uploads at once.

use crate::budget::{Budget, Permit};
use crate::error::{Error, Result};
use crate::index::Index;
use crate::lock::Acquisitions;
use crate::runtime::{Executor, Inline, WorkerPool};
#[cfg(feature = "disk-index")]
use std::path::Path;
use std::sync::Arc;
use std::thread;

/// Memory, workers and uploads. Cloning shares them: give one to all engines of a process.
#[derive(Clone, Debug)]
pub struct Resources {
    budget: Budget,
    executor: Arc<dyn Executor>,
    /// `None` unless it is set.
    uploads_max: Option<usize>,
    /// One for all repositories: their digests are keyed apart, so no row of one is a hit of another.
    index: Arc<Index>,
    /// Pays for the index.
    _index_permit: Arc<Permit>,
    /// What an index on disk has of the budget beside the share of one in memory.
    disk_octets: u64,
}

/// What a dedup index on disk holds and takes.
#[cfg(feature = "disk-index")]
#[cfg_attr(docsrs, doc(cfg(feature = "disk-index")))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct IndexExtent {
    /// Rows in files. One that is in two files counts twice.
    pub rows: u64,
    /// Octets of those files.
    pub disk_bytes: u64,
    /// Octets of memory for filters, and for what is known of packs.
    pub memory_bytes: u64,
    /// Rows that this process did not keep, because the disk was behind or failed, or memory for filters was used up: what they stand for may be stored again.
    pub dropped: u64,
}

impl Resources {
    /// The smallest legal budget, in octets: one worker's buffers, a pack, and a batch of messages.
    pub const MEMORY_BYTES_MIN: u64 = 32 << 20;
    /// The budget unless another is set: 256 MiB.
    pub const MEMORY_BYTES_DEFAULT: u64 = 256 << 20;
    /// The dedup index takes one part in this many of the budget.
    const INDEX_SHARE: u64 = 16;
    /// Uploads at once unless another number is set, and the least of a governed store.
    pub const UPLOADS_DEFAULT: usize = 8;
    /// The most uploads at once to a governed store unless another number is set.
    pub const GOVERNED_UPLOADS_MAX: usize = 256;
    /// Of a governed store one upload at once for so many octets of the budget: about as much as is sent in parts.
    const UPLOAD_SHARE: u64 = 4 << 20;

    /// Resources of 256 MiB, with one worker a core and 8 uploads at once.
    ///
    /// # Errors
    /// If the operating system refuses threads.
    pub fn new() -> Result<Self> {
        let threads = thread::available_parallelism().map_or(1, usize::from);
        Self::with(Self::MEMORY_BYTES_DEFAULT, threads)
    }

    /// Resources of this many octets of memory and this many worker threads.
    ///
    /// Messages, packs and commits in memory stay within the budget; code, stacks, the allocator and the runtime come on top (less than 64 MiB).
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) below [`MEMORY_BYTES_MIN`](Self::MEMORY_BYTES_MIN); if the operating system refuses threads.
    pub fn with(memory_bytes: u64, threads: usize) -> Result<Self> {
        let acquisitions = Acquisitions::default();
        Self::counted(memory_bytes, Arc::new(WorkerPool::counted(threads, &acquisitions)?), &acquisitions)
    }

    /// Resources whose work is done on the thread that polls: slow, and deterministic.
    ///
    /// # Errors
    /// As [`with`](Self::with).
    pub fn inline(memory_bytes: u64) -> Result<Self> {
        Self::with_executor(memory_bytes, Arc::new(Inline))
    }

    /// Resources whose work is done by this executor.
    ///
    /// # Errors
    /// As [`with`](Self::with).
    pub fn with_executor(memory_bytes: u64, executor: Arc<dyn Executor>) -> Result<Self> {
        Self::counted(memory_bytes, executor, &Acquisitions::default())
    }

    fn counted(memory_bytes: u64, executor: Arc<dyn Executor>, acquisitions: &Acquisitions) -> Result<Self> {
        if memory_bytes < Self::MEMORY_BYTES_MIN {
            return Err(Error::invalid(format!(
                "the memory budget must be at least {} octets",
                Self::MEMORY_BYTES_MIN
            )));
        }
        let for_index = memory_bytes / Self::INDEX_SHARE;
        let index = Arc::new(Index::counted(for_index as usize, acquisitions));
        let budget = Budget::counted(memory_bytes, acquisitions);
        let permit = budget.try_acquire(for_index).ok_or_else(|| Error::internal("a new budget is in use"))?;
        Ok(Self { budget, executor, uploads_max: None, index, _index_permit: Arc::new(permit), disk_octets: 0 })
    }

    /// The same with another number of packs uploaded at once (at least one). Unless it is set there are at most 8; to a store that is [governed](crate::store::Governor) one for each 4 MiB of
    /// the budget, at least 8 and at most 256, and the governor decides. Whatever it is, a pack that is uploaded is paid for by the budget.
    #[must_use]
    pub fn uploads(mut self, uploads_max: usize) -> Self {
        self.uploads_max = Some(uploads_max.max(1));
        self
    }

    /// The same with a dedup index on disk, in files under `directory`, which is created if it is not there. `memory_bytes` of the budget are the index's from then on, beside what
    /// the index in memory has, which stays in front of it. About 2 octets a row are needed, and 200 a pack; when they are used up, the oldest rows are forgotten.
    ///
    /// The directory belongs to one `Resources` at a time, and may serve many repositories. It is a cache: what is lost, damaged or behind is read again from the repository's own index segments.
    /// Whoever can read it learns how long blobs are, not what is in them. Dropping the last clone waits until rows in memory are written, mostly a moment.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) below 8 MiB, or if what is left of the budget would be worth less than the smallest legal budget, or is in use;
    /// [`Unavailable`](crate::ErrorKind::Unavailable) if another `Resources` or process uses the directory; what the operating system says.
    #[cfg(feature = "disk-index")]
    #[cfg_attr(docsrs, doc(cfg(feature = "disk-index")))]
    pub fn index_in(mut self, directory: impl AsRef<Path>, memory_bytes: u64) -> Result<Self> {
        let octets = usize::try_from(memory_bytes).unwrap_or(usize::MAX);
        let budget = self.budget.octets();
        // Of the smallest budget the index in memory has a sixteenth, and a pack an eighth.
        let spare = budget.saturating_sub(Self::MEMORY_BYTES_MIN) / 16 * 13;
        if octets < Index::DISK_OCTETS_MIN || memory_bytes > spare {
            return Err(Error::invalid(format!(
                "an index on disk needs at least {} octets of the memory budget, and of {budget} it can have {spare}",
                Index::DISK_OCTETS_MIN
            )));
        }
        let mut permit =
            self.budget.try_acquire(memory_bytes).ok_or_else(|| Error::invalid("the memory budget is in use"))?;
        let recent = budget / Self::INDEX_SHARE;
        // The index in memory gives its share to the new one.
        let own = self.budget.try_acquire(recent).ok_or_else(|| Error::invalid("the memory budget is in use"))?;
        permit.merge(own);
        let acquisitions = self.index.acquisitions().clone();
        self.index = Arc::new(Index::on_disk(directory.as_ref(), recent as usize, octets, &acquisitions)?);
        (self._index_permit, self.disk_octets) = (Arc::new(permit), memory_bytes);
        Ok(self)
    }

    /// What the dedup index on disk holds and takes; `None` if there is none.
    #[cfg(feature = "disk-index")]
    #[cfg_attr(docsrs, doc(cfg(feature = "disk-index")))]
    #[must_use]
    pub fn index_extent(&self) -> Option<IndexExtent> {
        let extent = self.index.disk()?.extent();
        Some(IndexExtent {
            rows: extent.rows,
            disk_bytes: extent.disk_octets,
            memory_bytes: extent.memory_octets as u64,
            dropped: extent.dropped,
        })
    }

    /// The budget, for a look at its peak.
    #[must_use]
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// The octets of the budget that can be had at all: without what the index has for good.
    pub(crate) fn available(&self) -> u64 {
        let octets = self.budget.octets();
        octets.saturating_sub(octets / Self::INDEX_SHARE + self.disk_octets)
    }

    /// The same with another budget: a part of this one, for which whoever uses it holds a permit.
    pub(crate) fn within(&self, budget: Budget) -> Self {
        Self { budget, disk_octets: 0, ..self.clone() }
    }

    /// How often locks were taken that workers and transfers share: those of the budget, of the dedup index in memory, of the queue of
    /// worker threads, and of transfers.
    #[cfg(feature = "testing")]
    #[cfg_attr(docsrs, doc(cfg(feature = "testing")))]
    #[must_use]
    pub fn lock_acquisitions(&self) -> u64 {
        self.index.acquisitions().count()
    }

    pub(crate) fn executor(&self) -> &Arc<dyn Executor> {
        &self.executor
    }

    pub(crate) fn index(&self) -> &Arc<Index> {
        &self.index
    }

    pub(crate) fn uploads_max(&self, is_governed: bool) -> usize {
        let scaled = usize::try_from(self.budget.octets() / Self::UPLOAD_SHARE).unwrap_or(usize::MAX);
        let governed = scaled.clamp(Self::UPLOADS_DEFAULT, Self::GOVERNED_UPLOADS_MAX);
        self.uploads_max.unwrap_or(if is_governed { governed } else { Self::UPLOADS_DEFAULT })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uploads_at_once_scale_with_the_budget_of_a_governed_store() {
        let uploads =
            |mebibytes: u64, is_governed| Resources::inline(mebibytes << 20).unwrap().uploads_max(is_governed);
        assert_eq!([32, 64, 256, 512, 4096].map(|mebibytes| uploads(mebibytes, true)), [8, 16, 64, 128, 256]);
        assert_eq!([32, 4096].map(|mebibytes| uploads(mebibytes, false)), [8, 8]);
        assert_eq!(Resources::inline(1 << 30).unwrap().uploads(3).uploads_max(true), 3);
    }
}
