//! Marks of packs that were found damaged, so that nothing new points at them and their content is stored again.

use super::Repository;
use crate::error::Result;
use crate::pack::PackId;
use crate::seal::ObjectKind;
use crate::store::{Created, Payload};
use crate::wire::{Decoder, Encode, from_hex};
use futures::TryStreamExt;
use std::collections::HashSet;

/// Where the marks are.
pub(crate) const BAD: &str = "bad/";
/// The longest mark that is read, in octets.
pub(crate) const OCTETS_MAX: u64 = 64 << 10;

/// What a mark says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BadMark {
    /// When the damage was found: nanoseconds since 1970.
    pub(crate) time: u64,
    /// What was found, for people.
    pub(crate) reason: String,
}

/// Marks a pack. A mark that is there already stays as it is.
pub(crate) async fn mark_bad(repository: &Repository, pack: PackId, reason: &str) -> Result<()> {
    let (key, octets) = sealed(repository, pack, reason)?;
    // Another may have found the same damage and say it in other words; one mark is enough.
    let _: Created = repository.store().create(&key, Payload::from(octets)).await?;
    Ok(())
}

/// Puts a mark in the place of one that does not open.
pub(crate) async fn mark_bad_anew(repository: &Repository, pack: PackId, reason: &str) -> Result<()> {
    let (key, octets) = sealed(repository, pack, reason)?;
    repository.store().put(&key, octets.into()).await
}

/// Takes a mark away: the pack is sound.
pub(crate) async fn unmark_bad(repository: &Repository, pack: PackId) -> Result<()> {
    repository.store().delete(&bad_key(pack)).await
}

/// The packs that are marked. The names of the marks say it: one that does not open counts, too.
pub(crate) async fn bad_packs(repository: &Repository) -> Result<HashSet<PackId>> {
    let mut packs = HashSet::new();
    let mut listing = repository.store().list(BAD);
    while let Some(object) = listing.try_next().await? {
        packs.extend(marked(&object.key));
    }
    Ok(packs)
}

/// The pack that the mark under this key is of.
pub(crate) fn marked(key: &str) -> Option<PackId> {
    let pack = key.strip_prefix(BAD).and_then(from_hex).map(PackId::new)?;
    (bad_key(pack) == key).then_some(pack)
}

/// The key of a mark, and its octets.
fn sealed(repository: &Repository, pack: PackId, reason: &str) -> Result<(String, Vec<u8>)> {
    let key = bad_key(pack);
    let mark = BadMark { time: repository.now(), reason: reason.to_owned() };
    let octets = repository.seal_object(ObjectKind::Bad, &key, &mark.encode())?;
    Ok((key, octets))
}

fn bad_key(pack: PackId) -> String {
    format!("{BAD}{pack}")
}

impl BadMark {
    /// Opens the mark under `key`.
    pub(crate) fn open(repository: &Repository, key: &str, octets: &[u8]) -> Result<Self> {
        Self::decode(&repository.open_object(ObjectKind::Bad, key, octets)?)
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.number(self.time);
        out.octets(self.reason.as_bytes());
        out
    }

    pub(super) fn decode(octets: &[u8]) -> Result<Self> {
        let mut decoder = Decoder::new(octets);
        let mark = Self { time: decoder.number()?, reason: decoder.text()?.to_owned() };
        decoder.end()?;
        Ok(mark)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seal::Protection;
    use crate::store::MemoryStore;
    use futures::executor::block_on;
    use proptest::prelude::*;
    use std::sync::Arc;

    proptest! {
        #[test]
        fn a_mark_decodes_as_it_was_encoded_and_anything_else_is_refused(time: u64, reason: String, any: Vec<u8>) {
            let mark = BadMark { time, reason };
            prop_assert_eq!(BadMark::decode(&mark.encode()).unwrap(), mark);
            let _ = BadMark::decode(&any);
        }
    }

    #[test]
    fn a_pack_is_marked_once_and_what_is_no_mark_is_none() {
        block_on(async {
            let repository = Repository::open_or_create(Arc::new(MemoryStore::new()), Protection::None).await.unwrap();
            let pack = PackId::new([7; 32]);
            mark_bad(&repository, pack, "first").await.unwrap();
            mark_bad(&repository, pack, "second").await.unwrap();
            repository.store().put("bad/other", Vec::new().into()).await.unwrap();
            assert_eq!(bad_packs(&repository).await.unwrap(), HashSet::from([pack]));
            let octets = repository.store().read(&bad_key(pack), None).await.unwrap();
            assert_eq!(BadMark::open(&repository, &bad_key(pack), &octets).unwrap().reason, "first");
            unmark_bad(&repository, pack).await.unwrap();
            assert!(bad_packs(&repository).await.unwrap().is_empty());
        });
    }
}
