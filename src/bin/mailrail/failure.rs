//! Why a command failed, for people.

use crate::terminal::printable;
use std::error::Error as StdError;
use std::fmt;

/// Why a command failed: one line, and the exit status.
#[derive(Debug)]
pub(crate) struct Failure {
    status: u8,
    text: String,
}

impl Failure {
    /// The command was called wrongly.
    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self { status: 2, text: text.into() }
    }

    /// It could not be done.
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self { status: 1, text: text.into() }
    }

    /// It could not be done, because of `source`.
    pub(crate) fn of(doing: impl fmt::Display, source: &(dyn StdError + 'static)) -> Self {
        Self::new(format!("{doing}: caused by {}", causes(source)))
    }

    /// The same with what to do about it.
    pub(crate) fn advise(mut self, advice: &str) -> Self {
        self.text.push_str("; ");
        self.text.push_str(advice);
        self
    }

    pub(crate) fn status(&self) -> u8 {
        self.status
    }

    /// One line that is safe on a terminal.
    pub(crate) fn text(&self) -> String {
        printable(&self.text)
    }
}

impl From<mailrail::Error> for Failure {
    fn from(error: mailrail::Error) -> Self {
        Self::new(causes(&error))
    }
}

/// An error and all its causes.
fn causes(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        text.push_str(": caused by ");
        text.push_str(&source.to_string());
        cause = source.source();
    }
    text
}
