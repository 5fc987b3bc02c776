//! Rows of messages, stored column by column, so that like stands next to like and compresses (docs/format.md, "Message columns").

use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result};
use crate::message::{Envelope, Evidence, Flags, Identity, InternalDate, SystemFlags};
use crate::source::Reason;
use crate::wire::{Decoder, Encode};
use bytes::Bytes;
use std::collections::HashMap;
use std::hash::Hash;

/// A message in the journal.
///
/// An update tells anew what can change, and by [`AS_STORED`](Self::AS_STORED) or position 0 that the rest is what it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MessageRow {
    /// The message's number in its mailbox, never used again.
    pub(crate) ordinal: u64,
    /// Its place in its folder's order; sparse, so that others fit between.
    pub(crate) position: u64,
    /// Which of the commit's sources it came from.
    pub(crate) source: u32,
    pub(crate) envelope: Envelope,
    /// Of the original octets.
    pub(crate) digest: Digest,
    /// Of the original octets.
    pub(crate) length: u64,
    /// Why it is in quarantine; then digest, length and recipe are of the octets that could be read.
    pub(crate) quarantine: Option<Reason>,
    /// Where its recipe is in the commit's recipes, and how long.
    pub(crate) recipe: RecipeRange,
    /// Its pieces' numbers in the commit's blob table.
    pub(crate) pieces: Vec<u32>,
}

impl MessageRow {
    /// The digest of a row that tells nothing new about a message's octets.
    pub(crate) const AS_STORED: Digest = Digest::new([0; 32]);

    /// Takes what this row, an update, does not tell from the row that it updates.
    pub(crate) fn complete_from(&mut self, stored: &Self) {
        if self.digest == Self::AS_STORED {
            (self.digest, self.length, self.quarantine) = (stored.digest, stored.length, stored.quarantine);
        }
        if self.position == 0 {
            self.position = stored.position;
        }
    }
}

/// Where a recipe is: octets to skip behind the recipe of the row before, and its length.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RecipeRange {
    pub(crate) skip: u32,
    pub(crate) length: u32,
}

/// The columns, in the order of the format.
#[derive(Clone, Copy)]
enum Column {
    Ordinal,
    Position,
    Source,
    Folder,
    Identity,
    Evidence,
    System,
    Keywords,
    Date,
    Place,
    Before,
    After,
    Extensions,
    Digest,
    Length,
    Quarantine,
    Recipe,
    Pieces,
}

const COLUMNS: usize = Column::Pieces as usize + 1;

/// The most rows in a block.
pub(crate) const ROWS_MAX: usize = 1 << 20;
/// The most keywords that all sets of a block have, and the most extensions that all its rows have.
pub(crate) const ITEMS_MAX: usize = 1 << 21;

/// What a folder, a set of keywords or a keyword weighs besides its octets.
const NAMED_OCTETS: usize = 32;

/// Rows being gathered, encoded already.
#[derive(Clone, Debug, Default)]
pub(crate) struct Columns {
    rows: u32,
    folders: Dictionary<Bytes>,
    keywords: Dictionary<Vec<String>>,
    columns: [Vec<u8>; COLUMNS],
    /// What folders and keywords weigh, each told once.
    named: usize,
    last_ordinal: u64,
    last_position: u64,
    last_seconds: i64,
}

/// Values that occur again and again, each kept once.
#[derive(Clone, Debug)]
struct Dictionary<T> {
    values: Vec<T>,
    numbers: HashMap<T, u32>,
}

impl<T> Default for Dictionary<T> {
    fn default() -> Self {
        Self { values: Vec::new(), numbers: HashMap::new() }
    }
}

impl<T: Clone + Eq + Hash> Dictionary<T> {
    /// The value's number, and whether it is a new one.
    fn number(&mut self, value: &T) -> (u64, bool) {
        if let Some(number) = self.numbers.get(value) {
            return (u64::from(*number), false);
        }
        let number = self.values.len() as u32;
        self.values.push(value.clone());
        self.numbers.insert(value.clone(), number);
        (u64::from(number), true)
    }
}

impl Columns {
    pub(crate) fn rows(&self) -> u32 {
        self.rows
    }

    /// How long the rows are, encoded, and how much memory they take, about.
    pub(crate) fn octets(&self) -> usize {
        self.columns.iter().map(Vec::len).sum::<usize>() + self.named
    }

    fn at(&mut self, column: Column) -> &mut Vec<u8> {
        &mut self.columns[column as usize]
    }

    pub(crate) fn push(&mut self, row: &MessageRow) {
        let envelope = &row.envelope;
        let ordinal = row.ordinal.wrapping_sub(std::mem::replace(&mut self.last_ordinal, row.ordinal));
        let position = row.position.wrapping_sub(std::mem::replace(&mut self.last_position, row.position));
        let folder = self.folder(&envelope.folder);
        let keywords = self.keywords(envelope.flags.keywords());
        self.at(Column::Ordinal).signed(ordinal as i64);
        self.at(Column::Position).signed(position as i64);
        self.at(Column::Source).number(u64::from(row.source));
        self.at(Column::Folder).number(folder);
        match &envelope.identity {
            Identity::Content => self.at(Column::Identity).number(0),
            Identity::Named(name) => {
                self.at(Column::Identity).number(name.len() as u64 + 1);
                self.at(Column::Identity).extend_from_slice(name);
            }
        }
        self.at(Column::Evidence).octets(&envelope.evidence.0);
        self.at(Column::System).push(envelope.flags.system.bits());
        self.at(Column::Keywords).number(keywords);
        self.push_date(envelope.internal_date);
        self.at(Column::Place).octets(&envelope.place);
        self.at(Column::Before).octets(&envelope.before);
        self.at(Column::After).octets(&envelope.after);
        self.push_extensions(&envelope.extensions);
        self.at(Column::Digest).extend_from_slice(row.digest.as_bytes());
        self.at(Column::Length).number(row.length);
        self.at(Column::Quarantine).push(row.quarantine.map_or(0, reason_code));
        self.at(Column::Recipe).number(u64::from(row.recipe.skip));
        self.at(Column::Recipe).number(u64::from(row.recipe.length));
        self.push_pieces(&row.pieces);
        self.rows += 1;
    }

    fn folder(&mut self, folder: &Bytes) -> u64 {
        let (number, is_new) = self.folders.number(folder);
        self.named += if is_new { folder.len() + NAMED_OCTETS } else { 0 };
        number
    }

    fn keywords(&mut self, keywords: &[String]) -> u64 {
        let (number, is_new) = self.keywords.number(&keywords.to_vec());
        let weight = keywords.iter().map(|keyword| keyword.len() + NAMED_OCTETS).sum::<usize>() + NAMED_OCTETS;
        self.named += if is_new { weight } else { 0 };
        number
    }

    fn push_date(&mut self, date: Option<InternalDate>) {
        let Some(InternalDate { seconds, nanos, zone_minutes }) = date else {
            return self.at(Column::Date).push(0);
        };
        let delta = seconds.wrapping_sub(std::mem::replace(&mut self.last_seconds, seconds));
        let column = self.at(Column::Date);
        column.push(if zone_minutes.is_some() { 2 } else { 1 });
        column.signed(delta);
        column.number(u64::from(nanos));
        if let Some(zone) = zone_minutes {
            column.signed(i64::from(zone));
        }
    }

    fn push_extensions(&mut self, extensions: &[(String, Bytes)]) {
        let column = self.at(Column::Extensions);
        column.number(extensions.len() as u64);
        for (name, value) in extensions {
            column.octets(name.as_bytes());
            column.octets(value);
        }
    }

    /// Pieces of one message are mostly new ones in a row: each is told as its distance from the one expected.
    fn push_pieces(&mut self, pieces: &[u32]) {
        let column = self.at(Column::Pieces);
        column.number(pieces.len() as u64);
        let mut expected = 0;
        for piece in pieces {
            column.signed(i64::from(*piece) - expected);
            expected = i64::from(*piece) + 1;
        }
    }

    /// The rows as a block.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.octets() + 256);
        out.number(u64::from(self.rows));
        out.number(self.folders.values.len() as u64);
        self.folders.values.iter().for_each(|folder| out.octets(folder));
        out.number(self.keywords.values.len() as u64);
        for keywords in &self.keywords.values {
            out.number(keywords.len() as u64);
            keywords.iter().for_each(|keyword| out.octets(keyword.as_bytes()));
        }
        self.columns.iter().for_each(|column| out.octets(column));
        out
    }
}

/// Reads rows from a block, one at a time; their octets are slices of the block.
#[derive(Debug)]
pub(crate) struct RowReader {
    block: Bytes,
    rows_left: u32,
    folders: Vec<Bytes>,
    /// The sets of keywords, as flags without system flags.
    keywords: Vec<Flags>,
    /// How many extensions the rows may still have.
    items_left: usize,
    /// What is left of each column, as a range of the block.
    columns: [(usize, usize); COLUMNS],
    last_ordinal: u64,
    last_position: u64,
    last_seconds: i64,
}

impl RowReader {
    /// A reader of this block, whose rows' ordinals are counted from `first_ordinal`.
    pub(crate) fn new(block: Bytes, first_ordinal: u64) -> Result<Self> {
        let mut decoder = Decoder::new(&block);
        let rows_left = decoder.number_up_to(block.len().min(ROWS_MAX) as u64)? as u32;
        let folders = (0..decoder.count_up_to(1, ROWS_MAX)?)
            .map(|_| decoder.octets().map(|folder| block.slice_ref_of(folder)))
            .collect::<Result<_>>()?;
        let mut items_left = ITEMS_MAX;
        let keywords = (0..decoder.count_up_to(1, ROWS_MAX)?)
            .map(|_| {
                let count = decoder.count_up_to(1, items_left)?;
                items_left -= count;
                let keywords = (0..count).map(|_| decoder.text().map(str::to_owned)).collect::<Result<Vec<_>>>()?;
                Ok(Flags::new(SystemFlags::default(), keywords))
            })
            .collect::<Result<_>>()?;
        items_left = ITEMS_MAX;
        let mut columns = [(0, 0); COLUMNS];
        for column in &mut columns {
            let length = decoder.octets()?.len();
            let end = block.len() - decoder.rest().len();
            *column = (end - length, end);
        }
        decoder.end()?;
        let (last_position, last_seconds) = (0, 0);
        Ok(Self {
            block,
            rows_left,
            folders,
            keywords,
            items_left,
            columns,
            last_ordinal: first_ordinal,
            last_position,
            last_seconds,
        })
    }

    /// How many rows are to come.
    pub(crate) fn rows_left(&self) -> u32 {
        self.rows_left
    }

    fn read<T>(&mut self, column: Column, read: impl FnOnce(&mut Decoder<'_>) -> Result<T>) -> Result<T> {
        let (start, end) = self.columns[column as usize];
        let mut decoder = Decoder::new(&self.block[start..end]);
        let value = read(&mut decoder)?;
        self.columns[column as usize].0 = end - decoder.rest().len();
        Ok(value)
    }

    fn octets(&mut self, column: Column) -> Result<Bytes> {
        let block = self.block.clone();
        self.read(column, |decoder| decoder.octets().map(|octets| block.slice_ref_of(octets)))
    }

    fn row(&mut self) -> Result<MessageRow> {
        self.last_ordinal =
            self.last_ordinal.wrapping_add(self.read(Column::Ordinal, |decoder| decoder.signed())? as u64);
        self.last_position =
            self.last_position.wrapping_add(self.read(Column::Position, |decoder| decoder.signed())? as u64);
        let source = self.read(Column::Source, |decoder| decoder.number_up_to(u64::from(u32::MAX)))? as u32;
        let folder = self.read(Column::Folder, |decoder| decoder.number())?;
        let folder = self.folders.get(folder as usize).cloned();
        let mut envelope = Envelope::new(folder.ok_or_else(no_such_entry)?, self.identity()?);
        envelope.evidence = Evidence(self.octets(Column::Evidence)?);
        let system = SystemFlags::from_bits(self.read(Column::System, |decoder| decoder.byte())?);
        let keywords = self.read(Column::Keywords, |decoder| decoder.number())?;
        let keywords = self.keywords.get(keywords as usize).ok_or_else(no_such_entry)?;
        envelope.flags = keywords.with_system(system);
        envelope.internal_date = self.date()?;
        envelope.place = self.octets(Column::Place)?;
        envelope.before = self.octets(Column::Before)?;
        envelope.after = self.octets(Column::After)?;
        envelope.extensions = self.extensions()?;
        Ok(MessageRow {
            ordinal: self.last_ordinal,
            position: self.last_position,
            source,
            envelope,
            digest: Digest::new(self.read(Column::Digest, |decoder| decoder.array())?),
            length: self.read(Column::Length, |decoder| decoder.number())?,
            quarantine: self.read(Column::Quarantine, |decoder| decoder.byte()).and_then(reason_of)?,
            recipe: self.read(Column::Recipe, |decoder| {
                let skip = decoder.number_up_to(u64::from(u32::MAX))? as u32;
                Ok(RecipeRange { skip, length: decoder.number_up_to(u64::from(u32::MAX))? as u32 })
            })?,
            pieces: self.read(Column::Pieces, pieces)?,
        })
    }

    fn identity(&mut self) -> Result<Identity> {
        let block = self.block.clone();
        self.read(Column::Identity, |decoder| {
            Ok(match decoder.number_up_to(decoder.rest().len() as u64)? {
                0 => Identity::Content,
                length => Identity::Named(block.slice_ref_of(decoder.take(length as usize - 1)?)),
            })
        })
    }

    fn date(&mut self) -> Result<Option<InternalDate>> {
        let last = self.last_seconds;
        let date = self.read(Column::Date, |decoder| {
            let zoned = match decoder.byte()? {
                0 => return Ok(None),
                1 => false,
                2 => true,
                _ => return Err(Error::damaged("a date has an unknown form")),
            };
            let seconds = last.wrapping_add(decoder.signed()?);
            let nanos = decoder.number_up_to(999_999_999)? as u32;
            let zone = if zoned { Some(decoder.signed()?) } else { None };
            let zone_minutes =
                zone.map(i16::try_from).transpose().map_err(|_| Error::damaged("a zone is out of range"))?;
            Ok(Some(InternalDate { seconds, nanos, zone_minutes }))
        })?;
        self.last_seconds = date.map_or(last, |date| date.seconds);
        Ok(date)
    }

    fn extensions(&mut self) -> Result<Vec<(String, Bytes)>> {
        let (block, left) = (self.block.clone(), self.items_left);
        let extensions: Vec<_> = self.read(Column::Extensions, |decoder| {
            (0..decoder.count_up_to(2, left)?)
                .map(|_| Ok((decoder.text()?.to_owned(), block.slice_ref_of(decoder.octets()?))))
                .collect::<Result<_>>()
        })?;
        self.items_left -= extensions.len();
        Ok(extensions)
    }
}

impl Iterator for RowReader {
    type Item = Result<MessageRow>;

    fn next(&mut self) -> Option<Self::Item> {
        self.rows_left = self.rows_left.checked_sub(1)?;
        let row = self.row();
        if row.is_err() {
            self.rows_left = 0;
        }
        Some(row)
    }
}

/// `Bytes::slice_ref`, but for slices that may be empty and then lie nowhere.
trait SliceRefOf {
    fn slice_ref_of(&self, octets: &[u8]) -> Bytes;
}

impl SliceRefOf for Bytes {
    fn slice_ref_of(&self, octets: &[u8]) -> Bytes {
        if octets.is_empty() { Self::new() } else { self.slice_ref(octets) }
    }
}

fn pieces(decoder: &mut Decoder<'_>) -> Result<Vec<u32>> {
    let mut expected = 0_i64;
    (0..decoder.count(1)?)
        .map(|_| {
            let piece = expected.wrapping_add(decoder.signed()?);
            expected = piece.wrapping_add(1);
            u32::try_from(piece).map_err(|_| Error::damaged("a piece's number is out of range"))
        })
        .collect()
}

fn no_such_entry() -> Error {
    Error::damaged("a row names an entry that its block does not have")
}

/// The reasons' numbers in the format, from 1; 0 is "not in quarantine".
pub(super) const REASONS: [Reason; 5] =
    [Reason::ReadFailed, Reason::Denied, Reason::Vanished, Reason::Changed, Reason::Short];

fn reason_code(reason: Reason) -> u8 {
    REASONS.iter().position(|known| *known == reason).map_or(u8::MAX, |number| number as u8 + 1)
}

fn reason_of(code: u8) -> Result<Option<Reason>> {
    match code.checked_sub(1) {
        None => Ok(None),
        Some(number) => REASONS.get(usize::from(number)).map(|reason| Some(*reason)).ok_or_else(|| {
            Error::new(
                ErrorKind::Unsupported,
                "a message is in quarantine for a reason that this version does not know",
            )
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn envelopes() -> impl Strategy<Value = Envelope> {
        let octets = || proptest::collection::vec(any::<u8>(), 0..12).prop_map(Bytes::from);
        let date = proptest::option::of((any::<i64>(), 0_u32..1_000_000_000, any::<Option<i16>>()));
        let names = (octets(), proptest::option::of(octets()), octets());
        let more = (octets(), octets(), octets(), proptest::collection::vec((".{0,6}", octets()), 0..3));
        (names, (any::<u8>(), proptest::collection::vec(".{0,6}", 0..3)), date, more).prop_map(
            |((folder, name, evidence), (bits, keywords), date, (place, before, after, extensions))| {
                let mut envelope = Envelope::new(folder, name.map_or(Identity::Content, Identity::Named));
                envelope.evidence = Evidence(evidence);
                envelope.flags = Flags::new(SystemFlags::from_bits(bits), keywords);
                envelope.internal_date =
                    date.map(|(seconds, nanos, zone_minutes)| InternalDate { seconds, nanos, zone_minutes });
                (envelope.place, envelope.before, envelope.after) = (place, before, after);
                envelope.extensions = extensions;
                envelope
            },
        )
    }

    fn rows() -> impl Strategy<Value = MessageRow> {
        let numbers = (any::<u64>(), any::<u64>(), any::<u32>(), any::<u64>());
        let rest = (any::<[u8; 32]>(), proptest::option::of(0..REASONS.len()), any::<(u32, u32)>(), any::<Vec<u32>>());
        (numbers, envelopes(), rest).prop_map(
            |((ordinal, position, source, length), envelope, (digest, reason, (skip, recipe), pieces))| MessageRow {
                ordinal,
                position,
                source,
                envelope,
                digest: Digest::new(digest),
                length,
                quarantine: reason.map(|reason| REASONS[reason]),
                recipe: RecipeRange { skip, length: recipe },
                pieces,
            },
        )
    }

    proptest! {
        #[test]
        fn rows_decode_as_they_were_encoded(rows in proptest::collection::vec(rows(), 0..20), first: u64) {
            let mut columns = Columns::default();
            for row in &rows {
                columns.push(row);
            }
            let decoded: Vec<_> =
                RowReader::new(columns.encode().into(), first).unwrap().collect::<Result<_>>().unwrap();
            let expected: Vec<_> = rows
                .into_iter()
                .map(|row| MessageRow { ordinal: row.ordinal.wrapping_add(first), ..row })
                .collect();
            prop_assert_eq!(decoded, expected);
        }

        #[test]
        fn any_octets_decode_without_panic(octets: Vec<u8>, at: usize, row in rows()) {
            for block in [octets.clone(), {
                let mut columns = Columns::default();
                columns.push(&row);
                let mut block = columns.encode();
                let at = at % block.len();
                block[at] = block[at].wrapping_add(1);
                block
            }] {
                if let Ok(reader) = RowReader::new(block.into(), 0) {
                    reader.for_each(drop);
                }
            }
        }
    }
}
