//! The framer: a message's octets in, its literals and leaf parts' bodies out.

use memchr::memchr;
use memchr::memmem::Finder;

use super::boundary::{self, Boundaries, DELIMITER_OVERHEAD, Delimiter, Found};
use super::defects::{Defects, count};
use super::headers::{self, Headers, NAME_WINDOW, Outcome};
use super::limits::Limits;
use super::media::{self, Media};
use super::{Event, Leaf, TransferEncoding};

/// Takes one message after another apart into literals and the bodies of leaf parts (RFC 2045, RFC 2046), in any chunks and without an error.
///
/// The octets of the `Literal` and `Body` slices, in order, are exactly those pushed. The events are the same however the octets are cut into
/// chunks, but for the places where a run of literal or body octets is cut into slices. Slices are parts of the pushed chunk wherever that is
/// possible; all that is kept from one chunk to the next is a few hundred octets (see [`Limits`]): the beginning of what may be a delimiter.
///
/// How mail is read:
/// - Lines end with LF or CRLF. A bare CR ends no line, but is white space at a delimiter's end and in an otherwise blank line.
/// - A header block ends with a line that is blank or, unless it can continue a field, has only white space. Lines without a colon are passed
///   over. If a block has two of a field, the last one counts. A delimiter ends a block that has no blank line.
/// - Every entity that is neither a multipart nor a message to be walked into is a leaf with `Begin` and `End`, even if its body is empty. A
///   message or part without a blank line has no body and so no leaf.
/// - A delimiter is a line that begins with two hyphens and the boundary of an open multipart, then two hyphens if it closes, and then white
///   space or the line's end; what follows white space is passed over. A close delimiter may also have text right behind it. The line break
///   in front belongs to it. The innermost multipart comes first; a delimiter of an outer one ends all inner ones.
/// - `message/rfc822` and `message/global` are walked into unless they are in base64 or quoted-printable; so is a part of a `multipart/digest`
///   that has no type.
/// - A multipart without a usable boundary is a leaf; one whose boundary never comes is literal to the end.
#[derive(Debug)]
pub struct Framer {
    limits: Limits,
    state: State,
    headers: Headers,
    boundaries: Boundaries,
    /// How many multiparts and messages the current entity is inside of.
    depth: u32,
    /// Whether the current entity is a message if its header does not say what it is.
    message_by_default: bool,
    /// Whether a leaf's body is open.
    leaf_open: bool,
    /// Delimiters that have begun a part.
    parts: u32,
    defects: Defects,
    /// The octets that could not be decided yet.
    held: Vec<u8>,
    newline_hyphens: Finder<'static>,
}

/// What the next octets are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Of a header block.
    Header,
    /// Of a leaf's body, a preamble or an epilogue.
    Content {
        /// Whether the next octet is a line's first.
        at_line_start: bool,
    },
    /// Of the rest of a delimiter line, and what comes behind that.
    Delimiter(After),
}

/// What comes behind a delimiter line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    Header,
    Epilogue,
    /// One leaf with all that is left of the message.
    Rest,
}

impl Framer {
    /// A framer for any number of messages.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            state: State::Header,
            headers: Headers::new(limits.header_bytes_max, limits.field_bytes_max),
            boundaries: Boundaries::default(),
            depth: 0,
            message_by_default: false,
            leaf_open: false,
            parts: 0,
            defects: Defects::default(),
            held: Vec::new(),
            newline_hyphens: Finder::new(b"\n--"),
            limits,
        }
    }

    /// Takes the next octets of the message, any number of them.
    pub fn push(&mut self, octets: &[u8], out: &mut impl FnMut(Event<'_>)) {
        let rest = self.push_held(octets, out);
        let used = self.run(rest, false, out);
        self.held.extend_from_slice(&rest[used..]);
    }

    /// Ends the message and says what was wrong with it. The framer is ready for the next message, its buffers kept.
    pub fn finish(&mut self, out: &mut impl FnMut(Event<'_>)) -> Defects {
        let held = std::mem::take(&mut self.held);
        let used = self.run(&held, true, out);
        debug_assert_eq!(used, held.len(), "octets were left undecided at the end of a message");
        self.held = held;
        if self.state == State::Header && self.depth > 0 && !self.headers.is_untouched() {
            count(&mut self.defects.header_unended);
        }
        self.end_leaf(out);
        while !self.boundaries.is_empty() {
            self.abandon_multipart();
        }
        let defects = self.defects;
        self.reset();
        defects
    }

    /// Drops the message as far as it came. The framer is ready for the next one.
    pub fn reset(&mut self) {
        self.state = State::Header;
        self.headers.clear();
        self.boundaries.clear();
        self.depth = 0;
        self.message_by_default = false;
        self.leaf_open = false;
        self.parts = 0;
        self.defects = Defects::default();
        self.held.clear();
    }

    /// Decides the octets held back with as many of the next ones as that takes, and returns those that are left.
    fn push_held<'a>(&mut self, mut octets: &'a [u8], out: &mut impl FnMut(Event<'_>)) -> &'a [u8] {
        while !self.held.is_empty() && !octets.is_empty() {
            let mut held = std::mem::take(&mut self.held);
            let before = held.len();
            let step = octets.len().min(NAME_WINDOW + DELIMITER_OVERHEAD);
            held.extend_from_slice(&octets[..step]);
            let used = self.run(&held, false, out);
            if let Some(used_of_next) = used.checked_sub(before) {
                // What is undecided now lies in the new octets alone, and is looked at where it is.
                octets = &octets[used_of_next..];
                held.clear();
            } else {
                octets = &octets[step..];
                held.drain(..used);
            }
            self.held = held;
        }
        octets
    }

    /// Hands out what `octets` decide and says how many that are. `complete` says that no more will come.
    fn run(&mut self, octets: &[u8], complete: bool, out: &mut impl FnMut(Event<'_>)) -> usize {
        let mut at = 0;
        // Where the literal octets begin that were not handed out yet: they go out in one piece.
        let mut literal = 0;
        loop {
            let rest = &octets[at..];
            match self.state {
                State::Header => {
                    let (used, outcome) = self.headers.scan(rest, complete, &self.boundaries);
                    at += used;
                    match outcome {
                        Outcome::More => break,
                        Outcome::Delimiter(delimiter) => {
                            count(&mut self.defects.header_unended);
                            at += delimiter.length;
                            self.meet(delimiter);
                        }
                        Outcome::Blank | Outcome::Overlong => {
                            if let Some(leaf) = self.end_header(outcome) {
                                hand_out(&octets[literal..at], Event::Literal, out);
                                literal = at;
                                out(Event::Begin(leaf));
                            }
                        }
                    }
                }
                State::Content { at_line_start } => {
                    let (body, used) = self.pass_content(rest, at_line_start, complete, out);
                    literal = if body > 0 { at + body } else { literal };
                    at += used;
                    if matches!(self.state, State::Content { .. }) {
                        break;
                    }
                }
                State::Delimiter(after) => {
                    let Some(feed) = memchr(b'\n', rest) else {
                        at = octets.len();
                        break;
                    };
                    at += feed + 1;
                    if self.pass_delimiter(after) {
                        hand_out(&octets[literal..at], Event::Literal, out);
                        literal = at;
                        out(Event::Begin(Leaf { encoding: TransferEncoding::Identity, depth: self.depth }));
                    }
                }
            }
        }
        hand_out(&octets[literal..at], Event::Literal, out);
        at
    }

    /// Reads content up to a delimiter or as far as it can be decided. Says how many octets were a leaf's body and so are handed out, and how
    /// many were read.
    fn pass_content(
        &mut self,
        octets: &[u8],
        at_line_start: bool,
        complete: bool,
        out: &mut impl FnMut(Event<'_>),
    ) -> (usize, usize) {
        let (content, met) = match self.find(octets, at_line_start, complete) {
            Found::Nothing { decided } => (decided, None),
            Found::Delimiter { break_at, line_at, delimiter } => (break_at, Some((line_at, delimiter))),
        };
        let body = if self.leaf_open { content } else { 0 };
        hand_out(&octets[..body], Event::Body, out);
        let Some((line_at, delimiter)) = met else {
            self.state = State::Content { at_line_start: at_line_start && content == 0 };
            return (body, content);
        };
        self.end_leaf(out);
        self.meet(delimiter);
        (body, line_at + delimiter.length)
    }

    fn find(&self, octets: &[u8], at_line_start: bool, complete: bool) -> Found {
        if self.boundaries.is_empty() {
            return Found::Nothing { decided: octets.len() };
        }
        boundary::find(&self.newline_hyphens, &self.boundaries, octets, at_line_start, complete)
    }

    /// Goes on behind a header block: says which leaf begins, if one does.
    fn end_header(&mut self, outcome: Outcome) -> Option<Leaf> {
        let (encoding, media) = self.read_header();
        let at_line_start = outcome == Outcome::Blank || self.headers.at_line_start();
        self.headers.clear();
        self.state = State::Content { at_line_start };
        let leaf = Leaf { encoding, depth: self.depth };
        if outcome == Outcome::Overlong {
            count(&mut self.defects.header_overlong);
            return self.open_leaf(Leaf { encoding: TransferEncoding::Identity, ..leaf });
        }
        match media {
            Media::Message if encoding == TransferEncoding::Identity => self.enter_message(leaf),
            Media::Multipart { digest, boundary } => self.enter_multipart(leaf, digest, boundary),
            Media::Message | Media::Leaf => self.open_leaf(leaf),
        }
    }

    /// What the two fields of interest say of the entity whose header block was read.
    fn read_header(&mut self) -> (TransferEncoding, Media) {
        let Headers { content_type, encoding, .. } = &self.headers;
        for field in [content_type, encoding] {
            self.defects.field_repeated = self.defects.field_repeated.saturating_add(u32::from(field.count > 1));
            self.defects.field_overlong = self.defects.field_overlong.saturating_add(u32::from(field.cut));
        }
        let (encoding, known) = headers::transfer_encoding(&encoding.value);
        if !known {
            count(&mut self.defects.encoding_unknown);
        }
        let default = if self.message_by_default { Media::Message } else { Media::Leaf };
        let written = (content_type.count > 0).then(|| media::media(&content_type.value)).flatten();
        self.message_by_default = false;
        (encoding, written.unwrap_or(default))
    }

    fn enter_message(&mut self, leaf: Leaf) -> Option<Leaf> {
        if self.depth >= self.limits.depth_max {
            count(&mut self.defects.depth_exceeded);
            return self.open_leaf(leaf);
        }
        self.depth += 1;
        self.state = State::Header;
        None
    }

    fn enter_multipart(&mut self, leaf: Leaf, digest: bool, boundary: Option<Vec<u8>>) -> Option<Leaf> {
        let Some(boundary) = boundary.filter(|boundary| boundary.len() <= self.limits.boundary_bytes_max) else {
            count(&mut self.defects.boundary_missing);
            return self.open_leaf(leaf);
        };
        if self.depth >= self.limits.depth_max {
            count(&mut self.defects.depth_exceeded);
            return self.open_leaf(leaf);
        }
        self.boundaries.push(&boundary, self.depth, digest);
        None
    }

    fn open_leaf(&mut self, leaf: Leaf) -> Option<Leaf> {
        self.leaf_open = true;
        Some(leaf)
    }

    fn end_leaf(&mut self, out: &mut impl FnMut(Event<'_>)) {
        if std::mem::take(&mut self.leaf_open) {
            out(Event::End);
        }
    }

    /// Goes where a delimiter leads: every multipart inside of the one that it belongs to is at its end.
    fn meet(&mut self, delimiter: Delimiter) {
        self.headers.clear();
        while self.boundaries.len() > delimiter.frame + 1 {
            self.abandon_multipart();
        }
        let Some(frame) = self.boundaries.innermost_mut() else { return };
        frame.opened = true;
        self.message_by_default = frame.digest;
        let depth = frame.depth;
        let after = if delimiter.close {
            self.boundaries.pop();
            self.depth = depth;
            self.defects.close_garbage = self.defects.close_garbage.saturating_add(u32::from(delimiter.garbage));
            After::Epilogue
        } else {
            self.depth = depth + 1;
            self.parts = self.parts.saturating_add(1);
            if self.parts > self.limits.parts_max { After::Rest } else { After::Header }
        };
        self.state = State::Delimiter(after);
    }

    /// Goes on behind a delimiter line, and says whether a leaf with the rest of the message begins.
    fn pass_delimiter(&mut self, after: After) -> bool {
        self.state = match after {
            After::Header => State::Header,
            After::Epilogue | After::Rest => State::Content { at_line_start: true },
        };
        if after == After::Rest {
            count(&mut self.defects.parts_exceeded);
            self.boundaries.clear();
            self.leaf_open = true;
        }
        after == After::Rest
    }

    /// Leaves the innermost multipart without its close delimiter.
    fn abandon_multipart(&mut self) {
        let Some(frame) = self.boundaries.pop() else { return };
        count(if frame.opened { &mut self.defects.close_missing } else { &mut self.defects.boundary_unused });
    }
}

impl Default for Framer {
    fn default() -> Self {
        Self::new(Limits::default())
    }
}

fn hand_out<'a>(octets: &'a [u8], event: impl FnOnce(&'a [u8]) -> Event<'a>, out: &mut impl FnMut(Event<'_>)) {
    if !octets.is_empty() {
        out(event(octets));
    }
}

#[cfg(test)]
mod tests;
