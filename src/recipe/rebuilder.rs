//! From recipe and pieces back to the message's octets.

use super::span::Cursor;
use super::{Content, Recipe, Span};
use crate::error::{Error, Result};
use crate::mime::base64::{Encoder, LineEnding, Shape};

/// Octets given out at once, but for the last literals of a recipe (at most as long as the recipe) as they are; encoded base64 can be 4 times this.
const CHUNK: usize = 48 << 10;

/// Rebuilds one message. Does no I/O: it asks for pieces and gives octets out, and can be put aside between any two calls.
///
/// Call [`advance`](Self::advance); as long as it needs a piece, give the message's next one to [`piece`](Self::piece) and call it again.
#[derive(Debug)]
pub struct Rebuilder {
    recipe: Recipe,
    cursor: Cursor,
    open: Option<Open>,
    encoder: Encoder,
    encoded: Vec<u8>,
}

/// The span whose pieces are being asked for.
#[derive(Clone, Copy, Debug)]
struct Open {
    /// What is still to come.
    left: Content,
    base64: bool,
}

/// What a [`Rebuilder`] waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "there is no third")]
pub enum Need {
    /// The message's next piece, of this many octets.
    Piece(u64),
    /// Nothing: the message was given out to its end.
    Done,
}

impl Rebuilder {
    /// A rebuilder at the beginning of the message.
    #[must_use]
    pub fn new(recipe: Recipe) -> Self {
        let encoder = Encoder::new(Shape::new(None, LineEnding::Lf));
        Self { recipe, cursor: Cursor::default(), open: None, encoder, encoded: Vec::new() }
    }

    /// Begins another message; buffers are kept.
    pub fn reset(&mut self, recipe: Recipe) {
        self.recipe = recipe;
        self.cursor = Cursor::default();
        self.open = None;
    }

    /// Gives octets to `out`, at most 256 KiB at once, up to the next piece or to the end.
    ///
    /// # Errors
    /// Those of `out`. The rebuilder is of no use then.
    pub fn advance(&mut self, out: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<Need> {
        loop {
            if let Some(open) = &self.open {
                return Ok(Need::Piece(open.left.octets.min(open.left.piece)));
            }
            let Some((span, behind)) = self.recipe.span_at(self.cursor) else { return Ok(Need::Done) };
            self.cursor = behind;
            match span {
                Span::Literal(octets) => octets.chunks(4 * CHUNK).try_for_each(&mut *out)?,
                Span::Verbatim(left) | Span::Run(left) => self.open = Some(Open { left, base64: false }),
                Span::Base64(shape, left) => {
                    self.encoder.reset(shape);
                    self.open = Some(Open { left, base64: true });
                }
                Span::InlineBase64(shape, octets) => {
                    self.encoder.reset(shape);
                    encode(&mut self.encoder, &mut self.encoded, octets, true, out)?;
                }
            }
        }
    }

    /// Takes the piece that [`advance`](Self::advance) asked for, and gives what it stands for to `out`, at most 256 KiB at once.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) if none was asked for, [`Damaged`](crate::ErrorKind::Damaged) if it has not the length asked for, and those of
    /// `out`. The rebuilder is of no use then.
    pub fn piece(&mut self, octets: &[u8], out: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let Some(open) = &mut self.open else {
            return Err(Error::invalid("a piece was given where none was asked for"));
        };
        if octets.len() as u64 != open.left.octets.min(open.left.piece) {
            return Err(Error::damaged("a piece has not the length that the recipe tells"));
        }
        open.left.octets -= octets.len() as u64;
        let (base64, last) = (open.base64, open.left.octets == 0);
        if last {
            self.open = None;
        }
        if base64 {
            encode(&mut self.encoder, &mut self.encoded, octets, last, out)
        } else {
            octets.chunks(4 * CHUNK).try_for_each(out)
        }
    }
}

fn encode(
    encoder: &mut Encoder,
    encoded: &mut Vec<u8>,
    octets: &[u8],
    last: bool,
    out: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let mut chunks = octets.chunks(CHUNK).peekable();
    while let Some(chunk) = chunks.next() {
        encoded.clear();
        encoder.push(chunk, encoded);
        if last && chunks.peek().is_none() {
            encoder.finish(encoded);
        }
        // A chunk of one or two octets may wait in the encoder for its group to be whole.
        if !encoded.is_empty() {
            out(encoded)?;
        }
    }
    Ok(())
}
