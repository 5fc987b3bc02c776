//! What fuzz targets need of the crate's insides. Compiled under `cfg(fuzzing)` alone, which cargo-fuzz sets.
//!
//! Each function takes any octets and panics if the crate does something that it never should.

pub use crate::repository::fuzzing::{columns, commit, commit_changed, config, tables};

use crate::digest::Domain;
use crate::pack::{FinishedPack, HEADER, PackId, PackReader, PackWriter, Packer, TRAILER, Trailer};
use crate::repository::fuzzing::Choices;
use crate::seal::{ObjectKind, SALT, Seal, Secrets};

const ID: PackId = PackId::new([5; 16]);

/// Reads octets as a pack: as they are, and as the frame and the footer of a pack that somebody who has the key has forged.
pub fn pack(octets: &[u8]) {
    for secrets in secrets() {
        read(&secrets, octets.to_vec());
        read(&secrets, forged(&secrets, octets));
    }
}

/// Changes one octet of a sound pack: the pack is refused, or the blob in which it lies.
pub fn pack_changed(octets: &[u8]) {
    let mut choices = Choices::new(octets);
    let secrets = choices.one_of(&secrets()).clone();
    let blobs: Vec<Vec<u8>> = (0..choices.octet() % 6).map(|_| choices.blob()).collect();
    let mut pack = built(&secrets, &blobs);
    let sound = read(&secrets, pack.octets.clone());
    assert_eq!(sound, Some((blobs.len(), 0)), "a sound pack is refused");
    let at = choices.number() % pack.octets.len();
    pack.octets[at] ^= choices.octet().max(1);
    if let Some((_, bad)) = read(&secrets, pack.octets) {
        assert!(bad > 0, "a changed octet at {at} went unnoticed");
    }
}

fn secrets() -> [Secrets; 2] {
    [None, Some([9; 32])].map(|master| Secrets { domain: Domain::new([3; 32]), master })
}

fn built(secrets: &Secrets, blobs: &[Vec<u8>]) -> FinishedPack {
    let mut packer = Packer::new(1).expect("a packer");
    let mut writer = PackWriter::new(ID, secrets, [6; SALT], 0).expect("a pack");
    for blob in blobs {
        writer.add(secrets.domain.digest(blob), blob, &mut packer).expect("a blob");
    }
    writer.finish().expect("a finished pack")
}

/// A pack whose seals are right, and whose content is what the octets say.
fn forged(secrets: &Secrets, octets: &[u8]) -> Vec<u8> {
    let mut choices = Choices::new(octets);
    let (footer, frame) = (choices.blob(), choices.rest().to_vec());
    let seal = Seal::new(secrets, ObjectKind::Pack, &ID.key(), &[6; SALT]).expect("a seal");
    let mut pack = ObjectKind::Pack.magic().to_vec();
    pack.extend_from_slice(&[6; SALT]);
    pack.extend_from_slice(&(frame.len() as u32 + 16).to_le_bytes());
    let mut append = |number, payload: &[u8], pack: &mut Vec<u8>| {
        let from = pack.len();
        pack.extend_from_slice(payload);
        seal.seal(number, pack, from).expect("a sealed frame");
        pack.len() - from
    };
    append(0, &frame, &mut pack);
    let offset = pack.len();
    let length = append(1, &footer, &mut pack);
    pack.extend_from_slice(&(offset as u64).to_le_bytes());
    pack.extend_from_slice(&(length as u32).to_le_bytes());
    pack.extend_from_slice(&1_u32.to_le_bytes());
    pack.extend_from_slice(b"MRPACKED");
    pack
}

/// How many blobs a pack has, and how many of them are bad.
fn read(secrets: &Secrets, mut octets: Vec<u8>) -> Option<(usize, usize)> {
    let _ = Trailer::parse(octets.get(..TRAILER.min(octets.len()))?, octets.len() as u64);
    let reader = PackReader::new(ID, secrets, octets.get(..HEADER)?).ok()?;
    let (mut all, mut bad) = (0, 0);
    let whole = reader.verify(&mut octets, &secrets.domain, |_, outcome| {
        all += 1;
        bad += usize::from(outcome.is_err());
    });
    whole.ok().map(|()| (all, bad))
}
