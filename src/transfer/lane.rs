//! A lane: the work on messages from their octets to recipes and packs. It runs on a worker, in turns of bounded length, and never waits.

use super::append::Ticket;
use super::dedup::Dedup;
use super::effort::{Effort, level_max};
use super::known::{Differs, KnownMessage};
use super::pieces::{self, PENDING_OCTETS, Pending, Storing};
use super::state::{BatchPermit, PackMemory};
use crate::budget::Permit;
use crate::digest::{Digest, Domain, Hasher};
use crate::error::{Error, Result};
use crate::ledger::Bytes as Octets;
use crate::lock::assert_none_is_held;
use crate::message::Envelope;
use crate::pack::{self, FinishedPack, PackWriter, Packer, Packers, Row};
use crate::recipe::Dissector;
use crate::settings::Settings;
use crate::source::{Body, Finished, Message, ReadBody, Reason, Unreadable};
use std::sync::atomic::{AtomicBool, Ordering};
use std::vec;

/// The longest buffer of recipes that is used again, in octets.
const RECIPES_KEPT: usize = 4 << 20;
/// Octets read at a time: enough for BLAKE3 to be at its fastest, little enough to stay in the cache.
pub(super) const CHUNK: usize = 256 << 10;
/// A turn ends after this many octets of mail, so that many transfers share the workers evenly.
const TURN: usize = 8 << 20;

/// A message to be read.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) message: Message,
    pub(super) position: u64,
    /// What the journal has under the same identity.
    pub(super) known: Option<KnownMessage>,
    /// Who waits for it, if it was appended.
    pub(super) ticket: Option<Ticket>,
}

/// What became of a message that was read.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) envelope: Envelope,
    pub(super) position: u64,
    pub(super) known: Option<KnownMessage>,
    pub(super) ticket: Option<Ticket>,
    pub(super) digest: Digest,
    pub(super) length: u64,
    pub(super) quarantine: Option<Unreadable>,
    /// The length of its recipe, `None` if the octets are those that are known.
    pub(super) recipe: Option<usize>,
    pub(super) pieces: Vec<Row>,
}

/// What a turn brought forth.
#[derive(Debug, Default)]
pub(super) struct Output {
    pub(super) messages: Vec<Read>,
    /// The recipes of these messages, one behind the other.
    pub(super) recipes: Vec<u8>,
    pub(super) octets: Octets,
    pub(super) pack: Option<FinishedPack>,
}

/// How a turn ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// There is more to do.
    Again,
    /// The pack is full, and finished in the output; there is more to do.
    PackFull,
    /// All messages of the batch are read.
    Done,
}

/// What lanes share.
#[derive(Debug)]
pub(super) struct LaneContext {
    pub(super) domain: Domain,
    pub(super) dedup: Dedup,
    pub(super) effort: Effort,
    /// For what is compressed besides packs.
    pub(super) packers: Packers,
    /// A pack of at least this length is finished.
    pub(super) pack_target: usize,
    /// Messages that are known are taken apart all the same: some of their content lies in packs that are damaged, and is stored again.
    pub(super) heals: AtomicBool,
}

impl LaneContext {
    fn heals(&self) -> bool {
        self.heals.load(Ordering::Relaxed)
    }
}

/// One lane.
pub(super) struct Lane {
    /// Pays for the buffers.
    _permit: Permit,
    /// Pays for the open pack; away while that is being uploaded.
    pub(super) pack_memory: Option<PackMemory>,
    /// Pays for the batch that is read.
    pub(super) batch_permit: Option<BatchPermit>,
    dissector: Dissector,
    hasher: Hasher,
    buffer: Vec<u8>,
    items: vec::IntoIter<Item>,
    current: Option<Current>,
    hold: Hold,
}

/// Where the pieces of messages go.
struct Hold {
    packer: Packer,
    pack: Option<PackWriter>,
    pending: Pending,
    output: Output,
}

/// A message being read in several turns.
struct Current {
    item: Partial,
    reader: Box<dyn ReadBody>,
    length: u64,
    pieces: Vec<Row>,
}

struct Partial {
    envelope: Envelope,
    position: u64,
    known: Option<KnownMessage>,
    ticket: Option<Ticket>,
}

impl Lane {
    /// What a lane takes besides its pack, in octets: a chunk, a piece decoded and its encoding compared, pieces that are pending, a recipe; and zstd's context, with that of a block of
    /// recipes that is compressed meanwhile.
    pub(super) fn working_set(settings: &Settings) -> u64 {
        let contexts = 2 * pack::context_octets(level_max(settings.compression));
        (6 << 20) + PENDING_OCTETS as u64 + settings.cuts.piece_max as u64 + contexts
    }

    /// What the pack of a lane takes, in octets, if it is finished when it has reached `target`: a piece comes on top, and some small ones.
    pub(super) fn pack_octets(settings: &Settings, target: usize) -> u64 {
        (target + settings.cuts.piece_max + (1 << 20)) as u64
    }

    pub(super) fn new(
        permit: Permit,
        pack_memory: PackMemory,
        settings: &Settings,
        context: &LaneContext,
    ) -> Result<Self> {
        Ok(Self {
            _permit: permit,
            pack_memory: Some(pack_memory),
            batch_permit: None,
            dissector: Dissector::new(settings.cuts, settings.limits.clone()),
            hasher: context.domain.hasher(),
            buffer: vec![0; CHUNK],
            items: Vec::new().into_iter(),
            current: None,
            hold: Hold {
                packer: Packer::new(context.effort.level())?,
                pack: None,
                pending: Pending::default(),
                output: Output::default(),
            },
        })
    }

    /// Gives the lane messages to read. Those given before are read.
    pub(super) fn give(&mut self, items: Vec<Item>, permit: Option<BatchPermit>) {
        self.items = items.into_iter();
        self.batch_permit = permit;
    }

    /// Takes back the buffer of the recipes of its last turn, for the next one.
    pub(super) fn take_back(&mut self, mut recipes: Vec<u8>) {
        if recipes.capacity() <= RECIPES_KEPT {
            recipes.clear();
            self.hold.output.recipes = recipes;
        }
    }

    /// Whether it has no pack to write to.
    pub(super) fn lacks_pack(&self) -> bool {
        self.hold.pack.is_none()
    }

    /// Whether there is anything in its pack.
    pub(super) fn has_content(&self) -> bool {
        self.hold.pack.as_ref().is_some_and(|pack| !pack.rows().is_empty())
    }

    /// Begins a pack, in which pieces are compressed at this level.
    pub(super) fn begin_pack(&mut self, pack: PackWriter, level: i32) -> Result<()> {
        self.hold.packer.set_level(level)?;
        self.hold.pack = Some(pack);
        Ok(())
    }

    /// Reads on for one turn. The lane must have a pack.
    pub(super) fn advance(&mut self, context: &LaneContext) -> Result<(Step, Output)> {
        let mut turn = 0;
        let step = loop {
            let full = self.hold.pack.as_ref().is_some_and(|pack| {
                // A chunk completes at most one large piece, and many small ones.
                pack.len() >= context.pack_target || pack.rows().len() + self.hold.pending.len() >= pack::ROWS_MAX / 2
            });
            if full {
                self.store_pending(context)?;
                self.hold.output.pack = self.finish_pack()?;
                break Step::PackFull;
            }
            if turn >= TURN {
                break Step::Again;
            }
            turn += match self.current.take() {
                Some(current) => self.read_on(current, context)?,
                None => match self.items.next() {
                    Some(item) => self.begin(item, context)?,
                    None => break Step::Done,
                },
            };
        };
        self.store_pending(context)?;
        // Once a row without a place is committed its message is lost.
        if self.hold.output.messages.iter().flat_map(|message| &message.pieces).any(pieces::is_nowhere) {
            return Err(Error::internal("a piece was not stored"));
        }
        Ok((step, std::mem::take(&mut self.hold.output)))
    }

    /// Stores the pieces that are pending: where they are is to be known before their messages leave the lane.
    fn store_pending(&mut self, context: &LaneContext) -> Result<()> {
        let mut none = Vec::new();
        let pieces = self.current.as_mut().map_or(&mut none, |current| &mut current.pieces);
        self.hold.storing(pieces, context).store_pending()
    }

    /// Finishes the open pack, if there is anything in it.
    pub(super) fn finish_pack(&mut self) -> Result<Option<FinishedPack>> {
        if !self.has_content() {
            return Ok(None);
        }
        self.hold.pack.take().map(PackWriter::finish).transpose()
    }

    fn begin(&mut self, item: Item, context: &LaneContext) -> Result<usize> {
        let Item { message: Message { envelope, body }, position, known, ticket } = item;
        let item = Partial { envelope, position, known, ticket };
        match body {
            Body::Octets(octets) => self.whole(item, &octets, context),
            Body::Open { open, .. } => match open.open() {
                Ok(reader) => {
                    self.hasher.reset();
                    self.read_on(Current { item, reader, length: 0, pieces: Vec::new() }, context)
                }
                Err(unreadable) => {
                    self.hasher.reset();
                    self.end(item, 0, Vec::new(), Some(unreadable), context).map(|()| 1)
                }
            },
        }
    }

    /// A message whose octets are all there.
    fn whole(&mut self, item: Partial, octets: &[u8], context: &LaneContext) -> Result<usize> {
        self.hasher.reset();
        self.hasher.update(octets);
        let mut pieces = Vec::new();
        let is_known = item.known.as_ref().is_some_and(|known| known.is(&self.hasher.finish(), None));
        if !is_known || context.heals() {
            self.dissect(octets, &mut pieces, context)?;
        }
        self.hold.output.octets.read += octets.len() as u64;
        self.end(item, octets.len() as u64, pieces, None, context)?;
        Ok(octets.len() + 1)
    }

    /// Reads the next chunk of the current message.
    fn read_on(&mut self, mut current: Current, context: &LaneContext) -> Result<usize> {
        let mut filled = 0;
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut unreadable = None;
        let mut ended = false;
        assert_none_is_held();
        while filled < buffer.len() && !ended {
            match current.reader.read(&mut buffer[filled..]) {
                Ok(0) => ended = true,
                Ok(read) => filled += read.min(buffer.len() - filled),
                Err(error) => {
                    unreadable = Some(error);
                    ended = true;
                }
            }
        }
        let chunk = &buffer[..filled];
        self.hasher.update(chunk);
        self.hold.output.octets.read += filled as u64;
        let first = current.length == 0;
        current.length += filled as u64;
        if ended && unreadable.is_none() {
            match current.reader.finish(current.length) {
                Ok(Finished::Moved { flags, place }) => {
                    (current.item.envelope.flags, current.item.envelope.place) = (flags, place);
                    current.item.known.iter_mut().for_each(|known| known.differs = Differs::InState);
                }
                Ok(Finished::AsEnumerated) => {}
                Err(error) => unreadable = Some(error),
            }
        }
        let known = current.item.known.as_ref().filter(|_| first && ended);
        let is_known = known.is_some_and(|known| known.is(&self.hasher.finish(), reason(unreadable.as_ref())));
        let is_skipped = is_known && !context.heals();
        let dissected = if is_skipped { Ok(()) } else { self.dissect(chunk, &mut current.pieces, context) };
        self.buffer = buffer;
        dissected?;
        if ended {
            let Current { item, length, pieces, .. } = current;
            self.end(item, length, pieces, unreadable, context)?;
        } else {
            self.current = Some(current);
        }
        Ok(filled + 1)
    }

    fn dissect(&mut self, octets: &[u8], pieces: &mut Vec<Row>, context: &LaneContext) -> Result<()> {
        let mut store = self.hold.storing(pieces, context);
        for chunk in octets.chunks(CHUNK) {
            self.dissector.push(chunk, &mut |piece| store.piece(piece));
        }
        store.failed.map_or(Ok(()), Err)
    }

    /// Settles a message that was read, all of it or what could be read.
    fn end(
        &mut self,
        item: Partial,
        length: u64,
        mut pieces: Vec<Row>,
        quarantine: Option<Unreadable>,
        context: &LaneContext,
    ) -> Result<()> {
        let digest = self.hasher.finish();
        let is_known = item.known.as_ref().is_some_and(|known| known.is(&digest, reason(quarantine.as_ref())));
        let recipe = if is_known && !context.heals() {
            self.dissector.reset();
            None
        } else {
            let mut recipes = std::mem::take(&mut self.hold.output.recipes);
            let from = recipes.len();
            let mut store = self.hold.storing(&mut pieces, context);
            let dissected = self.dissector.finish(&mut |piece| store.piece(piece), &mut recipes);
            store.failed.map_or(Ok(()), Err)?;
            if dissected.rebuilt != dissected.length {
                return Err(Error::internal("a recipe does not stand for all of its message"));
            }
            if is_known {
                // Its content was to be stored, if it was not; the recipe is what it was.
                recipes.truncate(from);
                pieces.clear();
            }
            let length = recipes.len() - from;
            self.hold.output.recipes = recipes;
            (!is_known).then_some(length)
        };
        let Partial { envelope, position, known, ticket } = item;
        self.hold.output.messages.push(Read {
            envelope,
            position,
            known,
            ticket,
            digest,
            length,
            quarantine,
            recipe,
            pieces,
        });
        Ok(())
    }
}

impl Hold {
    /// Stores pieces of a message, whose rows come to `pieces`.
    fn storing<'a>(&'a mut self, pieces: &'a mut Vec<Row>, context: &'a LaneContext) -> Storing<'a> {
        let Self { packer, pack, pending, output: Output { messages, octets, .. } } = self;
        Storing { packer, pack: pack.as_mut(), pending, octets, messages, pieces, context, failed: None }
    }
}

impl std::fmt::Debug for Lane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lane").field("pack", &self.hold.pack).field("busy", &self.current.is_some()).finish()
    }
}

/// A quarantined message's reason, for those who only want that.
pub(super) fn reason(unreadable: Option<&Unreadable>) -> Option<Reason> {
    unreadable.map(|unreadable| unreadable.reason)
}
