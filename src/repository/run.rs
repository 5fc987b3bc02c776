//! Run records: who writes to a repository, where it may commit, and what became of the run.
//!
//! The records of a writer are a chain: numbered, each created only if it is absent. The last one counts. So a sweep can end the chain of a writer that
//! it knows nothing of, by taking its next number (docs/decisions/0003-trust.md, "Forgetting and sweeping").

use super::Repository;
use super::columns::REASONS;
use super::journal::{Journal, JournalHead};
use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result};
use crate::ledger::{Incomplete, Ledger};
use crate::message::MailboxName;
use crate::seal::ObjectKind;
use crate::source::Exclusion;
use crate::wire::{Decoder, Encode, counter_from_hex, from_hex, hex};
use futures::TryStreamExt;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// Where the records are: all in one place, for a store may keep the directory of a run for ever.
pub(crate) const RUNS: &str = "runs/";
/// The version of the record's content.
const SCHEMA: u64 = 1;

/// The exclusions' numbers in the format, from 1.
const EXCLUSIONS: [Exclusion; 5] =
    [Exclusion::Temporary, Exclusion::Foreign, Exclusion::NotAFile, Exclusion::NotMail, Exclusion::TooLong];
/// The longest record that is read, in octets.
pub(crate) const OCTETS_MAX: u64 = 64 << 20;
/// The most mailboxes that a record names as those where its writer may commit.
const MAILBOXES_MAX: usize = 1 << 20;
/// The most journals of which a record tells the end. A run that writes to more notes them apart, on the way.
pub(crate) const HEADS_MAX: usize = 1 << 16;

const ACTIVE: u8 = 0;
const ENDED: u8 = 1;
const FENCE: u8 = 2;
const NOTED: u8 = 3;
const LOST: u8 = 4;

/// The most octets of mailboxes' names in the ends of journals that one record tells.
pub(crate) const HEADS_OCTETS_MAX: usize = 8 << 20;

/// Names a writer: random, drawn anew for every run, and again whenever a sweep has fenced it. The first octets of its packs' ids.
pub(crate) type Token = [u8; 8];

/// Names a run in its repository: its writer's token and the number of its last record, written `<16 hexadecimal digits>-<number>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId {
    writer: Token,
    number: u64,
}

impl RunId {
    pub(crate) const fn new(writer: Token, number: u64) -> Self {
        Self { writer, number }
    }

    /// The key of its record.
    pub(crate) fn key(self) -> String {
        run_key(&self.writer, self.number)
    }

    /// The run whose record is under this key.
    pub(crate) fn of_key(key: &str) -> Option<Self> {
        let (writer, number) = key.strip_prefix(RUNS)?.split_once('-')?;
        let run = Self { writer: from_hex(writer)?, number: counter_from_hex(number)? };
        (run.key() == key).then_some(run)
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", hex(&self.writer), self.number)
    }
}

impl FromStr for RunId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parsed = text
            .split_once('-')
            .and_then(|(writer, number)| Some(Self { writer: from_hex(writer)?, number: number.parse().ok()? }));
        parsed.ok_or_else(|| {
            Error::invalid(format!("'{text}' does not name a run: 16 hexadecimal digits, '-', a number"))
        })
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for RunId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A record of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RunRecord {
    /// The run goes on, or died.
    Active(Active),
    /// The run ended in good order: everything that it began to write is there.
    Ended(Box<Ended>),
    /// A sweep ended the chain.
    Fence {
        /// Nanoseconds since 1970.
        written: u64,
        /// Which sweep.
        epoch: u64,
    },
    /// The end of a repair, which is no run: it only says where journals end.
    Noted(Box<Ended>),
    /// A repair found this record damaged, and what it said is lost. If it is a chain's last one, nobody knows whether its writer lives.
    Lost {
        /// Nanoseconds since 1970.
        written: u64,
    },
}

/// Where a run may commit from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Active {
    /// Nanoseconds since 1970.
    pub(crate) started: u64,
    /// Nanoseconds since 1970.
    pub(crate) written: u64,
    /// The mailboxes to whose journals it may commit, and to no others.
    pub(crate) mailboxes: Vec<MailboxName>,
}

/// What a run did, and where the journals that it wrote to stood at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    /// Nanoseconds since 1970.
    pub(crate) started: u64,
    /// Nanoseconds since 1970.
    pub(crate) written: u64,
    pub(crate) ledger: Ledger,
    /// The journals that this run wrote to.
    pub(crate) heads: Vec<JournalHead>,
}

/// Creates a record, and gives its length; `None` if another's has that number: then the chain is fenced.
pub(crate) async fn create_run_record(
    repository: &Repository,
    token: &Token,
    number: u64,
    record: &RunRecord,
) -> Result<Option<u64>> {
    let key = run_key(token, number);
    let octets = repository.seal_object(ObjectKind::Run, &key, &record.encode())?;
    let length = octets.len() as u64;
    Ok(repository.create(&key, &octets.into()).await?.then_some(length))
}

/// The record of this number, if there is one.
pub(crate) async fn read_run_record(repository: &Repository, token: &Token, number: u64) -> Result<Option<RunRecord>> {
    let key = run_key(token, number);
    match repository.read_small(&key, OCTETS_MAX).await {
        Ok(octets) => RunRecord::open(repository, &key, &octets).map(Some),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The ends of journals as records can tell them: no more in each than one may have.
pub(crate) fn parts_of_heads(heads: Vec<JournalHead>) -> Vec<Vec<JournalHead>> {
    let (mut parts, mut part, mut octets) = (Vec::new(), Vec::new(), 0);
    for head in heads {
        let length = head.mailbox.as_bytes().len();
        if part.len() >= HEADS_MAX || octets + length > HEADS_OCTETS_MAX {
            parts.push(std::mem::take(&mut part));
            octets = 0;
        }
        octets += length;
        part.push(head);
    }
    parts.push(part);
    parts
}

/// Notes where journals end, in a chain of its own that is a single record; gives its length.
pub(crate) async fn note_heads(repository: &Repository, started: u64, heads: Vec<JournalHead>) -> Result<u64> {
    let noted = Ended { started, written: repository.now(), ledger: Ledger::default(), heads };
    let token = repository.new_token()?;
    let length = create_run_record(repository, &token, 0, &RunRecord::Noted(Box::new(noted))).await?;
    length.ok_or_else(|| Error::internal("a token was drawn twice"))
}

/// Puts a record in the place of one that is damaged, or that tells of commits that are lost. The chain's numbers stay as they are.
pub(crate) async fn replace_run_record(repository: &Repository, key: &str, record: &RunRecord) -> Result<()> {
    let octets = repository.seal_object(ObjectKind::Run, key, &record.encode())?;
    repository.store().put(key, octets.into()).await
}

/// The chains that there are: for each writer the numbers of its records, in order.
pub(crate) async fn chains(repository: &Repository) -> Result<BTreeMap<Token, Vec<u64>>> {
    let mut chains: BTreeMap<Token, Vec<u64>> = BTreeMap::new();
    let mut listing = repository.store().list(RUNS);
    while let Some(object) = listing.try_next().await? {
        if let Some(RunId { writer, number }) = RunId::of_key(&object.key) {
            chains.entry(writer).or_default().push(number);
        }
    }
    chains.values_mut().for_each(|numbers| numbers.sort_unstable());
    Ok(chains)
}

/// The key of a record.
pub(crate) fn run_key(token: &Token, number: u64) -> String {
    format!("{RUNS}{}-{number:016x}", hex(token))
}

/// The commits of a journal, to be compared with what runs recorded.
#[derive(Clone, Debug)]
pub(crate) struct Heads {
    /// By sequence.
    pub(crate) digests: BTreeMap<u64, Digest>,
    /// Those up to here may be gone, for they are forgotten.
    forgotten_until: Option<u64>,
}

impl Heads {
    /// Of a journal that was loaded with all its commits.
    pub(crate) fn of(journal: &Journal) -> Self {
        let living = journal.commits.iter().filter(|commit| !commit.forgotten);
        let digests = living.map(|commit| (commit.sequence, commit.digest)).collect();
        Self { digests, forgotten_until: journal.forgotten_until() }
    }

    /// Whether a commit that a run recorded is what the journal has, or is forgotten.
    pub(crate) fn agree(&self, head: &JournalHead) -> bool {
        match self.digests.get(&head.sequence) {
            Some(digest) => *digest == head.digest,
            None => self.forgotten_until.is_some_and(|until| head.sequence <= until),
        }
    }
}

impl RunRecord {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.number(SCHEMA);
        match self {
            Self::Active(Active { started, written, mailboxes }) => {
                out.push(ACTIVE);
                out.number(*started);
                out.number(*written);
                out.number(mailboxes.len() as u64);
                mailboxes.iter().for_each(|mailbox| out.octets(mailbox.as_bytes()));
            }
            Self::Ended(ended) => {
                out.push(ENDED);
                ended.encode(&mut out);
            }
            Self::Fence { written, epoch } => {
                out.push(FENCE);
                out.number(*written);
                out.number(*epoch);
            }
            Self::Noted(noted) => {
                out.push(NOTED);
                noted.encode(&mut out);
            }
            Self::Lost { written } => {
                out.push(LOST);
                out.number(*written);
            }
        }
        out
    }

    /// Opens the record in the object under `key`.
    pub(crate) fn open(repository: &Repository, key: &str, octets: &[u8]) -> Result<Self> {
        let payload = repository.open_object(ObjectKind::Run, key, octets)?;
        let mut decoder = Decoder::new(&payload);
        if decoder.number()? != SCHEMA {
            return Err(Error::new(ErrorKind::Unsupported, "a run record is of an unknown version"));
        }
        let record = match decoder.byte()? {
            ACTIVE => {
                let (started, written) = (decoder.number()?, decoder.number()?);
                let mailboxes =
                    (0..decoder.count_up_to(1, MAILBOXES_MAX)?).map(|_| Ok(MailboxName::new(decoder.octets()?)));
                Self::Active(Active { started, written, mailboxes: mailboxes.collect::<Result<_>>()? })
            }
            ENDED => Self::Ended(Box::new(Ended::decode(&mut decoder)?)),
            FENCE => Self::Fence { written: decoder.number()?, epoch: decoder.counter()? },
            NOTED => Self::Noted(Box::new(Ended::decode(&mut decoder)?)),
            LOST => Self::Lost { written: decoder.number()? },
            _ => return Err(Error::new(ErrorKind::Unsupported, "a run record is of an unknown kind")),
        };
        decoder.end()?;
        Ok(record)
    }
}

impl Ended {
    fn encode(&self, out: &mut Vec<u8>) {
        out.number(self.started);
        out.number(self.written);
        numbers(&mut self.ledger.clone()).iter().for_each(|number| out.number(**number));
        out.number(self.ledger.incomplete.len() as u64);
        for incomplete in &self.ledger.incomplete {
            out.octets(incomplete.name.as_bytes());
            out.octets(incomplete.reason.as_bytes());
        }
        counts(&REASONS, &self.ledger.messages.reasons, out);
        counts(&EXCLUSIONS, &self.ledger.messages.exclusions, out);
        out.number(self.heads.len() as u64);
        for head in &self.heads {
            out.octets(head.mailbox.as_bytes());
            out.number(head.sequence);
            out.extend_from_slice(head.digest.as_bytes());
        }
    }

    fn decode(decoder: &mut Decoder<'_>) -> Result<Self> {
        let (started, written) = (decoder.number()?, decoder.number()?);
        let ledger = ledger(decoder)?;
        let heads = (0..decoder.count_up_to(34, HEADS_MAX)?)
            .map(|_| {
                let mailbox = MailboxName::new(decoder.octets()?);
                Ok(JournalHead { mailbox, sequence: decoder.counter()?, digest: Digest::new(decoder.array()?) })
            })
            .collect::<Result<_>>()?;
        Ok(Self { started, written, ledger, heads })
    }
}

/// What a ledger counts, in the order in which a record tells it.
fn numbers(ledger: &mut Ledger) -> [&mut u64; 17] {
    let Ledger { messages, changes, bytes, objects, mailboxes, incomplete_unnamed, .. } = ledger;
    [
        &mut messages.seen,
        &mut messages.stored,
        &mut messages.unchanged,
        &mut messages.quarantined,
        &mut messages.excluded,
        &mut messages.pending,
        &mut changes.flags,
        &mut changes.moved,
        &mut changes.gone,
        &mut bytes.read,
        &mut bytes.content,
        &mut bytes.duplicate,
        &mut bytes.compressed,
        &mut bytes.written,
        objects,
        mailboxes,
        incomplete_unnamed,
    ]
}

fn ledger(decoder: &mut Decoder<'_>) -> Result<Ledger> {
    let mut ledger = Ledger::default();
    for number in numbers(&mut ledger) {
        *number = decoder.number()?;
    }
    for _ in 0..decoder.count_up_to(2, Ledger::INCOMPLETE_MAX)? {
        let (name, reason) = (decoder.text()?.to_owned(), decoder.text()?.to_owned());
        ledger.incomplete.push(Incomplete { name, reason });
    }
    ledger.messages.reasons = counted(&REASONS, decoder)?;
    ledger.messages.exclusions = counted(&EXCLUSIONS, decoder)?;
    Ok(ledger)
}

/// How often each of some kinds was counted; a kind's number is its place, from 1.
fn counts<K: Ord>(kinds: &[K], counted: &BTreeMap<K, u64>, out: &mut Vec<u8>) {
    let numbered = kinds.iter().zip(1_u8..).filter_map(|(kind, number)| Some((number, counted.get(kind)?)));
    let numbered: Vec<(u8, &u64)> = numbered.collect();
    out.number(numbered.len() as u64);
    for (number, count) in numbered {
        out.push(number);
        out.number(*count);
    }
}

fn counted<K: Ord + Copy>(kinds: &[K], decoder: &mut Decoder<'_>) -> Result<BTreeMap<K, u64>> {
    let mut counted = BTreeMap::new();
    for _ in 0..decoder.count(2)? {
        let (number, count) = (decoder.byte()?, decoder.number()?);
        let kind = usize::from(number).checked_sub(1).and_then(|at| kinds.get(at));
        let unknown = || Error::new(ErrorKind::Unsupported, "a run record counts what this version does not know");
        counted.insert(*kind.ok_or_else(unknown)?, count);
    }
    Ok(counted)
}
