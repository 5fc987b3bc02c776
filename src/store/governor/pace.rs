//! How many requests a second a store grants, learnt from what it refuses.

use std::collections::VecDeque;
use std::time::Duration;

/// The time before a refusal in which grants are counted, at least and at most: as long as it takes for [`COUNTED`] of them.
const COUNTED_IN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));
const COUNTED: f64 = 40.0;
/// The most grants that are counted.
const COUNTED_MAX: usize = 1 << 14;
/// What is asked for, of what is granted.
const BELOW: f64 = 0.99;
/// What is left of a pace that was refused, at most and at least.
const DECREASE: (f64, f64) = (0.5, 0.9);
/// What is left of it if it was refused so soon after the last refusal that grants tell nothing.
const SOON: f64 = 0.8;
/// How fast it comes back to what is granted, in seconds.
const RECOVERY: f64 = 1.0;
/// How long a pace is kept before more is tried: at first, and at most. It doubles with each try that finds the same.
const HOLD: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(30));
/// How much more is tried, of the pace in a second: at first, and at most. It doubles every [`FASTER`] as long as nothing is refused.
const TRY: (f64, f64) = (0.02, 0.5);
const FASTER: f64 = 4.0;
/// The slowest and the fastest pace, in requests a second; beyond there is none.
const PACES: (f64, f64) = (0.1, 100_000.0);
/// The longest time between two requests that counts for growth: what is not asked for is not known to be granted.
const STEP_MAX: Duration = Duration::from_secs(2);

/// A pace, once something was refused.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// When grants of late were given.
    grants: VecDeque<Duration>,
    known: Option<Known>,
}

#[derive(Debug)]
struct Known {
    /// Requests a second.
    pace: f64,
    /// What the store grants, by the last refusal.
    granted: f64,
    /// A pace at which something was refused is not known yet: it doubles every second.
    is_searching: bool,
    hold: Duration,
    refused_at: Duration,
    /// The end of the pause that the store asked for then.
    paused_until: Duration,
    grown_at: Duration,
    /// Since the last refusal: how many requests had to wait for the pace, and how many had not.
    waited: u64,
    free: u64,
}

impl Pace {
    /// Requests a second; `None` for as many as you like.
    pub(super) fn rate(&self) -> Option<f64> {
        self.known.as_ref().map(|known| known.pace)
    }

    /// A request begins, after waiting for the pace or without.
    pub(super) fn begin(&mut self, has_waited: bool, now: Duration) {
        let Some(known) = &mut self.known else { return };
        *(if has_waited { &mut known.waited } else { &mut known.free }) += 1;
        let step = now.saturating_sub(known.grown_at).min(STEP_MAX).as_secs_f64();
        known.grown_at = now;
        if !has_waited {
            return;
        }
        let tried = now.saturating_sub(known.refused_at).saturating_sub(known.hold).as_secs_f64();
        if known.is_searching {
            known.pace *= step.exp2();
        } else if tried <= 0.0 {
            known.pace += (known.granted * BELOW - known.pace).max(0.0) * (1.0 - (-step / RECOVERY).exp());
        } else {
            let more = (TRY.0 * (tried / FASTER).exp2()).min(TRY.1);
            known.pace *= (1.0 + more).powf(step);
        }
        if known.pace > PACES.1 {
            self.known = None;
        }
    }

    /// A request was granted.
    pub(super) fn granted(&mut self, now: Duration) {
        self.grants.push_back(now);
        while self.grants.len() > COUNTED_MAX || self.grants.front().is_some_and(|at| *at + COUNTED_IN.1 < now) {
            self.grants.pop_front();
        }
    }

    /// Grants a second of late, up to now from not before this time.
    fn counted(&self, from: Duration, pace: f64, now: Duration) -> f64 {
        let long = Duration::try_from_secs_f64(COUNTED / pace).unwrap_or(COUNTED_IN.1).min(COUNTED_IN.1);
        let long = long.min(now.saturating_sub(from)).max(COUNTED_IN.0);
        let counted = self.grants.iter().rev().take_while(|at| **at + long > now).count();
        counted as f64 / long.as_secs_f64()
    }

    /// A request that began then was refused; the store is left alone until a time.
    pub(super) fn refused(&mut self, begun: Duration, now: Duration, paused_until: Duration) {
        let pace = self.rate().unwrap_or(f64::INFINITY);
        let from = self.known.as_ref().map_or(Duration::ZERO, |known| known.refused_at.max(known.paused_until));
        let counted = self.counted(from, pace, now);
        let Some(known) = &mut self.known else {
            let granted = counted.max(1.0);
            self.known = Some(Known {
                pace: granted * DECREASE.1,
                granted,
                is_searching: true,
                hold: HOLD.0,
                refused_at: now,
                paused_until,
                grown_at: now,
                waited: 0,
                free: 0,
            });
            return;
        };
        // What was in flight at the last refusal tells of the time before it.
        if begun < known.refused_at {
            known.paused_until = known.paused_until.max(paused_until);
            return;
        }
        // Who asked for more than is granted all the time got what is granted. Who came up fast was below it until now.
        let is_asked_for = known.waited > 4 * known.free;
        let granted = match now.saturating_sub(from) {
            _ if known.is_searching || !is_asked_for => known.pace,
            asked if asked < COUNTED_IN.0 => known.pace * SOON,
            _ => known.pace.min(counted.max(known.pace * DECREASE.0)),
        };
        let is_same = (0.9..=1.1).contains(&(granted / known.granted));
        known.is_searching = known.is_searching && !is_asked_for;
        known.hold = if is_same { (known.hold * 2).min(HOLD.1) } else { HOLD.0 };
        known.granted = granted.max(PACES.0);
        known.pace = (granted * DECREASE.1).clamp(known.pace * DECREASE.0, known.pace * DECREASE.1).max(PACES.0);
        (known.refused_at, known.grown_at, known.paused_until) = (now, now, paused_until);
        (known.waited, known.free) = (0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::governor::bucket::Bucket;

    /// Asks a store that grants `rate` (at that time) a second, and saves up `burst`, for as much as the pace permits, at most every millisecond. After a refusal nobody asks
    /// for as long as the store says. Gives when something was granted, and when it was refused.
    fn ask(
        pace: &mut Pace,
        rate: impl Fn(u64) -> f64,
        burst: f64,
        pause: u64,
        seconds: u64,
    ) -> (Vec<Duration>, Vec<Duration>) {
        let (mut granted, mut refused) = (Vec::new(), Vec::new());
        let (mut own, mut tokens, mut paused) = (Bucket::new(0.0), burst, 0);
        for millisecond in 0..seconds * 1000 {
            let now = Duration::from_millis(millisecond);
            tokens = (tokens + rate(millisecond / 1000) / 1000.0).min(burst);
            own.set_rate(pace.rate(), now);
            if millisecond < paused || !own.wait(now).is_zero() {
                continue;
            }
            own.take(1.0, now);
            pace.begin(pace.rate().is_some(), now);
            if tokens >= 1.0 {
                tokens -= 1.0;
                pace.granted(now);
                granted.push(now);
            } else {
                paused = millisecond + pause;
                pace.refused(now, now, Duration::from_millis(paused));
                refused.push(now);
            }
        }
        (granted, refused)
    }

    fn between(times: &[Duration], from: u64, to: u64) -> f64 {
        times.iter().filter(|at| (from..to).contains(&at.as_secs())).count() as f64
    }

    #[test]
    fn it_settles_at_what_is_granted_with_few_refusals() {
        for (rate, burst) in [(20.0, 1.0), (20.0, 20.0), (20.0, 100.0), (5.0, 5.0), (300.0, 300.0)] {
            let (granted, refused) = ask(&mut Pace::default(), |_| rate, burst, 1000, 120);
            let (settled, refusals) = (between(&granted, 10, 120) / 110.0, between(&refused, 10, 120));
            assert!((rate * 0.9..=rate * 1.1).contains(&settled), "{rate}, {burst}: {settled}");
            assert!(refusals < 0.1 * rate * 110.0, "{rate}, {burst}: {refusals}");
            assert!(refusals < 20.0, "{rate}, {burst}: {refusals}");
        }
    }

    #[test]
    fn what_opens_up_is_found_and_what_closes_is_followed() {
        let open = |second| if (60..180).contains(&second) { 200.0 } else { 20.0 };
        let (granted, refused) = ask(&mut Pace::default(), open, 20.0, 1000, 300);
        let opened = between(&granted, 150, 180) / 30.0;
        assert!(opened > 150.0, "{opened}");
        let closed = between(&granted, 200, 300) / 100.0;
        assert!((18.0..=20.5).contains(&closed), "{closed}");
        assert!(between(&refused, 190, 300) < 0.1 * 20.0 * 110.0);
    }

    #[test]
    fn without_refusals_there_is_none_and_idle_time_makes_none_faster() {
        let mut pace = Pace::default();
        for second in 0..100 {
            pace.begin(false, Duration::from_secs(second));
            pace.granted(Duration::from_secs(second));
        }
        assert_eq!(pace.rate(), None);
        pace.refused(Duration::from_secs(100), Duration::from_secs(100), Duration::from_secs(100));
        let after = pace.rate().unwrap();
        for second in 101..100_000 {
            pace.begin(false, Duration::from_secs(second));
        }
        assert_eq!(pace.rate(), Some(after));
    }
}
