//! Exact base64 (RFC 2045 6.8, RFC 4648 4): decoded only as far as encoding it again gives the same octets.
//!
//! Encoded octets are described by a [`Shape`] and the decoded octets. What they stand for is, in this order:
//! - [`leading`](Shape::leading) line ends;
//! - the canonical base64 of the decoded octets (alphabet of RFC 4648 table 1, padded to a multiple of four characters, unused bits zero), with a
//!   line end after each [`width`](Shape::width) characters wherever another character follows;
//! - [`trailing`](Shape::trailing) line ends.
//!
//! All line ends of a shape are of one kind. A shape describes a *span* of encoded octets, not a part: where a part turns irregular, the span in front ends
//! after its last whole group of four characters (and the line end behind it, if there is one), and everything after is no business of this module.

mod decoder;
mod encoder;
mod lines;
#[cfg(test)]
mod tests;

pub use decoder::{Covered, Decoder};
pub use encoder::Encoder;

/// Most line ends counted in front of the first and behind the last line. More end the span, so that what has to be kept in hand stays small.
pub const LINE_ENDS_MAX: u32 = 1024;

/// How a span of base64 is laid out in lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Shape {
    /// Characters in a line, at least 1; `None` if there is one line only.
    pub width: Option<u32>,
    /// The kind of every line end.
    pub ending: LineEnding,
    /// Line ends in front of the first character; at most [`LINE_ENDS_MAX`].
    pub leading: u32,
    /// Line ends behind the last character; at most [`LINE_ENDS_MAX`].
    pub trailing: u32,
}

impl Shape {
    /// A shape of lines of `width` characters, with no line end in front and none behind.
    #[must_use]
    pub const fn new(width: Option<u32>, ending: LineEnding) -> Self {
        Self { width, ending, leading: 0, trailing: 0 }
    }

    /// The same layout, told in the one way that decoding tells it: the kind of line end is LF where there is no line end.
    fn canonical(self) -> Self {
        let ends = self.width.is_some() || self.leading > 0 || self.trailing > 0;
        Self { ending: if ends { self.ending } else { LineEnding::Lf }, ..self }
    }

    /// How many octets the encoding of `decoded` octets in this shape has; `None` if that is more than 64 bits hold or the width is 0.
    #[must_use]
    pub fn encoded_len(&self, decoded: u64) -> Option<u64> {
        let characters = decoded.div_ceil(3).checked_mul(4)?;
        let inner = match self.width {
            Some(0) => return None,
            Some(width) => characters.saturating_sub(1) / u64::from(width),
            None => 0,
        };
        let ends = inner.checked_add(u64::from(self.leading))?.checked_add(u64::from(self.trailing))?;
        ends.checked_mul(self.ending.octets().len() as u64)?.checked_add(characters)
    }
}

/// A kind of line end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(clippy::exhaustive_enums, reason = "mail has these two; anything else is not a line end")]
pub enum LineEnding {
    /// LF alone, as in Maildir and mbox files.
    Lf,
    /// CR LF, as on the wire (RFC 5322 2.1).
    CrLf,
}

impl LineEnding {
    /// Its octets.
    #[must_use]
    pub const fn octets(self) -> &'static [u8] {
        match self {
            Self::Lf => b"\n",
            Self::CrLf => b"\r\n",
        }
    }

    /// Whether these are its octets.
    pub(crate) const fn is(self, octets: &[u8]) -> bool {
        matches!((self, octets), (Self::Lf, b"\n") | (Self::CrLf, b"\r\n"))
    }
}

/// Characters decoded, encoded back and compared at once: small enough to stay in the nearest caches. A multiple of 4.
const RUN: usize = 12 * 1024;

/// Octets by which a decoder may exceed what it is asked for.
pub(crate) const DECODED_OVERSHOOT: usize = RUN / 4 * 3;
