//! Sealing: what makes every object unreadable without the key, and every altered octet noticed with or without one.
//!
//! Each object has a random salt; its key is derived from the repository's secret, the object's kind, its name and the salt; nonces count
//! the object's frames. So no nonce repeats under a key, and an object moved to another name does not open. Layout: docs/format.md.

#[cfg(feature = "passphrase")]
mod passphrase;

#[cfg(feature = "passphrase")]
pub use passphrase::{Passphrase, PassphraseCost};

use crate::digest::Domain;
use crate::error::{Error, ErrorKind, Result};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use std::fmt;
use zeroize::{Zeroize, Zeroizing};

/// Octets that sealing adds to a frame, with a key or without.
pub(crate) const TAG: usize = 16;

/// Octets of an object's salt.
pub(crate) const SALT: usize = 32;

/// How a repository protects what it stores. There is no default: leaving mail unencrypted must be somebody's decision.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Protection {
    /// Everything is encrypted and authenticated (AES-256-GCM) under secrets that this key unwraps.
    Key(Key),
    /// The same, under a key that Argon2id makes from a passphrase.
    #[cfg(feature = "passphrase")]
    #[cfg_attr(docsrs, doc(cfg(feature = "passphrase")))]
    Passphrase(Passphrase),
    /// Nothing is encrypted. Damage is still noticed, but who can write to the store can also forge.
    None,
}

/// A 256-bit key. Its owner keeps it: without it (or another one that was added) a sealed repository is noise. Overwritten when it is dropped.
#[derive(Clone)]
pub struct Key([u8; 32]);

impl Key {
    /// A key of these octets, which should be random.
    #[must_use]
    pub const fn new(octets: [u8; 32]) -> Self {
        Self(octets)
    }

    /// The key in a key file's octets: exactly 32, raw.
    ///
    /// # Errors
    /// [`Key`](ErrorKind::Key) if there are more or fewer.
    pub fn from_file_octets(octets: &[u8]) -> Result<Self> {
        let octets = octets.try_into().map_err(|_| {
            Error::new(ErrorKind::Key, format!("a key file holds exactly 32 octets, this one {}", octets.len()))
        })?;
        Ok(Self(octets))
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

/// The kinds of objects that are sealed. Part of each object's key, so one kind cannot pass for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ObjectKind {
    Slot,
    Pack,
    Commit,
    Segment,
    Run,
    Sweep,
    Approval,
    Bad,
    Moves,
}

impl ObjectKind {
    /// The first eight octets of the object: kind and format version.
    pub(crate) const fn magic(self) -> [u8; 8] {
        match self {
            Self::Slot => *b"MRSLOT\x01\x00",
            Self::Pack => *b"MRPACK\x01\x00",
            Self::Commit => *b"MRCOMM\x01\x00",
            Self::Segment => *b"MRINDX\x01\x00",
            Self::Run => *b"MRRUNS\x01\x00",
            Self::Sweep => *b"MRSWEP\x01\x00",
            Self::Approval => *b"MRAPPR\x01\x00",
            Self::Bad => *b"MRBADP\x01\x00",
            Self::Moves => *b"MRMOVE\x01\x00",
        }
    }
}

/// What a repository keeps secret. Overwritten when it is dropped.
#[derive(Clone)]
pub(crate) struct Secrets {
    pub(crate) domain: Domain,
    /// The key that object keys are derived from, if there is protection.
    pub(crate) master: Option<[u8; 32]>,
}

impl Drop for Secrets {
    fn drop(&mut self) {
        self.master.zeroize();
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets(..)")
    }
}

/// Seals and opens the frames of one object.
pub(crate) struct Seal(Cipher);

enum Cipher {
    // The key schedule is ring's, which does not overwrite it.
    Aead(Box<LessSafeKey>),
    Checksum(Zeroizing<[u8; 32]>),
}

impl Seal {
    /// The seal of the object `name` with this salt.
    pub(crate) fn new(secrets: &Secrets, kind: ObjectKind, name: &str, salt: &[u8; SALT]) -> Result<Self> {
        match &secrets.master {
            Some(master) => Self::aead(&object_key(master, kind, name, salt)),
            None => Ok(Self(Cipher::Checksum(object_key(secrets.domain.as_bytes(), kind, name, salt)))),
        }
    }

    /// The seal of a key slot, whose secret is the owner's key.
    pub(crate) fn of_slot(key: &Key, name: &str, salt: &[u8; SALT]) -> Result<Self> {
        Self::aead(&object_key(&key.0, ObjectKind::Slot, name, salt))
    }

    fn aead(key: &[u8; 32]) -> Result<Self> {
        let key = UnboundKey::new(&AES_256_GCM, key).map_err(|_| Error::internal("the cipher refuses its key"))?;
        Ok(Self(Cipher::Aead(Box::new(LessSafeKey::new(key)))))
    }

    /// Seals `buffer[from..]` in place as frame `frame` and appends the tag. A frame number is used once for an object.
    pub(crate) fn seal(&self, frame: u64, buffer: &mut Vec<u8>, from: usize) -> Result<()> {
        let tag = match &self.0 {
            Cipher::Aead(key) => {
                let tag = key
                    .seal_in_place_separate_tag(nonce(frame), Aad::empty(), &mut buffer[from..])
                    .map_err(|_| Error::internal("a frame is too long for the cipher"))?;
                tag.as_ref().try_into().map_err(|_| Error::internal("the cipher's tag has another length"))?
            }
            Cipher::Checksum(key) => checksum(key, frame, &buffer[from..]),
        };
        let tag: [u8; TAG] = tag;
        buffer.extend_from_slice(&tag);
        Ok(())
    }

    /// Opens a sealed frame in place and gives its payload.
    pub(crate) fn open<'a>(&self, frame: u64, sealed: &'a mut [u8]) -> Result<&'a mut [u8]> {
        let bad = || Error::damaged("a frame does not verify");
        match &self.0 {
            Cipher::Aead(key) => key.open_in_place(nonce(frame), Aad::empty(), sealed).map_err(|_| bad()),
            Cipher::Checksum(key) => {
                let length = sealed.len().checked_sub(TAG).ok_or_else(bad)?;
                let (payload, tag) = sealed.split_at_mut(length);
                let is_same = checksum(key, frame, payload) == *tag || cfg!(planted = "no_digest_check");
                if is_same { Ok(payload) } else { Err(bad()) }
            }
        }
    }
}

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seal(..)")
    }
}

fn object_key(secret: &[u8; 32], kind: ObjectKind, name: &str, salt: &[u8; SALT]) -> Zeroizing<[u8; 32]> {
    let mut hasher = blake3::Hasher::new_keyed(secret);
    hasher.update(b"mailrail object key 1").update(&kind.magic()).update(salt).update(name.as_bytes());
    let mut hash = hasher.finalize();
    let key = Zeroizing::new(*hash.as_bytes());
    hash.zeroize();
    hasher.zeroize();
    key
}

fn nonce(frame: u64) -> Nonce {
    let mut octets = [0; 12];
    octets[..8].copy_from_slice(&frame.to_le_bytes());
    Nonce::assume_unique_for_key(octets)
}

fn checksum(key: &[u8; 32], frame: u64, payload: &[u8]) -> [u8; TAG] {
    let mut hasher = blake3::Hasher::new_keyed(key);
    hasher.update(&frame.to_le_bytes()).update(payload);
    let mut tag = [0; TAG];
    hasher.finalize_xof().fill(&mut tag);
    tag
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seals() -> [Seal; 2] {
        let domain = Domain::new([7; 32]);
        let with = |master| {
            let secrets = Secrets { domain: domain.clone(), master };
            Seal::new(&secrets, ObjectKind::Pack, "packs/00/a", &[1; SALT]).unwrap()
        };
        [with(Some([9; 32])), with(None)]
    }

    #[test]
    fn any_flipped_bit_or_other_frame_number_is_noticed_with_and_without_a_key() {
        for seal in seals() {
            let mut sealed = b"in front".to_vec();
            sealed.extend_from_slice(b"payload");
            seal.seal(3, &mut sealed, 8).unwrap();
            assert_eq!(sealed.len(), 8 + 7 + TAG);
            for bit in 64..sealed.len() * 8 {
                let mut flipped = sealed.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(seal.open(3, &mut flipped[8..]).unwrap_err().kind(), ErrorKind::Damaged);
            }
            assert!(seal.open(4, &mut sealed.clone()[8..]).is_err());
            assert!(seal.open(3, &mut sealed.clone()[8..8 + TAG - 1]).is_err());
            assert_eq!(seal.open(3, &mut sealed[8..]).unwrap(), b"payload");
        }
    }

    #[test]
    fn an_object_does_not_open_under_another_name_kind_or_salt() {
        let secrets = Secrets { domain: Domain::new([7; 32]), master: Some([9; 32]) };
        let seal = |kind, name, salt| Seal::new(&secrets, kind, name, &[salt; SALT]).unwrap();
        let mut sealed = b"payload".to_vec();
        seal(ObjectKind::Pack, "a", 1).seal(0, &mut sealed, 0).unwrap();
        for other in [seal(ObjectKind::Commit, "a", 1), seal(ObjectKind::Pack, "b", 1), seal(ObjectKind::Pack, "a", 2)]
        {
            assert!(other.open(0, &mut sealed.clone()).is_err());
        }
    }
}
