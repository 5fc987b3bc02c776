//! Doubles of the seams to the world: the clock, and randomness.

use crate::error::Result;
use crate::runtime::{Clock, Randomness, Timer};
use futures::FutureExt;
use futures::future::{self, BoxFuture};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A clock that stands still until it is moved. Clones are the same clock. As a timer, it is moved by every sleep, which takes no real time.
#[derive(Clone, Debug, Default)]
pub struct ManualClock {
    now: Arc<Mutex<Duration>>,
}

impl ManualClock {
    /// A clock that shows `now`, the time since 1970-01-01T00:00:00Z.
    #[must_use]
    pub fn new(now: Duration) -> Self {
        Self { now: Arc::new(Mutex::new(now)) }
    }

    /// Moves it forward.
    pub fn advance(&self, by: Duration) {
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        *now = now.saturating_add(by);
    }

    /// Sets it, also back.
    pub fn set(&self, now: Duration) {
        *self.now.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Duration {
        *self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Timer for ManualClock {
    fn sleep(&self, time: Duration) -> BoxFuture<'static, ()> {
        self.advance(time);
        future::ready(()).boxed()
    }
}

/// Randomness that is the same for the same seed: the n-th call to [`fill`](Randomness::fill) gives the BLAKE3 output stream of seed and
/// n. Not for keys of anything real.
#[derive(Debug)]
pub struct SeededRandomness {
    seed: u64,
    calls: AtomicU64,
}

impl SeededRandomness {
    /// Randomness from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { seed, calls: AtomicU64::new(0) }
    }
}

impl Randomness for SeededRandomness {
    fn fill(&self, octets: &mut [u8]) -> Result<()> {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.seed.to_le_bytes()).update(&call.to_le_bytes());
        hasher.finalize_xof().fill(octets);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_moves_only_by_hand() {
        let clock = ManualClock::new(Duration::from_secs(10));
        let clone = clock.clone();
        clock.advance(Duration::from_secs(5));
        assert_eq!(clone.now(), Duration::from_secs(15));
        clone.set(Duration::from_secs(1));
        assert_eq!(clock.now(), Duration::from_secs(1));
    }

    #[test]
    fn the_same_seed_gives_the_same_octets_and_another_call_others() {
        let draw = |randomness: &SeededRandomness| {
            let mut octets = [0; 40];
            randomness.fill(&mut octets).unwrap();
            octets
        };
        let (one, same, other) = (SeededRandomness::new(1), SeededRandomness::new(1), SeededRandomness::new(2));
        let first = draw(&one);
        assert_eq!(first, draw(&same));
        assert_ne!(first, draw(&one));
        assert_ne!(first, draw(&other));
    }
}
