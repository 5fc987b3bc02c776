//! The repository: all objects under one prefix of one store. Config and keys here; journals, run records and index segments beside.
//!
//! Order of writing: packs are durable before the commit that points at them; everything else is derived or follows.

mod bad;
mod checkpoint;
mod columns;
mod commit;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod journal;
mod kinds;
mod moves;
mod run;
mod salvage;
mod segment;
#[cfg(test)]
mod tests;
mod twin;

pub(crate) use bad::{BAD, BadMark, bad_packs, mark_bad, marked, unmark_bad};
pub(crate) use checkpoint::{Checkpoint, Others};
pub(crate) use columns::{MessageRow, RecipeRange};
pub(crate) use commit::{
    CommitRef, CompressedBlock, Draft, FolderRecord, Place, SourceRecord, decode_blobs, encode as encode_commit,
};
pub(crate) use journal::{Contents, Journal, JournalHead, JournalName};
pub(crate) use moves::{MOVES, Move, Moves, check_moves, read_moves, write_moves};
pub(crate) use run::{RunRecord, RunWriter};
pub(crate) use salvage::{AllCommits, LostCommit};
pub(crate) use segment::{
    CONTENT_MIN as SEGMENT_CONTENT_MIN, ROWS_MAX as SEGMENT_ROWS_MAX, check_segment, count_segments, read_segments,
    write_segment,
};
pub(crate) use twin::{CONFIG_COPY, check_config, mend_config};

use crate::digest::{Digest, Domain};
use crate::error::{Error, ErrorKind, Result};
use crate::message::MailboxName;
use crate::pack::{PackId, PackWriter};
use crate::runtime::{Clock, Randomness, SystemClock, SystemRandomness};
use crate::seal::{Key, ObjectKind, Protection, SALT, Seal, Secrets};
use crate::store::{Created, Payload, Store};
use crate::wire::{Decoder, hex};
use bytes::Bytes;
use futures::TryStreamExt;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// A repository that is open. Cloning shares it.
#[derive(Clone)]
pub struct Repository(Arc<Inner>);

struct Inner {
    store: Arc<dyn Store>,
    id: [u8; 16],
    secrets: Secrets,
    /// Names this opening of the repository among all writers there ever were.
    writer: [u8; 8],
    /// How many run records this opening has written.
    runs: AtomicU64,
    is_index_loaded: AtomicBool,
    clock: Arc<dyn Clock>,
    randomness: Arc<dyn Randomness>,
}

const CONFIG: &str = "config";
const CONFIG_MAGIC: &[u8; 8] = b"MRCONF\x01\x00";
const CONFIG_CHECK: usize = 16;
const PROTECTION_NONE: u8 = 0;
const PROTECTION_KEY: u8 = 1;

/// The clock and the randomness of a repository; replaced in simulations.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Seams {
    /// Tells the time of commits.
    pub clock: Arc<dyn Clock>,
    /// Gives salts, ids and keys.
    pub randomness: Arc<dyn Randomness>,
}

impl Default for Seams {
    fn default() -> Self {
        Self { clock: Arc::new(SystemClock), randomness: Arc::new(SystemRandomness) }
    }
}

impl Repository {
    /// Opens the repository in `store`.
    ///
    /// # Cancel safety
    /// Nothing is written.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if there is none, [`Key`](ErrorKind::Key) if `protection` does not open it.
    pub async fn open(store: Arc<dyn Store>, protection: Protection) -> Result<Self> {
        Self::open_with(store, protection, Seams::default()).await
    }

    /// Opens the repository in `store`, and creates it if there is none.
    ///
    /// # Cancel safety
    /// Leaves a repository, or none and perhaps a key slot that opens nothing.
    ///
    /// # Errors
    /// As [`open`](Self::open), and what the store reports.
    pub async fn open_or_create(store: Arc<dyn Store>, protection: Protection) -> Result<Self> {
        Self::open_or_create_with(store, protection, Seams::default()).await
    }

    /// As [`open`](Self::open), with other seams.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn open_with(store: Arc<dyn Store>, protection: Protection, seams: Seams) -> Result<Self> {
        let config = twin::read_config(&*store).await?;
        let secrets = match (config.domain, protection) {
            (Some(domain), Protection::None) => Secrets { domain, master: None },
            (Some(_), Protection::Key(_)) => {
                return Err(Error::new(ErrorKind::Key, "a key was given, but this repository is not encrypted"));
            }
            (None, Protection::None) => {
                return Err(Error::new(ErrorKind::Key, "this repository is encrypted, and no key was given"));
            }
            (None, Protection::Key(key)) => open_slots(&*store, &config.id, &key).await?,
        };
        let Seams { clock, randomness } = seams;
        let mut writer = [0; 8];
        randomness.fill(&mut writer)?;
        Ok(Self(Arc::new(Inner {
            store,
            id: config.id,
            secrets,
            writer,
            runs: AtomicU64::new(0),
            is_index_loaded: AtomicBool::new(false),
            clock,
            randomness,
        })))
    }

    /// As [`open_or_create`](Self::open_or_create), with other seams.
    ///
    /// # Errors
    /// As [`open_or_create`](Self::open_or_create).
    pub async fn open_or_create_with(store: Arc<dyn Store>, protection: Protection, seams: Seams) -> Result<Self> {
        match Self::open_with(Arc::clone(&store), protection.clone(), seams.clone()).await {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                create(&*store, &protection, &*seams.randomness).await?;
                Self::open_with(store, protection, seams).await
            }
            opened => opened,
        }
    }

    /// The repository's id.
    #[must_use]
    pub fn id(&self) -> [u8; 16] {
        self.0.id
    }

    /// The mailboxes that have a journal, sorted by name.
    ///
    /// # Cancel safety
    /// Nothing is written.
    ///
    /// # Errors
    /// What the store reports, and damage of a commit's head.
    pub async fn mailboxes(&self) -> Result<Vec<MailboxName>> {
        let mut names = Vec::new();
        for journal in self.journals().await? {
            names.push(journal.mailbox(self).await?);
        }
        names.sort_unstable();
        Ok(names)
    }

    /// The journals there are.
    pub(crate) async fn journals(&self) -> Result<Vec<JournalName>> {
        let mut journals: Vec<JournalName> = Vec::new();
        let mut listing = self.store().list("mailboxes/");
        while let Some(object) = listing.try_next().await? {
            if let Some((name, _)) = JournalName::of_commit(&object.key)
                && journals.last() != Some(&name)
            {
                journals.push(name);
            }
        }
        journals.sort_unstable();
        journals.dedup();
        Ok(journals)
    }

    pub(crate) fn store(&self) -> &Arc<dyn Store> {
        &self.0.store
    }

    pub(crate) fn secrets(&self) -> &Secrets {
        &self.0.secrets
    }

    pub(crate) fn domain(&self) -> &Domain {
        &self.0.secrets.domain
    }

    pub(crate) fn writer(&self) -> [u8; 8] {
        self.0.writer
    }

    /// True once: whoever gets it fills the index.
    pub(crate) fn claim_index_load(&self) -> bool {
        !self.0.is_index_loaded.swap(true, Ordering::Relaxed)
    }

    /// The packs there are, and how many octets each has.
    pub(crate) async fn packs(&self) -> Result<HashMap<PackId, u64>> {
        let mut packs = HashMap::new();
        let mut listing = self.store().list("packs/");
        while let Some(object) = listing.try_next().await? {
            packs.extend(PackId::from_key(&object.key).map(|pack| (pack, object.length)));
        }
        Ok(packs)
    }

    /// The number of the next run record.
    pub(crate) fn next_run(&self) -> u64 {
        self.0.runs.fetch_add(1, Ordering::Relaxed)
    }

    /// Nanoseconds since 1970.
    pub(crate) fn now(&self) -> u64 {
        u64::try_from(self.0.clock.now().as_nanos()).unwrap_or(u64::MAX)
    }

    pub(crate) fn salt(&self) -> Result<[u8; SALT]> {
        let mut salt = [0; SALT];
        self.0.randomness.fill(&mut salt)?;
        Ok(salt)
    }

    /// A new pack of our own.
    pub(crate) fn new_pack(&self, capacity: usize) -> Result<PackWriter> {
        let mut id = [0; 16];
        let (token, number) = id.split_at_mut(8);
        token.copy_from_slice(&self.0.writer);
        self.0.randomness.fill(number)?;
        PackWriter::new(PackId::new(id), self.secrets(), self.salt()?, capacity)
    }

    /// Opens a small sealed object: magic, salt, one frame.
    pub(crate) fn open_object(&self, kind: ObjectKind, key: &str, octets: &[u8]) -> Result<Vec<u8>> {
        let mut decoder = Decoder::new(octets);
        if decoder.array::<8>()? != kind.magic() {
            return Err(Error::damaged("an object is not of the kind and version that its key says"));
        }
        let salt = decoder.array::<SALT>()?;
        let mut sealed = decoder.rest().to_vec();
        Ok(Seal::new(self.secrets(), kind, key, &salt)?.open(0, &mut sealed)?.to_vec())
    }

    /// Seals a small object: magic, salt, one frame.
    pub(crate) fn seal_object(&self, kind: ObjectKind, key: &str, payload: &[u8]) -> Result<Vec<u8>> {
        let salt = self.salt()?;
        seal_one_frame(&Seal::new(self.secrets(), kind, key, &salt)?, kind, &salt, payload)
    }
}

impl fmt::Debug for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Repository").field("id", &hex(&self.0.id)).field("store", &self.0.store).finish()
    }
}

/// The digest of a mailbox's name, which names its journal.
fn mailbox_digest(domain: &Domain, mailbox: &MailboxName) -> Digest {
    let mut hasher = domain.hasher();
    hasher.update(b"mailbox\0");
    hasher.update(mailbox.as_bytes());
    hasher.finish()
}

struct Config {
    id: [u8; 16],
    /// Open to everybody if there is no protection.
    domain: Option<Domain>,
}

impl Config {
    fn encode(&self) -> Vec<u8> {
        let mut out = CONFIG_MAGIC.to_vec();
        out.extend_from_slice(&self.id);
        match &self.domain {
            None => out.push(PROTECTION_KEY),
            Some(domain) => {
                out.push(PROTECTION_NONE);
                out.extend_from_slice(domain.as_bytes());
            }
        }
        let check = blake3::hash(&out);
        out.extend_from_slice(&check.as_bytes()[..CONFIG_CHECK]);
        out
    }

    fn decode(octets: &[u8]) -> Result<Self> {
        let length = octets.len().checked_sub(CONFIG_CHECK).ok_or_else(|| Error::damaged("the config is too short"))?;
        let (plain, check) = octets.split_at(length);
        let mut decoder = Decoder::new(plain);
        let magic = decoder.array::<8>()?;
        if magic[..6] != CONFIG_MAGIC[..6] {
            return Err(Error::damaged("the config is not one of a mailrail repository"));
        }
        if magic != *CONFIG_MAGIC {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "the repository is of a format that this version does not know",
            ));
        }
        if blake3::hash(plain).as_bytes()[..CONFIG_CHECK] != *check {
            return Err(Error::damaged("the config does not verify"));
        }
        let id = decoder.array()?;
        let domain = match decoder.byte()? {
            PROTECTION_KEY => None,
            PROTECTION_NONE => Some(Domain::new(decoder.array()?)),
            _ => return Err(Error::new(ErrorKind::Unsupported, "the repository has an unknown protection")),
        };
        decoder.end()?;
        Ok(Self { id, domain })
    }
}

async fn create(store: &dyn Store, protection: &Protection, randomness: &dyn Randomness) -> Result<()> {
    let (mut id, mut domain) = ([0; 16], [0; 32]);
    randomness.fill(&mut id)?;
    randomness.fill(&mut domain)?;
    let domain = match protection {
        Protection::None => Some(Domain::new(domain)),
        Protection::Key(key) => {
            put_slot(store, &id, &domain, key, randomness).await?;
            None
        }
    };
    // Who loses this race opens the winner's repository; the slot left behind is bound to another id and opens nothing.
    let _: Created = store.create(CONFIG, Config { id, domain }.encode().into()).await?;
    twin::copy_config(store).await
}

async fn put_slot(
    store: &dyn Store,
    id: &[u8; 16],
    domain: &[u8; 32],
    key: &Key,
    randomness: &dyn Randomness,
) -> Result<()> {
    let (mut slot, mut salt, mut master) = ([0; 8], [0; SALT], [0; 32]);
    randomness.fill(&mut slot)?;
    randomness.fill(&mut salt)?;
    randomness.fill(&mut master)?;
    let object = format!("keys/{}", hex(&slot));
    let seal = Seal::of_slot(key, &slot_name(id, &object), &salt)?;
    let octets = seal_one_frame(&seal, ObjectKind::Slot, &salt, &[domain.as_slice(), &master].concat())?;
    store.put(&object, Payload::from(octets)).await
}

/// The first slot that the key opens.
async fn open_slots(store: &dyn Store, id: &[u8; 16], key: &Key) -> Result<Secrets> {
    let mut listing = store.list("keys/");
    while let Some(object) = listing.try_next().await? {
        let octets: Bytes = store.read(&object.key, None).await?;
        if let Some(secrets) = open_slot(&octets, &slot_name(id, &object.key), key) {
            return Ok(secrets);
        }
    }
    Err(Error::new(ErrorKind::Key, "the key does not open this repository"))
}

fn open_slot(octets: &[u8], name: &str, key: &Key) -> Option<Secrets> {
    let mut decoder = Decoder::new(octets);
    if decoder.array::<8>().ok()? != ObjectKind::Slot.magic() {
        return None;
    }
    let salt = decoder.array::<SALT>().ok()?;
    let mut sealed = decoder.rest().to_vec();
    let seal = Seal::of_slot(key, name, &salt).ok()?;
    let mut secrets = Decoder::new(seal.open(0, &mut sealed).ok()?);
    Some(Secrets { domain: Domain::new(secrets.array().ok()?), master: Some(secrets.array().ok()?) })
}

/// A slot's name for sealing: bound to the repository, so that a slot copied to another opens nothing there.
fn slot_name(id: &[u8; 16], object: &str) -> String {
    format!("{}/{object}", hex(id))
}

fn seal_one_frame(seal: &Seal, kind: ObjectKind, salt: &[u8; SALT], payload: &[u8]) -> Result<Vec<u8>> {
    let mut octets = kind.magic().to_vec();
    octets.extend_from_slice(salt);
    octets.extend_from_slice(payload);
    seal.seal(0, &mut octets, 8 + SALT)?;
    Ok(octets)
}
