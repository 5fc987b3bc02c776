//! Figures of all rounds, and what they come to.

use crate::measure::Cost;
use std::collections::BTreeMap;
use std::fmt;

/// What was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    Push,
    Again,
    Restore,
}

impl What {
    pub const ALL: [Self; 3] = [Self::Push, Self::Again, Self::Restore];
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Push => "push",
            Self::Again => "push again",
            Self::Restore => "restore",
        })
    }
}

/// One figure of a measurement.
#[derive(Clone, Copy, Debug)]
pub enum Figure {
    Wall,
    Cpu,
    Peak,
    Stored,
}

impl Figure {
    pub const ALL: [Self; 4] = [Self::Wall, Self::Cpu, Self::Peak, Self::Stored];

    fn of(self, measured: &Measured) -> f64 {
        match self {
            Self::Wall => measured.cost.wall,
            Self::Cpu => measured.cost.cpu,
            Self::Peak => measured.cost.peak,
            Self::Stored => measured.stored,
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Measured {
    pub cost: Cost,
    /// Octets in the repository.
    pub stored: f64,
}

/// What every tool took in every round.
#[derive(Default)]
pub struct Rounds {
    measured: BTreeMap<(What, &'static str), Vec<Measured>>,
}

impl Rounds {
    pub fn add(&mut self, what: What, tool: &'static str, measured: Measured) {
        self.measured.entry((what, tool)).or_default().push(measured);
    }

    /// A figure of a tool, if it was measured: one value a round.
    pub fn figures(&self, what: What, tool: &'static str, figure: Figure) -> Option<Spread> {
        let rounds = self.measured.get(&(what, tool))?;
        Some(Spread::of(rounds.iter().map(|measured| figure.of(measured)).collect()))
    }

    /// The ratio of two tools' figures, each of one round.
    pub fn ratios(&self, what: What, tool: &'static str, to: &'static str, figure: Figure) -> Option<Spread> {
        let (over, under) = (self.measured.get(&(what, tool))?, self.measured.get(&(what, to))?);
        let ratio = |(over, under): (&Measured, &Measured)| figure.of(over) / figure.of(under);
        Some(Spread::of(over.iter().zip(under).map(ratio).collect()))
    }
}

/// The least, the median and the most of some values.
#[derive(Clone, Copy, Debug)]
pub struct Spread {
    pub least: f64,
    pub median: f64,
    pub most: f64,
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let last = values.len() - 1;
        let median = (values[last / 2] + values[values.len() / 2]) / 2.0;
        Self { least: values[0], median, most: values[last] }
    }

    pub fn scaled(self, by: f64) -> Self {
        Self { least: self.least * by, median: self.median * by, most: self.most * by }
    }
}
