//! What engines share: a byte budget, workers, a number of uploads at once.

use crate::budget::{Budget, Permit};
use crate::error::{Error, Result};
use crate::index::RamIndex;
use crate::runtime::{Executor, Inline, WorkerPool};
use std::sync::Arc;
use std::thread;

/// Memory, workers and uploads. Cloning shares them: give one to all engines of a process.
#[derive(Clone, Debug)]
pub struct Resources {
    budget: Budget,
    executor: Arc<dyn Executor>,
    uploads_max: usize,
    /// One for all repositories: their digests are keyed apart, so no row of one is a hit of another.
    index: Arc<RamIndex>,
    /// Pays for the index.
    _index_permit: Arc<Permit>,
}

impl Resources {
    /// The smallest legal budget, in octets: one worker's buffers, a pack, and a batch of messages.
    pub const MEMORY_BYTES_MIN: u64 = 32 << 20;
    /// The budget unless another is set: 256 MiB.
    pub const MEMORY_BYTES_DEFAULT: u64 = 256 << 20;
    /// The dedup index takes one part in this many of the budget.
    const INDEX_SHARE: u64 = 16;
    /// Uploads at once unless another number is set.
    pub const UPLOADS_DEFAULT: usize = 8;

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
        Self::with_executor(memory_bytes, Arc::new(WorkerPool::new(threads)?))
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
        if memory_bytes < Self::MEMORY_BYTES_MIN {
            return Err(Error::invalid(format!(
                "the memory budget must be at least {} octets",
                Self::MEMORY_BYTES_MIN
            )));
        }
        let budget = Budget::new(memory_bytes);
        let for_index = memory_bytes / Self::INDEX_SHARE;
        let permit = budget.try_acquire(for_index).ok_or_else(|| Error::internal("a new budget is in use"))?;
        let index = Arc::new(RamIndex::new(for_index as usize));
        Ok(Self { budget, executor, uploads_max: Self::UPLOADS_DEFAULT, index, _index_permit: Arc::new(permit) })
    }

    /// The same with another number of uploads at once (at least one).
    #[must_use]
    pub fn uploads(mut self, uploads_max: usize) -> Self {
        self.uploads_max = uploads_max.max(1);
        self
    }

    /// The budget, for a look at its peak.
    #[must_use]
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// The octets of the budget that can be had at all: without what the index has for good.
    pub(crate) fn available(&self) -> u64 {
        self.budget.octets() - self.budget.octets() / Self::INDEX_SHARE
    }

    /// The same with another budget: a part of this one, for which whoever uses it holds a permit.
    pub(crate) fn within(&self, budget: Budget) -> Self {
        Self { budget, ..self.clone() }
    }

    pub(crate) fn executor(&self) -> &Arc<dyn Executor> {
        &self.executor
    }

    pub(crate) fn index(&self) -> &Arc<RamIndex> {
        &self.index
    }

    pub(crate) fn uploads_max(&self) -> usize {
        self.uploads_max
    }
}
