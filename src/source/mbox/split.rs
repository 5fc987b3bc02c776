//! Where the messages of an mbox begin and end, found while the file streams by.
//!
//! Whatever is decided, the pieces put together are the file: a piece begins where the one before it ended.

use super::boundary::{
    Found, FromLine, LINE_MAX, Seen, Text, blank_line, dated_line, ends_line, leading_line_ending, line_ending,
    note_quoting,
};
use super::container::{Positioned, TAIL, read_full};
use super::head::{Head, head};
use super::{LineEnding, Variant};
use crate::digest::{Digest, Hasher};
use crate::message::InternalDate;
use bytes::Bytes;
use memchr::memmem;
use std::io;
use std::ops::Range;
use std::sync::Arc;

/// How far a header is looked at for flags and length, in octets.
const HEADER_MAX: usize = 64 << 10;
/// What is kept in front of the place looked at, in octets: enough for a blank line and some quoting.
const CONTEXT: u64 = 16;

/// How much is read and handed out at once. Memory in use is at most the sum of the two and a little.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Octets read at once.
    pub(super) chunk: usize,
    /// The longest message handed out in memory, in octets.
    pub(super) inline_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { chunk: 1 << 20, inline_max: 1 << 20 }
    }
}

/// How a file is to be split.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    pub(super) declared: Option<Variant>,
    pub(super) limits: Limits,
}

impl Rules {
    fn trust_length(&self) -> bool {
        !matches!(self.declared, Some(Variant::Mboxo | Variant::Mboxrd))
    }
}

/// A message and what is around it.
#[derive(Debug)]
pub(super) struct Piece {
    /// The From_ line with its line ending; empty if there is none.
    pub(super) before: Bytes,
    pub(super) octets: Octets,
    /// The separating blank line; empty if there is none.
    pub(super) after: Bytes,
    pub(super) head: Head,
    pub(super) date: Option<InternalDate>,
    /// The digest of the message's octets, if the splitter was given a hasher.
    pub(super) digest: Option<Digest>,
}

/// A message's octets.
#[derive(Debug)]
pub(super) enum Octets {
    /// In memory.
    Inline(Bytes),
    /// In the file.
    Range { start: u64, length: u64 },
    /// In the file, from `start` for `length` octets at least: it could not be read any further.
    Cut { start: u64, length: u64 },
}

/// Why a file was not read to its end.
#[derive(Debug)]
pub(super) enum Failure {
    /// It could not be.
    Failed(io::Error),
    /// It ended before the size that it had.
    Truncated,
}

/// Gives the messages of an mbox, one after the other.
pub(super) struct Splitter {
    file: Arc<dyn Positioned>,
    rules: Rules,
    /// Up to where the file is read.
    end: u64,
    ending: LineEnding,
    /// What of the file is in memory, from `base` on.
    buffer: Bytes,
    base: u64,
    /// The next message, `None` at the end.
    message: Option<Start>,
    hasher: Option<Hasher>,
    tail: blake3::Hasher,
    tail_start: u64,
    seen: Seen,
    is_terminated: bool,
    /// Whether some message says that it is longer than the file; it may be one that is still being delivered.
    may_be_longer: bool,
    failure: Option<Failure>,
    from: memmem::Finder<'static>,
}

/// The beginning of a message.
#[derive(Debug)]
struct Start {
    /// Where its From_ line begins.
    start: u64,
    /// Where the message itself begins.
    content: u64,
    before: Bytes,
    date: Option<InternalDate>,
    /// Up to where it was digested and let go from memory.
    hashed: u64,
}

/// The end of a message, and the From_ line behind it.
#[derive(Debug)]
struct Boundary {
    content_end: u64,
    at: u64,
    next: Option<FromLine>,
}

impl Splitter {
    /// Begins at the start of a file of `end` octets. With a hasher every message is digested.
    pub(super) fn new(file: Arc<dyn Positioned>, end: u64, rules: Rules, hasher: Option<Hasher>) -> Self {
        let mut splitter = Self::at(file, 0, end, rules, hasher);
        while splitter.loaded() <= LINE_MAX as u64 && !splitter.is_loaded() {
            splitter.refill(0);
        }
        splitter.ending = line_ending(&splitter.buffer);
        // The first line of an mbox is a From_ line even if its date makes no sense.
        let first = splitter.buffer.starts_with(b"From ").then(|| dated_line(&splitter.buffer, splitter.ending));
        splitter.start(0, first.flatten());
        splitter
    }

    /// Goes on at `start`, behind what an earlier run read. `None` if no message begins there.
    pub(super) fn resume(
        file: Arc<dyn Positioned>,
        start: u64,
        end: u64,
        rules: Rules,
        old: (LineEnding, Seen),
    ) -> Option<Self> {
        let mut splitter = Self::at(file, start, end, rules, None);
        (splitter.ending, splitter.seen) = old;
        let overlap = usize::try_from(start.saturating_sub(splitter.tail_start)).ok()?;
        let mut tail = vec![0; overlap];
        if read_full(&*splitter.file, &mut tail, splitter.tail_start).0 < overlap {
            return None;
        }
        splitter.tail.update(&tail);
        while splitter.loaded() - start <= LINE_MAX as u64 && !splitter.is_loaded() {
            splitter.refill(start);
        }
        let line = dated_line(&splitter.buffer, splitter.ending).filter(|line| line.date.is_some())?;
        splitter.start(start, Some(line));
        Some(splitter)
    }

    fn at(file: Arc<dyn Positioned>, start: u64, end: u64, rules: Rules, hasher: Option<Hasher>) -> Self {
        Self {
            file,
            rules,
            end,
            ending: LineEnding::Lf,
            buffer: Bytes::new(),
            base: start,
            message: None,
            hasher,
            tail: blake3::Hasher::new(),
            tail_start: end.saturating_sub(TAIL),
            seen: Seen::default(),
            is_terminated: true,
            may_be_longer: false,
            failure: None,
            from: memmem::Finder::new(b"From "),
        }
    }

    /// The next message, `None` at the end of the file or of what can be read of it.
    pub(super) fn next(&mut self) -> Option<Piece> {
        let mut message = self.message.take()?;
        let head = self.head(&message);
        let by_length = self.boundary_by_length(&mut message, &head);
        self.may_be_longer |= by_length.is_none() && self.may_reach_beyond(&message, &head);
        let boundary = by_length.unwrap_or_else(|| self.search(&mut message, head.length as u64));
        let piece = self.piece(message, head, &boundary);
        match boundary.next {
            Some(line) => self.start(boundary.at, Some(line)),
            None => self.is_terminated = !piece.after.is_empty() && !self.may_be_longer,
        }
        Some(piece)
    }

    /// What the file showed of itself so far.
    pub(super) fn seen(&self) -> Seen {
        self.seen
    }

    pub(super) fn line_ending(&self) -> LineEnding {
        self.ending
    }

    /// Whether a message that is put behind the last one is one of its own. Known at the end.
    pub(super) fn is_terminated(&self) -> bool {
        self.is_terminated
    }

    /// Why the file was not read to its end. Known at the end.
    pub(super) fn failure(&mut self) -> Option<Failure> {
        self.failure.take()
    }

    /// The digest of the file's last octets as they were read. Known at the end.
    pub(super) fn tail(&self) -> [u8; 32] {
        *self.tail.finalize().as_bytes()
    }

    /// Begins a message at `start`, if the file goes on there.
    fn start(&mut self, start: u64, line: Option<FromLine>) {
        let length = line.map_or(0, |line| line.length);
        while self.loaded() < start + length as u64 && !self.is_loaded() {
            self.refill(start);
        }
        if start >= self.end {
            return;
        }
        // A copy: it is kept for long, and a slice would keep the whole chunk.
        let before = Bytes::copy_from_slice(self.part(start, start + length as u64));
        let content = start + before.len() as u64;
        self.message = Some(Start { start, content, before, date: line.and_then(|line| line.date), hashed: content });
    }

    /// Reads the header of a message that begins in the buffer.
    fn head(&mut self, message: &Start) -> Head {
        loop {
            let content = self.rest(message.content);
            let head = head(content.get(..HEADER_MAX).unwrap_or(content), self.ending);
            if head.is_complete || content.len() >= HEADER_MAX || self.is_loaded() {
                return head;
            }
            self.refill(message.start);
        }
    }

    /// The end of a message by its Content-Length, if that is to be believed.
    fn boundary_by_length(&mut self, message: &mut Start, head: &Head) -> Option<Boundary> {
        let length = head.content_length.filter(|_| self.rules.trust_length() && head.is_complete)?;
        let body = message.content.checked_add(head.length as u64)?;
        let content_end = body.checked_add(length)?;
        let (after, next) = self.line_at(content_end)?;
        let at = content_end + after as u64;
        while self.loaded() < at && !self.is_loaded() {
            self.let_go(message, self.loaded());
        }
        if self.loaded() < at {
            return Some(Boundary { content_end: self.end, at: self.end, next: None });
        }
        self.seen.verified = true;
        if body >= self.base && !self.seen.unquoted {
            let body = self.slice(body, content_end);
            self.observe(&body);
        }
        Some(Boundary { content_end, at, next })
    }

    /// Whether a Content-Length that does not fit may do so when the file has grown.
    fn may_reach_beyond(&self, message: &Start, head: &Head) -> bool {
        let length = head.content_length.unwrap_or(0);
        let end = message.content.saturating_add(head.length as u64).saturating_add(length);
        head.content_length.is_some() && end.saturating_add(LINE_MAX as u64 + 4) > self.end
    }

    /// What is at `offset`: the end of the file or a From_ line, and how long the line ending in front of either is. `None` if it is neither.
    fn line_at(&self, offset: u64) -> Option<(usize, Option<FromLine>)> {
        let left = usize::try_from(self.end.checked_sub(offset)?).unwrap_or(usize::MAX);
        let wanted = left.min(LINE_MAX + 4);
        let loaded = if offset < self.base { &[][..] } else { self.rest(offset) };
        let mut read = Vec::new();
        let window = match loaded.get(..wanted) {
            Some(window) => window,
            None => {
                read.resize(wanted, 0);
                let (length, error) = read_full(&*self.file, &mut read, offset);
                if error.is_some() || length < wanted {
                    return None;
                }
                &read[..]
            }
        };
        let after = leading_line_ending(window, self.ending);
        if left == after {
            return Some((after, None));
        }
        let line_behind = |skipped: usize| {
            let line = dated_line(window.get(skipped..)?, self.ending).filter(|line| line.date.is_some())?;
            Some((skipped, Some(line)))
        };
        line_behind(after).or_else(|| line_behind(0))
    }

    /// Looks for signs of a variant in a body whose end is known.
    fn observe(&mut self, body: &[u8]) {
        for at in self.from.find_iter(body) {
            let before = body.get(..at).unwrap_or_default();
            note_quoting(before, &mut self.seen);
            self.seen.unquoted |= ends_line(before, self.ending);
        }
    }

    /// The end of a message by the From_ line that follows it; its header is `header` octets long.
    fn search(&mut self, message: &mut Start, header: u64) -> Boundary {
        let body = message.content + header;
        let mut at = message.content;
        loop {
            let text = Text {
                octets: &self.buffer,
                content: usize::try_from(message.content.saturating_sub(self.base)).unwrap_or(0),
                body: usize::try_from(body.saturating_sub(self.base)).unwrap_or(usize::MAX),
                ending: self.ending,
                is_whole: self.is_loaded(),
            };
            let from = usize::try_from(at.saturating_sub(self.base)).unwrap_or(0);
            match text.find(&self.from, from, &mut self.seen) {
                Found::Line(index, line) => return self.boundary(message, self.base + index as u64, Some(line)),
                Found::Unknown(index) => at = self.base + index as u64,
                Found::Nothing => return self.boundary(message, self.end, None),
            }
            self.let_go(message, at);
        }
    }

    /// A message's end in front of what is at `at`, with or without a blank line between.
    fn boundary(&self, message: &Start, at: u64, next: Option<FromLine>) -> Boundary {
        let content = self.part(message.content.max(self.base), at);
        Boundary { content_end: at - blank_line(content, self.ending) as u64, at, next }
    }

    /// Reads on. Keeps the message in memory as long as it can be handed out, else only what is around `at`.
    fn let_go(&mut self, message: &mut Start, at: u64) {
        let can_be_inline = message.start >= self.base
            && self.loaded() - message.start <= self.rules.limits.inline_max.saturating_add(LINE_MAX as u64);
        if can_be_inline {
            return self.refill(message.start);
        }
        let keep = at.saturating_sub(CONTEXT).max(message.content).max(self.base);
        if let Some(mut hasher) = self.hasher.take() {
            hasher.update(self.part(message.hashed, keep));
            self.hasher = Some(hasher);
        }
        message.hashed = keep;
        self.refill(keep);
    }

    fn piece(&mut self, message: Start, head: Head, boundary: &Boundary) -> Piece {
        let (start, end) = (message.content, boundary.content_end);
        let length = end - start;
        let digest = self.hasher.take().map(|mut hasher| {
            hasher.update(self.part(message.hashed, end));
            let digest = hasher.finish();
            hasher.reset();
            self.hasher = Some(hasher);
            digest
        });
        let octets = if boundary.next.is_none() && self.failure.is_some() {
            // What was taken for a blank line behind the message may as well be one in it.
            Octets::Cut { start, length: boundary.at - start }
        } else if start >= self.base && length <= self.rules.limits.inline_max {
            Octets::Inline(self.slice(start, end))
        } else {
            Octets::Range { start, length }
        };
        let after = match (&octets, self.part(end, boundary.at)) {
            (Octets::Cut { .. }, _) => Bytes::new(),
            (_, b"\n") => Bytes::from_static(b"\n"),
            (_, b"\r\n") => Bytes::from_static(b"\r\n"),
            (_, after) => Bytes::copy_from_slice(after),
        };
        Piece { before: message.before, octets, after, head, date: message.date, digest }
    }

    /// Reads another chunk; of what is in memory already, only what is from `keep` on stays.
    fn refill(&mut self, keep: u64) {
        let kept = self.slice(keep, self.loaded());
        let offset = keep + kept.len() as u64;
        let wanted = usize::try_from(self.end - offset).unwrap_or(usize::MAX).min(self.rules.limits.chunk);
        let mut next = Vec::with_capacity(kept.len() + wanted);
        next.extend_from_slice(&kept);
        next.resize(kept.len() + wanted, 0);
        let fresh = next.get_mut(kept.len()..).unwrap_or_default();
        let (read, error) = read_full(&*self.file, fresh, offset);
        if read < wanted {
            self.end = offset + read as u64;
            self.failure = Some(error.map_or(Failure::Truncated, Failure::Failed));
            next.truncate(kept.len() + read);
        }
        let in_tail = usize::try_from(self.tail_start.saturating_sub(offset)).unwrap_or(usize::MAX);
        self.tail.update(next.get(kept.len()..).and_then(|fresh| fresh.get(in_tail..)).unwrap_or_default());
        self.buffer = Bytes::from(next);
        self.base = keep;
    }

    /// Up to where the file is in memory.
    fn loaded(&self) -> u64 {
        self.base + self.buffer.len() as u64
    }

    fn is_loaded(&self) -> bool {
        self.loaded() >= self.end
    }

    /// What of the file is in memory from `start` on.
    fn rest(&self, start: u64) -> &[u8] {
        let start = usize::try_from(start.saturating_sub(self.base)).unwrap_or(usize::MAX);
        self.buffer.get(start..).unwrap_or_default()
    }

    /// What of the file is in memory between two offsets.
    fn part(&self, start: u64, end: u64) -> &[u8] {
        self.buffer.get(self.indices(start, end)).unwrap_or_default()
    }

    /// The same, to be handed out.
    fn slice(&self, start: u64, end: u64) -> Bytes {
        self.buffer.slice(self.indices(start, end))
    }

    fn indices(&self, start: u64, end: u64) -> Range<usize> {
        let index = |offset: u64| {
            usize::try_from(offset.saturating_sub(self.base)).map_or(self.buffer.len(), |at| at.min(self.buffer.len()))
        };
        index(start).min(index(end))..index(end)
    }
}
