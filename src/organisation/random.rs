//! Counter-based randomness: integer arithmetic only, so that every platform draws the same numbers.

/// The increment of SplitMix64 (Steele, Lea, Flood 2014): 2^64 divided by the golden ratio, made odd.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// A number that depends on every bit of `key` and of `counter`, and looks unrelated to both.
pub(super) const fn mix(key: u64, counter: u64) -> u64 {
    finish(finish(key.wrapping_add(STEP)) ^ counter.wrapping_mul(STEP).rotate_left(31))
}

const fn finish(mut word: u64) -> u64 {
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// A stream of numbers from a key (SplitMix64).
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) const fn new(key: u64) -> Self {
        Self(key)
    }

    pub(super) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(STEP);
        finish(self.0)
    }

    /// A number below `end`, which is not zero.
    pub(super) const fn below(&mut self, end: u64) -> u64 {
        ((self.next() >> 32) * end) >> 32
    }

    /// True `percent` times in a hundred.
    pub(super) const fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// One of `choices`, which are not none.
    pub(super) fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }

    /// The position of one of `weights`, as often as it weighs.
    pub(super) fn weighted(&mut self, weights: impl Iterator<Item = u64> + Clone) -> usize {
        at_weight(weights.clone(), self.below(weights.sum::<u64>().max(1)))
    }

    /// Appends `count` octets without any pattern.
    pub(super) fn octets(&mut self, count: usize, out: &mut Vec<u8>) {
        let mut left = count;
        while left >= 64 {
            let mut block = [0; 64];
            for word in block.chunks_exact_mut(8) {
                word.copy_from_slice(&self.next().to_le_bytes());
            }
            out.extend_from_slice(&block);
            left -= 64;
        }
        while left > 0 {
            let word = self.next().to_le_bytes();
            let take = left.min(word.len());
            out.extend_from_slice(&word[..take]);
            left -= take;
        }
    }
}

/// The position of the weight in which `point` falls when the weights are laid end to end.
pub(super) fn at_weight(weights: impl Iterator<Item = u64>, point: u64) -> usize {
    let mut last = 0;
    let mut sum = 0;
    for (position, weight) in weights.enumerate() {
        last = position;
        sum += weight;
        if point < sum {
            break;
        }
    }
    last
}

/// Point `number` of an even sequence in three dimensions, as fractions of 2^32 (Roberts's R3 sequence). Any run of its points is spread far
/// more evenly than chance would have it, so that small organisations hold the table too.
pub(super) const fn even(offset: u64, number: u64) -> [u32; 3] {
    const STEPS: [u64; 3] = [0xd1b5_4a32_d192_ed03, 0xabc9_8388_fb8f_ac03, 0x8cb9_2ba7_2f3d_8dd7];
    [
        (mix(offset, 0).wrapping_add(number.wrapping_mul(STEPS[0])) >> 32) as u32,
        (mix(offset, 1).wrapping_add(number.wrapping_mul(STEPS[1])) >> 32) as u32,
        (mix(offset, 2).wrapping_add(number.wrapping_mul(STEPS[2])) >> 32) as u32,
    ]
}
