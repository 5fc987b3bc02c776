//! Index segments: objects of sorted rows. Derived from packs' footers, so losing one costs space, never mail.

use super::Repository;
use crate::error::{Error, ErrorKind, Result};
use crate::index::LASTING_MIN;
pub(crate) use crate::index::SegmentId;
use crate::pack::{PackId, Row};
use crate::seal::ObjectKind;
use crate::store::{Listed, read_exact};
use crate::wire::{Decoder, Encode, from_hex, hex};
use futures::TryStreamExt;
use futures::stream::BoxStream;
use std::collections::{HashMap, HashSet};

/// Where segments are.
pub(crate) const INDEX: &str = "index/";
/// Only blobs of at least this many octets enter the lasting index: an eighth of the rows, nearly all of the savings.
pub(crate) const CONTENT_MIN: u32 = LASTING_MIN;
/// The most rows in one segment.
pub(crate) const ROWS_MAX: usize = 1 << 16;
/// The longest segment that is read.
const OCTETS_MAX: u64 = 64 << 20;

/// Writes a segment of these rows, in the place of others, and gives its length.
pub(crate) async fn write_segment(repository: &Repository, rows: &mut [Row], replaces: &[SegmentId]) -> Result<u64> {
    rows.sort_unstable_by_key(|row| row.digest);
    let salt = repository.salt()?;
    let key = format!("{INDEX}{}", hex(&salt[..16]));
    let octets = repository.seal_object(ObjectKind::Segment, &key, &encode(rows, replaces))?;
    let length = octets.len() as u64;
    repository.store().put(&key, octets.into()).await?;
    Ok(length)
}

/// Writes as many rows as fill segments, and leaves the others; gives how many segments.
pub(crate) async fn write_full_segments(repository: &Repository, rows: &mut Vec<Row>) -> Result<u64> {
    let mut written = 0;
    while rows.len() >= ROWS_MAX {
        let mut first: Vec<Row> = rows.drain(..ROWS_MAX).collect();
        write_segment(repository, &mut first, &[]).await?;
        written += 1;
    }
    Ok(written)
}

/// Writes all rows; gives how many segments.
pub(crate) async fn write_all_segments(repository: &Repository, mut rows: Vec<Row>) -> Result<u64> {
    let mut written = write_full_segments(repository, &mut rows).await?;
    if !rows.is_empty() {
        write_segment(repository, &mut rows, &[]).await?;
        written += 1;
    }
    Ok(written)
}

/// The id of a listed segment.
pub(crate) fn segment_id(object: &Listed) -> Option<SegmentId> {
    from_hex(object.key.strip_prefix(INDEX)?)
}

/// The rows of a listed segment, sorted by digest; `None` if it does not verify.
pub(crate) async fn segment_rows(repository: &Repository, object: &Listed) -> Result<Option<Vec<Row>>> {
    match open(repository, object).await {
        Ok(rows) => Ok(Some(rows)),
        Err(error) if matches!(error.kind(), ErrorKind::Damaged | ErrorKind::Unsupported) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The segments there are.
pub(crate) fn segments(repository: &Repository) -> BoxStream<'_, Result<Listed>> {
    repository.store().list(INDEX)
}

/// What a segment has for who knows which packs there are.
#[derive(Debug)]
pub(crate) struct Inside {
    pub(crate) rows: Vec<Row>,
    /// Rows of packs that may go were left out.
    pub(crate) is_any_condemned: bool,
}

/// The rows of a listed segment that lie inside of one of `packs`, whose lengths are told; `None` if it does not verify, or is not there any more.
pub(crate) async fn rows_inside(
    repository: &Repository,
    object: &Listed,
    packs: &HashMap<PackId, u64>,
    condemned: &HashSet<PackId>,
) -> Result<Option<Inside>> {
    let mut rows = match segment_rows(repository, object).await {
        Ok(Some(rows)) => rows,
        Ok(None) => return Ok(None),
        // A sweep replaced it since it was listed.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let is_any_condemned = rows.iter().any(|row| condemned.contains(&row.at.pack));
    rows.retain(|row| packs.get(&row.at.pack).is_some_and(|length| row.at.end() <= *length));
    Ok(Some(Inside { rows, is_any_condemned }))
}

/// How many rows the segments have of each pack, and the keys of those segments that are damaged.
pub(crate) async fn count_segments(repository: &Repository) -> Result<(HashMap<PackId, u32>, Vec<String>)> {
    let (mut counts, mut damaged) = (HashMap::new(), Vec::new());
    let mut listing = repository.store().list(INDEX);
    while let Some(object) = listing.try_next().await? {
        match open(repository, &object).await {
            Ok(rows) => rows.iter().for_each(|row| *counts.entry(row.at.pack).or_default() += 1),
            Err(error) if error.kind() == ErrorKind::Damaged => damaged.push(object.key),
            // A sweep replaced it since it was listed.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok((counts, damaged))
}

/// Checks that a listed segment opens.
pub(crate) async fn check_segment(repository: &Repository, object: &Listed) -> Result<()> {
    open(repository, object).await.map(drop)
}

async fn open(repository: &Repository, object: &Listed) -> Result<Vec<Row>> {
    if object.length > OCTETS_MAX {
        return Err(Error::damaged("an index segment is too long"));
    }
    let octets = read_exact(&**repository.store(), &object.key, 0..object.length).await?;
    decode(&repository.open_object(ObjectKind::Segment, &object.key, &octets)?)
}

/// Segments that this one replaces come first.
fn encode(rows: &[Row], replaces: &[SegmentId]) -> Vec<u8> {
    let mut out = Vec::with_capacity(rows.len() * 64 + replaces.len() * 16);
    out.number(replaces.len() as u64);
    replaces.iter().for_each(|segment| out.extend_from_slice(segment));
    super::commit::encode_blobs(rows, &mut out);
    out
}

pub(super) fn decode(octets: &[u8]) -> Result<Vec<Row>> {
    let mut decoder = Decoder::new(octets);
    for _ in 0..decoder.count(16)? {
        decoder.take(16)?;
    }
    super::commit::decode_table(decoder.rest(), ROWS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use crate::pack::Location;

    #[test]
    fn rows_decode_as_they_were_encoded() {
        let at = Location { pack: PackId::new([1; 32]), offset: 40, stored: 9, content: 20_000, frame: 0 };
        let rows = [Row { digest: Digest::new([2; 32]), at }, Row { digest: Digest::new([3; 32]), at }];
        assert_eq!(decode(&encode(&rows, &[[7; 16]])).unwrap(), rows);
        assert!(decode(&encode(&rows, &[])[..60]).is_err());
    }
}
