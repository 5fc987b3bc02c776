//! The account of a run. Its law: `seen = stored + unchanged + quarantined + excluded + pending`.

use crate::error::{Error, Result};
use crate::source::{Exclusion, Reason};
use std::collections::BTreeMap;
use std::fmt;

/// The account of a run, or of the part of it that is over.
///
/// `seen` is counted when the source names a thing, before anything becomes of it; the other counters when it is settled. What is between is pending.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Ledger {
    /// What became of everything seen.
    pub messages: Messages,
    /// What changed about messages that are stored already. Not part of the law.
    pub changes: Changes,
    /// Octets.
    pub bytes: Bytes,
    /// Objects written: packs, commits, index segments, run records.
    pub objects: u64,
    /// Mailboxes that were enumerated to their end.
    pub mailboxes: u64,
    /// Mailboxes and folders that could not be enumerated to their end, by name with the reason; nothing in them was marked gone. Up to
    /// [`INCOMPLETE_MAX`](Self::INCOMPLETE_MAX) of them.
    pub incomplete: Vec<Incomplete>,
    /// How many more there are.
    pub incomplete_unnamed: u64,
}

/// What became of everything that the source named.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Messages {
    /// Everything that the source named: messages and what it excluded.
    pub seen: u64,
    /// Messages that are durable and committed by this run.
    pub stored: u64,
    /// Messages that were stored already, and still are what they were.
    pub unchanged: u64,
    /// Messages that could not be read in full; their readable octets are kept, and the next run tries them again.
    pub quarantined: u64,
    /// Things that are no messages.
    pub excluded: u64,
    /// Messages that the run did not get to, or did not commit.
    pub pending: u64,
    /// The quarantined ones by reason.
    pub reasons: BTreeMap<Reason, u64>,
    /// The excluded ones by reason.
    pub exclusions: BTreeMap<Exclusion, u64>,
}

/// What changed about messages that are stored already.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Changes {
    /// Messages whose flags, keywords or place differ from what was recorded.
    pub flags: u64,
    /// Messages that are in another folder than recorded.
    pub moved: u64,
    /// Messages that are no longer in the source. They are marked, never deleted.
    pub gone: u64,
}

/// Octets of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Bytes {
    /// Octets of messages read from the source.
    pub read: u64,
    /// Octets of content found in them, decoded.
    pub content: u64,
    /// Octets of that content that were stored already.
    pub duplicate: u64,
    /// Octets of the content that was new, compressed and sealed.
    pub compressed: u64,
    /// Octets of all objects written.
    pub written: u64,
}

/// Something that could not be enumerated to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Incomplete {
    /// Its name, for people.
    pub name: String,
    /// What went wrong, for people.
    pub reason: String,
}

impl Incomplete {
    /// Something of this name that could not be enumerated because of `error`.
    #[must_use]
    pub fn new(name: String, error: &Error) -> Self {
        Self { name: shown(name), reason: shown(describe(error)) }
    }
}

/// What a run amounts to, for who must decide whether to go on. From the ledger alone, so that anybody comes to the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "lowercase"))]
#[allow(
    clippy::exhaustive_enums,
    reason = "a scale of four, on which people decide; another step would change what the others mean"
)]
pub enum Grade {
    /// Everything that was seen is stored, and everything there is was seen.
    Perfect,
    /// Everything there is was seen and nothing is pending, and at most one message in 10,000 is in quarantine, only because it vanished or
    /// changed while it was read: what the next run mends by itself.
    Good,
    /// Something else is in quarantine, or pending, or could not be enumerated: somebody should look before the source is given up.
    Investigate,
    /// More than one message in a hundred is in quarantine.
    Poor,
}

impl Grade {
    /// Whether somebody must look, and [approve](crate::Engine::approve) the run or mend what is wrong.
    #[must_use]
    pub fn needs_approval(self) -> bool {
        self >= Self::Investigate
    }
}

impl fmt::Display for Grade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Perfect => "perfect",
            Self::Good => "good",
            Self::Investigate => "investigate",
            Self::Poor => "poor",
        })
    }
}

/// The longest that a name or a reason is in a report, in octets; what is longer is cut, and ends with `...`.
pub(crate) const SHOWN_MAX: usize = 4096;

/// A text for a report, cut if it is too long: reports hold many.
pub(crate) fn shown(mut text: String) -> String {
    if text.len() > SHOWN_MAX {
        text.truncate(text.floor_char_boundary(SHOWN_MAX - 3));
        text.shrink_to_fit();
        text.push_str("...");
    }
    text
}

/// An error with all its causes, on one line.
#[must_use]
pub fn describe(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(source) = cause {
        text.push_str(": ");
        text.push_str(&source.to_string());
        cause = source.source();
    }
    text
}

impl Ledger {
    /// The most mailboxes and folders that are named as [`incomplete`](Self::incomplete).
    pub const INCOMPLETE_MAX: usize = 4096;

    /// Counts things that the source named.
    pub(crate) fn see(&mut self, count: u64) {
        self.messages.seen += count;
        self.messages.pending += count;
    }

    /// Settles `count` pending messages as stored.
    pub(crate) fn store(&mut self, count: u64) {
        self.messages.pending -= count;
        self.messages.stored += count;
    }

    /// Settles `count` pending messages as unchanged.
    pub(crate) fn keep(&mut self, count: u64) {
        self.messages.pending -= count;
        self.messages.unchanged += count;
    }

    /// Settles a pending message as quarantined.
    pub(crate) fn quarantine(&mut self, reason: Reason) {
        self.messages.pending -= 1;
        self.messages.quarantined += 1;
        *self.messages.reasons.entry(reason).or_default() += 1;
    }

    /// Settles a pending thing as excluded.
    pub(crate) fn exclude(&mut self, reason: Exclusion) {
        self.messages.pending -= 1;
        self.messages.excluded += 1;
        *self.messages.exclusions.entry(reason).or_default() += 1;
    }

    /// A mailbox or folder could not be enumerated to its end.
    pub(crate) fn miss(&mut self, name: String, error: &Error) {
        if self.incomplete.len() < Self::INCOMPLETE_MAX {
            self.incomplete.push(Incomplete::new(name, error));
        } else {
            self.incomplete_unnamed += 1;
        }
    }

    /// Checks the law.
    ///
    /// # Errors
    /// [`Internal`](crate::ErrorKind::Internal) if it does not hold: then nothing that the run says can be trusted.
    pub fn verify(&self) -> Result<()> {
        let Messages { seen, stored, unchanged, quarantined, excluded, pending, reasons, exclusions } = &self.messages;
        let settled = stored + unchanged + quarantined + excluded + pending;
        let by_reason: u64 = reasons.values().sum();
        let by_exclusion: u64 = exclusions.values().sum();
        if *seen == settled && *quarantined == by_reason && *excluded == by_exclusion {
            Ok(())
        } else {
            Err(Error::internal(format!("the ledger does not balance: {:?}", self.messages)))
        }
    }

    /// The run's grade: see [`Grade`] for the rule.
    #[must_use]
    pub fn grade(&self) -> Grade {
        let Messages { seen, quarantined, excluded, pending, reasons, .. } = &self.messages;
        let messages = seen - excluded;
        let passing = |reason: &Reason| matches!(reason, Reason::Vanished | Reason::Changed);
        if self.is_complete() {
            Grade::Perfect
        } else if *quarantined > messages / 100 {
            Grade::Poor
        } else if *pending == 0
            && self.incomplete.is_empty()
            && *quarantined <= messages / 10_000
            && reasons.keys().all(passing)
        {
            Grade::Good
        } else {
            Grade::Investigate
        }
    }

    /// Whether everything seen is stored, unchanged or no message, and everything there is was seen.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.messages.pending == 0 && self.messages.quarantined == 0 && self.incomplete.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_law_holds_however_messages_are_settled_and_fails_when_a_counter_lies() {
        let mut ledger = Ledger::default();
        ledger.see(10);
        ledger.store(3);
        ledger.keep(2);
        ledger.quarantine(Reason::Short);
        ledger.exclude(Exclusion::Temporary);
        assert_eq!(ledger.messages.pending, 3);
        ledger.verify().unwrap();
        assert!(!ledger.is_complete());
        ledger.messages.stored += 1;
        assert!(ledger.verify().is_err());
    }

    #[test]
    fn what_cannot_be_enumerated_is_named_up_to_a_number_and_counted_beyond() {
        let mut ledger = Ledger::default();
        (0..Ledger::INCOMPLETE_MAX + 3).for_each(|number| ledger.miss(number.to_string(), &Error::invalid("denied")));
        assert_eq!((ledger.incomplete.len(), ledger.incomplete_unnamed), (Ledger::INCOMPLETE_MAX, 3));
        assert!(!ledger.is_complete());
    }

    #[test]
    fn the_grade_is_by_what_is_missing_and_why() {
        let ledger = |stored, quarantined: &[Reason], pending| {
            let mut ledger = Ledger::default();
            ledger.see(stored + quarantined.len() as u64 + pending + 7);
            ledger.store(stored);
            quarantined.iter().for_each(|reason| ledger.quarantine(*reason));
            (0..7).for_each(|_| ledger.exclude(Exclusion::Temporary));
            ledger.verify().unwrap();
            ledger
        };
        assert_eq!(ledger(0, &[], 0).grade(), Grade::Perfect);
        assert_eq!(ledger(20_000, &[], 0).grade(), Grade::Perfect);
        assert_eq!(ledger(20_000, &[Reason::Vanished, Reason::Changed], 0).grade(), Grade::Good);
        assert_eq!(ledger(20_000, &[Reason::Vanished, Reason::Short], 0).grade(), Grade::Investigate);
        assert_eq!(ledger(20_000, &[Reason::Changed; 3], 0).grade(), Grade::Investigate);
        assert_eq!(ledger(20_000, &[], 1).grade(), Grade::Investigate);
        assert_eq!(ledger(98, &[Reason::Denied; 2], 0).grade(), Grade::Poor);
        let mut unseen = ledger(20_000, &[], 0);
        unseen.incomplete.push(Incomplete { name: "a folder".into(), reason: "denied".into() });
        assert_eq!(unseen.grade(), Grade::Investigate);
        assert!(Grade::Investigate.needs_approval() && !Grade::Good.needs_approval());
    }
}
