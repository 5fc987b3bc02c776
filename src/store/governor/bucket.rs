//! Token buckets: so many units a second on average.

use std::time::Duration;

/// Who takes from it may go into debt, and the next one waits until the debt is paid: so one request of any size gets through, and the average is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    /// Units a second.
    rate: Option<f64>,
    /// What is saved up at most while nothing is taken, in seconds of the rate.
    saved_seconds_max: f64,
    /// Below zero: debt.
    balance: f64,
    /// When the balance was true.
    at: Duration,
}

impl Bucket {
    /// No limit yet. What is saved up is at most what comes in `saved_seconds_max`.
    pub(super) fn new(saved_seconds_max: f64) -> Self {
        Self { rate: None, saved_seconds_max, balance: 0.0, at: Duration::ZERO }
    }

    /// Another rate from now on. A debt stays one, and is forgiven if there is no limit any more.
    pub(super) fn set_rate(&mut self, rate: Option<f64>, now: Duration) {
        self.settle(now);
        self.rate = rate.filter(|rate| rate.is_finite() && *rate > 0.0);
        if self.rate.is_none() {
            self.balance = 0.0;
        }
    }

    /// How long to wait until something can be taken; zero if it can be now.
    pub(super) fn wait(&mut self, now: Duration) -> Duration {
        self.settle(now);
        match self.rate {
            Some(rate) if self.balance < 0.0 => {
                Duration::try_from_secs_f64(-self.balance / rate).unwrap_or(Duration::MAX).max(Duration::from_nanos(1))
            }
            _ => Duration::ZERO,
        }
    }

    /// Takes so many units, on debt if need be.
    pub(super) fn take(&mut self, units: f64, now: Duration) {
        self.settle(now);
        if self.rate.is_some() {
            self.balance -= units;
        }
    }

    fn settle(&mut self, now: Duration) {
        let Some(rate) = self.rate else {
            self.at = now;
            return;
        };
        let earned = now.saturating_sub(self.at).as_secs_f64() * rate;
        self.balance = (self.balance + earned).min(rate * self.saved_seconds_max);
        // What rounding left of a debt is none.
        if self.balance > -1e-6 && self.balance < 0.0 {
            self.balance = 0.0;
        }
        self.at = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn on_average_no_more_is_taken_than_comes_whatever_the_size() {
        for size in [1.0, 7.0, 1000.0] {
            let (mut bucket, mut now, mut taken) = (Bucket::new(0.1), Duration::ZERO, 0.0);
            bucket.set_rate(Some(50.0), now);
            while now < seconds(200) {
                now += bucket.wait(now);
                bucket.take(size, now);
                taken += size;
            }
            let rate = taken / 200.0;
            assert!((48.0..=50.0 + 2.0 * size / 200.0 + 0.1).contains(&rate), "{size}: {rate}");
        }
    }

    #[test]
    fn what_is_saved_up_in_idle_time_is_little() {
        let mut bucket = Bucket::new(0.1);
        bucket.set_rate(Some(100.0), Duration::ZERO);
        let at_once = (0..1000).take_while(|_| {
            let is_free = bucket.wait(seconds(3600)).is_zero();
            bucket.take(1.0, seconds(3600));
            is_free
        });
        assert_eq!(at_once.count(), 11);
    }

    #[test]
    fn another_rate_pays_the_same_debt_faster_and_none_forgives_it() {
        let mut bucket = Bucket::new(0.1);
        bucket.set_rate(Some(10.0), Duration::ZERO);
        bucket.take(1000.0, Duration::ZERO);
        assert_eq!(bucket.wait(Duration::ZERO), seconds(100));
        bucket.set_rate(Some(1000.0), seconds(50));
        assert_eq!(bucket.wait(seconds(50)), Duration::from_millis(500));
        bucket.set_rate(None, seconds(50));
        assert_eq!(bucket.wait(seconds(50)), Duration::ZERO);
        bucket.set_rate(Some(10.0), seconds(51));
        assert_eq!(bucket.wait(seconds(51)), Duration::ZERO);
    }
}
