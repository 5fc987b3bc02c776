//! From shape and decoded octets back to the encoded octets.

use super::{RUN, Shape};
use base64_simd::{AsOut, STANDARD};

/// Decoded octets encoded at once.
const RUN_DECODED: usize = RUN / 4 * 3;

/// Encodes in a given [`Shape`], with the decoded octets given in slices of any length.
#[derive(Clone, Debug)]
pub struct Encoder {
    shape: Shape,
    /// Decoded octets that do not make a group of three yet.
    carry: [u8; 3],
    carried: usize,
    /// Characters in the current line.
    column: usize,
    started: bool,
    /// Characters of one run, without line ends.
    characters: Vec<u8>,
}

impl Encoder {
    /// An encoder that is at the beginning of a span.
    #[must_use]
    pub fn new(shape: Shape) -> Self {
        Self { shape, carry: [0; 3], carried: 0, column: 0, started: false, characters: Vec::new() }
    }

    /// Begins another span; buffers are kept.
    pub fn reset(&mut self, shape: Shape) {
        let characters = std::mem::take(&mut self.characters);
        *self = Self { characters, ..Self::new(shape) };
    }

    /// Appends to `encoded` what the next decoded octets come to: about 4/3 of their length, at most 4 times (width 1, CR LF).
    pub fn push(&mut self, mut decoded: &[u8], encoded: &mut Vec<u8>) {
        self.start(encoded);
        if self.carried > 0 {
            while self.carried < 3 {
                let Some((&octet, rest)) = decoded.split_first() else { return };
                self.carry[self.carried] = octet;
                self.carried += 1;
                decoded = rest;
            }
            let group = self.carry;
            self.carried = 0;
            self.encode(&group, encoded);
        }
        let (whole, rest) = decoded.split_at(decoded.len() / 3 * 3);
        for run in whole.chunks(RUN_DECODED) {
            self.encode(run, encoded);
        }
        self.carry[..rest.len()].copy_from_slice(rest);
        self.carried = rest.len();
    }

    /// Appends the last group with its padding and the line ends behind it.
    pub fn finish(&mut self, encoded: &mut Vec<u8>) {
        self.start(encoded);
        let group = self.carry;
        let carried = std::mem::take(&mut self.carried);
        self.encode(&group[..carried], encoded);
        for _ in 0..self.shape.trailing {
            encoded.extend_from_slice(self.shape.ending.octets());
        }
    }

    fn start(&mut self, encoded: &mut Vec<u8>) {
        if !std::mem::replace(&mut self.started, true) {
            for _ in 0..self.shape.leading {
                encoded.extend_from_slice(self.shape.ending.octets());
            }
        }
    }

    fn encode(&mut self, decoded: &[u8], encoded: &mut Vec<u8>) {
        let Some(width) = self.shape.width else {
            STANDARD.encode_append(decoded, encoded);
            return;
        };
        let width = width.max(1) as usize;
        self.characters.resize(RUN, 0);
        let ending = self.shape.ending.octets();
        let mut characters: &[u8] = STANDARD.encode(decoded, self.characters.as_mut_slice().as_out());
        encoded.reserve(characters.len() + (characters.len() / width + 1) * ending.len());
        while !characters.is_empty() {
            if self.column == width {
                encoded.extend_from_slice(ending);
                self.column = 0;
            }
            let (line, rest) = characters.split_at(characters.len().min(width - self.column));
            encoded.extend_from_slice(line);
            self.column += line.len();
            characters = rest;
        }
    }
}
