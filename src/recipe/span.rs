//! Spans and recipes, encoded and decoded.

use crate::error::{Error, ErrorKind, Result};
use crate::mime::base64::{LINE_ENDS_MAX, LineEnding, Shape};
use crate::wire::{Decoder, Encode};
use bytes::Bytes;

/// How to rebuild one message. Holds the encoded octets; every span in them has been checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipe {
    octets: Bytes,
    /// Where spans begin in `octets`, and literals.
    spans_at: usize,
    literals_at: usize,
    length: u64,
    pieces: u64,
}

impl Recipe {
    /// Decodes a recipe, all of `octets`.
    ///
    /// # Errors
    /// [`Damaged`](ErrorKind::Damaged) if it is none, or if its lengths cannot be true; [`Unsupported`](ErrorKind::Unsupported) if it has a kind of span that is
    /// not known.
    pub fn decode(octets: &[u8]) -> Result<Self> {
        Self::decode_shared(Bytes::copy_from_slice(octets))
    }

    /// As [`decode`](Self::decode), without a copy.
    ///
    /// # Errors
    /// As [`decode`](Self::decode).
    pub fn decode_shared(octets: Bytes) -> Result<Self> {
        let mut decoder = Decoder::new(&octets);
        let count = decoder.count(1)?;
        let spans_at = octets.len() - decoder.rest().len();
        let (mut literals, mut length, mut pieces) = (0_u64, 0_u64, 0_u64);
        for _ in 0..count {
            let form = Form::decode(&mut decoder)?;
            let (from_literals, from_pieces) = match form {
                Form::Literal { octets } | Form::InlineBase64 { octets, .. } => (octets, 0),
                Form::Verbatim { content } | Form::Run { content } | Form::Base64 { content, .. } => {
                    (0, content.pieces())
                }
            };
            let rebuilt = form.rebuilt_len().ok_or_else(too_long)?;
            literals = literals.checked_add(from_literals).ok_or_else(too_long)?;
            pieces = pieces.checked_add(from_pieces).ok_or_else(too_long)?;
            length = length.checked_add(rebuilt).ok_or_else(too_long)?;
        }
        if decoder.rest().len() as u64 != literals {
            return Err(Error::damaged("a recipe's literals are not as long as its spans say"));
        }
        let literals_at = octets.len() - decoder.rest().len();
        Ok(Self { octets, spans_at, literals_at, length, pieces })
    }

    /// The length of the message in octets.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    /// How many pieces the message has.
    #[must_use]
    pub fn pieces(&self) -> u64 {
        self.pieces
    }

    /// Its spans, in order.
    #[must_use]
    pub fn spans(&self) -> Spans<'_> {
        Spans { decoder: Decoder::new(&self.octets[self.spans_at..self.literals_at]), literals: self.literals() }
    }

    /// All literal octets and inline content, in order: what a [`Section`](super::Section) points into.
    #[must_use]
    pub fn literals(&self) -> &[u8] {
        &self.octets[self.literals_at..]
    }

    /// The spans behind the first octets of spans and of literals, and how many octets of both are behind the next one.
    pub(super) fn span_at(&self, cursor: Cursor) -> Option<(Span<'_>, Cursor)> {
        let mut spans = self.spans();
        spans.decoder = Decoder::new(spans.decoder.rest().get(cursor.spans..)?);
        spans.literals = spans.literals.get(cursor.literals..)?;
        let before = (spans.decoder.rest().len(), spans.literals.len());
        let span = spans.next()?;
        let spans_read = before.0 - spans.decoder.rest().len();
        let literals_read = before.1 - spans.literals.len();
        Some((span, Cursor { spans: cursor.spans + spans_read, literals: cursor.literals + literals_read }))
    }
}

/// A place between two spans, in octets of the span list and of the literals.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cursor {
    spans: usize,
    literals: usize,
}

/// One span of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Span<'a> {
    /// These octets.
    Literal(&'a [u8]),
    /// The octets of the next pieces: a body, or what is left of one.
    Verbatim(Content),
    /// The octets of the next pieces: anything but a body alone, such as a header that is too long, or many small parts.
    Run(Content),
    /// The octets of the next pieces, encoded as base64.
    Base64(Shape, Content),
    /// These octets, encoded as base64.
    InlineBase64(Shape, &'a [u8]),
}

/// What a span takes from the message's list of pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Content {
    /// Octets in all its pieces, at least 1.
    pub octets: u64,
    /// Octets in each piece but the last, at least 1. Not less than `octets` if there is one piece.
    pub piece: u64,
}

impl Content {
    /// How many pieces it has, at least 1.
    #[must_use]
    pub fn pieces(&self) -> u64 {
        self.octets.div_ceil(self.piece.max(1))
    }
}

/// The spans of a recipe.
#[derive(Clone, Debug)]
pub struct Spans<'a> {
    decoder: Decoder<'a>,
    literals: &'a [u8],
}

impl<'a> Iterator for Spans<'a> {
    type Item = Span<'a>;

    fn next(&mut self) -> Option<Span<'a>> {
        if self.decoder.is_empty() {
            return None;
        }
        // Nothing of this can fail: the recipe was checked as a whole.
        Some(match Form::decode(&mut self.decoder).ok()? {
            Form::Literal { octets } => Span::Literal(self.take(octets)?),
            Form::Verbatim { content } => Span::Verbatim(content),
            Form::Run { content } => Span::Run(content),
            Form::Base64 { content, shape } => Span::Base64(shape, content),
            Form::InlineBase64 { octets, shape } => Span::InlineBase64(shape, self.take(octets)?),
        })
    }
}

impl<'a> Spans<'a> {
    fn take(&mut self, octets: u64) -> Option<&'a [u8]> {
        let (taken, rest) = self.literals.split_at_checked(usize::try_from(octets).ok()?)?;
        self.literals = rest;
        Some(taken)
    }
}

/// A span as it is encoded: its literal octets are elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Literal { octets: u64 },
    Verbatim { content: Content },
    Run { content: Content },
    Base64 { content: Content, shape: Shape },
    InlineBase64 { octets: u64, shape: Shape },
}

impl Form {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        match *self {
            Self::Literal { octets } => out.number(head(octets, 0)),
            Self::Verbatim { content } => encode_content(content, 1, out),
            Self::Base64 { content, shape } => {
                encode_content(content, 2, out);
                encode_shape(shape, out);
            }
            Self::InlineBase64 { octets, shape } => {
                out.number(head(octets, 3));
                encode_shape(shape, out);
            }
            Self::Run { content } => encode_content(content, 4, out),
        }
    }

    fn decode(decoder: &mut Decoder<'_>) -> Result<Self> {
        let head = decoder.number()?;
        let octets = head >> 3;
        if octets == 0 {
            return Err(Error::damaged("a recipe has an empty span"));
        }
        Ok(match head & 7 {
            0 => Self::Literal { octets },
            1 => Self::Verbatim { content: decode_content(octets, decoder)? },
            2 => Self::Base64 { content: decode_content(octets, decoder)?, shape: decode_shape(decoder)? },
            3 => Self::InlineBase64 { octets, shape: decode_shape(decoder)? },
            4 => Self::Run { content: decode_content(octets, decoder)? },
            _ => return Err(Error::new(ErrorKind::Unsupported, "a recipe has a span of a newer format")),
        })
    }

    /// Octets of the message that it stands for; `None` if that is more than 64 bits hold.
    pub(super) fn rebuilt_len(&self) -> Option<u64> {
        match self {
            Self::Literal { octets } => Some(*octets),
            Self::Verbatim { content } | Self::Run { content } => Some(content.octets),
            Self::Base64 { content, shape } => shape.encoded_len(content.octets),
            Self::InlineBase64 { octets, shape } => shape.encoded_len(*octets),
        }
    }
}

fn head(octets: u64, kind: u64) -> u64 {
    // No message has 2^61 octets, so nothing is shifted out.
    octets << 3 | kind
}

fn encode_content(content: Content, kind: u64, out: &mut Vec<u8>) {
    out.number(head(content.octets, kind));
    out.number(if content.pieces() > 1 { content.piece } else { 0 });
}

fn decode_content(octets: u64, decoder: &mut Decoder<'_>) -> Result<Content> {
    let piece = match decoder.number()? {
        0 => octets,
        piece if piece < octets => piece,
        _ => return Err(Error::damaged("a piece is longer than its span")),
    };
    Ok(Content { octets, piece })
}

fn encode_shape(shape: Shape, out: &mut Vec<u8>) {
    let width = match shape.width {
        None => 0,
        Some(76) => 1,
        Some(72) => 2,
        Some(_) => 3,
    };
    let leading = shape.leading.min(3) as u8;
    let trailing = shape.trailing.min(7) as u8;
    out.push(u8::from(shape.ending == LineEnding::CrLf) | width << 1 | leading << 3 | trailing << 5);
    if let (3, Some(width)) = (width, shape.width) {
        out.number(width.into());
    }
    if leading == 3 {
        out.number(shape.leading.into());
    }
    if trailing == 7 {
        out.number(shape.trailing.into());
    }
}

fn decode_shape(decoder: &mut Decoder<'_>) -> Result<Shape> {
    let flags = decoder.byte()?;
    let ending = if flags & 1 == 0 { LineEnding::Lf } else { LineEnding::CrLf };
    let width = match flags >> 1 & 3 {
        0 => None,
        1 => Some(76),
        2 => Some(72),
        _ => Some(decoder.number_up_to(u32::MAX.into())? as u32),
    };
    if width == Some(0) {
        return Err(Error::damaged("base64 lines have no width"));
    }
    let mut line_ends = |count: u8, escape: u8| match count {
        count if count == escape => Ok::<_, Error>(decoder.number_up_to(LINE_ENDS_MAX.into())? as u32),
        count => Ok(count.into()),
    };
    let leading = line_ends(flags >> 3 & 3, 3)?;
    let trailing = line_ends(flags >> 5, 7)?;
    Ok(Shape { leading, trailing, ..Shape::new(width, ending) })
}

fn too_long() -> Error {
    Error::new(ErrorKind::Damaged, "a recipe is for more octets than there can be")
}
