//! Header blocks (RFC 5322 2.2): finds the end of one and the two fields that say how its body is to be read.
//!
//! Nothing but the values of these two fields is kept. What a line is follows mail-parser, and so tolerates what real mail has: lines without a
//! colon are passed over, a line of white space after a field continues it, white space may stand around and inside of a field's name, and
//! of a field that comes twice the last one counts.

use memchr::{memchr, memchr2};

use super::TransferEncoding;
use super::boundary::{Boundaries, Delimiter, Verdict};

/// How far a field's name is followed: the longest one that matters has 25 octets, the rest is for white space.
pub(super) const NAME_WINDOW: usize = 64;

/// Reads one header block after another.
#[derive(Debug)]
pub(super) struct Headers {
    /// The value of Content-Type as it stands, folds and line end included.
    pub(super) content_type: Field,
    /// The value of Content-Transfer-Encoding, likewise.
    pub(super) encoding: Field,
    place: Place,
    /// The kind of the line before, `None` where a line cannot be a continuation.
    previous: Option<Kind>,
    /// How many octets the block may still have.
    left: usize,
    block_bytes_max: usize,
    field_bytes_max: usize,
}

/// The value of a field of interest.
#[derive(Debug, Default)]
pub(super) struct Field {
    pub(super) value: Vec<u8>,
    /// How often the field was met.
    pub(super) count: u32,
    /// Whether octets beyond the limit were left out.
    pub(super) cut: bool,
}

/// What has come of scanning a header block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The octets do not decide more.
    More,
    /// The blank line that ends the block was passed.
    Blank,
    /// An enclosing multipart's delimiter stands where a header line should.
    Delimiter(Delimiter),
    /// The block has reached its limit.
    Overlong,
}

/// Where in a header block the scan stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    LineStart,
    /// In what stands in front of the name in a line that does not continue a field: white space, and colons.
    LeadIn {
        /// Whether it was white space alone.
        blank: bool,
    },
    /// In a line that has had no colon.
    Name,
    /// In a line of a field.
    Value(Kind),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    ContentType,
    Encoding,
    Other,
}

impl Headers {
    pub(super) fn new(block_bytes_max: usize, field_bytes_max: usize) -> Self {
        Self {
            content_type: Field::default(),
            encoding: Field::default(),
            place: Place::LineStart,
            previous: None,
            left: block_bytes_max,
            block_bytes_max,
            field_bytes_max,
        }
    }

    /// Makes ready for the next block.
    pub(super) fn clear(&mut self) {
        self.content_type.clear();
        self.encoding.clear();
        self.place = Place::LineStart;
        self.previous = None;
        self.left = self.block_bytes_max;
    }

    /// Whether nothing of the block was read yet.
    pub(super) fn is_untouched(&self) -> bool {
        self.left == self.block_bytes_max
    }

    /// Whether the next octet is the first one of a line.
    pub(super) fn at_line_start(&self) -> bool {
        self.place == Place::LineStart
    }

    /// Reads on, and says how many octets were read; those left must come again with more behind them. `complete` says that no more will come.
    pub(super) fn scan(&mut self, octets: &[u8], complete: bool, boundaries: &Boundaries) -> (usize, Outcome) {
        let limit = octets.get(..self.left);
        let (window, complete) = limit.map_or((octets, complete), |window| (window, true));
        let (used, outcome) = self.scan_window(window, complete, boundaries);
        self.left -= used;
        let overlong = limit.is_some() && outcome == Outcome::More;
        (used, if overlong { Outcome::Overlong } else { outcome })
    }

    fn scan_window(&mut self, octets: &[u8], complete: bool, boundaries: &Boundaries) -> (usize, Outcome) {
        let mut at = 0;
        while let Some(rest) = octets.get(at..).filter(|rest| !rest.is_empty()) {
            match self.place {
                Place::LineStart => match boundaries.judge(rest, complete) {
                    Verdict::Undecided => break,
                    Verdict::Delimiter(delimiter) => return (at, Outcome::Delimiter(delimiter)),
                    Verdict::Ordinary => self.begin_line(rest[0]),
                },
                Place::LeadIn { blank } => {
                    match rest.iter().position(|octet| !octet.is_ascii_whitespace() || *octet == b'\n') {
                        None => at = octets.len(),
                        Some(end) if rest[end] == b'\n' && blank => return (at + end + 1, Outcome::Blank),
                        Some(end) if rest[end] == b'\n' => {
                            at += end + 1;
                            self.end_line(None);
                        }
                        Some(end) if rest[end] == b':' => {
                            at += end + 1;
                            self.place = Place::LeadIn { blank: false };
                        }
                        Some(end) => {
                            at += end;
                            let Some(kind) = kind_of_name(&rest[end..], complete) else { break };
                            self.place = if kind == Kind::Other { Place::Name } else { Place::Value(kind) };
                            at += self.enter(kind, &rest[end..]);
                        }
                    }
                }
                Place::Name => at += self.pass_name(rest),
                Place::Value(Kind::Other) => at += self.pass_others(rest),
                Place::Value(kind) => at += self.pass_value(kind, rest),
            }
        }
        (at, Outcome::More)
    }

    fn begin_line(&mut self, first: u8) {
        self.place = match self.previous {
            Some(kind) if matches!(first, b' ' | b'\t') => Place::Value(kind),
            _ => Place::LeadIn { blank: true },
        };
    }

    /// Begins a field of interest behind its colon, and says how many octets its name takes.
    fn enter(&mut self, kind: Kind, line: &[u8]) -> usize {
        let Some(field) = self.field_mut(kind) else { return 0 };
        field.value.clear();
        field.count = field.count.saturating_add(1);
        memchr(b':', line).map_or(0, |colon| colon + 1)
    }

    fn pass_name(&mut self, rest: &[u8]) -> usize {
        let Some(end) = memchr2(b':', b'\n', rest) else { return rest.len() };
        if rest[end] == b':' {
            self.place = Place::Value(Kind::Other);
        } else {
            self.end_line(None);
        }
        end + 1
    }

    fn pass_value(&mut self, kind: Kind, rest: &[u8]) -> usize {
        let end = memchr(b'\n', rest);
        let used = end.map_or(rest.len(), |feed| feed + 1);
        let field_bytes_max = self.field_bytes_max;
        if let Some(field) = self.field_mut(kind) {
            field.extend(&rest[..used], field_bytes_max);
        }
        if end.is_some() {
            self.end_line(Some(kind));
        }
        used
    }

    /// Passes the rest of a field of no interest, and such fields behind it as can be told by their first letter: most lines of a block.
    fn pass_others(&mut self, rest: &[u8]) -> usize {
        let mut at = 0;
        while let Some(feed) = memchr(b'\n', &rest[at..]) {
            at += feed + 1;
            let line = &rest[at..];
            match line.first() {
                Some(b' ' | b'\t') => {}
                Some(letter) if letter.is_ascii_alphabetic() && !letter.eq_ignore_ascii_case(&b'c') => {
                    match memchr2(b':', b'\n', line) {
                        Some(colon) if line[colon] == b':' => at += colon + 1,
                        _ => return self.end_others(at),
                    }
                }
                _ => return self.end_others(at),
            }
        }
        rest.len()
    }

    fn end_others(&mut self, at: usize) -> usize {
        self.end_line(Some(Kind::Other));
        at
    }

    /// Goes on to the next line, which may continue a field of that kind.
    fn end_line(&mut self, field: Option<Kind>) {
        self.place = Place::LineStart;
        self.previous = field;
    }

    fn field_mut(&mut self, kind: Kind) -> Option<&mut Field> {
        match kind {
            Kind::ContentType => Some(&mut self.content_type),
            Kind::Encoding => Some(&mut self.encoding),
            Kind::Other => None,
        }
    }
}

impl Field {
    fn clear(&mut self) {
        self.value.clear();
        self.count = 0;
        self.cut = false;
    }

    fn extend(&mut self, octets: &[u8], bytes_max: usize) {
        let room = bytes_max.saturating_sub(self.value.len());
        self.cut |= octets.len() > room;
        self.value.extend_from_slice(&octets[..octets.len().min(room)]);
    }
}

/// What a value of Content-Transfer-Encoding says (RFC 2045 6.1), and whether it is one of the five known ones or empty.
pub(super) fn transfer_encoding(value: &[u8]) -> (TransferEncoding, bool) {
    let separator = |octet: &u8| octet.is_ascii_whitespace() || matches!(octet, b';' | b',' | b'"' | b'(');
    let token = value.split(separator).find(|token| !token.is_empty()).unwrap_or_default();
    if token.eq_ignore_ascii_case(b"base64") {
        (TransferEncoding::Base64, true)
    } else if token.eq_ignore_ascii_case(b"quoted-printable") {
        (TransferEncoding::QuotedPrintable, true)
    } else {
        let known: [&[u8]; 4] = [b"", b"7bit", b"8bit", b"binary"];
        (TransferEncoding::Identity, known.iter().any(|known| token.eq_ignore_ascii_case(known)))
    }
}

/// Which field a line begins; `None` when that needs more octets. White space counts for nothing.
fn kind_of_name(line: &[u8], complete: bool) -> Option<Kind> {
    if line.first().is_none_or(|first| !first.eq_ignore_ascii_case(&b'c')) {
        return Some(Kind::Other);
    }
    let window = &line[..line.len().min(NAME_WINDOW)];
    match memchr2(b':', b'\n', window) {
        Some(end) if window[end] == b':' => Some(if is_name(&window[..end], b"content-type") {
            Kind::ContentType
        } else if is_name(&window[..end], b"content-transfer-encoding") {
            Kind::Encoding
        } else {
            Kind::Other
        }),
        None if window.len() < NAME_WINDOW && !complete => None,
        _ => Some(Kind::Other),
    }
}

fn is_name(written: &[u8], name: &[u8]) -> bool {
    let octets = written.iter().filter(|octet| !octet.is_ascii_whitespace());
    octets.map(u8::to_ascii_lowercase).eq(name.iter().copied())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(block: &str) -> (Headers, usize, Outcome) {
        let mut headers = Headers::new(1 << 20, 4096);
        let (used, outcome) = headers.scan(block.as_bytes(), true, &Boundaries::default());
        (headers, used, outcome)
    }

    #[test]
    fn the_block_ends_behind_the_first_blank_line() {
        for (block, used) in [
            ("A: b\n\nbody", 6),
            ("A: b\r\n\r\nbody", 8),
            ("\nbody", 1),
            ("\r\nbody", 2),
            (" \t\nbody", 3),
            ("A: b\r\n\nbody", 7),
            ("junk\n \nbody", 7),
            ("A: b\n\r \nbody", 8),
            ("A: b\n:\n :\n\nbody", 11),
        ] {
            let (_, end, outcome) = read(block);
            assert_eq!((end, outcome), (used, Outcome::Blank), "{block:?}");
        }
    }

    #[test]
    fn a_line_of_white_space_behind_a_field_continues_it() {
        let (_, used, outcome) = read("A: b\n \nC: d\n\nbody");
        assert_eq!((used, outcome), (13, Outcome::Blank));
    }

    #[test]
    fn a_bare_carriage_return_ends_no_line() {
        let (headers, _, outcome) = read("A: b\rContent-Type: text/html\r\rB: c\n");
        assert_eq!(outcome, Outcome::More);
        assert_eq!(headers.content_type.count, 0);
    }

    #[test]
    fn both_fields_are_found_however_they_are_written() {
        for block in [
            "Content-Type: x\nContent-Transfer-Encoding: y\n\n",
            "CONTENT-TYPE:x\r\ncontent-transfer-encoding:y\r\n\r\n",
            "A: b\nContent-Type : x\n c\nno colon\n  Content-Transfer-Encoding\t: y\n\n",
            ":Content-Type: x\nContent-\rTransfer-Encoding: y\n\n",
        ] {
            let (headers, _, outcome) = read(block);
            assert_eq!(outcome, Outcome::Blank);
            assert_eq!(headers.content_type.value.trim_ascii().first(), Some(&b'x'), "{block:?}");
            assert_eq!(headers.encoding.value.trim_ascii(), b"y", "{block:?}");
        }
    }

    #[test]
    fn a_fold_belongs_to_the_value_and_the_last_field_of_a_name_counts() {
        let (headers, ..) = read("Content-Type: a;\r\n\tb\r\nContent-Type: c;\n d\n\n");
        assert_eq!(headers.content_type.value, b" c;\n d\n");
        assert_eq!(headers.content_type.count, 2);
    }

    #[test]
    fn a_value_is_cut_at_its_limit_and_says_so() {
        let mut headers = Headers::new(1 << 20, 8);
        let _ = headers.scan(b"Content-Type: text/plain; charset=us-ascii\n\n", true, &Boundaries::default());
        assert_eq!(headers.content_type.value, b" text/pl");
        assert!(headers.content_type.cut);
    }

    #[test]
    fn a_block_that_reaches_its_limit_stops_exactly_there() {
        let mut headers = Headers::new(10, 4096);
        let scanned = headers.scan(b"Subject: a long one\n\nbody", false, &Boundaries::default());
        assert_eq!(scanned, (10, Outcome::Overlong));
    }

    #[test]
    fn transfer_encodings_are_read_leniently() {
        use TransferEncoding::{Base64, Identity, QuotedPrintable};
        for (value, expected) in [
            (" base64\r\n", (Base64, true)),
            (" BASE64 \n", (Base64, true)),
            ("\r\n base64\n", (Base64, true)),
            (" \"base64\";\n", (Base64, true)),
            (" Quoted-Printable\n", (QuotedPrintable, true)),
            (" 8bit\n", (Identity, true)),
            ("\n", (Identity, true)),
            (" x-uuencode\n", (Identity, false)),
        ] {
            assert_eq!(transfer_encoding(value.as_bytes()), expected, "{value:?}");
        }
    }
}
