//! The dedup index: which blobs are stored, and where. A cache: losing rows costs space, never mail.
//!
//! A sweep may have condemned a pack since its rows were taken in. So each pack is believed to be there up to an *epoch*: the latest sweep of which it
//! is known that it spares the pack. Who knows of a later sweep gets no hits in it.

use crate::digest::Digest;
use crate::pack::{Location, PackId, Row};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Mutex, MutexGuard, PoisonError};

const SHARDS: usize = 16;

/// Octets of a digest that the index keeps. Keyed digests cannot be forced to collide by who does not know the key.
const KEY: usize = 16;

/// Where stored blobs are. Rows given to it are those of durable packs only.
pub(crate) trait Index: fmt::Debug + Send + Sync {
    /// Where the blob is, if the index remembers, and its pack is believed to be there up to `epoch`. `content` is the blob's length, which must agree.
    fn look_up(&self, digest: &Digest, content: u32, epoch: u64) -> Option<Location>;

    /// Remembers rows of packs that no sweep up to `epoch` condemns.
    fn insert(&self, rows: &[Row], epoch: u64);

    /// These packs (with their lengths) were seen to be there, and no sweep up to `epoch` condemns them.
    fn believe(&self, packs: &HashMap<PackId, u64>, epoch: u64);

    /// Whether no sweep up to `epoch` condemns this pack, as far as the index was told, and nobody found it damaged or gone.
    fn believes(&self, pack: &PackId, epoch: u64) -> bool;
}

/// An index in memory with a hard cap, which forgets what was neither stored nor asked for the longest.
///
/// Two generations: rows go to the young one; when that is full it becomes the old one, and what was old is forgotten.
pub(crate) struct RamIndex {
    shards: Vec<Mutex<Shard>>,
    packs: Mutex<Packs>,
    rows_max: usize,
}

#[derive(Default)]
struct Shard {
    young: Table,
    old: Table,
}

type Table = HashMap<[u8; KEY], Slot, BuildHasherDefault<KeyHasher>>;

#[derive(Clone, Copy)]
struct Slot {
    pack: u32,
    offset: u32,
    stored: u32,
    content: u32,
    frame: u32,
}

/// Pack ids, each kept once, and what is known of them.
#[derive(Default)]
struct Packs {
    ids: Vec<PackId>,
    /// Up to which sweep each is believed to be there.
    epochs: Vec<u64>,
    trust: Vec<Trust>,
    numbers: HashMap<PackId, u32>,
}

impl RamIndex {
    /// Octets of memory that a remembered row takes at most, hash table's slack included.
    pub(crate) const ROW_OCTETS: usize = 2 * (KEY + size_of::<Slot>() + 1);

    /// An index that takes at most `octets` of memory for rows. What pack ids take (about 80 octets a pack) is not counted.
    pub(crate) fn new(octets: usize) -> Self {
        // Of a shard's two generations each may hold half of its share.
        let rows_max = (octets / Self::ROW_OCTETS / SHARDS / 2).max(1);
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { shards, packs: Mutex::default(), rows_max }
    }

    /// No row of this pack is a hit any more: it is damaged, or gone.
    pub(crate) fn refuse(&self, pack: PackId) {
        lock(&self.packs).set(pack, Trust::Refused);
    }

    /// Somebody looked and saw the pack.
    pub(crate) fn saw(&self, pack: PackId) {
        let mut packs = lock(&self.packs);
        let number = packs.number(pack, 0) as usize;
        if packs.trust[number] == Trust::Told {
            packs.trust[number] = Trust::Seen;
        }
    }

    /// Whether the pack was seen to exist, and nothing bad has been heard of it since.
    pub(crate) fn is_seen(&self, pack: PackId) -> bool {
        let packs = lock(&self.packs);
        packs.numbers.get(&pack).is_some_and(|number| packs.trust[*number as usize] == Trust::Seen)
    }

    fn shard(&self, key: &[u8; KEY]) -> MutexGuard<'_, Shard> {
        lock(&self.shards[usize::from(key[0]) % SHARDS])
    }
}

impl Index for RamIndex {
    fn look_up(&self, digest: &Digest, content: u32, epoch: u64) -> Option<Location> {
        let key = key(digest);
        let slot = self.shard(&key).get(&key, self.rows_max).filter(|slot| slot.content == content)?;
        let pack = lock(&self.packs).hit(slot.pack, epoch)?;
        Some(Location {
            pack,
            offset: slot.offset.into(),
            stored: slot.stored,
            content: slot.content,
            frame: slot.frame,
        })
    }

    fn insert(&self, rows: &[Row], epoch: u64) {
        for row in rows {
            let Ok(offset) = u32::try_from(row.at.offset) else { continue };
            let Some(pack) = lock(&self.packs).number_unless_refused(row.at.pack, epoch) else { continue };
            let slot = Slot { pack, offset, stored: row.at.stored, content: row.at.content, frame: row.at.frame };
            let key = key(&row.digest);
            self.shard(&key).insert(key, slot, self.rows_max);
        }
    }

    fn believe(&self, packs: &HashMap<PackId, u64>, epoch: u64) {
        let mut known = lock(&self.packs);
        let Packs { ids, epochs, .. } = &mut *known;
        for (id, believed) in ids.iter().zip(epochs) {
            if packs.contains_key(id) {
                *believed = epoch.max(*believed);
            }
        }
    }

    fn believes(&self, pack: &PackId, epoch: u64) -> bool {
        let known = lock(&self.packs);
        known.numbers.get(pack).is_some_and(|number| known.hit(*number, epoch).is_some())
    }
}

impl fmt::Debug for RamIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RamIndex").field("rows_max", &(self.rows_max * 2 * SHARDS)).finish()
    }
}

impl Shard {
    fn get(&mut self, key: &[u8; KEY], rows_max: usize) -> Option<Slot> {
        if let Some(slot) = self.young.get(key) {
            return Some(*slot);
        }
        let slot = self.old.remove(key)?;
        self.insert(*key, slot, rows_max);
        Some(slot)
    }

    fn insert(&mut self, key: [u8; KEY], slot: Slot, rows_max: usize) {
        if self.young.len() >= rows_max && !self.young.contains_key(&key) {
            // The table of the generation that is forgotten is used again, so memory stays what it was.
            std::mem::swap(&mut self.young, &mut self.old);
            self.young.clear();
        }
        self.young.insert(key, slot);
    }
}

impl Packs {
    /// The pack of this number, unless it is refused, or a sweep up to `epoch` may have condemned it.
    fn hit(&self, number: u32, epoch: u64) -> Option<PackId> {
        let number = number as usize;
        (self.trust[number] != Trust::Refused && self.epochs[number] >= epoch).then(|| self.ids[number])
    }

    /// A refused pack's row must not take the place of another's.
    fn number_unless_refused(&mut self, id: PackId, epoch: u64) -> Option<u32> {
        let number = self.number(id, epoch);
        (self.trust[number as usize] != Trust::Refused).then_some(number)
    }

    fn set(&mut self, id: PackId, trust: Trust) {
        let number = self.number(id, 0) as usize;
        self.trust[number] = trust;
    }

    fn number(&mut self, id: PackId, epoch: u64) -> u32 {
        match self.numbers.entry(id) {
            Entry::Occupied(entry) => {
                let number = *entry.get();
                let believed = &mut self.epochs[number as usize];
                *believed = epoch.max(*believed);
                number
            }
            Entry::Vacant(entry) => {
                let number = self.ids.len() as u32;
                self.ids.push(id);
                self.epochs.push(epoch);
                self.trust.push(Trust::Told);
                *entry.insert(number)
            }
        }
    }
}

/// What is known of a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trust {
    /// It was said to exist.
    Told,
    /// It was seen to exist.
    Seen,
    /// It is damaged or gone: its rows are no hits.
    Refused,
}

/// Keys are digests already: their last octets are as good a hash as any. (The first ones choose the shard, so they vary less inside of it.)
#[derive(Default)]
struct KeyHasher(u64);

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

fn key(digest: &Digest) -> [u8; KEY] {
    let mut key = [0; KEY];
    key.copy_from_slice(&digest.as_bytes()[..KEY]);
    key
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere leaves the tables whole: every change to them is one call.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Domain;

    fn row(number: u32) -> Row {
        let digest = Domain::new([0; 32]).digest(&number.to_le_bytes());
        let pack = PackId::new([number as u8; 16]);
        Row { digest, at: Location { pack, offset: 40, stored: 10, content: number, frame: 0 } }
    }

    #[test]
    fn a_blob_of_another_length_is_no_hit() {
        let index = RamIndex::new(1 << 20);
        index.insert(&[row(7)], 0);
        assert_eq!(index.look_up(&row(7).digest, 7, 0), Some(row(7).at));
        assert_eq!(index.look_up(&row(7).digest, 8, 0), None);
        assert_eq!(index.look_up(&row(8).digest, 8, 0), None);
    }

    #[test]
    fn rows_of_a_refused_pack_are_no_hits_even_if_it_was_seen() {
        let index = RamIndex::new(1 << 20);
        let pack = row(7).at.pack;
        index.insert(&[row(7), row(8)], 0);
        index.saw(pack);
        assert!(index.is_seen(pack) && !index.is_seen(row(8).at.pack));
        index.refuse(pack);
        index.insert(&[row(7)], 0);
        index.saw(pack);
        assert!(!index.is_seen(pack));
        assert_eq!(index.look_up(&row(7).digest, 7, 0), None);
        assert_eq!(index.look_up(&row(8).digest, 8, 0), Some(row(8).at));
        assert!(!index.believes(&pack, 0) && index.believes(&row(8).at.pack, 0));
    }

    #[test]
    fn the_cap_holds_and_what_is_asked_for_is_kept() {
        let index = RamIndex::new(1000 * RamIndex::ROW_OCTETS);
        index.insert(&[row(0)], 0);
        for number in 1..20_000 {
            index.insert(&[row(number)], 0);
            assert!(index.look_up(&row(0).digest, 0, 0).is_some(), "forgotten at {number}");
        }
        let held = |shard: &Mutex<Shard>| {
            let shard = lock(shard);
            shard.young.len() + shard.old.len()
        };
        let kept: usize = index.shards.iter().map(held).sum();
        assert!(kept <= 1000, "{kept} rows kept");
        assert!(index.look_up(&row(1).digest, 1, 0).is_none());
    }

    #[test]
    fn a_pack_that_a_later_sweep_may_have_condemned_gives_no_hits_until_it_was_looked_at() {
        let index = RamIndex::new(1 << 20);
        index.insert(&[row(7), row(8)], 1);
        assert_eq!(index.look_up(&row(7).digest, 7, 1), Some(row(7).at));
        assert_eq!(index.look_up(&row(7).digest, 7, 2), None);
        index.believe(&HashMap::from([(row(7).at.pack, 50)]), 2);
        assert_eq!(index.look_up(&row(7).digest, 7, 2), Some(row(7).at));
        assert!(index.believes(&row(7).at.pack, 2) && !index.believes(&row(8).at.pack, 2));
        // Who knows less may still tell of it, and believes no more than before.
        index.insert(&[row(8)], 0);
        assert!(index.believes(&row(8).at.pack, 1) && !index.believes(&row(8).at.pack, 2));
    }
}
