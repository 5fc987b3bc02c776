//! Examining packs, and writing anew what can be read of one whose front or end is lost.

use super::{Repairing, is_of_object};
use crate::error::{Error, Result};
use crate::pack::{self, FinishedPack, PackId, PackReader, Packer, ROWS_MAX, Row};
use crate::repository::{Move, Repository, SEGMENT_CONTENT_MIN};
use crate::resources::Resources;
use crate::runtime;
use crate::store::Payload;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

/// What is in a pack.
pub(super) struct Examined {
    /// Its end and all its blobs are as they were written.
    pub(super) is_sound: bool,
    /// Its first octets are not: magic or salt.
    pub(super) is_headless: bool,
    /// Of the rows that are wanted, those that do not read.
    pub(super) unreadable: Vec<Row>,
    /// What reads of a pack whose end is lost, if it was asked for: rows in order, and the pack's octets to read them from.
    pub(super) salvage: Option<Salvage>,
    /// Why the store did not give it, though it may be as it was written.
    pub(super) failure: Option<Error>,
}

/// What reads of a pack whose end is lost.
pub(super) struct Salvage {
    reader: Arc<PackReader>,
    octets: bytes::Bytes,
    rows: BTreeMap<u64, Row>,
    _permit: crate::budget::Permit,
}

/// Reads a whole pack, with up to two thirds of the budget: whether it is sound, and which of the rows `wanted` do not read; and all that reads, if that is to be written anew.
pub(super) async fn examine(
    repository: &Repository,
    resources: &Resources,
    pack: PackId,
    length: u64,
    wanted: Vec<Row>,
    is_salvaged: bool,
) -> Result<Examined> {
    let nothing =
        |unreadable, failure| Examined { is_sound: false, is_headless: false, unreadable, salvage: None, failure };
    // It is in memory twice, and what is written anew once more. A pack of another's larger budget must do with what there is.
    let needed = length.saturating_mul(if is_salvaged { 3 } else { 2 }).min(resources.budget().octets() / 3 * 2);
    let permit = resources.budget().acquire(needed).await;
    let octets = match repository.read_pack(pack, length).await {
        Ok(octets) => octets,
        Err(error) if error.is_loss() => return Ok(nothing(wanted, None)),
        Err(error) if is_of_object(&error) => return Ok(nothing(wanted, Some(error))),
        Err(error) => return Err(error),
    };
    let (secrets, domain) = (repository.secrets().clone(), repository.domain().clone());
    let examined = runtime::run(&**resources.executor(), move || {
        let Ok(reader) = PackReader::new(pack, &secrets) else {
            return Examined { is_sound: false, is_headless: false, unreadable: wanted, salvage: None, failure: None };
        };
        let mut is_sound = true;
        let mut copy = octets.to_vec();
        let whole = reader.verify(&mut copy, &domain, |_, outcome| is_sound &= outcome.is_ok());
        drop(copy);
        is_sound &= whole.is_ok();
        let is_headless = reader.verify_header(&octets).is_err();
        let mut rows = BTreeMap::new();
        if is_salvaged {
            reader.walk(&octets, &domain, |row, _| {
                rows.insert(row.at.offset, row);
            });
        }
        let mut unreadable = Vec::new();
        for row in wanted {
            // Commits tell where frames are even if a length on the way to them is damaged.
            match reader.blob_of(&octets, &row, &domain) {
                Ok(_) => {
                    rows.insert(row.at.offset, row);
                }
                Err(_) => unreadable.push(row),
            }
        }
        let salvage = is_salvaged.then_some(Salvage { reader: Arc::new(reader), octets, rows, _permit: permit });
        Examined { is_sound, is_headless, unreadable, salvage, failure: None }
    });
    examined.await
}

impl Repairing {
    /// Writes what reads of a pack into another, but for what `known` moves tell of, and says where it went.
    pub(super) async fn write_anew(&mut self, old: PackId, salvage: Salvage, known: &HashSet<u64>) -> Result<()> {
        let Salvage { reader, octets, rows, _permit } = salvage;
        let rows: Vec<Row> = rows.into_values().filter(|row| !known.contains(&row.at.offset)).collect();
        for rows in rows.chunks(ROWS_MAX / 2) {
            let (rows, octets) = (rows.to_vec(), octets.clone());
            let reader = Arc::clone(&reader);
            let token = self.writer.ok_or_else(|| Error::internal("a repair writes packs and has not registered"))?;
            let (writer, domain) =
                (self.repository.new_pack(&token, Vec::with_capacity(octets.len()))?, self.repository.domain().clone());
            let written = runtime::run(&**self.resources.executor(), move || {
                let mut packer = Packer::new(pack::LEVEL)?;
                let (mut writer, mut moves) = (writer, Vec::with_capacity(rows.len()));
                for row in rows {
                    let content = reader.blob_of(&octets, &row, &domain)?;
                    let at = writer.add(row.digest, &content, &mut packer)?;
                    moves.push(Move { offset: row.at.offset, to: Row { digest: row.digest, at } });
                }
                Ok::<_, Error>((writer.finish()?, moves))
            });
            let (pack, moves) = written.await??;
            self.put_pack(pack).await?;
            self.report.blobs_salvaged += moves.len() as u64;
            self.tell(old, moves).await?;
        }
        Ok(())
    }

    async fn put_pack(&mut self, pack: FinishedPack) -> Result<()> {
        let FinishedPack { id, octets, rows } = pack;
        let length = octets.len() as u64;
        self.repository.store().put(&id.key(), Payload::from(octets)).await?;
        self.packs.insert(id, length);
        self.report.packs_written += 1;
        self.rows.extend(rows.into_iter().filter(|row| row.at.content >= SEGMENT_CONTENT_MIN));
        self.write_full_segments().await
    }
}
