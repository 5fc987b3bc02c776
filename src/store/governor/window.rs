//! How many requests may be in flight: more while that goes well, fewer when the store is overloaded.

use std::collections::BTreeMap;
use std::time::Duration;

/// What a window begins with.
const WINDOW_FIRST: f64 = 8.0;
/// What is left of a window by a decrease.
const DECREASE: f64 = 0.7;
/// A latency that is this many times the best of its kind, and [`SLACK`] more, tells of overload: what waits in queues moves no faster.
const OVERLOAD: f64 = 4.0;
/// What a latency may always be over the best: noise.
const SLACK: Duration = Duration::from_millis(20);
/// What the smoothed latency has of each new one.
const SMOOTHING: f64 = 0.25;
/// How long the best latencies are believed. Then they are measured anew with a window that makes no queues, for a round trip.
const BELIEVED: Duration = Duration::from_secs(60);
/// How many answers that takes.
const MEASURED: u32 = 8;
/// From how few requests no overload is told.
const SAMPLES_MIN: u32 = 6;
/// Latency alone makes no window smaller than this: a wire is filled by a few.
const LATENCY_FLOOR: f64 = 4.0;

/// Additive increase, multiplicative decrease.
#[derive(Debug)]
pub(super) struct Window {
    size: f64,
    size_max: f64,
    /// Nothing has gone wrong yet: the window doubles with each round trip.
    is_starting: bool,
    /// What began before this has been answered for.
    decreased_at: Option<Duration>,
    /// When the best latencies began to be measured.
    measured_at: Option<Duration>,
    /// While they are measured anew: the window to go back to, and how many answers are to come.
    measuring: Option<(f64, u32)>,
    latencies: BTreeMap<Alike, Latency>,
}

/// Requests whose latencies can be compared: of one class, and of lengths of one power of four.
pub(super) type Alike = (u8, u32);

#[derive(Debug)]
struct Latency {
    best: f64,
    smoothed: f64,
    samples: u32,
}

/// The lengths that count as alike: 0, then powers of four.
pub(super) const fn size_class(octets: u64) -> u32 {
    (u64::BITS - octets.leading_zeros()).div_ceil(2)
}

impl Window {
    pub(super) fn new(size_max: usize) -> Self {
        let size_max = size_max.max(1) as f64;
        Self {
            size: WINDOW_FIRST.min(size_max),
            size_max,
            is_starting: true,
            decreased_at: None,
            measured_at: None,
            measuring: None,
            latencies: BTreeMap::new(),
        }
    }

    /// How many may be in flight.
    pub(super) fn size(&self) -> usize {
        self.size as usize
    }

    /// A request that began then was answered now. `was_full`: as many were in flight as could be, or else it tells nothing of more.
    pub(super) fn answered(&mut self, alike: Alike, was_full: bool, begun: Duration, now: Duration) {
        if self.is_answered_for(begun) {
            return;
        }
        let is_overloaded = self.is_overloaded(alike, now.saturating_sub(begun));
        if let Some((size, answers)) = self.measuring {
            self.measuring = (answers > 1).then_some((size, answers - 1));
            if self.measuring.is_none() {
                self.size = size;
            }
        } else if now.saturating_sub(*self.measured_at.get_or_insert(now)) > BELIEVED && self.size > LATENCY_FLOOR {
            self.measuring = Some((self.size, MEASURED));
            (self.size, self.decreased_at, self.measured_at) = (LATENCY_FLOOR, Some(now), Some(now));
            self.latencies.values_mut().for_each(|latency| latency.samples = 0);
        } else if is_overloaded && self.size > LATENCY_FLOOR {
            self.decrease(LATENCY_FLOOR, now);
        } else if was_full {
            let more = if self.is_starting { 1.0 } else { 1.0 / self.size };
            self.size = (self.size + more).min(self.size_max);
        }
    }

    /// A request that began then was refused now: there are too many.
    pub(super) fn refused(&mut self, begun: Duration, now: Duration) {
        if !self.is_answered_for(begun) {
            self.decrease(1.0, now);
        }
    }

    /// At most one decrease a round trip: what was in flight at the last one tells of the time before it.
    fn is_answered_for(&self, begun: Duration) -> bool {
        self.decreased_at.is_some_and(|at| begun < at)
    }

    fn decrease(&mut self, floor: f64, now: Duration) {
        let size = self.measuring.take().map_or(self.size, |(size, _)| size);
        self.size = (size * DECREASE).max(floor);
        self.is_starting = false;
        self.decreased_at = Some(now);
        self.latencies.values_mut().for_each(|latency| latency.samples = 0);
    }

    fn is_overloaded(&mut self, alike: Alike, latency: Duration) -> bool {
        let taken = latency.as_secs_f64();
        let known = self.latencies.entry(alike).or_insert(Latency { best: taken, smoothed: taken, samples: 0 });
        // The first answer of a measurement is the best so far.
        let is_first = known.samples == 0 && self.measuring.is_some();
        known.best = if is_first { taken } else { known.best.min(taken) };
        known.smoothed = if known.samples == 0 { taken } else { known.smoothed + SMOOTHING * (taken - known.smoothed) };
        known.samples = known.samples.saturating_add(1);
        known.samples >= SAMPLES_MIN && known.smoothed > known.best * OVERLOAD + SLACK.as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    /// Round trips of this many milliseconds each, with a full window.
    fn rounds(window: &mut Window, now: &mut Duration, latencies: impl IntoIterator<Item = u64>) -> Vec<usize> {
        let mut sizes = Vec::new();
        for latency in latencies {
            let (begun, size) = (*now, window.size());
            *now += ms(latency);
            (0..size).for_each(|_| window.answered((0, 3), true, begun, *now));
            sizes.push(window.size());
        }
        sizes
    }

    #[test]
    fn it_doubles_until_something_goes_wrong_and_then_grows_by_one_a_round_trip() {
        let (mut window, mut now) = (Window::new(100), Duration::ZERO);
        assert_eq!(rounds(&mut window, &mut now, [50; 5]), [16, 32, 64, 100, 100]);
        let begun = now;
        now += ms(50);
        (0..30).for_each(|_| window.refused(begun, now));
        assert_eq!(window.size(), 70, "one decrease a round trip");
        let sizes = rounds(&mut window, &mut now, [50; 10]);
        assert!(sizes.windows(2).all(|pair| pair[1] - pair[0] <= 1) && (78..=80).contains(&sizes[9]), "{sizes:?}");
    }

    #[test]
    fn queues_make_it_smaller_and_a_wire_stays_full() {
        // A server that answers eight at once in so many milliseconds each; more wait in its queue. After ten minutes it is elsewhere.
        let (mut window, mut now, mut answered) = (Window::new(256), Duration::ZERO, 0.0);
        let mut sizes = Vec::new();
        while now < ms(1_200_000) {
            let each = if now < ms(600_000) { 50 } else { 400 };
            let size = window.size();
            rounds(&mut window, &mut now, [each * size.div_ceil(8) as u64]);
            answered += (size as u64 * each) as f64;
            sizes.push(size);
        }
        let busy = answered / 8.0 / now.as_millis() as f64;
        assert!(busy > 0.85, "{busy}");
        assert!(sizes[50..].iter().all(|size| (4..=64).contains(size)), "{sizes:?}");
    }

    #[test]
    fn one_slow_answer_is_noise_and_other_sizes_have_latencies_of_their_own() {
        let (mut window, mut now) = (Window::new(64), Duration::ZERO);
        rounds(&mut window, &mut now, [50; 4]);
        window.answered((0, 3), true, now, now + ms(400));
        (0..20).for_each(|_| window.answered((0, 9), true, now, now + ms(5000)));
        assert_eq!(window.size(), 64);
    }

    #[test]
    fn refusals_leave_one_and_latency_leaves_a_few() {
        let (mut window, mut now) = (Window::new(64), Duration::ZERO);
        for _ in 0..100 {
            now += ms(10);
            window.refused(now, now);
        }
        assert_eq!(window.size(), 1);
        let mut window = Window::new(64);
        rounds(&mut window, &mut now, std::iter::once(1).chain([1000; 100]));
        assert!(window.size() >= 4, "{}", window.size());
    }

    #[test]
    fn lengths_are_alike_within_a_power_of_four() {
        assert_eq!([0, 1, 3, 4, 15, 16, 64 << 20, u64::MAX].map(size_class), [0, 1, 1, 2, 2, 3, 14, 32]);
    }
}
