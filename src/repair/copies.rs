//! Finding blobs again: the digest names the content, wherever it is.

use super::{FOOTERS_MAX, Repairing, is_of_object};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::pack::{PackId, PackReader, Row};
use crate::repository::{Move, Repository, read_footer};
use crate::resources::Resources;
use crate::runtime;
use crate::store::read_exact;
use futures::{StreamExt, stream};
use std::collections::{BTreeMap, HashMap, HashSet};

/// Whether a blob is what its row says. Takes up to a third of the budget.
pub(super) async fn reads(repository: &Repository, resources: &Resources, row: &Row) -> Result<bool> {
    let (store, key, row) = (repository.store(), row.at.pack.key(), *row);
    let octets = u64::from(row.at.stored) + u64::from(row.at.content);
    let _permit = resources.budget().acquire(octets.min(resources.budget().octets() / 3)).await;
    let read = async {
        let reader = PackReader::new(row.at.pack, repository.secrets())?;
        Ok::<_, Error>((reader, read_exact(&**store, &key, row.at.offset..row.at.end()).await?))
    };
    let (reader, frame) = match read.await {
        Ok(read) => read,
        Err(error) if error.is_loss() => return Ok(false),
        Err(error) => return Err(error),
    };
    let domain = repository.domain().clone();
    runtime::run(&**resources.executor(), move || reader.verified(&row, &mut frame.to_vec(), &domain).is_ok()).await
}

impl Repairing {
    /// Looks for blobs in the footers of all packs, and says in moves where they are. Gives those that are nowhere, by pack and offset.
    pub(super) async fn find(&mut self, missing: Vec<Row>) -> Result<HashSet<(PackId, u64)>> {
        let mut wanted: HashMap<Digest, Vec<Row>> = HashMap::new();
        for row in missing {
            wanted.entry(row.digest).or_default().push(row);
        }
        let mut found: BTreeMap<PackId, Vec<Move>> = BTreeMap::new();
        let mut packs = self.listed();
        // What could be read of those without an end is in other packs by now.
        packs.retain(|(pack, _)| !self.endless.contains(pack) && !wanted.is_empty());
        let repository = self.repository.clone();
        let footers = stream::iter(packs).map(|(pack, length)| {
            let rows = read_footer(&repository, pack, length);
            async move { (pack, rows.await) }
        });
        let mut footers = footers.buffered(FOOTERS_MAX);
        while let Some(footer) = footers.next().await {
            if wanted.is_empty() {
                break;
            }
            let rows = match footer {
                (_, Err(error)) if error.is_loss() => continue,
                (pack, Err(error)) if is_of_object(&error) => {
                    self.pass_over(pack, &error);
                    continue;
                }
                (_, rows) => rows?,
            };
            for to in rows {
                let Some(places) = wanted.get(&to.digest) else { continue };
                let is_itself = places.iter().any(|row| row.at == to.at);
                if is_itself || !self.reads(&to).await? {
                    continue;
                }
                for row in wanted.remove(&to.digest).unwrap_or_default() {
                    self.report.blobs_found += 1;
                    found.entry(row.at.pack).or_default().push(Move { offset: row.at.offset, to });
                }
            }
        }
        for (pack, moves) in found {
            self.tell(pack, moves).await?;
        }
        // What the store may give again is not lost.
        let lost = wanted.into_values().flatten().filter(|row| !self.unreadable.contains_key(&row.at.pack));
        Ok(lost.map(|row| (row.at.pack, row.at.offset)).collect())
    }
}
