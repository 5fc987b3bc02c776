//! The records of sweeps: what a sweep condemns, what it deletes, that it is done (docs/decisions/0003-trust.md, "Forgetting and sweeping").
//!
//! Sweeps have numbers, their epochs, from 1. Each record is created only if it is absent and never deleted, and the mark of an epoch is created only
//! when the epoch before is done. So whoever goes on with the sweep of another decides as that one did.

use super::Repository;
use super::journal::JournalName;
use crate::error::{Error, ErrorKind, Result};
use crate::pack::PackId;
use crate::seal::ObjectKind;
use crate::wire::{Decoder, Encode};
use futures::TryStreamExt;

/// The version of the records' content.
const SCHEMA: u64 = 1;
/// The most packs, and the most journals, that a mark names: what is left is for the next sweep.
pub(crate) const MARKED_MAX: usize = 1 << 20;
/// How many sweeps may have lost all their records.
const MISSING_MAX: u64 = 16;
/// The longest record that is read, in octets.
const OCTETS_MAX: u64 = 64 << 20;

/// What a sweep condemns. Who knows of it points at none of these packs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mark {
    /// Sorted.
    pub(crate) packs: Vec<PackId>,
    /// Journals with the sequence of their latest forgetting checkpoint: what that one forgot goes.
    pub(crate) journals: Vec<(JournalName, u64)>,
}

/// The latest sweep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Latest {
    /// 0 if there was none.
    pub(crate) epoch: u64,
    /// Its mark is made, and it is not done.
    pub(crate) is_open: bool,
}

/// The latest sweep, if there was one.
pub(crate) async fn latest_sweep(repository: &Repository) -> Result<Latest> {
    let (mut marked, mut done, mut records) = (0, 0, 0);
    let mut listing = repository.store().list("sweeps/");
    while let Some(object) = listing.try_next().await? {
        let Some(name) = object.key.strip_prefix("sweeps/") else { continue };
        records += 1;
        let epoch = crate::wire::counter_from_hex;
        match name.split_once('-') {
            None => marked = marked.max(epoch(name).unwrap_or_default()),
            Some((digits, "done")) => done = done.max(epoch(digits).unwrap_or_default()),
            Some(_) => {}
        }
    }
    // A listing may show that a sweep is done and not, any more than a moment before, its mark; none is done without.
    let epoch = marked.max(done);
    // Each of them left a record at least; whoever believed a number that was made up would look for as many sweeps.
    if epoch > records + MISSING_MAX {
        return Err(Error::damaged(format!("there is a record of sweep {epoch}, and none of most sweeps before it")));
    }
    Ok(Latest { epoch, is_open: done < epoch })
}

/// Creates the mark of an epoch; false if there is one.
pub(crate) async fn create_mark(repository: &Repository, epoch: u64, mark: &Mark) -> Result<bool> {
    create(repository, epoch, "", &mark.encode()).await
}

/// The mark of an epoch.
pub(crate) async fn read_mark(repository: &Repository, epoch: u64) -> Result<Mark> {
    let payload = read(repository, epoch, "").await?;
    Mark::decode(&payload.ok_or_else(|| Error::damaged(format!("the mark of sweep {epoch} is missing")))?)
}

/// Creates the verdict of an epoch, and gives the one that holds: this one, or one that is there already.
pub(crate) async fn create_verdict(repository: &Repository, epoch: u64, packs: Vec<PackId>) -> Result<Vec<PackId>> {
    let mark = Mark { packs, journals: Vec::new() };
    if create(repository, epoch, "-verdict", &mark.encode()).await? {
        return Ok(mark.packs);
    }
    let verdict = read_verdict(repository, epoch).await?;
    verdict.ok_or_else(|| Error::damaged(format!("the verdict of sweep {epoch} is missing")))
}

/// The packs that a sweep deletes, if that is decided.
pub(crate) async fn read_verdict(repository: &Repository, epoch: u64) -> Result<Option<Vec<PackId>>> {
    let payload = read(repository, epoch, "-verdict").await?;
    payload.map(|payload| Mark::decode(&payload).map(|mark| mark.packs)).transpose()
}

/// Records that everything that an epoch deletes is deleted.
pub(crate) async fn create_done(repository: &Repository, epoch: u64) -> Result<()> {
    let mut payload = Vec::new();
    payload.number(SCHEMA);
    payload.number(repository.now());
    create(repository, epoch, "-done", &payload).await.map(drop)
}

async fn create(repository: &Repository, epoch: u64, what: &str, payload: &[u8]) -> Result<bool> {
    let key = key(epoch, what);
    let octets = repository.seal_object(ObjectKind::Sweep, &key, payload)?;
    repository.create(&key, &octets.into()).await
}

async fn read(repository: &Repository, epoch: u64, what: &str) -> Result<Option<Vec<u8>>> {
    let key = key(epoch, what);
    match repository.read_small(&key, OCTETS_MAX).await {
        Ok(octets) => repository.open_object(ObjectKind::Sweep, &key, &octets).map(Some),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn key(epoch: u64, what: &str) -> String {
    format!("sweeps/{epoch:016x}{what}")
}

impl Mark {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(32 + self.packs.len() * 16 + self.journals.len() * 20);
        out.number(SCHEMA);
        out.number(self.packs.len() as u64);
        self.packs.iter().for_each(|pack| out.extend_from_slice(pack.as_bytes()));
        out.number(self.journals.len() as u64);
        for (journal, sequence) in &self.journals {
            out.extend_from_slice(journal.as_bytes());
            out.number(*sequence);
        }
        out
    }

    fn decode(payload: &[u8]) -> Result<Self> {
        let mut decoder = Decoder::new(payload);
        if decoder.number()? != SCHEMA {
            return Err(Error::new(ErrorKind::Unsupported, "the record of a sweep is of an unknown version"));
        }
        let packs = (0..decoder.count_up_to(16, MARKED_MAX)?)
            .map(|_| decoder.array().map(PackId::new))
            .collect::<Result<_>>()?;
        let journals = (0..decoder.count_up_to(17, MARKED_MAX)?)
            .map(|_| Ok((JournalName::of(decoder.array()?), decoder.counter()?)))
            .collect::<Result<_>>()?;
        decoder.end()?;
        Ok(Self { packs, journals })
    }
}
