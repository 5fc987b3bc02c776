//! Rows in memory, with a hard cap.

use super::{KEY, Key, Rows, Slot};
use crate::lock::{Acquisitions, Lock};
use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};

/// Tables are small, so that none takes long to grow.
const SHARDS: usize = 16;

/// A hash table of rows. It grows by doubling, so a row takes 42 octets in a full one, and 85 in one that has just grown.
pub(super) type Table = HashMap<Key, Slot, BuildHasherDefault<KeyHasher>>;

/// Octets of one place of a hash table: the row, and what the table keeps of its hash.
const PLACE_OCTETS: usize = KEY + size_of::<Slot>() + 1;
/// Octets of a hash table beside its places.
const TABLE_OCTETS: usize = 64;

/// Rows in memory. What was neither put nor asked for the longest is forgotten.
///
/// Two generations: rows go to the young one; when that is full it becomes the old one, and what was old is forgotten.
pub(super) struct RamRows {
    shards: Lock<Vec<Shard>>,
    /// The most rows of one generation of a shard.
    rows_max: usize,
}

#[derive(Default)]
struct Shard {
    young: Table,
    old: Table,
}

impl RamRows {
    /// Rows that take at most `octets` (and while a table grows, half of a table more).
    pub(super) fn new(octets: usize, acquisitions: &Acquisitions) -> Self {
        let rows_max = rows_in(octets / SHARDS / 2);
        let shards = (0..SHARDS).map(|_| Shard::default()).collect();
        Self { shards: Lock::new(shards, acquisitions), rows_max }
    }
}

/// A key's shard.
fn of(key: &Key) -> usize {
    usize::from(key[0]) % SHARDS
}

/// How many rows a hash table of at most this many octets holds: it has a power of two of places, and an eighth of them stays free.
pub(super) fn rows_in(octets: usize) -> usize {
    let places = octets.saturating_sub(TABLE_OCTETS) / PLACE_OCTETS;
    match places.checked_ilog2() {
        Some(power @ 3..) => (1 << power) / 8 * 7,
        _ => 1,
    }
}

impl Rows for RamRows {
    fn recent(&self, keys: &[Key]) -> Vec<Option<Slot>> {
        let mut shards = self.shards.lock();
        keys.iter().map(|key| shards[of(key)].get(key, self.rows_max)).collect()
    }

    fn put(&self, rows: &[(Key, Slot)]) {
        let mut shards = self.shards.lock();
        rows.iter().for_each(|(key, slot)| shards[of(key)].insert(*key, *slot, self.rows_max));
    }
}

impl fmt::Debug for RamRows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RamRows").field("rows_max", &(self.rows_max * 2 * SHARDS)).finish()
    }
}

impl Shard {
    fn get(&mut self, key: &Key, rows_max: usize) -> Option<Slot> {
        if let Some(slot) = self.young.get(key) {
            return Some(*slot);
        }
        let slot = self.old.remove(key)?;
        self.insert(*key, slot, rows_max);
        Some(slot)
    }

    fn insert(&mut self, key: Key, slot: Slot, rows_max: usize) {
        if self.young.len() >= rows_max && !self.young.contains_key(&key) {
            // The table of the generation that is forgotten is used again, so memory stays what it was.
            std::mem::swap(&mut self.young, &mut self.old);
            self.young.clear();
        }
        self.young.insert(key, slot);
    }
}

/// Keys are digests already: their last octets are as good a hash as any. (The first ones choose the shard, so they vary less inside of it.)
#[derive(Default)]
pub(super) struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, octets: &[u8]) {
        if let Some(last) = octets.last_chunk::<8>() {
            self.0 = u64::from_le_bytes(*last);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(number: u32) -> (Key, Slot) {
        let mut key = [0; KEY];
        key.copy_from_slice(&blake3::hash(&number.to_le_bytes()).as_bytes()[..KEY]);
        (key, Slot { pack: number, offset: 40, stored: 10, content: 20, frame: 0 })
    }

    fn put(rows: &RamRows, number: u32) {
        let (key, slot) = entry(number);
        rows.put(&[(key, slot)]);
    }

    fn find(rows: &RamRows, number: u32) -> Option<Slot> {
        rows.recent(&[entry(number).0])[0]
    }

    /// What hash tables of this capacity take: their places, of which they fill seven eighths, and what is beside them.
    fn table_octets(table: &Table) -> usize {
        table.capacity() / 7 * 8 * PLACE_OCTETS + TABLE_OCTETS
    }

    #[test]
    fn the_cap_holds_and_what_is_asked_for_is_kept() {
        let rows = RamRows::new(32 * (64 * PLACE_OCTETS + TABLE_OCTETS), &Acquisitions::default());
        assert_eq!(rows.rows_max, 56);
        put(&rows, 0);
        for number in 1..20_000 {
            put(&rows, number);
            assert!(find(&rows, 0).is_some(), "forgotten at {number}");
        }
        let kept: usize = rows.shards.lock().iter().map(|shard| shard.young.len() + shard.old.len()).sum();
        assert!(kept <= 32 * 56, "{kept} rows kept");
        assert!(find(&rows, 1).is_none());
    }

    #[test]
    fn the_tables_take_no_more_octets_than_were_given_and_a_row_in_full_ones_43() {
        for octets in [100_000, 1 << 20, 1_500_000, 2_000_000, 4 << 20] {
            let rows = RamRows::new(octets, &Acquisitions::default());
            let all = rows.rows_max * 2 * SHARDS;
            // Asked for again and again, as they come: rows go from one generation to the other and back.
            for number in 0..all as u32 * 3 {
                put(&rows, number);
                find(&rows, number / 2);
            }
            let (mut taken, mut kept) = (0, 0);
            for shard in &*rows.shards.lock() {
                taken += table_octets(&shard.young) + table_octets(&shard.old);
                kept += shard.young.len() + shard.old.len();
            }
            assert!(taken <= octets, "{taken} octets taken of {octets}");
            assert!(kept * 2 > all, "{kept} rows kept of {all}");
            assert!(taken <= all * 43 + 2 * SHARDS * TABLE_OCTETS, "{taken} octets for room for {all} rows");
        }
    }
}
