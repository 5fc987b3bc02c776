//! `From ` lines inside messages, quoted and unquoted as mboxrd has it: one `>` more or less in front of `>*From `.

const FROM: &[u8] = b"From ";

/// Quotes or unquotes the `From ` lines of one message, as its octets come by. Holds back at most six octets.
#[derive(Debug)]
pub(super) struct FromLines {
    is_quoting: bool,
    newline: u8,
    state: State,
    /// A `>` at the beginning of a line that goes if the line turns out to be quoted.
    is_holding: bool,
    changed: u64,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// At the beginning of a line, or behind the `>`s there.
    Beginning,
    /// That many octets of `From ` were seen behind the beginning.
    Matching(usize),
    /// Inside a line that cannot be a `From ` line any more, or is known for one.
    Inside,
}

impl FromLines {
    /// Adds a `>` to each line that begins with `>*From `. A line ends with the octet `newline`.
    pub(super) fn quoting(newline: u8) -> Self {
        Self { is_quoting: true, newline, state: State::Beginning, is_holding: false, changed: 0 }
    }

    /// Takes a `>` from each line that begins with `>+From `. A line ends with the octet `newline`.
    pub(super) fn unquoting(newline: u8) -> Self {
        Self { is_quoting: false, ..Self::quoting(newline) }
    }

    /// How many lines were changed so far.
    pub(super) fn changed(&self) -> u64 {
        self.changed
    }

    /// Appends to `out` what becomes of the next octets of the message.
    pub(super) fn push(&mut self, octets: &[u8], out: &mut Vec<u8>) {
        let mut rest = octets;
        while let Some((&octet, behind)) = rest.split_first() {
            rest = match self.state {
                State::Inside => self.copy_line(rest, out),
                State::Beginning if octet == b'>' => {
                    if self.is_quoting || self.is_holding {
                        out.push(b'>');
                    } else {
                        self.is_holding = true;
                    }
                    behind
                }
                State::Beginning => self.advance(0, octet, rest, behind, out),
                State::Matching(matched) => self.advance(matched, octet, rest, behind, out),
            };
        }
    }

    /// Appends what was held back; the message is at its end.
    pub(super) fn finish(&mut self, out: &mut Vec<u8>) {
        if let State::Matching(matched) = self.state {
            self.give_up(matched, out);
        } else {
            self.give_up(0, out);
        }
    }

    fn copy_line<'a>(&mut self, rest: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
        let (line, behind) = match memchr::memchr(self.newline, rest).and_then(|at| rest.split_at_checked(at + 1)) {
            Some(split) => {
                self.state = State::Beginning;
                split
            }
            None => (rest, &[][..]),
        };
        out.extend_from_slice(line);
        behind
    }

    /// Goes on with a match of `matched` octets; gives what is left to be looked at.
    fn advance<'a>(
        &mut self,
        matched: usize,
        octet: u8,
        rest: &'a [u8],
        behind: &'a [u8],
        out: &mut Vec<u8>,
    ) -> &'a [u8] {
        if FROM.get(matched) != Some(&octet) {
            self.give_up(matched, out);
            return rest;
        }
        self.state = State::Matching(matched + 1);
        if matched + 1 == FROM.len() {
            if self.is_quoting {
                out.push(b'>');
            }
            self.changed += u64::from(self.is_quoting || self.is_holding);
            self.is_holding = false;
            out.extend_from_slice(FROM);
            self.state = State::Inside;
        }
        behind
    }

    fn give_up(&mut self, matched: usize, out: &mut Vec<u8>) {
        if std::mem::take(&mut self.is_holding) {
            out.push(b'>');
        }
        out.extend_from_slice(FROM.get(..matched).unwrap_or_default());
        self.state = State::Inside;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn through(mut lines: FromLines, octets: &[u8], chunk: usize) -> (Vec<u8>, u64) {
        let mut out = Vec::new();
        octets.chunks(chunk.max(1)).for_each(|octets| lines.push(octets, &mut out));
        lines.finish(&mut out);
        (out, lines.changed())
    }

    #[test]
    fn only_lines_that_begin_with_from_are_quoted() {
        let message = b"From a\nFrom: b\n>From c\n>>From d\n >From e\nFro\n>Fro\n\nxFrom f\r\nFrom ";
        let quoted = b">From a\nFrom: b\n>>From c\n>>>From d\n >From e\nFro\n>Fro\n\nxFrom f\r\n>From ";
        assert_eq!(through(FromLines::quoting(b'\n'), message, 100), (quoted.to_vec(), 4));
    }

    #[test]
    fn unquoting_leaves_what_was_not_quoted() {
        let (octets, changed) = through(FromLines::unquoting(b'\n'), b">From a\nFrom b\n>>Frox\n>>From c\n>", 3);
        assert_eq!((&octets[..], changed), (&b"From a\nFrom b\n>>Frox\n>From c\n>"[..], 2));
    }

    #[test]
    fn lines_may_end_with_a_carriage_return_alone() {
        assert_eq!(through(FromLines::unquoting(b'\r'), b"a\r>From b\r", 2), (b"a\rFrom b\r".to_vec(), 1));
    }

    proptest! {
        #[test]
        fn what_was_quoted_is_unquoted_to_the_same_octets(message in "(>|F|From |From|\n|\r\n|x){0,40}", a in 1..9_usize, b in 1..9_usize) {
            let (quoted, changed) = through(FromLines::quoting(b'\n'), message.as_bytes(), a);
            prop_assert!(!quoted.starts_with(FROM) && !memchr::memmem::find_iter(&quoted, b"\nFrom ").any(|_| true));
            prop_assert_eq!(through(FromLines::unquoting(b'\n'), &quoted, b), (message.into_bytes(), changed));
        }
    }
}
