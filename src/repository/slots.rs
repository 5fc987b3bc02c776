//! Key slots as they lie in the store: each wraps the repository's secrets under a key of its own. What is done with them is in `keys`.
//!
//! Nothing in a slot is to be trusted before it opens, so all that a store can ask of a reader is bounded here.

use crate::digest::Domain;
use crate::error::{Error, ErrorKind, Result};
use crate::runtime::Executor;
use crate::seal::{Key, ObjectKind, Protection, SALT, Seal, Secrets, TAG};
use crate::store::{Created, Payload, Store, read_bounded, read_exact};
use crate::wire::{Decoder, Encode, from_hex, hex};
use bytes::Bytes;
use futures::StreamExt;
use std::fmt;
use std::str::FromStr;
use zeroize::Zeroizing;

/// The most names under `keys/` that are looked at.
pub(super) const NAMES_MAX: usize = 256;
/// The most slots that a repository is given.
pub(super) const SLOTS_MAX: usize = 64;
/// The most slots for passphrases that a repository is given, and that are tried to open it.
pub(super) const PASSPHRASES_MAX: usize = 16;
/// The longest label, in octets.
pub(super) const LABEL_MAX: usize = 255;
/// The longest slot that is read, in octets.
const OCTETS_MAX: u64 = 1024;
/// Octets of the two secrets, sealed.
const WRAPPED: usize = 64 + TAG;
/// Octets of the parameters of Argon2id.
const COST: usize = 12;
const KIND_KEY: u8 = 1;
const KIND_PASSPHRASE: u8 = 2;
const PREFIX: &str = "keys/";

/// Names a key slot: 16 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotId([u8; 8]);

impl SlotId {
    pub(super) fn new(octets: [u8; 8]) -> Self {
        Self(octets)
    }

    /// The slot's key in the store.
    pub(crate) fn object(self) -> String {
        format!("{PREFIX}{self}")
    }
}

impl fmt::Display for SlotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for SlotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for SlotId {
    type Err = Error;

    fn from_str(digits: &str) -> Result<Self> {
        from_hex(digits).map(Self).ok_or_else(|| Error::invalid("a key's id has 16 hexadecimal digits"))
    }
}

/// What opens a key slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum SlotKind {
    /// A key of 32 octets.
    Key,
    /// A passphrase.
    Passphrase,
    /// Nothing, as far as can be told: it is damaged, altered, or of another repository.
    Unreadable,
}

/// What lies under `keys/`.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// Slots and their lengths, by id.
    pub(super) slots: Vec<(SlotId, u64)>,
    /// Slots that somebody is removing, and the keys that say so.
    pub(super) marks: Vec<(SlotId, String)>,
    /// There was more than is looked at.
    pub(super) is_cut: bool,
}

impl Names {
    pub(super) async fn look(store: &dyn Store) -> Result<Self> {
        let mut names = Self::default();
        let mut listing = store.list(PREFIX).take(NAMES_MAX + 1).enumerate();
        while let Some((at, listed)) = listing.next().await {
            let listed = listed?;
            names.is_cut = at == NAMES_MAX;
            let name = listed.key.strip_prefix(PREFIX).unwrap_or_default();
            if names.is_cut {
                break;
            } else if let Some(id) = from_hex(name) {
                names.slots.push((SlotId(id), listed.length));
            } else if let Some((Some(id), Some(_))) =
                name.split_once('.').map(|(id, of)| (from_hex(id), from_hex::<8>(of)))
            {
                names.marks.push((SlotId(id), listed.key));
            }
        }
        names.slots.sort_unstable();
        Ok(names)
    }
}

/// A mark that a slot is being removed. It holds nothing; each try to remove has its own.
pub(super) fn mark(id: SlotId, token: [u8; 8]) -> String {
    format!("{PREFIX}{id}.{}", hex(&token))
}

/// A slot whose layout is right. Whether it is what it says is known when it opens.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) id: SlotId,
    pub(super) kind: SlotKind,
    repository: [u8; 16],
    salt: [u8; SALT],
    #[cfg_attr(not(feature = "passphrase"), allow(dead_code, reason = "nobody can use it"))]
    cost: [u8; COST],
    /// Where the wrapped secrets begin.
    wrapped: usize,
    octets: Bytes,
}

/// What a slot says to who knows the repository's secrets.
#[derive(Debug)]
pub(super) struct Note {
    /// Nanoseconds since 1970.
    pub(super) created: u64,
    pub(super) label: String,
}

impl Slot {
    /// Reads a slot of this length; `None` if it is no longer there. The inner error is of a slot that is none.
    pub(super) async fn read(store: &dyn Store, id: SlotId, length: u64) -> Result<Option<Result<Self>>> {
        if length > OCTETS_MAX {
            return Ok(Some(Err(Error::damaged("a key slot is too long"))));
        }
        Self::read_as(id, read_exact(store, &id.object(), 0..length).await)
    }

    /// As [`read`](Self::read), without knowing the slot's length.
    pub(super) async fn read_any(store: &dyn Store, id: SlotId) -> Result<Option<Result<Self>>> {
        Self::read_as(id, read_bounded(store, &id.object(), OCTETS_MAX).await)
    }

    fn read_as(id: SlotId, read: Result<Bytes>) -> Result<Option<Result<Self>>> {
        match read {
            Ok(octets) => Ok(Some(Self::decode(id, octets))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) if error.kind() == ErrorKind::Damaged => Ok(Some(Err(error))),
            Err(error) => Err(error),
        }
    }

    fn decode(id: SlotId, octets: Bytes) -> Result<Self> {
        let mut decoder = Decoder::new(&octets);
        if decoder.array::<8>()? != ObjectKind::Slot.magic() {
            return Err(Error::damaged("this is no key slot of a known version"));
        }
        let (salt, repository) = (decoder.array()?, decoder.array()?);
        let (kind, cost) = match decoder.byte()? {
            KIND_KEY => (SlotKind::Key, [0; COST]),
            KIND_PASSPHRASE => (SlotKind::Passphrase, decoder.array()?),
            _ => return Err(Error::new(ErrorKind::Unsupported, "a key slot is of an unknown kind")),
        };
        let wrapped = octets.len() - decoder.rest().len();
        decoder.take(WRAPPED)?;
        Ok(Self { id, kind, repository, salt, cost, wrapped, octets })
    }

    /// The secrets, if this is the slot's key.
    pub(super) fn unwrap(&self, key: &Key) -> Option<Secrets> {
        let sealed = self.octets.get(self.wrapped..self.wrapped + WRAPPED)?;
        let mut sealed = Zeroizing::new(sealed.to_vec());
        let seal = Seal::of_slot(key, &wrapped_name(&self.repository, self.id), &self.salt).ok()?;
        let mut secrets = Decoder::new(seal.open(0, &mut sealed).ok()?);
        Some(Secrets { domain: Domain::new(secrets.array().ok()?), master: Some(secrets.array().ok()?) })
    }

    /// The note, which is there only if every octet of the slot is as it was written, under this id, in this repository.
    pub(super) fn note(&self, secrets: &Secrets) -> Result<Note> {
        let (front, sealed) = self.octets.split_at(self.wrapped + WRAPPED);
        let mut sealed = sealed.to_vec();
        let seal = Seal::new(secrets, ObjectKind::Slot, &self.id.object(), &self.salt)?;
        let mut note = Decoder::new(seal.open(1, &mut sealed)?);
        if note.array()? != *secrets.domain.digest(front).as_bytes() {
            return Err(Error::damaged("a key slot is not what was written"));
        }
        let (created, label) = (note.number()?, note.text()?.to_owned());
        note.end()?;
        Ok(Note { created, label })
    }

    /// The key that `protection` is for this slot, which must be of its kind.
    #[cfg_attr(not(feature = "passphrase"), allow(unused_variables, reason = "a key file needs no work"))]
    async fn key(&self, protection: &Protection, executor: &dyn Executor) -> Result<Key> {
        match protection {
            Protection::Key(key) => Ok(key.clone()),
            #[cfg(feature = "passphrase")]
            Protection::Passphrase(passphrase) => {
                derive(passphrase, crate::PassphraseCost::decode(&self.cost)?, self.salt, executor).await
            }
            Protection::None => Err(no_key()),
        }
    }

    /// The secrets, if `protection` opens this slot.
    pub(super) async fn open(&self, protection: &Protection, executor: &dyn Executor) -> Result<Option<Secrets>> {
        Ok(self.unwrap(&self.key(protection, executor).await?))
    }
}

/// Opens the first slot that `protection` opens. Only slots of its kind that say to be of this repository are tried.
pub(super) async fn open(
    store: &dyn Store,
    repository: &[u8; 16],
    protection: &Protection,
    executor: &dyn Executor,
) -> Result<(Secrets, SlotId)> {
    let (wanted, names) = (kind_of(protection)?, Names::look(store).await?);
    let (mut tried, mut unreadable) = (0, 0);
    for (id, length) in names.slots {
        let slot = match Slot::read(store, id, length).await? {
            Some(Ok(slot)) => slot,
            Some(Err(_)) => {
                unreadable += 1;
                continue;
            }
            None => continue,
        };
        if slot.repository != *repository {
            unreadable += 1;
            continue;
        }
        if slot.kind != wanted {
            continue;
        }
        if wanted == SlotKind::Passphrase && tried == PASSPHRASES_MAX {
            unreadable += 1;
            continue;
        }
        #[cfg(feature = "passphrase")]
        if wanted == SlotKind::Passphrase && crate::PassphraseCost::decode(&slot.cost).is_err() {
            unreadable += 1;
            continue;
        }
        tried += 1;
        if let Some(secrets) = slot.open(protection, executor).await? {
            return Ok((secrets, id));
        }
    }
    Err(wrong_key(wanted, tried, unreadable))
}

/// Makes a slot for `protection` and writes it under an id that is free.
///
/// # Cancel safety
/// Dropping the future leaves no slot or a whole one.
pub(super) async fn write(
    store: &dyn Store,
    executor: &dyn Executor,
    repository: &[u8; 16],
    secrets: &Secrets,
    protection: &Protection,
    new: New<'_>,
) -> Result<()> {
    let (key, front) = front(executor, repository, protection, &new).await?;
    let payload = Payload::from(encode(repository, secrets, &key, front, &new)?);
    let object = new.id.object();
    let written = payload.pieces().to_vec().concat();
    match store.create(&object, payload).await? {
        Created::New => Ok(()),
        // It may be ours, of a try within the store whose answer was lost. It is never another slot, unless randomness repeats itself.
        Created::Exists if store.read(&object, Some(0..written.len() as u64 + 1)).await? == written => Ok(()),
        Created::Exists => Err(Error::damaged("the key slot that was just written does not read as it was written")),
    }
}

/// What is new in a slot.
#[derive(Debug)]
pub(super) struct New<'a> {
    pub(super) id: SlotId,
    pub(super) salt: [u8; SALT],
    /// Nanoseconds since 1970.
    pub(super) created: u64,
    pub(super) label: &'a str,
}

/// The key that wraps, and the octets in front of what it wraps.
#[cfg_attr(not(feature = "passphrase"), allow(unused_variables, reason = "a key file needs no work"))]
async fn front(
    executor: &dyn Executor,
    repository: &[u8; 16],
    protection: &Protection,
    new: &New<'_>,
) -> Result<(Key, Vec<u8>)> {
    let mut front = ObjectKind::Slot.magic().to_vec();
    front.extend_from_slice(&new.salt);
    front.extend_from_slice(repository);
    match protection {
        Protection::Key(key) => {
            front.push(KIND_KEY);
            Ok((key.clone(), front))
        }
        #[cfg(feature = "passphrase")]
        Protection::Passphrase(passphrase) => {
            front.push(KIND_PASSPHRASE);
            front.extend_from_slice(&passphrase.cost().encode());
            Ok((derive(passphrase, passphrase.cost(), new.salt, executor).await?, front))
        }
        Protection::None => Err(no_key()),
    }
}

fn encode(repository: &[u8; 16], secrets: &Secrets, key: &Key, front: Vec<u8>, new: &New<'_>) -> Result<Vec<u8>> {
    let master = secrets.master.as_ref().ok_or_else(no_key)?;
    let mut octets = front;
    let from = octets.len();
    // Reserved at once, so that the secrets are nowhere but where they are sealed in place.
    octets.reserve_exact(OCTETS_MAX as usize);
    octets.extend_from_slice(secrets.domain.as_bytes());
    octets.extend_from_slice(master);
    Seal::of_slot(key, &wrapped_name(repository, new.id), &new.salt)?.seal(0, &mut octets, from)?;
    let digest = secrets.domain.digest(&octets);
    let from = octets.len();
    octets.extend_from_slice(digest.as_bytes());
    octets.number(new.created);
    octets.octets(new.label.as_bytes());
    Seal::new(secrets, ObjectKind::Slot, &new.id.object(), &new.salt)?.seal(1, &mut octets, from)?;
    Ok(octets)
}

#[cfg(feature = "passphrase")]
async fn derive(
    passphrase: &crate::Passphrase,
    cost: crate::PassphraseCost,
    salt: [u8; SALT],
    executor: &dyn Executor,
) -> Result<Key> {
    let passphrase = passphrase.clone();
    crate::runtime::run(executor, move || passphrase.derive(cost, &salt)).await?
}

pub(super) fn kind_of(protection: &Protection) -> Result<SlotKind> {
    match protection {
        Protection::Key(_) => Ok(SlotKind::Key),
        #[cfg(feature = "passphrase")]
        Protection::Passphrase(_) => Ok(SlotKind::Passphrase),
        Protection::None => Err(no_key()),
    }
}

/// A slot's name for the seal of its secrets: bound to the repository, so that a slot copied to another opens nothing there.
fn wrapped_name(repository: &[u8; 16], id: SlotId) -> String {
    format!("{}/{}", hex(repository), id.object())
}

fn wrong_key(wanted: SlotKind, tried: usize, unreadable: usize) -> Error {
    let mut message = match (wanted, tried) {
        (SlotKind::Passphrase, 0) => "no passphrase opens this repository: it has none".to_owned(),
        (SlotKind::Passphrase, _) => "the passphrase does not open this repository".to_owned(),
        (_, 0) => "no key file opens this repository: it has none".to_owned(),
        _ => "the key does not open this repository".to_owned(),
    };
    if unreadable > 0 {
        message +=
            &format!(" ({unreadable} key slots are damaged, of another repository, or ask for more than is allowed)");
    }
    Error::new(ErrorKind::Key, message)
}

fn no_key() -> Error {
    Error::invalid("a key slot needs a key")
}

/// Reads octets as a slot, and opens it.
#[cfg(any(test, fuzzing))]
pub(super) fn read_any(octets: &[u8], secrets: &Secrets) {
    if let Ok(slot) = Slot::decode(SlotId([1; 8]), Bytes::copy_from_slice(octets)) {
        let _ = (slot.unwrap(&Key::new([1; 32])), slot.note(secrets));
    }
}
