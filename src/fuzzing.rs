//! The fuzz targets that need the crate's insides. Compiled under `cfg(fuzzing)`, which cargo-fuzz sets, and for the tests below.
//!
//! Each function takes any octets and panics if the crate does something that it never should.

mod sealed;

pub use sealed::{objects as sealed_objects, round_trip};

use crate::digest::Domain;
use crate::pack::{FinishedPack, PackId, PackReader, PackWriter, Packer, TRAILER, Trailer};
use crate::repository::fuzzing::{Choices, columns, commit, commit_changed, config, tables};
use crate::seal::{ObjectKind, Seal, Secrets};
use crate::source::mbox::{Variant, split_all};

const ID: PackId = PackId::new([5; 32]);

/// Any octets, and sound objects with one octet changed, as what a repository holds: refused or read, no changed octet unnoticed.
/// The first octet chooses what the rest is taken for.
pub fn objects(input: &[u8]) {
    let Some((choice, octets)) = input.split_first() else { return };
    match choice % 7 {
        0 => pack(octets),
        1 => pack_changed(octets),
        2 => commit(octets),
        3 => commit_changed(octets),
        4 => columns(octets),
        5 => config(octets),
        _ => tables(octets),
    }
}

/// Any octets as an mbox, read in chunks of any size: the messages and what is around them are the file, and the chunks do not matter.
/// The first octets choose the chunk, the longest message in memory and the variant, the rest is the file.
pub fn mbox_split(input: &[u8]) {
    let Some((choice, file)) = input.split_first_chunk::<4>() else { return };
    let chunk = usize::from(u16::from_le_bytes([choice[0], choice[1]])) + 1;
    let inline_max = u64::from(choice[2]) * 16;
    let variant = [None, Some(Variant::Mboxrd), Some(Variant::Mboxcl2)][usize::from(choice[3]) % 3];

    let pieces = split_all(file, chunk, inline_max, variant);
    assert_eq!(pieces.concat().concat(), file);
    assert_eq!(split_all(file, file.len().max(1), u64::MAX, variant), pieces);
}

/// Reads octets as a pack: as they are, and as the frame and the footer of a pack that somebody who has the key has forged.
fn pack(octets: &[u8]) {
    for secrets in secrets() {
        read(&secrets, octets.to_vec());
        read(&secrets, forged(&secrets, octets));
    }
}

/// Changes one octet of a sound pack: the pack is refused, or the blob in which it lies.
fn pack_changed(octets: &[u8]) {
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
    let mut writer = PackWriter::new(ID, secrets, Vec::new()).expect("a pack");
    for blob in blobs {
        writer.add(secrets.domain.digest(blob), blob, &mut packer).expect("a blob");
    }
    writer.finish().expect("a finished pack")
}

/// A pack whose seals are right, and whose content is what the octets say.
fn forged(secrets: &Secrets, octets: &[u8]) -> Vec<u8> {
    let mut choices = Choices::new(octets);
    let (footer, frame) = (choices.blob(), choices.rest().to_vec());
    let seal = Seal::new(secrets, ObjectKind::Pack, &ID.key(), ID.as_bytes()).expect("a seal");
    let mut pack = ObjectKind::Pack.magic().to_vec();
    pack.extend_from_slice(ID.as_bytes());
    pack.extend_from_slice(&(frame.len() as u32 + 16).to_le_bytes());
    let append = |number, payload: &[u8], pack: &mut Vec<u8>| {
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
    let reader = PackReader::new(ID, secrets).expect("a reader");
    // What reads from the front of a pack is what reads by its footer, if that reads.
    reader.walk(&octets, &secrets.domain, |row, content| assert_eq!(row.at.content as usize, content.len()));
    let (mut all, mut bad) = (0, 0);
    let whole = reader.verify(&mut octets, &secrets.domain, |_, outcome| {
        all += 1;
        bad += usize::from(outcome.is_err());
    });
    whole.ok().map(|()| (all, bad))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;

    /// Runs a target on its seeds, and on every input that it once failed on.
    fn replay(target: &str, run: fn(&[u8])) {
        let package = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut inputs = 0;
        for (folder, start) in
            [(package.join("fuzz/seeds").join(target), ""), (package.join("tests/regressions"), target)]
        {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                if entry.file_name().to_string_lossy().starts_with(start) {
                    println!("{}", entry.path().display());
                    run(&fs::read(entry.path()).unwrap());
                    inputs += 1;
                }
            }
        }
        assert!(inputs > 0, "{target} has no inputs");
    }

    #[test]
    fn inputs_that_once_failed_as_objects_fail_no_more() {
        replay("pack", objects);
    }

    #[test]
    fn inputs_that_once_failed_as_whole_objects_fail_no_more() {
        replay("objects", sealed_objects);
    }

    #[test]
    fn inputs_that_once_failed_to_come_back_fail_no_more() {
        replay("round_trip", round_trip);
    }

    #[test]
    fn inputs_that_once_failed_as_an_mbox_fail_no_more() {
        replay("mbox_split", mbox_split);
    }
}
