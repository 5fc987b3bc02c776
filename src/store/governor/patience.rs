//! How long a read may take before another is sent after it, and how often that may be.

use super::window::size_class;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// How many latencies of a kind are remembered, and from how many on they tell anything.
const REMEMBERED: (usize, usize) = (500, 100);
/// After how many more the 99th percentile is looked for anew.
const RENEWED: u32 = 20;
/// One read in so many may be sent twice.
const HEDGED: u32 = 100;
/// How many such may be saved up.
const SAVED: u32 = 10;

/// Latencies of reads by how much was asked for, in powers of four.
#[derive(Debug, Default)]
pub(super) struct Patience {
    kinds: BTreeMap<u32, Kind>,
    /// Reads since the last one that was sent twice.
    reads: u32,
}

#[derive(Debug, Default)]
struct Kind {
    latencies: VecDeque<Duration>,
    p99: Option<Duration>,
    since: u32,
}

impl Patience {
    /// A read of so many octets, as asked for, took so long.
    pub(super) fn answered(&mut self, asked: u64, latency: Duration) {
        self.reads = self.reads.saturating_add(1).min(HEDGED * SAVED);
        let kind = self.kinds.entry(size_class(asked)).or_default();
        kind.latencies.push_back(latency);
        if kind.latencies.len() > REMEMBERED.0 {
            kind.latencies.pop_front();
        }
        kind.since += 1;
        if kind.latencies.len() >= REMEMBERED.1 && kind.since >= RENEWED {
            let mut sorted: Vec<Duration> = kind.latencies.iter().copied().collect();
            sorted.sort_unstable();
            kind.p99 = sorted.get(sorted.len() * 99 / 100).copied();
            kind.since = 0;
        }
    }

    /// The 99th percentile of those that asked for about as much, once it is known.
    pub(super) fn p99(&self, asked: u64) -> Option<Duration> {
        self.kinds.get(&size_class(asked))?.p99
    }

    /// Whether one more read may be sent twice: then it is.
    pub(super) fn hedge(&mut self) -> bool {
        let may = self.reads >= HEDGED;
        self.reads -= if may { HEDGED } else { 0 };
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_99th_percentile_is_of_like_reads_and_at_most_one_in_a_hundred_is_sent_twice() {
        let mut patience = Patience::default();
        for number in 0..10_000_u64 {
            patience.answered(1000, Duration::from_millis(number % 1000));
            patience.answered(8 << 20, Duration::from_secs(1));
        }
        let p99 = patience.p99(1010).unwrap();
        assert!((Duration::from_millis(900)..Duration::from_millis(1000)).contains(&p99), "{p99:?}");
        assert_eq!((patience.p99(8 << 20), patience.p99(1)), (Some(Duration::from_secs(1)), None));
        assert_eq!((0..1000).filter(|_| patience.hedge()).count(), SAVED as usize);
        (0..HEDGED - 1).for_each(|_| patience.answered(1, Duration::ZERO));
        assert!(!patience.hedge());
    }
}
