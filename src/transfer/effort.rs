//! How hard a transfer compresses: the more it waits for the store, the harder, for then the time is there.

use crate::settings::Compression;
use std::sync::atomic::{AtomicUsize, Ordering};

/// zstd's levels, from the lightest. docs/decisions/0004-speed.md has what each costs and leaves.
const STEPS: [i32; 3] = [1, 3, 5];

/// The highest level that may come of `compression`.
pub(super) fn level_max(compression: Compression) -> i32 {
    match compression {
        Compression::Level(level) => level,
        Compression::Adaptive => STEPS[STEPS.len() - 1],
    }
}

/// How hard to compress now.
#[derive(Debug)]
pub(super) struct Effort {
    compression: Compression,
    /// Which of [`STEPS`].
    step: AtomicUsize,
}

impl Effort {
    pub(super) fn new(compression: Compression) -> Self {
        Self { compression, step: AtomicUsize::new(0) }
    }

    /// The level for what is begun now.
    pub(super) fn level(&self) -> i32 {
        match self.compression {
            Compression::Level(level) => level,
            Compression::Adaptive => STEPS[self.step.load(Ordering::Relaxed)],
        }
    }

    /// A pack is finished. Its worker goes on at once, or waits until the store has taken one of several packs.
    pub(super) fn learn(&self, waits_for_store: bool) {
        let step = self.step.load(Ordering::Relaxed);
        let next = if waits_for_store { (step + 1).min(STEPS.len() - 1) } else { step.saturating_sub(1) };
        self.step.store(next, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_for_the_store_compresses_harder_and_who_does_not_lightly() {
        let effort = Effort::new(Compression::Adaptive);
        let seen = [true, true, true, false, true, false, false, false].map(|waits| {
            effort.learn(waits);
            effort.level()
        });
        assert_eq!(seen, [3, 5, 5, 3, 5, 3, 1, 1]);
    }

    #[test]
    fn a_level_that_was_told_stays() {
        let effort = Effort::new(Compression::Level(7));
        effort.learn(true);
        assert_eq!(effort.level(), 7);
    }
}
