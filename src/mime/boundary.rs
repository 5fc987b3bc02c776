//! Delimiter lines (RFC 2046 5.1.1): the boundaries that are open, and the search for the lines that they make.

use memchr::memmem::Finder;

/// Octets of a delimiter line that are looked at beyond its boundary: two hyphens before, two after, and the octet after those.
pub(super) const DELIMITER_OVERHEAD: usize = 5;

/// The multiparts that are open, outermost first.
#[derive(Debug, Default)]
pub(super) struct Boundaries {
    frames: Vec<Frame>,
    /// The octets of all boundaries one after another: one buffer that is kept across messages.
    octets: Vec<u8>,
    /// The hashes of their boundaries with their numbers, sorted: of many, the one that a line names is found without asking each.
    by_hash: Vec<(u64, usize)>,
}

/// With fewer open multiparts than this each is asked.
const MANY: usize = 4;

/// One open multipart.
#[derive(Debug)]
pub(super) struct Frame {
    start: usize,
    length: usize,
    /// The first eight octets of the boundary, and which of them it has: most lines are told apart by these alone.
    head: u64,
    mask: u64,
    hash: u64,
    /// The length of the longest boundary up to this one.
    longest: usize,
    /// How many multiparts and enclosed messages the multipart itself is inside of.
    pub(super) depth: u32,
    /// Whether parts without a Content-Type are messages (RFC 2046 5.1.5).
    pub(super) digest: bool,
    /// Whether a delimiter of it was seen.
    pub(super) opened: bool,
}

/// A delimiter line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Delimiter {
    /// Which of the open multiparts it belongs to, counted from the outermost.
    pub(super) frame: usize,
    /// Whether it ends the multipart.
    pub(super) close: bool,
    /// Its octets from the first hyphen to where white space, the line's end or anything else may follow.
    pub(super) length: usize,
    /// Whether something other than white space follows the hyphens that end it.
    pub(super) garbage: bool,
}

/// What the beginning of a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// More octets of the line are needed.
    Undecided,
    /// A line like any other.
    Ordinary,
    /// A delimiter line.
    Delimiter(Delimiter),
}

/// What the search for a delimiter line has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// None in the octets that could be decided.
    Nothing {
        /// How many these are; the rest may be the beginning of a delimiter.
        decided: usize,
    },
    /// A delimiter line.
    Delimiter {
        /// Where the line break in front of it begins.
        break_at: usize,
        /// Where its first hyphen is.
        line_at: usize,
        /// What it says.
        delimiter: Delimiter,
    },
}

impl Boundaries {
    pub(super) fn clear(&mut self) {
        self.frames.clear();
        self.octets.clear();
        self.by_hash.clear();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    pub(super) fn push(&mut self, boundary: &[u8], depth: u32, digest: bool) {
        let head_length = boundary.len().min(8);
        let hash = boundary.iter().fold(0, |hash, octet| hashed(hash, *octet));
        let entry = (hash, self.frames.len());
        self.by_hash.insert(self.by_hash.partition_point(|other| *other < entry), entry);
        self.frames.push(Frame {
            start: self.octets.len(),
            length: boundary.len(),
            head: head_of(boundary),
            mask: mask_of(head_length),
            hash,
            longest: boundary.len().max(self.frames.last().map_or(0, |frame| frame.longest)),
            depth,
            digest,
            opened: false,
        });
        self.octets.extend_from_slice(boundary);
    }

    /// Takes the innermost multipart away.
    pub(super) fn pop(&mut self) -> Option<Frame> {
        let frame = self.frames.pop()?;
        self.octets.truncate(frame.start);
        if let Ok(at) = self.by_hash.binary_search(&(frame.hash, self.frames.len())) {
            self.by_hash.remove(at);
        }
        Some(frame)
    }

    pub(super) fn len(&self) -> usize {
        self.frames.len()
    }

    pub(super) fn innermost_mut(&mut self) -> Option<&mut Frame> {
        self.frames.last_mut()
    }

    /// What the line beginning with `line` is; `complete` says that nothing follows these octets.
    ///
    /// A boundary must be followed by white space, by the line's end, or by two hyphens: so a boundary that another one begins with is not taken
    /// for that other one. What comes after the white space is not looked at. Two hyphens with something else behind them count only
    /// when nothing else fits. The innermost multipart is asked first, so the same boundary nested in itself is closed from the inside.
    pub(super) fn judge(&self, line: &[u8], complete: bool) -> Verdict {
        let Some(tail) = line.strip_prefix(b"--") else {
            let hopeful = !complete && line.len() < 2 && b"--".starts_with(line) && !self.is_empty();
            return if hopeful { Verdict::Undecided } else { Verdict::Ordinary };
        };
        let longest = self.frames.last().map_or(0, |frame| frame.longest);
        if self.frames.len() >= MANY && tail.len() >= longest + DELIMITER_OVERHEAD {
            return self.judge_whole(&tail[..longest + DELIMITER_OVERHEAD], longest);
        }
        let (head, seen) = (head_of(tail), mask_of(tail.len().min(8)));
        let mut fallback = None;
        for (index, frame) in self.frames.iter().enumerate().rev() {
            if (head ^ frame.head) & frame.mask & seen != 0 {
                continue;
            }
            let delimiter = |close, garbage| Delimiter {
                frame: index,
                close,
                length: 2 + frame.length + 2 * usize::from(close),
                garbage,
            };
            match follow(tail, self.octets_of(frame), complete) {
                Follow::Undecided => return Verdict::Undecided,
                Follow::Nothing => {}
                Follow::Open => return Verdict::Delimiter(delimiter(false, false)),
                Follow::Close => return Verdict::Delimiter(delimiter(true, false)),
                Follow::CloseAndGarbage => fallback = fallback.or_else(|| Some(delimiter(true, true))),
            }
        }
        fallback.map_or(Verdict::Ordinary, Verdict::Delimiter)
    }

    /// What a line is of which enough is there to know. Looks at each of its octets once, however many multiparts are open: mail can be made that opens as
    /// many as there may be, and then has nothing but lines that are nearly delimiters of all.
    fn judge_whole(&self, tail: &[u8], longest: usize) -> Verdict {
        let (mut hash, mut found, mut fallback) = (0, None, None);
        for (at, octet) in tail[..=longest].iter().enumerate() {
            if matches!(octet, b' ' | b'\t' | b'\r' | b'\n' | b'-')
                && let Some(frame) = self.named(hash, &tail[..at])
            {
                let (best, close, garbage) = match follow(tail, &tail[..at], true) {
                    Follow::Open => (Some(&mut found), false, false),
                    Follow::Close => (Some(&mut found), true, false),
                    Follow::CloseAndGarbage => (Some(&mut fallback), true, true),
                    Follow::Undecided | Follow::Nothing => (None, false, false),
                };
                let delimiter = Delimiter { frame, close, length: 2 + at + 2 * usize::from(close), garbage };
                if let Some(best) = best.filter(|best| best.is_none_or(|before: Delimiter| before.frame < frame)) {
                    *best = Some(delimiter);
                }
            }
            // No boundary has a line break in it.
            if matches!(octet, b'\r' | b'\n') {
                break;
            }
            hash = hashed(hash, *octet);
        }
        found.or(fallback).map_or(Verdict::Ordinary, Verdict::Delimiter)
    }

    /// The innermost multipart of this boundary.
    fn named(&self, hash: u64, boundary: &[u8]) -> Option<usize> {
        let end = self.by_hash.partition_point(|(other, _)| *other <= hash);
        let same = self.by_hash[..end].iter().rev().take_while(|(other, _)| *other == hash);
        let mut same = same.map(|(_, frame)| *frame);
        same.find(|frame| self.frames.get(*frame).is_some_and(|frame| self.octets_of(frame) == boundary))
    }

    fn octets_of(&self, frame: &Frame) -> &[u8] {
        self.octets.get(frame.start..frame.start + frame.length).unwrap_or_default()
    }
}

/// Finds the first delimiter line in `region`. `newline_hyphens` searches for a line feed and two hyphens, so that no other line is looked at.
pub(super) fn find(
    newline_hyphens: &Finder<'_>,
    boundaries: &Boundaries,
    region: &[u8],
    at_line_start: bool,
    complete: bool,
) -> Found {
    if at_line_start {
        match boundaries.judge(region, complete) {
            Verdict::Undecided => return Found::Nothing { decided: 0 },
            Verdict::Delimiter(delimiter) => return Found::Delimiter { break_at: 0, line_at: 0, delimiter },
            Verdict::Ordinary => {}
        }
    }
    let mut from = 0;
    while let Some(found) = newline_hyphens.find(&region[from..]) {
        let feed = from + found;
        let line_at = feed + 1;
        let break_at = if region[..feed].last() == Some(&b'\r') { feed - 1 } else { feed };
        match boundaries.judge(&region[line_at..], complete) {
            Verdict::Undecided => return Found::Nothing { decided: break_at },
            Verdict::Delimiter(delimiter) => return Found::Delimiter { break_at, line_at, delimiter },
            Verdict::Ordinary => from = line_at + 2,
        }
    }
    let held = if complete { 0 } else { undecided_tail(region) };
    Found::Nothing { decided: region.len() - held }
}

/// The hash of octets with one more behind them.
fn hashed(hash: u64, octet: u8) -> u64 {
    (hash ^ u64::from(octet)).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23)
}

/// What follows a boundary in a line.
enum Follow {
    Undecided,
    Nothing,
    Open,
    Close,
    CloseAndGarbage,
}

/// Whether `tail`, what follows the first two hyphens of a line, is `boundary`, and what it is followed by.
fn follow(tail: &[u8], boundary: &[u8], complete: bool) -> Follow {
    let Some(after) = tail.strip_prefix(boundary) else {
        let hopeful = !complete && boundary.starts_with(tail);
        return if hopeful { Follow::Undecided } else { Follow::Nothing };
    };
    match *after {
        [] | [b'-'] | [b'-', b'-'] if !complete => Follow::Undecided,
        [] | [b' ' | b'\t' | b'\r' | b'\n', ..] => Follow::Open,
        [b'-', b'-'] | [b'-', b'-', b' ' | b'\t' | b'\r' | b'\n', ..] => Follow::Close,
        [b'-', b'-', ..] => Follow::CloseAndGarbage,
        _ => Follow::Nothing,
    }
}

/// How many of the last octets may be a line break in front of a delimiter, with its first hyphen.
fn undecided_tail(region: &[u8]) -> usize {
    let without_hyphen = region.strip_suffix(b"\n-").map_or(region.len(), |rest| rest.len() + 1);
    let line = &region[..without_hyphen];
    let rest = match line {
        [rest @ .., b'\r', b'\n'] | [rest @ .., b'\n'] | [rest @ .., b'\r'] => rest,
        _ => return 0,
    };
    region.len() - rest.len()
}

/// The first eight octets as a number, missing ones zero.
fn head_of(octets: &[u8]) -> u64 {
    if let Some(head) = octets.first_chunk::<8>() {
        return u64::from_le_bytes(*head);
    }
    octets.iter().rev().fold(0, |head, &octet| head << 8 | u64::from(octet))
}

/// The bits of the first `length` octets of such a number, at most eight.
fn mask_of(length: usize) -> u64 {
    if length >= 8 { u64::MAX } else { (1 << (8 * length)) - 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(boundaries: &[&str]) -> Boundaries {
        let mut open = Boundaries::default();
        for (depth, boundary) in (0..).zip(boundaries) {
            open.push(boundary.as_bytes(), depth, false);
        }
        open
    }

    fn delimiter(frame: usize, close: bool, length: usize) -> Verdict {
        Verdict::Delimiter(Delimiter { frame, close, length, garbage: false })
    }

    #[test]
    fn a_delimiter_is_two_hyphens_the_boundary_and_white_space_or_an_end() {
        let open = open(&["abc"]);
        for line in ["--abc\n", "--abc\r\n", "--abc \t\r\n", "--abc trailing\n"] {
            assert_eq!(open.judge(line.as_bytes(), false), delimiter(0, false, 5), "{line:?}");
        }
        for line in ["--abc--\n", "--abc--\r\n", "--abc-- \n"] {
            assert_eq!(open.judge(line.as_bytes(), false), delimiter(0, true, 7), "{line:?}");
        }
        for line in ["--abcd\n", "--ab\n", "-abc\n", "abc\n", "--abc-\n", "--ABC\n", " --abc\n", "--\n", "\n"] {
            assert_eq!(open.judge(line.as_bytes(), false), Verdict::Ordinary, "{line:?}");
        }
    }

    #[test]
    fn the_end_of_the_message_ends_a_delimiter_and_until_then_it_is_undecided() {
        let open = open(&["abc"]);
        for line in ["", "-", "--", "--a", "--abc", "--abc-", "--abc--"] {
            assert_eq!(open.judge(line.as_bytes(), false), Verdict::Undecided, "{line:?}");
        }
        assert_eq!(open.judge(b"--abc", true), delimiter(0, false, 5));
        assert_eq!(open.judge(b"--abc--", true), delimiter(0, true, 7));
        for line in ["", "-", "--", "--a", "--abc-"] {
            assert_eq!(open.judge(line.as_bytes(), true), Verdict::Ordinary, "{line:?}");
        }
    }

    #[test]
    fn boundaries_that_begin_with_one_another_are_told_apart() {
        for order in [["abc", "abcd"], ["abcd", "abc"]] {
            let open = open(&order);
            let place = |boundary| order.iter().position(|each| *each == boundary).unwrap_or(9);
            assert_eq!(open.judge(b"--abc\n", false), delimiter(place("abc"), false, 5));
            assert_eq!(open.judge(b"--abcd\n", false), delimiter(place("abcd"), false, 6));
            assert_eq!(open.judge(b"--abcd--\n", false), delimiter(place("abcd"), true, 8));
        }
        let open = open(&["b--x", "b"]);
        assert_eq!(open.judge(b"--b--x\n", false), delimiter(0, false, 6));
    }

    #[test]
    fn a_close_delimiter_may_have_text_right_behind_it_when_nothing_else_fits() {
        let garbage = Delimiter { frame: 0, close: true, length: 5, garbage: true };
        assert_eq!(open(&["b"]).judge(b"--b--text\n", false), Verdict::Delimiter(garbage));
    }

    #[test]
    fn the_search_holds_back_only_what_may_begin_a_delimiter() {
        let finder = Finder::new(b"\n--");
        let open = open(&["boundary"]);
        for (region, decided) in [
            ("text", 4),
            ("text\r", 4),
            ("text\n", 4),
            ("text\r\n", 4),
            ("text\n-", 4),
            ("text\r\n-", 4),
            ("text\r\n--boun", 4),
            ("text\r\n--boundary", 4),
            ("text\r\n--bout", 12),
            ("text-", 5),
            ("text\n--x\n", 8),
        ] {
            let found = find(&finder, &open, region.as_bytes(), false, false);
            assert_eq!(found, Found::Nothing { decided }, "{region:?}");
            let found = find(&finder, &open, region.as_bytes(), false, true);
            if region != "text\r\n--boundary" {
                assert_eq!(found, Found::Nothing { decided: region.len() }, "{region:?}");
            }
        }
    }

    proptest::proptest! {
        /// However many are open, a line is what it is when each of them is asked.
        #[test]
        fn many_open_boundaries_are_told_apart_as_few_are(
            boundaries in proptest::collection::vec("[ab -]{0,3}[ab-]", 4..12),
            line in "[ab -]{0,9}(--)?[ \t\r\nab-]{0,4}",
            gone in 0_usize..4,
        ) {
            let mut open = Boundaries::default();
            boundaries.iter().for_each(|boundary| open.push(boundary.as_bytes(), 0, false));
            for _ in 0..gone {
                let _ = open.pop();
            }
            let line = format!("--{line}\n and what comes behind it in the next line");
            let mut fallback = None;
            let mut expected = Verdict::Ordinary;
            for (index, boundary) in boundaries[..boundaries.len() - gone].iter().enumerate().rev() {
                let mut alone = Boundaries::default();
                alone.push(boundary.as_bytes(), 0, false);
                if let Verdict::Delimiter(found) = alone.judge(line.as_bytes(), false) {
                    let found = Delimiter { frame: index, ..found };
                    if !found.garbage {
                        expected = Verdict::Delimiter(found);
                        break;
                    }
                    fallback = fallback.or(Some(found));
                }
            }
            if let (Verdict::Ordinary, Some(fallback)) = (expected, fallback) {
                expected = Verdict::Delimiter(fallback);
            }
            proptest::prop_assert_eq!(open.judge(line.as_bytes(), false), expected);
        }
    }

    #[test]
    fn a_line_that_is_an_ordinary_one_may_be_followed_by_a_delimiter_at_once() {
        let found = find(&Finder::new(b"\n--"), &open(&["b"]), b"x\n--\n--b\n", false, false);
        let delimiter = Delimiter { frame: 0, close: false, length: 3, garbage: false };
        assert_eq!(found, Found::Delimiter { break_at: 4, line_at: 5, delimiter });
    }
}
