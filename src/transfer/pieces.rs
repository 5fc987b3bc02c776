//! The pieces of messages on their way into a lane's pack.
//!
//! They are hashed at once. Whether they are new is asked for many of them together, so that workers do not meet at a lock for each.

use super::dedup::Found;
use super::lane::{LaneContext, Read};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::ledger::Bytes as Octets;
use crate::pack::{Location, PackId, PackWriter, Packer, Row};
use std::ops::Range;

/// So many octets of short pieces are kept until they are asked for together: they are still in the cache then.
pub(super) const PENDING_OCTETS: usize = 512 << 10;

/// A piece of this many octets is not kept, which would copy it, but asked for at once with those that are.
const LONG_MIN: usize = 128 << 10;

/// What a row says until it is known where its piece is.
const NOWHERE: Location = Location { pack: PackId::new([0; 32]), offset: 0, stored: 0, content: 0, frame: 0 };

/// Whether it is not known where the piece is.
pub(super) fn is_nowhere(row: &Row) -> bool {
    row.at == NOWHERE
}

/// Pieces that were not asked for yet.
#[derive(Debug, Default)]
pub(super) struct Pending {
    octets: Vec<u8>,
    pieces: Vec<Piece>,
}

#[derive(Debug)]
struct Piece {
    digest: Digest,
    content: Content,
    /// The message's place in the lane's output, and the piece's in the message.
    message: usize,
    at: usize,
}

#[derive(Debug)]
enum Content {
    Kept(Range<usize>),
    /// The only one that is not kept.
    Long(u32),
}

impl Pending {
    /// How many pieces are kept.
    pub(super) fn len(&self) -> usize {
        self.pieces.len()
    }
}

/// Stores the pieces of one message, and those of the ones before it that are pending.
pub(super) struct Storing<'a> {
    pub(super) packer: &'a mut Packer,
    pub(super) pack: Option<&'a mut PackWriter>,
    pub(super) pending: &'a mut Pending,
    pub(super) octets: &'a mut Octets,
    /// The messages that are read.
    pub(super) messages: &'a mut [Read],
    /// The pieces of the one that is being read.
    pub(super) pieces: &'a mut Vec<Row>,
    pub(super) context: &'a LaneContext,
    pub(super) failed: Option<Error>,
}

impl Storing<'_> {
    /// Takes the message's next piece.
    pub(super) fn piece(&mut self, content: &[u8]) {
        if self.failed.is_none() {
            self.failed = self.take(content).err();
        }
    }

    fn take(&mut self, content: &[u8]) -> Result<()> {
        let length = u32::try_from(content.len()).map_err(|_| Error::internal("a piece is too long"))?;
        let digest = self.context.domain.digest(content);
        self.octets.content += u64::from(length);
        let (message, at) = (self.messages.len(), self.pieces.len());
        self.pieces.push(Row { digest, at: NOWHERE });
        let Pending { octets, pieces } = &mut *self.pending;
        if content.len() >= LONG_MIN {
            pieces.push(Piece { digest, content: Content::Long(length), message, at });
            return self.store(content);
        }
        let from = octets.len();
        octets.extend_from_slice(content);
        pieces.push(Piece { digest, content: Content::Kept(from..octets.len()), message, at });
        if octets.len() >= PENDING_OCTETS { self.store_pending() } else { Ok(()) }
    }

    /// Stores what is pending, as far as it is new.
    pub(super) fn store_pending(&mut self) -> Result<()> {
        if self.pending.pieces.is_empty() { Ok(()) } else { self.store(&[]) }
    }

    fn store(&mut self, long: &[u8]) -> Result<()> {
        let Pending { octets, pieces } = std::mem::take(self.pending);
        let context = self.context;
        let content = |piece: &Piece| match &piece.content {
            Content::Kept(range) => &octets[range.clone()],
            Content::Long(_) => long,
        };
        let blobs: Vec<_> = pieces.iter().map(|piece| (piece.digest, piece.length())).collect();
        let (found, claims) = context.dedup.find_or_claim(&blobs);
        let mut stored = Vec::new();
        for (piece, found) in pieces.iter().zip(&found) {
            let at = match found {
                Found::Stored(at) => self.is_duplicate(*at),
                Found::New => {
                    let row = self.add(piece.digest, content(piece))?;
                    stored.push(row);
                    row.at
                }
                Found::Claimed => continue,
            };
            self.locate(piece, at);
        }
        claims.settle(&stored);
        // Only now, without claims of its own, may it wait for those of others.
        for piece in pieces.iter().zip(&found).filter(|(_, found)| **found == Found::Claimed).map(|(piece, _)| piece) {
            let (found, claims) = context.dedup.wait_for(&piece.digest, piece.length());
            let at = match found {
                Found::Stored(at) => self.is_duplicate(at),
                _ => {
                    let row = self.add(piece.digest, content(piece))?;
                    claims.settle(&[row]);
                    row.at
                }
            };
            self.locate(piece, at);
        }
        *self.pending = Pending { octets, pieces };
        self.pending.octets.clear();
        self.pending.pieces.clear();
        Ok(())
    }

    fn is_duplicate(&mut self, at: Location) -> Location {
        self.octets.duplicate += u64::from(at.content);
        at
    }

    fn add(&mut self, digest: Digest, content: &[u8]) -> Result<Row> {
        let pack = self.pack.as_mut().ok_or_else(|| Error::internal("a lane works without a pack"))?;
        let at = pack.add(digest, content, self.packer)?;
        self.octets.compressed += u64::from(at.stored);
        Ok(Row { digest, at })
    }

    /// Tells the piece's message where it is. One that was found to be known needs no pieces any more.
    fn locate(&mut self, piece: &Piece, at: Location) {
        let pieces = match self.messages.get_mut(piece.message) {
            Some(message) => &mut message.pieces,
            None => &mut *self.pieces,
        };
        if let Some(row) = pieces.get_mut(piece.at) {
            row.at = at;
        }
    }
}

impl Piece {
    fn length(&self) -> u32 {
        match &self.content {
            Content::Kept(range) => range.len() as u32,
            Content::Long(length) => *length,
        }
    }
}
