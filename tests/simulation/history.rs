//! What was there, and when: the past that can be asked for, and the one that is forgotten.

use crate::coverage::Event;
use crate::mail;
use crate::model::{Delivered, Model};
use crate::process::Restored;
use mailrail::restore::RestoreReport;
use std::collections::BTreeMap;

#[derive(Default)]
pub struct History {
    /// Times at which nothing went on, and what a restore gave then.
    states: Vec<(u64, Delivered)>,
    /// For each mailbox the time of the latest forgetting: what was there before may be forgotten.
    forgotten: BTreeMap<usize, u64>,
}

impl History {
    pub fn remember(&mut self, time: u64, state: Delivered) {
        self.states.push((time, state));
    }

    /// A commit came late: it may say that it is of a time that was looked at already.
    pub fn clear(&mut self) {
        self.states.clear();
    }

    /// What a mailbox held before this time may be forgotten.
    pub fn forget(&mut self, mailbox: usize, before: u64) {
        let time = self.forgotten.entry(mailbox).or_default();
        *time = before.max(*time);
    }

    /// The times that are remembered.
    pub fn times(&self) -> Vec<u64> {
        self.states.iter().map(|(time, _)| *time).collect()
    }

    /// Looks at what a restore gives of a time: each mailbox is what it was then, or says that it is forgotten.
    pub fn verify(&self, model: &Model, time: u64, restored: &Restored) -> Result<Event, String> {
        let Some((_, state)) = self.states.iter().find(|(at, _)| *at == time) else { return Ok(Event::AskedPast) };
        let Restored { mailboxes, report } = restored;
        let mut event = Event::AskedPast;
        for number in 0..mail::MAILBOXES.len() {
            let may_be_forgotten = self.forgotten.get(&number).is_some_and(|before| time < *before);
            if is_forgotten(report, number) && may_be_forgotten {
                event = Event::AskedForgotten;
            } else if !model.verify_past(number, state, mailboxes)? {
                let failures = &report.failures;
                return Err(format!("the past of mailbox {number} is not what it was at {time}: {failures:?}"));
            }
        }
        let is_told = |mailbox: &str| (0..mail::MAILBOXES.len()).any(|number| is_of(mailbox, number));
        match report.failures.iter().find(|failure| !is_told(&failure.mailbox)) {
            Some(failure) => Err(format!("a restore of the past failed: {failure:?}")),
            None => Ok(event),
        }
    }
}

/// Whether the restore says that this mailbox is forgotten, as a whole.
fn is_forgotten(report: &RestoreReport, number: usize) -> bool {
    let mut failures = report.failures.iter().filter(|failure| is_of(&failure.mailbox, number)).peekable();
    let is_any = failures.peek().is_some();
    is_any
        && failures
            .all(|failure| !failure.is_damage && failure.message.is_empty() && failure.reason.contains("forgotten"))
}

pub fn is_of(mailbox: &str, number: usize) -> bool {
    mailbox == mail::mailbox(number).to_string()
}
