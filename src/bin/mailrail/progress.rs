//! Progress on standard error, for people who watch.

use crate::arguments::Common;
use crate::output::{grouped, size};
use indicatif::{ProgressBar, ProgressStyle};
use mailrail::ledger::Ledger;
use std::io::{self, IsTerminal};
use std::time::Duration;

/// A line that tells how far a command is; nothing if nobody watches.
#[derive(Debug)]
pub(crate) struct Progress(Option<ProgressBar>);

impl Progress {
    /// Progress of what is being `done` ("pushing").
    pub(crate) fn new(common: &Common, doing: &'static str) -> Self {
        if common.quiet || common.json || !io::stderr().is_terminal() {
            return Self(None);
        }
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix} {elapsed} {wide_msg}") {
            bar.set_style(style);
        }
        bar.set_prefix(doing);
        bar.enable_steady_tick(Duration::from_millis(100));
        Self(Some(bar))
    }

    /// Shows how far a transfer is.
    pub(crate) fn show(&self, ledger: &Ledger) {
        let Some(bar) = &self.0 else { return };
        let messages = &ledger.messages;
        let rate = ledger.bytes.read as f64 / bar.elapsed().as_secs_f64().max(0.001);
        bar.set_message(format!(
            "{} of {} messages, {} read, {} written, {}/s",
            grouped(messages.seen - messages.pending),
            grouped(messages.seen),
            size(ledger.bytes.read),
            size(ledger.bytes.written),
            size(rate as u64),
        ));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
