//! How hard a transfer compresses: the more it waits for the store, the harder, for then the time is there.

use crate::settings::Compression;
use std::sync::atomic::{AtomicUsize, Ordering};

/// zstd's levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Levels {
    /// For pieces, one by one. What is left of most kinds of content is the same at levels 1 and 3, and level 1 is twice as fast.
    pub(super) pieces: i32,
    /// For blocks of recipes, and what else is in commits: headers and short texts.
    pub(super) recipes: i32,
}

/// From the lightest to the hardest. docs/decisions/0004-speed.md has what each costs and leaves.
const STEPS: [Levels; 3] =
    [Levels { pieces: 1, recipes: 2 }, Levels { pieces: 3, recipes: 3 }, Levels { pieces: 5, recipes: 5 }];

/// How hard to compress now.
#[derive(Debug)]
pub(super) struct Effort {
    compression: Compression,
    step: AtomicUsize,
}

impl Effort {
    pub(super) fn new(compression: Compression) -> Self {
        Self { compression, step: AtomicUsize::new(0) }
    }

    pub(super) fn levels(&self) -> Levels {
        match self.compression {
            Compression::Level(level) => Levels { pieces: level, recipes: level },
            Compression::Adaptive => STEPS[self.step.load(Ordering::Relaxed).min(STEPS.len() - 1)],
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
        let seen: Vec<i32> = [true, true, true, false, true, false, false, false]
            .map(|waits| {
                effort.learn(waits);
                effort.levels().pieces
            })
            .into();
        assert_eq!(seen, [3, 5, 5, 3, 5, 3, 1, 1]);
    }

    #[test]
    fn a_level_that_was_told_stays() {
        let effort = Effort::new(Compression::Level(7));
        effort.learn(true);
        assert_eq!(effort.levels(), Levels { pieces: 7, recipes: 7 });
    }
}
