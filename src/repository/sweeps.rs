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
use futures::{TryStreamExt, try_join};
use std::collections::BTreeMap;

/// Where the records are.
pub(crate) const SWEEPS: &str = "sweeps/";
/// What the names of records end with.
const MARK: &str = "";
const VERDICT: &str = "-verdict";
/// In the place of a verdict that does not open.
const VERDICT_AGAIN: &str = "-verdict.1";
const DONE: &str = "-done";
/// The version of the records' content.
const SCHEMA: u64 = 1;
/// The most packs, and the most journals, that a mark names: what is left is for the next sweep.
pub(crate) const MARKED_MAX: usize = 1 << 20;
/// How many sweeps may have lost all their records.
const MISSING_MAX: u64 = 16;
/// The longest record that is read, in octets.
pub(crate) const OCTETS_MAX: u64 = 64 << 20;

/// What a sweep condemns, or, as a verdict, what it deletes. Who knows of it points at none of these packs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mark {
    /// Packs that nobody needs. Sorted.
    pub(crate) packs: Vec<PackId>,
    /// Packs of which everything that is needed is elsewhere, too, as their moves say. Sorted.
    pub(crate) moved: Vec<PackId>,
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

/// The latest sweep, if there was one. Who knew of the one before only asks for the next: all that there ever were are listed once a process.
pub(crate) async fn latest_sweep(repository: &Repository) -> Result<Latest> {
    if let Some(epoch) = repository.sweeps_done()
        && !is_any(repository, epoch + 1).await?
    {
        return Ok(Latest { epoch, is_open: false });
    }
    let latest = listed(repository).await?;
    if !latest.is_open {
        repository.raise_sweeps_done(latest.epoch);
    }
    Ok(latest)
}

/// Whether there is any record of this sweep. There is none of a later one without: they are not deleted, and each begins when the one before is done.
async fn is_any(repository: &Repository, epoch: u64) -> Result<bool> {
    let [mark, verdict, done] = [MARK, VERDICT, DONE].map(|what| key(epoch, what));
    let store = repository.store();
    let (mark, verdict, done) = try_join!(store.length(&mark), store.length(&verdict), store.length(&done))?;
    Ok(mark.is_some() || verdict.is_some() || done.is_some())
}

/// The latest of all sweeps.
async fn listed(repository: &Repository) -> Result<Latest> {
    let (mut marked, mut done, mut records) = (0, 0, 0);
    let mut listing = repository.store().list(SWEEPS);
    while let Some(object) = listing.try_next().await? {
        records += 1;
        match name_of(&object.key) {
            Some((epoch, DONE)) => done = done.max(epoch),
            // There is no verdict without a mark; if that is lost, the sweep is open all the same.
            Some((epoch, _)) => marked = marked.max(epoch),
            None => {}
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
    create(repository, epoch, MARK, &mark.encode()).await
}

/// The mark of an epoch.
pub(crate) async fn read_mark(repository: &Repository, epoch: u64) -> Result<Mark> {
    let payload = read(repository, epoch, MARK).await?;
    Mark::decode(&payload.ok_or_else(|| Error::damaged(format!("the mark of sweep {epoch} is missing")))?)
}

/// Creates the verdict of an epoch, and gives the one that holds: this one, or one that is there already.
pub(crate) async fn create_verdict(repository: &Repository, epoch: u64, verdict: Mark) -> Result<Mark> {
    if create(repository, epoch, VERDICT, &verdict.encode()).await? {
        return Ok(verdict);
    }
    match read_verdict(repository, epoch).await {
        // It is decided once more, and again for all; only then it takes the place of the one that does not open.
        Err(error) if error.kind() == ErrorKind::Damaged => {
            let is_ours = create(repository, epoch, VERDICT_AGAIN, &verdict.encode()).await?;
            let decided = if is_ours { verdict } else { read_verdict(repository, epoch).await?.unwrap_or_default() };
            replace(repository, epoch, VERDICT, &decided.encode()).await?;
            Ok(decided)
        }
        found => found?.ok_or_else(|| Error::damaged(format!("the verdict of sweep {epoch} is missing"))),
    }
}

/// The packs that a sweep deletes, if that is decided.
pub(crate) async fn read_verdict(repository: &Repository, epoch: u64) -> Result<Option<Mark>> {
    let decode = |payload: Option<Vec<u8>>| payload.map(|payload| Mark::decode(&payload)).transpose();
    match read(repository, epoch, VERDICT).await.and_then(decode) {
        Err(error) if error.kind() == ErrorKind::Damaged => {
            let again = read(repository, epoch, VERDICT_AGAIN).await.and_then(decode)?;
            again.map(Some).ok_or(error)
        }
        verdict => verdict,
    }
}

/// Records that everything that an epoch deletes is deleted.
pub(crate) async fn create_done(repository: &Repository, epoch: u64) -> Result<()> {
    create(repository, epoch, DONE, &done(repository)).await?;
    repository.raise_sweeps_done(epoch);
    Ok(())
}

/// Checks that the record of a sweep under this key opens.
pub(crate) fn check_sweep(repository: &Repository, key: &str, octets: &[u8]) -> Result<()> {
    let (_, what) = name_of(key).ok_or_else(|| Error::damaged("this is no record of a sweep"))?;
    let payload = repository.open_object(ObjectKind::Sweep, key, octets)?;
    if what == DONE { Ok(()) } else { Mark::decode(&payload).map(drop) }
}

/// Replaces records that do not open, and gives their keys. What is not known any more is not deleted.
pub(crate) async fn mend_sweeps(repository: &Repository) -> Result<Vec<String>> {
    let mut records: BTreeMap<u64, Records> = BTreeMap::new();
    let mut listing = repository.store().list(SWEEPS);
    while let Some(object) = listing.try_next().await? {
        let Some((epoch, what)) = name_of(&object.key) else { continue };
        let octets = repository.read_small(&object.key, OCTETS_MAX).await;
        let is_sound = match octets.and_then(|octets| check_sweep(repository, &object.key, &octets)) {
            Ok(()) => true,
            Err(error) if error.kind() == ErrorKind::Damaged => false,
            Err(error) => return Err(error),
        };
        if what != VERDICT_AGAIN {
            *records.entry(epoch).or_default().of(what) = Some(is_sound);
        }
    }
    drop(listing);
    let mut mended = Vec::new();
    for (epoch, records) in records {
        records.mend(repository, epoch, &mut mended).await?;
    }
    Ok(mended)
}

/// Which records of a sweep there are, and whether they open.
#[derive(Clone, Copy, Debug, Default)]
struct Records {
    mark: Option<bool>,
    verdict: Option<bool>,
    done: Option<bool>,
}

impl Records {
    fn of(&mut self, what: &str) -> &mut Option<bool> {
        match what {
            MARK => &mut self.mark,
            VERDICT => &mut self.verdict,
            _ => &mut self.done,
        }
    }

    async fn mend(self, repository: &Repository, epoch: u64, mended: &mut Vec<String>) -> Result<()> {
        let nothing = Mark::default();
        if self.done == Some(false) {
            replace(repository, epoch, DONE, &done(repository)).await?;
            mended.push(key(epoch, DONE));
        }
        // It may have been made since it was listed.
        let is_missing = self.mark.is_none() && repository.store().length(&key(epoch, MARK)).await?.is_none();
        if is_missing || self.mark == Some(false) {
            let verdict = match self.verdict {
                // Whoever sleeps over the mark finds that nothing goes.
                None => Some(create_verdict(repository, epoch, nothing.clone()).await?),
                Some(true) => read_verdict(repository, epoch).await?,
                // Over: all of it is gone.
                Some(false) if self.done.is_some() => Some(nothing.clone()),
                // The one in its place, if there is one; else nobody knows what another may be deleting.
                Some(false) => match read_verdict(repository, epoch).await {
                    Err(error) if error.kind() == ErrorKind::Damaged => return Ok(()),
                    verdict => verdict?,
                },
            };
            replace(repository, epoch, MARK, &verdict.unwrap_or_default().encode()).await?;
            mended.push(key(epoch, MARK));
        }
        // That of a sweep which is open is found anew by whoever carries it out.
        if self.verdict == Some(false) && self.done.is_some() {
            replace(repository, epoch, VERDICT, &nothing.encode()).await?;
            mended.push(key(epoch, VERDICT));
        }
        Ok(())
    }
}

fn done(repository: &Repository) -> Vec<u8> {
    let mut payload = Vec::new();
    payload.number(SCHEMA);
    payload.number(repository.now());
    payload
}

/// The epoch, and which record of it, that a key names.
fn name_of(key: &str) -> Option<(u64, &'static str)> {
    let name = key.strip_prefix(SWEEPS)?;
    let (digits, what) = match name.split_once('-') {
        None => (name, MARK),
        Some((digits, "verdict")) => (digits, VERDICT),
        Some((digits, "verdict.1")) => (digits, VERDICT_AGAIN),
        Some((digits, "done")) => (digits, DONE),
        Some(_) => return None,
    };
    Some((crate::wire::counter_from_hex(digits)?, what))
}

async fn replace(repository: &Repository, epoch: u64, what: &str, payload: &[u8]) -> Result<()> {
    let key = key(epoch, what);
    let octets = repository.seal_object(ObjectKind::Sweep, &key, payload)?;
    repository.store().put(&key, octets.into()).await
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
    format!("{SWEEPS}{epoch:016x}{what}")
}

impl Mark {
    /// All packs that it names.
    pub(crate) fn condemned(&self) -> impl Iterator<Item = PackId> {
        self.packs.iter().chain(&self.moved).copied()
    }

    fn encode(&self) -> Vec<u8> {
        let packs = self.packs.len() + self.moved.len();
        let mut out = Vec::with_capacity(32 + packs * 16 + self.journals.len() * 20);
        out.number(SCHEMA);
        for packs in [&self.packs, &self.moved] {
            out.number(packs.len() as u64);
            packs.iter().for_each(|pack| out.extend_from_slice(pack.as_bytes()));
        }
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
        let mut packs = || -> Result<Vec<PackId>> {
            (0..decoder.count_up_to(PackId::OCTETS, MARKED_MAX)?).map(|_| decoder.array().map(PackId::new)).collect()
        };
        let (packs, moved) = (packs()?, packs()?);
        let journals = (0..decoder.count_up_to(17, MARKED_MAX)?)
            .map(|_| Ok((JournalName::of(decoder.array()?), decoder.counter()?)))
            .collect::<Result<_>>()?;
        decoder.end()?;
        Ok(Self { packs, moved, journals })
    }
}
