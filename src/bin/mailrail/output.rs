//! Text and JSON on standard output.

use crate::failure::Failure;
use crate::terminal::printable;
use mailrail::store::{Cost, Usage};
use mailrail::transfer::Shares;
use serde_json::Value;
use std::fmt::{self, Write as _};
use std::io::{self, Write as _};
use std::time::Duration;

/// The most of many things that are named in text.
const NAMED_MAX: usize = 20;

/// An account for people: headings, and rows of a label, a number, and what else there is to say of it.
#[derive(Debug, Default)]
pub(crate) struct Account {
    text: String,
}

impl Account {
    /// Begins a group of rows.
    pub(crate) fn heading(&mut self, heading: impl fmt::Display) {
        let _ = writeln!(self.text, "{heading}");
    }

    /// A row: what is counted, how many there are.
    pub(crate) fn count(&mut self, label: &str, count: u64) {
        self.row(label, grouped(count), "");
    }

    /// A row: octets, and the same shortly.
    pub(crate) fn octets(&mut self, label: &str, octets: u64) {
        self.row(label, grouped(octets), size(octets));
    }

    /// Any row.
    pub(crate) fn row(&mut self, label: &str, value: impl fmt::Display, note: impl fmt::Display) {
        let line = format!("  {label:<16} {value:>20}  {note}");
        let _ = writeln!(self.text, "{}", line.trim_end());
    }

    /// The first of many things, and how many more there are of `total`.
    pub(crate) fn list(&mut self, heading: &str, lines: impl IntoIterator<Item = String>, total: u64) {
        if total == 0 {
            return;
        }
        self.heading(heading);
        let mut named = 0;
        for line in lines.into_iter().take(NAMED_MAX) {
            let _ = writeln!(self.text, "  {}", printable(&line));
            named += 1;
        }
        if total > named {
            let _ = writeln!(self.text, "  and {} more", grouped(total - named));
        }
    }

    /// A line of its own.
    pub(crate) fn line(&mut self, line: impl fmt::Display) {
        let _ = writeln!(self.text, "{line}");
    }

    /// How long it took, and how much was done in that time.
    pub(crate) fn time(&mut self, elapsed: Duration, octets: u64) {
        self.heading("Time");
        self.row("seconds", format!("{:.2}", elapsed.as_secs_f64()), rate(octets, elapsed));
    }

    /// What was asked of the store, if that is known, and what it costs.
    pub(crate) fn requests(&mut self, requests: &Usage, cost: Option<&Cost>) {
        let Some(cost) = cost else { return };
        self.heading("Requests to the store");
        self.row("class A", grouped(requests.class_a()), "writes and listings");
        self.row("class B", grouped(requests.class_b()), "reads and lengths");
        self.count("deletes", requests.deletes);
        if requests.refused > 0 {
            self.row("refused", grouped(requests.refused), "tried again");
        }
        self.octets("sent", requests.sent_bytes);
        self.octets("received", requests.received_bytes);
        self.row("cost", format!("{:.4} {}", cost.amount, cost.currency), &cost.prices);
    }

    /// What the time went by for.
    pub(crate) fn shares(&mut self, shares: &Shares) {
        for (name, share) in shares.named().into_iter().filter(|(_, share)| *share >= 0.005) {
            self.row(name, format!("{:.0} %", share * 100.0), "of the time");
        }
    }

    /// Prints it.
    pub(crate) fn print(self) -> Result<(), Failure> {
        print(&self.text)
    }
}

/// Prints to standard output. That nobody reads it (a closed pipe) is no failure.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::of("writing to standard output", &error))
        }
        _ => Ok(()),
    }
}

/// Prints one JSON object.
pub(crate) fn print_json(value: Value) -> Result<(), Failure> {
    print(&format!("{value:#}\n"))
}

/// A report of the library as a JSON object, which gets these members too.
pub(crate) fn object(report: &impl serde::Serialize, more: Value) -> Result<Value, Failure> {
    let mut value = serde_json::to_value(report).map_err(|source| Failure::of("writing JSON", &source))?;
    if let (Some(members), Value::Object(more)) = (value.as_object_mut(), more) {
        members.extend(more);
    }
    Ok(value)
}

/// `1,234,567`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1.23 MB`: three digits that count, and a decimal unit.
pub(crate) fn size(octets: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if octets < 1000 {
        return format!("{octets} B");
    }
    let mut value = octets as f64 / 1000.0;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let decimals = if value < 9.995 { 2 } else { usize::from(value < 99.95) };
    format!("{value:.decimals$} {}", UNITS[unit])
}

/// `123 MB/s`; nothing if there is nothing to divide.
pub(crate) fn rate(octets: u64, elapsed: Duration) -> String {
    let seconds = elapsed.as_secs_f64();
    if octets == 0 || seconds <= 0.0 {
        return String::new();
    }
    format!("{}/s", size((octets as f64 / seconds) as u64))
}

/// What has these names (empty ones left out), and what there is to say of it.
pub(crate) fn named(names: [&str; 3], what: impl fmt::Display) -> String {
    let names: Vec<&str> = names.into_iter().filter(|name| !name.is_empty()).collect();
    format!("{}: {what}", names.join("/"))
}

/// What failed, by name, with the reason.
pub(crate) fn failures(failures: &[mailrail::restore::Failure]) -> impl Iterator<Item = String> {
    failures.iter().map(|failure| named([&failure.mailbox, &failure.folder, &failure.message], &failure.reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_and_sizes_have_three_digits() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        let sizes = [0, 999, 1000, 9_994, 9_995, 99_950, 999_499, 999_500, 1_450_000_000, u64::MAX].map(size);
        let expected =
            ["0 B", "999 B", "1.00 kB", "9.99 kB", "10.0 kB", "100 kB", "999 kB", "1.00 MB", "1.45 GB", "18.4 EB"];
        assert_eq!(sizes, expected);
    }

    #[test]
    fn a_long_list_is_cut_and_says_so() {
        let mut account = Account::default();
        account.list("Notes", (0..30).map(|number| number.to_string()), 1030);
        assert_eq!(account.text.lines().count(), 22);
        assert!(account.text.ends_with("  and 1,010 more\n"));
        let mut empty = Account::default();
        empty.list("Notes", [], 0);
        assert_eq!(empty.text, "");
    }
}
