//! What is a From_ line and what is not: decisions over octets in memory, which may say that more must be read.

use super::from_line::{self, FromDate};
use super::head::{line_end, trimmed};
use super::{LineEnding, Variant};
use crate::message::InternalDate;
use memchr::{memchr2, memmem};

/// A From_ line longer than this, in octets, is none.
pub(super) const LINE_MAX: usize = 1024;
/// How far the line behind a From_ line is looked at, in octets, to see whether it is a header field.
const FIELD_NAME_MAX: usize = 80;
/// A From_ line.
#[derive(Clone, Copy, Debug)]
pub(super) struct FromLine {
    /// In octets, its line ending included.
    pub(super) length: usize,
    pub(super) date: Option<InternalDate>,
}

/// What of a message is in memory.
pub(super) struct Text<'a> {
    pub(super) octets: &'a [u8],
    /// Where the message begins, or 0.
    pub(super) content: usize,
    /// Where its body begins, or 0.
    pub(super) body: usize,
    pub(super) ending: LineEnding,
    /// Whether the file ends where this does.
    pub(super) is_whole: bool,
}

/// The result of looking for a From_ line.
pub(super) enum Found {
    /// It begins here.
    Line(usize, FromLine),
    /// More of the file must be read to know whether there is one here or behind.
    Unknown(usize),
    /// There is none, to the end of the file.
    Nothing,
}

impl Text<'_> {
    /// Looks for a From_ line at or behind `from`.
    pub(super) fn find(&self, finder: &memmem::Finder<'_>, from: usize, seen: &mut Seen) -> Found {
        let mut at = from;
        while let Some(found) = finder.find(self.octets.get(at..).unwrap_or_default()) {
            let index = at + found;
            match self.judge(index, seen) {
                Judgement::Line(line) => return Found::Line(index, line),
                Judgement::Unknown => return Found::Unknown(index),
                Judgement::None => at = index + 5,
            }
        }
        if self.is_whole {
            return Found::Nothing;
        }
        // The last octets may be the first ones of `From `.
        Found::Unknown(at.max(self.octets.len().saturating_sub(4)))
    }

    fn judge(&self, index: usize, seen: &mut Seen) -> Judgement {
        let before = self.octets.get(..index).unwrap_or_default();
        if !ends_line(before, self.ending) {
            if index > self.body {
                note_quoting(before, seen);
            }
            return Judgement::None;
        }
        let rest = self.octets.get(index..).unwrap_or_default();
        // A CR at the very end may be half a line ending.
        let line = first_line(rest, self.ending).filter(|line| self.is_whole || line.length < rest.len());
        let Some(line) = line else {
            return match rest.len() {
                length if length > LINE_MAX => Judgement::None,
                _ if !self.is_whole => Judgement::Unknown,
                _ => self.unfinished(rest, index),
            };
        };
        let Some(from) = rest.get(..line.length).and_then(|line| from_line::date(trimmed(line))) else {
            return Judgement::None;
        };
        let line = FromLine { date: Some(from.date), ..line };
        if self.is_after_blank_line(index) {
            return Judgement::Line(line);
        }
        self.without_blank_line(from, line, rest)
    }

    /// A line at the very end of the file without a line ending.
    fn unfinished(&self, line: &[u8], index: usize) -> Judgement {
        match from_line::date(line) {
            Some(from) if self.is_after_blank_line(index) => {
                Judgement::Line(FromLine { length: line.len(), date: Some(from.date) })
            }
            _ => Judgement::None,
        }
    }

    fn without_blank_line(&self, from: FromDate, line: FromLine, rest: &[u8]) -> Judgement {
        if !from.is_strict {
            return Judgement::None;
        }
        match is_field(rest.get(line.length..).unwrap_or_default()) {
            Some(true) => Judgement::Line(line),
            None if !self.is_whole => Judgement::Unknown,
            _ => Judgement::None,
        }
    }

    fn is_after_blank_line(&self, index: usize) -> bool {
        let content = self.octets.get(self.content..index).unwrap_or_default();
        blank_line(content, self.ending) > 0
    }
}

enum Judgement {
    Line(FromLine),
    None,
    Unknown,
}

/// The line ending of the file that begins with `octets`: that of its first line.
pub(super) fn line_ending(octets: &[u8]) -> LineEnding {
    let first = memchr2(b'\r', b'\n', octets).and_then(|at| octets.get(at..));
    match first {
        Some([b'\r', b'\n', ..]) => LineEnding::CrLf,
        Some([b'\r', ..]) => LineEnding::Cr,
        _ => LineEnding::Lf,
    }
}

/// The first line of `octets`, if it is all there and not too long.
fn first_line(octets: &[u8], ending: LineEnding) -> Option<FromLine> {
    let length = line_end(octets.get(..LINE_MAX).unwrap_or(octets), ending)?;
    Some(FromLine { length, date: None })
}

/// The first line of `octets` with the date of a From_ line, if it has one.
pub(super) fn dated_line(octets: &[u8], ending: LineEnding) -> Option<FromLine> {
    let line = first_line(octets, ending)?;
    let date = octets.get(..line.length).and_then(|line| from_line::date(trimmed(line)));
    Some(FromLine { date: date.map(|from| from.date), ..line })
}

/// Whether a line ends where `octets` do.
pub(super) fn ends_line(octets: &[u8], ending: LineEnding) -> bool {
    match octets.last() {
        Some(b'\n') => true,
        Some(b'\r') => ending == LineEnding::Cr,
        _ => false,
    }
}

pub(super) fn leading_line_ending(octets: &[u8], ending: LineEnding) -> usize {
    match octets {
        [b'\r', b'\n', ..] => 2,
        [b'\n', ..] => 1,
        [b'\r', ..] if ending == LineEnding::Cr => 1,
        _ => 0,
    }
}

/// How many octets of a blank line `content` ends with; 0 if with none. `content` begins where a line does.
pub(super) fn blank_line(content: &[u8], ending: LineEnding) -> usize {
    let length = match content {
        [.., b'\r', b'\n'] => 2,
        [.., b'\n'] => 1,
        [.., b'\r'] if ending == LineEnding::Cr => 1,
        _ => return 0,
    };
    let rest = content.get(..content.len() - length).unwrap_or_default();
    if rest.is_empty() || ends_line(rest, ending) { length } else { 0 }
}

/// Takes note of a line that begins with `>`s and `From `, where `before` is what is in front of `From `.
pub(super) fn note_quoting(before: &[u8], seen: &mut Seen) {
    let quotes = before.iter().rev().take_while(|&&octet| octet == b'>').count();
    let starts_line = matches!(before.iter().rev().nth(quotes), None | Some(b'\n' | b'\r'));
    if quotes > 0 && starts_line {
        seen.quoted = true;
        seen.requoted |= quotes > 1;
    }
}

/// Whether a header field begins `octets` (RFC 5322 2.2), or another From_ line that was quoted; `None` if more must be seen to tell.
fn is_field(octets: &[u8]) -> Option<bool> {
    let name =
        octets.iter().take(FIELD_NAME_MAX).take_while(|&&octet| (33..=126).contains(&octet) && octet != b':').count();
    match octets.get(name) {
        Some(b':') => Some(name > 0),
        Some(b' ') => Some(octets.starts_with(b">From ")),
        Some(_) => Some(false),
        None => (name >= FIELD_NAME_MAX).then_some(false),
    }
}

/// Signs of a variant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// A Content-Length that led to the next message.
    pub(super) verified: bool,
    /// A line with `>From `.
    pub(super) quoted: bool,
    /// A line with `>>From `.
    pub(super) requoted: bool,
    /// A line with `From ` inside a message whose Content-Length was right.
    pub(super) unquoted: bool,
}

impl Seen {
    pub(super) fn variant(self) -> Option<Variant> {
        match self {
            Self { verified: true, quoted: true, unquoted: false, .. } => Some(Variant::Mboxcl),
            Self { verified: true, .. } => Some(Variant::Mboxcl2),
            Self { requoted: true, .. } => Some(Variant::Mboxrd),
            Self { quoted: true, .. } => Some(Variant::Mboxo),
            _ => None,
        }
    }

    pub(super) fn bits(self) -> u8 {
        let flags = [self.verified, self.quoted, self.requoted, self.unquoted];
        flags.iter().rev().fold(0, |bits, flag| bits << 1 | u8::from(*flag))
    }

    pub(super) fn from_bits(bits: u8) -> Self {
        let bit = |number: u8| bits >> number & 1 == 1;
        Self { verified: bit(0), quoted: bit(1), requoted: bit(2), unquoted: bit(3) }
    }
}
