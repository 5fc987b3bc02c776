//! A message's octets: literals and contents in base64, read from first to last without holding a large part in memory.

use super::content::Content;
use crate::error::Result;
use crate::source::{Finished, OpenBody, ReadBody, Unreadable};
use base64_simd::{AsOut, STANDARD};
use std::vec;

/// A stretch of a message.
#[derive(Clone, Debug)]
pub(super) enum Segment {
    /// Octets as they are.
    Literal(Vec<u8>),
    /// A content in base64.
    Base64(Content, Shape),
}

/// How base64 is laid out (RFC 2045 6.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    /// Characters in a line, a multiple of four; `None` for one line, however long.
    pub(super) width: Option<usize>,
    /// What ends a line.
    pub(super) newline: &'static [u8],
}

impl Segment {
    /// Its length in the message, in octets.
    pub(super) fn len(&self) -> u64 {
        match self {
            Self::Literal(octets) => octets.len() as u64,
            Self::Base64(content, shape) => {
                let characters = content.len().div_ceil(3) * 4;
                let lines = shape.width.map_or(1, |width| characters.div_ceil(width as u64));
                characters + lines.saturating_sub(1) * shape.newline.len() as u64
            }
        }
    }
}

/// Opens a message of these segments.
pub(super) struct Opener(pub(super) Vec<Segment>);

impl OpenBody for Opener {
    fn open(self: Box<Self>) -> Result<Box<dyn ReadBody>, Unreadable> {
        Ok(Box::new(Reader::new(self.0)))
    }
}

/// Reads a message. Holds one block of a content and its base64 at most.
pub(super) struct Reader {
    segments: vec::IntoIter<Segment>,
    encoder: Option<Encoder>,
    ready: Vec<u8>,
    taken: usize,
}

impl Reader {
    pub(super) fn new(segments: Vec<Segment>) -> Self {
        Self { segments: segments.into_iter(), encoder: None, ready: Vec::new(), taken: 0 }
    }

    /// The next octets, of any length; `None` at the end.
    pub(super) fn next(&mut self) -> Option<&[u8]> {
        self.ready.clear();
        self.taken = 0;
        while self.ready.is_empty() {
            if let Some(encoder) = &mut self.encoder {
                if encoder.encode_block(&mut self.ready) {
                    continue;
                }
                self.encoder = None;
            }
            match self.segments.next()? {
                Segment::Literal(octets) => self.ready = octets,
                Segment::Base64(content, shape) => self.encoder = Some(Encoder::new(content, shape)),
            }
        }
        Some(&self.ready)
    }
}

impl ReadBody for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Unreadable> {
        if self.taken == self.ready.len() && self.next().is_none() {
            return Ok(0);
        }
        let left = &self.ready[self.taken..];
        let count = left.len().min(buffer.len());
        buffer[..count].copy_from_slice(&left[..count]);
        self.taken += count;
        Ok(count)
    }

    fn finish(&mut self, _length: u64) -> Result<Finished, Unreadable> {
        Ok(Finished::AsEnumerated)
    }
}

/// Turns a content into lines of base64, block by block.
struct Encoder {
    content: Content,
    shape: Shape,
    block: u64,
    raw: Vec<u8>,
    begun: bool,
}

impl Encoder {
    fn new(content: Content, shape: Shape) -> Self {
        Self { content, shape, block: 0, raw: Vec::new(), begun: false }
    }

    /// Appends the lines that another block completes; false at the content's end.
    fn encode_block(&mut self, out: &mut Vec<u8>) -> bool {
        if self.block == self.content.blocks() {
            return false;
        }
        self.content.block(self.block, &mut self.raw);
        self.block += 1;
        let unit = self.shape.width.map_or(3, |width| width / 4 * 3);
        let whole = self.raw.len() / unit * unit;
        let end = if self.block == self.content.blocks() { self.raw.len() } else { whole };
        match self.shape.width {
            None => STANDARD.encode_append(&self.raw[..end], out),
            Some(width) => self.encode_lines(width, end, out),
        }
        self.raw.drain(..end);
        true
    }

    fn encode_lines(&mut self, width: usize, end: usize, out: &mut Vec<u8>) {
        let newline = self.shape.newline;
        let mut at = out.len();
        let lines = end.div_ceil(width / 4 * 3);
        // Written in place, line by line: appending would check the capacity for every line.
        out.resize(at + lines * (width + newline.len()), 0);
        for line in self.raw[..end].chunks(width / 4 * 3) {
            if self.begun {
                out[at..at + newline.len()].copy_from_slice(newline);
                at += newline.len();
            }
            self.begun = true;
            at += STANDARD.encode(line, out[at..].as_out()).len();
        }
        out.truncate(at);
    }
}
