//! Moves: where blobs of a pack are, too. Readers look here when a pack is missing or a frame of it damaged, and only then.

use super::Repository;
use crate::error::{Error, Result};
use crate::pack::{PackId, ROWS_MAX, Row};
use crate::seal::ObjectKind;
use crate::store::{Listed, read_exact};
use crate::wire::{Decoder, Encode, from_hex, hex};
use futures::TryStreamExt;
use std::collections::{BTreeMap, BTreeSet, HashSet};

/// Where moves are, under the old packs' names.
pub(crate) const MOVES: &str = "moves/";
/// The longest object of moves that is read.
const OCTETS_MAX: u64 = 64 << 20;
/// How often a blob that was moved may have been moved on. A sweep leaves packs as they are whose blobs came so far.
pub(crate) const HOPS_MAX: u8 = 16;

/// A blob that is elsewhere, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Move {
    /// Where its frame began in the old pack.
    pub(crate) offset: u64,
    /// What it is, and where it is now.
    pub(crate) to: Row,
}

/// All that is known of where a pack's blobs are: by offset in the pack, any number of places, each as good as the others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Moves {
    pub(crate) places: BTreeMap<u64, Vec<Row>>,
}

/// Says where blobs of `pack` are, and gives the octets written. The packs that are named must be durable. What was said before of the same pack stays.
pub(crate) async fn write_moves(repository: &Repository, pack: PackId, moves: &[Move]) -> Result<u64> {
    let mut written = 0;
    for part in moves.chunks(ROWS_MAX) {
        let salt = repository.salt()?;
        let key = format!("{}{pack}-{}", shard(pack), hex(&salt[..8]));
        let octets = repository.seal_object(ObjectKind::Moves, &key, &encode(part))?;
        written += octets.len() as u64;
        repository.store().put(&key, octets.into()).await?;
    }
    Ok(written)
}

/// Reads where blobs of `pack` are; of those that were moved on from there, the places after the ones before. What does not open is passed over: another
/// says the same, or nobody does.
pub(crate) async fn read_moves(repository: &Repository, pack: PackId) -> Result<Moves> {
    let mut moves = read_moves_of(repository, pack).await?;
    let mut read = HashSet::from([pack]);
    for _ in 0..HOPS_MAX {
        let next: BTreeSet<PackId> = moves.rows().map(|row| row.at.pack).filter(|pack| read.insert(*pack)).collect();
        if next.is_empty() {
            break;
        }
        for pack in next {
            let further = read_moves_of(repository, pack).await?;
            moves.follow(pack, &further);
        }
    }
    Ok(moves)
}

async fn read_moves_of(repository: &Repository, pack: PackId) -> Result<Moves> {
    let mut moves = Moves::default();
    let shard = shard(pack);
    let mut listing = repository.store().list(&shard);
    while let Some(object) = listing.try_next().await? {
        if moved_pack(&object.key) != Some(pack) {
            continue;
        }
        if let Ok(found) = open(repository, &object).await {
            moves.add(found);
        }
    }
    Ok(moves)
}

/// Checks that listed moves open, and gives the old pack's name with them.
pub(crate) async fn check_moves(repository: &Repository, object: &Listed) -> Result<(PackId, Vec<Move>)> {
    let pack = moved_pack(&object.key).ok_or_else(|| Error::damaged("this is no name of moves"))?;
    Ok((pack, open(repository, object).await?))
}

/// The old pack whose moves these are.
pub(crate) fn moved_pack(key: &str) -> Option<PackId> {
    let (pack, _) = key.strip_prefix(MOVES)?.get(3..)?.split_once('-')?;
    from_hex(pack).map(PackId::new).filter(|pack| key.starts_with(&shard(*pack)))
}

/// Opens listed moves.
pub(crate) async fn open(repository: &Repository, object: &Listed) -> Result<Vec<Move>> {
    if object.length > OCTETS_MAX {
        return Err(Error::damaged("an object of moves is too long"));
    }
    let octets = read_exact(&**repository.store(), &object.key, 0..object.length).await?;
    decode(&repository.open_object(ObjectKind::Moves, &object.key, &octets)?)
}

/// Where the moves of a pack are, among those of others.
fn shard(pack: PackId) -> String {
    format!("{MOVES}{:02x}/", pack.shard())
}

impl Moves {
    /// Takes in more.
    pub(crate) fn add(&mut self, moves: impl IntoIterator<Item = Move>) {
        for Move { offset, to } in moves {
            let places = self.places.entry(offset).or_default();
            if !places.contains(&to) {
                places.push(to);
            }
        }
    }

    fn rows(&self) -> impl Iterator<Item = &Row> {
        self.places.values().flatten()
    }

    /// Takes in where blobs are that these moves lead to in `pack`.
    fn follow(&mut self, pack: PackId, further: &Self) {
        for places in self.places.values_mut() {
            let via =
                places.iter().filter(|row| row.at.pack == pack).filter_map(|row| further.places.get(&row.at.offset));
            let more: Vec<Row> = via.flatten().filter(|row| !places.contains(row)).copied().collect();
            places.extend(more);
        }
    }
}

fn encode(moves: &[Move]) -> Vec<u8> {
    let mut out = Vec::with_capacity(moves.len() * 64);
    out.number(moves.len() as u64);
    moves.iter().for_each(|one| out.number(one.offset));
    let rows: Vec<Row> = moves.iter().map(|one| one.to).collect();
    super::commit::encode_blobs(&rows, &mut out);
    out
}

pub(super) fn decode(octets: &[u8]) -> Result<Vec<Move>> {
    let mut decoder = Decoder::new(octets);
    let offsets: Vec<u64> = (0..decoder.count_up_to(1, ROWS_MAX)?).map(|_| decoder.number()).collect::<Result<_>>()?;
    let rows = super::commit::decode_table(decoder.rest(), ROWS_MAX)?;
    if rows.len() != offsets.len() {
        return Err(Error::damaged("moves do not tell as many places as blobs"));
    }
    Ok(offsets.into_iter().zip(rows).map(|(offset, to)| Move { offset, to }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use crate::pack::Location;
    use crate::seal::Protection;
    use crate::store::MemoryStore;
    use futures::executor::block_on;
    use proptest::prelude::*;
    use std::sync::Arc;

    fn one((offset, pack, digest, at): (u64, u8, u8, (u32, u32, u32))) -> Move {
        let at = Location {
            pack: PackId::new([pack; 32]),
            offset: u64::from(at.0),
            stored: at.1,
            content: at.2,
            frame: at.0,
        };
        Move { offset, to: Row { digest: Digest::new([digest; 32]), at } }
    }

    proptest! {
        #[test]
        fn moves_decode_as_they_were_encoded(moves: Vec<(u64, u8, u8, (u32, u32, u32))>, cut: prop::sample::Index) {
            let moves: Vec<Move> = moves.into_iter().map(one).collect();
            let encoded = encode(&moves);
            prop_assert_eq!(&decode(&encoded).unwrap(), &moves);
            prop_assert!(decode(&encoded[..cut.index(encoded.len())]).is_err());
        }

        #[test]
        fn anything_as_moves_is_refused_or_read(octets: Vec<u8>) {
            let _ = decode(&octets);
        }
    }

    #[test]
    fn what_is_said_of_a_pack_adds_up_and_what_is_damaged_is_passed_over() {
        block_on(async {
            let repository = Repository::open_or_create(Arc::new(MemoryStore::new()), Protection::None).await.unwrap();
            let (old, first, second) = (PackId::new([1; 32]), one((40, 2, 9, (40, 9, 7))), one((90, 3, 8, (50, 9, 7))));
            write_moves(&repository, old, &[first]).await.unwrap();
            write_moves(&repository, old, &[first, second]).await.unwrap();
            repository.store().put(&format!("{}{old}-0", shard(old)), vec![1; 90].into()).await.unwrap();
            let moves = read_moves(&repository, old).await.unwrap();
            assert_eq!(moves.places, BTreeMap::from([(40, vec![first.to]), (90, vec![second.to])]));
            assert_eq!(read_moves(&repository, PackId::new([2; 32])).await.unwrap(), Moves::default());
        });
    }
}
