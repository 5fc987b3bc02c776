//! From a message's octets to recipe and pieces.

use super::span::Form;
use super::{Content, Cuts};
use crate::mime::base64::{self, DECODED_OVERSHOOT, Encoder, Shape};
use crate::mime::{Defects, Event, Framer, Leaf, Limits, TransferEncoding};
use crate::wire::Encode;

/// Takes messages apart into recipe and pieces, one after the other. See [`recipe`](crate::recipe) for what becomes what.
///
/// The same octets give the same recipe and pieces, however they are cut into slices. Memory is bounded whatever the message: one piece, two recipes,
/// what the framer holds, and some 100 KiB. Buffers are kept from message to message.
#[derive(Debug)]
pub struct Dissector {
    framer: Framer,
    taker: Taker,
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Dissected {
    /// Octets of the message.
    pub length: u64,
    /// Octets that recipe and pieces stand for. Whoever stores them should see that these are as many: if they are not, that is a defect of mailrail, and the message would not come back.
    pub rebuilt: u64,
    /// Pieces given out.
    pub pieces: u64,
    /// What was wrong with its structure.
    pub defects: Defects,
    /// Bodies declared as base64.
    pub base64_parts: u64,
    /// Those of them that were exact to their last octet.
    pub base64_exact: u64,
    /// Octets of bodies declared as base64.
    pub base64_octets: u64,
    /// Those of them that are held decoded.
    pub base64_decoded: u64,
}

impl Dissector {
    /// A dissector that is at the beginning of a message.
    #[must_use]
    pub fn new(cuts: Cuts, limits: Limits) -> Self {
        Self { framer: Framer::new(limits), taker: Taker::new(cuts.in_range()) }
    }

    /// Takes the message's next octets and gives the pieces that are complete to `pieces`, in order.
    pub fn push(&mut self, octets: &[u8], pieces: &mut dyn FnMut(&[u8])) {
        let Self { framer, taker } = self;
        taker.counts.length += octets.len() as u64;
        framer.push(octets, &mut |event| taker.take(event, pieces));
    }

    /// Ends the message: gives the last pieces to `pieces`, appends the recipe to `recipe`, and is ready for the next message.
    pub fn finish(&mut self, pieces: &mut dyn FnMut(&[u8]), recipe: &mut Vec<u8>) -> Dissected {
        let Self { framer, taker } = self;
        let defects = framer.finish(&mut |event| taker.take(event, pieces));
        taker.finish(pieces);
        recipe.reserve(taker.spans.len() + taker.literals.len() + 10);
        recipe.number(taker.span_count);
        recipe.extend_from_slice(&taker.spans);
        recipe.extend_from_slice(&taker.literals);
        let Counts { length, rebuilt, pieces, base64_parts, base64_exact, base64_octets, base64_decoded } =
            taker.counts;
        taker.reset();
        Dissected { length, rebuilt, pieces, defects, base64_parts, base64_exact, base64_octets, base64_decoded }
    }

    /// Drops the message as far as it came, and is ready for the next one.
    pub fn reset(&mut self) {
        self.framer.reset();
        self.taker.reset();
    }

    /// Octets of memory that the dissector's own buffers hold, without the framer's.
    #[must_use]
    pub fn capacity(&self) -> usize {
        let Taker { spans, literals, piece, decoder, .. } = &self.taker;
        spans.capacity() + literals.capacity() + piece.octets.capacity() + decoder.capacity()
    }
}

/// What was seen of a message.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    length: u64,
    rebuilt: u64,
    pieces: u64,
    base64_parts: u64,
    base64_exact: u64,
    base64_octets: u64,
    base64_decoded: u64,
}

/// Makes spans of the framer's events.
#[derive(Debug)]
struct Taker {
    cuts: Cuts,
    counts: Counts,
    /// Encoded spans, and how many they are.
    spans: Vec<u8>,
    span_count: u64,
    /// The literal octets of all spans; behind them the open run, if it is not in pieces; behind that an undecided body.
    literals: Vec<u8>,
    run: Run,
    body: Body,
    /// Whether the open body is declared to be base64, whatever it turned out to be.
    declared_base64: bool,
    piece: Piece,
    decoder: base64::Decoder,
}

/// The open run of literal octets.
#[derive(Clone, Copy, Debug)]
enum Run {
    /// It begins here in the literals.
    Literal { from: usize },
    /// It has grown too long and is a span in pieces.
    InPieces,
}

/// The open body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Body {
    /// There is none: octets belong to the run.
    None,
    /// It may become part of the run or a verbatim span, and begins here in the literals.
    Undecided { from: usize },
    /// It is a verbatim span.
    Verbatim,
    /// It may become inline or a base64 span; what is decoded begins here in the literals.
    Base64Undecided { from: usize },
    /// It is a base64 span.
    Base64,
    /// The recipe is full: everything up to the message's end is in one run.
    Rest,
}

/// Base64 that breaks off with fewer decoded octets than this stays as it is: it is more likely text than content.
const BROKEN_BASE64_MIN: u64 = 48;

impl Taker {
    fn new(cuts: Cuts) -> Self {
        Self {
            cuts,
            counts: Counts::default(),
            spans: Vec::new(),
            span_count: 0,
            literals: Vec::new(),
            run: Run::Literal { from: 0 },
            body: Body::None,
            declared_base64: false,
            piece: Piece { octets: Vec::new(), given: 0, max: cuts.piece_max },
            decoder: base64::Decoder::new(),
        }
    }

    fn reset(&mut self) {
        self.counts = Counts::default();
        self.spans.clear();
        self.span_count = 0;
        self.literals.clear();
        self.run = Run::Literal { from: 0 };
        self.body = Body::None;
        self.piece.octets.clear();
        self.piece.given = 0;
        self.decoder.reset();
    }

    fn take(&mut self, event: Event<'_>, pieces: &mut dyn FnMut(&[u8])) {
        match event {
            Event::Literal(octets) => self.literal(octets, pieces),
            Event::Begin(leaf) => self.begin(leaf),
            Event::Body(octets) => {
                self.counts.base64_octets += if self.declared_base64 { octets.len() as u64 } else { 0 };
                self.body(octets, pieces);
            }
            Event::End => self.end(pieces),
        }
    }

    fn finish(&mut self, pieces: &mut dyn FnMut(&[u8])) {
        self.end(pieces);
        if self.body == Body::Rest {
            self.body = Body::None;
            self.run = Run::InPieces;
        }
        self.close_run(pieces);
    }

    fn begin(&mut self, leaf: Leaf) {
        let from = self.literals.len();
        self.declared_base64 = leaf.encoding == TransferEncoding::Base64;
        self.counts.base64_parts += u64::from(self.declared_base64);
        if self.body == Body::Rest {
            return;
        }
        if self.declared_base64 {
            self.decoder.reset();
            self.body = Body::Base64Undecided { from };
        } else {
            self.body = Body::Undecided { from };
        }
    }

    fn body(&mut self, octets: &[u8], pieces: &mut dyn FnMut(&[u8])) {
        let mut rest = octets;
        while !rest.is_empty() {
            let taken = match self.body {
                Body::None => return self.literal(rest, pieces),
                Body::Verbatim | Body::Rest => {
                    self.piece.push(rest, &mut self.counts.pieces, pieces);
                    rest.len()
                }
                Body::Undecided { from } => self.body_undecided(rest, from, pieces),
                Body::Base64Undecided { from } => self.base64_undecided(rest, from, pieces),
                Body::Base64 => self.base64(rest, pieces),
            };
            rest = &rest[taken..];
        }
    }

    fn end(&mut self, pieces: &mut dyn FnMut(&[u8])) {
        if matches!(self.body, Body::Base64Undecided { .. } | Body::Base64) {
            self.end_base64(true, pieces);
        }
        match self.body {
            Body::Rest => return,
            Body::Verbatim => self.close_pieces(|content| Form::Verbatim { content }, pieces),
            Body::Undecided { from } => self.body_joins_run(from, pieces),
            Body::None | Body::Base64Undecided { .. } | Body::Base64 => {}
        }
        self.body = Body::None;
        if self.spans.len() + self.literals.len() + self.cuts.recipe_step() > self.cuts.recipe_max {
            self.recipe_is_full(pieces);
        }
    }

    /// Takes octets that belong to the run.
    fn literal(&mut self, octets: &[u8], pieces: &mut dyn FnMut(&[u8])) {
        if self.body == Body::Rest {
            return self.piece.push(octets, &mut self.counts.pieces, pieces);
        }
        let mut rest = octets;
        if let Run::Literal { from } = self.run {
            let room = (self.cuts.literal_run_max + 1).saturating_sub(self.literals.len() - from);
            let fitting;
            (fitting, rest) = octets.split_at(octets.len().min(room));
            self.literals.extend_from_slice(fitting);
            self.cap_run(pieces);
        }
        if !rest.is_empty() {
            self.piece.push(rest, &mut self.counts.pieces, pieces);
        }
    }

    /// Puts the run into pieces if it is too long to stay literal. No body is behind it in the literals.
    fn cap_run(&mut self, pieces: &mut dyn FnMut(&[u8])) {
        if let Run::Literal { from } = self.run
            && self.literals.len() - from > self.cuts.literal_run_max
        {
            self.literals_to_piece(from, pieces);
            self.run = Run::InPieces;
        }
    }

    fn body_joins_run(&mut self, from: usize, pieces: &mut dyn FnMut(&[u8])) {
        match self.run {
            Run::Literal { .. } => self.cap_run(pieces),
            Run::InPieces => self.literals_to_piece(from, pieces),
        }
    }

    fn body_undecided(&mut self, octets: &[u8], from: usize, pieces: &mut dyn FnMut(&[u8])) -> usize {
        let room = (from + self.cuts.verbatim_blob_min).saturating_sub(self.literals.len());
        let fitting = &octets[..octets.len().min(room)];
        self.literals.extend_from_slice(fitting);
        if fitting.len() == room {
            self.close_run_before(from, pieces);
            self.literals_to_piece(from, pieces);
            self.body = Body::Verbatim;
        }
        fitting.len()
    }

    fn base64_undecided(&mut self, octets: &[u8], from: usize, pieces: &mut dyn FnMut(&[u8])) -> usize {
        let taken = self.decoder.push(octets, &mut self.literals, from + self.cuts.base64_blob_min);
        if self.literals.len() - from >= self.cuts.base64_blob_min {
            self.base64_to_piece(from, pieces);
        }
        if self.decoder.is_stopped() {
            self.end_base64(false, pieces);
        }
        taken
    }

    fn base64(&mut self, octets: &[u8], pieces: &mut dyn FnMut(&[u8])) -> usize {
        let until = self.piece.room_for_decoded(octets.len() / 4 * 3);
        let taken = self.decoder.push(octets, &mut self.piece.octets, until);
        self.piece.give_full(&mut self.counts.pieces, pieces);
        if self.decoder.is_stopped() {
            self.end_base64(false, pieces);
        }
        taken
    }

    /// Ends the base64 in the open body. What of its octets is not covered is at the front of a body of unknown fate.
    fn end_base64(&mut self, at_end: bool, pieces: &mut dyn FnMut(&[u8])) {
        let covered = match self.body {
            Body::Base64Undecided { .. } => self.decoder.finish(&mut self.literals),
            _ => {
                self.piece.room_for_decoded(DECODED_OVERSHOOT);
                self.decoder.finish(&mut self.piece.octets)
            }
        };
        // The decoder lends its octets out while the body takes them.
        let decoder = std::mem::take(&mut self.decoder);
        let uncovered = decoder.uncovered();
        if let Body::Base64Undecided { from } = self.body
            && covered.decoded >= self.cuts.base64_blob_min as u64
        {
            self.base64_to_piece(from, pieces);
        }
        let exact = at_end && uncovered.is_empty();
        self.counts.base64_exact += u64::from(exact);
        self.counts.base64_decoded += covered.encoded;
        match self.body {
            Body::Base64Undecided { from } if covered.decoded == 0 => self.body = Body::Undecided { from },
            Body::Base64Undecided { from } if !exact && covered.decoded < BROKEN_BASE64_MIN => {
                self.counts.base64_decoded -= covered.encoded;
                self.undo_base64(from, covered.shape, pieces);
            }
            Body::Base64Undecided { from } => {
                self.close_run_before(from, pieces);
                self.span(Form::InlineBase64 { octets: covered.decoded, shape: covered.shape });
                self.body_behind();
            }
            _ => {
                self.piece.give_full(&mut self.counts.pieces, pieces);
                let content = self.piece.close(&mut self.counts.pieces, pieces);
                self.span(Form::Base64 { content, shape: covered.shape });
                self.body_behind();
            }
        }
        self.body(uncovered, pieces);
        self.decoder = decoder;
    }

    /// Puts a few decoded octets back as they came.
    fn undo_base64(&mut self, from: usize, shape: Shape, pieces: &mut dyn FnMut(&[u8])) {
        let mut encoder = Encoder::new(shape);
        let mut encoded = Vec::new();
        encoder.push(&self.literals[from..], &mut encoded);
        encoder.finish(&mut encoded);
        self.literals.truncate(from);
        self.body = Body::Undecided { from };
        self.body(&encoded, pieces);
    }

    fn base64_to_piece(&mut self, from: usize, pieces: &mut dyn FnMut(&[u8])) {
        self.close_run_before(from, pieces);
        self.literals_to_piece(from, pieces);
        self.body = Body::Base64;
    }

    /// Begins a new run and, in it, what is left of the open body.
    fn body_behind(&mut self) {
        let from = self.literals.len();
        self.run = Run::Literal { from };
        self.body = Body::Undecided { from };
    }

    /// Everything from here to the message's end goes into one run.
    fn recipe_is_full(&mut self, pieces: &mut dyn FnMut(&[u8])) {
        if let Run::Literal { .. } = self.run {
            self.close_run(pieces);
        }
        self.body = Body::Rest;
    }

    fn close_run(&mut self, pieces: &mut dyn FnMut(&[u8])) {
        self.close_run_before(self.literals.len(), pieces);
        self.run = Run::Literal { from: self.literals.len() };
    }

    /// Makes a span of the run, which ends at `end` in the literals if it is there.
    fn close_run_before(&mut self, end: usize, pieces: &mut dyn FnMut(&[u8])) {
        match self.run {
            Run::Literal { from } if end > from => self.span(Form::Literal { octets: (end - from) as u64 }),
            Run::Literal { .. } => {}
            Run::InPieces => self.close_pieces(|content| Form::Run { content }, pieces),
        }
    }

    fn close_pieces(&mut self, form: fn(Content) -> Form, pieces: &mut dyn FnMut(&[u8])) {
        let content = self.piece.close(&mut self.counts.pieces, pieces);
        if content.octets > 0 {
            self.span(form(content));
        }
        self.run = Run::Literal { from: self.literals.len() };
    }

    fn literals_to_piece(&mut self, from: usize, pieces: &mut dyn FnMut(&[u8])) {
        self.piece.push(&self.literals[from..], &mut self.counts.pieces, pieces);
        self.literals.truncate(from);
    }

    fn span(&mut self, form: Form) {
        self.counts.rebuilt = self.counts.rebuilt.saturating_add(form.rebuilt_len().unwrap_or(u64::MAX));
        form.encode(&mut self.spans);
        self.span_count += 1;
    }
}

/// The open piece of the open span.
#[derive(Debug)]
struct Piece {
    octets: Vec<u8>,
    /// Octets of the span in pieces already given out.
    given: u64,
    max: usize,
}

impl Piece {
    fn push(&mut self, octets: &[u8], count: &mut u64, pieces: &mut dyn FnMut(&[u8])) {
        let mut rest = octets;
        while !rest.is_empty() {
            if self.octets.is_empty() && rest.len() >= self.max {
                let (piece, behind) = rest.split_at(self.max);
                self.give(piece.len(), count);
                pieces(piece);
                rest = behind;
                continue;
            }
            let (fitting, behind) = rest.split_at(rest.len().min(self.max - self.octets.len()));
            self.reserve(fitting.len());
            self.octets.extend_from_slice(fitting);
            self.give_full(count, pieces);
            rest = behind;
        }
    }

    /// Gives out pieces that are complete.
    fn give_full(&mut self, count: &mut u64, pieces: &mut dyn FnMut(&[u8])) {
        let full = self.octets.len() / self.max * self.max;
        if full == 0 {
            return;
        }
        for piece in self.octets[..full].chunks_exact(self.max) {
            pieces(piece);
            *count += 1;
        }
        self.given += full as u64;
        self.octets.drain(..full);
    }

    /// Ends the span.
    fn close(&mut self, count: &mut u64, pieces: &mut dyn FnMut(&[u8])) -> Content {
        if !self.octets.is_empty() {
            pieces(&self.octets);
            self.give(self.octets.len(), count);
            self.octets.clear();
        }
        Content { octets: std::mem::take(&mut self.given), piece: self.max as u64 }
    }

    fn give(&mut self, octets: usize, count: &mut u64) {
        self.given += octets as u64;
        *count += 1;
    }

    /// Makes room for about `octets` more decoded ones and tells up to what length there may be asked for without the buffer growing.
    fn room_for_decoded(&mut self, octets: usize) -> usize {
        self.reserve(octets.saturating_add(2 * DECODED_OVERSHOOT));
        (self.octets.capacity() - DECODED_OVERSHOOT).min(self.max)
    }

    /// Makes room for `octets` more, or for as many as a piece has; doubles, but never beyond a piece.
    fn reserve(&mut self, octets: usize) {
        let most = self.max.saturating_add(2 * DECODED_OVERSHOOT);
        let needed = self.octets.len().saturating_add(octets).min(most);
        if needed > self.octets.capacity() {
            let capacity = needed.max(self.octets.capacity() * 2).min(most);
            self.octets.reserve_exact(capacity - self.octets.len());
        }
    }
}
