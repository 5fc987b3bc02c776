//! The repository: all objects under one prefix of one store. Config here; keys, journals, run records and index segments beside.
//!
//! Order of writing: packs are durable before the commit that points at them; everything else is derived or follows.

mod approval;
mod bad;
mod checkpoint;
mod columns;
mod commit;
mod footer;
mod forgetting;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod journal;
mod keys;
mod kinds;
mod moves;
mod names;
mod opened;
mod run;
mod salvage;
mod segment;
mod slots;
mod sweeps;
#[cfg(test)]
mod tests;
mod twin;

pub use approval::Approval;
pub(crate) use approval::{APPROVALS, OCTETS_MAX as APPROVAL_OCTETS_MAX};
pub(crate) use bad::{
    BAD, BadMark, OCTETS_MAX as BAD_OCTETS_MAX, bad_packs, mark_bad, mark_bad_anew, marked, unmark_bad,
};
pub use keys::{KeySlot, Keys};
pub use names::{Mailboxes, UnreadableJournal};
pub use run::RunId;
pub use slots::{SlotId, SlotKind};

pub(crate) use checkpoint::{Checkpoint, Others};
pub(crate) use columns::{MessageRow, RecipeRange};
pub(crate) use commit::{
    CommitRef, CompressedBlock, Draft, FolderRecord, Place, Section, SourceRecord, decode_blobs,
    encode as encode_commit,
};
pub(crate) use footer::read_footer;
pub(crate) use forgetting::{carry, create_commit, only_named};
pub(crate) use journal::{Contest, Journal, JournalHead, JournalName, Patience};
pub(crate) use moves::{
    HOPS_MAX, MOVES, Move, Moves, check_moves, moved_pack, open as open_moves, read_moves, write_moves,
};
pub(crate) use names::{NamedJournals, named_journals, told_names};
pub(crate) use opened::{Contents, Fetched as OpenCommit};
pub(crate) use run::{
    Active, Ended, HEADS_MAX, HEADS_OCTETS_MAX, Heads, OCTETS_MAX as RUN_OCTETS_MAX, RUNS, RunRecord, Token, chains,
    create_run_record, note_heads, parts_of_heads, read_run_record, replace_run_record, run_key,
};
pub(crate) use salvage::{AllCommits, LostCommit, is_there_now, unless_lost};
pub(crate) use segment::{
    CONTENT_MIN as SEGMENT_CONTENT_MIN, INDEX, ROWS_MAX as SEGMENT_ROWS_MAX, SegmentId, check_segment, count_segments,
    rows_inside, segment_id, segment_rows, segments, write_all_segments, write_full_segments, write_segment,
};
pub(crate) use sweeps::{
    Latest, MARKED_MAX, Mark, OCTETS_MAX as SWEEP_OCTETS_MAX, SWEEPS, check_sweep, create_done, create_mark,
    create_verdict, latest_sweep, mend_sweeps, read_mark, read_verdict,
};
pub(crate) use twin::{CONFIG_COPY, check_config, mend_config};

use crate::digest::{Digest, Domain};
use crate::error::{Error, ErrorKind, Result, Retry};
use crate::message::MailboxName;
use crate::pack::{PackId, PackWriter};
use crate::runtime::{Clock, Executor, Randomness, SystemClock, SystemRandomness, SystemTimer, ThreadPerJob, Timer};
use crate::seal::{ObjectKind, Protection, SALT, Seal, Secrets};
use crate::store::{
    Cost, Created, GovernedStore, Governor, Payload, Retries, RetryingStore, Store, Usage, read_bounded, read_exact,
};
use crate::wire::{Decoder, hex};
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, TryStreamExt};
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use zeroize::Zeroizing;

/// A repository that is open. Cloning shares it.
#[derive(Clone)]
pub struct Repository(Arc<Inner>);

struct Inner {
    store: Arc<dyn Store>,
    id: [u8; 16],
    secrets: Secrets,
    /// The key slot that the repository was opened with, if it is encrypted.
    slot: Mutex<Option<SlotId>>,
    /// Names this opening of the repository among all that there ever were, so that no two draw the same salts.
    opening: [u8; 8],
    is_index_loaded: AtomicBool,
    /// The latest sweep whose effects the index was last told of.
    index_epoch: AtomicU64,
    /// The latest sweep that is known to be done, and one; 0 if nobody has looked.
    sweeps_done: AtomicU64,
    /// How many salts were drawn.
    salts: AtomicU64,
    seams: Seams,
}

const CONFIG: &str = "config";
const CONFIG_MAGIC: &[u8; 8] = b"MRCONF\x01\x00";
const CONFIG_CHECK: usize = 16;
/// The longest config, in octets, that is read.
const CONFIG_MAX: u64 = 1024;
const PROTECTION_NONE: u8 = 0;
const PROTECTION_KEY: u8 = 1;

/// How a repository deals with the world: time, randomness, where it computes, and a store that fails for now. Replaced in simulations.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Seams {
    /// Tells the time of commits.
    pub clock: Arc<dyn Clock>,
    /// Gives salts, ids and keys.
    pub randomness: Arc<dyn Randomness>,
    /// Makes keys of passphrases, which takes a good part of a second.
    pub executor: Arc<dyn Executor>,
    /// Lets time go by between tries.
    pub timer: Arc<dyn Timer>,
    /// How often the store is tried again.
    pub retries: Retries,
    /// What governs requests to the store; `None` for a store that takes whatever comes, as a directory does. One for all repositories of one store.
    pub governor: Option<Governor>,
}

impl Default for Seams {
    fn default() -> Self {
        Self {
            clock: Arc::new(SystemClock),
            randomness: Arc::new(SystemRandomness),
            executor: Arc::new(ThreadPerJob),
            timer: Arc::new(SystemTimer),
            retries: Retries::default(),
            governor: None,
        }
    }
}

impl Seams {
    /// The store with which all of a repository's business is done.
    fn persistent(&self, store: Arc<dyn Store>) -> Result<Arc<dyn Store>> {
        let mut seed = [0; 8];
        self.randomness.fill(&mut seed)?;
        let (retries, timer) = (self.retries.clone(), Arc::clone(&self.timer));
        let store: Arc<dyn Store> = match &self.governor {
            Some(governor) => Arc::new(GovernedStore::new(store, governor.clone())),
            None => store,
        };
        Ok(Arc::new(RetryingStore::new(store, retries, timer, u64::from_le_bytes(seed))))
    }
}

impl Repository {
    /// Opens the repository in `store`.
    ///
    /// # Cancel safety
    /// Nothing is written.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if there is none, [`Key`](ErrorKind::Key) if `protection` does not open it. To know that, at most 256 objects of at
    /// most 1 KiB are read, and at most 16 keys are made of a passphrase, each with at most 256 MiB and about as much time as filling 1 GiB takes.
    pub fn open(store: Arc<dyn Store>, protection: Protection) -> BoxFuture<'static, Result<Self>> {
        Self::open_with(store, protection, Seams::default())
    }

    /// Opens the repository in `store`, and creates it if there is none.
    ///
    /// # Cancel safety
    /// Leaves a repository, or none and perhaps a key slot that opens nothing.
    ///
    /// # Errors
    /// As [`open`](Self::open), and what the store reports.
    pub fn open_or_create(store: Arc<dyn Store>, protection: Protection) -> BoxFuture<'static, Result<Self>> {
        Self::open_or_create_with(store, protection, Seams::default())
    }

    /// As [`open`](Self::open), with other seams.
    ///
    /// # Cancel safety
    /// As [`open`](Self::open).
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_with(store: Arc<dyn Store>, protection: Protection, seams: Seams) -> BoxFuture<'static, Result<Self>> {
        let opening = async {
            let store = seams.persistent(store)?;
            Self::open_in(store, protection, seams).await
        };
        opening.boxed()
    }

    async fn open_in(store: Arc<dyn Store>, protection: Protection, seams: Seams) -> Result<Self> {
        let config = twin::read_config(&*store).await?;
        let (secrets, slot) = match (config.domain, &protection) {
            (Some(domain), Protection::None) => (Secrets { domain, master: None }, None),
            (Some(_), _) => {
                return Err(Error::new(ErrorKind::Key, "a key was given, but this repository is not encrypted"));
            }
            (None, Protection::None) => {
                return Err(Error::new(ErrorKind::Key, "this repository is encrypted, and no key was given"));
            }
            (None, _) => {
                let (secrets, slot) = slots::open(&*store, &config.id, &protection, &*seams.executor).await?;
                (secrets, Some(slot))
            }
        };
        let mut opening = [0; 8];
        seams.randomness.fill(&mut opening)?;
        Ok(Self(Arc::new(Inner {
            store,
            id: config.id,
            secrets,
            slot: Mutex::new(slot),
            opening,
            is_index_loaded: AtomicBool::new(false),
            index_epoch: AtomicU64::new(0),
            sweeps_done: AtomicU64::new(0),
            salts: AtomicU64::new(0),
            seams,
        })))
    }

    /// As [`open_or_create`](Self::open_or_create), with other seams.
    ///
    /// # Cancel safety
    /// As [`open_or_create`](Self::open_or_create).
    ///
    /// # Errors
    /// As [`open_or_create`](Self::open_or_create).
    pub fn open_or_create_with(
        store: Arc<dyn Store>,
        protection: Protection,
        seams: Seams,
    ) -> BoxFuture<'static, Result<Self>> {
        Self::open_or_create_in(store, protection, seams).boxed()
    }

    async fn open_or_create_in(store: Arc<dyn Store>, protection: Protection, seams: Seams) -> Result<Self> {
        let store = seams.persistent(store)?;
        match Self::open_in(Arc::clone(&store), protection.clone(), seams.clone()).await {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                create(&*store, &protection, &seams).await?;
                Self::open_in(store, protection, seams).await
            }
            opened => opened,
        }
    }

    /// The repository's id.
    #[must_use]
    pub fn id(&self) -> [u8; 16] {
        self.0.id
    }

    /// What governs requests to its store.
    #[must_use]
    pub fn governor(&self) -> Option<&Governor> {
        self.0.seams.governor.as_ref()
    }

    /// What was asked of its store so far, as far as that is known.
    pub(crate) fn usage(&self) -> Usage {
        self.governor().map(Governor::usage).unwrap_or_default()
    }

    /// What these requests cost, if that is known.
    pub(crate) fn cost(&self, requests: &Usage) -> Option<Cost> {
        Some(self.governor()?.prices().cost(requests))
    }

    /// The keys that open this repository.
    #[must_use]
    pub fn keys(&self) -> Keys {
        Keys::new(self.clone())
    }

    /// The mailboxes that have a journal with anything in it, sorted by name.
    ///
    /// # Cancel safety
    /// Nothing is written.
    ///
    /// # Errors
    /// What the store reports, and damage of a journal of which no commit opens: [`find_mailboxes`](Self::find_mailboxes) gives the others all the same.
    pub fn mailboxes(&self) -> BoxFuture<'_, Result<Vec<MailboxName>>> {
        names::mailboxes(self).boxed()
    }

    /// The mailboxes that have a journal with anything in it, and beside them the journals that do not open.
    ///
    /// # Cancel safety
    /// Nothing is written.
    ///
    /// # Errors
    /// What the store reports of listings.
    pub fn find_mailboxes(&self) -> BoxFuture<'_, Result<Mailboxes>> {
        names::find_mailboxes(self).boxed()
    }

    /// The journals there are, sorted.
    pub(crate) async fn journals(&self) -> Result<Vec<JournalName>> {
        Ok(self.journal_ends().await?.into_keys().collect())
    }

    /// The journals there are, and the sequence of each one's last commit.
    pub(crate) async fn journal_ends(&self) -> Result<BTreeMap<JournalName, u64>> {
        let mut ends = BTreeMap::new();
        let mut listing = self.store().list("mailboxes/");
        while let Some(object) = listing.try_next().await? {
            if let Some((name, sequence)) = JournalName::of_commit(&object.key) {
                let end = ends.entry(name).or_insert(sequence);
                *end = sequence.max(*end);
            }
        }
        Ok(ends)
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

    /// A token for a new writer.
    pub(crate) fn new_token(&self) -> Result<Token> {
        let mut token = [0; 8];
        token.copy_from_slice(&self.salt()?[..8]);
        Ok(token)
    }

    /// The latest sweep whose effects the index was told of.
    pub(crate) fn index_epoch(&self) -> u64 {
        self.0.index_epoch.load(Ordering::Relaxed)
    }

    /// The index was told of the effects of all sweeps up to this one.
    pub(crate) fn raise_index_epoch(&self, epoch: u64) {
        self.0.index_epoch.fetch_max(epoch, Ordering::Relaxed);
    }

    /// The latest sweep that is known to be done, 0 if there was none; `None` if nobody has looked.
    fn sweeps_done(&self) -> Option<u64> {
        self.0.sweeps_done.load(Ordering::Relaxed).checked_sub(1)
    }

    fn raise_sweeps_done(&self, epoch: u64) {
        self.0.sweeps_done.fetch_max(epoch + 1, Ordering::Relaxed);
    }

    /// Creates an object of octets that nobody else writes, and is not content with an answer that may be lost: true if it is ours, false if another's is there.
    pub(crate) async fn create(&self, key: &str, octets: &Bytes) -> Result<bool> {
        match self.store().create(key, Payload::from(octets.clone())).await {
            Ok(Created::New) => Ok(true),
            #[cfg(planted = "no_read_back")]
            Ok(Created::Exists) => Ok(false),
            // It may be ours, from a try whose answer was lost; the salt makes our octets unlike any other's.
            #[cfg(not(planted = "no_read_back"))]
            Ok(Created::Exists) => match self.read_small(key, octets.len() as u64).await {
                Ok(there) => Ok(there == *octets),
                // Too long to be ours.
                Err(error) if error.kind() == ErrorKind::Damaged => Ok(false),
                // A commit was forgotten, and swept since: whoever reads again sees what took its place. Of other objects a store that says so lies.
                Err(error) if error.kind() == ErrorKind::NotFound && key.starts_with("mailboxes/") => Ok(false),
                Err(error) => Err(error),
            },
            Err(error) if error.retry() == Retry::Never => Err(error),
            Err(error) => {
                let unknown = "whether an object was written is unknown; the next run will see";
                Err(Error::new(ErrorKind::Unavailable, unknown).because(error))
            }
        }
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

    /// Nanoseconds since 1970.
    pub(crate) fn now(&self) -> u64 {
        nanoseconds(&*self.0.seams.clock)
    }

    /// 32 random octets, never drawn before.
    pub(crate) fn salt(&self) -> Result<[u8; SALT]> {
        draw(&self.0.seams, &self.0.opening, self.0.salts.fetch_add(1, Ordering::Relaxed))
    }

    /// A new pack of this writer.
    pub(crate) fn new_pack(&self, writer: &Token, buffer: Vec<u8>) -> Result<PackWriter> {
        // The id is the salt of the pack's key, too.
        let mut id = self.salt()?;
        id[..writer.len()].copy_from_slice(writer);
        PackWriter::new(PackId::new(id), self.secrets(), buffer)
    }

    fn slot_in_use(&self) -> Option<SlotId> {
        *self.0.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_slot_in_use(&self, id: SlotId) {
        *self.0.slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(id);
    }

    /// Reads a small object: no more octets than it can have.
    pub(crate) async fn read_small(&self, key: &str, octets_max: u64) -> Result<Bytes> {
        read_bounded(&**self.store(), key, octets_max).await
    }

    /// Reads the whole of a pack that is this long.
    pub(crate) async fn read_pack(&self, pack: PackId, length: u64) -> Result<Bytes> {
        if length > crate::pack::OCTETS_MAX {
            return Err(Error::damaged("a pack is longer than any pack"));
        }
        read_exact(&**self.store(), &pack.key(), 0..length).await
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

async fn create(store: &dyn Store, protection: &Protection, seams: &Seams) -> Result<()> {
    let (mut id, mut domain, mut master) = ([0; 16], Zeroizing::new([0; 32]), Zeroizing::new([0; 32]));
    seams.randomness.fill(&mut id)?;
    seams.randomness.fill(&mut *domain)?;
    let domain = Domain::new(*domain);
    if let Protection::None = protection {
        let _: Created = store.create(CONFIG, Config { id, domain: Some(domain) }.encode().into()).await?;
        return twin::copy_config(store).await;
    }
    seams.randomness.fill(&mut *master)?;
    let secrets = Secrets { domain, master: Some(*master) };
    let mut slot = [0; 8];
    slot.copy_from_slice(&draw(seams, b"create", 0)?[..8]);
    let (slot, salt, created) = (SlotId::new(slot), draw(seams, b"create", 1)?, nanoseconds(&*seams.clock));
    let new = slots::New { id: slot, salt, created, label: "" };
    slots::write(store, &*seams.executor, &id, &secrets, protection, new).await?;
    let made = store.create(CONFIG, Config { id, domain: None }.encode().into()).await?;
    // Who loses this race opens the winner's repository. The slot left behind is bound to another id and opens nothing.
    if made == Created::Exists && twin::read_config(store).await.is_ok_and(|config| config.id != id) {
        // It costs a few octets if it stays.
        let _ = store.delete(&slot.object()).await;
    }
    twin::copy_config(store).await
}

/// 32 random octets. Who draws them, how often it did, and the time are mixed in: a source of randomness that repeats itself must not
/// make two seals with one key and one nonce.
fn draw(seams: &Seams, who: &[u8], number: u64) -> Result<[u8; SALT]> {
    let mut random = [0; 32];
    seams.randomness.fill(&mut random)?;
    let mut hasher = blake3::Hasher::new_derive_key("mailrail 2026-11 salt");
    hasher.update(&random).update(who).update(&number.to_le_bytes());
    hasher.update(&nanoseconds(&*seams.clock).to_le_bytes());
    Ok(*hasher.finalize().as_bytes())
}

/// The latest time that a clock is believed, in nanoseconds: in the year 2116. A commit behind one of a later time has that one's and one more, and no reader
/// takes one of more than twice this.
const TIME_MAX: u64 = 1 << 62;

fn nanoseconds(clock: &dyn Clock) -> u64 {
    u64::try_from(clock.now().as_nanos()).unwrap_or(u64::MAX).min(TIME_MAX)
}

fn seal_one_frame(seal: &Seal, kind: ObjectKind, salt: &[u8; SALT], payload: &[u8]) -> Result<Vec<u8>> {
    let mut octets = kind.magic().to_vec();
    octets.extend_from_slice(salt);
    octets.extend_from_slice(payload);
    seal.seal(0, &mut octets, 8 + SALT)?;
    Ok(octets)
}
