//! What real mail looks like: sizes of parts, how often contents come again, and the rates that follow for an organisation.
//!
//! The figures are a study of 18.57 million corporate mails with 40.9 million parts (256stuff.com, "email size analysis"), with what lies between
//! its published points interpolated. Floating point is used in additions, multiplications and divisions alone, which are exact everywhere.

/// Messages in a window: the run of a mailbox in which near repeats fall.
pub(super) const WINDOW: u64 = 32;

/// Non-empty parts in a hundred messages.
pub(super) const PARTS_PER_HUNDRED: u64 = 163;

/// One class of part sizes: sizes are log-uniform from `low` to below `high`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Class {
    /// The smallest size, in octets.
    pub(super) low: u32,
    /// The size above the largest, in octets.
    pub(super) high: u32,
    /// Parts of this class among 100,000.
    pub(super) weight: u32,
    /// Distinct contents among 100 parts.
    pub(super) unique: u32,
}

const fn class(low: u32, high: u32, weight: u32, unique: u32) -> Class {
    Class { low, high, weight, unique }
}

const K: u32 = 1 << 10;
const M: u32 = 1 << 20;

/// All classes, small to large. The weights add up to 100,000.
pub(super) const CLASSES: [Class; 18] = [
    class(64, 128, 5_000, 25),
    class(128, 256, 12_000, 58),
    class(256, 512, 17_000, 67),
    class(512, K, 17_000, 69),
    class(K, 2 * K, 12_500, 76),
    class(2 * K, 4 * K, 10_500, 82),
    class(4 * K, 8 * K, 7_200, 84),
    class(8 * K, 16 * K, 6_800, 76),
    class(16 * K, 32 * K, 3_600, 67),
    class(32 * K, 64 * K, 3_300, 55),
    class(64 * K, 128 * K, 1_700, 46),
    class(128 * K, 256 * K, 1_500, 45),
    class(256 * K, 512 * K, 700, 45),
    class(512 * K, M, 600, 45),
    class(M, 2 * M, 260, 45),
    class(2 * M, 4 * M, 230, 45),
    class(4 * M, 8 * M, 75, 45),
    class(8 * M, 30 * M, 35, 45),
];

/// The class of parts of 512 octets to 1 KiB: what a message is given that would have no part at all.
pub(super) const FILLER: u8 = 3;

/// From this class on (64 KiB), a part is never the text of a message, only an attachment.
pub(super) const LARGE: usize = 10;

impl Class {
    /// The size at `fraction` (of 2^32) of the way through the class, no larger than `cap`.
    pub(super) fn size(&self, fraction: u32, cap: u32) -> u32 {
        let (low, high) = (u64::from(self.low), u64::from(self.high.min(cap.max(self.low + 1))));
        let fraction = u64::from(fraction);
        if self.high > 2 * self.low {
            // Pareto with exponent 1, cut off: 1/size is uniform between 1/low and 1/high.
            let divisor = (high << 32) - fraction * (high - low);
            return (((low * high) << 12) / (divisor >> 20).max(1)).clamp(low, high - 1) as u32;
        }
        // 2^x - 1 is x (0.6565 + 0.3435 x) to a fifth of a per cent: no logarithm needed, which platforms round differently.
        let slope = 2_819_646_000 + ((1_475_321_296 * fraction) >> 32);
        let grown = (fraction * slope) >> 32;
        (low + ((grown * (high - low)) >> 32)).min(high - 1) as u32
    }

    /// The mean of [`size`](Self::size).
    pub(super) fn mean(&self, cap: u32) -> f64 {
        const SAMPLES: u32 = 64;
        let sum: u64 = (0..SAMPLES).map(|sample| u64::from(self.size((sample << 26) + (1 << 25), cap))).sum();
        sum as f64 / f64::from(SAMPLES)
    }
}

/// How contents of one class come and come again. A *group* is one content and its repeats nearby.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rate {
    /// Groups in a window, as a fixed-point number with 32 binary places.
    pub(super) groups: u64,
    /// Parts in a window that repeat a content from far away, as a fixed-point number with 32 binary places.
    pub(super) far: u64,
    /// The share of groups that have repeats, as a fraction of 2^32.
    pub(super) repeated: u64,
}

/// The rates for all classes, for an organisation with no part above `cap` octets where `shared` of all messages are
/// copies of a message in another mailbox.
pub(super) fn rates(cap: u32, shared: f64) -> [Rate; CLASSES.len()] {
    let slots = (WINDOW * PARTS_PER_HUNDRED) as f64 / 100.0;
    let total: u32 = CLASSES.iter().filter(|class| class.low < cap).map(|class| class.weight).sum();
    std::array::from_fn(|number| {
        let class = CLASSES[number];
        if class.low >= cap {
            return Rate::default();
        }
        let unique = f64::from(class.unique) / 100.0;
        let repeats = 1.0 / unique - 1.0;
        // A quarter of the repeats is far away; copies of whole messages in other mailboxes already make some of it.
        let copied = shared / unique;
        let far = (repeats * 0.25 - copied).max(0.0);
        let near = (repeats - copied - far).max(0.0);
        let groups = f64::from(class.weight) / f64::from(total) * slots / (1.0 + near + far);
        Rate {
            groups: fixed(groups),
            far: fixed(groups * far),
            repeated: fixed((near / (mean_members(number) - 1.0)).min(1.0)),
        }
    })
}

fn fixed(number: f64) -> u64 {
    (number * 4_294_967_296.0) as u64
}

/// The most members of a group of class `class`: a large attachment does not come twenty times within a few messages, and one
/// that did would rule a small organisation.
const fn members_max(class: usize) -> u32 {
    match class {
        0..LARGE => 24,
        LARGE..14 => 12,
        _ => 4,
    }
}

/// How many times the content of a group is there, for a point (of 2^32) of the group: once, or 2 to 24 times by Zipf's law with exponent 2.
pub(super) fn members(class: usize, point: u32, repeated: u64) -> u32 {
    let point = u64::from(point);
    if point >= repeated {
        return 1;
    }
    let target = point as f64 / repeated as f64 * zipf(class).0;
    let mut sum = 0.0;
    for members in 2..members_max(class) {
        sum += 1.0 / f64::from(members * members);
        if target < sum {
            return members;
        }
    }
    members_max(class)
}

/// The mean size of a group that has repeats.
fn mean_members(class: usize) -> f64 {
    let (weight, sum) = zipf(class);
    sum / weight
}

/// The sums of 1/n^2 and of 1/n from 2 to the most members of a group.
fn zipf(class: usize) -> (f64, f64) {
    (2..=members_max(class))
        .fold((0.0, 0.0), |(weight, sum), n| (weight + 1.0 / f64::from(n * n), sum + 1.0 / f64::from(n)))
}
