//! Writes a planned message: its tree of parts, its headers (`headers`), its literals and contents.

use super::body::{Segment, Shape};
use super::content::{Content, Kind};
use super::random::{Random, mix};
use super::words;
use std::io::Write;

/// A message being written.
pub(super) struct Composer {
    segments: Vec<Segment>,
    literal: Vec<u8>,
    newline: &'static [u8],
    /// Decides everything that copies of one message have in common.
    random: Random,
    boundaries: u64,
    key: u64,
    parts: Vec<Content>,
    scratch: Vec<u8>,
}

/// The tree of a message's parts.
enum Node {
    Leaf(Content),
    Multipart(&'static str, Vec<Self>),
    Forward(Box<Self>),
}

/// Base64 line widths and how often they were counted among 14,619 real parts; 0 is one line.
const WIDTHS: [(usize, u64); 7] = [(76, 9_991), (72, 4_084), (60, 172), (0, 100), (68, 49), (64, 30), (80, 16)];
/// How often so many line ends were counted after the last line of base64.
const TRAILING: [u64; 5] = [3_868, 9_314, 1_214, 43, 3];

impl Composer {
    /// A message whose shared choices are drawn from `key`.
    pub(super) fn new(key: u64, newline: &'static [u8]) -> Self {
        Self {
            segments: Vec::new(),
            literal: Vec::with_capacity(16 << 10),
            newline,
            random: Random::new(mix(key, 1)),
            boundaries: 0,
            key,
            parts: Vec::new(),
            scratch: Vec::new(),
        }
    }

    /// Ends lines so from here on.
    pub(super) fn set_newline(&mut self, newline: &'static [u8]) {
        self.newline = newline;
    }

    /// Writes one header line (without its line ending) as it is; `\n` inside folds it.
    pub(super) fn line(&mut self, text: std::fmt::Arguments<'_>) {
        let start = self.literal.len();
        // Writing to a vector cannot fail.
        let _ = self.literal.write_fmt(text);
        if self.newline.len() > 1 && memchr::memchr(b'\n', &self.literal[start..]).is_some() {
            let text = self.literal.split_off(start);
            self.lines(&text);
        }
        self.end_line();
    }

    /// Octets written so far, contents apart.
    pub(super) fn literal_len(&self) -> usize {
        self.literal.len()
    }

    /// Writes the content headers and the body, and gives the segments and the contents in the order of the parts.
    pub(super) fn body(mut self, contents: Vec<Content>) -> (Vec<Segment>, Vec<Content>) {
        let tree = self.tree(contents);
        self.line(format_args!("MIME-Version: 1.0"));
        self.node(&tree, 0);
        self.flush();
        (self.segments, self.parts)
    }

    /// Arranges contents: alternatives, images inside HTML, attachments, now and then a forwarded message.
    fn tree(&mut self, contents: Vec<Content>) -> Node {
        let (mut texts, mut rest): (Vec<Content>, Vec<Content>) =
            contents.into_iter().partition(|content| content.kind().is_text());
        let mut take = |kind: Kind| {
            let place = texts.iter().position(|text| text.kind() == kind)?;
            Some(texts.remove(place))
        };
        let plain = take(Kind::Plain).map(Node::Leaf);
        let mut html = take(Kind::Html).map(Node::Leaf);
        rest.append(&mut texts);
        if let Some(text) = html.take() {
            let (images, others): (Vec<Content>, Vec<Content>) =
                rest.into_iter().partition(|content| content.kind().is_inline());
            rest = others;
            html = Some(if images.is_empty() {
                text
            } else {
                Node::Multipart("related", std::iter::once(text).chain(images.into_iter().map(Node::Leaf)).collect())
            });
        }
        let text = match (plain, html) {
            (Some(plain), Some(html)) => Some(Node::Multipart("alternative", vec![plain, html])),
            (plain, html) => plain.or(html),
        };
        let mut rest: Vec<Node> = rest.into_iter().map(Node::Leaf).collect();
        if self.random.percent(8)
            && let Some(last) = rest.pop()
        {
            rest.push(Node::Forward(Box::new(last)));
        }
        let mut all: Vec<Node> = text.into_iter().chain(rest).collect();
        match all.len() {
            1 if !matches!(all[0], Node::Forward(_)) => all.remove(0),
            _ => Node::Multipart("mixed", all),
        }
    }

    /// Writes a node with its content headers. No line ending follows its last line.
    fn node(&mut self, node: &Node, depth: usize) {
        match node {
            Node::Leaf(content) => self.leaf(*content, depth),
            Node::Multipart(subtype, children) => {
                let boundary = self.boundary();
                self.line(format_args!("Content-Type: multipart/{subtype};\n boundary=\"{boundary}\""));
                self.end_line();
                if depth == 0 && self.random.percent(30) {
                    self.line(format_args!("This is a multi-part message in MIME format."));
                }
                for child in children {
                    self.line(format_args!("--{boundary}"));
                    self.node(child, depth + 1);
                    self.end_line();
                }
                self.literal.extend_from_slice(b"--");
                self.line(format_args!("{boundary}--"));
            }
            Node::Forward(child) => {
                self.line(format_args!("Content-Type: message/rfc822"));
                self.line(format_args!("Content-Disposition: attachment"));
                self.end_line();
                let (who, what) = (words::word(&mut self.random), words::word(&mut self.random));
                let id = self.random.next();
                self.line(format_args!("From: {who} <{who}@partner.example.com>"));
                self.line(format_args!("To: office@organisation.example"));
                self.line(format_args!("Subject: {what} {who}"));
                self.line(format_args!("Message-ID: <{id:016x}@partner.example.com>"));
                self.line(format_args!("Date: Mon, 4 Mar 2024 10:{:02}:00 +0100", id % 60));
                self.line(format_args!("MIME-Version: 1.0"));
                self.node(child, depth + 1);
            }
        }
    }

    fn boundary(&mut self) -> String {
        self.boundaries += 1;
        let token = mix(self.key, 0x62 + self.boundaries);
        match self.key % 3 {
            0 => format!("------------{token:016X}"),
            1 => format!("_{:03}_{token:016x}{:08x}_", self.boundaries, token >> 13),
            _ => format!("=_Part_{}_{token:x}.1", self.boundaries),
        }
    }

    fn leaf(&mut self, content: Content, depth: usize) {
        self.parts.push(content);
        let (media, ending) = content.kind().media();
        if content.kind().is_text() {
            return self.text(content, media);
        }
        let name = format!("{}-{:x}.{ending}", words::word(&mut Random::new(content.key())), content.key() >> 44);
        self.line(format_args!("Content-Type: {media}; name=\"{name}\""));
        self.line(format_args!("Content-Transfer-Encoding: base64"));
        if content.kind().is_inline() && depth > 1 {
            self.line(format_args!("Content-ID: <{:x}@organisation.example>", content.key() >> 32));
            self.line(format_args!("Content-Disposition: inline; filename=\"{name}\""));
        } else {
            self.line(format_args!("Content-Disposition: attachment;\n filename=\"{name}\"; size={}", content.len()));
        }
        self.end_line();
        self.base64(content);
    }

    fn text(&mut self, content: Content, media: &str) {
        let charset = if content.is_foreign() { "utf-8" } else { "us-ascii" };
        let encoding = match self.random.below(100) {
            0..8 => "base64",
            8..50 => "quoted-printable",
            _ if content.is_foreign() => "8bit",
            _ => "7bit",
        };
        self.line(format_args!("Content-Type: {media}; charset={charset}"));
        self.line(format_args!("Content-Transfer-Encoding: {encoding}"));
        self.end_line();
        if encoding == "base64" {
            return self.base64(content);
        }
        let mut text = std::mem::take(&mut self.scratch);
        text.clear();
        for block in 0..content.blocks() {
            content.block(block, &mut text);
        }
        if encoding == "quoted-printable" {
            quoted_printable(&text, self.newline, &mut self.literal);
        } else {
            self.lines(&text);
        }
        self.scratch = text;
    }

    fn base64(&mut self, content: Content) {
        let width = WIDTHS[self.random.weighted(WIDTHS.iter().map(|(_, weight)| *weight))].0;
        let trailing = self.random.weighted(TRAILING.iter().copied());
        self.flush();
        let shape = Shape { width: (width > 0).then_some(width), newline: self.newline };
        self.segments.push(Segment::Base64(content, shape));
        for _ in 0..trailing {
            self.end_line();
        }
    }

    fn flush(&mut self) {
        if !self.literal.is_empty() {
            self.segments.push(Segment::Literal(self.literal.as_slice().into()));
            self.literal.clear();
        }
    }

    /// Writes text with this message's line endings.
    fn lines(&mut self, text: &[u8]) {
        if self.newline == b"\n" {
            return self.literal.extend_from_slice(text);
        }
        let mut from = 0;
        for at in memchr::memchr_iter(b'\n', text) {
            self.literal.extend_from_slice(&text[from..at]);
            self.end_line();
            from = at + 1;
        }
        self.literal.extend_from_slice(&text[from..]);
    }

    pub(super) fn end_line(&mut self) {
        self.literal.extend_from_slice(self.newline);
    }
}

/// Writes text as quoted-printable (RFC 2045 6.7): lines of 76 at most, line breaks of the text kept.
fn quoted_printable(text: &[u8], newline: &[u8], out: &mut Vec<u8>) {
    const LINE: usize = 75;
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for (number, line) in text.split(|octet| *octet == b'\n').enumerate() {
        if number > 0 {
            out.extend_from_slice(newline);
        }
        // A blank at the end of a line would be taken for padding, so it is quoted.
        let trimmed = line.len() - usize::from(line.last() == Some(&b' '));
        let (mut column, mut at) = (0, 0);
        while let Some(&octet) = line.get(at) {
            let run = &line[at..trimmed.max(at)];
            let room = run.len().min(LINE - column);
            let plain =
                run[..room].iter().position(|octet| !matches!(octet, b' '..=b'<' | b'>'..=b'~')).unwrap_or(room);
            out.extend_from_slice(&run[..plain]);
            (column, at) = (column + plain, at + plain);
            if plain > 0 {
                continue;
            }
            let is_plain = room == 0 && at < trimmed && matches!(octet, b' '..=b'<' | b'>'..=b'~');
            if is_plain || column + 3 > LINE {
                out.push(b'=');
                out.extend_from_slice(newline);
                column = 0;
                continue;
            }
            out.extend_from_slice(&[b'=', DIGITS[usize::from(octet >> 4)], DIGITS[usize::from(octet & 15)]]);
            (column, at) = (column + 3, at + 1);
        }
    }
}
