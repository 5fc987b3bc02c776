//! What a transfer's time went by for. The clock is read twice for each time that the transfer is polled, and never for a message.

use super::{Phase, Transfer};
use crate::store::Waiting;
use std::ops::{Index, IndexMut};

/// What a transfer's time went by for: shares that add up to one (all are zero if no time went by). docs/throughput.md defines them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Shares {
    /// The source: for mailboxes and messages to be named or appended.
    pub source: f64,
    /// Work on messages: to read them, take them apart, hash, compress and seal them.
    pub cpu: f64,
    /// Answers of the store.
    pub store_latency: f64,
    /// The store's wish for fewer requests.
    pub store_throttling: f64,
    /// The ceilings of bandwidth and requests that were set.
    pub ceiling: f64,
}

/// Something that time goes by for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum For {
    Source,
    Cpu,
    Store(Waiting),
}

/// Adds up time.
#[derive(Debug, Default)]
pub(super) struct Times {
    /// Nanoseconds of each share.
    spent: Shares,
    /// Since when, in nanoseconds since 1970, time goes by for these, in these parts.
    since: Option<u64>,
    now_for: [(Option<For>, usize); 2],
}

impl Times {
    /// Until now, time went by for what was said last; from now on for these, in these parts.
    pub(super) fn turn(&mut self, now: u64, now_for: [(Option<For>, usize); 2]) {
        let gone = self.since.map_or(0, |since| now.saturating_sub(since)) as f64;
        let parts: usize = self.now_for.iter().map(|(_, part)| part).sum();
        for (what, part) in self.now_for {
            if let Some(what) = what {
                self.spent[what] += gone * part as f64 / parts.max(1) as f64;
            }
        }
        (self.since, self.now_for) = (Some(now), now_for);
    }

    pub(super) fn shares(&self) -> Shares {
        let Shares { source, cpu, store_latency, store_throttling, ceiling } = self.spent;
        let all = source + cpu + store_latency + store_throttling + ceiling;
        let share = |spent: f64| if all > 0.0 { spent / all } else { 0.0 };
        Shares {
            source: share(source),
            cpu: share(cpu),
            store_latency: share(store_latency),
            store_throttling: share(store_throttling),
            ceiling: share(ceiling),
        }
    }
}

impl Shares {
    /// All of them by name, for people.
    #[must_use]
    pub fn named(&self) -> [(&'static str, f64); 5] {
        [
            ("source", self.source),
            ("CPU", self.cpu),
            ("store latency", self.store_latency),
            ("store throttling", self.store_throttling),
            ("ceiling", self.ceiling),
        ]
    }
}

impl Index<For> for Shares {
    type Output = f64;

    fn index(&self, what: For) -> &f64 {
        match what {
            For::Source => &self.source,
            For::Cpu => &self.cpu,
            For::Store(Waiting::Latency) => &self.store_latency,
            For::Store(Waiting::Throttling) => &self.store_throttling,
            For::Store(Waiting::Ceiling) => &self.ceiling,
        }
    }
}

impl IndexMut<For> for Shares {
    fn index_mut(&mut self, what: For) -> &mut f64 {
        match what {
            For::Source => &mut self.source,
            For::Cpu => &mut self.cpu,
            For::Store(Waiting::Latency) => &mut self.store_latency,
            For::Store(Waiting::Throttling) => &mut self.store_throttling,
            For::Store(Waiting::Ceiling) => &mut self.ceiling,
        }
    }
}

impl Transfer {
    /// From now on time goes by for work.
    pub(super) fn time_for_work(&mut self) {
        self.times.turn(self.shared.repository.now(), [(Some(For::Cpu), 1), (None, 0)]);
    }

    /// From now on time goes by for what holds up the transfer: of its lanes each that works is worth as much as each that has no memory until the store has taken a pack.
    /// If there is neither, it is what anybody is asked for.
    pub(super) fn time_for_others(&mut self) {
        if self.phase == Phase::Done {
            return;
        }
        let (running, parked) = (self.lanes.running, self.lanes.parked.len());
        let now_for = if running + parked > 0 {
            let store = (parked > 0).then(|| For::Store(self.store_waits().unwrap_or(Waiting::Latency)));
            [(Some(For::Cpu), running), (store, parked)]
        } else {
            [(Some(self.held_up_by()), 1), (None, 0)]
        };
        self.times.turn(self.shared.repository.now(), now_for);
    }

    fn held_up_by(&self) -> For {
        let writes = self.packs.uploading + self.commits;
        let is_source_asked = self.is_taking && self.intake.is_none() || self.walks.are_running();
        // What is asked of the store beside packs and commits is asked to know what the source has that is new.
        let is_store_asked = self.shared.repository.governor().is_some_and(|governor| governor.asked() > writes);
        if is_source_asked && !self.batches.is_waiting && !is_store_asked {
            return For::Source;
        }
        let waits = self.store_waits().or_else(|| (writes > 0).then_some(Waiting::Latency));
        waits.map(For::Store).unwrap_or(if is_source_asked { For::Source } else { For::Cpu })
    }

    fn store_waits(&self) -> Option<Waiting> {
        self.shared.repository.governor()?.waiting()
    }
}
