//! Recipes: how to rebuild one message from literal octets and pieces of content.
//!
//! A message is never written anew from a MIME tree: it is a list of spans, and the spans' octets, one after the other, are the message. A
//! [`Dissector`] makes the recipe and the pieces from the message's octets, a [`Rebuilder`] the octets from recipe and pieces. Neither does I/O.
//!
//! # Format of a recipe
//!
//! Numbers are LEB128. A recipe is:
//! ```text
//! recipe   = count span* literals         count: number of spans
//! span     = head [piece] [shape]         head: number, octets * 8 + kind; octets is at least 1
//!   kind 0: literal         octets of the message, as they are, in the literals
//!   kind 1: verbatim        octets of a body, as they are, in pieces                    + piece
//!   kind 2: base64          decoded octets, in pieces                                  + piece, shape
//!   kind 3: inline base64   decoded octets, in the literals                            + shape
//!   kind 4: run             octets of anything, as they are, in pieces                 + piece
//! piece    = number                       octets of each of the span's pieces but the last, which has what is left (1 to `piece`);
//!                                         0: the span is one piece
//! shape    = flags [width] [leading] [trailing]
//!   flags: one octet                      bit 0: line ends are CR LF, not LF
//!                                         bits 1-2, characters in a line: 0 one line, 1 76, 2 72, 3 number `width` follows (1 to 2^32 - 1)
//!                                         bits 3-4, line ends in front: 0 to 2 as they are, 3 number `leading` follows (up to 1024)
//!                                         bits 5-7, line ends behind: 0 to 6 as they are, 7 number `trailing` follows (up to 1024)
//! literals                                the octets of the spans of kinds 0 and 3, in order, with nothing between and nothing behind
//! ```
//! What base64 of a shape is, is told at [`mime::base64`](crate::mime::base64). A recipe names no blobs: spans of kinds 1, 2 and 4 take the next pieces of the
//! message's list of pieces, in order. Two spans never share a piece, and no piece is empty.
//!
//! # What becomes what
//!
//! Decided by [`Cuts`] and by the octets alone, never by how they were cut into slices on their way in:
//! - the body of a base64 part becomes base64 pieces, or, if it is small, decoded literal octets; as far as it is exact. What is left of it is treated like
//!   the body of any other part.
//! - the body of another part becomes verbatim pieces, or, if it is small, literal octets.
//! - everything else is literal; a run of literal octets that grows too long becomes pieces.
//! - a message whose recipe grows too long (very many parts) goes on as one run in pieces up to its end.

mod dissector;
mod parts;
mod rebuilder;
mod span;
#[cfg(test)]
mod tests;

pub use dissector::{Dissected, Dissector};
pub use parts::{Part, Section};
pub use rebuilder::{Need, Rebuilder};
pub use span::{Content, Recipe, Span, Spans};

/// Where content begins and how it is cut. All in octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cuts {
    /// Base64 whose decoded content is at least this long becomes pieces; shorter content stays in the recipe, decoded, where it compresses best.
    /// 4 KiB.
    pub base64_blob_min: usize,
    /// Other bodies of at least this length become pieces; shorter text compresses better in the recipe with its neighbours. 32 KiB.
    pub verbatim_blob_min: usize,
    /// A run of literal octets longer than this becomes pieces. 64 KiB.
    pub literal_run_max: usize,
    /// Length of a piece; only the last one of a span is shorter. The unit of hashing and of memory. 4 MiB.
    pub piece_max: usize,
    /// Longest recipe. What does not fit becomes pieces. 1 MiB; at least 4 KiB, and at least four times the longest thing that it may hold (the three values
    /// above the piece length): those count as a quarter of it where they are more.
    pub recipe_max: usize,
}

impl Default for Cuts {
    fn default() -> Self {
        Self {
            base64_blob_min: 4 << 10,
            verbatim_blob_min: 32 << 10,
            literal_run_max: 64 << 10,
            piece_max: 4 << 20,
            recipe_max: 1 << 20,
        }
    }
}

impl Cuts {
    /// The same cuts with values that cannot be kept brought into range.
    fn in_range(self) -> Self {
        let recipe_max = self.recipe_max.max(4 << 10);
        let inside = |value: usize| value.clamp(1, recipe_max / 4);
        Self {
            base64_blob_min: inside(self.base64_blob_min),
            verbatim_blob_min: inside(self.verbatim_blob_min),
            literal_run_max: inside(self.literal_run_max),
            piece_max: self.piece_max.max(1),
            recipe_max,
        }
    }

    /// What may be added to a recipe from the end of one body to the end of the next: a literal run, an inline body, what is left of it, and the spans.
    fn recipe_step(self) -> usize {
        self.literal_run_max + self.base64_blob_min + self.verbatim_blob_min + 256
    }
}
