//! The keeper: the one thread that writes an index's files, merges them and deletes them.

use super::directory::Manifest;
use super::disk::{FROZEN_WAIT, SHARDS, Shard, Shared};
use super::merge::{Merge, due};
use super::ram::Table;
use super::run::{Run, RunWriter};
use super::{Key, Slot, lock};
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};

/// Rows that are merged before it looks for anything more urgent.
const STEP: usize = 1 << 14;

/// Keeps the files until it is told to stop. `next` is the number of the next run; files of runs in `removed` are to go.
pub(super) fn keep(shared: &Shared, next: u64, removed: Vec<u64>) {
    // However it ends, nobody waits for it any more.
    let _end = End(shared);
    let mut keeper = Keeper { shared, next, removed, is_merging: true };
    keeper.save();
    while keeper.turn() {}
}

struct Keeper<'a> {
    shared: &'a Shared,
    /// The number of the next run.
    next: u64,
    /// Runs whose files go as soon as the manifest does not name them.
    removed: Vec<u64>,
    /// False if merging failed, because there is no space, say: then runs stay as they are until the next process.
    is_merging: bool,
}

struct End<'a>(&'a Shared);

impl Drop for End<'_> {
    fn drop(&mut self) {
        lock(&self.0.work).is_ended = true;
        self.0.done.notify_all();
    }
}

impl Keeper<'_> {
    /// Does what is most urgent, or waits for something to do. False if that was the last.
    fn turn(&mut self) -> bool {
        #[cfg(test)]
        drop(lock(&self.shared.stall));
        let is_stopping = self.freeze_all();
        let mut is_changed = self.write_frozen();
        is_changed |= self.drop_damaged();
        is_changed |= self.forget_oldest();
        if self.advance() || is_changed {
            self.save();
        }
        if is_stopping {
            return false;
        }
        if !is_changed && !self.merge_what_is_due() {
            self.wait();
        }
        true
    }

    /// Freezes every table, if all is to be written. True if the keeper is to stop then.
    fn freeze_all(&self) -> bool {
        let is_stopping = {
            let mut work = lock(&self.shared.work);
            if !std::mem::take(&mut work.is_flushing) && !work.is_stopping {
                return false;
            }
            work.is_stopping
        };
        for shard in &self.shared.shards {
            let mut shard = lock(shard);
            if !shard.young.is_empty() {
                shard.freeze();
                lock(&self.shared.work).frozen += 1;
            }
        }
        is_stopping
    }

    /// Writes each frozen table as a run. True if there was one.
    fn write_frozen(&mut self) -> bool {
        let mut is_any = false;
        for number in 0..SHARDS {
            loop {
                let Some(table) = self.shard(number).frozen.front().cloned() else { break };
                let run = self.write(&table);
                if run.is_err() {
                    self.shared.dropped.fetch_add(table.len() as u64, Ordering::Relaxed);
                    lock(&self.shared.work).segments.lose();
                }
                let mut shard = self.shard(number);
                if let Ok(run) = run {
                    let runs = std::iter::once(Arc::new(run)).chain(shard.runs.iter().cloned()).collect();
                    shard.runs = Arc::new(runs);
                }
                shard.frozen.pop_front();
                shard.written += 1;
                drop(shard);
                lock(&self.shared.work).frozen -= 1;
                self.tell();
                is_any = true;
            }
        }
        is_any
    }

    fn write(&mut self, table: &Table) -> io::Result<Run> {
        let number = self.number();
        let write = || {
            let mut rows: Vec<(&Key, &Slot)> = table.iter().collect();
            rows.sort_unstable_by_key(|(key, _)| *key);
            let mut writer = RunWriter::create(&self.shared.directory, number, rows.len() as u64)?;
            rows.into_iter().try_for_each(|(key, slot)| writer.push(key, slot))?;
            writer.finish(&self.shared.packs)?;
            Run::open(&self.shared.directory, (number, 0), &self.shared.packs)
        };
        write().inspect_err(|_| self.shared.directory.remove(number))
    }

    /// Lets go of runs that were found damaged. True if there was one.
    fn drop_damaged(&mut self) -> bool {
        if !std::mem::take(&mut lock(&self.shared.work).is_damaged) {
            return false;
        }
        for number in 0..SHARDS {
            self.retain(number, |run| !run.is_damaged());
        }
        lock(&self.shared.work).segments.lose();
        true
    }

    /// Forgets the oldest rows of the largest shard until filters fit into their share. True if any were forgotten.
    fn forget_oldest(&mut self) -> bool {
        let mut is_any = false;
        while self.shared.octets() > self.shared.filters_max {
            let rows = |number: &usize| self.shard(*number).runs.iter().map(|run| run.rows()).sum::<u64>();
            let Some(number) = (0..SHARDS).max_by_key(rows) else { break };
            let Some(oldest) = self.shard(number).runs.last().cloned() else { break };
            self.shared.dropped.fetch_add(oldest.rows(), Ordering::Relaxed);
            self.retain(number, |run| !Arc::ptr_eq(run, &oldest));
            is_any = true;
        }
        is_any
    }

    fn retain(&mut self, number: usize, is_kept: impl Fn(&Arc<Run>) -> bool) {
        let mut shard = lock(&self.shared.shards[number]);
        let (kept, gone): (Vec<_>, Vec<_>) = shard.runs.iter().cloned().partition(is_kept);
        shard.runs = Arc::new(kept);
        self.removed.extend(gone.iter().map(|run| run.number));
    }

    /// Takes segments for durable whose rows are in runs now. True if any are, or others are not needed any more.
    fn advance(&self) -> bool {
        let written = self.shared.shards.each_ref().map(|shard| lock(shard).written);
        let mut work = lock(&self.shared.work);
        work.segments.advance(&written);
        std::mem::take(&mut work.segments.is_changed)
    }

    /// Merges runs of a shard that has too many. True if it did, or tried.
    fn merge_what_is_due(&mut self) -> bool {
        if !self.is_merging {
            return false;
        }
        let found = (0..SHARDS).find_map(|number| {
            let runs = Arc::clone(&self.shard(number).runs);
            due(&runs).map(|inputs| (number, inputs.to_vec()))
        });
        let Some((shard, inputs)) = found else { return false };
        let number = self.number();
        match self.merge(shard, &inputs, number) {
            Ok(true) => {
                self.removed.extend(inputs.iter().map(|run| run.number));
                self.save();
            }
            Ok(false) => self.shared.directory.remove(number),
            Err(_) => {
                self.shared.directory.remove(number);
                let is_damaged = inputs.iter().any(|run| run.is_damaged());
                lock(&self.shared.work).is_damaged |= is_damaged;
                self.is_merging = is_damaged;
            }
        }
        self.tell();
        true
    }

    /// Merges these runs into one that takes their place; false if it is to stop before the end.
    fn merge(&mut self, number: usize, inputs: &[Arc<Run>], new: u64) -> io::Result<bool> {
        let Shared { directory, packs, .. } = self.shared;
        let mut merge = Merge::begin(directory, packs, inputs, new)?;
        while !merge.step(STEP)? {
            let (is_stopping, frozen) = {
                let work = lock(&self.shared.work);
                (work.is_stopping, work.frozen)
            };
            if is_stopping {
                return Ok(false);
            }
            // Who fills waits for the merge; who may not wait does not.
            if frozen > FROZEN_WAIT {
                self.write_frozen();
            }
        }
        let level = merge.level;
        let merged = match merge.finish(packs)? {
            0 => None,
            _ => Some(Arc::new(Run::open(directory, (new, level), packs)?)),
        };
        if merged.is_none() {
            self.removed.push(new);
        }
        let mut shard = self.shard(number);
        shard.runs = Arc::new(replaced(&shard.runs, inputs, merged));
        Ok(true)
    }

    /// Replaces the manifest, and removes what it does not name any more. If that fails, the one before counts, and what it names stays.
    fn save(&mut self) {
        let runs_of =
            |shard: &std::sync::Mutex<Shard>| lock(shard).runs.iter().map(|run| (run.number, run.level)).collect();
        let shards = self.shared.shards.each_ref().map(runs_of);
        let segments = lock(&self.shared.work).segments.durable.clone();
        let manifest = Manifest { next: self.next, shards, segments };
        if self.shared.directory.save(&manifest).is_ok() {
            self.removed.drain(..).for_each(|number| self.shared.directory.remove(number));
        }
    }

    /// Waits for something to do.
    fn wait(&self) {
        let mut work = lock(&self.shared.work);
        while work.frozen == 0 && !work.is_flushing && !work.is_stopping && !work.is_damaged {
            work.is_idle = true;
            self.shared.done.notify_all();
            work = self.shared.wake.wait(work).unwrap_or_else(PoisonError::into_inner);
        }
        work.is_idle = false;
    }

    /// Tells who waits that there may be room.
    fn tell(&self) {
        let is_behind = self.is_merging && self.shared.is_behind();
        lock(&self.shared.work).is_behind = is_behind;
        self.shared.done.notify_all();
    }

    fn shard(&self, number: usize) -> MutexGuard<'_, Shard> {
        lock(&self.shared.shards[number])
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }
}

/// All runs of a shard, the newest first, with one in the place of those of which it was made. These lie side by side; newer ones may have come meanwhile.
fn replaced<T>(all: &[Arc<T>], inputs: &[Arc<T>], merged: Option<Arc<T>>) -> Vec<Arc<T>> {
    let is_input = |run: &&Arc<T>| inputs.iter().any(|input| Arc::ptr_eq(input, run));
    let newer = all.iter().take_while(|run| !is_input(run)).cloned();
    let older = all.iter().skip_while(|run| !is_input(run)).filter(|run| !is_input(run)).cloned();
    newer.chain(merged).chain(older).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_merged_run_takes_the_place_of_its_inputs_among_newer_and_older_ones() {
        let all: Vec<Arc<u32>> = (0..6).map(Arc::new).collect();
        let numbers = |runs: Vec<Arc<u32>>| runs.iter().map(|run| **run).collect::<Vec<_>>();
        assert_eq!(numbers(replaced(&all, &all[2..5], Some(Arc::new(9)))), [0, 1, 9, 5]);
        assert_eq!(numbers(replaced(&all, &all[2..5], None)), [0, 1, 5]);
        assert_eq!(numbers(replaced(&all, &all, Some(Arc::new(9)))), [9]);
    }
}
