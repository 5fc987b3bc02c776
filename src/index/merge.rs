//! Merging runs of a shard into one, a few rows at a time.

use super::directory::Directory;
use super::packs::Packs;
use super::run::{Run, RunReader, RunWriter};
use super::{Key, Slot};
use std::io;
use std::sync::Arc;

/// Runs of a level that are merged into one of the next.
pub(super) const FAN_IN: usize = 8;
/// Runs that are merged at once at most: each has a buffer.
const INPUTS_MAX: usize = 16;
/// The last level: runs of it are merged into another one of it.
const LEVEL_MAX: u8 = 9;

/// A merge under way. Dropped before its end it leaves files that nobody counts.
#[derive(Debug)]
pub(super) struct Merge<'a> {
    inputs: &'a [Arc<Run>],
    pub(super) level: u8,
    /// The newest first, as the inputs.
    readers: Vec<(Option<(Key, Slot)>, RunReader)>,
    writer: RunWriter,
}

/// Which runs of a shard, the newest first, are to be merged: the oldest of a level of which there are enough.
pub(super) fn due(runs: &[Arc<Run>]) -> Option<&[Arc<Run>]> {
    let mut of_level = runs.chunk_by(|one, other| one.level == other.level);
    let due = of_level.find(|runs| runs.len() >= FAN_IN)?;
    Some(&due[due.len().saturating_sub(INPUTS_MAX)..])
}

impl<'a> Merge<'a> {
    /// Begins to merge these runs, the newest first.
    ///
    /// # Errors
    /// If a file cannot be created, or one of the runs is damaged: then it says so of itself.
    pub(super) fn begin(directory: &Directory, packs: &Packs, inputs: &'a [Arc<Run>], number: u64) -> io::Result<Self> {
        let rows = inputs.iter().map(|run| run.rows()).sum();
        let level = inputs.iter().map(|run| run.level).max().unwrap_or_default().saturating_add(1).min(LEVEL_MAX);
        let mut readers = Vec::with_capacity(inputs.len());
        for run in inputs {
            let mut reader = RunReader::new(run, directory, packs)?;
            readers.push((next(&mut reader, run)?, reader));
        }
        let writer = RunWriter::create(directory, number, rows)?;
        Ok(Self { inputs, level, readers, writer })
    }

    /// Merges up to so many rows; true if that was all. Of rows of the same key the newest stays.
    pub(super) fn step(&mut self, rows_max: usize) -> io::Result<bool> {
        for _ in 0..rows_max {
            let heads = self.readers.iter().filter_map(|(head, _)| *head);
            // Of equal keys the first, which is the newest.
            let Some((key, slot)) = heads.reduce(|least, head| if head.0 < least.0 { head } else { least }) else {
                return Ok(true);
            };
            self.writer.push(&key, &slot)?;
            for ((head, reader), run) in self.readers.iter_mut().zip(self.inputs) {
                if head.is_some_and(|(other, _)| other == key) {
                    *head = next(reader, run)?;
                }
            }
        }
        Ok(false)
    }

    /// Writes the rest and makes it durable; gives how many rows there are.
    pub(super) fn finish(self, packs: &Packs) -> io::Result<u64> {
        self.writer.finish(packs)
    }
}

fn next(reader: &mut RunReader, run: &Run) -> io::Result<Option<(Key, Slot)>> {
    let next = reader.next();
    if next.is_err() {
        run.set_damaged();
    }
    next
}
