//! The source's side: reads batches of messages, and tells of each where it is and what it is.

use crate::digest::{Digest, Domain};
use crate::ledger::{Incomplete, describe};
use crate::message::{Envelope, Identity};
use crate::source::{Batch, Body, Entry, Finished, Message, Unreadable};
use bytes::Bytes;

/// Octets read at a time.
const CHUNK: usize = 256 << 10;
/// The bit by which places without names are told from others.
const UNNAMED: u8 = 0x80;

/// Where a message is in its mailbox, in 16 octets: a digest of folder and name, or the folder and a number in its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place([u8; 16]);

/// What a message is, in 24 octets: the front of the digest of its octets, and of the digest of all that is kept besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Seen {
    pub(super) digest: [u8; 16],
    envelope: [u8; 8],
}

impl Place {
    /// The place of a message with a name.
    pub(super) fn named(domain: &Domain, folder: &[u8], name: &[u8]) -> Self {
        let mut hasher = domain.hasher();
        hasher.update(&(folder.len() as u64).to_le_bytes());
        hasher.update(folder);
        hasher.update(name);
        let mut place = front(&hasher.finish());
        place[0] &= !UNNAMED;
        Self(place)
    }

    /// What stands for a folder in the places of messages without names.
    pub(super) fn folder(domain: &Domain, folder: &[u8]) -> u64 {
        u64::from_be_bytes(front(&domain.digest(folder))) | u64::from(UNNAMED) << 56
    }

    /// The place of a message without a name: its number in a [folder](Self::folder)'s order.
    pub(super) fn unnamed(folder: u64, number: u64) -> Self {
        let mut place = [0; 16];
        place[..8].copy_from_slice(&folder.to_be_bytes());
        place[8..].copy_from_slice(&number.to_be_bytes());
        Self(place)
    }

    /// The [folder](Self::folder), if it is the place of a message without a name.
    pub(super) fn unnamed_in(self) -> Option<u64> {
        let folder = u64::from_be_bytes(self.0[..8].try_into().unwrap_or_default());
        (self.0[0] & UNNAMED != 0).then_some(folder)
    }
}

impl Seen {
    pub(super) fn new(octets: &Digest, envelope: &Digest) -> Self {
        Self { digest: front(octets), envelope: front(envelope) }
    }

    /// A message of these octets with everything that is kept besides.
    pub(super) fn of(domain: &Domain, octets: &Digest, envelope: &Envelope) -> Self {
        Self::new(octets, &envelope_digest(domain, envelope))
    }
}

fn front<const N: usize>(digest: &Digest) -> [u8; N] {
    std::array::from_fn(|at| digest.as_bytes()[at])
}

/// A digest of what can differ while the octets are the same.
fn envelope_digest(domain: &Domain, envelope: &Envelope) -> Digest {
    let mut hasher = domain.hasher();
    let mut put = |octets: &[u8]| {
        hasher.update(&(octets.len() as u64).to_le_bytes());
        hasher.update(octets);
    };
    put(&[envelope.flags.system.bits()]);
    put(&envelope.place);
    put(&envelope.before);
    put(&envelope.after);
    put(format!("{:?}", envelope.internal_date).as_bytes());
    envelope.flags.keywords().iter().for_each(|keyword| put(keyword.as_bytes()));
    hasher.finish()
}

/// What was read of a batch.
#[derive(Default)]
pub(super) struct Readings {
    pub(super) folders: Vec<Bytes>,
    pub(super) messages: Vec<Reading>,
    pub(super) failed: Vec<Incomplete>,
}

/// A message that was read, or why it could not be.
pub(super) struct Reading {
    pub(super) folder: Bytes,
    /// Empty if the source has no names.
    pub(super) name: Bytes,
    /// Its place; of one without a name the [folder](Place::folder) alone.
    pub(super) place: Result<Place, u64>,
    /// Length and what it is.
    pub(super) seen: Result<(u64, Seen), String>,
}

/// Reads all of a batch's messages.
pub(super) fn read_batch(batch: Batch, domain: &Domain) -> Readings {
    let mut readings = Readings::default();
    let mut buffer = Vec::new();
    for entry in batch.into_entries() {
        match entry {
            Entry::Folder(folder) => readings.folders.push(folder.path.raw),
            Entry::Message(message) => readings.messages.push(read_message(message, domain, &mut buffer)),
            Entry::Failed { name, error } => {
                readings.failed.push(Incomplete::new(String::from_utf8_lossy(&name).into_owned(), &error));
            }
            Entry::Excluded { .. } | Entry::Unchanged { .. } | Entry::Matched { .. } => {}
        }
    }
    readings
}

fn read_message(message: Message, domain: &Domain, buffer: &mut Vec<u8>) -> Reading {
    let Message { mut envelope, body } = message;
    let read = read(body, &mut envelope, domain, buffer);
    let seen = read.map(|(length, digest)| (length, Seen::of(domain, &digest, &envelope)));
    let (name, place) = match envelope.identity {
        Identity::Named(name) => {
            let place = Place::named(domain, &envelope.folder, &name);
            (name, Ok(place))
        }
        Identity::Content => (Bytes::new(), Err(Place::folder(domain, &envelope.folder))),
    };
    Reading { folder: envelope.folder, name, place, seen }
}

fn read(body: Body, envelope: &mut Envelope, domain: &Domain, buffer: &mut Vec<u8>) -> Result<(u64, Digest), String> {
    let why = |unreadable: Unreadable| describe(&unreadable.error);
    let open = match body {
        Body::Octets(octets) => return Ok((octets.len() as u64, domain.digest(&octets))),
        Body::Open { open, .. } => open,
    };
    let mut reader = open.open().map_err(why)?;
    let mut hasher = domain.hasher();
    let mut length = 0;
    buffer.resize(CHUNK, 0);
    loop {
        let read = reader.read(buffer).map_err(why)?;
        if read == 0 {
            break;
        }
        hasher.update(buffer.get(..read).unwrap_or_default());
        length += read as u64;
    }
    if let Finished::Moved { flags, place } = reader.finish(length).map_err(why)? {
        (envelope.flags, envelope.place) = (flags, place);
    }
    Ok((length, hasher.finish()))
}
