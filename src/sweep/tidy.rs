//! Tidying: what is derived, or recorded only to be looked at. Nothing here bears on any mail.

use super::Counted;
use crate::error::{ErrorKind, Result};
use crate::pack::Row;
use crate::repository::{
    INDEX, Repository, RunRecord, SEGMENT_ROWS_MAX, SegmentId, Token, chains, read_run_record, run_key, segment_id,
    segment_rows, write_segment,
};
use crate::store::Listed;
use futures::TryStreamExt;
use std::collections::{BTreeMap, BTreeSet};

/// Writes segments anew without rows of packs that are not there, and several short ones as one; the old ones go. Memory: the rows of two segments.
pub(super) async fn segments(repository: &Repository) -> Result<Counted> {
    // This order: a segment that is listed is of packs that were there before.
    let listed: Vec<Listed> = repository.store().list(INDEX).try_collect().await?;
    let packs = repository.packs().await?;
    let mut deleted = Counted::default();
    let mut merged: BTreeMap<[u8; 32], Row> = BTreeMap::new();
    // Segments whose rows are in `merged`, and whether that alone makes them worth writing anew.
    let (mut replaced, mut is_due): (Vec<(SegmentId, Listed)>, bool) = (Vec::new(), false);
    for object in listed {
        let Some(id) = segment_id(&object) else { continue };
        let rows = match segment_rows(repository, &object).await {
            Ok(Some(rows)) => rows,
            // A check tells of it.
            Ok(None) => continue,
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let all = rows.len();
        let living: Vec<Row> = rows.into_iter().filter(|row| packs.contains_key(&row.at.pack)).collect();
        if living.len() == all && all > SEGMENT_ROWS_MAX / 2 {
            continue;
        }
        if merged.len() + living.len() > SEGMENT_ROWS_MAX {
            replace(repository, &mut merged, &mut replaced, &mut deleted).await?;
            is_due = false;
        }
        is_due |= living.len() < all || !replaced.is_empty();
        merged.extend(living.into_iter().map(|row| (*row.digest.as_bytes(), row)));
        replaced.push((id, object));
    }
    if is_due {
        replace(repository, &mut merged, &mut replaced, &mut deleted).await?;
    }
    Ok(deleted)
}

/// Writes one segment in the place of several. A crash in between leaves rows that are told twice, which is legal.
async fn replace(
    repository: &Repository,
    merged: &mut BTreeMap<[u8; 32], Row>,
    replaced: &mut Vec<(SegmentId, Listed)>,
    deleted: &mut Counted,
) -> Result<()> {
    let mut rows: Vec<Row> = std::mem::take(merged).into_values().collect();
    let replaced = std::mem::take(replaced);
    if !rows.is_empty() {
        let ids: Vec<SegmentId> = replaced.iter().map(|(id, _)| *id).collect();
        write_segment(repository, &mut rows, &ids).await?;
    }
    for (_, object) in replaced {
        repository.store().delete(&object.key).await?;
        deleted.count(object.length);
    }
    Ok(())
}

/// Deletes records of runs: of those that ended all but the last record, and all but the last `kept` runs; of those that are `fenced`, with all their
/// journals, all but the fence, which keeps a writer that wakes up from believing that there was none.
pub(super) async fn records(repository: &Repository, kept: usize, fenced: &BTreeSet<Token>) -> Result<Counted> {
    let mut needless = Vec::new();
    let mut ended = Vec::new();
    for (token, mut numbers) in chains(repository).await? {
        let Some(last) = numbers.pop() else { continue };
        match read_run_record(repository, &token, last).await? {
            Some(RunRecord::Ended(record) | RunRecord::Noted(record)) => ended.push((record.written, token, last)),
            Some(RunRecord::Fence { .. }) if fenced.contains(&token) => {}
            _ => continue,
        }
        needless.extend(numbers.into_iter().map(|number| run_key(&token, number)));
    }
    ended.sort_unstable();
    let surplus = ended.len().saturating_sub(kept);
    needless.extend(ended.into_iter().take(surplus).map(|(_, token, last)| run_key(&token, last)));
    let mut deleted = Counted::default();
    for key in needless {
        if let Some(length) = repository.store().length(&key).await? {
            repository.store().delete(&key).await?;
            deleted.count(length);
        }
    }
    Ok(deleted)
}
