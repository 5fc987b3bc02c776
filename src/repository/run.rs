//! Run records: the root of a repository. What a run did, and where the journals it wrote stood at its end.

use super::Repository;
use super::journal::JournalHead;
use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result};
use crate::ledger::{Incomplete, Ledger};
use crate::message::MailboxName;
use crate::seal::ObjectKind;
use crate::wire::{Decoder, Encode, from_hex, hex};
use std::fmt;
use std::str::FromStr;

/// The version of the record's content.
const SCHEMA: u64 = 1;

/// Names a run in its repository: its writer's token and the number of its record, written `<16 hexadecimal digits>-<number>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId {
    writer: [u8; 8],
    number: u64,
}

impl RunId {
    /// The key of its record.
    pub(crate) fn key(self) -> String {
        format!("runs/{}/{:016x}", hex(&self.writer), self.number)
    }

    /// The run whose record is under this key.
    pub(crate) fn of_key(key: &str) -> Option<Self> {
        let mut names = key.split('/').skip(1);
        let (writer, number) = (from_hex(names.next()?)?, u64::from_be_bytes(from_hex(names.next()?)?));
        let run = Self { writer, number };
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

/// What a run recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RunRecord {
    /// Nanoseconds since 1970.
    pub(crate) started: u64,
    /// Nanoseconds since 1970.
    pub(crate) written: u64,
    /// The run ended in good order; a record without this mark is of a run that went on, or died.
    pub(crate) ended: bool,
    pub(crate) ledger: Ledger,
    /// The journals that this run wrote to.
    pub(crate) heads: Vec<JournalHead>,
}

/// Writes the records of one run.
#[derive(Debug)]
pub(crate) struct RunWriter {
    repository: Repository,
}

impl RunWriter {
    pub(crate) fn new(repository: Repository) -> Self {
        Self { repository }
    }

    /// Writes a record under the next number and gives its name and length.
    pub(crate) async fn write(&self, record: &RunRecord) -> Result<(RunId, u64)> {
        let run = RunId { writer: self.repository.writer(), number: self.repository.next_run() };
        let key = run.key();
        let octets = self.repository.seal_object(ObjectKind::Run, &key, &record.encode())?;
        let length = octets.len() as u64;
        self.repository.store().put(&key, octets.into()).await?;
        Ok((run, length))
    }
}

impl RunRecord {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.number(SCHEMA);
        out.number(self.started);
        out.number(self.written);
        out.push(u8::from(self.ended));
        numbers(&self.ledger).iter().for_each(|number| out.number(*number));
        out.number(self.ledger.incomplete.len() as u64);
        for incomplete in &self.ledger.incomplete {
            out.octets(incomplete.name.as_bytes());
            out.octets(incomplete.reason.as_bytes());
        }
        out.number(self.heads.len() as u64);
        for head in &self.heads {
            out.octets(head.mailbox.as_bytes());
            out.number(head.sequence);
            out.extend_from_slice(head.digest.as_bytes());
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
        let (started, written, ended) = (decoder.number()?, decoder.number()?, decoder.byte()? != 0);
        let ledger = ledger(&mut decoder)?;
        let heads = (0..decoder.count(34)?)
            .map(|_| {
                let mailbox = MailboxName::new(decoder.octets()?);
                Ok(JournalHead { mailbox, sequence: decoder.number()?, digest: Digest::new(decoder.array()?) })
            })
            .collect::<Result<_>>()?;
        decoder.end()?;
        Ok(Self { started, written, ended, ledger, heads })
    }
}

fn numbers(ledger: &Ledger) -> [u64; 16] {
    let Ledger { messages, changes, bytes, objects, mailboxes, .. } = ledger;
    [
        messages.seen,
        messages.stored,
        messages.unchanged,
        messages.quarantined,
        messages.excluded,
        messages.pending,
        changes.flags,
        changes.moved,
        changes.gone,
        bytes.read,
        bytes.content,
        bytes.duplicate,
        bytes.compressed,
        bytes.written,
        *objects,
        *mailboxes,
    ]
}

fn ledger(decoder: &mut Decoder<'_>) -> Result<Ledger> {
    let mut ledger = Ledger::default();
    let Ledger { messages, changes, bytes, objects, mailboxes, .. } = &mut ledger;
    for number in [
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
    ] {
        *number = decoder.number()?;
    }
    for _ in 0..decoder.count(2)? {
        let (name, reason) = (decoder.text()?.to_owned(), decoder.text()?.to_owned());
        ledger.incomplete.push(Incomplete { name, reason });
    }
    Ok(ledger)
}
