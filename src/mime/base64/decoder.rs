//! From encoded octets to shape and decoded octets, as far as the shape holds.

use super::lines::Layout;
use super::{LINE_ENDS_MAX, LineEnding, RUN, Shape};
use base64_simd::{AsOut, STANDARD};

/// What a [`Decoder`] found to be exact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Covered {
    /// The layout.
    pub shape: Shape,
    /// Decoded octets; 0 if there is no exact base64 at all.
    pub decoded: u64,
    /// Encoded octets, from the first one given, that shape and decoded octets stand for; 0 if `decoded` is 0.
    pub encoded: u64,
}

/// Decodes base64 given in slices of any length, recognising its shape on the way, and stops where the shape is broken.
///
/// Nothing counts as covered that would not be encoded to the same octets: whole lines are because every group in them is of the alphabet and without padding, and all
/// else is encoded again and compared. What comes out depends on the octets alone, not on how they
/// are cut into slices.
#[derive(Debug, Default)]
pub struct Decoder {
    /// Characters per line; known when the second line begins.
    width: Option<u64>,
    /// Known with the first line end.
    ending: Option<LineEnding>,
    leading: u32,
    /// Line ends since the last character.
    ends: u32,
    /// A CR was taken whose LF is still to come.
    cr: bool,
    /// The padding was decoded: no character may follow.
    padded: bool,
    stopped: bool,
    /// Characters decoded and compared: a multiple of 4.
    characters: u64,
    /// What they decoded to, in octets.
    octets: u64,
    /// Characters taken but not decoded yet. The line ends between them follow from `width`, so they are not kept.
    pending: Vec<u8>,
    /// For encoding back.
    encoded_back: Vec<u8>,
    /// After a stop: octets taken that are not covered.
    uncovered: Vec<u8>,
}

/// That an octet cannot be taken.
struct Broken;

impl Decoder {
    /// A decoder at the beginning of a span.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins another span; buffers are kept.
    pub fn reset(&mut self) {
        let Self { mut pending, encoded_back, mut uncovered, .. } = std::mem::take(self);
        pending.clear();
        uncovered.clear();
        *self = Self { pending, encoded_back, uncovered, ..Self::default() };
    }

    /// Takes octets from the front of `encoded`, appends what they decode to to `decoded`, and tells how many it took.
    ///
    /// It takes fewer than there are only if it stopped for good ([`is_stopped`](Self::is_stopped)), or if `decoded` reached a length of `until`; it exceeds
    /// that by at most 9 KiB. Up to 12 KiB of what was taken may still wait to be decoded.
    pub fn push(&mut self, encoded: &[u8], decoded: &mut Vec<u8>, until: usize) -> usize {
        let mut rest = encoded;
        while !rest.is_empty() && !self.stopped && decoded.len() < until {
            rest = self.advance(rest, decoded, until);
        }
        encoded.len() - rest.len()
    }

    /// Whether the shape was broken. Then [`push`](Self::push) takes nothing any more.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// Ends the span: decodes what is still waiting (at most 9 KiB) and tells what is covered.
    pub fn finish(&mut self, decoded: &mut Vec<u8>) -> Covered {
        if !self.stopped {
            self.flush(decoded);
        }
        if !self.stopped {
            self.stop(&[]);
        }
        let shape = self.shape();
        // It is a count of octets that were taken, so it fits.
        let encoded = if self.octets == 0 { 0 } else { shape.encoded_len(self.octets).unwrap_or(0) };
        Covered { shape, decoded: self.octets, encoded }
    }

    /// The octets taken by [`push`](Self::push) that are not covered, known after a stop or [`finish`](Self::finish): they come in front of those that were not
    /// taken. At most about 40 KiB.
    #[must_use]
    pub fn uncovered(&self) -> &[u8] {
        if self.stopped { &self.uncovered } else { &[] }
    }

    /// Octets of memory that its buffers hold.
    pub(crate) fn capacity(&self) -> usize {
        self.pending.capacity() + self.encoded_back.capacity() + self.uncovered.capacity()
    }

    fn shape(&self) -> Shape {
        let width = self.width.filter(|&width| self.characters > width).and_then(|width| u32::try_from(width).ok());
        Shape { width, ending: self.ending.unwrap_or(LineEnding::Lf), leading: self.leading, trailing: self.ends }
            .canonical()
    }

    /// Takes at least one octet of `input` or stops; gives the rest.
    fn advance<'a>(&mut self, input: &'a [u8], decoded: &mut Vec<u8>, until: usize) -> &'a [u8] {
        let taken = self.take_lines(input, decoded, until);
        if taken > 0 || self.stopped {
            return &input[taken..];
        }
        let gathered = self.gather(input);
        if gathered > 0 {
            if self.pending.len() >= RUN {
                self.flush(decoded);
            }
            return &input[gathered..];
        }
        self.flush(decoded);
        match input.split_first() {
            Some((&octet, rest)) if !self.stopped => match self.step(octet, decoded) {
                Ok(()) => rest,
                Err(Broken) => {
                    self.stop(&[]);
                    input
                }
            },
            _ => input,
        }
    }

    /// Decodes whole lines from where they are, where a line begins. Gives how many octets they are.
    fn take_lines(&mut self, input: &[u8], decoded: &mut Vec<u8>, until: usize) -> usize {
        let Some(layout) = self.layout().filter(|_| self.is_behind_full_line()) else { return 0 };
        if !self.pending.is_empty() {
            // It is the rest of a line that began in the slice before, or the first one.
            self.flush(decoded);
        }
        if self.stopped || !self.pending.is_empty() || !self.is_behind_full_line() {
            return 0;
        }
        let most = until.saturating_sub(decoded.len()).div_ceil(layout.content());
        let lines = layout.decode(input, most, decoded);
        self.characters += (lines * layout.content() / 3 * 4) as u64;
        self.octets += (lines * layout.content()) as u64;
        lines * layout.line()
    }

    /// Whether a full line and its end were taken last.
    fn is_behind_full_line(&self) -> bool {
        let is_full = self.width.is_some_and(|width| self.taken().is_multiple_of(width));
        is_full && self.ends == 1 && !self.cr && !self.padded
    }

    /// How the lines are laid out, if whole ones are decoded from where they are.
    fn layout(&self) -> Option<Layout> {
        Layout::new(self.width?, self.ending?)
    }

    /// Takes what looks like whole lines and parts of lines, unchecked but for the places of the line ends: decoding will tell. Gives how many
    /// octets of `input` it took; 0 if the next octet needs a closer look.
    fn gather(&mut self, input: &[u8]) -> usize {
        if self.cr || self.padded || self.ends > 1 {
            return 0;
        }
        match (self.width, self.ending) {
            (Some(width), Some(ending)) => self.gather_lines(input, width, ending.octets()),
            _ if self.ends == 0 => self.gather_until_line_end(input, RUN - self.pending.len()),
            _ => 0,
        }
    }

    fn gather_until_line_end(&mut self, input: &[u8], most: usize) -> usize {
        let input = &input[..input.len().min(most)];
        let line = &input[..memchr::memchr2(b'\r', b'\n', input).unwrap_or(input.len())];
        if !line.is_empty() {
            self.ends = 0;
            self.pending.extend_from_slice(line);
        }
        line.len()
    }

    fn gather_lines(&mut self, input: &[u8], width: u64, ending: &[u8]) -> usize {
        let column = self.taken() % width;
        if (column == 0) != (self.ends == 1) {
            return 0; // A short line has ended, or a full one has not yet.
        }
        let mut room = RUN - self.pending.len();
        if self.layout().is_some() {
            // Only this line: those behind it are decoded from where they are.
            room = room.min((width - column) as usize);
        }
        let mut line = usize::try_from(width - column).unwrap_or(usize::MAX);
        let mut rest = input;
        while line <= room {
            let Some((characters, behind)) = rest.split_at_checked(line) else { break };
            let Some(behind) = behind.strip_prefix(ending) else { break };
            self.pending.extend_from_slice(characters);
            self.ends = 1;
            room -= line;
            rest = behind;
            line = width as usize; // It is not wider than RUN here.
        }
        if rest.len() < input.len() {
            return input.len() - rest.len();
        }
        self.gather_until_line_end(input, room.min(line))
    }

    /// Takes one octet, exactly. Fewer than 4 characters are pending before and after.
    fn step(&mut self, octet: u8, decoded: &mut Vec<u8>) -> Result<(), Broken> {
        match octet {
            b'\r' if self.cr || self.ending == Some(LineEnding::Lf) => Err(Broken),
            b'\r' => {
                self.cr = true;
                Ok(())
            }
            b'\n' => self.step_line_end(),
            _ => self.step_character(octet, decoded),
        }
    }

    fn step_line_end(&mut self) -> Result<(), Broken> {
        let ending = if self.cr { LineEnding::CrLf } else { LineEnding::Lf };
        if self.ending.is_some_and(|known| known != ending) {
            return Err(Broken);
        }
        let taken = self.taken();
        let count = if taken == 0 { &mut self.leading } else { &mut self.ends };
        // Inside a group of four there can only be the end of a line that may be a full one.
        let inside =
            !taken.is_multiple_of(4) && (*count > 0 || self.width.is_some_and(|width| !taken.is_multiple_of(width)));
        if inside || *count == LINE_ENDS_MAX {
            return Err(Broken);
        }
        *count += 1;
        self.ending = Some(ending);
        self.cr = false;
        Ok(())
    }

    fn step_character(&mut self, octet: u8, decoded: &mut Vec<u8>) -> Result<(), Broken> {
        let (taken, ends) = (self.taken(), self.ends);
        if self.cr || self.padded {
            return Err(Broken);
        }
        match (ends, self.width) {
            (0, None) => {}
            (0, Some(width)) if taken == 0 || !taken.is_multiple_of(width) => {}
            (1, Some(width)) if taken.is_multiple_of(width) => {}
            (1, None) if taken <= u64::from(u32::MAX) => self.width = Some(taken),
            _ => return Err(Broken),
        }
        self.ends = 0;
        self.pending.push(octet);
        if self.pending.len() == 4 && !self.decode(4, decoded) {
            self.pending.pop();
            self.ends = ends;
            return Err(Broken);
        }
        Ok(())
    }

    /// Decodes whole groups of what is pending, so that fewer than 4 characters are left, none of them a line end, or stops.
    fn flush(&mut self, decoded: &mut Vec<u8>) {
        if !self.decode(self.pending.len() / 4 * 4, decoded) {
            let valid = self.pending.iter().position(|octet| !is_character(*octet)).unwrap_or(0);
            self.decode(valid / 4 * 4, decoded);
            self.step_again(decoded);
        } else if self.pending.iter().any(|octet| self.padded || matches!(octet, b'\r' | b'\n')) {
            self.step_again(decoded);
        }
    }

    /// Decodes the first `count` pending characters, whole groups, and compares what they encode to. If they are not exact, changes nothing.
    fn decode(&mut self, count: usize, decoded: &mut Vec<u8>) -> bool {
        if count == 0 {
            return true;
        }
        let (from, characters) = (decoded.len(), &self.pending[..count]);
        decoded.reserve(count / 4 * 3);
        if STANDARD.decode_append(characters, decoded).is_err() {
            return false;
        }
        if self.encoded_back.len() < count {
            self.encoded_back.resize(if count > 1024 { RUN } else { count }, 0);
        }
        if STANDARD.encode(&decoded[from..], self.encoded_back.as_mut_slice().as_out()) != characters {
            decoded.truncate(from);
            return false;
        }
        self.padded = characters.last() == Some(&b'=');
        self.characters += count as u64;
        self.octets += (decoded.len() - from) as u64;
        self.pending.drain(..count);
        true
    }

    /// Takes the pending octets again, one by one: something was taken for a character that is none.
    fn step_again(&mut self, decoded: &mut Vec<u8>) {
        let mut octets = std::mem::take(&mut self.uncovered);
        octets.clear();
        self.write_pending(&mut octets);
        self.ends = self.ends_before_pending();
        self.pending.clear();
        let broken = octets.iter().position(|octet| self.step(*octet, decoded).is_err());
        if let Some(at) = broken {
            self.stop(&octets[at..]);
        } else {
            self.uncovered = octets;
        }
    }

    /// Stops for good. What is covered ends after the last decoded group and the line ends directly behind it.
    fn stop(&mut self, behind: &[u8]) {
        let mut uncovered = std::mem::take(&mut self.uncovered);
        uncovered.clear();
        if self.characters == 0 {
            write_line_ends(&mut uncovered, self.ending, self.leading);
        }
        if !self.pending.is_empty() {
            self.write_pending(&mut uncovered);
            self.ends = self.ends_before_pending();
            self.pending.clear();
        }
        if std::mem::take(&mut self.cr) {
            uncovered.push(b'\r');
        }
        uncovered.extend_from_slice(behind);
        self.uncovered = uncovered;
        self.stopped = true;
    }

    /// Appends the octets that the pending characters were taken from, with the line ends between and behind them.
    fn write_pending(&self, octets: &mut Vec<u8>) {
        let mut at = self.characters;
        let mut rest = self.pending.as_slice();
        while !rest.is_empty() {
            let line = self.width.map_or(u64::MAX, |width| width - at % width);
            let (characters, behind) = rest.split_at(rest.len().min(usize::try_from(line).unwrap_or(usize::MAX)));
            octets.extend_from_slice(characters);
            at += characters.len() as u64;
            rest = behind;
            write_line_ends(octets, self.ending, if rest.is_empty() { self.ends } else { 1 });
        }
    }

    /// Line ends between the last decoded character and the first pending one.
    fn ends_before_pending(&self) -> u32 {
        u32::from(self.characters > 0 && self.width.is_some_and(|width| self.characters.is_multiple_of(width)))
    }

    /// Characters taken.
    fn taken(&self) -> u64 {
        self.characters + self.pending.len() as u64
    }
}

fn write_line_ends(octets: &mut Vec<u8>, ending: Option<LineEnding>, count: u32) {
    for _ in 0..count {
        octets.extend_from_slice(ending.map_or(b"", LineEnding::octets));
    }
}

/// Whether it is in the alphabet of RFC 4648 table 1.
pub(super) fn is_character(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || matches!(octet, b'+' | b'/')
}
