//! The objects of a simulated object store, and what can be asked of it.

use crate::files::Machine;
use bytes::Bytes;
use mailrail::store::{Created, Listed};
use mailrail::{Error, ErrorKind, Result};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

/// What keeps objects.
pub enum Backend {
    Objects(Objects),
    Files(Machine),
}

/// Whether conditional writes hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conditions {
    Hold,
    /// A create overwrites whatever is there.
    Ignored,
    /// A create looks first and writes then: of racing ones several win.
    Raced,
}

/// What is asked for.
#[derive(Clone, Debug)]
pub enum Call {
    Put(String, Bytes),
    Create(String, Bytes),
    Read(String, Option<Range<u64>>),
    Length(String),
    List(String),
    Delete(String),
    /// Nothing: time goes by, in which a blow may fall.
    Idle,
    /// Nothing for so many microseconds.
    Sleep(u64),
}

/// What is answered.
#[derive(Debug)]
pub enum Answer {
    Done,
    Created(Created),
    Octets(Bytes),
    Length(Option<u64>),
    Listed(Vec<Listed>),
}

pub type Reply = Result<Answer>;

pub struct Objects {
    pub conditions: Conditions,
    objects: BTreeMap<String, Bytes>,
    /// How many creates overwrote another object.
    pub overwritten: u64,
}

impl Call {
    pub fn is_write(&self) -> bool {
        matches!(self, Self::Put(..) | Self::Create(..) | Self::Delete(..))
    }

    /// The object that is asked for, or how the names of several begin.
    pub fn key(&self) -> &str {
        match self {
            Self::Put(key, _)
            | Self::Create(key, _)
            | Self::Read(key, _)
            | Self::Length(key)
            | Self::List(key)
            | Self::Delete(key) => key,
            Self::Idle | Self::Sleep(_) => "",
        }
    }

    /// Nothing is asked of the store.
    pub fn is_rest(&self) -> bool {
        matches!(self, Self::Idle | Self::Sleep(_))
    }

    pub fn is_commit(&self) -> bool {
        self.journal().is_some()
    }

    /// The journal at whose end something is to be created: its name, as keys begin with it.
    pub fn journal(&self) -> Option<&str> {
        match self {
            Self::Create(key, _) if key.starts_with("mailboxes/") => key.rsplit_once('/').map(|(journal, _)| journal),
            _ => None,
        }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put(key, octets) => write!(f, "put {key} ({} octets)", octets.len()),
            Self::Create(key, octets) => write!(f, "create {key} ({} octets)", octets.len()),
            Self::Read(key, Some(range)) => write!(f, "read {key} {range:?}"),
            Self::Read(key, None) => write!(f, "read {key}"),
            Self::Length(key) => write!(f, "length {key}"),
            Self::List(prefix) => write!(f, "list '{prefix}'"),
            Self::Delete(key) => write!(f, "delete {key}"),
            Self::Idle => write!(f, "idle"),
            Self::Sleep(time) => write!(f, "sleep {time}"),
        }
    }
}

impl Objects {
    pub fn new(conditions: Conditions) -> Self {
        Self { conditions, objects: BTreeMap::new(), overwritten: 0 }
    }

    pub fn has(&self, key: &str) -> bool {
        self.objects.contains_key(key)
    }

    /// Writes, and tells whether another object was there.
    pub fn put(&mut self, key: &str, octets: &Bytes) -> bool {
        let before = self.objects.insert(key.to_owned(), octets.clone());
        before.is_some_and(|before| before != *octets)
    }

    pub fn apply(&mut self, call: &Call) -> Reply {
        Ok(match call {
            Call::Put(key, octets) => {
                self.put(key, octets);
                Answer::Done
            }
            Call::Create(key, octets) => {
                if self.has(key) && self.conditions != Conditions::Ignored {
                    return Ok(Answer::Created(Created::Exists));
                }
                self.overwritten += u64::from(self.put(key, octets));
                Answer::Created(Created::New)
            }
            Call::Read(key, range) => Answer::Octets(self.read(key, range.as_ref())?),
            Call::Length(key) => Answer::Length(self.objects.get(key).map(|octets| octets.len() as u64)),
            Call::List(prefix) => Answer::Listed(self.list(prefix)),
            Call::Delete(key) => {
                self.objects.remove(key);
                Answer::Done
            }
            Call::Idle | Call::Sleep(_) => Answer::Done,
        })
    }

    fn read(&self, key: &str, range: Option<&Range<u64>>) -> Result<Bytes> {
        let absent = || Error::new(ErrorKind::NotFound, format!("there is no object '{key}'"));
        let octets = self.objects.get(key).ok_or_else(absent)?;
        let Some(range) = range else { return Ok(octets.clone()) };
        let cut = |end: u64| end.min(octets.len() as u64) as usize;
        Ok(octets.slice(cut(range.start)..cut(range.end)))
    }

    fn list(&self, prefix: &str) -> Vec<Listed> {
        let below = self.objects.range(prefix.to_owned()..).take_while(|(key, _)| key.starts_with(prefix));
        below.map(|(key, octets)| Listed { key: key.clone(), length: octets.len() as u64 }).collect()
    }
}
