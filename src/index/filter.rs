//! Filters: which rows of a sorted run may have a key, told from 1.3 octets of memory a row.
//!
//! Keys are digests, so they are spread evenly, and a run is cut into about as many *buckets* as it has rows, by the first octets of a key. Of each bucket
//! the filter knows how many rows it has (a bit for each row and one for the bucket's end), and of each row one more octet of its key, its *print*. So it tells the very row at which a key
//! may be, and says of 255 absent keys in 256 that they are not there. Since rows are sorted, it is written as they come, part by part, and never in memory twice.

use super::Key;

/// Buckets in a part, the unit in which filters are written.
pub(super) const PART_BUCKETS: usize = 1 << 16;
/// Buckets of which the first row is known without counting.
const GROUP: usize = 64;

/// The filter of a run.
#[derive(Debug, Default)]
pub(super) struct Filter {
    buckets: u64,
    parts: Vec<Part>,
}

/// A part of a filter: of up to [`PART_BUCKETS`] buckets.
#[derive(Debug, Default)]
struct Part {
    /// The number of its first row in the run.
    first: u64,
    /// The number, in this part, of each group's first row.
    groups: Box<[u32]>,
    /// Of each bucket as many ones as it has rows, then a zero.
    ends: Box<[u64]>,
    /// One octet of each row's key.
    prints: Box<[u8]>,
}

impl Filter {
    /// An empty filter for this many buckets.
    pub(super) fn new(buckets: u64) -> Self {
        Self { buckets, parts: Vec::new() }
    }

    /// The buckets for about so many rows.
    pub(super) fn buckets_for(rows: u64) -> u64 {
        rows.max(1)
    }

    /// How many parts a filter of so many buckets has.
    pub(super) fn parts_of(buckets: u64) -> u64 {
        buckets.div_ceil(PART_BUCKETS as u64)
    }

    /// Appends a part as it was built. False if it is none: then the filter must not be used.
    pub(super) fn append(&mut self, ends: Box<[u64]>, prints: Box<[u8]>) -> bool {
        let before = self.parts.len() * PART_BUCKETS;
        let buckets = self.buckets.saturating_sub(before as u64).min(PART_BUCKETS as u64) as usize;
        let first = self.rows();
        let mut groups = Vec::with_capacity(buckets.div_ceil(GROUP));
        let (mut at, mut bucket) = (0, 0);
        while bucket < buckets {
            groups.push((at - bucket) as u32);
            let step = GROUP.min(buckets - bucket);
            at = after_zeros(&ends, at, step);
            bucket += step;
        }
        let is_sound = at.checked_sub(buckets) == Some(prints.len()) && ends.len() == at.div_ceil(64);
        self.parts.push(Part { first, groups: groups.into(), ends, prints });
        is_sound
    }

    /// How many rows it tells of.
    pub(super) fn rows(&self) -> u64 {
        self.parts.last().map_or(0, |part| part.first + part.prints.len() as u64)
    }

    /// Octets of memory that it takes.
    pub(super) fn octets(&self) -> usize {
        let of = |part: &Part| size_of::<Part>() + part.groups.len() * 4 + part.ends.len() * 8 + part.prints.len();
        self.parts.iter().map(of).sum()
    }

    /// The numbers of the rows that may have this key.
    pub(super) fn candidates(&self, key: &Key) -> impl Iterator<Item = u64> {
        let bucket = bucket(key, self.buckets);
        let part = self.parts.get((bucket / PART_BUCKETS as u64) as usize);
        let print = print(key);
        part.into_iter().flat_map(move |part| {
            let rows = part.bucket((bucket % PART_BUCKETS as u64) as usize);
            let found = part.prints.get(rows.clone()).unwrap_or_default();
            let at = part.first + rows.start as u64;
            found
                .iter()
                .enumerate()
                .filter(move |(_, found)| **found == print)
                .map(move |(number, _)| at + number as u64)
        })
    }
}

impl Part {
    /// The rows of a bucket.
    fn bucket(&self, bucket: usize) -> std::ops::Range<usize> {
        let group = bucket / GROUP;
        let Some(first) = self.groups.get(group) else { return 0..0 };
        // In front of the group there is a one for each row and a zero for each bucket.
        let from = *first as usize + group * GROUP;
        let at = after_zeros(&self.ends, from, bucket % GROUP);
        let rows = after_zeros(&self.ends, at, 1).saturating_sub(at + 1);
        let first = at.saturating_sub(bucket);
        first..first + rows
    }
}

/// Where the bit is that follows so many zeros, from bit `at` on. Behind the end there are zeros.
fn after_zeros(bits: &[u64], mut at: usize, mut zeros: usize) -> usize {
    while zeros > 0 {
        let word = bits.get(at / 64).copied().unwrap_or_default();
        let mut found = !word >> (at % 64);
        let here = found.count_ones() as usize;
        if here < zeros {
            zeros -= here;
            at = (at / 64 + 1) * 64;
            continue;
        }
        for _ in 1..zeros {
            found &= found - 1;
        }
        return at + found.trailing_zeros() as usize + 1;
    }
    at
}

/// The bucket of a key: keys in order have buckets in order.
pub(super) fn bucket(key: &Key, buckets: u64) -> u64 {
    let high = key.first_chunk().map_or(0, |first| u64::from_be_bytes(*first));
    ((u128::from(high) * u128::from(buckets)) >> 64) as u64
}

/// An octet of the key that has no part in its bucket, for all runs that can be.
pub(super) fn print(key: &Key) -> u8 {
    key[8]
}

/// Builds one part after the other from keys that come in order.
#[derive(Debug)]
pub(super) struct PartBuilder {
    buckets: u64,
    /// The bucket that is open, of all.
    bucket: u64,
    ends: Vec<u64>,
    bits: usize,
    prints: Vec<u8>,
}

/// A part that is whole, to be written.
#[derive(Debug)]
pub(super) struct Built {
    pub(super) ends: Vec<u64>,
    pub(super) prints: Vec<u8>,
}

impl PartBuilder {
    pub(super) fn new(buckets: u64) -> Self {
        Self { buckets, bucket: 0, ends: Vec::new(), bits: 0, prints: Vec::new() }
    }

    /// Takes in the next key, and gives the parts that are whole before it.
    pub(super) fn push(&mut self, key: &Key, mut each: impl FnMut(Built)) {
        let bucket = bucket(key, self.buckets);
        self.go_to(bucket, &mut each);
        self.bit(true);
        self.prints.push(print(key));
    }

    /// Gives the last part, and those before it that have no rows.
    pub(super) fn finish(mut self, mut each: impl FnMut(Built)) {
        self.go_to(self.buckets, &mut each);
        if !self.buckets.is_multiple_of(PART_BUCKETS as u64) {
            each(self.take());
        }
    }

    fn go_to(&mut self, bucket: u64, each: &mut impl FnMut(Built)) {
        while self.bucket < bucket {
            self.bit(false);
            self.bucket += 1;
            if self.bucket.is_multiple_of(PART_BUCKETS as u64) {
                each(self.take());
            }
        }
    }

    fn take(&mut self) -> Built {
        self.bits = 0;
        Built { ends: std::mem::take(&mut self.ends), prints: std::mem::take(&mut self.prints) }
    }

    fn bit(&mut self, is_one: bool) {
        if self.bits.is_multiple_of(64) {
            self.ends.push(0);
        }
        if let Some(last) = self.ends.last_mut() {
            *last |= u64::from(is_one) << (self.bits % 64);
        }
        self.bits += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn built(keys: &[Key], buckets: u64) -> Filter {
        let mut filter = Filter::new(buckets);
        let mut builder = PartBuilder::new(buckets);
        let mut add = |Built { ends, prints }| assert!(filter.append(ends.into(), prints.into()));
        keys.iter().for_each(|key| builder.push(key, &mut add));
        builder.finish(&mut add);
        filter
    }

    fn key(number: u64) -> Key {
        let mut key = [0; 16];
        key.copy_from_slice(&blake3::hash(&number.to_le_bytes()).as_bytes()[..16]);
        key
    }

    #[test]
    fn of_absent_keys_one_in_two_hundred_is_thought_to_be_there_and_a_row_takes_one_octet_and_a_third() {
        let mut keys: Vec<Key> = (0..300_000).map(key).collect();
        keys.sort_unstable();
        let filter = built(&keys, Filter::buckets_for(300_000));
        assert!(keys.iter().zip(0..).all(|(key, row)| filter.candidates(key).any(|candidate| candidate == row)));
        let lies = (1 << 32..(1 << 32) + 100_000).filter(|number| filter.candidates(&key(*number)).next().is_some());
        let lies = lies.count();
        assert!(lies < 500, "{lies} of 100,000");
        assert!(filter.octets() < 300_000 * 4 / 3, "{} octets", filter.octets());
    }

    proptest! {
        #[test]
        fn every_key_is_a_candidate_at_its_row(mut keys: Vec<Key>, crowd in 0_usize..200, buckets in 1_u64..200_000) {
            // Keys that crowd in one bucket, too.
            keys.extend((0..crowd as u64).map(|number| { let mut crowded = key(number); crowded[..8].fill(7); crowded }));
            keys.sort_unstable();
            let filter = built(&keys, buckets);
            prop_assert_eq!(filter.rows(), keys.len() as u64);
            for (key, row) in keys.iter().zip(0..) {
                prop_assert!(filter.candidates(key).any(|candidate| candidate == row));
            }
        }

        #[test]
        fn what_is_no_part_is_refused_or_harmless(ends: Vec<u64>, prints: Vec<u8>, buckets in 0_u64..2000, key: Key) {
            let mut filter = Filter::new(buckets);
            filter.append(ends.into(), prints.into());
            prop_assert!(filter.candidates(&key).count() <= 1 << 20);
        }
    }
}
