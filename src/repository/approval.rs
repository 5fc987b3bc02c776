//! Approvals: that somebody looked at a run that did not go as it should, and why it is good enough.

use super::{Repository, RunId};
use crate::error::{Error, ErrorKind, Result};
use crate::seal::ObjectKind;
use crate::store::{Created, Payload};
use crate::wire::{Decoder, Encode};

/// Where approvals are, under the runs' names.
pub(crate) const APPROVALS: &str = "approvals/";
/// The version of the object's content.
const SCHEMA: u64 = 1;
/// The longest reason, in octets of UTF-8.
const WHY_MAX: usize = 4096;
/// The longest approval that is read, in octets.
pub(crate) const OCTETS_MAX: u64 = 8 << 10;

/// Why a run that is neither perfect nor good is good enough.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Approval {
    /// The reason, in the words of whoever approved.
    pub why: String,
    /// When it was approved: nanoseconds since 1970.
    pub time: u64,
}

impl Approval {
    /// Records the approval of a run.
    pub(crate) async fn write(repository: &Repository, run: RunId, why: &str) -> Result<Self> {
        if why.trim().is_empty() || why.len() > WHY_MAX {
            return Err(Error::invalid(format!("an approval says why, in 1 to {WHY_MAX} octets")));
        }
        let approval = Self { why: why.to_owned(), time: repository.now() };
        let mut payload = Vec::new();
        payload.number(SCHEMA);
        payload.number(approval.time);
        payload.octets(approval.why.as_bytes());
        let key = key(run);
        let octets = repository.seal_object(ObjectKind::Approval, &key, &payload)?;
        match repository.store().create(&key, Payload::from(octets)).await? {
            Created::New => Ok(approval),
            Created::Exists => match Self::read(repository, run).await? {
                // An answer was lost, and this is ours.
                Some(found) if found == approval => Ok(approval),
                _ => Err(Error::new(ErrorKind::Exists, format!("run {run} is approved already"))),
            },
        }
    }

    /// The approval of a run, if there is one.
    pub(crate) async fn read(repository: &Repository, run: RunId) -> Result<Option<Self>> {
        let key = key(run);
        let octets = match repository.read_small(&key, OCTETS_MAX).await {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            octets => octets?,
        };
        Self::open(repository, &key, &octets).map(Some)
    }

    /// Opens the approval under this key.
    pub(crate) fn open(repository: &Repository, key: &str, octets: &[u8]) -> Result<Self> {
        let payload = repository.open_object(ObjectKind::Approval, key, octets)?;
        let mut decoder = Decoder::new(&payload);
        if decoder.number()? != SCHEMA {
            return Err(Error::new(ErrorKind::Unsupported, "an approval is of an unknown version"));
        }
        let (time, why) = (decoder.number()?, decoder.text()?.to_owned());
        decoder.end()?;
        Ok(Self { why, time })
    }
}

fn key(run: RunId) -> String {
    format!("{APPROVALS}{run}")
}
