//! Rewriting: what is needed of packs that are mostly dead is written to new ones, and moves say where. Then the old packs can go.
//!
//! A sweeper registers as no writer for this. What it writes here came after the latest sweep that it knows of; if another marks anything meanwhile, this
//! one's mark is not created, and it looks again. Until then the old packs are what they were, and the new ones are spare.

use super::Counted;
use super::scan::Needed;
use crate::budget::Permit;
use crate::error::{Error, ErrorKind, Result};
use crate::pack::{self, CONTENT_MAX, FinishedPack, Location, PackId, PackReader, PackWriter, Packer, ROWS_MAX, Row};
use crate::repository::{
    Move, Repository, SEGMENT_CONTENT_MIN, Token, latest_sweep, read_footer, read_moves, write_all_segments,
    write_full_segments, write_moves,
};
use crate::resources::Resources;
use crate::runtime;
use crate::settings::Settings;
use crate::store::{Payload, read_exact};
use std::ops::Range;
use std::sync::Arc;

/// Neighbouring frames are read at once, up to so many octets.
const READ_MAX: u64 = 4 << 20;
/// The longest frame that is read: a blob that does not compress, and what is around it.
const FRAME_MAX: u64 = CONTENT_MAX as u64 + 1024;

/// What the tables of one pack take in memory: rows, and as many moves.
pub(super) const CONTENTS_OCTETS: u64 = ROWS_MAX as u64 * 256;

/// A pack that is there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Old {
    pub(super) pack: PackId,
    pub(super) length: u64,
}

/// The rows of a pack of which something is needed.
#[derive(Debug)]
pub(super) struct Contents {
    /// The octets of all frames.
    pub(super) octets: u64,
    /// The octets of those that are needed.
    pub(super) needed: u64,
    /// What is needed, and not moved to a pack that stays.
    pub(super) unmoved: Vec<Row>,
}

impl Contents {
    /// Reads what a pack holds, and what its moves say. `None` if that does not read: then the pack is left as it is.
    pub(super) async fn of(
        repository: &Repository,
        old: Old,
        needed: &Needed,
        stays: impl Fn(&Location) -> bool,
    ) -> Result<Option<Self>> {
        let rows = match read_footer(repository, old.pack, old.length).await {
            Err(error) if error.is_loss() => return Ok(None),
            rows => rows?,
        };
        let moves = read_moves(repository, old.pack).await?;
        let is_moved = |row: &Row| {
            let places = moves.places.get(&row.at.offset);
            places.is_some_and(|places| places.iter().any(|to| to.digest == row.digest && stays(&to.at)))
        };
        let octets = rows.iter().map(|row| u64::from(row.at.stored)).sum();
        let needed_rows = rows.iter().filter(|row| needed.has(&row.at)).count() as u64;
        // Whoever needs what the footer does not tell needs the pack.
        if needed_rows < needed.frames() {
            return Ok(None);
        }
        let unmoved = rows.into_iter().filter(|row| needed.has(&row.at) && !is_moved(row)).collect();
        Ok(Some(Self { octets, needed: needed.octets, unmoved }))
    }
}

/// The packs being written.
pub(super) struct Rewrite {
    repository: Repository,
    resources: Resources,
    writer: Token,
    /// A pack is closed when it is this long.
    target: usize,
    pack: Option<PackWriter>,
    packer: Option<Packer>,
    /// What the pack that is being written holds, and of which old packs.
    moves: Vec<(PackId, Vec<Move>)>,
    /// Rows for an index segment, of packs that are written.
    rows: Vec<Row>,
    /// The latest sweep when this began.
    known: u64,
    /// There was a later one: it may have deleted what was written here, so nothing may lead there.
    is_overtaken: bool,
    /// What was written.
    written: Counted,
    _permit: Permit,
}

impl Rewrite {
    /// `None` if there is too little memory for it now.
    pub(super) fn new(repository: Repository, resources: Resources, known: u64) -> Result<Option<Self>> {
        let budget = resources.budget().octets();
        let target = (Settings::default().pack_bytes_max as u64).min(budget / 8);
        // The pack, a frame as it was read and its content.
        let needed = (target + 2 * FRAME_MAX).min(budget / 4);
        let Some(permit) = resources.budget().try_acquire(needed) else { return Ok(None) };
        Ok(Some(Self {
            writer: repository.new_token()?,
            packer: Some(Packer::new(pack::LEVEL)?),
            repository,
            resources,
            target: target as usize,
            pack: None,
            moves: Vec::new(),
            rows: Vec::new(),
            known,
            is_overtaken: false,
            written: Counted::default(),
            _permit: permit,
        }))
    }

    /// Writes blobs of an old pack anew. False if one does not read: then the pack stays, and a repair is due.
    pub(super) async fn pack(&mut self, old: PackId, rows: &[Row]) -> Result<bool> {
        let store = Arc::clone(self.repository.store());
        let reader = Arc::new(PackReader::new(old, self.repository.secrets())?);
        for rows in stretches(rows) {
            let range = range(rows);
            if rows.iter().any(|row| u64::from(row.at.stored) > FRAME_MAX) {
                return Ok(false);
            }
            let octets = match read_exact(&*store, &old.key(), range.clone()).await {
                Err(error) if error.is_loss() => return Ok(false),
                octets => octets?,
            };
            let is_full = |pack: &PackWriter| pack.len() >= self.target || pack.rows().len() >= ROWS_MAX / 2;
            if self.pack.as_ref().is_some_and(is_full) {
                self.close().await?;
            }
            if !self.add(&reader, rows, octets, range.start, old).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Adds the blobs of a stretch of a pack.
    async fn add(
        &mut self,
        reader: &Arc<PackReader>,
        rows: &[Row],
        octets: bytes::Bytes,
        start: u64,
        old: PackId,
    ) -> Result<bool> {
        let mut pack = match self.pack.take() {
            Some(pack) => pack,
            None => self.repository.new_pack(&self.writer, Vec::with_capacity(self.target))?,
        };
        let lost = || Error::internal("a packer is in use");
        let mut packer = self.packer.take().ok_or_else(lost)?;
        let (reader, rows, domain) = (Arc::clone(reader), rows.to_vec(), self.repository.domain().clone());
        let added = runtime::run(&**self.resources.executor(), move || {
            let mut moves = Vec::with_capacity(rows.len());
            let mut is_sound = true;
            for row in rows {
                let begin = (row.at.offset - start) as usize;
                let frame = octets.get(begin..begin + row.at.stored as usize).unwrap_or_default();
                let Ok(content) = reader.verified(&row, &mut frame.to_vec(), &domain) else {
                    is_sound = false;
                    break;
                };
                let at = pack.add(row.digest, &content, &mut packer)?;
                moves.push(Move { offset: row.at.offset, to: Row { digest: row.digest, at } });
            }
            Ok::<_, Error>((pack, packer, moves, is_sound))
        });
        let (pack, packer, moves, is_sound) = added.await??;
        (self.pack, self.packer) = (Some(pack), Some(packer));
        match self.moves.last_mut().filter(|(last, _)| *last == old) {
            Some((_, all)) => all.extend(moves),
            None => self.moves.push((old, moves)),
        }
        Ok(is_sound)
    }

    /// Writes the pack, reads it back, and says where everything in it came from.
    async fn close(&mut self) -> Result<()> {
        let Some(pack) = self.pack.take().filter(|pack| !pack.rows().is_empty()) else { return Ok(()) };
        let FinishedPack { id, octets, rows } = pack.finish()?;
        let length = octets.len() as u64;
        self.repository.store().put(&id.key(), Payload::from(octets)).await?;
        match self.verify(id, length).await {
            Err(error) if error.kind() == ErrorKind::NotFound => self.is_overtaken = true,
            verified => verified?,
        }
        // A put may be tried again, after another sweep has condemned the pack already that a first try had left.
        self.is_overtaken |= latest_sweep(&self.repository).await?.epoch != self.known;
        if self.is_overtaken {
            self.moves.clear();
            return Ok(());
        }
        for (old, moves) in std::mem::take(&mut self.moves) {
            write_moves(&self.repository, old, &moves).await?;
        }
        self.written.count(length);
        self.rows.extend(rows.into_iter().filter(|row| row.at.content >= SEGMENT_CONTENT_MIN));
        write_full_segments(&self.repository, &mut self.rows).await.map(drop)
    }

    /// That the copy reads, before what it is a copy of goes.
    async fn verify(&self, pack: PackId, length: u64) -> Result<()> {
        let octets = self.repository.read_pack(pack, length).await?;
        let (secrets, domain) = (self.repository.secrets().clone(), self.repository.domain().clone());
        let verified = runtime::run(&**self.resources.executor(), move || {
            let mut octets = octets.try_into_mut().unwrap_or_else(|shared| shared.as_ref().into());
            let (mut failure, reader) = (None, PackReader::new(pack, &secrets)?);
            reader.verify(&mut octets, &domain, |_, outcome| failure = failure.take().or_else(|| outcome.err()))?;
            failure.map_or(Ok(()), Err)
        });
        verified.await?.map_err(|error| Error::damaged("a pack does not read as it was written").because(error))
    }

    /// Writes what is left. Gives what was written in all; `None` if another sweep has begun meanwhile: then nothing may be marked as moved.
    pub(super) async fn finish(mut self) -> Result<Option<Counted>> {
        self.close().await?;
        write_all_segments(&self.repository, self.rows).await?;
        Ok((!self.is_overtaken).then_some(self.written))
    }
}

/// Parts rows, which are in order, so that each part is one stretch of a pack that can be read at once.
fn stretches(rows: &[Row]) -> impl Iterator<Item = &[Row]> {
    let mut rest = rows;
    std::iter::from_fn(move || {
        let first = rest.first()?;
        let follows = |pair: &[Row]| {
            pair[0].at.end() == pair[1].at.offset && pair[1].at.end().saturating_sub(first.at.offset) <= READ_MAX
        };
        // A pack that is not full yet has room for so many rows.
        let length = 1 + rest.windows(2).take(ROWS_MAX / 2 - 1).take_while(|pair| follows(pair)).count();
        let (stretch, after) = rest.split_at(length);
        rest = after;
        Some(stretch)
    })
}

fn range(rows: &[Row]) -> Range<u64> {
    let (first, last) = (rows.first(), rows.last());
    first.map_or(0, |row| row.at.offset)..last.map_or(0, |row| row.at.end())
}
