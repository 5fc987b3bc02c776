//! An mbox that is in memory, split in one go: for tests and the fuzzer.

use super::Variant;
use super::container::Positioned;
use super::split::{Limits, Octets, Rules, Splitter};
use crate::digest::Domain;
use crate::source::file::Stat;
use std::io;
use std::sync::Arc;

/// All messages of an mbox that is in memory: octets before, of, and after each. For tests and the fuzzer.
#[must_use]
pub fn split_all(octets: &[u8], chunk: usize, inline_max: u64, declared: Option<Variant>) -> Vec<[Vec<u8>; 3]> {
    let file = InMemory(octets.to_vec());
    let rules = Rules { declared, limits: Limits { chunk: chunk.max(1), inline_max } };
    let hasher = Domain::new([0; 32]).hasher();
    let mut splitter = Splitter::new(Arc::new(file), octets.len() as u64, rules, Some(hasher.clone()));
    let mut pieces = Vec::new();
    while let Some(piece) = splitter.next() {
        let content = match piece.octets {
            Octets::Inline(content) => content.to_vec(),
            Octets::Range { start, length } | Octets::Cut { start, length } => {
                octets[start as usize..(start + length) as usize].to_vec()
            }
        };
        let mut hasher = hasher.clone();
        hasher.update(&content);
        assert_eq!(piece.digest, Some(hasher.finish()));
        pieces.push([piece.before.to_vec(), content, piece.after.to_vec()]);
    }
    pieces
}

pub(super) struct InMemory(pub(super) Vec<u8>);

impl Positioned for InMemory {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let rest = self.0.get(offset as usize..).unwrap_or_default();
        let length = rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&rest[..length]);
        Ok(length)
    }

    fn stat(&self) -> io::Result<Stat> {
        let size = self.0.len() as u64;
        Ok(Stat { device: 1, inode: 1, size, modified: (1, 0), changed: (1, 0) })
    }
}
