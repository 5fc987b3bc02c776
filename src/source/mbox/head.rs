//! What the header of a message in an mbox says of its flags and its length.

use super::LineEnding;
use crate::message::{Flags, SystemFlags};
use memchr::{memchr, memchr2};

/// What was found in a header.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    /// Octets up to the body, with the blank line.
    pub(super) length: usize,
    /// Whether the header's end was seen.
    pub(super) is_complete: bool,
    /// The first Content-Length, in octets of the body.
    pub(super) content_length: Option<u64>,
    pub(super) flags: Flags,
}

/// Reads the header at the start of `octets`, until its end or theirs.
pub(super) fn head(octets: &[u8], ending: LineEnding) -> Head {
    let mut head = Head::default();
    let mut system = SystemFlags::default();
    let mut keywords = Vec::new();
    let mut rest = octets;
    while let Some(end) = line_end(rest, ending) {
        let (line, after) = rest.split_at(end);
        let line = trimmed(line);
        // A From_ line ends a header that no blank line does.
        if line.starts_with(b"From ") {
            head.is_complete = true;
            break;
        }
        head.length += end;
        rest = after;
        if line.is_empty() {
            head.is_complete = true;
            break;
        }
        if matches!(line.first(), Some(b's' | b'S' | b'x' | b'X' | b'c' | b'C')) {
            field(line, &mut system, &mut keywords, &mut head.content_length);
        }
    }
    head.flags = if keywords.is_empty() { system.into() } else { Flags::new(system, keywords) };
    head
}

/// Where the first line of `octets` ends, its line ending included; `None` if it is not all there.
pub(super) fn line_end(octets: &[u8], ending: LineEnding) -> Option<usize> {
    if ending != LineEnding::Cr {
        return memchr(b'\n', octets).map(|at| at + 1);
    }
    let at = memchr2(b'\r', b'\n', octets)?;
    match octets.get(at..at + 2) {
        Some(b"\r\n") => Some(at + 2),
        _ => Some(at + 1),
    }
}

/// A line without its line ending.
pub(super) fn trimmed(mut line: &[u8]) -> &[u8] {
    line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

fn field(line: &[u8], system: &mut SystemFlags, keywords: &mut Vec<String>, length: &mut Option<u64>) {
    let Some(colon) = memchr(b':', line) else { return };
    let (name, value) = line.split_at(colon);
    let value = value.get(1..).unwrap_or_default().trim_ascii();
    if name.eq_ignore_ascii_case(b"Content-Length") {
        let number = std::str::from_utf8(value).ok().and_then(|digits| digits.parse().ok());
        *length = length.or(number);
    } else if name.eq_ignore_ascii_case(b"Status") {
        // `O` says only that the message is not new to its reader.
        set(system, value, &[(b'R', SystemFlags::SEEN)]);
    } else if name.eq_ignore_ascii_case(b"X-Status") {
        let letters = [
            (b'A', SystemFlags::ANSWERED),
            (b'F', SystemFlags::FLAGGED),
            (b'D', SystemFlags::DELETED),
            (b'T', SystemFlags::DRAFT),
        ];
        set(system, value, &letters);
    } else if name.eq_ignore_ascii_case(b"X-Mozilla-Status") {
        mozilla(system, value);
    } else if name.eq_ignore_ascii_case(b"X-Keywords") || name.eq_ignore_ascii_case(b"X-Mozilla-Keys") {
        let words = value.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        keywords.extend(words.map(|word| String::from_utf8_lossy(word).into_owned()));
    }
}

fn set(system: &mut SystemFlags, value: &[u8], letters: &[(u8, SystemFlags)]) {
    for (letter, flag) in letters {
        if value.contains(letter) {
            *system = system.with(*flag);
        }
    }
}

/// Thunderbird's hexadecimal flags (nsMsgMessageFlags). "Expunged" is a message deleted and not compacted away yet.
fn mozilla(system: &mut SystemFlags, value: &[u8]) {
    let bits = std::str::from_utf8(value).ok().and_then(|digits| u32::from_str_radix(digits, 16).ok()).unwrap_or(0);
    for (bit, flag) in [
        (0x1, SystemFlags::SEEN),
        (0x2, SystemFlags::ANSWERED),
        (0x4, SystemFlags::FLAGGED),
        (0x8, SystemFlags::DELETED),
        (0x1000, SystemFlags::PASSED),
    ] {
        if bits & bit != 0 {
            *system = system.with(flag);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_read_from_the_header_alone() {
        let head = head(
            b"Status: RO\r\nX-Status: AT\r\nx-keywords: b a\r\nContent-Length: 12\r\n\r\nX-Status: F\r\n",
            LineEnding::CrLf,
        );
        let system = SystemFlags::SEEN.with(SystemFlags::ANSWERED).with(SystemFlags::DRAFT);
        assert_eq!(head.flags, Flags::new(system, ["a".to_owned(), "b".to_owned()]));
        assert_eq!((head.content_length, head.is_complete), (Some(12), true));
    }

    #[test]
    fn pitfall_30_thunderbirds_flags_are_understood() {
        for (value, flags) in [
            ("0001", SystemFlags::SEEN),
            ("0008", SystemFlags::DELETED),
            ("1003", SystemFlags::SEEN.with(SystemFlags::ANSWERED).with(SystemFlags::PASSED)),
            ("zz", SystemFlags::default()),
        ] {
            let octets = format!("X-Mozilla-Status: {value}\n\n");
            assert_eq!(head(octets.as_bytes(), LineEnding::Lf).flags.system, flags, "{value}");
        }
    }

    #[test]
    fn a_header_ends_at_a_blank_line_or_a_from_line_and_else_is_not_complete() {
        assert_eq!(head(b"a: b\nFrom x\nStatus: R\n", LineEnding::Lf).length, 5);
        assert!(!head(b"a: b\nc: d", LineEnding::Lf).is_complete);
        assert_eq!(head(b"a: b\rStatus: R\r\rbody", LineEnding::Cr).length, 16);
        assert_eq!(head(b"a: b\rStatus: R\r\rbody", LineEnding::Cr).flags.system, SystemFlags::SEEN);
    }
}
